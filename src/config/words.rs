//! The kinds of values that the file holds: how each is read, and what is said of one that is wrong.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use http::header::HeaderName;
use ipnet::IpNet;

use super::decode::{Bad, Decode, FromText, Kind, List, Shape, Trail, word};
use super::model::{AdminAddress, Balance, HostHeader, HostPattern, LogFormat, LogPath, ServerAddress, ValueMatch};
use super::node::{Node, Value, quote};
use super::pattern::PathPattern;
use super::raw::{AccessLog, Cache, QueryLists, Server};
use super::report::{Report, suggest};
use super::units::{self, Fault};

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

/// Longest name of a site, route or origin: names become labels of metrics.
const LONGEST_LABEL: usize = 128;

impl FromText for Duration {
    const KIND: Kind = Kind {
        name: "duration",
        expected: "a duration such as 30s, 5m, 1h or 1d",
        pattern: r"^([0-9]+w)?([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$",
        numbers: true,
    };

    fn from_text(text: &str) -> Result<Self, Bad> {
        units::duration(text).map_err(|fault| match fault {
            Fault::Form => Bad::Form,
            Fault::NoUnit => Bad::Because(format!(
                "the duration {} needs a unit: ms, s, m, h, d or w, as in {}s",
                quote(text),
                cut(text)
            )),
            Fault::TooLarge => Bad::Because(format!("the duration {} is longer than 100 years", quote(text))),
        })
    }
}

/// A duration above 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeout(pub Duration);

impl FromText for Timeout {
    const KIND: Kind = Kind { name: "duration above 0", ..Duration::KIND };

    fn from_text(text: &str) -> Result<Self, Bad> {
        match Duration::from_text(text)? {
            Duration::ZERO => Err(Bad::Because(format!("must be longer than 0, found {}", quote(text)))),
            duration => Ok(Timeout(duration)),
        }
    }
}

/// Bytes, from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size<const MIN: u64, const MAX: u64 = { u64::MAX }>(pub u64);

impl<const MIN: u64, const MAX: u64> FromText for Size<MIN, MAX> {
    const KIND: Kind = Kind {
        name: "size",
        expected: "a size such as 64KiB, 512MiB or 10GB",
        pattern: r"^[0-9]+(B|[KMGT]iB|[kKMGT]B)$",
        numbers: true,
    };

    fn from_text(text: &str) -> Result<Self, Bad> {
        let bytes = units::size(text).map_err(|fault| match fault {
            Fault::Form => Bad::Form,
            Fault::NoUnit => Bad::Because(format!(
                "the size {} needs a unit: B, KiB, MiB, GiB or TiB, as in {}KiB",
                quote(text),
                cut(text)
            )),
            Fault::TooLarge => Bad::Because(format!("the size {} is more than 64 bits hold", quote(text))),
        })?;
        if bytes < MIN {
            return Err(Bad::Because(format!("must be at least {}, found {}", units::show_size(MIN), quote(text))));
        }
        if bytes > MAX {
            return Err(Bad::Because(format!("must be at most {}, found {}", units::show_size(MAX), quote(text))));
        }
        Ok(Size(bytes))
    }
}

/// The text of a number, short enough for an example.
fn cut(text: &str) -> &str {
    text.get(..12).unwrap_or(text)
}

/// A number of bytes, or no limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct SizeOrUnlimited(pub Option<u64>);

impl FromText for SizeOrUnlimited {
    const KIND: Kind = Kind {
        name: "size or `unlimited`",
        expected: "a size such as 64KiB or 10MiB, or unlimited",
        pattern: r"^(unlimited|[0-9]+(B|[KMGT]iB|[kKMGT]B))$",
        numbers: true,
    };

    fn from_text(text: &str) -> Result<Self, Bad> {
        match text {
            "unlimited" => Ok(SizeOrUnlimited(None)),
            _ => Size::<0>::from_text(text).map(|size| SizeOrUnlimited(Some(size.0))),
        }
    }
}

