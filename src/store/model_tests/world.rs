//! A store, and what a schedule does with it.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use pingora_cache::key::HashBinary;
use pingora_cache::storage::{HandleMiss, HitHandler, Storage};
use pingora_cache::trace::Span;
use pingora_cache::{CacheKey, CacheMeta};
use proptest::sample::Index;

use super::oracle::{Labels, Oracle, Purged, RESOURCES, Resource, VARIANTS, Version};
use super::steps::{Ending, Length, Look, Place, Restart, Step};
use crate::config::model::{DiskTier, MemoryTier};
use crate::http_cache::{Tiers, Timestamp};
use crate::invalidate::{By, Selector};
use crate::store::disk::testing::{Broom, body_of, close_files, drain, end, get_ready};
use crate::store::{Begin, Disks, Followed, Head, Looked, Object, ObjectKey, Store, Whole, Writer, testing};

/// Bytes of a disk that holds all that a schedule stores, and of one that does not.
const LARGE: u64 = 64 << 20;
const TINY: u64 = 64 << 10;

/// Where the journal's records begin, and its commit slots are.
const RECORDS_AT: u64 = 12288;
const SLOTS_AT: [usize; 2] = [4096, 8192];

/// What a schedule is done with.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub memory: bool,
    pub disks: usize,
    /// Things are evicted.
    pub tiny: bool,
}

pub struct World {
    setup: Setup,
    folder: Folder,
    store: &'static Store,
    brooms: Vec<Broom>,
    oracle: Oracle,
    asked: Vec<Asked>,
    fills: Vec<Filling>,
    validations: Vec<Validation>,
    /// What must be found, and of that, what need not be on the disk yet.
    expected: HashMap<Place, usize>,
    undrained: HashSet<Place>,
    /// So many purges have been told to be durable.
    durable: usize,
    /// The number of the latest fill that has ended well.
    latest: HashMap<Place, u64>,
}

/// A request that goes to the origin.
struct Asked {
    place: Place,
    came: u64,
    began: u64,
    /// It takes so long that its answer need not be stored.
    late: bool,
}

struct Filling {
    writer: Writer,
    asked: Asked,
    version: usize,
    written: usize,
    aside: bool,
    followers: Vec<HitHandler>,
}

struct Validation {
    asked: Asked,
    /// Of what.
    version: usize,
    id: u64,
}

impl World {
    pub fn new(setup: Setup) -> World {
        let folder = Folder::new();
        let store = open(setup, &folder);
        World {
            brooms: brooms(setup),
            setup,
            folder,
            store,
            oracle: Oracle::default(),
            asked: Vec::new(),
            fills: Vec::new(),
            validations: Vec::new(),
            expected: HashMap::new(),
            undrained: HashSet::new(),
            durable: 0,
            latest: HashMap::new(),
        }
    }

    pub async fn step(&mut self, step: Step) {
        match step {
            Step::Ask(place) => self.ask(place),
            Step::Begin { which, labels, length, aside } => {
                if let Some(asked) = pick(&mut self.asked, which) {
                    self.begin(asked, Labels(labels), length, aside);
                }
            }
            Step::Write(which) => {
                if !self.fills.is_empty() {
                    let at = which.index(self.fills.len());
                    self.write(at).await;
                }
            }
            Step::End(which, how) => {
                if !self.fills.is_empty() {
                    let at = which.index(self.fills.len());
                    self.end(at, how).await;
                }
            }
            Step::Store { place, labels, length } => {
                self.ask(place);
                let asked = self.asked.pop().unwrap();
                self.begin(asked, Labels(labels), length, false);
                self.end(self.fills.len() - 1, Ending::Well).await;
            }
            Step::Look(place, how) => self.look(place, how).await,
            Step::Validate(place) => self.validate(place).await,
            Step::Confirm { which, labels } => {
                if let Some(validation) = pick(&mut self.validations, which) {
                    self.confirm(validation, labels.map(Labels)).await;
                }
            }
            Step::Purge { selectors, soft, wait } => self.purge(selectors, soft, wait).await,
            Step::Change((resource, _)) => self.change(resource),
            Step::LoseMemory => self.lose_memory(),
            Step::CloseFiles => close_files(self.store.disks()),
            Step::Sweep { disk, places } => self.sweep(disk, places),
            Step::Tidy { late } => self.tidy(late),
            Step::GiveUp => self.give_up(),
            Step::Compact => self.store.ledger().compact(true),
            Step::Restart(how) => self.restart(how).await,
        }
    }

