//! Active health checks: one task per server address.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;

use pingora::http::RequestHeader;
use pingora::{Error, ErrorType};
use pingora_load_balancing::Backend;
use pingora_load_balancing::health_check::{self, HttpHealthCheck, TcpHealthCheck};
use tokio::time::{Instant, sleep_until};

use crate::config::model::{HealthCheck, HealthCheckKind};
use crate::origin::endpoint::Endpoint;
use crate::origin::member::Member;

/// However an interval is set, checks do not spin, and no sum of times overflows.
const MIN_INTERVAL: Duration = Duration::from_millis(5);
const MAX_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// Checks one server until the task is dropped: at once, and then every interval. A server counts as healthy until
/// the first `unhealthy_after` checks in a row have failed. `changed` is called after each change.
pub(in crate::origin) async fn watch(origin: &str, check: &HealthCheck, member: &Member, changed: impl Fn()) {
    let probe = match Probe::new(check, member.endpoint(), &member.found.text) {
        Ok(probe) => probe,
        Err(e) => {
            log::error!("origin {origin}: no health checks of {}: {e}", member.found.text);
            return;
        }
    };
    let mut streak = Streak::default();
    loop {
        let started = Instant::now();
        let outcome = probe.ask().await;
        let flip = streak.observe(outcome.is_ok(), member.is_healthy(), check);
        if let Err(reason) = &outcome {
            member.state.health.last_error.set(Some(reason.clone()));
        }
        if let Some(healthy) = flip {
            if healthy {
                member.state.health.last_error.set(None);
            }
            if member.state.health.set_healthy(healthy) {
                changed();
                log_change(origin, member, check, &outcome);
            }
        }
        sleep_until(started + jittered(check.interval)).await;
    }
}

fn log_change(origin: &str, member: &Member, check: &HealthCheck, outcome: &Result<(), String>) {
    let (server, addr) = (&member.found.text, member.endpoint());
    match outcome {
        Ok(()) => log::info!("origin {origin}: server {server} ({addr}) is healthy again"),
        Err(reason) => log::warn!(
            "origin {origin}: server {server} ({addr}) is unhealthy after {} failed checks: {reason}",
            check.unhealthy_after
        ),
    }
}

/// Outcomes in a row that contradict the state.
#[derive(Debug, Default)]
struct Streak(usize);

impl Streak {
    /// The new state, where this outcome is the one that changes it.
    fn observe(&mut self, success: bool, healthy: bool, check: &HealthCheck) -> Option<bool> {
        if success == healthy {
            self.0 = 0;
            return None;
        }
        self.0 += 1;
        if self.0 < if success { check.healthy_after } else { check.unhealthy_after } {
            return None;
        }
        self.0 = 0;
        Some(success)
    }
}

/// The interval, up to a tenth shorter or longer: many edges must not check in step.
fn jittered(interval: Duration) -> Duration {
    // A fresh RandomState is the standard library's source of randomness.
    let random = RandomState::new().hash_one(0u8) % 2001;
    interval.clamp(MIN_INTERVAL, MAX_INTERVAL).mul_f64(0.9 + random as f64 / 10_000.0)
}

/// What asks one server, made once for all checks of it.
struct Probe {
    check: Box<dyn health_check::HealthCheck + Send + Sync>,
    target: Backend,
    timeout: Duration,
}

