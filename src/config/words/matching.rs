//! What routes match, and what tells responses apart.

use http::header::HeaderName;

use crate::config::decode::{Bad, Decode, FromText, Kind, Shape, Trail};
use crate::config::model::ValueMatch;
use crate::config::node::{Node, Value, quote};
use crate::config::pattern::PathPattern;
use crate::config::report::{Report, suggest};

/// Request methods that a route may name. CONNECT is not one: a reverse proxy refuses it.
const METHODS: [&str; 19] = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "TRACE",
    "PURGE",
    "QUERY",
    "PROPFIND",
    "PROPPATCH",
    "MKCOL",
    "COPY",
    "MOVE",
    "LOCK",
    "UNLOCK",
    "REPORT",
    "SEARCH",
];

impl FromText for PathPattern {
    const KIND: Kind = Kind {
        name: "path pattern",
        expected: "a path pattern such as /video/** or /img-*.png",
        pattern: "^/.*$",
        numbers: false,
    };

    fn from_text(text: &str) -> Result<Self, Bad> {
        PathPattern::parse(text).map_err(|why| Bad::Because(format!("{}: {why}", quote(text))))
    }
}

/// A file name's extension, in lower case, without the dot.
#[derive(Clone, Debug)]
pub(in crate::config) struct Extension(pub String);

impl FromText for Extension {
    const KIND: Kind =
        Kind { name: "extension", expected: "an extension such as png", pattern: "^[^./*%]+$", numbers: false };

    fn from_text(text: &str) -> Result<Self, Bad> {
        let bare = text.trim_start_matches(['*', '.']);
        if bare.is_empty() || bare.contains(|c: char| !(c.is_ascii_alphanumeric() || "-_~.".contains(c))) {
            return Err(Bad::Form);
        }
        let because = |what: &str, right: &str| {
            Err(Bad::Because(format!("{}: an extension is {what}; did you mean `{right}`?", quote(text))))
        };
        match bare.rsplit_once('.') {
            Some((_, "")) => Err(Bad::Form),
            Some((_, last)) => because("what follows the last dot", last),
            None if bare != text => because("written without the dot", bare),
            None => Ok(Extension(text.to_ascii_lowercase())),
        }
    }
}

/// A request method.
#[derive(Clone, Debug)]
pub(in crate::config) struct Method(pub String);

impl FromText for Method {
    const KIND: Kind = Kind { name: "method", expected: "a method such as GET", pattern: "^[A-Z]+$", numbers: false };

    fn from_text(text: &str) -> Result<Self, Bad> {
        if METHODS.contains(&text) {
            return Ok(Method(text.to_owned()));
        }
        Err(Bad::Because(format!("unknown method {}{}", quote(text), suggest(text, &METHODS))))
    }
}

/// The name of a header field, in lower case.
#[derive(Clone, Debug)]
pub(in crate::config) struct FieldName(pub String);

impl FromText for FieldName {
    const KIND: Kind = Kind {
        name: "header field's name",
        expected: "a header field's name such as Accept-Language",
        pattern: "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$",
        numbers: false,
    };

    fn from_text(text: &str) -> Result<Self, Bad> {
        if let Some(name) = text.strip_suffix(':').filter(|name| name.parse::<HeaderName>().is_ok()) {
            return Err(Bad::Because(format!("{}: without the colon; did you mean `{name}`?", quote(text))));
        }
        text.parse::<HeaderName>().map(|name| FieldName(name.as_str().to_owned())).map_err(|_| Bad::Form)
    }
}

/// Response fields that say something else than tags, to this cache, to clients or to those between.
const TAKEN: [&str; 48] = [
    "accept",
    "age",
    "allow",
    "alt-svc",
    "authentication-info",
    "authorization",
    "cache-control",
    "cache-group-invalidation",
    "cache-groups",
    "cache-status",
    "cdn-cache-control",
    "clear-site-data",
    "connection",
    "cookie",
    "date",
    "etag",
    "expect",
    "expires",
    "foreland-cdn-cache-control",
    "host",
    "keep-alive",
    "last-modified",
    "link",
    "location",
    "permissions-policy",
    "pragma",
    "range",
    "referrer-policy",
    "refresh",
    "report-to",
    "reporting-endpoints",
    "retry-after",
    "server",
    "server-timing",
    "set-cookie",
    "strict-transport-security",
    "surrogate-control",
    "te",
    "timing-allow-origin",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "x-content-type-options",
    "x-frame-options",
];

/// How the names of whole families of such fields begin.
const TAKEN_FAMILIES: [&str; 6] = ["accept-", "access-control-", "content-", "cross-origin-", "proxy-", "sec-"];

/// The name of a response field that lists tags.
#[derive(Clone, Debug)]
pub(in crate::config) struct TagField(pub HeaderName);

impl FromText for TagField {
    const KIND: Kind = Kind {
        name: "response field's name",
        expected: "a response field's name such as Surrogate-Key",
        ..FieldName::KIND
    };

    fn from_text(text: &str) -> Result<Self, Bad> {
        let FieldName(name) = FieldName::from_text(text)?;
        if name == "off" {
            return Err(Bad::Because("`off` stands alone: `tags: off`".to_owned()));
        }
        if TAKEN.contains(&&*name) || TAKEN_FAMILIES.iter().any(|family| name.starts_with(family)) {
            return Err(Bad::Because(format!(
                "{}: this field has a meaning of its own, and lists no tags",
                quote(text)
            )));
        }
        name.parse().map(TagField).map_err(|_| Bad::Form)
    }
}

