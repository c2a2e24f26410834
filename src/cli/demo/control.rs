//! The demo's origins as a group, and the endpoint that kills and revives them.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use super::origins::{RunningOrigin, listen_from};

/// How many origins the demo has.
const ORIGINS: usize = 3;

/// Running origins and their control endpoint; all end when this is dropped.
pub struct DemoOrigins {
    /// Where the origins listen, in the order of their names: `origin-1` first.
    pub addresses: Vec<SocketAddr>,
    /// `GET /` tells each origin's state, `POST /kill/N` and `POST /revive/N` change it.
    pub control: SocketAddr,
    serving: JoinHandle<()>,
}

impl Drop for DemoOrigins {
    fn drop(&mut self) {
        // The endpoint's state goes with its task, and each origin with the state.
        self.serving.abort();
    }
}

/// Starts three origins on the first free loopback ports from `first_port` on, and their control endpoint on the first
/// free one from `control_port` on. With 0: on any.
///
/// # Errors
/// No port is free, or the system refuses a thread.
pub async fn start(first_port: u16, control_port: u16) -> io::Result<DemoOrigins> {
    let (mut addresses, mut origins) = (Vec::new(), Vec::new());
    for number in 1..=ORIGINS {
        let listener = listen_from(first_port, &addresses)?;
        let address = listener.local_addr()?;
        addresses.push(address);
        origins.push(Slot { address, running: Some(RunningOrigin::start(number, listener)?) });
    }
    let listener = listen_from(control_port, &addresses)?;
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let control = listener.local_addr()?;
    let router = router(Arc::new(Mutex::new(origins)));
    let serving = tokio::spawn(async move {
        // Accept errors are retried inside; this ends by being aborted.
        let _ = axum::serve(listener, router).await;
    });
    Ok(DemoOrigins { addresses, control, serving })
}

struct Slot {
    address: SocketAddr,
    /// `None` while dead.
    running: Option<RunningOrigin>,
}

type Slots = Arc<Mutex<Vec<Slot>>>;

fn router(slots: Slots) -> Router {
    Router::new()
        .route("/", get(state))
        .route("/kill/{number}", post(kill))
        .route("/revive/{number}", post(revive))
        .with_state(slots)
}

async fn state(State(slots): State<Slots>) -> Response {
    describe(&slots.lock().await)
}

/// Answers once connections to the origin are refused.
async fn kill(State(slots): State<Slots>, Path(number): Path<usize>) -> Response {
    let mut slots = slots.lock().await;
    let Some(slot) = slot(&mut slots, number) else { return unknown() };
    if let Some(running) = slot.running.take() {
        running.kill().await;
    }
    describe(&slots)
}

/// Answers once the origin accepts connections again.
async fn revive(State(slots): State<Slots>, Path(number): Path<usize>) -> Response {
    let mut slots = slots.lock().await;
    let Some(slot) = slot(&mut slots, number) else { return unknown() };
    if slot.running.is_none() {
        match TcpListener::bind(slot.address).and_then(|l| RunningOrigin::start(number, l)) {
            Ok(running) => slot.running = Some(running),
            Err(e) => {
                let error = json!({ "error": format!("cannot listen on {}: {e}", slot.address) });
                return answer(StatusCode::INTERNAL_SERVER_ERROR, &error);
            }
        }
    }
    describe(&slots)
}

fn slot(slots: &mut [Slot], number: usize) -> Option<&mut Slot> {
    slots.get_mut(number.checked_sub(1)?)
}

fn unknown() -> Response {
    let error = json!({ "error": format!("there are origins 1 to {ORIGINS}") });
    answer(StatusCode::NOT_FOUND, &error)
}

fn describe(slots: &[Slot]) -> Response {
    let origin = |(i, slot): (usize, &Slot)| json!({ "name": format!("origin-{}", i + 1), "address": slot.address, "alive": slot.running.is_some() });
    answer(StatusCode::OK, &json!({ "origins": slots.iter().enumerate().map(origin).collect::<Vec<_>>() }))
}

