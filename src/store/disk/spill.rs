//! A body that goes to the disk while it comes.
//!
//! The fill hands over what has come, one write after the other, and whoever is behind what memory holds reads it back
//! from the file, which has no name until it is whole.

use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use pingora::{Error, ErrorType, Result};
use std::os::fd::OwnedFd;

use super::disk::{Disk, folder};
use super::file::{READ_LIMIT, StoredFile};
use super::format::{self, BLOCK, Layout, TableBuilder, check_block};
use super::health::Kind;
use super::io::{NowaitRead, Temp};
use super::space::{Reserved, units};
use super::stats::Refused;
use super::writing::{Current, PROMPT, SLOW_FOR, Unwritten};
use crate::store::key::{ObjectId, ObjectKey};
use crate::store::object::{Body, Head, Object};

/// Room is reserved in steps of at least so many bytes, where the length is not known.
const STEP: u64 = 1024 * 1024;

/// A body on its way to a disk. Dropped before it is committed, it leaves nothing.
pub struct Spill {
    disk: Arc<Disk>,
    id: ObjectId,
    layout: Option<Layout>,
    expected: Option<u64>,
    file: OnceLock<Arc<OwnedFd>>,
    /// Held for as long as it takes to look, by readers too.
    table: Mutex<TableBuilder>,
    /// Only for the one who writes.
    writer: Mutex<Option<Target>>,
    /// It counts as one that is under way.
    counted: AtomicBool,
}

struct Target {
    temp: Temp,
    reserved: Reserved,
}

impl Spill {
    /// Begins; the file is created with the first write.
    pub fn begin(disk: &Arc<Disk>, key: ObjectKey, head: &Head, expected: Option<u64>) -> Arc<Spill> {
        let id = key.id();
        disk.stats.spilling.fetch_add(1, Ordering::Relaxed);
        Arc::new(Spill {
            disk: disk.clone(),
            id,
            layout: Layout::for_head(id, head, disk.vouching.ledger().id()),
            expected,
            file: OnceLock::new(),
            table: Mutex::default(),
            writer: Mutex::new(None),
            counted: AtomicBool::new(true),
        })
    }

    /// Writes the next bytes of the body, which begin at an offset, and then says how it went. One write at a time.
    pub fn append(
        self: &Arc<Spill>,
        at: u64,
        pieces: Vec<Bytes>,
        done: impl FnOnce(std::result::Result<(), ()>) + Send + Sync + 'static,
    ) {
        // Whatever becomes of the job, somebody waits to be told.
        let mut done = Told(Some(Box::new(done)));
        let spill = self.clone();
        let job = move || match spill.write(at, &pieces) {
            Ok(()) => done.tell(Ok(())),
            Err(why) => {
                spill.disk.refused(&spill.id, why);
                done.tell(Err(()));
            }
        };
        if self.disk.pool.try_write(job).is_err() {
            self.disk.refuse(Refused::Busy);
        }
    }

    fn write(self: &Arc<Spill>, at: u64, pieces: &[Bytes]) -> std::result::Result<(), Unwritten> {
        let layout = self.layout.ok_or(Unwritten::Refused(Refused::Head))?;
        let end = at + pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
        let mut writer = self.writer();
        let target = match &mut *writer {
            Some(target) => target,
            none => {
                let reserved = self.disk.reserve_for(&self.id, layout.file_len(self.expected.unwrap_or(end)))?;
                let temp = self.disk.io.create(&folder(&self.id))?;
                let _ = self.file.set(temp.file().clone());
                none.insert(Target { temp, reserved })
            }
        };
        self.make_room(target, layout.file_len(end))?;
        let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        for (some, offset) in in_steps(&mut slices, layout.body_offset() + at) {
            self.disk.io.pwritev_all(target.temp.file(), offset, some)?;
        }
        target.reserved.wrote(units(layout.file_len(end)));
        let mut table = self.table();
        pieces.iter().for_each(|piece| table.update(piece));
        Ok(())
    }

    fn make_room(&self, target: &mut Target, len: u64) -> std::result::Result<(), Unwritten> {
        let needed = units(len);
        if needed > target.reserved.units() {
            // A body of unknown length that has come so far may well come as far again.
            let more = (needed - target.reserved.units()) * super::space::UNIT;
            target.reserved.join(self.disk.reserve(more.max(STEP.min(len)), 0)?);
        }
        Ok(())
    }

    /// The body is whole: gives the file its name, unless the response is outdated by then.
    pub async fn commit(self: &Arc<Spill>, head: Arc<Head>, len: u64, current: impl Current) {
        let spill = self.clone();
        let job = move || {
            if let Err(why) = spill.finish(&head, len, &current) {
                let (disk, id) = (spill.disk.clone(), spill.id);
                disk.unwritten(id, why, false);
            }
        };
        if let Err(e) = self.disk.promptly(job).await {
            self.disk.refuse(Refused::Busy);
            self.disk.not_done(Kind::Write, e);
            let _ = tokio::time::timeout(PROMPT, self.disk.remove(self.id)).await;
        }
    }

