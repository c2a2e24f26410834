//! A client connection's life over HTTP/2: its streams are requests beside each other.
//!
//! Each is handed to the proxy as a session of our own (see [`Stream`]). Pingora's writes a `Date` over the origin's,
//! drops interim responses, waits for a request's body without end, and cannot write to a client and take from the
//! origin at a time.

mod census;
mod check;
mod metered;
mod patience;
mod read;
mod stream;
mod tail;
mod write;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;

use h2::server::{self, SendResponse};
use h2::{Reason, RecvStream};
use http::header::{ALLOW, CONTENT_LENGTH, DATE};
use http::{HeaderValue, Request, Response, StatusCode};
use log::debug;
use pingora::apps::HttpServerApp;
use pingora::http::RequestHeader;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::date::get_cached_date;
use pingora::protocols::{Digest, GetProxyDigest, GetSocketDigest};
use pingora_proxy::HttpProxy;
use tokio::sync::watch;

use self::check::Fault;
use self::metered::Metered;
use self::stream::Stream;
use self::tail::{Tail, Tracked};
use super::connection::Connection;
use super::drain::Busy;
use super::proxy::Edge;
use super::respond::METHODS;
use super::watch::{Abuse, Handle};
use crate::config::model::Http2Limits;

/// Bytes of a header section, decoded; the limit of the configuration is smaller, and has an answer.
const HEADER_LIST: u32 = 64 * 1024;

/// Bytes of a request's body that may be on their way to us unasked: so much of each is held where the origin is slow.
const STREAM_WINDOW: u32 = 64 * 1024;

/// The same over all of a connection's requests. Several times as much, so that one that the origin does not take does
/// not keep the others from coming.
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Bytes of a response that may wait for the socket: enough to keep it busy, since they are asked for as others leave.
const SEND_BUFFER: usize = 128 * 1024;

/// Streams that we have reset and still remember, to ignore what was on its way to them.
const REMEMBERED_RESETS: usize = 50;

/// Streams that the client has reset before they were looked at. More of them in one read are an attack
/// (CVE-2023-44487).
const UNSEEN_RESETS: usize = 20;

/// Streams that broke the protocol, on one connection.
const ERRORS: usize = 256;

/// Requests that are refused for their form, on one connection.
const MALFORMED: u32 = 32;

/// Requests on a connection that may come to nothing, because their client gives them up, without a second look. Beyond
/// that, they may not be more than the others.
const GIVEN_UP: u32 = 256;

/// Requests of a connection that are being served, those that its client has given up among them: they are in nobody's
/// way, but cost as much as any other until that is noticed. So many times the streams that there may be at once.
const SERVED: usize = 4;

/// What the requests of a connection share.
struct Common {
    digest: Digest,
    /// Requests that ended without a response.
    unanswered: AtomicU32,
}

/// What happens on a connection.
#[expect(clippy::large_enum_variant, reason = "it lives for a moment, on the stack")]
enum Event {
    /// The process is to end.
    Stop,
    /// The watch has ended the connection.
    Expired,
    /// The client sends more than it may of what costs and asks for nothing.
    Abuse(Abuse),
    Request(Request<RecvStream>, SendResponse<Tracked>),
    /// There is no more to come.
    End,
}

