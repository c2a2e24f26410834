//! URI signing for CDNs by JSON Web Tokens (RFC 9246).
//!
//! Three documents make the token: RFC 7515 its envelope, RFC 7519 the claims that all such tokens may have, RFC 9246 those
//! that say what the token is for. What a token says of its algorithm chooses among those that fit a configured key, no
//! more: `none` is nobody's, and a public key never becomes the secret of a MAC (RFC 8725 §3.1).

mod claims;
mod container;
mod sign;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::keys::{Key, Scheme, begin};
use super::text::plain;
use super::{Grant, Places, Presented, Refused, Verifier, find};
use crate::config::model::{PublicKey, Secret};
use claims::Claims;
use container::Patterns;
pub use container::{below, exactly};
pub use sign::{Mac, Stated, token};

/// The schemes of RFC 7518 §3.1 with public keys.
const SCHEMES: [Scheme; 8] = [
    Scheme::RsaSha256,
    Scheme::RsaSha384,
    Scheme::RsaSha512,
    Scheme::PssSha256,
    Scheme::PssSha384,
    Scheme::PssSha512,
    Scheme::P256Sha256,
    Scheme::P384Sha384,
];

/// Bytes of a token. With encrypted claims it may have a few hundred, with RSA a thousand.
const LONGEST: usize = 8 * 1024;

/// Verifies tokens of RFC 9246.
pub struct Jwt {
    secrets: Vec<Macs>,
    keys: Vec<Key>,
    terms: Terms,
    patterns: Patterns,
    places: Places,
}

/// What the configuration asks of a token's claims.
struct Terms {
    /// `iss` must be one of these; empty: any, or none.
    issuers: Vec<String>,
    /// `aud` must name it. `None`: a token for a certain audience is for another (RFC 7519 §4.1.3).
    audience: Option<String>,
    /// In seconds.
    skew: u64,
}

impl Jwt {
    /// A verifier. `skew` is how far the signers' clocks may be off: RFC 9246 §2.1.4 would have it 0.
    ///
    /// # Errors
    /// A phrase for the operator: a key cannot be used.
    pub fn new(
        secrets: &[Secret],
        keys: &[PublicKey],
        parameter: &str,
        issuers: &[String],
        audience: Option<&str>,
        skew: Duration,
    ) -> Result<Self, String> {
        let keys = keys.iter().map(|key| Key::new(key, &SCHEMES)).collect::<Result<_, _>>()?;
        let places = Places {
            parameters: vec![parameter.to_owned()],
            cookies: vec![parameter.to_owned()],
            path_prefix: Some(format!("{parameter}=")),
            ..Places::default()
        };
        Ok(Jwt {
            secrets: secrets.iter().map(|Secret(bytes, _)| Macs::new(bytes)).collect(),
            keys,
            terms: Terms { issuers: issuers.to_vec(), audience: audience.map(str::to_owned), skew: skew.as_secs() },
            patterns: Patterns::default(),
            places,
        })
    }

