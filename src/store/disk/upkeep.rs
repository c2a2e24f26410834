//! What is seen to on a disk once a second: its room, its health, and what could not be removed before.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::path::Path;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Instant;

use log::warn;

use super::disk::{Disk, Phase};
use super::health::Kind;
use super::space::{Doomed, UNIT};
use super::stock::PAGE;
use crate::store::key::ObjectId;

/// Objects that could not be removed and are tried again, at most.
const LATER_MAX: usize = 1_000_000;

/// What could not be removed.
#[derive(Default)]
pub(super) struct Later {
    /// With their room, where that was known.
    pub(super) ids: HashMap<ObjectId, Option<Doomed>>,
    /// Those of them that may never have been there.
    pub(super) new: Vec<ObjectId>,
    /// Those that are just being tried again.
    in_hand: usize,
    /// There have been too many.
    pub(super) crowded: bool,
}

impl Later {
    /// All that was to be removed is gone.
    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.in_hand == 0 && !self.crowded
    }
}

impl Disk {
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
    pub(super) fn squeeze(self: &Arc<Disk>) {
        self.measure();
        {
            let mut state = self.space.lock();
            let used = state.used();
            let limits = state.limits_mut();
            limits.ceiling = limits.ceiling.min(used - used / 50);
        }
        self.make_way();
        // That was once: whoever stores later may have the room that there is by then.
        self.measure();
    }

    /// Sees that no more is held than may be, when that has become less.
    pub(super) fn make_way(self: &Arc<Disk>) {
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
        let name = Path::new("probe");
        self.io.replace(name, &PROBE)?;
        match self.io.unlink(name) {
            // The process that hands the disk over has its probes too.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            unlinked => unlinked,
        }
    }

    fn try_to_read(&self) -> io::Result<()> {
        let file = match self.io.open(Path::new(super::stock::STATE)) {
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
        let mut later = self.later();
        let crowded = later.ids.len() >= LATER_MAX;
        match later.ids.entry(id) {
            Entry::Occupied(mut entry) => {
                // The name can have had only one file since.
                if doomed.is_some() {
                    *entry.get_mut() = doomed;
                }
            }
            Entry::Vacant(_) if crowded => {
                if !std::mem::replace(&mut later.crowded, true) {
                    warn!("{}: {LATER_MAX} objects cannot be removed: no more are tried again", self.path().display());
                }
            }
            Entry::Vacant(entry) => {
                entry.insert(doomed);
                later.new.push(id);
                drop(later);
                self.hide(id);
            }
        }
    }

    /// What could not be removed has been replaced: that need not be hidden any longer.
    pub(super) fn replaced(&self, id: ObjectId) {
        let gone = self.later().ids.remove(&id);
        if gone.is_some() {
            self.ended_removal(id);
        }
    }

    pub(super) fn remove_what_is_left(self: &Arc<Disk>) {
        self.forget_missing();
        let ids: Vec<_> = self.later().ids.keys().copied().take(PAGE).collect();
        for id in ids {
            if !self.health.may_write() {
                return;
            }
            if !self.retry(id, || self.remove_again(id)) {
                return;
            }
        }
    }

    /// Much of what could not be removed has never been there, which a disk that is read-only does not say when it is
    /// asked to remove it.
    fn forget_missing(&self) {
        let new = std::mem::take(&mut self.later().new);
        for id in new {
            self.retry(id, || {
                let _alone = self.file_lock(&id);
                matches!(self.io.stat_name(&super::disk::name(&id)), Err(e) if e.kind() == io::ErrorKind::NotFound)
            });
        }
    }

    /// Tries what ends a removal that is left; whether it has ended.
    fn retry(&self, id: ObjectId, end: impl FnOnce() -> bool) -> bool {
        let doomed = {
            let mut later = self.later();
            let Some(doomed) = later.ids.remove(&id) else { return true };
            later.in_hand += 1;
            doomed
        };
        let ended = end();
        let mut later = self.later();
        later.in_hand -= 1;
        if !ended {
            // What has come to be left meanwhile is of a later file.
            let entry = later.ids.entry(id);
            let merged = matches!(entry, Entry::Occupied(_));
            let kept = entry.or_default();
            if kept.is_none() {
                *kept = doomed;
            }
            drop(later);
            if merged {
                self.ended_removal(id);
            }
            return false;
        }
        drop(later);
        drop(doomed);
        self.ended_removal(id);
        true
    }

    pub(super) fn later(&self) -> MutexGuard<'_, Later> {
        self.keeper.later.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
