//! When what was last purged: what a hit is compared with.
//!
//! Selectors are known by a keyed hash of 64 bits alone, so that a mark takes the same few bytes whatever it is of; should
//! two ever share one, the purge of one purges the other too. A table of fixed size says for most hashes, by one atomic
//! load, that nothing has been purged since; only then is one of many locks taken.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;

use super::selector::Selector;
use super::subject::Subject;
use crate::http_cache::{Facts, Timestamp};

/// Words of the table: 2 MiB. In tests few enough for selectors to share them.
const SLOTS: usize = if cfg!(test) { 1 << 6 } else { 1 << 18 };

const SHARDS: usize = 64;

/// Soft purges of one selector that are told apart. Of more, the oldest two count as one, at the time of the first.
const SOFTS: usize = 8;

/// What purges have made of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Alive,
    /// It is stale since then.
    Stale(Timestamp),
    /// It must not be used.
    Dead,
}

impl Verdict {
    /// The facts of something as purges have made them; `None`: it must not be used. A clock that has been set back since
    /// a soft purge does not put that off.
    pub fn apply(self, facts: Facts, now: Timestamp) -> Option<Facts> {
        match self {
            Verdict::Alive => Some(facts),
            Verdict::Stale(since) => Some(facts.expired_at(since.min(now))),
            Verdict::Dead => None,
        }
    }

    /// What both make of it together.
    fn and(self, other: Verdict) -> Verdict {
        match (self, other) {
            (Verdict::Dead, _) | (_, Verdict::Dead) => Verdict::Dead,
            (Verdict::Stale(a), Verdict::Stale(b)) => Verdict::Stale(a.min(b)),
            (Verdict::Alive, other) => other,
            (own, Verdict::Alive) => own,
        }
    }
}

/// All marks.
pub struct Marks {
    keyed: RandomState,
    slots: Box<[AtomicU64]>,
    shards: [Mutex<HashMap<u64, Mark, BuildHasherDefault<Hashed>>>; SHARDS],
    count: AtomicUsize,
    /// The highest sequence of a purge of each kind.
    kinds: [AtomicU64; KINDS],
    /// Lengths of the prefixes that have been purged: of segments, and raw ones.
    lengths: [ArcSwap<Vec<Length>>; 2],
    /// Held by who changes these.
    measuring: Mutex<()>,
}

/// When one selector was last purged.
#[derive(Default)]
struct Mark {
    /// 0: never.
    hard: u64,
    /// The same, of what concerns nothing that outlasts the process.
    passing: u64,
    /// Soft purges since then, the oldest first.
    #[expect(clippy::box_collection, reason = "most have none, and there may be a million of them")]
    softs: Option<Box<Vec<Soft>>>,
}

#[derive(Clone, Copy)]
struct Soft {
    sequence: u64,
    at: Timestamp,
}

/// A length of prefixes, in bytes, and the highest sequence of a purge of one.
struct Length {
    length: usize,
    last: AtomicU64,
}

const KINDS: usize = 8;

#[derive(Clone, Copy)]
enum Kind {
    Everything,
    Site,
    Host,
    Segments,
    Raw,
    Url,
    Tag,
    Group,
}

impl Default for Marks {
    fn default() -> Marks {
        Marks {
            keyed: RandomState::new(),
            slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
            shards: std::array::from_fn(|_| Mutex::default()),
            count: AtomicUsize::new(0),
            kinds: Default::default(),
            lengths: Default::default(),
            measuring: Mutex::default(),
        }
    }
}

impl Marks {
    /// Notes that a selector is purged. Sequences need not come in order.
    pub fn note(&self, selector: &Selector, sequence: u64, soft: Option<Timestamp>) {
        self.mark(selector, sequence, |mark| mark.note(sequence, soft));
    }

    /// The same, hard, of what concerns nothing that outlasts the process.
    pub fn note_passing(&self, selector: &Selector, sequence: u64) {
        self.mark(selector, sequence, |mark| mark.passing = mark.passing.max(sequence));
    }

    fn mark(&self, selector: &Selector, sequence: u64, change: impl FnOnce(&mut Mark)) {
        if let Selector::Prefix { path, raw, .. } = selector {
            self.note_length(*raw, path.len(), sequence);
        }
        let (kind, hash) = self.hash_of(selector);
        {
            let mut shard = self.shard(hash);
            let before = shard.len();
            change(shard.entry(hash).or_default());
            self.count.fetch_add(shard.len() - before, Ordering::Relaxed);
        }
        self.slot(hash).fetch_max(sequence, Ordering::Release);
        self.kinds[kind as usize].fetch_max(sequence, Ordering::Release);
    }

