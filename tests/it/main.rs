//! The real binary, against real origins. One test program, linked once; a file per subject.
//!
//! A test reads: *origin says, client asks, edge answers, origin saw*. See `harness` for the tools.

mod harness;

mod collapsing;
mod filling;
mod framing;
mod freshness;
mod hits;
mod key;
mod large;
mod over;
mod revalidation;
mod sharing;
mod stale;
