//! A hash that is the same in every process.

use std::fmt;

/// FNV-1a of 64 bits, its bits mixed in the end: edges side by side, and one after a restart, come to the same servers.
#[derive(Clone, Copy, Debug)]
pub struct StableHash(u64);

impl StableHash {
    #[expect(clippy::new_without_default, reason = "an empty hash is a beginning, not a value")]
    pub fn new() -> StableHash {
        StableHash(0xCBF2_9CE4_8422_2325)
    }

    /// With further bytes.
    #[must_use]
    pub fn with(mut self, bytes: &[u8]) -> StableHash {
        self.add(bytes);
        self
    }

    /// With one more part: parts are told apart by more than their bytes in a row.
    #[must_use]
    pub fn part(self, bytes: &[u8]) -> StableHash {
        self.with(&(bytes.len() as u64).to_le_bytes()).with(bytes)
    }

    pub fn finish(self) -> u64 {
        // Short inputs that differ in their last byte alone differ in few of FNV's upper bits.
        let mixed = (self.0 ^ (self.0 >> 33)).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
        let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
        mixed ^ (mixed >> 33)
    }

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
        }
    }
}

/// So that what can be displayed is hashed without a text of it.
impl fmt::Write for StableHash {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.add(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_changes() {
        // Servers are named by it in cookies that outlive the process.
        assert_eq!(StableHash::new().0, 0xCBF2_9CE4_8422_2325);
        assert_eq!(StableHash::new().with(b"foobar").0, 0x8594_4171_F739_67E8, "the vector of FNV's authors");
    }

    #[test]
    fn parts_are_told_apart() {
        let of = |parts: &[&[u8]]| parts.iter().fold(StableHash::new(), |hash, part| hash.part(part)).finish();
        assert_ne!(of(&[b"ab", b"c"]), of(&[b"a", b"bc"]));
        assert_ne!(of(&[b"a"]), of(&[b"a", b""]));
        assert_eq!(of(&[b"a", b"b"]), of(&[b"a", b"b"]));
    }

    #[test]
    fn similar_inputs_scatter() {
        let mut buckets = [0usize; 16];
        for n in 0..16_000 {
            buckets[(StableHash::new().with(format!("10.0.0.{n}").as_bytes()).finish() >> 60) as usize] += 1;
        }
        super::super::testing::assert_shares(&buckets, &[1; 16]);
    }
}
