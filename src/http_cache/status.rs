//! What the cache did, in words: Cache-Status (RFC 9211), and the compact outcome for logs and metrics.

use bytes::{BufMut, BytesMut};
use http::{HeaderValue, StatusCode};

/// How this cache calls itself in Cache-Status.
pub const CACHE_NAME: &str = "Foreland";

/// What became of a request, as one word: the whole set of label values of a metric.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// From the cache, fresh.
    Hit,
    /// From the cache although stale: the origin failed, or the client takes stale responses.
    Stale,
    /// From the cache although stale, and refreshed in the background.
    Updating,
    /// From the cache, after the origin confirmed it.
    Revalidated,
    /// From the origin, in place of a stale response.
    Expired,
    /// From the origin: nothing was stored.
    Miss,
    /// From the origin's answer to another request.
    Collapsed,
    /// From the origin: the cache had no part in it.
    Bypass,
    /// Answered by the edge itself.
    #[default]
    Local,
}

impl Outcome {
    pub const ALL: [Outcome; 9] = [
        Outcome::Hit,
        Outcome::Stale,
        Outcome::Updating,
        Outcome::Revalidated,
        Outcome::Expired,
        Outcome::Miss,
        Outcome::Collapsed,
        Outcome::Bypass,
        Outcome::Local,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Hit => "hit",
            Outcome::Stale => "stale",
            Outcome::Updating => "updating",
            Outcome::Revalidated => "revalidated",
            Outcome::Expired => "expired",
            Outcome::Miss => "miss",
            Outcome::Collapsed => "collapsed",
            Outcome::Bypass => "bypass",
            Outcome::Local => "local",
        }
    }
}

/// Why a request went forward (RFC 9211 §2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FwdReason {
    /// The cache is not for this request.
    Bypass,
    /// The method's semantics require it.
    Method,
    /// Nothing is stored for the URI.
    UriMiss,
    /// Something is stored for the URI, but not for these request fields.
    VaryMiss,
    /// Nothing usable is stored, for neither of these two reasons alone.
    Miss,
    /// The request's Cache-Control.
    Request,
    /// The stored response is stale.
    Stale,
    /// The stored response has only a part of what was asked for.
    Partial,
}

impl FwdReason {
    pub fn as_str(self) -> &'static str {
        match self {
            FwdReason::Bypass => "bypass",
            FwdReason::Method => "method",
            FwdReason::UriMiss => "uri-miss",
            FwdReason::VaryMiss => "vary-miss",
            FwdReason::Miss => "miss",
            FwdReason::Request => "request",
            FwdReason::Stale => "stale",
            FwdReason::Partial => "partial",
        }
    }
}

/// This cache's member of Cache-Status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheStatus<'a> {
    pub handling: Handling,
    /// Remaining freshness in seconds (RFC 9211 §2.4); negative when stale.
    pub ttl: Option<i64>,
    /// The cache key (RFC 9211 §2.7).
    pub key: Option<&'a str>,
    /// What else is worth knowing (RFC 9211 §2.8): the tier of a hit, the reason for not storing.
    pub detail: Option<&'a str>,
}

/// `hit` and `fwd` exclude each other (RFC 9211 §2.1, §2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handling {
    Hit,
    /// The edge answered by itself, without the cache and without the origin.
    Neither,
    Fwd {
        reason: FwdReason,
        /// The status that the origin answered (RFC 9211 §2.3).
        status: Option<StatusCode>,
        /// The response was stored (§2.5).
        stored: bool,
        /// The request waited for another's response (§2.6).
        collapsed: bool,
    },
}

impl<'a> CacheStatus<'a> {
    /// `Foreland; hit; ttl=57; detail=memory`
    pub fn hit(ttl: i64, tier: &'a str) -> CacheStatus<'a> {
        CacheStatus { handling: Handling::Hit, ttl: Some(ttl), key: None, detail: Some(tier) }
    }

    /// `Foreland; fwd=uri-miss`, to be completed.
    pub fn fwd(reason: FwdReason) -> CacheStatus<'a> {
        let handling = Handling::Fwd { reason, status: None, stored: false, collapsed: false };
        CacheStatus { handling, ttl: None, key: None, detail: None }
    }

    /// Appends the member to `out`. Allocates only if `out` has to grow.
    pub fn write(&self, out: &mut impl BufMut) {
        out.put_slice(CACHE_NAME.as_bytes());
        match self.handling {
            Handling::Hit => out.put_slice(b"; hit"),
            Handling::Neither => {}
            Handling::Fwd { reason, status, stored, collapsed } => {
                out.put_slice(b"; fwd=");
                out.put_slice(reason.as_str().as_bytes());
                if let Some(status) = status {
                    out.put_slice(b"; fwd-status=");
                    out.put_slice(status.as_str().as_bytes());
                }
                if stored {
                    out.put_slice(b"; stored");
                }
                if collapsed {
                    out.put_slice(b"; collapsed");
                }
            }
        }
        if let Some(ttl) = self.ttl {
            out.put_slice(b"; ttl=");
            put_integer(out, ttl);
        }
        if let Some(key) = self.key {
            out.put_slice(b"; key=");
            put_string(out, key);
        }
        if let Some(detail) = self.detail {
            out.put_slice(b"; detail=");
            if is_token(detail) { out.put_slice(detail.as_bytes()) } else { put_string(out, detail) }
        }
    }

