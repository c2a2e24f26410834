//! The store: a memory tier, the fills that are on their way into it, and the `Storage` of Pingora over both.

mod disk;
mod failures;
mod fill;
mod key;
mod memory;
mod object;
mod sketch;
mod storage;
mod uncacheable;

pub use failures::Failures;
pub use fill::{Fill, MAX_LAG, Written};
pub use key::{ObjectId, ObjectKey};
pub use memory::{MemoryTier, MemoryUsage};
pub use object::{Head, Object, Record, UrlMark, meta_of, write_field};
pub use storage::{Followed, Rejection, Store, Whole, Writer};
pub use uncacheable::{Expect, Uncacheable};
