//! AWS CloudFront's signed URLs and signed cookies, with canned and custom policies.
//!
//! What is signed is the policy's text, to the byte. A custom policy comes with the request; a canned one is not sent but
//! put together again from the URL as it was asked for and the time that it expires. The formats are those of the CloudFront
//! Developer Guide, "Create a signed URL using a canned policy" and "… a custom policy", and the same for signed cookies.

mod policy;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::time::Duration;

use base64::Engine;
use base64::alphabet::Alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::keys::{Key, Scheme, begin, scheme};
use super::text::plain;
use super::{Grant, Places, Presented, Refused, Verifier, find, take};
use crate::config::model::PublicKey;
use policy::Policy;

/// The schemes of CloudFront's keys: RSA of 2048 bits and more, and ECDSA on P-256.
const SCHEMES: [Scheme; 4] = [Scheme::RsaSha1, Scheme::RsaSha256, Scheme::P256Sha1Der, Scheme::P256Sha256Der];

/// Bytes of a policy and its signature, encoded. CloudFront's own limit, that of a whole URL, is the same.
const LONGEST: usize = 8 * 1024;

/// Verifies CloudFront's signed URLs and cookies.
pub struct CloudFront {
    keys: Vec<Key>,
    /// In seconds.
    skew: u64,
    places: Places,
}

impl CloudFront {
    /// A verifier for the signers who have these keys. `skew` is how far their clocks may be off.
    ///
    /// # Errors
    /// A phrase for the operator: a key cannot be used, or is on another curve than P-256.
    pub fn new(keys: &[PublicKey], skew: Duration) -> Result<Self, String> {
        let keys = keys.iter().map(|key| Key::new(key, &SCHEMES)).collect::<Result<_, _>>()?;
        Ok(CloudFront::with(keys, skew))
    }

    fn with(keys: Vec<Key>, skew: Duration) -> Self {
        let places = Places {
            parameters: IN_QUERY.all().map(str::to_owned).to_vec(),
            cookies: IN_COOKIES.all().map(str::to_owned).to_vec(),
            ..Places::default()
        };
        CloudFront { keys, skew: skew.as_secs(), places }
    }

    /// The URL as the client asked for it, without the token.
    fn url(&self, request: &Presented<'_>) -> String {
        let query = request.query.and_then(|query| take::from_query(query, &self.places.parameters));
        let (mark, query) = query.as_deref().map_or(("", ""), |query| ("?", query));
        format!("{}://{}{}{mark}{query}", scheme(request.secure), request.authority, request.path)
    }
}

impl Verifier for CloudFront {
    fn places(&self) -> &Places {
        &self.places
    }

    fn verify(&self, request: &Presented<'_>, now: u64) -> Result<Grant, Refused> {
        let token = Token::of(request)?;
        let signature = decode(&token.signature).ok_or(Refused::Malformed("Signature is not in base64"))?;
        let url = self.url(request);
        let (text, expires) = match &token.terms {
            Terms::Canned(expires) => (canned(&url, expires)?.into_bytes(), Some(seconds(expires)?)),
            Terms::Custom(encoded) => (decode(encoded).ok_or(Refused::Malformed("Policy is not in base64"))?, None),
        };
        // Nothing of a policy is read before it is known who has written it.
        let signed = |key: &Key| {
            let (rsa, curve) = token.hash.schemes();
            key.id == token.key && (key.has_signed(rsa, &text, &signature) || key.has_signed(curve, &text, &signature))
        };
        if !self.keys.iter().any(signed) {
            return Err(Refused::Mismatch);
        }
        let policy = match expires {
            Some(expires) => Policy::until(expires),
            None => Policy::read(&text).map_err(Refused::Malformed)?,
        };
        policy.check(request, &url, now, self.skew)?;
        Ok(Grant { id: begin(&token.signature), expires: Some(policy.expires()) })
    }
}

/// The names of a token's parts.
struct Names {
    expires: &'static str,
    policy: &'static str,
    signature: &'static str,
    key: &'static str,
    hash: &'static str,
}

impl Names {
    const fn all(&self) -> [&'static str; 5] {
        [self.expires, self.policy, self.signature, self.key, self.hash]
    }
}

const IN_QUERY: Names =
    Names { expires: "Expires", policy: "Policy", signature: "Signature", key: "Key-Pair-Id", hash: "Hash-Algorithm" };