/// Serves a connection whose client has begun with the preface of HTTP/2, until it ends.
pub async fn serve(
    // First, so that it is dropped last: a connection says goodbye as it is dropped.
    alive: Busy,
    connection: Box<Connection>,
    app: Arc<HttpProxy<Edge>>,
    shutdown: watch::Receiver<bool>,
) {
    // A client that still has something to say as its last response leaves must not lose that for it.
    connection.linger(true);
    let handle = connection.watched().handle();
    handle.request_ended();
    let (socket_digest, proxy_digest) = (connection.get_socket_digest(), connection.get_proxy_digest());
    let digest = Digest { socket_digest, proxy_digest, ..Digest::default() };
    let common = Arc::new(Common { digest, unanswered: AtomicU32::new(0) });
    let limits = handle.limits().http2;
    let served = SERVED.saturating_mul(limits.streams as usize);
    let (metered, excess) = Metered::new(connection, limits);
    // It is large, and would be there once for each place that it is moved to.
    let mut http2 = match Box::pin(builder(&limits).handshake::<_, Tracked>(metered)).await {
        Ok(http2) => Box::new(http2),
        Err(e) => return debug!("no HTTP/2 after its preface: {e}"),
    };

    let mut stop = shutdown.clone();
    // Where nobody is left to say so, the process ends too.
    let mut stopping = pin!(async move { stop.wait_for(|stop| *stop).await.map(|_| ()).unwrap_or_default() });
    let (mut draining, mut busy) = (false, false);
    let (mut accepted, mut malformed) = (0u32, 0u32);
    loop {
        let event = poll_fn(|cx| {
            if !draining && stopping.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Event::Stop);
            }
            if handle.expired() {
                return Poll::Ready(Event::Expired);
            }
            if let Some(abuse) = excess.seen() {
                return Poll::Ready(Event::Abuse(abuse));
            }
            let next = pin!(http2.accept()).poll(cx);
            note(&handle, &mut busy, http2.has_streams());
            next.map(|next| match next {
                Some(Ok((request, respond))) => Event::Request(request, respond),
                Some(Err(e)) => {
                    debug!("the end of an HTTP/2 connection: {e}");
                    if e.is_library() && e.reason() == Some(Reason::ENHANCE_YOUR_CALM) {
                        handle.calmed(Abuse::Framing);
                    }
                    Event::End
                }
                None => Event::End,
            })
        })
        .await;
        let (request, mut respond) = match event {
            Event::Stop => {
                // What has been asked is answered, what is asked from now on is for another connection.
                http2.graceful_shutdown();
                draining = true;
                continue;
            }
            Event::Expired => return close(http2, Reason::NO_ERROR).await,
            Event::Abuse(abuse) => return calm(http2, &handle, abuse).await,
            Event::End => return,
            Event::Request(request, respond) => (request, respond),
        };
        accepted = accepted.saturating_add(1);
        let (parts, body) = request.into_parts();
        let header = RequestHeader::from(parts);
        if let Err(fault) = check::check(&header) {
            refuse(&mut respond, &fault);
            malformed += u32::from(fault != Fault::Method);
            if malformed >= MALFORMED {
                return calm(http2, &handle, Abuse::Malformed).await;
            }
            continue;
        }
        let unanswered = common.unanswered.load(Ordering::Relaxed);
        if (unanswered > GIVEN_UP && unanswered > accepted / 2) || Arc::strong_count(&common) > served {
            debug!("{unanswered} of {accepted} requests given up on an HTTP/2 connection");
            return calm(http2, &handle, Abuse::GivenUp).await;
        }
        let tail = Arc::new(Tail::default());
        let stream = Stream::new(header, body, (respond, tail.clone()), common.clone(), &handle.limits());
        let (app, shutdown, alive) = (app.clone(), shutdown.clone(), alive.clone());
        tokio::spawn(async move {
            // The connection may be over before its last line is in the log.
            let _alive = alive;
            app.process_new_http(ServerSession::new_custom(Box::new(stream)), &shutdown).await;
            tail.gone().await;
        });
    }
}

fn builder(limits: &Http2Limits) -> server::Builder {
    let mut builder = server::Builder::new();
    builder
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(HEADER_LIST)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_reset_streams(REMEMBERED_RESETS)
        .max_pending_accept_reset_streams(UNSEEN_RESETS)
        .max_local_error_reset_streams(Some(ERRORS));
    builder
}

/// Tells the watch whether there are streams: without any, the idle timeout runs. A stream is one until the last byte of
/// its response has left, not just been written by whoever serves it.
fn note(handle: &Handle, busy: &mut bool, has_streams: bool) {
    if *busy != has_streams {
        *busy = has_streams;
        match has_streams {
            true => handle.request_began(),
            false => handle.request_ended(),
        }
    }
}

/// Answers a request that nobody else gets to see.
fn refuse(respond: &mut SendResponse<Tracked>, fault: &Fault) {
    debug!("refusing an HTTP/2 request: {fault:?}");
    let mut response = Response::new(());
    *response.status_mut() = match fault {
        Fault::Framing(_) => return respond.send_reset(Reason::PROTOCOL_ERROR),
        Fault::Authority(_) => StatusCode::BAD_REQUEST,
        Fault::Method => {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(METHODS));
            StatusCode::METHOD_NOT_ALLOWED
        }
    };
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    response.headers_mut().insert(DATE, get_cached_date());
    // It fails where the client has reset the stream, which is as good.
    let _ = respond.send_response(response, true);
}

/// Ends a connection whose client asks for too much of what is of no use.
async fn calm(http2: Box<server::Connection<Metered, Tracked>>, handle: &Handle, abuse: Abuse) {
    debug!("ending an HTTP/2 connection: {}", abuse.as_str());
    handle.calmed(abuse);
    close(http2, Reason::ENHANCE_YOUR_CALM).await;
}

/// Ends a connection at once, and tells the client which of its requests have not been looked at.
async fn close(mut http2: Box<server::Connection<Metered, Tracked>>, reason: Reason) {
    http2.abrupt_shutdown(reason);
    // However it ends, it ends: a client that does not read is for the watch.
    let _ = poll_fn(|cx| http2.poll_closed(cx)).await;
}
