//! What a purge is about.

/// What is purged. All text is in normal form: as it stands in the keys of what is stored.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Selector {
    /// All that is stored.
    Everything,
    /// All of a site, by its name.
    Site(Box<str>),
    /// All of a host. Without a port, on whatever port it was asked for.
    Host(Box<str>),
    /// All whose path begins so. Without a port in the host, on whatever port.
    Prefix {
        host: Box<str>,
        /// Begins with a `/`. No query.
        path: Box<str>,
        /// The path may go on within a segment: `/a` is a prefix of `/ab`. Else it is one of `/a`, `/a/` and what is
        /// below, but not of `/ab`; and `/a/` is none of `/a`.
        raw: bool,
    },
    /// One URL in all its variants.
    Url {
        /// With the port, where that is not the scheme's own.
        host: Box<str>,
        path: Box<str>,
        /// What of it is in the key; `None`: none, as without a `?`.
        query: Option<Box<str>>,
    },
    /// All that has a tag.
    Tag(Box<str>),
    /// All of a host and port that is in a group (RFC 9875).
    Group { host: Box<str>, name: Box<str> },
}
