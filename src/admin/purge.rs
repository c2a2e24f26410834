//! Purging, as it is asked for and answered over HTTP.

use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::desk::Desk;
use super::purge_body::{self, Refused};
use super::{NotPurged, Purged, WrongSelector, reply};
use crate::observe::rfc3339;

/// The body of a purge, in bytes: as many selectors as there may be, each as long as a URL gets.
pub const BODY: usize = 16 << 20;

/// `POST /v1/purge`.
pub async fn purge(State(desk): State<Desk>, headers: HeaderMap, body: Bytes) -> Response {
    if !is_json(&headers) {
        let error = "a purge is JSON: `Content-Type: application/json`";
        return reply::error(StatusCode::UNSUPPORTED_MEDIA_TYPE, error);
    }
    // A large body takes long to read, so that too is for a thread that may block.
    let begun = desk.purge(move |edge| match purge_body::read(&body) {
        Ok(purge) => edge.purge(&purge).map_err(|failure| Box::new(answer(Err(failure)))),
        Err(refused) => Err(Box::new(wrong(refused))),
    });
    match begun.await {
        // Here it takes no thread: a disk that does not answer must not keep further purges from being in force.
        Ok(Ok(written)) => answer(written.await),
        Ok(Err(response)) => *response,
        Err(response) => response,
    }
}

/// Whether a body is said to be JSON, or nothing is said about it.
fn is_json(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    match (values.next(), values.next()) {
        (None, _) => true,
        (Some(value), None) => {
            let value = value.as_bytes();
            let essence = value.split(|byte| *byte == b';').next().unwrap_or(value);
            essence.trim_ascii().eq_ignore_ascii_case(b"application/json")
        }
        _ => false,
    }
}

fn answer(result: Result<Purged, NotPurged>) -> Response {
    match result {
        Ok(Purged { sequence, at }) => reply::json(StatusCode::OK, &json!({ "sequence": sequence, "at": rfc3339(at) })),
        Err(NotPurged::Wrong(selectors)) => wrong(Refused::selectors(selectors)),
        Err(NotPurged::NotDurable { sequence, why }) => {
            let error = json!({ "error": why, "sequence": sequence, "in_force": true });
            reply::json(StatusCode::SERVICE_UNAVAILABLE, &error)
        }
        Err(NotPurged::Unavailable(why)) => reply::later(&why),
    }
}

fn wrong(refused: Refused) -> Response {
    let mut answer = json!({ "error": refused.error });
    if !refused.selectors.is_empty() {
        answer["selectors"] = refused.selectors.iter().map(described).collect();
    }
    reply::json(StatusCode::BAD_REQUEST, &answer)
}

fn described(wrong: &WrongSelector) -> Value {
    let WrongSelector { list, index, value, why } = wrong;
    json!({ "list": list, "index": index, "value": reply::shown(value), "error": why })
}
