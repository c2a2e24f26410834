//! Tags and groups of a response: by what it can be purged together with others (RFC 9875).

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use http::header::{HeaderMap, HeaderName};
use http::{Method, StatusCode};
use sfv::{BareItem, Item, List, ListEntry, Parser};

use super::invalidation::invalidates;
use super::list::combined;

/// The field of tags that most origins know.
pub const SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");
/// The other field of tags that is widely known.
pub const CACHE_TAG: HeaderName = HeaderName::from_static("cache-tag");
/// RFC 9875 §2.
pub const CACHE_GROUPS: HeaderName = HeaderName::from_static("cache-groups");
/// RFC 9875 §3.
pub const CACHE_GROUP_INVALIDATION: HeaderName = HeaderName::from_static("cache-group-invalidation");

/// A response's tags and groups, each once, in one allocation; in none where there are none.
///
/// A tag is text without white space (U+0020 and below), commas and U+007F. A group is a String of RFC 9651 §3.3.3:
/// printable ASCII, and it may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags {
    /// Tags, then groups, each followed by a line feed, which none of them contains. `None`: there are none.
    text: Option<Arc<str>>,
    /// Where the groups begin.
    groups_at: usize,
}

impl Tags {
    /// Tags of one response.
    pub const MAX_TAGS: usize = 1_000;
    /// Bytes of a tag.
    pub const MAX_TAG_BYTES: usize = 1_024;
    /// Bytes of all tags of one response: what an origin can make the store keep beside the fields themselves.
    pub const MAX_TAG_BYTES_IN_ALL: usize = 32 << 10;
    /// Groups of one response. RFC 9875 §2 wants 32 at least.
    pub const MAX_GROUPS: usize = 128;
    /// Bytes of a group's name. RFC 9875 §2 wants 32 at least.
    pub const MAX_GROUP_BYTES: usize = 256;

    /// The tags in all lines of the fields `names`, in that order, separated by spaces, tabs and commas in any mixture;
    /// and the groups in Cache-Groups.
    ///
    /// # Errors
    /// What is beyond the limits is not cut off, since a purge by what is missing would not find the response: there are
    /// no tags then, but a reason not to store it.
    pub fn read(fields: &HeaderMap, names: &[HeaderName]) -> Result<Tags, Unpurgeable> {
        let (tags, groups) = (read_tags(fields, names)?, read_groups(fields)?);
        Ok(Tags::of(tags, groups.iter().map(String::as_str)))
    }

    /// These as they are after an update of the stored fields, such as by a 304: the tags are the update's if it has any
    /// of the fields `names`, and the groups are its if it has Cache-Groups.
    ///
    /// # Errors
    /// As [`Tags::read`].
    pub fn updated(&self, update: &HeaderMap, names: &[HeaderName]) -> Result<Tags, Unpurgeable> {
        let new = Tags::read(update, names)?;
        let tags = if names.iter().any(|name| update.contains_key(name)) { &new } else { self };
        let groups = if update.contains_key(CACHE_GROUPS) { &new } else { self };
        Ok(Tags::of(tags.tags(), groups.groups()))
    }

