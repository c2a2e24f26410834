//! What changes a disk: storing whole objects, giving them other heads, and removing them.

use std::io::{self, IoSlice};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::disk::{Disk, Phase, SHARDS, folder, name};
use super::file::StoredFile;
use super::format::{self, Layout, State, TableBuilder};
use super::health::Kind;
use super::io::Temp;
use super::pool::PoolError;
use super::space::{Doomed, NoRoom, Reserved, units};
use super::stats::Refused;
use crate::store::key::ObjectId;
use crate::store::object::{Body, Head, Object};

/// How long the end of a response waits for the disk to have it, if the disk is not slow as a rule.
const PROMPT: Duration = Duration::from_millis(250);

/// After a write that took longer, none is waited for during this time.
const SLOW_FOR: Duration = Duration::from_secs(10);

/// How long anything else that changes a file may take until nobody waits for it any more.
pub const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// Bytes of bodies that may wait to be written.
const PENDING_MAX: u64 = 64 * 1024 * 1024;

/// Removals that may be under way in a shard.
const REMOVALS_MAX: usize = 64 * 1024;

/// An object whose head has outgrown its file is written anew if its body is no longer than this, in bytes; else it is
/// removed.
const REWRITTEN_MAX: u64 = 8 * 1024 * 1024;

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
    fn file_lock(&self, id: &ObjectId) -> MutexGuard<'_, ()> {
        self.file_locks[usize::from(id.0[0]) % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- storing

    /// Stores a whole object whose body is in memory. From the call on, it is found in the place of what was there. The
    /// future is done when the file is, or when the disk takes too long: then it is still written.
    pub fn store<C: Current>(self: &Arc<Disk>, id: ObjectId, object: Arc<Object>, current: C) -> impl Future<Output = ()> + Send + use<C> {
        let disk = self.clone();
        let accepted = self.begin_write(id, &object);
        let prompt = self.millis() >= self.slow_until.load(Ordering::Relaxed);
        let removal = if accepted { None } else { Some(self.remove(id)) };
        async move {
            if let Some(removal) = removal {
                // What is there is of before.
                removal.await;
                return;
            }
            let (of_job, kept) = (disk.clone(), object.clone());
            let job = move || {
                let written = of_job.write_whole(id, &kept, &current);
                of_job.end_write(id, &kept);
                if let Err(why) = written {
                    of_job.unwritten(id, why);
                }
            };
            if !prompt {
                if disk.pool.try_write(job).is_err() {
                    disk.not_queued(id, &object).await;
                }
                return;
            }
            match disk.pool.write(PROMPT, job).await {
                Ok(()) => {}
                Err(PoolError::TimedOut) => disk.be_slow(SLOW_FOR),
                Err(PoolError::Full | PoolError::Gone) => disk.not_queued(id, &object).await,
            }
        }
    }

    async fn not_queued(self: &Arc<Disk>, id: ObjectId, object: &Arc<Object>) {
        self.end_write(id, object);
        self.refuse(Refused::Busy);
        self.remove(id).await;
    }

    /// Notes that an object is about to be written; whether there is room for it among those that are.
    fn begin_write(&self, id: ObjectId, object: &Arc<Object>) -> bool {
        let len = object.body.len();
        if !self.admits() {
            return false;
        }
        if self.pending_bytes.fetch_add(len, Ordering::Relaxed) + len > PENDING_MAX {
            self.pending_bytes.fetch_sub(len, Ordering::Relaxed);
            self.refuse(Refused::Busy);
            return false;
        }
        let mut pending = self.shard(&id);
        let entry = pending.writes.entry(id).or_insert_with(|| (object.clone(), 0));
        entry.0 = object.clone();
        entry.1 += 1;
        drop(pending);
        // What is open is of before.
        self.close(&id);
        true
    }

    fn end_write(&self, id: ObjectId, object: &Arc<Object>) {
        self.pending_bytes.fetch_sub(object.body.len(), Ordering::Relaxed);
        let mut pending = self.shard(&id);
        if let Some(entry) = pending.writes.get_mut(&id) {
            entry.1 -= 1;
            if entry.1 == 0 {
                pending.writes.remove(&id);
            }
        }
    }

    /// Whether a later response for the same is about to be written.
    fn is_overtaken(&self, id: &ObjectId, number: u64) -> bool {
        self.peek(id).is_some_and(|object| object.head.record.id > number)
    }

    fn write_whole(self: &Arc<Disk>, id: ObjectId, object: &Object, current: &impl Current) -> Result<(), Unwritten> {
        let Body::Memory(body) = &object.body else { return Ok(()) };
        if !current() || self.is_overtaken(&id, object.head.record.id) {
            return Err(Unwritten::Outdated);
        }
        let layout = Layout::for_head(id, &object.head).ok_or(Unwritten::Refused(Refused::Head))?;
        let len = body.len() as u64;
        let reserved = self.reserve(layout.file_len(len), 1)?;
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
        if !current() || self.is_overtaken(&id, head.record.id) || self.phase() == Phase::Closed {
            return Err(Unwritten::Outdated);
        }
        let name = name(&id);
        let file = match self.io.create_named(&name) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(Some(reserved)),
            Err(e) => return Err(e.into()),
        };
        if let Err(e) = self.io.pwritev_all(&file, 0, parts) {
            let _ = self.io.unlink(&name);
            return Err(e.into());
        }
        drop(file);
        self.enter_index(id, reserved, None);
        drop(alone);
        self.stored(id, current);
        Ok(None)
    }

    /// A file has its name: it is in the index from now on. `before`: the open file that had the name.
    fn enter_index(self: &Arc<Disk>, id: ObjectId, reserved: Reserved, before: Option<Arc<StoredFile>>) {
        let doomed = {
            let mut state = self.space.lock();
            let units = u32::try_from(reserved.units()).unwrap_or(u32::MAX);
            reserved.take(&mut state);
            state.index.insert(id, units).map(|old| self.space.doom(&mut state, old))
        };
        if let Some(doomed) = doomed {
            released(before, doomed);
        }
    }

    fn stored(self: &Arc<Disk>, id: ObjectId, current: &impl Current) {
        self.stats.stored.fetch_add(1, Ordering::Relaxed);
        if !current() {
            // Invalidated between the last look and the file's having its name.
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
        if !current() || self.is_overtaken(&id, head.record.id) || self.phase() == Phase::Closed {
            return Err(Unwritten::Outdated);
        }
        let before = self.open_file(&id);
        self.io.publish(temp, &name(&id))?;
        self.enter_index(id, reserved, before);
        drop(alone);
        self.stored(id, current);
        Ok(())
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
            self.space.reserve_free(units(bytes))
        };
        reserved.map_err(|why| match why {
            NoRoom::Busy => Unwritten::Refused(Refused::NoRoom),
            NoRoom::Full => {
                self.refuse(Refused::NoRoom);
                Unwritten::Io(io::Error::from_raw_os_error(libc::ENOSPC))
            }
        })
    }

    /// What was to be written is not: what is there of before must go.
    pub(super) fn unwritten(self: &Arc<Disk>, id: ObjectId, why: Unwritten) {
        match why {
            // Whoever outdated it has seen to what is there.
            Unwritten::Outdated => return,
            Unwritten::Refused(why) => self.refuse(why),
            Unwritten::Io(e) => {
                self.refuse(Refused::Error);
                if e.raw_os_error() == Some(libc::ENOSPC) {
                    self.keeper.is_full();
                }
                self.failed(Kind::Write, &e);
            }
        }
        self.take_out(id);
    }

    // ---- giving another head

    /// Gives an object another head. From the call on, it has it; the future is done when the file has it too.
    pub fn freshen<C: Current>(self: &Arc<Disk>, id: ObjectId, head: Arc<Head>, current: C) -> impl Future<Output = ()> + Send + use<C> {
        if let Some(object) = self.peek(&id)
            && object.head.record.id == head.record.id
            && let Body::Disk(_) = &object.body
        {
            let fresh = Arc::new(Object::new(head.clone(), object.body.clone()).succeeding(&object));
            self.remember(id, &fresh);
        }
        let disk = self.clone();
        async move {
            if !matches!(disk.phase(), Phase::Standby | Phase::Loading | Phase::Ready) {
                return;
            }
            let of_job = disk.clone();
            let job = move || match of_job.freshen_blocking(id, &head, &current) {
                Ok(()) | Err(Unwritten::Outdated) => {}
                // The head that the file has is of before.
                Err(why) => of_job.unwritten(id, why),
            };
            if let Err(e @ (PoolError::Full | PoolError::Gone)) = disk.pool.write(PROMPT, job).await {
                disk.not_done(Kind::Write, e);
                disk.remove(id).await;
            }
        }
    }

    fn freshen_blocking(self: &Arc<Disk>, id: ObjectId, head: &Arc<Head>, current: &impl Current) -> Result<(), Unwritten> {
        let alone = self.file_lock(&id);
        let file = match self.io.open_writable(&name(&id)) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        let stat = self.io.stat(&file)?;
        let Some((old, state)) = self.read_head(id, &file, stat.size)? else { return Err(Unwritten::Outdated) };
        if old.record.id != head.record.id || !current() {
            return Err(Unwritten::Outdated);
        }
        let Some(update) = format::update(&state, head) else {
            drop(alone);
            return self.rewrite(id, &file, &state, head, current);
        };
        for write in &update.writes {
            self.io.pwrite_all(&file, write.offset, &write.bytes)?;
        }
        if let Some(open) = self.open_file(&id).filter(|open| open.inode() == stat.inode) {
            open.stamp(&self.io.stat(&file)?);
        }
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
        self.write_whole(id, &object, current)?;
        self.close(&id);
        Ok(())
    }

    // ---- removing

    /// Removes an object. From the call on, nobody finds it; the future is done when its file is gone, and says whether
    /// there was one as far as was known.
    pub fn remove(self: &Arc<Disk>, id: ObjectId) -> impl Future<Output = bool> + Send + use<> {
        let removal = self.begin_removal(id);
        let disk = self.clone();
        async move {
            let Some(doomed) = removal else { return false };
            let was = doomed.is_some();
            let of_job = disk.clone();
            let job = move || of_job.end_removal(id, doomed);
            if let Err(e @ (PoolError::Full | PoolError::Gone)) = disk.pool.write(WRITE_LIMIT, job).await {
                disk.not_done(Kind::Remove, e);
                disk.remove_later(id);
            }
            was
        }
    }

    /// Takes an object out of sight; `None`: it is not there.
    fn begin_removal(self: &Arc<Disk>, id: ObjectId) -> Option<Option<Doomed>> {
        self.close(&id);
        if matches!(self.phase(), Phase::Away | Phase::Closed) {
            return None;
        }
        let mut pending = self.shard(&id);
        let mut state = self.space.lock();
        let known = state.index.remove(id);
        if known.is_none() && state.is_complete() {
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
        self.unlink(id, doomed, Kind::Remove);
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

    fn evict(self: &Arc<Disk>, id: ObjectId, doomed: Doomed) {
        self.stats.evictions.fetch_add(1, Ordering::Relaxed);
        self.close(&id);
        self.unlink(id, Some(doomed), Kind::Remove);
    }

    /// Removes a file, unless the name has been given to another meanwhile.
    fn unlink(self: &Arc<Disk>, id: ObjectId, doomed: Option<Doomed>, kind: Kind) {
        let alone = self.file_lock(&id);
        let before = self.open_file(&id);
        if self.space.lock().index.get(id).is_some() {
            return;
        }
        match self.io.unlink(&name(&id)) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => {
                drop(alone);
                self.failed(kind, &e);
                self.remove_later(id);
                return;
            }
        }
        drop(alone);
        if let Some(doomed) = doomed {
            released(before, doomed);
        }
    }

    /// Removes a damaged file, unless it has been replaced meanwhile. Does not wait.
    pub(super) fn remove_inode(self: &Arc<Disk>, id: ObjectId, inode: u64) {
        let disk = self.clone();
        let job = move || match disk.io.stat_name(&name(&id)) {
            Ok(stat) if stat.inode == inode => disk.take_out(id),
            _ => {}
        };
        if self.pool.try_write(job).is_err() {
            self.remove_later(id);
        }
    }

    /// What could not be removed before. Blocks; whether it could now.
    pub(super) fn remove_again(self: &Arc<Disk>, id: ObjectId) -> bool {
        let _alone = self.file_lock(&id);
        if self.space.lock().index.get(id).is_some() {
            return true;
        }
        match self.io.unlink(&name(&id)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => false,
            _ => true,
        }
    }
}

/// The room of a file without a name is free once it is closed.
fn released(open: Option<Arc<StoredFile>>, doomed: Doomed) {
    if let Some(file) = open {
        file.doom(doomed);
    }
}
