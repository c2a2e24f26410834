//! The bytes of the file; the module's documentation has the tables.

use std::sync::Arc;

use crate::http_cache::Timestamp;
use crate::invalidate::{By, Entry, Selector};

pub const HEADER_LEN: usize = 36;

/// Where the two commit slots are. Each has a block of 4 KiB to itself, as has the header, so that a write that the
/// power's end cuts short damages one of the three.
pub const SLOTS_AT: [u64; 2] = [4096, 8192];
pub const SLOT_LEN: usize = 16;

/// Where the first record is.
pub const RECORDS_AT: u64 = 12288;

/// The length and the checksum in front of a record.
pub const RECORD_HEAD: usize = 8;

/// Bytes of a record behind its head, at most.
pub const MAX_RECORD: usize = 64 << 20;

const MAGIC: [u8; 8] = *b"FORELEDG";
const VERSION: u32 = 1;

const BASE: u8 = 1;
const ENTRY: u8 = 2;
const LATE: u8 = 3;
const RESERVE: u8 = 4;
const SWEPT: u8 = 5;

/// What the file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The ledger's.
    pub id: u64,
    /// Of this file alone: it goes into each checksum, so that what is left of another file on the disk never passes
    /// for a part of this one.
    pub salt: u64,
}

impl Header {
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.id.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.salt.to_le_bytes());
        let sum = crc32fast::hash(&bytes[..32]);
        bytes[32..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Header, String> {
        if part(bytes, 0) != MAGIC {
            return Err("it is not a ledger".to_owned());
        }
        // The checksum first: what is damaged is not of another version.
        if crc32fast::hash(&bytes[..32]) != u32::from_le_bytes(part(bytes, 32)) {
            return Err("its header is damaged".to_owned());
        }
        match u32::from_le_bytes(part(bytes, 8)) {
            VERSION if part(bytes, 12) == [0; 4] => {}
            VERSION => return Err("its header is damaged".to_owned()),
            other => return Err(format!("it is of version {other}, and this is {VERSION}")),
        }
        Ok(Header { id: u64::from_le_bytes(part(bytes, 16)), salt: u64::from_le_bytes(part(bytes, 24)) })
    }

    /// What all other checksums begin with.
    pub fn seed(&self) -> u32 {
        crc32fast::hash(&self.encode()[..32])
    }
}

