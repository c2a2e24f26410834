//! The whole policy as YAML, every default filled in.

mod guards;
mod listener;
mod origins;

use std::path::Path;
use std::time::Duration;

use super::decode::{Decode, Presence, Shape};
use super::model::{
    Config, DiskTier, Guard, KeyPart, KeyPolicy, LogFormat, LogPath, Matcher, MemoryTier, PurgeMethod, QueryKey,
    RateLimit, RequestPolicy, Route, Site, ValueMatch,
};
use super::raw;
use super::units::{show_duration, show_size};
use super::words::{Rate, show_key_part};
use crate::http_cache::Policy;

/// The configuration as YAML that means the same: defaults filled in, a route's cache settings merged with its site's,
/// paths absolute, secrets by reference.
pub fn effective(config: &Config) -> String {
    let mut out = String::new();
    root(config).write(&mut out, 0);
    out
}

/// Every cache setting in force, by its name below `cache` (`ttl`, `key.query`) and with its value in YAML, on one line.
/// A setting that has no value has the word for what then holds.
pub fn cache_settings(policy: &Policy, key: &KeyPolicy) -> Vec<(String, String)> {
    let mut settings = Vec::new();
    list_settings(&cache(policy, key), &raw::Cache::shape(), "", &mut settings);
    settings
}

/// Every guard in force, by its key (`rate_limit`) and with its value in YAML, on one line.
pub fn guard_settings(guard: &Guard, config: &Config) -> Vec<(String, String)> {
    let mut map = Fields::default();
    guards::guard(&mut map, guard, None, config);
    map.0.into_iter().map(|(name, value)| (name, value.inline())).collect()
}

/// What a limit counts by, in the words of the file.
pub fn show_key(parts: &[KeyPart]) -> String {
    parts.iter().map(show_key_part).collect::<Vec<_>>().join(" and ")
}

/// A limit's rate, in the words of the file.
pub fn show_rate(limit: &RateLimit) -> String {
    Rate { requests: limit.requests, per: limit.per }.show()
}

/// The keys of a mapping as declared, so that none is forgotten; those of the mappings in it follow their parent's name.
fn list_settings(values: &Yaml, shape: &Shape, prefix: &str, settings: &mut Vec<(String, String)>) {
    let (Yaml::Map(values), Shape::Keys(keys)) = (values, shape) else { return };
    for field in keys().fields {
        let name = format!("{prefix}{}", field.name);
        let value = values.iter().find(|(name, _)| name == field.name).map(|(_, value)| value);
        match (value, (field.shape)(), field.presence) {
            (Some(value), shape @ Shape::Keys(_), _) => list_settings(value, &shape, &format!("{name}."), settings),
            (Some(value), ..) => settings.push((name, value.inline())),
            (None, _, Presence::Absent(meaning) | Presence::Default(meaning)) => {
                settings.push((name, meaning.trim_matches('`').to_owned()));
            }
            (None, _, Presence::Required) => {}
        }
    }
}

/// As much of YAML as is written here.
enum Yaml {
    /// Written as it is.
    Plain(String),
    /// Quoted where a reader would take it for something else.
    Text(String),
    List(Vec<Yaml>),
    Map(Vec<(String, Yaml)>),
}

fn root(config: &Config) -> Yaml {
    let mut map = Fields::default();
    map.plain("threads", config.threads);
    map.add("drain", duration(config.drain));
    map.option("pid_file", config.pid_file.as_deref().map(path));
    map.option("upgrade_socket", config.upgrade_socket.as_deref().map(path));
    map.add("trusted_proxies", list(&config.trusted_proxies, text));
    map.add("listeners", list(&config.listeners, listener::listener));
    map.option("admin", config.admin.as_ref().map(listener::admin));
    map.add(
        "access_log",
        match &config.access_log {
            None => text("off"),
            Some(log) => {
                let mut map = Fields::default();
                map.add("path", if let LogPath::File(file) = &log.path { path(file) } else { text("stdout") });
                map.add("format", text(if log.format == LogFormat::Json { "json" } else { "combined" }));
                map.done()
            }
        },
    );
    let mut cache = Fields::default();
    cache.add("memory", memory(config.memory));
    match config.disks.as_slice() {
        [] => {}
        [one] => cache.add("disk", disk(one)),
        many => cache.add("disk", list(many, disk)),
    }
    cache.plain("background_fetches", config.background_fetches);
    map.add("cache", cache.done());
    map.add("limits", listener::limits(&config.limits));
    map.option("overload", listener::overload(&config.overload));
    if !config.session_ticket_secrets.is_empty() {
        map.add("session_ticket_secrets", list(&config.session_ticket_secrets, |secret| text(&secret.1)));
    }
    map.option("geo", guards::geo(&config.geo));
    if !config.keys.is_empty() {
        map.add("keys", Yaml::Map(config.keys.iter().map(|key| (key.name.to_string(), guards::key(key))).collect()));
    }
    let origins = config.origins.iter().map(|o| (o.name.clone(), origins::origin(o))).collect();
    map.add("origins", Yaml::Map(origins));
    map.add("sites", list(&config.sites, |s| site(s, config)));
    map.done()
}

