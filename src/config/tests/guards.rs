//! Guards: what their keys mean, and what holds without them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{SMALL, environment, root};
use crate::config::model::{
    AkamaiAlgorithm, Bandwidth, Config, Guard, HostPattern, Hsts, Https, KeyPart, Networks, OverRate, Piece,
    PublicKeyKind, Referers, RequestPolicy, UrlFormat, ValueMatch,
};
use crate::config::{Errors, from_bytes, guard_settings, needs_restart};

fn read(text: &str) -> Result<Config, Errors> {
    from_bytes(text.as_bytes(), None, &root().join("tests/config"), &environment)
}

/// A site with further keys.
fn site(more: &str) -> Config {
    read(&SMALL.replace("origin: a}", &format!("origin: a{more}}}"))).unwrap_or_else(|e| panic!("{e}"))
}

fn guard(more: &str) -> std::sync::Arc<RequestPolicy> {
    site(more).sites[0].policy.clone()
}

fn all() -> Config {
    read(&std::fs::read_to_string(root().join("tests/config/good/guards.yaml")).unwrap()).unwrap()
}

#[test]
fn what_is_left_out_has_the_documented_default() {
    assert_eq!(guard("").guard, Guard::default());
    let said = ", https: optional, hsts: off, access: off, signed_url: off, rate_limit: off, concurrency_limit: off, \
                bandwidth: off";
    assert_eq!(guard(said), guard(""));
    let limits = guard(", rate_limit: {rate: 50/s}, concurrency_limit: {requests: 3}").clone();
    let spelt = guard(
        ", rate_limit: [{name: '*', key: [client-ip], rate: 50/1s, burst: 50, action: reject, announce: false}], \
         concurrency_limit: [{name: '*', key: client-ip, requests: 3, status: 429}]",
    );
    assert_eq!(limits, spelt);
    let delay = guard(", rate_limit: {rate: 1/s, action: delay}");
    assert_eq!(delay, guard(", rate_limit: {rate: 1/s, action: delay, max_delay: 1s, burst: 1}"));
    assert_eq!(guard(", bandwidth: {rate: 1KiB/s}"), guard(", bandwidth: {rate: 1024B/s, after: 0B}"));
    assert_eq!(guard(", access: {deny: ['::1']}"), guard(", access: {deny: ['::1'], status: 403, allow: []}"));
    let key = |more: &str| {
        let text = format!("keys: {{k: {{{more}, secrets: env:AKAMAI_KEY}}}}");
        read(&format!("{}{text}\n", SMALL.replace("origin: a}", "origin: a, signed_url: k}"))).unwrap().keys
    };
    let usual = "expired: 403, skew: 0s";
    for (short, long) in [
        ("format: foreland", "parameter: token"),
        (
            "format: secure-link",
            "expression: '$secure_link_expires$uri$remote_addr $secret', md5_parameter: md5, expires_parameter: expires",
        ),
        (
            "format: akamai",
            "parameter: hdnts, algorithm: sha256, field_delimiter: '~', acl_delimiter: '!', escape_early: false",
        ),
        ("format: cloudflare, lifetime: 1m", "parameter: verify"),
        ("format: jwt", "parameter: URISigningPackage"),
    ] {
        assert_eq!(key(short), key(&format!("{short}, {long}, {usual}")));
    }
    assert_eq!(guard(", hsts: on"), guard(", hsts: {max_age: 365d, include_subdomains: false, preload: false}"));
    assert_eq!(guard(", hsts: on"), guard(", hsts: {}"));
}

