//! What a disk holds and may hold: the index with all that takes room beside it, behind one lock.
//!
//! The limit holds at all times: room is reserved before anything is written, and what is removed counts until its
//! blocks are free, which for a file that is still being read is when it is closed.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::index::Index;
use super::marks;
use crate::store::key::ObjectId;

/// Bytes of a unit: what file systems give out at least.
pub const UNIT: u64 = 4096;

/// Bytes that an object takes beside its file: an entry in its folder and in the snapshot.
const BESIDE: u64 = 128;

/// Folders that objects are spread over.
const FOLDERS: u64 = 256;

/// How long a writer waits for room that others are about to free.
const FREED_SOON: Duration = Duration::from_secs(2);

/// The room on a disk.
pub struct Space {
    state: Mutex<State>,
    freed: Condvar,
}

/// The state of a [`Space`].
pub struct State {
    pub index: Index,
    /// Units reserved for what is being written.
    reserved: u64,
    /// Units of files that are being removed.
    leaving: u64,
    /// Units of files that have been removed, but are still being read.
    pinned: u64,
    /// What the index had before the last stop, while a walk has not yet said what there is.
    believed: u64,
    /// Units that the process which handed the disk over may have taken since, or may still take.
    elsewhere: u64,
    /// All that is on the disk is in the index.
    complete: bool,
    limits: Limits,
}

/// What may be held.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Units.
    pub size: u64,
    pub objects: u64,
    /// Units that the file system has room for, beside what must stay free.
    pub ceiling: u64,
}

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// Everything that is there is in use.
    Busy,
    /// The file system has none.
    Full,
}

/// Units that are reserved; given back when this is dropped, unless they are taken.
pub struct Reserved {
    space: Arc<Space>,
    units: u64,
}

/// Units of a file that is being removed, until this is dropped: when it has no name, and nobody reads it any more.
pub struct Doomed {
    space: Arc<Space>,
    units: u64,
    pinned: bool,
}

/// The units of so many bytes.
pub fn units(bytes: u64) -> u64 {
    bytes.div_ceil(UNIT)
}

impl State {
    /// Units in use: files, those being written, those being removed, and what is beside them.
    pub fn used(&self) -> u64 {
        let objects = self.index.len() as u64;
        let beside = units(objects * BESIDE) + objects.min(FOLDERS) + units(marks::FILE_LEN) + 4;
        self.index.units().max(self.believed) + self.reserved + self.leaving + self.pinned + self.elsewhere + beside
    }

    pub fn limits(&self) -> Limits {
        self.limits
    }

    pub fn limits_mut(&mut self) -> &mut Limits {
        &mut self.limits
    }

    /// Whether an object that is not in the index is not on the disk.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// The index is all there is, or is not known to be.
    pub fn set_complete(&mut self, complete: bool) {
        self.complete = complete;
        if complete {
            (self.believed, self.elsewhere) = (0, 0);
        }
    }

    /// Units that were in use before the last stop.
    pub fn believe(&mut self, units: u64) {
        self.believed = units;
    }

    /// Another process has the disk now: this one takes no more than so many units beyond what it has reserved. Returns
    /// what it has in use by then, at most.
    pub fn hand_over(&mut self, spare: u64) -> u64 {
        let used = self.used();
        let spare = spare.min(self.limit().saturating_sub(used));
        self.limits.size = self.limits.size.min(used + spare);
        self.index.units() + self.reserved + self.leaving + self.pinned + spare
    }

    /// What is in the index is of a process that may have so many units in use.
    pub fn take_over(&mut self, units: u64) {
        self.elsewhere = units.saturating_sub(self.index.units());
    }

    fn limit(&self) -> u64 {
        self.limits.size.min(self.limits.ceiling)
    }

    /// Units beyond the limit once so many more are needed and all that is being removed is gone.
    fn excess(&self, more: u64) -> u64 {
        (self.used() - self.leaving + more).saturating_sub(self.limit())
    }
}

