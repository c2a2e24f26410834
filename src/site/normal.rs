//! One spelling for each resource: hosts, paths and queries in normal form.
//!
//! Matching and the cache key both work on the normal form, so they never disagree. Each function borrows when its
//! input is normal already, and normalising twice changes nothing.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::net::Ipv6Addr;

/// Longest host name, RFC 1035 §2.3.4 (255 octets on the wire are 253 characters of text).
const MAX_HOST: usize = 253;
/// Longest label of a host name, RFC 1035 §2.3.4.
const MAX_LABEL: usize = 63;

/// Why a host is refused. The edge answers 400 (RFC 9112 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHost {
    /// No host at all.
    Empty,
    /// Not a letter, digit, `-`, `_` or `.` in a name.
    Character,
    /// An empty label, or one that is longer than 63 characters.
    Label,
    /// More than 253 characters.
    TooLong,
    /// After the colon: not a number from 0 to 65535.
    Port,
    /// Not an IPv6 address between brackets, or something other than a port after them.
    Ipv6,
}

impl BadHost {
    /// A short reason for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            BadHost::Empty => "the host is empty",
            BadHost::Character => "the host holds an invalid character",
            BadHost::Label => "the host holds an empty or too long label",
            BadHost::TooLong => "the host is too long",
            BadHost::Port => "the host's port is not a port number",
            BadHost::Ipv6 => "the host is not a valid IPv6 literal",
        }
    }
}

impl fmt::Display for BadHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for BadHost {}

/// A Host field or authority in normal form: lower case, without port and without the root's trailing dot.
///
/// IPv6 literals keep their brackets and take the form of RFC 5952. Names are letters, digits, `-`, `_` and `.`:
/// nothing else names a host on the web, and whatever is let through here ends up in keys and logs.
///
/// # Errors
/// [`BadHost`] for anything that is not one host with an optional port: userinfo, percent-encoding, zone identifiers
/// and non-ASCII characters included.
pub fn normalise_host(host: &str) -> Result<Cow<'_, str>, BadHost> {
    if host.starts_with('[') {
        return ipv6(host);
    }
    let name = match host.split_once(':') {
        Some((name, port)) => {
            check_port(port)?;
            name
        }
        None => host,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        return Err(BadHost::Empty);
    }
    if name.len() > MAX_HOST {
        return Err(BadHost::TooLong);
    }
    let (mut label, mut upper) = (0, false);
    for byte in name.bytes() {
        match byte {
            b'.' if label == 0 => return Err(BadHost::Label),
            b'.' => {
                label = 0;
                continue;
            }
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => {}
            b'A'..=b'Z' => upper = true,
            _ => return Err(BadHost::Character),
        }
        label += 1;
        if label > MAX_LABEL {
            return Err(BadHost::Label);
        }
    }
    if label == 0 {
        return Err(BadHost::Label);
    }
    Ok(if upper { Cow::Owned(name.to_ascii_lowercase()) } else { Cow::Borrowed(name) })
}

/// Host and port as one text in normal form, without a port that the scheme has by default; and how much of it is the
/// host.
///
/// What a client says of the port reaches the origin, which may well answer with URLs that have it: so it is in the key.
///
/// # Errors
/// As [`normalise_host`].
pub fn normalise_authority(text: &str, default_port: u16) -> Result<(Cow<'_, str>, usize), BadHost> {
    let name = normalise_host(text)?;
    let length = name.len();
    let from = text.rfind(']').unwrap_or(0);
    let port = text[from..].rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    let Some(port) = port.filter(|port| *port != default_port) else { return Ok((name, length)) };
    let mut remaining = Unmatched(text);
    if write!(remaining, "{name}:{port}").is_ok() && remaining.0.is_empty() {
        return Ok((Cow::Borrowed(text), length));
    }
    Ok((Cow::Owned(format!("{name}:{port}")), length))
}

