//! What is asked for, and the keys of what is stored.

use std::path::Path;

use http::header::HOST;
use http::{Method, Uri};
use proptest::prelude::*;

use super::*;
use crate::site::{self, Asked, Parts};

const YAML: &str = r#"
listeners: [{ address: "127.0.0.1:8080" }]
origins: { o: { servers: ["127.0.0.1:9000"] } }
sites:
  - name: main
    hosts: [a.test, "*.a.test", "[2001:db8::1]"]
    origin: o
    cache: { key: { query: { ignore: [utm_*] } } }
    routes:
      - { name: mobile, match: { path: "/m/**", headers: { X-Mobile: true } }, cache: { key: { query: none } } }
      - { name: posts, match: { methods: POST, path: "/m/**" }, cache: { key: { query: { only: [p] } } } }
      - { name: plain, match: { path: "/m/**", headers: { X-Plain: "1" } }, cache: { key: { query: all } } }
      - { name: sorted, match: { path: "/m/sorted/**" }, cache: { key: { sort: true } } }
      - { name: search, match: { query: { q: true } }, cache: { key: { query: { only: [q, page] }, headers: [X-A] } } }
      - { name: off, match: { path: "/off/**" }, cache: off }
      - { name: sometimes, match: { path: "/maybe/**", headers: { X-On: false } }, cache: off }
  - name: other
    hosts: [b.test]
    origin: o
"#;

fn config() -> Config {
    config::parse(YAML, None, Path::new("/")).unwrap()
}

