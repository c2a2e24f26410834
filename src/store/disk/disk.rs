//! One disk, as its other files share it: what `finding`, `writing`, `freshen`, `removing` and `spill` do with it, and the
//! thread of the `keeper` with `stock` and `upkeep`.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use log::{info, warn};
use pingora_cache::key::HashBinary;
use quick_cache::UnitWeighter;
use quick_cache::sync::{Cache, DefaultLifecycle};
use smallvec::SmallVec;

use super::file::StoredFile;
use super::health::{Health, Kind, Transition};
use super::io::Io;
use super::keeper::Keeper;
use super::pool::{Pool, PoolError};
use super::space::{Doomed, Limits, Space, units};
use super::stats::{Refused, Stats};
use super::vouching::Vouching;
use super::writing::FileLocks;
use super::{Usage, health};
use crate::config::model::DiskTier;
use crate::http_cache::Tiers;
use crate::invalidate::Ledger;
use crate::store::key::{AlreadyHashed, ObjectId};
use crate::store::object::{Head, Object};

/// Threads of a disk, and jobs that may wait for each kind of them.
const READERS: usize = 8;
const WRITERS: usize = 4;
const QUEUE: usize = 1024;

/// Independent locks for what concerns one object.
pub const SHARDS: usize = 64;

/// A removed file that is to be closed, with its room.
pub(super) type Parcel = Arc<Mutex<Option<(Arc<OwnedFd>, Arc<Doomed>)>>>;

/// Whether an object has been of use elsewhere since this was last asked.
pub type Used = Box<dyn Fn(ObjectId) -> bool + Send + Sync>;

/// One disk of the disk tier.
pub struct Disk {
    pub io: Io,
    pub pool: Pool,
    pub health: Health,
    pub stats: Stats,
    pub space: Arc<Space>,
    pub(super) instance: String,
    pub(super) settings: Mutex<DiskTier>,
    /// Objects that are asked for again and again, with their files open.
    pub(super) open: Cache<ObjectId, Arc<Object>, UnitWeighter, AlreadyHashed>,
    /// Each file that is open, in the cache above or not.
    pub(super) live: [Mutex<Live>; SHARDS],
    /// What is about to be written, and what is about to be removed.
    pub(super) pending: [Mutex<Pending>; SHARDS],
    /// Bytes of bodies that are about to be written.
    pub(super) pending_bytes: AtomicU64,
    pub(super) used_elsewhere: OnceLock<Used>,
    pub(super) closing: Mutex<Vec<Parcel>>,
    pub(super) file_locks: FileLocks,
    pub(super) phase: AtomicU8,
    pub(super) max_object: AtomicU64,
    pub(super) keeper: Keeper,
    pub(super) vouching: Vouching,
    /// Until then, a moment in milliseconds since `started`, nobody waits for a write: the disk is slow.
    pub(super) slow_until: AtomicU64,
    /// Until then, likewise, nothing is written to it that is too much to wait in memory: it has not taken the last.
    stuck_until: AtomicU64,
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
    /// Where its route keeps responses.
    pub tiers: Tiers,
}

impl Wanted<'_> {
    pub(super) fn is(&self, head: &Head) -> bool {
        head.record.key == self.text && (self.variance.is_none() || head.variance == self.variance)
    }
}

impl Disk {
    /// A disk that nobody has looked at yet. `files`: how many it may keep open.
    pub fn new(settings: DiskTier, instance: &str, files: usize, ledger: &Arc<Ledger>) -> Arc<Disk> {
        Disk::over(Io::new(&settings.path, instance), settings, instance, files, ledger)
    }

    /// The same by way of that I/O.
    pub(super) fn over(io: Io, settings: DiskTier, instance: &str, files: usize, ledger: &Arc<Ledger>) -> Arc<Disk> {
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
            vouching: Vouching::new(ledger),
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
        matches!(self.phase(), Phase::Loading | Phase::Ready) && self.health.may_write() && self.vouching.is_sound()
    }

    /// Whether what has come whole may be stored here: of a disk that has been handed over, if it needs no other to go.
    pub fn accepts(&self) -> bool {
        let phase = self.phase();
        matches!(phase, Phase::Loading | Phase::Ready | Phase::Handed)
            && self.health.may_write()
            && self.vouching.is_sound()
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

    pub(super) fn live(&self, id: &ObjectId) -> MutexGuard<'_, Live> {
        self.live[usize::from(id.0[0]) % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
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
        self.millis_after(Duration::ZERO)
    }

    /// As [`Disk::millis`], so much later.
    fn millis_after(&self, time: Duration) -> u64 {
        u64::try_from(self.started.elapsed().saturating_add(time).as_millis()).unwrap_or(u64::MAX)
    }

    /// For so long, nobody waits for this disk's writes.
    pub(super) fn be_slow(&self, time: Duration) {
        self.slow_until.store(self.millis_after(time), Ordering::Relaxed);
    }

    /// For so long, nothing large is given to this disk.
    pub(super) fn be_stuck(&self, time: Duration) {
        self.stuck_until.store(self.millis_after(time), Ordering::Relaxed);
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
pub(super) fn in_index(len: u64) -> u32 {
    u32::try_from(units(len)).unwrap_or(u32::MAX)
}

/// Where an object's file is, below the disk's folder.
pub fn name(id: &ObjectId) -> PathBuf {
    let hex = id.to_string();
    PathBuf::from(format!("{}/{hex}", &hex[..2]))
}

/// The folder of an object's file.
pub fn folder(id: &ObjectId) -> PathBuf {
    folder_of(id.0[0])
}

/// The folder of the objects whose names begin with a byte.
pub fn folder_of(byte: u8) -> PathBuf {
    PathBuf::from(format!("{byte:02x}"))
}

/// The object that a file's name is of.
pub fn id_of(name: &[u8]) -> Option<ObjectId> {
    let text = std::str::from_utf8(name).ok().filter(|text| text.len() == 32)?;
    let lower = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let number = u128::from_str_radix(text, 16).ok().filter(|_| lower)?;
    Some(ObjectId(number.to_be_bytes()))
}
