//! What health probes ask for, and how they are answered well.

use super::matching::FieldName;
use super::net::authority;
use crate::config::decode::{Bad, Decode, FromText, Kind, Shape, Trail, from_text, word};
use crate::config::model::HostHeader;
use crate::config::node::{Node, quote};
use crate::config::report::Report;

/// The Host of a health probe.
#[derive(Clone, Debug)]
pub(in crate::config) struct ProbeHost(pub String);

impl FromText for ProbeHost {
    const KIND: Kind = Kind { name: "host name", expected: "a host name such as www.example.com", ..HostHeader::KIND };

    fn from_text(text: &str) -> Result<Self, Bad> {
        authority(text).map(ProbeHost)
    }
}

/// The path that a health probe asks for.
#[derive(Clone, Debug)]
pub(in crate::config) struct ProbePath(pub String);

impl FromText for ProbePath {
    const KIND: Kind = Kind { name: "path", expected: "a path such as /healthz", pattern: "^/[!-~]*$", numbers: false };

    fn from_text(text: &str) -> Result<Self, Bad> {
        match text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic()) && !text.contains('#') {
            true => Ok(ProbePath(text.to_owned())),
            false => Err(Bad::Form),
        }
    }
}

/// The method of a health probe.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct ProbeMethod(pub &'static str);

/// Those that ask for something and change nothing, and POST, for servers whose check is written so.
const METHODS: [&str; 4] = ["GET", "HEAD", "OPTIONS", "POST"];

impl Decode for ProbeMethod {
    fn decode(node: &Node, trail: &Trail<'_>, report: &mut Report) -> Option<Self> {
        word(node, trail, report, &METHODS.map(|name| (name, ProbeMethod(name))), &[])
    }

    fn shape() -> Shape {
        Shape::Words(METHODS.to_vec())
    }
}

/// A field of a health probe, in lower case.
#[derive(Clone, Debug)]
pub(in crate::config) struct ProbeField(pub String);

/// Fields that follow from the request and its connection.
const FOLLOWING: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

impl FromText for ProbeField {
    const KIND: Kind = FieldName::KIND;

    fn from_text(text: &str) -> Result<Self, Bad> {
        let FieldName(name) = FieldName::from_text(text)?;
        if name == "host" {
            return Err(Bad::Because("the Host has a key of its own, `host`".to_owned()));
        }
        if FOLLOWING.contains(&&*name) {
            return Err(Bad::Because(format!(
                "{}: this field is about the connection, and not to be set",
                quote(text)
            )));
        }
        Ok(ProbeField(name))
    }
}

/// The value of such a field (RFC 9110 §5.5): visible ASCII, with spaces and tabs within.
#[derive(Clone, Debug)]
pub(in crate::config) struct ProbeValue(pub String);

impl FromText for ProbeValue {
    const KIND: Kind = Kind {
        name: "field value",
        expected: "a field's value",
        pattern: r"^([!-~]([ -~\t]*[!-~])?)?$",
        numbers: false,
    };

    fn from_text(text: &str) -> Result<Self, Bad> {
        let within = text.bytes().all(|b| b.is_ascii_graphic() || b == b' ' || b == b'\t');
        match within && text.trim() == text && text.len() <= LONGEST_VALUE {
            true => Ok(ProbeValue(text.to_owned())),
            false => Err(Bad::Form),
        }
    }
}

/// Beyond, servers refuse the header section.
const LONGEST_VALUE: usize = 4096;

/// What a body must contain.
#[derive(Clone, Debug)]
pub(in crate::config) struct ProbeBody(pub String);

impl FromText for ProbeBody {
    const KIND: Kind =
        Kind { name: "text", expected: "a text of 1 to 4096 bytes", pattern: r"^[\s\S]+$", numbers: false };

    fn from_text(text: &str) -> Result<Self, Bad> {
        match text.len() {
            1..=4096 => Ok(ProbeBody(text.to_owned())),
            _ => Err(Bad::Form),
        }
    }
}

/// The name of a gRPC service; empty: the server as a whole.
#[derive(Clone, Debug)]
pub(in crate::config) struct GrpcService(pub String);

impl FromText for GrpcService {
    const KIND: Kind = Kind {
        name: "service, or `\"\"`",
        expected: "a service such as shop.Cart, or \"\"",
        pattern: "^[!-~]{0,256}$",
        numbers: false,
    };

    fn from_text(text: &str) -> Result<Self, Bad> {
        match text.len() <= 256 && text.bytes().all(|b| b.is_ascii_graphic()) {
            true => Ok(GrpcService(text.to_owned())),
            false => Err(Bad::Form),
        }
    }
}

/// Statuses from `MIN` on: one, or a range with both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) struct Statuses<const MIN: u16>(pub u16, pub u16);

impl<const MIN: u16> Statuses<MIN> {
    const KIND: Kind = Kind {
        name: "range such as `500-503`",
        expected: "a status or a range of statuses such as 500-503",
        pattern: "^[1-5][0-9][0-9](-[1-5][0-9][0-9])?$",
        numbers: true,
    };

    fn from_text(text: &str) -> Result<Self, Bad> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let status = |text: &str| match text.len() {
            3 => text.parse::<u16>().map_err(|_| Bad::Form),
            _ => Err(Bad::Form),
        };
        let (first, last) = (status(first)?, status(last)?);
        if first > last {
            return Err(Bad::Because(format!("{}: a range begins with the lower status", quote(text))));
        }
        if first < MIN || last > 599 {
            return Err(Bad::Because(format!("statuses here are from {MIN} to 599, found {}", quote(text))));
        }
        Ok(Statuses(first, last))
    }

    /// Whether they have a status in common.
    pub fn meets(self, other: Self) -> bool {
        self.0 <= other.1 && other.0 <= self.1
    }
}

impl<const MIN: u16> std::fmt::Display for Statuses<MIN> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.0, self.1) {
            (first, last) if first == last => first.fmt(f),
            (first, last) => write!(f, "{first}-{last}"),
        }
    }
}

/// Not by way of [`FromText`]: a status without quotes is a number, and right.
impl<const MIN: u16> Decode for Statuses<MIN> {
    fn decode(node: &Node, trail: &Trail<'_>, report: &mut Report) -> Option<Self> {
        from_text(node, &Self::KIND, Self::from_text, trail, report)
    }

    fn shape() -> Shape {
        let one = Shape::Number { min: MIN.into(), max: 599 };
        Shape::Any(vec![one, Shape::Text(const { &Self::KIND })])
    }
}

/// After what a request is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum RetryCause {
    Reset,
    Timeout,
    Statuses(Statuses<400>),
}

impl RetryCause {
    const KIND: Kind = Kind {
        name: "`reset`, `timeout`, status or range",
        expected: "reset, timeout, a status or a range of statuses such as 502-504",
        ..Statuses::<400>::KIND
    };

    fn from_text(text: &str) -> Result<Self, Bad> {
        match text {
            "reset" => Ok(RetryCause::Reset),
            "timeout" => Ok(RetryCause::Timeout),
            "connect" => Err(Bad::Because("a connection that cannot be made is always tried again".to_owned())),
            _ => Statuses::from_text(text).map(RetryCause::Statuses),
        }
    }
}

impl Decode for RetryCause {
    fn decode(node: &Node, trail: &Trail<'_>, report: &mut Report) -> Option<Self> {
        from_text(node, &Self::KIND, Self::from_text, trail, report)
    }

    fn shape() -> Shape {
        Shape::Any(vec![Shape::Words(vec!["reset", "timeout"]), Statuses::<400>::shape()])
    }
}
