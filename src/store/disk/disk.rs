//! One disk: finding what is on it. What changes it is in `writing`, what keeps it in order in `keeper`.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use log::{info, warn};
use pingora_cache::key::HashBinary;
use quick_cache::UnitWeighter;
use quick_cache::sync::{Cache, DefaultLifecycle};
use smallvec::SmallVec;

use super::file::{READ_LIMIT, Since, StoredFile};
use super::format::{self, BLOCK, Decoded, Defect, Undecoded};
use super::health::{Health, Kind, Transition};
use super::index::Walked;
use super::io::{FileKind, Io, Stat};
use super::keeper::Keeper;
use super::pool::{Pool, PoolError};
use super::space::{Doomed, Limits, Space, units};
use super::stats::{Refused, Stats};
use super::writing::FileLocks;
use super::{Usage, health};
use crate::config::model::DiskTier;
use crate::http_cache::Tiers;
use crate::store::key::{AlreadyHashed, ObjectId};
use crate::store::object::{Body, Head, Object};

/// Threads of a disk, and jobs that may wait for each kind of them.
const READERS: usize = 8;
const WRITERS: usize = 4;
const QUEUE: usize = 1024;

/// Files of up to so many bytes are read whole when they are opened.
const READ_WHOLE: u64 = 2 * BLOCK;

/// A file that is too short may be one that is just being written, for so long.
const NEW: Duration = Duration::from_secs(2);

/// Independent locks for what concerns one object.
pub const SHARDS: usize = 64;

/// A removed file that is to be closed, with its room.
type Parcel = Arc<Mutex<Option<(Arc<OwnedFd>, Arc<Doomed>)>>>;

/// Whether an object has been of use elsewhere since this was last asked.
pub type Used = Box<dyn Fn(ObjectId) -> bool + Send + Sync>;

/// One disk of the disk tier.
pub struct Disk {
    pub io: Io,
    pub pool: Pool,
    pub health: Health,
    pub stats: Stats,
    pub space: Arc<Space>,
    instance: String,
    pub(super) settings: Mutex<DiskTier>,
    /// Objects that are asked for again and again, with their files open.
    open: Cache<ObjectId, Arc<Object>, UnitWeighter, AlreadyHashed>,
    /// Each file that is open, in the cache above or not.
    live: [Mutex<Live>; SHARDS],
    /// What is about to be written, and what is about to be removed.
    pub(super) pending: [Mutex<Pending>; SHARDS],
    /// Bytes of bodies that are about to be written.
    pub(super) pending_bytes: AtomicU64,
    pub(super) used_elsewhere: OnceLock<Used>,
    closing: Mutex<Vec<Parcel>>,
    pub(super) file_locks: FileLocks,
    phase: AtomicU8,
    max_object: AtomicU64,
    pub(super) keeper: Keeper,
    /// Until then, a moment in milliseconds since `started`, nobody waits for a write: the disk is slow.
    pub(super) slow_until: AtomicU64,
    /// Until then, likewise, nothing is written to it that is too much to wait in memory: it has not taken the last.
    pub(super) stuck_until: AtomicU64,
    pub(super) started: Instant,
}

/// Open files by their names: usually one, but two requests at a time can open one each, and one that has been replaced
/// may still be read.
type Live = HashMap<ObjectId, SmallVec<[Weak<StoredFile>; 1]>, AlreadyHashed>;

/// What is under way for the objects of a shard.
#[derive(Default)]
pub struct Pending {
    pub writes: HashMap<ObjectId, PendingWrite, AlreadyHashed>,
    /// Objects that nobody may find though their files may still be there.
    pub removals: HashMap<ObjectId, usize, AlreadyHashed>,
}

/// What is about to be written under a name.
#[derive(Default)]
pub struct PendingWrite {
    /// The latest; `None`: it has been removed since.
    pub object: Option<Arc<Object>>,
    /// The number of the latest that has been removed since.
    pub removed: u64,
    pub jobs: usize,
}

/// Where a disk is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// It cannot be used: its folder is not to be had.
    Away = 0,
    /// Another process still writes to it, and will hand it over: this one only reads.
    Standby = 1,
    /// It is this process's. What there is is being found out; until then, files are found by their names.
    Loading = 2,
    /// It is this process's, and the index is complete.
    Ready = 3,
    /// It has been handed over to another process: what is being written comes to its end, nothing else is.
    Handed = 4,
    /// Nothing is written any more.
    Closed = 5,
}

