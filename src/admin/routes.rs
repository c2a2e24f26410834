//! What can be asked, by whom, and who answers.

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{DefaultBodyLimit, Path, RawQuery, Request, State};
use axum::handler::Handler;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use http::header::WWW_AUTHENTICATE;
use http::{HeaderValue, Method, StatusCode};
use serde_json::json;

use super::desk::Desk;
use super::guard::{Caller, Peer, Refusal};
use super::in_force::InForce;
use super::limits::{self, Limits, within_limits};
use super::purge;
use super::query::{self, Lookup};
use super::{Readiness, Unanswered, reply};
use crate::config::model::Role;
use crate::observe::metrics::CONTENT_TYPE as EXPOSITION;

/// The description of all that is here.
pub(super) const OPENAPI: &str = include_str!("../../docs/openapi.json");

/// One thing that can be asked.
pub(super) struct Operation {
    #[cfg_attr(not(test), expect(dead_code, reason = "`router` knows it; the tests hold the description against it"))]
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) access: Access,
    /// Whether it reads query parameters, or may be sent what it does not read.
    parameters: bool,
    /// Of the request's body, in bytes.
    body: usize,
    router: MethodRouter<Desk>,
}

/// Who may ask.
#[derive(Clone, Copy)]
pub(super) enum Access {
    /// Everybody: probes prove nothing about themselves, and learn one word.
    Open,
    /// Whoever the guard lets in, with one of these roles or [`Role::All`].
    Roles(&'static [Role]),
}

/// All of them.
pub(super) fn operations() -> Vec<Operation> {
    const READ: &[Role] = &[Role::Read];
    const PURGE: &[Role] = &[Role::Purge];
    const ANY: &[Role] = &[Role::Purge, Role::Read];
    vec![
        Operation::get("/healthz", &[], alive).open(),
        Operation::get("/readyz", &[], ready).open(),
        // Scrapers may be configured to send parameters.
        Operation::get("/metrics", READ, metrics).with_parameters(),
        Operation::get("/v1/config", READ, config),
        Operation::post("/v1/reload", &[], reload),
        Operation::get("/v1/origins", READ, origins),
        Operation::post("/v1/origins/{origin}/servers/{server}/drain", &[], drain),
        Operation::post("/v1/origins/{origin}/servers/{server}/undrain", &[], undrain),
        Operation::get("/v1/cache", READ, cache).with_parameters(),
        Operation::post("/v1/purge", PURGE, purge::purge).with_body(purge::BODY),
        Operation::get("/v1/ledger", ANY, ledger).with_parameters(),
        Operation::get("/v1/openapi.json", ANY, openapi),
    ]
}

impl Operation {
    fn get<T: 'static>(path: &'static str, roles: &'static [Role], handler: impl Handler<T, Desk>) -> Operation {
        Operation::new(Method::GET, path, roles, get(handler))
    }

    fn post<T: 'static>(path: &'static str, roles: &'static [Role], handler: impl Handler<T, Desk>) -> Operation {
        Operation::new(Method::POST, path, roles, post(handler))
    }

    fn new(method: Method, path: &'static str, roles: &'static [Role], router: MethodRouter<Desk>) -> Operation {
        Operation { method, path, access: Access::Roles(roles), parameters: false, body: limits::BODY, router }
    }

    fn open(self) -> Operation {
        Operation { access: Access::Open, ..self }
    }

    fn with_parameters(self) -> Operation {
        Operation { parameters: true, ..self }
    }

    fn with_body(self, body: usize) -> Operation {
        Operation { body, ..self }
    }
}

pub fn router(desk: Desk, in_force: InForce) -> Router {
    let large = limits::large_bodies();
    let (mut open, mut guarded) = (Router::new(), Router::new());
    for Operation { path, access, parameters, body, router, .. } in operations() {
        match access {
            Access::Open => open = open.route(path, router),
            Access::Roles(roles) => {
                let limits = Limits { parameters, body, large: large.clone() };
                // The outermost layer comes last: nobody's body is read before it is known that they may ask.
                let router = router
                    .route_layer(DefaultBodyLimit::disable())
                    .route_layer(from_fn_with_state(limits, within_limits))
                    .route_layer(from_fn_with_state(roles, within_role));
                guarded = guarded.route(path, router);
            }
        }
    }
    let guarded = guarded
        // The guard is around these too: what exists here is not for everybody to find out.
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .layer(from_fn_with_state(in_force, guarded_by));
    open.method_not_allowed_fallback(not_allowed).merge(guarded).with_state(desk)
}

async fn alive() -> Response {
    reply::text(StatusCode::OK, "ok")
}

async fn ready(State(desk): State<Desk>) -> Response {
    match desk.ready() {
        Readiness::Ready => reply::text(StatusCode::OK, "ready"),
        Readiness::Starting => reply::text(StatusCode::SERVICE_UNAVAILABLE, "starting"),
        Readiness::Draining => reply::text(StatusCode::SERVICE_UNAVAILABLE, "draining"),
    }
}

async fn metrics(State(desk): State<Desk>) -> Response {
    desk.ask(|edge| reply::body(StatusCode::OK, EXPOSITION, edge.render_metrics())).await
}

