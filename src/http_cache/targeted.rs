//! Which field governs this cache: the targeted ones first (RFC 9213), then Cache-Control.

use http::HeaderMap;
use http::header::HeaderName;
use sfv::{BareItem, Dictionary, Item, ListEntry, Parser, Version};

use super::directives::{CacheControl, Delta, Directive, LONGEST_NAME, MAX_DELTA_SECONDS, Scope, seconds};
use super::list::{combined, field_members, trim};

/// The project's own targeted field: for Foreland, and no other CDN on the way.
pub const FORELAND_CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("foreland-cdn-cache-control");
/// RFC 9213 §3.1.
pub const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");
/// The Edge Architecture Specification's field, older than RFC 9213 and still sent by many applications.
pub const SURROGATE_CONTROL: HeaderName = HeaderName::from_static("surrogate-control");

/// The field that the directives in force were read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlField {
    Foreland,
    Cdn,
    Surrogate,
    CacheControl,
}

impl ControlField {
    /// Whether the origin addressed shared caches rather than everybody.
    pub fn is_targeted(self) -> bool {
        self != ControlField::CacheControl
    }
}

/// The directives that govern this cache, and where they stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    pub directives: CacheControl,
    pub field: ControlField,
}

impl Control {
    /// RFC 9213 §2.2: the first targeted field that is valid and not empty replaces Cache-Control and Expires wholly.
    /// The order is Foreland-CDN-Cache-Control, CDN-Cache-Control, Surrogate-Control, Cache-Control.
    pub fn of(headers: &HeaderMap) -> Control {
        if let Some(directives) = targeted(headers, &FORELAND_CDN_CACHE_CONTROL) {
            return Control { directives, field: ControlField::Foreland };
        }
        if let Some(directives) = targeted(headers, &CDN_CACHE_CONTROL) {
            return Control { directives, field: ControlField::Cdn };
        }
        if let Some(directives) = surrogate_control(headers) {
            return Control { directives, field: ControlField::Surrogate };
        }
        Control { directives: CacheControl::parse(headers), field: ControlField::CacheControl }
    }
}

/// A targeted field is an RFC 8941 dictionary (RFC 9213 §2.1). One that is empty, does not parse, or gives a known
/// directive a value of the wrong type is ignored whole.
fn targeted(headers: &HeaderMap, name: &HeaderName) -> Option<CacheControl> {
    let text = combined(headers, name);
    if text.is_empty() {
        return None;
    }
    let dictionary: Dictionary = Parser::new(&text).with_version(Version::Rfc8941).parse().ok()?;
    if dictionary.is_empty() {
        return None;
    }
    let mut directives = CacheControl::default();
    for (key, entry) in &dictionary {
        match key.as_str() {
            "max-age" => directives.max_age = Some(delta(entry)?),
            "s-maxage" => directives.s_maxage = Some(delta(entry)?),
            "stale-while-revalidate" => directives.stale_while_revalidate = Some(delta(entry)?),
            "stale-if-error" => directives.stale_if_error = Some(delta(entry)?),
            "no-cache" => directives.no_cache = scope(entry)?,
            "private" => directives.private = scope(entry)?,
            "no-store" => directives.no_store = flag(entry)?,
            "public" => directives.public = flag(entry)?,
            "must-revalidate" => directives.must_revalidate = flag(entry)?,
            "proxy-revalidate" => directives.proxy_revalidate = flag(entry)?,
            "must-understand" => directives.must_understand = flag(entry)?,
            "immutable" => directives.immutable = flag(entry)?,
            _ => {}
        }
    }
    Some(directives)
}

fn bare(entry: &ListEntry) -> Option<&BareItem> {
    match entry {
        // RFC 9213 §2.1: parameters are ignored.
        ListEntry::Item(Item { bare_item, .. }) => Some(bare_item),
        ListEntry::InnerList(_) => None,
    }
}

/// A negative number is of the right type and grants no time.
fn delta(entry: &ListEntry) -> Option<Delta> {
    let number = i64::from(bare(entry)?.as_integer()?);
    let clamped = number.clamp(0, i64::from(MAX_DELTA_SECONDS));
    Some(Delta::Seconds(u32::try_from(clamped).unwrap_or(MAX_DELTA_SECONDS)))
}

