//! How often the URLs of each slot have been invalidated: counters that outlast the process.
//!
//! What is stored under more than its URL keeps the count of when it was asked for, and is of no use once it has changed.
//! The counters are in memory and, where there are disks, in a file on each of them, of which the highest counts.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::io::Io;

/// The name of the file, below the disk's folder: 65,536 numbers of 8 bytes, little-endian.
pub const NAME: &str = "marks";

const SLOTS: usize = 1 << 16;

/// Bytes of the file.
pub const FILE_LEN: u64 = SLOTS as u64 * 8;

/// The counters.
pub struct Marks {
    counts: Box<[AtomicU64]>,
}

impl Marks {
    /// Counters that begin at a number which nothing stored before has, unless [`Marks::join`] finds the old ones.
    pub fn new(start: u64) -> Marks {
        Marks { counts: (0..SLOTS).map(|_| AtomicU64::new(start)).collect() }
    }

    /// How often the URLs of a slot have been invalidated.
    pub fn get(&self, slot: u16) -> u64 {
        self.counts[usize::from(slot)].load(Ordering::Acquire)
    }

    /// Once more.
    pub fn add(&self, slot: u16) {
        self.counts[usize::from(slot)].fetch_add(1, Ordering::AcqRel);
    }

    /// What a disk's file says, if it has one that is whole. Blocks.
    pub fn read(io: &Io) -> Option<Vec<u64>> {
        let file = io.open(Path::new(NAME)).ok()?;
        let mut bytes = vec![0; FILE_LEN as usize];
        let read = io.pread(&file, 0, &mut bytes).ok()?;
        let (numbers, _) = bytes.as_chunks::<8>();
        (read == bytes.len()).then(|| numbers.iter().map(|number| u64::from_le_bytes(*number)).collect())
    }

    /// Takes the old counters over: of several disks', the highest.
    pub fn join(&self, files: &[Vec<u64>]) {
        for (slot, count) in self.counts.iter().enumerate() {
            if let Some(old) = files.iter().filter_map(|file| file.get(slot)).max() {
                count.store(*old, Ordering::Release);
            }
        }
    }

    /// Writes a disk's file anew. Blocks.
    pub fn write(&self, io: &Io) -> std::io::Result<()> {
        let bytes: Vec<u8> = self.counts.iter().flat_map(|count| count.load(Ordering::Acquire).to_le_bytes()).collect();
        io.replace(Path::new(NAME), &bytes)
    }

    /// Sees that a disk's file has no less than this, and this no less than the file. Blocks.
    ///
    /// Another process may write to the file at the same time: it stays the same file, in which nothing is written but
    /// what it lacks.
    pub fn mend(&self, io: &Io) -> std::io::Result<()> {
        let file = match io.open_writable(Path::new(NAME)) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return self.write(io),
            Err(e) => return Err(e),
        };
        let mut bytes = vec![0; FILE_LEN as usize];
        if io.pread(&file, 0, &mut bytes)? < bytes.len() {
            return self.write(io);
        }
        for ((slot, own), there) in self.counts.iter().enumerate().zip(bytes.as_chunks::<8>().0) {
            let there = u64::from_le_bytes(*there);
            let own = own.fetch_max(there, Ordering::AcqRel);
            if own > there {
                io.pwrite_all(&file, slot as u64 * 8, &own.to_le_bytes())?;
            }
        }
        Ok(())
    }

    /// Writes a slot's counter, as it is by now, to a disk's file. Blocks.
    pub fn write_one(&self, io: &Io, slot: u16) -> std::io::Result<()> {
        match io.open_writable(Path::new(NAME)) {
            Ok(file) => io.pwrite_all(&file, u64::from(slot) * 8, &self.get(slot).to_le_bytes()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => self.write(io),
            Err(e) => Err(e),
        }
    }
}

#[cfg(test)]
#[path = "marks_tests.rs"]
mod tests;
