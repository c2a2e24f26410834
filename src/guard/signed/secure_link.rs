//! The format `secure-link`: nginx's `secure_link` and `secure_link_md5` (ngx_http_secure_link_module).
//!
//! A URL is signed by the MD5 of an expression in base64url. There is no HMAC in it: the secret is best the expression's
//! last piece, so that nothing can be appended to what is hashed.

use std::borrow::Cow;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use md5::{Digest, Md5};
use smallvec::SmallVec;
use subtle::{Choice, ConstantTimeEq};

use super::sign::{CannotSign, Part, Signed, Wish, single};
use super::text::decoded;
use super::{Grant, Places, Presented, Refused, Verifier, find};
use crate::config::model::{Piece, Secret};
use crate::site::{normalise_host, normalise_path};

/// nginx takes a value with padding too.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_encode_padding(false).with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// Characters of the hash that tell tokens apart, 48 bits.
const SHOWN: usize = 8;

/// The secrets and the expression of one `secure-link` key.
pub struct SecureLink {
    secrets: Vec<Secret>,
    expression: Vec<Piece>,
    md5: String,
    /// The parameter that has the end, where the expression binds it; without it, links do not end.
    expires: Option<String>,
    places: Places,
    /// Seconds.
    skew: u64,
}

impl SecureLink {
    /// `skew` is in seconds.
    pub fn new(secrets: &[Secret], expression: &[Piece], md5: &str, expires: &str, skew: u64) -> SecureLink {
        let expires = binds_end(expression, expires).then(|| expires.to_owned());
        let parameters = std::iter::once(md5.to_owned()).chain(expires.clone()).collect();
        SecureLink {
            secrets: secrets.to_vec(),
            expression: expression.to_vec(),
            md5: md5.to_owned(),
            expires,
            places: Places { parameters, ..Places::default() },
            skew,
        }
    }
}

impl Verifier for SecureLink {
    fn places(&self) -> &Places {
        &self.places
    }

    fn verify(&self, request: &Presented<'_>, now: u64) -> Result<Grant, Refused> {
        let mut hashes = find::values(request.query, &self.md5);
        let sent = hashes.next().ok_or(Refused::Missing)?;
        if hashes.next().is_some() {
            return Err(Refused::Malformed("several hashes"));
        }
        let mut hash = [0; 18];
        let hash = match BASE64.decode_slice(sent, &mut hash) {
            Ok(16) => hash.get(..16).unwrap_or_default(),
            _ => return Err(Refused::Malformed("the hash is none of MD5 in base64url")),
        };
        let (end, text) = match &self.expires {
            None => (None, ""),
            Some(name) => {
                let mut ends = find::values(request.query, name);
                let text = ends.next().ok_or(Refused::Malformed("the end is missing"))?;
                if ends.next().is_some() {
                    return Err(Refused::Malformed("several ends"));
                }
                (Some(super::text::seconds(text).ok_or(Refused::Malformed("the end is not a number"))?), text)
            }
        };
        let values = values(&self.expression, request, text)?;
        let mut any = Choice::from(0);
        for secret in &self.secrets {
            any |= md5(&values, secret).ct_eq(hash);
        }
        if !bool::from(any) {
            return Err(Refused::Mismatch);
        }
        if let Some(end) = end.filter(|end| now > end.saturating_add(self.skew)) {
            return Err(Refused::Expired(end));
        }
        Ok(Grant { id: sent.get(..SHOWN).unwrap_or_default().to_owned(), expires: end })
    }
}

/// Signs with the first secret.
///
/// # Errors
/// The wish is none for this format, or the expression has what only a request can say.
pub fn sign(
    secrets: &[Secret],
    expression: &[Piece],
    md5_parameter: &str,
    expires_parameter: &str,
    wish: &Wish<'_>,
) -> Result<Signed, CannotSign> {
    let (ends, client) = (binds_end(expression, expires_parameter), expression.contains(&Piece::RemoteAddress));
    let parts = [(Part::Expires, ends), (Part::Client, client)];
    let has: SmallVec<[Part; 2]> = parts.iter().filter(|(_, is)| *is).map(|(part, _)| *part).collect();
    wish.within("this key's expression of secure-link", &has)?;
    let end = match (ends, wish.expires) {
        (true, None) => return Err(CannotSign::Needs(Part::Expires)),
        (_, end) => end.map(|end| end.to_string()),
    };
    let address = match (client, wish.client.map(single)) {
        (true, None) => return Err(CannotSign::Needs(Part::Client)),
        (_, Some(None)) => return Err(CannotSign::Value(Part::Client, "one address rather than a network")),
        (_, address) => address.flatten(),
    };
    for piece in expression {
        if let Piece::Header(name) | Piece::Cookie(name) = piece {
            let why = format!("the key's expression has the field or cookie {name:?}, which only a request has");
            return Err(CannotSign::Impossible(why));
        }
    }
    let query = match (wish.query, &end) {
        (query, None) => query.map(str::to_owned),
        (None | Some(""), Some(end)) => Some(format!("{expires_parameter}={end}")),
        (Some(query), Some(end)) => Some(format!("{query}&{expires_parameter}={end}")),
    };
    let request = Presented {
        method: &http::Method::GET,
        secure: wish.secure,
        authority: wish.authority,
        path: wish.path,
        query: query.as_deref(),
        in_path: None,
        headers: &http::HeaderMap::new(),
        client: address.unwrap_or(std::net::Ipv4Addr::UNSPECIFIED.into()),
    };
    let values = values(expression, &request, end.as_deref().unwrap_or_default())
        .map_err(|_| CannotSign::Impossible("a parameter of the key's expression is there several times".to_owned()))?;
    let secret = secrets.first().ok_or_else(|| CannotSign::Impossible("the key has no secret".to_owned()))?;
    let hash = BASE64.encode(md5(&values, secret));
    Ok(Wish { query: query.as_deref(), ..wish.clone() }.with_query(&format!("{md5_parameter}={hash}")))
}

