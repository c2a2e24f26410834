//! The method PURGE, for those who come from Varnish or nginx: purges what its target names.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, Method, StatusCode};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;
use serde_json::{Value, json};

use super::context::{Context, Request};
use super::state::Shared;
use super::{admit, link, purge, trace};
use crate::admin::{NotPurged, Purged};
use crate::bearer::{Token, bearer};
use crate::config::model::{PurgeMethod, Site};
use crate::invalidate::{self, By, Purge, scheme_of};
use crate::observe::rfc3339;

const METHOD: &str = "PURGE";

/// Fields by which a client asks for a soft purge.
static SOFT: [HeaderName; 2] = [HeaderName::from_static("soft-purge"), HeaderName::from_static("fastly-soft-purge")];

/// Answers a PURGE where the site has it; `false`: the request goes on. Such a PURGE never does, whatever is wrong with it:
/// what reaches the origin could be answered as if something had been purged.
///
/// # Errors
/// The client has gone.
pub async fn answer(shared: &Shared, session: &mut Session, ctx: &mut Context) -> Result<bool> {
    let Some(request) = &ctx.request else { return Ok(false) };
    let Some(rules) = rules(&session.req_header().method, request.site()) else { return Ok(false) };
    let verdict = match allowed(rules, ctx, &session.req_header().headers) {
        Err(refusal) => Err(refusal),
        // Not even asked whether there is content before it is known who asks.
        Ok(()) if admit::has_content(session) => Err(Refusal::bad("a PURGE has no content".to_owned())),
        Ok(()) => match asked(rules, request, session.req_header()) {
            Ok(asked) => execute(shared, request, &asked).await,
            Err(refusal) => Err(refusal),
        },
    };
    send(session, ctx, verdict).await?;
    Ok(true)
}

/// Who may purge by a request of this method; `None`: it is a request like any other.
pub fn rules<'a>(method: &Method, site: &'a Site) -> Option<&'a PurgeMethod> {
    site.purge.as_ref().filter(|_| method.as_str() == METHOD)
}

/// Why nothing is purged, or not for good.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    /// For the log.
    reason: String,
    /// `None`: the status says all that the client may know.
    body: Option<Value>,
}

impl Refusal {
    fn new(status: StatusCode, why: String) -> Refusal {
        Refusal { status, body: Some(json!({ "error": why })), reason: why }
    }

    fn bad(why: String) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, why)
    }

    fn of_nobody(status: StatusCode, reason: &str) -> Refusal {
        Refusal { status, reason: reason.to_owned(), body: None }
    }
}

fn allowed(rules: &PurgeMethod, ctx: &Context, headers: &HeaderMap) -> Result<(), Refusal> {
    if let Some(networks) = &rules.from {
        let inside = |client: &super::client::Client| networks.iter().any(|network| network.contains(&client.address));
        if !ctx.client.as_ref().is_some_and(inside) {
            return Err(Refusal::of_nobody(StatusCode::FORBIDDEN, "purge: not from this address"));
        }
    }
    if let Some(secret) = &rules.token
        && !bearer(headers).is_some_and(|offered| Token::new(&secret.0).is(offered))
    {
        return Err(Refusal::of_nobody(StatusCode::UNAUTHORIZED, "purge: no token, or a wrong one"));
    }
    Ok(())
}

/// What a PURGE asks for.
fn asked(rules: &PurgeMethod, request: &Request, header: &RequestHeader) -> Result<Purge, Refusal> {
    let soft = rules.soft | is_soft(&header.headers).map_err(Refusal::bad)?;
    let (scheme, authority) = (scheme_of(&request.authority), &request.authority);
    // That has no token: nothing is stored under a URL that has one.
    let target = request.target.as_deref().map_or_else(|| target(header), str::to_owned);
    let (path, query) = target.split_once('?').map_or((&*target, None), |(path, query)| (path, Some(query)));
    Ok(match (path.strip_suffix('*'), query) {
        (None, _) => Purge { urls: vec![format!("{scheme}://{authority}{target}")], soft, ..Purge::default() },
        (Some(before), None) => {
            Purge { prefixes: vec![format!("{scheme}://{authority}{before}")], raw: true, soft, ..Purge::default() }
        }
        (Some(_), Some(_)) => {
            let why = "a path that ends in `*` selects paths, with whatever query: it is written without one";
            return Err(Refusal::bad(why.to_owned()));
        }
    })
}

async fn execute(shared: &Shared, request: &Request, asked: &Purge) -> Result<Purged, Refusal> {
    let snapshot = &request.snapshot;
    let failed = |failure| Err(refusal(failure));
    match invalidate::resolve(asked, &snapshot.config, &snapshot.directory) {
        Err(wrong) => failed(NotPurged::Wrong(wrong)),
        Ok(selectors) => purge::purge(shared, selectors, asked.soft, By::Method).await.or_else(failed),
    }
}

