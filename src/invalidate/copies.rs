//! The ledger's copies on the disks: what they say when the process begins, and how entries get there.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use log::{debug, info, warn};
use tokio::sync::oneshot;

use super::entry::Entry;
use super::journal::{Ack, Base, Begin, Hooks, Journal, Medium, Start, Summary, Unreadable, Unwritten, read};
use super::ledger::Ledger;
use crate::http_cache::Timestamp;

/// So many sequences more than are durable may be given out: an entry that was lost with the process must not have the
/// sequence of a later one.
const RESERVED: u64 = 1 << 20;

/// When no more than so many of them are left, more are reserved.
const FEW_LEFT: u64 = RESERVED / 2;

/// So soon, in milliseconds, an entry is on a disk that is well.
const SOON_MS: i64 = 2000;

/// How long the others are waited for once one copy has an entry.
const OTHERS: Duration = Duration::from_secs(1);

/// How long a disk may take to write something down.
const PROMPT: Duration = Duration::from_secs(10);

/// A copy is written anew when it has grown to twice what it was after the last time, and to so many bytes.
const WORTH_IT: u64 = 256 << 10;

/// A copy that entries are written to.
pub(super) struct Copy {
    /// Where it is.
    name: String,
    journal: Arc<Journal>,
    /// Bytes, after it was last written anew.
    compacted: u64,
    /// Sequences that it has been asked to reserve.
    reserving: AtomicU64,
    /// Entries up to this sequence were there before it was attached, or are not its to have.
    since: u64,
    /// It has not taken something that is in force, and will not have it.
    lacks: Arc<AtomicBool>,
}

/// What becomes of an entry on the way to the copies.
#[must_use]
#[derive(Default)]
pub struct Writing {
    copies: Vec<(String, oneshot::Receiver<Result<(), Unwritten>>)>,
    /// There should be a copy, and there is none.
    nowhere: bool,
}

impl Writing {
    /// Waits until it is durable. It is with one copy, since at the next start all copies are joined; then the others are
    /// waited for a little longer.
    ///
    /// # Errors
    /// It is not in any copy: why.
    pub async fn written(self) -> Result<(), String> {
        if self.nowhere {
            return Err("no disk has a copy of the ledger".to_owned());
        }
        if self.copies.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = self.copies.iter().map(|(name, _)| name.clone()).collect();
        let mut writing: FuturesUnordered<_> =
            self.copies.into_iter().map(|(name, written)| async move { (name, written.await) }).collect();
        let (mut durable, mut until) = (false, Instant::now() + PROMPT);
        let mut failures: Vec<(String, String)> = Vec::new();
        while let Ok(Some((name, written))) = tokio::time::timeout_at(until.into(), writing.next()).await {
            match written {
                Ok(Ok(())) => {
                    durable = true;
                    until = until.min(Instant::now() + OTHERS);
                }
                Ok(Err(why)) => failures.push((name, why.to_string())),
                Err(_) => failures.push((name, "it has ended".to_owned())),
            }
        }
        for (name, why) in &failures {
            // The disk's own lines say that it fails; this would be one for each entry.
            debug!("{name}: the ledger could not be written: {why}");
        }
        if durable {
            return Ok(());
        }
        let why = |name: &String| {
            let failure = failures.iter().find(|(failed, _)| failed == name);
            format!("{name}: {}", failure.map_or("the disk does not answer", |(_, why)| why))
        };
        Err(names.iter().map(why).collect::<Vec<_>>().join("; "))
    }
}

impl Ledger {
    /// Takes in what the copies on the disks say, before anything else is done. What there is of each.
    ///
    /// Where they are of several ledgers, that of the first counts; objects of another one's order cannot be compared.
    pub fn load(&self, media: &[&dyn Medium]) -> Vec<Result<Summary, Unreadable>> {
        self.keep(true);
        let found: Vec<_> = media.iter().map(|medium| read(*medium, |_| ())).collect();
        for (medium, found) in media.iter().zip(&found) {
            match found {
                Err(Unreadable::Corrupt(why)) => {
                    warn!("{}: the ledger is damaged ({why}): what it alone knew is taken for purged", medium.name());
                }
                Ok(Summary { torn, .. }) if *torn > 0 => {
                    info!("{}: the ledger's last {torn} bytes were not written in full", medium.name());
                }
                _ => {}
            }
        }
        let known = found.iter().flatten();
        let Some(id) = known.clone().map(|summary| summary.id).next() else { return found };
        let known = known.filter(|summary| summary.id == id);
        let head = known.clone().map(knows).max().unwrap_or(0);
        // What is missing from one copy is there in another, unless it is missing from all that go as far.
        let missing = known.clone().filter(|summary| knows(summary) == head).map(|summary| summary.compacted).min();
        let reserved = known.map(|summary| summary.reserved).max().unwrap_or(0);
        self.become_that(id, missing.unwrap_or(0));
        let found = media.iter().zip(found).map(|(medium, found)| match found {
            Ok(summary) if summary.id == id => self.take_in(*medium).map(|_| summary),
            found => found,
        });
        let found = found.collect();
        self.raise(head.max(reserved));
        found
    }

