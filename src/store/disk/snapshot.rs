//! The snapshot of an index: a file that a clean stop leaves, so that the next start need not walk over the directory.
//!
//! # Format
//! All numbers are little-endian. A header of 64 bytes, then blocks without gaps up to the end of the file.
//!
//! | Header at | Bytes | |
//! |---|---|---|
//! | 0 | 8 | `FORESNAP` |
//! | 8 | 4 | version: 1 |
//! | 12 | 4 | flags: 1 when the snapshot is whole (a clean stop), 2 when it hands the disk over, else 0 |
//! | 16 | 8 | created: a number that tells snapshots apart, such as the time in seconds since 1970 |
//! | 24 | 8 | how many records there are in all |
//! | 32 | 8 | the sum of the records' units |
//! | 40 | 20 | 0 |
//! | 60 | 4 | CRC-32 (IEEE) of the bytes 0 to 59 |
//!
//! Each block but the last holds 2730 records, which makes it 64 KiB; the last holds what remains, and there is none
//! without records. So the length of the file follows from the number of records, and a truncated file is known as such
//! by its length.
//!
//! | Block at | Bytes | |
//! |---|---|---|
//! | 0 | 4 | CRC-32 of the rest of the block |
//! | 4 | 4 | the block's number, from 0 |
//! | 8 | 8 | created, as in the header |
//! | 16 | 24 each | the records |
//!
//! | Record at | Bytes | |
//! |---|---|---|
//! | 0 | 16 | the object's id |
//! | 16 | 4 | its size on the disk in units of 4 KiB |
//! | 20 | 1 | queue: 0 probation, 1 main, 2 found by a walk and not yet settled |
//! | 21 | 1 | frequency, 0 to 3: for how many more turns a use of it spares it |
//! | 22 | 2 | 0 |
//!
//! The records of a queue stand in the order from the new end to the old. The queues' order among each other says
//! nothing. The header is written last: until then its place is zeros, and the file is no snapshot.

use std::fmt;

use super::index::{MAX_FREQUENCY, Queue, Saved};
use crate::store::key::ObjectId;

/// The length of the header, at which the first block stands.
pub const HEADER_LEN: usize = 64;

/// The length of each block but the last.
pub const BLOCK_LEN: usize = BLOCK_HEAD + BLOCK_RECORDS * RECORD_LEN;

const MAGIC: [u8; 8] = *b"FORESNAP";
const VERSION: u32 = 1;
const CLEAN: u32 = 1;
const HANDED: u32 = 2;
const BLOCK_HEAD: usize = 16;
const BLOCK_RECORDS: usize = 2730;
const RECORD_LEN: usize = 24;

const _: () = assert!(BLOCK_LEN == 64 * 1024);

/// What a snapshot says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub written: Written,
    /// The number that the writer gave it.
    pub created: u64,
    pub entries: u64,
    /// Of 4 KiB.
    pub units: u64,
}

/// When a snapshot was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// Before something else was, or without knowing of all that was there.
    Running,
    /// When the disk was handed over: nothing has been removed after it, but something may have been added.
    HandedOver,
    /// At the end: it holds all that was on the disk, and nothing was changed after it.
    Clean,
}

impl Written {
    fn flags(self) -> u32 {
        match self {
            Written::Running => 0,
            Written::HandedOver => HANDED,
            Written::Clean => CLEAN,
        }
    }

    fn of(flags: u32) -> Option<Written> {
        match flags {
            0 => Some(Written::Running),
            HANDED => Some(Written::HandedOver),
            CLEAN => Some(Written::Clean),
            _ => None,
        }
    }
}

/// What is wrong with a snapshot. Any of these makes the rest of it useless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// Too short for a header, or not a snapshot's; also what a stop while writing leaves.
    Magic,
    /// Of another version than this one.
    Version(u32),
    /// The header's checksum or a field of it.
    Header,
    /// The file or a block of it is longer or shorter than the number of records demands.
    Length,
    /// A block's checksum.
    Checksum,
    /// A sound block in the wrong place, or of another snapshot.
    Misplaced,
    /// A record of a sound block that says something impossible.
    Record,
    /// The units do not add up.
    Units,
}

/// Makes a snapshot: the blocks first, from [`HEADER_LEN`] on, then the header.
pub struct Encoder {
    created: u64,
    number: u32,
    entries: u64,
    units: u64,
    block: Vec<u8>,
}

