//! The form of an object's file, version 2: bytes in, bytes out. `docs/store.md` has it byte by byte.
//!
//! A file has two slots for a head and one descriptor that says which of them is in force. An update writes the other
//! slot and then, in one write of 64 bytes that lie in one sector, the descriptor: at every instant the file has the
//! old head or the new one, and nothing has to be written twice for it. What the descriptor does not point at is never
//! read, so that no defect brings an older head back.

mod cursor;
mod payload;
mod table;

use std::fmt;

use self::cursor::Cursor;
pub use self::table::{TableBuilder, check_block};
use crate::store::{Head, ObjectId};

/// The version that is written, and the only one that is read.
pub const VERSION: u32 = 2;

/// Bytes of the body under one checksum; the last block may be shorter.
pub const BLOCK: u64 = 1 << BLOCK_LOG2;

/// Bytes of the preamble, which is also where the descriptor lies.
pub const PREAMBLE: u64 = RECORD as u64;

/// What is worth reading first, in bytes: enough to decode nearly every head, and a small object as a whole.
pub const FIRST_READ: usize = 4096;

/// The largest slot, in bytes.
pub const MAX_CAPACITY: usize = 4 << 20;

const MAGIC: [u8; 8] = *b"FORELAND";
const BLOCK_LOG2: u8 = 16;

/// Bytes of the preamble and of the descriptor, each. A multiple of it never crosses a sector or a cache line.
const RECORD: usize = 64;

/// Where the slots begin.
const SLOTS: usize = 2 * RECORD;

/// Room for a validation to lengthen a head, and for the length of a body that was not known when the fill began.
const SLACK: usize = 192;

/// Where the parts of a file lie: fixed when its fill begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    id: ObjectId,
    /// Bytes of a slot, at most [`MAX_CAPACITY`].
    capacity: u32,
    /// The ledger in whose order the object began.
    ledger: u64,
}

impl Layout {
    /// A layout for a new object with room for a somewhat larger head. `None` where the head is too large to be stored.
    pub fn for_head(id: ObjectId, head: &Head, ledger: u64) -> Option<Layout> {
        let length = payload::length(head);
        if length > MAX_CAPACITY {
            return None;
        }
        let capacity = (length + SLACK).next_multiple_of(RECORD).min(MAX_CAPACITY);
        Some(Layout { id, capacity: u32::try_from(capacity).ok()?, ledger })
    }

    /// The object that the file is of.
    pub fn id(&self) -> ObjectId {
        self.id
    }

    /// The ledger in whose order the object's `began` is.
    pub fn ledger(&self) -> u64 {
        self.ledger
    }

    /// Bytes of each of the two slots.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Where the body begins.
    pub fn body_offset(&self) -> u64 {
        SLOTS as u64 + 2 * u64::from(self.capacity)
    }

    /// Where the table begins, after a body of this many bytes.
    pub fn table_offset(&self, body_len: u64) -> u64 {
        self.body_offset().saturating_add(body_len)
    }

    /// Bytes of the whole file.
    pub fn file_len(&self, body_len: u64) -> u64 {
        self.table_offset(body_len).saturating_add(table::length(body_len))
    }

    /// Heads take turns: the one with an even number lies in the first slot.
    fn slot_offset(&self, sequence: u64) -> usize {
        SLOTS + if sequence.is_multiple_of(2) { 0 } else { self.capacity as usize }
    }

    fn preamble(&self) -> [u8; RECORD] {
        let (version, capacity, ledger) =
            (VERSION.to_le_bytes(), self.capacity.to_le_bytes(), self.ledger.to_le_bytes());
        sealed(&[&MAGIC, &version, &capacity, &self.id.0, &[BLOCK_LOG2], &ledger])
    }

    fn of_preamble(wanted: ObjectId, preamble: &[u8; RECORD]) -> Result<Layout, Defect> {
        let mut fields = unsealed(preamble)?;
        // Magic and version are known already.
        fields.take(MAGIC.len() + size_of_val(&VERSION)).ok_or(Defect::Malformed)?;
        let capacity = fields.u32().ok_or(Defect::Malformed)?;
        let id = ObjectId(fields.array().ok_or(Defect::Malformed)?);
        let block = fields.array();
        let ledger = fields.u64().ok_or(Defect::Malformed)?;
        let fits = (1..=MAX_CAPACITY).contains(&(capacity as usize)) && (capacity as usize).is_multiple_of(RECORD);
        if !fits || block != Some([BLOCK_LOG2]) || !fields.is_zeros() {
            return Err(Defect::Malformed);
        }
        if id != wanted {
            return Err(Defect::WrongKey);
        }
        Ok(Layout { id, capacity, ledger })
    }

