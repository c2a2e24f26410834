//! The disk tier: one self-describing file for each object, found by its name.

pub mod format;
pub mod index;
pub mod io;
pub mod pool;
pub mod snapshot;
