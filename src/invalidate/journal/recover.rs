//! After a failure: going on where the file is known to be durable, or beginning it anew.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use log::{info, warn};

use super::ack::{Ack, Unwritten};
use super::format::{Base, RECORDS_AT, Record};
use super::medium::File;
use super::read::{Known, Next, Scan, Unreadable, header};
use super::replace::{NotReplaced, Replacement};
use super::writer::{BEGUN_ANEW, Pending, State, Writer};

/// Bytes that are written again at once.
const CHUNK: u64 = 1 << 20;

impl Writer {
    /// From time to time: sees whether the file is still there and, where something is wrong, tries to put it right.
    pub fn tick(&mut self) {
        match self.state {
            // It sees that, too.
            State::Well => self.place([]),
            _ => self.recover(),
        }
    }

    pub(super) fn recover(&mut self) {
        let recovered = match self.state {
            State::Well => return,
            State::Lost => self.begin_anew(),
            State::Unpublished => self.publish_again(),
            State::Behind => self.reopen(),
        };
        match recovered {
            Ok(()) if self.state == State::Well => self.well(),
            // Something else went wrong, and has been told.
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidData => self.lose(error.to_string(), []),
            Err(error) => self.why = error.to_string(),
        }
    }

    fn well(&self) {
        if self.status.behind.swap(false, Ordering::AcqRel) {
            info!("{}: what is purged is durable again", self.medium.name());
        }
    }

    /// Something is missing in the file, and will be: it is begun anew, at once if possible. What has been stored on
    /// this disk until now cannot be vouched for.
    pub(super) fn lose(&mut self, why: String, group: impl IntoIterator<Item = Pending>) {
        warn!(
            "{}: the ledger on this disk begins anew, and what is stored there will be stale: {why}",
            self.medium.name()
        );
        let unsynced = std::mem::take(&mut self.unsynced);
        let orphans: Vec<Pending> = unsynced.into_iter().chain(group).collect();
        self.status.behind.store(true, Ordering::Release);
        (self.why, self.state) = (why, State::Lost);
        self.set_file(None);
        self.take_backlog();
        // Each time another one, whether there have been entries since the last time or not.
        let above = self.status.floor.load(Ordering::Acquire) + 1;
        self.status.floor.fetch_max(self.highest().max(above), Ordering::AcqRel);
        let begun = self.begin_anew();
        match &begun {
            Ok(()) => self.well(),
            Err(error) => self.why = error.to_string(),
        }
        for Pending { record, ack } in orphans {
            ack.tell(match (&begun, record) {
                (Err(error), _) => Err(Unwritten::Failed(error.to_string())),
                (Ok(()), Record::Swept(_)) => Err(Unwritten::Refused(BEGUN_ANEW)),
                // Its base is above.
                (Ok(()), _) => Ok(()),
            });
        }
    }

    /// The highest sequence there is.
    fn highest(&self) -> u64 {
        (self.hooks.last)().max(self.seen).max(self.known.head).max(self.known.base.compacted)
    }

    /// A file that says nothing but that everything before it may be missing.
    fn begin_anew(&mut self) -> io::Result<()> {
        let compacted = self.highest();
        let base = Base { compacted, reserved: self.reserved.max(compacted), swept: 0 };
        let made = Replacement::begin(&*self.medium, self.header.id, base).map(|made| made.finish(&*self.medium));
        match made? {
            Ok(fresh) => {
                self.take(fresh);
                self.status.floor.fetch_max(compacted, Ordering::AcqRel);
                self.state = State::Well;
                Ok(())
            }
            Err(NotReplaced::Kept(error) | NotReplaced::Unsettled(_, error)) => Err(error),
        }
    }

    /// Writes the file once more: a folder that could not be synced may say the next time that it is, and not be.
    fn publish_again(&mut self) -> io::Result<()> {
        if !self.file()?.is_current()? {
            self.lose("its file is not there any more".to_owned(), []);
            return Ok(());
        }
        self.rewrite(0, |_, _| true)?;
        self.state = State::Well;
        self.work_off()
    }

