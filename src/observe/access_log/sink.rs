//! Where lines go.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

/// A log names whoever asked for what: the owner writes, the group reads, nobody else.
const MODE: u32 = 0o640;

/// Something that takes bytes, and may fail at any of them.
pub trait Sink: Send + 'static {
    /// As [`Write::write`]. Whatever it does not take is offered again.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Opens it again by its name. Returns whether what is written now goes elsewhere than before; after an error it
    /// still goes where it went.
    fn reopen(&mut self) -> io::Result<bool>;

    /// How to call it in messages.
    fn name(&self) -> String;
}

/// A file that grows at its end.
pub struct LogFile {
    path: PathBuf,
    file: File,
}

impl LogFile {
    /// # Errors
    /// The system's, with the path in its text.
    pub fn open(path: PathBuf) -> io::Result<LogFile> {
        let file = open(&path).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
        Ok(LogFile { path, file })
    }
}

impl Sink for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn reopen(&mut self) -> io::Result<bool> {
        let file = open(&self.path)?;
        let (old, new) = (self.file.metadata()?, file.metadata()?);
        self.file = file;
        Ok((old.dev(), old.ino()) != (new.dev(), new.ino()))
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}

fn open(path: &PathBuf) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    OpenOptions::new().append(true).create(true).mode(MODE).open(path)
}

/// The process's standard output, without the buffer and the lock of [`std::io::Stdout`].
pub struct Stdout(File);

impl Stdout {
    pub fn new() -> io::Result<Stdout> {
        Ok(Stdout(File::from(io::stdout().as_fd().try_clone_to_owned()?)))
    }
}

impl Sink for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn reopen(&mut self) -> io::Result<bool> {
        Ok(false)
    }

    fn name(&self) -> String {
        "standard output".to_owned()
    }
}