fn memory(tier: MemoryTier) -> Yaml {
    if tier.size == 0 {
        return text("off");
    }
    let mut map = Fields::default();
    map.add("size", size(tier.size));
    map.add("max_object", size(tier.max_object));
    map.done()
}

fn disk(disk: &DiskTier) -> Yaml {
    let mut map = Fields::default();
    map.add("path", path(&disk.path));
    map.add("size", size(disk.size));
    map.add("max_object", size(disk.max_object));
    map.option("max_objects", disk.max_objects.map(|most| Yaml::Plain(most.to_string())));
    map.add("min_free", size(disk.min_free));
    map.done()
}

fn site(site: &Site, config: &Config) -> Yaml {
    let mut map = Fields::default();
    map.add("name", text(&site.name));
    map.add("hosts", list(&site.hosts, text));
    policy(&mut map, &site.policy, None, config);
    map.option("purge", site.purge.as_ref().map(purge));
    map.add("routes", list(&site.routes.iter().enumerate().collect::<Vec<_>>(), |(i, r)| route(*i, r, config)));
    map.done()
}

fn purge(method: &PurgeMethod) -> Yaml {
    let mut map = Fields::default();
    map.option("from", method.from.as_ref().map(|networks| list(networks, text)));
    map.option("token", method.token.as_ref().map(|secret| text(&secret.1)));
    map.plain("soft", method.soft);
    map.done()
}

fn route(index: usize, route: &Route, config: &Config) -> Yaml {
    let mut map = Fields::default();
    if *route.name != *format!("routes[{index}]") {
        map.add("name", text(&route.name));
    }
    map.add("match", matcher(&route.matcher));
    policy(&mut map, &route.policy, route.matcher.client.secure, config);
    map.done()
}

fn matcher(matcher: &Matcher) -> Yaml {
    let mut map = Fields::default();
    let filled = |list: Yaml| match &list {
        Yaml::List(items) if items.is_empty() => None,
        Yaml::Map(pairs) if pairs.is_empty() => None,
        _ => Some(list),
    };
    map.option("path", filled(list(&matcher.path, text)));
    map.option("extensions", filled(list(&matcher.extensions, text)));
    map.option("methods", filled(list(&matcher.methods, text)));
    map.option("headers", filled(expectations(&matcher.headers)));
    map.option("query", filled(expectations(&matcher.query)));
    guards::client(&mut map, &matcher.client);
    map.done()
}

fn expectations(pairs: &[(String, ValueMatch)]) -> Yaml {
    let value = |value: &ValueMatch| match value {
        ValueMatch::Present => Yaml::Plain("true".to_owned()),
        ValueMatch::Absent => Yaml::Plain("false".to_owned()),
        ValueMatch::Equals(wanted) => text(wanted),
    };
    Yaml::Map(pairs.iter().map(|(name, wanted)| (name.clone(), value(wanted))).collect())
}

/// `secure`: whether the requests come by https, where the route says it.
fn policy(map: &mut Fields, policy: &RequestPolicy, secure: Option<bool>, config: &Config) {
    map.option("origin", config.origins.get(policy.origin).map(|origin| text(&origin.name)));
    map.add(
        "cache",
        match &policy.cache {
            None => text("off"),
            Some(rules) => cache(rules, &policy.key),
        },
    );
    guards::guard(map, &policy.guard, secure, config);
}

fn cache(policy: &Policy, key: &KeyPolicy) -> Yaml {
    let mut map = Fields::default();
    map.option("ttl", policy.ttl.map(duration));
    map.plain("override", policy.override_origin);
    map.option("max_ttl", policy.max_ttl.map(duration));
    map.option("stale_while_revalidate", policy.stale_while_revalidate.map(duration));
    map.option("stale_if_error", policy.stale_if_error.map(duration));
    // Beside `override: true` it has no effect, and saying so is refused.
    if !(policy.override_origin && policy.heuristics) {
        map.plain("heuristics", policy.heuristics);
    }
    map.plain("store_set_cookie", policy.store_set_cookie);
    let by_status = policy.ttl_by_status.iter().map(|(status, ttl)| (status.to_string(), duration(*ttl))).collect();
    map.add("ttl_by_status", Yaml::Map(by_status));
    map.plain("ignore_client_cache_control", policy.ignore_client_cache_control);
    let mut fields = Fields::default();
    let lists = |name: &str, names: &[String]| Yaml::Map(vec![(name.to_owned(), list(names, text))]);
    fields.add(
        "query",
        match &key.query {
            QueryKey::All => text("all"),
            QueryKey::None => text("none"),
            QueryKey::Only(names) => lists("only", names),
            QueryKey::Ignore(names) => lists("ignore", names),
        },
    );
    fields.plain("sort", key.sort);
    fields.add("headers", list(&key.headers, text));
    fields.add("cookies", list(&key.cookies, text));
    map.add("key", fields.done());
    let mut vary = Fields::default();
    vary.add("accept_encoding", list(&policy.vary.accept_encoding, text));
    vary.add("accept_language", list(&policy.vary.accept_language, text));
    map.add("vary", vary.done());
    let tiers = [("memory", policy.tiers.memory), ("disk", policy.tiers.disk)];
    map.add("tiers", Yaml::List(tiers.iter().filter(|(_, kept)| *kept).map(|(name, _)| text(name)).collect()));
    map.plain("after", policy.after);
    // Beside `after: 1` it has no effect, and saying so is refused.
    if policy.after > 1 {
        map.add("within", duration(policy.within));
    }
    map.add(
        "tags",
        if policy.tags.is_empty() { text("off") } else { list(&policy.tags, |field| text(field.as_str())) },
    );
    map.plain("strip_tags", policy.strip_tags);
    map.done()
}