fn refusal(failure: NotPurged) -> Refusal {
    match failure {
        // There is one selector.
        NotPurged::Wrong(wrong) => Refusal::bad(wrong.into_iter().next().map(|it| it.why).unwrap_or_default()),
        NotPurged::NotDurable { sequence, why } => Refusal {
            status: StatusCode::SERVICE_UNAVAILABLE,
            body: Some(json!({ "error": format!("in force, but not written down: {why}"), "sequence": sequence })),
            reason: format!("purge: not written down: {why}"),
        },
        NotPurged::Unavailable(why) => Refusal::new(StatusCode::SERVICE_UNAVAILABLE, why),
    }
}

/// Whether the request asks for a soft purge. What is misspelt is no hard purge, which would do more than was meant.
fn is_soft(headers: &HeaderMap) -> Result<bool, String> {
    let mut soft = false;
    for name in &SOFT {
        for value in headers.get_all(name) {
            match value.as_bytes() {
                b"1" => soft = true,
                b"0" => {}
                _ => return Err(format!("{name} is 1 or 0")),
            }
        }
    }
    Ok(soft)
}

/// The path and query that are asked for. Bytes that are no ASCII mean what their percent-encoding means (RFC 3986 §2.5).
fn target(header: &RequestHeader) -> String {
    let sent = header.raw_path();
    if sent.is_ascii() || !sent.starts_with(b"/") {
        return header.uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
    }
    let mut target = String::with_capacity(sent.len() * 2);
    for &byte in sent {
        match byte.is_ascii() {
            true => target.push(char::from(byte)),
            false => target.push_str(&format!("%{byte:02X}")),
        }
    }
    target
}

async fn send(session: &mut Session, ctx: &mut Context, verdict: Result<Purged, Refusal>) -> Result<()> {
    let (status, body) = match verdict {
        Ok(purged) => (StatusCode::OK, Some(json!({ "sequence": purged.sequence, "at": rfc3339(purged.at) }))),
        Err(refusal) => {
            ctx.reply.reason = Some(refusal.reason);
            (refusal.status, refusal.body)
        }
    };
    ctx.reply.status = status.as_u16();
    let body = body.map(|body| format!("{body}\n")).unwrap_or_default();
    let mut head = ResponseHeader::build(status, Some(8))?;
    if !body.is_empty() {
        head.insert_header(CONTENT_TYPE, "application/json")?;
    }
    head.insert_header(CONTENT_LENGTH, body.len())?;
    head.insert_header(CACHE_CONTROL, "no-store")?;
    if status == StatusCode::UNAUTHORIZED {
        head.insert_header(WWW_AUTHENTICATE, "Bearer realm=\"foreland\"")?;
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        head.insert_header(RETRY_AFTER, "5")?;
    }
    trace::add_cache_status(&mut head, ctx)?;
    if let Some(connection) = link::connection(session) {
        connection.keep_date(None);
    }
    // Nobody waits for content that nobody reads.
    if admit::has_content(session) {
        session.set_keepalive(None);
    }
    let empty = body.is_empty();
    session.write_response_header(Box::new(head), empty).await?;
    if !empty {
        session.write_response_body(Some(Bytes::from(body)), true).await?;
    }
    ctx.reply.first_byte.get_or_insert_with(|| ctx.started.elapsed());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soft(fields: &[(&'static str, &'static str)]) -> Result<bool, String> {
        is_soft(&fields.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect())
    }

    #[test]
    fn a_soft_purge_is_asked_for_in_one_way() {
        assert_eq!(soft(&[]), Ok(false));
        assert_eq!(soft(&[("soft-purge", "0")]), Ok(false));
        assert_eq!(soft(&[("soft-purge", "1")]), Ok(true));
        assert_eq!(soft(&[("soft-purge", "0"), ("fastly-soft-purge", "1")]), Ok(true));
        assert_eq!(soft(&[("fastly-soft-purge", "yes")]), Err("fastly-soft-purge is 1 or 0".to_owned()));
    }

    #[test]
    fn the_target_is_all_ascii() {
        let of = |sent: &[u8]| {
            let mut header = RequestHeader::build("PURGE", b"/", None).unwrap();
            header.set_raw_path(sent).unwrap();
            target(&header)
        };
        assert_eq!(of(b"/a?b"), "/a?b");
        assert_eq!(of("/é?é".as_bytes()), "/%C3%A9?%C3%A9");
        assert_eq!(of(b"/caf\xe9*"), "/caf%E9*");
    }

    #[test]
    fn what_is_not_written_down_is_no_success() {
        let failed = refusal(NotPurged::NotDurable { sequence: 7, why: "full".to_owned() });
        assert_eq!(failed.status, 503);
        assert_eq!(failed.body, Some(json!({ "error": "in force, but not written down: full", "sequence": 7 })));
        assert_eq!(refusal(NotPurged::Unavailable("later".to_owned())).status, 503);
    }
}
