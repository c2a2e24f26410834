//! Who may ask, and how much: the guards of the site or route, in an order that keeps what is dear behind what is cheap.
//!
//! `https`, then `access`, then the rates, then the signature, then the rates that count by it, then the requests in flight.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{ALLOW, LOCATION, STRICT_TRANSPORT_SECURITY};
use http::{HeaderName, HeaderValue, StatusCode};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use smallvec::SmallVec;

use super::context::Context;
use super::respond::Answer;
use super::state::{Shared, Snapshot};
use crate::config::model::{ConcurrencyLimit, Https, OverRate, RateLimit, RequestPolicy};
use crate::guard::rate::{Judgement, Pace, Place, Verdict, fields};
use crate::guard::signed::{Grant, Presented};
use crate::guard::{self, Asked, Gate, Insecure};
use crate::observe::{ConcurrencyLimitMetrics, Guarded, Limited, Metrics, RateLimitMetrics, SiteMetrics};
use crate::site::Resolved;

/// What the guards have made of a request.
#[derive(Default)]
pub struct Passed {
    /// The token that its URL has.
    pub grant: Option<Grant>,
    /// Its places among those in flight.
    places: SmallVec<[Place; 1]>,
    /// How long it is to wait before it goes on.
    pub wait: Duration,
    /// RateLimit-Policy and RateLimit, in pairs.
    limits: SmallVec<[(HeaderValue, HeaderValue); 1]>,
    /// What is only logged.
    pub noted: Option<String>,
    /// Over TLS, the site tells the client to keep to it.
    hsts: Option<HeaderValue>,
}

/// The figures of one gate's limits, in the gate's order.
pub struct GateMetrics {
    early: Vec<Arc<RateLimitMetrics>>,
    late: Vec<Arc<RateLimitMetrics>>,
    concurrency: Vec<Arc<ConcurrencyLimitMetrics>>,
}

impl GateMetrics {
    pub fn new(site: &str, gate: &Gate, limits: &[Arc<ConcurrencyLimit>], metrics: &Metrics) -> GateMetrics {
        let of = |limits: &[Arc<RateLimit>]| limits.iter().map(|limit| metrics.rate_limit(site, &limit.name)).collect();
        GateMetrics {
            early: of(&gate.early),
            late: of(&gate.late),
            concurrency: limits.iter().map(|limit| metrics.concurrency_limit(site, &limit.name)).collect(),
        }
    }
}

/// A request at the gate.
pub struct AtGate<'a> {
    pub snapshot: &'a Snapshot,
    pub policy: &'a RequestPolicy,
    pub resolved: &'a Resolved<'a>,
    /// With its fields as the client sent them: tokens are still there.
    pub header: &'a RequestHeader,
    pub metrics: &'a SiteMetrics,
}

/// Looks at a request, and counts it. What has been found out of one that is not let in is told and logged, too; `None`:
/// nothing guards it. The error is the answer to one that is not let in.
pub fn check(shared: &Shared, request: &AtGate<'_>, ctx: &Context) -> (Option<Box<Passed>>, Result<(), Box<Answer>>) {
    let gate = request.snapshot.guards.gate(request.policy);
    if gate.is_open() && request.resolved.otherwise.is_empty() {
        return (None, Ok(()));
    }
    let hsts = gate.hsts.as_ref().filter(|_| ctx.secure);
    let mut passed = Box::new(Passed { hsts: hsts.cloned(), ..Passed::default() });
    let verdict = pass(shared, request, ctx, &mut passed);
    if verdict.is_err() {
        passed.places.clear();
    }
    (Some(passed), verdict)
}