#[derive(Default)]
struct Fields(Vec<(String, Yaml)>);

impl Fields {
    fn add(&mut self, key: &str, value: Yaml) {
        self.0.push((key.to_owned(), value));
    }

    fn plain(&mut self, key: &str, value: impl ToString) {
        self.add(key, Yaml::Plain(value.to_string()));
    }

    fn option(&mut self, key: &str, value: Option<Yaml>) {
        if let Some(value) = value {
            self.add(key, value);
        }
    }

    fn done(self) -> Yaml {
        Yaml::Map(self.0)
    }
}

fn text(value: impl ToString) -> Yaml {
    Yaml::Text(value.to_string())
}

fn path(path: &Path) -> Yaml {
    text(path.display())
}

fn duration(duration: Duration) -> Yaml {
    text(show_duration(duration))
}

fn size(bytes: u64) -> Yaml {
    text(show_size(bytes))
}

fn list<'a, T>(items: &'a [T], one: impl Fn(&'a T) -> Yaml) -> Yaml {
    Yaml::List(items.iter().map(one).collect())
}

impl Yaml {
    /// Writes block style, `indent` spaces deep, from the start of a line.
    fn write(&self, out: &mut String, indent: usize) {
        match self {
            Yaml::Map(pairs) => {
                for (i, (key, value)) in pairs.iter().enumerate() {
                    // The first pair of a mapping in a list stands after the dash.
                    if i > 0 || out.is_empty() || out.ends_with('\n') {
                        out.push_str(&" ".repeat(indent));
                    }
                    out.push_str(&quoted(key));
                    out.push(':');
                    value.write_value(out, indent + 2);
                }
            }
            Yaml::List(items) => {
                for item in items {
                    out.push_str(&" ".repeat(indent));
                    out.push('-');
                    match item {
                        Yaml::Map(pairs) if !pairs.is_empty() => {
                            out.push(' ');
                            item.write(out, indent + 2);
                        }
                        _ => item.write_value(out, indent + 2),
                    }
                }
            }
            Yaml::Plain(_) | Yaml::Text(_) => self.write_value(out, indent),
        }
    }

    /// In flow style, on one line.
    fn inline(&self) -> String {
        match self {
            Yaml::Plain(value) => value.clone(),
            Yaml::Text(value) => quoted(value),
            Yaml::List(items) => format!("[{}]", items.iter().map(Yaml::inline).collect::<Vec<_>>().join(", ")),
            Yaml::Map(pairs) => {
                let pair = |(key, value): &(String, Yaml)| format!("{}: {}", quoted(key), value.inline());
                format!("{{{}}}", pairs.iter().map(pair).collect::<Vec<_>>().join(", "))
            }
        }
    }

    /// Writes what follows a colon or a dash, to the end of its last line.
    fn write_value(&self, out: &mut String, indent: usize) {
        match self {
            Yaml::Plain(value) => out.push_str(&format!(" {value}\n")),
            Yaml::Text(value) => out.push_str(&format!(" {}\n", quoted(value))),
            Yaml::List(items) if items.iter().all(|i| matches!(i, Yaml::Plain(_) | Yaml::Text(_))) => {
                out.push_str(&format!(" {}\n", self.inline()));
            }
            Yaml::Map(pairs) if pairs.is_empty() => out.push_str(" {}\n"),
            _ => {
                out.push('\n');
                self.write(out, indent);
            }
        }
    }
}

/// Plain where every YAML reader takes it for the same text, else in double quotes.
fn quoted(text: &str) -> String {
    let first = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/');
    let fits = text.chars().all(|c| c.is_ascii_alphanumeric() || "_./:%-".contains(c));
    // `on`, `off`, `yes` and `no` are texts in YAML 1.2 and booleans in 1.1: both readings are accepted.
    let special = ["true", "false", "null", "~"].contains(&text.to_ascii_lowercase().as_str());
    let number = text.parse::<f64>().is_ok() || ["0x", "0o", "0b"].iter().any(|p| text.starts_with(p));
    if first && fits && !special && !number && !text.ends_with(':') {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                out.push_str(&format!("\\U{:08X}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
