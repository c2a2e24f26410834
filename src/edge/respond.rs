//! Answers that the edge itself gives: short, plain, and never cached.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{Method, StatusCode};
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora_proxy::Session;

use super::context::Context;
use super::{link, trace};
use crate::site::Refusal;

/// The methods that are passed on.
pub const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// When to ask again, where nothing better is known.
const UNAVAILABLE: Duration = Duration::from_secs(5);

/// An answer of the edge's own.
pub struct Answer {
    pub status: StatusCode,
    /// For the client: what is wrong, without telling of the inside.
    pub text: &'static str,
    /// For the log: what exactly.
    pub reason: String,
    /// The request cannot have been read to its end: the connection ends with the answer.
    pub close: bool,
    /// When to ask again; a 503 has one in any case.
    pub retry_after: Option<Duration>,
}

impl Answer {
    pub fn new(status: StatusCode, text: &'static str, reason: impl Into<String>) -> Answer {
        Answer { status, text, reason: reason.into(), close: false, retry_after: None }
    }

    /// The same, and the connection ends with it.
    pub fn closing(self) -> Answer {
        Answer { close: true, ..self }
    }

    /// The same, and it says when to ask again.
    pub fn retry_after(self, time: Duration) -> Answer {
        Answer { retry_after: Some(time), ..self }
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Answer {
        let Refusal { status, text, reason, close } = refusal;
        Answer { status, text, reason: reason.into_owned(), close, retry_after: None }
    }
}

/// Sends an answer.
pub async fn respond(session: &mut Session, ctx: &mut Context, answer: Answer) -> Result<()> {
    let reason = answer.status.canonical_reason().unwrap_or("");
    let body = format!("{} {reason}\n{}\nrequest {}\n", answer.status.as_str(), answer.text, ctx.id);
    ctx.reply.status = answer.status.as_u16();
    ctx.reply.reason = Some(answer.reason);
    let mut head = ResponseHeader::build(answer.status, Some(8))?;
    head.insert_header(CONTENT_TYPE, "text/plain; charset=utf-8")?;
    head.insert_header(CONTENT_LENGTH, body.len())?;
    head.insert_header(CACHE_CONTROL, "no-store")?;
    let is_unavailable = answer.status == StatusCode::SERVICE_UNAVAILABLE;
    if let Some(time) = answer.retry_after.or(is_unavailable.then_some(UNAVAILABLE)) {
        head.insert_header(RETRY_AFTER, seconds(time).to_string())?;
    }
    if answer.status == StatusCode::METHOD_NOT_ALLOWED {
        head.insert_header(ALLOW, METHODS)?;
    }
    trace::add_cache_status(&mut head, ctx)?;
    if let Some(connection) = link::connection(session) {
        connection.keep_date(None);
    }
    if answer.close {
        session.set_keepalive(None);
    }
    let bodiless = session.req_header().method == Method::HEAD;
    session.write_response_header(Box::new(head), bodiless).await?;
    if !bodiless {
        session.write_response_body(Some(Bytes::from(body)), true).await?;
    }
    ctx.reply.first_byte.get_or_insert_with(|| ctx.started.elapsed());
    Ok(())
}

/// Whole seconds, no sooner than the time and never at once.
fn seconds(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_told_to_come_too_early() {
        let seconds = |millis| seconds(Duration::from_millis(millis));
        assert_eq!([seconds(0), seconds(1), seconds(1000), seconds(1001), seconds(5000)], [1, 1, 1, 2, 5]);
    }
}
