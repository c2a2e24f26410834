//! Which policy governs this request: hosts, routes, normalising, and the cache key.
//!
//! All of it is pure and on the hot path: a request that is already in normal form is decided without an allocation.
//! [`resolve`] is the whole way, for the proxy and for whoever asks what the proxy would do.

mod directory;
mod fields;
mod key;
mod matcher;
mod normal;
mod refusal;
mod resolve;
pub mod tokens;
mod visitor;

pub use directory::{Directory, pattern_of};
pub use fields::{Names, nominated, withheld};
pub use key::{Key, KeyParts, KeyText, Parts, describe, is_https, key, parts, query_in_key};
pub use matcher::{Facts, Unmet, matches, may_match, route, unmet};
pub use normal::{
    BadHost, decoded, has_dot_segments, normalise_authority, normalise_host, normalise_path, normalise_query,
    other_readings,
};
pub use refusal::Refusal;
pub use resolve::{Asked, Resolved, announces_content, key_of_get, policy, resolve};
pub use tokens::{TokenPlaces, Tokens};
pub use visitor::Visitor;
