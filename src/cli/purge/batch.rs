//! What one call asks for.

use serde_json::Value;

use crate::invalidate::Entry;

/// A call's body, at most, in bytes: less than the admin listener takes for a purge (16 MiB).
const MAX_BYTES: usize = (16 << 20) - 4096;

/// For the keys, the brackets and the flags of a body, in bytes.
const AROUND: usize = 256;

/// A kind of selector that has a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    Sites,
    Hosts,
    Prefixes,
    Urls,
    Tags,
}

/// Where a selector was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// On the command line, as this option.
    Argument(String),
    /// On this line of standard input, from 1.
    Line(u64),
}

/// A selector to be sent.
#[derive(Debug)]
pub struct Selector {
    pub list: List,
    /// A string of JSON.
    pub json: String,
    pub place: Place,
}

/// The selectors of one call, in the form in which they are sent.
#[derive(Debug, Default)]
pub struct Batch {
    everything: bool,
    soft: bool,
    raw: bool,
    parts: [Part; List::ALL.len()],
    count: usize,
    bytes: usize,
    first: Option<Place>,
}

#[derive(Debug, Default)]
struct Part {
    /// Strings of JSON, with commas between.
    json: String,
    /// So many from the command line, and then one from each of these lines.
    arguments: usize,
    lines: Vec<u64>,
}

impl List {
    /// In the order in which they are sent.
    pub const ALL: [List; 5] = [List::Sites, List::Hosts, List::Prefixes, List::Urls, List::Tags];

    /// The key in a call's body.
    pub fn key(self) -> &'static str {
        match self {
            List::Sites => "sites",
            List::Hosts => "hosts",
            List::Prefixes => "prefixes",
            List::Urls => "urls",
            List::Tags => "tags",
        }
    }

    pub fn option(self) -> &'static str {
        match self {
            List::Sites => "--site",
            List::Hosts => "--host",
            List::Prefixes => "--prefix",
            List::Urls => "--url",
            List::Tags => "--tag",
        }
    }

    pub fn of_key(key: &str) -> Option<List> {
        List::ALL.into_iter().find(|list| list.key() == key)
    }
}

impl Selector {
    pub fn argument(list: List, text: String) -> Selector {
        let place = Place::Argument(format!("{} {text}", list.option()));
        Selector { list, json: Value::String(text).to_string(), place }
    }

    pub fn line(list: List, text: &str, line: u64) -> Selector {
        Selector { list, json: Value::from(text).to_string(), place: Place::Line(line) }
    }
}

impl Batch {
    /// `raw` is sent only where there is a prefix.
    pub fn new(everything: bool, soft: bool, raw: bool) -> Batch {
        let first = everything.then(|| Place::Argument("--everything".to_owned()));
        Batch { everything, soft, raw, count: usize::from(everything), bytes: AROUND, first, ..Batch::default() }
    }

    /// How many selectors it has.
    pub fn count(&self) -> usize {
        self.count
    }

    /// No more may be added.
    pub fn is_full(&self) -> bool {
        self.count >= Entry::MAX_SELECTORS
    }

    /// The selector itself, where the batch has no place for it. An empty batch takes any.
    pub fn push(&mut self, selector: Selector) -> Result<(), Selector> {
        let bytes = self.bytes.saturating_add(selector.json.len()).saturating_add(1);
        if self.count > 0 && (self.is_full() || bytes > MAX_BYTES) {
            return Err(selector);
        }
        let part = &mut self.parts[selector.list as usize];
        if !part.json.is_empty() {
            part.json.push(',');
        }
        part.json.push_str(&selector.json);
        match &selector.place {
            Place::Argument(_) => part.arguments += 1,
            Place::Line(line) => part.lines.push(*line),
        }
        self.first.get_or_insert(selector.place);
        self.bytes = bytes;
        self.count += 1;
        Ok(())
    }

    /// Where its first selector was given.
    pub fn first(&self) -> Option<&Place> {
        self.first.as_ref()
    }

    /// The line of standard input that a selector is from; `None`: it is from the command line, or there is no such.
    pub fn line(&self, list: List, index: usize) -> Option<u64> {
        let part = &self.parts[list as usize];
        part.lines.get(index.checked_sub(part.arguments)?).copied()
    }

