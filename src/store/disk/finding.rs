//! Finding what is on a disk: what is open, what is about to be written, and what a file has.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::disk::{Disk, Parcel, Pending, PendingWrite, Phase, Wanted, in_index, name};
use super::file::{READ_LIMIT, Since, StoredFile};
use super::format::{self, BLOCK, Decoded, Defect, Undecoded};
use super::health::Kind;
use super::index::Walked;
use super::io::{FileKind, Stat};
use super::nanos_since_epoch;
use super::space::Doomed;
use crate::http_cache::Tiers;
use crate::store::key::ObjectId;
use crate::store::object::{Body, Head, Object};

/// Files of up to so many bytes are read whole when they are opened.
const READ_WHOLE: usize = 2 * BLOCK as usize;

/// A file that is too short may be one that is just being written, for so long.
const NEW: Duration = Duration::from_secs(2);

/// A file whose head has been read.
pub(super) struct Opened {
    pub(super) file: Arc<OwnedFd>,
    pub(super) stat: Stat,
    /// As much as has been read, from its beginning.
    pub(super) bytes: Vec<u8>,
    pub(super) decoded: Decoded,
}

/// Why a file could not be opened as an object.
pub(super) enum Unopened {
    Missing,
    Defect(Defect, Culprit),
    Io(io::Error),
}

/// The file that has a defect.
pub(super) struct Culprit {
    pub(super) inode: u64,
    /// While it is open, its number is not given to another. `None`: it cannot be opened, for what it is.
    _file: Option<Arc<OwnedFd>>,
}

impl From<io::Error> for Unopened {
    fn from(e: io::Error) -> Unopened {
        if e.kind() == io::ErrorKind::NotFound { Unopened::Missing } else { Unopened::Io(e) }
    }
}

impl Disk {
    /// The object of a name, if it is here and is what is wanted.
    pub async fn find(self: &Arc<Disk>, id: ObjectId, wanted: Wanted<'_>) -> Option<Arc<Object>> {
        {
            let pending = self.shard(&id);
            if let Some(PendingWrite { object: Some(object), .. }) = pending.writes.get(&id) {
                return Some(object.clone()).filter(|object| wanted.is(&object.head));
            }
            if pending.removals.contains_key(&id) {
                return None;
            }
        }
        if let Some(object) = self.open.get(&id)
            && let Body::Disk(file) = &object.body
        {
            match file.since() {
                Since::Same => return Some(object).filter(|object| wanted.is(&object.head)),
                Since::Changed => _ = self.open.remove(&id),
                Since::Gone => self.vanished(&id, file.inode()),
            }
        }
        if !self.may_have(&id) || !self.health.may_read() {
            return None;
        }
        let (disk, tiers) = (self.clone(), wanted.tiers);
        let asked = Instant::now();
        let opened = self.pool.read(READ_LIMIT, move || disk.open_blocking(id, tiers)).await;
        self.stats.read(asked.elapsed());
        let object = match opened {
            Ok(Ok(object)) => object,
            Ok(Err(why)) => {
                self.unopened(id, why);
                return None;
            }
            Err(e) => {
                self.not_done(Kind::Read, e);
                return None;
            }
        };
        self.health.read_ok();
        if !wanted.is(&object.head) {
            return None;
        }
        self.stats.opened.fetch_add(1, Ordering::Relaxed);
        self.touch(&id);
        self.remember(id, &object);
        Some(object)
    }

    /// The object of a name, if its file is open.
    pub fn peek(&self, id: &ObjectId) -> Option<Arc<Object>> {
        if let Some(PendingWrite { object: Some(object), .. }) = self.shard(id).writes.get(id) {
            return Some(object.clone());
        }
        self.open.peek(id)
    }

    /// Keeps an object open, for whoever asks next. What is removed meanwhile is not to be found again, and a file that
    /// is gone not to be kept open for nobody: whoever removes one closes it after that.
    pub(super) fn remember(&self, id: ObjectId, object: &Arc<Object>) {
        self.open.insert(id, object.clone());
        let gone = matches!(&object.body, Body::Disk(file) if file.since() == Since::Gone);
        if gone || self.shard(&id).removals.contains_key(&id) {
            self.open.remove(&id);
        }
    }

