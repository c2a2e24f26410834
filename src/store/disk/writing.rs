//! Storing whole objects on a disk, and what all that writes to it has in common.

use std::io::{self, IoSlice};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::disk::{Disk, Phase, SHARDS, folder, name};
use super::file::StoredFile;
use super::format::{self, Decoded, FIRST_READ, Layout, TableBuilder};
use super::health::Kind;
use super::io::Temp;
use super::pool::PoolError;
use super::space::{Doomed, NoRoom, Reserved, UNIT, units};
use super::stats::Refused;
use crate::store::key::ObjectId;
use crate::store::object::{Body, Head, Object};

/// How long the end of a response waits for the disk to have it, if the disk is not slow as a rule.
pub(super) const PROMPT: Duration = Duration::from_millis(250);

/// After a write that took longer, none is waited for during this time.
pub const SLOW_FOR: Duration = Duration::from_secs(10);

/// How long anything else that changes a file may take until nobody waits for it any more.
pub const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// Bytes of bodies that may wait to be written.
const PENDING_MAX: u64 = 64 * 1024 * 1024;

/// By so much the time of a file's change may be behind the clock.
const CLOCK_TICK_MS: i64 = 1000;

/// Taken by threads of the pool, one for each object of a shard: publishing and removing do not meet.
pub type FileLocks = [Mutex<()>; SHARDS];

/// Whether a response is still what its resource is.
pub trait Current: Fn() -> bool + Send + Sync + 'static {}
impl<F: Fn() -> bool + Send + Sync + 'static> Current for F {}

/// Why something was not written.
#[derive(Debug)]
pub enum Unwritten {
    /// It is outdated by now.
    Outdated,
    Refused(Refused),
    Io(io::Error),
}

impl From<io::Error> for Unwritten {
    fn from(e: io::Error) -> Unwritten {
        Unwritten::Io(e)
    }
}

impl Disk {
    pub(super) fn file_lock(&self, id: &ObjectId) -> MutexGuard<'_, ()> {
        self.file_locks[usize::from(id.0[0]) % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores a whole object whose body is in memory. From the call on, it is found in the place of what was there. The
    /// future is done when the file is, or when the disk takes too long: then it is still written.
    pub fn store<C: Current>(
        self: &Arc<Disk>,
        id: ObjectId,
        object: Arc<Object>,
        current: C,
    ) -> impl Future<Output = ()> + Send + use<C> {
        let disk = self.clone();
        // What is there is of before, where this is not taken.
        let removal = if self.begin_write(id, &object) { None } else { Some(self.remove(id)) };
        let job = removal.is_none().then(|| {
            let (of_job, kept) = (self.clone(), object.clone());
            self.promptly(move || {
                let written = of_job.write_whole(id, &kept, &current);
                let written = written.and_then(|()| of_job.catch_up(id, &kept, &current));
                let overtaken = of_job.end_write(id, &kept);
                if let Err(why) = written {
                    of_job.unwritten(id, why, overtaken);
                }
            })
        });
        async move {
            if let Some(removal) = removal {
                // A disk that does not get on is not waited for.
                let _ = tokio::time::timeout(PROMPT, removal).await;
            }
            if let Some(job) = job
                && let Err(PoolError::Full | PoolError::Gone) = job.await
            {
                disk.refuse(Refused::Busy);
                if !disk.end_write(id, &object) {
                    let _ = tokio::time::timeout(PROMPT, disk.remove(id)).await;
                }
            }
        }
    }

    /// Does a job for whose end a response waits, unless the disk is slow: then it goes on alone.
    pub(super) fn promptly<J: FnOnce() + Send + 'static>(
        self: &Arc<Disk>,
        job: J,
    ) -> impl Future<Output = Result<(), PoolError>> + Send + use<J> {
        let prompt = self.millis() >= self.slow_until.load(Ordering::Relaxed);
        let job = if prompt { Ok(self.pool.write(PROMPT, job)) } else { Err(self.pool.try_write(job)) };
        let disk = self.clone();
        async move {
            match job {
                Err(queued) => queued,
                Ok(written) => match written.await {
                    Err(PoolError::TimedOut) => {
                        disk.be_slow(SLOW_FOR);
                        Ok(())
                    }
                    written => written,
                },
            }
        }
    }