    /// All that there is, is looked at.
    pub async fn end_of_all(mut self) {
        self.drain();
        for round in 0..2 {
            for place in places() {
                self.look(place, Look::Find).await;
            }
            if round == 0 {
                self.lose_memory();
                close_files(self.store.disks());
            }
        }
    }

    // ---- requests

    fn ask(&mut self, place: Place) {
        let asked = Asked { place, came: self.oracle.tick(), began: self.store.ledger().head(), late: false };
        self.asked.push(asked);
    }

    fn begin(&mut self, asked: Asked, labels: Labels, length: Length, aside: bool) {
        let version = self.oracle.versions.len();
        let length = match length {
            Length::Short => version % 50,
            Length::Long | Length::Spilled if self.setup.tiny => 3000,
            Length::Spilled if self.setup.disks > 0 => 300_000,
            Length::Long | Length::Spilled => 9000,
        };
        let body = body(version, length);
        let (resource, variant) = asked.place;
        self.oracle.versions.push(Version { resource, variant, labels, came: asked.came, body });
        let meta = meta(&self.oracle.versions[version], version, 0, asked.began, self.tiers());
        let head = Head::of(&meta).unwrap();
        let writer = match aside {
            true => self.store.fill_aside(key(asked.place), head),
            false => self.store.fill(key(asked.place), head),
        };
        self.fills.push(Filling { writer, asked, version, written: 0, aside, followers: Vec::new() });
    }

    async fn write(&mut self, at: usize) {
        let fill = &mut self.fills[at];
        let rest = self.oracle.versions[fill.version].body.slice(fill.written..);
        let part = rest.slice(..rest.len().div_ceil(2));
        fill.written += part.len();
        let written = fill.writer.write_body(part, false).await;
        assert!(written.is_ok() || self.setup.tiny, "it is not taken: {written:?}");
    }

    async fn end(&mut self, at: usize, how: Ending) {
        let Filling { mut writer, asked, version, written, aside: _, followers } = self.fills.swap_remove(at);
        let body = self.oracle.versions[version].body.clone();
        // Where there is too little room for all fills, some fail.
        let mut failed =
            matches!(how, Ending::Failed) || writer.write_body(body.slice(written..), false).await.is_err();
        assert!(!failed || matches!(how, Ending::Failed) || self.setup.tiny, "it is not taken");
        let id = writer.fill().id;
        match how {
            Ending::Well if !failed => failed = writer.finish().await.is_err(),
            Ending::Aside if !failed => {
                writer.finish_aside();
                // What has been spilled is stored by a task.
                while self.store.fills_running() > self.fills.len() {
                    tokio::task::yield_now().await;
                }
            }
            _ => drop(writer),
        }
        assert!(!failed || matches!(how, Ending::Failed) || self.setup.tiny, "it does not end well");
        for mut follower in followers {
            // Who followed it before it was purged has all of it.
            match read(&mut follower).await {
                Ok(read) => assert_eq!(read, body, "what was followed"),
                Err(_) => assert!(failed || self.setup.tiny, "what is followed ends well"),
            }
        }
        if failed {
            return;
        }
        if matches!(how, Ending::Well) {
            self.drain();
        } else {
            self.undrained.insert(asked.place);
        }
        let its = &self.oracle.versions[version];
        let purged = self.oracle.of(its).any(|purge| !purge.soft);
        let last = self.latest.get(&asked.place).copied().unwrap_or(0);
        self.latest.insert(asked.place, id.max(last));
        if id < last || purged || asked.late {
            // What a later one, or a purge, leaves of the one before is not known here.
            self.expected.remove(&asked.place);
        } else if !self.setup.tiny {
            self.expected.insert(asked.place, version);
        }
    }

