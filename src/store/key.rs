//! What an object is found by.

use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};

use pingora_cache::CacheKey;
use pingora_cache::key::{CacheHashKey, HashBinary};
use sha2::{Digest, Sha256};

/// The cache key's hash and, for a secondary variant, the hash of the request fields that select it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectKey {
    /// The first 128 bits of the SHA-256 of the key's text.
    pub primary: HashBinary,
    /// `None` for the first variant of a resource and for resources that do not vary.
    pub variance: Option<HashBinary>,
}

impl ObjectKey {
    /// The object a key of Pingora's stands for.
    pub fn of(key: &CacheKey) -> ObjectKey {
        ObjectKey { primary: key.primary_bin(), variance: key.get_variance_key().copied() }
    }

    /// The name of the object: what both tiers find it by.
    pub fn id(&self) -> ObjectId {
        let Some(variance) = &self.variance else { return ObjectId(self.primary) };
        let hash = Sha256::new().chain_update(self.primary).chain_update(variance).finalize();
        let mut id = self.primary;
        id[8..].copy_from_slice(&hash[..8]);
        ObjectId(id)
    }

    /// The slot in which a resource is looked up first.
    pub fn primary(primary: HashBinary) -> ObjectKey {
        ObjectKey { primary, variance: None }
    }
}

/// An object's name: the key's hash, of which the further variants of a resource share the first 64 bits. The other 64
/// are then of the SHA-256 of the key's hash and the variant's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectId(pub [u8; 16]);

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Hash for ObjectId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let half = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| self.0[at + i]));
        // The first half alone is the same for all variants of a resource.
        state.write_u64(half(0) ^ half(8));
    }
}

impl Hash for ObjectKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let half = |hash: &HashBinary| u64::from_ne_bytes(std::array::from_fn(|i| hash[i]));
        state.write_u64(half(&self.primary) ^ self.variance.as_ref().map_or(0, half));
    }
}

/// The keys are SHA-256 already: hashing them again would only cost time.
#[derive(Clone, Copy, Default)]
pub struct AlreadyHashed(u64);

impl BuildHasher for AlreadyHashed {
    type Hasher = AlreadyHashed;

    fn build_hasher(&self) -> AlreadyHashed {
        AlreadyHashed(0)
    }
}

impl Hasher for AlreadyHashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_ne_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = self.0.rotate_left(32) ^ word;
    }
}