const IN_COOKIES: Names = Names {
    expires: "CloudFront-Expires",
    policy: "CloudFront-Policy",
    signature: "CloudFront-Signature",
    key: "CloudFront-Key-Pair-Id",
    hash: "CloudFront-Hash-Algorithm",
};

/// A token, as it was sent.
struct Token<'a> {
    key: Cow<'a, str>,
    signature: Cow<'a, str>,
    hash: Hash,
    terms: Terms<'a>,
}

enum Terms<'a> {
    /// Expires.
    Canned(Cow<'a, str>),
    /// Policy, encoded.
    Custom(Cow<'a, str>),
}

#[derive(Clone, Copy)]
enum Hash {
    Sha1,
    Sha256,
}

impl Hash {
    /// The scheme of an RSA key, and that of a curve's.
    fn schemes(self) -> (Scheme, Scheme) {
        match self {
            Hash::Sha1 => (Scheme::RsaSha1, Scheme::P256Sha1Der),
            Hash::Sha256 => (Scheme::RsaSha256, Scheme::P256Sha256Der),
        }
    }
}

impl<'a> Token<'a> {
    /// The token of a request. As CloudFront does it: where the URL is signed, cookies do not count.
    fn of(request: &Presented<'a>) -> Result<Self, Refused> {
        let query = |name| find::values(request.query, name).find(|value| !value.is_empty()).and_then(plain);
        if query(IN_QUERY.signature).is_some() || query(IN_QUERY.key).is_some() {
            return Token::read(&IN_QUERY, query);
        }
        let cookies = |name| find::cookies(request.headers, name).find(|value| !value.is_empty()).map(Cow::Borrowed);
        if cookies(IN_COOKIES.signature).is_some() || cookies(IN_COOKIES.key).is_some() {
            return Token::read(&IN_COOKIES, cookies);
        }
        Err(Refused::Missing)
    }

    fn read(names: &Names, find: impl Fn(&'static str) -> Option<Cow<'a, str>>) -> Result<Self, Refused> {
        let signature = find(names.signature).ok_or(Refused::Malformed("there is no Signature"))?;
        let key = find(names.key).ok_or(Refused::Malformed("there is no Key-Pair-Id"))?;
        let hash = match find(names.hash).as_deref() {
            None | Some("SHA1") => Hash::Sha1,
            Some("SHA256") => Hash::Sha256,
            Some(_) => return Err(Refused::Malformed("Hash-Algorithm is neither SHA1 nor SHA256")),
        };
        let terms = match (find(names.policy), find(names.expires)) {
            (Some(policy), _) => Terms::Custom(policy),
            (None, Some(expires)) => Terms::Canned(expires),
            (None, None) => return Err(Refused::Malformed("there is neither Expires nor Policy")),
        };
        let (Terms::Canned(text) | Terms::Custom(text)) = &terms;
        if signature.len() + text.len() > LONGEST {
            return Err(Refused::Malformed("the token is longer than 8 KiB"));
        }
        Ok(Token { key, signature, hash, terms })
    }
}

/// The text of a canned policy. It has the URL as it is: one that would end the text before its time is none that a signer
/// has seen.
fn canned(url: &str, expires: &str) -> Result<String, Refused> {
    if url.bytes().any(|byte| matches!(byte, b'"' | b'\\') || byte.is_ascii_control()) {
        return Err(Refused::Malformed("the URL has a character that no signed URL has"));
    }
    Ok(format!(
        r#"{{"Statement":[{{"Resource":"{url}","Condition":{{"DateLessThan":{{"AWS:EpochTime":{expires}}}}}}}]}}"#
    ))
}

/// A time in digits alone, as it stands in the text that is signed.
fn seconds(text: &str) -> Result<u64, Refused> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = if digits { text.parse().ok() } else { None };
    seconds.ok_or(Refused::Malformed("Expires is not a number of seconds"))
}

/// CloudFront's base64: `-` stands for `+`, `~` for `/` and `_` for `=`.
fn decode(text: &str) -> Option<Vec<u8>> {
    let body = text.trim_end_matches('_');
    let padding = text.len() - body.len();
    // The padding may be left out, as in some of CloudFront's own examples; if it is there it is right.
    if padding > 2 || (padding > 0 && !text.len().is_multiple_of(4)) {
        return None;
    }
    BASE64.decode(body).ok()
}

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &ALPHABET,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

const ALPHABET: Alphabet = match Alphabet::new("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-~") {
    Ok(alphabet) => alphabet,
    // Found out when this is compiled, not when it runs.
    Err(_) => panic!("an alphabet has 64 different characters"),
};