async fn config(State(desk): State<Desk>) -> Response {
    desk.ask(|edge| {
        let (hash, yaml) = edge.effective();
        reply::json(StatusCode::OK, &json!({ "hash": hash, "yaml": yaml }))
    })
    .await
}

async fn reload(State(desk): State<Desk>) -> Response {
    desk.ask(|edge| match edge.reload() {
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

async fn origins(State(desk): State<Desk>) -> Response {
    desk.ask(|edge| reply::json(StatusCode::OK, &edge.origins())).await
}

type Server = Result<Path<(String, String)>, PathRejection>;

async fn drain(desk: State<Desk>, server: Server) -> Response {
    set_drained(desk, server, true).await
}

async fn undrain(desk: State<Desk>, server: Server) -> Response {
    set_drained(desk, server, false).await
}

async fn set_drained(State(desk): State<Desk>, server: Server, drained: bool) -> Response {
    let Ok(Path((origin, server))) = server else {
        return reply::error(StatusCode::BAD_REQUEST, "the path is not UTF-8");
    };
    desk.ask(move |edge| match edge.set_drained(&origin, &server, drained) {
        Ok(()) => {
            let state = json!({ "origin": origin, "server": server, "drained": drained });
            reply::json(StatusCode::OK, &state)
        }
        Err(error) => reply::error(StatusCode::NOT_FOUND, &error),
    })
    .await
}

async fn cache(State(desk): State<Desk>, RawQuery(query): RawQuery) -> Response {
    let Some(query) = query else {
        return desk.ask(|edge| reply::json(StatusCode::OK, &edge.cache())).await;
    };
    let Lookup { url, fields } = match Lookup::parse(&query) {
        Ok(lookup) => lookup,
        Err(error) => return reply::error(StatusCode::BAD_REQUEST, &error),
    };
    desk.ask(move |edge| match edge.lookup(&url, &fields) {
        Ok(found) => reply::json(StatusCode::OK, &found),
        Err(Unanswered::Bad(error)) => reply::error(StatusCode::BAD_REQUEST, &error),
        Err(Unanswered::NoSite(error)) => reply::error(StatusCode::NOT_FOUND, &error),
    })
    .await
}

async fn ledger(State(desk): State<Desk>, RawQuery(query): RawQuery) -> Response {
    match query::limit(query.as_deref().unwrap_or_default()) {
        Ok(limit) => desk.ask(move |edge| reply::json(StatusCode::OK, &edge.ledger(limit))).await,
        Err(error) => reply::error(StatusCode::BAD_REQUEST, &error),
    }
}

async fn openapi() -> Response {
    reply::body(StatusCode::OK, "application/json", OPENAPI.as_bytes().to_vec())
}

async fn not_found() -> Response {
    reply::error(StatusCode::NOT_FOUND, "there is nothing by that name here")
}

async fn not_allowed(method: Method) -> Response {
    reply::error(StatusCode::METHOD_NOT_ALLOWED, &format!("{method} is not possible here"))
}

async fn guarded_by(State(in_force): State<InForce>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().cloned().unwrap_or_default();
    let refusal = match in_force.now().guard.check(request.uri(), request.headers(), &peer) {
        Ok(caller) => {
            // Who has changed what is for the log, where tokens or certificates tell one from another.
            let acts =
                (!request.method().is_safe()).then(|| (request.method().clone(), request.uri().path().to_owned()));
            let noted = caller.name.clone().zip(acts);
            request.extensions_mut().insert(caller);
            let response = next.run(request).await;
            if let Some((name, (method, path))) = noted {
                let (path, status) = (reply::shown(&path), response.status().as_u16());
                log::info!("admin: {method} {} by `{name}`: {status}", path.escape_debug());
            }
            return response;
        }
        Err(refusal) => refusal,
    };
    match refusal {
        Refusal::Unauthorized => {
            let response = reply::error(StatusCode::UNAUTHORIZED, "a bearer token is needed, and the right one");
            challenged(response, "Bearer realm=\"foreland\"")
        }
        // There is no challenge to say in HTTP what TLS has asked for already: so no 401 (RFC 9110 §15.5.2).
        Refusal::Unknown => {
            reply::error(StatusCode::FORBIDDEN, "the certificate of a client that is known here is needed")
        }
        Refusal::Host => reply::error(StatusCode::FORBIDDEN, "without a token, Host must be an address or localhost"),
        Refusal::Origin => reply::error(StatusCode::FORBIDDEN, "without a token, pages of other origins may not ask"),
    }
}

async fn within_role(State(roles): State<&'static [Role]>, request: Request, next: Next) -> Response {
    let role = request.extensions().get::<Caller>().map(|caller| caller.role);
    if role.is_some_and(|role| role == Role::All || roles.contains(&role)) {
        return next.run(request).await;
    }
    let needed: Vec<_> = roles.iter().chain([&Role::All]).map(|role| format!("`{}`", role.as_str())).collect();
    let error = match role {
        Some(role) => format!("this needs the role {}; yours is `{}`", needed.join(" or "), role.as_str()),
        None => format!("this needs the role {}", needed.join(" or ")),
    };
    // RFC 6750 §3.1.
    challenged(reply::error(StatusCode::FORBIDDEN, &error), "Bearer realm=\"foreland\", error=\"insufficient_scope\"")
}

fn challenged(mut response: Response, challenge: &'static str) -> Response {
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    response
}
