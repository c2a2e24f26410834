//! Values that may be a word, or a mapping or list.

use super::matching::{ParameterName, ParameterPattern, TagField};
use crate::config::decode::{Decode, List, OneOrMany, Shape, Trail, word};
use crate::config::model::{LogFormat, Role};
use crate::config::node::{Node, Value};
use crate::config::raw::{Cache, QueryLists};
use crate::config::report::Report;

impl Decode for LogFormat {
    fn decode(node: &Node, trail: &Trail<'_>, report: &mut Report) -> Option<Self> {
        let words = [("json", LogFormat::Json), ("combined", LogFormat::Combined)];
        word(node, trail, report, &words, &[])
    }

    fn shape() -> Shape {
        Shape::Words(vec!["json", "combined"])
    }
}

impl Decode for Role {
    fn decode(node: &Node, trail: &Trail<'_>, report: &mut Report) -> Option<Self> {
        word(node, trail, report, &Role::ALL.map(|role| (role.as_str(), role)), &[])
    }

    fn shape() -> Shape {
        Shape::Words(Role::ALL.map(Role::as_str).to_vec())
    }
}

/// A tier of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum Tier {
    Memory,
    Disk,
}

impl Tier {
    pub fn as_str(self) -> &'static str {
        match self {
            Tier::Memory => "memory",
            Tier::Disk => "disk",
        }
    }
}

impl Decode for Tier {
    fn decode(node: &Node, trail: &Trail<'_>, report: &mut Report) -> Option<Self> {
        word(node, trail, report, &[Tier::Memory, Tier::Disk].map(|tier| (tier.as_str(), tier)), &[])
    }

    fn shape() -> Shape {
        Shape::Words([Tier::Memory, Tier::Disk].map(Tier::as_str).to_vec())
    }
}

/// Settings, or `off`.
#[derive(Clone, Debug)]
pub(in crate::config) enum OffOr<T> {
    Off,
    Keys(T),
}

impl<T: Decode> Decode for OffOr<T> {
    fn decode(node: &Node, trail: &Trail<'_>, report: &mut Report) -> Option<Self> {
        match &node.value {
            Value::Map(_) => T::decode(node, trail, report).map(OffOr::Keys),
            Value::Bool(false) => Some(OffOr::Off),
            Value::Text(text) if text == "off" => Some(OffOr::Off),
            _ => {
                let message = format!("expected `off` or a mapping, found {}", node.found());
                report.error(&trail.place(node.mark), message);
                None
            }
        }
    }

    fn shape() -> Shape {
        Shape::Any(vec![Shape::Words(vec!["off"]), T::shape()])
    }
}

/// A value, or `off`.
#[derive(Clone, Debug)]
pub(in crate::config) struct OrOff<T>(pub Option<T>);

impl<T: Decode> Decode for OrOff<T> {
    fn decode(node: &Node, trail: &Trail<'_>, report: &mut Report) -> Option<Self> {
        match &node.value {
            Value::Bool(false) => Some(OrOff(None)),
            Value::Text(text) if text == "off" => Some(OrOff(None)),
            _ => {
                let known = report.errors.len();
                let value = T::decode(node, trail, report);
                for error in report.errors.iter_mut().skip(known) {
                    error.message.push_str("; or write `off`");
                }
                value.map(|value| OrOff(Some(value)))
            }
        }
    }

    fn shape() -> Shape {
        Shape::Any(vec![Shape::Words(vec!["off"]), T::shape()])
    }
}

/// `on` or `off`.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct OnOff(pub bool);

impl Decode for OnOff {
    fn decode(node: &Node, trail: &Trail<'_>, report: &mut Report) -> Option<Self> {
        match node.value {
            Value::Bool(on) => Some(OnOff(on)),
            _ => word(node, trail, report, &[("on", OnOff(true)), ("off", OnOff(false))], &[]),
        }
    }

    fn shape() -> Shape {
        Shape::Words(vec!["on", "off"])
    }
}

/// Whether, and how.
#[derive(Clone, Debug)]
pub(in crate::config) enum Choice<T> {
    Off,
    On,
    Keys(Box<T>),
}

/// Whether and how to cache.
pub(in crate::config) type CacheChoice = Choice<Cache>;

impl<T: Decode> Decode for Choice<T> {
    fn decode(node: &Node, trail: &Trail<'_>, report: &mut Report) -> Option<Self> {
        match &node.value {
            Value::Map(_) => T::decode(node, trail, report).map(|keys| Choice::Keys(Box::new(keys))),
            Value::Bool(false) => Some(Choice::Off),
            Value::Bool(true) => Some(Choice::On),
            Value::Text(text) if text == "off" => Some(Choice::Off),
            Value::Text(text) if text == "on" => Some(Choice::On),
            _ => {
                let message = format!("expected `on`, `off` or a mapping, found {}", node.found());
                report.error(&trail.place(node.mark), message);
                None
            }
        }
    }

    fn shape() -> Shape {
        Shape::Any(vec![Shape::Words(vec!["on", "off"]), T::shape()])
    }
}

/// Which response fields list tags.
#[derive(Clone, Debug)]
pub(in crate::config) enum TagChoice {
    Off,
    Fields(OneOrMany<TagField>),
}

impl Decode for TagChoice {
    fn decode(node: &Node, trail: &Trail<'_>, report: &mut Report) -> Option<Self> {
        match &node.value {
            Value::Bool(false) => Some(TagChoice::Off),
            Value::Text(text) if text == "off" => Some(TagChoice::Off),
            _ => OneOrMany::decode(node, trail, report).map(TagChoice::Fields),
        }
    }

    fn shape() -> Shape {
        Shape::Any(vec![Shape::Words(vec!["off"]), OneOrMany::<TagField>::shape()])
    }
}

/// Which query parameters are part of the key.
#[derive(Clone, Debug)]
pub(in crate::config) enum QueryChoice {
    All,
    None,
    Only(List<ParameterName>),
    Ignore(List<ParameterPattern>),
}

impl Decode for QueryChoice {
    fn decode(node: &Node, trail: &Trail<'_>, report: &mut Report) -> Option<Self> {
        match &node.value {
            Value::Text(text) if text == "all" => Some(QueryChoice::All),
            Value::Text(text) if text == "none" => Some(QueryChoice::None),
            Value::Map(entries) => {
                let lists = QueryLists::decode(node, trail, report)?;
                let given = |name: &str| entries.iter().any(|e| e.key == name);
                match (lists.only, lists.ignore) {
                    (Some(only), None) if !given("ignore") => Some(QueryChoice::Only(only.value)),
                    (None, Some(ignore)) if !given("only") => Some(QueryChoice::Ignore(ignore.value)),
                    _ if given("only") && given("ignore") => {
                        report.error(&trail.place(node.mark), "`only` and `ignore` exclude each other");
                        None
                    }
                    // A list that is given and wrong has been reported.
                    _ if given("only") || given("ignore") => None,
                    _ => {
                        report.error(&trail.place(node.mark), "the key `only` or `ignore` is missing");
                        None
                    }
                }
            }
            _ => {
                let message =
                    format!("expected `all`, `none`, {{only: [...]}} or {{ignore: [...]}}, found {}", node.found());
                report.error(&trail.place(node.mark), message);
                None
            }
        }
    }

    fn shape() -> Shape {
        Shape::Any(vec![Shape::Words(vec!["all", "none"]), QueryLists::shape()])
    }
}
