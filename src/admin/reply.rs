//! Answers: JSON with a line end, and never to be stored.

use axum::body::Body;
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};

/// Bytes of what a client has sent that an answer or the log repeats.
pub const SHOWN: usize = 256;

pub fn json(status: StatusCode, value: &Value) -> Response {
    body(status, "application/json", format!("{value}\n").into_bytes())
}

/// `{"error": "..."}`.
pub fn error(status: StatusCode, error: &str) -> Response {
    json(status, &json!({ "error": error }))
}

/// Nothing has been done; it is worth another try in a second.
pub fn later(error: &str) -> Response {
    let mut response = json(StatusCode::SERVICE_UNAVAILABLE, &json!({ "error": error, "in_force": false }));
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// One word for a probe.
pub fn text(status: StatusCode, word: &str) -> Response {
    body(status, "text/plain; charset=utf-8", format!("{word}\n").into_bytes())
}

pub fn body(status: StatusCode, media_type: &'static str, bytes: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Text that a client has sent, short enough to be sent back.
pub fn shown(text: &str) -> String {
    match text.len() {
        0..=SHOWN => text.to_owned(),
        _ => {
            let whole = |(at, char): (usize, char)| at + char.len_utf8() <= SHOWN;
            let start: String = text.char_indices().take_while(|it| whole(*it)).map(|(_, char)| char).collect();
            start + "…"
        }
    }
}
