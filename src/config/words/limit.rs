//! Limits: rates, and what requests are counted by.

use std::time::Duration;

use super::matching::{CookieName, FieldName};
use super::quantity::{Size, between};
use crate::config::decode::{Bad, Decode, FromText, Kind, Shape, Trail, word};
use crate::config::model::KeyPart;
use crate::config::node::{Node, quote};
use crate::config::report::{Report, suggest};
use crate::config::units::{self, show_duration};

/// The name of a limit. Longer ones than others have: by itself it is called by its site's and route's.
#[derive(Clone, Debug)]
pub(in crate::config) struct LimitName(pub String);

const LONGEST_NAME: usize = 512;

impl FromText for LimitName {
    const KIND: Kind = Kind { name: "name", expected: "a name", pattern: "^.{1,512}$", numbers: false };

    fn from_text(text: &str) -> Result<Self, Bad> {
        match text {
            "" => Err(Bad::Because("the name is empty".to_owned())),
            _ if text.len() > LONGEST_NAME => {
                Err(Bad::Because(format!("the name is longer than {LONGEST_NAME} bytes")))
            }
            _ if text.contains(char::is_control) => Err(Bad::Because("a name holds no control characters".to_owned())),
            _ => Ok(LimitName(text.to_owned())),
        }
    }
}

/// The fastest rate: beyond, the time between two requests cannot be told.
const FASTEST: u128 = 10_000_000;

/// The longest time that a rate is over.
const LONGEST_RATE: Duration = Duration::from_secs(366 * 86_400);

/// So many requests in so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) struct Rate {
    pub requests: u32,
    pub per: Duration,
}

impl FromText for Rate {
    const KIND: Kind = Kind {
        name: "rate",
        expected: "a rate such as 50/s, 600/m, 1000/h or 20/10s",
        pattern: r"^[0-9]+/([smhd]|([0-9]+w)?([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?)$",
        numbers: true,
    };

    fn from_text(text: &str) -> Result<Self, Bad> {
        let because = |what: String| Err(Bad::Because(format!("the rate {} {what}", quote(text))));
        let Some((requests, per)) = text.split_once('/') else {
            return match !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
                true => because(format!("needs a time, as in {}/s", text.get(..12).unwrap_or(text))),
                false => Err(Bad::Form),
            };
        };
        if requests.is_empty() || !requests.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Bad::Form);
        }
        // `r/s` is what nginx writes, behind its number.
        let per = match per {
            "s" | "m" | "h" | "d" | "w" => units::duration(&format!("1{per}")),
            _ => units::duration(per),
        };
        let per = per.map_err(|_| Bad::Form)?;
        if per.is_zero() || per > LONGEST_RATE {
            return because(format!("is over a time that is not from 1ms to {}", show_duration(LONGEST_RATE)));
        }
        match requests.parse::<u32>() {
            Ok(0) => because("lets nothing through; see `access` for that".to_owned()),
            Ok(requests) if u128::from(requests) * 1_000_000_000 <= FASTEST * per.as_nanos() => {
                Ok(Rate { requests, per })
            }
            _ => because(format!("is more than {FASTEST} a second")),
        }
    }
}

impl Rate {
    /// As it is read.
    pub fn show(self) -> String {
        let per = match self.per.as_millis() {
            1000 => "s".to_owned(),
            60_000 => "m".to_owned(),
            3_600_000 => "h".to_owned(),
            86_400_000 => "d".to_owned(),
            _ => show_duration(self.per),
        };
        format!("{}/{per}", self.requests)
    }
}

const KEY_WORDS: [&str; 8] = ["client-ip", "path", "host", "token-id", "country", "asn", "identity", "all"];

impl FromText for KeyPart {
    const KIND: Kind = Kind {
        name: "`client-ip`, `header:NAME`, `cookie:NAME`, `path`, `host`, `token-id`, `country`, `asn`, `identity` or `all`",
        expected: "what requests are counted by, such as client-ip, header:X-Api-Key, cookie:session or path",
        pattern: "^(client-ip|header:.+|cookie:.+|path|host|token-id|country|asn|identity|all)$",
        numbers: false,
    };

    fn from_text(text: &str) -> Result<Self, Bad> {
        let named = |bad: Bad, what: &str| match bad {
            Bad::Form => Bad::Because(format!("expected {what} after the colon, found {}", quote(text))),
            because => because,
        };
        if let Some(name) = text.strip_prefix("header:") {
            let name = FieldName::from_text(name).map_err(|bad| named(bad, "a header field's name"))?;
            return Ok(KeyPart::Header(name.0));
        }
        if let Some(name) = text.strip_prefix("cookie:") {
            let name = CookieName::from_text(name).map_err(|bad| named(bad, "a cookie's name"))?;
            return Ok(KeyPart::Cookie(name.0));
        }
        match text {
            "client-ip" => Ok(KeyPart::ClientIp),
            "path" => Ok(KeyPart::Path),
            "host" => Ok(KeyPart::Host),
            "token-id" => Ok(KeyPart::TokenId),
            "country" => Ok(KeyPart::Country),
            "asn" => Ok(KeyPart::Asn),
            "identity" => Ok(KeyPart::Identity),
            "all" => Ok(KeyPart::All),
            "header" | "cookie" => Err(Bad::Because(format!("{} needs a name, as in `{text}:NAME`", quote(text)))),
            _ => {
                let hint = suggest(text, &KEY_WORDS);
                match hint.contains("did you mean") {
                    true => Err(Bad::Because(format!("expected {}, found {}{hint}", Self::KIND.expected, quote(text)))),
                    false => Err(Bad::Form),
                }
            }
        }
    }
}

