//! The real binary, against real origins. One test program, linked once; a file per subject.
//!
//! A test reads: *origin says, client asks, edge answers, origin saw*. See `harness` for the tools.

mod access_log;
mod admin;
mod balancing;
mod bodies;
mod collapsing;
mod demo;
mod discovery;
mod disk;
mod disk_admin;
mod disk_faults;
mod explain;
mod filling;
mod forwarding;
mod framing;
mod freshness;
mod harness;
mod hits;
mod http2;
mod interim;
mod key;
mod large;
mod limits;
mod load;
mod log_file;
mod methods;
mod metrics;
mod openapi;
mod origin_failures;
mod over;
mod purge;
mod purge_cli;
mod purge_method;
mod reload;
mod revalidation;
mod routing;
mod rules;
mod sharing;
mod stale;
mod startup;
mod stop;
mod syntax;
mod systemd;
mod upgrade;
mod windows;