impl Phase {
    pub const ALL: [Phase; 6] =
        [Phase::Away, Phase::Standby, Phase::Loading, Phase::Ready, Phase::Handed, Phase::Closed];

    /// A stable word, for the admin API.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Away => "away",
            Phase::Standby => "standby",
            Phase::Loading => "loading",
            Phase::Ready => "ready",
            Phase::Handed => "handed-over",
            Phase::Closed => "closed",
        }
    }
}

/// What is looked for under a name.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// The key in full: a name alone could be another's.
    pub text: &'a [u8],
    /// For a further variant, which one.
    pub variance: Option<HashBinary>,
    /// The store's sequence of the resource before the look.
    pub began: u64,
    /// When something of the resource's sequence was last invalidated, in milliseconds since 1970; 0: never.
    pub invalidated: i64,
    /// Where its route keeps responses.
    pub tiers: Tiers,
}

impl Wanted<'_> {
    fn is(&self, head: &Head) -> bool {
        head.record.key == self.text && (self.variance.is_none() || head.variance == self.variance)
    }
}

/// A file whose head has been read.
pub(super) struct Opened {
    file: Arc<OwnedFd>,
    pub(super) stat: Stat,
    /// As much as has been read, from its beginning.
    bytes: Vec<u8>,
    pub(super) decoded: Decoded,
}

/// Why a file could not be opened as an object.
pub(super) enum Unopened {
    Missing,
    Defect(Defect, Culprit),
    Io(io::Error),
}

/// The file that has a defect.
pub(super) struct Culprit {
    inode: u64,
    /// While it is open, its number is not given to another. `None`: it cannot be opened, for what it is.
    _file: Option<Arc<OwnedFd>>,
}

impl From<io::Error> for Unopened {
    fn from(e: io::Error) -> Unopened {
        if e.kind() == io::ErrorKind::NotFound { Unopened::Missing } else { Unopened::Io(e) }
    }
}

impl Disk {
    /// A disk that nobody has looked at yet. `files`: how many it may keep open.
    pub fn new(settings: DiskTier, instance: &str, files: usize) -> Arc<Disk> {
        Disk::over(Io::new(&settings.path, instance), settings, instance, files)
    }

    /// The same by way of that I/O.
    pub(super) fn over(io: Io, settings: DiskTier, instance: &str, files: usize) -> Arc<Disk> {
        let limits = Limits { size: 0, objects: 0, ceiling: u64::MAX };
        let disk = Disk {
            io,
            pool: Pool::new("disk", READERS, WRITERS, QUEUE),
            health: Health::default(),
            stats: Stats::default(),
            space: Space::new(limits),
            max_object: AtomicU64::new(0),
            instance: instance.to_owned(),
            settings: Mutex::new(settings.clone()),
            open: Cache::with(files, files as u64, UnitWeighter, AlreadyHashed::default(), DefaultLifecycle::default()),
            live: std::array::from_fn(|_| Mutex::default()),
            pending: std::array::from_fn(|_| Mutex::default()),
            pending_bytes: AtomicU64::new(0),
            used_elsewhere: OnceLock::new(),
            closing: Mutex::default(),
            file_locks: std::array::from_fn(|_| Mutex::default()),
            phase: AtomicU8::new(Phase::Away as u8),
            keeper: Keeper::default(),
            slow_until: AtomicU64::new(0),
            stuck_until: AtomicU64::new(0),
            started: Instant::now(),
        };
        disk.set_limits(settings);
        Arc::new(disk)
    }

    /// Puts other limits in force.
    pub fn set_limits(&self, settings: DiskTier) {
        self.max_object.store(settings.max_object, Ordering::Relaxed);
        let mut state = self.space.lock();
        state.limits_mut().size = settings.size / super::space::UNIT;
        state.limits_mut().objects = settings.max_objects.unwrap_or(u64::MAX);
        drop(state);
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = settings;
    }

