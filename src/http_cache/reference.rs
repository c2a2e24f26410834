//! URI references in a response, as far as they name resources of this cache (RFC 3986 §5).

use http::header::{CONTENT_LOCATION, HeaderMap};

/// Whether a response describes the resource that was asked itself: its Content-Location is the request's own URL
/// (RFC 9110 §8.7), given as host and path with query.
pub fn describes_target(host: &str, path_and_query: &str, response: &HeaderMap) -> bool {
    let mut lines = response.get_all(CONTENT_LOCATION).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return false };
    let described = line.to_str().ok().and_then(|reference| resolve(reference, host, path_and_query));
    described.is_some() && described == resolve("", host, path_and_query)
}

/// Resolves a URI reference (RFC 3986 §5.2) against the request's URL; `None` unless it is on the same host.
pub(super) fn resolve(reference: &str, host: &str, base: &str) -> Option<String> {
    let reference = reference.split_once('#').map_or(reference, |(before, _)| before).trim();
    if let Some(rest) = without_scheme(reference)? {
        return on_host(rest, host);
    }
    if let Some(rest) = reference.strip_prefix("//") {
        return on_host(rest, host);
    }
    let (base_path, base_query) = split_query(base);
    let (path, query) = split_query(reference);
    if path.is_empty() {
        return Some(join(base_path, query.or(base_query)));
    }
    if path.starts_with('/') {
        return Some(join(path, query));
    }
    let directory = base_path.rfind('/').and_then(|slash| base_path.get(..=slash)).unwrap_or("/");
    Some(join(&format!("{directory}{path}"), query))
}

/// What follows `http://` or `https://`; an inner `None` for a relative reference, an outer one for another scheme.
fn without_scheme(reference: &str) -> Option<Option<&str>> {
    let Some(colon) = reference.find([':', '/', '?']).filter(|at| reference[*at..].starts_with(':')) else {
        return Some(None);
    };
    let (scheme, rest) = reference.split_at(colon);
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return None;
    }
    rest.strip_prefix("://").map(Some)
}

/// `authority/path?query`, as path and query if the authority is `host`.
fn on_host(rest: &str, host: &str) -> Option<String> {
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    // With user information, the comparison fails: such a URL names no resource of this cache.
    if !without_port(authority).eq_ignore_ascii_case(without_port(host)) {
        return None;
    }
    let (path, query) = split_query(rest);
    Some(join(path, query))
}

/// Without a port that a scheme has by default.
fn without_port(authority: &str) -> &str {
    [":443", ":80", ":"].iter().find_map(|port| authority.strip_suffix(port)).unwrap_or(authority)
}

fn split_query(text: &str) -> (&str, Option<&str>) {
    text.split_once('?').map_or((text, None), |(path, query)| (path, Some(query)))
}

/// The path without dot segments (RFC 3986 §5.2.4), and the query.
fn join(path: &str, query: Option<&str>) -> String {
    let mut segments: Vec<&str> = Vec::new();
    let mut all = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    while let Some(segment) = all.next() {
        let last = all.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    segments.pop();
                }
                if last {
                    segments.push("");
                }
            }
            _ => segments.push(segment),
        }
    }
    let mut url = String::with_capacity(path.len() + 1 + query.map_or(0, |query| query.len() + 1));
    url.push('/');
    url.push_str(&segments.join("/"));
    if let Some(query) = query {
        url.push('?');
        url.push_str(query);
    }
    url
}

#[cfg(test)]
mod tests {
    use super::super::testing::headers;
    use super::*;

    #[test]
    fn a_response_that_describes_its_own_target() {
        for (location, expected) in [
            ("/a/b?x=1", true),
            ("b?x=1", true),
            ("", true),
            ("?x=1", true),
            ("http://h.example/a/b?x=1", true),
            ("https://H.example:443/a/./b?x=1", true),
            ("/a/b", false),
            ("/a/c?x=1", false),
            ("http://other.example/a/b?x=1", false),
            ("mailto:a@b", false),
        ] {
            let response = headers(&[("content-location", location)]);
            assert_eq!(describes_target("h.example", "/a/b?x=1", &response), expected, "{location}");
        }
        assert!(!describes_target("h.example", "/a", &headers(&[])));
        assert!(!describes_target(
            "h.example",
            "/a",
            &headers(&[("content-location", "/a"), ("content-location", "/a")])
        ));
    }
}
