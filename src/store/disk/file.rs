//! A stored body that is on the disk: read and checked block by block, in place where the page cache has it.
//!
//! Each block's checksum is looked at once for each time that the file is opened, and again if the file has been touched
//! since: its times of change say so. Then the kernel may send the block without anybody looking.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use pingora::{Error, ErrorType, Result};

use super::Disk;
use super::format::{BLOCK, Defect, State, check_block};
use super::health::Kind;
use super::io::{NowaitRead, Stat};
use super::pool::PoolError;
use super::residency::Residency;
use super::space::Doomed;
use crate::store::key::ObjectId;

/// What is sent by the kernel at once, in bytes: a worker serves somebody else then.
const WINDOW: u64 = 1024 * 1024;

/// Blocks that are checked by the worker itself, if the page cache has them.
const IN_PLACE: u64 = 2;

/// How long a read may take. A disk that needs longer is taken for dead.
pub const READ_LIMIT: Duration = Duration::from_secs(5);

/// The file of a stored object, open.
pub struct StoredFile {
    disk: Arc<Disk>,
    file: Arc<OwnedFd>,
    state: State,
    inode: u64,
    /// When the file was last changed, as far as this process knows, in nanoseconds.
    modified: AtomicI64,
    changed: AtomicI64,
    /// A bit for each block that has been checked.
    checked: Box<[AtomicU64]>,
    /// Once the file has been removed: its room, until all who have it open have closed it.
    doomed: OnceLock<Arc<Doomed>>,
}

/// How a file is since it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    Same,
    /// Somebody has written to it.
    Changed,
    /// It has been removed.
    Gone,
}

impl StoredFile {
    pub fn new(disk: &Arc<Disk>, file: Arc<OwnedFd>, state: State, stat: &Stat) -> StoredFile {
        let blocks = state.body_len.div_ceil(BLOCK).div_ceil(64);
        StoredFile {
            disk: disk.clone(),
            file,
            state,
            inode: stat.inode,
            modified: AtomicI64::new(stat.modified),
            changed: AtomicI64::new(stat.changed),
            checked: (0..blocks).map(|_| AtomicU64::new(0)).collect(),
            doomed: OnceLock::new(),
        }
    }

    /// Bytes of the body.
    #[expect(clippy::len_without_is_empty, reason = "see `Body::is_empty`")]
    pub fn len(&self) -> u64 {
        self.state.body_len
    }

    pub fn id(&self) -> ObjectId {
        self.state.layout.id()
    }

    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// How the file is since it was opened. Asks the file system, which has the answer in memory.
    pub fn since(&self) -> Since {
        let Ok(stat) = rustix::fs::fstat(&*self.file) else { return Since::Gone };
        let stat = Stat::from(stat);
        if stat.links == 0 {
            return Since::Gone;
        }
        let same = stat.modified == self.modified.load(Ordering::Relaxed)
            && stat.changed == self.changed.load(Ordering::Relaxed)
            && stat.size == self.state.layout.file_len(self.len());
        if same { Since::Same } else { Since::Changed }
    }

    /// The file has been changed by this process, which knows how.
    pub fn stamp(&self, stat: &Stat) {
        self.modified.store(stat.modified, Ordering::Relaxed);
        self.changed.store(stat.changed, Ordering::Relaxed);
    }

    /// All blocks are what was written: this process has just done so.
    pub fn set_checked(&self) {
        self.checked.iter().for_each(|word| word.store(u64::MAX, Ordering::Relaxed));
    }

    /// The file has lost its name: its room is free when it is closed.
    pub fn doom(&self, doomed: &Arc<Doomed>) {
        let _ = self.doomed.set(doomed.clone());
    }

