//! The format `cloudflare`: what `is_timed_hmac_valid_v0` of Cloudflare's rules language checks.
//!
//! `/images/cat.jpg?verify=1484063787-9JQB8vP1z0yc5DEBnH6JGWM3mBmvIeMrnnxFi3WtJLE%3D`: the HMAC-SHA256 of all that precedes
//! the separator (`?verify=` or `&verify=`), and of the time of issue, in base64.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use smallvec::SmallVec;

use super::keyring::{Algorithm, Keyring};
use super::sign::{CannotSign, Part, Signed, Wish};
use super::text::{plain, seconds};
use super::{Grant, Places, Presented, Refused, Verifier, find};
use crate::config::model::Secret;

const PADDING: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, PADDING);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, PADDING);
/// The time of issue has ten digits.
const DIGITS: usize = 10;
const MAC: usize = 32;
/// Characters of the signature that tell tokens apart, 48 bits.
const SHOWN: usize = 8;

/// The keys of one `cloudflare` key.
pub struct Cloudflare {
    keys: Keyring,
    parameter: String,
    places: Places,
    /// Seconds.
    lifetime: u64,
    skew: u64,
}

impl Cloudflare {
    /// `lifetime` and `skew` are in seconds.
    pub fn new(secrets: &[Secret], parameter: &str, lifetime: u64, skew: u64) -> Cloudflare {
        Cloudflare {
            keys: Keyring::new(Algorithm::Sha256, secrets),
            parameter: parameter.to_owned(),
            places: Places { parameters: vec![parameter.to_owned()], ..Places::default() },
            lifetime,
            skew,
        }
    }
}

impl Verifier for Cloudflare {
    fn places(&self) -> &Places {
        &self.places
    }

    fn verify(&self, request: &Presented<'_>, now: u64) -> Result<Grant, Refused> {
        let mut tokens = find::values(request.query, &self.parameter);
        tokens.next().ok_or(Refused::Missing)?;
        if tokens.next().is_some() {
            return Err(Refused::Malformed("several tokens"));
        }
        let query = request.query.unwrap_or_default();
        let (before, last) = match query.rsplit_once('&') {
            Some((before, last)) => (Some(before), last),
            None => (None, query),
        };
        let token = last
            .strip_prefix(&*self.parameter)
            .and_then(|rest| rest.strip_prefix('='))
            .ok_or(Refused::Malformed("the token is not the last parameter"))?;
        let token = plain(token).ok_or(Refused::Malformed("the token is not text"))?;
        let (issued, mac) = token.split_once('-').ok_or(Refused::Malformed("the token has no signature"))?;
        let time = seconds(issued)
            .filter(|_| issued.len() == DIGITS)
            .ok_or(Refused::Malformed("the time of issue is not a number of ten digits"))?;
        let mut buffer = [0; MAC + 1];
        let tag = decode(mac, &mut buffer).ok_or(Refused::Malformed("the signature is none in base64"))?;
        if !self.keys.verifies(&text(request.path, before, issued), tag, MAC) {
            return Err(Refused::Mismatch);
        }
        // Cloudflare's rule: now < issued + lifetime.
        let last = time.saturating_add(self.lifetime).saturating_sub(1);
        if now > last.saturating_add(self.skew) {
            return Err(Refused::Expired(last));
        }
        Ok(Grant { id: mac.get(..SHOWN).unwrap_or_default().to_owned(), expires: Some(last) })
    }
}

/// Signs with the first secret. A token says when it was issued: to end earlier than the key's lifetime says, it says so of
/// an earlier time.
///
/// # Errors
/// The wish is none for this format.
pub fn sign(secrets: &[Secret], parameter: &str, lifetime: u64, wish: &Wish<'_>) -> Result<Signed, CannotSign> {
    wish.within("cloudflare", &[Part::Expires])?;
    let issued = match wish.expires {
        None => wish.now,
        Some(end) => end
            .saturating_add(1)
            .checked_sub(lifetime)
            .filter(|issued| *issued <= wish.now)
            .ok_or(CannotSign::Value(Part::Expires, "no later than the key's lifetime allows"))?,
    };
    let issued = format!("{issued:010}");
    if issued.len() != DIGITS {
        return Err(CannotSign::Value(Part::Expires, "a time before the year 2286"));
    }
    let query = wish.query.filter(|query| !query.is_empty());
    let tag = Keyring::new(Algorithm::Sha256, secrets).sign(&text(wish.path, query, &issued));
    let mac = STANDARD.encode(&tag).replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    Ok(wish.with_query(&format!("{parameter}={issued}-{mac}")))
}

/// What is signed: the target up to the separator, and the time of issue.
fn text<'a>(path: &'a str, query: Option<&'a str>, issued: &'a str) -> SmallVec<[&'a [u8]; 4]> {
    let mut text = SmallVec::new();
    text.push(path.as_bytes());
    if let Some(query) = query {
        text.extend([&b"?"[..], query.as_bytes()]);
    }
    text.push(issued.as_bytes());
    text
}

/// Either alphabet of base64.
fn decode<'b>(mac: &str, buffer: &'b mut [u8; MAC + 1]) -> Option<&'b [u8]> {
    let alphabet = if mac.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
    let length = alphabet.decode_slice(mac, buffer).ok().filter(|length| *length == MAC)?;
    buffer.get(..length)
}

#[cfg(test)]
#[path = "cloudflare_tests.rs"]
mod tests;
