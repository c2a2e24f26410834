//! What a purge is about.

use std::fmt::{self, Write};

use serde_json::{Value, json};

/// What is purged. All text is in normal form: as it stands in the keys of what is stored.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Selector {
    /// All that is stored.
    Everything,
    /// All of a site, by its name.
    Site(Box<str>),
    /// All of a host. Without a port, on whatever port it was asked for.
    Host(Box<str>),
    /// All whose path begins so. Without a port in the host, on whatever port.
    Prefix {
        host: Box<str>,
        /// Begins with a `/`. No query.
        path: Box<str>,
        /// The path may go on within a segment: `/a` is a prefix of `/ab`. Else it is one of `/a`, `/a/` and what is
        /// below, but not of `/ab`; and `/a/` is none of `/a`.
        raw: bool,
    },
    /// One URL in all its variants.
    Url {
        /// With the port, where that is not the scheme's own.
        host: Box<str>,
        path: Box<str>,
        /// What of it is in the key; `None`: none, as without a `?`.
        query: Option<Box<str>>,
    },
    /// All that has a tag.
    Tag(Box<str>),
    /// All of a host and port that is in a group (RFC 9875).
    Group { host: Box<str>, name: Box<str> },
}

impl Selector {
    /// As the admin API shows it: `{"tag": "x"}`, `{"prefix": "h/a", "raw": true}`. What a request can purge has the
    /// form in which one asks for it.
    pub fn to_json(&self) -> Value {
        match self {
            Selector::Everything => json!({ "everything": true }),
            Selector::Site(name) => json!({ "site": name }),
            Selector::Host(host) => json!({ "host": host }),
            Selector::Prefix { host, path, raw } => json!({ "prefix": format!("{host}{path}"), "raw": raw }),
            Selector::Url { host, path, query } => json!({ "url": url(host, path, query.as_deref()) }),
            Selector::Tag(tag) => json!({ "tag": tag }),
            Selector::Group { host, name } => json!({ "group": name, "host": host }),
        }
    }

    /// The same with texts that are no longer than is worth showing.
    pub fn shortened(&self) -> Selector {
        match self {
            Selector::Everything => Selector::Everything,
            Selector::Site(name) => Selector::Site(shortened(name)),
            Selector::Host(host) => Selector::Host(shortened(host)),
            Selector::Prefix { host, path, raw } => {
                Selector::Prefix { host: shortened(host), path: shortened(path), raw: *raw }
            }
            Selector::Url { host, path, query } => {
                Selector::Url { host: shortened(host), path: shortened(path), query: query.as_deref().map(shortened) }
            }
            Selector::Tag(tag) => Selector::Tag(shortened(tag)),
            Selector::Group { host, name } => Selector::Group { host: shortened(host), name: shortened(name) },
        }
    }

    /// Appends it: a byte for its kind, then its fields in order. A text is its length and its bytes, and what may be
    /// absent or is true or false has a byte before it that says so.
    pub fn encode(&self, to: &mut Vec<u8>) {
        match self {
            Selector::Everything => to.push(EVERYTHING),
            Selector::Site(name) => {
                to.push(SITE);
                write_text(name, to);
            }
            Selector::Host(host) => {
                to.push(HOST);
                write_text(host, to);
            }
            Selector::Prefix { host, path, raw } => {
                to.push(PREFIX);
                write_text(host, to);
                write_text(path, to);
                to.push(u8::from(*raw));
            }
            Selector::Url { host, path, query } => {
                to.push(URL);
                write_text(host, to);
                write_text(path, to);
                to.push(u8::from(query.is_some()));
                query.iter().for_each(|query| write_text(query, to));
            }
            Selector::Tag(tag) => {
                to.push(TAG);
                write_text(tag, to);
            }
            Selector::Group { host, name } => {
                to.push(GROUP);
                write_text(host, to);
                write_text(name, to);
            }
        }
    }

    /// Reads what [`encode`](Selector::encode) wrote, and leaves what follows it; `None` for anything else, and nothing
    /// is taken then. Only the framing is judged, not whether the texts are in normal form.
    pub fn decode(from: &mut &[u8]) -> Option<Selector> {
        let mut rest = *from;
        let selector = match read_byte(&mut rest)? {
            EVERYTHING => Selector::Everything,
            SITE => Selector::Site(read_text(&mut rest)?),
            HOST => Selector::Host(read_text(&mut rest)?),
            PREFIX => Selector::Prefix {
                host: read_text(&mut rest)?,
                path: read_text(&mut rest)?,
                raw: read_bool(&mut rest)?,
            },
            URL => Selector::Url {
                host: read_text(&mut rest)?,
                path: read_text(&mut rest)?,
                query: match read_bool(&mut rest)? {
                    true => Some(read_text(&mut rest)?),
                    false => None,
                },
            },
            TAG => Selector::Tag(read_text(&mut rest)?),
            GROUP => Selector::Group { host: read_text(&mut rest)?, name: read_text(&mut rest)? },
            _ => return None,
        };
        *from = rest;
        Some(selector)
    }
}