/// A commit slot that says so many bytes.
pub fn slot(length: u64, seed: u32) -> [u8; SLOT_LEN] {
    let mut bytes = [0; SLOT_LEN];
    bytes[..8].copy_from_slice(&length.to_le_bytes());
    let sum = checksum(seed, &[&bytes[..12]]);
    bytes[12..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// What a commit slot says; `None` where it is damaged.
pub fn committed(bytes: &[u8; SLOT_LEN], seed: u32) -> Option<u64> {
    let length = u64::from_le_bytes(part(bytes, 0));
    (slot(length, seed) == *bytes).then_some(length)
}

/// What the ledger knew when its file was begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Base {
    /// Entries up to this sequence may be missing: none of the objects that are stored and can be vouched for needs them.
    pub compacted: u64,
    /// Sequences up to this may have been given out without an entry of theirs being here.
    pub reserved: u64,
    /// Every object on this disk has been checked against all entries up to this sequence.
    pub swept: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The first, and only the first.
    Base(Base),
    /// Of a higher sequence than all before it; or `late`, of one that is not.
    Entry {
        entry: Arc<Entry>,
        late: bool,
    },
    Reserve(u64),
    Swept(u64),
}

impl Record {
    /// Appends its bytes. False, and nothing is appended, where they would be more than [`MAX_RECORD`] or an entry has
    /// too many selectors: nobody would read that. One without any is there for its sequence.
    pub fn encode(&self, seed: u32, out: &mut Vec<u8>) -> bool {
        if let Record::Entry { entry, .. } = self
            && entry.selectors.len() > Entry::MAX_SELECTORS
        {
            return false;
        }
        let start = out.len();
        out.extend_from_slice(&[0; RECORD_HEAD]);
        match self {
            Record::Base(base) => {
                out.push(BASE);
                out.extend_from_slice(&base.compacted.to_le_bytes());
                out.extend_from_slice(&base.reserved.to_le_bytes());
                out.extend_from_slice(&base.swept.to_le_bytes());
            }
            Record::Entry { entry, late } => {
                out.push(if *late { LATE } else { ENTRY });
                encode_entry(entry, out);
            }
            Record::Reserve(upto) => {
                out.push(RESERVE);
                out.extend_from_slice(&upto.to_le_bytes());
            }
            Record::Swept(upto) => {
                out.push(SWEPT);
                out.extend_from_slice(&upto.to_le_bytes());
            }
        }
        let (_, record) = out.split_at_mut(start);
        let (head, body) = record.split_at_mut(RECORD_HEAD);
        let length = match u32::try_from(body.len()) {
            Ok(length) if body.len() <= MAX_RECORD => length.to_le_bytes(),
            _ => {
                out.truncate(start);
                return false;
            }
        };
        head[..4].copy_from_slice(&length);
        head[4..].copy_from_slice(&checksum(seed, &[&length, body]).to_le_bytes());
        true
    }

    /// Reads what is behind a record's head. `None` where it says nothing that this version could have written.
    pub fn decode(body: &[u8]) -> Option<Record> {
        let (kind, mut rest) = body.split_first()?;
        let rest = &mut rest;
        let record = match *kind {
            BASE => Record::Base(Base { compacted: number(rest)?, reserved: number(rest)?, swept: number(rest)? }),
            ENTRY => Record::Entry { entry: Arc::new(decode_entry(rest)?), late: false },
            LATE => Record::Entry { entry: Arc::new(decode_entry(rest)?), late: true },
            RESERVE => Record::Reserve(number(rest)?),
            SWEPT => Record::Swept(number(rest)?),
            _ => return None,
        };
        rest.is_empty().then_some(record)
    }

    /// Bytes that it takes, at least as many as are written of it.
    pub fn weight(&self) -> usize {
        match self {
            Record::Entry { entry, .. } => weight(entry),
            _ => 40,
        }
    }
}

/// What a record's head says: how many bytes follow, and their checksum.
pub fn head(bytes: &[u8; RECORD_HEAD]) -> (usize, u32) {
    let length = u32::from_le_bytes(part(bytes, 0));
    (usize::try_from(length).unwrap_or(usize::MAX), u32::from_le_bytes(part(bytes, 4)))
}

/// The checksum of the bytes behind a record's head.
pub fn record_sum(seed: u32, body: &[u8]) -> u32 {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    checksum(seed, &[&length.to_le_bytes(), body])
}

/// Bytes that an entry takes, at least as many as are written of it.
pub fn weight(entry: &Entry) -> usize {
    let of = |selector: &Selector| match selector {
        Selector::Everything => 0,
        Selector::Site(name) | Selector::Host(name) | Selector::Tag(name) => name.len(),
        Selector::Prefix { host, path, .. } => host.len().saturating_add(path.len()),
        Selector::Url { host, path, query } => {
            host.len().saturating_add(path.len()).saturating_add(query.as_ref().map_or(0, |query| query.len()))
        }
        Selector::Group { host, name } => host.len().saturating_add(name.len()),
    };
    let selectors = entry.selectors.iter().map(|selector| of(selector).saturating_add(SELECTOR_WEIGHT));
    selectors.fold(ENTRY_WEIGHT, usize::saturating_add)
}

/// What a selector takes beside its texts, and an entry beside its selectors: more than is written.
const SELECTOR_WEIGHT: usize = 32;
const ENTRY_WEIGHT: usize = 64;

fn encode_entry(entry: &Entry, out: &mut Vec<u8>) {
    out.extend_from_slice(&entry.sequence.to_le_bytes());
    out.extend_from_slice(&entry.at.as_millis().to_le_bytes());
    out.push(u8::from(entry.soft));
    out.push(entry.by as u8);
    out.extend_from_slice(&u32::try_from(entry.selectors.len()).unwrap_or(u32::MAX).to_le_bytes());
    for selector in &entry.selectors {
        selector.encode(out);
    }
}

fn decode_entry(from: &mut &[u8]) -> Option<Entry> {
    let sequence = number(from)?;
    let at = Timestamp::from_millis(i64::from_le_bytes(take(from)?));
    let soft = match take::<1>(from)? {
        [0] => false,
        [1] => true,
        _ => return None,
    };
    let [by] = take::<1>(from)?;
    let by = By::ALL.into_iter().find(|known| *known as u8 == by)?;
    let count = usize::try_from(u32::from_le_bytes(take(from)?)).ok()?;
    // A selector is one byte at the least.
    if count > Entry::MAX_SELECTORS.min(from.len()) {
        return None;
    }
    let selectors: Option<Box<[Selector]>> = (0..count).map(|_| Selector::decode(from)).collect();
    Some(Entry { sequence, at, soft, by, selectors: selectors? })
}

fn checksum(seed: u32, parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize()
}

fn number(from: &mut &[u8]) -> Option<u64> {
    take(from).map(u64::from_le_bytes)
}

fn take<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(*taken)
}

/// The bytes at an offset that is within.
fn part<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    std::array::from_fn(|i| bytes[at + i])
}
