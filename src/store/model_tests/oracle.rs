//! What may be served, by a list of all versions there have been and a list of all purges: no more than that.

use bytes::Bytes;

use crate::http_cache::Timestamp;
use crate::invalidate::Selector;

/// What can be asked for.
#[derive(Clone, Copy, Debug)]
pub struct Resource {
    pub site: &'static str,
    pub host: &'static str,
    pub path: &'static str,
    pub query: Option<&'static str>,
}

const fn resource(site: &'static str, host: &'static str, path: &'static str, query: Option<&'static str>) -> Resource {
    Resource { site, host, path, query }
}

pub const RESOURCES: [Resource; 8] = [
    resource("s", "a.test", "/", None),
    resource("s", "a.test", "/a", None),
    resource("s", "a.test", "/a", Some("q=1")),
    resource("s", "a.test", "/a", Some("")),
    resource("s", "a.test", "/a/b", None),
    resource("s", "a.test", "/ab", None),
    resource("s", "a.test:8080", "/a/b", None),
    resource("t", "b.test", "/a/b", None),
];

/// Which variants of them there are: the first, and a further one.
pub const VARIANTS: usize = 2;

pub const TAGS: [&str; 3] = ["red", "green", "blue"];
pub const GROUPS: [&str; 2] = ["one", "two"];

impl Resource {
    /// The text of its key.
    pub fn key(&self) -> Bytes {
        let mut text = vec![1];
        let parts = [(b'z', Some(self.site)), (b'h', Some(self.host)), (b'p', Some(self.path)), (b'q', self.query)];
        for (kind, part) in parts.into_iter().filter_map(|(kind, part)| Some((kind, part?))) {
            text.extend([kind, part.len() as u8]);
            text.extend(part.as_bytes());
        }
        text.into()
    }
}

/// Tags and groups, each a bit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Labels(pub u8);

impl Labels {
    pub fn tags(self) -> impl Iterator<Item = &'static str> {
        TAGS.into_iter().enumerate().filter(move |(bit, _)| self.0 >> bit & 1 != 0).map(|(_, tag)| tag)
    }

    pub fn groups(self) -> impl Iterator<Item = &'static str> {
        let bit = TAGS.len();
        GROUPS.into_iter().enumerate().filter(move |(at, _)| self.0 >> (bit + at) & 1 != 0).map(|(_, group)| group)
    }
}

/// A response as the origin gave it, or as a validation confirmed it.
#[derive(Clone, Debug)]
pub struct Version {
    pub resource: usize,
    pub variant: usize,
    pub labels: Labels,
    /// When the request came.
    pub came: u64,
    pub body: Bytes,
}

/// A purge.
#[derive(Clone, Debug)]
pub struct Purged {
    pub selectors: Vec<Selector>,
    pub soft: bool,
    pub at: Timestamp,
    /// When it was called for.
    pub came: u64,
    /// It must be in force. What nobody has been told to be durable need not be after a crash.
    pub sure: bool,
}

#[derive(Default)]
pub struct Oracle {
    pub versions: Vec<Version>,
    pub purges: Vec<Purged>,
    now: u64,
}

impl Oracle {
    /// The next moment.
    pub fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    /// What has been purged of a version since its request came.
    pub fn of<'a>(&'a self, version: &'a Version) -> impl Iterator<Item = &'a Purged> {
        self.purges.iter().filter(|purge| purge.came > version.came && purge.selects(version))
    }

    pub fn may_be_served(&self, version: &Version) -> bool {
        !self.of(version).any(|purge| purge.sure && !purge.soft)
    }

    /// Since when it must be stale, at the latest.
    pub fn stale_since(&self, version: &Version) -> Option<Timestamp> {
        self.of(version).filter(|purge| purge.sure && purge.soft).map(|purge| purge.at).min()
    }
}

impl Purged {
    pub fn selects(&self, version: &Version) -> bool {
        self.selectors.iter().any(|selector| selects(selector, version))
    }
}

fn selects(selector: &Selector, version: &Version) -> bool {
    let Resource { site, host, path, query } = RESOURCES[version.resource];
    // Without a port, on whatever port.
    let on = |wanted: &str| host == wanted || host.split_once(':').is_some_and(|(name, _)| name == wanted);
    match selector {
        Selector::Everything => true,
        Selector::Site(name) => site == &**name,
        Selector::Host(wanted) => on(wanted),
        Selector::Prefix { host, path: prefix, raw: true } => on(host) && path.starts_with(&**prefix),
        Selector::Prefix { host, path: prefix, raw: false } => {
            let below = if prefix.ends_with('/') { prefix.to_string() } else { format!("{prefix}/") };
            on(host) && (path == &**prefix || path.starts_with(&below))
        }
        Selector::Url { host: h, path: p, query: q } => host == &**h && path == &**p && query == q.as_deref(),
        Selector::Tag(tag) => version.labels.tags().any(|its| its == &**tag),
        Selector::Group { host: h, name } => host == &**h && version.labels.groups().any(|its| its == &**name),
    }
}
