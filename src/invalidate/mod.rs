//! Invalidation: what has been purged, in which order, and whether that concerns what is stored.

pub mod entry;
pub mod journal;
pub mod selector;

pub use entry::{By, Entry};
pub use selector::Selector;
