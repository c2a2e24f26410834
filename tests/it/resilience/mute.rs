//! A server that takes everything and says nothing. Unlike a scripted origin that holds an answer, it reads on, and so knows
//! at once when a connection is closed.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use crate::harness::{Port, within};

/// Listens until it is dropped.
pub struct Mute {
    port: Port,
    connections: Arc<watch::Sender<Connections>>,
    task: AbortHandle,
}

#[derive(Clone, Copy, Debug, Default)]
struct Connections {
    accepted: usize,
    open: usize,
}

impl Mute {
    pub async fn start() -> Mute {
        let port = Port::reserve();
        let listener = port.listen();
        let connections = Arc::new(watch::Sender::new(Connections::default()));
        let counted = connections.clone();
        let task = tokio::spawn(async move {
            let mut tasks = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                counted.send_modify(|c| (c.accepted, c.open) = (c.accepted + 1, c.open + 1));
                tasks.spawn(read(stream, counted.clone()));
            }
        });
        Mute { port, connections, task: task.abort_handle() }
    }

    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Connections so far.
    pub fn accepted(&self) -> usize {
        self.connections.borrow().accepted
    }

    /// Waits for so many connections in all.
    pub async fn reached(&self, n: usize) {
        self.wait(&format!("{n} connections"), |c| c.accepted >= n).await;
    }

    /// Waits until every connection has been closed by the other side.
    pub async fn left_alone(&self) {
        self.wait("no open connection", |c| c.open == 0).await;
    }

    async fn wait(&self, what: &str, condition: impl Fn(&Connections) -> bool) {
        // The sender is `self`, so the wait cannot fail.
        let _ = within(&format!("{what} at a mute server"), self.connections.subscribe().wait_for(condition)).await;
    }
}

impl Drop for Mute {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn read(mut stream: TcpStream, connections: Arc<watch::Sender<Connections>>) {
    let mut buffer = vec![0; 64 << 10];
    while stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {}
    connections.send_modify(|c| c.open -= 1);
}