    /// Keeps another object open in the place of this one, if it is what is open.
    pub fn replace_open(&self, id: ObjectId, object: &Arc<Object>, other: &Arc<Object>) {
        if self.open.remove_if(&id, |there| Arc::ptr_eq(there, object)).is_some() {
            let _ = self.open.get_or_insert_with(&id, || Ok::<_, std::convert::Infallible>(other.clone()));
        }
    }

    /// Whether an object that was found is what is found still: with the same head, and nothing on its way in its place.
    pub fn has_still(&self, id: &ObjectId, object: &Arc<Object>) -> bool {
        let same = self.peek(id).is_some_and(|there| Arc::ptr_eq(&there.head, &object.head));
        same && matches!(&object.body, Body::Disk(file) if file.since() == Since::Same)
    }

    /// An object need not be kept open.
    pub fn close(&self, id: &ObjectId) {
        self.open.remove(id);
    }

    /// Objects whose files are kept open.
    pub fn open_objects(&self) -> impl Iterator<Item = (ObjectId, Arc<Object>)> + '_ {
        self.open.iter()
    }

    /// The heads of what is about to be written.
    pub fn unwritten_heads(&self) -> Vec<Arc<Head>> {
        let shards = self.pending.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner));
        let of = |shard: MutexGuard<'_, Pending>| -> Vec<_> {
            shard.writes.values().filter_map(|write| Some(write.object.as_ref()?.head.clone())).collect()
        };
        shards.flat_map(of).collect()
    }

    /// No file need be kept open.
    pub(super) fn close_all(&self) {
        self.open.clear();
    }

    /// The walk came upon a file; `None`: one that is about to be removed.
    pub(super) fn walked(&self, id: ObjectId, units: u32) -> Option<Walked> {
        let pending = self.shard(&id);
        if pending.removals.contains_key(&id) {
            return None;
        }
        Some(self.space.lock().learn(|index| index.walked(id, units)))
    }

    /// Lets the disk alone for a while. Blocks.
    pub(super) fn pause(&self, time: Duration) {
        let _ = self.keeper.wait(time);
    }

    /// Tells the index of all uses that it does not know of.
    pub(super) fn credit_hits(&self) {
        for (id, object) in self.open.iter() {
            if object.was_hit_lately() {
                self.touch(&id);
            }
        }
    }

    /// An object was asked for.
    pub fn touch(&self, id: &ObjectId) {
        self.space.lock().index.touch(*id, 1);
    }

    /// Whether an object has been asked for since this was last asked, as far as the index does not know.
    pub(super) fn is_used(&self, id: ObjectId) -> bool {
        let here = self.open.peek(&id).is_some_and(|object| object.was_hit_lately());
        let elsewhere = self.used_elsewhere.get().is_some_and(|used| used(id));
        here || elsewhere
    }

    /// Whether there may be something under a name, or is about to be.
    pub fn may_hold(&self, id: &ObjectId) -> bool {
        self.shard(id).writes.contains_key(id) || self.phase() == Phase::Away || self.may_have(id)
    }

    /// Whether it makes sense to look.
    fn may_have(&self, id: &ObjectId) -> bool {
        match self.phase() {
            Phase::Away => false,
            _ if !self.vouching.is_known() => false,
            Phase::Standby => true,
            _ => {
                let state = self.space.lock();
                !state.is_complete() || state.index.get(*id).is_some()
            }
        }
    }

    fn open_blocking(self: &Arc<Disk>, id: ObjectId, tiers: Tiers) -> Result<Arc<Object>, Unopened> {
        let mut tried = false;
        loop {
            match self.open_once(id, tiers) {
                // It may have been in the middle of being given another head.
                Err(Unopened::Defect(Defect::Checksum, _)) if !tried => tried = true,
                Err(Unopened::Defect(defect, culprit)) => {
                    // Before anybody is told: who looks again, or stores anew, finds nothing.
                    self.remove_file(id, culprit.inode, Some(defect));
                    return Err(Unopened::Defect(defect, culprit));
                }
                opened => return opened,
            }
        }
    }

    fn open_once(self: &Arc<Disk>, id: ObjectId, tiers: Tiers) -> Result<Arc<Object>, Unopened> {
        let Opened { file, stat, bytes, decoded } = self.open_head(id, READ_WHOLE)?;
        let defect = |defect| Unopened::Defect(defect, Culprit { inode: stat.inode, _file: Some(file.clone()) });
        let stored = StoredFile::new(self, file.clone(), decoded.state, &stat);
        if stat.size == bytes.len() as u64 {
            stored.check_whole(&bytes).map_err(defect)?;
        } else if !stored.has_its_table()? {
            return Err(defect(Defect::Checksum));
        }
        let stored = self.opened(id, stored);
        let mut head = decoded.head;
        head.record.tiers = tiers;
        self.correct(id, Some(stat.size));
        Ok(Arc::new(Object::new(Arc::new(head), Body::Disk(stored))))
    }

    /// Opens an object's file and reads its head, with at least `first` bytes if there are that many. Blocks.
    pub(super) fn open_head(&self, id: ObjectId, first: usize) -> Result<Opened, Unopened> {
        // Before: what has been compared since may have been removed, and be open here.
        let swept = self.vouching.swept();
        let file = match self.io.open(&name(&id)) {
            Ok(file) => Arc::new(file),
            // What cannot be opened for what it is, like a link, is no error of the disk.
            Err(e) => match self.io.stat_name(&name(&id)) {
                Ok(stat) if stat.kind != FileKind::File => {
                    return Err(Unopened::Defect(Defect::Magic, Culprit { inode: stat.inode, _file: None }));
                }
                _ => return Err(e.into()),
            },
        };
        let stat = self.io.stat(&file)?;
        let defect = |defect| Unopened::Defect(defect, Culprit { inode: stat.inode, _file: Some(file.clone()) });
        if stat.kind != FileKind::File {
            return Err(defect(Defect::Magic));
        }
        let (bytes, decoded) = self.read_head(id, &file, stat.size, first, swept)?;
        match decoded {
            Ok(decoded) => Ok(Opened { file: file.clone(), stat, bytes, decoded }),
            // Another process that uses the disk too, until it has handed it over, may be about to write it.
            Err(Defect::Length) if self.phase() < Phase::Ready && is_new(&stat) => Err(Unopened::Missing),
            Err(what) => Err(defect(what)),
        }
    }

    /// Reads the head of an open file of so many bytes, and at least `first` of them if there are that many: what was
    /// read, and what it says. `swept`: what the disk had been compared with before the file was opened. Blocks.
    pub(super) fn read_head(
        &self,
        id: ObjectId,
        file: impl AsFd,
        len: u64,
        first: usize,
        swept: u64,
    ) -> io::Result<(Vec<u8>, Result<Decoded, Defect>)> {
        let mut wanted = usize::try_from(len).unwrap_or(usize::MAX).min(first);
        loop {
            let mut bytes = vec![0; wanted];
            let read = self.io.pread(&file, 0, &mut bytes)?;
            bytes.truncate(read);
            match format::decode(id, &bytes, len) {
                Err(Undecoded::More(more)) if more > wanted => wanted = more,
                // It has become shorter meanwhile.
                Err(Undecoded::More(_)) => return Ok((bytes, Err(Defect::Length))),
                Err(Undecoded::Defect(defect)) => return Ok((bytes, Err(defect))),
                Ok(mut decoded) => {
                    self.vouch(&mut decoded, swept);
                    return Ok((bytes, Ok(decoded)));
                }
            }
        }
    }

    /// Notes that a file is open.
    pub(super) fn opened(&self, id: ObjectId, file: StoredFile) -> Arc<StoredFile> {
        let file = Arc::new(file);
        self.live(&id).entry(id).or_default().push(Arc::downgrade(&file));
        file
    }

    /// A file was found of which the index knows nothing, as the walk has yet to come upon it, or another size, as
    /// somebody has put it there; or it was not found. If that still holds when nobody changes it, the index is
    /// corrected: what was opened may have been replaced or removed since.
    fn correct(self: &Arc<Disk>, id: ObjectId, found: Option<u64>) {
        let known = self.space.lock().index.get(id);
        if found.map(in_index) == known || !matches!(self.phase(), Phase::Loading | Phase::Ready) {
            return;
        }
        let disk = self.clone();
        // Where the queue is full, the next who asks for it sees to it.
        let _ = self.pool.try_write(move || {
            let _alone = disk.file_lock(&id);
            let there = match disk.io.stat_name(&name(&id)) {
                Ok(stat) => Some(in_index(stat.size)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => None,
                Err(_) => return,
            };
            let pending = disk.shard(&id);
            let mut state = disk.space.lock();
            match (there, state.index.get(id)) {
                (None, Some(_)) => _ = state.index.remove(id),
                (Some(units), Some(known)) if units != known => _ = state.index.resize(id, units),
                // Once all is known, and while something is being evicted, it may be what is about to go.
                (Some(units), None)
                    if !state.is_complete() && !state.is_removing() && !pending.removals.contains_key(&id) =>
                {
                    state.add_folder(id.0[0]);
                    state.learn(|index| index.insert(id, units));
                }
                _ => {}
            }
        });
    }

    fn unopened(self: &Arc<Disk>, id: ObjectId, why: Unopened) {
        match why {
            Unopened::Missing => self.correct(id, None),
            // That is removed already.
            Unopened::Defect(..) => {}
            Unopened::Io(e) => self.failed(Kind::Read, &e),
        }
    }

    /// The file of an object has been removed by somebody else.
    fn vanished(&self, id: &ObjectId, inode: u64) {
        self.open.remove_if(id, |object| matches!(&object.body, Body::Disk(file) if file.inode() == inode));
    }

    /// An open file has turned out to be damaged: nobody finds it any more. Does not wait.
    pub fn condemn(self: &Arc<Disk>, file: &Arc<StoredFile>, defect: Defect) {
        self.dispose_of(file, Some(defect));
    }

    /// An open file has been purged: it makes room. Does not wait.
    pub fn discard(self: &Arc<Disk>, file: &Arc<StoredFile>) {
        self.dispose_of(file, None);
    }

    fn dispose_of(self: &Arc<Disk>, file: &Arc<StoredFile>, defect: Option<Defect>) {
        let (id, inode) = (file.id(), file.inode());
        // The ledger sees to it that what has been purged is not used; hidden, what comes in its place would be too.
        let hidden = defect.is_some();
        if hidden {
            self.hide(id);
        }
        self.vanished(&id, inode);
        let (disk, held) = (self.clone(), file.clone());
        let job = move || {
            disk.remove_file(id, inode, defect);
            if hidden {
                disk.ended_removal(id);
            }
            drop(held);
        };
        if self.pool.try_write(job).is_err() && hidden {
            self.ended_removal(id);
        }
    }

    /// A file is closed. One that has been removed is freed by that, which takes its time.
    pub(super) fn closed(&self, id: &ObjectId, file: Arc<OwnedFd>, doomed: Option<Arc<Doomed>>) {
        let mut live = self.live(id);
        if let Some(files) = live.get_mut(id) {
            files.retain(|file| file.strong_count() > 0);
            if files.is_empty() {
                live.remove(id);
            }
        }
        drop(live);
        let Some(doomed) = doomed else { return };
        // This may be called with any lock held, by a worker: neither the file nor its room is let go of here.
        let parcel: Parcel = Arc::new(Mutex::new(Some((file, doomed))));
        let of_job = parcel.clone();
        let job = move || drop(of_job.lock().unwrap_or_else(PoisonError::into_inner).take());
        if self.pool.try_write(job).is_err() {
            self.closing.lock().unwrap_or_else(PoisonError::into_inner).push(parcel);
        }
    }

    /// Closes what the pool had no time for. Blocks.
    pub(super) fn close_what_waits(&self) {
        let waiting = std::mem::take(&mut *self.closing.lock().unwrap_or_else(PoisonError::into_inner));
        drop(waiting);
    }

    /// The open files of an object, of which the latest may be about to lose its name.
    pub(super) fn open_files(&self, id: &ObjectId) -> Vec<Arc<StoredFile>> {
        self.live(id).get(id).into_iter().flatten().filter_map(Weak::upgrade).collect()
    }
}

/// Whether a file has been written to in the last seconds.
fn is_new(stat: &Stat) -> bool {
    let age = i128::from(nanos_since_epoch()) - i128::from(stat.modified);
    (0..NEW.as_nanos() as i128).contains(&age)
}
