//! How far a long list has come, on a terminal.

use std::fs::File;
use std::io::{self, IsTerminal, Seek};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::text::thousands;

/// A bar on standard error; nothing at all unless that is a terminal, and before it is begun.
pub struct Progress {
    wanted: bool,
    /// Of the list, in bytes; `None`: nobody knows.
    length: Option<u64>,
    bar: ProgressBar,
}

impl Progress {
    pub fn new(wanted: bool, length: Option<u64>) -> Progress {
        Progress { wanted: wanted && io::stderr().is_terminal(), length, bar: ProgressBar::hidden() }
    }

    /// Shows it, if it is not shown yet: so much has been done.
    pub fn show(&mut self, selectors: u64, bytes: u64) {
        if !self.wanted {
            return;
        }
        if self.bar.is_hidden() {
            self.bar = ProgressBar::with_draw_target(self.length, ProgressDrawTarget::stderr());
            let template = match self.length {
                Some(_) => "[{bar:30}] {percent}%  {msg} selectors  {elapsed}, {eta} left",
                None => "{msg} selectors  {elapsed}",
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                self.bar.set_style(style.progress_chars("=> "));
            }
        }
        self.bar.set_message(thousands(selectors));
        self.bar.set_position(bytes);
    }

    /// Does what prints, with the bar out of its way.
    pub fn aside<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bar.suspend(print)
    }

    /// Leaves no trace of it.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}

/// What is left to read of a file, in bytes; `None`: it is a pipe or the like.
pub fn left(mut file: &File) -> Option<u64> {
    let metadata = file.metadata().ok().filter(|metadata| metadata.is_file())?;
    Some(metadata.len().saturating_sub(file.stream_position().ok()?))
}
