//! What a journal needs of the place that it is kept in.

use std::io;

/// A folder in which there is a journal. Every method may block. A name belongs to the folder as it is at the time of
/// the call: where another has come to its place, to that.
pub trait Medium: Send + Sync + 'static {
    /// For the log: where it is.
    fn name(&self) -> String;

    /// Opens the journal's file for reading and writing. `NotFound` where there is none.
    fn open(&self) -> io::Result<Box<dyn File>>;

    /// Creates an empty file that is to replace the journal's, and removes what an earlier attempt has left of one.
    fn create(&self) -> io::Result<Box<dyn File>>;

    /// Gives the file that was created last the journal's name, at once in the place of what was there. That is on the
    /// disk after [`sync_folder`](Medium::sync_folder) alone.
    fn publish(&self) -> io::Result<()>;

    /// Removes what there may be of a file that was created and not published.
    fn discard(&self) -> io::Result<()>;

    /// Waits until the names are on the disk.
    fn sync_folder(&self) -> io::Result<()>;
}

/// An open file.
pub trait File: Send + Sync + 'static {
    /// Whether the journal's name leads to this file.
    fn is_current(&self) -> io::Result<bool>;

    fn stat(&self) -> io::Result<Stat>;

    /// Reads at an offset until the buffer is full or the file ends; how many bytes it was.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes all of it at an offset. After an error some of it may have been written.
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Waits until what was written, and the length, are on the disk. After an error nothing that was written since the
    /// last time may be taken for written, even if it can be read.
    fn sync(&self) -> io::Result<()>;

    fn truncate(&self, length: u64) -> io::Result<()>;

    /// Waits for the file's advisory lock, of which there is one for all processes. Having it already does no harm.
    fn lock(&self) -> io::Result<()>;

    fn unlock(&self) -> io::Result<()>;
}

/// What is known of an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Bytes.
    pub length: u64,
    /// It has a name. One that has been replaced or removed has none.
    pub linked: bool,
}