/// A number of threads; `None`: as many as there are cores.
#[derive(Clone, Copy, Debug)]
pub(super) struct Threads(pub Option<usize>);

impl Decode for Threads {
    fn decode(node: &Node, trail: &Trail<'_>, report: &mut Report) -> Option<Self> {
        match &node.value {
            Value::Text(text) if text == "auto" => return Some(Threads(None)),
            Value::Number(text) => {
                if let Some(n) = text.parse().ok().filter(|n| (1..=1024).contains(n)) {
                    return Some(Threads(Some(n)));
                }
            }
            _ => {}
        }
        let message = format!("expected auto or a number from 1 to 1024, found {}", node.found());
        report.error(&trail.place(node.mark), message);
        None
    }

    fn shape() -> Shape {
        Shape::Any(vec![Shape::Words(vec!["auto"]), Shape::Number { min: 1, max: 1024 }])
    }
}

/// A path of a file; a relative one starts at the configuration file's folder.
#[derive(Clone, Debug)]
pub(super) struct FilePath(pub PathBuf);

impl FromText for FilePath {
    const KIND: Kind = Kind { name: "path of a file", expected: "a path", pattern: "^.+$", numbers: false };

    fn from_text(text: &str) -> Result<Self, Bad> {
        match text {
            "" => Err(Bad::Because("the path is empty".to_owned())),
            _ if text.contains('\0') => Err(Bad::Form),
            _ => Ok(FilePath(PathBuf::from(text))),
        }
    }
}

/// Where the access log goes.
#[derive(Clone, Debug)]
pub(super) struct LogTarget(pub LogPath);

impl FromText for LogTarget {
    const KIND: Kind = Kind { name: "`stdout` or path of a file", expected: "stdout or a path", ..FilePath::KIND };

    fn from_text(text: &str) -> Result<Self, Bad> {
        match text {
            "stdout" => Ok(LogTarget(LogPath::Stdout)),
            _ => FilePath::from_text(text).map(|path| LogTarget(LogPath::File(path.0))),
        }
    }
}

/// An address or a network.
#[derive(Clone, Copy, Debug)]
pub(super) struct Network(pub IpNet);

impl FromText for Network {
    const KIND: Kind = Kind {
        name: "IP address or network",
        expected: "an IP address or network such as 10.0.0.0/8",
        pattern: "^[0-9A-Fa-f.:]+(/[0-9]+)?$",
        numbers: true,
    };

    fn from_text(text: &str) -> Result<Self, Bad> {
        let net: IpNet = match text.parse::<IpAddr>() {
            Ok(address) => address.into(),
            Err(_) => text.parse().map_err(|_| Bad::Form)?,
        };
        if net.trunc() != net {
            let message = format!("{} has bits beyond its prefix; did you mean `{}`?", quote(text), net.trunc());
            return Err(Bad::Because(message));
        }
        Ok(Network(net))
    }
}

/// Where to listen.
#[derive(Clone, Copy, Debug)]
pub(super) struct ListenAddress(pub SocketAddr);

impl FromText for ListenAddress {
    const KIND: Kind = Kind {
        name: "IP address and port",
        expected: "an IP address and a port such as 0.0.0.0:8080 or [::]:8080",
        pattern: r"^([0-9.]+|\[[0-9A-Fa-f:.%]+\]):[0-9]+$",
        numbers: true,
    };

    fn from_text(text: &str) -> Result<Self, Bad> {
        match text.parse::<SocketAddr>() {
            Ok(address) if address.port() == 0 => Err(Bad::Because(format!("the port of {} is 0", quote(text)))),
            Ok(address) => Ok(ListenAddress(address)),
            Err(_) => Err(Bad::Form),
        }
    }
}

impl FromText for AdminAddress {
    const KIND: Kind = Kind {
        name: "IP address and port, or `unix:PATH`",
        expected: "an IP address and a port such as 127.0.0.1:9180, or unix:PATH",
        pattern: r"^(unix:.+|([0-9.]+|\[[0-9A-Fa-f:.%]+\]):[0-9]+)$",
        numbers: true,
    };

