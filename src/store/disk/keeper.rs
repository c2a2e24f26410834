//! What keeps a disk in order beside the traffic: whose it is, the round once a second, and the end.
//!
//! A thread for each disk, which looks about once a second and may wait for the disk as long as it takes.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use log::{debug, warn};
use rustix::fs::{FlockOperation, Mode, OFlags};

use super::disk::{Disk, Phase};
use super::health::Kind;
use super::nanos_since_epoch;
use super::snapshot::Written;
use super::sweep::Sweeps;
use super::upkeep::Later;
use super::walk::Unlisted;

/// How often the thread looks.
pub(super) const TICK: Duration = Duration::from_secs(1);

/// How often it looks while it waits for another process.
pub(super) const WAITING_TICK: Duration = Duration::from_millis(50);

/// How often what there is is written down, for a process that is killed.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(600);

/// How soon what could not be looked through is tried again; each that fails doubles it.
const FIRST_PAUSE: Duration = if cfg!(test) { Duration::from_millis(100) } else { Duration::from_secs(5) };
const LAST_PAUSE: Duration = Duration::from_secs(60);

/// The share of a disk that a process which hands it over may still take for what it is about to store.
const SPARE_SHARE: u64 = 64;

/// How long what is being written may take at the end.
pub(super) const DRAIN: Duration = Duration::from_secs(5);