/// For people, on one line: `tag news`, `url http://h/a?b`, `prefix h/a/ (raw)`.
/// A text cut after so many bytes as are worth showing.
fn shortened(text: &str) -> Box<str> {
    const SHOWN: usize = 256;
    if text.len() <= SHOWN {
        return text.into();
    }
    let mut end = SHOWN;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end]).into()
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Selector::Everything => f.write_str("everything"),
            Selector::Site(name) => write!(f, "site {}", Shown(name)),
            Selector::Host(host) => write!(f, "host {}", Shown(host)),
            Selector::Prefix { host, path, raw } => {
                write!(f, "prefix {}{}{}", Shown(host), Shown(path), if *raw { " (raw)" } else { "" })
            }
            Selector::Url { host, path, query } => write!(f, "url {}", Shown(&url(host, path, query.as_deref()))),
            Selector::Tag(tag) => write!(f, "tag {}", Shown(tag)),
            Selector::Group { host, name } => write!(f, "group {} of {}", Shown(name), Shown(host)),
        }
    }
}

/// The scheme by which a URL with this host, as it is in keys, comes to have it: the port 80 is in a key only where it
/// is not the scheme's own.
pub fn scheme_of(host: &str) -> &'static str {
    if host.ends_with(":80") { "https" } else { "http" }
}

// These bytes are on disk: none is ever given another meaning.
const EVERYTHING: u8 = 1;
const SITE: u8 = 2;
const HOST: u8 = 3;
const PREFIX: u8 = 4;
const URL: u8 = 5;
const TAG: u8 = 6;
const GROUP: u8 = 7;

fn url(host: &str, path: &str, query: Option<&str>) -> String {
    let scheme = scheme_of(host);
    match query {
        Some(query) => format!("{scheme}://{host}{path}?{query}"),
        None => format!("{scheme}://{host}{path}"),
    }
}

/// A text without what could confuse a terminal or a log.
struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c.is_control() {
            true => write!(f, "{}", c.escape_default()),
            false => f.write_char(c),
        })
    }
}

/// The length is a LEB128 varint.
fn write_text(text: &str, to: &mut Vec<u8>) {
    let mut length = text.len();
    while length >= 0x80 {
        to.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    to.push(length as u8);
    to.extend_from_slice(text.as_bytes());
}

/// What is allocated is what the input has.
fn read_text(from: &mut &[u8]) -> Option<Box<str>> {
    let length = read_length(from)?;
    let (text, rest) = from.split_at_checked(length)?;
    *from = rest;
    Some(str::from_utf8(text).ok()?.into())
}

/// Strict: one length has one spelling, and is below 2³⁵.
fn read_length(from: &mut &[u8]) -> Option<usize> {
    let mut length = 0u64;
    for shift in [0, 7, 14, 21, 28] {
        let byte = read_byte(from)?;
        length |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return if byte == 0 && shift > 0 { None } else { usize::try_from(length).ok() };
        }
    }
    None
}

