//! The format `akamai`: EdgeAuth tokens 2.0, as Akamai's generators (github.com/akamai/EdgeAuth-Token-*) make them.
//!
//! `st=…~exp=…~acl=/video/*~hmac=…`: what stands before `~hmac=` is signed as it is, with the URL and the salt appended
//! where there are any. So the order of the fields does not matter, and a URL's token does not have the URL in it.

use std::fmt::Write;

use ipnet::IpNet;
use smallvec::SmallVec;

use super::keyring::{Algorithm, Keyring};
use super::sign::{CannotSign, Part, Place, Signed, Wish};
use super::text::{decoded, may_climb, plain, seconds};
use super::{Grant, Places, Presented, Refused, Verifier, find, take};
use crate::config::model::{AkamaiAlgorithm, Secret, UrlFormat};
use crate::site::normalise_path;

/// Longest token.
const LONGEST: usize = 4096;
/// Characters of the signature that tell tokens apart, 48 bits; and the most of an id.
const SHOWN: usize = 12;
const LONGEST_ID: usize = 64;

/// The keys of one `akamai` key.
pub struct Akamai {
    keys: Keyring,
    places: Places,
    salt: Option<Secret>,
    fields: char,
    acls: char,
    escape_early: bool,
    /// Seconds.
    skew: u64,
}

impl Akamai {
    /// `None` for another format. `skew` is in seconds.
    pub fn new(format: &UrlFormat, skew: u64) -> Option<Akamai> {
        let UrlFormat::Akamai { secrets, parameter, algorithm, salt, field_delimiter, acl_delimiter, escape_early } =
            format
        else {
            return None;
        };
        let algorithm = match algorithm {
            AkamaiAlgorithm::Sha256 => Algorithm::Sha256,
            AkamaiAlgorithm::Sha1 => Algorithm::Sha1,
            AkamaiAlgorithm::Md5 => Algorithm::Md5,
        };
        Some(Akamai {
            keys: Keyring::new(algorithm, secrets),
            places: Places {
                parameters: vec![parameter.clone()],
                cookies: vec![parameter.clone()],
                fields: vec![parameter.to_ascii_lowercase()],
                path_prefix: None,
            },
            salt: salt.clone(),
            fields: *field_delimiter,
            acls: *acl_delimiter,
            escape_early: *escape_early,
            skew,
        })
    }

    fn check(&self, token: &str, request: &Presented<'_>, now: u64) -> Result<Grant, Refused> {
        if token.len() > LONGEST {
            return Err(Refused::Malformed("the token is too long"));
        }
        let check = |token: &str| match Fields::read(token, self.fields) {
            Ok(fields) => self.check_fields(&fields, request, now),
            Err(why) => Err(Refused::Malformed(why)),
        };
        match check(token) {
            // Some clients encode a parameter's value whole.
            Err(why @ (Refused::Malformed(_) | Refused::Mismatch)) if token.contains('%') => {
                plain(token).map_or(Err(why), |plain| check(&plain))
            }
            checked => checked,
        }
    }

    fn check_fields(&self, fields: &Fields<'_>, request: &Presented<'_>, now: u64) -> Result<Grant, Refused> {
        let mut tag = [0; 64];
        let tag = unhex(fields.hmac, &mut tag).ok_or(Refused::Malformed("the signature is not hexadecimal"))?;
        let holds = match fields.acl {
            Some(_) => self.verifies(fields.signed, None, tag),
            None => {
                // A token of a path holds with any query, as with Akamai's "ignore query string"; one of a path with a
                // query for that alone. Both are looked at, whichever fits.
                let left = request.query.and_then(|query| take::from_query(query, &self.places.parameters));
                let whole = left.map(|query| format!("{}?{query}", request.path));
                let path = self.verifies(fields.signed, Some(request.path), tag);
                path | whole.is_some_and(|url| self.verifies(fields.signed, Some(&url), tag))
            }
        };
        if !holds {
            return Err(Refused::Mismatch);
        }
        if let Some(acl) = fields.acl
            && !self.covers(acl, request.path)
        {
            return Err(Refused::Elsewhere("the token is for other paths"));
        }
        if let Some(text) = fields.ip {
            let network = plain(text).and_then(|text| network(&text));
            let network = network.ok_or(Refused::Malformed("the token's address is none"))?;
            if !network.contains(&request.client) {
                return Err(Refused::Elsewhere("the token is for another address"));
            }
        }
        if let Some(begin) = fields.begin.filter(|begin| now.saturating_add(self.skew) < *begin) {
            return Err(Refused::NotYet(begin));
        }
        if now > fields.expires.saturating_add(self.skew) {
            return Err(Refused::Expired(fields.expires));
        }
        let id = match fields.id {
            Some(id) => id.chars().take(LONGEST_ID).collect(),
            None => fields.hmac.get(..SHOWN).unwrap_or_default().to_ascii_lowercase(),
        };
        Ok(Grant { id, expires: Some(fields.expires) })
    }