    /// What is to stand in a slot. `None` where it does not fit.
    fn slot(&self, head: &Head) -> Option<Slot> {
        let length = payload::length(head);
        if length > self.capacity as usize {
            return None;
        }
        let mut bytes = Vec::with_capacity(self.capacity as usize);
        payload::write(head, &mut bytes)?;
        let length = u32::try_from(bytes.len()).ok()?;
        bytes.resize(self.capacity as usize, 0);
        Some(Slot { crc: crc32fast::hash(&bytes), bytes, length })
    }
}

/// A slot's bytes, to its end; the payload is so many of them.
struct Slot {
    bytes: Vec<u8>,
    length: u32,
    crc: u32,
}

/// What a file says of itself beside the head: all that reading its body and updating its head take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    pub layout: Layout,
    /// Bytes of the body.
    pub body_len: u64,
    /// CRC-32 of the table's bytes.
    pub table_crc: u32,
    /// How often the head has been updated.
    pub sequence: u64,
}

impl State {
    fn descriptor(&self, slot: &Slot) -> [u8; RECORD] {
        let fields: [&[u8]; 6] = [
            &self.sequence.to_le_bytes(),
            &self.body_len.to_le_bytes(),
            &self.table_crc.to_le_bytes(),
            &slot.length.to_le_bytes(),
            &slot.crc.to_le_bytes(),
            &self.layout.id.0,
        ];
        sealed(&fields)
    }

    /// With the length of the payload and the CRC-32 of the slot.
    fn of_descriptor(layout: Layout, descriptor: &[u8; RECORD]) -> Result<(State, usize, u32), Defect> {
        let mut fields = unsealed(descriptor)?;
        let read = |fields: &mut Cursor<'_>| {
            let (sequence, body_len, table_crc) = (fields.u64()?, fields.u64()?, fields.u32()?);
            let (length, crc) = (fields.u32()? as usize, fields.u32()?);
            Some((State { layout, body_len, table_crc, sequence }, length, crc))
        };
        let read = read(&mut fields).ok_or(Defect::Malformed)?;
        let id = fields.array().ok_or(Defect::Malformed)?;
        if !fields.is_zeros() {
            return Err(Defect::Malformed);
        }
        // A descriptor that is whole, but another file's.
        if ObjectId(id) != layout.id {
            return Err(Defect::WrongKey);
        }
        Ok(read)
    }
}

/// What is read of a file at first: all but the body.
#[derive(Debug)]
pub struct Decoded {
    /// As it was stored. What `record.began` means is only for the ledger of [`Layout::ledger`].
    pub head: Head,
    pub state: State,
}

/// Why there is no head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undecoded {
    /// So many bytes from the start of the file are needed; there are that many.
    More(usize),
    Defect(Defect),
}

impl From<Defect> for Undecoded {
    fn from(defect: Defect) -> Undecoded {
        Undecoded::Defect(defect)
    }
}

/// What is wrong with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Defect {
    /// It does not begin as an object's file does.
    Magic,
    /// Another version of the program wrote it.
    Version,
    /// It is shorter or longer than it says.
    Length,
    /// A checksum is not that of the bytes.
    Checksum,
    /// It is another object's.
    WrongKey,
    /// The checksums are right, but what they cover is nothing that this program writes.
    Malformed,
}

impl Defect {
    pub const ALL: [Defect; 6] =
        [Defect::Magic, Defect::Version, Defect::Length, Defect::Checksum, Defect::WrongKey, Defect::Malformed];

    /// A stable word, for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Defect::Magic => "magic",
            Defect::Version => "version",
            Defect::Length => "length",
            Defect::Checksum => "checksum",
            Defect::WrongKey => "wrong-key",
            Defect::Malformed => "malformed",
        }
    }
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Defect::Magic => "not a file of the store",
            Defect::Version => "written by another version",
            Defect::Length => "shorter or longer than it says",
            Defect::Checksum => "a checksum does not match",
            Defect::WrongKey => "the file of another object",
            Defect::Malformed => "its checksums match, but its content makes no sense",
        })
    }
}

