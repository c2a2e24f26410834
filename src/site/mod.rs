//! Which policy governs this request: hosts, routes, normalising, and the cache key.
//!
//! All of it is pure and on the hot path: a request that is already in normal form is decided without an allocation.

mod directory;
mod key;
mod matcher;
mod normal;

pub use directory::Directory;
pub use key::{Key, KeyParts, KeyText, describe, key};
pub use matcher::{Facts, matches, route};
pub use normal::{BadHost, has_dot_segments, normalise_host, normalise_path, normalise_query};
