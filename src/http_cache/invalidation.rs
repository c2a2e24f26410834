//! What a successful unsafe request makes invalid (RFC 9111 §4.4).

use http::header::{CONTENT_LOCATION, HeaderMap, LOCATION};
use http::{Method, StatusCode};

use super::reference::resolve;

/// The path and query of each URL on the request's host that is to be invalidated: the request's own first, as given,
/// then those of Location and Content-Location. Empty for a safe method, and for an error.
///
/// URLs on other hosts are left alone: one site must not be able to empty another's cache. The scheme is not looked at,
/// since a cache key need not have it, and an origin behind this edge need not know which one the client used.
pub fn invalidated(
    method: &Method,
    status: StatusCode,
    host: &str,
    path_and_query: &str,
    response: &HeaderMap,
) -> Vec<String> {
    if !invalidates(method, status) {
        return Vec::new();
    }
    let mut paths = vec![path_and_query.to_owned()];
    for name in [LOCATION, CONTENT_LOCATION] {
        let reference = response.get(&name).and_then(|value| value.to_str().ok());
        let Some(path) = reference.and_then(|reference| resolve(reference, host, path_and_query)) else { continue };
        if !paths.contains(&path) {
            paths.push(path);
        }
    }
    paths
}

/// Whether a response shows that its request has changed something: the method is unsafe, and it is no error.
pub(super) fn invalidates(method: &Method, status: StatusCode) -> bool {
    !is_safe(method) && (status.is_success() || status.is_redirection())
}

/// RFC 9110 §9.2.1, and the safe ones of the IANA method registry. A method of unknown safety is unsafe.
fn is_safe(method: &Method) -> bool {
    matches!(method.as_str(), "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PROPFIND" | "QUERY" | "REPORT" | "SEARCH")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::HeaderName;
    use proptest::prelude::*;

    use super::*;

    fn after(method: &str, status: u16, fields: &[(&'static str, &str)]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        invalidated(&method, StatusCode::from_u16(status).unwrap(), "a.example", "/dir/page?q=1", &headers)
    }

    #[test]
    fn unsafe_methods_that_succeed() {
        // RFC 9111 §4.4.
        for method in ["POST", "PUT", "DELETE", "PATCH", "M-SEARCH", "get"] {
            for status in [200, 201, 204, 303] {
                assert_eq!(after(method, status, &[]), ["/dir/page?q=1"], "{method} {status}");
            }
            for status in [400, 404, 500, 503] {
                assert!(after(method, status, &[("location", "/x")]).is_empty(), "{method} {status}");
            }
        }
        for method in ["GET", "HEAD", "OPTIONS", "TRACE"] {
            assert!(after(method, 200, &[("location", "/x")]).is_empty(), "{method}");
        }
    }

    #[test]
    fn location_and_content_location_on_the_same_host() {
        for (reference, expected) in [
            ("/other", Some("/other")),
            ("/other?x=1#part", Some("/other?x=1")),
            ("other", Some("/dir/other")),
            ("./other", Some("/dir/other")),
            ("../other", Some("/other")),
            ("../../../other", Some("/other")),
            ("..", Some("/")),
            (".", Some("/dir/")),
            ("?x", Some("/dir/page?x")),
            ("http://a.example/other", Some("/other")),
            ("HTTPS://A.Example:443/other", Some("/other")),
            ("http://a.example:80?x", Some("/?x")),
            ("http://a.example", Some("/")),
            ("//a.example/x/../other", Some("/other")),
            ("other:8", None),
            ("/a:b", Some("/a:b")),
            ("x?a:b", Some("/dir/x?a:b")),
            ("http://b.example/other", None),
            ("//b.example/other", None),
            ("http://a.example:8080/other", None),
            ("http://user@a.example/other", None),
            ("http://a.example.evil/other", None),
            ("http:other", None),
            ("ftp://a.example/other", None),
            ("", None),
            ("#part", None),
        ] {
            for name in ["location", "content-location"] {
                let got = after("POST", 201, &[(name, reference)]);
                let expected: Vec<_> = std::iter::once("/dir/page?q=1").chain(expected).collect();
                assert_eq!(got, expected, "{name}: {reference}");
            }
        }
        let both = after("PUT", 200, &[("location", "/a"), ("content-location", "/b")]);
        assert_eq!(both, ["/dir/page?q=1", "/a", "/b"]);
    }

    proptest! {
        #[test]
        fn total_and_absolute(reference in "[ -~ü]{0,40}", base in "[ -~]{0,20}") {
            let path = resolve(&reference, "a.example", &base);
            prop_assert!(path.is_none_or(|path| path.starts_with('/')));
        }
    }
}
