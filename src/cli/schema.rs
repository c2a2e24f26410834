//! `foreland schema`: describes the configuration file.

use std::process::ExitCode;

use super::check::print;
use crate::config;

/// Prints the JSON Schema, or the reference page as Markdown.
pub fn schema(markdown: bool) -> ExitCode {
    print(&if markdown { config::reference() } else { config::schema() })
}