/// That each key reaches the field that it is named after.
#[test]
fn keys_reach_their_fields() {
    let config = all();
    let base = root().join("tests/config");
    let geo = &config.geo;
    assert_eq!(geo.country.as_deref(), Some(&*base.join("geo/country.mmdb")));
    assert_eq!(geo.asn.as_deref(), Some(&*base.join("geo/asn.mmdb")));
    assert_eq!((geo.country_header.as_deref(), geo.asn_header.as_deref()), (Some("x-country"), Some("x-asn")));
    let policy = &config.sites[0].policy;
    let guard = &policy.guard;
    assert_eq!(guard.https, Https::Redirect);
    let max_age = Duration::from_secs(730 * 86_400);
    assert_eq!(guard.hsts, Some(Hsts { max_age, include_subdomains: true, preload: true }));
    assert_eq!(guard.bandwidth, Some(Bandwidth { rate: 1 << 20, after: 10 << 20 }));
    assert_eq!(guard.body_size, Some(Some(10 << 20)));
    assert_eq!(guard.signed_url, [0, 2, 3, 4, 5, 6, 7, 8, 9]);
    let access = guard.access.as_ref().unwrap();
    let nets = |nets: &[&str]| Networks::These(nets.iter().map(|net| net.parse().unwrap()).collect());
    let file = |name: &str| Networks::File(base.join(name));
    assert_eq!(access.allow, [nets(&["10.0.0.0/8", "2001:db8::/32", "192.0.2.1/32"]), file("lists/office.txt")]);
    assert_eq!(access.deny, [nets(&["10.6.6.6/32"]), file("lists/nobody.txt")]);
    assert_eq!((&*access.allow_countries, &*access.deny_countries), (&[*b"DE", *b"FR", *b"NO"][..], &[][..]));
    assert_eq!((&*access.allow_asns, &*access.deny_asns), (&[][..], &[64496, u32::MAX][..]));
    assert_eq!(access.methods, ["POST", "GET", "HEAD"]);
    assert_eq!(
        access.headers,
        [
            ("x-api".to_owned(), ValueMatch::Present),
            ("x-debug".to_owned(), ValueMatch::Absent),
            ("x-version".to_owned(), ValueMatch::Equals("2".to_owned()))
        ]
    );
    let paths: Vec<&str> = access.deny_paths.iter().map(|path| path.as_str()).collect();
    assert_eq!((paths, access.status.as_u16()), (vec!["/admin/**", "/*.sql"], 404));
    assert_eq!(access.deny_user_agents, ["*curl*", ""]);
    let hosts = vec![HostPattern::Exact("example.com".to_owned()), HostPattern::Wildcard(".example.com".to_owned())];
    assert_eq!(access.referers, Some(Referers { hosts, none: true }));
}

#[test]
fn limits_are_called_and_count_as_said() {
    let config = all();
    let site = &config.sites[0];
    let shown = |guard: &Guard| -> Vec<String> {
        let limit = |l: &std::sync::Arc<crate::config::model::RateLimit>| {
            format!("{} {}/{:?} {} {:?} {}", l.name, l.requests, l.per, l.burst, l.action, l.announce)
        };
        guard.rate_limits.iter().map(limit).collect()
    };
    let own = [
        "everything 50/1s 50 Reject false",
        "everything#2 600/60s 100 Log true",
        "by everything 20/10s 2 Delay(2s) false",
    ];
    assert_eq!(shown(&site.policy.guard), own);
    assert_eq!(shown(&site.routes[0].policy.guard), own);
    assert!(std::sync::Arc::ptr_eq(&site.policy.guard.rate_limits[0], &site.routes[0].policy.guard.rate_limits[0]));
    assert!(shown(&site.routes[1].policy.guard).is_empty());
    assert_eq!(shown(&site.routes[2].policy.guard), ["everything/own 1/3600s 1 Delay(1s) false"]);
    assert_eq!(shown(&site.routes[3].policy.guard), ["by everything 20/10s 2 Log false"]);
    let key = &site.policy.guard.rate_limits[2].key;
    let parts = [
        KeyPart::ClientIp,
        KeyPart::Header("x-tenant".to_owned()),
        KeyPart::Cookie("Id".to_owned()),
        KeyPart::Path,
        KeyPart::Host,
        KeyPart::TokenId,
        KeyPart::Country,
        KeyPart::Asn,
    ];
    assert_eq!(*key, parts);
    assert_eq!(site.policy.guard.rate_limits[1].key, [KeyPart::All]);
    let at_once = |guard: &Guard| -> Vec<String> {
        let limits = guard.concurrency_limits.iter();
        limits.map(|l| format!("{} {:?} {} {}", l.name, l.key, l.requests, l.status.as_u16())).collect()
    };
    let own = ["everything [ClientIp] 10 429", "everything#2 [TokenId] 2 503"];
    assert_eq!(at_once(&site.policy.guard), own);
    assert_eq!(at_once(&site.routes[2].policy.guard), ["shared [ClientIp] 3 429"]);
    assert_eq!(at_once(&config.sites[1].policy.guard), ["shared [ClientIp] 3 503"]);
    let OverRate::Delay(longest) = site.policy.guard.rate_limits[2].action else { panic!("it delays") };
    assert_eq!(longest, Duration::from_secs(2));
}

