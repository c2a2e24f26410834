//! What goes over a connection: heads, and what can go wrong.

use std::fmt;
use std::io;

use bytes::Bytes;
use h2::Reason;
use http::Method;

use super::tls::refused_late;
use crate::origin::failure::FailureKind;

/// How long a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::origin) enum BodyLength {
    /// There is none.
    None,
    /// In bytes; from 1.
    Known(u64),
    /// In chunks (HTTP/1.1), or until the stream ends (HTTP/2).
    Chunked,
    /// Until the connection ends. Of responses alone.
    UntilClose,
}

/// The head of a request as a server is to get it.
#[derive(Clone, Debug)]
pub(in crate::origin) struct RequestHead {
    pub(in crate::origin) method: Method,
    /// In the form of HTTP/1.1, from the request line to the empty line: well-formed, with exactly one Host, and with
    /// the framing fields that `body` says. It has been checked; nobody changes a byte of it on the way.
    pub(in crate::origin) wire: Bytes,
    pub(in crate::origin) body: BodyLength,
}

/// The head of a response.
#[derive(Clone, Debug)]
pub(in crate::origin) struct ResponseHead {
    /// 100 to 999.
    pub(in crate::origin) status: u16,
    /// In the form of HTTP/1.1, from the status line to the empty line, as it came, but for lines that ended in a line
    /// feed alone: they end as they should. Of HTTP/2: made from its fields, with `Transfer-Encoding: chunked` where it
    /// has a body and says no length, and `Content-Length: 0` where it has none and says none.
    pub(in crate::origin) wire: Bytes,
    /// `None` for answers to HEAD, for 1xx (but 101: what follows is the other protocol, until the connection ends), 204
    /// and 304, and for `Content-Length: 0`.
    pub(in crate::origin) body: BodyLength,
    /// Its fields contradict each other about where the message ends, or announce a body where there is none: others may
    /// read it otherwise. It is not to be stored, and its connection carries no other request.
    pub(in crate::origin) suspicious: bool,
}

/// Why an exchange failed.
#[derive(Debug)]
pub(in crate::origin) struct WireError {
    pub(in crate::origin) kind: FailureKind,
    /// In few words, for the log.
    pub(in crate::origin) why: String,
    /// The server has certainly not begun to work on the request (a stream refused, a connection that was going away):
    /// it may be sent again whatever its method.
    pub(in crate::origin) untouched: bool,
    /// Something of the response had come already.
    pub(in crate::origin) begun: bool,
    /// It is about this request alone, not about the connection that others share: the server has reset its stream.
    pub(in crate::origin) of_stream: bool,
    /// The code by which the server has reset it.
    pub(in crate::origin) reset: Option<Reason>,
    /// The server lets the connection end in good order (a GOAWAY without an error), and has said that it has not begun.
    pub(in crate::origin) goodbye: bool,
}

impl WireError {
    pub(in crate::origin) fn new(kind: FailureKind, why: impl Into<String>) -> WireError {
        WireError {
            kind,
            why: why.into(),
            untouched: kind.is_before_sending(),
            begun: false,
            of_stream: false,
            reset: None,
            goodbye: false,
        }
    }

    /// The connection's own failure while it was in use.
    pub(in crate::origin) fn io(doing: &str, error: &io::Error) -> WireError {
        if let Some(why) = refused_late(error) {
            return WireError::new(FailureKind::Tls, format!("{doing}: {why}"));
        }
        let kind = match error.kind() {
            io::ErrorKind::TimedOut => FailureKind::Timeout,
            _ => FailureKind::Reset,
        };
        WireError::new(kind, format!("{doing}: {error}"))
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}
