//! Which of a site's routes governs a request.

use http::{HeaderMap, HeaderName};

use super::normal::decoded;
use super::visitor::Visitor;
use crate::config::model::{ClientMatcher, Matcher, Site, ValueMatch, identity_matches};

/// What a matcher looks at.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub method: &'a str,
    /// In normal form ([`super::normalise_path`]).
    pub path: &'a str,
    /// Without the `?`; `None` where the target has none.
    pub query: Option<&'a str>,
    pub headers: &'a HeaderMap,
    /// Fields that count as absent, whoever sent them: see [`super::Resolved::dropped`].
    pub withheld: &'a [HeaderName],
    pub visitor: Visitor<'a>,
}

/// The first condition of a matcher that does not hold. Indexes are into the matcher's lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmet {
    Method,
    Path,
    Extension,
    Scheme,
    Network,
    Country,
    Asn,
    Identity,
    Header(usize),
    Query(usize),
}

/// The index of the first route that matches; `None`: the site's own policy governs.
pub fn route(site: &Site, facts: &Facts<'_>) -> Option<usize> {
    site.routes.iter().position(|route| matches(&route.matcher, facts))
}

/// Whether every condition that is present holds.
pub fn matches(matcher: &Matcher, facts: &Facts<'_>) -> bool {
    unmet(matcher, facts).is_none()
}

/// The first condition that does not hold; `None`: all do.
pub fn unmet(matcher: &Matcher, facts: &Facts<'_>) -> Option<Unmet> {
    if !method_matches(&matcher.methods, facts.method) {
        return Some(Unmet::Method);
    }
    if !(matcher.path.is_empty() || matcher.path.iter().any(|pattern| pattern.matches(facts.path))) {
        return Some(Unmet::Path);
    }
    if !extension_matches(&matcher.extensions, facts.path) {
        return Some(Unmet::Extension);
    }
    if let Some(unmet) = client_unmet(&matcher.client, &facts.visitor) {
        return Some(unmet);
    }
    let header = matcher.headers.iter().position(|(name, value)| !header_matches(facts, name, value));
    let query = || matcher.query.iter().position(|(name, value)| !query_matches(facts.query, name, value));
    header.map(Unmet::Header).or_else(|| query().map(Unmet::Query))
}

/// Whether every condition holds that is not about header fields or the client: where there are such, they may or may not.
pub fn may_match(matcher: &Matcher, facts: &Facts<'_>) -> bool {
    !matches!(unmet(matcher, facts), Some(Unmet::Method | Unmet::Path | Unmet::Extension))
        && matcher.query.iter().all(|(name, value)| query_matches(facts.query, name, value))
}

/// GET stands for HEAD too: the two share a cache key, so one route must govern both.
fn method_matches(methods: &[String], method: &str) -> bool {
    let listed = |method: &str| methods.iter().any(|listed| listed == method);
    methods.is_empty() || listed(method) || (method == "HEAD" && listed("GET"))
}

/// What is not known of a client is in no list.
fn client_unmet(matcher: &ClientMatcher, visitor: &Visitor<'_>) -> Option<Unmet> {
    if *matcher == ClientMatcher::default() {
        return None;
    }
    let ClientMatcher { networks, countries, asns, identities, secure } = matcher;
    if secure.is_some_and(|secure| secure != visitor.secure) {
        return Some(Unmet::Scheme);
    }
    if !(networks.is_empty() || networks.iter().any(|network| network.contains(&visitor.address))) {
        return Some(Unmet::Network);
    }
    if !(countries.is_empty() || visitor.country.is_some_and(|country| countries.contains(&country))) {
        return Some(Unmet::Country);
    }
    if !(asns.is_empty() || visitor.asn.is_some_and(|asn| asns.contains(&asn))) {
        return Some(Unmet::Asn);
    }
    let listed = |name: &String| identities.iter().any(|pattern| identity_matches(pattern, name));
    if !(identities.is_empty() || visitor.identities.iter().any(listed)) {
        return Some(Unmet::Identity);
    }
    None
}

/// The extension is what follows the last dot of the last segment.
fn extension_matches(extensions: &[String], path: &str) -> bool {
    if extensions.is_empty() {
        return true;
    }
    let segment = path.rsplit('/').next().unwrap_or(path);
    let Some((_, extension)) = segment.rsplit_once('.') else { return false };
    extensions.iter().any(|listed| listed.eq_ignore_ascii_case(extension))
}

/// A field may come in several lines: one that equals is enough.
fn header_matches(facts: &Facts<'_>, name: &str, value: &ValueMatch) -> bool {
    let withheld = facts.withheld.iter().any(|withheld| withheld == name);
    let present = || !withheld && facts.headers.contains_key(name);
    match value {
        ValueMatch::Present => present(),
        ValueMatch::Absent => !present(),
        ValueMatch::Equals(value) => {
            !withheld && facts.headers.get_all(name).iter().any(|line| line.as_bytes() == value.as_bytes())
        }
    }
}

