//! The rules' verdicts in words, each with the section that it comes from.

use http::HeaderName;
use http::header::CACHE_CONTROL;

use super::directives::RequestDirectives;
use super::eligibility::Bypass;
use super::freshness::{FreshnessSource, RevalidateReason};
use super::storing::NotStored;
use super::targeted::{CDN_CACHE_CONTROL, ControlField, FORELAND_CDN_CACHE_CONTROL, SURROGATE_CONTROL};

impl NotStored {
    /// The rule as a sentence.
    pub fn explain(self) -> &'static str {
        match self {
            NotStored::Method => "Only responses to GET and HEAD are stored (RFC 9111 §3).",
            NotStored::Head => "A response to HEAD has no content that could answer a GET (RFC 9111 §3).",
            NotStored::NotFinal => "It is not a final response (RFC 9111 §3).",
            NotStored::Partial => "A part is not stored in place of the whole (RFC 9111 §3.3).",
            NotStored::NotModified => {
                "A 304 freshens what is stored, and is not stored itself (RFC 9111 §4.3.4); here nothing is stored."
            }
            NotStored::NoStore => "The response says `no-store` (RFC 9111 §5.2.2.5).",
            NotStored::Private => "The response says `private`: it is for one user (RFC 9111 §5.2.2.7).",
            NotStored::MustUnderstand => {
                "The response says `must-understand`, and its status is not one that this cache knows (RFC 9111 §5.2.2.3)."
            }
            NotStored::RequestNoStore => "The request says `no-store` (RFC 9111 §5.2.1.5).",
            NotStored::Authorization => {
                "The request has Authorization, and neither `public`, `s-maxage` nor `must-revalidate` says that others \
                 may have the response (RFC 9111 §3.5)."
            }
            NotStored::SetCookie => {
                "The response sets a cookie, and neither `public`, `s-maxage`, a targeted field nor `store_set_cookie` \
                 says that others may have it (RFC 9111 §7.3 leaves this to the cache)."
            }
            NotStored::VaryAny => {
                "Vary says `*`, or names more than can be told apart: no later request can be known to match (RFC 9111 \
                 §4.1)."
            }
            NotStored::Status => {
                "Nobody says how long it is fresh, and its status is not cacheable by itself (RFC 9111 §3, RFC 9110 \
                 §15.1)."
            }
            NotStored::NoFreshness => {
                "Nobody says how long it is fresh, and it has no validator to ask again with (RFC 9111 §3, §4.3.1)."
            }
            NotStored::Unusable => {
                "It would always have to be validated, and has no validator to do so with (RFC 9111 §4.3.1)."
            }
            NotStored::Tags => {
                "It has more tags or groups than can be kept, or one that is too long or no text: a purge by it would not \
                 find the response."
            }
        }
    }
}

impl RequestDirectives {
    /// The directives as they would be written.
    pub fn words(&self) -> Vec<String> {
        let flags = [(self.no_cache, "no-cache"), (self.no_store, "no-store"), (self.only_if_cached, "only-if-cached")];
        let numbers = [("max-age", self.max_age), ("min-fresh", self.min_fresh), ("max-stale", self.max_stale)];
        let flags = flags.into_iter().filter(|(said, _)| *said).map(|(_, word)| word.to_owned());
        let numbers = numbers.into_iter().filter_map(|(word, seconds)| match seconds? {
            u32::MAX => Some(word.to_owned()),
            seconds => Some(format!("{word}={seconds}")),
        });
        flags.chain(numbers).collect()
    }
}

impl FreshnessSource {
    /// Who says how long the response is fresh, as a sentence.
    pub fn explain(self) -> &'static str {
        match self {
            FreshnessSource::SMaxage => "The response says `s-maxage` (RFC 9111 §5.2.2.10).",
            FreshnessSource::Targeted => "The response says `max-age` in a field for CDNs (RFC 9213 §2.2).",
            FreshnessSource::MaxAge => "The response says `max-age` (RFC 9111 §5.2.2.1).",
            FreshnessSource::Expires => "The response has Expires (RFC 9111 §5.3).",
            FreshnessSource::Heuristic => {
                "Nobody says so: a tenth of the time that it has been unchanged for (RFC 9111 §4.2.2)."
            }
            FreshnessSource::Ttl => "The setting `ttl` says so.",
            FreshnessSource::TtlByStatus => "The setting `ttl_by_status` says so.",
            FreshnessSource::None => "Nobody says so: it is stale from the start (RFC 9111 §4.2).",
        }
    }
}

impl RevalidateReason {
    /// A stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            RevalidateReason::Stale => "stale",
            RevalidateReason::ResponseNoCache => "response-no-cache",
            RevalidateReason::RequestNoCache => "request-no-cache",
            RevalidateReason::RequestMaxAge => "request-max-age",
            RevalidateReason::RequestMinFresh => "request-min-fresh",
        }
    }

    /// Why the origin is asked first, as a sentence.
    pub fn explain(self) -> &'static str {
        match self {
            RevalidateReason::Stale => "Its freshness is over, and no window lets it be used (RFC 9111 §4.2.4).",
            RevalidateReason::ResponseNoCache => {
                "The response says `no-cache`: never without a validation (RFC 9111 §5.2.2.4)."
            }
            RevalidateReason::RequestNoCache => "The request says `no-cache` (RFC 9111 §5.2.1.4).",
            RevalidateReason::RequestMaxAge => "It is older than the request's `max-age` (RFC 9111 §5.2.1.1).",
            RevalidateReason::RequestMinFresh => {
                "It is not fresh for as long as the request's `min-fresh` (RFC 9111 §5.2.1.3)."
            }
        }
    }
}

impl Bypass {
    /// A stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Bypass::Off => "off",
            Bypass::Method => "method",
            Bypass::Content => "content",
            Bypass::Upgrade => "upgrade",
        }
    }

    /// Why the cache has no part in a request, as a sentence.
    pub fn explain(self) -> &'static str {
        match self {
            Bypass::Off => "The cache is off.",
            Bypass::Method => "Only GET and HEAD are answered from the store (RFC 9111 §2, §4).",
            Bypass::Content => {
                "The request has content: what that means is between the client and the origin (RFC 9110 §9.3.1)."
            }
            Bypass::Upgrade => "The request asks for another protocol (RFC 9110 §7.8).",
        }
    }
}

impl ControlField {
    /// The field's name.
    pub fn name(self) -> HeaderName {
        match self {
            ControlField::Foreland => FORELAND_CDN_CACHE_CONTROL,
            ControlField::Cdn => CDN_CACHE_CONTROL,
            ControlField::Surrogate => SURROGATE_CONTROL,
            ControlField::CacheControl => CACHE_CONTROL,
        }
    }
}