/// With a line end, for the terminal that it is read on.
fn answer(status: StatusCode, value: &Value) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], format!("{value}\n")).into_response()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    /// The whole answer as text, or the error of the connection.
    async fn ask(address: SocketAddr, line: &str, fields: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("{line} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{fields}\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    async fn get(address: SocketAddr, path: &str) -> String {
        ask(address, &format!("GET {path}"), "").await.expect("an answer")
    }

    #[tokio::test]
    async fn origins_say_who_they_are() {
        let demo = start(0, 0).await.expect("a demo");
        assert_eq!(demo.addresses.len(), ORIGINS);
        for (i, address) in demo.addresses.iter().enumerate() {
            let hello = get(*address, "/hello").await;
            assert!(hello.ends_with(&format!("\r\n\r\nhello from origin-{}\n", i + 1)), "{hello}");
            assert!(hello.contains("cache-control: public, max-age=60\r\n") && hello.contains("etag: \"hello-origin-"));
            assert!(hello.contains(&format!("x-origin: origin-{}\r\n", i + 1)));
            let who = get(*address, "/who").await;
            assert!(who.contains("cache-control: no-store\r\n") && who.contains(&format!("\"origin-{}\"", i + 1)));
        }
    }

    #[tokio::test]
    async fn origins_answer_the_other_paths() {
        let demo = start(0, 0).await.expect("a demo");
        let origin = demo.addresses[0];
        assert!(get(origin, "/error").await.starts_with("HTTP/1.1 500 "));
        assert!(get(origin, "/healthz").await.starts_with("HTTP/1.1 200 "));
        assert!(get(origin, "/nowhere").await.starts_with("HTTP/1.1 404 "));
        assert!(get(origin, "/time").await.contains("GMT, says origin-1\n"));
        let unchanged =
            ask(origin, "GET /image.png", "If-None-Match: \"x\", W/\"image\"\r\n").await.expect("an answer");
        assert!(unchanged.starts_with("HTTP/1.1 304 ") && unchanged.contains("etag: \"image\""), "{unchanged}");
        let changed = ask(origin, "GET /image.png", "If-None-Match: \"x\"\r\n").await.expect("an answer");
        assert!(changed.starts_with("HTTP/1.1 200 "), "{changed}");
        let slow = get(origin, "/slow").await;
        assert!(
            slow.contains("transfer-encoding: chunked") && slow.contains("line 10 of 10 from origin-1\n"),
            "{slow}"
        );
    }

    #[tokio::test]
    async fn a_killed_origin_refuses_until_revived() {
        let demo = start(0, 0).await.expect("a demo");
        let (victim, control) = (demo.addresses[1], demo.control);
        let mut open = TcpStream::connect(victim).await.expect("a connection");
        open.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("sent");
        let mut first = [0; 12];
        open.read_exact(&mut first).await.expect("an answer");

        let killed = ask(control, "POST /kill/2", "Content-Length: 0\r\n").await.expect("an answer");
        assert!(killed.contains("\"alive\":false"), "{killed}");
        assert!(TcpStream::connect(victim).await.is_err());
        let mut rest = Vec::new();
        // An end or a reset: gone either way.
        let _ = open.read_to_end(&mut rest).await;
        assert!(get(demo.addresses[0], "/who").await.contains("origin-1"));

        let revived = ask(control, "POST /revive/2", "Content-Length: 0\r\n").await.expect("an answer");
        assert!(!revived.contains("\"alive\":false"), "{revived}");
        assert!(get(victim, "/who").await.contains("origin-2"));
        for path in ["/kill/0", "/kill/4", "/revive/9"] {
            let answer = ask(control, &format!("POST {path}"), "Content-Length: 0\r\n").await.expect("an answer");
            assert!(answer.starts_with("HTTP/1.1 404 "), "{path}: {answer}");
        }
    }

    #[tokio::test]
    async fn takes_the_next_port_where_one_is_taken() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = taken.local_addr().expect("its address").port();
        let listener = listen_from(port, &[]).expect("another port");
        assert!(listener.local_addr().expect("its address").port() > port);
    }
}