    fn verifies(&self, signed: &str, url: Option<&str>, tag: &[u8]) -> bool {
        self.signing(signed, url, |text| self.keys.verifies(text, tag, self.keys.length()))
    }

    fn signing<T>(&self, signed: &str, url: Option<&str>, then: impl FnOnce(&[&[u8]]) -> T) -> T {
        let mut buffer = [0; 4];
        let delimiter = self.fields.encode_utf8(&mut buffer).as_bytes();
        let url = url.map(|url| self.escaped(url));
        let mut text: SmallVec<[&[u8]; 7]> = SmallVec::new();
        text.push(signed.as_bytes());
        if let Some(url) = &url {
            text.extend([delimiter, b"url=", url.as_bytes()]);
        }
        if let Some(salt) = &self.salt {
            text.extend([delimiter, b"salt=", &salt.0]);
        }
        then(&text)
    }

    /// As the generators escape, with `escape_early`.
    fn escaped(&self, text: &str) -> String {
        if !self.escape_early {
            return text.to_owned();
        }
        let mut escaped = String::with_capacity(text.len() * 3);
        for byte in text.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => escaped.push(char::from(byte)),
                b' ' => escaped.push('+'),
                // Writing to a String cannot fail.
                _ => {
                    let _ = write!(escaped, "%{byte:02x}");
                }
            }
        }
        escaped
    }

    /// Whether one of the patterns covers the path: `*` stands for any run of characters and `?` for one.
    fn covers(&self, acl: &str, path: &str) -> bool {
        let path = normalise_path(path);
        let bytes: SmallVec<[u8; 256]> = decoded(&path).collect();
        let exact = |pattern: &str| !pattern.contains(['*', '?', '%']);
        // With `escape_early` the ACL is escaped as a whole, its wildcards too.
        let acl = match plain(acl).filter(|_| self.escape_early) {
            Some(plain) => plain,
            None => acl.into(),
        };
        acl.split(self.acls).any(|pattern| {
            let pattern_covers = matches_pattern(pattern, !self.escape_early, &bytes);
            pattern_covers && (exact(pattern) || !may_climb(&path))
        })
    }
}

impl Verifier for Akamai {
    fn places(&self) -> &Places {
        &self.places
    }

    fn verify(&self, request: &Presented<'_>, now: u64) -> Result<Grant, Refused> {
        find::first_that_holds(request, &self.places, |token| self.check(token, request, now))
    }
}

/// Signs with the first secret: a prefix by an ACL, else the path, with whatever query.
///
/// # Errors
/// The wish is none for this format.
pub fn sign(format: &UrlFormat, wish: &Wish<'_>) -> Result<Signed, CannotSign> {
    let (Some(key), UrlFormat::Akamai { parameter, .. }) = (Akamai::new(format, 0), format) else {
        return Err(CannotSign::Impossible("the key is of another format".to_owned()));
    };
    wish.within("akamai", &[Part::Expires, Part::NotBefore, Part::Client, Part::Prefix, Part::Id, Part::InCookie])?;
    let expires = wish.expires.ok_or(CannotSign::Needs(Part::Expires))?;
    let mut parts: SmallVec<[String; 6]> = SmallVec::new();
    if let Some(client) = wish.client {
        let text =
            super::sign::single(client).map_or_else(|| client.trunc().to_string(), |address| address.to_string());
        parts.push(format!("ip={}", key.escaped(&text)));
    }
    if let Some(begin) = wish.not_before {
        parts.push(format!("st={begin}"));
    }
    parts.push(format!("exp={expires}"));
    if let Some(prefix) = wish.prefix {
        if prefix.contains(['*', '?', key.fields, key.acls]) {
            return Err(CannotSign::Value(Part::Prefix, "a path without wildcards and delimiters"));
        }
        parts.push(format!("acl={}", key.escaped(&format!("{prefix}*"))));
    }
    if let Some(id) = wish.id {
        let fits = |c: char| (c.is_ascii_alphanumeric() || "-_.".contains(c)) && c != key.fields;
        if id.is_empty() || id.len() > LONGEST_ID || !id.chars().all(fits) {
            return Err(CannotSign::Value(Part::Id, "up to 64 letters, digits, `-`, `_` and `.`"));
        }
        parts.push(format!("id={id}"));
    }
    let mut delimiter = [0; 4];
    let signed = parts.join(key.fields.encode_utf8(&mut delimiter));
    let url = wish.prefix.is_none().then_some(wish.path);
    let tag = key.signing(&signed, url, |text| key.keys.sign(text));
    let mut token = format!("{signed}{}hmac=", key.fields);
    for byte in &tag {
        let _ = write!(token, "{byte:02x}");
    }
    if wish.place != Place::Cookie && token.contains('&') {
        // It would end there.
        token = token.replace('%', "%25").replace('&', "%26");
    }
    Ok(wish.placed(parameter, &token))
}