impl Encoder {
    /// A snapshot of which `created` tells those apart that are written to the same place one after the other.
    pub fn new(created: u64) -> Encoder {
        let mut block = Vec::with_capacity(BLOCK_LEN);
        block.resize(BLOCK_HEAD, 0);
        Encoder { created, number: 0, entries: 0, units: 0, block }
    }

    /// How many entries have been added.
    #[cfg(test)]
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Adds entries, and to `out` the blocks that have become full.
    pub fn add(&mut self, entries: &[Saved], out: &mut Vec<u8>) {
        for entry in entries {
            self.entries += 1;
            self.units += u64::from(entry.units);
            self.block.extend_from_slice(&record(entry));
            if self.block.len() >= BLOCK_LEN {
                self.seal(out);
            }
        }
    }

    /// Adds the last block to `out`, if there is anything left, and returns the header, which belongs at offset 0.
    pub fn finish(mut self, written: Written, out: &mut Vec<u8>) -> [u8; HEADER_LEN] {
        if self.block.len() > BLOCK_HEAD {
            self.seal(out);
        }
        Header { written, created: self.created, entries: self.entries, units: self.units }.encode()
    }

    fn seal(&mut self, out: &mut Vec<u8>) {
        self.block[4..8].copy_from_slice(&self.number.to_le_bytes());
        self.block[8..16].copy_from_slice(&self.created.to_le_bytes());
        let sum = crc32fast::hash(&self.block[4..]);
        self.block[..4].copy_from_slice(&sum.to_le_bytes());
        out.extend_from_slice(&self.block);
        self.block.truncate(BLOCK_HEAD);
        self.number = self.number.wrapping_add(1);
    }
}

/// Reads a snapshot: the header, then block after block for as long as [`Decoder::next_len`] is not 0.
pub struct Decoder {
    header: Header,
    number: u32,
    /// Records still to come.
    left: u64,
    /// The sum of those that came.
    units: u64,
}

