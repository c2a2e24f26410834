//! The client's side while its answer is waited for, or on its way: more of the request's body comes, or the client leaves.

use std::future::poll_fn;
use std::pin::pin;

use bytes::Bytes;
use futures_util::future::{Either, select};
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use pingora::{Error, ErrorSource, ErrorType};
use pingora_proxy::Session;

use super::super::context::Context;
use super::super::outgoing::Length;
use super::super::trailers::{self, Behind};
use super::super::{body, grpc, interim, link};
use crate::origin::{self, Body, Feed};

/// A request's body on its way in.
pub struct Coming {
    /// `None`: all of it has come, or there is none.
    feed: Option<Feed>,
}

impl Coming {
    /// What there is of a body, as it goes to the origin.
    pub fn of(session: &mut Session, ctx: &Context) -> (Coming, Option<Body>, Length) {
        if session.is_body_done() {
            return (Coming { feed: None }, None, Length::None);
        }
        if grpc::is_call(session, ctx) {
            // How long nobody says anything is limited, not how long the client does not (see [`origin::Wanted`]).
            session.set_read_timeout(None);
        }
        let length = length(session);
        let (feed, body) = origin::body(match length {
            Length::Known(length) => Some(length),
            Length::None | Length::Chunked { .. } => None,
        });
        (Coming { feed: Some(feed) }, Some(body), length)
    }

    /// Takes the body in as there is room for it, and then waits for the client to leave; why it goes no further. The future
    /// may be dropped at any time, and another one goes on from there.
    pub async fn attend(&mut self, session: &mut Session, ctx: &mut Context) -> Box<Error> {
        while let Some(feed) = &mut self.feed {
            match select(pin!(poll_fn(|cx| feed.poll_room(cx))), pin!(gone(session))).await {
                Either::Left(_) => {}
                Either::Right((gone, _)) => return gone,
            }
            match session.read_request_body().await {
                Ok(Some(data)) => {
                    if let Err(e) = take(feed, session, data, ctx) {
                        return e;
                    }
                }
                Ok(None) => {
                    if let Err(e) = body::received(session, None, true, ctx) {
                        return e;
                    }
                    feed.end(behind(session, ctx));
                    self.feed = None;
                }
                Err(e) => return e.into_down(),
            }
        }
        gone(session).await
    }
}

/// Whether a client that has its final answer need not send the body: it has waited to be told to go on, and was not (RFC
/// 9110 §10.1.1).
pub fn is_excused(session: &Session, ctx: &Context) -> bool {
    let told = session.response_written().is_some() || ctx.reply.interim.0 > 0;
    interim::expects(session.req_header()) && !told && ctx.request_bytes == 0
}

/// How the body is framed. Where that could be doubtful, the request has been refused.
fn length(session: &Session) -> Length {
    let headers = &session.req_header().headers;
    let stated = headers.get(CONTENT_LENGTH).filter(|_| !headers.contains_key(TRANSFER_ENCODING));
    let stated = stated.and_then(|length| length.to_str().ok()?.split(',').next()?.trim().parse().ok());
    match stated {
        Some(length) => Length::Known(length),
        // Those of HTTP/1.1 are thrown away with the chunks they are behind.
        None => Length::Chunked { trailed: link::is_http2(session) },
    }
}

fn take(feed: &mut Feed, session: &Session, data: Bytes, ctx: &mut Context) -> pingora::Result<()> {
    if feed.is_closed() {
        // It has its answer: what it still sends goes nowhere.
        ctx.request_bytes += data.len() as u64;
        return Ok(());
    }
    body::received(session, Some(&data), false, ctx)?;
    feed.push(data);
    Ok(())
}

/// What is behind the body, and may be.
fn behind(session: &mut Session, ctx: &Context) -> Option<HeaderMap> {
    let Behind(fields) = session.req_header_mut().extensions_mut().remove()?;
    let told = trailers::told(&ctx.request.as_ref()?.snapshot.config);
    trailers::of_request(fields, &session.req_header().headers, &told)
}

/// Waits for the client to leave.
async fn gone(session: &mut Session) -> Box<Error> {
    if let Some(connection) = link::connection(session) {
        connection.hung_up().await;
        return left();
    }
    match session.read_body_or_idle(true).await {
        Err(e) => e.into_down(),
        Ok(_) => left(),
    }
}

fn left() -> Box<Error> {
    let why = "the client left before it had its answer";
    Error::create(ErrorType::ConnectionClosed, ErrorSource::Downstream, Some(why.into()), None)
}