    /// Notes that an object is about to be written; whether there is room for it among those that are.
    fn begin_write(&self, id: ObjectId, object: &Arc<Object>) -> bool {
        let len = object.body.len();
        if !self.accepts() {
            return false;
        }
        if self.pending_bytes.fetch_add(len, Ordering::Relaxed) + len > PENDING_MAX {
            self.pending_bytes.fetch_sub(len, Ordering::Relaxed);
            self.refuse(Refused::Busy);
            return false;
        }
        let mut pending = self.shard(&id);
        let write = pending.writes.entry(id).or_default();
        if !write.object.as_ref().is_some_and(|other| is_older(&object.head, &other.head)) {
            write.object = Some(object.clone());
        }
        write.jobs += 1;
        drop(pending);
        // What is open is of before.
        self.close(&id);
        true
    }

    /// What was about to be written has been, or will not be; whether something has come after it.
    fn end_write(&self, id: ObjectId, object: &Arc<Object>) -> bool {
        self.pending_bytes.fetch_sub(object.body.len(), Ordering::Relaxed);
        let mut pending = self.shard(&id);
        let Some(write) = pending.writes.get_mut(&id) else { return false };
        let number = object.head.record.id;
        let overtaken = write.object.as_ref().is_some_and(|latest| latest.head.record.id != number);
        write.jobs -= 1;
        if write.jobs == 0 {
            pending.writes.remove(&id);
        }
        overtaken
    }

    /// Whether a later response for the same is there or about to be, or this one has been removed.
    fn is_overtaken(&self, id: &ObjectId, head: &Head) -> bool {
        if self.shard(id).writes.get(id).is_some_and(|write| head.record.id <= write.removed) {
            return true;
        }
        self.peek(id).is_some_and(|object| is_older(head, &object.head))
    }

    /// The same where what is there may not be open. With its lock held; blocks.
    fn is_overtaken_by_file(&self, id: ObjectId, head: &Head) -> bool {
        let state = self.space.lock();
        // Once it has been handed over, another process writes to it.
        let knows = state.is_complete() && matches!(self.phase(), Phase::Loading | Phase::Ready);
        if knows && state.index.get(id).is_none() {
            return false;
        }
        drop(state);
        let name = name(&id);
        let Ok(stat) = self.io.stat_name(&name) else { return false };
        // What was written before this one was asked for is of before.
        if stat.modified / 1_000_000 + CLOCK_TICK_MS < head.record.asked.as_millis() {
            return false;
        }
        let Ok(file) = self.io.open(&name) else { return false };
        let Ok((_, Ok(Decoded { head: there, .. }))) =
            self.read_head(id, &file, stat.size, FIRST_READ, self.vouching.swept())
        else {
            return false;
        };
        match there.record.id == head.record.id {
            // Validated meanwhile.
            true => head.record.facts.received < there.record.facts.received,
            false => head.is_older_than(&there),
        }
    }

    /// Whether a response may not take its place any more: the file's lock is held.
    fn is_outdated(&self, id: ObjectId, head: &Head, current: &impl Current) -> bool {
        !current() || self.is_overtaken(&id, head) || self.phase() == Phase::Closed
    }

    /// Gives what has been written the head that it has been given meanwhile.
    fn catch_up(self: &Arc<Disk>, id: ObjectId, written: &Object, current: &impl Current) -> Result<(), Unwritten> {
        let latest = self.shard(&id).writes.get(&id).and_then(|write| write.object.clone());
        match latest.map(|latest| latest.head.clone()) {
            Some(head) if head.record.id == written.head.record.id && !Arc::ptr_eq(&head, &written.head) => {
                self.freshen_blocking(id, &head, current)
            }
            _ => Ok(()),
        }
    }

