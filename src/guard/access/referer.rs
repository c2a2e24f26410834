//! The host of a Referer, for hotlink protection.

use crate::config::model::{HostPattern, Referers};

/// Whether a Referer may be there; `None`: there is none.
pub fn allowed(referers: &Referers, value: Option<&[u8]>) -> bool {
    match value.and_then(host) {
        Some(host) => referers.hosts.iter().any(|pattern| matches(pattern, host)),
        None => referers.none,
    }
}

/// The host of a URL, without its port and a dot at its end; `None`: it is no URL with a host.
fn host(url: &[u8]) -> Option<&str> {
    let url = str::from_utf8(url).ok()?.trim_ascii();
    let (scheme, rest) = url.split_once("://")?;
    let is_scheme = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) || !scheme.bytes().all(is_scheme) {
        return None;
    }
    // A browser takes a backslash for a slash.
    let authority = rest.split(['/', '?', '#', '\\']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match host.strip_prefix('[') {
        Some(v6) => v6.split_once(']')?.0,
        None => host.split_once(':').map_or(host, |(host, _)| host),
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    (!host.is_empty()).then_some(host)
}

fn matches(pattern: &HostPattern, host: &str) -> bool {
    match pattern {
        // With brackets in the pattern, an IPv6 address.
        HostPattern::Exact(name) => name.trim_start_matches('[').trim_end_matches(']').eq_ignore_ascii_case(host),
        HostPattern::Wildcard(suffix) => {
            let name = host.len().checked_sub(suffix.len()).filter(|name| *name > 0);
            name.and_then(|name| host.get(name..)).is_some_and(|end| end.eq_ignore_ascii_case(suffix))
        }
        HostPattern::Any => true,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::cases;

    fn referers(none: bool) -> Referers {
        let hosts = vec![
            HostPattern::Exact("example.com".to_owned()),
            HostPattern::Wildcard(".example.org".to_owned()),
            HostPattern::Exact("[2001:db8::1]".to_owned()),
        ];
        Referers { hosts, none }
    }

    #[test]
    fn hosts() {
        for inside in [
            "https://example.com",
            "http://example.com/a?b#c",
            "HTTPS://Example.COM:8443/",
            "https://example.com./",
            "https://user:password@example.com/",
            "https://a.example.org/",
            "https://a.b.example.org",
            "http://[2001:DB8::1]:80/",
        ] {
            assert!(allowed(&referers(false), Some(inside.as_bytes())), "{inside}");
        }
        for outside in [
            "https://example.com.evil.test/",
            "https://evil.test/https://example.com/",
            "https://example.com@evil.test/",
            "https://evil.test\\@example.com/",
            "https://evil.test?@example.com/",
            "https://evil.test#@example.com/",
            "https://notexample.com",
            "https://example.org/",
            "https://.example.org/",
            "https://notexample.org/",
        ] {
            assert!(!allowed(&referers(false), Some(outside.as_bytes())), "{outside}");
            assert!(!allowed(&referers(true), Some(outside.as_bytes())), "{outside}");
        }
        let any = Referers { hosts: vec![HostPattern::Any], none: false };
        assert!(allowed(&any, Some(b"http://x")) && !allowed(&any, None));
    }

    #[test]
    fn what_is_no_url_is_as_none() {
        for none in [
            None,
            Some(""),
            Some("example.com"),
            Some("about:blank"),
            Some("https://"),
            Some("https:///a"),
            Some("http://[::1"),
        ] {
            let none = none.map(str::as_bytes);
            assert!(allowed(&referers(true), none) && !allowed(&referers(false), none), "{none:?}");
        }
        assert!(allowed(&referers(true), Some(b"https://example.com\xff/")));
    }

    proptest! {
        #![proptest_config(cases(2_000))]

        #[test]
        fn never_panics(value in "(https?://)?([a-z@:/?#\\\\.\\[\\]]|\\PC){0,20}") {
            let _ = allowed(&referers(true), Some(value.as_bytes()));
        }
    }
}
