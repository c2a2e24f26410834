//! Golden configurations and generated files. `UPDATE_GOLDEN=1` rewrites what is expected.

mod guards;
mod listeners;
mod origins;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::decode::{Decode, Presence, Shape, Trail};
use super::model::{DiskTier, HostPattern, KeyPolicy, MemoryTier};
use super::node::{Node, Value};
use super::{Config, Errors, effective, from_bytes, needs_restart, parse, reference, schema};
use crate::http_cache::Policy;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn update() -> bool {
    std::env::var_os("UPDATE_GOLDEN").is_some()
}

/// The environment of all golden files.
fn environment(name: &str) -> Option<OsString> {
    match name {
        "FORELAND_ADMIN_TOKEN" => Some("correct horse battery staple".into()),
        "DEPLOY_TOKEN" => Some("correct horse of the deployment".into()),
        "SCRAPE_TOKEN" => Some("correct horse of the scraper".into()),
        "TICKETS" => Some("correct horse of the session tickets".into()),
        "TICKETS_OLD" => Some("correct horse of yesterday's session tickets".into()),
        "VIDEO_KEY" => Some("correct horse of the videos, as it is now".into()),
        "VIDEO_KEY_OLD" => Some("correct horse of the videos, as it was".into()),
        // "correct horse of Akamai"
        "AKAMAI_KEY" => Some("636F727265637420686f727365206f6620416b616d6169".into()),
        "SIXTEEN" => Some("correct horse, 1".into()),
        "SHORT" => Some("horse".into()),
        "SHORT_HEX" => Some("00ff".into()),
        "EMPTY" => Some("".into()),
        _ => None,
    }
}

fn check(file: &Path) -> Result<Config, Errors> {
    let bytes = std::fs::read(file).unwrap();
    let base = root().join("tests/config");
    from_bytes(&bytes, file.file_name().map(Path::new), &base, &environment)
}

fn files(folder: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(root().join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .collect();
    files.sort();
    files
}

/// Compares with a file's text, or writes it.
fn assert_current(file: &Path, text: &str) -> bool {
    if update() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }
    let expected = std::fs::read_to_string(file).unwrap_or_default();
    if expected != text {
        eprintln!("--- {} expects\n{expected}--- but it is\n{text}", file.display());
    }
    expected == text
}