impl Decoder {
    /// Begins with the first [`HEADER_LEN`] bytes of a file, and the length of all of it.
    pub fn new(header: &[u8], file_len: u64) -> Result<Decoder, Defect> {
        let header = Header::decode(header.first_chunk().ok_or(Defect::Magic)?)?;
        if header.file_len() != Some(file_len) {
            return Err(Defect::Length);
        }
        if header.entries == 0 && header.units != 0 {
            return Err(Defect::Units);
        }
        Ok(Decoder { header, number: 0, left: header.entries, units: 0 })
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The length of the next block, at most [`BLOCK_LEN`]; 0 when the snapshot has been read and is sound.
    pub fn next_len(&self) -> usize {
        match self.next_records() {
            0 => 0,
            records => BLOCK_HEAD + records * RECORD_LEN,
        }
    }

    /// Reads the next block, of [`Decoder::next_len`] bytes, and adds its entries to `entries`. None of them when the
    /// block has a defect, after which there is no going on.
    pub fn block(&mut self, block: &[u8], entries: &mut Vec<Saved>) -> Result<(), Defect> {
        if block.is_empty() || block.len() != self.next_len() {
            return Err(Defect::Length);
        }
        let (head, records) = block.split_first_chunk::<BLOCK_HEAD>().ok_or(Defect::Length)?;
        let sum = u32::from_le_bytes(part(head, 0));
        if crc32fast::hash(block.get(4..).unwrap_or_default()) != sum {
            return Err(Defect::Checksum);
        }
        if u32::from_le_bytes(part(head, 4)) != self.number || u64::from_le_bytes(part(head, 8)) != self.header.created
        {
            return Err(Defect::Misplaced);
        }
        let kept = entries.len();
        let done = self.records(records, entries);
        if done.is_err() {
            entries.truncate(kept);
        }
        done
    }

    fn records(&mut self, records: &[u8], entries: &mut Vec<Saved>) -> Result<(), Defect> {
        let (records, _) = records.as_chunks::<RECORD_LEN>();
        let (left, mut units) = (self.left.saturating_sub(records.len() as u64), self.units);
        entries.reserve(records.len());
        for record in records {
            let entry = saved(record).ok_or(Defect::Record)?;
            units = units.checked_add(u64::from(entry.units)).ok_or(Defect::Units)?;
            entries.push(entry);
        }
        if left == 0 && units != self.header.units {
            return Err(Defect::Units);
        }
        (self.left, self.units, self.number) = (left, units, self.number.wrapping_add(1));
        Ok(())
    }

    fn next_records(&self) -> usize {
        usize::try_from(self.left).unwrap_or(usize::MAX).min(BLOCK_RECORDS)
    }
}

impl Header {
    fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.written.flags().to_le_bytes());
        bytes[16..24].copy_from_slice(&self.created.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.entries.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.units.to_le_bytes());
        let sum = crc32fast::hash(&bytes[..60]);
        bytes[60..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Header, Defect> {
        if part(bytes, 0) != MAGIC {
            return Err(Defect::Magic);
        }
        // The checksum first: what is damaged is not of another version.
        if crc32fast::hash(&bytes[..60]) != u32::from_le_bytes(part(bytes, 60)) {
            return Err(Defect::Header);
        }
        match u32::from_le_bytes(part(bytes, 8)) {
            VERSION => {}
            other => return Err(Defect::Version(other)),
        }
        if part(bytes, 40) != [0; 20] {
            return Err(Defect::Header);
        }
        Ok(Header {
            written: Written::of(u32::from_le_bytes(part(bytes, 12))).ok_or(Defect::Header)?,
            created: u64::from_le_bytes(part(bytes, 16)),
            entries: u64::from_le_bytes(part(bytes, 24)),
            units: u64::from_le_bytes(part(bytes, 32)),
        })
    }

    /// The length of a file with so many entries, or `None` when there can be none.
    fn file_len(&self) -> Option<u64> {
        let blocks = self.entries.div_ceil(BLOCK_RECORDS as u64);
        let records = self.entries.checked_mul(RECORD_LEN as u64)?;
        records.checked_add(blocks * BLOCK_HEAD as u64)?.checked_add(HEADER_LEN as u64)
    }
}

impl Defect {
    /// One word for it, for a metric's label.
    #[cfg(test)]
    pub fn name(self) -> &'static str {
        match self {
            Defect::Magic => "magic",
            Defect::Version(_) => "version",
            Defect::Header => "header",
            Defect::Length => "length",
            Defect::Checksum => "checksum",
            Defect::Misplaced => "misplaced",
            Defect::Record => "record",
            Defect::Units => "units",
        }
    }
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Defect::Magic => f.write_str("not a finished snapshot"),
            Defect::Version(version) => write!(f, "a snapshot of version {version}, not {VERSION}"),
            Defect::Header => f.write_str("a damaged header"),
            Defect::Length => f.write_str("a length that does not fit the number of records"),
            Defect::Checksum => f.write_str("a block with a wrong checksum"),
            Defect::Misplaced => f.write_str("a block of another place or another snapshot"),
            Defect::Record => f.write_str("an impossible record"),
            Defect::Units => f.write_str("a total that the records do not add up to"),
        }
    }
}

impl std::error::Error for Defect {}

fn record(entry: &Saved) -> [u8; RECORD_LEN] {
    let mut bytes = [0; RECORD_LEN];
    bytes[..16].copy_from_slice(&entry.id.0);
    bytes[16..20].copy_from_slice(&entry.units.to_le_bytes());
    bytes[20] = match entry.queue {
        Queue::Probation => 0,
        Queue::Main => 1,
        Queue::Found => 2,
    };
    bytes[21] = entry.frequency.min(MAX_FREQUENCY);
    bytes
}

fn saved(bytes: &[u8; RECORD_LEN]) -> Option<Saved> {
    let queue = match bytes[20] {
        0 => Queue::Probation,
        1 => Queue::Main,
        2 => Queue::Found,
        _ => return None,
    };
    let frequency = Some(bytes[21]).filter(|frequency| *frequency <= MAX_FREQUENCY)?;
    let units = u32::from_le_bytes(part(bytes, 16));
    (part(bytes, 22) == [0; 2]).then_some(Saved { id: ObjectId(part(bytes, 0)), units, frequency, queue })
}

/// `N` bytes of a field that is known to be there.
fn part<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    std::array::from_fn(|i| bytes.get(at + i).copied().unwrap_or_default())
}

#[cfg(test)]
#[path = "snapshot_tests.rs"]
mod tests;
