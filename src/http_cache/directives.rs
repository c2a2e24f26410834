//! Cache-Control, in responses and in requests (RFC 9111 §5.2, RFC 5861, RFC 8246).
//!
//! Pragma (RFC 9111 §5.4) is deprecated and says nothing that Cache-Control cannot: it is ignored in both.

use http::header::{CACHE_CONTROL, HeaderMap, HeaderName};

use super::list::{decimal, field_members, members, trim, unquote};
use super::policy::Policy;

/// The largest number of seconds that the rules work with. RFC 9111 §1.2.2: a greater delta-seconds is taken as
/// 2^31.
pub const MAX_DELTA_SECONDS: u32 = 1 << 31;

/// The argument of a directive that states a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delta {
    /// At most [`MAX_DELTA_SECONDS`].
    Seconds(u32),
    /// There was an argument, or none, that is not a number of seconds. RFC 9111 §4.2.1 encourages caches to consider
    /// a response with invalid freshness information stale.
    Invalid,
}

impl Delta {
    /// The seconds stated; an invalid argument grants none.
    pub fn seconds(self) -> u32 {
        match self {
            Delta::Seconds(seconds) => seconds,
            Delta::Invalid => 0,
        }
    }
}

/// What `no-cache` and `private` cover (RFC 9111 §5.2.2.4, §5.2.2.7).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    #[default]
    Absent,
    /// The qualified form: these fields only.
    Fields(Vec<HeaderName>),
    /// The whole response.
    Whole,
}

impl Scope {
    pub fn is_whole(&self) -> bool {
        matches!(self, Scope::Whole)
    }

    /// The fields that the qualified form lists.
    pub fn fields(&self) -> &[HeaderName] {
        match self {
            Scope::Fields(fields) => fields,
            Scope::Absent | Scope::Whole => &[],
        }
    }

    /// Adds an occurrence of the directive. The unqualified form wins over any list, since it is the stricter; so
    /// does a list that cannot be read.
    pub(super) fn add(&mut self, argument: Option<&[u8]>) {
        let listed = argument.and_then(field_names);
        match (&mut *self, listed) {
            (Scope::Whole, _) => {}
            (_, None) => *self = Scope::Whole,
            (Scope::Absent, Some(fields)) => *self = Scope::Fields(fields),
            (Scope::Fields(known), Some(fields)) => known.extend(fields),
        }
    }
}

/// The directives of a response that a shared cache acts on. Where a directive with a number occurs more than once,
/// the first counts (RFC 9111 §4.2.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheControl {
    pub max_age: Option<Delta>,
    pub s_maxage: Option<Delta>,
    /// RFC 5861 §3.
    pub stale_while_revalidate: Option<Delta>,
    /// RFC 5861 §4.
    pub stale_if_error: Option<Delta>,
    pub no_cache: Scope,
    pub private: Scope,
    pub no_store: bool,
    pub public: bool,
    pub must_revalidate: bool,
    pub proxy_revalidate: bool,
    pub must_understand: bool,
    /// RFC 8246.
    pub immutable: bool,
}

impl CacheControl {
    /// Reads all Cache-Control lines. Unknown directives are ignored (RFC 9111 §5.2.3).
    pub fn parse(headers: &HeaderMap) -> CacheControl {
        let mut parsed = CacheControl::default();
        for member in field_members(headers, CACHE_CONTROL) {
            parsed.add(Directive::parse(member));
        }
        parsed
    }

    pub(super) fn add(&mut self, directive: Directive<'_>) {
        let mut buffer = [0; LONGEST_NAME];
        match directive.lower_case_name(&mut buffer) {
            b"max-age" => first(&mut self.max_age, directive.delta()),
            b"s-maxage" => first(&mut self.s_maxage, directive.delta()),
            b"stale-while-revalidate" => first(&mut self.stale_while_revalidate, directive.delta()),
            b"stale-if-error" => first(&mut self.stale_if_error, directive.delta()),
            b"no-cache" => self.no_cache.add(directive.argument),
            b"private" => self.private.add(directive.argument),
            b"no-store" => self.no_store = true,
            b"public" => self.public = true,
            b"must-revalidate" => self.must_revalidate = true,
            b"proxy-revalidate" => self.proxy_revalidate = true,
            b"must-understand" => self.must_understand = true,
            b"immutable" => self.immutable = true,
            _ => {}
        }
    }
}

