//! The body of a purge: JSON, of which nothing is overlooked.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::reply::shown;
use super::{Purge, WrongSelector};
use crate::invalidate::Entry;

/// The keys that there are: lists of selectors first.
const KEYS: [&str; 8] = ["urls", "hosts", "prefixes", "tags", "sites", "everything", "soft", "raw"];

/// What is wrong outside the lists, and told: a body that is no purge at all can have any number of mistakes.
const TOLD: usize = 16;

/// Why a body is no purge.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    pub error: String,
    /// Each selector that is wrong.
    pub selectors: Vec<WrongSelector>,
}

impl Refused {
    /// Nothing but these selectors is wrong.
    pub fn selectors(selectors: Vec<WrongSelector>) -> Refused {
        let error = match selectors.len() {
            1 => "a selector is wrong: nothing has been purged".to_owned(),
            n => format!("{n} selectors are wrong: nothing has been purged"),
        };
        Refused { error, selectors }
    }
}

/// Reads a purge.
///
/// # Errors
/// Everything that is wrong with it, by place; of what is not even JSON, the first that is.
pub fn read(body: &[u8]) -> Result<Purge, Refused> {
    let mut reading = Reading::default();
    let mut json = serde_json::Deserializer::from_slice(body);
    let found = Look::Keys(&mut reading).deserialize(&mut json);
    match found.and_then(|found| json.end().map(|()| found)) {
        Ok(Found::Object) => {}
        Ok(other) => reading.wrong(|| format!("a purge is an object; this is {other}")),
        Err(error) => {
            return Err(Refused { error: format!("the body is not JSON: {error}"), selectors: Vec::new() });
        }
    }
    reading.done()
}

#[derive(Default)]
struct Reading {
    purge: Purge,
    /// By the places in [`KEYS`].
    seen: [bool; KEYS.len()],
    /// Selectors so far. Beyond the most that there may be, they are only counted.
    count: usize,
    /// The first mistakes outside the lists.
    errors: Vec<String>,
    more_errors: bool,
    selectors: Vec<WrongSelector>,
}

impl Reading {
    fn wrong(&mut self, error: impl FnOnce() -> String) {
        if self.errors.len() < TOLD {
            self.errors.push(error());
        } else {
            self.more_errors = true;
        }
    }

    /// One key and its value.
    fn entry<'de, M: MapAccess<'de>>(&mut self, key: &str, map: &mut M) -> Result<(), M::Error> {
        let known = KEYS.iter().zip(&mut self.seen).find(|(known, _)| **known == key);
        let Some((key, seen)) = known else {
            self.wrong(|| format!("there is no key {:?}: the keys are {}", shown(key), KEYS.join(", ")));
            return map.next_value::<IgnoredAny>().map(drop);
        };
        if std::mem::replace(seen, true) {
            self.wrong(|| format!("the key `{key}` comes twice"));
            return map.next_value::<IgnoredAny>().map(drop);
        }
        let switch = match *key {
            "everything" => &mut self.purge.everything,
            "soft" => &mut self.purge.soft,
            "raw" => &mut self.purge.raw,
            list => {
                let found = map.next_value_seed(Look::Selectors(self, list))?;
                if !matches!(found, Found::List) {
                    self.wrong(|| format!("`{key}` is a list of strings, not {found}"));
                }
                return Ok(());
            }
        };
        match map.next_value_seed(Look::Shallow)? {
            Found::Bool(said) => *switch = said,
            found => self.wrong(|| format!("`{key}` is true or false, not {found}")),
        }
        Ok(())
    }

    /// The next member of a list.
    fn selector(&mut self, list: &'static str, index: usize, found: Found) {
        self.count += 1;
        if self.count > Entry::MAX_SELECTORS {
            return;
        }
        let (value, why) = match found {
            Found::Text(text) if text.is_empty() => (text, "it is empty".to_owned()),
            Found::Text(text) => {
                let selectors = match list {
                    "urls" => &mut self.purge.urls,
                    "hosts" => &mut self.purge.hosts,
                    "prefixes" => &mut self.purge.prefixes,
                    "tags" => &mut self.purge.tags,
                    _ => &mut self.purge.sites,
                };
                return selectors.push(text);
            }
            other => (other.to_string(), "it is not a string".to_owned()),
        };
        self.selectors.push(WrongSelector { list, index, value, why });
    }

    fn done(mut self) -> Result<Purge, Refused> {
        self.count += usize::from(self.purge.everything);
        if self.count > Entry::MAX_SELECTORS {
            let (count, most) = (self.count, Entry::MAX_SELECTORS);
            self.errors.insert(0, format!("there are {count} selectors, and at most {most} in one purge"));
        } else if self.count == 0 && self.errors.is_empty() {
            self.errors.push("nothing is selected".to_owned());
        }
        if self.errors.is_empty() {
            return match self.selectors.is_empty() {
                true => Ok(self.purge),
                false => Err(Refused::selectors(self.selectors)),
            };
        }
        let more = if self.more_errors { "; and more" } else { "" };
        Err(Refused { error: format!("{}{more}", self.errors.join("; ")), selectors: self.selectors })
    }
}

/// A value, as far as it is looked at.
enum Found {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List,
    Object,
}

/// For a message: what is short, as it was sent.
impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Found::Null => f.write_str("null"),
            Found::Bool(value) => value.fmt(f),
            Found::Number(value) => f.write_str(value),
            Found::Text(_) => f.write_str("a string"),
            Found::List => f.write_str("a list"),
            Found::Object => f.write_str("an object"),
        }
    }
}

impl<'de> Deserialize<'de> for Found {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Found, D::Error> {
        Look::Shallow.deserialize(deserializer)
    }
}

/// How a value is looked at.
enum Look<'a> {
    /// What it has in it is passed over.
    Shallow,
    /// The members of a list are selectors, of the list by this name.
    Selectors(&'a mut Reading, &'static str),
    /// The entries of an object are those of a purge.
    Keys(&'a mut Reading),
}

impl<'de> DeserializeSeed<'de> for Look<'_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Found, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Look<'_> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Found, E> {
        Ok(Found::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Found, E> {
        Ok(Found::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Found, E> {
        Ok(Found::Number(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Found, E> {
        Ok(Found::Number(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Found, E> {
        Ok(Found::Number(format!("{value:e}")))
    }

    fn visit_str<E>(self, value: &str) -> Result<Found, E> {
        Ok(Found::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Found, A::Error> {
        if let Look::Selectors(reading, list) = self {
            let mut index = 0;
            while let Some(found) = seq.next_element()? {
                reading.selector(list, index, found);
                index += 1;
            }
        } else {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
        }
        Ok(Found::List)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found, A::Error> {
        if let Look::Keys(reading) = self {
            while let Some(key) = map.next_key::<String>()? {
                reading.entry(&key, &mut map)?;
            }
        } else {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        }
        Ok(Found::Object)
    }
}

#[cfg(test)]
mod tests;
