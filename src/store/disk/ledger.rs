//! The place of the ledger's journal: a file in the disk's own folder.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use super::io::Io;
use crate::invalidate::journal::{File, Medium, Stat};

const NAME: &str = "ledger";

/// What is to take its place.
const NEW: &str = "ledger.new";

/// A folder for a ledger that is on no disk. It is made, with those above it, where there is none.
///
/// # Errors
/// It cannot be opened.
pub fn meeting_place(folder: &Path) -> io::Result<Io> {
    let place = Io::new(folder, "meeting");
    place.reopen()?;
    Ok(place)
}

/// The file that a disk's journal is, open.
struct LedgerFile {
    io: Io,
    file: OwnedFd,
}

impl Medium for Io {
    fn name(&self) -> String {
        self.path().join(NAME).display().to_string()
    }

    fn open(&self) -> io::Result<Box<dyn File>> {
        let file = self.open_writable(Path::new(NAME))?;
        Ok(Box::new(LedgerFile { io: self.clone(), file }))
    }

    fn create(&self) -> io::Result<Box<dyn File>> {
        self.discard()?;
        let file = self.create_named(Path::new(NEW))?;
        Ok(Box::new(LedgerFile { io: self.clone(), file }))
    }

    fn publish(&self) -> io::Result<()> {
        self.rename(Path::new(NEW), Path::new(NAME))
    }

    fn discard(&self) -> io::Result<()> {
        match self.unlink(Path::new(NEW)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn sync_folder(&self) -> io::Result<()> {
        Io::sync_folder(self)
    }
}

impl File for LedgerFile {
    fn is_current(&self) -> io::Result<bool> {
        self.io.leads_to(Path::new(NAME), &self.file)
    }

    fn stat(&self) -> io::Result<Stat> {
        let stat = self.io.stat(&self.file)?;
        Ok(Stat { length: stat.size, linked: stat.links > 0 })
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.io.pread(&self.file, offset, buffer)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.io.pwrite_all(&self.file, offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.io.sync_data(&self.file)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.io.truncate(&self.file, length)
    }

    fn lock(&self) -> io::Result<()> {
        self.io.lock(&self.file)
    }

    fn unlock(&self) -> io::Result<()> {
        self.io.unlock(&self.file)
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
