//! The guards of a site or route, and what each makes of a request.

use std::time::{Duration, UNIX_EPOCH};

use http::StatusCode;

use super::report::{At, Guard, Refused};
use crate::config::model::{Config, Guard as Settings, KeyPart, OverRate, RateLimit};
use crate::config::{show_duration, show_key, show_rate, show_size};
use crate::edge::checks;
use crate::guard::signed::Presented;
use crate::guard::{Asked, Gate, Insecure, insecure};

/// A request that knocks.
pub struct Knock<'a> {
    pub config: &'a Config,
    pub settings: &'a Settings,
    pub gate: &'a Gate,
    pub asked: Asked<'a>,
    pub presented: Presented<'a>,
    /// Why the path itself is refused (see [`crate::guard::read_otherwise`]).
    pub otherwise: Option<String>,
    /// The path and query that were sent.
    pub target: &'a [u8],
    /// Nobody has said what the client's address is.
    pub nobody: bool,
    /// Seconds since the epoch.
    pub now: u64,
}

/// What the guards make of it, up to the first that refuses it; and the answer then. `at`: where a guard stands, by its key.
pub fn knock(knock: &Knock<'_>, at: impl Fn(&str) -> Option<At>) -> (Vec<Guard>, Option<Refused>) {
    let mut told = Told { guards: Vec::new(), at };
    let refused = told.all(knock).err();
    (told.guards, refused)
}

/// The limit of a request's body.
///
/// # Errors
/// The answer to one that is larger.
pub fn body(knock: &Knock<'_>) -> Result<(), Refused> {
    let limit = knock.settings.body_size.unwrap_or(knock.config.limits.body_size);
    checks::body_within(knock.asked.headers, limit).map_err(Refused::from)
}

struct Told<F> {
    guards: Vec<Guard>,
    at: F,
}

impl<F: Fn(&str) -> Option<At>> Told<F> {
    /// In the order of `edge::guards`.
    fn all(&mut self, knock: &Knock<'_>) -> Result<(), Refused> {
        let Knock { settings, gate, asked, .. } = knock;
        self.https(knock)?;
        if settings.access.is_some() {
            match gate.admit(asked) {
                Ok(()) => self.passes("access", "no rule is against it"),
                Err((denied, _)) => {
                    let text = "This request is not allowed here.";
                    let refused = self.refuses("access", denied.reason, denied.status, text);
                    if knock.nobody {
                        self.add(" (from nobody in particular: --from says who asks)");
                    }
                    return Err(refused);
                }
            }
        }
        if let Some(reason) = &knock.otherwise {
            let text = "This request is not allowed here.";
            return Err(self.refuses("access", reason.clone(), StatusCode::FORBIDDEN, text));
        }
        for limit in &gate.early {
            self.rate(limit);
        }
        self.signed_url(knock)?;
        for limit in &gate.late {
            self.rate(limit);
        }
        for limit in &settings.concurrency_limits {
            let key = counted_by(&limit.key);
            let why = format!("{key}, up to {} in flight, then {}", limit.requests, limit.status.as_u16());
            self.tell("concurrency_limit", Some(&limit.name), "counts", why);
        }
        if let Some(bandwidth) = settings.bandwidth {
            let after = match bandwidth.after {
                0 => String::new(),
                after => format!(" after {}", show_size(after)),
            };
            self.passes("bandwidth", format!("the response leaves at {}/s{after}", show_size(bandwidth.rate)));
        }
        if let Some(limit) = settings.body_size {
            let limit = limit.map_or("of any size".to_owned(), |limit| format!("of up to {}", show_size(limit)));
            if let Err(refused) = body(knock) {
                self.tell("body_size", None, "refuses", refused.reason.clone());
                return Err(refused);
            }
            self.passes("body_size", format!("a body {limit} may come"));
        }
        if let Some(hsts) = &gate.hsts {
            let value = String::from_utf8_lossy(hsts.as_bytes());
            self.passes(
                "hsts",
                match asked.visitor.secure {
                    true => format!("the response says {value}"),
                    false => "nothing is said without TLS".to_owned(),
                },
            );
        }
        Ok(())
    }

    fn https(&mut self, knock: &Knock<'_>) -> Result<(), Refused> {
        let Knock { config, settings, asked, .. } = knock;
        let ports = config.listeners.iter().filter(|listener| listener.tls.is_some());
        let mut ports = ports.map(|listener| listener.address.port());
        let first = ports.next();
        let port = first.filter(|first| *first != 443 && ports.all(|port| port != 443));
        let Some(insecure) = insecure(settings.https, asked.method, asked.host, port, knock.target) else {
            return Ok(());
        };
        if asked.visitor.secure {
            self.passes("https", "the request comes by TLS");
            return Ok(());
        }
        Err(match insecure {
            Insecure::Refused => {
                let text = "This is served over https alone.";
                self.refuses("https", "https: required".to_owned(), StatusCode::FORBIDDEN, text)
            }
            Insecure::Redirect(status, location) => {
                let refused = self.refuses("https", "https: redirect".to_owned(), status, "This is served over https.");
                self.add(&format!(": {} to {}", status.as_u16(), String::from_utf8_lossy(location.as_bytes())));
                refused
            }
        })
    }

    fn signed_url(&mut self, knock: &Knock<'_>) -> Result<(), Refused> {
        if knock.settings.signed_url.is_empty() {
            return Ok(());
        }
        match knock.gate.verify(&knock.presented, knock.now) {
            Ok(Some(grant)) => {
                let until = grant.expires.map_or("without an end".to_owned(), |end| {
                    match UNIX_EPOCH.checked_add(Duration::from_secs(end)).filter(|_| end <= LAST_DATE) {
                        Some(end) => format!("until {}", httpdate::fmt_http_date(end)),
                        None => format!("until {end} seconds since the epoch"),
                    }
                });
                self.passes("signed_url", format!("the signature holds, {until}; token {}", grant.id));
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(denied) => {
                let text = "This URL is not valid, or no longer.";
                Err(self.refuses("signed_url", denied.reason, denied.status, text))
            }
        }
    }

    fn rate(&mut self, limit: &RateLimit) {
        let then = match limit.action {
            OverRate::Reject => "then 429".to_owned(),
            OverRate::Delay(longest) => format!("then waits for up to {}, then 429", show_duration(longest)),
            OverRate::Log => "then only logged".to_owned(),
        };
        let why = format!("{}, {} with bursts of {}, {then}", counted_by(&limit.key), show_rate(limit), limit.burst);
        self.tell("rate_limit", Some(&limit.name), "counts", why);
    }

    fn passes(&mut self, guard: &'static str, why: impl Into<String>) {
        self.tell(guard, None, "passes", why.into());
    }

    fn refuses(&mut self, guard: &'static str, why: String, status: StatusCode, text: &str) -> Refused {
        self.tell(guard, None, "refuses", why.clone());
        Refused { status: status.as_u16(), text: text.to_owned(), reason: why }
    }

    /// More about the latest.
    fn add(&mut self, more: &str) {
        if let Some(told) = self.guards.last_mut() {
            told.why.push_str(more);
        }
    }

    fn tell(&mut self, guard: &'static str, name: Option<&str>, verdict: &'static str, why: String) {
        self.guards.push(Guard { guard, name: name.map(str::to_owned), verdict, why, at: (self.at)(guard) });
    }
}

/// The last second that an HTTP-date can say: the end of the year 9999.
const LAST_DATE: u64 = 253_402_300_799;

fn counted_by(key: &[KeyPart]) -> String {
    format!("by {}", show_key(key))
}
