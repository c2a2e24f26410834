//! Guards: who is let in, and with which status others are not.

use std::path::PathBuf;

use http::StatusCode;
use ipnet::IpNet;

use super::matching::FieldName;
use super::text::FilePath;
use crate::config::decode::{Bad, Decode, FromText, Kind, OneOrMany, Shape, Trail, word};
use crate::config::model::{HostPattern, Https};
use crate::config::networks;
use crate::config::node::{Node, Value, quote};
use crate::config::report::Report;

/// One or a list, or `off`.
#[derive(Clone, Debug)]
pub(in crate::config) enum OffOrMany<T> {
    Off,
    Many(OneOrMany<T>),
}

impl<T: Decode> Decode for OffOrMany<T> {
    fn decode(node: &Node, trail: &Trail<'_>, report: &mut Report) -> Option<Self> {
        match &node.value {
            Value::Bool(false) => Some(OffOrMany::Off),
            Value::Text(text) if text == "off" => Some(OffOrMany::Off),
            Value::Map(_) | Value::List(_) => OneOrMany::decode(node, trail, report).map(OffOrMany::Many),
            _ if matches!(T::shape(), Shape::Keys(_)) => {
                let message = format!("expected `off`, a mapping or a list of mappings, found {}", node.found());
                report.error(&trail.place(node.mark), message);
                None
            }
            _ => OneOrMany::decode(node, trail, report).map(OffOrMany::Many),
        }
    }

    fn shape() -> Shape {
        Shape::Any(vec![Shape::Words(vec!["off"]), T::shape(), Shape::List { of: Box::new(T::shape()), min: 1 }])
    }
}

impl Decode for Https {
    fn decode(node: &Node, trail: &Trail<'_>, report: &mut Report) -> Option<Self> {
        let words = [("optional", Https::Optional), ("redirect", Https::Redirect), ("required", Https::Required)];
        word(node, trail, report, &words, &[])
    }

    fn shape() -> Shape {
        Shape::Words(vec!["optional", "redirect", "required"])
    }
}

/// Reads a number that is a status of those that `fits`.
fn status(
    node: &Node,
    expected: &str,
    fits: impl Fn(u16) -> Result<(), String>,
    trail: &Trail<'_>,
    report: &mut Report,
) -> Option<StatusCode> {
    let plain = || format!("expected {expected}, found {}", node.found());
    let number = match &node.value {
        Value::Number(text) => text.parse::<u16>().map_err(|_| plain()),
        _ => Err(plain()),
    };
    let checked = number.and_then(|number| {
        let why = |why: String| if why.is_empty() { plain() } else { why };
        fits(number).map_err(why).and_then(|()| StatusCode::from_u16(number).map_err(|_| plain()))
    });
    checked.map_err(|message| report.error(&trail.place(node.mark), message)).ok()
}

/// One of two statuses.
fn either(number: u16, of: [u16; 2]) -> Result<(), String> {
    if of.contains(&number) { Ok(()) } else { Err(String::new()) }
}

fn shape_of(of: [u16; 2]) -> Shape {
    Shape::Any(of.map(|status| Shape::Number { min: status.into(), max: status.into() }).into())
}

/// What a request beyond a concurrency limit gets.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct ConcurrencyStatus(pub StatusCode);

impl Decode for ConcurrencyStatus {
    fn decode(node: &Node, trail: &Trail<'_>, report: &mut Report) -> Option<Self> {
        status(node, "429 or 503", |number| either(number, [429, 503]), trail, report).map(ConcurrencyStatus)
    }

    fn shape() -> Shape {
        shape_of([429, 503])
    }
}

/// What a URL whose time is over gets.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct ExpiredStatus(pub StatusCode);

impl Decode for ExpiredStatus {
    fn decode(node: &Node, trail: &Trail<'_>, report: &mut Report) -> Option<Self> {
        status(node, "403 or 410", |number| either(number, [403, 410]), trail, report).map(ExpiredStatus)
    }

    fn shape() -> Shape {
        shape_of([403, 410])
    }
}

/// What a client that is denied gets.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct DeniedStatus(pub StatusCode);

