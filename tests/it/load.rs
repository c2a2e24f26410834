//! Clients that ask without a pause until they are told to stop, and write down whatever goes wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::harness::{Ask, Connection, Edge, End, Origin, Reply, within};

/// How a client uses connections.
#[derive(Clone, Copy, Debug)]
pub enum Manner {
    /// One connection until the edge announces its end, then the next.
    Keepalive,
    /// One connection until the edge announces its end; then the client is done.
    UntilClose,
    /// A connection for each request.
    OneEach,
}

/// Clients at work.
pub struct Load {
    stop: watch::Sender<bool>,
    answered: watch::Sender<usize>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    /// Sets `n` clients on the edge. Each asks in turn for what is cached and for what is not, each time by another
    /// URL, and expects the URL as the answer.
    pub fn start(edge: &Edge, clients: &[(usize, Manner)]) -> Load {
        let (stop, _) = watch::channel(false);
        let (answered, _) = watch::channel(0);
        let serial = Arc::new(AtomicUsize::new(0));
        let mut tasks = Vec::new();
        for &(n, manner) in clients {
            for _ in 0..n {
                let client = Client {
                    address: edge.address(),
                    manner,
                    serial: serial.clone(),
                    answered: answered.clone(),
                    stop: stop.subscribe(),
                };
                tasks.push(tokio::spawn(client.run()));
            }
        }
        Load { stop, answered, clients: tasks }
    }

    /// Waits for `n` more answers than there are now.
    pub async fn more(&self, n: usize) {
        let mut answered = self.answered.subscribe();
        let until = *answered.borrow() + n;
        // The sender is `self`, so the wait cannot fail.
        let _ = within(&format!("{n} more answers"), answered.wait_for(|count| *count >= until)).await;
    }

    /// Stops the clients; panics where any of their requests was not answered as it should be. Gives the number of
    /// requests.
    pub async fn finish(self) -> usize {
        self.stop.send_replace(true);
        self.end().await
    }

    /// As [`Load::finish`], for clients that end by themselves.
    pub async fn end(self) -> usize {
        let mut failures = Vec::new();
        for client in self.clients {
            match within("a client's last answer", client).await {
                Ok(own) => failures.extend(own),
                Err(panic) => failures.push(format!("a client panicked: {panic}")),
            }
        }
        let answered = *self.answered.borrow();
        assert!(failures.is_empty(), "{} of {answered} requests failed: {failures:#?}", failures.len());
        answered
    }
}

/// An origin for [`Load`]: answers with the target; `/cached` may be stored.
pub async fn echo() -> Origin {
    Origin::start(|r| {
        let freshness = if r.path().starts_with("/cached") { "max-age=600" } else { "no-store" };
        Reply::ok(r.target.clone()).cache_control(freshness)
    })
    .await
}

/// Distinct URLs of each kind.
const URLS: usize = 40;

struct Client {
    address: std::net::SocketAddr,
    manner: Manner,
    serial: Arc<AtomicUsize>,
    answered: watch::Sender<usize>,
    stop: watch::Receiver<bool>,
}

impl Client {
    async fn run(self) -> Vec<String> {
        let mut failures = Vec::new();
        let mut connection = None;
        while !*self.stop.borrow() {
            let n = self.serial.fetch_add(1, Ordering::Relaxed);
            let kind = if n.is_multiple_of(2) { "cached" } else { "passed" };
            let target = format!("/{kind}?n={}", n % URLS);
            match self.ask(&mut connection, &target).await {
                Ok(()) => self.answered.send_modify(|count| *count += 1),
                Err(why) if matches!(self.manner, Manner::UntilClose) => return vec![format!("{target}: {why}")],
                Err(why) => {
                    connection = None;
                    failures.push(format!("{:?} {target}: {why}", self.manner));
                }
            }
            if matches!(self.manner, Manner::UntilClose) && connection.is_none() {
                break;
            }
            // Others on this thread have their turn, the origin among them.
            tokio::task::yield_now().await;
        }
        failures
    }

    async fn ask(&self, kept: &mut Option<Connection>, target: &str) -> Result<(), String> {
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => Connection::try_open(self.address).await.ok_or("the connection was refused")?,
        };
        let mut ask = Ask::get(target);
        if let Manner::OneEach = self.manner {
            ask = ask.header("Connection", "close");
        }
        connection.try_send(ask.bytes()).await.map_err(|e| format!("the request could not be sent: {e}"))?;
        let head = connection.try_head("GET").await.ok_or("the connection ended without an answer")?;
        let response = connection.rest(head).await;
        let text = String::from_utf8_lossy(&response.body).into_owned();
        if response.status != 200 || response.end != End::Clean || text != target {
            return Err(format!("answered {} {:?} {text:?}", response.status, response.end));
        }
        if !response.headers.lists("Connection", "close") {
            *kept = Some(connection);
        }
        Ok(())
    }
}
