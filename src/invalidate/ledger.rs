//! The ledger: all purges in one order, and what they make of what is stored.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::SystemTime;

use log::{debug, warn};

use super::copies::{Copy, Writing, acknowledged};
use super::entry::{By, Entry};
use super::journal;
use super::marks::{Marks, Verdict};
use super::selector::Selector;
use super::subject::Subject;
use crate::http_cache::{Tags, Timestamp};

/// A sequence that no purge comes after: what began then counts as purged.
pub const NEVER: u64 = u64::MAX;

/// In the word of the head: another process appends to the ledger too.
const SHARED: u64 = 1 << 63;

/// Entries that are kept to be shown.
const RECENT: usize = 1000;

/// Selectors of an entry that are kept to be shown.
pub const SHOWN: usize = 20;

/// All purges. What is stored is compared with those that are later than itself.
pub struct Ledger {
    /// Which ledger this is: the sequences of another mean nothing here.
    id: AtomicU64,
    /// The sequence of the latest entry that is in force, and [`SHARED`].
    head: AtomicU64,
    /// Entries up to this one may have been forgotten: what has not been compared with them since cannot be.
    forgotten: AtomicU64,
    /// The same, with those that concerned nothing which outlasts the process: not below `forgotten`.
    passed: AtomicU64,
    marks: Marks,
    /// Held while an entry is given its sequence and put in force; before a copy's own locks.
    order: Mutex<Order>,
    pub(super) copies: RwLock<Vec<Copy>>,
    /// The latest entry that concerns what outlasts the process, and how many selectors all such have had.
    lasting: AtomicU64,
    lasting_count: AtomicU64,
    /// When that came.
    lasting_at: AtomicI64,
    /// Entries that could not be written down.
    not_durable: AtomicU64,
    /// It is to outlast the process.
    kept: AtomicBool,
    counts: [AtomicU64; By::ALL.len()],
    selectors: AtomicU64,
}

/// What changes with each entry.
#[derive(Default)]
pub(super) struct Order {
    recent: VecDeque<Recent>,
}

/// An entry, as far as it is shown.
#[derive(Clone, Debug)]
pub struct Recent {
    pub sequence: u64,
    pub at: Timestamp,
    pub soft: bool,
    pub by: By,
    /// The first of them, at most [`SHOWN`].
    pub selectors: Box<[Selector]>,
    /// How many there are.
    pub count: usize,
}

/// An entry that is in force.
#[must_use]
pub struct Appended {
    pub sequence: u64,
    pub at: Timestamp,
    writing: Writing,
}

impl Appended {
    /// Waits until it is written down for good.
    ///
    /// # Errors
    /// It could not be: why. It is in force all the same.
    pub async fn written(self) -> Result<(), String> {
        self.writing.written().await
    }
}

impl Ledger {
    /// A ledger that does not outlast the process.
    pub fn new() -> Ledger {
        Ledger {
            id: AtomicU64::new(journal::random()),
            head: AtomicU64::new(0),
            forgotten: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            marks: Marks::default(),
            order: Mutex::default(),
            copies: RwLock::default(),
            lasting: AtomicU64::new(0),
            lasting_at: AtomicI64::new(0),
            lasting_count: AtomicU64::new(0),
            not_durable: AtomicU64::new(0),
            kept: AtomicBool::new(false),
            counts: Default::default(),
            selectors: AtomicU64::new(0),
        }
    }

    /// A ledger that several in one test can be.
    #[cfg(test)]
    pub fn with_id(id: u64) -> Ledger {
        Ledger { id: AtomicU64::new(id), ..Ledger::new() }
    }

    /// Which ledger this is.
    pub fn id(&self) -> u64 {
        self.id.load(Ordering::Acquire)
    }

    /// The sequence of the latest entry: what begins now comes after all that it has.
    pub fn head(&self) -> u64 {
        let head = self.head.load(Ordering::Acquire);
        if head & SHARED == 0 {
            return head;
        }
        if let Some((name, first)) = self.first_copy()
            && let Err(e) = first.catch_up()
        {
            debug!("{name}: what another process appends to the ledger cannot be read: {e}");
        }
        self.own_head()
    }

    /// As far as this process knows.
    pub fn own_head(&self) -> u64 {
        self.head.load(Ordering::Acquire) & !SHARED
    }

    /// What purges later than `since` make of something with that cache key and these tags.
    pub fn verdict(&self, key: &[u8], tags: &Tags, since: u64) -> Verdict {
        self.verdict_above(&self.forgotten, key, tags, since)
    }

    /// The same of what is on its way into the store: whatever concerned nothing that was stored may concern it.
    pub fn verdict_on_way(&self, key: &[u8], tags: &Tags, since: u64) -> Verdict {
        self.verdict_above(&self.passed, key, tags, since)
    }

