//! What keeps a disk in order beside the traffic: finding out what is on it, watching its room and its health, and
//! writing down at the end what there is.
//!
//! A thread for each disk, which looks about once a second and may wait for the disk as long as it takes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use log::{debug, info, warn};
use rustix::fs::{FlockOperation, Mode, OFlags};

use super::disk::{Disk, Phase};
use super::health::Kind;
use super::marks::Marks;
use super::snapshot::{self, Decoder, Encoder};
use super::space::{Doomed, UNIT};
use super::walk;
use crate::store::key::ObjectId;

/// How often the thread looks.
const TICK: Duration = Duration::from_secs(1);

/// How often it looks while it waits for another process.
const WAITING_TICK: Duration = Duration::from_millis(50);

/// How often what there is is written down, for a process that is killed.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(600);

/// Entries of the index that are handed out or taken in under one lock.
const PAGE: usize = 1024;

/// The share of a disk that a process which hands it over may still take for what it is about to store.
const SPARE_SHARE: u64 = 64;

/// How long what is being written may take at the end.
pub(super) const DRAIN: Duration = Duration::from_secs(5);

/// Who owns the disk: locked by that process for as long as it lives. It holds its number.
const LOCK: &str = "lock";
/// What there is.
const INDEX: &str = "index";
/// What there was when that was last read: after a process that was killed, the order is still of use.
const OLD_INDEX: &str = "index.old";
/// The units that were in use a second ago at most: 8 bytes, little-endian.
const STATE: &str = "state";

/// How a disk begins its life in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// As its only user.
    Alone,
    /// Another process hands it over.
    Upgrade,
}

/// The state of a disk's keeper.
#[derive(Default)]
pub struct Keeper {
    lock: Mutex<Option<OwnedFd>>,
    stop: Mutex<bool>,
    stopping: Condvar,
    /// The file system has turned out to be full.
    full: AtomicBool,
    /// What could not be removed, with its room where that was known.
    later: Mutex<HashMap<ObjectId, Option<Doomed>>>,
    /// What was last written to [`STATE`].
    written: AtomicU64,
    /// Pages of the index that have been written down: a sign of life.
    saved: AtomicU64,
}

impl Keeper {
    /// The file system is full: what room it has is to be looked at now.
    pub fn is_full(&self) {
        self.full.store(true, Ordering::Relaxed);
        self.stopping.notify_all();
    }

    /// Grows while the index is being written down.
    pub fn progress(&self) -> u64 {
        self.saved.load(Ordering::Relaxed)
    }

    fn is_stopped(&self) -> bool {
        *self.stop.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits so long, or until there is something to do; whether to go on.
    pub fn wait(&self, time: Duration) -> bool {
        let stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner);
        if *stop {
            return false;
        }
        let (stop, _) = self.stopping.wait_timeout(stop, time).unwrap_or_else(PoisonError::into_inner);
        !*stop
    }
}

impl Disk {
    /// Opens the disk's folder and takes it into possession; what is on it is found out later. Blocks.
    ///
    /// # Errors
    /// Another process uses it. A disk that cannot be used is no error: it may come back.
    pub(super) fn begin(self: &Arc<Disk>, begin: Begin) -> Result<Option<Vec<u64>>, String> {
        if let Err(e) = self.io.reopen() {
            self.failed(Kind::Write, &e);
            return Ok(None);
        }
        match (self.lock(), begin) {
            (Ok(true), _) => self.enter(Phase::Loading),
            (Ok(false), Begin::Upgrade) => self.enter(Phase::Standby),
            (Ok(false), Begin::Alone) => {
                return Err(format!("{} is in use by another process", self.path().display()));
            }
            (Err(e), _) => {
                self.failed(Kind::Write, &e);
                return Ok(None);
            }
        }
        if self.phase() == Phase::Loading {
            self.believe_state();
        }
        Ok(Marks::read(&self.io))
    }

