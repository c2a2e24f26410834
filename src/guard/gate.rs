//! The guards of a configuration, made ready: one gate for each site and route.

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderValue, Method, StatusCode};

use super::access::{Access, Geo, Lists};
use super::signed::{self, Grant, Presented, Refused, Verifier};
use super::{Asked, Denied};
use crate::config::Config;
use crate::config::model::{Guard, Hsts, Https, KeyPart, RateLimit, RequestPolicy};
use crate::site::{TokenPlaces, Tokens};
use crate::watched::Watcher;

/// The guards of one configuration.
pub struct Guards {
    /// By [`Guard::id`].
    gates: Vec<Gate>,
    tokens: Tokens,
    geo: Geo,
    lists: Lists,
}

/// What guards one site or route.
pub struct Gate {
    access: Option<Access>,
    /// The limits that a request is held to before its signature is looked at: who guesses signatures is limited too.
    pub early: Vec<Arc<RateLimit>>,
    /// Those that count by the token.
    pub late: Vec<Arc<RateLimit>>,
    signed: Vec<Signed>,
    /// The value of Strict-Transport-Security.
    pub hsts: Option<HeaderValue>,
    is_open: bool,
}

struct Signed {
    verifier: Arc<dyn Verifier>,
    /// For the log.
    name: Arc<str>,
    /// What a URL whose time is over gets.
    expired: StatusCode,
}

impl Guards {
    /// Makes them ready; lists and databases that `previous` has too are taken over. Blocks on files.
    ///
    /// # Errors
    /// A file cannot be used that the configuration's checks have read a moment ago.
    pub fn open(config: &Config, watcher: Option<&Watcher>, previous: Option<&Guards>) -> Result<Guards, String> {
        let geo = Geo::open(&config.geo, watcher, previous.map(|previous| &previous.geo))?;
        let lists = Lists::open(config, watcher, previous.map(|previous| &previous.lists))?;
        let keys = config
            .keys
            .iter()
            .map(|key| {
                let verifier = signed::verifier(key).map_err(|why| format!("the key `{}`: {why}", key.name))?;
                Ok(Signed { verifier, name: key.name.clone(), expired: key.expired })
            })
            .collect::<Result<Vec<_>, String>>()?;
        let places: Vec<TokenPlaces> = keys.iter().map(|key| key.verifier.places().clone()).collect();
        let gates =
            config.policies().map(|policy| Gate::new(&policy.guard, &lists, &keys)).collect::<Result<_, _>>()?;
        Ok(Guards { gates, tokens: Tokens::new(config, &places), geo, lists })
    }

    /// What guards the requests that this policy governs, which is of the same configuration.
    pub fn gate(&self, policy: &RequestPolicy) -> &Gate {
        &self.gates[policy.guard.id]
    }

    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// Where an address is: its country and its autonomous system, as far as they are known.
    pub fn place(&self, address: IpAddr) -> (Option<[u8; 2]>, Option<u32>) {
        (self.geo.country(address), self.geo.asn(address))
    }
}

impl Gate {
    fn new(guard: &Guard, lists: &Lists, keys: &[Signed]) -> Result<Gate, String> {
        let by_token = |limit: &&Arc<RateLimit>| limit.key.contains(&KeyPart::TokenId);
        let signed = guard.signed_url.iter().filter_map(|key| keys.get(*key)).map(|key| Signed {
            verifier: key.verifier.clone(),
            name: key.name.clone(),
            expired: key.expired,
        });
        let is_open =
            Guard { id: guard.id, bandwidth: guard.bandwidth, body_size: guard.body_size, ..Guard::default() };
        Ok(Gate {
            is_open: *guard == is_open,
            access: guard.access.as_ref().map(|access| Access::new(access, lists)).transpose()?,
            early: guard.rate_limits.iter().filter(|limit| !by_token(limit)).cloned().collect(),
            late: guard.rate_limits.iter().filter(by_token).cloned().collect(),
            signed: signed.collect(),
            hsts: guard.hsts.map(hsts),
        })
    }

    /// Whether there is nothing that a request could be refused for or told of here.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Whether a request is let in, as far as it can be told without counting it.
    ///
    /// # Errors
    /// Why not; where the status is 405, with what Allow says.
    pub fn admit(&self, asked: &Asked<'_>) -> Result<(), (Denied, Option<&str>)> {
        let Some(access) = &self.access else { return Ok(()) };
        access.check(asked).map_err(|denied| {
            let allow = (denied.status == StatusCode::METHOD_NOT_ALLOWED).then(|| access.methods());
            (denied, allow)
        })
    }

    /// The token that the URL must have; `None`: it need not have one. `now` is in seconds since the epoch.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn verify(&self, presented: &Presented<'_>, now: u64) -> Result<Option<Grant>, Denied> {
        let mut worst: Option<(&Signed, Refused)> = None;
        for key in &self.signed {
            match key.verifier.verify(presented, now) {
                Ok(grant) => return Ok(Some(grant)),
                // Of several keys, what the one says that has a token to speak of.
                Err(refused) if worst.as_ref().is_none_or(|(_, worst)| *worst == Refused::Missing) => {
                    worst = Some((key, refused));
                }
                Err(_) => {}
            }
        }
        let Some((key, refused)) = worst else { return Ok(None) };
        let status = match refused {
            Refused::Expired(_) => key.expired,
            _ => StatusCode::FORBIDDEN,
        };
        Err(Denied { status, reason: format!("signed_url {}: {refused}", key.name) })
    }
}

/// The answer to a request that has not come by TLS where it must.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Insecure {
    Refused,
    /// To the same URL with https.
    Redirect(StatusCode, HeaderValue),
}

/// What becomes of a request that has not come by TLS; `None`: it goes on. `target`: the path and query that were sent;
/// `port`: of https, where it is not 443.
pub fn insecure(https: Https, method: &Method, host: &str, port: Option<u16>, target: &[u8]) -> Option<Insecure> {
    match https {
        Https::Optional => return None,
        Https::Required => return Some(Insecure::Refused),
        Https::Redirect => {}
    }
    let mut location = Vec::with_capacity(16 + host.len() + target.len());
    location.extend_from_slice(b"https://");
    location.extend_from_slice(host.as_bytes());
    if let Some(port) = port {
        location.extend_from_slice(format!(":{port}").as_bytes());
    }
    location.extend_from_slice(target);
    let status = match *method {
        Method::GET | Method::HEAD => StatusCode::MOVED_PERMANENTLY,
        _ => StatusCode::PERMANENT_REDIRECT,
    };
    Some(HeaderValue::from_bytes(&location).map_or(Insecure::Refused, |location| Insecure::Redirect(status, location)))
}

fn hsts(hsts: Hsts) -> HeaderValue {
    let mut value = format!("max-age={}", hsts.max_age.as_secs());
    if hsts.include_subdomains {
        value.push_str("; includeSubDomains");
    }
    if hsts.preload {
        value.push_str("; preload");
    }
    // Digits and words alone: it is a valid value.
    HeaderValue::from_maybe_shared(bytes::Bytes::from(value)).unwrap_or(HeaderValue::from_static("max-age=0"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn hsts_in_words() {
        let year = Hsts { max_age: Duration::from_secs(31_536_000), include_subdomains: false, preload: false };
        assert_eq!(hsts(year), "max-age=31536000");
        let all = Hsts { include_subdomains: true, preload: true, ..year };
        assert_eq!(hsts(all), "max-age=31536000; includeSubDomains; preload");
    }
}