    pub(super) fn write_whole(
        self: &Arc<Disk>,
        id: ObjectId,
        object: &Object,
        current: &impl Current,
    ) -> Result<(), Unwritten> {
        let Body::Memory(body) = &object.body else { return Ok(()) };
        if self.is_outdated(id, &object.head, current) {
            return Err(Unwritten::Outdated);
        }
        let layout =
            Layout::for_head(id, &object.head, self.vouching.ledger().id()).ok_or(Unwritten::Refused(Refused::Head))?;
        let len = body.len() as u64;
        let reserved = self.reserve_for(&id, layout.file_len(len))?;
        let mut table = TableBuilder::default();
        table.update(body);
        let table = table.finish();
        let (head, _) =
            format::encode(layout, &object.head, len, table.crc()).ok_or(Unwritten::Refused(Refused::Head))?;
        let table = table.encode();
        let mut parts = [IoSlice::new(&head), IoSlice::new(body), IoSlice::new(&table)];
        let reserved = match self.write_new(id, &object.head, reserved, &mut parts, current)? {
            None => return Ok(()),
            Some(reserved) => reserved,
        };
        // There is one already: that is replaced at once, by one that is whole.
        let mut parts = [IoSlice::new(&head), IoSlice::new(body), IoSlice::new(&table)];
        let temp = self.io.create(&folder(&id))?;
        self.io.pwritev_all(temp.file(), 0, &mut parts)?;
        self.publish(temp, id, &object.head, reserved, current)?;
        Ok(())
    }

    /// Writes a file where there is none of its name. Gives the room back that was reserved if there is one.
    ///
    /// A process that is killed in the middle of it leaves a file that is too short, which is a defect like another.
    fn write_new(
        self: &Arc<Disk>,
        id: ObjectId,
        head: &Head,
        reserved: Reserved,
        parts: &mut [IoSlice<'_>],
        current: &impl Current,
    ) -> Result<Option<Reserved>, Unwritten> {
        let alone = self.file_lock(&id);
        if self.is_outdated(id, head, current) {
            return Err(Unwritten::Outdated);
        }
        let name = name(&id);
        let file = match self.io.create_named(&name) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(Some(reserved)),
            Err(e) => return Err(e.into()),
        };
        if let Err(e) = self.io.pwritev_all(&file, 0, parts) {
            if self.io.unlink(&name).is_err() {
                self.remove_later(id, Some(reserved.doom()));
            }
            return Err(e.into());
        }
        drop(file);
        self.enter_index(id, reserved, Vec::new());
        drop(alone);
        self.stored(id, head, current);
        Ok(None)
    }

    /// A file has its name: it is in the index from now on. `before`: the open files that had the name.
    fn enter_index(self: &Arc<Disk>, id: ObjectId, reserved: Reserved, before: Vec<Arc<StoredFile>>) {
        let doomed = {
            let mut state = self.space.lock();
            let units = u32::try_from(reserved.units()).unwrap_or(u32::MAX);
            reserved.take(&mut state);
            state.add_folder(id.0[0]);
            state.index.insert(id, units).map(|old| self.space.doom(&mut state, old))
        };
        if let Some(doomed) = doomed {
            released(&before, doomed);
        }
        self.replaced(id);
        // A request may have opened and remembered it meanwhile.
        self.close(&id);
    }

    pub(super) fn stored(self: &Arc<Disk>, id: ObjectId, head: &Head, current: &impl Current) {
        self.stats.stored.fetch_add(1, Ordering::Relaxed);
        let removed = self.shard(&id).writes.get(&id).is_some_and(|write| head.record.id <= write.removed);
        if removed || !current() {
            // Between the last look and the file's having its name.
            self.take_out(id);
        }
    }

