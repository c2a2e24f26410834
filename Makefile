# Foreland. `make help` lists what there is.

# Cargo may live where a non-login shell does not look.
export PATH := $(PATH):$(HOME)/.cargo/bin

CARGO  ?= cargo
PREFIX ?= /usr/local
# Where configuration and the unit go; both below DESTDIR, as all that `install` writes.
CONFDIR ?= /etc/foreland
UNITDIR ?= $(PREFIX)/lib/systemd/system

BINARY := target/release/foreland
# The oldest Rust that Cargo.toml allows.
RUST := $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

.DEFAULT_GOAL := help
.PHONY: help run build check test docs bench deny install clean need-build need-test need-bench need-rust

help:
	@sed -n 's/^## //p' $(MAKEFILE_LIST)

## make run      build, then start the demo: an edge before three embedded origins
run: build
	./$(BINARY) demo

## make build    the release binary, in target/release
build: need-build
	@$(CARGO) build --release --locked

# check and test use one profile, the same features and no flags of their own, so that Cargo compiles the C libraries,
# the build scripts and the macros once for both.

## make check    formatting and lints
check: need-test
	@$(CARGO) fmt --check
	@$(CARGO) clippy --quiet --all-targets --locked -- -D warnings

## make test     check, then all tests
test: check
	@$(CARGO) test --locked

## make docs     write anew what is generated: reference pages and expected outputs; look at the diff
docs: need-build
	@UPDATE_GOLDEN=1 $(CARGO) test --locked --lib
	@UPDATE_GOLDEN=1 $(CARGO) test --locked --test it explain::the_page

## make bench    side by side with nginx (ARGS="--seconds 5 --workloads hit,zipf")
bench: need-bench build
	@python3 bench/compare.py $(ARGS)

## make deny     licences, advisories and sources of the dependencies, through cargo-deny
deny: need-rust
	@command -v cargo-deny >/dev/null || { echo "cargo-deny is missing: cargo install --locked cargo-deny" >&2; exit 1; }
	@$(CARGO) deny --locked check

## make install  binary, systemd unit and a configuration that is not there yet (DESTDIR, PREFIX, CONFDIR, UNITDIR)
# Builds nothing, so that it may run as root after a build as someone else.
install:
	@test -x $(BINARY) || { echo "$(BINARY) is missing: make build" >&2; exit 1; }
	install -D -m 0755 $(BINARY) "$(DESTDIR)$(PREFIX)/bin/foreland"
	install -d "$(DESTDIR)$(UNITDIR)"
	sed -e 's|/usr/local/bin/foreland|$(PREFIX)/bin/foreland|g' -e 's|/etc/foreland|$(CONFDIR)|g' systemd/foreland.service > "$(DESTDIR)$(UNITDIR)/foreland.service"
	test -e "$(DESTDIR)$(CONFDIR)/foreland.yaml" || install -D -m 0644 conf/foreland.yaml "$(DESTDIR)$(CONFDIR)/foreland.yaml"
	@test -n "$(DESTDIR)" || getent passwd foreland >/dev/null || echo "The unit runs as a user who is not there yet: useradd --system --no-create-home --shell /usr/sbin/nologin foreland"

## make clean    remove what was built
clean:
	@$(CARGO) clean

# What is needed: silent where it is there; else installed with apt-get by root or a passwordless sudo, or named.
# $(1): a command that succeeds where the thing is there; $(2): its Debian packages.
lacks = $(1) >/dev/null 2>&1 || packages="$$packages $(2)";
define provide
	@packages=; $(1) \
	if [ -n "$$packages" ]; then \
		echo "Needed:$$packages"; \
		if ! command -v apt-get >/dev/null; then as=none; elif [ "$$(id -u)" = 0 ]; then as=; elif sudo -n true 2>/dev/null; then as=sudo; else as=none; fi; \
		if [ "$$as" = none ]; then echo "Install them first, on Debian: apt-get install$$packages" >&2; exit 1; fi; \
		$$as apt-get update -q && $$as env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$packages || exit 1; \
	fi
endef

# The include proves the C library's headers, which a compiler alone does not have.
CC_WORKS := printf '\043include <stdlib.h>\n' | cc -E -

need-rust:
	@have="$$($(CARGO) --version 2>/dev/null | cut -d' ' -f2)"; \
	if [ -z "$$have" ]; then why="Rust is missing"; \
	elif [ "$$(printf '%s\n' "$(RUST)" "$$have" | sort -V | head -n1)" != "$(RUST)" ]; then why="Rust $$have is too old"; \
	else exit 0; fi; \
	echo "$$why: $(RUST) or newer is needed. See https://rustup.rs, or: rustup update stable" >&2; exit 1

need-build: need-rust
	$(call provide,$(call lacks,$(CC_WORKS),gcc libc6-dev) $(call lacks,command -v cmake,cmake))

need-test: need-build
	@for tool in fmt clippy; do \
		$(CARGO) $$tool --version >/dev/null 2>&1 || { echo "cargo $$tool is missing: rustup component add rustfmt clippy" >&2; exit 1; }; \
	done

need-bench:
	$(call provide,$(call lacks,command -v python3,python3) $(call lacks,command -v taskset,util-linux) $(call lacks,PATH="$$PATH:/usr/sbin" command -v nginx,nginx) $(call lacks,command -v wrk,wrk))