    pub fn path(&self) -> &Path {
        self.io.path()
    }

    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Away,
            1 => Phase::Standby,
            2 => Phase::Loading,
            3 => Phase::Ready,
            4 => Phase::Handed,
            _ => Phase::Closed,
        }
    }

    /// Goes from one phase to another; false where it is in another one already, as somebody else has come first.
    pub(super) fn advance(&self, from: Phase, to: Phase) -> bool {
        self.phase.compare_exchange(from as u8, to as u8, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Whether something new may be stored here.
    pub fn admits(&self) -> bool {
        matches!(self.phase(), Phase::Loading | Phase::Ready) && self.health.may_write()
    }

    /// Whether what has come whole may be stored here: of a disk that has been handed over, if it needs no other to go.
    pub fn accepts(&self) -> bool {
        matches!(self.phase(), Phase::Loading | Phase::Ready | Phase::Handed) && self.health.may_write()
    }

    /// The largest body that is kept, in bytes.
    pub fn max_object(&self) -> u64 {
        self.max_object.load(Ordering::Relaxed)
    }

    /// What this process's temporary files begin with.
    pub(super) fn instance(&self) -> &str {
        &self.instance
    }

    pub(super) fn shard(&self, id: &ObjectId) -> MutexGuard<'_, Pending> {
        self.pending[usize::from(id.0[0]) % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn live(&self, id: &ObjectId) -> MutexGuard<'_, Live> {
        self.live[usize::from(id.0[0]) % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- finding

    /// The object of a name, if it is here and is what is wanted.
    pub async fn find(self: &Arc<Disk>, id: ObjectId, wanted: Wanted<'_>) -> Option<Arc<Object>> {
        {
            let pending = self.shard(&id);
            if let Some(PendingWrite { object: Some(object), .. }) = pending.writes.get(&id) {
                return Some(object.clone()).filter(|object| wanted.is(&object.head));
            }
            if pending.removals.contains_key(&id) {
                return None;
            }
        }
        if let Some(object) = self.open.get(&id)
            && let Body::Disk(file) = &object.body
        {
            match file.since() {
                Since::Same => return Some(object).filter(|object| wanted.is(&object.head)),
                Since::Changed => _ = self.open.remove(&id),
                Since::Gone => self.vanished(&id, file.inode()),
            }
        }
        if !self.may_have(&id) || !self.health.may_read() {
            return None;
        }
        let (disk, began, tiers) = (self.clone(), wanted.began, wanted.tiers);
        let asked = Instant::now();
        let opened = self.pool.read(READ_LIMIT, move || disk.open_blocking(id, began, tiers)).await;
        self.stats.read(asked.elapsed());
        let object = match opened {
            Ok(Ok(object)) => object,
            Ok(Err(why)) => {
                self.unopened(id, why);
                return None;
            }
            Err(e) => {
                self.not_done(Kind::Read, e);
                return None;
            }
        };
        self.health.read_ok();
        if !wanted.is(&object.head) {
            return None;
        }
        let outdated = object.head.record.asked.as_millis() <= wanted.invalidated;
        if outdated && self.space.lock().may_have_missed(wanted.invalidated) {
            tokio::spawn(self.remove(id));
            return None;
        }
        self.stats.opened.fetch_add(1, Ordering::Relaxed);
        self.touch(&id);
        self.remember(id, &object);
        Some(object)
    }

    /// The object of a name, if its file is open.
    pub fn peek(&self, id: &ObjectId) -> Option<Arc<Object>> {
        if let Some(PendingWrite { object: Some(object), .. }) = self.shard(id).writes.get(id) {
            return Some(object.clone());
        }
        self.open.peek(id)
    }

    /// Keeps an object open, for whoever asks next. What is removed meanwhile is not to be found again, and a file that
    /// is gone not to be kept open for nobody: whoever removes one closes it after that.
    pub(super) fn remember(&self, id: ObjectId, object: &Arc<Object>) {
        self.open.insert(id, object.clone());
        let gone = matches!(&object.body, Body::Disk(file) if file.since() == Since::Gone);
        if gone || self.shard(&id).removals.contains_key(&id) {
            self.open.remove(&id);
        }
    }

    /// Whether an object that was found is what is found still: with the same head, and nothing on its way in its place.
    pub fn has_still(&self, id: &ObjectId, object: &Arc<Object>) -> bool {
        let same = self.peek(id).is_some_and(|there| Arc::ptr_eq(&there.head, &object.head));
        same && matches!(&object.body, Body::Disk(file) if file.since() == Since::Same)
    }

    /// An object need not be kept open.
    pub fn close(&self, id: &ObjectId) {
        self.open.remove(id);
    }

    /// No file need be kept open.
    pub(super) fn close_all(&self) {
        self.open.clear();
    }

    /// The walk came upon a file; `None`: one that is about to be removed.
    pub(super) fn walked(&self, id: ObjectId, units: u32) -> Option<Walked> {
        let pending = self.shard(&id);
        if pending.removals.contains_key(&id) {
            return None;
        }
        Some(self.space.lock().learn(|index| index.walked(id, units)))
    }

    /// Lets the disk alone for a while. Blocks.
    pub(super) fn pause(&self, time: Duration) {
        let _ = self.keeper.wait(time);
    }

    /// Tells the index of all uses that it does not know of.
    pub(super) fn credit_hits(&self) {
        for (id, object) in self.open.iter() {
            if object.was_hit_lately() {
                self.touch(&id);
            }
        }
    }

    /// An object was asked for.
    pub fn touch(&self, id: &ObjectId) {
        self.space.lock().index.touch(*id, 1);
    }

    /// Whether an object has been asked for since this was last asked, as far as the index does not know.
    pub(super) fn is_used(&self, id: ObjectId) -> bool {
        let here = self.open.peek(&id).is_some_and(|object| object.was_hit_lately());
        let elsewhere = self.used_elsewhere.get().is_some_and(|used| used(id));
        here || elsewhere
    }

    /// Whether it makes sense to look.
    fn may_have(&self, id: &ObjectId) -> bool {
        match self.phase() {
            Phase::Away => false,
            Phase::Standby => true,
            _ => {
                let state = self.space.lock();
                !state.is_complete() || state.index.get(*id).is_some()
            }
        }
    }

    fn open_blocking(self: &Arc<Disk>, id: ObjectId, began: u64, tiers: Tiers) -> Result<Arc<Object>, Unopened> {
        let mut tried = false;
        loop {
            match self.open_once(id, began, tiers) {
                // It may have been in the middle of being given another head.
                Err(Unopened::Defect(Defect::Checksum, _)) if !tried => tried = true,
                Err(Unopened::Defect(defect, culprit)) => {
                    // Before anybody is told: who looks again, or stores anew, finds nothing.
                    self.remove_damaged(id, culprit.inode, defect);
                    return Err(Unopened::Defect(defect, culprit));
                }
                opened => return opened,
            }
        }
    }

    fn open_once(self: &Arc<Disk>, id: ObjectId, began: u64, tiers: Tiers) -> Result<Arc<Object>, Unopened> {
        let Opened { file, stat, bytes, decoded } = self.open_head(id, READ_WHOLE)?;
        let defect = |defect| Unopened::Defect(defect, Culprit { inode: stat.inode, _file: Some(file.clone()) });
        let stored = StoredFile::new(self, file.clone(), decoded.state, &stat);
        if stat.size == bytes.len() as u64 {
            stored.check_whole(&bytes).map_err(defect)?;
        } else if !stored.has_its_table()? {
            return Err(defect(Defect::Checksum));
        }
        let stored = self.opened(id, stored);
        let mut head = decoded.head;
        (head.record.began, head.record.tiers) = (began, tiers);
        self.correct(id, Some(stat.size));
        Ok(Arc::new(Object::new(Arc::new(head), Body::Disk(stored))))
    }

    /// Opens an object's file and reads its head, with at least `first` bytes if there are that many. Blocks.
    pub(super) fn open_head(&self, id: ObjectId, first: u64) -> Result<Opened, Unopened> {
        let file = match self.io.open(&name(&id)) {
            Ok(file) => Arc::new(file),
            // What cannot be opened for what it is, like a link, is no error of the disk.
            Err(e) => match self.io.stat_name(&name(&id)) {
                Ok(stat) if stat.kind != FileKind::File => {
                    return Err(Unopened::Defect(Defect::Magic, Culprit { inode: stat.inode, _file: None }));
                }
                _ => return Err(e.into()),
            },
        };
        let stat = self.io.stat(&file)?;
        let defect = |defect| Unopened::Defect(defect, Culprit { inode: stat.inode, _file: Some(file.clone()) });
        if stat.kind != FileKind::File {
            return Err(defect(Defect::Magic));
        }
        let mut bytes = vec![0; usize::try_from(stat.size.min(first)).unwrap_or(0)];
        let read = self.io.pread(&file, 0, &mut bytes)?;
        bytes.truncate(read);
        let decoded = match format::decode(id, &bytes, stat.size) {
            Err(Undecoded::More(len)) => {
                bytes.resize(len, 0);
                let read = self.io.pread(&file, 0, &mut bytes)?;
                bytes.truncate(read);
                format::decode(id, &bytes, stat.size)
            }
            decoded => decoded,
        };
        match decoded {
            Ok(decoded) => Ok(Opened { file: file.clone(), stat, bytes, decoded }),
            // Another process that uses the disk too, until it has handed it over, may be about to write it.
            Err(Undecoded::Defect(Defect::Length)) if self.phase() < Phase::Ready && is_new(&stat) => {
                Err(Unopened::Missing)
            }
            Err(Undecoded::Defect(what)) => Err(defect(what)),
            Err(Undecoded::More(_)) => Err(defect(Defect::Length)),
        }
    }

    /// Notes that a file is open.
    pub(super) fn opened(&self, id: ObjectId, file: StoredFile) -> Arc<StoredFile> {
        let file = Arc::new(file);
        self.live(&id).entry(id).or_default().push(Arc::downgrade(&file));
        file
    }

    /// A file was found of which the index knows nothing, as the walk has yet to come upon it, or another size, as
    /// somebody has put it there; or it was not found. If that still holds when nobody changes it, the index is
    /// corrected: what was opened may have been replaced or removed since.
    fn correct(self: &Arc<Disk>, id: ObjectId, found: Option<u64>) {
        let known = self.space.lock().index.get(id);
        if found.map(in_index) == known || !matches!(self.phase(), Phase::Loading | Phase::Ready) {
            return;
        }
        let disk = self.clone();
        // Where the queue is full, the next who asks for it sees to it.
        let _ = self.pool.try_write(move || {
            let _alone = disk.file_lock(&id);
            let there = match disk.io.stat_name(&name(&id)) {
                Ok(stat) => Some(in_index(stat.size)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => None,
                Err(_) => return,
            };
            let pending = disk.shard(&id);
            let mut state = disk.space.lock();
            match (there, state.index.get(id)) {
                (None, Some(_)) => _ = state.index.remove(id),
                (Some(units), Some(known)) if units != known => _ = state.index.resize(id, units),
                // Once all is known, and while something is being evicted, it may be what is about to go.
                (Some(units), None)
                    if !state.is_complete() && !state.is_removing() && !pending.removals.contains_key(&id) =>
                {
                    state.add_folder(id.0[0]);
                    state.learn(|index| index.insert(id, units));
                }
                _ => {}
            }
        });
    }

    fn unopened(self: &Arc<Disk>, id: ObjectId, why: Unopened) {
        match why {
            Unopened::Missing => self.correct(id, None),
            // That is removed already.
            Unopened::Defect(..) => {}
            Unopened::Io(e) => self.failed(Kind::Read, &e),
        }
    }

    /// The file of an object has been removed by somebody else.
    fn vanished(&self, id: &ObjectId, inode: u64) {
        self.open.remove_if(id, |object| matches!(&object.body, Body::Disk(file) if file.inode() == inode));
    }

    /// An open file has turned out to be damaged: nobody finds it any more. Does not wait.
    pub fn condemn(self: &Arc<Disk>, file: &Arc<StoredFile>, defect: Defect) {
        let (id, inode) = (file.id(), file.inode());
        self.hide(id);
        self.vanished(&id, inode);
        let (disk, held) = (self.clone(), file.clone());
        let job = move || {
            disk.remove_damaged(id, inode, defect);
            disk.ended_removal(id);
            drop(held);
        };
        if self.pool.try_write(job).is_err() {
            self.ended_removal(id);
        }
    }

    /// A file is closed. One that has been removed is freed by that, which takes its time.
    pub(super) fn closed(&self, id: &ObjectId, file: Arc<OwnedFd>, doomed: Option<Arc<Doomed>>) {
        let mut live = self.live(id);
        if let Some(files) = live.get_mut(id) {
            files.retain(|file| file.strong_count() > 0);
            if files.is_empty() {
                live.remove(id);
            }
        }
        drop(live);
        let Some(doomed) = doomed else { return };
        // This may be called with any lock held, by a worker: neither the file nor its room is let go of here.
        let parcel: Parcel = Arc::new(Mutex::new(Some((file, doomed))));
        let of_job = parcel.clone();
        let job = move || drop(of_job.lock().unwrap_or_else(PoisonError::into_inner).take());
        if self.pool.try_write(job).is_err() {
            self.closing.lock().unwrap_or_else(PoisonError::into_inner).push(parcel);
        }
    }

    /// Closes what the pool had no time for. Blocks.
    pub(super) fn close_what_waits(&self) {
        let waiting = std::mem::take(&mut *self.closing.lock().unwrap_or_else(PoisonError::into_inner));
        drop(waiting);
    }

    /// The open files of an object, of which the latest may be about to lose its name.
    pub(super) fn open_files(&self, id: &ObjectId) -> Vec<Arc<StoredFile>> {
        self.live(id).get(id).into_iter().flatten().filter_map(Weak::upgrade).collect()
    }

    /// The pool has not done what it should. That there was no room in its queue is not the disk's health.
    pub fn not_done(&self, kind: Kind, e: PoolError) {
        if e != PoolError::Full {
            self.failed(kind, &e.into());
        }
    }

    /// An error of the disk: counted, and logged where it is news.
    pub fn failed(&self, kind: Kind, e: &io::Error) {
        if let Some(transition) = self.health.on_error(kind, e, Instant::now()) {
            self.report(&transition, Some(e));
        }
    }

    pub(super) fn report(&self, transition: &Transition, e: Option<&io::Error>) {
        let path = self.path().display();
        match (transition, e) {
            (Transition::Resumed { .. }, _) => info!("{path}: {transition}"),
            (_, Some(e)) => warn!("{path}: {transition} ({e})"),
            (_, None) => warn!("{path}: {transition}"),
        }
    }

    pub fn refuse(&self, why: Refused) {
        self.stats.refuse(why);
    }

    /// Milliseconds since the disk was first known of.
    pub(super) fn millis(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// For so long, nobody waits for this disk's writes.
    pub(super) fn be_slow(&self, time: Duration) {
        let until = self.millis().saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        self.slow_until.store(until, Ordering::Relaxed);
    }

    /// For so long, nothing large is given to this disk.
    pub(super) fn be_stuck(&self, time: Duration) {
        let until = self.millis().saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        self.stuck_until.store(until, Ordering::Relaxed);
    }

    /// Whether the disk has not taken the last large body that it was given.
    pub fn is_stuck(&self) -> bool {
        self.millis() < self.stuck_until.load(Ordering::Relaxed)
    }

    /// The figures.
    pub fn usage(&self) -> Usage {
        let settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let state = self.space.lock();
        Usage {
            path: settings.path,
            phase: self.phase(),
            objects: state.index.len() as u64,
            bytes: state.used() * super::space::UNIT,
            capacity: settings.size,
            max_object: settings.max_object,
            max_objects: settings.max_objects,
            min_free: settings.min_free,
            evictions: self.stats.evictions.load(Ordering::Relaxed),
            spilling: self.stats.spilling.load(Ordering::Relaxed),
            index_memory: state.index.memory() as u64,
            open_files: self.open.len() as u64,
            complete: state.is_complete(),
            reading: self.health.suspended(health::Kind::Read),
            writing: self.health.suspended(health::Kind::Write),
        }
    }
}

/// The units of a file, as the index has them.
fn in_index(len: u64) -> u32 {
    u32::try_from(units(len)).unwrap_or(u32::MAX)
}

/// Where an object's file is, below the disk's folder.
pub fn name(id: &ObjectId) -> PathBuf {
    let hex = id.to_string();
    PathBuf::from(format!("{}/{hex}", &hex[..2]))
}

/// Whether a file has been written to in the last seconds.
fn is_new(stat: &Stat) -> bool {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let age = i128::try_from(now.as_nanos()).unwrap_or(i128::MAX) - i128::from(stat.modified);
    (0..NEW.as_nanos() as i128).contains(&age)
}

/// The folder of an object's file.
pub fn folder(id: &ObjectId) -> PathBuf {
    PathBuf::from(format!("{:02x}", id.0[0]))
}

/// The object that a file's name is of.
pub fn id_of(name: &[u8]) -> Option<ObjectId> {
    let text = std::str::from_utf8(name).ok().filter(|text| text.len() == 32)?;
    let lower = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let number = u128::from_str_radix(text, 16).ok().filter(|_| lower)?;
    Some(ObjectId(number.to_be_bytes()))
}