/// Statuses that promise a field or a step that there is not (RFC 9110 §15.5).
const PROMISING: [u16; 5] = [401, 405, 407, 416, 426];

impl Decode for DeniedStatus {
    fn decode(node: &Node, trail: &Trail<'_>, report: &mut Report) -> Option<Self> {
        let fits = |number: u16| match number {
            _ if PROMISING.contains(&number) => {
                Err(format!("a {number} tells the client how to get in, which there is no way to"))
            }
            400..=599 => Ok(()),
            _ => Err(String::new()),
        };
        status(node, "a status from 400 to 599, such as 403 or 404", fits, trail, report).map(DeniedStatus)
    }

    fn shape() -> Shape {
        Shape::Number { min: 400, max: 599 }
    }
}

/// An address or network, or a file of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) enum NetworkSource {
    Net(IpNet),
    /// As written.
    File(PathBuf),
}

impl FromText for NetworkSource {
    const KIND: Kind = Kind {
        name: "IP address or network, or `file:PATH`",
        expected: "an IP address, a network such as 10.0.0.0/8, or file:PATH",
        pattern: "^([0-9A-Fa-f.:]+(/[0-9]+)?|file:.+)$",
        numbers: true,
    };

    fn from_text(text: &str) -> Result<Self, Bad> {
        match text.strip_prefix("file:") {
            Some(path) => FilePath::from_text(path).map(|path| NetworkSource::File(path.0)),
            None if text.contains(['\\', '~']) || text.contains('/') && text.starts_with(['/', '.']) => {
                Err(Bad::Because(format!("a file of networks is written `file:{text}`")))
            }
            None => networks::network(text).map(NetworkSource::Net).map_err(Bad::Because),
        }
    }
}

/// A country, in upper case.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct Country(pub [u8; 2]);

impl FromText for Country {
    const KIND: Kind = Kind {
        name: "country",
        expected: "a country of two letters such as DE",
        pattern: "^[A-Za-z]{2}$",
        numbers: false,
    };

    fn from_text(text: &str) -> Result<Self, Bad> {
        match text.to_ascii_uppercase().as_bytes() {
            b"UK" => Err(Bad::Because(format!("{}: in ISO 3166-1, the United Kingdom is `GB`", quote(text)))),
            [a, b] if a.is_ascii_uppercase() && b.is_ascii_uppercase() => Ok(Country([*a, *b])),
            _ => Err(Bad::Form),
        }
    }
}

/// The number of an autonomous system.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct AsNumber(pub u32);

impl Decode for AsNumber {
    fn decode(node: &Node, trail: &Trail<'_>, report: &mut Report) -> Option<Self> {
        if let Value::Number(text) = &node.value
            // 0 is reserved (RFC 7607).
            && let Some(number) = text.parse().ok().filter(|number| *number > 0)
        {
            return Some(AsNumber(number));
        }
        let letters = match &node.value {
            Value::Text(text) => text.strip_prefix("AS").or_else(|| text.strip_prefix("as")),
            _ => None,
        };
        let hint = match letters.and_then(|number| number.parse::<u32>().ok()) {
            Some(number) => format!("; did you mean {number}?"),
            None => String::new(),
        };
        let message =
            format!("expected the number of an autonomous system such as 64496, found {}{hint}", node.found());
        report.error(&trail.place(node.mark), message);
        None
    }

    fn shape() -> Shape {
        Shape::Number { min: 1, max: u32::MAX.into() }
    }
}

/// The longest pattern for names and agents.
const LONGEST_PATTERN: usize = 256;

/// A pattern for User-Agents, in lower case.
#[derive(Clone, Debug)]
pub(in crate::config) struct AgentPattern(pub String);

impl FromText for AgentPattern {
    const KIND: Kind = Kind {
        name: "text with `*`",
        expected: "a User-Agent, `*` for any run of characters, such as *curl*",
        pattern: "^.{0,256}$",
        numbers: false,
    };

    fn from_text(text: &str) -> Result<Self, Bad> {
        match text {
            _ if text.len() > LONGEST_PATTERN || text.contains(char::is_control) => Err(Bad::Form),
            _ if !text.is_empty() && text.bytes().all(|b| b == b'*') => {
                Err(Bad::Because(format!("{} is every User-Agent: nobody could get in", quote(text))))
            }
            _ => Ok(AgentPattern(text.to_lowercase())),
        }
    }
}

