//! What a scripted origin answers: an ordinary response by default, and every way to misbehave.

use bytes::Bytes;

use super::{Fields, Gate};

/// A script of one response. Made by [`Reply::new`] and its like; refined by chaining.
///
/// Calls that put something *here* ([`Reply::wait`], [`Reply::cut`], [`Reply::reset`], [`Reply::stall`]) stand in the
/// body after the pieces given so far.
#[derive(Clone, Debug)]
pub struct Reply {
    pub(super) hold: Option<Gate>,
    pub(super) interim: Vec<(u16, Fields)>,
    pub(super) head: ReplyHead,
    pub(super) framing: ReplyFraming,
    pub(super) steps: Vec<Step>,
    pub(super) trailers: Fields,
    pub(super) after: After,
}

#[derive(Clone, Debug)]
pub(super) enum ReplyHead {
    Status {
        code: u16,
        fields: Fields,
    },
    /// Nothing but the steps is sent.
    None,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum ReplyFraming {
    /// Content-Length, counted.
    Length,
    /// Content-Length, as told.
    Claimed(u64),
    Chunked,
    UntilClose,
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    Send(Bytes),
    Wait(Gate),
    Cut,
    Reset,
    Stall,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum After {
    KeepAlive,
    /// Says `Connection: close`, and closes.
    Close,
    /// Closes without having said so.
    CloseUnsaid,
}

impl Reply {
    /// An empty response.
    pub fn new(status: u16) -> Reply {
        Reply {
            hold: None,
            interim: Vec::new(),
            head: ReplyHead::Status { code: status, fields: Fields::default() },
            framing: ReplyFraming::Length,
            steps: Vec::new(),
            trailers: Fields::default(),
            after: After::KeepAlive,
        }
    }

    /// 200 with a body and its length; no other field.
    pub fn ok(body: impl Into<Bytes>) -> Reply {
        Reply::new(200).body(body)
    }

    /// These bytes and no others; then the connection closes.
    pub fn raw(bytes: impl Into<Bytes>) -> Reply {
        Reply { head: ReplyHead::None, after: After::CloseUnsaid, ..Reply::new(0) }.body(bytes)
    }

    /// Never a byte, and the connection stays open.
    pub fn never() -> Reply {
        Reply::raw("").stall()
    }

    /// Closes the connection instead of an answer.
    pub fn hang_up() -> Reply {
        Reply::raw("").cut()
    }

    /// Resets the connection instead of an answer.
    pub fn rst() -> Reply {
        Reply::raw("").reset()
    }

    /// Adds a field line. A `Content-Length` or `Transfer-Encoding` given here replaces the automatic one.
    pub fn header(mut self, name: &str, value: impl AsRef<str>) -> Reply {
        if let ReplyHead::Status { fields, .. } = &mut self.head {
            fields.push(name, value.as_ref());
        }
        self
    }

    /// `Cache-Control`, the most frequent field of all here.
    pub fn cache_control(self, value: &str) -> Reply {
        self.header("Cache-Control", value)
    }

    /// Waits at `gate` before the first byte.
    pub fn hold(mut self, gate: &Gate) -> Reply {
        self.hold = Some(gate.clone());
        self
    }

    /// Sends a 1xx response first, once past [`Reply::hold`].
    pub fn interim(mut self, status: u16, fields: &[(&str, &str)]) -> Reply {
        let fields = Fields(fields.iter().map(|(n, v)| (String::from(*n), String::from(*v))).collect());
        self.interim.push((status, fields));
        self
    }

    /// Adds a piece of the body: a write of its own, and a chunk of its own where chunked.
    pub fn body(mut self, piece: impl Into<Bytes>) -> Reply {
        let piece = piece.into();
        if !piece.is_empty() {
            self.steps.push(Step::Send(piece));
        }
        self
    }

    /// Waits at `gate` here, with what precedes sent.
    pub fn wait(mut self, gate: &Gate) -> Reply {
        self.steps.push(Step::Wait(gate.clone()));
        self
    }

    /// Closes the connection here.
    pub fn cut(mut self) -> Reply {
        self.steps.push(Step::Cut);
        self
    }

    /// Resets the connection here.
    pub fn reset(mut self) -> Reply {
        self.steps.push(Step::Reset);
        self
    }

    /// Sends no more, and keeps the connection open.
    pub fn stall(mut self) -> Reply {
        self.steps.push(Step::Stall);
        self
    }

    pub fn chunked(mut self) -> Reply {
        self.framing = ReplyFraming::Chunked;
        self
    }

    /// Adds a trailer field, and is chunked.
    pub fn trailer(mut self, name: &str, value: &str) -> Reply {
        self.trailers.push(name, value);
        self.chunked()
    }

    /// A body without a length, ended by the end of the connection.
    pub fn until_close(mut self) -> Reply {
        self.framing = ReplyFraming::UntilClose;
        self.after = After::CloseUnsaid;
        self
    }

    /// Lies about the length.
    pub fn claim_length(mut self, length: u64) -> Reply {
        self.framing = ReplyFraming::Claimed(length);
        self
    }

    /// Says `Connection: close`, and closes afterwards.
    pub fn close(mut self) -> Reply {
        self.after = After::Close;
        self
    }

    /// Closes afterwards without a word, as a server whose keepalive has run out.
    pub fn close_unsaid(mut self) -> Reply {
        self.after = After::CloseUnsaid;
        self
    }
}