fn flag(entry: &ListEntry) -> Option<bool> {
    bare(entry)?.as_boolean()
}

fn scope(entry: &ListEntry) -> Option<Scope> {
    let mut scope = Scope::Absent;
    match bare(entry)? {
        BareItem::Boolean(false) => {}
        BareItem::Boolean(true) => scope.add(None),
        BareItem::String(fields) => scope.add(Some(fields.as_str().as_bytes())),
        _ => return None,
    }
    Some(scope)
}

/// Surrogate-Control, as far as it is about caching: `no-store`, `no-store-remote`, `max-age=N` and
/// `max-age=N+M`, where M is how long a stale response may still be used; and the directives of Cache-Control that
/// applications put there. A directive with another surrogate's name (`max-age=60;varnish`) is not for this one.
///
/// `None` when the field is absent, says nothing about caching (`content="ESI/1.0"` alone), or has a number that
/// is none: it is then as if the field were not there.
fn surrogate_control(headers: &HeaderMap) -> Option<CacheControl> {
    let mut directives = CacheControl::default();
    for member in field_members(headers, &SURROGATE_CONTROL) {
        let (member, target) = split_target(member);
        if target.is_some_and(|target| !target.eq_ignore_ascii_case(b"foreland")) {
            continue;
        }
        let directive = Directive::parse(member);
        let mut buffer = [0; LONGEST_NAME];
        match directive.lower_case_name(&mut buffer) {
            b"max-age" => {
                let (fresh, stale) = surrogate_max_age(directive.argument()?)?;
                directives.max_age.get_or_insert(fresh);
                if let Some(stale) = stale {
                    directives.stale_while_revalidate.get_or_insert(stale);
                    directives.stale_if_error.get_or_insert(stale);
                }
            }
            // This cache is remote to the origin in that specification's sense: it is reached over a network.
            b"no-store-remote" => directives.no_store = true,
            b"content" => {}
            _ => directives.add(directive),
        }
    }
    let invalid = |delta: &Option<Delta>| matches!(delta, Some(Delta::Invalid));
    if invalid(&directives.s_maxage)
        || invalid(&directives.stale_while_revalidate)
        || invalid(&directives.stale_if_error)
    {
        return None;
    }
    (directives != CacheControl::default()).then_some(directives)
}

/// `directive;target`. No directive about caching has a semicolon of its own.
fn split_target(member: &[u8]) -> (&[u8], Option<&[u8]>) {
    match member.iter().rposition(|&byte| byte == b';') {
        Some(at) if !member.ends_with(b"\"") => {
            let (directive, target) = member.split_at(at);
            (trim(directive), Some(trim(target.get(1..).unwrap_or_default())))
        }
        _ => (member, None),
    }
}