    /// A part of the body.
    ///
    /// # Errors
    /// The disk cannot be read, or what it gives is not what was stored: then the object is gone.
    pub async fn read(self: &Arc<Self>, range: Range<u64>) -> Result<Bytes> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        self.look_for_changes();
        if let Some(bytes) = self.read_in_place(&range) {
            return bytes.map_err(|failure| self.failed(failure));
        }
        let file = self.clone();
        let read = self.pool(move || file.read_blocking(&range)).await;
        read.map_err(|failure| self.failed(failure))
    }

    /// Sees that the first bytes of a part can be had and are what was stored: of a small object, all.
    ///
    /// # Errors
    /// They cannot, or are not: then the object is gone.
    pub async fn ready(self: &Arc<Self>, range: Range<u64>) -> Result<()> {
        let window = range.start..range.end.min(range.start.saturating_add(WINDOW));
        let checked = self.is_checked(&window);
        if checked {
            return self.see_to(window, checked).await;
        }
        if blocks(&window).count() as u64 <= IN_PLACE && self.read_in_place(&window).is_some_and(|read| read.is_ok()) {
            return Ok(());
        }
        self.see_to(window, checked).await
    }

    /// How much of a part the kernel may send now, from its beginning: checked, and in memory as far as can be known.
    ///
    /// # Errors
    /// It cannot be had, or is not what was stored: then the object is gone.
    pub async fn window(self: &Arc<Self>, range: Range<u64>) -> Result<Range<u64>> {
        let window = range.start..range.end.min(range.start.saturating_add(WINDOW));
        self.look_for_changes();
        let checked = self.is_checked(&window);
        self.see_to(window.clone(), checked).await?;
        Ok(window)
    }

    /// Has a part checked, or if it has been, read into memory, unless it is there.
    async fn see_to(self: &Arc<Self>, part: Range<u64>, checked: bool) -> Result<()> {
        if checked && self.disk.io.resident(&self.file, self.in_file(&part)) == Residency::Yes {
            return Ok(());
        }
        let file = self.clone();
        let done =
            self.pool(move || if checked { file.warm_blocking(&part) } else { file.check_blocking(&part) }).await;
        done.map_err(|failure| self.failed(failure))
    }

    /// What it means that the kernel could not send a part; `None`: that the client could not be written to.
    pub fn not_sent(self: &Arc<Self>, e: &io::Error) -> Option<Box<Error>> {
        if e.kind() == io::ErrorKind::UnexpectedEof {
            return Some(self.failed(Failure::Defect(Defect::Length)));
        }
        let e = io::Error::from_raw_os_error(e.raw_os_error().filter(|errno| *errno == libc::EIO)?);
        Some(self.failed(Failure::Io(e)))
    }

    /// Where a part of the body lies in the file.
    pub fn in_file(&self, range: &Range<u64>) -> Range<u64> {
        let offset = self.state.layout.body_offset();
        offset + range.start..offset + range.end
    }

    /// What has been checked before somebody wrote to the file has to be checked again.
    fn look_for_changes(&self) {
        if self.since() == Since::Changed {
            self.checked.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        }
    }

    fn is_checked(&self, range: &Range<u64>) -> bool {
        blocks(range).all(|block| self.checked[block / 64].load(Ordering::Relaxed) & (1 << (block % 64)) != 0)
    }

    fn set_block(&self, block: usize) {
        self.checked[block / 64].fetch_or(1 << (block % 64), Ordering::Relaxed);
    }

    /// What can be had without waiting; `None`: not all of it.
    fn read_in_place(&self, range: &Range<u64>) -> Option<std::result::Result<Bytes, Failure>> {
        if self.is_checked(range) {
            return self.try_read(self.in_file(range)).transpose();
        }
        if blocks(range).count() as u64 > IN_PLACE {
            return None;
        }
        let span = self.span(range);
        let (body, table) = match (self.try_read(self.in_file(&span)), self.try_read(self.table_of(&span))) {
            (Ok(Some(body)), Ok(Some(table))) => (body, table),
            (Ok(None), _) | (_, Ok(None)) => return None,
            (Err(failure), _) | (_, Err(failure)) => return Some(Err(failure)),
        };
        Some(self.check(&span, &body, &table).map(|()| part(body, &span, range)))
    }

    fn try_read(&self, range: Range<u64>) -> std::result::Result<Option<Bytes>, Failure> {
        let mut buffer = vec![0; usize::try_from(range.end - range.start).unwrap_or(0)];
        match self.disk.io.try_read(&self.file, range.start, &mut buffer)? {
            NowaitRead::Full => Ok(Some(buffer.into())),
            // The rest is on the disk, or the file has become shorter: the pool finds out.
            NowaitRead::Partial(_) | NowaitRead::WouldBlock => Ok(None),
        }
    }

    fn read_blocking(&self, range: &Range<u64>) -> std::result::Result<Bytes, Failure> {
        if self.is_checked(range) {
            return self.pread(self.in_file(range));
        }
        let span = self.span(range);
        let (body, table) = (self.pread(self.in_file(&span))?, self.pread(self.table_of(&span))?);
        self.check(&span, &body, &table)?;
        Ok(part(body, &span, range))
    }

    /// Checks the blocks of a part that have not been.
    fn check_blocking(&self, range: &Range<u64>) -> std::result::Result<(), Failure> {
        let mut at = range.start;
        while at < range.end {
            let piece = at..range.end.min(at - at % BLOCK + 4 * BLOCK);
            at = piece.end;
            self.read_blocking(&piece)?;
        }
        Ok(())
    }

    /// Has the page cache take a part in.
    fn warm_blocking(&self, range: &Range<u64>) -> std::result::Result<(), Failure> {
        let all = self.in_file(range);
        let mut buffer = vec![0; BLOCK as usize];
        let mut at = all.start;
        while at < all.end {
            let len = (all.end - at).min(BLOCK);
            let read = self.disk.io.pread(&self.file, at, &mut buffer[..len as usize])?;
            if read as u64 != len {
                return Err(Failure::Defect(Defect::Length));
            }
            at += len;
        }
        Ok(())
    }

    fn pread(&self, range: Range<u64>) -> std::result::Result<Bytes, Failure> {
        let mut buffer = vec![0; usize::try_from(range.end - range.start).unwrap_or(0)];
        let read = self.disk.io.pread(&self.file, range.start, &mut buffer)?;
        if read != buffer.len() {
            return Err(Failure::Defect(Defect::Length));
        }
        Ok(buffer.into())
    }

    /// The whole blocks that a part lies in.
    fn span(&self, range: &Range<u64>) -> Range<u64> {
        range.start - range.start % BLOCK..range.end.div_ceil(BLOCK).saturating_mul(BLOCK).min(self.len())
    }

    /// Where the entries of whole blocks lie in the file.
    fn table_of(&self, span: &Range<u64>) -> Range<u64> {
        let table = self.state.layout.table_offset(self.len());
        table + span.start / BLOCK * 4..table + span.end.div_ceil(BLOCK) * 4
    }

    /// Checks the body in the bytes of the whole file.
    pub fn check_whole(&self, bytes: &[u8]) -> std::result::Result<(), Defect> {
        let slice = |range: Range<u64>| {
            // Within a buffer that has them all, as the file's length says.
            bytes.get(range.start as usize..range.end as usize).ok_or(Defect::Length)
        };
        let all = 0..self.len();
        let table = slice(self.table_of(&all))?;
        if crc32fast::hash(table) != self.state.table_crc {
            return Err(Defect::Checksum);
        }
        match self.check(&all, slice(self.in_file(&all))?, table) {
            Ok(()) => Ok(()),
            Err(Failure::Defect(defect)) => Err(defect),
            Err(_) => Err(Defect::Malformed),
        }
    }

    /// Whether the table is the one that belongs to the head: its entries are believed from then on. Blocks.
    pub fn has_its_table(&self) -> io::Result<bool> {
        let Range { start: mut at, end } = self.table_of(&(0..self.len()));
        let (mut hasher, mut buffer) = (crc32fast::Hasher::new(), vec![0; BLOCK as usize]);
        while at < end {
            // At most a block, which is a usize.
            let wanted = (end - at).min(BLOCK) as usize;
            let read = self.disk.io.pread(&self.file, at, &mut buffer[..wanted])?;
            hasher.update(&buffer[..read]);
            if read < wanted {
                return Ok(false);
            }
            at += read as u64;
        }
        Ok(hasher.finalize() == self.state.table_crc)
    }

    fn check(&self, span: &Range<u64>, body: &[u8], table: &[u8]) -> std::result::Result<(), Failure> {
        let (entries, _) = table.as_chunks::<4>();
        let first = usize::try_from(span.start / BLOCK).unwrap_or(0);
        for (i, (block, entry)) in body.chunks(BLOCK as usize).zip(entries).enumerate() {
            if !check_block(u32::from_le_bytes(*entry), block) {
                return Err(Failure::Defect(Defect::Checksum));
            }
            self.set_block(first + i);
        }
        Ok(())
    }

    async fn pool<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> std::result::Result<T, Failure> + Send + 'static,
    ) -> std::result::Result<T, Failure> {
        if !self.disk.health.may_read() {
            return Err(Failure::Suspended);
        }
        let began = Instant::now();
        let done = self.disk.pool.read(READ_LIMIT, job).await;
        self.disk.stats.read(began.elapsed());
        match done {
            Ok(done) => {
                if done.is_ok() {
                    self.disk.health.read_ok();
                }
                done
            }
            Err(e) => Err(Failure::Pool(e)),
        }
    }

    fn failed(self: &Arc<Self>, failure: Failure) -> Box<Error> {
        let why = match failure {
            Failure::Defect(defect) => {
                self.disk.condemn(self, defect);
                format!("a stored object is damaged: {}", defect.as_str())
            }
            Failure::Io(e) => {
                self.disk.failed(Kind::Read, &e);
                format!("reading a stored object: {e}")
            }
            Failure::Pool(e) => {
                self.disk.not_done(Kind::Read, e);
                format!("reading a stored object: {e}")
            }
            Failure::Suspended => "reading a stored object: reading from the disk is suspended".to_owned(),
        };
        // Whoever asks next looks anew, at whether the disk can be read for one.
        self.disk.close(&self.id());
        Error::explain(ErrorType::ReadError, why)
    }
}

impl AsFd for StoredFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl std::fmt::Debug for StoredFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredFile").field("id", &self.id()).field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Drop for StoredFile {
    fn drop(&mut self) {
        // Freeing the blocks of a large file takes its time.
        self.disk.closed(&self.id(), self.file.clone(), self.doomed.take());
    }
}

/// Why a read has failed.
enum Failure {
    Io(io::Error),
    /// The disk is not read from for now.
    Suspended,
    Pool(PoolError),
    Defect(Defect),
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Failure {
        Failure::Io(e)
    }
}

/// The numbers of the blocks that a part lies in.
fn blocks(range: &Range<u64>) -> Range<usize> {
    let index = |block: u64| usize::try_from(block).unwrap_or(usize::MAX);
    index(range.start / BLOCK)..index(range.end.div_ceil(BLOCK))
}

/// A part of the blocks that it lies in.
fn part(span_bytes: Bytes, span: &Range<u64>, range: &Range<u64>) -> Bytes {
    // Within a buffer, whose length is a usize.
    span_bytes.slice((range.start - span.start) as usize..(range.end - span.start) as usize)
}
