//! The store: a memory tier over disks, the fills that are on their way into them, and the `Storage` of Pingora over
//! all of it.

mod current;
mod disk;
mod failures;
mod fill;
mod key;
mod meeting;
mod memory;
#[cfg(test)]
mod model_tests;
mod object;
mod reading;
mod sketch;
mod storage;
#[expect(clippy::module_inception, reason = "the store itself")]
mod store;
#[cfg(test)]
mod testing;
mod tidying;
mod uncacheable;

pub use disk::{
    Begin, Cause, Defect, Disk, Disks, Kind, Load, Phase, PoolError, READ_BUCKETS, Refused, Seen, StoredFile, Usage,
    Variants,
};
pub use failures::Failures;
pub use fill::{Fill, MAX_LAG, Written};
pub use key::{ObjectId, ObjectKey};
pub use memory::{MemoryTier, MemoryUsage};
pub use object::{Body, Head, Object, Record, meta_of, write_field};
pub use reading::{Followed, PIECE, Whole};
pub use storage::{Looked, Writer};
pub use store::{Rejection, Store};
pub use uncacheable::{Expect, Uncacheable};
