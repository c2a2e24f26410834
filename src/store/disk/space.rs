//! What a disk holds and may hold: the index with all that takes room beside it, behind one lock.
//!
//! The limit holds at all times: room is reserved before anything is written, and what is removed counts until its
//! blocks are free, which for a file that is still being read is when it is closed.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::folders::Folders;
use super::index::Index;
use crate::store::key::ObjectId;

/// Bytes of a unit: what file systems give out at least.
pub const UNIT: u64 = 4096;

/// Bytes that an object takes beside its file: an entry in its folder and in the snapshot.
const BESIDE: u64 = 128;

/// Units of what is beside all objects, but for the invalidation counters: the folder itself and the small files in it.
const FEW: u64 = 4;

/// On a disk of fewer units than this, which are 64 MiB, folders that have become empty are removed: all 256 of them
/// would be a considerable part of it.
const SMALL: u64 = 16 * 1024;

/// Objects that are chosen to go under one lock.
const AT_ONCE: usize = 256;

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
    /// Units and objects reserved for what is being written.
    reserved: u64,
    coming: u64,
    /// Of those units, the ones that have been written already.
    written: u64,
    /// Units of files that are being removed, and how many they are.
    leaving: u64,
    going: u64,
    /// Units of files that have been removed, but are still being read, and of those that cannot be removed.
    pinned: u64,
    /// Units that were there before the last stop and that the walk has yet to come upon.
    believed: u64,
    /// The folders of objects that there are, or may be.
    folders: Folders,
    /// Units that the process which handed the disk over may have taken since, or may still take.
    elsewhere: u64,
    /// Units that may still be taken of a disk that has been handed over. None comes back: what this process frees, the
    /// other may have taken already.
    spare: Option<u64>,
    /// Units of the disk's copy of the ledger.
    ledger: u64,
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

/// Units and objects that are reserved; given back when this is dropped, unless they are taken.
pub struct Reserved {
    space: Arc<Space>,
    units: u64,
    objects: u64,
    written: u64,
}

/// Units of a file that is being removed, until this is dropped: when it has no name, and nobody reads it any more.
pub struct Doomed {
    space: Arc<Space>,
    units: u64,
    pinned: bool,
    /// It is counted as an object again.
    back: bool,
}

/// The units of so many bytes.
pub fn units(bytes: u64) -> u64 {
    bytes.div_ceil(UNIT)
}

impl State {
    /// Units in use: files, those being written, those being removed, and what is beside them.
    pub fn used(&self) -> u64 {
        self.used_with(0, 0)
    }

    /// The same with so many more units and objects.
    fn used_with(&self, more: u64, objects: u64) -> u64 {
        self.fixed_with(more, self.objects() + objects) + self.index.units() + self.leaving
    }

    /// The units in use that no eviction frees, with so many more, beside so many objects.
    fn fixed_with(&self, more: u64, objects: u64) -> u64 {
        let beside = units(objects * BESIDE) + self.folders.count() + self.ledger + FEW;
        self.believed + self.elsewhere + self.reserved + self.pinned + beside + more
    }

    /// The units in use that are on the file system, at least: what is reserved has yet to be written.
    pub fn on_disk(&self) -> u64 {
        self.used() - (self.reserved - self.written) - self.elsewhere
    }

    /// There is a folder for objects whose names begin so.
    pub fn add_folder(&mut self, byte: u8) {
        self.folders.add(byte);
    }

    pub fn has_folder(&self, byte: u8) -> bool {
        self.folders.has(byte)
    }

    /// There is none.
    pub fn remove_folder(&mut self, byte: u8) {
        self.folders.remove(byte);
    }

    /// Whether empty folders are too many to be left alone.
    pub fn is_small(&self) -> bool {
        self.limits.size < SMALL
    }

    /// Adds objects to the index that were there before: some of what is believed is known by that. What was not even
    /// believed counted for somebody else's when the file system was asked for its room.
    pub fn learn<T>(&mut self, add: impl FnOnce(&mut Index) -> T) -> T {
        let before = self.index.units();
        let result = add(&mut self.index);
        let more = self.index.units().saturating_sub(before);
        self.limits.ceiling = self.limits.ceiling.saturating_add(more.saturating_sub(self.believed));
        self.believed = self.believed.saturating_sub(more);
        result
    }

    /// The units in use without what is beside the files.
    #[cfg(test)]
    pub fn of_files(&self) -> u64 {
        self.index.units() + self.reserved + self.leaving + self.pinned
    }

