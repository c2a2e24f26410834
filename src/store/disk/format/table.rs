//! The checksums of a body's blocks.

use std::mem;

use crc32fast::Hasher;

use super::BLOCK;
#[cfg(test)]
use super::{Defect, State};

/// Bytes of an entry.
const ENTRY: usize = 4;

/// Bytes of the table of a body of this many.
pub(super) fn length(body_len: u64) -> u64 {
    // At most 2^50: a body has fewer than 2^64 bytes.
    body_len.div_ceil(BLOCK) * ENTRY as u64
}

/// Whether this is the block that an entry of the table is of.
pub fn check_block(entry: u32, block: &[u8]) -> bool {
    crc32fast::hash(block) == entry
}

/// The CRC-32 of each block of a whole body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table(Box<[u32]>);

impl Table {
    /// Reads the table of a file in this state from all of its bytes.
    #[cfg(test)]
    pub fn decode(state: &State, bytes: &[u8]) -> Result<Table, Defect> {
        if bytes.len() as u64 != length(state.body_len) {
            return Err(Defect::Length);
        }
        if crc32fast::hash(bytes) != state.table_crc {
            return Err(Defect::Checksum);
        }
        let (entries, _) = bytes.as_chunks::<ENTRY>();
        Ok(Table(entries.iter().map(|entry| u32::from_le_bytes(*entry)).collect()))
    }

    /// The table as it stands in the file.
    pub fn encode(&self) -> Vec<u8> {
        self.0.iter().flat_map(|entry| entry.to_le_bytes()).collect()
    }

    /// CRC-32 of [`Table::encode`].
    pub fn crc(&self) -> u32 {
        let mut hasher = Hasher::new();
        self.0.iter().for_each(|entry| hasher.update(&entry.to_le_bytes()));
        hasher.finalize()
    }

    /// One entry a block.
    #[cfg(test)]
    pub fn entries(&self) -> &[u32] {
        &self.0
    }

    /// Whether this is the body's block of this number.
    #[cfg(test)]
    pub fn check(&self, index: usize, block: &[u8]) -> bool {
        self.0.get(index).is_some_and(|entry| check_block(*entry, block))
    }
}

/// Makes the table of a body as the body comes, in pieces of any size.
#[derive(Clone, Debug, Default)]
pub struct TableBuilder {
    whole: Vec<u32>,
    /// Of the block that is not whole yet.
    hasher: Hasher,
    /// Bytes of that block.
    filled: usize,
}

impl TableBuilder {
    /// The next bytes of the body.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(BLOCK as usize - self.filled));
            self.hasher.update(now);
            self.filled += now.len();
            if self.filled as u64 == BLOCK {
                self.end_block();
            }
            bytes = rest;
        }
    }

    /// The entries of the blocks that are whole so far.
    pub fn entries(&self) -> &[u32] {
        &self.whole
    }

    /// Bytes of the body so far.
    #[cfg(test)]
    pub fn body_len(&self) -> u64 {
        self.whole.len() as u64 * BLOCK + self.filled as u64
    }

    /// The table of a body that ends here.
    pub fn finish(mut self) -> Table {
        if self.filled > 0 {
            self.end_block();
        }
        Table(self.whole.into_boxed_slice())
    }

    fn end_block(&mut self) {
        self.whole.push(mem::take(&mut self.hasher).finalize());
        self.filled = 0;
    }
}