fn read_bool(from: &mut &[u8]) -> Option<bool> {
    match read_byte(from)? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn read_byte(from: &mut &[u8]) -> Option<u8> {
    let (&byte, rest) = from.split_first()?;
    *from = rest;
    Some(byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn url(host: &str, path: &str, query: Option<&str>) -> Selector {
        Selector::Url { host: host.into(), path: path.into(), query: query.map(Into::into) }
    }

    fn prefix(path: &str, raw: bool) -> Selector {
        Selector::Prefix { host: "h".into(), path: path.into(), raw }
    }

    fn bytes_of(selector: &Selector) -> Vec<u8> {
        let mut bytes = Vec::new();
        selector.encode(&mut bytes);
        bytes
    }

    #[test]
    fn each_kind_for_people_and_for_programs() {
        for (selector, people, programs) in [
            (Selector::Everything, "everything", json!({ "everything": true })),
            (Selector::Site("shop".into()), "site shop", json!({ "site": "shop" })),
            (Selector::Host("h:81".into()), "host h:81", json!({ "host": "h:81" })),
            (prefix("/a", false), "prefix h/a", json!({ "prefix": "h/a", "raw": false })),
            (prefix("/a/", true), "prefix h/a/ (raw)", json!({ "prefix": "h/a/", "raw": true })),
            (url("h", "/a", Some("b")), "url http://h/a?b", json!({ "url": "http://h/a?b" })),
            (url("h", "/a", Some("")), "url http://h/a?", json!({ "url": "http://h/a?" })),
            (url("h:443", "/", None), "url http://h:443/", json!({ "url": "http://h:443/" })),
            (url("h:80", "/", None), "url https://h:80/", json!({ "url": "https://h:80/" })),
            (url("h:8080", "/", None), "url http://h:8080/", json!({ "url": "http://h:8080/" })),
            (Selector::Tag("news".into()), "tag news", json!({ "tag": "news" })),
            (
                Selector::Group { host: "h".into(), name: "a \u{1b}[0m".into() },
                "group a \\u{1b}[0m of h",
                json!({ "group": "a \u{1b}[0m", "host": "h" }),
            ),
        ] {
            assert_eq!((selector.to_string(), selector.to_json()), (people.to_owned(), programs));
        }
    }

    #[test]
    fn the_bytes_are_fixed() {
        for (selector, bytes) in [
            (Selector::Everything, &b"\x01"[..]),
            (Selector::Site("s".into()), b"\x02\x01s"),
            (Selector::Host("h".into()), b"\x03\x01h"),
            (prefix("/a", true), b"\x04\x01h\x02/a\x01"),
            (url("h", "/", None), b"\x05\x01h\x01/\x00"),
            (url("h", "/", Some("q")), b"\x05\x01h\x01/\x01\x01q"),
            (Selector::Tag("t".into()), b"\x06\x01t"),
            (Selector::Group { host: "h".into(), name: "g".into() }, b"\x07\x01h\x01g"),
        ] {
            assert_eq!(bytes_of(&selector), bytes, "{selector}");
        }
    }

    #[test]
    fn what_is_not_exactly_ours_is_refused_and_left() {
        for bytes in [
            &b""[..],
            b"\x00",
            b"\x08\x01a",
            b"\x06",
            b"\x06\x02t",
            b"\x06\x01\xff",
            // Other spellings of a length.
            b"\x06\x81\x00t",
            b"\x06\x80\x80\x80\x80\x80\x00",
            b"\x06\xff\xff\xff\xff\x7ft",
            b"\x04\x01h\x01/\x02",
            b"\x05\x01h\x01/\x02\x01q",
            b"\x05\x01h\x01/",
        ] {
            let mut rest = bytes;
            assert_eq!((Selector::decode(&mut rest), rest), (None, bytes));
        }
    }

    fn selector() -> impl Strategy<Value = Selector> {
        let text = || prop_oneof!["\\PC{0,8}", "[a-z]{0,300}"].prop_map(String::into_boxed_str);
        prop_oneof![
            Just(Selector::Everything),
            text().prop_map(Selector::Site),
            text().prop_map(Selector::Host),
            (text(), text(), any::<bool>()).prop_map(|(host, path, raw)| Selector::Prefix { host, path, raw }),
            (text(), text(), proptest::option::of(text())).prop_map(|(host, path, query)| Selector::Url {
                host,
                path,
                query
            }),
            text().prop_map(Selector::Tag),
            (text(), text()).prop_map(|(host, name)| Selector::Group { host, name }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(selectors in proptest::collection::vec(selector(), 0..5)) {
            let mut bytes = Vec::new();
            selectors.iter().for_each(|selector| selector.encode(&mut bytes));
            let mut rest = &bytes[..];
            for selector in &selectors {
                prop_assert_eq!(Selector::decode(&mut rest), Some(selector.clone()));
            }
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn a_part_of_one_is_none(selector in selector(), cut in any::<proptest::sample::Index>()) {
            let bytes = bytes_of(&selector);
            prop_assert_eq!(Selector::decode(&mut &bytes[..cut.index(bytes.len())]), None);
        }

        /// Whatever is read has that one spelling.
        #[test]
        fn any_bytes_are_one_or_none(kind in 0u8..10, tail in proptest::collection::vec(0u8..6, 0..24)) {
            let bytes = [&[kind][..], &tail].concat();
            let mut rest = &bytes[..];
            if let Some(selector) = Selector::decode(&mut rest) {
                prop_assert_eq!(bytes_of(&selector), &bytes[..bytes.len() - rest.len()]);
            }
        }

        #[test]
        fn no_bytes_are_harmful(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Selector::decode(&mut &bytes[..]);
        }
    }
}