    /// The whole field value: this member after those of the caches nearer to the origin (RFC 9211 §2), in one line.
    ///
    /// `buffer` is scratch space, empty before and after: kept from one response to the next, it makes most calls free
    /// of allocation.
    pub fn header_value(&self, upstream: Option<&HeaderValue>, buffer: &mut BytesMut) -> HeaderValue {
        buffer.clear();
        if let Some(upstream) = upstream.filter(|value| !value.is_empty()) {
            buffer.put_slice(upstream.as_bytes());
            buffer.put_slice(b", ");
        }
        self.write(buffer);
        // All bytes are those of a field value or visible ASCII, so there is no other arm to take.
        HeaderValue::from_maybe_shared(buffer.split().freeze()).unwrap_or(HeaderValue::from_static(CACHE_NAME))
    }
}

/// RFC 8941 §3.3.1: at most 15 digits.
fn put_integer(out: &mut impl BufMut, value: i64) {
    const MAX: u64 = 999_999_999_999_999;
    let mut digits = [0; 16];
    let mut rest = value.unsigned_abs().min(MAX);
    let mut length = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
        length += 1;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        out.put_u8(b'-');
    }
    out.put_slice(digits.get(digits.len() - length..).unwrap_or_default());
}

/// RFC 8941 §3.3.3: printable ASCII with `"` and `\` escaped. Other bytes are percent-encoded, as in the URIs that such
/// strings are made of.
fn put_string(out: &mut impl BufMut, text: &str) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.put_u8(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.put_slice(&[b'\\', byte]),
            b' '..=b'~' => out.put_u8(byte),
            _ => out.put_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]),
        }
    }
    out.put_u8(b'"');
}

/// RFC 8941 §3.3.4.
fn is_token(text: &str) -> bool {
    let tail = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte);
    text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '*') && text.bytes().all(tail)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sfv::{List, ListEntry, Parser};

    use super::*;

    fn text(status: CacheStatus<'_>) -> String {
        let mut out = BytesMut::new();
        status.write(&mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn members() {
        // RFC 9211 §2.
        assert_eq!(text(CacheStatus::hit(57, "memory")), "Foreland; hit; ttl=57; detail=memory");
        assert_eq!(text(CacheStatus::hit(-3, "disk")), "Foreland; hit; ttl=-3; detail=disk");
        assert_eq!(text(CacheStatus::fwd(FwdReason::UriMiss)), "Foreland; fwd=uri-miss");
        let all = CacheStatus {
            handling: Handling::Fwd {
                reason: FwdReason::Stale,
                status: Some(StatusCode::NOT_MODIFIED),
                stored: true,
                collapsed: true,
            },
            ttl: Some(i64::MIN),
            key: Some("https://a/\"\\ü"),
            detail: Some("two words"),
        };
        assert_eq!(
            text(all),
            "Foreland; fwd=stale; fwd-status=304; stored; collapsed; ttl=-999999999999999; \
             key=\"https://a/\\\"\\\\%C3%BC\"; detail=\"two words\""
        );
    }

    #[test]
    fn follows_the_caches_nearer_to_the_origin() {
        let mut buffer = BytesMut::new();
        let status = CacheStatus::hit(0, "memory");
        assert_eq!(status.header_value(None, &mut buffer), "Foreland; hit; ttl=0; detail=memory");
        let upstream = HeaderValue::from_static("Origin; hit; ttl=9");
        let chained = status.header_value(Some(&upstream), &mut buffer);
        assert_eq!(chained, "Origin; hit; ttl=9, Foreland; hit; ttl=0; detail=memory");
        assert!(buffer.is_empty());
    }

    #[test]
    fn outcomes_have_distinct_words() {
        let words: std::collections::HashSet<_> = Outcome::ALL.iter().map(|outcome| outcome.as_str()).collect();
        assert_eq!(words.len(), Outcome::ALL.len());
    }

    proptest! {
        #[test]
        fn is_always_a_structured_list_of_one(
            ttl in any::<Option<i64>>(),
            key in any::<Option<String>>(),
            detail in any::<Option<String>>(),
        ) {
            let handling = CacheStatus::fwd(FwdReason::Miss).handling;
            let status = CacheStatus { handling, ttl, key: key.as_deref(), detail: detail.as_deref() };
            let value = status.header_value(None, &mut BytesMut::new());
            let list: List = Parser::new(value.as_bytes()).parse().unwrap();
            prop_assert_eq!(list.len(), 1);
            let ListEntry::Item(item) = &list[0] else { panic!("an inner list") };
            prop_assert_eq!(item.params.contains_key("ttl"), ttl.is_some());
            prop_assert_eq!(item.params.contains_key("key"), key.is_some());
            prop_assert_eq!(item.params.contains_key("detail"), detail.is_some());
        }
    }
}