/// A host that a Referer may name, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) enum RefererWord {
    None,
    Host(HostPattern),
}

impl FromText for RefererWord {
    const KIND: Kind = Kind {
        name: "`none`, host name, `*.` and a host name, or `*`",
        expected: "none, or a host name such as example.com or *.example.com",
        ..HostPattern::KIND
    };

    fn from_text(text: &str) -> Result<Self, Bad> {
        match text {
            "none" => Ok(RefererWord::None),
            _ => HostPattern::from_text(text).map(RefererWord::Host),
        }
    }
}

/// A name in a client's certificate; `*` at its begin is any run of characters.
#[derive(Clone, Debug)]
pub(in crate::config) struct IdentityPattern(pub String);

impl FromText for IdentityPattern {
    const KIND: Kind = Kind {
        name: "name in a certificate, `*` at its begin",
        expected: "a name in a certificate such as client.example.com or *.example.com",
        pattern: r"^\*?[^*]*$",
        numbers: false,
    };

    fn from_text(text: &str) -> Result<Self, Bad> {
        let name = text.strip_prefix('*').unwrap_or(text);
        match text {
            "" => Err(Bad::Form),
            _ if name.contains('*') => Err(Bad::Because(format!("{}: `*` stands only at the begin", quote(text)))),
            _ if text.len() > LONGEST_PATTERN || text.contains(char::is_control) => Err(Bad::Form),
            _ => Ok(IdentityPattern(text.to_owned())),
        }
    }
}

/// `https` or `http`.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct SchemeWord {
    pub secure: bool,
}

impl Decode for SchemeWord {
    fn decode(node: &Node, trail: &Trail<'_>, report: &mut Report) -> Option<Self> {
        let words = [("https", SchemeWord { secure: true }), ("http", SchemeWord { secure: false })];
        word(node, trail, report, &words, &[])
    }

    fn shape() -> Shape {
        Shape::Words(vec!["https", "http"])
    }
}

/// A request field that the edge sets, and no client: lower case.
#[derive(Clone, Debug)]
pub(in crate::config) struct EdgeField(pub String);

/// Request fields that have a meaning to HTTP, to this cache, or to whoever reads who asks and for what.
const MEANT: [&str; 44] = [
    "age",
    "authorization",
    "cache-control",
    "cdn-loop",
    "connection",
    "cookie",
    "date",
    "early-data",
    "expect",
    "forwarded",
    "from",
    "host",
    "http2-settings",
    "keep-alive",
    "max-forwards",
    "origin",
    "pragma",
    "prefer",
    "priority",
    "range",
    "referer",
    "set-cookie",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "upgrade-insecure-requests",
    "user-agent",
    "vary",
    "via",
    "warning",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-forwarded-server",
    "x-http-method-override",
    "x-original-url",
    "x-real-ip",
    "x-request-id",
    "x-rewrite-url",
    "x-requested-with",
];

/// How the names of whole families of such fields begin.
const MEANT_FAMILIES: [&str; 6] = ["accept", "access-control-", "content-", "if-", "proxy-", "sec-"];

impl FromText for EdgeField {
    const KIND: Kind =
        Kind { name: "request field's name", expected: "a request field's name such as X-Country", ..FieldName::KIND };

    fn from_text(text: &str) -> Result<Self, Bad> {
        let FieldName(name) = FieldName::from_text(text)?;
        match MEANT.contains(&&*name) || MEANT_FAMILIES.iter().any(|family| name.starts_with(family)) {
            true => Err(Bad::Because(format!("{}: this field has a meaning of its own", quote(text)))),
            false => Ok(EdgeField(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,30}") {
            let _ = Country::from_text(&text);
            let _ = NetworkSource::from_text(&text);
            let _ = AgentPattern::from_text(&text);
            let _ = RefererWord::from_text(&text);
            let _ = IdentityPattern::from_text(&text);
            let _ = EdgeField::from_text(&text);
        }
    }
}
