//! Tags and groups of a response: by what it can be purged together with others.

use bytes::Bytes;

/// A response's tags and groups, each once, in one allocation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags {
    /// Tags, each followed by a line feed, which none of them contains.
    tags: Bytes,
    /// Groups (RFC 9875), likewise.
    groups: Bytes,
}
