//! The seam for all I/O of a disk: every method blocks but [`Io::try_read`] and [`Io::resident`], and is called on the
//! disk's pool of threads. Faults of tests are injected here, below everything else.
//!
//! All names are relative to the disk's folder, which is held open: the tier does not wander to another file system
//! when a mount goes. [`Io::reopen`] looks the folder up by its path again.

use std::io::{self, IoSlice, IoSliceMut};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use rustix::fs::{AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, RawDir, StatVfsMountFlags};
use rustix::io::{Errno, ReadWriteFlags, retry_on_intr};

use super::faults::{Faults, Op};
use super::residency::{self, Residency};
use super::root::{Root, make_dir, make_root, making};

/// The folder of temporary files that have a name, and of nothing else: at a start they may all go.
pub const TEMP_DIR: &str = "tmp";

/// What is stored may be meant for few: it is for the edge's own user.
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// Names of temporary files that may be taken (by a process that had the same token) before creating one fails.
const NAME_ATTEMPTS: u32 = 128;

/// What one page of a folder takes in memory: some 580 names of objects.
const DIR_BUFFER: usize = 32 << 10;

/// The I/O of one disk; a clone is another handle of the same.
#[derive(Clone)]
pub struct Io {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    instance: String,
    /// The number of the next temporary name.
    next: AtomicU64,
    /// `None` until it has been opened for the first time.
    root: ArcSwapOption<Root>,
    faults: Faults,
}

impl Io {
    /// For the disk whose folder that is. Touches nothing yet: until [`Io::reopen`] has worked, every name is one that
    /// does not exist (`ENOENT`). The token, without `/`, tells this process's temporary files from another's.
    pub fn new(path: &Path, instance: &str) -> Io {
        Io::with_faults(path, instance, Faults::of(path))
    }

    fn with_faults(path: &Path, instance: &str, faults: Faults) -> Io {
        let (path, instance) = (path.to_owned(), instance.to_owned());
        Io { inner: Arc::new(Inner { path, instance, next: AtomicU64::new(0), root: ArcSwapOption::empty(), faults }) }
    }