/// A part of a key as it is read.
pub(in crate::config) fn show_key_part(part: &KeyPart) -> String {
    match part {
        KeyPart::ClientIp => "client-ip".to_owned(),
        KeyPart::Header(name) => format!("header:{name}"),
        KeyPart::Cookie(name) => format!("cookie:{name}"),
        KeyPart::Path => "path".to_owned(),
        KeyPart::Host => "host".to_owned(),
        KeyPart::TokenId => "token-id".to_owned(),
        KeyPart::Country => "country".to_owned(),
        KeyPart::Asn => "asn".to_owned(),
        KeyPart::Identity => "identity".to_owned(),
        KeyPart::All => "all".to_owned(),
    }
}

/// What becomes of a request beyond its rate, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum OverRateWord {
    Reject,
    Delay,
    Log,
}

impl OverRateWord {
    const ALL: [OverRateWord; 3] = [OverRateWord::Reject, OverRateWord::Delay, OverRateWord::Log];

    pub fn as_str(self) -> &'static str {
        match self {
            OverRateWord::Reject => "reject",
            OverRateWord::Delay => "delay",
            OverRateWord::Log => "log",
        }
    }
}

impl Decode for OverRateWord {
    fn decode(node: &Node, trail: &Trail<'_>, report: &mut Report) -> Option<Self> {
        word(node, trail, report, &OverRateWord::ALL.map(|action| (action.as_str(), action)), &[])
    }

    fn shape() -> Shape {
        Shape::Words(OverRateWord::ALL.map(OverRateWord::as_str).to_vec())
    }
}

/// How long a request may wait for its turn.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct DelayTime(pub Duration);

impl FromText for DelayTime {
    const KIND: Kind = Kind { name: "duration, `1ms` to `60s`", ..Duration::KIND };

    fn from_text(text: &str) -> Result<Self, Bad> {
        between(text, Duration::from_millis(1), Duration::from_secs(60)).map(DelayTime)
    }
}

/// Bytes a second, at least `MIN`.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct ByteRate<const MIN: u64>(pub u64);

impl<const MIN: u64> FromText for ByteRate<MIN> {
    const KIND: Kind = Kind {
        name: "size a second",
        expected: "a size a second such as 512KiB/s or 1MiB/s",
        pattern: r"^[0-9]+(B|[KMGT]iB|[kKMGT]B)/s$",
        numbers: true,
    };

    fn from_text(text: &str) -> Result<Self, Bad> {
        match text.strip_suffix("/s") {
            Some(size) => Size::<MIN>::from_text(size).map(|size| ByteRate(size.0)),
            None if Size::<MIN>::from_text(text).is_ok() => {
                Err(Bad::Because(format!("{} is not a second's; did you mean `{text}/s`?", quote(text))))
            }
            None => Err(Bad::Form),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(text: &str) -> Option<(u32, u64)> {
        Rate::from_text(text).ok().map(|rate| (rate.requests, rate.per.as_millis() as u64))
    }

    #[test]
    fn rates() {
        for (text, requests, per) in [
            ("50/s", 50, 1000),
            ("600/m", 600, 60_000),
            ("1/h", 1, 3_600_000),
            ("4294967295/d", u32::MAX, 86_400_000),
            ("20/10s", 20, 10_000),
            ("7/1h30m", 7, 5_400_000),
            ("10000/1ms", 10_000, 1),
            ("10000000/s", 10_000_000, 1000),
        ] {
            assert_eq!(rate(text), Some((requests, per)), "{text}");
        }
        for text in [
            "",
            "50",
            "/s",
            "50/",
            "0/s",
            "50/x",
            "-1/s",
            "1.5/s",
            "50 /s",
            "50/0s",
            "10001/1ms",
            "10000001/s",
            "4294967296/d",
            "1/367d",
            "50r/s",
            "+5/s",
        ] {
            assert_eq!(rate(text), None, "{text}");
        }
    }

    #[test]
    fn parts_of_keys() {
        for text in
            ["client-ip", "header:x-a", "cookie:Id", "path", "host", "token-id", "country", "asn", "identity", "all"]
        {
            let part = KeyPart::from_text(text).unwrap_or_else(|_| panic!("{text}"));
            assert_eq!(show_key_part(&part), text);
        }
        assert!(matches!(KeyPart::from_text("header:X-A"), Ok(KeyPart::Header(name)) if name == "x-a"));
        for text in ["", "ip", "header:", "header", "cookie:a b", "header:a:b", "Path"] {
            assert!(KeyPart::from_text(text).is_err(), "{text}");
        }
    }

    proptest! {
        /// A rate that is shown is read as the same one.
        #[test]
        fn what_is_shown_reads_the_same(requests in 1u32..10_000, per in 1u64..40_000_000_000) {
            let rate = Rate { requests, per: Duration::from_millis(per) };
            match Rate::from_text(&rate.show()) {
                Ok(read) => prop_assert_eq!(read, rate),
                Err(_) => prop_assert!(rate.per > LONGEST_RATE),
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,30}") {
            let _ = Rate::from_text(&text);
            let _ = KeyPart::from_text(&text);
            let _ = ByteRate::<1>::from_text(&text);
        }
    }
}