    /// The body of `POST /v1/purge`.
    pub fn body(&self) -> String {
        let mut body = String::with_capacity(self.bytes);
        body.push('{');
        let mut key = |key: &str, value: [&str; 3]| {
            body.push_str(if body.len() == 1 { "\"" } else { ",\"" });
            body.push_str(key);
            body.push_str("\":");
            value.iter().for_each(|piece| body.push_str(piece));
        };
        for (list, part) in List::ALL.iter().zip(&self.parts).filter(|(_, part)| !part.json.is_empty()) {
            key(list.key(), ["[", &part.json, "]"]);
        }
        let raw = self.raw && !self.parts[List::Prefixes as usize].json.is_empty();
        for (name, set) in [("everything", self.everything), ("soft", self.soft), ("raw", raw)] {
            if set {
                key(name, ["true", "", ""]);
            }
        }
        body.push('}');
        body
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(batch: &Batch) -> Value {
        serde_json::from_str(&batch.body()).expect("JSON")
    }

    #[test]
    fn only_what_is_asked_for_is_sent() {
        let mut batch = Batch::new(false, false, true);
        assert!(batch.push(Selector::argument(List::Tags, "a\"\\\u{1}é".to_owned())).is_ok());
        assert_eq!(parsed(&batch), json!({ "tags": ["a\"\\\u{1}é"] }));
        assert!(batch.push(Selector::line(List::Prefixes, "a/b", 7)).is_ok());
        assert!(batch.push(Selector::line(List::Tags, "c", 8)).is_ok());
        assert_eq!(parsed(&batch), json!({ "tags": ["a\"\\\u{1}é", "c"], "prefixes": ["a/b"], "raw": true }));
        assert_eq!(parsed(&Batch::new(true, true, false)), json!({ "everything": true, "soft": true }));
        assert_eq!(Batch::new(true, false, false).count(), 1);
        for list in List::ALL {
            let mut batch = Batch::new(false, false, false);
            assert!(batch.push(Selector::line(list, "x", 1)).is_ok());
            assert_eq!(parsed(&batch), json!({ list.key(): ["x"] }));
            assert_eq!(List::of_key(list.key()), Some(list));
        }
    }

    #[test]
    fn a_selector_is_known_by_its_place() {
        let mut batch = Batch::new(false, false, false);
        assert!(batch.push(Selector::argument(List::Tags, "a".to_owned())).is_ok());
        assert!(batch.push(Selector::line(List::Tags, "b", 3)).is_ok());
        assert!(batch.push(Selector::line(List::Tags, "c", 9)).is_ok());
        let lines = [0, 1, 2, 3, usize::MAX].map(|index| batch.line(List::Tags, index));
        assert_eq!(lines, [None, Some(3), Some(9), None, None]);
        assert_eq!(batch.line(List::Urls, 0), None);
        assert_eq!(batch.first(), Some(&Place::Argument("--tag a".to_owned())));
    }

    #[test]
    fn a_batch_is_bounded_in_number() {
        let mut batch = Batch::new(true, false, false);
        for line in 2..=Entry::MAX_SELECTORS as u64 {
            assert!(!batch.is_full() && batch.push(Selector::line(List::Urls, "u", line)).is_ok());
        }
        assert!(batch.is_full() && batch.push(Selector::line(List::Urls, "u", 1)).is_err());
        assert_eq!(batch.count(), Entry::MAX_SELECTORS);
    }

    #[test]
    fn a_batch_is_bounded_in_size() {
        // Control characters are written with six bytes each.
        let long = "\u{1}".repeat(super::super::lines::MAX_LINE);
        let mut batch = Batch::new(true, true, true);
        let mut pushed = 0;
        while batch.push(Selector::line(List::Prefixes, &long, 1)).is_ok() {
            pushed += 1;
        }
        assert!(pushed >= 2, "{pushed}");
        while batch.push(Selector::line(List::Tags, "x", 1)).is_ok() {
            pushed += 1;
        }
        assert!(batch.body().len() <= MAX_BYTES, "{}", batch.body().len());
        assert_eq!(batch.count(), pushed + 1);
        let longer = "\u{1}".repeat(MAX_BYTES);
        assert!(Batch::new(false, false, false).push(Selector::line(List::Tags, &longer, 1)).is_ok());
    }
}