    /// The path of the disk's folder.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Opens the folder that now is at the path, and creates it with its parents where there is none. True where it is
    /// another one than before, so that what was known of its files no longer holds. After an error the one that was
    /// open, if any, goes on being used.
    pub fn reopen(&self) -> io::Result<bool> {
        self.before(Op::Open)?;
        let root = match Root::open(&self.inner.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.before(Op::MakeDir)?;
                make_root(&self.inner.path)?;
                Root::open(&self.inner.path)?
            }
            other => other?,
        };
        // An inode's number is not given to another for as long as it is held open, deleted or not.
        if self.inner.root.load().as_ref().is_some_and(|now| (now.device, now.inode) == (root.device, root.inode)) {
            return Ok(false);
        }
        self.inner.root.store(Some(Arc::new(root)));
        Ok(true)
    }

    /// The folder is not needed any more.
    #[cfg(test)]
    pub fn close(&self) {
        self.inner.root.store(None);
    }

    /// Whether the path leads to another folder than the one that is open, or to none: it is time to reopen.
    pub fn displaced(&self) -> io::Result<bool> {
        self.before(Op::Stat)?;
        match retry_on_intr(|| rustix::fs::stat(&self.inner.path)) {
            Ok(stat) => {
                let root = self.inner.root.load();
                Ok(root.as_ref().is_none_or(|root| (root.device, root.inode) != (stat.st_dev, stat.st_ino)))
            }
            Err(Errno::NOENT) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens a file for reading. `ENOENT` where there is none.
    pub fn open(&self, name: &Path) -> io::Result<OwnedFd> {
        self.open_for(name, OFlags::RDONLY)
    }

    /// Opens a file for reading and writing, not creating it.
    pub fn open_writable(&self, name: &Path) -> io::Result<OwnedFd> {
        self.open_for(name, OFlags::RDWR)
    }

    fn open_for(&self, name: &Path, access: OFlags) -> io::Result<OwnedFd> {
        // Opening a pipe that somebody has put there would wait for its other end.
        let flags = access | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let open = |root: &Root, flags| rustix::fs::openat(&root.dir, name, flags, Mode::empty());
        self.with(Op::Open, |root| match open(root, flags | OFlags::NOATIME) {
            // Only the file's owner may leave the time of access alone.
            Err(Errno::PERM) => open(root, flags),
            other => other,
        })
    }

    /// Creates a file for reading and writing that nobody else finds, in the folder in which it is to be published
    /// (which places it well on the disk; `.` for the disk's own) or, where the file system only has files with
    /// names, in [`TEMP_DIR`]. Creates that folder where it is missing.
    pub fn create(&self, dir: &Path) -> io::Result<Temp> {
        self.before(Op::Create)?;
        let root = self.root()?;
        if root.unnamed.load(Ordering::Relaxed) {
            let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
            match making(&root, Some(dir), || rustix::fs::openat(&root.dir, dir, flags, FILE_MODE)) {
                Ok(file) => return Ok(Temp { file: Arc::new(file), name: None, root }),
                // If it is for another reason, creating one with a name fails too and says so.
                Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOSYS) => {
                    root.unnamed.store(false, Ordering::Relaxed);
                }
                Err(error) => return Err(error.into()),
            }
        }
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let (file, name) = self.under_new_name(&root, |name| rustix::fs::openat(&root.dir, name, flags, FILE_MODE))?;
        Ok(Temp { file: Arc::new(file), name: Some(name), root })
    }

    /// Creates a file under its name, for reading and writing, where there is none of that name yet (`AlreadyExists`
    /// else). For what is written at once: until it is, whoever finds it finds it too short. Creates the name's folder
    /// where it is missing. Costs half of what a temporary file does that is then given its name.
    pub fn create_named(&self, name: &Path) -> io::Result<OwnedFd> {
        self.before(Op::Create)?;
        let root = self.root()?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        Ok(making(&root, name.parent(), || rustix::fs::openat(&root.dir, name, flags, FILE_MODE))?)
    }

    /// Makes a temporary file visible under its name, at once in the place of what was there. Creates the name's folder
    /// where it is missing. After an error the temporary file is gone and the name as it was.
    pub fn publish(&self, mut temp: Temp, name: &Path) -> io::Result<Arc<OwnedFd>> {
        self.before(Op::Publish)?;
        let root = self.root()?;
        if temp.name.is_none() {
            let link = |name: &Path| {
                let source = format!("/proc/self/fd/{}", temp.file.as_raw_fd());
                rustix::fs::linkat(CWD, source, &root.dir, name, AtFlags::SYMLINK_FOLLOW)
            };
            match making(&root, name.parent(), || link(name)) {
                Ok(()) => return Ok(temp.file.clone()),
                // A link replaces nothing: it takes another name first, and is renamed.
                Err(Errno::EXIST) => {
                    let ((), spare) = self.under_new_name(&root, link)?;
                    (temp.name, temp.root) = (Some(spare), root.clone());
                }
                Err(error) => {
                    // This one is lost; the next are created with a name.
                    if matches!(error, Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP | Errno::NOSYS) {
                        root.unnamed.store(false, Ordering::Relaxed);
                    }
                    return Err(error.into());
                }
            }
        }
        if let Some(from) = &temp.name {
            let rename =
                || making(&root, name.parent(), || rustix::fs::renameat(&temp.root.dir, from, &root.dir, name));
            match rename() {
                Err(Errno::ISDIR) => {
                    self.remove_folder(&root, name)?;
                    rename()?;
                }
                renamed => renamed?,
            }
        }
        temp.name = None;
        Ok(temp.file.clone())
    }

    /// Writes a file of the disk's own folder anew, at once in the place of what was there.
    pub fn replace(&self, name: &Path, bytes: &[u8]) -> io::Result<()> {
        let temp = self.create(Path::new("."))?;
        self.pwrite_all(temp.file(), 0, bytes)?;
        self.publish(temp, name)?;
        Ok(())
    }

    /// Reads at an offset until the buffer is full or the file ends; how much it was.
    pub fn pread(&self, file: impl AsFd, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.before(Op::Read)?;
        let read = pread_all(file, offset, buffer)?;
        self.inner.faults.corrupt(&mut buffer[..read]);
        Ok(read)
    }

    /// Reads at an offset what can be had without waiting for the disk. It may be called on a worker.
    pub fn try_read(&self, file: impl AsFd, offset: u64, buffer: &mut [u8]) -> io::Result<NowaitRead> {
        let root = self.inner.root.load();
        let Some(root) = root.as_ref().filter(|_| !self.inner.faults.nothing_cached()) else {
            return Ok(NowaitRead::WouldBlock);
        };
        let read = match root.nowait.load(Ordering::Relaxed) {
            true => nowait(&file, offset, buffer),
            false => Err(Errno::OPNOTSUPP),
        };
        let read = match read {
            Ok(read) => read,
            Err(Errno::AGAIN) => return Ok(NowaitRead::WouldBlock),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                root.nowait.store(false, Ordering::Relaxed);
                if !root.in_memory {
                    return Ok(NowaitRead::WouldBlock);
                }
                pread_all(file, offset, buffer)?
            }
            Err(error) => return Err(error.into()),
        };
        self.inner.faults.corrupt(&mut buffer[..read]);
        Ok(if read == buffer.len() { NowaitRead::Full } else { NowaitRead::Partial(read) })
    }

    /// Whether the page cache holds that range of the file, in bytes. It may be called on a worker.
    pub fn resident(&self, file: impl AsFd, range: Range<u64>) -> Residency {
        if self.inner.faults.nothing_cached() {
            return Residency::No;
        }
        residency::resident(file.as_fd(), range)
    }

    /// Writes all of it at an offset. After an error some of it may have been written.
    pub fn pwrite_all(&self, file: impl AsFd, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.pwritev_all(file, offset, &mut [IoSlice::new(bytes)])
    }

    /// Writes all parts, one after the other, at an offset: with one call, unless the system writes less. The slices
    /// are used up. After an error some of it may have been written.
    pub fn pwritev_all(&self, file: impl AsFd, mut offset: u64, mut parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        self.before(Op::Write)?;
        // Parts at the front that are empty would look like a write that got nowhere.
        IoSlice::advance_slices(&mut parts, 0);
        while !parts.is_empty() {
            let written = retry_on_intr(|| rustix::io::pwritev(&file, parts, offset))?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            IoSlice::advance_slices(&mut parts, written);
            offset = offset.saturating_add(written as u64);
        }
        Ok(())
    }

    /// Waits until what was written to the file is on the disk.
    pub fn sync_data(&self, file: impl AsFd) -> io::Result<()> {
        self.before(Op::Sync)?;
        Ok(retry_on_intr(|| rustix::fs::fdatasync(&file))?)
    }

    /// Waits until all that has been written to the file system is on the disk.
    pub fn sync_all(&self) -> io::Result<()> {
        self.with(Op::Sync, |root| rustix::fs::syncfs(&root.dir))
    }

    /// Waits until what has become of a folder's names is on the disk. One that is not there has none.
    pub fn sync_names(&self, name: &Path) -> io::Result<()> {
        self.before(Op::Sync)?;
        let root = self.root()?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match retry_on_intr(|| rustix::fs::openat(&root.dir, name, flags, Mode::empty())) {
            Ok(folder) => Ok(retry_on_intr(|| rustix::fs::fsync(&folder))?),
            Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until the names in the disk's own folder are on the disk.
    pub fn sync_folder(&self) -> io::Result<()> {
        self.with(Op::Sync, |root| rustix::fs::fsync(&root.dir))
    }

    /// Makes a file so long, in bytes.
    pub fn truncate(&self, file: impl AsFd, length: u64) -> io::Result<()> {
        self.before(Op::Write)?;
        Ok(retry_on_intr(|| rustix::fs::ftruncate(&file, length))?)
    }

    /// Waits for a file's advisory lock, which its open description then has (`flock`).
    pub fn lock(&self, file: impl AsFd) -> io::Result<()> {
        self.before(Op::Lock)?;
        Ok(retry_on_intr(|| rustix::fs::flock(&file, FlockOperation::LockExclusive))?)
    }

    /// Gives it back.
    pub fn unlock(&self, file: impl AsFd) -> io::Result<()> {
        Ok(retry_on_intr(|| rustix::fs::flock(&file, FlockOperation::Unlock))?)
    }

    /// Whether a name leads to an open file.
    pub fn leads_to(&self, name: &Path, file: impl AsFd) -> io::Result<bool> {
        let opened = retry_on_intr(|| rustix::fs::fstat(&file))?;
        match self.with(Op::Stat, |root| rustix::fs::statat(&root.dir, name, AtFlags::SYMLINK_NOFOLLOW)) {
            Ok(named) => Ok((named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes a file, or whatever else somebody has put in its place. `ENOENT` where there is none.
    pub fn unlink(&self, name: &Path) -> io::Result<()> {
        self.before(Op::Unlink)?;
        let root = self.root()?;
        match retry_on_intr(|| rustix::fs::unlinkat(&root.dir, name, AtFlags::empty())) {
            Err(Errno::ISDIR) => self.remove_folder(&root, name),
            other => Ok(other?),
        }
    }

    /// Removes a folder that stands where a file belongs. One that is not empty is nothing of ours: it is put among the
    /// temporary files, for somebody to look at.
    fn remove_folder(&self, root: &Root, name: &Path) -> io::Result<()> {
        match retry_on_intr(|| rustix::fs::unlinkat(&root.dir, name, AtFlags::REMOVEDIR)) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => {
                self.under_new_name(root, |aside| rustix::fs::renameat(&root.dir, name, &root.dir, aside))?;
                Ok(())
            }
            other => Ok(other?),
        }
    }

    /// Removes a folder that is empty.
    pub fn rmdir(&self, name: &Path) -> io::Result<()> {
        self.with(Op::Unlink, |root| rustix::fs::unlinkat(&root.dir, name, AtFlags::REMOVEDIR))
    }

    /// Gives a file another name, at once in the place of what was there.
    pub fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.with(Op::Publish, |root| rustix::fs::renameat(&root.dir, from, &root.dir, to))
    }

    /// Creates a folder, if there is none.
    pub fn mkdir(&self, name: &Path) -> io::Result<()> {
        self.with(Op::MakeDir, |root| make_dir(root, name))
    }

    /// What the file system knows of an open file.
    pub fn stat(&self, file: impl AsFd) -> io::Result<Stat> {
        self.before(Op::Stat)?;
        Ok(Stat::from(retry_on_intr(|| rustix::fs::fstat(&file))?))
    }

    /// What the file system knows of a name; of a link, it is of the link. `ENOENT` where there is none.
    pub fn stat_name(&self, name: &Path) -> io::Result<Stat> {
        self.with(Op::Stat, |root| rustix::fs::statat(&root.dir, name, AtFlags::SYMLINK_NOFOLLOW)).map(Stat::from)
    }

    /// Opens a folder to list it; `.` for the disk's own.
    pub fn read_dir(&self, name: &Path) -> io::Result<Dir> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = self.with(Op::ReadDir, |root| rustix::fs::openat(&root.dir, name, flags, Mode::empty()))?;
        Ok(Dir { io: self.clone(), dir, buffer: Vec::with_capacity(DIR_BUFFER) })
    }

    /// How much room the file system has.
    pub fn free_space(&self) -> io::Result<Space> {
        let stat = self.with(Op::FreeSpace, |root| rustix::fs::fstatvfs(&root.dir))?;
        Ok(Space {
            free: stat.f_bavail.saturating_mul(stat.f_frsize),
            total: stat.f_blocks.saturating_mul(stat.f_frsize),
            read_only: stat.f_flag.contains(StatVfsMountFlags::RDONLY),
        })
    }

    fn before(&self, op: Op) -> io::Result<()> {
        self.inner.faults.before(op)
    }

    fn root(&self) -> io::Result<Arc<Root>> {
        Ok(self.inner.root.load_full().ok_or(Errno::NOENT)?)
    }

    fn with<T>(&self, op: Op, mut act: impl FnMut(&Root) -> rustix::io::Result<T>) -> io::Result<T> {
        self.before(op)?;
        let root = self.inner.root.load();
        let root = root.as_ref().ok_or(Errno::NOENT)?;
        Ok(retry_on_intr(|| act(root))?)
    }

    /// Does it with a temporary name that nobody has; `make` fails with `EEXIST` where one is taken.
    fn under_new_name<T>(
        &self,
        root: &Root,
        make: impl Fn(&Path) -> rustix::io::Result<T>,
    ) -> io::Result<(T, PathBuf)> {
        for _ in 0..NAME_ATTEMPTS {
            let number = self.inner.next.fetch_add(1, Ordering::Relaxed);
            let name = PathBuf::from(format!("{TEMP_DIR}/{}-{number}", self.inner.instance));
            match making(root, name.parent(), || make(&name)) {
                Ok(made) => return Ok((made, name)),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Errno::EXIST.into())
    }
}

/// A file that is being written and that nobody finds yet. Unless it is published it is gone once this is dropped and
/// its handles are closed, which may wait for the disk.
pub struct Temp {
    file: Arc<OwnedFd>,
    /// `None` for one without a name, and once there is nothing left to remove.
    name: Option<PathBuf>,
    /// That in which the name is.
    root: Arc<Root>,
}

impl Temp {
    /// The file, open for reading and writing; it stays the same when it is published.
    pub fn file(&self) -> &Arc<OwnedFd> {
        &self.file
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            // If it fails the file stays in the folder that is emptied at a start.
            let _ = rustix::fs::unlinkat(&self.root.dir, name, AtFlags::empty());
        }
    }
}

/// What was read in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NowaitRead {
    /// The buffer is full.
    Full,
    /// So many bytes, fewer than asked for: the file ends there, or what follows is not in the page cache.
    Partial(usize),
    /// Nothing can be had without waiting: the pool must read.
    WouldBlock,
}

/// What the file system knows of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Bytes.
    pub size: u64,
    /// Bytes on the disk, in whole blocks: less than the size where the file has holes.
    pub allocated: u64,
    /// When the contents were last changed, in nanoseconds since 1970.
    pub modified: i64,
    /// When the contents or the inode were last changed, in nanoseconds since 1970.
    pub changed: i64,
    /// How many names it has; 0 once it has been removed.
    pub links: u64,
    pub inode: u64,
    pub kind: FileKind,
}