    /// Opens the file again, and goes on behind what is known to be durable.
    fn reopen(&mut self) -> io::Result<()> {
        let file: Arc<dyn File> = match self.medium.open() {
            Ok(file) => Arc::from(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.lose("its file is not there any more".to_owned(), []);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let header = match header(&*file) {
            Ok(header) => header,
            Err(Unreadable::Io(error)) => return Err(error),
            Err(other) => {
                self.lose(other.to_string(), []);
                return Ok(());
            }
        };
        let anew = header != self.header;
        if header.id != self.header.id || (anew && !self.shared) {
            self.lose("another file is in its place".to_owned(), []);
            return Ok(());
        }
        if anew {
            // The other process has begun it anew.
            self.header = header;
            (self.known, self.length) = (Known::default(), RECORDS_AT);
            (self.synced_known, self.synced) = (self.known, self.length);
        }
        self.set_file(Some(file));
        self.state = State::Well;
        let from = self.synced;
        let recovered = self.locked(|writer| {
            if !writer.shared {
                writer.cut()?;
            }
            if anew {
                writer.medium.sync_folder()?;
            }
            if !writer.known.begun {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "it has no beginning"));
            }
            writer.redo(from)
        });
        if let Err(error) = recovered {
            self.fail(error.to_string(), []);
            return Err(error);
        }
        if from == RECORDS_AT {
            self.status.floor.fetch_max(self.known.base.compacted, Ordering::AcqRel);
        }
        self.work_off()
    }

    /// Writes what waits. Nobody is told any more.
    fn work_off(&mut self) -> io::Result<()> {
        let backlog = self.take_backlog();
        let mut group: VecDeque<Pending> =
            backlog.into_iter().map(|record| Pending { record, ack: Ack::none() }).collect();
        let done = self.locked(|writer| writer.append(&mut group)).and_then(|()| self.file()?.sync());
        if let Err(error) = done {
            self.fail(error.to_string(), group);
            return Err(error);
        }
        self.unsynced.clear();
        self.settled();
        if let Err(error) = self.commit() {
            self.fail(error.to_string(), []);
            return Err(error);
        }
        Ok(())
    }

    /// Cuts off what follows the last record that is known, and waits until that is on the disk: what is appended next
    /// must not be joined to what was there.
    pub(super) fn cut(&mut self) -> io::Result<()> {
        let file = self.file()?;
        let length = file.stat()?.length;
        if length < self.length {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "its file has become shorter"));
        }
        if length > self.length {
            file.truncate(self.length)?;
            file.sync()?;
        }
        Ok(())
    }

    /// Writes again what can be read from there on: the page cache may have it and think that the disk has it too.
    pub(super) fn redo(&mut self, mut from: u64) -> io::Result<()> {
        let file = self.file()?;
        let mut buffer = Vec::new();
        while from < self.length {
            buffer.resize((self.length - from).min(CHUNK) as usize, 0);
            if file.read(from, &mut buffer)? < buffer.len() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "its file has become shorter"));
            }
            file.write(from, &buffer)?;
            from += buffer.len() as u64;
        }
        Ok(())
    }

    /// Does it with the file's lock and with all that the other process has appended, if there is one.
    pub(super) fn locked<T>(&mut self, act: impl FnOnce(&mut Writer) -> io::Result<T>) -> io::Result<T> {
        if !self.shared || self.held {
            return act(self);
        }
        let file = self.file()?;
        file.lock()?;
        self.held = true;
        let done = self.catch_up().and_then(|_| act(self));
        self.held = false;
        // Where it fails, closing the file does it, which is what becomes of it after an error.
        let unlocked = file.unlock();
        let done = done?;
        unlocked.map(|()| done)
    }

    /// Hands on what the other process has appended. True where there was something.
    pub(super) fn catch_up(&mut self) -> io::Result<bool> {
        let file = self.file()?;
        let (from, end) = (self.length, file.stat()?.length);
        if end < from {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "its file has become shorter"));
        }
        let mut scan = Scan::new(&*file, self.header.seed(), from, end);
        loop {
            match scan.next()? {
                Next::Record(record) => {
                    let invalid = |why| io::Error::new(io::ErrorKind::InvalidData, why);
                    self.known.follow(&record).map_err(invalid)?;
                    self.length = scan.at();
                    self.receive(record);
                }
                Next::Senseless => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "a record that cannot be understood"));
                }
                Next::Cut | Next::End => break,
            }
        }
        // With the lock it is known that nobody is writing it any more.
        if self.held && self.length < end {
            file.truncate(self.length)?;
        }
        self.show();
        Ok(self.length > from)
    }

    fn receive(&mut self, record: Record) {
        let Record::Entry { entry, .. } = record else { return };
        self.seen = self.seen.max(entry.sequence);
        // It is ours, and got into the file after all.
        let ours = |waiting: &Record| matches!(waiting, Record::Entry { entry: its, .. } if *its == entry);
        match self.backlog.iter().position(ours) {
            Some(at) => {
                self.backlog.remove(at);
            }
            None => (self.hooks.foreign)(Arc::unwrap_or_clone(entry)),
        }
    }
}