    fn verdict_above(&self, floor: &AtomicU64, key: &[u8], tags: &Tags, since: u64) -> Verdict {
        if since == NEVER || since < floor.load(Ordering::Acquire) {
            return Verdict::Dead;
        }
        let verdict = self.marks.verdict(Subject::new(key, tags), since);
        // What was forgotten meanwhile may be missing among the marks.
        if since < floor.load(Ordering::Acquire) { Verdict::Dead } else { verdict }
    }

    /// Puts a purge in force, and has it written down.
    pub fn append(&self, selectors: Box<[Selector]>, soft: bool, by: By) -> Appended {
        self.append_as(|| (), selectors, soft, by, None::<fn() -> bool>)
    }

    /// The same, hard, after a look at how things are just before it. Where it does not last, since it concerns nothing that
    /// is stored for longer than the process, it need not be written down: that is asked once it is in force, so that what is
    /// being stored either is there by then, or finds it.
    pub fn append_after(
        &self,
        look: impl FnOnce(),
        selectors: Box<[Selector]>,
        by: By,
        lasts: impl FnOnce() -> bool,
    ) -> Appended {
        self.append_as(look, selectors, false, by, Some(lasts))
    }

    fn append_as(
        &self,
        look: impl FnOnce(),
        selectors: Box<[Selector]>,
        soft: bool,
        by: By,
        lasts: Option<impl FnOnce() -> bool>,
    ) -> Appended {
        self.counts[by as usize - 1].fetch_add(1, Ordering::Relaxed);
        self.selectors.fetch_add(selectors.len() as u64, Ordering::Relaxed);
        let new = |sequence| Arc::new(Entry { sequence, at: Timestamp::from(SystemTime::now()), soft, by, selectors });
        if self.head.load(Ordering::Acquire) & SHARED != 0
            && let Some((name, first)) = self.first_copy()
        {
            match first.exclusive() {
                Ok(mut alone) => {
                    let mut order = self.order();
                    look();
                    let entry = new(self.own_head() + 1);
                    self.apply(&mut order, &entry);
                    let (ack, written) = acknowledged();
                    if let Err(e) = alone.place(entry.clone(), ack) {
                        warn!("{name}: another process cannot be told of a purge: {e}");
                    }
                    drop(alone);
                    let writing = self.write(&entry, Some(&first)).and(name, written);
                    return Appended { sequence: entry.sequence, at: entry.at, writing };
                }
                Err(e) => warn!("{name}: the ledger cannot be locked, another process is not told of a purge: {e}"),
            }
        }
        let mut order = self.order();
        look();
        let entry = new(self.own_head() + 1);
        let lasts = match lasts {
            None => {
                self.apply(&mut order, &entry);
                true
            }
            Some(lasts) => {
                entry.selectors.iter().for_each(|selector| self.marks.note_passing(selector, entry.sequence));
                self.set_head(entry.sequence);
                order.show(&entry);
                let lasts = lasts();
                if lasts {
                    self.note(&entry);
                }
                lasts
            }
        };
        self.reserve(entry.sequence);
        let writing = if lasts { self.write(&entry, None) } else { Writing::default() };
        Appended { sequence: entry.sequence, at: entry.at, writing }
    }

    /// From now on, another process appends to the ledger too; or it does not any more. Blocks.
    ///
    /// # Errors
    /// What it has appended cannot be read: it counts as there still.
    pub fn share(&self, shared: bool) -> io::Result<()> {
        self.share_copies(shared)?;
        let _order = self.order();
        match shared {
            true => self.head.fetch_or(SHARED, Ordering::AcqRel),
            false => self.head.fetch_and(!SHARED, Ordering::AcqRel),
        };
        Ok(())
    }

    /// Whatever another process appends from now on has a sequence beyond what has begun here.
    pub fn go_beyond(&self) {
        let _ = self.append(Box::default(), false, By::Api);
    }