impl From<rustix::fs::Stat> for Stat {
    // The fields' types differ between architectures.
    #[allow(clippy::unnecessary_cast)]
    fn from(stat: rustix::fs::Stat) -> Stat {
        let nanoseconds = |seconds: i64, nano: i64| seconds.saturating_mul(1_000_000_000).saturating_add(nano);
        Stat {
            size: u64::try_from(stat.st_size).unwrap_or(0),
            allocated: (stat.st_blocks as u64).saturating_mul(512),
            modified: nanoseconds(stat.st_mtime, stat.st_mtime_nsec as i64),
            changed: nanoseconds(stat.st_ctime, stat.st_ctime_nsec as i64),
            links: stat.st_nlink as u64,
            inode: stat.st_ino,
            kind: FileKind::of(FileType::from_raw_mode(stat.st_mode)),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    File,
    Folder,
    /// A link, a socket or the like.
    Other,
}

impl FileKind {
    fn of(kind: FileType) -> FileKind {
        match kind {
            FileType::RegularFile => FileKind::File,
            FileType::Directory => FileKind::Folder,
            _ => FileKind::Other,
        }
    }
}

/// The room on a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that an ordinary user may still write.
    pub free: u64,
    /// Bytes.
    pub total: u64,
    pub read_only: bool,
}

/// A folder that is being listed. What is added or removed meanwhile may be listed or not.
pub struct Dir {
    io: Io,
    dir: OwnedFd,
    buffer: Vec<u8>,
}

impl Dir {
    /// Lists a page of names in the folder's own order, some hundreds at the most. False where that was the end.
    pub fn page(&mut self, mut each: impl FnMut(&[u8], FileKind)) -> io::Result<bool> {
        self.io.before(Op::ReadDir)?;
        let mut entries = RawDir::new(&self.dir, self.buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = match entry {
                Err(Errno::INTR) => continue,
                other => other?,
            };
            let name = entry.file_name();
            if !matches!(name.to_bytes(), b"." | b"..") {
                let kind = match entry.file_type() {
                    // Some file systems do not keep it in the folder.
                    FileType::Unknown => rustix::fs::statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW)
                        .map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode)),
                    kind => kind,
                };
                each(name.to_bytes(), FileKind::of(kind));
            }
            if entries.is_buffer_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn pread_all(file: impl AsFd, offset: u64, buffer: &mut [u8]) -> rustix::io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        let rest = &mut buffer[done..];
        match retry_on_intr(|| rustix::io::pread(&file, &mut *rest, offset.saturating_add(done as u64)))? {
            0 => break,
            read => done += read,
        }
    }
    Ok(done)
}

fn nowait(file: impl AsFd, offset: u64, buffer: &mut [u8]) -> rustix::io::Result<usize> {
    // To the system call the largest offset means the file's own position.
    if i64::try_from(offset).is_err() {
        return Err(Errno::INVAL);
    }
    let parts = &mut [IoSliceMut::new(buffer)];
    retry_on_intr(|| rustix::io::preadv2(&file, parts, offset, ReadWriteFlags::NOWAIT))
}

#[cfg(test)]
#[path = "io_tests.rs"]
pub(super) mod tests;