impl Probe {
    /// `server`: what an HTTP check sends as Host where nothing else is configured.
    fn new(check: &HealthCheck, endpoint: &Endpoint, server: &str) -> pingora::Result<Probe> {
        let (kind, timeout) = (&check.kind, check.timeout);
        let check: Box<dyn health_check::HealthCheck + Send + Sync> = match kind {
            HealthCheckKind::Tcp | HealthCheckKind::Grpc { .. } => {
                let mut tcp = TcpHealthCheck::new();
                // The whole of a check has one limit, below.
                tcp.peer_template.options.connection_timeout = None;
                tcp
            }
            HealthCheckKind::Http(probe) => {
                let (path, host) = (&probe.path, probe.host.as_deref());
                let host = host.unwrap_or(server);
                let mut http = HttpHealthCheck::new(host, false);
                http.req = RequestHeader::build("GET", path.as_bytes(), Some(4))?;
                http.req.insert_header("Host", host)?;
                http.req.insert_header("User-Agent", concat!("Foreland-health/", env!("CARGO_PKG_VERSION")))?;
                http.req.insert_header("Accept", "*/*")?;
                http.req.insert_header("Connection", "close")?;
                http.peer_template.options.connection_timeout = None;
                http.peer_template.options.read_timeout = None;
                http.validator = Some(Box::new(|head| match head.status.is_success() {
                    true => Ok(()),
                    false => Error::e_explain(UNHEALTHY, format!("status {}", head.status.as_str())),
                }));
                Box::new(http)
            }
        };
        Ok(Probe { check, target: Backend::new(&endpoint.to_string())?, timeout })
    }

    /// Asks once, for no longer than the check's timeout.
    async fn ask(&self) -> Result<(), String> {
        match tokio::time::timeout(self.timeout, self.check.check(&self.target)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) => Err(reason(&e)),
            Err(_) => Err(format!("no answer within {:?}", self.timeout)),
        }
    }
}

const UNHEALTHY: ErrorType = ErrorType::Custom("Unhealthy");

