//! The whole way from a request to what governs it.

use std::path::Path;

use super::*;
use crate::config;
use crate::site::describe;

const YAML: &str = r#"
listeners: [{ address: "127.0.0.1:8080" }]
origins: { o: { servers: ["127.0.0.1:9000"] } }
sites:
  - name: main
    hosts: [a.test, "*.a.test"]
    origin: o
    routes:
      - name: secret
        match: { headers: { X-Original-URL: true } }
        cache: { key: { headers: [X-Original-URL] } }
      - name: listed
        match: { path: "/listed/**" }
        cache: { key: { headers: [X-Forwarded-Host, X_Real_IP, Accept-Language] } }
      - name: off
        match: { path: "/off" }
        cache: off
"#;

/// What is resolved of a request for `target`, with these fields beside Host.
fn with<T>(
    target: &str,
    fields: &[(&'static str, &str)],
    change: impl Fn(&mut Asked<'_>),
    look: impl Fn(Result<Resolved<'_>, Refusal>, &Config) -> T,
) -> T {
    let config = config::parse(YAML, None, Path::new("/")).unwrap();
    let directory = Directory::new(&config.sites);
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, value.parse().unwrap());
    }
    headers.entry(HOST).or_insert("a.test".parse().unwrap());
    let uri = Uri::builder().path_and_query(target).build().unwrap();
    let mut asked = Asked {
        method: &Method::GET,
        uri: &uri,
        target: target.as_bytes(),
        headers: &headers,
        content: false,
        trusted: false,
        visitor: Visitor::nobody(),
    };
    change(&mut asked);
    look(resolve(&asked, &config, &directory), &config)
}

fn resolved(target: &str, fields: &[(&'static str, &str)], trusted: bool) -> (String, String, Vec<String>) {
    with(
        target,
        fields,
        |asked| asked.trusted = trusted,
        |resolved, config| {
            let resolved = resolved.unwrap();
            let site = &config.sites[resolved.site];
            let route = resolved.route.map_or("-", |route| &*site.routes[route].name).to_owned();
            let key = resolved.key.as_ref().map_or("-".to_owned(), |(_, text)| describe(text.as_bytes()));
            (route, key, resolved.dropped.iter().map(|name| name.as_str().to_owned()).collect())
        },
    )
}

fn refused(target: &str, fields: &[(&'static str, &str)], change: impl Fn(&mut Asked<'_>)) -> (u16, String) {
    with(target, fields, change, |resolved, _| {
        let refusal = resolved.unwrap_err();
        (refusal.status.as_u16(), refusal.reason.into_owned())
    })
}

#[test]
fn what_is_listed_stays_and_is_in_the_key() {
    let fields = [("x-forwarded-host", "evil"), ("x_real_ip", "1.1.1.1"), ("x-original-url", "/admin")];
    let (route, key, dropped) = resolved("/listed/a", &fields, false);
    assert_eq!(route, "listed");
    assert_eq!(
        key,
        r#"site=main host=a.test path=/listed/a accept-language=- x-forwarded-host="evil" x_real_ip="1.1.1.1""#
    );
    assert_eq!(dropped, ["x-original-url"]);
}

#[test]
fn what_is_not_listed_goes_and_chooses_nothing() {
    let fields = [("x-original-url", "/admin"), ("x-forwarded-for", "1.1.1.1"), ("accept", "*/*")];
    let stranger = ("-".to_owned(), "site=main host=a.test path=/a".to_owned());
    let (route, key, dropped) = resolved("/a", &fields, false);
    assert_eq!((route, key), stranger);
    assert_eq!(dropped.len(), 2, "{dropped:?}");
    // From a trusted proxy, the same fields count.
    let (route, key, dropped) = resolved("/a", &fields, true);
    assert_eq!(route, "secret");
    assert_eq!(key, r#"site=main host=a.test path=/a x-original-url="/admin""#);
    assert!(dropped.is_empty());
    // Where nothing is cached, nothing can be listed.
    assert_eq!(resolved("/off", &fields, false).2.len(), 2);
}

#[test]
fn a_key_only_where_something_can_be_stored() {
    assert_eq!(resolved("/off", &[], false).1, "-");
    let content = |asked: &mut Asked<'_>| asked.content = true;
    assert!(with("/a", &[], content, |resolved, _| resolved.unwrap().key.is_none()));
}

#[test]
fn the_target_for_the_origin_differs_only_where_it_must() {
    for (sent, expected) in
        [("/a%7e?b", None), ("/a/../b?c", Some("/b?c")), ("/a/%2e%2E/b", Some("/b")), ("/a/%2e%2E/%7e", Some("/~"))]
    {
        let found = with(sent, &[], |_| (), |resolved, _| resolved.unwrap().target.map(String::from));
        assert_eq!(found.as_deref(), expected, "{sent}");
    }
    // In absolute form, Pingora's URI has the path alone.
    let absolute = |asked: &mut Asked<'_>| asked.target = b"http://a.test/a?b";
    assert_eq!(with("/a?b", &[], absolute, |resolved, _| resolved.unwrap().target).as_deref(), Some("/a?b"));
}

#[test]
fn bytes_beyond_ascii_are_their_percent_encoding() {
    let latin = |asked: &mut Asked<'_>| asked.target = b"/caf\xe9?\xc3\xa9";
    with("/caf\u{fffd}?é", &[], latin, |resolved, _| {
        let resolved = resolved.unwrap();
        assert_eq!((&*resolved.path, resolved.query.as_deref()), ("/caf%E9", Some("%C3%A9")));
        assert_eq!(resolved.target, None);
    });
}

#[test]
fn what_goes_no_further() {
    let nothing = |_: &mut Asked<'_>| ();
    assert_eq!(refused("/", &[("host", "b.test")], nothing), (421, "no site for host \"b.test\"".to_owned()));
    assert_eq!(refused("/", &[("host", "a b")], nothing).0, 400);
    assert_eq!(refused("/", &[("host", "a.test"), ("host", "a.test")], nothing).1, "several Host fields");
    assert_eq!(refused("/", &[], |asked| asked.method = &Method::TRACE).0, 405);
    assert_eq!(refused("/", &[], |asked| asked.target = b"*").0, 400);
    assert_eq!(refused("/", &[], |asked| asked.target = b"http://a.test/\xc3").0, 400);
}

#[test]
fn a_get_for_another_target_has_the_key_that_it_would_have() {
    let config = config::parse(YAML, None, Path::new("/")).unwrap();
    let site = &config.sites[0];
    let mut headers = HeaderMap::new();
    headers.insert("host", "a.test".parse().unwrap());
    headers.insert("x-original-url", "/x".parse().unwrap());
    let key = |target| key_of_get(site, "a.test", target, &headers, false, Visitor::nobody()).map(|(_, key, _)| key);
    let direct = with("/b?c", &[], |_| (), |resolved, _| resolved.unwrap().key.unwrap().0);
    assert_eq!(key("/a/../b?%63"), Some(direct));
    assert_eq!(key("/off"), None);
    // A trusted proxy's field chooses the route here too.
    assert_ne!(
        key_of_get(site, "a.test", "/b?c", &headers, true, Visitor::nobody()).map(|(_, key, _)| key),
        Some(direct)
    );
}

#[test]
fn a_route_by_client_is_in_the_key() {
    let mut config = config::parse(YAML, None, Path::new("/")).unwrap();
    // `secret` is for a network, rather than for a field.
    let matcher = &mut config.sites[0].routes[0].matcher;
    matcher.headers.clear();
    matcher.client.networks.push("10.0.0.0/8".parse().unwrap());
    let (directory, uri) = (Directory::new(&config.sites), Uri::from_static("/a?b"));
    let mut headers = HeaderMap::new();
    headers.insert(HOST, "a.test".parse().unwrap());
    let of = |address: &str| {
        let visitor = Visitor::of(address.parse().unwrap());
        let asked = Asked {
            method: &Method::GET,
            uri: &uri,
            target: b"/a?b",
            headers: &headers,
            content: false,
            trusted: false,
            visitor,
        };
        let (key, text) = resolve(&asked, &config, &directory).unwrap().key.unwrap();
        let (_, same, _) = key_of_get(&config.sites[0], "a.test", "/a?b", &headers, false, visitor).unwrap();
        assert_eq!(key, same);
        let parts = crate::site::parts(text.as_bytes()).unwrap();
        assert_eq!((parts.path, parts.query), ("/a", Some("b")));
        (key.has_more, describe(text.as_bytes()))
    };
    let shared = "site=main host=a.test path=/a query=b".to_owned();
    let own = format!("{shared} route=secret");
    // An object of the one is never an answer to the other. There may be several for the URL.
    assert_eq!(of("10.1.2.3").1, own.clone() + " x-original-url=-");
    assert!(of("10.1.2.3").0);
    assert_eq!(of("11.1.2.3"), (false, shared));
}
