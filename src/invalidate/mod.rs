//! Invalidation: what has been purged, in which order, and whether that concerns what is stored.
//!
//! A purge removes nothing. It is an entry in the [`Ledger`], and each hit compares what it found with the entries that
//! are later than that: so a purge takes the same time whatever is stored, and is in force at once.

mod copies;
mod entry;
pub mod journal;
mod ledger;
mod marks;
mod request;
mod resolve;
mod selector;
mod subject;

pub use copies::Writing;
pub use entry::{By, Entry};
pub use ledger::{Appended, Ledger, NEVER, Recent, SHOWN};
pub use marks::{Marks, Verdict};
pub use request::{Purge, WrongSelector};
pub use resolve::resolve;
pub use selector::{Selector, scheme_of};
pub use subject::{Subject, without_port};