/// The failure in few words, for the operator.
fn reason(e: &Error) -> String {
    match e.etype() {
        kind if *kind == UNHEALTHY => e.context.as_ref().map(|c| c.as_str().to_owned()).unwrap_or_default(),
        kind => e
            .root_cause()
            .downcast_ref::<std::io::Error>()
            .map_or_else(|| kind.as_str().to_owned(), |io| format!("{}: {io}", kind.as_str())),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::config::model::HttpProbe;

    async fn probe(check: &HealthCheck, addr: SocketAddr, server: &str) -> Result<(), String> {
        Probe::new(check, &addr.into(), server).unwrap().ask().await
    }

    fn check(kind: HealthCheckKind) -> HealthCheck {
        HealthCheck {
            kind,
            tls: true,
            interval: Duration::from_secs(1),
            interval_down: Duration::from_secs(1),
            jitter: 10,
            timeout: Duration::from_secs(10),
            healthy_after: 2,
            unhealthy_after: 3,
        }
    }

    fn http() -> HealthCheck {
        check(HealthCheckKind::Http(HttpProbe::get("/healthz")))
    }

    /// Probes a server that reads a request and sends `answer`; what it was sent, and the verdict.
    async fn probe_answer(check: HealthCheck, answer: &'static [u8]) -> (String, Result<(), String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                if stream.read_buf(&mut request).await.unwrap() == 0 {
                    break;
                }
            }
            // Byte by byte: no answer may depend on how it is cut.
            for byte in answer {
                if stream.write_all(&[*byte]).await.is_err() {
                    break;
                }
            }
            String::from_utf8(request).unwrap()
        });
        let verdict = probe(&check, addr, "origin.test:80").await;
        (server.await.unwrap(), verdict)
    }

    #[tokio::test]
    async fn an_http_check_asks_as_it_should() {
        let (request, verdict) = probe_answer(http(), b"HTTP/1.1 204 No Content\r\n\r\n").await;
        assert_eq!(verdict, Ok(()));
        let version = env!("CARGO_PKG_VERSION");
        assert!(
            request.starts_with("GET /healthz HTTP/1.1\r\n") && request.contains("\r\nHost: origin.test:80\r\n"),
            "{request}"
        );
        assert!(request.contains(&format!("\r\nUser-Agent: Foreland-health/{version}\r\n")), "{request}");
        assert!(request.contains("\r\nConnection: close\r\n"), "{request}");
        let host = HealthCheckKind::Http(HttpProbe { host: Some("www.test".to_owned()), ..HttpProbe::get("/") });
        let (request, _) = probe_answer(check(host), b"HTTP/1.1 200 OK\r\n\r\n").await;
        assert!(request.contains("\r\nHost: www.test\r\n"), "{request}");
    }

    #[tokio::test]
    async fn only_2xx_is_healthy() {
        let cases: [(&[u8], Result<(), &str>); 7] = [
            (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Ok(())),
            (b"HTTP/1.0 299\r\n\r\n", Ok(())),
            (b"HTTP/1.1 503 Away\r\nContent-Length: 0\r\n\r\n", Err("status 503")),
            (b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", Err("status 302")),
            (b"SSH-2.0-OpenSSH_9.6\r\n", Err("")),
            (b"HTTP/1.1 20", Err("")),
            (b"", Err("")),
        ];
        for (answer, expected) in cases {
            let (_, verdict) = probe_answer(http(), answer).await;
            match expected {
                Ok(()) => assert_eq!(verdict, Ok(()), "{}", answer.escape_ascii()),
                Err(why) => assert!(verdict.unwrap_err().contains(why), "{}", answer.escape_ascii()),
            }
        }
    }

    #[tokio::test]
    async fn a_silent_server_is_given_up_on() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let patience = HealthCheck { timeout: Duration::from_millis(20), ..http() };
        let verdict = probe(&patience, listener.local_addr().unwrap(), "x").await;
        assert_eq!(verdict, Err("no answer within 20ms".to_owned()));
    }

    #[tokio::test]
    async fn a_tcp_check_wants_a_connection_and_no_more() {
        let listener = TcpListener::bind("127.83.7.2:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        assert_eq!(probe(&check(HealthCheckKind::Tcp), addr, "x").await, Ok(()));
        drop(listener);
        let verdict = probe(&check(HealthCheckKind::Tcp), addr, "x").await;
        assert!(verdict.unwrap_err().starts_with("ConnectRefused"));
    }

    #[test]
    fn only_a_whole_streak_changes_the_state() {
        let check = http();
        let mut streak = Streak::default();
        let mut observe = |success, healthy| streak.observe(success, healthy, &check);
        assert_eq!([observe(false, true), observe(false, true), observe(true, true)], [None; 3]);
        assert_eq!([observe(false, true), observe(false, true), observe(false, true)], [None, None, Some(false)]);
        assert_eq!([observe(true, false), observe(false, false)], [None; 2]);
        assert_eq!([observe(true, false), observe(true, false)], [None, Some(true)]);
        assert_eq!(observe(true, true), None);
    }

    #[test]
    fn the_jitter_is_a_tenth_at_most() {
        for _ in 0..100 {
            let interval = jittered(Duration::from_secs(10));
            assert!((Duration::from_secs(9)..=Duration::from_secs(11)).contains(&interval), "{interval:?}");
        }
        assert!(jittered(Duration::ZERO) > Duration::ZERO);
        assert!(jittered(Duration::MAX) < Duration::from_secs(48 * 3600));
    }

    #[tokio::test]
    async fn a_server_is_watched_until_it_recovers() {
        // An address of its own, so that nobody else is given its port in the meantime.
        let listener = TcpListener::bind("127.83.7.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        drop(listener);
        let check = HealthCheck { interval: Duration::from_millis(1), ..check(HealthCheckKind::Tcp) };
        let member = Member::checked_at(addr);
        let changes = Arc::new(AtomicUsize::new(0));
        let flips = tokio::sync::Notify::new();
        let watching = watch("media", &check, &member, || {
            changes.fetch_add(1, Ordering::Relaxed);
            flips.notify_one();
        });
        let scenario = async {
            flips.notified().await;
            assert!(!member.is_healthy());
            assert!(member.state.health.last_error.get().is_some());
            let _listener = TcpListener::bind(addr).await.unwrap();
            flips.notified().await;
            assert!(member.is_healthy());
            assert_eq!(member.state.health.last_error.get(), None);
        };
        tokio::select! {
            () = watching => unreachable!("a watch has no end"),
            () = scenario => {}
        }
        assert_eq!(changes.load(Ordering::Relaxed), 2);
        assert_eq!(member.state.health.transitions.load(Ordering::Relaxed), 2);
    }
}
