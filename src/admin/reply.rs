//! Answers: JSON with a line end, and never to be stored.

use axum::body::Body;
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};

pub fn json(status: StatusCode, value: &Value) -> Response {
    body(status, "application/json", format!("{value}\n").into_bytes())
}

/// `{"error": "..."}`.
pub fn error(status: StatusCode, error: &str) -> Response {
    json(status, &json!({ "error": error }))
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