/// The directives of a request (RFC 9111 §5.2.1). The default is what a request without any says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestDirectives {
    /// No stored response without a successful validation.
    pub no_cache: bool,
    /// Nothing of this exchange may be stored.
    pub no_store: bool,
    /// A stored response or 504.
    pub only_if_cached: bool,
    /// Greatest age wanted, in seconds.
    pub max_age: Option<u32>,
    /// Least remaining freshness wanted, in seconds.
    pub min_fresh: Option<u32>,
    /// Greatest staleness accepted, in seconds; `u32::MAX` for any.
    pub max_stale: Option<u32>,
}

impl RequestDirectives {
    /// What the client asks for, as far as the policy lets it. An argument that is no number of seconds is ignored.
    ///
    /// Allocates nothing, and returns at once where there is no Cache-Control.
    pub fn parse(headers: &HeaderMap, policy: &Policy) -> RequestDirectives {
        let mut parsed = RequestDirectives::default();
        if policy.ignore_client_cache_control {
            return parsed;
        }
        for member in field_members(headers, CACHE_CONTROL) {
            parsed.add(Directive::parse(member));
        }
        parsed
    }

    fn add(&mut self, directive: Directive<'_>) {
        let mut buffer = [0; LONGEST_NAME];
        match directive.lower_case_name(&mut buffer) {
            b"no-cache" => self.no_cache = true,
            b"no-store" => self.no_store = true,
            b"only-if-cached" => self.only_if_cached = true,
            b"max-age" => self.max_age = self.max_age.or(directive.valid_seconds()),
            b"min-fresh" => self.min_fresh = self.min_fresh.or(directive.valid_seconds()),
            b"max-stale" if directive.argument.is_none() => self.max_stale = self.max_stale.or(Some(u32::MAX)),
            b"max-stale" => self.max_stale = self.max_stale.or(directive.valid_seconds()),
            _ => {}
        }
    }
}

/// One member of Cache-Control: `name` or `name=argument`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Directive<'a> {
    name: &'a [u8],
    /// As it stands, quotes included.
    argument: Option<&'a [u8]>,
}

impl<'a> Directive<'a> {
    /// The grammar has no space around `=`. A name followed by one is still recognised, since ignoring `no-store =1`
    /// would store what must not be; but the space stays in the argument, so that no number is read from it.
    pub(super) fn parse(member: &'a [u8]) -> Directive<'a> {
        let Some(equals) = member.iter().position(|&byte| byte == b'=') else {
            return Directive { name: member, argument: None };
        };
        let (before, from_equals) = member.split_at(equals);
        let name = trim(before);
        let argument = from_equals.get(1..).unwrap_or_default();
        let argument = if name.len() == before.len() { argument } else { b" " };
        Directive { name, argument: Some(argument) }
    }

    /// In lower case; empty for a name that is longer than any known one.
    pub(super) fn lower_case_name<'b>(&self, buffer: &'b mut [u8; LONGEST_NAME]) -> &'b [u8] {
        match buffer.get_mut(..self.name.len()) {
            Some(name) => {
                name.copy_from_slice(self.name);
                name.make_ascii_lowercase();
                name
            }
            None => &[],
        }
    }

    pub(super) fn argument(&self) -> Option<&'a [u8]> {
        self.argument
    }

    fn delta(&self) -> Delta {
        self.argument.and_then(seconds).map_or(Delta::Invalid, Delta::Seconds)
    }

    fn valid_seconds(&self) -> Option<u32> {
        self.argument.and_then(seconds)
    }
}

