//! What is asked to be purged.

/// What is to be purged, as it was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Purge {
    pub urls: Vec<String>,
    pub hosts: Vec<String>,
    pub prefixes: Vec<String>,
    pub tags: Vec<String>,
    pub sites: Vec<String>,
    pub everything: bool,
    /// Stale, rather than gone.
    pub soft: bool,
    /// Prefixes may end within a segment of the path.
    pub raw: bool,
}

/// A selector that is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongSelector {
    /// The key of the list that it is in: `urls`.
    pub list: &'static str,
    /// Its place in that.
    pub index: usize,
    pub value: String,
    pub why: String,
}