    /// Objects that are there or being written.
    fn objects(&self) -> u64 {
        self.index.len() as u64 + self.coming
    }

    pub fn limits(&self) -> Limits {
        self.limits
    }

    pub fn limits_mut(&mut self) -> &mut Limits {
        &mut self.limits
    }

    /// Whether files of objects that are not in the index any more are being removed.
    pub fn is_removing(&self) -> bool {
        self.going > 0
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

    /// Units of the disk's copy of the ledger.
    pub fn set_ledger(&mut self, units: u64) {
        self.ledger = units;
    }

    /// Units that were in use before the last stop.
    pub fn believe(&mut self, units: u64) {
        self.believed = units.saturating_sub(self.index.units());
    }

    /// Nothing of what was known holds any more: it is another folder.
    pub fn forget(&mut self) {
        (self.index, self.folders, self.believed, self.complete) = (Index::new(), Folders::default(), 0, false);
    }

    /// Why there is no room, where nothing is left to go.
    fn no_room(&self) -> NoRoom {
        let nothing_fits = self.fixed_with(1, self.coming + 1) > self.limit();
        if nothing_fits && self.limits.ceiling < self.limits.size { NoRoom::Full } else { NoRoom::Busy }
    }

    /// Another process has the disk now: this one takes no more than so many units beyond what it has reserved. Returns
    /// what it has in use by then, at most.
    pub fn hand_over(&mut self, spare: u64) -> u64 {
        let used = self.used();
        let spare = spare.min(self.limit().saturating_sub(used));
        self.limits.size = self.limits.size.min(used + spare);
        self.spare = Some(spare);
        self.index.units() + self.reserved + self.leaving + self.pinned + spare
    }

    /// What is in the index is of a process that may have so many units in use.
    pub fn take_over(&mut self, units: u64) {
        self.elsewhere = units.saturating_sub(self.index.units());
    }

    fn limit(&self) -> u64 {
        self.limits.size.min(self.limits.ceiling)
    }

    /// Units beyond the limit once so much more is needed and all that is being removed is gone.
    fn excess(&self, more: u64, objects: u64) -> u64 {
        (self.used_with(more, objects) - self.leaving).saturating_sub(self.limit())
    }

    fn is_crowded(&self, objects: u64) -> bool {
        self.objects() + objects > self.limits.objects
    }
}

impl Space {
    pub fn new(limits: Limits) -> Arc<Space> {
        let state = State {
            index: Index::new(),
            reserved: 0,
            coming: 0,
            written: 0,
            leaving: 0,
            going: 0,
            pinned: 0,
            believed: 0,
            elsewhere: 0,
            spare: None,
            folders: Folders::default(),
            ledger: 0,
            complete: false,
            limits,
        };
        Arc::new(Space { state: Mutex::new(state), freed: Condvar::new() })
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves room, for `objects` more. `evict` removes what has to go: it is given its name and units, outside the
    /// lock, and returns when that is done; false where it cannot be. Blocks; `used`: see [`Index::victim`].
    ///
    /// # Errors
    /// There is no room, and nothing left that could go; or so much is wanted that all would go in vain.
    pub fn reserve(
        self: &Arc<Space>,
        units: u64,
        objects: u64,
        mut used: impl FnMut(ObjectId) -> bool,
        mut evict: impl FnMut(ObjectId, Doomed) -> bool,
    ) -> Result<Reserved, NoRoom> {
        loop {
            let mut state = self.lock();
            if state.used_with(units, objects) <= state.limit() && !state.is_crowded(objects + state.going) {
                return Ok(self.reserved(&mut state, units, objects));
            }
            if units > 0 && state.fixed_with(units, state.coming + objects) > state.limit() {
                return Err(state.no_room());
            }
            let mut victims = Vec::new();
            while victims.len() < AT_ONCE && (state.excess(units, objects) > 0 || state.is_crowded(objects)) {
                let Some((id, units)) = state.index.victim(&mut used) else { break };
                let doomed = self.doom(&mut state, units);
                victims.push((id, doomed));
            }
            if !victims.is_empty() {
                drop(state);
                // All of them: none is in the index any more.
                if victims.into_iter().fold(false, |failed, (id, doomed)| !evict(id, doomed) || failed) {
                    // Trying the next, and the next, would take all out of the index and free nothing.
                    return Err(NoRoom::Busy);
                }
                continue;
            }
            if state.excess(units, objects) > 0 || state.is_crowded(objects) || state.going == 0 {
                return Err(state.no_room());
            }
            // What others are removing will do.
            let (state, waited) = self.freed.wait_timeout(state, FREED_SOON).unwrap_or_else(PoisonError::into_inner);
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
    pub fn reserve_free(self: &Arc<Space>, units: u64, objects: u64) -> Result<Reserved, NoRoom> {
        let mut state = self.lock();
        if state.used_with(units, objects) > state.limit() {
            return Err(NoRoom::Busy);
        }
        if let Some(spare) = state.spare {
            state.spare = Some(spare.checked_sub(units).ok_or(NoRoom::Busy)?);
        }
        Ok(self.reserved(&mut state, units, objects))
    }

    fn reserved(self: &Arc<Space>, state: &mut State, units: u64, objects: u64) -> Reserved {
        state.reserved += units;
        state.coming += objects;
        Reserved { space: self.clone(), units, objects, written: 0 }
    }

    /// Units that an object had, which go once its file is closed.
    pub fn doom(self: &Arc<Space>, state: &mut State, units: u32) -> Doomed {
        state.leaving += u64::from(units);
        state.going += 1;
        Doomed { space: self.clone(), units: u64::from(units), pinned: false, back: false }
    }
}

impl Reserved {
    /// The units are those of an object in the index from now on.
    pub fn take(mut self, state: &mut State) {
        state.reserved -= std::mem::take(&mut self.units);
        state.coming -= std::mem::take(&mut self.objects);
        state.written -= std::mem::take(&mut self.written);
    }

    /// A unit of it is for a folder of objects, which stays.
    pub fn spend_on_folder(&mut self, byte: u8) {
        let mut state = self.space.lock();
        let unit = self.units.min(1);
        state.reserved -= unit;
        state.add_folder(byte);
        drop(state);
        self.units -= unit;
    }

    /// So many of the units have been written.
    pub fn wrote(&mut self, units: u64) {
        let units = units.min(self.units);
        let mut state = self.space.lock();
        state.written = state.written - self.written + units;
        drop(state);
        self.written = units;
    }

    /// The units are those of a file that cannot be removed.
    pub fn doom(mut self) -> Doomed {
        let units = std::mem::take(&mut self.units);
        let mut state = self.space.lock();
        state.reserved -= units;
        state.written -= std::mem::take(&mut self.written);
        state.pinned += units;
        drop(state);
        Doomed { space: self.space.clone(), units, pinned: true, back: false }
    }

    pub fn units(&self) -> u64 {
        self.units
    }

    /// Gives back what is above so many units.
    pub fn shrink(&mut self, units: u64) {
        let spare = self.units.saturating_sub(units);
        if spare > 0 {
            self.wrote(self.written.min(units));
            self.space.lock().reserved -= spare;
            self.units -= spare;
            self.space.freed.notify_all();
        }
    }

    /// One reservation for both.
    pub fn join(&mut self, mut other: Reserved) {
        self.units += std::mem::take(&mut other.units);
        self.objects += std::mem::take(&mut other.objects);
        self.written += std::mem::take(&mut other.written);
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if self.units > 0 || self.objects > 0 {
            let mut state = self.space.lock();
            state.reserved -= self.units;
            state.coming -= self.objects;
            state.written -= self.written;
            drop(state);
            self.space.freed.notify_all();
        }
    }
}

impl Doomed {
    /// The file is an object again after all.
    pub fn undo(mut self, state: &mut State, id: ObjectId) {
        match self.pinned {
            true => state.pinned -= self.units,
            false => {
                state.leaving -= self.units;
                state.going -= 1;
            }
        }
        self.back = true;
        state.index.insert(id, u32::try_from(self.units).unwrap_or(u32::MAX));
    }

    /// The name is gone, but somebody still reads the file, or the name cannot be removed now: nobody should wait for
    /// its room.
    pub fn pin(mut self) -> Doomed {
        if self.pinned {
            return self;
        }
        let mut state = self.space.lock();
        state.leaving -= self.units;
        state.going -= 1;
        state.pinned += self.units;
        drop(state);
        self.space.freed.notify_all();
        self.pinned = true;
        self
    }
}

impl Drop for Doomed {
    fn drop(&mut self) {
        if self.back {
            return;
        }
        let mut state = self.space.lock();
        if self.pinned {
            state.pinned -= self.units;
        } else {
            state.leaving -= self.units;
            state.going -= 1;
        }
        drop(state);
        self.space.freed.notify_all();
    }
}

#[cfg(test)]
#[path = "space_tests.rs"]
mod tests;