    fn finish(
        self: &Arc<Spill>,
        head: &Arc<Head>,
        len: u64,
        current: &impl Current,
    ) -> std::result::Result<(), Unwritten> {
        let target = self.writer().take().ok_or(Unwritten::Refused(Refused::Error))?;
        let layout = self.layout.ok_or(Unwritten::Refused(Refused::Head))?;
        let table = self.table().clone().finish();
        let Target { temp, mut reserved } = target;
        let file = temp.file().clone();
        if units(layout.file_len(len)) > reserved.units() {
            let more = units(layout.file_len(len)) - reserved.units();
            reserved.join(self.disk.reserve(more * super::space::UNIT, 0)?);
        }
        reserved.shrink(units(layout.file_len(len)));
        let (bytes, state) = format::encode(layout, head, len, table.crc()).ok_or(Unwritten::Refused(Refused::Head))?;
        self.disk.io.pwrite_all(&file, layout.table_offset(len), &table.encode())?;
        self.disk.io.pwrite_all(&file, 0, &bytes)?;
        self.disk.publish(temp, self.id, head, reserved, current)?;
        let stored = StoredFile::new(&self.disk, file.clone(), state, &self.disk.io.stat(&file)?);
        stored.set_checked();
        let stored = self.disk.opened(self.id, stored);
        let object = Arc::new(Object::new(head.clone(), Body::Disk(stored)));
        self.disk.remember(self.id, &object);
        if !current() {
            self.disk.close(&self.id);
        }
        Ok(())
    }

    /// A part of what has been written.
    ///
    /// # Errors
    /// The disk cannot be read, or what it gives is not what was written.
    pub async fn read(self: &Arc<Spill>, offset: u64, len: u64) -> Result<Bytes> {
        let (Some(file), Some(layout)) = (self.file.get(), self.layout) else {
            return Error::e_explain(ErrorType::ReadError, "a fill's file that there is not");
        };
        // Whole blocks, so that they can be checked.
        let start = offset - offset % BLOCK;
        let mut buffer = vec![0; usize::try_from(offset + len - start).unwrap_or(0)];
        let at = layout.body_offset() + start;
        if let Ok(NowaitRead::Full) = self.disk.io.try_read(file, at, &mut buffer) {
            return self.checked(buffer, start, offset);
        }
        let (spill, file) = (self.clone(), file.clone());
        let read = self.disk.pool.read(READ_LIMIT, move || {
            let read = spill.disk.io.pread(&file, at, &mut buffer)?;
            if read == buffer.len() { Ok(buffer) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
        });
        match read.await {
            Ok(Ok(buffer)) => self.checked(buffer, start, offset),
            Ok(Err(e)) => {
                self.disk.failed(Kind::Read, &e);
                Err(Error::because(ErrorType::ReadError, "reading a fill's file", e))
            }
            Err(e) => {
                self.disk.not_done(Kind::Read, e);
                Err(Error::because(ErrorType::ReadError, "reading a fill's file", e))
            }
        }
    }

    fn checked(&self, buffer: Vec<u8>, start: u64, offset: u64) -> Result<Bytes> {
        {
            let table = self.table();
            let entries = table.entries().iter().skip(usize::try_from(start / BLOCK).unwrap_or(usize::MAX));
            let sound =
                buffer.chunks_exact(BLOCK as usize).zip(entries).all(|(block, entry)| check_block(*entry, block));
            if !sound {
                drop(table);
                self.disk.stats.defect(format::Defect::Checksum);
                return Error::e_explain(ErrorType::ReadError, "a fill's file is damaged");
            }
        }
        // Within the buffer.
        Ok(Bytes::from(buffer).slice((offset - start) as usize..))
    }

    /// The disk takes too little for the fill to wait for it.
    pub fn too_slow(&self) {
        self.over();
        self.disk.refuse(Refused::Busy);
        self.disk.be_stuck(SLOW_FOR);
        self.disk.failed(Kind::Write, &io::ErrorKind::TimedOut.into());
    }

    /// Nothing more goes to the disk, or it is all there; whoever is behind may read on.
    pub fn over(&self) {
        if self.counted.swap(false, Ordering::Relaxed) {
            self.disk.stats.spilling.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn table(&self) -> MutexGuard<'_, TableBuilder> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> MutexGuard<'_, Option<Target>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Spill {
    fn drop(&mut self) {
        self.over();
        // Closing what was never named frees its blocks, which takes its time.
        let writer = self.writer.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let file = self.file.take();
        if writer.is_some() {
            let _ = self.disk.pool.try_write(move || drop((writer, file)));
        }
    }
}

/// Tells once; if nobody has by the time that this is dropped, that it failed.
struct Told(Option<Tell>);

type Tell = Box<dyn FnOnce(std::result::Result<(), ()>) + Send + Sync>;

impl Told {
    fn tell(&mut self, how: std::result::Result<(), ()>) {
        if let Some(done) = self.0.take() {
            done(how);
        }
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.tell(Err(()));
    }
}

/// As many slices at a time as one call takes, each with where it is written.
fn in_steps<'a, 'b>(
    slices: &'a mut [IoSlice<'b>],
    mut offset: u64,
) -> impl Iterator<Item = (&'a mut [IoSlice<'b>], u64)> {
    const AT_ONCE: usize = 512;
    slices.chunks_mut(AT_ONCE).map(move |some| {
        let at = offset;
        offset += some.iter().map(|slice| slice.len() as u64).sum::<u64>();
        (some, at)
    })
}
