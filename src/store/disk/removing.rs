//! Removing objects from a disk: for others, for what is invalid, and for damage.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use log::warn;

use super::disk::{Disk, Phase, folder, name};
use super::file::Since;
use super::format::Defect;
use super::health::Kind;
use super::pool::PoolError;
use super::space::Doomed;
use super::writing::{WRITE_LIMIT, released};
use crate::store::key::ObjectId;

/// Removals that may be under way in a shard.
const REMOVALS_MAX: usize = 64 * 1024;

impl Disk {
    /// Removes an object. From the call on, nobody finds it; the future is done when its file is gone, and says whether
    /// there was one as far as was known.
    pub fn remove(self: &Arc<Disk>, id: ObjectId) -> impl Future<Output = bool> + Send + use<> {
        let unwritten = self.forget_write(id);
        let removal = self.begin_removal(id).map(|doomed| {
            let (of_job, was) = (self.clone(), doomed.is_some());
            (self.pool.write(WRITE_LIMIT, move || of_job.end_removal(id, doomed)), was)
        });
        let disk = self.clone();
        async move {
            let Some((removed, was)) = removal else { return unwritten };
            if let Err(e @ (PoolError::Full | PoolError::Gone)) = removed.await {
                disk.not_done(Kind::Remove, e);
                disk.remove_later(id, None);
                disk.ended_removal(id);
            }
            was || unwritten
        }
    }

    /// What is about to be written is not to be found, nor to be there when it has been; whether there was something.
    fn forget_write(&self, id: ObjectId) -> bool {
        let mut pending = self.shard(&id);
        let Some(write) = pending.writes.get_mut(&id) else { return false };
        let Some(object) = write.object.take() else { return false };
        write.removed = write.removed.max(object.head.record.id);
        true
    }

    /// Takes an object that is there out of sight; `None`: it is not there.
    fn begin_removal(self: &Arc<Disk>, id: ObjectId) -> Option<Option<Doomed>> {
        self.close(&id);
        if matches!(self.phase(), Phase::Away | Phase::Closed) {
            return None;
        }
        let mut pending = self.shard(&id);
        let mut state = self.space.lock();
        let known = state.index.remove(id);
        // What is about to be evicted comes back where its file cannot be removed.
        if known.is_none() && state.is_complete() && !state.is_removing() {
            return None;
        }
        let doomed = known.map(|units| self.space.doom(&mut state, units));
        drop(state);
        if pending.removals.len() < REMOVALS_MAX {
            *pending.removals.entry(id).or_insert(0) += 1;
        }
        Some(doomed)
    }

    fn end_removal(self: &Arc<Disk>, id: ObjectId, doomed: Option<Doomed>) {
        // It takes room all the same, until it can be removed.
        self.unlink(id, doomed, |doomed| self.remove_later(id, doomed.map(Doomed::pin)));
        self.ended_removal(id);
    }

    pub(super) fn ended_removal(&self, id: ObjectId) {
        let mut pending = self.shard(&id);
        if let Some(count) = pending.removals.get_mut(&id) {
            *count -= 1;
            if *count == 0 {
                pending.removals.remove(&id);
            }
        }
    }

    /// As [`Disk::remove`], where that may block.
    pub(super) fn take_out(self: &Arc<Disk>, id: ObjectId) {
        if let Some(doomed) = self.begin_removal(id) {
            self.end_removal(id, doomed);
        }
    }

    pub(super) fn evict(self: &Arc<Disk>, id: ObjectId, doomed: Doomed) -> bool {
        self.stats.evictions.fetch_add(1, Ordering::Relaxed);
        self.close(&id);
        // What cannot go may as well stay in use, and counts as before.
        self.unlink(id, Some(doomed), |doomed| {
            let Some(doomed) = doomed else { return };
            let pending = self.shard(&id);
            if pending.removals.contains_key(&id) {
                drop(pending);
                return self.remove_later(id, Some(doomed.pin()));
            }
            self.keeper.put_back.store(true, Ordering::Relaxed);
            doomed.undo(&mut self.space.lock(), id);
        })
    }

    /// Removes a file, unless the name has been given to another meanwhile. False where it cannot be removed now.
    pub(super) fn unlink(
        self: &Arc<Disk>,
        id: ObjectId,
        doomed: Option<Doomed>,
        or: impl FnOnce(Option<Doomed>),
    ) -> bool {
        let alone = self.file_lock(&id);
        let mut before = self.open_files(&id);
        let replaced = self.space.lock().index.get(id).is_some();
        match if replaced { Ok(()) } else { self.io.unlink(&name(&id)) } {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                or(doomed);
                drop(alone);
                self.failed(Kind::Remove, &e);
                return false;
            }
            _ => {}
        }
        if !replaced && self.space.lock().is_small() {
            self.remove_folder(id);
        }
        drop(alone);
        before.retain(|file| !replaced || file.since() == Since::Gone);
        if let Some(doomed) = doomed {
            released(&before, doomed);
        }
        // A request may have opened and remembered it meanwhile.
        self.close(&id);
        true
    }

    /// Removes the folder of an object, if that has become empty. Whoever needs it makes it again.
    pub(super) fn remove_folder(&self, id: ObjectId) {
        match self.io.rmdir(&folder(&id)) {
            Ok(()) => self.space.lock().remove_folder(id.0[0]),
            Err(e) if e.kind() == io::ErrorKind::NotFound => self.space.lock().remove_folder(id.0[0]),
            Err(_) => {}
        }
    }

    /// Nobody finds an object until [`Disk::ended_removal`].
    pub(super) fn hide(&self, id: ObjectId) {
        *self.shard(&id).removals.entry(id).or_insert(0) += 1;
    }

    /// Removes a file that has a defect, or that has been purged, unless it has been replaced meanwhile. Blocks; the caller
    /// has it open, so that no other has its number.
    pub(super) fn remove_file(self: &Arc<Disk>, id: ObjectId, inode: u64, defect: Option<Defect>) {
        let removal = {
            // What the name is of, and what the index has, change together.
            let _alone = self.file_lock(&id);
            match self.io.stat_name(&name(&id)) {
                Ok(stat) if stat.inode == inode => self.begin_removal(id),
                // Somebody else has seen to it.
                _ => return,
            }
        };
        match defect {
            Some(defect) => {
                self.stats.defect(defect);
                warn!("{}: {id} is damaged ({}): removed", self.path().display(), defect.as_str());
            }
            None => _ = self.stats.purged.fetch_add(1, Ordering::Relaxed),
        }
        if let Some(doomed) = removal {
            self.end_removal(id, doomed);
        }
    }

    /// What could not be removed before. Blocks; whether it could now.
    pub(super) fn remove_again(self: &Arc<Disk>, id: ObjectId) -> bool {
        let _alone = self.file_lock(&id);
        if self.space.lock().index.get(id).is_some() {
            return true;
        }
        !matches!(self.io.unlink(&name(&id)), Err(e) if e.kind() != io::ErrorKind::NotFound)
    }
}