    fn check(&self, token: &str, request: &Presented<'_>, now: u64) -> Result<Grant, Refused> {
        if token.len() > LONGEST {
            return Err(Refused::Malformed("the token is longer than 8 KiB"));
        }
        let token = plain(token).ok_or(Refused::Malformed("the token is not text"))?;
        let Some(Parts { message, header, claims, signature }) = Parts::of(&token) else {
            return Err(Refused::Malformed("the token has not the three parts of a signed JWT"));
        };
        let (Some(header), Some(raw)) = (decode(header), decode(signature)) else {
            return Err(Refused::Malformed("a part of the token is not in base64url"));
        };
        let Ok(header) = serde_json::from_slice::<Header<'_>>(&header) else {
            return Err(Refused::Malformed("the token's header is not a JSON object with an alg"));
        };
        // RFC 7515 §4.1.11: extensions that must be understood, and none is.
        if header.crit.is_some() {
            return Err(Refused::Malformed("the token's header has critical extensions"));
        }
        if !self.is_signed(&header, message.as_bytes(), &raw)? {
            return Err(Refused::Mismatch);
        }
        // Nothing of the claims is read before it is known who has made them.
        let claims = decode(claims).ok_or(Refused::Malformed("a part of the token is not in base64url"))?;
        let claims = Claims::read(&claims)?;
        claims.check(&self.terms, now)?;
        self.patterns.check(claims.container(), &container::uri(request, &self.places.parameters))?;
        let id = claims.id().map_or_else(|| begin(signature), str::to_owned);
        Ok(Grant { id, expires: claims.expires() })
    }

    /// Whether one of the secrets or keys has signed this.
    fn is_signed(&self, header: &Header<'_>, message: &[u8], signature: &[u8]) -> Result<bool, Refused> {
        let scheme = match &*header.alg {
            "HS256" => return Ok(self.has_mac(Mac::Hs256, message, signature)),
            "HS384" => return Ok(self.has_mac(Mac::Hs384, message, signature)),
            "HS512" => return Ok(self.has_mac(Mac::Hs512, message, signature)),
            "RS256" => Scheme::RsaSha256,
            "RS384" => Scheme::RsaSha384,
            "RS512" => Scheme::RsaSha512,
            "PS256" => Scheme::PssSha256,
            "PS384" => Scheme::PssSha384,
            "PS512" => Scheme::PssSha512,
            "ES256" => Scheme::P256Sha256,
            "ES384" => Scheme::P384Sha384,
            _ => return Err(Refused::Malformed("alg is none that is accepted")),
        };
        // A key that is named is the only one that is asked; without a name each that fits is.
        let named = |key: &&Key| header.kid.as_ref().is_none_or(|kid| *kid == key.id);
        Ok(self.keys.iter().filter(named).any(|key| key.has_signed(scheme, message, signature)))
    }

    /// Secrets have no names, so each is tried, whatever `kid` says, and whichever fits.
    fn has_mac(&self, mac: Mac, message: &[u8], signature: &[u8]) -> bool {
        let fits = |secret: &Macs| hmac::verify(secret.key(mac), message, signature).is_ok();
        self.secrets.iter().fold(false, |any, secret| any | fits(secret))
    }
}

impl Verifier for Jwt {
    fn places(&self) -> &Places {
        &self.places
    }

    fn verify(&self, request: &Presented<'_>, now: u64) -> Result<Grant, Refused> {
        find::first_that_holds(request, &self.places, |token| self.check(token, request, now))
    }
}

/// What is needed of a header (RFC 7515 §4.1).
#[derive(Deserialize)]
struct Header<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    #[serde(borrow, default)]
    kid: Option<Cow<'a, str>>,
    #[serde(default, deserialize_with = "claims::given")]
    crit: Option<IgnoredAny>,
}

/// A token's parts (RFC 7515 §7.1), still encoded.
struct Parts<'a> {
    /// What is signed: the header and the claims with the dot between them.
    message: &'a str,
    header: &'a str,
    claims: &'a str,
    signature: &'a str,
}

impl<'a> Parts<'a> {
    fn of(token: &'a str) -> Option<Self> {
        let (message, signature) = token.rsplit_once('.')?;
        let (header, claims) = message.split_once('.')?;
        (!claims.contains('.')).then_some(Parts { message, header, claims, signature })
    }
}

/// RFC 7515 §2: base64url without padding; one text for the same bytes.
fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// A secret, as each of the MACs has it.
struct Macs {
    hs256: hmac::Key,
    hs384: hmac::Key,
    hs512: hmac::Key,
}

impl Macs {
    fn new(secret: &[u8]) -> Self {
        Macs { hs256: Mac::Hs256.key(secret), hs384: Mac::Hs384.key(secret), hs512: Mac::Hs512.key(secret) }
    }

    fn key(&self, mac: Mac) -> &hmac::Key {
        match mac {
            Mac::Hs256 => &self.hs256,
            Mac::Hs384 => &self.hs384,
            Mac::Hs512 => &self.hs512,
        }
    }
}