    async fn look(&mut self, place: Place, how: Look) {
        let key = key(place);
        let text = RESOURCES[place.0].key();
        match how {
            Look::Find => {
                let found = self.store.find(key, &text, self.tiers()).await;
                self.judge(place, found.as_deref()).await;
            }
            Look::Memory => {
                let id = key.id();
                let found = self.store.memory().get(&id).and_then(|object| self.store.usable(&id, object));
                if let Some(found) = found {
                    self.judge(place, Some(&found)).await;
                }
            }
            Look::Lookup => {
                let span = Span::inactive();
                let found = self.store.lookup(&cache_key(place, self.tiers()), &span.handle()).await.unwrap();
                match found {
                    None => self.judge(place, None).await,
                    Some((meta, handler)) => match handler.as_any().downcast_ref::<Whole>() {
                        Some(whole) => {
                            let object = whole.object().clone();
                            self.judge(place, Some(&object)).await;
                        }
                        None => self.follow(place, &meta, handler),
                    },
                }
            }
        }
    }

    fn follow(&mut self, place: Place, meta: &CacheMeta, handler: HitHandler) {
        let id = handler.as_any().downcast_ref::<Followed>().unwrap().fill().id;
        let version = version_of(meta.headers());
        let its = &self.oracle.versions[version];
        assert_eq!((its.resource, its.variant), place, "a fill of something else");
        assert!(!self.oracle.of(its).any(|purge| purge.sure), "a fill is followed that has been purged: {its:?}");
        let fill = self.fills.iter_mut().find(|fill| fill.writer.fill().id == id).expect("one that is in progress");
        assert!(!fill.aside);
        fill.followers.push(handler);
    }

    /// What has been found is what may be.
    async fn judge(&self, place: Place, found: Option<&Object>) {
        let expected = self.expected.get(&place);
        let Some(found) = found else {
            assert_eq!(expected, None, "not found: {:?}", expected.map(|version| &self.oracle.versions[*version]));
            return;
        };
        let version = version_of(&found.head.response.headers);
        let its = &self.oracle.versions[version];
        assert_eq!((its.resource, its.variant), place, "something else is found");
        assert!(self.oracle.may_be_served(its), "found, though purged: {version} {its:?}");
        assert_eq!(body_of(found).await.unwrap(), its.body);
        let until = found.head.record.facts.fresh_until;
        let now = Timestamp::from(SystemTime::now());
        if let Some(since) = self.oracle.stale_since(its) {
            assert!(until <= since && until <= now, "fresh until {until:?}, purged at {since:?}: {version} {its:?}");
        } else if self.oracle.of(its).next().is_none() {
            assert!(until > now, "stale, though not purged: {version} {its:?}");
        }
        if let Some(expected) = expected {
            assert_eq!(version, *expected, "another one than was stored last");
        }
    }

    async fn validate(&mut self, place: Place) {
        let Some(found) = self.store.find(key(place), &RESOURCES[place.0].key(), self.tiers()).await else { return };
        self.judge(place, Some(&found)).await;
        self.ask(place);
        let asked = self.asked.pop().unwrap();
        let (version, id) = (version_of(&found.head.response.headers), found.head.record.id);
        self.validations.push(Validation { asked, version, id });
    }

