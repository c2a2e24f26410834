//! What is read back, after what.

mod reading;
mod sharing;
mod thread;
mod writing;