    fn from_text(text: &str) -> Result<Self, Bad> {
        match text.strip_prefix("unix:") {
            Some(path) => FilePath::from_text(path).map(|path| AdminAddress::Unix(path.0)),
            None => ListenAddress::from_text(text).map(|address| AdminAddress::Tcp(address.0)),
        }
    }
}

/// Where a secret is to be found. The secret itself never stands in the file.
#[derive(Clone, Debug)]
pub(super) enum SecretRef {
    Env(String),
    File(PathBuf),
}

impl SecretRef {
    const KIND: Kind = Kind {
        name: "`env:NAME` or `file:PATH`",
        expected: "a secret's reference, env:NAME or file:PATH",
        pattern: "^(env:[A-Za-z_][A-Za-z0-9_]*|file:.+)$",
        numbers: false,
    };
}

/// Not by way of [`FromText`]: a secret that was written here by mistake must not be printed.
impl Decode for SecretRef {
    fn decode(node: &Node, trail: &Trail<'_>, report: &mut Report) -> Option<Self> {
        let place = trail.place(node.mark);
        if let Value::Text(text) = &node.value {
            if let Some(name) = text.strip_prefix("env:") {
                let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
                if !name.is_empty() && name.chars().all(word) && !name.starts_with(|c: char| c.is_ascii_digit()) {
                    return Some(SecretRef::Env(name.to_owned()));
                }
                report.error(&place, "expected the name of an environment variable after env:");
                return None;
            }
            if let Some(path) = text.strip_prefix("file:") {
                if !path.is_empty() && !path.contains('\0') {
                    return Some(SecretRef::File(PathBuf::from(path)));
                }
                report.error(&place, "expected a path after file:");
                return None;
            }
        }
        report.error(&place, "expected a secret's reference, env:NAME or file:PATH, never the secret itself");
        None
    }

    fn shape() -> Shape {
        Shape::Text(const { &SecretRef::KIND })
    }
}

impl Decode for LogFormat {
    fn decode(node: &Node, trail: &Trail<'_>, report: &mut Report) -> Option<Self> {
        let words = [("json", LogFormat::Json), ("combined", LogFormat::Combined)];
        word(node, trail, report, &words, &[])
    }

    fn shape() -> Shape {
        Shape::Words(vec!["json", "combined"])
    }
}

impl Decode for Balance {
    fn decode(node: &Node, trail: &Trail<'_>, report: &mut Report) -> Option<Self> {
        let later = ["least-requests", "ip-hash", "consistent-hash", "random"];
        word(node, trail, report, &[("round-robin", Balance::RoundRobin)], &later)
    }

    fn shape() -> Shape {
        Shape::Words(vec!["round-robin"])
    }
}

/// How logs and metrics call something.
#[derive(Clone, Debug)]
pub(super) struct Label(pub String);

impl FromText for Label {
    const KIND: Kind = Kind { name: "name", expected: "a name", pattern: "^.{1,128}$", numbers: false };

    fn from_text(text: &str) -> Result<Self, Bad> {
        match text {
            "" => Err(Bad::Because("the name is empty".to_owned())),
            _ if text.len() > LONGEST_LABEL => {
                Err(Bad::Because(format!("the name is longer than {LONGEST_LABEL} bytes")))
            }
            _ if text.contains(char::is_control) => Err(Bad::Because("a name holds no control characters".to_owned())),
            _ => Ok(Label(text.to_owned())),
        }
    }
}

/// The name of an origin.
#[derive(Clone, Debug)]
pub(super) struct OriginName(pub String);

impl FromText for OriginName {
    const KIND: Kind = Kind {
        name: "name of an origin",
        expected: "an origin's name of letters, digits, `-`, `_` and `.`",
        pattern: "^[A-Za-z0-9._-]{1,128}$",
        numbers: false,
    };