/// A path in normal form (RFC 3986 §6.2.2): encoded unreserved characters are decoded, the hex digits of the others
/// are upper case, dot segments are removed (encoded ones too), and it begins with a slash.
///
/// - An encoded slash stays encoded: it is data within a segment.
/// - Repeated slashes are kept: to an origin, `/a//b` may well be another resource than `/a/b`.
/// - A `%` without two hex digits is kept as it is, and so is whatever is encoded within its reach, so that no
///   decoding can turn it into a valid sequence: `/%%32F` must not become `/%2F`.
/// - `*`, the target of a server-wide OPTIONS, stays `*`.
/// - `..` never leads above the root.
pub fn normalise_path(path: &str) -> Cow<'_, str> {
    if path == "*" {
        return Cow::Borrowed(path);
    }
    match decode_unreserved(path) {
        Cow::Borrowed(path) if is_plain_path(path) => Cow::Borrowed(path),
        decoded => Cow::Owned(remove_dot_segments(&decoded)),
    }
}

/// Whether [`normalise_path`] removes segments: then the normal form does not only write the same path in another way, and
/// a server that does not do so itself would take the two for different resources.
pub fn has_dot_segments(path: &str) -> bool {
    decode_unreserved(path).split('/').any(is_dot_segment)
}

/// How servers could read a path in normal form, beside as it stands: as one that takes several slashes for one, that decodes
/// slashes (and takes a backslash for one), that cuts parameters (`;…`) off segments, and in each mix of these; with the dot
/// segments that come of it resolved. Nearly always none.
pub fn other_readings(path: &str) -> impl Iterator<Item = String> + '_ {
    let encoded = || memchr::memchr(b'%', path.as_bytes()).is_some() && (path.contains("%2F") || path.contains("%5C"));
    let ambiguous = memchr::memchr2(b'\\', b';', path.as_bytes()).is_some() || path.contains("//") || encoded();
    let mixes = if ambiguous { 1..8u8 } else { 0..0 };
    mixes.map(move |mix| read_as(path, mix & 1 != 0, mix & 2 != 0, mix & 4 != 0)).filter(move |read| read != path)
}

fn read_as(path: &str, merges: bool, decodes: bool, cuts: bool) -> String {
    let mut read = String::with_capacity(path.len() + 1);
    for segment in path.split_inclusive('/') {
        let (name, slash) = segment.strip_suffix('/').map_or((segment, ""), |name| (name, "/"));
        read.push_str(if cuts { name.split(';').next().unwrap_or(name) } else { name });
        read.push_str(slash);
    }
    if decodes {
        read = read.replace("%2F", "/").replace("%5C", "/").replace('\\', "/");
    }
    if merges {
        let mut after_slash = false;
        read.retain(|c| {
            let extra = c == '/' && after_slash;
            after_slash = c == '/';
            !extra
        });
    }
    if is_plain_path(&read) { read } else { remove_dot_segments(&read) }
}

/// A query (without its `?`) in normal form: as for a path, but dots and slashes mean nothing here. The order of the
/// parameters is kept, and `+` is left alone.
pub fn normalise_query(query: &str) -> Cow<'_, str> {
    decode_unreserved(query)
}

/// The bytes of `text` with every valid percent sequence decoded: for comparing, never for sending.
pub fn decoded(text: &str) -> impl Iterator<Item = u8> + '_ {
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        let byte = *bytes.get(at)?;
        match encoded_at(bytes, at) {
            Some(value) => {
                at += 3;
                Some(value)
            }
            None => {
                at += 1;
                Some(byte)
            }
        }
    })
}

fn ipv6(host: &str) -> Result<Cow<'_, str>, BadHost> {
    let end = host.find(']').ok_or(BadHost::Ipv6)?;
    let (literal, rest) = host.split_at(end + 1);
    match rest.strip_prefix(':') {
        Some(port) => check_port(port)?,
        None if rest.is_empty() => {}
        None => return Err(BadHost::Ipv6),
    }
    let address: Ipv6Addr = literal[1..end].parse().map_err(|_| BadHost::Ipv6)?;
    let mut remaining = Unmatched(literal);
    if write!(remaining, "[{address}]").is_ok() && remaining.0.is_empty() {
        return Ok(Cow::Borrowed(literal));
    }
    Ok(Cow::Owned(format!("[{address}]")))
}

