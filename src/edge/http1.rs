//! A client connection's life over HTTP/1: one request after the other.
//!
//! Pingora's own loop waits for the next request inside the future that will serve it, which is as large as everything
//! that can happen to a request. Here an idle connection waits in a small one, without a buffer.

use std::sync::Arc;

use pingora::apps::{HttpPersistentSettings, HttpServerApp};
use pingora::protocols::http::ServerSession;
use pingora_proxy::HttpProxy;
use tokio::sync::watch;

use super::connection::Connection;
use super::drain::Busy;
use super::http2;
use super::proxy::Edge;

/// Seconds that the first request may take to come, as far as Pingora is concerned; the watch has its own limit.
const FIRST_REQUEST: u64 = 3600;

/// Serves a connection until it ends, which `alive` is held for. One whose client speaks HTTP/2 is handed over.
pub async fn serve(
    // First, so that it is dropped last: a connection says goodbye as it is dropped.
    alive: Busy,
    mut connection: Box<Connection>,
    app: Arc<HttpProxy<Edge>>,
    shutdown: watch::Receiver<bool>,
) {
    match connection.speaks_http2().await {
        // Apart: an idle connection of HTTP/1 is not to be as large.
        Ok(true) => return Box::pin(http2::serve(alive, connection, app, shutdown)).await,
        Ok(false) => {}
        Err(_) => return,
    }
    let mut settings: Option<HttpPersistentSettings> = None;
    loop {
        if !connection.has_unserved() && connection.readable().await.is_err() {
            return;
        }
        let mut session = ServerSession::new_http1(connection);
        match settings {
            Some(settings) => settings.apply_to_session(&mut session),
            None => session.set_keepalive(Some(FIRST_REQUEST)),
        }
        let Some(reused) = app.process_new_http(session, &shutdown).await else { return };
        let (stream, next) = reused.consume();
        let Ok(same) = stream.into_any().downcast::<Connection>() else { return };
        (connection, settings) = (same, next);
    }
}