    fn from_text(text: &str) -> Result<Self, Bad> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        match text {
            "" => Err(Bad::Form),
            _ if text.len() > LONGEST_LABEL || !text.chars().all(fits) => Err(Bad::Form),
            _ => Ok(OriginName(text.to_owned())),
        }
    }
}

impl FromText for HostPattern {
    const KIND: Kind = Kind {
        name: "host name, `*.` and a host name, or `*`",
        expected: "a host name such as www.example.com, *.example.com or *",
        pattern: r"^(\*|(\*\.)?[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])$",
        numbers: false,
    };

    fn from_text(text: &str) -> Result<Self, Bad> {
        match text.strip_prefix('*') {
            Some("") => Ok(HostPattern::Any),
            Some(rest) => match rest.strip_prefix('.') {
                Some(name) if !name.starts_with('[') => Ok(HostPattern::Wildcard(format!(".{}", host_name(name)?))),
                _ => Err(Bad::Because(format!("{}: a wildcard is `*` alone or `*.` before a name", quote(text)))),
            },
            None => host_name(text).map(HostPattern::Exact),
        }
    }
}

/// A host's name in lower case, without a trailing dot; or an IP address in its usual form.
fn host_name(text: &str) -> Result<String, Bad> {
    let because = |what: &str| Err(Bad::Because(format!("{}: {what}", quote(text))));
    if let Some(inner) = text.strip_prefix('[') {
        return match inner.split_once(']') {
            Some((address, "")) => match address.parse::<Ipv6Addr>() {
                Ok(address) => Ok(format!("[{address}]")),
                Err(_) => Err(Bad::Form),
            },
            Some((address, port)) if port.starts_with(':') => {
                because(&format!("a host is named without its port; did you mean `[{address}]`?"))
            }
            _ => Err(Bad::Form),
        };
    }
    if let Some((_, rest)) = text.split_once("://") {
        let name = rest.split(['/', ':']).next().unwrap_or_default();
        return because(&format!("a host is named without a scheme; did you mean `{name}`?"));
    }
    if let Some((name, _)) = text.split_once('/') {
        return because(&format!("a host is named without a path; did you mean `{name}`?"));
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return because(&format!("an IPv6 address is written in brackets: `[{text}]`"));
    }
    if let Some((name, port)) = text.rsplit_once(':') {
        return if port.bytes().all(|b| b.is_ascii_digit()) {
            because(&format!("a host is named without its port; did you mean `{name}`?"))
        } else {
            Err(Bad::Form)
        };
    }
    if !text.is_ascii() {
        return because("an internationalised name is written in its ASCII form (`xn--…`)");
    }
    if text.contains('*') {
        return because("`*` stands only at the start, before a dot");
    }
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let label = |label: &str| {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(fits) && !label.starts_with('-') && !label.ends_with('-')
    };
    if name.len() > 253 || !name.split('.').all(label) {
        return Err(Bad::Form);
    }
    Ok(name)
}

impl FromText for ServerAddress {
    const KIND: Kind = Kind {
        name: "address and port",
        expected: "a server such as 10.0.0.1:80, [::1]:80 or app.internal:80",
        pattern: r"^([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.%]+\]):[0-9]+$",
        numbers: true,
    };

    fn from_text(text: &str) -> Result<Self, Bad> {
        let because = |what: String| Err(Bad::Because(format!("{}: {what}", quote(text))));
        if let Some((scheme, rest)) = text.split_once("://") {
            let port = if scheme.eq_ignore_ascii_case("https") { 443 } else { 80 };
            let name = rest.split('/').next().unwrap_or_default();
            let port = if name.contains(':') { String::new() } else { format!(":{port}") };
            return because(format!("a server has no scheme; did you mean `{name}{port}`?"));
        }
        if text.contains('/') {
            return because("a server has no path".to_owned());
        }
        if text.parse::<Ipv6Addr>().is_ok() {
            return because(format!("an IPv6 address is written in brackets, with a port: `[{text}]:80`"));
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return match address.port() {
                0 => because("the port is 0".to_owned()),
                _ => Ok(ServerAddress::Socket(address)),
            };
        }
        let Some((name, port)) = text.rsplit_once(':') else {
            return match host_name(text) {
                Ok(name) => because(format!("a server needs a port, as in `{name}:80`")),
                Err(_) => Err(Bad::Form),
            };
        };
        let host = host_name(name)?;
        if host.starts_with('[') || looks_numeric(&host) {
            return Err(Bad::Form);
        }
        match port.parse::<u16>() {
            Ok(0) => because("the port is 0".to_owned()),
            Ok(port) => Ok(ServerAddress::Name { host, port }),
            Err(_) => because("a port is a number from 1 to 65535".to_owned()),
        }
    }
}

