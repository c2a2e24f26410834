//! What the command line asks about.

use std::net::IpAddr;

use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

/// A request, and perhaps what its origin answers.
pub struct Ask {
    pub method: Method,
    /// As a client would send it.
    pub target: String,
    pub headers: HeaderMap,
    /// `None`: from nobody in particular, who is not trusted.
    pub from: Option<IpAddr>,
    /// It comes by TLS.
    pub secure: bool,
    /// The names in the client's certificate.
    pub identities: Vec<String>,
    /// In place of what the databases say.
    pub country: Option<[u8; 2]>,
    pub asn: Option<u32>,
    pub answer: Option<Answer>,
    /// Every route that does not match is named.
    pub verbose: bool,
}

/// What the origin answers.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// Seconds from then to the same request once more.
    pub again_after: u32,
}

/// A header field.
#[derive(Clone, Debug)]
pub struct Field {
    name: HeaderName,
    value: HeaderValue,
}

/// What is asked for, as a client makes it of a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub target: String,
    /// Of an absolute URL.
    host: Option<String>,
    /// Its scheme is https.
    pub secure: bool,
}

impl Target {
    /// The request's fields. A Host among them stands for the URL's, as it does for curl.
    pub fn headers(&self, fields: &[Field]) -> HeaderMap {
        let mut headers = headers(fields);
        if let Some(host) = self.host.as_ref().and_then(|host| HeaderValue::from_str(host).ok())
            && !headers.contains_key(HOST)
        {
            headers.insert(HOST, host);
        }
        headers
    }
}

/// A header section of these fields.
pub fn headers(fields: &[Field]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for Field { name, value } in fields {
        headers.append(name.clone(), value.clone());
    }
    headers
}

/// `Name: value`.
pub fn field(text: &str) -> Result<Field, String> {
    let (name, value) = text.split_once(':').ok_or("expected `Name: value`")?;
    let name = name.parse().map_err(|_| format!("{name:?} is no field name"))?;
    let value = value.trim_matches([' ', '\t']);
    let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| "a field's value has no control characters")?;
    Ok(Field { name, value })
}

pub fn method(text: &str) -> Result<Method, String> {
    text.parse().map_err(|_| "expected a method such as GET".to_owned())
}

/// ISO 3166-1 alpha-2, in any case.
pub fn country(text: &str) -> Result<[u8; 2], String> {
    match text.as_bytes() {
        [a, b] if a.is_ascii_alphabetic() && b.is_ascii_alphabetic() => Ok([a, b].map(u8::to_ascii_uppercase)),
        _ => Err("expected a country by ISO 3166-1, such as DE".to_owned()),
    }
}

/// A final status.
pub fn status(text: &str) -> Result<StatusCode, String> {
    match text.parse::<StatusCode>() {
        Ok(status) if !status.is_informational() => Ok(status),
        _ => Err("expected a final status such as 200".to_owned()),
    }
}

/// `http://host/path`, `/path` or `*`.
pub fn target(text: &str) -> Result<Target, String> {
    if let Some(odd) = text.chars().find(|c| c.is_ascii_whitespace() || c.is_control()) {
        return Err(format!("{odd:?} has to be percent-encoded"));
    }
    if text.contains('#') {
        return Err("a fragment (`#…`) is for the browser, and never sent".to_owned());
    }
    if text.starts_with('/') || text == "*" {
        return Ok(Target { target: text.to_owned(), host: None, secure: false });
    }
    let is_scheme = |scheme: &str| text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    let Some(scheme) = ["http://", "https://"].iter().find(|scheme| is_scheme(scheme)) else {
        return Err("expected a URL (http://host/path), or a path beside -H 'Host: name'".to_owned());
    };
    let rest = &text[scheme.len()..];
    let (host, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if host.is_empty() {
        return Err("the URL names no host".to_owned());
    }
    // RFC 9112 §3.2.1: an empty path is sent as `/`.
    let slash = if path.starts_with('/') { "" } else { "/" };
    Ok(Target { target: format!("{slash}{path}"), host: Some(host.to_owned()), secure: scheme.starts_with("https") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_host_and_a_target() {
        for (url, host, path) in [
            ("http://a.test/b?c", Some("a.test"), "/b?c"),
            ("HTTP://a.test:8080", Some("a.test:8080"), "/"),
            ("https://a.test?b", Some("a.test"), "/?b"),
            ("/b", None, "/b"),
            ("//b", None, "//b"),
            ("*", None, "*"),
        ] {
            let secure = url.starts_with("https");
            let expected = Target { target: path.to_owned(), host: host.map(str::to_owned), secure };
            assert_eq!(target(url), Ok(expected), "{url}");
        }
        for url in ["", "a.test/b", "ftp://a.test/", "http:///b", "/a b", "/a\n", "/a#b"] {
            assert!(target(url).is_err(), "{url}");
        }
    }

    #[test]
    fn a_field_is_a_name_and_a_value() {
        let Field { name, value } = field("X-A:  b: c ").unwrap();
        assert_eq!((name.as_str(), value.as_bytes()), ("x-a", &b"b: c"[..]));
        assert!(field("X-A:").unwrap().value.is_empty());
        for text in ["", "X-A", "X A: b", ": b", "X-A: b\nX-B: c"] {
            assert!(field(text).is_err(), "{text:?}");
        }
        assert_eq!(country("de"), Ok(*b"DE"));
        assert!(country("DEU").is_err() && country("D1").is_err());
        assert!(status("200").is_ok() && status("103").is_err() && status("x").is_err());
    }

    #[test]
    fn a_host_of_ones_own_stands_for_that_of_the_url() {
        let url = target("http://a.test/").unwrap();
        assert_eq!(url.headers(&[])[HOST], "a.test");
        let headers = url.headers(&[field("Host: b.test").unwrap()]);
        assert_eq!(headers.get_all(HOST).iter().collect::<Vec<_>>(), ["b.test"]);
    }
}
