//! Guards. What has no effect beside something else is left out: saying it would be refused.

use super::{Fields, Yaml, duration, expectations, list, path, size, text};
use crate::config::model::{
    Access, Bandwidth, ClientMatcher, ConcurrencyLimit, Config, Geo, Guard, Hsts, Https, KeyPart, Networks, OverRate,
    Piece, PublicKey, RateLimit, Referers, Secret, UrlFormat, UrlKey,
};
use crate::config::units::show_size;
use crate::config::words::{AkamaiWord, Rate, show_expression, show_key_part};

/// `None`: there are no databases.
pub(super) fn geo(geo: &Geo) -> Option<Yaml> {
    let mut map = Fields::default();
    map.option("country", geo.country.as_deref().map(path));
    map.option("asn", geo.asn.as_deref().map(path));
    map.option("country_header", geo.country_header.as_ref().map(text));
    map.option("asn_header", geo.asn_header.as_ref().map(text));
    (!map.0.is_empty()).then(|| map.done())
}

pub(super) fn key(key: &UrlKey) -> Yaml {
    let mut map = Fields::default();
    let mut timeless = false;
    match &key.format {
        UrlFormat::Foreland { secrets, parameter } => {
            map.add("format", text("foreland"));
            map.add("secrets", list(secrets, secret));
            map.add("parameter", text(parameter));
        }
        UrlFormat::SecureLink { secrets, expression, md5_parameter, expires_parameter } => {
            map.add("format", text("secure-link"));
            map.add("secrets", list(secrets, secret));
            map.add("expression", text(show_expression(expression)));
            map.add("md5_parameter", text(md5_parameter));
            timeless = !expression.contains(&Piece::Expires);
            if !timeless {
                map.add("expires_parameter", text(expires_parameter));
            }
        }
        UrlFormat::Akamai { secrets, parameter, algorithm, salt, field_delimiter, acl_delimiter, escape_early } => {
            map.add("format", text("akamai"));
            map.add("secrets", list(secrets, secret));
            map.add("parameter", text(parameter));
            map.add("algorithm", text(AkamaiWord::as_str(*algorithm)));
            map.option("salt", salt.as_ref().map(secret));
            map.add("field_delimiter", text(field_delimiter));
            map.add("acl_delimiter", text(acl_delimiter));
            map.plain("escape_early", escape_early);
        }
        UrlFormat::Cloudflare { secrets, parameter, lifetime } => {
            map.add("format", text("cloudflare"));
            map.add("secrets", list(secrets, secret));
            map.add("parameter", text(parameter));
            map.add("lifetime", duration(*lifetime));
        }
        UrlFormat::CloudFront { keys } => {
            map.add("format", text("cloudfront"));
            map.add("public_keys", public_keys(keys));
        }
        UrlFormat::Jwt { secrets, keys, parameter, issuers, audience } => {
            map.add("format", text("jwt"));
            if !secrets.is_empty() {
                map.add("secrets", list(secrets, secret));
            }
            if !keys.is_empty() {
                map.add("public_keys", public_keys(keys));
            }
            map.add("parameter", text(parameter));
            if !issuers.is_empty() {
                map.add("issuers", list(issuers, text));
            }
            map.option("audience", audience.as_ref().map(text));
        }
    }
    if !timeless {
        map.plain("expired", key.expired.as_u16());
        map.add("skew", duration(key.skew));
    }
    map.done()
}

fn secret(secret: &Secret) -> Yaml {
    text(&secret.1)
}

fn public_keys(keys: &[PublicKey]) -> Yaml {
    Yaml::Map(keys.iter().map(|key| (key.id.clone(), path(&key.path))).collect())
}

/// The guards of a site or route. `secure`: whether its requests come by https, where it says so; what it then has from its
/// site without effect, it may not say itself.
pub(super) fn guard(map: &mut Fields, guard: &Guard, secure: Option<bool>, config: &Config) {
    let off = || text("off");
    if secure != Some(true) || guard.https == Https::Optional {
        map.add(
            "https",
            text(match guard.https {
                Https::Optional => "optional",
                Https::Redirect => "redirect",
                Https::Required => "required",
            }),
        );
    }
    if secure != Some(false) || guard.hsts.is_none() {
        map.add("hsts", guard.hsts.as_ref().map_or_else(off, hsts));
    }
    map.add("access", guard.access.as_deref().map_or_else(off, access));
    let signers: Vec<&str> =
        guard.signed_url.iter().filter_map(|i| config.keys.get(*i)).map(|key| &*key.name).collect();
    map.add("signed_url", if signers.is_empty() { off() } else { list(&signers, text) });
    map.add("rate_limit", limits(&guard.rate_limits, |limit| rate_limit(limit)));
    map.add("concurrency_limit", limits(&guard.concurrency_limits, |limit| concurrency_limit(limit)));
    map.add("bandwidth", guard.bandwidth.as_ref().map_or_else(off, bandwidth));
    map.option("body_size", guard.body_size.map(|bytes| bytes.map_or_else(|| text("unlimited"), size)));
}

