//! The answer to a request that goes no further.

use std::borrow::Cow;

use http::StatusCode;

/// Why a request is refused, for its client and for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: StatusCode,
    /// For the client: what is wrong, without telling of the inside.
    pub text: &'static str,
    /// For the operator: what exactly.
    pub reason: Cow<'static, str>,
    /// The request cannot have been read to its end: the connection ends with the answer.
    pub close: bool,
}

impl Refusal {
    pub fn new(status: StatusCode, text: &'static str, reason: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal { status, text, reason: reason.into(), close: false }
    }

    /// The same, and the connection ends with it.
    pub fn closing(self) -> Refusal {
        Refusal { close: true, ..self }
    }
}
