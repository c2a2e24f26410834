//! One request on a connection, whatever version of HTTP that speaks.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;

use super::connections::Group;
#[cfg(test)]
use super::dial::Protocol;
use super::h1::H1Conn;
use super::h2::H2Stream;
use super::io::Io;
use super::message::{RequestHead, ResponseHead, WireError};

/// One request on a connection. Dropped without [`Wire::finish`], the connection (HTTP/1.1) is closed, or the stream
/// (HTTP/2) reset where it is not at its end.
pub(in crate::origin) struct Wire(Kind);

enum Kind {
    H1 {
        conn: H1Conn<Io>,
        /// Where it is kept afterwards.
        group: Option<Arc<Group>>,
    },
    // The stream goes before its place does: then there is room for the next.
    H2 {
        stream: H2Stream,
        _place: Option<Place>,
    },
}

/// A request's place on a shared connection. Left by dropping it.
struct Place {
    group: Arc<Group>,
    connection: u64,
}

impl Wire {
    /// `group`: where the connection is kept when the request is over; `None`: it is not.
    pub(super) fn h1(conn: H1Conn<Io>, group: Option<Arc<Group>>) -> Wire {
        Wire(Kind::H1 { conn, group })
    }

    /// `place`: the shared connection that the stream is one of; `None`: the connection has no other.
    pub(super) fn h2(stream: H2Stream, place: Option<(Arc<Group>, u64)>) -> Wire {
        let _place = place.map(|(group, connection)| Place { group, connection });
        Wire(Kind::H2 { stream, _place })
    }

    #[cfg(test)]
    pub(in crate::origin) fn protocol(&self) -> Protocol {
        match &self.0 {
            Kind::H1 { .. } => Protocol::H1,
            Kind::H2 { .. } => Protocol::H2,
        }
    }

    /// Sends the request's head. Once, and before anything else.
    pub(in crate::origin) async fn send_head(&mut self, head: &RequestHead) -> Result<(), WireError> {
        match &mut self.0 {
            Kind::H1 { conn, .. } => conn.send_head(head).await,
            Kind::H2 { stream, .. } => stream.send_head(head).await,
        }
    }

    /// Sends of the request's body, which is framed as its head says: `data` shrinks by what is on its way. Ready when it
    /// all is, and the end too where `end` says that this is the last.
    pub(in crate::origin) fn poll_send_body(
        &mut self,
        cx: &mut Context<'_>,
        data: &mut Bytes,
        end: bool,
    ) -> Poll<Result<(), WireError>> {
        match &mut self.0 {
            Kind::H1 { conn, .. } => conn.poll_send_body(cx, data, end),
            Kind::H2 { stream, .. } => stream.poll_send_body(cx, data, end),
        }
    }

    /// The fields to follow the request's body, which has no length that was said. Before its end is sent.
    pub(in crate::origin) fn set_trailers(&mut self, trailers: &HeaderMap) {
        match &mut self.0 {
            Kind::H1 { conn, .. } => conn.set_trailers(trailers),
            Kind::H2 { stream, .. } => stream.set_trailers(trailers),
        }
    }

    /// The next head of the response: those of interim responses (1xx), then the final one. Cancel-safe.
    #[cfg(test)]
    pub(in crate::origin) async fn read_head(&mut self) -> Result<ResponseHead, WireError> {
        match &mut self.0 {
            Kind::H1 { conn, .. } => conn.read_head().await,
            Kind::H2 { stream, .. } => stream.read_head().await,
        }
    }

    /// The same for who has to do something else meanwhile.
    pub(in crate::origin) fn poll_read_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, WireError>> {
        match &mut self.0 {
            Kind::H1 { conn, .. } => conn.poll_read_head(cx),
            Kind::H2 { stream, .. } => stream.poll_read_head(cx),
        }
    }

    /// The next of the response's body, without its framing. `None`: it has come to its proper end.
    pub(in crate::origin) fn poll_read_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, WireError>> {
        match &mut self.0 {
            Kind::H1 { conn, .. } => conn.poll_read_body(cx),
            Kind::H2 { stream, .. } => stream.poll_read_body(cx),
        }
    }

    /// The fields behind the response's body, once, after its end.
    pub(in crate::origin) fn trailers(&mut self) -> Option<HeaderMap> {
        match &mut self.0 {
            Kind::H1 { conn, .. } => conn.trailers(),
            Kind::H2 { stream, .. } => stream.trailers(),
        }
    }

    /// Done with: the connection serves the next request if its state allows it.
    pub(in crate::origin) fn finish(self) {
        if let Kind::H1 { conn, group: Some(group) } = self.0
            && conn.is_reusable()
        {
            group.keep(conn);
        }
    }

    /// Nothing has been done with it.
    pub(super) fn unused(self) {
        if let Kind::H1 { conn, group: Some(group) } = self.0 {
            group.keep(conn);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.group.release(self.connection);
    }
}