#[test]
fn bad_files_are_refused_as_expected() {
    let files = files("tests/config/bad");
    assert!(files.len() >= 45, "only {} files", files.len());
    let mut failed = Vec::new();
    for file in files {
        match check(&file) {
            Ok(_) => failed.push(format!("{}: accepted", file.display())),
            Err(errors) => {
                let text = format!("{errors}\n").replace(root().to_str().unwrap(), "ROOT");
                if !assert_current(&file.with_extension("err"), &text) {
                    failed.push(file.display().to_string());
                }
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn good_files_are_accepted_and_mean_the_same_when_printed() {
    let mut files: Vec<PathBuf> =
        ["tests/config/good", "conf", "conf/examples", "conf/examples/shield"].into_iter().flat_map(files).collect();
    assert!(files.len() >= 12, "only {} files", files.len());
    files.retain(|file| {
        let config = check(file).unwrap_or_else(|e| panic!("{e}"));
        let warnings = config.warnings.iter().map(|w| format!("{w}\n")).collect::<String>();
        let expected = file.with_extension("warnings");
        let current = match warnings.is_empty() {
            true => !expected.exists(),
            false => assert_current(&expected, &warnings),
        };
        let text = effective(&config);
        let again = from_bytes(text.as_bytes(), Some(Path::new("effective")), Path::new("/nowhere"), &environment)
            .unwrap_or_else(|e| panic!("{}: {e}\n{text}", file.display()));
        assert_same(&config, &again);
        assert_eq!(effective(&again), text);
        assert!(!text.contains("correct horse"), "a secret is printed");
        assert!(!format!("{config:?}").contains("correct horse"), "a secret is printed");
        !current
    });
    assert!(files.is_empty(), "{files:#?}");
}

fn assert_same(a: &Config, b: &Config) {
    assert_eq!(a.threads, b.threads);
    assert_eq!(a.drain, b.drain);
    assert_eq!(a.pid_file, b.pid_file);
    assert_eq!(a.upgrade_socket, b.upgrade_socket);
    assert_eq!(a.trusted_proxies, b.trusted_proxies);
    assert_eq!(a.listeners, b.listeners);
    assert_eq!(a.admin, b.admin);
    assert_eq!(a.access_log, b.access_log);
    assert_eq!(a.memory, b.memory);
    assert_eq!(a.disks, b.disks);
    assert_eq!(a.background_fetches, b.background_fetches);
    assert_eq!(a.limits, b.limits);
    assert_eq!(a.overload, b.overload);
    assert_eq!(a.session_ticket_secrets, b.session_ticket_secrets);
    assert_eq!(a.geo, b.geo);
    assert_eq!(a.keys, b.keys);
    assert_eq!(a.origins, b.origins);
    assert_eq!(a.sites, b.sites);
}

#[test]
fn generated_pages_are_current() {
    assert!(assert_current(&root().join("docs/configuration.md"), &reference()), "run with UPDATE_GOLDEN=1");
    assert!(assert_current(&root().join("conf/foreland.schema.json"), &schema()), "run with UPDATE_GOLDEN=1");
}

#[test]
fn the_schema_accepts_good_files() {
    let schema: Json = serde_json::from_str(&schema()).unwrap();
    for file in ["tests/config/good", "conf", "conf/examples", "conf/examples/shield"].into_iter().flat_map(files) {
        let node = Node::parse(&std::fs::read_to_string(&file).unwrap()).unwrap();
        if let Err(why) = valid(&schema, &schema, &json_of(&node)) {
            panic!("{}: {why}", file.display());
        }
    }
    let node = Node::parse("listeners: [{address: 1.2.3.4:80, typo: 1}]\norigins: {}\nsites: []\n").unwrap();
    assert!(valid(&schema, &schema, &json_of(&node)).is_err(), "the schema accepts anything");
}

fn json_of(node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Bool(b) => json!(b),
        Value::Number(n) => n.parse::<u64>().map_or_else(|_| json!(0.5), |n| json!(n)),
        Value::Text(t) => json!(t),
        Value::List(items) => items.iter().map(json_of).collect(),
        Value::Map(entries) => entries.iter().map(|e| (e.key.clone(), json_of(&e.node))).collect(),
    }
}

/// As much of JSON Schema as our own schema uses, patterns aside.
fn valid(root: &Json, schema: &Json, value: &Json) -> Result<(), String> {
    if let Some(target) = schema["$ref"].as_str() {
        let target = root.pointer(target.trim_start_matches('#')).ok_or("a dangling $ref")?;
        return valid(root, target, value);
    }
    if let Some(any) = schema["anyOf"].as_array() {
        let tries: Vec<_> = any.iter().map(|s| valid(root, s, value)).collect();
        return if tries.iter().any(Result::is_ok) { Ok(()) } else { Err(format!("{value}: {tries:?}")) };
    }
    if let Some(words) = schema["enum"].as_array() {
        return words.contains(value).then_some(()).ok_or(format!("{value} is none of {words:?}"));
    }
    match schema["type"].as_str() {
        Some("boolean") if value.is_boolean() => Ok(()),
        Some("string") if value.is_string() => Ok(()),
        Some("integer") => {
            let n = value.as_u64().ok_or(format!("{value} is no number"))?;
            let (min, max) = (schema["minimum"].as_u64().unwrap(), schema["maximum"].as_u64().unwrap());
            (min..=max).contains(&n).then_some(()).ok_or(format!("{n} is out of range"))
        }
        Some("array") => {
            let items = value.as_array().ok_or(format!("{value} is no list"))?;
            if (items.len() as u64) < schema["minItems"].as_u64().unwrap() {
                return Err("too short".to_owned());
            }
            items.iter().try_for_each(|item| valid(root, &schema["items"], item))
        }
        Some("object") => {
            let map = value.as_object().ok_or(format!("{value} is no mapping"))?;
            for name in schema["required"].as_array().into_iter().flatten() {
                map.get(name.as_str().unwrap()).ok_or(format!("{name} is missing"))?;
            }
            map.iter().try_for_each(|(key, value)| {
                let of = schema["properties"].get(key).unwrap_or(&schema["additionalProperties"]);
                if *of == json!(false) {
                    return Err(format!("unknown {key}"));
                }
                valid(root, of, value).map_err(|why| format!("{key}: {why}"))
            })
        }
        _ => Err(format!("{value} is not {}", schema["type"])),
    }
}

/// Every default is a text that its own reader accepts, and every key is documented.
#[test]
fn declarations_are_sound() {
    fn visit(shape: &Shape, seen: &mut Vec<&'static str>) {
        match shape {
            Shape::List { of, .. } | Shape::Map { of, .. } => visit(of, seen),
            Shape::Any(shapes) => shapes.iter().for_each(|s| visit(s, seen)),
            Shape::Keys(keys) => {
                let keys = keys();
                if seen.contains(&keys.name) {
                    return;
                }
                seen.push(keys.name);
                assert!(!keys.doc.trim().is_empty());
                for field in keys.fields {
                    assert!(field.doc.trim().ends_with(['.', '`']), "{}.{}: {}", keys.name, field.name, field.doc);
                    assert_ne!(field.presence, Presence::Default(""));
                    visit(&(field.shape)(), seen);
                }
            }
            _ => {}
        }
    }
    let mut seen = Vec::new();
    visit(&super::raw::Root::shape(), &mut seen);
    assert_eq!(seen.len(), 42, "{seen:?}");
}

const SMALL: &str = "\
listeners: [{address: '127.0.0.1:8080'}]
origins: {a: {servers: ['127.0.0.1:9000']}}
sites: [{hosts: ['*'], origin: a}]
";

fn small(more: &str) -> Config {
    parse(&format!("{SMALL}{more}"), None, Path::new("/etc/foreland")).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn what_is_left_out_has_the_documented_default() {
    let config = small("");
    assert_eq!(config.drain, Duration::from_secs(30));
    assert_eq!(config.memory.size, 512 << 20);
    assert_eq!(config.disks, []);
    assert_eq!(config.limits.header_size, 32 << 10);
    assert_eq!(config.limits.body_size, None);
    assert!(config.access_log.is_some());
    assert!(config.admin.is_none() && config.trusted_proxies.is_empty() && config.upgrade_socket.is_none());
    assert_eq!(config.sites[0].policy.cache, Some(Policy::default()));
    assert_eq!(config.sites[0].policy.key, KeyPolicy::default());
    assert_eq!(config.sites[0].hosts, [HostPattern::Any]);
    assert_eq!(config.origins[0].retries, 2);
    // What the page says of the cache's keys is what `Policy` does.
    let said = small("").sites[0].policy.clone();
    let text = SMALL.replace(
        "origin: a}",
        "origin: a, cache: {override: false, heuristics: true, store_set_cookie: false, ttl_by_status: {}, \
         ignore_client_cache_control: false, key: {query: all, sort: false, headers: [], cookies: []}, vary: {accept_encoding: [], accept_language: []}, \
         tiers: [memory, disk], after: 1, tags: [Surrogate-Key, Cache-Tag], strip_tags: false}}",
    );
    assert_eq!(parse(&text, None, Path::new("/")).unwrap().sites[0].policy, said);
    let counted = |within: &str| {
        let text = SMALL.replace("origin: a}", &format!("origin: a, cache: {{after: 2{within}}}}}"));
        parse(&text, None, Path::new("/")).unwrap().sites[0].policy.clone()
    };
    assert_eq!(counted(""), counted(", within: 1h"));
}

#[test]
fn a_disk_is_as_said_or_as_documented() {
    let one = small("cache: {disk: {path: /a, size: 2GiB}}\n");
    let (path, size) = (PathBuf::from("/a"), 2 << 30);
    assert_eq!(one.disks, [DiskTier { path: path.clone(), size, max_object: size, max_objects: None, min_free: 0 }]);
    let all = small(
        "cache: {memory: off, disk: [{path: /b, size: 1MiB}, \
         {path: /a, size: 2GiB, max_object: 1GiB, max_objects: 7, min_free: 3KiB}]}\n",
    );
    let second = DiskTier { path, size, max_object: 1 << 30, max_objects: Some(7), min_free: 3 << 10 };
    assert_eq!((all.disks.len(), all.disks.get(1)), (2, Some(&second)));
    assert_eq!(all.memory, MemoryTier { size: 0, max_object: 0 });
}

#[test]
fn a_route_refines_where_and_when_its_site_stores() {
    let text = SMALL.replace(
        "origin: a}",
        "origin: a, cache: {tiers: [memory], after: 3, within: 10m}, routes: [\
           {match: {path: /a}, cache: {tiers: [disk], within: 20m}},\
           {match: {path: /b}, cache: {tiers: [memory, disk], after: 1}},\
           {match: {path: /c}, cache: {after: 15}}]}",
    );
    let config = parse(&format!("{text}cache: {{disk: {{path: d, size: 1GiB}}}}\n"), None, Path::new("/")).unwrap();
    let site = &config.sites[0];
    let in_force = |policy: &super::model::RequestPolicy| {
        let policy = policy.cache.as_ref().unwrap();
        ((policy.tiers.memory, policy.tiers.disk), policy.after, policy.within.as_secs())
    };
    assert_eq!(in_force(&site.policy), ((true, false), 3, 600));
    assert_eq!(in_force(&site.routes[0].policy), ((false, true), 3, 1200));
    assert_eq!(in_force(&site.routes[1].policy), ((true, true), 1, 3600));
    assert_eq!(in_force(&site.routes[2].policy), ((true, false), 15, 600));
}

#[test]
fn a_route_refines_its_site_key_by_key() {
    let text = SMALL.replace(
        "origin: a}",
        "origin: a, cache: {ttl: 1h, heuristics: false, key: {query: none, headers: [X-A]}}, routes: [\
           {match: {path: /a}, cache: {max_ttl: 2h, key: {headers: []}}},\
           {match: {path: /b}, cache: off},\
           {match: {path: /c}}]}",
    );
    let config = parse(&text, None, Path::new("/")).unwrap();
    let site = &config.sites[0];
    let refined = &site.routes[0].policy;
    let policy = refined.cache.as_ref().unwrap();
    assert_eq!((policy.ttl, policy.max_ttl), (Some(Duration::from_secs(3600)), Some(Duration::from_secs(7200))));
    assert!(!policy.heuristics);
    assert_eq!(refined.key.query, super::model::QueryKey::None);
    assert!(refined.key.headers.is_empty());
    assert_eq!(site.routes[1].policy.cache, None);
    let (inherited, own) = (&site.routes[2].policy, &site.policy);
    assert_eq!((&inherited.cache, &inherited.key, inherited.origin), (&own.cache, &own.key, own.origin));
}

#[test]
fn a_route_refines_which_fields_list_tags() {
    let text = SMALL.replace(
        "origin: a}",
        "origin: a, cache: {tags: X-Tags, strip_tags: true}, routes: [\
           {match: {path: /a}, cache: {tags: [cache-tag, X-Tags]}},\
           {match: {path: /b}, cache: {tags: off}},\
           {match: {path: /c}, cache: {strip_tags: false}}]}",
    );
    let config = parse(&text, None, Path::new("/")).unwrap();
    let site = &config.sites[0];
    let in_force = |policy: &super::model::RequestPolicy| {
        let policy = policy.cache.as_ref().unwrap();
        (policy.tags.iter().map(|field| field.to_string()).collect::<Vec<_>>().join(" "), policy.strip_tags)
    };
    assert_eq!(in_force(&site.policy), ("x-tags".to_owned(), true));
    assert_eq!(in_force(&site.routes[0].policy), ("cache-tag x-tags".to_owned(), true));
    // There is nothing that would not be sent.
    assert_eq!(in_force(&site.routes[1].policy), (String::new(), false));
    assert_eq!(in_force(&site.routes[2].policy), ("x-tags".to_owned(), false));
}

#[test]
fn a_route_can_turn_the_cache_on() {
    let text = SMALL.replace(
        "origin: a}",
        "origin: a, cache: off, routes: [{match: {path: /a}, cache: {ttl: 1h}}, {match: {path: /b}, cache: on}]}",
    );
    let site = &parse(&text, None, Path::new("/")).unwrap().sites[0];
    assert_eq!(site.policy.cache, None);
    assert_eq!(site.routes[0].policy.cache.as_ref().unwrap().ttl, Some(Duration::from_secs(3600)));
    assert_eq!(site.routes[1].policy.cache, Some(Policy::default()));
}

#[test]
fn relative_paths_start_at_the_file() {
    let config = small(
        "pid_file: run/pid\naccess_log: {path: log}\nadmin: {address: 'unix:s'}\nupgrade_socket: /abs\n\
         cache: {disk: {path: cache, size: 1GiB}}\n",
    );
    assert_eq!(config.pid_file.as_deref(), Some(Path::new("/etc/foreland/run/pid")));
    assert_eq!(config.upgrade_socket.as_deref(), Some(Path::new("/abs")));
    assert_eq!(config.disks[0].path, Path::new("/etc/foreland/cache"));
    assert_eq!(config.admin.unwrap().address, super::model::AdminAddress::Unix("/etc/foreland/s".into()));
}

#[test]
fn restart_is_needed_only_where_a_reload_does_not_reach() {
    let old = small("");
    assert!(needs_restart(&old, &small("drain: 1s\nlimits: {connections: 5}\n")).is_empty());
    let new = small(
        "threads: 1000\npid_file: p\nupgrade_socket: u\ncache: {memory: {size: 1GiB}}\nadmin: {address: '127.0.0.1:1'}\n",
    );
    let keys = ["threads", "pid_file", "upgrade_socket", "admin.address", "cache.memory.size"];
    assert_eq!(needs_restart(&old, &new), keys);
    let disks = |disks: &str| small(&format!("cache: {{disk: [{disks}]}}\n"));
    let (a, b) = ("{path: /a, size: 1GiB}", "{path: /b, size: 1GiB}");
    let both = disks(&format!("{a}, {b}"));
    assert_eq!(needs_restart(&old, &both), ["cache.disk"]);
    assert_eq!(needs_restart(&both, &disks(a)), ["cache.disk"]);
    assert_eq!(needs_restart(&both, &disks(&format!("{b}, {a}"))), ["cache.disk"]);
    assert_eq!(needs_restart(&disks(a), &disks(b)), ["cache.disk"]);
    let limits = "{path: /a, size: 2GiB, max_object: 1KiB, max_objects: 9, min_free: 1MiB}";
    assert!(needs_restart(&both, &disks(&format!("{limits}, {b}"))).is_empty());
    let off = small(&format!("cache: {{memory: off, disk: {a}}}\n"));
    assert_eq!(needs_restart(&disks(a), &off), ["cache.memory"]);
    assert_eq!(needs_restart(&off, &disks(a)), ["cache.memory"]);
    let listener = |new: &str| parse(&SMALL.replace("8080'}", new), None, Path::new("/")).unwrap();
    assert_eq!(needs_restart(&old, &listener("8081'}")), ["listeners"]);
    assert!(needs_restart(&old, &listener("8080', h2c: true}")).is_empty());
}

#[test]
fn the_admin_api_follows_a_reload_at_its_address() {
    let admin = |keys: &str| {
        let text = format!("{SMALL}admin: {{{keys}}}\n");
        from_bytes(text.as_bytes(), None, Path::new("/"), &environment).unwrap_or_else(|e| panic!("{e}"))
    };
    let old = admin("address: 'unix:s', tokens: [{name: a, token: env:DEPLOY_TOKEN, role: purge}]");
    let tokens = &old.admin.as_ref().unwrap().tokens;
    assert_eq!(tokens.iter().map(|t| (t.name.as_str(), t.role.as_str())).collect::<Vec<_>>(), [("a", "purge")]);
    assert!(needs_restart(&old, &admin("address: 'unix:s', token: env:SCRAPE_TOKEN")).is_empty());
    assert_eq!(needs_restart(&old, &admin("address: 'unix:t'")), ["admin.address"]);
}

#[test]
fn the_hash_tells_texts_apart() {
    let (a, b) = (small(""), small("# a comment\n"));
    assert_eq!(a.hash.len(), 16);
    assert_ne!(a.hash, b.hash);
    assert_eq!(a.hash, small("").hash);
}

#[test]
fn unreadable_files_say_why() {
    let missing = super::load(Path::new("/nonexistent/foreland.yaml")).unwrap_err().to_string();
    assert!(missing.starts_with("/nonexistent/foreland.yaml: cannot be opened: "), "{missing}");
    let folder = super::load(&root().join("src")).unwrap_err().to_string();
    assert!(folder.contains("cannot be read"), "{folder}");
    let empty = parse("# nothing\n", None, Path::new("/")).unwrap_err().to_string();
    assert!(empty.contains("the file is empty"), "{empty}");
}

proptest::proptest! {
    /// Whatever the text, there is an answer.
    #[test]
    fn no_text_panics(
        lines in proptest::collection::vec("( |  |- ){0,3}(sites|hosts|origin|cache|ttl|match|path|x|<<)?:? ?[a-z0-9*&\\[\\]{}\"',:!-]{0,12}", 0..12)
    ) {
        _ = parse(&lines.join("\n"), None, Path::new("/"));
    }
}

/// A trail that is its own root has no name.
#[test]
fn the_root_has_no_path() {
    assert_eq!(Trail::ROOT.to_string(), "");
    assert_eq!(Trail::ROOT.key("a").index(2).key("b.c").to_string(), "a[2][\"b.c\"]");
}

/// The page for operators names each cache setting, and its examples are right.
#[test]
fn the_caching_page_is_current() {
    let page = std::fs::read_to_string(root().join("docs/caching.md")).unwrap();
    let Shape::Keys(keys) = super::raw::Cache::shape() else { panic!("cache settings are a mapping") };
    for field in keys().fields {
        let said = page.lines().any(|line| line.starts_with(&format!("**`{}`**", field.name)));
        assert!(said, "docs/caching.md does not tell of `{}`", field.name);
    }
    let examples = right_examples(&page);
    assert!(examples >= 12, "{examples}");
}

#[test]
fn the_examples_of_the_purging_page_are_right() {
    let page = std::fs::read_to_string(root().join("docs/purging.md")).unwrap();
    let examples = right_examples(&page);
    assert!(examples >= 3, "{examples}");
}

/// Examples there are settings of one origin, whole origins, or the content of a `servers_file`.
#[test]
fn the_examples_of_the_origins_page_are_right() {
    let page = std::fs::read_to_string(root().join("docs/origins.md")).unwrap();
    let base = root().join("tests/config");
    let secret = |_: &str| Some("correct horse of the origins page".into());
    let mut shown = String::new();
    for example in page.split("```yaml\n").skip(1) {
        let example = example.split("```").next().unwrap();
        shown.push_str(example);
        if example.starts_with("- ") {
            let servers = super::servers_list(example, &base);
            assert!(servers.as_ref().is_ok_and(|servers| !servers.is_empty()), "{example}: {servers:?}");
            continue;
        }
        let (origins, name) = match example.strip_prefix("origins:\n  ") {
            Some(rest) => (example.to_owned(), rest.split(':').next().unwrap()),
            None => {
                let servers =
                    if example.contains("servers:") { "" } else { "    servers: [10.0.0.1:80, 10.0.0.2:80]\n" };
                let settings: String = example.lines().map(|line| format!("    {line}\n")).collect();
                (format!("origins:\n  a:\n{servers}{settings}"), "a")
            }
        };
        let text = format!(
            "listeners: [{{address: \"127.0.0.1:1\"}}]\n{origins}sites: [{{hosts: [\"*\"], origin: {name}}}]\n"
        );
        let read = from_bytes(text.as_bytes(), None, &base, &secret);
        let config = read.unwrap_or_else(|e| panic!("{text}: {e}"));
        assert!(config.warnings.is_empty(), "{text}: {:?}", config.warnings);
    }
    // Each key that the page is to tell of is there to be copied.
    for key in [
        "balance",
        "sticky",
        "health_check",
        "outliers",
        "retry",
        "limits",
        "hedge",
        "servers_file",
        "tls",
        "proxy_protocol",
    ] {
        assert!(shown.lines().any(|line| line.trim_start().starts_with(&format!("{key}:"))), "no example of {key}");
    }
}

/// Examples there are whole files, but for what is said elsewhere on the page.
#[test]
fn the_examples_of_the_pages_on_security_are_right() {
    for (page, least) in [("security", 1), ("tls", 3), ("guards", 1)] {
        let text = std::fs::read_to_string(root().join(format!("docs/{page}.md"))).unwrap();
        let base = root().join("tests/config");
        let examples: Vec<&str> = text.split("```yaml\n").skip(1).filter_map(|it| it.split("```").next()).collect();
        assert!(examples.len() >= least, "{page}: {}", examples.len());
        for example in examples {
            let mut whole = example.replace("/etc/foreland", &base.display().to_string());
            for (key, usual) in [
                ("listeners:", "listeners: [{address: \"127.0.0.1:1\"}]\n"),
                ("origins:", "origins: {a: {servers: [\"127.0.0.1:2\"]}}\n"),
                ("sites:", "sites: [{hosts: [\"*\"], origin: a}]\n"),
            ] {
                if !example.lines().any(|line| line.starts_with(key)) {
                    whole.push_str(usual);
                }
            }
            let read = from_bytes(whole.as_bytes(), None, &base, &environment);
            assert!(read.is_ok(), "{page}: {whole}: {}", read.unwrap_err());
        }
    }
}

/// Reads each example of a page as what its first key says that it is: settings of a site, a route, or the file's. How
/// many there are.
fn right_examples(page: &str) -> usize {
    let mut examples = 0;
    for example in page.split("```yaml\n").skip(1) {
        let example = example.split("```").next().unwrap();
        let indented = |by: &str| example.lines().map(|line| format!("{by}{line}\n")).collect::<String>();
        let start = "listeners: [{address: \"127.0.0.1:1\"}]\norigins: {a: {servers: [\"127.0.0.1:2\"]}}\n";
        let site = "sites:\n  - hosts: [\"*\"]\n    origin: a\n";
        let text = match example.split(':').next().unwrap() {
            "cache" | "purge" => format!("{start}{site}{}", indented("    ")),
            "- match" => format!("{start}{site}    routes:\n{}", indented("      ")),
            "sites" => format!("{start}{}", example.replace("    cache:", "    origin: a\n    cache:")),
            _ => format!("{start}{site}{example}"),
        };
        let read = from_bytes(text.as_bytes(), None, &root().join("tests/config"), &environment);
        assert!(read.is_ok(), "{text}: {}", read.unwrap_err());
        examples += 1;
    }
    examples
}