/// Who owns the disk: locked by that process for as long as it lives. It holds its number.
const LOCK: &str = "lock";

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
    pub(super) lock: Mutex<Option<OwnedFd>>,
    pub(super) stop: Mutex<bool>,
    stopping: Condvar,
    /// The file system has turned out to be full.
    pub(super) full: AtomicBool,
    pub(super) later: Mutex<Later>,
    /// Held by who writes down what there is, or sets aside what has been.
    pub(super) saving: Mutex<()>,
    /// What the process before has written down has been set aside, and not been read yet.
    pub(super) retired: AtomicBool,
    /// What was last written down as all there is could not be set aside, and is not all any more.
    pub(super) unretired: AtomicBool,
    /// What was to be evicted could not be removed, and has got another place in the index.
    pub(super) put_back: AtomicBool,
    /// What the walks could not look at.
    pub(super) unlisted: Mutex<Unlisted>,
    /// What was last written to [`STATE`].
    pub(super) written: AtomicU64,
    /// Pages of the index that have been written down: a sign of life.
    pub(super) saved: AtomicU64,
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

    pub(super) fn is_stopped(&self) -> bool {
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
    pub(super) fn begin(self: &Arc<Disk>, begin: Begin) -> Result<(), String> {
        if let Err(e) = self.io.reopen() {
            self.failed(Kind::Write, &e);
            return Ok(());
        }
        match (self.lock(), begin) {
            (Ok(true), _) => _ = self.advance(Phase::Away, Phase::Loading),
            (Ok(false), Begin::Upgrade) => _ = self.advance(Phase::Away, Phase::Standby),
            (Ok(false), Begin::Alone) => {
                return Err(format!("{} is in use by another process", self.path().display()));
            }
            (Err(e), _) => {
                self.failed(Kind::Write, &e);
                return Ok(());
            }
        }
        if self.phase() == Phase::Loading {
            // Before anything can be stored that it does not have: were this process killed while it is being read, the
            // next one would take it for all there is.
            self.retire_index();
            self.believe_state();
        }
        Ok(())
    }

    /// Starts the thread that keeps the disk in order.
    pub(super) fn keep(self: &Arc<Disk>) -> io::Result<()> {
        let disk = self.clone();
        std::thread::Builder::new().name("disk-keeper".to_owned()).spawn(move || disk.run())?;
        Ok(())
    }

    pub(super) fn run(self: Arc<Disk>) {
        let since = nanos_since_epoch();
        match self.phase() {
            Phase::Loading => self.load(false),
            Phase::Standby => self.stand_by(since),
            _ => {}
        }
        let (mut saved, mut looked) = (Instant::now(), Instant::now());
        let (mut walked, mut pause, mut sweeps) = (Instant::now(), FIRST_PAUSE, Sweeps::default());
        while self.keeper.wait(TICK) {
            if self.phase() == Phase::Closed {
                return;
            }
            // Woken early, the room is what matters. Before anything is probed: the disk may be well again by then.
            if self.keeper.full.swap(false, Ordering::Relaxed) {
                self.squeeze();
            }
            if looked.elapsed() >= TICK / 2 {
                looked = Instant::now();
                self.look_after();
            }
            if self.phase() != Phase::Loading {
                (walked, pause) = (Instant::now(), FIRST_PAUSE);
            } else if walked.elapsed() >= pause && self.health.may_read() {
                self.look_through();
                (walked, pause) = (Instant::now(), (pause * 2).min(LAST_PAUSE));
            }
            self.sweep(&mut sweeps);
            if self.phase() == Phase::Ready && saved.elapsed() >= SNAPSHOT_EVERY {
                saved = Instant::now();
                if let Err(e) = self.save(Written::Running, || self.phase() != Phase::Ready) {
                    self.failed(Kind::Write, &e);
                }
            }
        }
    }

    /// One round: the folder, the room, the health.
    fn look_after(self: &Arc<Disk>) {
        match self.io.displaced() {
            Ok(true) => self.move_to_new_folder(),
            Ok(false) if self.phase() == Phase::Away => self.come_back(),
            Ok(false) => {}
            Err(e) => debug!("{}: {e}", self.path().display()),
        }
        self.keep_ledger();
        self.measure();
        self.probe();
        let phase = self.phase();
        if matches!(phase, Phase::Loading | Phase::Ready) {
            self.keep_lock();
            self.remove_what_is_left();
            self.make_way();
            self.save_state();
        }
        if self.keeper.unretired.load(Ordering::Relaxed) && self.health.may_write() {
            self.retire_index();
        }
    }

    /// The folder is gone, or another one is in its place: what was on the old one is lost.
    fn move_to_new_folder(self: &Arc<Disk>) {
        let phase = self.phase();
        if matches!(phase, Phase::Handed | Phase::Closed | Phase::Standby) {
            return;
        }
        match self.io.reopen() {
            Ok(true) => {
                warn!("{}: the folder is another one than before: what was stored is lost", self.path().display());
                if self.advance(phase, Phase::Away) {
                    self.lose_all();
                    self.come_back();
                }
            }
            Ok(false) => {}
            Err(e) => {
                if phase != Phase::Away && self.advance(phase, Phase::Away) {
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
    fn come_back(self: &Arc<Disk>) {
        // It may be the one that this process has locked already, which it could not lock once more.
        self.unlock();
        match self.lock() {
            Ok(true) => {}
            Ok(false) => return,
            Err(e) => return self.failed(Kind::Write, &e),
        }
        self.distrust();
        self.measure();
        if self.advance(Phase::Away, Phase::Loading) {
            self.keep_ledger();
            self.load(true);
        }
    }

    /// Tries to become the disk's owner.
    pub(super) fn lock(&self) -> io::Result<bool> {
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
                if self.advance(Phase::Loading, Phase::Away) || self.advance(Phase::Ready, Phase::Away) {
                    self.lose_all();
                }
            }
            Err(e) => self.failed(Kind::Write, &e),
        }
    }

    fn unlock(&self) {
        *self.keeper.lock.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Another process takes the disk over: from now on nothing is removed, and nothing begun. Blocks.
    pub fn hand_over(&self) {
        // The keeper may be about to say that it is ready.
        if !self.advance(Phase::Loading, Phase::Handed) && !self.advance(Phase::Ready, Phase::Handed) {
            return;
        }
        self.credit_hits();
        let units = {
            let mut state = self.space.lock();
            let spare = state.limits().size / SPARE_SHARE;
            state.hand_over(spare)
        };
        self.write_state(units);
        if let Err(e) = self.save(Written::HandedOver, || false) {
            warn!("{}: writing down what there is: {e}", self.path().display());
        }
    }

    /// Nothing more is written: writes down what there is, if it is this process's to say. Blocks.
    pub fn shut(self: &Arc<Disk>) {
        let deadline = Instant::now() + DRAIN;
        self.pool.drain(deadline);
        let phase = loop {
            let phase = self.phase();
            if self.advance(phase, Phase::Closed) {
                break phase;
            }
        };
        // What began before is over too, then.
        let drained = self.pool.drain(deadline);
        *self.keeper.stop.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.keeper.stopping.notify_all();
        if matches!(phase, Phase::Loading | Phase::Ready) {
            self.remove_what_is_left();
            self.credit_hits();
            self.save_state();
            // A file that could not be removed is there, and not in the index.
            let clean = phase == Phase::Ready
                && drained
                && self.later().is_empty()
                && !self.keeper.unretired.load(Ordering::Relaxed);
            if let Err(e) = self.save(if clean { Written::Clean } else { Written::Running }, || false) {
                warn!("{}: writing down what there is: {e}", self.path().display());
            }
        }
        self.leave_ledger();
        self.unlock();
    }

    /// Whether the keeper has nothing more to find out: it is the end, or another process's disk.
    pub(super) fn is_stopped(&self) -> bool {
        self.keeper.is_stopped() || self.phase() >= Phase::Handed
    }
}

#[cfg(test)]
#[path = "keeper_tests.rs"]
mod tests;
