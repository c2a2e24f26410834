//! What requests are counted by: the parts of a limit's key, as one hash.

use std::hash::{BuildHasher, Hasher, RandomState};

use http::HeaderMap;
use http::header::COOKIE;

use crate::config::model::{KeyPart, client_network};
use crate::guard::Asked;
use crate::guard::signed::Grant;

/// Who a request counts for, under one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyHash(pub(super) u64);

/// Makes keys. One for the process: its secret is what keeps a client from choosing whom it shares a count with.
#[derive(Debug, Default)]
pub struct Keys {
    secret: RandomState,
}

impl Keys {
    /// With a secret of its own.
    pub fn new() -> Keys {
        Keys::default()
    }

    /// The key of a request under the limit `name`: nothing in common with the same values under another name, or with
    /// the values of other parts.
    pub fn of(&self, name: &str, parts: &[KeyPart], asked: &Asked<'_>, grant: Option<&Grant>) -> KeyHash {
        let mut text = Text { hasher: self.secret.build_hasher(), length: 0 };
        text.add(name.as_bytes());
        text.end(0);
        for part in parts {
            let kind = text.part(part, asked, grant);
            text.end(kind);
        }
        KeyHash(text.hasher.finish())
    }
}

/// What is hashed. Behind each part come its length and its kind: read from the end, it can be taken apart in one way alone.
struct Text<H> {
    hasher: H,
    /// Of the part so far.
    length: u64,
}

impl<H: Hasher> Text<H> {
    fn add(&mut self, bytes: &[u8]) {
        self.hasher.write(bytes);
        self.length += bytes.len() as u64;
    }

    fn end(&mut self, kind: u8) {
        self.hasher.write_u64(self.length);
        self.hasher.write_u8(kind);
        self.length = 0;
    }

    /// Adds the value of a part; its kind.
    fn part(&mut self, part: &KeyPart, asked: &Asked<'_>, grant: Option<&Grant>) -> u8 {
        match part {
            KeyPart::ClientIp => {
                match client_network(asked.visitor.address) {
                    std::net::IpAddr::V4(address) => self.add(&address.octets()),
                    std::net::IpAddr::V6(address) => self.add(&address.octets()),
                }
                1
            }
            KeyPart::Header(name) => {
                // Several lines are one list (RFC 9110 §5.3).
                for (line, value) in asked.headers.get_all(name).iter().enumerate() {
                    if line > 0 {
                        self.add(b", ");
                    }
                    self.add(value.as_bytes());
                }
                2
            }
            KeyPart::Cookie(name) => {
                self.add(cookie(asked.headers, name).unwrap_or_default());
                3
            }
            KeyPart::Path => {
                self.add(asked.path.as_bytes());
                4
            }
            KeyPart::Host => {
                self.add(asked.host.as_bytes());
                5
            }
            KeyPart::TokenId => {
                self.add(grant.map_or(&[], |grant| grant.id.as_bytes()));
                6
            }
            KeyPart::Country => {
                self.add(asked.visitor.country.as_ref().map_or(&[], |country| &country[..]));
                7
            }
            KeyPart::Asn => {
                if let Some(asn) = asked.visitor.asn {
                    self.add(&asn.to_be_bytes());
                }
                8
            }
            KeyPart::Identity => {
                self.add(asked.visitor.identities.first().map_or(&[], |name| name.as_bytes()));
                9
            }
            KeyPart::All => 10,
        }
    }
}