/// Each key of a route replaces its site's.
#[test]
fn a_route_replaces_what_it_says() {
    let config = all();
    let site = &config.sites[0];
    let (of_site, routes) = (&site.policy.guard, &site.routes);
    let without_id = |guard: &Guard, id| Guard {
        id,
        https: guard.https,
        hsts: guard.hsts,
        access: guard.access.clone(),
        rate_limits: guard.rate_limits.clone(),
        concurrency_limits: guard.concurrency_limits.clone(),
        bandwidth: guard.bandwidth,
        signed_url: guard.signed_url.clone(),
        body_size: guard.body_size,
    };
    assert_eq!(without_id(&routes[0].policy.guard, 0), without_id(of_site, 0));
    assert_eq!(routes[1].policy.guard, Guard { id: 2, body_size: Some(None), ..Guard::default() });
    let own = &routes[2].policy.guard;
    assert_eq!((own.https, own.bandwidth), (Https::Required, Some(Bandwidth { rate: 512_000, after: 0 })));
    assert_eq!((own.body_size, &*own.signed_url), (Some(Some(0)), &[1][..]));
    let access = own.access.as_ref().unwrap();
    assert_eq!((&*access.deny_countries, &*access.methods), (&[*b"XX"][..], &["DELETE".to_owned()][..]));
    assert!(access.allow.is_empty() && access.deny_paths.is_empty());
    let client = &routes[3].matcher.client;
    assert_eq!(client.networks, ["10.0.0.0/9".parse().unwrap(), "::1/128".parse().unwrap()]);
    assert_eq!((&*client.countries, &*client.asns, client.secure), (&[*b"DE"][..], &[64496, 64497][..], Some(false)));
    assert_eq!(routes[4].policy.guard.access.as_ref().unwrap().methods, ["GET", "HEAD", "PUT"]);
    assert_eq!(routes[5].matcher.client.secure, Some(true));
}

/// The place of what is made of a guard: no two have the same, and none is left out.
#[test]
fn guards_are_numbered_in_the_order_of_the_file() {
    let config = all();
    let ids: Vec<usize> = config.policies().map(|policy| policy.guard.id).collect();
    assert_eq!(ids, (0..8).collect::<Vec<_>>());
}

#[test]
fn formats_have_their_settings() {
    let config = all();
    let named = |name: &str| config.keys.iter().find(|key| &*key.name == name).unwrap();
    let video = named("video");
    assert_eq!((video.expired.as_u16(), video.skew), (410, Duration::from_secs(5)));
    let UrlFormat::Foreland { secrets, parameter } = &video.format else { panic!("{video:?}") };
    assert_eq!((secrets.len(), parameter.as_str()), (2, "tk"));
    assert_eq!(secrets[0].0, b"correct horse of the videos, as it is now");
    let UrlFormat::SecureLink { expression, md5_parameter, expires_parameter, .. } = &named("old").format else {
        panic!("a secure link")
    };
    assert_eq!((md5_parameter.as_str(), expires_parameter.as_str()), ("st", "e"));
    assert_eq!((expression.len(), expression.last()), (13, Some(&Piece::Secret)));
    assert_eq!(expression.get(2), Some(&Piece::Text("x".to_owned())));
    let UrlFormat::Akamai { secrets, parameter, algorithm, salt, field_delimiter, acl_delimiter, escape_early } =
        &named("ak").format
    else {
        panic!("Akamai's")
    };
    assert_eq!(secrets[0].0, b"correct horse of Akamai");
    assert_eq!((parameter.as_str(), *algorithm, *escape_early), ("__token__", AkamaiAlgorithm::Sha1, true));
    assert_eq!((*field_delimiter, *acl_delimiter), ('*', '|'));
    assert_eq!(salt.as_ref().unwrap().0, b"correct horse of the deployment");
    let UrlFormat::Cloudflare { parameter, lifetime, .. } = &named("cf").format else { panic!("Cloudflare's") };
    assert_eq!((parameter.as_str(), lifetime.as_secs()), ("v", 10_800));
    let UrlFormat::CloudFront { keys } = &named("aws").format else { panic!("CloudFront's") };
    let kinds: Vec<_> = keys.iter().map(|key| (key.id.as_str(), key.kind)).collect();
    assert_eq!(kinds, [("K2JCJMDEHXQW5F", PublicKeyKind::Rsa), ("K 2", PublicKeyKind::P256)]);
    assert_eq!((keys[1].bytes.len(), &keys[1].path), (65, &root().join("tests/config/keys/p256.pem")));
    let UrlFormat::Jwt { secrets, keys, parameter, issuers, audience } = &named("jwt").format else { panic!("a JWT") };
    assert_eq!((secrets.len(), keys.len(), parameter.as_str()), (1, 2, "jot"));
    assert_eq!((keys[0].kind, audience.as_deref()), (PublicKeyKind::P384, Some("edge")));
    assert_eq!(*issuers, ["https://a.test", "b"]);
    assert_eq!(named("jwt").skew, Duration::from_secs(3600));
}