/// `3600` or `3600+600`.
fn surrogate_max_age(argument: &[u8]) -> Option<(Delta, Option<Delta>)> {
    match argument.iter().position(|&byte| byte == b'+') {
        Some(plus) => {
            let (fresh, extension) = argument.split_at(plus);
            let extension = seconds(extension.get(1..)?)?;
            Some((Delta::Seconds(seconds(fresh)?), Some(Delta::Seconds(extension))))
        }
        None => Some((Delta::Seconds(seconds(argument)?), None)),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::super::testing::headers;
    use super::*;

    fn field(fields: &[(&str, &str)]) -> ControlField {
        Control::of(&headers(fields)).field
    }

    fn cdn(value: &str) -> Option<CacheControl> {
        targeted(&headers(&[("cdn-cache-control", value)]), &CDN_CACHE_CONTROL)
    }

    fn surrogate(value: &str) -> Option<CacheControl> {
        surrogate_control(&headers(&[("surrogate-control", value)]))
    }

    #[test]
    fn precedence() {
        let all = [
            ("foreland-cdn-cache-control", "max-age=1"),
            ("cdn-cache-control", "max-age=2"),
            ("surrogate-control", "max-age=3"),
            ("cache-control", "max-age=4"),
        ];
        let expected = [ControlField::Foreland, ControlField::Cdn, ControlField::Surrogate, ControlField::CacheControl];
        for (start, expected) in expected.into_iter().enumerate() {
            let control = Control::of(&headers(&all[start..]));
            assert_eq!(control.field, expected);
            assert_eq!(control.directives.max_age, Some(Delta::Seconds(start as u32 + 1)));
        }
        assert_eq!(field(&[]), ControlField::CacheControl);
    }

    #[test]
    fn invalid_or_empty_targeted_fields_are_ignored_whole() {
        // RFC 9213 §2.1, §2.2.
        for value in [
            "",
            "max-age=10000, &&&&&",
            "max-age=\"10000\"",
            "max-age=10.5",
            "max-age",
            "max-age =100",
            "max-age= 100",
            "MaX-aGe=100",
            "no-store=1",
            "no-store=\"x\"",
            "max-age=(1 2)",
            "private=token",
        ] {
            assert_eq!(cdn(value), None, "{value}");
            assert_eq!(
                field(&[("cdn-cache-control", value), ("cache-control", "no-store")]),
                ControlField::CacheControl
            );
        }
        // The next targeted field then has its turn.
        let next = field(&[("foreland-cdn-cache-control", "&"), ("cdn-cache-control", "max-age=1")]);
        assert_eq!(next, ControlField::Cdn);
    }

    #[test]
    fn valid_targeted_fields_are_read() {
        let none = CacheControl::default();
        let age = |seconds| CacheControl { max_age: Some(Delta::Seconds(seconds)), ..CacheControl::default() };
        for (value, expected) in [
            ("foo", none.clone()),
            ("max-age=3600", age(3600)),
            ("foobar, max-age=3600;x=1", age(3600)),
            ("max-age=99999999999", age(MAX_DELTA_SECONDS)),
            ("max-age=-1", age(0)),
            ("max-age=1, max-age=2", age(2)), // RFC 8941 §3.2: the last of duplicate keys
            ("no-store", CacheControl { no_store: true, ..none.clone() }),
            ("no-store=?0", none.clone()),
            ("private", CacheControl { private: Scope::Whole, ..none.clone() }),
            ("no-cache=\"a\"", CacheControl { no_cache: Scope::Fields(vec!["a".parse().unwrap()]), ..none }),
        ] {
            assert_eq!(cdn(value), Some(expected), "{value}");
        }
        let two_lines = headers(&[("cdn-cache-control", "max-age=5"), ("cdn-cache-control", "must-revalidate")]);
        let control = Control::of(&two_lines);
        assert!(control.directives.must_revalidate && control.directives.max_age.is_some());
    }

    #[test]
    fn surrogate_control_has_its_own_syntax() {
        let age = |seconds| CacheControl { max_age: Some(Delta::Seconds(seconds)), ..CacheControl::default() };
        let no_store = CacheControl { no_store: true, ..CacheControl::default() };
        let extended = CacheControl {
            stale_while_revalidate: Some(Delta::Seconds(600)),
            stale_if_error: Some(Delta::Seconds(600)),
            ..age(3600)
        };
        for (value, expected) in [
            ("max-age=3600", Some(age(3600))),
            ("MaX-aGe=3600", Some(age(3600))),
            ("foobar, max-age=3600", Some(age(3600))),
            ("max-age=3600+600", Some(extended)),
            ("max-age=60;other, max-age=30", Some(age(30))),
            ("max-age=60;foreland, max-age=30", Some(age(60))),
            ("no-store, content=\"ESI/1.0\"", Some(no_store.clone())),
            ("no-store-remote", Some(no_store)),
            ("content=\"ESI/1.0\"", None),
            ("max-age =100", None),
            ("max-age= 100", None),
            ("max-age=x", None),
            ("max-age=1+", None),
            ("max-age=60;other", None),
            ("", None),
        ] {
            assert_eq!(surrogate(value), expected, "{value}");
        }
    }

    proptest! {
        #[test]
        fn total_on_arbitrary_bytes(value in proptest::collection::vec(any::<u8>(), 0..80)) {
            let Ok(value) = HeaderValue::from_bytes(&value) else { return Ok(()) };
            for name in [FORELAND_CDN_CACHE_CONTROL, CDN_CACHE_CONTROL, SURROGATE_CONTROL] {
                let mut headers = HeaderMap::new();
                headers.insert(name, value.clone());
                Control::of(&headers);
            }
        }
    }
}