    /// Takes in what a copy says that was not there when the process began.
    ///
    /// # Errors
    /// Nothing that is of use.
    pub fn take_in(&self, medium: &dyn Medium) -> Result<Summary, Unreadable> {
        let summary = read(medium, |_| ())?;
        if summary.id == self.id() && knows(&summary) <= self.head().max(summary.reserved) {
            read(medium, |entry| self.apply_old(&entry))?;
        }
        Ok(summary)
    }

    /// Writes entries to a copy from now on: to the one that has been found, if it can be gone on with. Blocks.
    ///
    /// # Errors
    /// Of the medium: nothing can be written there.
    pub fn attach(
        self: &Arc<Ledger>,
        medium: impl Medium,
        found: Option<Summary>,
        shared: bool,
    ) -> io::Result<Arc<Journal>> {
        let name = medium.name();
        let reserved = self.head() + RESERVED;
        // No further than there are entries: a copy that says that more may be missing casts doubt on all the others.
        let (last, _) = self.lasting();
        let (from, lacks) = match found {
            // While another process has its part in it, it may just not have got there.
            Some(summary) if summary.id == self.id() => (Begin::Continue(summary), !shared && knows(&summary) < last),
            // Others have what comes before.
            _ => (Begin::New(Base { compacted: last, reserved, swept: 0 }), false),
        };
        let (of_last, of_foreign): (Weak<Ledger>, Weak<Ledger>) = (Arc::downgrade(self), Arc::downgrade(self));
        let hooks = Hooks {
            last: Box::new(move || of_last.upgrade().map_or(0, |ledger| ledger.lasting().0)),
            foreign: Box::new(move |entry| _ = of_foreign.upgrade().map(|ledger| ledger.apply_foreign(&entry))),
        };
        let journal = Arc::new(Journal::open(medium, Start { id: self.id(), from, shared }, hooks)?);
        let (told, telling) = mpsc::channel();
        journal.reserve(reserved, Ack::new(move |written| _ = told.send(written)));
        match telling.recv_timeout(PROMPT) {
            Ok(Ok(())) => {}
            Ok(Err(why)) => return Err(io::Error::other(why)),
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        }
        let compacted = journal.length();
        // Nothing is appended meanwhile.
        let order = self.order();
        let lacks = lacks || self.lasting().0 > last;
        let mut copies = self.copies.write().unwrap_or_else(PoisonError::into_inner);
        copies.retain(|copy| copy.name != name);
        copies.push(Copy {
            name,
            journal: journal.clone(),
            compacted,
            reserving: AtomicU64::new(reserved),
            since: last,
            lacks: Arc::new(AtomicBool::new(lacks)),
        });
        drop(copies);
        drop(order);
        if lacks {
            self.compact(false);
        }
        Ok(journal)
    }

    /// Writes to no copy any more: the ledger ends with the process. Blocks.
    pub fn detach(&self) {
        self.keep(false);
        let copies = std::mem::take(&mut *self.copies.write().unwrap_or_else(PoisonError::into_inner));
        copies.iter().for_each(|copy| copy.journal.shut());
    }

    /// Gives an entry to all copies.
    pub(super) fn write(&self, entry: &Arc<Entry>, except: Option<&Arc<Journal>>) -> Writing {
        let copies = self.copies.read().unwrap_or_else(PoisonError::into_inner);
        let mut writing = Vec::with_capacity(copies.len());
        for copy in copies.iter().filter(|copy| except.is_none_or(|other| !Arc::ptr_eq(other, &copy.journal))) {
            let (told, written) = oneshot::channel();
            let lacks = copy.lacks.clone();
            let ack = Ack::new(move |written: Result<(), Unwritten>| {
                if matches!(written, Err(Unwritten::Refused(_))) {
                    lacks.store(true, Ordering::Release);
                }
                let _ = told.send(written);
            });
            copy.journal.append(entry.clone(), ack);
            writing.push((copy.name.clone(), written));
        }
        Writing { nowhere: writing.is_empty() && self.is_kept(), copies: writing }
    }

    /// Sees that sequences beyond this one may be given out.
    pub(super) fn reserve(&self, head: u64) {
        for copy in self.copies.read().unwrap_or_else(PoisonError::into_inner).iter() {
            if copy.reserving.load(Ordering::Relaxed) < head + FEW_LEFT {
                copy.reserving.store(head + RESERVED, Ordering::Relaxed);
                copy.journal.reserve(head + RESERVED, Ack::none());
            }
        }
    }

    /// The copy by which two processes keep to one order.
    pub(super) fn first_copy(&self) -> Option<(String, Arc<Journal>)> {
        let copies = self.copies.read().unwrap_or_else(PoisonError::into_inner);
        copies.iter().min_by(|a, b| a.name.cmp(&b.name)).map(|copy| (copy.name.clone(), copy.journal.clone()))
    }

