//! Making tokens, for whoever shares a secret with this edge.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;

/// The MACs of RFC 7518 §3.2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mac {
    #[default]
    Hs256,
    Hs384,
    Hs512,
}

impl Mac {
    /// Its name in a header.
    pub fn as_str(self) -> &'static str {
        match self {
            Mac::Hs256 => "HS256",
            Mac::Hs384 => "HS384",
            Mac::Hs512 => "HS512",
        }
    }

    pub(super) fn key(self, secret: &[u8]) -> hmac::Key {
        let algorithm = match self {
            Mac::Hs256 => hmac::HMAC_SHA256,
            Mac::Hs384 => hmac::HMAC_SHA384,
            Mac::Hs512 => hmac::HMAC_SHA512,
        };
        hmac::Key::new(algorithm, secret)
    }
}

/// What a token is to say. Times are in seconds since the epoch.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Stated<'a> {
    #[serde(rename = "iss", skip_serializing_if = "Option::is_none")]
    pub issuer: Option<&'a str>,
    #[serde(rename = "aud", skip_serializing_if = "Option::is_none")]
    pub audience: Option<&'a str>,
    #[serde(rename = "exp", skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    #[serde(rename = "nbf", skip_serializing_if = "Option::is_none")]
    pub not_before: Option<u64>,
    #[serde(rename = "iat", skip_serializing_if = "Option::is_none")]
    pub issued_at: Option<u64>,
    #[serde(rename = "jti", skip_serializing_if = "Option::is_none")]
    pub id: Option<&'a str>,
    /// The URLs: what [`super::exactly`] or [`super::below`] makes of one.
    #[serde(rename = "cdniuc")]
    pub container: &'a str,
}

/// A token, for the parameter or cookie.
pub fn token(secret: &[u8], mac: Mac, claims: &Stated<'_>) -> String {
    let mut token = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{}"}}"#, mac.as_str()));
    token.push('.');
    // Texts and numbers alone: there is no claim that could not be written.
    URL_SAFE_NO_PAD.encode_string(serde_json::to_vec(claims).unwrap_or_default(), &mut token);
    let tag = hmac::sign(&mac.key(secret), token.as_bytes());
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(tag, &mut token);
    token
}
