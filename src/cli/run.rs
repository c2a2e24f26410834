//! `foreland run`

use std::path::Path;
use std::process::ExitCode;

use crate::config;
use crate::edge::{self, Launch};

/// Serves traffic until a signal ends it. 1 if the file is not valid or the process cannot start.
pub fn run(file: &Path, upgrade: bool) -> ExitCode {
    super::init_log();
    match config::load(file) {
        Ok(config) => edge::run(Launch { config, upgrade, ready: Box::new(|| ()) }),
        Err(errors) => {
            eprintln!("{errors}");
            ExitCode::FAILURE
        }
    }
}
