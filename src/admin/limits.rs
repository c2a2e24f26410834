//! What a request may bring along.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody as _, to_bytes};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::StatusCode;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::reply;

/// More than any request needs that has no limit of its own, in bytes.
pub const BODY: usize = 1 << 20;

/// From the end of a request's header section to the end of its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Bodies above [`BODY`] that may be in memory at once. Smaller ones do not wait for them.
const LARGE_BODIES: usize = 4;

/// The limits of one operation.
#[derive(Clone)]
pub struct Limits {
    /// Whether it reads query parameters, or may be sent what it does not read.
    pub parameters: bool,
    /// Of the request's body, in bytes.
    pub body: usize,
    pub large: Arc<Semaphore>,
}

/// The places for large bodies, for all operations together.
pub fn large_bodies() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(LARGE_BODIES))
}

/// Takes in the whole request before anybody looks at it, so that no handler has to think of its size and pace.
pub async fn within_limits(State(limits): State<Limits>, request: Request, next: Next) -> Response {
    // A parameter that nobody reads would be an answer to another question than the one that was asked.
    if !limits.parameters && request.uri().query().is_some() {
        return reply::error(StatusCode::BAD_REQUEST, "query parameters are not known here");
    }
    let (head, body) = request.into_parts();
    let announced = body.size_hint();
    let too_large = || reply::error(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large, or broken off");
    if announced.lower() > limits.body as u64 {
        return too_large();
    }
    // Held until the answer is there. One that does not say how large it is counts as large where it could be.
    let _place = if announced.upper().unwrap_or(u64::MAX).min(limits.body as u64) > BODY as u64 {
        match timeout(BODY_TIMEOUT, limits.large.acquire()).await {
            Ok(place) => Some(place),
            Err(_) => return reply::later("there are too many large bodies at once"),
        }
    } else {
        None
    };
    let body = match timeout(BODY_TIMEOUT, to_bytes(body, limits.body)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return too_large(),
        Err(_) => return reply::error(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"),
    };
    next.run(Request::from_parts(head, Body::from(body))).await
}
