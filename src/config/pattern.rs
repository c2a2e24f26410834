//! Path globs: `*` within a segment, `**` across segments.

/// A checked path glob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    text: String,
}

impl PathPattern {
    /// Whether a normalised path matches.
    pub fn matches(&self, path: &str) -> bool {
        self.text == path
    }
}