impl Space {
    pub fn new(limits: Limits) -> Arc<Space> {
        let state =
            State { index: Index::new(), reserved: 0, leaving: 0, pinned: 0, believed: 0, elsewhere: 0, complete: false, limits };
        Arc::new(Space { state: Mutex::new(state), freed: Condvar::new() })
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves room, for `objects` more. `evict` removes what has to go: it is given its name and units, outside the
    /// lock, and returns when that is done. Blocks; `used`: see [`Index::victim`].
    ///
    /// # Errors
    /// There is no room, and nothing left that could go.
    pub fn reserve(
        self: &Arc<Space>,
        units: u64,
        objects: u64,
        mut used: impl FnMut(ObjectId) -> bool,
        mut evict: impl FnMut(ObjectId, Doomed),
    ) -> Result<Reserved, NoRoom> {
        loop {
            let mut state = self.lock();
            let crowded = |state: &State| state.index.len() as u64 + objects > state.limits.objects;
            if state.used() + units <= state.limit() && !crowded(&state) {
                state.reserved += units;
                return Ok(Reserved { space: self.clone(), units });
            }
            let mut victims = Vec::new();
            while state.excess(units) > 0 || crowded(&state) {
                let Some((id, units)) = state.index.victim(&mut used) else { break };
                let doomed = self.doom(&mut state, units);
                victims.push((id, doomed));
            }
            if !victims.is_empty() {
                drop(state);
                victims.into_iter().for_each(|(id, doomed)| evict(id, doomed));
                continue;
            }
            let full = state.limits.ceiling < state.limits.size;
            if state.excess(units) > 0 || state.leaving == 0 {
                return Err(if full { NoRoom::Full } else { NoRoom::Busy });
            }
            // What others are removing will do.
            let (state, waited) =
                self.freed.wait_timeout(state, FREED_SOON).unwrap_or_else(PoisonError::into_inner);
            drop(state);
            if waited.timed_out() {
                return Err(NoRoom::Busy);
            }
        }
    }

    /// Reserves room if there is some, for which nothing has to go.
    ///
    /// # Errors
    /// There is none.
    pub fn reserve_free(self: &Arc<Space>, units: u64) -> Result<Reserved, NoRoom> {
        let mut state = self.lock();
        if state.used() + units > state.limit() {
            return Err(NoRoom::Busy);
        }
        state.reserved += units;
        Ok(Reserved { space: self.clone(), units })
    }

    /// Units that an object had, which go once its file is closed.
    pub fn doom(self: &Arc<Space>, state: &mut State, units: u32) -> Doomed {
        state.leaving += u64::from(units);
        Doomed { space: self.clone(), units: u64::from(units), pinned: false }
    }
}

impl Reserved {
    /// The units are those of an object in the index from now on.
    pub fn take(mut self, state: &mut State) {
        state.reserved -= self.units;
        self.units = 0;
    }

    pub fn units(&self) -> u64 {
        self.units
    }

    /// Gives back what is above so many units.
    pub fn shrink(&mut self, units: u64) {
        let spare = self.units.saturating_sub(units);
        if spare > 0 {
            self.space.lock().reserved -= spare;
            self.units -= spare;
            self.space.freed.notify_all();
        }
    }

    /// One reservation for both.
    pub fn join(&mut self, mut other: Reserved) {
        self.units += std::mem::take(&mut other.units);
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if self.units > 0 {
            self.space.lock().reserved -= self.units;
            self.space.freed.notify_all();
        }
    }
}

impl Doomed {
    /// The name is gone, but somebody still reads the file: nobody should wait for its room.
    pub fn pin(mut self) -> Doomed {
        let mut state = self.space.lock();
        state.leaving -= self.units;
        state.pinned += self.units;
        drop(state);
        self.pinned = true;
        self
    }
}

impl Drop for Doomed {
    fn drop(&mut self) {
        let mut state = self.space.lock();
        if self.pinned {
            state.pinned -= self.units;
        } else {
            state.leaving -= self.units;
        }
        drop(state);
        self.space.freed.notify_all();
    }
}
