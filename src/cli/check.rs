//! `foreland check`: says whether a file would be accepted.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use crate::config;

/// Checks `file`: prints every mistake and returns 1, or prints `FILE: ok` and returns 0. With `effective`, prints the
/// whole policy with its defaults instead. Remarks go to standard error.
pub fn check(file: &Path, effective: bool) -> ExitCode {
    let config = match config::load(file) {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("{errors}");
            return ExitCode::FAILURE;
        }
    };
    for warning in &config.warnings {
        eprintln!("{warning} (warning)");
    }
    let text = if effective { config::effective(&config) } else { format!("{}: ok\n", file.display()) };
    print(&text)
}

/// Prints to standard output. A reader that has gone away (`| head`) is a failure, not a panic.
pub(super) fn print(text: &str) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
