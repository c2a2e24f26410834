//! What went wrong with a server, in few and stable words.

use pingora::{Error, ErrorSource, ErrorType};

/// Kinds of failure towards a server: the values of a metric's label and of a log's field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// No connection was made: nothing of the request was sent.
    Connect,
    /// The same, because it took too long.
    ConnectTimeout,
    /// The TLS handshake failed: a certificate, a version, a cipher. Nothing of the request was sent.
    Tls,
    /// A connection was made, and then took too long to read from or to write to.
    Timeout,
    /// The connection, or the stream of it, ended before the response did.
    Reset,
    /// What the server sent is no HTTP.
    Invalid,
    /// The status itself counts as a failure.
    Status,
    /// Anything else; the client's own failures too.
    Other,
}

impl FailureKind {
    /// All kinds, so that every value of a label can exist from the start.
    pub const ALL: [FailureKind; 8] = [
        FailureKind::Connect,
        FailureKind::ConnectTimeout,
        FailureKind::Tls,
        FailureKind::Timeout,
        FailureKind::Reset,
        FailureKind::Invalid,
        FailureKind::Status,
        FailureKind::Other,
    ];

    /// Nothing of the request has been sent.
    pub fn is_before_sending(self) -> bool {
        matches!(self, FailureKind::Connect | FailureKind::ConnectTimeout | FailureKind::Tls)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            FailureKind::Connect => "connect",
            FailureKind::ConnectTimeout => "connect_timeout",
            FailureKind::Tls => "tls",
            FailureKind::Timeout => "timeout",
            FailureKind::Reset => "reset",
            FailureKind::Invalid => "protocol",
            FailureKind::Status => "status",
            FailureKind::Other => "other",
        }
    }
}

/// The kind of a failure towards a server.
pub fn kind(error: &Error) -> FailureKind {
    use ErrorType::*;

    if error.esource == ErrorSource::Downstream {
        return FailureKind::Other;
    }
    match &error.etype {
        ConnectTimedout | TLSHandshakeTimedout => FailureKind::ConnectTimeout,
        ConnectRefused | ConnectNoRoute | ConnectError | ConnectProxyFailure | BindError | SocketError => {
            FailureKind::Connect
        }
        TLSHandshakeFailure | TLSWantX509Lookup | InvalidCert | HandshakeError => FailureKind::Tls,
        ReadTimedout | WriteTimedout => FailureKind::Timeout,
        ReadError | WriteError | ConnectionClosed => FailureKind::Reset,
        InvalidHTTPHeader | H1Error | H2Error | H2Downgrade | InvalidH2 => FailureKind::Invalid,
        // Pingora's own names for these are constants of private modules.
        Custom("PrematureBodyEnd") => FailureKind::Reset,
        Custom("PingTimedout") => FailureKind::Timeout,
        Custom("InvalidChunk" | "InvalidTrailerEnd") => FailureKind::Invalid,
        _ => FailureKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_have_stable_words() {
        let cases = [
            (ErrorType::ConnectRefused, "connect"),
            (ErrorType::ConnectTimedout, "connect_timeout"),
            (ErrorType::ReadTimedout, "timeout"),
            (ErrorType::WriteTimedout, "timeout"),
            (ErrorType::ConnectionClosed, "reset"),
            (ErrorType::ReadError, "reset"),
            (ErrorType::Custom("PrematureBodyEnd"), "reset"),
            (ErrorType::InvalidHTTPHeader, "protocol"),
            (ErrorType::Custom("InvalidChunk"), "protocol"),
            (ErrorType::InternalError, "other"),
            (ErrorType::HTTPStatus(503), "other"),
        ];
        for (etype, word) in cases {
            assert_eq!(kind(&Error::new_up(etype.clone())).as_str(), word, "{etype:?}");
            assert_eq!(kind(&Error::new_up(etype).more_context("while asking")).as_str(), word);
        }
        assert_eq!(kind(&Error::new_down(ErrorType::ReadError)), FailureKind::Other);
    }
}
