//! A disk's folder, open: making it and those in it, and what is known of its file system.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};

const DIR_MODE: Mode = Mode::RWXU;

/// The disk's folder, and what has been learnt of its file system.
pub struct Root {
    pub dir: OwnedFd,
    pub device: u64,
    pub inode: u64,
    /// A file system without a disk: reading never waits for one.
    pub in_memory: bool,
    /// Files can be created without a name, and be given one.
    pub unnamed: AtomicBool,
    /// Reading can be restricted to what is in the page cache.
    pub nowait: AtomicBool,
}

impl Root {
    /// Opens the folder at a path.
    pub fn open(path: &Path) -> io::Result<Root> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty()))?;
        let stat = retry_on_intr(|| rustix::fs::fstat(&dir))?;
        let kind = retry_on_intr(|| rustix::fs::fstatfs(&dir))?.f_type as u32;
        if kind == EXT4_MAGIC {
            spread(&dir);
        }
        Ok(Root {
            dir,
            device: stat.st_dev,
            inode: stat.st_ino,
            in_memory: matches!(kind, TMPFS_MAGIC | RAMFS_MAGIC),
            // A file is given its name through /proc.
            unnamed: AtomicBool::new(fs::exists("/proc/self/fd").unwrap_or(false)),
            nowait: AtomicBool::new(true),
        })
    }
}

/// Has ext4 spread the folders over the file system's groups (as `chattr +T` does). It looks for a free inode in the
/// group of the file's folder, and passes over each that was freed in the last minutes: of which a cache that is full has
/// many, all in one place if the folders are.
fn spread(dir: &OwnedFd) {
    use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
    // Without it, things only take longer.
    if let Ok(flags) = ioctl_getflags(dir)
        && !flags.contains(IFlags::TOPDIR)
    {
        let _ = ioctl_setflags(dir, flags | IFlags::TOPDIR);
    }
}

/// Of ext2, ext3 and ext4.
const EXT4_MAGIC: u32 = 0xef53;
const TMPFS_MAGIC: u32 = 0x0102_1994;
const RAMFS_MAGIC: u32 = 0x8584_58f6;

/// Makes the disk's folder, with those above it.
pub fn make_root(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(DIR_MODE.as_raw_mode()).create(path) {
        // Another process was quicker.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Makes a folder, if there is none of the name.
pub fn make_dir(root: &Root, name: &Path) -> rustix::io::Result<()> {
    match rustix::fs::mkdirat(&root.dir, name, DIR_MODE) {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}

/// Does it, and once again where it failed for want of the folder, which is created. Folders are made when they are
/// needed and not ahead, so that emptying the disk by hand at any time does no harm.
pub fn making<T>(
    root: &Root,
    dir: Option<&Path>,
    mut act: impl FnMut() -> rustix::io::Result<T>,
) -> rustix::io::Result<T> {
    match (retry_on_intr(&mut act), dir) {
        (Err(Errno::NOENT), Some(dir)) if !dir.as_os_str().is_empty() => {
            retry_on_intr(|| make_dir(root, dir))?;
            retry_on_intr(act)
        }
        (other, _) => other,
    }
}
