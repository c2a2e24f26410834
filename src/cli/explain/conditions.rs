//! The conditions of a route in words: those that hold, and the one that does not.

use crate::config::model::{ClientMatcher, Matcher, ValueMatch};
use crate::site::{Facts, Unmet, Visitor};

/// Every condition of a route that a request meets.
pub fn met(matcher: &Matcher, facts: &Facts<'_>) -> Vec<String> {
    let mut met = Vec::new();
    if !matcher.methods.is_empty() {
        met.push(format!("method {}", facts.method));
    }
    if let Some(pattern) = matcher.path.iter().find(|pattern| pattern.matches(facts.path)) {
        met.push(format!("path {pattern}"));
    }
    let extension = facts.path.rsplit('.').next().unwrap_or_default();
    if let Some(listed) = matcher.extensions.iter().find(|listed| listed.eq_ignore_ascii_case(extension)) {
        met.push(format!("extension {listed}"));
    }
    met.extend(client(&matcher.client, &facts.visitor));
    met.extend(matcher.headers.iter().map(|(name, value)| format!("header {name} is {}", wanted(value))));
    met.extend(matcher.query.iter().map(|(name, value)| format!("query {name} is {}", wanted(value))));
    met
}

/// The condition that a request does not meet.
pub fn not_met(matcher: &Matcher, unmet: Unmet, facts: &Facts<'_>) -> String {
    match unmet {
        Unmet::Method => format!("method {} is not {}", facts.method, any_of(&matcher.methods)),
        Unmet::Path => format!("path is not {}", any_of(&matcher.path)),
        Unmet::Extension => format!("extension is not {}", any_of(&matcher.extensions)),
        Unmet::Scheme => format!("the client does not come by {}", scheme(!facts.visitor.secure)),
        Unmet::Network => format!("client {} is not in {}", facts.visitor.address, any_of(&matcher.client.networks)),
        Unmet::Country => {
            let listed: Vec<_> = matcher.client.countries.iter().map(code).collect();
            format!("country {} is not {}", country(facts.visitor.country), any_of(&listed))
        }
        Unmet::Asn => format!("ASN {} is not {}", asn(facts.visitor.asn), any_of(&matcher.client.asns)),
        Unmet::Identity => format!("no name in a client certificate is {}", any_of(&matcher.client.identities)),
        Unmet::Header(index) => match matcher.headers.get(index) {
            Some((name, _)) if facts.withheld.iter().any(|withheld| withheld == name.as_str()) => {
                format!("header {name} counts as absent: the client is not trusted")
            }
            Some((name, value)) => format!("header {name} is not {}", wanted(value)),
            None => String::new(),
        },
        Unmet::Query(index) => match matcher.query.get(index) {
            Some((name, value)) => format!("query {name} is not {}", wanted(value)),
            None => String::new(),
        },
    }
}

/// What holds of the client, by what is asked of it.
fn client<'a>(matcher: &'a ClientMatcher, visitor: &'a Visitor<'_>) -> impl Iterator<Item = String> {
    let network = matcher.networks.iter().find(|network| network.contains(&visitor.address));
    let all = [
        matcher.secure.map(|secure| format!("the client comes by {}", scheme(secure))),
        network.map(|network| format!("client {} is in {network}", visitor.address)),
        (!matcher.countries.is_empty()).then(|| format!("country {}", country(visitor.country))),
        (!matcher.asns.is_empty()).then(|| format!("ASN {}", asn(visitor.asn))),
        (!matcher.identities.is_empty())
            .then(|| format!("a name in the client certificate is {}", any_of(&matcher.identities))),
    ];
    all.into_iter().flatten()
}

fn scheme(secure: bool) -> &'static str {
    if secure { "https" } else { "http" }
}

fn country(country: Option<[u8; 2]>) -> String {
    country.as_ref().map_or("unknown".to_owned(), code)
}

fn code(code: &[u8; 2]) -> String {
    code.escape_ascii().to_string()
}

fn asn(asn: Option<u32>) -> String {
    asn.map_or("unknown".to_owned(), |asn| asn.to_string())
}