/// Names and values are compared decoded. `+` is no space here: that is a rule of forms, not of URLs. A parameter
/// without `=` has the empty value; one that comes several times matches if one of its values does.
fn query_matches(query: Option<&str>, name: &str, value: &ValueMatch) -> bool {
    let mut values = query
        .unwrap_or_default()
        .split('&')
        .filter(|parameter| !parameter.is_empty())
        .map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")))
        .filter(|(found, _)| decoded(found).eq(name.bytes()))
        .map(|(_, value)| value);
    match value {
        ValueMatch::Present => values.next().is_some(),
        ValueMatch::Absent => values.next().is_none(),
        ValueMatch::Equals(value) => values.any(|found| decoded(found).eq(value.bytes())),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::HeaderValue;

    use super::*;
    use crate::config::model::{KeyPolicy, RequestPolicy, Route};
    use crate::config::pattern::PathPattern;

    fn facts<'a>(method: &'a str, path: &'a str, query: Option<&'a str>, headers: &'a HeaderMap) -> Facts<'a> {
        Facts { method, path, query, headers, withheld: &[], visitor: Visitor::nobody() }
    }

    fn ask(matcher: &Matcher, method: &str, target: &str, headers: &[(&'static str, &'static str)]) -> bool {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        matches(matcher, &facts(method, path, query, &headers))
    }

    fn query(name: &str, value: ValueMatch) -> Matcher {
        Matcher { query: vec![(name.to_owned(), value)], ..Matcher::default() }
    }

    fn header(value: ValueMatch) -> Matcher {
        Matcher { headers: vec![("x-kind".to_owned(), value)], ..Matcher::default() }
    }

    #[test]
    fn no_condition_matches_everything() {
        assert!(ask(&Matcher::default(), "BREW", "/any?thing", &[]));
    }

    #[test]
    fn get_stands_for_head() {
        let get = Matcher { methods: vec!["GET".to_owned()], ..Matcher::default() };
        assert!(ask(&get, "GET", "/", &[]) && ask(&get, "HEAD", "/", &[]));
        assert!(!ask(&get, "POST", "/", &[]) && !ask(&get, "get", "/", &[]));
        let head = Matcher { methods: vec!["HEAD".to_owned()], ..Matcher::default() };
        assert!(ask(&head, "HEAD", "/", &[]) && !ask(&head, "GET", "/", &[]));
    }

    #[test]
    fn the_extension_is_that_of_the_last_segment() {
        let images = Matcher { extensions: vec!["png".to_owned(), "jpg".to_owned()], ..Matcher::default() };
        for path in ["/a.png", "/a.b.PNG", "/x.y/b.jpg", "/.png"] {
            assert!(ask(&images, "GET", path, &[]), "{path}");
        }
        for path in ["/a.png/b", "/apng", "/a.pngx", "/a.", "/", "/b.html?x=a.png"] {
            assert!(!ask(&images, "GET", path, &[]), "{path}");
        }
    }

    #[test]
    fn any_line_of_a_field_may_equal() {
        let video = header(ValueMatch::Equals("video".to_owned()));
        assert!(ask(&video, "GET", "/", &[("x-kind", "audio"), ("x-kind", "video")]));
        assert!(!ask(&video, "GET", "/", &[("x-kind", "Video")]) && !ask(&video, "GET", "/", &[]));
        assert!(ask(&header(ValueMatch::Present), "GET", "/", &[("x-kind", "")]));
        assert!(!ask(&header(ValueMatch::Present), "GET", "/", &[]));
        assert!(ask(&header(ValueMatch::Absent), "GET", "/", &[]));
        assert!(!ask(&header(ValueMatch::Absent), "GET", "/", &[("x-kind", "a")]));
    }

    #[test]
    fn what_is_withheld_is_absent() {
        let mut headers = HeaderMap::new();
        headers.insert("x-kind", HeaderValue::from_static("video"));
        let asked = |value: ValueMatch, withheld: &[HeaderName]| {
            let facts = Facts { withheld, ..facts("GET", "/", None, &headers) };
            unmet(&header(value), &facts)
        };
        let withheld = [HeaderName::from_static("x-kind")];
        let video = || ValueMatch::Equals("video".to_owned());
        assert_eq!((asked(video(), &[]), asked(ValueMatch::Present, &[])), (None, None));
        assert_eq!(asked(ValueMatch::Absent, &[]), Some(Unmet::Header(0)));
        assert_eq!(asked(video(), &withheld), Some(Unmet::Header(0)));
        assert_eq!(asked(ValueMatch::Present, &withheld), Some(Unmet::Header(0)));
        assert_eq!(asked(ValueMatch::Absent, &withheld), None);
    }

    #[test]
    fn parameters_are_compared_decoded() {
        let equals = query("q", ValueMatch::Equals("a b".to_owned()));
        assert!(ask(&equals, "GET", "/?x=1&q=a%20b", &[]) && ask(&equals, "GET", "/?q=1&q=a%20b", &[]));
        assert!(!ask(&equals, "GET", "/?q=a", &[]) && !ask(&equals, "GET", "/?q=a+b", &[]));
        assert!(ask(&query("a b", ValueMatch::Present), "GET", "/?a%20b", &[]));
        assert!(!ask(&query("q", ValueMatch::Present), "GET", "/?qq=1&x=q", &[]));
        assert!(ask(&query("q", ValueMatch::Absent), "GET", "/", &[]));
        assert!(!ask(&query("q", ValueMatch::Absent), "GET", "/?q", &[]));
        let empty = query("q", ValueMatch::Equals(String::new()));
        assert!(ask(&empty, "GET", "/?q", &[]) && ask(&empty, "GET", "/?q=", &[]) && !ask(&empty, "GET", "/?&", &[]));
    }

    #[test]
    fn every_condition_must_hold() {
        let both = Matcher { path: vec![PathPattern::parse("/a").unwrap()], ..query("q", ValueMatch::Present) };
        assert!(ask(&both, "GET", "/a?q", &[]));
        assert!(!ask(&both, "GET", "/a", &[]) && !ask(&both, "GET", "/b?q", &[]));
    }

    #[test]
    fn conditions_on_fields_may_hold() {
        let may = |matcher: &Matcher, target: &str| {
            let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
            may_match(matcher, &facts("GET", path, query, &HeaderMap::new()))
        };
        for value in [ValueMatch::Present, ValueMatch::Absent, ValueMatch::Equals("a".to_owned())] {
            let path = vec![PathPattern::parse("/a.*").unwrap()];
            let matcher = Matcher { path, extensions: vec!["png".to_owned()], ..header(value) };
            let matcher = Matcher { query: vec![("q".to_owned(), ValueMatch::Present)], ..matcher };
            assert!(may(&matcher, "/a.png?q"));
            assert!(!may(&matcher, "/a.png") && !may(&matcher, "/b.png?q") && !may(&matcher, "/a.jpg?q"));
            assert!(!may(&Matcher { methods: vec!["POST".to_owned()], ..matcher }, "/a.png?q"));
        }
        assert!(may(&Matcher::default(), "/"));
    }

    #[test]
    fn conditions_on_the_client() {
        let identities = vec!["a.example.com".to_owned()];
        let address = "10.1.2.3".parse().unwrap();
        let visitor = Visitor {
            secure: true,
            identities: &identities,
            country: Some(*b"DE"),
            asn: Some(7),
            ..Visitor::of(address)
        };
        let ask = |client: ClientMatcher, visitor| {
            let matcher = Matcher { client, ..Matcher::default() };
            let headers = HeaderMap::new();
            let facts = Facts { visitor, ..facts("GET", "/", None, &headers) };
            // Of another client it may hold, always.
            assert!(may_match(&matcher, &facts));
            unmet(&matcher, &facts)
        };
        let networks = || vec!["192.0.2.0/24".parse().unwrap(), "10.0.0.0/8".parse().unwrap()];
        let all = || ClientMatcher {
            networks: networks(),
            countries: vec![*b"FR", *b"DE"],
            asns: vec![1, 7],
            identities: vec!["*.example.com".to_owned()],
            secure: Some(true),
        };
        assert_eq!(ask(all(), visitor), None);
        let nobody = Visitor::nobody();
        assert_eq!(
            ask(ClientMatcher { networks: networks(), ..ClientMatcher::default() }, nobody),
            Some(Unmet::Network)
        );
        assert_eq!(ask(ClientMatcher { secure: Some(false), ..ClientMatcher::default() }, nobody), None);
        assert_eq!(ask(all(), Visitor { secure: false, ..visitor }), Some(Unmet::Scheme));
        let elsewhere = Visitor { address: "11.0.0.0".parse().unwrap(), ..visitor };
        assert_eq!(ask(all(), elsewhere), Some(Unmet::Network));
        assert_eq!(ask(all(), Visitor { country: None, ..visitor }), Some(Unmet::Country));
        assert_eq!(ask(all(), Visitor { asn: Some(2), ..visitor }), Some(Unmet::Asn));
        assert_eq!(ask(all(), Visitor { identities: &[], ..visitor }), Some(Unmet::Identity));
    }

    #[test]
    fn the_first_route_wins() {
        let policy =
            Arc::new(RequestPolicy { origin: 0, cache: None, key: KeyPolicy::default(), guard: Default::default() });
        let route_for = |path: &[&str]| Route {
            name: "route".into(),
            matcher: Matcher {
                path: path.iter().map(|path| PathPattern::parse(path).unwrap()).collect(),
                ..Matcher::default()
            },
            policy: policy.clone(),
        };
        let routes = vec![route_for(&["/a", "/b"]), route_for(&["/b"]), route_for(&["/c"])];
        let site = Site { name: "site".into(), hosts: Vec::new(), policy: policy.clone(), purge: None, routes };
        let headers = HeaderMap::new();
        let find = |path| route(&site, &facts("GET", path, None, &headers));
        assert_eq!((find("/b"), find("/c"), find("/d")), (Some(0), Some(2), None));
    }
}
