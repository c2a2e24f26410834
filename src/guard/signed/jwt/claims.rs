//! What a token says: the claims of RFC 7519 §4.1 and RFC 9246 §2.1.

use std::borrow::Cow;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::Number;

use super::Terms;
use crate::guard::signed::Refused;

/// The longest `jti` that stands for a token in logs and keys.
const MAX_ID: usize = 64;

/// A token's claims, of the right types. Others are ignored (RFC 7519 §4); of `sub` nothing is made.
#[derive(Debug, Deserialize)]
pub(super) struct Claims<'a> {
    #[serde(borrow, default, deserialize_with = "given")]
    iss: Option<Cow<'a, str>>,
    #[serde(default, deserialize_with = "given")]
    aud: Option<Audience>,
    #[serde(default, deserialize_with = "given")]
    exp: Option<Time>,
    #[serde(default, deserialize_with = "given")]
    nbf: Option<Time>,
    /// When it was issued decides nothing, but it has to be a time.
    #[serde(default, deserialize_with = "given", rename = "iat")]
    _iat: Option<Time>,
    #[serde(borrow, default, deserialize_with = "given")]
    jti: Option<Cow<'a, str>>,
    #[serde(default, deserialize_with = "given")]
    cdniv: Option<u64>,
    #[serde(default, deserialize_with = "given")]
    cdnicrit: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "given")]
    cdniip: Option<IgnoredAny>,
    #[serde(borrow, default, deserialize_with = "given")]
    cdniuc: Option<Cow<'a, str>>,
    #[serde(default, deserialize_with = "given")]
    cdniets: Option<Number>,
    #[serde(default, deserialize_with = "given")]
    cdnistt: Option<u64>,
    /// How much of the path the tokens of a renewal are for; never negative (RFC 9246 §2.1.14). Without renewal it decides
    /// nothing.
    #[serde(default, deserialize_with = "given", rename = "cdnistd")]
    _cdnistd: Option<u64>,
}

impl<'a> Claims<'a> {
    pub(super) fn read(text: &'a [u8]) -> Result<Self, Refused> {
        serde_json::from_slice(text)
            .map_err(|_| Refused::Malformed("the claims are not a JSON object of the right types"))
    }

    /// Whether they hold at this time, for whoever this is; of the URL nothing is said.
    pub(super) fn check(&self, terms: &Terms, now: u64) -> Result<(), Refused> {
        self.understood()?;
        // RFC 9246 §2.1.4: a time equal to the request's is over.
        if let Some(Time(exp)) = self.exp.filter(|exp| now >= exp.0.saturating_add(terms.skew)) {
            return Err(Refused::Expired(exp));
        }
        if let Some(Time(nbf)) = self.nbf.filter(|nbf| now.saturating_add(terms.skew) < nbf.0) {
            return Err(Refused::NotYet(nbf));
        }
        let known = |issuer: &Cow<'_, str>| terms.issuers.iter().any(|known| *known == **issuer);
        if !terms.issuers.is_empty() && !self.iss.as_ref().is_some_and(known) {
            return Err(Refused::Elsewhere("the issuer is none of those that are known"));
        }
        match (&self.aud, &terms.audience) {
            (None, None) => Ok(()),
            (Some(aud), Some(audience)) if aud.names(audience) => Ok(()),
            _ => Err(Refused::Elsewhere("the token is for another audience")),
        }
    }

    /// `cdniuc`: the URLs that the token is for. Mandatory (RFC 9246 §2.1.11), and [`Claims::check`] has found it.
    pub(super) fn container(&self) -> &str {
        self.cdniuc.as_deref().unwrap_or_default()
    }

    pub(super) fn expires(&self) -> Option<u64> {
        self.exp.map(|Time(seconds)| seconds)
    }

    /// `jti`, if it is fit for logs and keys.
    pub(super) fn id(&self) -> Option<&str> {
        let fit = |id: &&str| (1..=MAX_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
        self.jti.as_deref().filter(fit)
    }

    /// Whether nothing is asked for that is not done here: RFC 9246 would have such a token refused rather than taken for
    /// less than it says.
    fn understood(&self) -> Result<(), Refused> {
        if self.cdniv.is_some_and(|version| version != 1) {
            return Err(Refused::Malformed("cdniv is not 1"));
        }
        // Its value lists extensions that must be understood, and none is.
        if self.cdnicrit.is_some() {
            return Err(Refused::Malformed("cdnicrit: the token has critical extensions"));
        }
        // An encrypted address, for which there is no key.
        if self.cdniip.is_some() {
            return Err(Refused::Malformed("cdniip: the token is for an encrypted address"));
        }
        if self.cdnistt.is_some() && self.cdniets.is_none() {
            return Err(Refused::Malformed("cdnistt without cdniets"));
        }
        if self.cdnistt.is_some_and(|transport| transport != 0) {
            return Err(Refused::Malformed("cdnistt: the token is to be renewed"));
        }
        if self.cdniuc.is_none() {
            return Err(Refused::Malformed("cdniuc: the token says not for which URLs it is"));
        }
        Ok(())
    }
}

/// A member that is there has a value: `null` is not the same as none.
pub(super) fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// A NumericDate (RFC 7519 §2), in whole seconds: a moment within a second has not come before the next.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(from = "Number")]
struct Time(u64);

impl From<Number> for Time {
    fn from(number: Number) -> Self {
        // A cast of a float saturates, and what is before the epoch is over.
        Time(number.as_u64().unwrap_or_else(|| number.as_f64().map_or(0, |seconds| seconds.ceil() as u64)))
    }
}

/// RFC 7519 §4.1.3.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    fn names(&self, audience: &str) -> bool {
        match self {
            Audience::One(name) => name == audience,
            Audience::Several(names) => names.iter().any(|name| name == audience),
        }
    }
}