fn wanted(value: &ValueMatch) -> String {
    match value {
        ValueMatch::Present => "present".to_owned(),
        ValueMatch::Absent => "absent".to_owned(),
        ValueMatch::Equals(value) => format!("{value:?}"),
    }
}

/// `a`, `a or b`, `a, b or c`.
fn any_of<T: ToString>(all: &[T]) -> String {
    let all: Vec<String> = all.iter().map(T::to_string).collect();
    match all.split_last() {
        None => String::new(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName};

    use super::*;
    use crate::config::pattern::PathPattern;
    use crate::site::unmet;

    fn matcher() -> Matcher {
        Matcher {
            path: vec![PathPattern::parse("/a/**").unwrap(), PathPattern::parse("/b/**").unwrap()],
            extensions: vec!["png".to_owned()],
            methods: vec!["GET".to_owned()],
            headers: vec![("x-kind".to_owned(), ValueMatch::Equals("a\"b".to_owned()))],
            query: vec![("q".to_owned(), ValueMatch::Absent)],
            ..Matcher::default()
        }
    }

    fn why(method: &str, path: &str, query: Option<&str>, kind: Option<&str>, withheld: &[HeaderName]) -> String {
        let mut headers = HeaderMap::new();
        if let Some(kind) = kind {
            headers.insert("x-kind", kind.parse().unwrap());
        }
        let facts = Facts { method, path, query, headers: &headers, withheld, visitor: Visitor::nobody() };
        match unmet(&matcher(), &facts) {
            Some(unmet) => not_met(&matcher(), unmet, &facts),
            None => met(&matcher(), &facts).join(", "),
        }
    }

    #[test]
    fn conditions_on_the_client() {
        let client = ClientMatcher {
            networks: vec!["10.0.0.0/8".parse().unwrap()],
            countries: vec![*b"DE", *b"SE"],
            asns: vec![7],
            identities: vec!["*.example.com".to_owned()],
            secure: Some(true),
        };
        let matcher = Matcher { client, ..Matcher::default() };
        let (headers, names) = (HeaderMap::new(), ["a.example.com".to_owned()]);
        let why = |visitor| {
            let facts = Facts { method: "GET", path: "/", query: None, headers: &headers, withheld: &[], visitor };
            match unmet(&matcher, &facts) {
                Some(unmet) => not_met(&matcher, unmet, &facts),
                None => met(&matcher, &facts).join(", "),
            }
        };
        let mut visitor = Visitor::nobody();
        assert_eq!(why(visitor), "the client does not come by https");
        visitor.secure = true;
        assert_eq!(why(visitor), "client 0.0.0.0 is not in 10.0.0.0/8");
        visitor.address = "10.0.0.1".parse().unwrap();
        assert_eq!(why(visitor), "country unknown is not DE or SE");
        visitor.country = Some(*b"SE");
        assert_eq!(why(visitor), "ASN unknown is not 7");
        visitor.asn = Some(7);
        assert_eq!(why(visitor), "no name in a client certificate is *.example.com");
        visitor.identities = &names;
        assert_eq!(
            why(visitor),
            "the client comes by https, client 10.0.0.1 is in 10.0.0.0/8, country SE, ASN 7, \
             a name in the client certificate is *.example.com"
        );
    }

    #[test]
    fn each_condition_has_its_words() {
        let kind = Some("a\"b");
        assert_eq!(why("POST", "/a/b.png", None, kind, &[]), "method POST is not GET");
        assert_eq!(why("GET", "/c.png", None, kind, &[]), "path is not /a/** or /b/**");
        assert_eq!(why("GET", "/b/c", None, kind, &[]), "extension is not png");
        assert_eq!(why("GET", "/b/c.png", None, None, &[]), r#"header x-kind is not "a\"b""#);
        assert_eq!(why("GET", "/b/c.png", Some("q"), kind, &[]), "query q is not absent");
        let withheld = [HeaderName::from_static("x-kind")];
        let counts = "header x-kind counts as absent: the client is not trusted";
        assert_eq!(why("GET", "/b/c.png", None, kind, &withheld), counts);
        assert_eq!(
            why("HEAD", "/b/c.PNG", Some("r"), kind, &[]),
            r#"method HEAD, path /b/**, extension png, header x-kind is "a\"b", query q is absent"#
        );
    }
}
