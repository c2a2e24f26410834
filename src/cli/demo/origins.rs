//! An embedded origin: says who it is, can die as a real one does, and can come back on the same port.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::stream;
use tokio::sync::oneshot;

use super::image::png;

/// Lines of `/slow`, and the time between two.
const SLOW_LINES: u32 = 10;
const SLOW_STEP: Duration = Duration::from_millis(200);

/// An origin that runs, on a thread with a runtime of its own. Ending the runtime ends the listener and every
/// connection at once, as the death of a process would; so does dropping this, a moment later.
pub(super) struct RunningOrigin {
    stop: oneshot::Sender<()>,
    stopped: oneshot::Receiver<()>,
}

impl RunningOrigin {
    /// Starts origin `number` (from 1) on a listener.
    ///
    /// # Errors
    /// The system refuses a thread or what a runtime needs.
    pub(super) fn start(number: usize, listener: TcpListener) -> io::Result<RunningOrigin> {
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let (stop, stop_asked) = oneshot::channel();
        let (has_stopped, stopped) = oneshot::channel();
        std::thread::Builder::new().name(format!("origin-{number}")).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    // Asked to stop, or dropped: the same.
                    _ = stop_asked => {}
                    // Accept errors are retried inside; this does not return by itself.
                    _ = axum::serve(listener, router(number)) => {}
                }
            });
            drop(runtime);
            // Nobody waits where the origin was dropped.
            let _ = has_stopped.send(());
        })?;
        Ok(RunningOrigin { stop, stopped })
    }

    /// Ends it. Its port refuses connections once this returns.
    pub(super) async fn kill(self) {
        // Both fail only where the thread has ended already, which is what is wanted.
        let _ = self.stop.send(());
        let _ = self.stopped.await;
    }
}

/// What origin `number` answers. Each answer names it in `X-Origin`.
fn router(number: usize) -> Router {
    let name = format!("origin-{number}");
    let (hello, who, slow, time) = (name.clone(), name.clone(), name.clone(), name.clone());
    Router::new()
        .route("/hello", get(move |headers| respond_hello(hello.clone(), headers)))
        .route(
            "/who",
            get(async move || {
                let kind = (CONTENT_TYPE, "application/json");
                ([(CACHE_CONTROL, "no-store"), kind], format!("{}\n", serde_json::json!({ "origin": who })))
            }),
        )
        .route("/slow", get(async move || respond_slow(slow)))
        .route("/time", get(async move || respond_time(&time)))
        .route("/image.png", get(respond_image))
        .route("/error", get(async || (StatusCode::INTERNAL_SERVER_ERROR, [(CACHE_CONTROL, "no-store")], "error\n")))
        .route("/healthz", get(async || ([(CACHE_CONTROL, "no-store")], "ok\n")))
        .fallback(async |uri: Uri| (StatusCode::NOT_FOUND, format!("nothing at {}\n", uri.path())))
        .layer(axum::middleware::map_response(move |response: Response| {
            let name = name.clone();
            async move { ([("x-origin", name)], response) }
        }))
}

/// Fresh for a minute. The entity-tag names the origin, since the text does.
async fn respond_hello(name: String, headers: HeaderMap) -> Response {
    let tag = format!("\"hello-{name}\"");
    let body = format!("hello from {name}\n");
    conditional(&headers, tag, "public, max-age=60", "text/plain; charset=utf-8", body.into())
}

/// The same at every origin. Fresh for an hour.
async fn respond_image(headers: HeaderMap) -> Response {
    conditional(&headers, "\"image\"".into(), "public, max-age=3600", "image/png", png().into())
}

/// 200, or 304 where If-None-Match has the tag (RFC 9110 §13.1.2; the tags here hold no comma).
fn conditional(headers: &HeaderMap, tag: String, freshness: &'static str, kind: &'static str, body: Bytes) -> Response {
    let listed = |line: &str| line.split(',').any(|t| t.trim() == "*" || t.trim().trim_start_matches("W/") == tag);
    let known = headers.get_all(IF_NONE_MATCH).iter().filter_map(|v| v.to_str().ok()).any(listed);
    let fields = [(CACHE_CONTROL, freshness.to_owned()), (ETAG, tag)];
    if known {
        (StatusCode::NOT_MODIFIED, fields).into_response()
    } else {
        (fields, [(CONTENT_TYPE, kind)], body).into_response()
    }
}

/// Changes every second; the edge may answer with the last one while it fetches the next.
fn respond_time(name: &str) -> Response {
    let now = httpdate::fmt_http_date(SystemTime::now());
    ([(CACHE_CONTROL, "max-age=1, stale-while-revalidate=30")], format!("{now}, says {name}\n")).into_response()
}

/// A line each [`SLOW_STEP`], without a length. Fresh for ten seconds, so that whoever asks meanwhile shares it.
fn respond_slow(name: String) -> Response {
    let lines = stream::unfold(1, move |line| {
        let name = name.clone();
        async move {
            if line > SLOW_LINES {
                return None;
            }
            tokio::time::sleep(SLOW_STEP).await;
            Some((Ok::<_, io::Error>(Bytes::from(format!("line {line} of {SLOW_LINES} from {name}\n"))), line + 1))
        }
    });
    let kind = (CONTENT_TYPE, "text/plain; charset=utf-8");
    ([(CACHE_CONTROL, "max-age=10"), kind], Body::from_stream(lines)).into_response()
}

/// The first free loopback port from `first` on that is not in `taken`; with 0, any.
///
/// # Errors
/// None of a hundred is free.
pub(super) fn listen_from(first: u16, taken: &[SocketAddr]) -> io::Result<TcpListener> {
    let mut last = None;
    for port in first..=first.saturating_add(if first == 0 { 0 } else { 99 }) {
        if taken.iter().any(|a| a.port() == port) {
            continue;
        }
        match TcpListener::bind(("127.0.0.1", port)) {
            Ok(listener) => return Ok(listener),
            Err(e) => last = Some(e),
        }
    }
    Err(last.unwrap_or_else(|| io::ErrorKind::AddrInUse.into()))
}
