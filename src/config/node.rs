//! The YAML as a tree that remembers where everything stands.
//!
//! serde_yaml tells a position only in an error. So every scalar is handed to its parent beside a deliberate error:
//! the value through a slot, the position in the error's text. A collection stands where its first member stands.
//! Reading goes on after such an error, since a scalar is wholly consumed by the time it is raised.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, Visitor};

use super::report::{Finding, Mark, Place};

/// Nodes in one file with all aliases followed: a bound on what a few lines of nested aliases can grow to.
const MAX_NODES: usize = 500_000;

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub mark: Mark,
    pub value: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    /// As it would be written: which range is right is for the reader of the value to say.
    Number(String),
    Text(String),
    List(Vec<Node>),
    /// In file order. Duplicate keys are kept for the reader to complain about; merge keys (`<<`) are resolved.
    Map(Vec<Entry>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub key: String,
    pub key_mark: Mark,
    pub node: Node,
}

impl Node {
    /// Reads one YAML document.
    pub fn parse(text: &str) -> Result<Node, Finding> {
        let mut documents = serde_yaml::Deserializer::from_str(text);
        let Some(document) = documents.next() else {
            return Ok(Node { mark: START, value: Value::Null });
        };
        let budget = Cell::new(MAX_NODES);
        let mut slot = None;
        let mut node = match (Seed { slot: &mut slot, budget: &budget }).deserialize(document) {
            Ok(node) => node,
            Err(error) => match slot {
                Some(value) => Node { mark: mark_of(&error), value },
                None => return Err(syntax(text, &error)),
            },
        };
        if let Some(second) = documents.next() {
            return Err(second_document(text, second));
        }
        node.settle(START);
        Ok(node)
    }

    /// The node that a plain scalar would be, or a list of them on one line: how defaults are written.
    pub fn plain(text: &str, mark: Mark) -> Node {
        let value = match text {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            "{}" => Value::Map(Vec::new()),
            "[]" => Value::List(Vec::new()),
            _ if text.starts_with('[') && text.ends_with(']') => {
                Value::List(text[1..text.len() - 1].split(", ").map(|item| Node::plain(item, mark)).collect())
            }
            _ if text.bytes().all(|b| b.is_ascii_digit()) => Value::Number(text.to_owned()),
            _ => Value::Text(text.to_owned()),
        };
        Node { mark, value }
    }

    /// What was found, for a message: never longer than a line.
    pub fn found(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::Bool(b) => b.to_string(),
            Value::Number(n) => n.clone(),
            Value::Text(t) => quote(t),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a mapping".to_owned(),
        }
    }

    /// Gives a collection without a first member its parent's place.
    fn settle(&mut self, fallback: Mark) {
        if self.mark == Mark::default() {
            self.mark = fallback;
        }
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|item| item.settle(self.mark)),
            Value::Map(entries) => entries.iter_mut().for_each(|e| e.node.settle(e.key_mark)),
            _ => {}
        }
    }

    fn collection(first: Option<Mark>, value: Value) -> Node {
        Node { mark: first.unwrap_or_default(), value }
    }
}

/// Text in double quotes, control characters escaped, cut where it would fill the screen.
pub(super) fn quote(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        None => format!("\"{}\"", escape(text)),
        Some((end, _)) => format!("\"{}…\"", escape(&text[..end])),
    }
}

fn escape(text: &str) -> String {
    text.chars().flat_map(|c| if c == '\'' { vec![c] } else { c.escape_debug().collect() }).collect()
}

const START: Mark = Mark { line: 1, column: 1 };

