//! The conditions of a route in words: those that hold, and the one that does not.

use crate::config::model::{Matcher, ValueMatch};
use crate::site::{Facts, Unmet};

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
        let facts = Facts { method, path, query, headers: &headers, withheld };
        match unmet(&matcher(), &facts) {
            Some(unmet) => not_met(&matcher(), unmet, &facts),
            None => met(&matcher(), &facts).join(", "),
        }
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
