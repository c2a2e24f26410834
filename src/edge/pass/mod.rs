//! The way past Pingora's proxy: for a request that the cache has no part in.
//!
//! Pingora's own way is made for everything that can happen to a request, and costs more. It also reads and writes one after
//! the other, and knows no trailers. What a request and its answer are made into is the same on both: the same functions
//! see to it.

mod client;
mod send;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{CONTENT_LENGTH, TRAILER, TRANSFER_ENCODING};
use http::{HeaderValue, Version};
use pingora::http::ResponseHeader;
use pingora::protocols::http::HttpTask;
use pingora::{Error, ErrorType, Result};
use pingora_proxy::Session;

use self::client::Coming;
use super::context::Context;
use super::framing::End;
use super::state::Shared;
use super::{caching, interim, invalidate, link, post, trace, trailers, upstream};
use crate::origin::{Answer, Body, Exchange, Failure};

/// Fields in an answer.
const FIELDS: usize = 256;

/// Whether the request can go this way: else it goes Pingora's.
pub fn takes(shared: &Shared, session: &mut Session, ctx: &mut Context) -> bool {
    let only_if_cached = ctx.request.as_ref().is_none_or(|request| request.directives.only_if_cached);
    !session.is_upgrade_req() && !only_if_cached && caching::is_left_out(shared, session, ctx)
}

/// Passes the request on and its answer back.
///
/// # Errors
/// The origin has failed, or the client has gone.
pub async fn answer(shared: &Shared, session: &mut Session, ctx: &mut Context) -> Result<()> {
    post::note(shared, session, ctx);
    let trailers_wanted = trailers::are_wanted(session);
    let (mut coming, body, length) = Coming::of(session, ctx);
    let exchange = upstream::exchange(session, ctx)?;
    let wire = upstream::wire(shared, session, ctx, length, trailers_wanted)?;
    let mut answer = asked(session, ctx, &exchange, &mut coming, wire, body).await?;
    let bodiless = !answer.has_body();
    let trailed = !bodiless && trailers::may_follow(session, trailers_wanted);
    let understood = head(answer.head()).and_then(|mut head| {
        let announced: Vec<_> = head.headers.get_all(TRAILER).iter().filter(|_| trailed).cloned().collect();
        upstream::response(session, &mut head, ctx)?;
        for names in announced {
            head.append_header(TRAILER, names)?;
        }
        Ok(head)
    });
    let mut response = understood.map_err(|e| upstream::failed(ctx, e))?;
    invalidate::by(shared, session, &response, ctx).await;
    if ctx.upstream.end == End::Known {
        post::begin(shared, session, &response, ctx);
    }
    if !bodiless && !response.headers.contains_key(CONTENT_LENGTH) {
        response.insert_header(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))?;
    }
    if !session.is_body_done() {
        // The answer comes before the end of the request: nobody waits for that, and where another would begin is not known.
        session.set_keepalive(None);
        if client::is_excused(session, ctx) {
            // It is taken where it comes all the same.
            session.set_read_timeout(None);
            if let Some(connection) = link::connection(session) {
                connection.watched().body_ended();
            }
            answer.waive_upload();
        }
    }
    trace::complete(session, &mut response, ctx)?;
    let response = Box::new(response);
    if bodiless {
        post::came(None, true, ctx);
        if ctx.upstream.end == End::Known {
            // Gives the connection back.
            let _ = answer.data().now_or_never();
        }
        session.write_response_tasks(vec![HttpTask::Header(response, true)]).await?;
    } else if link::is_http2(session) {
        send::over_http2(session, ctx, response, &mut answer, &mut coming).await?;
    } else {
        send::over_http1(session, ctx, response, trailed, &mut answer, &mut coming).await?;
    }
    Ok(())
}

/// What happens while the origin is asked.
#[expect(clippy::large_enum_variant, reason = "it lives for a moment, on the stack")]
enum Event {
    Answered(Result<Answer, Failure>),
    Interim(Bytes),
    Gone(Box<Error>),
}

/// Asks the origin. What it says before its answer is passed on, and what comes of the request's body is sent.
async fn asked(
    session: &mut Session,
    ctx: &mut Context,
    exchange: &Arc<Exchange>,
    coming: &mut Coming,
    wire: Bytes,
    body: Option<Body>,
) -> Result<Answer> {
    let method = session.req_header().method.clone();
    let mut asked = pin!(exchange.ask_for(method, wire, body));
    loop {
        let event = {
            let (mut interim, mut client) = (pin!(exchange.interim()), pin!(coming.attend(session, ctx)));
            poll_fn(|cx| {
                if let Poll::Ready(answer) = asked.as_mut().poll(cx) {
                    return Poll::Ready(Event::Answered(answer));
                }
                if let Poll::Ready(interim) = interim.as_mut().poll(cx) {
                    return Poll::Ready(Event::Interim(interim));
                }
                client.as_mut().poll(cx).map(Event::Gone)
            })
            .await
        };
        let answer = match event {
            Event::Answered(answer) => answer,
            Event::Interim(interim) => {
                pass_on(session, ctx, &interim).await?;
                continue;
            }
            Event::Gone(why) => return Err(why),
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
    if interim::is_pingoras(session, &head) {
        // Pingora takes its session for one that ends with its answer, because the body is not there yet (it is about to
        // be asked for). Where it is not by then either, [`answer`] says so.
        let kept = session.get_keepalive().filter(|_| link::is_kept(session));
        session.write_response_header(Box::new(head), false).await?;
        session.set_keepalive(kept);
        return Ok(());
    }
    interim::send(session, &head, ctx).await;
    Ok(())
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