    /// The tags, in the order in which they came.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        self.parts().0.split_terminator('\n')
    }

    /// The names of the groups, in the order in which they came.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        self.parts().1.split_terminator('\n')
    }

    /// Whether there is neither a tag nor a group.
    pub fn is_empty(&self) -> bool {
        self.text.is_none()
    }

    /// The bytes that they take in memory, beside what holds them.
    pub fn weight(&self) -> usize {
        // Before the text are an Arc's two counters.
        self.text.as_ref().map_or(0, |text| text.len() + 2 * size_of::<usize>())
    }

    /// Bytes that [`Tags::encode`] appends.
    pub fn encoded_length(&self) -> usize {
        self.text.as_ref().map_or(0, |text| size_of::<u32>() + text.len())
    }

    /// Appends them as [`Tags::decode`] reads them: nothing where there are none.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let Some(text) = &self.text else { return };
        // In range: the limits keep it below 64 KiB.
        out.extend_from_slice(&u32::try_from(self.groups_at).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(text.as_bytes());
    }

    /// What [`Tags::encode`] made, and nothing else; `bytes` end where it ended.
    pub fn decode(bytes: &[u8]) -> Option<Tags> {
        if bytes.is_empty() {
            return Some(Tags::default());
        }
        let (groups_at, text) = bytes.split_first_chunk()?;
        let groups_at = usize::try_from(u32::from_le_bytes(*groups_at)).ok()?;
        let text = std::str::from_utf8(text).ok()?;
        let (tags, groups) = text.split_at_checked(groups_at)?;
        let ended = |part: &str| part.is_empty() || part.ends_with('\n');
        let tag = |tag: &str| !tag.is_empty() && tag.len() <= Tags::MAX_TAG_BYTES && !tag.bytes().any(ends_tag);
        let group =
            |group: &str| group.len() <= Tags::MAX_GROUP_BYTES && group.bytes().all(|b| matches!(b, b' '..=b'~'));
        let right = !text.is_empty()
            && ended(tags)
            && ended(groups)
            && tags.split_terminator('\n').all(tag)
            && groups.split_terminator('\n').all(group)
            && are_distinct(tags, Tags::MAX_TAGS)
            && are_distinct(groups, Tags::MAX_GROUPS)
            && tags.len() - tags.split_terminator('\n').count() <= Tags::MAX_TAG_BYTES_IN_ALL;
        right.then(|| Tags { text: Some(text.into()), groups_at })
    }

    fn of<'a>(tags: impl IntoIterator<Item = &'a str>, groups: impl IntoIterator<Item = &'a str>) -> Tags {
        let mut text = String::new();
        tags.into_iter().for_each(|tag| text.extend([tag, "\n"]));
        let groups_at = text.len();
        groups.into_iter().for_each(|group| text.extend([group, "\n"]));
        Tags { text: (!text.is_empty()).then(|| text.into()), groups_at }
    }

    fn parts(&self) -> (&str, &str) {
        self.text.as_deref().and_then(|text| text.split_at_checked(self.groups_at)).unwrap_or_default()
    }
}

/// Why a response could not be purged by all of its tags and groups, and is therefore not stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unpurgeable {
    /// With this field there are more different ones than [`Tags::MAX_TAGS`] or [`Tags::MAX_GROUPS`].
    TooMany { field: HeaderName, count: usize },
    /// One is longer than [`Tags::MAX_TAG_BYTES`] or [`Tags::MAX_GROUP_BYTES`].
    TooLong { field: HeaderName, bytes: usize },
    /// With this field the tags have more bytes than [`Tags::MAX_TAG_BYTES_IN_ALL`].
    TooLarge { field: HeaderName, bytes: usize },
    /// A tag is not UTF-8, or has control characters: no purge could name it.
    NotText { field: HeaderName },
}

impl fmt::Display for Unpurgeable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unpurgeable::TooMany { field, count } if field == CACHE_GROUPS => {
                write!(f, "{field}: {count} groups are more than {}", Tags::MAX_GROUPS)
            }
            Unpurgeable::TooMany { field, count } => {
                write!(f, "{field}: {count} tags are more than {}", Tags::MAX_TAGS)
            }
            Unpurgeable::TooLong { field, bytes } if field == CACHE_GROUPS => {
                write!(f, "{field}: a group's name of {bytes} bytes is longer than {}", Tags::MAX_GROUP_BYTES)
            }
            Unpurgeable::TooLong { field, bytes } => {
                write!(f, "{field}: a tag of {bytes} bytes is longer than {}", Tags::MAX_TAG_BYTES)
            }
            Unpurgeable::TooLarge { field, bytes } => {
                write!(f, "{field}: tags of {bytes} bytes in all are longer than {}", Tags::MAX_TAG_BYTES_IN_ALL)
            }
            Unpurgeable::NotText { field } => write!(f, "{field}: a tag is not UTF-8 text"),
        }
    }
}

impl std::error::Error for Unpurgeable {}

/// Groups that one response invalidates, at most.
pub const MAX_INVALIDATED_GROUPS: usize = 1_000;