    /// What purges later than `since` make of something. `None`: only a purge of everything selects it.
    pub fn verdict(&self, subject: Option<Subject<'_>>, since: u64) -> Verdict {
        let mut verdict = Verdict::Alive;
        if self.has(Kind::Everything, since) {
            verdict = self.look(self.hash(Kind::Everything, &[]), since);
        }
        let Some(subject) = subject else { return verdict };
        let of = |kind, parts: &[&[u8]]| self.look(self.hash(kind, parts), since);
        if self.has(Kind::Site, since) {
            verdict = verdict.and(of(Kind::Site, &[subject.parts.zone.as_bytes()]));
        }
        let (host, name) = (subject.parts.host.as_bytes(), subject.name().as_bytes());
        // What is said of a host without a port is said of all its ports.
        let hosts = [name, host];
        let hosts = if name == host { &hosts[..1] } else { &hosts[..] };
        if self.has(Kind::Host, since) {
            verdict = hosts.iter().fold(verdict, |verdict, host| verdict.and(of(Kind::Host, &[host])));
        }
        let path = subject.parts.path.as_bytes();
        if self.has(Kind::Url, since) {
            verdict = verdict.and(of(Kind::Url, &url(host, path, subject.parts.query.map(str::as_bytes))[..]));
        }
        for (kind, lengths) in [Kind::Segments, Kind::Raw].into_iter().zip(&self.lengths) {
            if !self.has(kind, since) {
                continue;
            }
            let lengths = lengths.load();
            let later = lengths.iter().filter(|length| length.last.load(Ordering::Acquire) > since);
            for prefix in later.filter_map(|length| path.get(..length.length)) {
                let within = path.len() > prefix.len() && path[prefix.len()] != b'/' && !prefix.ends_with(b"/");
                if !within || matches!(kind, Kind::Raw) {
                    verdict = hosts.iter().fold(verdict, |verdict, host| verdict.and(of(kind, &[host, prefix])));
                }
            }
        }
        if self.has(Kind::Tag, since) {
            verdict = subject.tags.tags().fold(verdict, |verdict, tag| verdict.and(of(Kind::Tag, &[tag.as_bytes()])));
        }
        if self.has(Kind::Group, since) {
            let group = |verdict: Verdict, group: &str| verdict.and(of(Kind::Group, &[host, group.as_bytes()]));
            verdict = subject.tags.groups().fold(verdict, group);
        }
        verdict
    }

    /// Whether anything but single URLs has been purged since.
    pub fn is_wide_since(&self, since: u64) -> bool {
        self.kinds
            .iter()
            .enumerate()
            .any(|(kind, last)| kind != Kind::Url as usize && last.load(Ordering::Acquire) > since)
    }

    /// Whether the purge of that sequence still says something of a selector that later ones do not.
    pub fn is_in_force(&self, selector: &Selector, sequence: u64) -> bool {
        let (_, hash) = self.hash_of(selector);
        self.shard(hash).get(&hash).is_some_and(|mark| mark.has(sequence))
    }

    /// Forgets all purges up to a sequence; and up to another one, those that concern nothing that outlasts the process.
    pub fn forget(&self, upto: u64, passing: u64) {
        self.forget_lengths(upto);
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let before = shard.len();
            shard.retain(|_, mark| mark.is_after(upto, passing.max(upto)));
            // What a burst took is given back.
            if shard.len() < shard.capacity() / 4 {
                shard.shrink_to_fit();
            }
            self.count.fetch_sub(before - shard.len(), Ordering::Relaxed);
        }
    }

    /// A sequence up to which there are about so many in a hundred of all marks.
    pub fn quantile(&self, percent: usize) -> u64 {
        const SAMPLE: usize = 64;
        let mut sample = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            sample.extend(shard.values().take(SAMPLE).map(Mark::last));
        }
        sample.sort_unstable();
        sample.get((sample.len() * percent / 100).min(sample.len().saturating_sub(1))).copied().unwrap_or(0)
    }

    /// Selectors that are marked.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn has(&self, kind: Kind, since: u64) -> bool {
        self.kinds[kind as usize].load(Ordering::Acquire) > since
    }

    fn look(&self, hash: u64, since: u64) -> Verdict {
        if self.slot(hash).load(Ordering::Acquire) <= since {
            return Verdict::Alive;
        }
        self.shard(hash).get(&hash).map_or(Verdict::Alive, |mark| mark.verdict(since))
    }

    fn hash_of(&self, selector: &Selector) -> (Kind, u64) {
        let (kind, hash) = match selector {
            Selector::Everything => (Kind::Everything, self.hash(Kind::Everything, &[])),
            Selector::Site(name) => (Kind::Site, self.hash(Kind::Site, &[name.as_bytes()])),
            Selector::Host(host) => (Kind::Host, self.hash(Kind::Host, &[host.as_bytes()])),
            Selector::Prefix { host, path, raw } => {
                let kind = if *raw { Kind::Raw } else { Kind::Segments };
                (kind, self.hash(kind, &[host.as_bytes(), path.as_bytes()]))
            }
            Selector::Url { host, path, query } => {
                let parts = url(host.as_bytes(), path.as_bytes(), query.as_deref().map(str::as_bytes));
                (Kind::Url, self.hash(Kind::Url, &parts))
            }
            Selector::Tag(tag) => (Kind::Tag, self.hash(Kind::Tag, &[tag.as_bytes()])),
            Selector::Group { host, name } => {
                (Kind::Group, self.hash(Kind::Group, &[host.as_bytes(), name.as_bytes()]))
            }
        };
        (kind, hash)
    }

    fn hash(&self, kind: Kind, parts: &[&[u8]]) -> u64 {
        let mut hasher = self.keyed.build_hasher();
        hasher.write_u8(kind as u8);
        for part in parts {
            hasher.write_usize(part.len());
            hasher.write(part);
        }
        hasher.finish()
    }

    fn slot(&self, hash: u64) -> &AtomicU64 {
        &self.slots[(hash >> 32) as usize % SLOTS]
    }

    fn shard(&self, hash: u64) -> MutexGuard<'_, HashMap<u64, Mark, BuildHasherDefault<Hashed>>> {
        self.shards[hash as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_length(&self, raw: bool, length: usize, sequence: u64) {
        let _alone = self.measuring.lock().unwrap_or_else(PoisonError::into_inner);
        let lengths = &self.lengths[usize::from(raw)];
        let known = lengths.load();
        match known.binary_search_by_key(&length, |known| known.length) {
            Ok(place) => _ = known[place].last.fetch_max(sequence, Ordering::AcqRel),
            Err(place) => {
                let mut more: Vec<Length> = known.iter().map(Length::same).collect();
                more.insert(place, Length { length, last: AtomicU64::new(sequence) });
                lengths.store(Arc::new(more));
            }
        }
    }

    fn forget_lengths(&self, upto: u64) {
        let _alone = self.measuring.lock().unwrap_or_else(PoisonError::into_inner);
        for lengths in &self.lengths {
            let known = lengths.load();
            let is_later = |length: &&Length| length.last.load(Ordering::Acquire) > upto;
            if !known.iter().all(|length| is_later(&length)) {
                lengths.store(Arc::new(known.iter().filter(is_later).map(Length::same).collect()));
            }
        }
    }
}