/// Length of `stale-while-revalidate`.
pub(super) const LONGEST_NAME: usize = 22;

/// delta-seconds (RFC 9111 §1.2.2), also in its quoted form, which §5.2 asks recipients to accept.
pub(super) fn seconds(argument: &[u8]) -> Option<u32> {
    let number = decimal(unquote(argument))?;
    Some(u32::try_from(number).unwrap_or(MAX_DELTA_SECONDS).min(MAX_DELTA_SECONDS))
}

fn first<T>(slot: &mut Option<T>, value: T) {
    slot.get_or_insert(value);
}

/// The field names of a qualified `no-cache` or `private`; `None` when there are none, or one is no field name.
fn field_names(argument: &[u8]) -> Option<Vec<HeaderName>> {
    let names = members(unquote(argument)).filter(|name| !name.is_empty());
    let names: Vec<_> = names.map(|name| HeaderName::from_bytes(name).ok()).collect::<Option<_>>()?;
    (!names.is_empty()).then_some(names)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn lines(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CACHE_CONTROL, HeaderValue::from_str(line).unwrap());
        }
        headers
    }

    fn response(text: &[&str]) -> CacheControl {
        CacheControl::parse(&lines(text))
    }

    fn request(text: &str) -> RequestDirectives {
        RequestDirectives::parse(&lines(&[text]), &Policy::default())
    }

    #[test]
    fn numbers() {
        use Delta::{Invalid, Seconds};
        // RFC 9111 §1.2.2 and §4.2.1.
        for (text, expected) in [
            ("max-age=3600", Seconds(3600)),
            ("MaX-aGe=3600", Seconds(3600)),
            ("max-age=003600", Seconds(3600)),
            ("max-age=\"3600\"", Seconds(3600)),
            ("max-age=2147483648", Seconds(MAX_DELTA_SECONDS)),
            ("max-age=99999999999999999999999", Seconds(MAX_DELTA_SECONDS)),
            ("max-age=0", Seconds(0)),
            ("max-age", Invalid),
            ("max-age=", Invalid),
            ("max-age=-1", Invalid),
            ("max-age='3600'", Invalid),
            ("max-age=3600.5", Invalid),
            ("max-age=3600.0", Invalid),
            ("max-age=a3600", Invalid),
            ("max-age=3600a", Invalid),
            ("max-age =3600", Invalid),
            ("max-age= 3600", Invalid),
            ("max-age=\" 3600\"", Invalid),
            ("max-age=1800, max-age=1", Seconds(1800)),
            ("max-age=1, max-age=1800", Seconds(1)),
            ("max-age=a, max-age=1800", Invalid),
            ("x=\"max-age=1\", max-age=3600", Seconds(3600)),
            ("max-age=3600, x=\"max-age=1\"", Seconds(3600)),
            ("foobar, max-age=3600", Seconds(3600)),
        ] {
            assert_eq!(response(&[text]).max_age, Some(expected), "{text}");
        }
        assert_eq!(response(&["x=\"max-age=1\""]).max_age, None);
        assert_eq!(response(&["\"max-age=1\""]).max_age, None);
        assert_eq!(response(&["max-age=1800", "max-age=1"]).max_age, Some(Seconds(1800)));
    }

    #[test]
    fn flags_in_any_case_and_on_any_line() {
        let parsed = response(&[
            "No-StOrE, public",
            "must-revalidate, proxy-revalidate, must-understand, immutable",
            "s-maxage=5, stale-while-revalidate=6, stale-if-error=7",
        ]);
        assert_eq!(
            parsed,
            CacheControl {
                no_store: true,
                public: true,
                must_revalidate: true,
                proxy_revalidate: true,
                must_understand: true,
                immutable: true,
                s_maxage: Some(Delta::Seconds(5)),
                stale_while_revalidate: Some(Delta::Seconds(6)),
                stale_if_error: Some(Delta::Seconds(7)),
                ..CacheControl::default()
            }
        );
        assert!(!response(&["x=\"no-store\", no-storex, xno-store"]).no_store);
        assert!(response(&["no-store =1"]).no_store);
        assert!(response(&["x=\"unclosed, no-store"]).no_store);
    }

    #[test]
    fn qualified_forms_cover_their_fields() {
        let names = |list: &[&str]| Scope::Fields(list.iter().map(|name| name.parse().unwrap()).collect());
        for (text, expected) in [
            ("no-cache", Scope::Whole),
            ("no-cache=\"a\"", names(&["a"])),
            ("no-cache=\"a, B,\"", names(&["a", "b"])),
            ("no-cache=a", names(&["a"])),
            ("no-cache=\"a\", no-cache=\"b\"", names(&["a", "b"])),
            ("no-cache=\"a\", no-cache", Scope::Whole),
            ("no-cache, no-cache=\"a\"", Scope::Whole),
            ("no-cache=\"\"", Scope::Whole),
            ("no-cache=\"a b\"", Scope::Whole),
            ("no-cache =\"a\"", Scope::Whole),
        ] {
            assert_eq!(response(&[text]).no_cache, expected, "{text}");
            let private = text.replace("no-cache", "private");
            assert_eq!(response(&[&private]).private, expected, "{private}");
        }
    }

    #[test]
    fn request_directives() {
        let none = RequestDirectives::default();
        for (text, expected) in [
            ("no-cache", RequestDirectives { no_cache: true, ..none }),
            ("NO-STORE", RequestDirectives { no_store: true, ..none }),
            ("only-if-cached", RequestDirectives { only_if_cached: true, ..none }),
            ("max-age=0", RequestDirectives { max_age: Some(0), ..none }),
            ("max-age=1, max-age=2", RequestDirectives { max_age: Some(1), ..none }),
            ("max-age=abc", none),
            ("min-fresh=20", RequestDirectives { min_fresh: Some(20), ..none }),
            ("max-stale", RequestDirectives { max_stale: Some(u32::MAX), ..none }),
            ("max-stale=7", RequestDirectives { max_stale: Some(7), ..none }),
            ("max-stale=x", none),
            ("x=\"no-cache\"", none),
        ] {
            assert_eq!(request(text), expected, "{text}");
        }
    }

    #[test]
    fn a_policy_may_ignore_the_client() {
        let policy = Policy { ignore_client_cache_control: true, ..Policy::default() };
        let headers = lines(&["no-cache, max-age=0, no-store, only-if-cached"]);
        assert_eq!(RequestDirectives::parse(&headers, &policy), RequestDirectives::default());
    }

    #[test]
    fn pragma_is_ignored() {
        let mut headers = HeaderMap::new();
        headers.insert("pragma", HeaderValue::from_static("no-cache"));
        assert_eq!(RequestDirectives::parse(&headers, &Policy::default()), RequestDirectives::default());
        assert_eq!(CacheControl::parse(&headers), CacheControl::default());
    }

    proptest! {
        #[test]
        fn total_on_arbitrary_bytes(
            lines in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 0..4),
        ) {
            let mut headers = HeaderMap::new();
            for line in lines {
                if let Ok(value) = HeaderValue::from_bytes(&line) {
                    headers.append(CACHE_CONTROL, value);
                }
            }
            CacheControl::parse(&headers);
            RequestDirectives::parse(&headers, &Policy::default());
        }

        /// Whatever else stands there, a `no-store` outside quotes is seen.
        #[test]
        fn nothing_hides_no_store(
            before in proptest::collection::vec("[a-z-]{1,10}(=([0-9]{1,5}|\"[a-z ,=]{0,10}\"))?", 0..4),
            after in "[ -~]{0,30}",
        ) {
            let mut all = before;
            all.push("no-store".to_owned());
            all.push(after);
            prop_assert!(response(&[&all.join(", ")]).no_store);
        }
    }
}
