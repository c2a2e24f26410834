//! The real binary, against real origins. One test program, linked once; a file per subject.
//!
//! A test reads: *origin says, client asks, edge answers, origin saw*. See `harness` for the tools.

mod access_log;
mod admin;
mod balancing;
mod bodies;
mod demo;
mod forwarding;
mod harness;
mod limits;
mod load;
mod log_file;
mod metrics;
mod origin_failures;
mod reload;
mod routing;
mod startup;
mod stop;
mod syntax;
mod systemd;
mod upgrade;
