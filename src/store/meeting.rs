//! One ledger for two processes during an upgrade: that of the disks, or, where there are none, one in a folder beside the
//! upgrade socket for as long as both are there.

use std::io;
use std::path::Path;

use super::disk::meeting_place;
use super::store::Store;

impl Store {
    /// A new process is about to take over: it finds the ledger, and both append to it from now on. Blocks.
    ///
    /// # Errors
    /// The folder cannot be used: what either process purges will not be known to the other.
    pub fn meet(&self, folder: &Path) -> io::Result<()> {
        let ledger = self.ledger();
        if self.disks().is_empty() {
            let place = meeting_place(folder)?;
            // What there may be is of an upgrade before.
            ledger.attach(place, None, false)?;
        }
        ledger.share(true)
    }

    /// This is the new process: takes part in the ledger of the old one. Blocks. False where there is nothing to be done:
    /// it is that of the disks.
    ///
    /// # Errors
    /// The old process's ledger cannot be used.
    pub fn join(&self, folder: &Path) -> io::Result<bool> {
        if !self.disks().is_empty() {
            return Ok(false);
        }
        let (ledger, place) = (self.ledger(), meeting_place(folder)?);
        let found = ledger.load(&[&place]).pop().and_then(Result::ok);
        if found.is_none() {
            ledger.detach();
            return Err(io::Error::new(io::ErrorKind::NotFound, "the running process has left none there"));
        }
        ledger.attach(place, found, true)?;
        ledger.share(true)?;
        ledger.go_beyond();
        Ok(true)
    }

    /// The other process is not there any more, or has not come. Blocks.
    pub fn part(&self, folder: &Path) {
        if let Err(e) = self.ledger().share(false) {
            log::warn!("what the other process has purged last is not known: {e}");
        }
        if self.disks().is_empty() {
            self.ledger().detach();
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}