fn with(purge: &Purge) -> Result<Box<[Selector]>, Vec<WrongSelector>> {
    let config = config();
    resolve(purge, &config, &Directory::new(&config.sites))
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

/// The selectors as people read them.
fn shown(purge: Purge) -> Vec<String> {
    with(&purge).unwrap().iter().map(Selector::to_string).collect()
}

fn urls(list: &[&str]) -> Vec<String> {
    shown(Purge { urls: texts(list), ..Purge::default() })
}

fn prefixes(list: &[&str], raw: bool) -> Purge {
    Purge { prefixes: texts(list), raw, ..Purge::default() }
}

/// Why the one selector is wrong.
fn why(purge: &Purge) -> String {
    let wrong = with(purge).unwrap_err();
    assert_eq!(wrong.len(), 1, "{wrong:?}");
    wrong[0].why.clone()
}

#[test]
fn a_url_has_the_form_that_keys_have() {
    for (asked, selector) in [
        ("http://A.test", "http://a.test/"),
        ("HTTP://a.test.:80/", "http://a.test/"),
        ("https://a.test/", "http://a.test/"),
        ("https://a.test:443/", "http://a.test/"),
        ("http://a.test:443/", "http://a.test:443/"),
        ("https://a.test:80/", "https://a.test:80/"),
        ("http://a.test:08080/", "http://a.test:8080/"),
        ("http://[2001:DB8:0::1]/x", "http://[2001:db8::1]/x"),
        ("http://a.test?b=%63", "http://a.test/?b=c"),
        ("http://b.test/?", "http://b.test/?"),
        ("http://a.test/?", "http://a.test/"),
        ("http://a.test/a/../%7eb%2fé", "http://a.test/~b%2F%C3%A9"),
        ("http://a.test/a?utm_x=1&b=2&utm_y", "http://a.test/a?b=2"),
        ("http://a.test/a?utm_x=1", "http://a.test/a"),
        ("http://unknown.test/a?utm_x=1&b", "http://unknown.test/a?utm_x=1&b"),
    ] {
        assert_eq!(urls(&[asked]), [format!("url {selector}")], "{asked}");
    }
}

#[test]
fn a_url_is_one_for_each_query_that_may_be_left_of_it() {
    for (asked, selectors) in [
        // Certain: the first that matches, and none after it.
        ("http://a.test/a?q=1&page=2&utm_a&x", &["http://a.test/a?q=1&page=2"][..]),
        // The mobile route may govern, and so may the plain one; the POST route does not govern a GET.
        (
            "http://a.test/m/a?b=1&a=2&utm_c",
            &["http://a.test/m/a", "http://a.test/m/a?b=1&a=2&utm_c", "http://a.test/m/a?b=1&a=2"],
        ),
        (
            "http://a.test/m/sorted/a?b=1&a=2&utm_c",
            &["http://a.test/m/sorted/a", "http://a.test/m/sorted/a?b=1&a=2&utm_c", "http://a.test/m/sorted/a?a=2&b=1"],
        ),
        ("http://a.test/m/a", &["http://a.test/m/a"]),
        // With the cache off, nothing; but if that is all, what an earlier configuration may have stored.
        ("http://a.test/maybe/a?utm_a&b", &["http://a.test/maybe/a?b"]),
        ("http://a.test/off/a?utm_a&b", &["http://a.test/off/a?utm_a&b"]),
    ] {
        let selectors: Vec<String> = selectors.iter().map(|url| format!("url {url}")).collect();
        assert_eq!(urls(&[asked]), selectors, "{asked}");
    }
}

#[test]
fn what_is_no_url() {
    for (asked, reason) in [
        ("a.test/a", "expected an absolute URL"),
        ("/a", "expected an absolute URL"),
        ("", "expected an absolute URL"),
        ("ftp://a.test/", "expected an absolute URL"),
        ("http:/a.test/", "expected an absolute URL"),
        ("http:///a", "the host is empty"),
        ("http://a.test/a#b", "a fragment"),
        ("http://me@a.test/", "user information"),
        ("http://a.test/a b", "a space or a control character"),
        ("http://a.test/a\n", "a space or a control character"),
        ("http://a.test:x/", "not a port number"),
        ("http://*.a.test/", "no pattern"),
        ("http://a.test\\b/", "an invalid character"),
        ("http://::1/", "in brackets: [::1]"),
    ] {
        let purge = Purge { urls: texts(&[asked]), ..Purge::default() };
        assert!(why(&purge).contains(reason), "{asked}: {}", why(&purge));
    }
}

#[test]
fn hosts_are_names_with_or_without_a_port() {
    let hosts = |list: &[&str]| Purge { hosts: texts(list), ..Purge::default() };
    for (asked, host) in [
        ("A.Test.", "a.test"),
        ("192.0.2.1:8080", "192.0.2.1:8080"),
        ("[2001:DB8::1]", "[2001:db8::1]"),
        ("[::1]:81", "[::1]:81"),
        // In keys, these may be there or not.
        ("a.test:80", "a.test"),
        ("a.test:443", "a.test"),
        ("[::443]:443", "[::443]"),
        ("a.test:", "a.test"),
    ] {
        assert_eq!(shown(hosts(&[asked])), [format!("host {host}")], "{asked}");
    }
    for (asked, reason) in [
        ("http://a.test", "without a scheme"),
        ("a.test/a", "without a path"),
        ("*.a.test", "no pattern"),
        ("a.test:99999", "not a port number"),
        ("::1", "in brackets: [::1]"),
        ("", "empty"),
        ("a b", "a space"),
        ("me@a.test", "user information"),
    ] {
        let why = why(&hosts(&[asked]));
        assert!(why.contains(reason), "{asked}: {why}");
    }
}

#[test]
fn prefixes_are_a_host_and_a_path() {
    for (asked, raw, prefix) in [
        ("a.test/", false, "a.test/"),
        ("A.test:80/a/./b/../%63/", false, "a.test/a/c/"),
        ("a.test:8080/a", false, "a.test:8080/a"),
        ("http://a.test", false, "a.test/"),
        ("http://a.test/a", false, "a.test/a"),
        ("https://a.test:443/a", false, "a.test/a"),
        ("http://a.test:443/a", false, "a.test:443/a"),
        ("a.test/a/..", false, "a.test/"),
        ("a.test/a%4", false, "a.test/a%4"),
        ("a.test/é", false, "a.test/%C3%A9"),
        ("a.test/a/../im", true, "a.test/im (raw)"),
        ("a.test/a%2f", true, "a.test/a%2F (raw)"),
        ("a.test/a.", true, "a.test/a. (raw)"),
        ("a.test/...", true, "a.test/... (raw)"),
        ("a.test/a%zz", true, "a.test/a%zz (raw)"),
        ("http://a.test", true, "a.test/ (raw)"),
    ] {
        assert_eq!(shown(prefixes(&[asked], raw)), [format!("prefix {prefix}")], "{asked}");
    }
    for (asked, raw, reason) in [
        ("news", false, "expected a host and a path"),
        ("/news", false, "expected a host and a path"),
        ("ftp://a.test/", false, "expected a host and a path"),
        ("a.test/a?b", false, "no query"),
        ("a.test?b", false, "no query"),
        ("http://a.test?b", false, "no query"),
        ("a.test/a#b", false, "a fragment"),
        ("*.a.test/a", false, "no pattern"),
        ("a.test/a/*", false, "without a `*`"),
        ("a.test/a b", false, "a space"),
        ("a.test/a%", true, "within a percent-encoding"),
        ("a.test/a%4", true, "within a percent-encoding"),
        ("a.test/a/.", true, "`.` or `..`"),
        ("a.test/a/%2e%2E", true, "`.` or `..`"),
    ] {
        let why = why(&prefixes(&[asked], raw));
        assert!(why.contains(reason), "{asked}: {why}");
    }
}

#[test]
fn tags_sites_and_everything() {
    let longest = "x".repeat(1024);
    let purge = Purge {
        tags: texts(&["News", "news", "é/:", &longest]),
        sites: texts(&["other", "main"]),
        everything: true,
        ..Purge::default()
    };
    let long = format!("tag {longest}");
    assert_eq!(shown(purge), ["tag News", "tag news", "tag é/:", &long, "site other", "site main", "everything"]);
    for (tag, reason) in
        [("", "not empty"), ("a b", "no spaces"), ("a,b", "commas"), ("a\t", "control"), (&*"x".repeat(1025), "1024")]
    {
        let why = why(&Purge { tags: texts(&[tag]), ..Purge::default() });
        assert!(why.contains(reason), "{tag}: {why}");
    }
    let wrong = Purge { sites: texts(&["mian"]), ..Purge::default() };
    assert_eq!(why(&wrong), "there is no site of this name; did you mean `main`?");
}

#[test]
fn each_is_taken_once_and_in_order() {
    let asked = ["http://a.test/b", "http://a.test/a", "https://A.test:443/b?utm_x", "http://a.test/%61"];
    assert_eq!(urls(&asked), ["url http://a.test/b", "url http://a.test/a"]);
}

#[test]
fn all_that_is_wrong_is_told_of() {
    let purge = Purge {
        urls: texts(&["http://a.test/", "a.test", "http://a.test/#"]),
        hosts: texts(&["*"]),
        tags: texts(&["ok", ""]),
        everything: true,
        ..Purge::default()
    };
    let wrong: Vec<_> = with(&purge).unwrap_err().into_iter().map(|it| (it.list, it.index, it.value)).collect();
    let expected = [("urls", 1, "a.test"), ("urls", 2, "http://a.test/#"), ("hosts", 0, "*"), ("tags", 1, "")];
    assert_eq!(wrong, expected.map(|(list, index, value)| (list, index, value.to_owned())));
    let many = Purge { tags: vec![String::new(); 1000], hosts: vec![String::new(); 10], ..Purge::default() };
    assert_eq!(with(&many).unwrap_err().len(), MOST_WRONG);
}

#[test]
fn an_entry_is_neither_empty_nor_too_large() {
    assert!(why(&Purge { soft: true, ..Purge::default() }).contains("at least one"));
    let most = |n: usize| (0..n).map(|i| i.to_string()).collect::<Vec<_>>();
    let full = Purge { tags: most(Entry::MAX_SELECTORS), ..Purge::default() };
    assert_eq!(with(&full).unwrap().len(), Entry::MAX_SELECTORS);
    assert!(why(&Purge { everything: true, ..full }).contains("more than 10000"));
    let more = with(&Purge { tags: most(Entry::MAX_SELECTORS + 2), ..Purge::default() }).unwrap_err();
    assert_eq!((more.len(), more[0].index), (1, Entry::MAX_SELECTORS));
    // The same twice is no more than once.
    let twice = [most(Entry::MAX_SELECTORS), most(Entry::MAX_SELECTORS)].concat();
    assert!(with(&Purge { tags: twice, ..Purge::default() }).is_ok());
    // A URL that becomes three.
    let urls = (0..4000).map(|i| format!("http://a.test/m/{i}?a&utm_b")).collect();
    let wrong = with(&Purge { urls, ..Purge::default() }).unwrap_err();
    assert_eq!((wrong.len(), wrong[0].list, wrong[0].index), (1, "urls", 3333));
}

/// A request as a client spells it: host, port, target, and fields beside Host.
#[derive(Clone, Debug)]
struct Spelled {
    https: bool,
    host: String,
    target: String,
    fields: Vec<(&'static str, &'static str)>,
}

fn spelled() -> impl Strategy<Value = Spelled> {
    let host = prop_oneof!["[aA]\\.test\\.?", "[xX]\\.a\\.tesT", "b\\.test", "\\[2001:[dD][bB]8:(0:)?:1\\]"];
    let port = prop_oneof!["", ":", ":0?80", ":443", ":8080"];
    let segment =
        prop_oneof!["m", "sorted", "off", "maybe", "[a-z.~é*]{0,3}", "%[0-9a-fA-F]{2}", "%[0-9a-g]", "\\.\\."];
    let path = proptest::collection::vec(segment, 0..5).prop_map(|segments| format!("/{}", segments.join("/")));
    let parameter = prop_oneof!["[abqp]=?[0-9]?", "utm_[ab]=1", "%[0-9a-fA-F]{2}=é?", "page=[0-9]", ""];
    let query = proptest::collection::vec(parameter, 0..5).prop_map(|parameters| format!("?{}", parameters.join("&")));
    let fields = proptest::sample::subsequence(
        vec![("x-mobile", "1"), ("x-plain", "1"), ("x-on", "1"), ("x-a", "en"), ("x-forwarded-host", "c.test")],
        0..=3,
    );
    (any::<bool>(), host, port, path, prop_oneof![Just(String::new()), query], fields).prop_map(
        |(https, host, port, path, query, fields)| Spelled {
            https,
            host: format!("{host}{port}"),
            target: format!("{path}{query}"),
            fields,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    /// The URL that a client asks for selects what is then stored.
    #[test]
    fn the_url_of_a_request_is_that_of_its_key(asked in spelled(), trusted in any::<bool>()) {
        let config = config();
        let directory = Directory::new(&config.sites);
        let mut headers: HeaderMap =
            asked.fields.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        headers.insert(HOST, asked.host.parse().unwrap());
        // Only a trusted proxy can tell of https.
        let https = asked.https && trusted;
        if https {
            headers.insert("x-forwarded-proto", "https".parse().unwrap());
        }
        let Ok(uri) = Uri::builder().path_and_query(&*asked.target).build() else { return Ok(()) };
        let request = Asked {
            method: &Method::GET,
            uri: &uri,
            target: asked.target.as_bytes(),
            headers: &headers,
            content: false,
            trusted,
            visitor: site::Visitor::nobody(),
        };
        let resolved = site::resolve(&request, &config, &directory).unwrap();
        let Some((_, text)) = &resolved.key else { return Ok(()) };
        let Parts { host, path, query, .. } = site::parts(text.as_bytes()).unwrap();
        let key = Selector::Url { host: host.into(), path: path.into(), query: query.map(Into::into) };
        let url = format!("{}://{}{}", if https { "https" } else { "http" }, asked.host, asked.target);
        let selectors = resolve(&Purge { urls: vec![url], ..Purge::default() }, &config, &directory).unwrap();
        prop_assert!(selectors.contains(&key), "{key} of {selectors:?}");

        // And as it is shown, it selects the same.
        let shown = key.to_string().strip_prefix("url ").unwrap().to_owned();
        let again = resolve(&Purge { urls: vec![shown], ..Purge::default() }, &config, &directory).unwrap();
        prop_assert!(again.contains(&key), "{key} of {again:?}");
    }

    /// What is below a prefix as it was asked for has a key below the prefix as it was resolved.
    #[test]
    fn prefixes_reach_what_is_below_them(
        pieces in proptest::collection::vec("[a-z.~é]{0,2}|/|%[0-9a-fA-F]{2}|%[0-9a-g]|%|/\\.\\./", 0..6),
        rest in "([a-z0-9~]|/[a-z]|%[0-9a-fA-F]|%6[0-9a-f]){0,4}",
        raw in any::<bool>(),
    ) {
        let path = format!("/{}", pieces.concat());
        if let Ok(selectors) = with(&prefixes(&[&format!("a.test{path}")], raw)) {
            let Selector::Prefix { path: prefix, .. } = &selectors[0] else { unreachable!() };
            let asked = match raw || path.ends_with('/') {
                true => format!("{path}{rest}"),
                false => format!("{path}/{rest}"),
            };
            let asked = ascii(&asked);
            let key = normalise_path(&asked);
            let below = key.strip_prefix(&**prefix).unwrap_or_else(|| panic!("{key} is not below {prefix}"));
            prop_assert!(raw || below.is_empty() || prefix.ends_with('/') || below.starts_with('/'), "{key} {prefix}");
        }
    }

    #[test]
    fn no_text_is_harmful(text in "\\PC{0,24}|[a-z:/?#%@\\[\\]. *]{0,24}", raw in any::<bool>()) {
        let list = vec![text];
        let (urls, hosts, prefixes) = (list.clone(), list.clone(), list.clone());
        let _ = with(&Purge { urls, hosts, prefixes, tags: list.clone(), sites: list, raw, ..Purge::default() });
    }
}