/// A content coding, in lower case (RFC 9110 §8.4.1).
#[derive(Clone, Debug)]
pub(in crate::config) struct Coding(pub String);

impl FromText for Coding {
    const KIND: Kind = Kind {
        name: "content coding",
        expected: "a content coding such as gzip",
        pattern: "^[0-9A-Za-z-]+$",
        numbers: false,
    };

    fn from_text(text: &str) -> Result<Self, Bad> {
        let coding = text.to_ascii_lowercase();
        match &*coding {
            "identity" => Err(Bad::Because("identity is always there, and not listed".to_owned())),
            "x-gzip" => Err(Bad::Because("x-gzip is an old name; did you mean `gzip`?".to_owned())),
            "" => Err(Bad::Form),
            _ if coding.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') => Ok(Coding(coding)),
            _ => Err(Bad::Form),
        }
    }
}

/// A language tag (RFC 5646).
#[derive(Clone, Debug)]
pub(in crate::config) struct LanguageTag(pub String);

impl FromText for LanguageTag {
    const KIND: Kind = Kind {
        name: "language tag",
        expected: "a language tag such as en or pt-BR",
        pattern: "^[A-Za-z]{2,8}(-[0-9A-Za-z]{1,8})*$",
        numbers: false,
    };

    fn from_text(text: &str) -> Result<Self, Bad> {
        let mut subtags = text.split('-');
        let primary =
            subtags.next().is_some_and(|p| (2..=8).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_alphabetic()));
        let rest = subtags.all(|s| (1..=8).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_alphanumeric()));
        if primary && rest { Ok(LanguageTag(text.to_owned())) } else { Err(Bad::Form) }
    }
}

/// The name of a cookie.
#[derive(Clone, Debug)]
pub(in crate::config) struct CookieName(pub String);

impl FromText for CookieName {
    const KIND: Kind = Kind { name: "cookie's name", expected: "a cookie's name such as lang", ..FieldName::KIND };

    fn from_text(text: &str) -> Result<Self, Bad> {
        // A token like a field's name (RFC 6265 §4.1.1), but case-sensitive.
        text.parse::<HeaderName>().map(|_| CookieName(text.to_owned())).map_err(|_| Bad::Form)
    }
}

/// The name of a query parameter.
#[derive(Clone, Debug)]
pub(in crate::config) struct ParameterName(pub String);

impl FromText for ParameterName {
    const KIND: Kind =
        Kind { name: "query parameter", expected: "a query parameter's name", pattern: "^[^&=#*]+$", numbers: false };

    fn from_text(text: &str) -> Result<Self, Bad> {
        if text.contains('*') {
            return Err(Bad::Because(format!("{}: `*` has a meaning only in `ignore`", quote(text))));
        }
        match text.is_empty() || text.contains(|c: char| "&=#".contains(c) || c.is_control()) {
            true => Err(Bad::Form),
            false => Ok(ParameterName(text.to_owned())),
        }
    }
}

/// The name of a query parameter, or its beginning and a `*`.
#[derive(Clone, Debug)]
pub(in crate::config) struct ParameterPattern(pub String);

impl FromText for ParameterPattern {
    const KIND: Kind = Kind {
        name: "query parameter, `*` at its end",
        expected: "a query parameter's name such as fbclid or utm_*",
        pattern: r"^[^&=#*]+\*?$",
        numbers: false,
    };

    fn from_text(text: &str) -> Result<Self, Bad> {
        if text == "*" {
            return Err(Bad::Because("to ignore every parameter, write `query: none`".to_owned()));
        }
        let name = text.strip_suffix('*').unwrap_or(text);
        if name.contains('*') {
            return Err(Bad::Because(format!("{}: `*` stands only at the end", quote(text))));
        }
        ParameterName::from_text(name).map(|_| ParameterPattern(text.to_owned())).map_err(|_| Bad::Form)
    }
}

/// A response status.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct Status(pub u16);

impl FromText for Status {
    const KIND: Kind = Kind {
        name: "status",
        expected: "a final status from 200 to 599",
        pattern: "^[2-5][0-9][0-9]$",
        numbers: true,
    };

    fn from_text(text: &str) -> Result<Self, Bad> {
        match text.parse() {
            Ok(304) => Err(Bad::Because("a 304 is never stored: it refreshes what is".to_owned())),
            Ok(status @ 200..=599) => Ok(Status(status)),
            _ => Err(Bad::Form),
        }
    }
}

/// What a route wants of a field or parameter.
#[derive(Clone, Debug)]
pub(in crate::config) struct Expectation(pub ValueMatch);

impl Expectation {
    const KIND: Kind = Kind { name: "exact value", expected: "a text", pattern: "^.*$", numbers: false };
}

impl Decode for Expectation {
    fn decode(node: &Node, trail: &Trail<'_>, report: &mut Report) -> Option<Self> {
        match &node.value {
            Value::Bool(true) => return Some(Expectation(ValueMatch::Present)),
            Value::Bool(false) => return Some(Expectation(ValueMatch::Absent)),
            Value::Text(text) => return Some(Expectation(ValueMatch::Equals(text.clone()))),
            _ => {}
        }
        let hint = if matches!(node.value, Value::Number(_)) { " without quotes" } else { "" };
        let message = format!("expected a text, true (present) or false (absent), found {}{hint}", node.found());
        report.error(&trail.place(node.mark), message);
        None
    }

    fn shape() -> Shape {
        Shape::Any(vec![Shape::Bool, Shape::Text(const { &Expectation::KIND })])
    }
}