/// A name whose last label is a number is a mistaken IP address: no such name can be registered.
fn looks_numeric(host: &str) -> bool {
    host.rsplit('.').next().is_some_and(|label| label.bytes().all(|b| b.is_ascii_digit()))
}

impl FromText for HostHeader {
    const KIND: Kind = Kind {
        name: "`client`, `server` or a host name",
        expected: "client, server or a host name",
        pattern: r"^([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?$",
        numbers: false,
    };

    fn from_text(text: &str) -> Result<Self, Bad> {
        match text {
            "client" => Ok(HostHeader::Client),
            "server" => Ok(HostHeader::Server),
            _ => authority(text).map(HostHeader::Fixed),
        }
    }
}

/// The Host of a health probe.
#[derive(Clone, Debug)]
pub(super) struct ProbeHost(pub String);

impl FromText for ProbeHost {
    const KIND: Kind = Kind { name: "host name", expected: "a host name such as www.example.com", ..HostHeader::KIND };

    fn from_text(text: &str) -> Result<Self, Bad> {
        authority(text).map(ProbeHost)
    }
}

/// A host's name, with or without a port.
fn authority(text: &str) -> Result<String, Bad> {
    if let Some((name, port)) = text.rsplit_once(':')
        && !name.contains("//")
        && !text.ends_with(']')
        && let Ok(port) = port.parse::<u16>()
        && port > 0
    {
        return Ok(format!("{}:{port}", host_name(name)?));
    }
    host_name(text)
}

/// The path that a health probe asks for.
#[derive(Clone, Debug)]
pub(super) struct ProbePath(pub String);

impl FromText for ProbePath {
    const KIND: Kind = Kind { name: "path", expected: "a path such as /healthz", pattern: "^/[!-~]*$", numbers: false };

    fn from_text(text: &str) -> Result<Self, Bad> {
        match text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic()) && !text.contains('#') {
            true => Ok(ProbePath(text.to_owned())),
            false => Err(Bad::Form),
        }
    }
}

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
pub(super) struct Extension(pub String);

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
pub(super) struct Method(pub String);

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
pub(super) struct FieldName(pub String);

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

/// The name of a cookie.
#[derive(Clone, Debug)]
pub(super) struct CookieName(pub String);

impl FromText for CookieName {
    const KIND: Kind = Kind { name: "cookie's name", expected: "a cookie's name such as lang", ..FieldName::KIND };

    fn from_text(text: &str) -> Result<Self, Bad> {
        // A token like a field's name (RFC 6265 §4.1.1), but case-sensitive.
        text.parse::<HeaderName>().map(|_| CookieName(text.to_owned())).map_err(|_| Bad::Form)
    }
}

/// The name of a query parameter.
#[derive(Clone, Debug)]
pub(super) struct ParameterName(pub String);

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
pub(super) struct ParameterPattern(pub String);

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
pub(super) struct Status(pub u16);

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
pub(super) struct Expectation(pub ValueMatch);

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

/// A server with or without a weight.
#[derive(Clone, Debug)]
pub(super) enum ServerEntry {
    Address(ServerAddress),
    Keys(Server),
}

