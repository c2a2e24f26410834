//! The same exchange over HTTP/1.1 and over HTTP/2, for what must not depend on which it is.

use std::task::Poll;

use bytes::Bytes;

use crate::harness::{Ask, Connection, Edge, End, H2Connection, H2Exchange, Response};

pub const BOTH: [Over; 2] = [Over::Http1, Over::Http2];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    Http1,
    Http2,
}

impl Over {
    pub async fn connect(self, edge: &Edge) -> Client {
        match self {
            Over::Http1 => Client::Http1(edge.connect().await),
            Over::Http2 => Client::Http2(edge.connect_h2().await),
        }
    }

    /// One exchange over a connection of its own.
    pub async fn ask(self, edge: &Edge, ask: &Ask) -> Response {
        self.connect(edge).await.ask(ask).await
    }

    pub async fn get(self, edge: &Edge, target: &str) -> Response {
        self.ask(edge, &Ask::get(target)).await
    }

    /// Sends over a connection of its own, and reads the head of the response.
    pub async fn start(self, edge: &Edge, ask: &Ask) -> Exchange {
        match self.connect(edge).await {
            Client::Http1(mut connection) => {
                connection.send(ask.bytes()).await;
                let response = connection.head(&ask.method).await;
                Exchange::Http1(connection, response)
            }
            Client::Http2(connection) => {
                let exchange = connection.start(ask).await;
                Exchange::Http2(connection, exchange)
            }
        }
    }
}

/// A client whose requests share a connection.
pub enum Client {
    Http1(Connection),
    Http2(H2Connection),
}

impl Client {
    pub async fn ask(&mut self, ask: &Ask) -> Response {
        match self {
            Client::Http1(connection) => connection.ask(ask).await,
            Client::Http2(connection) => connection.ask(ask).await,
        }
    }

    pub async fn get(&mut self, target: &str) -> Response {
        self.ask(&Ask::get(target)).await
    }
}

/// A response that is being read.
pub enum Exchange {
    Http1(Connection, Response),
    Http2(H2Connection, H2Exchange),
}

impl Exchange {
    /// The head, and no more than that.
    pub fn head(&self) -> &Response {
        match self {
            Exchange::Http1(_, response) => response,
            Exchange::Http2(_, exchange) => &exchange.response,
        }
    }

    /// The next bytes of the body, as they come; `Ok(None)` at its clean end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, End> {
        match self {
            Exchange::Http1(connection, _) => connection.chunk().await,
            Exchange::Http2(_, exchange) => exchange.chunk().await,
        }
    }

    /// Reads until at least `n` more bytes of the body have come; panics where it ends before.
    pub async fn bytes(&mut self, n: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while out.len() < n {
            match self.chunk().await {
                Ok(Some(piece)) => out.extend_from_slice(&piece),
                other => panic!("wanted {n} bytes, got {} and then {other:?}", out.len()),
            }
        }
        out
    }

    /// Reads what is left of the body.
    pub async fn rest(self) -> Response {
        match self {
            Exchange::Http1(mut connection, response) => connection.rest(response).await,
            Exchange::Http2(_connection, exchange) => exchange.rest().await,
        }
    }

    /// Leaves in the middle: resets the connection, or the stream.
    pub fn leave(self) {
        match self {
            Exchange::Http1(connection, _) => connection.reset(),
            Exchange::Http2(_, exchange) => exchange.cancel(),
        }
    }
}

/// Whether a body ended as one that is not whole must end.
pub fn is_broken(end: End) -> bool {
    end != End::Clean
}

/// All of them at once.
pub async fn all<T>(futures: impl IntoIterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut done: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        for (future, done) in futures.iter_mut().zip(&mut done) {
            if done.is_none()
                && let Poll::Ready(value) = future.as_mut().poll(cx)
            {
                *done = Some(value);
            }
        }
        if done.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}
