//! Active health checks: one task per server address.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use super::member::Member;
use crate::config::model::{HealthCheck, HealthCheckKind};

/// Longest answer that is read in search of a final status.
const MAX_ANSWER: usize = 16 * 1024;
/// After the verdict, the rest of a small answer is read for this long, so that closing does not reset the
/// connection under a server that is still writing.
const GRACE: Duration = Duration::from_millis(100);
/// However an interval is set, checks do not spin, and no sum of times overflows.
const MIN_INTERVAL: Duration = Duration::from_millis(5);
const MAX_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// Checks one server until the task is dropped: at once, and then every interval. A server counts as healthy until
/// the first `unhealthy_after` checks in a row have failed. `changed` is called after each change.
pub(super) async fn watch(origin: &str, check: &HealthCheck, member: &Member, changed: impl Fn()) {
    let mut streak = Streak::default();
    loop {
        let started = Instant::now();
        let outcome = probe(check, member.addr, &member.slot.text).await;
        let flip = streak.observe(outcome.is_ok(), member.is_healthy(), check);
        if let Err(reason) = &outcome {
            member.state.last_error.set(Some(reason.clone()));
        }
        if let Some(healthy) = flip {
            if healthy {
                member.state.last_error.set(None);
            }
            if member.state.set_healthy(healthy) {
                changed();
                log_change(origin, member, check, &outcome);
            }
        }
        sleep_until(started + jittered(check.interval)).await;
    }
}

fn log_change(origin: &str, member: &Member, check: &HealthCheck, outcome: &Result<(), String>) {
    let (server, addr) = (&member.slot.text, member.addr);
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

async fn probe(check: &HealthCheck, addr: SocketAddr, server: &str) -> Result<(), String> {
    let attempt = async {
        let mut stream = TcpStream::connect(addr).await.map_err(|error| format!("connecting failed: {error}"))?;
        match &check.kind {
            HealthCheckKind::Tcp => Ok(()),
            HealthCheckKind::Http { path, host } => {
                match get(&mut stream, path, host.as_deref().unwrap_or(server)).await? {
                    200..=299 => Ok(()),
                    status => Err(format!("status {status}")),
                }
            }
        }
    };
    match timeout(check.timeout, attempt).await {
        Ok(outcome) => outcome,
        Err(_) => Err(format!("no answer within {:?}", check.timeout)),
    }
}

/// Asks and returns the final status. Only the status counts, so the rest of the answer is not parsed.
async fn get(stream: &mut TcpStream, path: &str, host: &str) -> Result<u16, String> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: Foreland-health/{}\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        env!("CARGO_PKG_VERSION")
    );
    stream.write_all(request.as_bytes()).await.map_err(|error| format!("sending failed: {error}"))?;
    let mut answer = Vec::with_capacity(1024);
    loop {
        if let Some(status) = final_status(&answer)? {
            let rest = async { while stream.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0) {} };
            // Whether it was read in time or not, the verdict stands.
            let _ = timeout(GRACE, rest).await;
            return Ok(status);
        }
        if answer.len() >= MAX_ANSWER {
            return Err("the answer's header is too long".to_owned());
        }
        match stream.read_buf(&mut answer).await {
            Ok(0) => return Err("the connection was closed without an answer".to_owned()),
            Ok(_) => {}
            Err(error) => return Err(format!("reading failed: {error}")),
        }
    }
}

/// The first status that is not 1xx (RFC 9110 §15.2); `None`: more is needed.
fn final_status(mut answer: &[u8]) -> Result<Option<u16>, String> {
    const VERSION: &[u8] = b"HTTP/1.";
    loop {
        let seen = answer.len().min(VERSION.len());
        if answer[..seen] != VERSION[..seen] {
            return Err("the answer is not HTTP/1".to_owned());
        }
        // `HTTP/1.x NNN`, and one more so that no digit can follow.
        let Some(line) = answer.get(..13) else { return Ok(None) };
        let [_, _, _, _, _, _, _, minor, b' ', a, b, c, end] = line else {
            return Err("the answer has no status".to_owned());
        };
        if ![minor, a, b, c].iter().all(|byte| byte.is_ascii_digit()) || !matches!(end, b' ' | b'\r' | b'\n') {
            return Err("the answer has no status".to_owned());
        }
        let status = [a, b, c].iter().fold(0, |status, digit| status * 10 + u16::from(**digit - b'0'));
        if !(100..200).contains(&status) || status == 101 {
            return Ok(Some(status));
        }
        match answer.windows(4).position(|window| window == b"\r\n\r\n") {
            Some(end) => answer = &answer[end + 4..],
            None => return Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::net::TcpListener;

    use super::*;

    fn check(kind: HealthCheckKind) -> HealthCheck {
        HealthCheck {
            kind,
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(10),
            healthy_after: 2,
            unhealthy_after: 3,
        }
    }

    fn http() -> HealthCheck {
        check(HealthCheckKind::Http { path: "/healthz".to_owned(), host: None })
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
        assert!(request.starts_with("GET /healthz HTTP/1.1\r\nHost: origin.test:80\r\n"), "{request}");
        assert!(request.contains(&format!("\r\nUser-Agent: Foreland-health/{version}\r\n")), "{request}");
        assert!(request.contains("\r\nConnection: close\r\n"), "{request}");
        let host = HealthCheckKind::Http { path: "/".to_owned(), host: Some("www.test".to_owned()) };
        let (request, _) = probe_answer(check(host), b"HTTP/1.1 200 OK\r\n\r\n").await;
        assert!(request.contains("\r\nHost: www.test\r\n"), "{request}");
    }

    #[tokio::test]
    async fn only_2xx_is_healthy() {
        let cases: [(&[u8], Result<(), &str>); 10] = [
            (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Ok(())),
            (b"HTTP/1.0 299\r\n\r\n", Ok(())),
            (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", Ok(())),
            (b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 500 No\r\n\r\n", Err("status 500")),
            (b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", Err("status 302")),
            (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", Err("status 101")),
            (b"SSH-2.0-OpenSSH_9.6\r\n", Err("the answer is not HTTP/1")),
            (b"HTTP/1.1 2000 Odd\r\n\r\n", Err("the answer has no status")),
            (b"HTTP/1.1 20", Err("the connection was closed without an answer")),
            (b"", Err("the connection was closed without an answer")),
        ];
        for (answer, expected) in cases {
            let (_, verdict) = probe_answer(http(), answer).await;
            assert_eq!(verdict, expected.map_err(str::to_owned), "{}", answer.escape_ascii());
        }
    }

    #[tokio::test]
    async fn an_endless_header_is_refused() {
        let mut answer = b"HTTP/1.1 100 Continue\r\n".to_vec();
        answer.resize(MAX_ANSWER + 1, b'a');
        let (_, verdict) = probe_answer(http(), answer.leak()).await;
        assert_eq!(verdict, Err("the answer's header is too long".to_owned()));
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
        assert!(verdict.unwrap_err().starts_with("connecting failed: "));
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
            assert!(member.state.last_error.get().is_some());
            let _listener = TcpListener::bind(addr).await.unwrap();
            flips.notified().await;
            assert!(member.is_healthy());
            assert_eq!(member.state.last_error.get(), None);
        };
        tokio::select! {
            () = watching => unreachable!("a watch has no end"),
            () = scenario => {}
        }
        assert_eq!(changes.load(Ordering::Relaxed), 2);
        assert_eq!(member.state.transitions.load(Ordering::Relaxed), 2);
    }
}