fn pass(shared: &Shared, request: &AtGate<'_>, ctx: &Context, passed: &mut Passed) -> Result<(), Box<Answer>> {
    let AtGate { snapshot, policy, resolved, header, metrics } = request;
    let (guard, gate) = (&policy.guard, snapshot.guards.gate(policy));
    let visitor = ctx.visitor();
    if !visitor.secure
        && let Some(insecure) = insecure(guard.https, request)
    {
        metrics.guarded(Guarded::Https);
        return Err(Box::new(insecure));
    }
    let asked = Asked::of(&header.method, &header.headers, visitor, resolved);
    gate.admit(&asked).map_err(|(denied, allow)| {
        metrics.guarded(Guarded::Access);
        let answer = Answer::new(denied.status, "This request is not allowed here.", denied.reason);
        Box::new(match allow.and_then(|allow| HeaderValue::from_str(allow).ok()) {
            Some(allow) => answer.with(ALLOW, allow),
            None => answer,
        })
    })?;
    if let Some(reason) = guard::read_otherwise(&snapshot.config.sites[resolved.site], resolved, guard) {
        metrics.guarded(Guarded::Access);
        return Err(Box::new(Answer::new(StatusCode::FORBIDDEN, "This request is not allowed here.", reason)));
    }
    let figures = snapshot.gate_metrics(policy);
    rates(shared, (&gate.early, &figures.early), &asked, passed, ctx)?;
    let presented = Presented::of(&asked, resolved);
    let now = SystemTime::from(ctx.now).duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    passed.grant = gate.verify(&presented, now).map_err(|denied| {
        metrics.guarded(Guarded::SignedUrl);
        Box::new(Answer::new(denied.status, "This URL is not valid, or no longer.", denied.reason))
    })?;
    rates(shared, (&gate.late, &figures.late), &asked, passed, ctx)?;
    for (limit, figures) in guard.concurrency_limits.iter().zip(&figures.concurrency) {
        let key = shared.rates.keys.of(&limit.name, &limit.key, &asked, passed.grant.as_ref());
        match shared.rates.places.enter(limit, key) {
            Some(place) => passed.places.push(place),
            None => {
                figures.refused();
                let reason = format!("concurrency_limit {}: {} in flight", limit.name, limit.requests);
                let answer = Answer::new(limit.status, "Too many requests at once.", reason);
                return Err(Box::new(answer.retry_after(Duration::from_secs(1))));
            }
        }
    }
    Ok(())
}

/// How fast the responses of a policy leave.
pub fn pace(policy: &RequestPolicy) -> Option<Pace> {
    policy.guard.bandwidth.map(|bandwidth| Pace::new(bandwidth.rate, bandwidth.after))
}

/// Adds to a response what the guards have to tell.
///
/// # Errors
/// Never, since the values are valid.
pub fn add_fields(response: &mut ResponseHeader, ctx: &Context) -> Result<()> {
    let Some(passed) = &ctx.guards else { return Ok(()) };
    if let Some(hsts) = &passed.hsts {
        response.insert_header(STRICT_TRANSPORT_SECURITY, hsts.clone())?;
    }
    for (policy, state) in &passed.limits {
        response.append_header(fields::RATE_LIMIT_POLICY.clone(), policy.clone())?;
        response.append_header(fields::RATE_LIMIT.clone(), state.clone())?;
    }
    Ok(())
}

/// The same as lines of an HTTP/1.1 head.
pub fn write_fields(wire: &mut Vec<u8>, ctx: &Context) {
    let Some(passed) = &ctx.guards else { return };
    let mut line = |name: &[u8], value: &HeaderValue| {
        for part in [name, b": ", value.as_bytes(), b"\r\n"] {
            wire.extend_from_slice(part);
        }
    };
    if let Some(hsts) = &passed.hsts {
        line(b"Strict-Transport-Security", hsts);
    }
    for (policy, state) in &passed.limits {
        line(b"RateLimit-Policy", policy);
        line(b"RateLimit", state);
    }
}

/// Leaves to the guards what the origin says of the same.
pub fn drop_fields(response: &mut ResponseHeader, ctx: &Context) {
    if has_hsts(ctx) {
        response.remove_header(&STRICT_TRANSPORT_SECURITY);
    }
}