    /// Starts the thread that keeps the disk in order.
    pub(super) fn keep(self: &Arc<Disk>, marks: &Arc<Marks>) -> io::Result<()> {
        let (disk, marks) = (self.clone(), marks.clone());
        std::thread::Builder::new().name("disk-keeper".to_owned()).spawn(move || disk.run(&marks))?;
        Ok(())
    }

    fn run(self: Arc<Disk>, marks: &Marks) {
        let since = created();
        match self.phase() {
            Phase::Loading => self.load(false),
            Phase::Standby => self.stand_by(since, marks),
            _ => {}
        }
        let (mut saved, mut looked) = (Instant::now(), Instant::now());
        while self.keeper.wait(TICK) {
            if self.phase() == Phase::Closed {
                return;
            }
            // Woken early, the room is what matters.
            if looked.elapsed() >= TICK / 2 {
                looked = Instant::now();
                self.look_after(marks);
            }
            if self.keeper.full.swap(false, Ordering::Relaxed) {
                self.squeeze();
            }
            if self.phase() == Phase::Ready && saved.elapsed() >= SNAPSHOT_EVERY {
                saved = Instant::now();
                if let Err(e) = self.save(false) {
                    self.failed(Kind::Write, &e);
                }
            }
        }
    }

    /// One round: the folder, the room, the health.
    fn look_after(self: &Arc<Disk>, marks: &Marks) {
        match self.io.displaced() {
            Ok(true) => self.move_to_new_folder(marks),
            Ok(false) if self.phase() == Phase::Away => self.come_back(marks),
            Ok(false) => {}
            Err(e) => debug!("{}: {e}", self.path().display()),
        }
        self.measure();
        self.probe();
        if matches!(self.phase(), Phase::Loading | Phase::Ready) {
            self.keep_lock();
            self.remove_what_is_left();
            self.make_way();
            self.save_state();
        }
    }

    /// The folder is gone, or another one is in its place: what was on the old one is lost.
    fn move_to_new_folder(self: &Arc<Disk>, marks: &Marks) {
        let phase = self.phase();
        if matches!(phase, Phase::Handed | Phase::Closed | Phase::Standby) {
            return;
        }
        match self.io.reopen() {
            Ok(true) => {
                warn!("{}: the folder is another one than before: what was stored is lost", self.path().display());
                self.enter(Phase::Away);
                self.lose_all();
                self.come_back(marks);
            }
            Ok(false) => {}
            Err(e) => {
                if phase != Phase::Away {
                    self.enter(Phase::Away);
                    self.lose_all();
                }
                self.failed(Kind::Write, &e);
            }
        }
    }

    fn lose_all(&self) {
        self.close_all();
        self.space.lock().forget();
    }

    /// A folder that is ours to use, if nobody else has it.
    fn come_back(self: &Arc<Disk>, marks: &Marks) {
        // It may be the one that this process has locked already, which it could not lock once more.
        self.unlock();
        match self.lock() {
            Ok(true) => {}
            Ok(false) => return,
            Err(e) => return self.failed(Kind::Write, &e),
        }
        if let Err(e) = marks.write(&self.io) {
            return self.failed(Kind::Write, &e);
        }
        self.measure();
        self.enter(Phase::Loading);
        self.load(true);
    }

