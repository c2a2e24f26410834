//! Telling whoever gave the journal something what has become of it.

use std::fmt;

type Tell = Box<dyn FnOnce(Result<(), Unwritten>) + Send>;

/// Who is told, once. It is impossible to tell nobody: dropping it tells of failure.
///
/// It is called on the journal's thread or, for what is refused, on the caller's: it must not block, and must not call
/// the journal.
pub struct Ack(Option<Tell>);

/// Why something is not durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unwritten {
    /// The journal has not taken it, and will not write it.
    Refused(&'static str),
    /// It could not be written, for that reason. What was appended or reserved is tried again for as long as the
    /// process runs; a compaction is not.
    Failed(String),
}

impl Ack {
    pub fn new(tell: impl FnOnce(Result<(), Unwritten>) + Send + 'static) -> Ack {
        Ack(Some(Box::new(tell)))
    }

    /// Nobody wants to know.
    pub fn none() -> Ack {
        Ack(None)
    }

    pub(super) fn tell(mut self, what: Result<(), Unwritten>) {
        if let Some(tell) = self.0.take() {
            tell(what);
        }
    }
}

impl Drop for Ack {
    fn drop(&mut self) {
        if let Some(tell) = self.0.take() {
            tell(Err(Unwritten::Refused("the journal has ended")));
        }
    }
}

impl fmt::Display for Unwritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unwritten::Refused(why) => f.write_str(why),
            Unwritten::Failed(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Unwritten {}