/// The values of an expression's pieces; `None` stands for the secret.
type Values<'a> = SmallVec<[Option<Cow<'a, [u8]>>; 8]>;

fn values<'a>(expression: &'a [Piece], request: &Presented<'a>, end: &'a str) -> Result<Values<'a>, Refused> {
    let text = |text: &'a str| Some(Cow::Borrowed(text.as_bytes()));
    expression
        .iter()
        .map(|piece| {
            Ok(match piece {
                Piece::Secret => None,
                Piece::Text(literal) => text(literal),
                Piece::Expires => text(end),
                Piece::Uri => Some(uri(request.path)),
                Piece::Host => Some(host(request.authority)),
                Piece::Scheme => text(if request.secure { "https" } else { "http" }),
                Piece::RemoteAddress => Some(Cow::Owned(request.client.to_string().into_bytes())),
                Piece::Argument(name) => text(argument(request.query, name)?),
                Piece::Header(name) => Some(field(request, name)),
                Piece::Cookie(name) => text(find::cookies(request.headers, name).next().unwrap_or_default()),
            })
        })
        .collect()
}

fn md5(values: &Values<'_>, secret: &Secret) -> [u8; 16] {
    let mut md5 = Md5::new();
    for value in values {
        md5.update(value.as_deref().unwrap_or(&secret.0));
    }
    md5.finalize().into()
}

/// `$uri`: the path in normal form and decoded. Repeated slashes stay, unlike with nginx's `merge_slashes`: they are part
/// of the key, and an origin may tell them apart.
fn uri(path: &str) -> Cow<'_, [u8]> {
    match normalise_path(path) {
        Cow::Borrowed(path) if !path.contains('%') => Cow::Borrowed(path.as_bytes()),
        path => Cow::Owned(decoded(&path).collect()),
    }
}

/// `$host`: without the port.
fn host(authority: &str) -> Cow<'_, [u8]> {
    match normalise_host(authority) {
        Ok(Cow::Borrowed(host)) => Cow::Borrowed(host.as_bytes()),
        Ok(Cow::Owned(host)) => Cow::Owned(host.into_bytes()),
        Err(_) => Cow::Borrowed(authority.as_bytes()),
    }
}

/// `$arg_NAME`: as it was sent, by a name in any case. nginx takes the first of several; an origin may take the last, which
/// nobody has signed.
fn argument<'a>(query: Option<&'a str>, name: &str) -> Result<&'a str, Refused> {
    let is_it = |piece: &&str| {
        let found = piece.split_once('=').map_or(*piece, |(found, _)| found);
        decoded(found).map(|byte| byte.to_ascii_lowercase()).eq(name.bytes().map(|byte| byte.to_ascii_lowercase()))
    };
    let mut found = query.into_iter().flat_map(|query| query.split('&')).filter(is_it);
    let value = found.next().and_then(|piece| piece.split_once('=')).map_or("", |(_, value)| value);
    if found.next().is_some() {
        return Err(Refused::Malformed("several of a parameter that the expression has"));
    }
    Ok(value)
}

/// `$http_NAME`: several lines are one, as with nginx since 1.23.
fn field<'a>(request: &Presented<'a>, name: &str) -> Cow<'a, [u8]> {
    let mut lines = request.headers.get_all(name).iter().map(|line| line.as_bytes());
    let first = lines.next().unwrap_or_default();
    lines.fold(Cow::Borrowed(first), |joined, line| Cow::Owned([&*joined, b", ", line].concat()))
}

/// Whether the expression has the link's end; else a client could write another.
fn binds_end(expression: &[Piece], parameter: &str) -> bool {
    expression.iter().any(|piece| match piece {
        Piece::Expires => true,
        Piece::Argument(name) => name == parameter,
        _ => false,
    })
}

#[cfg(test)]
#[path = "secure_link_tests.rs"]
mod tests;
