//! Findings: what is wrong with a file, and where.

use std::fmt;

/// Findings printed of one file. A file with more mistakes is better read from the top again.
const SHOWN: usize = 1000;

/// A line and a column, both counted from 1; columns count characters. 0 means unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    pub line: usize,
    pub column: usize,
}

/// Where a value stands: in the file, and in the tree (`sites[0].routes[2].cache.ttl`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub mark: Mark,
    pub path: String,
}

/// One thing wrong, or worth a remark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub place: Place,
    pub message: String,
}

/// Every mistake of one file, in file order. Displays as `FILE:LINE:COL: PATH: MESSAGE`, one a line.
#[derive(Clone, PartialEq, Eq)]
pub struct Errors {
    file: String,
    findings: Vec<Finding>,
}

impl Errors {
    pub(super) fn new(file: &str, mut findings: Vec<Finding>) -> Self {
        findings.sort_by_key(|f| f.place.mark);
        findings.dedup();
        Errors { file: file.to_owned(), findings }
    }

    /// An error about the file as a whole.
    pub(super) fn whole(file: &str, message: String) -> Self {
        Errors::new(file, vec![Finding { place: Place::default(), message }])
    }

    /// What was found, in file order; never empty.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, finding) in self.findings.iter().take(SHOWN).enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            finding.print(&self.file, f)?;
        }
        match self.findings.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "\n{}: and {more} more errors", self.file),
        }
    }
}

impl fmt::Debug for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Errors {}

impl Finding {
    /// The finding as a line, without its line break.
    pub(super) fn line(&self, file: &str) -> String {
        struct Line<'a>(&'a Finding, &'a str);
        impl fmt::Display for Line<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.print(self.1, f)
            }
        }
        Line(self, file).to_string()
    }

    /// The same for a text whose file is told elsewhere.
    pub(super) fn without_file(&self) -> String {
        let line = self.line("");
        line.strip_prefix(':').unwrap_or(&line).trim_start().to_owned()
    }

    fn print(&self, file: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{file}:")?;
        let Mark { line, column } = self.place.mark;
        if line > 0 {
            write!(f, "{line}:{column}:")?;
        }
        if !self.place.path.is_empty() {
            write!(f, " {}:", self.place.path)?;
        }
        write!(f, " {}", self.message)
    }
}

/// Collects findings, so that one mistake does not hide the next.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub errors: Vec<Finding>,
    pub warnings: Vec<Finding>,
}

impl Report {
    pub fn error(&mut self, place: &Place, message: impl Into<String>) {
        self.errors.push(Finding { place: place.clone(), message: message.into() });
    }

    /// Whether an error has been reported about the value at `path`, or about something in it.
    pub fn is_wrong(&self, path: &str) -> bool {
        self.errors.iter().any(|e| {
            e.place.path.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    }

    pub fn warn(&mut self, place: &Place, message: impl Into<String>) {
        self.warnings.push(Finding { place: place.clone(), message: message.into() });
    }
}

/// `; did you mean …?` for the candidate nearest to `word`, or a list of all where that is short enough to help.
pub(crate) fn suggest(word: &str, candidates: &[&str]) -> String {
    match nearest(word, candidates) {
        Some(near) => format!("; did you mean `{near}`?"),
        None if !candidates.is_empty() && candidates.len() <= 12 => format!("; expected {}", one_of(candidates)),
        None => String::new(),
    }
}

/// `a`, `a or b`, `a, b or c`, each in backticks.
pub(super) fn one_of(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|w| format!("`{w}`")).collect();
    match quoted.split_last() {
        None => String::new(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}

/// The candidate that a typing mistake could have turned into `word`.
fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    // Edit distance takes time in the product of the lengths; no name is anywhere near this long.
    if word.len() > 64 {
        return None;
    }
    let lower = word.to_lowercase().replace('-', "_");
    candidates
        .iter()
        .map(|c| (strsim::damerau_levenshtein(&lower, &c.to_lowercase().replace('-', "_")), *c))
        .filter(|(distance, c)| *distance * 3 <= c.len().max(word.len()).max(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, c)| c)
}
