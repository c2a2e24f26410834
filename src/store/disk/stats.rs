//! A disk's figures.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::format::Defect;

/// Upper bounds of the read latency's buckets, in microseconds.
pub const READ_BUCKETS: [u64; 12] =
    [50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 100_000, 500_000, 1_000_000];

/// Why something was not stored on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Everything on the disk is in use, or the file system is full.
    NoRoom,
    /// The disk does not keep up with what is to be written.
    Busy,
    /// An error of the disk.
    Error,
    /// Its head is larger than a file's slot may be.
    Head,
}

impl Refused {
    pub const ALL: [Refused; 4] = [Refused::NoRoom, Refused::Busy, Refused::Error, Refused::Head];

    /// A stable word, for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Refused::NoRoom => "no-room",
            Refused::Busy => "busy",
            Refused::Error => "error",
            Refused::Head => "head",
        }
    }
}

/// The counters of one disk.
#[derive(Default)]
pub struct Stats {
    pub evictions: AtomicU64,
    /// Objects written.
    pub stored: AtomicU64,
    /// Objects opened from the disk, rather than found open.
    pub opened: AtomicU64,
    /// Objects removed because they had been purged.
    pub purged: AtomicU64,
    /// Bodies that are on their way to the disk while they come.
    pub spilling: AtomicU64,
    refused: [AtomicU64; Refused::ALL.len()],
    defects: [AtomicU64; Defect::ALL.len()],
    reads: [AtomicU64; READ_BUCKETS.len() + 1],
    read_micros: AtomicU64,
}

impl Stats {
    pub fn refuse(&self, why: Refused) {
        self.refused[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub fn refused(&self, why: Refused) -> u64 {
        self.refused[why as usize].load(Ordering::Relaxed)
    }

    pub fn defect(&self, what: Defect) {
        self.defects[what as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub fn defects(&self, what: Defect) -> u64 {
        self.defects[what as usize].load(Ordering::Relaxed)
    }

    /// Counts a read that the pool did, from when it was asked for.
    pub fn read(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = READ_BUCKETS.partition_point(|bound| *bound < micros);
        self.reads[bucket].fetch_add(1, Ordering::Relaxed);
        self.read_micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// Reads in each bucket, of which the last is for what is above all bounds; and their time in all, in microseconds.
    pub fn reads(&self) -> ([u64; READ_BUCKETS.len() + 1], u64) {
        (std::array::from_fn(|i| self.reads[i].load(Ordering::Relaxed)), self.read_micros.load(Ordering::Relaxed))
    }
}