/// The first cookie of this name.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let lines = headers.get_all(COOKIE).iter();
    lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';')).find_map(|pair| {
        let (key, value) = pair.split_at_checked(memchr::memchr(b'=', pair)?)?;
        (key.trim_ascii() == name.as_bytes()).then(|| value.get(1..).unwrap_or_default().trim_ascii())
    })
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use http::{HeaderName, HeaderValue, Method};
    use proptest::prelude::*;

    use super::*;
    use crate::guard::Visitor;

    fn visitor(address: &str) -> Visitor<'static> {
        let address = address.parse::<IpAddr>().unwrap();
        Visitor { address, secure: false, identities: &[], country: None, asn: None }
    }

    fn asked<'a>(headers: &'a HeaderMap, visitor: Visitor<'a>) -> Asked<'a> {
        Asked { method: &Method::GET, host: "a.test", path: "/x", headers, visitor }
    }

    fn by_address(keys: &Keys, address: &str) -> KeyHash {
        keys.of("a", &[KeyPart::ClientIp], &asked(&HeaderMap::new(), visitor(address)), None)
    }

    fn fields(fields: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = fields
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap()));
        let mut headers = HeaderMap::new();
        pairs.for_each(|(name, value)| {
            headers.append(name, value);
        });
        headers
    }

    fn by(keys: &Keys, part: KeyPart, headers: &HeaderMap) -> KeyHash {
        keys.of("a", &[part], &asked(headers, visitor("192.0.2.1")), None)
    }

    #[test]
    fn a_client_is_an_ipv4_address_or_a_network_of_ipv6() {
        let keys = Keys::new();
        assert_ne!(by_address(&keys, "192.0.2.1"), by_address(&keys, "192.0.2.2"));
        assert_eq!(by_address(&keys, "2001:db8::1"), by_address(&keys, "2001:db8::ffff:1:2:3"));
        assert_ne!(by_address(&keys, "2001:db8::1"), by_address(&keys, "2001:db8:0:1::1"));
    }

    #[test]
    fn limits_of_other_names_count_apart_and_so_do_other_processes() {
        let (keys, headers) = (Keys::new(), HeaderMap::new());
        let asked = asked(&headers, visitor("192.0.2.1"));
        let by = |keys: &Keys, name| keys.of(name, &[KeyPart::ClientIp], &asked, None);
        assert_eq!(by(&keys, "a"), by(&keys, "a"));
        assert_ne!(by(&keys, "a"), by(&keys, "b"));
        assert_ne!(by(&keys, "a"), by(&Keys::new(), "a"));
    }

    #[test]
    fn the_lines_of_a_field_are_one_list() {
        let keys = Keys::new();
        let header = || KeyPart::Header("x-key".into());
        let one = by(&keys, header(), &fields(&[("x-key", "a, b")]));
        assert_eq!(one, by(&keys, header(), &fields(&[("x-key", "a"), ("x-key", "b")])));
        assert_ne!(one, by(&keys, header(), &fields(&[("x-key", "a")])));
        // None is as an empty one.
        assert_eq!(by(&keys, header(), &fields(&[])), by(&keys, header(), &fields(&[("x-key", "")])));
    }

    #[test]
    fn a_cookie_is_found_among_others() {
        let headers = fields(&[("cookie", "xid=0; id = 1 ;id=2"), ("cookie", "other=3=4; none")]);
        assert_eq!(cookie(&headers, "id"), Some(&b"1"[..]));
        assert_eq!(cookie(&headers, "other"), Some(&b"3=4"[..]));
        assert_eq!(cookie(&headers, "none"), None);
        assert_eq!(cookie(&headers, "d"), None);
    }

    #[test]
    fn each_part_tells_requests_apart() {
        let keys = Keys::new();
        let (headers, names) = (HeaderMap::new(), ["a".to_owned(), "b".to_owned()]);
        let plain = asked(&headers, visitor("192.0.2.1"));
        let grant = Grant { id: "t1".into(), expires: None };
        let known = Visitor { country: Some(*b"AT"), asn: Some(64496), identities: &names, ..visitor("192.0.2.1") };
        let of = |part: &KeyPart, asked: &Asked<'_>, grant| keys.of("a", std::slice::from_ref(part), asked, grant);
        for part in [KeyPart::Country, KeyPart::Asn, KeyPart::Identity] {
            assert_ne!(of(&part, &plain, None), of(&part, &asked(&headers, known), None), "{part:?}");
        }
        assert_ne!(of(&KeyPart::TokenId, &plain, None), of(&KeyPart::TokenId, &plain, Some(&grant)));
        assert_ne!(of(&KeyPart::Path, &plain, None), of(&KeyPart::Path, &Asked { path: "/y", ..plain }, None));
        assert_ne!(of(&KeyPart::Host, &plain, None), of(&KeyPart::Host, &Asked { host: "b.test", ..plain }, None));
        let elsewhere = Asked { path: "/y", visitor: visitor("192.0.2.9"), ..plain };
        assert_eq!(of(&KeyPart::All, &plain, None), of(&KeyPart::All, &elsewhere, None));
    }

    proptest! {
        /// No values of two parts are those of others: bytes cannot be moved from one to the next.
        #[test]
        fn keys_are_equal_where_all_parts_are(
            a in "[ -~]{0,6}", b in "[ -~]{0,6}", c in "[ -~]{0,6}", d in "[ -~]{0,6}",
        ) {
            let keys = Keys::new();
            let parts = [KeyPart::Header("x-a".into()), KeyPart::Header("x-b".into())];
            let of = |one: &str, two: &str| {
                let headers = fields(&[("x-a", one), ("x-b", two)]);
                keys.of("a", &parts, &asked(&headers, visitor("192.0.2.1")), None)
            };
            prop_assert_eq!(of(&a, &b) == of(&c, &d), (&a, &b) == (&c, &d));
        }

        /// Whatever a client sends is looked at without a fault.
        #[test]
        fn any_field_is_a_key(value in prop::collection::vec(any::<u8>(), 0..64)) {
            let Ok(value) = HeaderValue::from_bytes(&value) else { return Ok(()) };
            let mut headers = HeaderMap::new();
            headers.insert(COOKIE, value.clone());
            headers.insert("x-key", value);
            let keys = Keys::new();
            by(&keys, KeyPart::Cookie("id".into()), &headers);
            by(&keys, KeyPart::Header("x-key".into()), &headers);
        }
    }
}
