//! The real binary, against real origins. One test program, linked once; a file per subject.
//!
//! A test reads: *origin says, client asks, edge answers, origin saw*. See `harness` for the tools.

mod access_log;
mod harness;
mod load;
mod log_file;
