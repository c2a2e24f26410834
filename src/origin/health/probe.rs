//! What an active check asks a server, over a connection of its own.

use std::error::Error;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::grpc::GrpcProbe;
use super::http::Asked;
use crate::config::model::{HealthCheck, HealthCheckKind, Origin, OriginHttp};
use crate::config::show_duration;
use crate::origin::endpoint::Endpoint;

/// What asks one server, made once for all checks of it.
#[derive(Debug)]
pub(super) struct Probe {
    endpoint: Endpoint,
    question: Question,
    /// HTTP/2 is spoken with prior knowledge.
    http2: bool,
    timeout: std::time::Duration,
}

#[derive(Debug)]
enum Question {
    Connection,
    Http(Asked),
    Grpc(GrpcProbe),
}

impl Probe {
    /// `server`: what is sent as Host where nothing else is configured.
    ///
    /// # Errors
    /// Why no such request can be made.
    pub(super) fn new(
        origin: &Origin,
        check: &HealthCheck,
        endpoint: &Endpoint,
        server: &str,
    ) -> Result<Probe, String> {
        // A path is no host.
        let server = if matches!(endpoint, Endpoint::Unix(_)) { "localhost" } else { server };
        let question = match &check.kind {
            HealthCheckKind::Tcp => Question::Connection,
            HealthCheckKind::Http(probe) => Question::Http(Asked::new(probe, false, server)?),
            HealthCheckKind::Grpc { service } => Question::Grpc(GrpcProbe::new(service, false, server)?),
        };
        let http2 = origin.http == OriginHttp::Http2;
        Ok(Probe { endpoint: endpoint.clone(), question, http2, timeout: check.timeout })
    }

    /// Asks once, within the check's timeout.
    ///
    /// # Errors
    /// What is wrong with the server, in few words for the operator.
    pub(super) async fn ask(&self) -> Result<(), String> {
        match timeout(self.timeout, self.ask_unbounded()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("no answer within {}", show_duration(self.timeout))),
        }
    }

    async fn ask_unbounded(&self) -> Result<(), String> {
        let io = connect(&self.endpoint).await?;
        match &self.question {
            Question::Connection => Ok(()),
            Question::Http(asked) if self.http2 => asked.over_http2(io).await,
            Question::Http(asked) => asked.over_http1(io).await,
            Question::Grpc(probe) => probe.ask(io).await,
        }
    }
}

/// A connection of any kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn connect(endpoint: &Endpoint) -> Result<Box<dyn Stream>, String> {
    let connected: std::io::Result<Box<dyn Stream>> = match endpoint {
        Endpoint::Inet(addr) => TcpStream::connect(addr).await.map(|stream| Box::new(stream) as _),
        Endpoint::Unix(path) => UnixStream::connect(path).await.map(|stream| Box::new(stream) as _),
    };
    connected.map_err(|e| format!("cannot connect: {e}"))
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
