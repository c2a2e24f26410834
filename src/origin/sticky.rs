//! The cookie that says which server a client stays with.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderValue;
use sha2::{Digest, Sha256};

use crate::config::model;

/// Changed with every change of what is below: cookies of before are then not followed.
const VERSION: u8 = 1;
/// Version, server, end.
const SIGNED: usize = 1 + 8 + 8;
/// The signature is cut to it: 128 bits are beyond guessing.
const SIGNATURE: usize = 16;
/// In base64url, without padding.
const TEXT: usize = ((SIGNED + SIGNATURE) * 4).div_ceil(3);
/// SHA-256's, which is what a key is filled up to (RFC 2104 §2).
const BLOCK: usize = 64;
/// Cookies of the same name that are looked at. A browser may send several (of several paths); a client must not make
/// work with hundreds.
const MAX_COOKIES: usize = 4;

/// Makes the cookies of one origin, and reads them: base64url of a version, the server, the end of its validity, and an
/// HMAC-SHA256 of these and of the origin's name. A client can neither choose its server nor take a cookie elsewhere.
#[derive(Clone)]
pub struct Sticky {
    name: String,
    /// Seconds; `None`: for as long as the browser runs.
    ttl: Option<u64>,
    /// With the key and the origin's name taken in.
    mac: Hmac<Sha256>,
}

impl Sticky {
    pub fn new(settings: &model::Sticky, origin: &str) -> Sticky {
        let mut block = [0; BLOCK];
        let secret = &settings.secret.0;
        match block.get_mut(..secret.len()) {
            Some(start) => start.copy_from_slice(secret),
            None => block[..32].copy_from_slice(&Sha256::digest(secret)),
        }
        let mut mac = Hmac::<Sha256>::new(&block.into());
        // The length keeps the name apart from what follows.
        mac.update(&(origin.len() as u64).to_be_bytes());
        mac.update(origin.as_bytes());
        Sticky { name: settings.cookie.clone(), ttl: settings.ttl.map(|ttl| ttl.as_secs().max(1)), mac }
    }

    /// The server ([`super::Chosen::id`]) that a request's Cookie lines name. `None`: none, or only ones that are not
    /// ours, of another origin, changed or outlived. `now`: seconds since 1970.
    pub fn read<'a>(&self, lines: impl IntoIterator<Item = &'a [u8]>, now: u64) -> Option<u64> {
        let values = lines.into_iter().flat_map(|line| cookies(line, &self.name));
        values.take(MAX_COOKIES).find_map(|value| self.verify(value, now))
    }

    /// The Set-Cookie field that keeps a client with a server. `secure`: the client uses https. `None`: the cookie's name
    /// is none that a field can hold, which the configuration rules out.
    pub fn set_cookie(&self, id: u64, now: u64, secure: bool) -> Option<HeaderValue> {
        let mut token = [0; SIGNED + SIGNATURE];
        let (signed, signature) = token.split_at_mut(SIGNED);
        signed[0] = VERSION;
        signed[1..9].copy_from_slice(&id.to_be_bytes());
        let end = self.ttl.map_or(0, |ttl| now.saturating_add(ttl));
        signed[9..].copy_from_slice(&end.to_be_bytes());
        let whole = self.mac.clone().chain_update(&*signed).finalize().into_bytes();
        signature.copy_from_slice(&whole[..SIGNATURE]);
        let mut cookie = format!("{}={}; Path=/; HttpOnly; SameSite=Lax", self.name, URL_SAFE_NO_PAD.encode(token));
        if let Some(ttl) = self.ttl {
            cookie.push_str(&format!("; Max-Age={ttl}"));
        }
        if secure {
            cookie.push_str("; Secure");
        }
        HeaderValue::try_from(cookie).ok()
    }

    fn verify(&self, value: &[u8], now: u64) -> Option<u64> {
        if value.len() != TEXT {
            return None;
        }
        let mut token = [0; SIGNED + SIGNATURE];
        if URL_SAFE_NO_PAD.decode_slice(value, &mut token).ok()? != token.len() {
            return None;
        }
        let (signed, signature) = token.split_first_chunk::<SIGNED>()?;
        // Takes as long for every wrong signature.
        self.mac.clone().chain_update(signed).verify_truncated_left(signature).ok()?;
        let ([version], rest) = signed.split_first_chunk::<1>()?;
        let (id, rest) = rest.split_first_chunk::<8>()?;
        let end = u64::from_be_bytes(*rest.first_chunk::<8>()?);
        (*version == VERSION && (end == 0 || now < end)).then_some(u64::from_be_bytes(*id))
    }
}