    /// Tries to become the disk's owner.
    fn lock(&self) -> io::Result<bool> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let path = self.path().join(LOCK);
        let file = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(false),
            Err(e) => return Err(e.into()),
        }
        let number = format!("{}\n", std::process::id());
        rustix::fs::ftruncate(&file, 0)?;
        rustix::io::pwrite(&file, number.as_bytes(), 0)?;
        *self.keeper.lock.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
        Ok(true)
    }

    /// Sees that the lock is where others look for it. Somebody may have emptied the folder.
    fn keep_lock(&self) {
        let lock = self.keeper.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = lock.as_ref().is_some_and(|file| rustix::fs::fstat(file).is_ok_and(|stat| stat.st_nlink == 0));
        drop(lock);
        if !gone {
            return;
        }
        match self.lock() {
            Ok(true) => {}
            Ok(false) => {
                warn!("{}: another process has taken the disk", self.path().display());
                self.enter(Phase::Away);
                self.lose_all();
            }
            Err(e) => self.failed(Kind::Write, &e),
        }
    }

    fn unlock(&self) {
        *self.keeper.lock.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    // ---- room

    /// Looks how much the file system has room for.
    pub(super) fn measure(&self) {
        let Ok(room) = self.io.free_space() else { return };
        let min_free = self.settings.lock().unwrap_or_else(PoisonError::into_inner).min_free;
        let (free, min_free) = (room.free / UNIT, min_free.div_ceil(UNIT));
        let mut state = self.space.lock();
        let ours = state.on_disk();
        state.limits_mut().ceiling = (ours + free).saturating_sub(min_free);
    }

    /// The file system says that it is full: it may be something else than bytes that it lacks, and less will do.
    fn squeeze(self: &Arc<Disk>) {
        self.measure();
        {
            let mut state = self.space.lock();
            let used = state.used();
            let limits = state.limits_mut();
            limits.ceiling = limits.ceiling.min(used - used / 50);
        }
        self.make_way();
    }

    /// Sees that no more is held than may be, when that has become less.
    fn make_way(self: &Arc<Disk>) {
        // A reservation of nothing makes all go that has to.
        drop(self.reserve(0, 0));
    }

    pub(super) fn probe(self: &Arc<Disk>) {
        if self.phase() == Phase::Away {
            return;
        }
        let now = Instant::now();
        if self.health.probe_due(Kind::Write, now) {
            let outcome = self.try_to_write();
            let transition = self.health.probed(Kind::Write, outcome.as_ref().copied(), Instant::now());
            if let Some(transition) = transition {
                self.report(&transition, None);
            }
        }
        if self.health.probe_due(Kind::Read, now) {
            let outcome = self.try_to_read();
            let transition = self.health.probed(Kind::Read, outcome.as_ref().copied(), Instant::now());
            if let Some(transition) = transition {
                self.report(&transition, None);
            }
        }
    }

    fn try_to_write(self: &Arc<Disk>) -> io::Result<()> {
        const PROBE: [u8; UNIT as usize] = [0; UNIT as usize];
        if matches!(self.phase(), Phase::Loading | Phase::Ready) {
            self.make_way();
        }
        let temp = self.io.create(Path::new("."))?;
        self.io.pwrite_all(temp.file(), 0, &PROBE)?;
        let name = Path::new("probe");
        self.io.publish(temp, name)?;
        self.io.unlink(name)
    }

    fn try_to_read(&self) -> io::Result<()> {
        let file = match self.io.open(Path::new(super::marks::NAME)) {
            Ok(file) => file,
            // Somebody has emptied the folder: that there is nothing to be read is an answer.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(e),
        };
        let mut bytes = [0; 8];
        self.io.pread(&file, 0, &mut bytes)?;
        Ok(())
    }

    /// What could not be removed is tried again, and not to be found until it is.
    pub(super) fn remove_later(&self, id: ObjectId, doomed: Option<Doomed>) {
        let mut later = self.keeper.later.lock().unwrap_or_else(PoisonError::into_inner);
        match later.entry(id) {
            Entry::Occupied(mut entry) => {
                // The name can have had only one file since.
                if doomed.is_some() {
                    *entry.get_mut() = doomed;
                }
            }
            Entry::Vacant(entry) => {
                entry.insert(doomed);
                drop(later);
                *self.shard(&id).removals.entry(id).or_insert(0) += 1;
            }
        }
    }

    /// What could not be removed has been replaced.
    pub(super) fn replaced(&self, id: ObjectId) {
        let gone = self.keeper.later.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        if gone.is_some() {
            self.ended_removal(id);
        }
    }

    fn remove_what_is_left(self: &Arc<Disk>) {
        let later = || self.keeper.later.lock().unwrap_or_else(PoisonError::into_inner);
        let ids: Vec<_> = later().keys().copied().take(PAGE).collect();
        for id in ids {
            if !self.health.may_write() {
                return;
            }
            let Some(doomed) = later().remove(&id) else { continue };
            let removed = self.remove_again(id);
            if !removed {
                self.remove_later(id, doomed);
            }
            self.ended_removal(id);
            if !removed {
                return;
            }
        }
    }

    // ---- what there is

    /// Finds out what there is: by what the last process wrote down, and where that may not be all, by looking.
    fn load(self: &Arc<Disk>, anew: bool) {
        let clean = match self.recall(INDEX, None) {
            Ok(clean) => clean && !anew,
            Err(e) => {
                debug!("{}: no usable index: {e}", self.path().display());
                let _ = self.recall(OLD_INDEX, None);
                false
            }
        };
        // From now on it says less than there is.
        let _ = self.io.rename(Path::new(INDEX), Path::new(OLD_INDEX));
        if !clean && !walk::walk(self) {
            return;
        }
        if clean {
            walk::note_folders(self);
        }
        walk::clear_temporary(self);
        self.ready();
    }

    fn ready(&self) {
        let mut state = self.space.lock();
        state.set_complete(true);
        let (objects, units) = (state.index.len(), state.index.units());
        drop(state);
        self.enter(Phase::Ready);
        info!("{}: {objects} objects, {} MiB", self.path().display(), (units * UNIT) >> 20);
    }

    /// Waits for the process that has the disk to hand it over; then, for it to be gone.
    fn stand_by(self: &Arc<Disk>, since: u64, marks: &Marks) {
        loop {
            match self.lock() {
                // It has gone, whatever it has written down.
                Ok(true) => {
                    self.believe_state();
                    self.take_marks_over(marks);
                    self.enter(Phase::Loading);
                    return self.load(true);
                }
                Ok(false) if self.recall(INDEX, Some(since)).is_ok() => break,
                _ => {}
            }
            if !self.keeper.wait(WAITING_TICK) {
                return;
            }
        }
        if let Some(units) = self.recall_state() {
            self.space.lock().take_over(units);
        }
        self.take_marks_over(marks);
        self.enter(Phase::Loading);
        info!("{}: taken over", self.path().display());
        // What it still had to write comes to its end with it.
        while !matches!(self.lock(), Ok(true)) {
            if !self.keeper.wait(WAITING_TICK) {
                return;
            }
            self.measure();
            if self.keeper.full.swap(false, Ordering::Relaxed) {
                self.squeeze();
            }
        }
        // As for what it has invalidated.
        self.take_marks_over(marks);
        let _ = self.io.rename(Path::new(INDEX), Path::new(OLD_INDEX));
        if walk::walk(self) {
            walk::clear_temporary(self);
            self.ready();
        }
    }

    /// Learns of what another process has invalidated.
    fn take_marks_over(&self, marks: &Marks) {
        if let Some(counts) = Marks::read(&self.io) {
            marks.catch_up(&counts);
        }
    }

    /// Takes in what has been written down, if it is of after `since`; whether it is all there is.
    fn recall(&self, name: &str, since: Option<u64>) -> io::Result<bool> {
        let file = self.io.open(Path::new(name))?;
        let len = self.io.stat(&file)?.size;
        let mut header = [0; snapshot::HEADER_LEN];
        let read = self.io.pread(&file, 0, &mut header)?;
        let defect = |defect: snapshot::Defect| io::Error::new(io::ErrorKind::InvalidData, format!("{defect:?}"));
        let mut decoder = Decoder::new(&header[..read], len).map_err(defect)?;
        if since.is_some_and(|since| decoder.header().created < since) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let clean = decoder.header().clean;
        let (mut at, mut block, mut entries) = (snapshot::HEADER_LEN as u64, Vec::new(), Vec::new());
        while decoder.next_len() > 0 {
            block.resize(decoder.next_len(), 0);
            let read = self.io.pread(&file, at, &mut block)?;
            at += read as u64;
            entries.clear();
            decoder.block(&block[..read], &mut entries).map_err(defect)?;
            for page in entries.chunks(PAGE) {
                let mut state = self.space.lock();
                page.iter().for_each(|entry| state.add_folder(entry.id.0[0]));
                state.learn(|index| page.iter().for_each(|entry| index.restore(*entry)));
            }
        }
        Ok(clean)
    }

    /// Writes down what there is; `clean`: it is all, and stays so.
    fn save(&self, clean: bool) -> io::Result<()> {
        let mut encoder = Encoder::new(created());
        let temp = self.io.create(Path::new("."))?;
        let (mut at, mut blocks) = (snapshot::HEADER_LEN as u64, Vec::new());
        self.space.lock().index.begin_pages();
        loop {
            let page = self.space.lock().index.page(PAGE);
            if page.is_empty() {
                break;
            }
            blocks.clear();
            encoder.add(&page, &mut blocks);
            self.io.pwrite_all(temp.file(), at, &blocks)?;
            at += blocks.len() as u64;
            self.keeper.saved.fetch_add(1, Ordering::Relaxed);
        }
        blocks.clear();
        let header = encoder.finish(clean, &mut blocks);
        self.io.pwrite_all(temp.file(), at, &blocks)?;
        self.io.pwrite_all(temp.file(), 0, &header)?;
        self.io.publish(temp, Path::new(INDEX))?;
        Ok(())
    }

    fn save_state(&self) {
        let units = self.space.lock().index.units();
        self.write_state(units);
    }

    fn write_state(&self, units: u64) {
        if self.keeper.written.swap(units, Ordering::Relaxed) == units {
            return;
        }
        let written = match self.io.open_writable(Path::new(STATE)) {
            Ok(file) => self.io.pwrite_all(&file, 0, &units.to_le_bytes()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => (|| {
                let temp = self.io.create(Path::new("."))?;
                self.io.pwrite_all(temp.file(), 0, &units.to_le_bytes())?;
                self.io.publish(temp, Path::new(STATE)).map(|_| ())
            })(),
            Err(e) => Err(e),
        };
        if let Err(e) = written {
            self.failed(Kind::Write, &e);
        }
    }

    fn recall_state(&self) -> Option<u64> {
        let mut units = [0; 8];
        let file = self.io.open(Path::new(STATE)).ok()?;
        let read = self.io.pread(&file, 0, &mut units).ok()?;
        (read == units.len()).then(|| u64::from_le_bytes(units))
    }

    fn believe_state(&self) {
        if let Some(units) = self.recall_state() {
            self.space.lock().believe(units);
        }
    }

    // ---- the end

    /// Another process takes the disk over: from now on nothing is removed, and nothing begun. Blocks.
    pub fn hand_over(&self) {
        if !matches!(self.phase(), Phase::Loading | Phase::Ready) {
            return;
        }
        self.enter(Phase::Handed);
        self.credit_hits();
        let units = {
            let mut state = self.space.lock();
            let spare = state.limits().size / SPARE_SHARE;
            state.hand_over(spare)
        };
        self.write_state(units);
        if let Err(e) = self.save(false) {
            warn!("{}: writing down what there is: {e}", self.path().display());
        }
    }

    /// Nothing more is written: writes down what there is, if it is this process's to say. Blocks.
    pub fn shut(&self) {
        let (phase, deadline) = (self.phase(), Instant::now() + DRAIN);
        self.pool.drain(deadline);
        self.enter(Phase::Closed);
        // What began before is over too, then.
        let drained = self.pool.drain(deadline);
        *self.keeper.stop.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.keeper.stopping.notify_all();
        if matches!(phase, Phase::Loading | Phase::Ready) {
            self.credit_hits();
            self.save_state();
            if let Err(e) = self.save(phase == Phase::Ready && drained) {
                warn!("{}: writing down what there is: {e}", self.path().display());
            }
        }
        self.unlock();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.keeper.is_stopped()
    }
}

/// Tells snapshots apart: nanoseconds since 1970.
fn created() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
