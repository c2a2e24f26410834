//! An answer on its way to the client, with what is behind it.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{Either, select};
use h2::Reason;
use pingora::http::ResponseHeader;
use pingora::protocols::http::HttpTask;
use pingora::{Error, ErrorType, Result};
use pingora_proxy::Session;

use super::super::context::Context;
use super::super::{link, post, trailers, upstream};
use super::client::Coming;
use crate::origin::{Answer, Failure};

/// Sends the head and the body as it comes. `trailed`: trailers may follow a body in chunks.
///
/// # Errors
/// The origin has failed, or the client has gone: what has been sent does not look whole.
pub async fn over_http1(
    session: &mut Session,
    ctx: &mut Context,
    response: Box<ResponseHeader>,
    trailed: bool,
    answer: &mut Answer,
    coming: &mut Coming,
) -> Result<()> {
    // Trailers have no place where a length is said.
    let trailed = trailed && !response.headers.contains_key(http::header::CONTENT_LENGTH);
    let mut tasks = Vec::with_capacity(2);
    let mut ended = false;
    // What has come with the head leaves with it. Where nothing has, the client need not wait for it.
    match answer.data().now_or_never() {
        None => {
            if let Some(connection) = link::connection(session) {
                connection.release_head(true);
            }
        }
        Some(Ok(data)) => ended = take(data, answer, &mut tasks, ctx),
        Some(Err(failure)) => return Err(upstream::error(&failure)),
    }
    tasks.insert(0, HttpTask::Header(response, false));
    loop {
        if ended {
            return end(session, ctx, tasks, trailed, answer).await;
        }
        session.write_response_tasks(std::mem::take(&mut tasks)).await?;
        let data = match select(pin!(answer.data()), pin!(coming.attend(session, ctx))).await {
            Either::Left((data, _)) => data.map_err(|failure| upstream::error(&failure))?,
            Either::Right((gone, _)) => return Err(gone),
        };
        ended = take(data, answer, &mut tasks, ctx);
    }
}

/// Sends what is left, and the end.
async fn end(
    session: &mut Session,
    ctx: &mut Context,
    mut tasks: Vec<HttpTask>,
    trailed: bool,
    answer: &mut Answer,
) -> Result<()> {
    post::came(None, true, ctx);
    let behind = answer.trailers().filter(|_| trailed).and_then(trailers::of_answer);
    if let (Some(behind), Some(_)) = (behind, link::connection(session)) {
        // Apart: the next write is to be the last chunk.
        if !tasks.is_empty() {
            session.write_response_tasks(std::mem::take(&mut tasks)).await?;
        }
        if let Some(connection) = link::connection(session) {
            connection.end_with(trailers::last_chunk(&behind));
        }
    }
    tasks.push(HttpTask::Done);
    session.write_response_tasks(tasks).await?;
    Ok(())
}

/// Adds some of the body; whether that was all of it.
fn take(data: Option<Bytes>, answer: &mut Answer, tasks: &mut Vec<HttpTask>, ctx: &mut Context) -> bool {
    let Some(data) = data else { return true };
    tasks.push(came(data, ctx));
    match answer.data().now_or_never() {
        Some(Ok(Some(data))) => tasks.push(came(data, ctx)),
        Some(Ok(None)) => return true,
        // A failure is found again by the next look, when what has come is with the client: as a response that is not whole.
        Some(Err(_)) | None => {}
    }
    false
}

fn came(data: Bytes, ctx: &mut Context) -> HttpTask {
    ctx.upstream.body_bytes += data.len() as u64;
    post::came(Some(&data), false, ctx);
    HttpTask::Body(Some(data), false)
}

/// What happens on a stream.
enum Event {
    Written(Result<bool>),
    Came(Result<Option<Bytes>, Failure>),
    Gone(Box<Error>),
}

/// The same over HTTP/2, where a client sends and takes at a time: neither waits for the other.
///
/// # Errors
/// As [`over_http1`]. The stream is reset, by the code that the server has given if it says something to the client.
pub async fn over_http2(
    session: &mut Session,
    ctx: &mut Context,
    response: Box<ResponseHeader>,
    answer: &mut Answer,
    coming: &mut Coming,
) -> Result<()> {
    let mut first = answer.data().now_or_never();
    if let Some(Err(failure)) = &first {
        return Err(upstream::error(failure));
    }
    session.write_response_tasks(vec![HttpTask::Header(response, false)]).await?;
    loop {
        let event = poll_fn(|cx| {
            let Some(stream) = session.downstream_session.as_custom_mut() else {
                let why = "an answer over HTTP/2 to a client of another version";
                return Poll::Ready(Event::Written(Error::e_explain(ErrorType::InternalError, why)));
            };
            let is_writing = stream.has_pending_proxy_tasks();
            if is_writing && let Poll::Ready(written) = stream.write_proxy_tasks().as_mut().poll(cx) {
                return Poll::Ready(Event::Written(written));
            }
            if let Poll::Ready(gone) = pin!(coming.attend(session, ctx)).poll(cx) {
                return Poll::Ready(Event::Gone(gone));
            }
            if is_writing {
                // No more than the client takes is taken from the server; what it says is passed on all the same.
                answer.push(cx);
                return Poll::Pending;
            }
            match first.take() {
                Some(data) => Poll::Ready(Event::Came(data)),
                None => answer.poll_data(cx).map(Event::Came),
            }
        })
        .await;
        let task = match event {
            Event::Written(Ok(false)) => continue,
            Event::Written(Ok(true)) => return Ok(()),
            Event::Written(Err(e)) | Event::Gone(e) => return Err(e),
            Event::Came(Ok(Some(data))) => came(data, ctx),
            Event::Came(Ok(None)) => {
                post::came(None, true, ctx);
                let behind = answer.trailers().and_then(trailers::of_answer);
                behind.map_or(HttpTask::Done, |behind| HttpTask::Trailer(Some(Box::new(behind))))
            }
            Event::Came(Err(failure)) => {
                if let Some(stream) = session.downstream_session.as_custom_mut() {
                    stream.shutdown(u32::from(reason(&failure)), "").await;
                }
                return Err(upstream::error(&failure));
            }
        };
        if let Some(stream) = session.downstream_session.as_custom_mut() {
            stream.send_proxy_task(task);
        }
    }
}

/// What the client is told where an answer breaks off. A server's other codes are about its connection to the edge.
fn reason(failure: &Failure) -> Reason {
    match failure.reset {
        Some(reason @ (Reason::CANCEL | Reason::ENHANCE_YOUR_CALM)) => reason,
        _ => Reason::INTERNAL_ERROR,
    }
}