impl Decode for ServerEntry {
    fn decode(node: &Node, trail: &Trail<'_>, report: &mut Report) -> Option<Self> {
        match node.value {
            Value::Map(_) => Server::decode(node, trail, report).map(ServerEntry::Keys),
            _ => ServerAddress::decode(node, trail, report).map(ServerEntry::Address),
        }
    }

    fn shape() -> Shape {
        Shape::Any(vec![ServerAddress::shape(), Server::shape()])
    }
}

/// The access log, or none.
#[derive(Clone, Debug)]
pub(super) enum AccessLogChoice {
    Off,
    Keys(AccessLog),
}

impl Decode for AccessLogChoice {
    fn decode(node: &Node, trail: &Trail<'_>, report: &mut Report) -> Option<Self> {
        match &node.value {
            Value::Map(_) => AccessLog::decode(node, trail, report).map(AccessLogChoice::Keys),
            Value::Bool(false) => Some(AccessLogChoice::Off),
            Value::Text(text) if text == "off" => Some(AccessLogChoice::Off),
            _ => {
                let message = format!("expected `off` or a mapping, found {}", node.found());
                report.error(&trail.place(node.mark), message);
                None
            }
        }
    }

    fn shape() -> Shape {
        Shape::Any(vec![Shape::Words(vec!["off"]), AccessLog::shape()])
    }
}

/// Whether and how to cache.
#[derive(Clone, Debug)]
pub(super) enum CacheChoice {
    Off,
    On,
    Keys(Box<Cache>),
}

impl Decode for CacheChoice {
    fn decode(node: &Node, trail: &Trail<'_>, report: &mut Report) -> Option<Self> {
        match &node.value {
            Value::Map(_) => Cache::decode(node, trail, report).map(|keys| CacheChoice::Keys(Box::new(keys))),
            Value::Bool(false) => Some(CacheChoice::Off),
            Value::Bool(true) => Some(CacheChoice::On),
            Value::Text(text) if text == "off" => Some(CacheChoice::Off),
            Value::Text(text) if text == "on" => Some(CacheChoice::On),
            _ => {
                let message = format!("expected `on`, `off` or a mapping, found {}", node.found());
                report.error(&trail.place(node.mark), message);
                None
            }
        }
    }

    fn shape() -> Shape {
        Shape::Any(vec![Shape::Words(vec!["on", "off"]), Cache::shape()])
    }
}

/// Which query parameters are part of the key.
#[derive(Clone, Debug)]
pub(super) enum QueryChoice {
    All,
    None,
    Only(List<ParameterName>),
    Ignore(List<ParameterPattern>),
}

impl Decode for QueryChoice {
    fn decode(node: &Node, trail: &Trail<'_>, report: &mut Report) -> Option<Self> {
        match &node.value {
            Value::Text(text) if text == "all" => Some(QueryChoice::All),
            Value::Text(text) if text == "none" => Some(QueryChoice::None),
            Value::Map(entries) => {
                let lists = QueryLists::decode(node, trail, report)?;
                let given = |name: &str| entries.iter().any(|e| e.key == name);
                match (lists.only, lists.ignore) {
                    (Some(only), None) if !given("ignore") => Some(QueryChoice::Only(only.value)),
                    (None, Some(ignore)) if !given("only") => Some(QueryChoice::Ignore(ignore.value)),
                    _ if given("only") && given("ignore") => {
                        report.error(&trail.place(node.mark), "`only` and `ignore` exclude each other");
                        None
                    }
                    // A list that is given and wrong has been reported.
                    _ if given("only") || given("ignore") => None,
                    _ => {
                        report.error(&trail.place(node.mark), "the key `only` or `ignore` is missing");
                        None
                    }
                }
            }
            _ => {
                let message =
                    format!("expected `all`, `none`, {{only: [...]}} or {{ignore: [...]}}, found {}", node.found());
                report.error(&trail.place(node.mark), message);
                None
            }
        }
    }

    fn shape() -> Shape {
        Shape::Any(vec![Shape::Words(vec!["all", "none"]), QueryLists::shape()])
    }
}