    /// Its copies are not needed any more.
    #[cfg(test)]
    pub fn close(&self) {
        self.copies.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The latest entries, the latest first.
    pub fn recent(&self, limit: usize) -> Vec<Recent> {
        self.order().recent.iter().rev().take(limit).cloned().collect()
    }

    /// Forgets entries up to a sequence with which all that is stored has been compared.
    ///
    /// Entries up to `passing` that concern nothing which outlasts the process are forgotten too: what is in memory has been
    /// compared with them. What is on its way into the store, and has not, is not to get there.
    pub fn forget(&self, upto: u64, passing: u64) {
        self.forgotten.fetch_max(upto, Ordering::AcqRel);
        self.passed.fetch_max(upto.max(passing), Ordering::AcqRel);
        self.marks.forget(upto, passing);
    }

    /// The latest entry that concerns what outlasts the process, and how many selectors all such have had.
    pub fn lasting(&self) -> (u64, u64) {
        (self.lasting.load(Ordering::Acquire), self.lasting_count.load(Ordering::Relaxed))
    }

    /// Entries up to this one may have been forgotten.
    pub fn forgotten(&self) -> u64 {
        self.forgotten.load(Ordering::Acquire)
    }

    /// Whether anything but single URLs has been purged since.
    pub fn is_wide_since(&self, since: u64) -> bool {
        self.marks.is_wide_since(since)
    }

    pub fn marks(&self) -> &Marks {
        &self.marks
    }

    /// Entries since the process began, by where they came from.
    pub fn entries(&self, by: By) -> u64 {
        self.counts[by as usize - 1].load(Ordering::Relaxed)
    }

    /// Those of them that could not be written down, as far as somebody waited for that.
    pub fn not_durable(&self) -> u64 {
        self.not_durable.load(Ordering::Relaxed)
    }

    /// One could not be written down.
    pub fn is_not_durable(&self) {
        self.not_durable.fetch_add(1, Ordering::Relaxed);
    }

    /// The latest entry that concerns what outlasts the process, if it is older than that.
    pub(super) fn lasting_before(&self, at: Timestamp) -> Option<u64> {
        let last = self.lasting.load(Ordering::Acquire);
        (self.lasting_at.load(Ordering::Acquire) < at.as_millis()).then_some(last)
    }

    /// Selectors in them.
    pub fn selectors(&self) -> u64 {
        self.selectors.load(Ordering::Relaxed)
    }

    /// It is to outlast the process, or not any more.
    pub(super) fn keep(&self, kept: bool) {
        self.kept.store(kept, Ordering::Release);
    }

    /// Whether it is to outlast the process, and nothing is there that it would do so in.
    pub fn is_nowhere(&self) -> bool {
        self.is_kept() && self.copies.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    pub(super) fn is_kept(&self) -> bool {
        self.kept.load(Ordering::Acquire)
    }

    /// Which ledger this is has turned out, and that entries up to one may be missing.
    pub(super) fn become_that(&self, id: u64, missing: u64) {
        self.id.store(id, Ordering::Release);
        self.forgotten.fetch_max(missing, Ordering::AcqRel);
        self.passed.fetch_max(missing, Ordering::AcqRel);
        self.lasting.fetch_max(missing, Ordering::AcqRel);
    }

    /// Sequences up to this one have been given out.
    pub(super) fn raise(&self, head: u64) {
        let _order = self.order();
        self.set_head(head);
    }

    /// An entry from before the process began.
    pub(super) fn apply_old(&self, entry: &Entry) {
        let mut order = self.order();
        let latest = order.recent.back().is_none_or(|last| last.sequence < entry.sequence);
        self.note(entry);
        if latest {
            order.show(entry);
        }
    }

    /// An entry of another process that appends to the ledger too.
    pub(super) fn apply_foreign(&self, entry: &Entry) {
        let mut order = self.order();
        let same = |known: &&Recent| known.sequence == entry.sequence;
        match order.recent.iter().rev().take(64).find(same) {
            // It has come by another copy.
            Some(known) if (known.at, known.by, known.count) == (entry.at, entry.by, entry.selectors.len()) => {}
            // The two do not keep to one order, since they have not the same disks: then it comes after all that there is.
            Some(_) => {
                let sequence = self.own_head() + 1;
                self.apply(&mut order, &Entry { sequence, ..entry.clone() });
            }
            None => self.apply(&mut order, entry),
        }
        drop(order);
        // It may be far above what this process has given out.
        self.reserve(entry.sequence);
    }

    fn apply(&self, order: &mut Order, entry: &Entry) {
        self.note(entry);
        // Last: who sees this sequence sees all its marks.
        self.set_head(entry.sequence);
        order.show(entry);
    }

    fn note(&self, entry: &Entry) {
        let soft = entry.soft.then_some(entry.at);
        entry.selectors.iter().for_each(|selector| self.marks.note(selector, entry.sequence, soft));
        if !entry.selectors.is_empty() {
            self.lasting.fetch_max(entry.sequence, Ordering::AcqRel);
            self.lasting_at.fetch_max(entry.at.as_millis(), Ordering::AcqRel);
            self.lasting_count.fetch_add(entry.selectors.len() as u64, Ordering::Relaxed);
        }
    }

    /// With the order held.
    fn set_head(&self, head: u64) {
        let word = self.head.load(Ordering::Acquire);
        self.head.store((word & !SHARED).max(head) | (word & SHARED), Ordering::Release);
    }

    pub(super) fn order(&self) -> MutexGuard<'_, Order> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Order {
    /// Keeps an entry to be shown.
    fn show(&mut self, entry: &Entry) {
        // Without a selector, it is there for its sequence alone.
        if entry.selectors.is_empty() {
            return;
        }
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(Recent {
            sequence: entry.sequence,
            at: entry.at,
            soft: entry.soft,
            by: entry.by,
            selectors: entry.selectors.iter().take(SHOWN).map(Selector::shortened).collect(),
            count: entry.selectors.len(),
        });
    }
}

impl Default for Ledger {
    fn default() -> Ledger {
        Ledger::new()
    }
}
