//! The disk tier under strain: disks that fail, fill up, stall or vanish, and what must hold all the same.

mod admission;
mod bounds;
mod faults;
pub mod faulty;
mod folder;
mod many;
mod slow;
mod streaming;
mod tmpfs;