    async fn confirm(&mut self, validation: Validation, labels: Option<Labels>) {
        let Validation { asked, version: before, id } = validation;
        let version = self.oracle.versions.len();
        let old = &self.oracle.versions[before];
        let fresh = Version { labels: labels.unwrap_or(old.labels), came: asked.came, ..old.clone() };
        let meta = meta(&fresh, version, id, asked.began, self.tiers());
        self.oracle.versions.push(fresh);
        if !self.store.freshen(&key(asked.place), &meta).await {
            return;
        }
        let purged = self.oracle.of(&self.oracle.versions[version]).any(|purge| !purge.soft);
        assert!(!purged, "what has been purged is confirmed");
        // Another validation may have been before this one.
        let expected = self.expected.get(&asked.place);
        if expected.is_some_and(|expected| self.oracle.versions[*expected].body == self.oracle.versions[before].body) {
            self.expected.insert(asked.place, version);
        }
    }

    async fn purge(&mut self, selectors: Vec<Selector>, soft: bool, wait: bool) {
        let came = self.oracle.tick();
        let before = self.store.ledger().head();
        let appended = self.store.ledger().append(selectors.clone().into(), soft, By::Api);
        assert!(appended.sequence > before, "a sequence is given out again");
        let purged = Purged { selectors, soft, at: appended.at, came, sure: true };
        // What is being written when it is made stale is not written.
        let stays = |place: &Place| soft && !self.undrained.contains(place);
        let versions = &self.oracle.versions;
        self.expected.retain(|place, version| stays(place) || !purged.selects(&versions[*version]));
        self.oracle.purges.push(purged);
        if wait {
            appended.written().await.unwrap();
            self.durable = self.oracle.purges.len();
        }
    }

    fn change(&mut self, resource: usize) {
        let (came, Resource { host, path, query, .. }) = (self.oracle.tick(), RESOURCES[resource]);
        let url = Selector::Url { host: host.into(), path: path.into(), query: query.map(Into::into) };
        let store = self.store;
        let appended = store.ledger().append_after(|| (), [url.clone()].into(), By::Unsafe, || holds(store, resource));
        self.expected.retain(|(its, _), _| *its != resource);
        self.oracle.purges.push(Purged { selectors: vec![url], soft: false, at: appended.at, came, sure: true });
    }

    // ---- what goes on beside that

    fn lose_memory(&mut self) {
        for (id, _) in self.store.memory().iter() {
            self.store.memory().remove(&id);
        }
        if self.setup.disks == 0 {
            self.expected.clear();
        }
    }

    fn sweep(&mut self, disk: Index, places: Option<usize>) {
        if self.setup.disks == 0 {
            return;
        }
        get_ready(self.store.disks());
        let at = disk.index(self.setup.disks);
        let disk = self.store.disks().iter().nth(at).unwrap();
        match places {
            Some(places) => _ = self.brooms[at].sweep(disk, places),
            None => while !self.brooms[at].sweep(disk, 256) {},
        }
    }

    /// What is on its way to the disks gets there.
    fn drain(&mut self) {
        drain(self.store.disks());
        self.undrained.clear();
    }

    fn tidy(&mut self, late: bool) {
        self.drain();
        let (store, head) = (self.store, self.store.ledger().head());
        let under_way = || {
            let asked = self.asked.iter().chain(self.validations.iter().map(|of| &of.asked));
            asked.chain(self.fills.iter().map(|of| &of.asked)).map(|asked| asked.began)
        };
        let old = if late { head } else { under_way().min().unwrap_or(head) };
        store.compare_all();
        store.forget_purges(head, old);
        if late {
            self.be_late();
        }
    }

    fn give_up(&mut self) {
        self.store.give_up_before(self.store.ledger().head());
        self.expected.clear();
        self.be_late();
    }

    fn be_late(&mut self) {
        self.asked.iter_mut().for_each(|asked| asked.late = true);
        self.fills.iter_mut().for_each(|fill| fill.asked.late = true);
        self.validations.iter_mut().for_each(|validation| validation.asked.late = true);
    }