fn hsts(hsts: &Hsts) -> Yaml {
    let mut map = Fields::default();
    map.add("max_age", duration(hsts.max_age));
    map.plain("include_subdomains", hsts.include_subdomains);
    map.plain("preload", hsts.preload);
    map.done()
}

fn access(access: &Access) -> Yaml {
    let mut map = Fields::default();
    let mut filled = |key: &str, yaml: Yaml| match &yaml {
        Yaml::List(items) if items.is_empty() => {}
        Yaml::Map(pairs) if pairs.is_empty() => {}
        _ => map.add(key, yaml),
    };
    filled("allow", networks(&access.allow));
    filled("deny", networks(&access.deny));
    filled("allow_countries", countries(&access.allow_countries));
    filled("deny_countries", countries(&access.deny_countries));
    filled("allow_asns", numbers(&access.allow_asns));
    filled("deny_asns", numbers(&access.deny_asns));
    filled("methods", list(&access.methods, text));
    filled("headers", expectations(&access.headers));
    filled("deny_paths", list(&access.deny_paths, text));
    filled("deny_user_agents", list(&access.deny_user_agents, text));
    if let Some(Referers { hosts, none }) = &access.referers {
        let none = none.then(|| text("none"));
        filled("referers", Yaml::List(none.into_iter().chain(hosts.iter().map(text)).collect()));
    }
    filled("identities", list(&access.identities, text));
    if map.0.iter().any(|(key, _)| key != "methods") {
        map.plain("status", access.status.as_u16());
    }
    map.done()
}

fn networks(list: &[Networks]) -> Yaml {
    let each = list.iter().flat_map(|networks| match networks {
        Networks::These(networks) => networks.iter().map(text).collect(),
        Networks::File(path) => vec![text(format!("file:{}", path.display()))],
    });
    Yaml::List(each.collect())
}

fn countries(countries: &[[u8; 2]]) -> Yaml {
    list(countries, |country| text(country.map(char::from).iter().collect::<String>()))
}

fn numbers(numbers: &[u32]) -> Yaml {
    list(numbers, |number| Yaml::Plain(number.to_string()))
}

fn limits<T>(limits: &[T], one: impl Fn(&T) -> Yaml) -> Yaml {
    if limits.is_empty() { text("off") } else { list(limits, one) }
}

fn rate_limit(limit: &RateLimit) -> Yaml {
    let mut map = Fields::default();
    map.add("name", text(&limit.name));
    map.add("key", key_parts(&limit.key));
    map.add("rate", text(Rate { requests: limit.requests, per: limit.per }.show()));
    map.plain("burst", limit.burst);
    let (action, delay) = match limit.action {
        OverRate::Reject => ("reject", None),
        OverRate::Delay(longest) => ("delay", Some(longest)),
        OverRate::Log => ("log", None),
    };
    map.add("action", text(action));
    map.option("max_delay", delay.map(duration));
    map.plain("announce", limit.announce);
    map.done()
}

fn concurrency_limit(limit: &ConcurrencyLimit) -> Yaml {
    let mut map = Fields::default();
    map.add("name", text(&limit.name));
    map.add("key", key_parts(&limit.key));
    map.plain("requests", limit.requests);
    map.plain("status", limit.status.as_u16());
    map.done()
}

fn key_parts(parts: &[KeyPart]) -> Yaml {
    list(parts, |part| text(show_key_part(part)))
}

fn bandwidth(bandwidth: &Bandwidth) -> Yaml {
    let mut map = Fields::default();
    map.add("rate", text(format!("{}/s", show_size(bandwidth.rate))));
    map.add("after", size(bandwidth.after));
    map.done()
}

/// Conditions on who asks.
pub(super) fn client(map: &mut Fields, client: &ClientMatcher) {
    let filled = |yaml: Yaml| (!matches!(&yaml, Yaml::List(items) if items.is_empty())).then_some(yaml);
    map.option("clients", filled(list(&client.networks, text)));
    map.option("countries", filled(countries(&client.countries)));
    map.option("asns", filled(numbers(&client.asns)));
    map.option("identities", filled(list(&client.identities, text)));
    map.option("scheme", client.secure.map(|secure| text(if secure { "https" } else { "http" })));
}