#[test]
fn a_reload_applies_all_of_the_guards() {
    let text =
        SMALL.replace("origin: a}", "origin: a, https: required, rate_limit: {rate: 1/s}, access: {deny: ['::1']}}");
    assert!(needs_restart(&read(SMALL).unwrap(), &read(&text).unwrap()).is_empty());
}

#[test]
fn guards_in_force_are_told_with_their_places() {
    let config = site(
        ", rate_limit: {rate: 5/m}, routes: [{match: {path: /a}, rate_limit: off, https: required}, {match: {path: /b}}]",
    );
    let told = |route: usize, key: &str| {
        let settings = guard_settings(&config.sites[0].routes[route].policy.guard, &config);
        let (_, value) = settings.into_iter().find(|(name, _)| name == key).unwrap();
        let place = config.places.policy(0, Some(route)).unwrap().guard(key).map(|place| place.path.clone());
        (value, place.unwrap_or_default())
    };
    let pair = |value: &str, place: &str| (value.to_owned(), place.to_owned());
    assert_eq!(told(0, "rate_limit"), pair("off", "sites[0].routes[0].rate_limit"));
    assert_eq!(told(0, "https"), pair("required", "sites[0].routes[0].https"));
    assert_eq!(told(1, "https"), pair("optional", ""));
    let (value, place) = told(1, "rate_limit");
    assert_eq!(place, "sites[0].rate_limit");
    assert!(value.contains("key: [client-ip], rate: 5/m, burst: 1, action: reject"), "{value}");
}

/// A file that cannot be a list of networks is told of, with its line; one that cannot be read too.
#[test]
fn files_are_looked_at() {
    let error = |more: &str| {
        let text = SMALL.replace("origin: a}", &format!("origin: a, access: {{deny: ['file:{more}']}}}}"));
        read(&text).unwrap_err().to_string()
    };
    let broken = error("lists/broken.txt");
    assert!(broken.contains("lists/broken.txt, line 3: \"192.0.2.1/24\" has bits beyond its prefix"), "{broken}");
    assert!(error("lists/none.txt").contains("cannot be opened"));
    let absolute = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config/lists/office.txt");
    let config = site(&format!(", access: {{deny: ['file:{}']}}", absolute.display()));
    let files: Vec<PathBuf> = config.sites[0]
        .policy
        .guard
        .access
        .as_ref()
        .unwrap()
        .deny
        .iter()
        .map(|networks| match networks {
            Networks::File(path) => path.clone(),
            Networks::These(nets) => panic!("{nets:?}"),
        })
        .collect();
    assert_eq!(files, [absolute]);
}

/// What is printed for people has no secret in it, nor what a key says in hexadecimal digits.
#[test]
fn no_secret_is_printed() {
    let config = all();
    let text = format!("{:?}{}", config.keys, super::effective(&config));
    assert!(!text.contains("orrect horse") && !text.to_lowercase().contains("636f7272"), "{text}");
}