/// RFC 3986 §3.2.3 allows an empty port.
fn check_port(port: &str) -> Result<(), BadHost> {
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    if digits && (port.is_empty() || port.parse::<u16>().is_ok()) { Ok(()) } else { Err(BadHost::Port) }
}

/// Compares what is written with a text, without a buffer.
struct Unmatched<'a>(&'a str);

impl Write for Unmatched<'_> {
    fn write_str(&mut self, written: &str) -> fmt::Result {
        self.0 = self.0.strip_prefix(written).ok_or(fmt::Error)?;
        Ok(())
    }
}

fn is_plain_path(path: &str) -> bool {
    path.starts_with('/') && !path.split('/').any(is_dot_segment)
}

fn is_dot_segment(segment: &str) -> bool {
    matches!(segment, "." | "..")
}

/// RFC 3986 §5.2.4, on whole segments.
fn remove_dot_segments(path: &str) -> String {
    let mut out = String::with_capacity(path.len() + 1);
    let mut segments = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    while let Some(segment) = segments.next() {
        if is_dot_segment(segment) {
            if segment == ".." {
                out.truncate(out.rfind('/').unwrap_or(0));
            }
            // `/a/..` and `/a/.` name directories: the slash stays.
            if segments.peek().is_none() {
                out.push('/');
            }
        } else {
            out.push('/');
            out.push_str(segment);
        }
    }
    out
}

fn decode_unreserved(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let mut out = String::new();
    // Up to here, `text` is copied to `out`.
    let mut copied = 0;
    // Sequences that begin before this position stand in the reach of a stray `%`.
    let mut reach = 0;
    let mut at = 0;
    while let Some(offset) = bytes.get(at..).and_then(|rest| rest.iter().position(|&byte| byte == b'%')) {
        at += offset;
        let Some(value) = encoded_at(bytes, at) else {
            reach = at + 3;
            at += 1;
            continue;
        };
        let digits = &text[at + 1..at + 3];
        if is_unreserved(value) && at >= reach {
            out.push_str(&text[copied..at]);
            out.push(char::from(value));
            copied = at + 3;
        } else if digits.bytes().any(|digit| digit.is_ascii_lowercase()) {
            out.push_str(&text[copied..=at]);
            out.extend(digits.chars().map(|digit| digit.to_ascii_uppercase()));
            copied = at + 3;
        }
        at += 3;
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[copied..]);
    Cow::Owned(out)
}

/// The value of the percent sequence at `at`, if there is a valid one.
pub(super) fn encoded_at(bytes: &[u8], at: usize) -> Option<u8> {
    match bytes.get(at..at + 3)? {
        [b'%', high, low] => {
            let (high, low) = (char::from(*high).to_digit(16)?, char::from(*low).to_digit(16)?);
            u8::try_from(high * 16 + low).ok()
        }
        _ => None,
    }
}

