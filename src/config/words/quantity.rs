//! Durations, sizes and counts.

use std::time::Duration;

use crate::config::decode::{Bad, Decode, FromText, Kind, Shape, Trail};
use crate::config::node::{Node, Value, quote};
use crate::config::report::Report;
use crate::config::units::{self, Fault};

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
pub(in crate::config) struct Timeout(pub Duration);

impl FromText for Timeout {
    const KIND: Kind = Kind { name: "duration above 0", ..Duration::KIND };

    fn from_text(text: &str) -> Result<Self, Bad> {
        match Duration::from_text(text)? {
            Duration::ZERO => Err(Bad::Because(format!("must be longer than 0, found {}", quote(text)))),
            duration => Ok(Timeout(duration)),
        }
    }
}

/// How long requests are counted.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct Window(pub Duration);

impl FromText for Window {
    const KIND: Kind = Kind { name: "duration, `1s` to `7d`", ..Duration::KIND };

    fn from_text(text: &str) -> Result<Self, Bad> {
        between(text, Duration::from_secs(1), Duration::from_secs(7 * 86_400)).map(Window)
    }
}

/// How long a server's answers are looked back on.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct OutlierWindow(pub Duration);

impl FromText for OutlierWindow {
    const KIND: Kind = Kind { name: "duration, `1s` to `10m`", ..Duration::KIND };

    fn from_text(text: &str) -> Result<Self, Bad> {
        between(text, Duration::from_secs(1), Duration::from_secs(600)).map(OutlierWindow)
    }
}

/// How long a cookie holds: such times are counted in seconds (RFC 6265 §5.2.2).
#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct StickyTtl(pub Duration);

impl FromText for StickyTtl {
    const KIND: Kind = Kind { name: "duration of whole seconds", ..Duration::KIND };

    fn from_text(text: &str) -> Result<Self, Bad> {
        match Duration::from_text(text)? {
            Duration::ZERO => Err(Bad::Because(format!("must be longer than 0, found {}", quote(text)))),
            ttl if ttl.subsec_nanos() > 0 => {
                Err(Bad::Because(format!("a cookie's time is counted in whole seconds, found {}", quote(text))))
            }
            ttl => Ok(StickyTtl(ttl)),
        }
    }
}

/// A duration within bounds, both included.
pub(super) fn between(text: &str, shortest: Duration, longest: Duration) -> Result<Duration, Bad> {
    match Duration::from_text(text)? {
        duration if (shortest..=longest).contains(&duration) => Ok(duration),
        _ => Err(Bad::Because(format!(
            "must be from {} to {}, found {}",
            units::show_duration(shortest),
            units::show_duration(longest),
            quote(text)
        ))),
    }
}

/// A share in percent, from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct Percent<const MIN: u32, const MAX: u32>(pub u32);

impl<const MIN: u32, const MAX: u32> FromText for Percent<MIN, MAX> {
    const KIND: Kind =
        Kind { name: "percentage", expected: "a percentage such as 20%", pattern: "^[0-9]+%$", numbers: true };

    fn from_text(text: &str) -> Result<Self, Bad> {
        let number = text.strip_suffix('%').unwrap_or(text);
        if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Bad::Form);
        }
        if number == text {
            let message = format!("the percentage {} needs its sign, as in {}%", quote(text), cut(text));
            return Err(Bad::Because(message));
        }
        match number.parse() {
            Ok(percent) if (MIN..=MAX).contains(&percent) => Ok(Percent(percent)),
            _ => Err(Bad::Because(format!("must be from {MIN}% to {MAX}%, found {}", quote(text)))),
        }
    }
}

impl<const MIN: u32, const MAX: u32> Percent<MIN, MAX> {
    /// For shares of at most 255%.
    pub fn byte(self) -> u8 {
        u8::try_from(self.0).unwrap_or(u8::MAX)
    }
}

/// Bytes, from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct Size<const MIN: u64, const MAX: u64 = { u64::MAX }>(pub u64);

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
pub(in crate::config) struct SizeOrUnlimited(pub Option<u64>);

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
pub(in crate::config) struct Threads(pub Option<usize>);

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
