//! The disk tier: one self-describing file for each object, found by its name.

pub mod faults;
pub mod format;
pub mod health;
pub mod index;
pub mod io;
pub mod pool;
pub mod residency;
pub mod snapshot;