    /// All copies are shared with another process from now on; or not any more, once all that it has appended is known.
    ///
    /// # Errors
    /// That cannot be read: what is shared still is.
    pub(super) fn share_copies(&self, shared: bool) -> io::Result<()> {
        let copies: Vec<_> = {
            let copies = self.copies.read().unwrap_or_else(PoisonError::into_inner);
            copies.iter().map(|copy| copy.journal.clone()).collect()
        };
        for journal in copies {
            if !shared {
                drop(journal.exclusive()?);
            }
            journal.share(shared);
        }
        Ok(())
    }

    /// Whether it has neither a copy nor an entry that outlasts the process: it may turn out to be another one's.
    pub fn is_untouched(&self) -> bool {
        self.first_copy().is_none() && self.lasting().0 == 0
    }

    /// Bytes of its longest copy.
    pub fn length(&self) -> u64 {
        let copies = self.copies.read().unwrap_or_else(PoisonError::into_inner);
        copies.iter().map(|copy| copy.journal.length()).max().unwrap_or(0)
    }

    /// Whether something that is in force is missing from a copy: which, and why that may be.
    pub fn behind(&self) -> Vec<String> {
        let copies = self.copies.read().unwrap_or_else(PoisonError::into_inner);
        // What has just come is on its way.
        let due = self.lasting_before(Timestamp::from(SystemTime::now()).plus_millis(-SOON_MS));
        let is_behind = |copy: &&Copy| {
            let journal = &copy.journal;
            let knows = journal.durable().max(copy.since);
            journal.is_behind() || copy.lacks.load(Ordering::Acquire) || due.is_some_and(|due| knows < due)
        };
        copies.iter().filter(is_behind).map(|copy| copy.name.clone()).collect()
    }

    /// Whether a copy has all that is in force, as far as is known.
    pub fn is_whole(&self, journal: &Arc<Journal>) -> bool {
        let copies = self.copies.read().unwrap_or_else(PoisonError::into_inner);
        !copies.iter().any(|copy| Arc::ptr_eq(&copy.journal, journal) && copy.lacks.load(Ordering::Acquire))
    }

    /// Has the copies written anew without what is not needed any more, where that is worth it, or `anyway`.
    pub fn compact(self: &Arc<Ledger>, anyway: bool) {
        let mut copies = self.copies.write().unwrap_or_else(PoisonError::into_inner);
        for copy in copies.iter_mut() {
            let length = copy.journal.length();
            let lacks = copy.lacks.swap(false, Ordering::AcqRel);
            if !anyway && !lacks && (length < WORTH_IT || length < copy.compacted.saturating_mul(2)) {
                continue;
            }
            // Until it is known what it has become.
            copy.compacted = length;
            let (ledger, name, journal) = (Arc::downgrade(self), copy.name.clone(), Arc::downgrade(&copy.journal));
            let forgotten = self.forgotten();
            // What it lacks, nobody can say after a restart: it is then not to be trusted with anything older.
            let missing = if lacks { self.lasting().0 } else { forgotten };
            let flag = copy.lacks.clone();
            let keep = {
                let ledger = ledger.clone();
                move |entry: &Entry, selector: &_| {
                    let needed = |ledger: Arc<Ledger>| {
                        // What has been forgotten since then, the new file does not say to be missing.
                        ledger.marks().is_in_force(selector, entry.sequence) || entry.sequence <= ledger.forgotten()
                    };
                    entry.sequence > forgotten && ledger.upgrade().is_none_or(needed)
                }
            };
            let done = move |written: Result<(), Unwritten>| {
                if let Err(why) = written {
                    flag.fetch_or(lacks, Ordering::AcqRel);
                    return warn!("{name}: the ledger could not be written anew: {why}");
                }
                let (Some(ledger), Some(journal)) = (ledger.upgrade(), journal.upgrade()) else { return };
                ledger.compacted(&journal);
            };
            copy.journal.compact(missing, keep, Ack::new(done));
        }
    }

    fn compacted(&self, journal: &Arc<Journal>) {
        let mut copies = self.copies.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(copy) = copies.iter_mut().find(|copy| Arc::ptr_eq(&copy.journal, journal)) {
            copy.compacted = journal.length();
        }
    }
}

impl Writing {
    /// One copy more.
    pub(super) fn and(mut self, name: String, written: oneshot::Receiver<Result<(), Unwritten>>) -> Writing {
        self.copies.push((name, written));
        self.nowhere = false;
        self
    }
}

/// Somebody to be told, and what is told.
pub(super) fn acknowledged() -> (Ack, oneshot::Receiver<Result<(), Unwritten>>) {
    let (told, telling) = oneshot::channel();
    (Ack::new(move |written| _ = told.send(written)), telling)
}

/// The last sequence that a copy knows of.
fn knows(summary: &Summary) -> u64 {
    summary.head.max(summary.compacted)
}

#[cfg(test)]
#[path = "copies_tests.rs"]
mod tests;