/// RFC 3986 §2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn host(text: &str) -> String {
        normalise_host(text).unwrap().into_owned()
    }

    #[test]
    fn hosts_lose_case_port_and_trailing_dot() {
        assert_eq!(host("example.com"), "example.com");
        assert_eq!(host("EXAMPLE.com:80"), "example.com");
        assert_eq!(host("example.com:8080"), "example.com");
        assert_eq!(host("example.com.:443"), "example.com");
        assert_eq!(host("example.com:"), "example.com");
        assert_eq!(host("my_host-1"), "my_host-1");
        assert_eq!(host("127.0.0.1:9000"), "127.0.0.1");
    }

    #[test]
    fn dot_segments_are_whole_segments() {
        for path in ["/a/../b", "/./a", "/a/..", "/.", "/a/%2e%2E/b", "/a/.%2e"] {
            assert!(has_dot_segments(path), "{path}");
        }
        for path in ["/", "/a.b/..c/d..", "/...", "*", "/a//b", "/a%2F..%2Fb"] {
            assert!(!has_dot_segments(path), "{path}");
        }
    }

    #[test]
    fn a_path_can_be_read_in_several_ways() {
        for (path, read) in [
            ("//video/x", "/video/x"),
            ("/video%2Fx", "/video/x"),
            ("/video\\x", "/video/x"),
            ("/video%5Cx", "/video/x"),
            ("/video;a=1/x", "/video/x"),
            ("/public/..%2Fvideo/x", "/video/x"),
            ("/public/..%2F%2Fvideo/x", "/video/x"),
            ("/public/..;/video/x", "/video/x"),
            // Resolving more than a server does must not lead past what it finds.
            ("/public/..%2Fvideo//..%2Fx", "/video/x"),
            ("//video/x%2F..%2F..", "/video/x%2F..%2F.."),
        ] {
            assert!(other_readings(path).any(|other| other == read), "{path}");
        }
        for plain in ["/", "/video/x", "/100%25", "/caf%C3%A9", "*"] {
            assert_eq!(other_readings(plain).count(), 0, "{plain}");
        }
    }

    #[test]
    fn ipv6_literals_keep_their_brackets_and_have_one_spelling() {
        assert_eq!(host("[::1]"), "[::1]");
        assert_eq!(host("[::1]:8080"), "[::1]");
        assert_eq!(host("[2001:DB8:0:0::1]"), "[2001:db8::1]");
        assert!(matches!(normalise_host("[2001:db8::1]:443"), Ok(Cow::Borrowed("[2001:db8::1]"))));
        for bad in ["[::1", "[::1]x", "[]", "[::1%25eth0]", "[1.2.3.4]", "[::1]:x", "[::1]]"] {
            assert!(normalise_host(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_port_stays_unless_it_is_the_default() {
        for (text, expected, host) in [
            ("a.test", "a.test", "a.test"),
            ("a.test:80", "a.test", "a.test"),
            ("a.test:", "a.test", "a.test"),
            ("A.Test.:080", "a.test", "a.test"),
            ("a.test:8080", "a.test:8080", "a.test"),
            ("A.TEST.:08080", "a.test:8080", "a.test"),
            ("a.test:443", "a.test:443", "a.test"),
            ("[::1]", "[::1]", "[::1]"),
            ("[::1]:80", "[::1]", "[::1]"),
            ("[0::1]:81", "[::1]:81", "[::1]"),
        ] {
            let (authority, length) = normalise_authority(text, 80).unwrap();
            assert_eq!((&*authority, &authority[..length]), (expected, host), "{text}");
        }
        assert!(matches!(normalise_authority("a.test:8080", 80), Ok((Cow::Borrowed(_), 6))));
        assert!(normalise_authority("a.test:99999", 80).is_err());
    }

    #[test]
    fn what_is_no_host_is_refused() {
        let long_label = "a".repeat(64);
        let long_host = ["a"; 128].join(".");
        let cases = [
            ("", BadHost::Empty),
            (".", BadHost::Empty),
            (":80", BadHost::Empty),
            ("a..b", BadHost::Label),
            (".a", BadHost::Label),
            ("a..", BadHost::Label),
            ("user@host", BadHost::Character),
            ("a/b", BadHost::Character),
            ("a b", BadHost::Character),
            ("a%2eb", BadHost::Character),
            ("bücher.example", BadHost::Character),
            ("a,b", BadHost::Character),
            ("host:port", BadHost::Port),
            ("host:65536", BadHost::Port),
            ("host:+80", BadHost::Port),
            ("host:80:80", BadHost::Port),
            ("::1", BadHost::Port),
            (long_label.as_str(), BadHost::Label),
            (long_host.as_str(), BadHost::TooLong),
        ];
        for (text, reason) in cases {
            assert_eq!(normalise_host(text), Err(reason), "{text}");
        }
    }

    #[test]
    fn percent_encoding_has_one_spelling() {
        assert_eq!(normalise_path("/%7Euser/%41%2d%5F"), "/~user/A-_");
        assert_eq!(normalise_path("/a%2fb%3a"), "/a%2Fb%3A");
        assert_eq!(normalise_path("/%c3%a9"), "/%C3%A9");
        assert_eq!(normalise_query("q=%61+%2B&b=%2f%2E."), "q=a+%2B&b=%2F..");
    }

    #[test]
    fn dot_segments_go_and_never_lead_above_the_root() {
        let cases = [
            ("/a/b/c/./../../g", "/a/g"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/../../etc/passwd", "/etc/passwd"),
            ("/%2e%2E/x", "/x"),
            ("/a/.%2e/x", "/x"),
            ("/a//../b", "/a/b"),
            ("/a//b", "/a//b"),
            ("//", "//"),
            ("/..a/b..", "/..a/b.."),
            ("/...", "/..."),
            ("/..%2Fetc", "/..%2Fetc"),
            ("", "/"),
            ("a/../b", "/b"),
            ("*", "*"),
        ];
        for (path, normal) in cases {
            assert_eq!(normalise_path(path), normal, "{path}");
        }
    }

    #[test]
    fn an_invalid_sequence_is_kept_and_never_completed() {
        for path in ["/%", "/%2", "/%zz", "/100%", "/%%", "/%é"] {
            assert_eq!(normalise_path(path), path);
        }
        // Decoding would forge `%2F`, which is another resource.
        assert_eq!(normalise_path("/%%32F"), "/%%32F");
        assert_eq!(normalise_path("/%2%46"), "/%2%46");
        assert_eq!(normalise_path("/%%32%46"), "/%%32F");
        // Beyond its reach, decoding goes on.
        assert_eq!(normalise_path("/%zz%41"), "/%zzA");
    }

    #[test]
    fn normal_input_is_borrowed() {
        for path in ["/", "/a/b.png", "/a%2Fb", "/a//b/", "/.hidden/..x", "/%C3%A9", "*"] {
            assert!(matches!(normalise_path(path), Cow::Borrowed(_)), "{path}");
        }
        assert!(matches!(normalise_query("a=1&b=%2F"), Cow::Borrowed(_)));
        assert!(matches!(normalise_host("www.example.com:8080"), Ok(Cow::Borrowed("www.example.com"))));
    }

    /// Text that is rich in what these rules look at.
    fn awkward() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            "[/.%]",
            "%[0-9a-fA-F]{2}",
            "%2[eEfF]",
            "%[0-9a-fA-F]",
            "%%3[0-9]",
            "[a-zA-Z0-9é~+&=]{1,3}",
            Just("/../".to_owned()),
            Just("/./".to_owned()),
        ];
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    /// RFC 3986 equivalence, as far as it matters here: every valid sequence decoded, strays marked.
    fn meaning(text: &str) -> Vec<(u8, bool)> {
        let bytes = text.as_bytes();
        let (mut at, mut out) = (0, Vec::new());
        while let Some(&byte) = bytes.get(at) {
            match encoded_at(bytes, at) {
                Some(value) => {
                    out.push((value, !is_unreserved(value)));
                    at += 3;
                }
                None => {
                    out.push((byte, false));
                    at += 1;
                }
            }
        }
        out
    }

    proptest! {
        #[test]
        fn normalising_a_path_twice_changes_nothing(tail in awkward()) {
            let path = format!("/{tail}");
            let once = normalise_path(&path).into_owned();
            prop_assert!(once.starts_with('/'));
            prop_assert!(!once.split('/').any(is_dot_segment), "{once}");
            prop_assert!(matches!(normalise_path(&once), Cow::Borrowed(text) if text == once), "{once}");
        }

        #[test]
        fn normalising_a_query_twice_changes_nothing(query in awkward()) {
            let once = normalise_query(&query).into_owned();
            prop_assert!(matches!(normalise_query(&once), Cow::Borrowed(text) if text == once), "{once}");
        }

        #[test]
        fn normalising_keeps_the_meaning(query in awkward()) {
            prop_assert_eq!(meaning(&normalise_query(&query)), meaning(&query));
        }

        #[test]
        fn normalising_a_host_twice_changes_nothing(text in "[a-zA-Z0-9.:_-]{0,20}|\\[[0-9a-fA-F:]{2,12}\\](:[0-9]{1,4})?") {
            if let Ok(once) = normalise_host(&text) {
                prop_assert!(matches!(normalise_host(&once), Ok(Cow::Borrowed(again)) if again == once));
            }
        }
    }
}