impl std::error::Error for Defect {}

/// What stands before the body of a file whose fill has ended, [`Layout::body_offset`] bytes, and what it then says of
/// itself. `None` where the head has outgrown the layout.
pub fn encode(layout: Layout, head: &Head, body_len: u64, table_crc: u32) -> Option<(Vec<u8>, State)> {
    let state = State { layout, body_len, table_crc, sequence: 0 };
    let slot = layout.slot(head)?;
    let end = usize::try_from(layout.body_offset()).ok()?;
    let mut bytes = Vec::with_capacity(end);
    bytes.extend_from_slice(&layout.preamble());
    bytes.extend_from_slice(&state.descriptor(&slot));
    bytes.extend_from_slice(&slot.bytes);
    bytes.resize(end, 0);
    Some((bytes, state))
}

/// Reads the head of an object's file from `bytes`, the first of the `file_len` that it has.
///
/// A file may be updated while it is read. The two do not meet unless the reader is overtaken by two updates: whoever
/// reads a file that can be updated takes [`Defect::Checksum`] for true when a second reading finds it too.
pub fn decode(id: ObjectId, bytes: &[u8], file_len: u64) -> Result<Decoded, Undecoded> {
    // Before all else, and of a short file too: every version begins with these two.
    if let Some((magic, rest)) = bytes.split_first_chunk() {
        if *magic != MAGIC {
            return Err(Defect::Magic.into());
        }
        if rest.first_chunk().is_some_and(|version| u32::from_le_bytes(*version) != VERSION) {
            return Err(Defect::Version.into());
        }
    }
    if file_len < SLOTS as u64 || bytes.len() as u64 > file_len {
        return Err(Defect::Length.into());
    }
    let more = Undecoded::More(SLOTS);
    let (preamble, rest) = bytes.split_first_chunk().ok_or(more)?;
    let descriptor = rest.first_chunk().ok_or(more)?;
    let layout = Layout::of_preamble(id, preamble)?;
    let (state, length, crc) = State::of_descriptor(layout, descriptor)?;
    if layout.file_len(state.body_len) != file_len {
        return Err(Defect::Length.into());
    }
    let start = layout.slot_offset(state.sequence);
    let end = start + layout.capacity as usize;
    let slot = bytes.get(start..end).ok_or(Undecoded::More(end))?;
    if crc32fast::hash(slot) != crc {
        return Err(Defect::Checksum.into());
    }
    let head = slot.get(..length).and_then(payload::read).ok_or(Defect::Malformed)?;
    Ok(Decoded { head, state })
}

/// Bytes to be written at an offset of a file, as one write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    pub offset: u64,
    pub bytes: Vec<u8>,
}

/// How a file gets another head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// To be done in this order. Until the second is done the old head is in force, then the new one.
    pub writes: [Write; 2],
    /// What the file says of itself from then on.
    pub state: State,
}

/// Another head for a file that is in this state. `None` where it does not fit the slot.
pub fn update(state: &State, head: &Head) -> Option<Update> {
    let state = State { sequence: state.sequence.checked_add(1)?, ..*state };
    let slot = state.layout.slot(head)?;
    let descriptor = Write { offset: PREAMBLE, bytes: state.descriptor(&slot).to_vec() };
    let payload = Write { offset: state.layout.slot_offset(state.sequence) as u64, bytes: slot.bytes };
    Some(Update { writes: [payload, descriptor], state })
}

/// The fields, zeros, and the CRC-32 of both. The fields are shorter than that.
fn sealed(fields: &[&[u8]]) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    let bytes = fields.iter().copied().flatten();
    record.iter_mut().zip(bytes).for_each(|(to, byte)| *to = *byte);
    let (covered, crc) = record.split_at_mut(RECORD - 4);
    crc.copy_from_slice(&crc32fast::hash(covered).to_le_bytes());
    record
}

/// What the CRC-32 at the end of a record covers, if it does.
fn unsealed(record: &[u8; RECORD]) -> Result<Cursor<'_>, Defect> {
    let (covered, crc) = record.split_last_chunk().ok_or(Defect::Malformed)?;
    if crc32fast::hash(covered) != u32::from_le_bytes(*crc) {
        return Err(Defect::Checksum);
    }
    Ok(Cursor(covered))
}

#[cfg(test)]
mod tests;
