//! A set of the 256 folders that objects are spread over.

/// A bit for each folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Folders([u64; 4]);

impl Folders {
    pub fn add(&mut self, byte: u8) {
        self.0[usize::from(byte / 64)] |= 1 << (byte % 64);
    }

    pub fn remove(&mut self, byte: u8) {
        self.0[usize::from(byte / 64)] &= !(1 << (byte % 64));
    }

    pub fn has(&self, byte: u8) -> bool {
        self.0[usize::from(byte / 64)] & (1 << (byte % 64)) != 0
    }

    pub fn count(&self) -> u64 {
        self.0.iter().map(|bits| u64::from(bits.count_ones())).sum()
    }
}