/// The groups that the response to an unsafe request makes invalid by Cache-Group-Invalidation (RFC 9875 §3), each once.
/// None for a safe method, for which the field must be ignored, and for an error, as with
/// [what else the request made invalid](super::invalidated).
///
/// They are those on the origin of the request (RFC 9875 §2.1), and no other. At most [`MAX_INVALIDATED_GROUPS`] of
/// them, the first ones: all of this is a MAY, and 32 is what RFC 9875 §3 wants at least.
pub fn invalidated_groups(method: &Method, status: StatusCode, response: &HeaderMap) -> Vec<String> {
    if !invalidates(method, status) {
        return Vec::new();
    }
    let mut groups = strings(response, &CACHE_GROUP_INVALIDATION);
    // Nothing that is stored is in a group with a longer name.
    groups.retain(|group| group.len() <= Tags::MAX_GROUP_BYTES);
    groups.truncate(MAX_INVALIDATED_GROUPS);
    groups
}

fn read_tags<'a>(fields: &'a HeaderMap, names: &[HeaderName]) -> Result<Vec<&'a str>, Unpurgeable> {
    let mut tags = Vec::new();
    let mut known = HashSet::new();
    let mut bytes = 0;
    for name in names {
        for line in fields.get_all(name) {
            let line = line.as_bytes();
            for tag in line.split(|&byte| is_separator(byte)).filter(|tag| !tag.is_empty()) {
                let text = std::str::from_utf8(tag).ok().filter(|text| !text.bytes().any(ends_tag));
                let Some(tag) = text else { return Err(Unpurgeable::NotText { field: name.clone() }) };
                if tag.len() > Tags::MAX_TAG_BYTES {
                    return Err(Unpurgeable::TooLong { field: name.clone(), bytes: tag.len() });
                }
                if known.insert(tag) {
                    bytes += tag.len();
                    tags.push(tag);
                }
            }
        }
        if tags.len() > Tags::MAX_TAGS {
            return Err(Unpurgeable::TooMany { field: name.clone(), count: tags.len() });
        }
        if bytes > Tags::MAX_TAG_BYTES_IN_ALL {
            return Err(Unpurgeable::TooLarge { field: name.clone(), bytes });
        }
    }
    Ok(tags)
}

fn read_groups(fields: &HeaderMap) -> Result<Vec<String>, Unpurgeable> {
    let groups = strings(fields, &CACHE_GROUPS);
    if groups.len() > Tags::MAX_GROUPS {
        return Err(Unpurgeable::TooMany { field: CACHE_GROUPS, count: groups.len() });
    }
    match groups.iter().map(String::len).max() {
        Some(bytes) if bytes > Tags::MAX_GROUP_BYTES => Err(Unpurgeable::TooLong { field: CACHE_GROUPS, bytes }),
        _ => Ok(groups),
    }
}

/// The members of a List of Strings (RFC 9875 §2, §3), each once, in order. Parameters are ignored. A field that does
/// not parse, or has a member that is no String, is ignored as a whole (RFC 9651 §4.2).
fn strings(fields: &HeaderMap, name: &HeaderName) -> Vec<String> {
    if !fields.contains_key(name) {
        return Vec::new();
    }
    let Ok(list) = Parser::new(&combined(fields, name)).parse::<List>() else { return Vec::new() };
    let string = |entry: &ListEntry| match entry {
        ListEntry::Item(Item { bare_item: BareItem::String(string), .. }) => Some(string.as_str().to_owned()),
        _ => None,
    };
    let Some(mut strings) = list.iter().map(string).collect::<Option<Vec<String>>>() else { return Vec::new() };
    let mut known = HashSet::new();
    strings.retain(|string| known.insert(string.clone()));
    strings
}

/// Whether the lines of a text are no more than `most`, and each stands once.
fn are_distinct(text: &str, most: usize) -> bool {
    let mut known = HashSet::new();
    text.split_terminator('\n').all(|line| known.len() < most && known.insert(line))
}

fn is_separator(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b',')
}

/// Whether a byte cannot be in a tag: a separator, or one that no field has.
fn ends_tag(byte: u8) -> bool {
    is_separator(byte) || byte.is_ascii_control()
}

#[cfg(test)]
#[path = "tags_tests.rs"]
mod tests;