    async fn restart(&mut self, how: Restart) {
        let clean = matches!(how, Restart::Clean);
        if clean {
            self.drain();
        } else {
            self.folder.copy();
            let place = |place: &Place| !self.undrained.contains(place);
            self.expected.retain(|its, _| place(its));
            let unsure = self.oracle.purges.iter_mut().skip(self.durable);
            unsure.for_each(|purge| purge.sure = false);
        }
        self.durable = self.oracle.purges.len();
        self.undrained.clear();
        self.leave();
        if self.setup.disks == 0 {
            self.expected.clear();
        }
        if !clean {
            self.folder.take_copy();
            self.damage(how);
        }
        (self.store, self.brooms) = (open(self.setup, &self.folder), brooms(self.setup));
    }

    fn damage(&mut self, how: Restart) {
        match how {
            Restart::Torn { left, noise } => {
                for disk in 0..self.setup.disks {
                    let path = self.folder.disk(disk).join("ledger");
                    let mut bytes = std::fs::read(&path).unwrap();
                    let committed = committed(&bytes);
                    bytes.truncate(committed + left.index(bytes.len() - committed + 1));
                    bytes.extend(&noise);
                    std::fs::write(&path, bytes).unwrap();
                }
            }
            Restart::Corrupt { disks, at } => {
                let hit: Vec<usize> = (0..self.setup.disks).filter(|disk| disks >> disk & 1 != 0).collect();
                for disk in &hit {
                    let path = self.folder.disk(*disk).join("ledger");
                    let Some(at) = at else {
                        std::fs::remove_file(&path).unwrap();
                        continue;
                    };
                    let mut bytes = std::fs::read(&path).unwrap();
                    let committed = committed(&bytes);
                    bytes[RECORDS_AT as usize + at.index(committed - RECORDS_AT as usize)] ^= 1;
                    std::fs::write(&path, bytes).unwrap();
                }
                if !hit.is_empty() {
                    self.expected.clear();
                }
                if hit.len() == self.setup.disks {
                    // Nothing of what was stored before can be vouched for.
                    let (came, at) = (self.oracle.tick(), Timestamp::from(SystemTime::now()));
                    let everything = vec![Selector::Everything];
                    self.oracle.purges.push(Purged { selectors: everything, soft: false, at, came, sure: true });
                    self.durable = self.oracle.purges.len();
                }
            }
            Restart::Clean | Restart::Crash => {}
        }
    }

    /// The process ends.
    fn leave(&mut self) {
        self.asked.clear();
        self.validations.clear();
        self.fills.clear();
        close_files(self.store.disks());
        self.store.shut();
        end(self.store.disks());
        for (id, _) in self.store.memory().iter() {
            self.store.memory().remove(&id);
        }
    }

    fn tiers(&self) -> Tiers {
        Tiers { memory: self.setup.memory, disk: self.setup.disks > 0 }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.leave();
    }
}

fn open(setup: Setup, folder: &Folder) -> &'static Store {
    let (memory, max_object) = match (setup.memory, setup.tiny) {
        (false, _) => (0, 0),
        (true, true) => (6 << 10, 4 << 10),
        (true, false) => (16 << 20, 1 << 16),
    };
    let size = if setup.tiny { TINY } else { LARGE };
    let settings: Vec<DiskTier> = (0..setup.disks)
        .map(|disk| DiskTier { path: folder.disk(disk), size, max_object: size, max_objects: None, min_free: 0 })
        .collect();
    let disks = if settings.is_empty() { Disks::none() } else { Disks::open(&settings, Begin::Alone).unwrap() };
    Store::leak(MemoryTier { size: memory, max_object }, disks)
}

fn brooms(setup: Setup) -> Vec<Broom> {
    (0..setup.disks).map(|_| Broom::default()).collect()
}

pub fn places() -> impl Iterator<Item = Place> {
    (0..RESOURCES.len()).flat_map(|resource| (0..VARIANTS).map(move |variant| (resource, variant)))
}