    /// Gives a file that is whole its name.
    pub(super) fn publish(
        self: &Arc<Disk>,
        temp: Temp,
        id: ObjectId,
        head: &Head,
        reserved: Reserved,
        current: &impl Current,
    ) -> Result<(), Unwritten> {
        let alone = self.file_lock(&id);
        if self.is_outdated(id, head, current) || self.is_overtaken_by_file(id, head) {
            return Err(Unwritten::Outdated);
        }
        let before = self.open_files(&id);
        self.io.publish(temp, &name(&id))?;
        self.enter_index(id, reserved, before);
        drop(alone);
        self.stored(id, head, current);
        Ok(())
    }

    /// Room for a further object with a file of so many bytes, and for its folder. Blocks.
    pub(super) fn reserve_for(self: &Arc<Disk>, id: &ObjectId, bytes: u64) -> Result<Reserved, Unwritten> {
        let has_folder = self.space.lock().has_folder(id.0[0]);
        let mut reserved = self.reserve(if has_folder { bytes } else { bytes.saturating_add(UNIT) }, 1)?;
        if !has_folder {
            reserved.spend_on_folder(id.0[0]);
        }
        Ok(reserved)
    }

    /// Room for a file of so many bytes, for which others have to go if need be. Blocks.
    pub(super) fn reserve(self: &Arc<Disk>, bytes: u64, objects: u64) -> Result<Reserved, Unwritten> {
        self.close_what_waits();
        // Handed over, nothing is removed any more: what is being written ends well if there is room.
        let evicts = matches!(self.phase(), Phase::Loading | Phase::Ready);
        if !evicts && self.phase() != Phase::Handed {
            return Err(Unwritten::Outdated);
        }
        let reserved = if evicts {
            let evict = |id, doomed| self.evict(id, doomed);
            self.space.reserve(units(bytes), objects, |id| self.is_used(id), evict)
        } else {
            self.space.reserve_free(units(bytes), objects)
        };
        reserved.map_err(|why| match why {
            NoRoom::Busy => Unwritten::Refused(Refused::NoRoom),
            NoRoom::Full => Unwritten::Io(io::Error::from_raw_os_error(libc::ENOSPC)),
        })
    }

    /// What was to be written is not: what is there of before must go, unless it has been `overtaken` by what is there.
    pub(super) fn unwritten(self: &Arc<Disk>, id: ObjectId, why: Unwritten, overtaken: bool) {
        // Whoever outdated it has seen to what is there.
        let outdated = matches!(why, Unwritten::Outdated);
        self.refused(&id, why);
        if !outdated && !overtaken {
            self.take_out(id);
        }
    }

    /// Counts what was not written.
    pub(super) fn refused(&self, id: &ObjectId, why: Unwritten) {
        if self.space.lock().is_small() {
            // Made, or counted as if it were, for this object.
            let _alone = self.file_lock(id);
            self.remove_folder(*id);
        }
        match why {
            Unwritten::Outdated => {}
            Unwritten::Refused(why) => self.refuse(why),
            Unwritten::Io(e) => {
                if e.raw_os_error() == Some(libc::ENOSPC) {
                    self.refuse(Refused::NoRoom);
                    self.keeper.is_full();
                } else {
                    self.refuse(Refused::Error);
                }
                self.failed(Kind::Write, &e);
            }
        }
    }
}

/// The room of a file without a name is free once all have closed it.
pub(super) fn released(open: &[Arc<StoredFile>], doomed: Doomed) {
    if !open.is_empty() {
        let doomed = Arc::new(doomed.pin());
        open.iter().for_each(|file| file.doom(&doomed));
    }
}

/// Whether another response for the same is the later one.
fn is_older(head: &Head, other: &Head) -> bool {
    head.record.id != other.record.id && head.is_older_than(other)
}

#[cfg(test)]
#[path = "writing_tests.rs"]
mod tests;
