//! What an active check asks a server, over a connection of its own.

use std::error::Error;
use std::time::Duration;

use tokio::time::timeout;

use super::grpc::GrpcProbe;
use super::http::Asked;
use crate::config::model::{HealthCheck, HealthCheckKind, Origin, OriginHttp};
use crate::config::show_duration;
use crate::origin::endpoint::Endpoint;
use crate::origin::wire::{Dialed, Dialer, Protocol};

/// How a pool's servers are checked.
#[derive(Debug)]
pub(in crate::origin) struct Checks {
    pub(super) check: HealthCheck,
    /// Makes the probes' connections, which serve nobody else.
    dialer: Dialer,
    tls: bool,
}

impl Checks {
    /// `None`: they are not.
    pub(in crate::origin) fn new(origin: &Origin) -> Option<Checks> {
        let check = origin.health_check.clone()?;
        let mut way = origin.clone();
        if !check.tls {
            way.tls = None;
        }
        if matches!(check.kind, HealthCheckKind::Grpc { .. }) {
            way.http = OriginHttp::Http2;
        }
        // A check has one limit for the whole of it; this one leaves it the last word.
        way.connect_timeout = check.timeout.saturating_add(Duration::from_secs(1));
        Some(Checks { check, tls: way.tls.is_some(), dialer: Dialer::new(&way) })
    }
}

/// What asks one server, made once for all checks of it.
#[derive(Debug)]
pub(super) struct Probe<'a> {
    checks: &'a Checks,
    endpoint: &'a Endpoint,
    /// As it is configured.
    server: &'a str,
    question: Question,
}

#[derive(Debug)]
enum Question {
    Connection,
    Http(Box<Asked>),
    Grpc(Box<GrpcProbe>),
}

impl<'a> Probe<'a> {
    /// `server`: what is sent as Host where nothing else is configured.
    ///
    /// # Errors
    /// Why no such request can be made.
    pub(super) fn new(checks: &'a Checks, endpoint: &'a Endpoint, server: &'a str) -> Result<Probe<'a>, String> {
        // A path is no host.
        let host = if matches!(endpoint, Endpoint::Unix(_)) { "localhost" } else { server };
        let question = match &checks.check.kind {
            HealthCheckKind::Tcp => Question::Connection,
            HealthCheckKind::Http(probe) => Question::Http(Box::new(Asked::new(probe, checks.tls, host)?)),
            HealthCheckKind::Grpc { service } => Question::Grpc(Box::new(GrpcProbe::new(service, checks.tls, host)?)),
        };
        Ok(Probe { checks, endpoint, server, question })
    }

    /// Asks once, within the check's timeout.
    ///
    /// # Errors
    /// What is wrong with the server, in few words for the operator.
    pub(super) async fn ask(&self) -> Result<(), String> {
        let limit = self.checks.check.timeout;
        match timeout(limit, self.ask_unbounded()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("no answer within {}", show_duration(limit))),
        }
    }

    async fn ask_unbounded(&self) -> Result<(), String> {
        // Of nobody's request: a PROXY header says so.
        let dialed = self.checks.dialer.dial(self.endpoint, self.server, None).await;
        let Dialed { io, protocol } = dialed.map_err(|e| e.to_string())?;
        match (&self.question, protocol) {
            (Question::Connection, _) => Ok(()),
            (Question::Http(asked), Protocol::H1) => asked.over_http1(io).await,
            (Question::Http(asked), Protocol::H2) => asked.over_http2(io).await,
            (Question::Grpc(probe), _) => probe.ask(io).await,
        }
    }
}

/// An error and what has led to it.
pub(super) fn reason(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some errors say their cause themselves.
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;