/// Whether the settings in force say what Strict-Transport-Security is.
pub fn has_hsts(ctx: &Context) -> bool {
    ctx.request.as_ref().is_some_and(|request| request.policy().guard.hsts.is_some())
}

/// Counts a request under its limits.
fn rates(
    shared: &Shared,
    (limits, figures): (&[Arc<RateLimit>], &[Arc<RateLimitMetrics>]),
    asked: &Asked<'_>,
    passed: &mut Passed,
    ctx: &Context,
) -> Result<(), Box<Answer>> {
    if limits.is_empty() {
        return Ok(());
    }
    let now = shared.since_start(ctx.started);
    let judgement = shared.rates.limiter.judge(limits, &shared.rates.keys, asked, passed.grant.as_ref(), now);
    note(limits, figures, &judgement, passed);
    passed.limits.extend(fields::values(limits, &judgement));
    passed.wait = passed.wait.max(judgement.wait);
    let Some((place, retry_after)) = judgement.rejected else { return Ok(()) };
    let name = limits.get(place).map_or("", |limit| &limit.name);
    let answer = Answer::new(StatusCode::TOO_MANY_REQUESTS, "Too many requests.", format!("rate_limit {name}"));
    Err(Box::new(answer.retry_after(Duration::from_secs(fields::retry_after(retry_after)))))
}

/// Counts what is beyond the rates, and notes what is only logged.
fn note(limits: &[Arc<RateLimit>], figures: &[Arc<RateLimitMetrics>], judgement: &Judgement, passed: &mut Passed) {
    for ((limit, figures), verdict) in limits.iter().zip(figures).zip(&judgement.verdicts) {
        match (verdict, limit.action) {
            (Verdict::Within { .. }, _) => {}
            (Verdict::Wait { .. }, _) => figures.limited(Limited::Delayed),
            (Verdict::Over { .. }, OverRate::Log) => {
                figures.limited(Limited::Logged);
                passed.noted.get_or_insert_with(|| format!("rate_limit {}: only logged", limit.name));
            }
            (Verdict::Over { .. }, _) => figures.limited(Limited::Rejected),
        }
    }
}

/// The answer to a request that has not come by TLS, where it must.
fn insecure(https: Https, request: &AtGate<'_>) -> Option<Answer> {
    if https == Https::Optional {
        return None;
    }
    let AtGate { header, resolved, snapshot, .. } = request;
    let sent = header.raw_path();
    let target = match sent.starts_with(b"/") {
        true => sent,
        // `OPTIONS *` is about the host as a whole.
        false => header.uri.path_and_query().map_or("/", |target| target.as_str()).trim_start_matches('*').as_bytes(),
    };
    Some(match guard::insecure(https, &header.method, resolved.host(), snapshot.https_port(), target)? {
        Insecure::Refused => Answer::new(StatusCode::FORBIDDEN, "This is served over https alone.", "https: required"),
        Insecure::Redirect(status, location) => {
            Answer::new(status, "This is served over https.", "https: redirect").with(LOCATION, location)
        }
    })
}

/// The fields by which the origin is told of the client: what a client says in them is dropped.
#[derive(Default)]
pub struct ClientFields {
    /// Of certificates, by any listener.
    certificates: Vec<HeaderName>,
    country: Option<HeaderName>,
    asn: Option<HeaderName>,
}

impl ClientFields {
    pub fn new(config: &crate::config::Config) -> ClientFields {
        let name = |name: &String| HeaderName::from_bytes(name.as_bytes()).ok();
        let auths = config.listeners.iter().filter_map(|listener| listener.tls.as_ref()?.client_auth.as_ref());
        let mut certificates: Vec<HeaderName> = auths
            .flat_map(|auth| auth.certificate_header.iter().chain(&auth.identity_header))
            .filter_map(name)
            .collect();
        certificates.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        certificates.dedup();
        let geo = &config.geo;
        ClientFields {
            certificates,
            country: geo.country_header.as_ref().and_then(name),
            asn: geo.asn_header.as_ref().and_then(name),
        }
    }

