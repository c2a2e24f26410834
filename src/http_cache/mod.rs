//! The pure rules of HTTP caching: headers, method, status, `now` and policy in; decisions out.
//!
//! No I/O, no clock, no Pingora session. Each rule quotes the section that it comes from: RFC 9110 (semantics), 9111
//! (caching), 9211 (Cache-Status), 9213 (targeted fields), 5861 (stale responses), 8246 (immutable), 8941 and 9651
//! (structured fields), 9875 (cache groups).
//!
//! A response's way: [`Control`] finds the directives that govern it, [`storability`] decides on storing and makes the
//! [`Facts`] and [`Tags`] that are kept with it, [`hop_by_hop`] and [`Stored::strip`] say what is not kept, [`variance`]
//! tells its variants apart. A request's way: [`bypass`] says whether the cache has a part in it, [`RequestDirectives`]
//! are read, [`reuse`] decides, [`select`] shapes the answer, [`CacheStatus`] explains it.

mod dates;
mod directives;
mod eligibility;
mod facts;
mod fields;
mod freshness;
mod invalidation;
mod list;
mod negotiation;
mod policy;
mod ranges;
mod reference;
mod selection;
mod status;
mod storing;
mod tags;
mod targeted;
#[cfg(test)]
mod testing;
mod time;
mod validation;
mod vary;
mod words;

pub use dates::{http_date, parse_http_date};
pub use directives::{CacheControl, Delta, MAX_DELTA_SECONDS, RequestDirectives, Scope};
pub use eligibility::{Bypass, bypass, is_cached_method};
pub use facts::Facts;
pub use fields::{content_length, hop_by_hop, merge_304, merge_head, strip_hop_by_hop, update_applies};
pub use freshness::{Freshness, FreshnessSource, Reuse, RevalidateReason, is_stale_if_error_status, reuse};
pub use invalidation::invalidated;
pub use negotiation::{Rewrite, Rewrites, reduce};
pub use policy::{Policy, Reduction, Tiers};
pub use ranges::{MAX_RANGES, Ranges};
pub use reference::describes_target;
pub use selection::{Selection, select};
pub use status::{CACHE_NAME, CacheStatus, FwdReason, Handling, Outcome};
pub use storing::{NotStored, RequestFacts, Stored, age_value, is_heuristically_cacheable, storability};
pub use tags::{
    CACHE_GROUP_INVALIDATION, CACHE_GROUPS, CACHE_TAG, MAX_INVALIDATED_GROUPS, SURROGATE_KEY, Tags, Unpurgeable,
    invalidated_groups,
};
pub use targeted::{CDN_CACHE_CONTROL, Control, ControlField, FORELAND_CDN_CACHE_CONTROL, SURROGATE_CONTROL};
pub use time::Timestamp;
pub use validation::{ETag, if_range_matches, not_modified, revalidation_fields, strong_match, weak_match};
pub use vary::{MAX_VARY_FIELDS, Variance, is_any as varies_on_any, variance, varies_on};
