//! What can be asked, and who answers.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, RawQuery, Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use http::header::WWW_AUTHENTICATE;
use http::{HeaderValue, Method, StatusCode};
use serde_json::json;

use super::guard::{Guard, Refusal};
use super::query::Lookup;
use super::{Control, Readiness, Unanswered, reply};
use crate::observe::metrics::CONTENT_TYPE as EXPOSITION;

/// More than any request here needs, in bytes.
const BODY_LIMIT: usize = 1 << 20;

/// From the end of a request's header section to the end of its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The only one with parameters.
const CACHE: &str = "/v1/cache";

type Edge = State<Arc<dyn Control>>;

pub fn router(control: Arc<dyn Control>, guard: Guard) -> Router {
    // Probes prove nothing about themselves, and learn one word.
    let open = Router::new().route("/healthz", get(alive)).route("/readyz", get(ready));

    let guarded = Router::new()
        .route("/metrics", get(metrics))
        .route("/v1/config", get(config))
        .route("/v1/reload", post(reload))
        .route("/v1/origins", get(origins))
        .route("/v1/origins/{origin}/servers/{server}/drain", post(drain))
        .route("/v1/origins/{origin}/servers/{server}/undrain", post(undrain))
        .route(CACHE, get(cache))
        // The guard is around these too: what exists here is not for everybody to find out.
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .layer(from_fn(within_limits))
        // The outermost layer comes last: nobody's body is read before the guard has let them in.
        .layer(from_fn_with_state(guard, guarded_by));

    open.method_not_allowed_fallback(not_allowed).merge(guarded).with_state(control)
}

async fn alive() -> Response {
    reply::text(StatusCode::OK, "ok")
}

async fn ready(State(edge): Edge) -> Response {
    match edge.ready() {
        Readiness::Ready => reply::text(StatusCode::OK, "ready"),
        Readiness::Starting => reply::text(StatusCode::SERVICE_UNAVAILABLE, "starting"),
        Readiness::Draining => reply::text(StatusCode::SERVICE_UNAVAILABLE, "draining"),
    }
}

async fn metrics(State(edge): Edge) -> Response {
    blocking(move || reply::body(StatusCode::OK, EXPOSITION, edge.render_metrics())).await
}

async fn config(State(edge): Edge) -> Response {
    blocking(move || {
        let (hash, yaml) = edge.effective();
        reply::json(StatusCode::OK, &json!({ "hash": hash, "yaml": yaml }))
    })
    .await
}

async fn reload(State(edge): Edge) -> Response {
    blocking(move || match edge.reload() {
        Ok(report) => {
            let report = json!({ "reloaded": true, "hash": report.hash, "needs_restart": report.needs_restart });
            reply::json(StatusCode::OK, &report)
        }
        Err(errors) => {
            reply::json(StatusCode::UNPROCESSABLE_ENTITY, &json!({ "reloaded": false, "error": errors.trim_end() }))
        }
    })
    .await
}

async fn origins(State(edge): Edge) -> Response {
    blocking(move || reply::json(StatusCode::OK, &edge.origins())).await
}

async fn drain(edge: Edge, server: Path<(String, String)>) -> Response {
    set_drained(edge, server, true).await
}

async fn undrain(edge: Edge, server: Path<(String, String)>) -> Response {
    set_drained(edge, server, false).await
}

async fn set_drained(State(edge): Edge, Path((origin, server)): Path<(String, String)>, drained: bool) -> Response {
    blocking(move || match edge.set_drained(&origin, &server, drained) {
        Ok(()) => {
            let state = json!({ "origin": origin, "server": server, "drained": drained });
            reply::json(StatusCode::OK, &state)
        }
        Err(error) => reply::error(StatusCode::NOT_FOUND, &error),
    })
    .await
}

async fn cache(State(edge): Edge, RawQuery(query): RawQuery) -> Response {
    let Some(query) = query else {
        return blocking(move || reply::json(StatusCode::OK, &edge.cache())).await;
    };
    let Lookup { url, fields } = match Lookup::parse(&query) {
        Ok(lookup) => lookup,
        Err(error) => return reply::error(StatusCode::BAD_REQUEST, &error),
    };
    blocking(move || match edge.lookup(&url, &fields) {
        Ok(found) => reply::json(StatusCode::OK, &found),
        Err(Unanswered::Bad(error)) => reply::error(StatusCode::BAD_REQUEST, &error),
        Err(Unanswered::NoSite(error)) => reply::error(StatusCode::NOT_FOUND, &error),
    })
    .await
}

async fn not_found() -> Response {
    reply::error(StatusCode::NOT_FOUND, "there is nothing by that name here")
}

async fn not_allowed(method: Method) -> Response {
    reply::error(StatusCode::METHOD_NOT_ALLOWED, &format!("{method} is not possible here"))
}

/// Answers on a thread that may block.
async fn blocking(answer: impl FnOnce() -> Response + Send + 'static) -> Response {
    match tokio::task::spawn_blocking(answer).await {
        Ok(response) => response,
        Err(error) => {
            log::error!("admin: a request failed: {error}");
            reply::error(StatusCode::INTERNAL_SERVER_ERROR, "this failed; the process's log says more")
        }
    }
}

async fn guarded_by(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let refusal = match guard.check(request.uri(), request.headers()) {
        Ok(()) => return next.run(request).await,
        Err(refusal) => refusal,
    };
    match refusal {
        Refusal::Unauthorized => {
            let mut response = reply::error(StatusCode::UNAUTHORIZED, "a bearer token is needed, and the right one");
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"foreland\""));
            response
        }
        Refusal::Host => reply::error(StatusCode::FORBIDDEN, "without a token, Host must be an address or localhost"),
        Refusal::Origin => reply::error(StatusCode::FORBIDDEN, "without a token, pages of other origins may not ask"),
    }
}

/// Takes in the whole request before anybody looks at it, so that no handler has to think of its size and pace.
async fn within_limits(request: Request, next: Next) -> Response {
    // A parameter that nobody reads would be an answer to another question than the one that was asked.
    let path = request.uri().path();
    if path.starts_with("/v1/") && path != CACHE && request.uri().query().is_some() {
        return reply::error(StatusCode::BAD_REQUEST, "query parameters are not known here");
    }
    let (head, body) = request.into_parts();
    let body = match tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, BODY_LIMIT)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return reply::error(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large, or broken off"),
        Err(_) => return reply::error(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"),
    };
    next.run(Request::from_parts(head, Body::from(body))).await
}
