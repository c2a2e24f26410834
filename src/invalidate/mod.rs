//! Invalidation: what has been purged, in which order, and whether that concerns what is stored.

pub mod entry;
pub mod journal;
pub mod request;
pub mod resolve;
pub mod selector;

pub use entry::{By, Entry};
pub use request::{Purge, WrongSelector};
pub use resolve::resolve;
pub use selector::{Selector, scheme_of};