/// What a token says.
struct Fields<'a> {
    /// The token up to its signature.
    signed: &'a str,
    begin: Option<u64>,
    expires: u64,
    ip: Option<&'a str>,
    acl: Option<&'a str>,
    id: Option<&'a str>,
    hmac: &'a str,
}

impl<'a> Fields<'a> {
    /// # Errors
    /// What is wrong with the token. A field that is not known may well restrict it, so it is not ignored.
    fn read(token: &'a str, delimiter: char) -> Result<Fields<'a>, &'static str> {
        let (signed, hmac) = token
            .rsplit_once(delimiter)
            .and_then(|(signed, last)| Some((signed, last.strip_prefix("hmac=")?)))
            .ok_or("the token has no signature at its end")?;
        let (mut begin, mut expires, mut ip, mut acl, mut id, mut data) = (None, None, None, None, None, None);
        for field in signed.split(delimiter) {
            let (name, value) = field.split_once('=').ok_or("a field of the token has no value")?;
            let place = match name {
                "st" => &mut begin,
                "exp" => &mut expires,
                "ip" => &mut ip,
                "acl" => &mut acl,
                "id" => &mut id,
                "data" => &mut data,
                _ => return Err("the token has a field that is not known"),
            };
            if place.replace(value).is_some() {
                return Err("the token has a field twice");
            }
        }
        let number = |text| seconds(text).ok_or("a time of the token is not a number");
        let expires = number(expires.ok_or("the token has no end")?)?;
        Ok(Fields { signed, begin: begin.map(number).transpose()?, expires, ip, acl, id, hmac })
    }
}

fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from))
}

/// The bytes of a hexadecimal text, in upper or lower case; `None` for anything else, or too many.
fn unhex<'b>(text: &str, buffer: &'b mut [u8; 64]) -> Option<&'b [u8]> {
    let digits = text.as_bytes();
    let length = digits.len() / 2;
    if digits.len() % 2 != 0 || length > buffer.len() {
        return None;
    }
    for (byte, pair) in buffer.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        let (high, low) = (char::from(*high).to_digit(16)?, char::from(*low).to_digit(16)?);
        *byte = u8::try_from(high << 4 | low).ok()?;
    }
    buffer.get(..length)
}

/// A unit of a pattern.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Byte(u8),
    One,
    Any,
}

/// Whether a pattern covers decoded bytes. `encoded`: the pattern's own bytes may be encoded, and a wildcard that is stands
/// for itself.
fn matches_pattern(pattern: &str, encoded: bool, text: &[u8]) -> bool {
    let mut units: SmallVec<[Unit; 128]> = SmallVec::new();
    for run in pattern.split_inclusive(['*', '?']) {
        let (literal, wildcard) = match run.strip_suffix('*') {
            Some(literal) => (literal, Some(Unit::Any)),
            None => run.strip_suffix('?').map_or((run, None), |literal| (literal, Some(Unit::One))),
        };
        match encoded {
            true => units.extend(decoded(literal).map(Unit::Byte)),
            false => units.extend(literal.bytes().map(Unit::Byte)),
        }
        units.extend(wildcard);
    }
    // Where to go on if what follows the last `*` does not fit: the `*` takes a byte more. Earlier ones need not: so the
    // steps are at most the product of the two lengths.
    let (mut at, mut from, mut again) = (0, 0, None);
    while let Some(byte) = text.get(at) {
        match units.get(from) {
            Some(Unit::Any) => {
                again = Some((from, at));
                from += 1;
            }
            Some(unit) if matches!(unit, Unit::One) || *unit == Unit::Byte(*byte) => {
                at += 1;
                from += 1;
            }
            _ => match again {
                Some((star, taken)) => {
                    again = Some((star, taken + 1));
                    (from, at) = (star + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    units.get(from..).unwrap_or_default().iter().all(|unit| *unit == Unit::Any)
}

#[cfg(test)]
#[path = "akamai_tests.rs"]
mod tests;