impl std::fmt::Debug for Sticky {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sticky").field("name", &self.name).field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

/// The values of a cookie in a Cookie line (RFC 6265 §5.4), as they are sent: quotes are part of a value.
pub fn cookies<'a>(line: &'a [u8], name: &str) -> impl Iterator<Item = &'a [u8]> {
    line.split(|byte| *byte == b';').filter_map(move |pair| {
        let pair = pair.trim_ascii();
        let value = pair.strip_prefix(name.as_bytes())?.trim_ascii_start().strip_prefix(b"=")?;
        Some(value.trim_ascii_start())
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::config::model::Secret;

    const NOW: u64 = 1_700_000_000;

    fn sticky(origin: &str, secret: &str, ttl: Option<u64>) -> Sticky {
        let secret = Secret(secret.as_bytes().to_vec(), "env:KEY".to_owned());
        let settings = model::Sticky { cookie: "stay".to_owned(), secret, ttl: ttl.map(Duration::from_secs) };
        Sticky::new(&settings, origin)
    }

    fn value(set_cookie: &HeaderValue) -> String {
        set_cookie.to_str().unwrap().split(';').next().unwrap().to_owned()
    }

    fn read(sticky: &Sticky, line: &str, now: u64) -> Option<u64> {
        sticky.read([line.as_bytes()], now)
    }

    #[test]
    fn a_cookie_leads_back_to_its_server() {
        let sticky = sticky("shop", "secret", Some(60));
        let set = sticky.set_cookie(0xFEED_0000_0000_0001, NOW, true).unwrap();
        let text = set.to_str().unwrap();
        assert!(text.ends_with("; Path=/; HttpOnly; SameSite=Lax; Max-Age=60; Secure"), "{text}");
        let cookie = value(&set);
        assert_eq!(cookie.len(), "stay=".len() + TEXT);
        for line in [cookie.clone(), format!("a=b; {cookie} ;c"), format!("stay=old;stay ={}", &cookie[5..])] {
            assert_eq!(read(&sticky, &line, NOW + 59), Some(0xFEED_0000_0000_0001), "{line}");
        }
        assert_eq!(sticky.read([&b"x=1"[..], cookie.as_bytes()], NOW), Some(0xFEED_0000_0000_0001));
        assert_eq!(read(&sticky, &cookie, NOW + 60), None, "outlived");
        assert_eq!(read(&sticky, &format!("un{cookie}"), NOW), None);
    }

    #[test]
    fn without_a_ttl_it_is_the_browsers() {
        let sticky = sticky("shop", "secret", None);
        let set = sticky.set_cookie(5, NOW, false).unwrap();
        let text = set.to_str().unwrap();
        assert!(text.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{text}");
        assert_eq!(read(&sticky, &value(&set), u64::MAX), Some(5));
    }

    #[test]
    fn only_what_was_signed_for_this_origin_counts() {
        let ours = sticky("shop", "secret", None);
        let cookie = value(&ours.set_cookie(5, NOW, false).unwrap());
        assert_eq!(read(&sticky("shop2", "secret", None), &cookie, NOW), None);
        assert_eq!(read(&sticky("shop", "secret2", None), &cookie, NOW), None);
        assert_eq!(read(&sticky("shop", "secret", Some(9)), &cookie, NOW), Some(5), "settings may change");
        let long = "s".repeat(100);
        let (one, other) = (sticky("shop", &long, None), sticky("shop", &format!("{long}t"), None));
        let cookie = value(&one.set_cookie(5, NOW, false).unwrap());
        assert_eq!((read(&one, &cookie, NOW), read(&other, &cookie, NOW)), (Some(5), None));
    }

    #[test]
    fn no_character_can_be_changed() {
        let sticky = sticky("shop", "secret", Some(60));
        let cookie = value(&sticky.set_cookie(5, NOW, false).unwrap());
        for index in "stay=".len()..cookie.len() {
            for other in [b'A', b'_', b'7', b'=', b' ', 0xFF] {
                let mut changed = cookie.clone().into_bytes();
                if changed[index] != other {
                    changed[index] = other;
                    assert_eq!(sticky.read([&changed[..]], NOW), None, "{index} {other}");
                }
            }
            assert_eq!(read(&sticky, &cookie[..index], NOW), None);
        }
    }

    #[test]
    fn a_heap_of_cookies_makes_no_work() {
        let sticky = sticky("shop", "secret", None);
        let cookie = value(&sticky.set_cookie(5, NOW, false).unwrap());
        assert_eq!(read(&sticky, &format!("{}{cookie}", "stay=x;".repeat(MAX_COOKIES - 1)), NOW), Some(5));
        assert_eq!(read(&sticky, &format!("{}{cookie}", "stay=x;".repeat(MAX_COOKIES)), NOW), None);
    }

    #[test]
    fn a_name_that_no_field_can_hold_makes_no_cookie() {
        let mut sticky = sticky("shop", "secret", None);
        sticky.name = "a\nb".to_owned();
        assert_eq!(sticky.set_cookie(5, NOW, false), None);
    }

    #[test]
    fn the_signature_is_hmac_sha256() {
        // RFC 4231 §4.3, through the same filling up of the key.
        let mut block = [0; BLOCK];
        block[..4].copy_from_slice(b"Jefe");
        let mac = Hmac::<Sha256>::new(&block.into()).chain_update(b"what do ya want for nothing?").finalize();
        assert_eq!(mac.into_bytes()[..4], [0x5b, 0xdc, 0xc1, 0x46]);
    }

    proptest! {
        #[test]
        fn anything_may_come(line in proptest::collection::vec(any::<u8>(), 0..200), now: u64) {
            let sticky = sticky("shop", "secret", Some(60));
            prop_assert_eq!(sticky.read([&line[..]], now), None);
            let named = [b"stay=", &line[..]].concat();
            prop_assert_eq!(sticky.read([&named[..]], now), None);
        }

        #[test]
        fn anything_of_the_right_length_may_come(bytes in proptest::array::uniform32(any::<u8>()), last: u8, now: u64) {
            let sticky = sticky("shop", "secret", Some(60));
            let text = URL_SAFE_NO_PAD.encode([&bytes[..], &[last]].concat());
            prop_assert_eq!(text.len(), TEXT);
            prop_assert_eq!(sticky.read([format!("stay={text}").as_bytes()], now), None);
        }

        #[test]
        fn every_server_and_time_comes_back(id: u64, now: u64, ttl in proptest::option::of(1u64..100_000)) {
            let sticky = sticky("shop", "secret", ttl);
            let cookie = value(&sticky.set_cookie(id, now, false).unwrap());
            let valid = ttl.is_none_or(|ttl| now < now.saturating_add(ttl));
            prop_assert_eq!(read(&sticky, &cookie, now), valid.then_some(id));
        }
    }
}
