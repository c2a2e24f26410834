//! Fields of a request that do not count, and go before anything is looked up.

use http::header::{self, HeaderMap, HeaderName};
use smallvec::SmallVec;

/// Names of fields. Nearly always none, so nearly never an allocation.
pub type Names = SmallVec<[HeaderName; 4]>;

/// Fields by which a client could make an origin answer another question than the one in the cache key. Unless a
/// trusted proxy has set them, they pass only where they are in the key.
const UNKEYED: [&str; 32] = [
    "cf-connecting-ip",
    "client-ip",
    "cluster-client-ip",
    "fastly-client-ip",
    "forwarded",
    "forwarded-for",
    "forwarded-for-ip",
    "forwarded-host",
    "forwarded-proto",
    "front-end-https",
    "host-override",
    "proxy",
    "true-client-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-envoy-original-path",
    "x-forwarder-for",
    "x-host",
    "x-host-override",
    "x-http-destinationurl",
    "x-http-host-override",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-ms-original-url",
    "x-override-url",
    "x-proxy-url",
    "x-real-ip",
    "x-remote-addr",
    "x-remote-ip",
    "x-scheme",
    "x-url-scheme",
];

/// The same for all fields that begin so.
const UNKEYED_PREFIXES: [&str; 3] = ["x-forwarded-", "x-original-", "x-rewrite-"];

/// Fields that a request keeps even if its Connection names them: its framing, its target, and where it has been.
static NOT_NOMINATED: [HeaderName; 6] = [
    header::CONNECTION,
    header::UPGRADE,
    header::HOST,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    HeaderName::from_static("cdn-loop"),
];

/// Nor those by which proxies say who asks: a client could have what a trusted one says of it go, and be taken for that proxy
/// itself. What nobody trusted says is dropped by [`withheld`].
const FORWARDING: &str = "x-forwarded-";

/// The fields that are for this hop alone because Connection names them (RFC 9110 §7.6.1). They are to be removed
/// before anything else is looked at: the origin does not get them.
pub fn nominated(headers: &HeaderMap) -> Names {
    let mut nominated = Names::new();
    for line in headers.get_all(header::CONNECTION) {
        for option in line.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii) {
            let is_usual = [&b"close"[..], b"keep-alive", b"upgrade"].iter().any(|o| option.eq_ignore_ascii_case(o));
            if !is_usual
                && let Ok(name) = HeaderName::from_bytes(option)
                && headers.contains_key(&name)
                && !NOT_NOMINATED.contains(&name)
                && !name.as_str().starts_with(FORWARDING)
                && !nominated.contains(&name)
            {
                nominated.push(name);
            }
        }
    }
    nominated
}

/// The fields that are there and that their sender may not set: they choose no route, and go unless they are in the key.
pub fn withheld(headers: &HeaderMap, trusted: bool) -> Names {
    if trusted {
        return Names::new();
    }
    headers.keys().filter(|name| is_unkeyed(name.as_str())).cloned().collect()
}

/// Whether a field is one of [`UNKEYED`], for an origin too that takes an underscore for a hyphen, as CGI makes it.
fn is_unkeyed(name: &str) -> bool {
    // Names are in lower case. The first letters rule most of them out.
    let ([b'c', b'f' | b'l', ..] | [b'f' | b't' | b'x', ..] | [b'h', b'o', _, b't', _, ..] | [b'p', b'r', ..]) =
        name.as_bytes()
    else {
        return false;
    };
    let begins = |unkeyed: &str| {
        name.len() >= unkeyed.len()
            && name.bytes().zip(unkeyed.bytes()).all(|(n, u)| n == u || (n == b'_' && u == b'-'))
    };
    UNKEYED.iter().any(|unkeyed| name.len() == unkeyed.len() && begins(unkeyed))
        || UNKEYED_PREFIXES.iter().any(|prefix| begins(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn connection_names_fields_for_this_hop() {
        let headers = headers(&[
            ("connection", "close, X-Hop, Host, x-absent, bad name"),
            ("connection", "x-hop,CDN-Loop,cookie,X-Forwarded-For"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-hop", "1"),
            ("cookie", "a=1"),
            ("host", "a.test"),
            ("cdn-loop", "x"),
        ]);
        assert_eq!(nominated(&headers).as_slice(), ["x-hop", "cookie"]);
    }

    #[test]
    fn unkeyed_in_whatever_spelling() {
        for name in
            ["x-forwarded-host", "x_forwarded-host", "x-original-url", "x-rewrite-url", "forwarded", "x_real_ip"]
        {
            assert!(is_unkeyed(name), "{name}");
        }
        for name in ["x-forwarded", "x-hostile", "forwarded-by", "accept", "", "x-originality"] {
            assert!(!is_unkeyed(name), "{name}");
        }
        assert!(withheld(&headers(&[("accept", "*/*")]), false).is_empty());
        let claim = headers(&[("x-real-ip", "1.1.1.1")]);
        assert_eq!(withheld(&claim, false).as_slice(), ["x-real-ip"]);
        assert!(withheld(&claim, true).is_empty());
    }
}