    /// Writes what is known of the client. `trusted`: a proxy may say of its client's certificate what it knows.
    pub fn write(&self, header: &mut RequestHeader, ctx: &Context) {
        let secured = ctx.secured();
        let said_by_proxy = ctx.is_trusted() && secured.is_none_or(|secured| secured.certificate.is_none());
        for name in self.certificates.iter().filter(|_| !said_by_proxy) {
            remove_alike(header, name);
        }
        if let Some(secured) = secured
            && let Some(auth) = secured.server.client_auth()
        {
            let certificate = auth.certificate_header.as_ref().zip(secured.certificate_field());
            let identity = auth
                .identity_header
                .as_ref()
                .zip(secured.identities.first().and_then(|name| HeaderValue::from_str(name).ok()));
            for (name, value) in certificate.into_iter().chain(identity) {
                // Only one with an invalid name could fail.
                let _ = header.insert_header(name.clone(), value);
            }
        }
        for (name, value) in [
            (&self.country, ctx.country.and_then(|code| HeaderValue::from_bytes(&code).ok())),
            (&self.asn, ctx.asn.map(HeaderValue::from)),
        ] {
            let Some(name) = name else { continue };
            remove_alike(header, name);
            if let Some(value) = value {
                let _ = header.insert_header(name.clone(), value);
            }
        }
    }

    /// Whether there is nothing to write, and nothing to drop.
    pub fn is_empty(&self) -> bool {
        self.certificates.is_empty() && self.country.is_none() && self.asn.is_none()
    }
}

/// Removes a field, in any spelling that an origin takes for it: to one that hands fields on as CGI does, an underscore is a
/// hyphen.
fn remove_alike(header: &mut RequestHeader, name: &HeaderName) {
    let same = |(a, b): (u8, u8)| a == b || (a == b'_' && b == b'-') || (a == b'-' && b == b'_');
    let alike = |found: &HeaderName| {
        found.as_str().len() == name.as_str().len() && found.as_str().bytes().zip(name.as_str().bytes()).all(same)
    };
    let found: SmallVec<[HeaderName; 1]> = header.headers.keys().filter(|found| alike(found)).cloned().collect();
    for name in &found {
        header.remove_header(name);
    }
}

/// A target, or a URL, as the log may have it: without anything that is a token of some site.
pub fn shown<'a>(snapshot: &Snapshot, target: &'a [u8]) -> std::borrow::Cow<'a, [u8]> {
    use std::borrow::Cow;
    if snapshot.guards.tokens().is_empty() {
        return Cow::Borrowed(target);
    }
    match String::from_utf8_lossy(target) {
        Cow::Borrowed(text) => match snapshot.guards.tokens().redact(text) {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        },
        Cow::Owned(text) => match snapshot.guards.tokens().redact(&text) {
            Cow::Borrowed(_) => Cow::Borrowed(target),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_says_of_itself_goes_in_any_spelling() {
        let fields =
            ClientFields { certificates: vec![HeaderName::from_static("x-client-cert")], country: None, asn: None };
        let fields = ClientFields { country: Some(HeaderName::from_static("x-country")), ..fields };
        let mut header = RequestHeader::build("GET", b"/", None).unwrap();
        for name in ["X-Client-Cert", "X_Client_Cert", "x-client_cert", "X_Country", "X-Client-Certs"] {
            header.append_header(name, "forged").unwrap();
        }
        let ctx = Context { country: Some(*b"AT"), ..Context::new() };
        fields.write(&mut header, &ctx);
        let mut left: Vec<_> = header.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        left.sort_unstable();
        assert_eq!(left, [("x-client-certs", &b"forged"[..]), ("x-country", b"AT")]);
    }
}
