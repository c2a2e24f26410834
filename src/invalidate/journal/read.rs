//! Reading the file.

use std::{fmt, io};

use super::format::{self, Base, HEADER_LEN, Header, MAX_RECORD, RECORD_HEAD, RECORDS_AT, Record, SLOT_LEN, SLOTS_AT};
use super::medium::{File, Medium};
use crate::invalidate::Entry;

/// Bytes that are read at once, at the least.
const CHUNK: usize = 64 << 10;

/// What a journal says, as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The ledger's.
    pub id: u64,
    /// The highest sequence of an entry that is here; 0 where there is none.
    pub head: u64,
    /// Entries up to this sequence may be missing.
    pub compacted: u64,
    /// Sequences up to this may have been given out without an entry of theirs being here.
    pub reserved: u64,
    /// Every object on this disk has been checked against all entries up to this sequence.
    pub swept: u64,
    /// Bytes, to the end of the last record that is whole.
    pub length: u64,
    /// Bytes behind that: of a group that was being written when the process or the system ended.
    pub torn: u64,
    /// Bytes that the file itself says are durable.
    pub(super) committed: u64,
    pub(super) salt: u64,
}

/// Why a journal says nothing. What was stored on this disk before cannot be vouched for.
#[derive(Debug)]
pub enum Unreadable {
    /// There is none.
    Missing,
    /// What had been durable is not all there any more, or not as it was.
    Corrupt(String),
    Io(io::Error),
}

/// Reads the journal: hands on its entries in the file's order, which is the order of their sequences, but for those
/// that came late (which only happens while two processes share the file).
///
/// # Errors
/// See [`Unreadable`]. What has been handed on by then is as good as nothing.
pub fn read(medium: &dyn Medium, mut each: impl FnMut(Entry)) -> Result<Summary, Unreadable> {
    let file = medium.open().map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Unreadable::Missing,
        _ => Unreadable::Io(e),
    })?;
    let length = file.stat()?.length;
    let header = header(&*file)?;
    let (committed, _) = committed(&*file, header.seed())?;
    if committed > length {
        return Err(corrupt(format!("{committed} bytes of it were durable, and {length} are left")));
    }
    let mut known = Known::default();
    let mut scan = Scan::new(&*file, header.seed(), RECORDS_AT, length);
    loop {
        let at = scan.at();
        match scan.next()? {
            Next::Record(record) => {
                known.follow(&record).map_err(|e| corrupt(format!("{e} at byte {at}")))?;
                if at < committed && scan.at() > committed {
                    return Err(corrupt("a record goes across the end of what is durable".to_owned()));
                }
                if let Record::Entry { entry, .. } = record {
                    each(std::sync::Arc::unwrap_or_clone(entry));
                }
            }
            Next::Senseless => return Err(corrupt(format!("a record that cannot be understood at byte {at}"))),
            Next::Cut if at < committed => return Err(corrupt(format!("a damaged record at byte {at}"))),
            Next::Cut | Next::End => break,
        }
    }
    if !known.begun {
        return Err(corrupt("it has no beginning".to_owned()));
    }
    let at = scan.at();
    let Known { head, base: Base { compacted, reserved, swept }, .. } = known;
    let Header { id, salt } = header;
    Ok(Summary { id, head, compacted, reserved, swept, length: at, torn: length - at, committed, salt })
}

/// Reads and checks the header.
pub(super) fn header(file: &dyn File) -> Result<Header, Unreadable> {
    let mut bytes = [0; HEADER_LEN];
    if file.read(0, &mut bytes)? < HEADER_LEN {
        return Err(corrupt("it is too short".to_owned()));
    }
    Header::decode(&bytes).map_err(corrupt)
}

/// The higher of what the slots say, and which of them says it: a length only grows, and the lower one is the one before.
pub(super) fn committed(file: &dyn File, seed: u32) -> Result<(u64, usize), Unreadable> {
    let mut highest = None;
    for (slot, at) in SLOTS_AT.into_iter().enumerate() {
        let mut bytes = [0; SLOT_LEN];
        if file.read(at, &mut bytes)? == SLOT_LEN {
            highest = highest.max(format::committed(&bytes, seed).map(|length| (length, slot)));
        }
    }
    let sound = highest.filter(|(length, _)| *length > RECORDS_AT);
    sound.ok_or_else(|| corrupt("how much of it is durable is not known any more".to_owned()))
}

