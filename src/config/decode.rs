//! From the tree of the YAML to typed values, noting every mistake on the way.
//!
//! A type says in one place how it is read and how it is described; the reference page and the JSON Schema are made
//! of the descriptions.

use std::fmt;
use std::ops::Deref;

use super::node::{Node, Value, quote};
use super::report::{Mark, Place, Report, one_of, suggest};

/// A type that can be read from the file.
pub(super) trait Decode: Sized {
    /// `None`: mistakes have been reported.
    fn decode(node: &Node, trail: &Trail<'_>, report: &mut Report) -> Option<Self>;

    fn shape() -> Shape;

    /// Adds where each key stands that the file gives, by its path below the value (`ttl`, `key.query`). False for a
    /// value that is no mapping with known keys.
    fn given(&self, _below: &str, _found: &mut Vec<(String, Place)>) -> bool {
        false
    }
}

/// What a value may look like.
pub(super) enum Shape {
    Bool,
    Number { min: u64, max: u64 },
    Words(Vec<&'static str>),
    Text(&'static Kind),
    List { of: Box<Shape>, min: usize },
    Map { key: &'static Kind, of: Box<Shape>, min: usize },
    Keys(fn() -> Keys),
    Any(Vec<Shape>),
}

/// A kind of text.
pub(super) struct Kind {
    /// `duration`, as the reference page calls it.
    pub name: &'static str,
    /// `a duration such as 30s`, as a message calls it.
    pub expected: &'static str,
    /// A regular expression that no right value fails: for editors that know the JSON Schema.
    pub pattern: &'static str,
    /// Whether YAML's bare numbers are read as text (for a better message where they are wrong).
    pub numbers: bool,
}

/// A mapping with known keys.
pub(super) struct Keys {
    pub name: &'static str,
    pub doc: &'static str,
    pub fields: Vec<Field>,
    /// Keys whose time has not come.
    pub later: Vec<(&'static str, &'static str)>,
}

pub(super) struct Field {
    pub name: &'static str,
    pub doc: &'static str,
    pub presence: Presence,
    pub shape: fn() -> Shape,
}

/// What holds where a key is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    Required,
    /// This value, written as in the file.
    Default(&'static str),
    /// Nothing is read; the text says what that means.
    Absent(&'static str),
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Placed<T> {
    pub value: T,
    pub place: Place,
    /// The file says it; it is not a default.
    pub given: bool,
}

impl<T> Deref for Placed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Decode> Placed<T> {
    pub fn decode(node: &Node, trail: &Trail<'_>, report: &mut Report) -> Option<Self> {
        let value = T::decode(node, trail, report)?;
        Some(Placed { value, place: trail.place(node.mark), given: true })
    }
}

/// The way from the root to a value.
pub(super) struct Trail<'a> {
    parent: Option<&'a Trail<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Key(&'a str),
    Index(usize),
}

impl Trail<'static> {
    pub const ROOT: Trail<'static> = Trail { parent: None, step: Step::Root };
}

impl<'a> Trail<'a> {
    pub fn key(&'a self, key: &'a str) -> Trail<'a> {
        Trail { parent: Some(self), step: Step::Key(key) }
    }

    pub fn index(&'a self, index: usize) -> Trail<'a> {
        Trail { parent: Some(self), step: Step::Index(index) }
    }

    pub fn place(&self, mark: Mark) -> Place {
        Place { mark, path: self.to_string() }
    }
}

impl fmt::Display for Trail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        let after_root = self.parent.is_none_or(|p| matches!(p.step, Step::Root));
        match self.step {
            Step::Root => Ok(()),
            Step::Index(i) => write!(f, "[{i}]"),
            Step::Key(key) if key.is_empty() || key.contains(|c: char| !c.is_ascii_graphic() || "[].".contains(c)) => {
                write!(f, "[{}]", quote(key))
            }
            Step::Key(key) if after_root => f.write_str(key),
            Step::Key(key) => write!(f, ".{key}"),
        }
    }
}

/// Declares mappings: a struct each, with its reader and its description. A key that may be left out says what then
/// holds; keys after `later` are refused as not yet available.
macro_rules! options {
    ($(
        $(#[doc = $doc:literal])+
        pub struct $name:ident {
            $( $(#[doc = $field_doc:literal])+ $field:ident: $type:ty = $presence:expr; )+
            $( later { $( $(#[doc = $later_doc:literal])+ $later:ident; )+ } )?
        }
    )+) => {$(
        $(#[doc = $doc])+
        #[derive(Clone, Debug)]
        pub(in crate::config) struct $name {
            $( $(#[doc = $field_doc])+ pub $field: Option<$crate::config::decode::Placed<$type>>, )+
        }

        impl $name {
            fn keys() -> $crate::config::decode::Keys {
                #[allow(unused_imports, reason = "not every mapping has keys of each kind")]
                use $crate::config::decode::Presence::*;
                $crate::config::decode::Keys {
                    name: stringify!($name),
                    doc: concat!($($doc, "\n"),+),
                    fields: vec![$( $crate::config::decode::Field {
                        name: stringify!($field).trim_start_matches("r#"),
                        doc: concat!($($field_doc, "\n"),+),
                        presence: $presence,
                        shape: <$type as $crate::config::decode::Decode>::shape,
                    } ),+],
                    later: vec![$( $( (stringify!($later), concat!($($later_doc, "\n"),+)) ),+ )?],
                }
            }
        }

        impl $crate::config::decode::Decode for $name {
            fn decode(
                node: &$crate::config::node::Node,
                trail: &$crate::config::decode::Trail<'_>,
                report: &mut $crate::config::report::Report,
            ) -> Option<Self> {
                let mut reader = $crate::config::decode::Reader::open(node, trail, report, Self::keys())?;
                Some($name { $( $field: reader.read(), )+ })
            }

            fn shape() -> $crate::config::decode::Shape {
                $crate::config::decode::Shape::Keys(Self::keys)
            }

            fn given(&self, below: &str, found: &mut Vec<(String, $crate::config::report::Place)>) -> bool {
                $( $crate::config::decode::found(
                    &self.$field,
                    &format!("{below}{}", stringify!($field).trim_start_matches("r#")),
                    found,
                ); )+
                true
            }
        }
    )+};
}
pub(super) use options;

/// Adds where a key stands, or where those below it do.
pub(super) fn found<T: Decode>(field: &Option<Placed<T>>, path: &str, found: &mut Vec<(String, Place)>) {
    let Some(field) = field.as_ref().filter(|field| field.given) else { return };
    if !field.value.given(&format!("{path}."), found) {
        found.push((path.to_owned(), field.place.clone()));
    }
}

/// Reads a mapping's fields in the order of their declaration.
pub(super) struct Reader<'a> {
    node: &'a Node,
    entries: &'a [super::node::Entry],
    trail: &'a Trail<'a>,
    report: &'a mut Report,
    fields: std::vec::IntoIter<Field>,
}

impl<'a> Reader<'a> {
    /// Checks the names of all keys.
    pub fn open(node: &'a Node, trail: &'a Trail<'a>, report: &'a mut Report, keys: Keys) -> Option<Self> {
        let entries = mapping(node, trail, report)?;
        let names: Vec<&str> = keys.fields.iter().map(|f| f.name).collect();
        let known: Vec<&str> = names.iter().copied().chain(keys.later.iter().map(|(name, _)| *name)).collect();
        for entry in entries {
            let place = trail.key(&entry.key).place(entry.key_mark);
            if keys.later.iter().any(|(name, _)| *name == entry.key) {
                report.error(&place, "not yet available");
            } else if !known.contains(&entry.key.as_str()) {
                // A key that is not yet available is recognised behind a slip, but never recommended in a list.
                let mut hint = suggest(&entry.key, &known);
                if !hint.contains("did you mean") {
                    hint = suggest(&entry.key, &names);
                }
                report.error(&place, format!("unknown key {}{hint}", backticks(&entry.key)));
            }
        }
        unique(entries, trail, report);
        Some(Reader { node, entries, trail, report, fields: keys.fields.into_iter() })
    }

    /// The next field.
    pub fn read<T: Decode>(&mut self) -> Option<Placed<T>> {
        let field = self.fields.next()?;
        let trail = self.trail.key(field.name);
        if let Some(entry) = self.entries.iter().find(|e| e.key == field.name) {
            return Placed::decode(&entry.node, &trail, self.report);
        }
        match field.presence {
            Presence::Absent(_) => None,
            Presence::Default(text) => {
                let node = Node::plain(text, self.node.mark);
                Placed::decode(&node, &trail, self.report).map(|p| Placed { given: false, ..p })
            }
            Presence::Required => {
                let place = self.trail.place(self.node.mark);
                self.report.error(&place, format!("the key `{}` is missing", field.name));
                None
            }
        }
    }
}

/// The entries of a mapping, or a report that it is none.
pub(super) fn mapping<'a>(node: &'a Node, trail: &Trail<'_>, report: &mut Report) -> Option<&'a [super::node::Entry]> {
    match &node.value {
        Value::Map(entries) => Some(entries),
        _ => {
            report.error(&trail.place(node.mark), format!("expected a mapping, found {}", node.found()));
            None
        }
    }
}

/// Reports keys that stand twice.
pub(super) fn unique(entries: &[super::node::Entry], trail: &Trail<'_>, report: &mut Report) {
    let mut seen = std::collections::HashMap::new();
    for entry in entries {
        match seen.get(entry.key.as_str()) {
            None => _ = seen.insert(entry.key.as_str(), entry.key_mark.line),
            Some(line) => report.error(
                &trail.key(&entry.key).place(entry.key_mark),
                format!("duplicate key {}; it is already given on line {line}", backticks(&entry.key)),
            ),
        }
    }
}

/// A name as it was written, on one line.
pub(super) fn backticks(name: &str) -> String {
    let quoted = quote(name);
    format!("`{}`", &quoted[1..quoted.len() - 1])
}

/// Text that is read by a rule of its own.
pub(super) trait FromText: Sized {
    const KIND: Kind;

    fn from_text(text: &str) -> Result<Self, Bad>;
}

/// Why a text will not do.
pub(super) enum Bad {
    /// It is nothing of the kind.
    Form,
    /// A phrase that says what is wrong.
    Because(String),
}

impl From<String> for Bad {
    fn from(message: String) -> Self {
        Bad::Because(message)
    }
}

impl<T: FromText + 'static> Decode for T {
    fn decode(node: &Node, trail: &Trail<'_>, report: &mut Report) -> Option<Self> {
        from_text(node, const { &T::KIND }, T::from_text, trail, report)
    }

    fn shape() -> Shape {
        Shape::Text(const { &T::KIND })
    }
}

/// Reads a text by its rule.
pub(super) fn from_text<T>(
    node: &Node,
    kind: &Kind,
    rule: impl Fn(&str) -> Result<T, Bad>,
    trail: &Trail<'_>,
    report: &mut Report,
) -> Option<T> {
    let result = match &node.value {
        Value::Text(text) => rule(text),
        Value::Number(text) if kind.numbers => rule(text),
        Value::Number(_) | Value::Bool(_) => {
            Err(Bad::Because(format!("expected {}, found {} without quotes", kind.expected, node.found())))
        }
        _ => Err(Bad::Form),
    };
    let message = match result {
        Ok(value) => return Some(value),
        Err(Bad::Form) => format!("expected {}, found {}", kind.expected, node.found()),
        Err(Bad::Because(message)) => message,
    };
    report.error(&trail.place(node.mark), message);
    None
}

impl Decode for bool {
    fn decode(node: &Node, trail: &Trail<'_>, report: &mut Report) -> Option<Self> {
        match node.value {
            Value::Bool(b) => Some(b),
            _ => {
                report.error(&trail.place(node.mark), format!("expected true or false, found {}", node.found()));
                None
            }
        }
    }

    fn shape() -> Shape {
        Shape::Bool
    }
}

/// A whole number from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Int<const MIN: u64, const MAX: u64>(pub usize);

impl<const MIN: u64, const MAX: u64> Decode for Int<MIN, MAX> {
    fn decode(node: &Node, trail: &Trail<'_>, report: &mut Report) -> Option<Self> {
        if let Value::Number(text) = &node.value
            && let Ok(n) = text.parse::<u64>()
            && (MIN..=MAX).contains(&n)
            && let Ok(n) = usize::try_from(n)
        {
            return Some(Int(n));
        }
        let message = format!("expected a number from {MIN} to {MAX}, found {}", node.found());
        report.error(&trail.place(node.mark), message);
        None
    }

    fn shape() -> Shape {
        Shape::Number { min: MIN, max: MAX }
    }
}

/// A list of at least `MIN`.
#[derive(Clone, Debug)]
pub(super) struct List<T, const MIN: usize = 1>(pub Vec<Placed<T>>);

impl<T: Decode, const MIN: usize> Decode for List<T, MIN> {
    fn decode(node: &Node, trail: &Trail<'_>, report: &mut Report) -> Option<Self> {
        let Value::List(items) = &node.value else {
            let hint = match &node.value {
                Value::Text(t)
                    if t.len() < 40 && !t.contains(|c: char| c.is_whitespace() || ",[]{}\"'*&".contains(c)) =>
                {
                    format!("; a list of one is written [{t}]")
                }
                _ => String::new(),
            };
            report.error(&trail.place(node.mark), format!("expected a list, found {}{hint}", node.found()));
            return None;
        };
        if items.len() < MIN {
            report.error(&trail.place(node.mark), "the list is empty");
            return None;
        }
        let decode = |(i, item)| Placed::decode(item, &trail.index(i), report);
        Some(List(items.iter().enumerate().filter_map(decode).collect()))
    }

    fn shape() -> Shape {
        Shape::List { of: Box::new(T::shape()), min: MIN }
    }
}

/// One, or a list of at least `MIN`.
#[derive(Clone, Debug)]
pub(super) struct OneOrMany<T, const MIN: usize = 1>(pub Vec<Placed<T>>);

impl<T: Decode, const MIN: usize> Decode for OneOrMany<T, MIN> {
    fn decode(node: &Node, trail: &Trail<'_>, report: &mut Report) -> Option<Self> {
        match node.value {
            Value::List(_) => List::<T, MIN>::decode(node, trail, report).map(|list| OneOrMany(list.0)),
            _ => Placed::decode(node, trail, report).map(|one| OneOrMany(vec![one])),
        }
    }

    fn shape() -> Shape {
        Shape::Any(vec![T::shape(), List::<T, MIN>::shape()])
    }
}

/// A mapping whose keys the operator chooses, in file order.
#[derive(Clone, Debug)]
pub(super) struct Map<K, V, const MIN: usize = 1>(pub Vec<(Placed<K>, Placed<V>)>);

impl<K: FromText + 'static, V: Decode, const MIN: usize> Decode for Map<K, V, MIN> {
    fn decode(node: &Node, trail: &Trail<'_>, report: &mut Report) -> Option<Self> {
        let entries = mapping(node, trail, report)?;
        if entries.len() < MIN {
            report.error(&trail.place(node.mark), "the mapping is empty");
            return None;
        }
        unique(entries, trail, report);
        let mut pairs = Vec::with_capacity(entries.len());
        for entry in entries {
            let trail = trail.key(&entry.key);
            // Any scalar is a key; whether its text will do is for the key's type to say.
            let key = Node { mark: entry.key_mark, value: Value::Text(entry.key.clone()) };
            let key = Placed::<K>::decode(&key, &trail, report);
            let value = Placed::<V>::decode(&entry.node, &trail, report);
            if let (Some(key), Some(value)) = (key, value) {
                pairs.push((key, value));
            }
        }
        Some(Map(pairs))
    }

    fn shape() -> Shape {
        Shape::Map { key: const { &K::KIND }, of: Box::new(V::shape()), min: MIN }
    }
}

/// Reads one of a few words.
pub(super) fn word<T: Copy>(
    node: &Node,
    trail: &Trail<'_>,
    report: &mut Report,
    words: &[(&'static str, T)],
    later: &[&'static str],
) -> Option<T> {
    let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
    let place = trail.place(node.mark);
    match &node.value {
        Value::Text(text) => {
            if let Some((_, value)) = words.iter().find(|(name, _)| name == text) {
                return Some(*value);
            }
            if later.contains(&text.as_str()) {
                report.error(&place, format!("`{text}` is not yet available; expected {}", one_of(&names)));
            } else {
                report.error(
                    &place,
                    format!("expected {}, found {}{}", one_of(&names), node.found(), near(text, &names)),
                );
            }
        }
        _ => report.error(&place, format!("expected {}, found {}", one_of(&names), node.found())),
    }
    None
}

fn near(text: &str, names: &[&str]) -> String {
    let hint = suggest(text, names);
    if hint.contains("did you mean") && names.len() > 1 { hint } else { String::new() }
}