/// Whether any variant of a resource may be stored.
pub fn holds(store: &Store, resource: usize) -> bool {
    let held = |variant| {
        let id = key((resource, variant)).id();
        store.memory().peek(&id).is_some() || store.disks().of(&id).is_some_and(|disk| disk.may_hold(&id))
    };
    (0..VARIANTS).any(held)
}

pub fn key((resource, variant): Place) -> ObjectKey {
    ObjectKey { variance: variance(variant), ..testing::key(resource as u64) }
}

fn variance(variant: usize) -> Option<HashBinary> {
    (variant > 0).then_some([variant as u8; 16])
}

pub fn cache_key(place: Place, tiers: Tiers) -> CacheKey {
    let mut cache_key = CacheKey::new(Vec::new(), "");
    cache_key.set_primary_bin_override(key(place).primary);
    if let Some(variance) = variance(place.1) {
        cache_key.set_variance_key(variance);
    }
    cache_key.extensions.insert(Looked { text: RESOURCES[place.0].key(), tiers });
    cache_key
}

/// The metadata of the version with that number, of the object with that id.
pub fn meta(version: &Version, number: usize, id: u64, began: u64, tiers: Tiers) -> CacheMeta {
    let number = number.to_string();
    let tags = version.labels.tags().collect::<Vec<_>>().join(" ");
    let groups = version.labels.groups().map(|group| format!("\"{group}\"")).collect::<Vec<_>>().join(", ");
    let mut fields = vec![("etag", number.as_str())];
    fields.extend(
        [("surrogate-key", tags.as_str()), ("cache-groups", &groups)].iter().filter(|(_, text)| !text.is_empty()),
    );
    let mut meta = testing::meta_of(RESOURCES[version.resource].key(), &fields, id, began);
    meta.extensions_mut().get_mut::<crate::store::Record>().unwrap().tiers = tiers;
    if let Some(variance) = variance(version.variant) {
        meta.set_variance(variance);
    }
    meta
}

pub fn version_of(fields: &http::HeaderMap) -> usize {
    fields["etag"].to_str().unwrap().parse().unwrap()
}

/// A body of its own for each version.
pub fn body(version: usize, length: usize) -> Bytes {
    let mut body = format!("{version}:").into_bytes();
    let filler = testing::body(length);
    body.extend(&filler);
    body.into()
}

async fn read(from: &mut HitHandler) -> pingora::Result<Bytes> {
    let mut all = Vec::new();
    while let Some(piece) = from.read_body().await? {
        all.extend(&piece);
    }
    Ok(all.into())
}

fn pick<T>(from: &mut Vec<T>, which: Index) -> Option<T> {
    (!from.is_empty()).then(|| from.swap_remove(which.index(from.len())))
}

/// How much of a journal says of itself that it is durable.
fn committed(bytes: &[u8]) -> usize {
    let slot = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
    SLOTS_AT.into_iter().map(slot).max().unwrap() as usize
}

/// Where the disks' folders are. In memory, where there is a place for that: what is durable makes no difference here.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let shared = Path::new("/dev/shm");
        let base = if shared.is_dir() { shared.to_owned() } else { std::env::temp_dir() };
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = base.join(format!("foreland-model-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Folder(path)
    }

    pub fn disk(&self, number: usize) -> PathBuf {
        self.0.join(format!("now/{number}"))
    }

    /// Sets aside what a process that was killed now would leave.
    fn copy(&self) {
        let now = self.0.join("now");
        if now.is_dir() {
            copy(&now, &self.0.join("aside")).unwrap();
        }
    }

    /// That is what there is.
    fn take_copy(&self) {
        let (now, aside) = (self.0.join("now"), self.0.join("aside"));
        if aside.is_dir() {
            std::fs::remove_dir_all(&now).unwrap();
            std::fs::rename(aside, now).unwrap();
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        let copied = match entry.file_type()?.is_dir() {
            true => copy(&path, &target),
            false => std::fs::copy(&path, &target).map(|_| ()),
        };
        match copied {
            // It may just be going.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            copied => copied?,
        }
    }
    Ok(())
}
