//! The way past Pingora's proxy: for a request that the cache has no part in, and that has no body.
//!
//! Pingora's own way is made for everything that can happen to a request, and costs more. What a request and its answer are
//! made into is the same on both: the same functions see to it.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{Either, select};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderValue, Method, Version};
use pingora::http::ResponseHeader;
use pingora::protocols::http::HttpTask;
use pingora::{Error, ErrorType, Result};
use pingora_proxy::Session;

use super::context::Context;
use super::framing::End;
use super::state::Shared;
use super::{caching, interim, invalidate, link, trace, upstream};
use crate::origin::{Answer, Exchange};

/// Fields in an answer.
const FIELDS: usize = 256;

/// Whether the request can go this way: else it goes Pingora's.
pub fn takes(shared: &Shared, session: &mut Session, ctx: &mut Context) -> bool {
    is_plain(session, ctx) && caching::is_left_out(shared, session, ctx)
}

/// Passes the request on and its answer back.
///
/// # Errors
/// The origin has failed, or the client has gone.
pub async fn answer(shared: &Shared, session: &mut Session, ctx: &mut Context) -> Result<()> {
    let exchange = upstream::exchange(session, ctx)?;
    let (method, wire) = (session.req_header().method.clone(), upstream::wire(shared, session, ctx)?);
    let mut answer = asked(session, ctx, &exchange, method, wire).await?;
    let understood = head(answer.head()).and_then(|mut head| {
        upstream::response(session, &mut head, ctx)?;
        Ok(head)
    });
    let mut response = understood.map_err(|e| upstream::failed(ctx, e))?;
    invalidate::by(shared, session, &response, ctx).await;
    let bodiless = !answer.has_body();
    if !bodiless && !response.headers.contains_key(CONTENT_LENGTH) {
        response.insert_header(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))?;
    }
    trace::complete(session, &mut response, ctx)?;
    let response = Box::new(response);
    if bodiless {
        if ctx.upstream.end == End::Known {
            // Gives the connection back.
            let _ = answer.data().now_or_never();
        }
        session.write_response_tasks(vec![HttpTask::Header(response, true)]).await?;
        return Ok(());
    }
    send(session, ctx, response, &mut answer).await
}

/// Asks the origin. What it says before its answer is passed on.
async fn asked(
    session: &mut Session,
    ctx: &mut Context,
    exchange: &Arc<Exchange>,
    method: Method,
    wire: Bytes,
) -> Result<Answer> {
    let mut asked = pin!(exchange.ask_for(method, wire));
    loop {
        let answer = match unless_gone(session, select(asked.as_mut(), pin!(exchange.interim()))).await? {
            Either::Left((answer, _)) => answer,
            Either::Right((interim, _)) => {
                pass_on(session, ctx, &interim).await?;
                continue;
            }
        };
        while let Some(interim) = exchange.interim_now() {
            pass_on(session, ctx, &interim).await?;
        }
        return answer.map_err(|failure| upstream::error(&failure));
    }
}

async fn pass_on(session: &mut Session, ctx: &mut Context, interim: &Bytes) -> Result<()> {
    let mut head = head(interim)?;
    upstream::response(session, &mut head, ctx)?;
    interim::send(session, &head, ctx).await;
    Ok(())
}

/// Sends the head and the body as it comes.
async fn send(
    session: &mut Session,
    ctx: &mut Context,
    response: Box<ResponseHeader>,
    answer: &mut Answer,
) -> Result<()> {
    let mut tasks = Vec::with_capacity(2);
    // What has come with the head leaves with it. Where nothing has, the client need not wait for it.
    if let (Some(connection), None) = (link::connection(session), next(answer, &mut tasks, ctx)?) {
        connection.release_head(true);
    }
    tasks.insert(0, HttpTask::Header(response, false));
    loop {
        let ended = tasks.last().is_some_and(HttpTask::is_end);
        session.write_response_tasks(std::mem::take(&mut tasks)).await?;
        if ended {
            return Ok(());
        }
        let data = unless_gone(session, pin!(answer.data())).await?.map_err(|failure| upstream::error(&failure))?;
        match data {
            Some(data) => take(data, answer, &mut tasks, ctx),
            None => tasks.push(HttpTask::Done),
        }
    }
}

/// What of the body is there already.
fn next(answer: &mut Answer, tasks: &mut Vec<HttpTask>, ctx: &mut Context) -> Result<Option<()>> {
    match answer.data().now_or_never() {
        None => return Ok(None),
        Some(Ok(Some(data))) => take(data, answer, tasks, ctx),
        Some(Ok(None)) => tasks.push(HttpTask::Done),
        Some(Err(failure)) => return Err(upstream::error(&failure)),
    }
    Ok(Some(()))
}

/// Adds some of the body, and the end if that was all.
fn take(data: Bytes, answer: &mut Answer, tasks: &mut Vec<HttpTask>, ctx: &mut Context) {
    ctx.upstream.body_bytes += data.len() as u64;
    tasks.push(HttpTask::Body(Some(data), false));
    match answer.data().now_or_never() {
        Some(Ok(Some(data))) => {
            ctx.upstream.body_bytes += data.len() as u64;
            tasks.push(HttpTask::Body(Some(data), false));
        }
        Some(Ok(None)) => tasks.push(HttpTask::Done),
        // A failure is found again by the next look, when what has come is with the client: as a response that is not whole.
        Some(Err(_)) | None => {}
    }
}

/// Whether the request can go this way at all.
fn is_plain(session: &mut Session, ctx: &Context) -> bool {
    let only_if_cached = ctx.request.as_ref().is_none_or(|request| request.directives.only_if_cached);
    link::connection(session).is_some()
        && session.is_body_done()
        && !session.is_upgrade_req()
        && !only_if_cached
        // What a POST is answered with may be stored.
        && session.req_header().method != Method::POST
}

/// Waits for something, unless the client leaves meanwhile.
async fn unless_gone<T>(session: &Session, work: impl Future<Output = T> + Unpin) -> Result<T> {
    let Some(connection) = link::connection(session) else { return Ok(work.await) };
    match select(work, pin!(connection.hung_up())).await {
        Either::Left((done, _)) => Ok(done),
        Either::Right(((), _)) => {
            Err(Error::explain(ErrorType::ConnectionClosed, "the client left before it had its answer").into_down())
        }
    }
}

/// The head of an answer as Pingora's hooks know it.
fn head(wire: &Bytes) -> Result<ResponseHeader> {
    let malformed = |what: &'static str| Error::explain(ErrorType::InvalidHTTPHeader, what).into_up();
    let mut fields = [const { std::mem::MaybeUninit::uninit() }; FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(&mut parsed, wire, &mut fields)
        .map_err(|_| malformed("the origin's head is none"))?;
    let mut head = ResponseHeader::build(parsed.code.unwrap_or_default(), Some(parsed.headers.len() + 4))?;
    head.set_version(if parsed.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 });
    if let Some(reason) = parsed.reason {
        head.set_reason_phrase(Some(reason))?;
    }
    for field in parsed.headers.iter() {
        let value = HeaderValue::from_maybe_shared(wire.slice_ref(field.value));
        head.append_header(field.name.to_owned(), value.map_err(|_| malformed("a field's value that is none"))?)?;
    }
    Ok(head)
}
