//! Taking stock of a disk: reading what the last process wrote down, looking through the folders where that is not all,
//! and writing down what there is.

use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use log::{debug, info};

use super::disk::{Disk, Phase};
use super::health::Kind;
use super::keeper::{TICK, WAITING_TICK};
use super::nanos_since_epoch;
use super::snapshot::{self, Decoder, Encoder, Header, Written};
use super::space::UNIT;
use super::walk;

/// Entries of the index that are handed out or taken in under one lock.
pub(super) const PAGE: usize = 1024;

/// What there is.
pub(super) const INDEX: &str = "index";

/// The same from the process before, once this one may store something: after one that was killed, the order is still of
/// use.
const OLD_INDEX: &str = "index.old";

/// The units that were in use a second ago at most: 8 bytes, little-endian.
pub(super) const STATE: &str = "state";

impl Disk {
    /// Finds out what there is: by what the last process wrote down, and where that may not be all, by looking.
    pub(super) fn load(self: &Arc<Disk>, anew: bool) {
        // From now on it says less than there is. Where it stays, it must not be believed now either: nobody could tell
        // later what has changed since.
        let retired = self.retire_index();
        let of_last = self.keeper.retired.swap(false, Ordering::Relaxed);
        let clean = match self.recall(if retired { OLD_INDEX } else { INDEX }, None) {
            Ok(written) => written == Written::Clean && retired && of_last && !anew,
            Err(e) => {
                debug!("{}: no usable index: {e}", self.path().display());
                let _ = self.recall(OLD_INDEX, None);
                false
            }
        };
        if clean {
            walk::note_folders(self);
            walk::clear_temporary(self);
            return self.ready();
        }
        self.look_through();
    }

    /// Looks for all there is. What cannot be looked at now is tried again later.
    pub(super) fn look_through(self: &Arc<Disk>) {
        if walk::walk(self) {
            walk::clear_temporary(self);
            self.ready();
        }
    }

    /// What has been written down before is not to be believed again. False where it still would be.
    pub(super) fn retire_index(&self) -> bool {
        // Not what is written for the process that takes the disk over.
        let _alone = self.keeper.saving.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(self.phase(), Phase::Loading | Phase::Ready) {
            return false;
        }
        let renamed = self.io.rename(Path::new(INDEX), Path::new(OLD_INDEX));
        let retired = match renamed.and_then(|()| self.io.sync_folder()) {
            Ok(()) => {
                self.keeper.retired.store(true, Ordering::Relaxed);
                true
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => true,
            Err(e) => {
                self.failed(Kind::Write, &e);
                false
            }
        };
        self.keeper.unretired.store(!retired, Ordering::Relaxed);
        retired
    }

    pub(super) fn ready(&self) {
        let mut state = self.space.lock();
        // It may have been handed over meanwhile, or shut: then it is not this process's to say.
        if !self.advance(Phase::Loading, Phase::Ready) {
            return;
        }
        state.set_complete(true);
        let (objects, units) = (state.index.len(), state.index.units());
        drop(state);
        info!("{}: {objects} objects, {} MiB", self.path().display(), (units * UNIT) >> 20);
    }

    /// Waits for the process that has the disk to hand it over; then, for it to be gone.
    pub(super) fn stand_by(self: &Arc<Disk>, since: u64) {
        let mut looked = Instant::now();
        loop {
            match self.lock() {
                // It has gone, whatever it has written down.
                Ok(true) => {
                    self.believe_state();
                    self.own_ledger();
                    if self.advance(Phase::Standby, Phase::Loading) {
                        self.load(true);
                    }
                    return;
                }
                Ok(false) if self.recall(INDEX, Some(since)).is_ok() => break,
                _ => {}
            }
            if !self.keeper.wait(WAITING_TICK) || self.is_stopped() {
                return;
            }
            if looked.elapsed() >= TICK {
                looked = Instant::now();
                self.probe();
            }
        }
        if let Some(units) = self.recall_state() {
            self.space.lock().take_over(units);
        }
        if !self.advance(Phase::Standby, Phase::Loading) {
            return;
        }
        info!("{}: taken over", self.path().display());
        // What it still had to write comes to its end with it.
        while !matches!(self.lock(), Ok(true)) {
            if !self.keeper.wait(WAITING_TICK) || self.is_stopped() {
                return;
            }
            self.measure();
            if self.keeper.full.swap(false, Ordering::Relaxed) {
                self.squeeze();
            }
            if looked.elapsed() >= TICK {
                looked = Instant::now();
                self.probe();
                self.remove_what_is_left();
                self.save_state();
            }
        }
        self.own_ledger();
        self.retire_index();
        self.look_through();
    }

    /// Takes in what has been written down; with `since`, if it was to hand the disk over, and after that. When it was.
    pub(super) fn recall(&self, name: &str, since: Option<u64>) -> io::Result<Written> {
        let file = self.io.open(Path::new(name))?;
        let len = self.io.stat(&file)?.size;
        let mut header = [0; snapshot::HEADER_LEN];
        let read = self.io.pread(&file, 0, &mut header)?;
        let defect = |defect: snapshot::Defect| io::Error::new(io::ErrorKind::InvalidData, format!("{defect:?}"));
        let mut decoder = Decoder::new(&header[..read], len).map_err(defect)?;
        let Header { written, created, .. } = *decoder.header();
        if since.is_some_and(|since| created < since || written != Written::HandedOver) {
            return Err(io::ErrorKind::NotFound.into());
        }
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
        Ok(written)
    }

    /// Writes down what there is, unless another that is to be written is the last word. One at a time: there is one
    /// paging of the index.
    pub(super) fn save(&self, written: Written, overtaken: impl Fn() -> bool) -> io::Result<()> {
        let _alone = self.keeper.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let mut encoder = Encoder::new(nanos_since_epoch());
        let temp = self.io.create(Path::new("."))?;
        let (mut at, mut blocks) = (snapshot::HEADER_LEN as u64, Vec::new());
        self.space.lock().index.begin_pages();
        loop {
            let page = self.space.lock().index.page(PAGE);
            if page.is_empty() {
                break;
            }
            if overtaken() {
                return Ok(());
            }
            blocks.clear();
            encoder.add(&page, &mut blocks);
            self.io.pwrite_all(temp.file(), at, &blocks)?;
            at += blocks.len() as u64;
            self.keeper.saved.fetch_add(1, Ordering::Relaxed);
        }
        blocks.clear();
        let header = encoder.finish(written, &mut blocks);
        self.io.pwrite_all(temp.file(), at, &blocks)?;
        self.io.pwrite_all(temp.file(), 0, &header)?;
        if overtaken() {
            return Ok(());
        }
        self.io.publish(temp, Path::new(INDEX))?;
        self.keeper.unretired.store(false, Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn save_state(&self) {
        let units = self.space.lock().index.units();
        self.write_state(units);
    }

    pub(super) fn write_state(&self, units: u64) {
        if self.keeper.written.swap(units, Ordering::Relaxed) == units {
            return;
        }
        let written = match self.io.open_writable(Path::new(STATE)) {
            Ok(file) => self.io.pwrite_all(&file, 0, &units.to_le_bytes()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => self.io.replace(Path::new(STATE), &units.to_le_bytes()),
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

    pub(super) fn believe_state(&self) {
        if let Some(units) = self.recall_state() {
            self.space.lock().believe(units);
        }
    }
}
