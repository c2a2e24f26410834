//! Whether the page cache holds a part of a file, so that reading or sending it does not wait for the disk.

use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::{io, mem};

/// What the page cache holds of a range. A hint: the pages may be evicted right after, or still be on their way in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residency {
    /// All of it.
    Yes,
    /// Not all of it.
    No,
    /// This kernel does not say (Linux before 6.5), or not to us.
    Unknown,
}

/// Whether the page cache holds that range of the file, in bytes. What lies beyond the file's end is not held; of an
/// empty range nothing is missing. It never waits for the disk.
pub fn resident(file: BorrowedFd<'_>, range: Range<u64>) -> Residency {
    if range.is_empty() {
        return Residency::Yes;
    }
    if UNSUPPORTED.load(Ordering::Relaxed) {
        return Residency::Unknown;
    }
    let page = rustix::param::page_size() as u64;
    let pages = (range.end - 1) / page - range.start / page + 1;
    match cachestat(file, &CacheStatRange { offset: range.start, length: range.end - range.start }) {
        Ok(cached) if cached >= pages => Residency::Yes,
        Ok(_) => Residency::No,
        Err(error) => {
            if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM | libc::EOPNOTSUPP)) {
                UNSUPPORTED.store(true, Ordering::Relaxed);
            }
            Residency::Unknown
        }
    }
}

/// Set once the kernel, or a filter of system calls, has refused: asking again would only cost time.
static UNSUPPORTED: AtomicBool = AtomicBool::new(false);

/// The number is the same on all architectures on which Rust's Linux runs in 64 bits, MIPS excepted.
const SYS_CACHESTAT: libc::c_long = 451;

/// `struct cachestat_range`: in bytes.
#[repr(C)]
struct CacheStatRange {
    offset: u64,
    length: u64,
}

/// `struct cachestat`: in pages.
#[repr(C)]
#[derive(Default)]
struct CacheStat {
    cached: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// How many pages of the range are in the cache.
#[allow(unsafe_code)]
fn cachestat(file: BorrowedFd<'_>, range: &CacheStatRange) -> io::Result<u64> {
    const { assert!(mem::size_of::<CacheStat>() == 40 && mem::size_of::<CacheStatRange>() == 16) };
    let mut stat = CacheStat::default();
    let range: *const CacheStatRange = range;
    let flags: libc::c_uint = 0;
    // SAFETY: both pointers are to live values with the layout the kernel defines; it reads the one and writes the
    // other within this call and keeps neither. The descriptor is open for as long as it is borrowed.
    let result = unsafe { libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), range, &raw mut stat, flags) };
    if result == 0 { Ok(stat.cached) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn what_has_just_been_written_is_held_and_what_lies_beyond_the_end_is_not() {
        let path = std::env::temp_dir().join(format!("foreland-residency-{}", std::process::id()));
        let mut file = File::options().create(true).truncate(true).read(true).write(true).open(&path).unwrap();
        let page = rustix::param::page_size() as u64;
        file.write_all(&vec![7; 3 * page as usize + 1]).unwrap();
        let answers = [0..1, 0..3 * page + 1, page - 1..page + 1, page..page, 0..5 * page, 9 * page..9 * page + 1]
            .map(|range| resident(file.as_fd(), range));
        fs::remove_file(&path).unwrap();
        use Residency::{No, Unknown, Yes};
        let known = [Yes, Yes, Yes, Yes, No, No];
        // On a kernel without the call all but the empty range is unknown.
        assert!(answers == known || answers == [Unknown, Unknown, Unknown, Yes, Unknown, Unknown], "{answers:?}");
    }
}