impl Length {
    fn same(&self) -> Length {
        Length { length: self.length, last: AtomicU64::new(self.last.load(Ordering::Acquire)) }
    }
}

/// What a URL is hashed by.
fn url<'a>(host: &'a [u8], path: &'a [u8], query: Option<&'a [u8]>) -> [&'a [u8]; 4] {
    // No query is another one than an empty one.
    let has_query: &[u8] = if query.is_some() { b"?" } else { b"" };
    [host, path, has_query, query.unwrap_or_default()]
}

impl Mark {
    fn note(&mut self, sequence: u64, soft: Option<Timestamp>) {
        match soft {
            None if sequence > self.hard => {
                self.hard = sequence;
                self.drop_softs(sequence);
            }
            Some(at) if sequence > self.hard => {
                let softs = self.softs.get_or_insert_default();
                let place = softs.partition_point(|soft| soft.sequence < sequence);
                if softs.get(place).is_some_and(|soft| soft.sequence == sequence) {
                    return;
                }
                softs.insert(place, Soft { sequence, at });
                if softs.len() > SOFTS {
                    let first = softs.remove(0);
                    if let Some(second) = softs.first_mut() {
                        second.at = second.at.min(first.at);
                    }
                }
            }
            _ => {}
        }
    }

    fn verdict(&self, since: u64) -> Verdict {
        if self.hard.max(self.passing) > since {
            return Verdict::Dead;
        }
        let softs = self.softs.iter().flat_map(|softs| softs.iter());
        let times = softs.filter(|soft| soft.sequence > since).map(|soft| soft.at);
        times.min().map_or(Verdict::Alive, Verdict::Stale)
    }

    fn has(&self, sequence: u64) -> bool {
        let softs = self.softs.as_deref().map(Vec::as_slice).unwrap_or_default();
        // The first of so many may have the time of one before it.
        let merged = softs.len() >= SOFTS && softs.first().is_some_and(|first| sequence < first.sequence);
        self.hard == sequence || (merged && sequence > self.hard) || softs.iter().any(|soft| soft.sequence == sequence)
    }

    fn last(&self) -> u64 {
        self.softs
            .iter()
            .flat_map(|softs| softs.iter())
            .map(|soft| soft.sequence)
            .max()
            .unwrap_or(0)
            .max(self.hard)
            .max(self.passing)
    }

    /// Drops what is not later; whether there is anything left.
    fn is_after(&mut self, upto: u64, passing: u64) -> bool {
        if self.hard <= upto {
            self.hard = 0;
        }
        if self.passing <= passing {
            self.passing = 0;
        }
        self.drop_softs(upto);
        self.hard > 0 || self.passing > 0 || self.softs.is_some()
    }

    fn drop_softs(&mut self, upto: u64) {
        if let Some(softs) = &mut self.softs {
            softs.retain(|soft| soft.sequence > upto);
            if softs.is_empty() {
                self.softs = None;
            }
        }
    }
}

/// The keys are hashes already.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Only for what is no `u64`, which no key is.
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, word: u64) {
        // The low bits chose the shard.
        self.0 = word.rotate_left(6);
    }
}

#[cfg(test)]
#[path = "marks_tests.rs"]
mod tests;
