//! What changes a disk: storing whole objects, giving them other heads, and removing them.

use std::io::{self, IoSlice};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use log::warn;

use super::disk::{Disk, PendingWrite, Phase, SHARDS, folder, name};
use super::file::{Since, StoredFile};
use super::format::{self, Defect, Layout, State, TableBuilder};
use super::health::Kind;
use super::io::{FileKind, Temp};
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

/// Removals that may be under way in a shard.
const REMOVALS_MAX: usize = 64 * 1024;

/// An object whose head has outgrown its file is written anew if its body is no longer than this, in bytes; else it is
/// removed.
const REWRITTEN_MAX: u64 = 8 * 1024 * 1024;

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

    // ---- storing

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
        if state.is_complete() && state.index.get(id).is_none() {
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
        let there = self.read_head(id, &file, stat.size).ok().flatten();
        there.is_some_and(|(there, _)| match there.record.id == head.record.id {
            // Validated meanwhile.
            true => head.record.facts.received < there.record.facts.received,
            false => head.is_older_than(&there),
        })
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

    fn write_whole(self: &Arc<Disk>, id: ObjectId, object: &Object, current: &impl Current) -> Result<(), Unwritten> {
        let Body::Memory(body) = &object.body else { return Ok(()) };
        if self.is_outdated(id, &object.head, current) {
            return Err(Unwritten::Outdated);
        }
        let layout = Layout::for_head(id, &object.head).ok_or(Unwritten::Refused(Refused::Head))?;
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

    fn stored(self: &Arc<Disk>, id: ObjectId, head: &Head, current: &impl Current) {
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

    // ---- giving another head

    /// Gives an object another head. From the call on, it has it; the future is done when the file has it too.
    pub fn freshen<C: Current>(
        self: &Arc<Disk>,
        id: ObjectId,
        head: Arc<Head>,
        current: C,
    ) -> impl Future<Output = ()> + Send + use<C> {
        self.freshen_in_memory(id, &head);
        let job = matches!(self.phase(), Phase::Standby | Phase::Loading | Phase::Ready).then(|| {
            let of_job = self.clone();
            self.promptly(move || {
                if let Err(why) = of_job.freshen_blocking(id, &head, &current) {
                    // The head that the file has is of before.
                    of_job.unwritten(id, why, false);
                }
            })
        });
        let disk = self.clone();
        async move {
            if let Some(job) = job
                && let Err(e) = job.await
            {
                disk.not_done(Kind::Write, e);
                disk.remove(id).await;
            }
        }
    }

    /// Gives another head to an object that is about to be written, or is open.
    fn freshen_in_memory(&self, id: ObjectId, head: &Arc<Head>) {
        let fresh = |object: &Object| Arc::new(Object::new(head.clone(), object.body.clone()).succeeding(object));
        if let Some(PendingWrite { object: Some(object), .. }) = self.shard(&id).writes.get_mut(&id) {
            if object.head.record.id == head.record.id {
                *object = fresh(object);
            }
            return;
        }
        if let Some(object) = self.peek(&id).filter(|object| object.head.record.id == head.record.id) {
            self.remember(id, &fresh(&object));
        }
    }

    fn freshen_blocking(
        self: &Arc<Disk>,
        id: ObjectId,
        head: &Arc<Head>,
        current: &impl Current,
    ) -> Result<(), Unwritten> {
        let alone = self.file_lock(&id);
        let file = match self.io.open_writable(&name(&id)) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        let stat = self.io.stat(&file)?;
        if stat.kind != FileKind::File {
            return Err(Unwritten::Outdated);
        }
        let Some((old, state)) = self.read_head(id, &file, stat.size)? else { return Err(Unwritten::Outdated) };
        if old.record.id != head.record.id || !current() {
            return Err(Unwritten::Outdated);
        }
        let Some(update) = format::update(&state, head) else {
            drop(alone);
            return self.rewrite(id, &file, &state, head, current);
        };
        // Not those that are opened in the middle of it: they may have the old head.
        let mut open = self.open_files(&id);
        open.retain(|open| open.inode() == stat.inode && open.since() == Since::Same);
        for write in &update.writes {
            self.io.pwrite_all(&file, write.offset, &write.bytes)?;
        }
        let stat = self.io.stat(&file)?;
        open.iter().for_each(|open| open.stamp(&stat));
        Ok(())
    }

    /// The head of a file that is open. `None`: it is damaged, which whoever reads it will find out too.
    fn read_head(&self, id: ObjectId, file: impl std::os::fd::AsFd, len: u64) -> io::Result<Option<(Head, State)>> {
        let mut bytes = vec![0; format::FIRST_READ];
        loop {
            let read = self.io.pread(&file, 0, &mut bytes)?;
            match format::decode(id, &bytes[..read], len) {
                Ok(decoded) => return Ok(Some((decoded.head, decoded.state))),
                Err(format::Undecoded::More(more)) if more > bytes.len() => bytes.resize(more, 0),
                Err(_) => return Ok(None),
            }
        }
    }

    fn rewrite(
        self: &Arc<Disk>,
        id: ObjectId,
        file: impl std::os::fd::AsFd,
        state: &State,
        head: &Arc<Head>,
        current: &impl Current,
    ) -> Result<(), Unwritten> {
        if state.body_len > REWRITTEN_MAX {
            return Err(Unwritten::Refused(Refused::Head));
        }
        let mut body = vec![0; usize::try_from(state.body_len).unwrap_or(0)];
        let read = self.io.pread(&file, state.layout.body_offset(), &mut body)?;
        let table_at = state.layout.table_offset(state.body_len);
        let mut table = vec![0; usize::try_from(state.layout.file_len(state.body_len) - table_at).unwrap_or(0)];
        let read_table = self.io.pread(&file, table_at, &mut table)?;
        let whole = read == body.len() && read_table == table.len();
        let mut built = TableBuilder::default();
        built.update(&body);
        // What is damaged must not be given checksums that fit it.
        if !whole || built.finish().encode() != table {
            return Err(Unwritten::Refused(Refused::Error));
        }
        let object = Object::new(head.clone(), Body::Memory(Bytes::from(body)));
        self.write_whole(id, &object, current)
    }

    // ---- removing

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

    fn evict(self: &Arc<Disk>, id: ObjectId, doomed: Doomed) -> bool {
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
            doomed.undo(&mut self.space.lock(), id);
        })
    }

    /// Removes a file, unless the name has been given to another meanwhile. False where it cannot be removed now.
    fn unlink(self: &Arc<Disk>, id: ObjectId, doomed: Option<Doomed>, or: impl FnOnce(Option<Doomed>)) -> bool {
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
    fn remove_folder(&self, id: ObjectId) {
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

    /// Removes a damaged file, unless it has been replaced meanwhile. Blocks; the caller has it open, so that no other has
    /// its number.
    pub(super) fn remove_damaged(self: &Arc<Disk>, id: ObjectId, inode: u64, defect: Defect) {
        let removal = {
            // What the name is of, and what the index has, change together.
            let _alone = self.file_lock(&id);
            match self.io.stat_name(&name(&id)) {
                Ok(stat) if stat.inode == inode => self.begin_removal(id),
                // Somebody else has seen to it.
                _ => return,
            }
        };
        self.stats.defect(defect);
        warn!("{}: {id} is damaged ({}): removed", self.path().display(), defect.as_str());
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

/// The room of a file without a name is free once all have closed it.
fn released(open: &[Arc<StoredFile>], doomed: Doomed) {
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