/// What the records up to some place say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// There was a base.
    pub begun: bool,
    /// The highest sequence of an entry.
    pub head: u64,
    pub base: Base,
}

impl Known {
    /// Goes on by a record.
    ///
    /// # Errors
    /// It cannot stand there.
    pub fn follow(&mut self, record: &Record) -> Result<(), &'static str> {
        match record {
            Record::Base(_) if self.begun => return Err("a second beginning"),
            Record::Base(base) => *self = Known { begun: true, head: 0, base: *base },
            _ if !self.begun => return Err("no beginning"),
            Record::Entry { entry, late } => {
                if entry.sequence == 0 || *late != (entry.sequence <= self.head) {
                    return Err("an entry out of order");
                }
                self.head = self.head.max(entry.sequence);
            }
            Record::Reserve(upto) => self.base.reserved = self.base.reserved.max(*upto),
            Record::Swept(upto) => self.base.swept = self.base.swept.max(*upto),
        }
        Ok(())
    }
}

/// Goes over the records of a file, with the memory of one of them.
pub(super) struct Scan<'a> {
    file: &'a dyn File,
    seed: u32,
    /// Where the next record is.
    at: u64,
    /// Where to end.
    end: u64,
    /// What has been read, from `at` on.
    buffer: Vec<u8>,
    /// So many bytes at its front are done with.
    done: usize,
}

pub(super) enum Next {
    Record(Record),
    /// A record with the right checksum that says nothing known: no torn write does that.
    Senseless,
    /// Not a whole record.
    Cut,
    End,
}

impl<'a> Scan<'a> {
    pub fn new(file: &'a dyn File, seed: u32, at: u64, end: u64) -> Scan<'a> {
        Scan { file, seed, at, end, buffer: Vec::new(), done: 0 }
    }

    /// The end of the last record that was whole.
    pub fn at(&self) -> u64 {
        self.at
    }

    pub fn next(&mut self) -> io::Result<Next> {
        if self.at >= self.end {
            return Ok(Next::End);
        }
        let Some(head) = self.have(RECORD_HEAD)?.and_then(|bytes| bytes.first_chunk().copied()) else {
            return Ok(Next::Cut);
        };
        let (length, sum) = format::head(&head);
        if !(1..=MAX_RECORD).contains(&length) {
            return Ok(Next::Cut);
        }
        let (seed, whole) = (self.seed, RECORD_HEAD + length);
        let body = self.have(whole)?.and_then(|bytes| bytes.get(RECORD_HEAD..whole));
        let Some(body) = body.filter(|body| format::record_sum(seed, body) == sum) else {
            return Ok(Next::Cut);
        };
        let Some(record) = Record::decode(body) else { return Ok(Next::Senseless) };
        self.done += whole;
        self.at += whole as u64;
        Ok(Next::Record(record))
    }

    /// At least so many bytes from `at` on; `None` where the file has fewer, of which it then takes no memory.
    fn have(&mut self, bytes: usize) -> io::Result<Option<&[u8]>> {
        if self.buffer.len() - self.done < bytes {
            let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
            if left < bytes {
                return Ok(None);
            }
            self.buffer.drain(..self.done);
            self.done = 0;
            let had = self.buffer.len();
            self.buffer.resize(bytes.max(CHUNK).min(left), 0);
            let read = self.file.read(self.at + had as u64, &mut self.buffer[had..])?;
            self.buffer.truncate(had + read);
            // One large record does not keep its memory.
            self.buffer.shrink_to(CHUNK);
        }
        Ok(self.buffer.get(self.done..).filter(|had| had.len() >= bytes))
    }
}

fn corrupt(why: String) -> Unreadable {
    Unreadable::Corrupt(why)
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Unreadable {
        Unreadable::Io(error)
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unreadable::Missing => f.write_str("there is none"),
            Unreadable::Corrupt(why) => f.write_str(why),
            Unreadable::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Unreadable {}