/// Reads one node: a collection is returned, a scalar is left in the slot and an error returned that tells where.
struct Seed<'s> {
    slot: &'s mut Option<Value>,
    budget: &'s Cell<usize>,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Seed<'_> {
    fn scalar<E: Error>(self, value: Value) -> Result<Node, E> {
        *self.slot = Some(value);
        Err(E::custom("scalar"))
    }

    fn spend<E: Error>(budget: &Cell<usize>) -> Result<(), E> {
        let left = budget.get().checked_sub(1).ok_or_else(|| E::custom("too large, with all its aliases followed"))?;
        budget.set(left);
        Ok(())
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        self.scalar(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Node, E> {
        self.scalar(Value::Null)
    }

    fn visit_bool<E: Error>(self, v: bool) -> Result<Node, E> {
        self.scalar(Value::Bool(v))
    }

    fn visit_u64<E: Error>(self, v: u64) -> Result<Node, E> {
        self.scalar(Value::Number(v.to_string()))
    }

    fn visit_i64<E: Error>(self, v: i64) -> Result<Node, E> {
        self.scalar(Value::Number(v.to_string()))
    }

    fn visit_u128<E: Error>(self, v: u128) -> Result<Node, E> {
        self.scalar(Value::Number(v.to_string()))
    }

    fn visit_i128<E: Error>(self, v: i128) -> Result<Node, E> {
        self.scalar(Value::Number(v.to_string()))
    }

    fn visit_f64<E: Error>(self, v: f64) -> Result<Node, E> {
        self.scalar(Value::Number(format!("{v:?}")))
    }

    fn visit_str<E: Error>(self, v: &str) -> Result<Node, E> {
        self.scalar(Value::Text(v.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut items: Vec<Node> = Vec::new();
        loop {
            Seed::spend(self.budget)?;
            let mut slot = None;
            match seq.next_element_seed(Seed { slot: &mut slot, budget: self.budget }) {
                Ok(Some(node)) => items.push(node),
                Ok(None) => break,
                Err(error) => match slot {
                    Some(value) => items.push(Node { mark: mark_of(&error), value }),
                    None => return Err(error),
                },
            }
        }
        let first = items.first().map(|n| n.mark);
        Ok(Node::collection(first, Value::List(items)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut merged: Option<Node> = None;
        let mut first = None;
        loop {
            Seed::spend(self.budget)?;
            let mut slot = None;
            let (key, key_mark) = match map.next_key_seed(Seed { slot: &mut slot, budget: self.budget }) {
                Ok(None) => break,
                Ok(Some(_)) => return Err(A::Error::custom("a key cannot be a list or a mapping")),
                Err(error) => match slot {
                    Some(Value::Text(t) | Value::Number(t)) => (t, mark_of(&error)),
                    Some(Value::Bool(b)) => (b.to_string(), mark_of(&error)),
                    Some(_) => return Err(A::Error::custom("a key is missing before `:`")),
                    None => return Err(error),
                },
            };
            first.get_or_insert(key_mark);
            let mut slot = None;
            let node = match map.next_value_seed(Seed { slot: &mut slot, budget: self.budget }) {
                Ok(node) => node,
                Err(error) => match slot {
                    Some(value) => Node { mark: mark_of(&error), value },
                    None => return Err(error),
                },
            };
            if key == "<<" {
                if merged.replace(node).is_some() {
                    return Err(A::Error::custom("`<<` is given twice; merge a list of mappings instead"));
                }
            } else {
                entries.push(Entry { key, key_mark, node });
            }
        }
        if let Some(node) = merged {
            merge(&mut entries, node, self.budget)?;
        }
        Ok(Node::collection(first, Value::Map(entries)))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<Node, A::Error> {
        Err(A::Error::custom("YAML tags (`!name`) have no meaning here"))
    }
}

/// A merge key adds what the mapping does not say itself; of several mappings, the earlier wins.
fn merge<E: Error>(entries: &mut Vec<Entry>, node: Node, budget: &Cell<usize>) -> Result<(), E> {
    let maps = match node.value {
        Value::List(items) => items,
        value => vec![Node { mark: node.mark, value }],
    };
    for map in maps {
        let Value::Map(more) = map.value else {
            return Err(E::custom("`<<` takes a mapping or a list of mappings"));
        };
        // Compared with what was there before this mapping: a key twice in one source stays visible as a duplicate.
        let known: std::collections::HashSet<String> = entries.iter().map(|e| e.key.clone()).collect();
        for entry in more {
            Seed::spend(budget)?;
            if !known.contains(&entry.key) {
                entries.push(entry);
            }
        }
    }
    Ok(())
}

/// Where an error that serde_yaml has marked stands: its text ends in ` at line L column C`, except at the very start.
fn mark_of(error: &impl fmt::Display) -> Mark {
    let text = error.to_string();
    text.rsplit_once(" at line ").and_then(|(_, place)| line_and_column(place)).map_or(START, |(mark, _)| mark)
}

/// `L column C…` as the mark and what follows it.
fn line_and_column(text: &str) -> Option<(Mark, &str)> {
    let (line, rest) = text.split_once(" column ")?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (column, rest) = rest.split_at(digits);
    Some((Mark { line: line.parse().ok()?, column: column.parse().ok()? }, rest))
}

/// What serde_yaml has to say about text that is not YAML, or YAML that has no place here.
fn syntax(text: &str, error: &serde_yaml::Error) -> Finding {
    let mark = error.location().map(|l| Mark { line: l.line(), column: l.column() }).unwrap_or_default();
    let whole = error.to_string();
    // The first place named is the error's own, which the finding shows in front.
    let mut message = match whole.split_once(" at line ") {
        Some((before, after)) => match line_and_column(after) {
            Some((_, rest)) => format!("{before}{rest}"),
            None => whole.clone(),
        },
        None => whole.clone(),
    };
    // Its own words for its own limits would leave an operator guessing.
    if message.ends_with("recursion limit exceeded") {
        message = "nested too deeply, or an alias within its own anchor".to_owned();
    } else if message.ends_with("repetition limit exceeded") {
        message = "too large, with all its aliases followed".to_owned();
    }
    let line = text.lines().nth(mark.line.saturating_sub(1)).unwrap_or_default();
    if line.chars().take(mark.column.max(1)).any(|c| c == '\t') {
        message.push_str(" (YAML is indented with spaces, never with tabs)");
    }
    Finding { place: Place { mark, path: String::new() }, message }
}

fn second_document(text: &str, document: serde_yaml::Deserializer<'_>) -> Finding {
    let mut slot = None;
    let budget = Cell::new(MAX_NODES);
    let result = (Seed { slot: &mut slot, budget: &budget }).deserialize(document);
    let mark = match result {
        Ok(node) => node.mark,
        Err(error) if slot.is_some() => mark_of(&error),
        Err(error) => return syntax(text, &error),
    };
    let message = "a second YAML document; a configuration is one document".to_owned();
    Finding { place: Place { mark, path: String::new() }, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: usize, column: usize) -> Mark {
        Mark { line, column }
    }

    fn map(node: &Node) -> &[Entry] {
        match &node.value {
            Value::Map(entries) => entries,
            other => panic!("not a mapping: {other:?}"),
        }
    }

    fn list(node: &Node) -> &[Node] {
        match &node.value {
            Value::List(items) => items,
            other => panic!("not a list: {other:?}"),
        }
    }

    #[test]
    fn keys_and_values_stand_where_they_are_written() {
        let node = Node::parse("a: 1\nb:\n  - x\n  - {c: 2s, d: [e,  f]}\n").unwrap();
        let entries = map(&node);
        assert_eq!((entries[0].key_mark, entries[0].node.mark), (at(1, 1), at(1, 4)));
        assert_eq!(entries[0].node.value, Value::Number("1".into()));
        assert_eq!(entries[1].key_mark, at(2, 1));
        let items = list(&entries[1].node);
        assert_eq!(items[0], Node { mark: at(3, 5), value: Value::Text("x".into()) });
        let inner = map(&items[1]);
        assert_eq!((inner[0].key_mark, inner[0].node.mark), (at(4, 6), at(4, 9)));
        assert_eq!(inner[1].key_mark, at(4, 13));
        assert_eq!(list(&inner[1].node)[1].mark, at(4, 21));
    }

    #[test]
    fn empty_collections_stand_at_their_key() {
        let node = Node::parse("a: {}\nbb: []\n").unwrap();
        assert_eq!(map(&node)[0].node.mark, at(1, 1));
        assert_eq!(map(&node)[1].node.mark, at(2, 1));
    }

    #[test]
    fn columns_count_characters() {
        let node = Node::parse("ä: {é: ü}\n").unwrap();
        assert_eq!(map(&map(&node)[0].node)[0].node.mark, at(1, 8));
    }

    #[test]
    fn an_alias_stands_where_its_anchor_does() {
        let node = Node::parse("a: &x {k: 1}\nb: *x\nc: [*x, 2]\n").unwrap();
        let entries = map(&node);
        assert_eq!(map(&entries[1].node)[0].key_mark, at(1, 8));
        assert_eq!(entries[1].key_mark, at(2, 1));
        let items = list(&entries[2].node);
        assert_eq!(map(&items[0])[0].node.mark, at(1, 11));
        assert_eq!(items[1].mark, at(3, 9));
    }

    #[test]
    fn a_merge_key_adds_what_is_not_said() {
        let node = Node::parse("a: &x {k: 1, l: 2}\nb: &y {l: 3, m: 4}\nc: {<<: [*x, *y], k: 9}\n").unwrap();
        let c = map(&map(&node)[2].node);
        let pairs: Vec<(&str, String)> = c.iter().map(|e| (e.key.as_str(), e.node.found())).collect();
        assert_eq!(pairs, [("k", "9".into()), ("l", "2".into()), ("m", "4".into())]);
    }

    #[test]
    fn duplicates_are_kept() {
        let node = Node::parse("a: 1\na: 2\n").unwrap();
        assert_eq!(map(&node).len(), 2);
    }

    #[test]
    fn aliases_cannot_blow_up() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for i in 1..12 {
            let refs = vec![format!("*a{}", i - 1); 10].join(", ");
            text.push_str(&format!("a{i}: &a{i} [{refs}]\n"));
        }
        assert!(Node::parse(&text).is_err());
        assert!(Node::parse("a: &a [*a, *a]\n").is_err());
    }

    #[test]
    fn depth_is_bounded() {
        let text = format!("a: {}{}", "[".repeat(5000), "]".repeat(5000));
        assert!(Node::parse(&text).is_err());
    }
}
