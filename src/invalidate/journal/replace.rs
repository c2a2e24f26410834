//! A new file in the journal's place: at the beginning, when it begins anew, and when it is compacted.
//!
//! At each step one of the two files is whole: the new one is on the disk before it gets the name, and nothing is
//! appended to it before the name is on the disk.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;

use super::format::{self, Base, HEADER_LEN, Header, RECORDS_AT, Record, SLOT_LEN, SLOTS_AT};
use super::medium::{File, Medium};
use super::read::{Known, Next, Scan};
use crate::invalidate::{Entry, Selector};

/// Bytes that are collected before they are written.
const CHUNK: usize = 1 << 20;

/// A file that is being made.
pub struct Replacement {
    file: Arc<dyn File>,
    header: Header,
    known: Known,
    /// What is to be written next, and where.
    buffer: Vec<u8>,
    at: u64,
}

/// One that is made.
pub struct Fresh {
    pub file: Arc<dyn File>,
    pub header: Header,
    pub known: Known,
    pub length: u64,
}

/// Why there is no new file.
pub enum NotReplaced {
    /// The old one, if any, is still there.
    Kept(io::Error),
    /// The name leads to the new one, but whether it still will when the system starts again is unknown.
    Unsettled(Fresh, io::Error),
}

impl Replacement {
    pub fn begin(medium: &dyn Medium, id: u64, base: Base) -> io::Result<Replacement> {
        let file = Arc::from(medium.create()?);
        let header = Header { id, salt: random() };
        let mut replacement = Replacement { file, header, known: Known::default(), buffer: Vec::new(), at: RECORDS_AT };
        replacement.push(&Record::Base(base))?;
        Ok(replacement)
    }

    /// Adds all that another file has before an offset, but its base, and but the selectors that are not to be kept.
    pub fn copy(
        &mut self,
        file: &dyn File,
        seed: u32,
        end: u64,
        mut keep: impl FnMut(&Entry, &Selector) -> bool,
    ) -> io::Result<()> {
        let mut scan = Scan::new(file, seed, RECORDS_AT, end);
        loop {
            match scan.next()? {
                Next::Record(Record::Entry { entry, .. }) => {
                    let kept: Box<[Selector]> =
                        entry.selectors.iter().filter(|selector| keep(&entry, selector)).cloned().collect();
                    if !kept.is_empty() {
                        let entry = Arc::new(Entry { selectors: kept, ..Entry::clone(&entry) });
                        let late = entry.sequence <= self.known.head;
                        self.push(&Record::Entry { entry, late })?;
                    }
                }
                // They are in the base.
                Next::Record(_) => {}
                Next::Senseless | Next::Cut => {
                    let why = format!("the ledger's file is damaged at byte {}", scan.at());
                    return Err(io::Error::new(io::ErrorKind::InvalidData, why));
                }
                Next::End => return Ok(()),
            }
        }
    }

    /// Puts it in the journal's place, durably.
    pub fn finish(mut self, medium: &dyn Medium) -> Result<Fresh, NotReplaced> {
        let length = self.at + self.buffer.len() as u64;
        let done = self.write().and_then(|()| self.write_front(length)).and_then(|()| self.file.sync());
        if let Err(error) = done.and_then(|()| medium.publish()) {
            return Err(NotReplaced::Kept(error));
        }
        let fresh = Fresh { file: self.file, header: self.header, known: self.known, length };
        match medium.sync_folder() {
            Ok(()) => Ok(fresh),
            Err(error) => Err(NotReplaced::Unsettled(fresh, error)),
        }
    }

    fn push(&mut self, record: &Record) -> io::Result<()> {
        let invalid = |why| io::Error::new(io::ErrorKind::InvalidData, why);
        self.known.follow(record).map_err(invalid)?;
        if !record.encode(self.header.seed(), &mut self.buffer) {
            return Err(invalid("a record is too long"));
        }
        if self.buffer.len() >= CHUNK { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> io::Result<()> {
        self.file.write(self.at, &self.buffer)?;
        self.at += self.buffer.len() as u64;
        self.buffer.clear();
        self.buffer.shrink_to(CHUNK);
        Ok(())
    }

    /// The header and both slots, which say that all of it is durable: nobody reads them before it is.
    fn write_front(&self, length: u64) -> io::Result<()> {
        let slot = format::slot(length, self.header.seed());
        let mut front = vec![0; RECORDS_AT as usize];
        front[..HEADER_LEN].copy_from_slice(&self.header.encode());
        for at in SLOTS_AT {
            let at = at as usize;
            front[at..at + SLOT_LEN].copy_from_slice(&slot);
        }
        self.file.write(0, &front)
    }
}

/// A number that no other has: a fresh `RandomState` is the standard library's source of randomness.
pub fn random() -> u64 {
    RandomState::new().hash_one(0_u8)
}
