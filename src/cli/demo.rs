//! `foreland demo`: an edge before three origins that live in the same process. No files, nothing to install.

mod banner;
mod config;
mod control;
mod image;
mod origins;

pub use banner::banner;
pub use config::config_yaml;
pub use control::start;

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use crate::edge::{self, Launch};

/// Where the first origin and the control endpoint listen, or the next free ports.
const FIRST_PORT: u16 = 9001;
const CONTROL_PORT: u16 = 9000;

/// Runs the origins and an edge in front of them until a signal ends it.
pub fn run(edge: SocketAddr, admin: SocketAddr) -> ExitCode {
    super::init_log();
    let failed = |why: String| {
        eprintln!("foreland: demo: {why}");
        ExitCode::FAILURE
    };
    // The origins have a runtime of their own, as real ones would have machines of their own.
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return failed(format!("starting the origins: {e}")),
    };
    let origins = match runtime.block_on(start(FIRST_PORT, CONTROL_PORT)) {
        Ok(origins) => origins,
        Err(e) => return failed(format!("starting the origins: {e}")),
    };
    let (edge, admin) = (edge.to_string(), admin.to_string());
    let text = config_yaml(&origins.addresses, &edge, &admin);
    let config = match crate::config::parse(&text, None, Path::new("/")) {
        Ok(config) => config,
        Err(errors) => return failed(format!("its own configuration:\n{errors}")),
    };
    let banner = banner(&origins.addresses, origins.control, &edge, &admin);
    edge::run(Launch { config, upgrade: false, ready: Box::new(move || println!("{banner}")) })
}
