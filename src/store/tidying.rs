//! What the ledger has can be forgotten once all that is stored has been compared with it. Beside the traffic, in a thread
//! of its own.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::warn;

use super::disk::Phase;
use super::object::Head;
use super::store::Store;
use crate::invalidate::{NEVER, Verdict};

/// How often what is in memory is compared with the ledger, at most; and the share of the time that it may take.
const PAUSE: Duration = Duration::from_secs(10);
const SHARE: u32 = 20;

/// What is fetched is compared with the ledger when it is stored. An answer that begins later than this after its request
/// is not.
const LONGEST_WAIT: Duration = Duration::from_secs(120);

/// Selectors that the ledger remembers: of more, the older half is forgotten, and what is stored and older than that with
/// it. Each takes some 50 bytes.
const MARKS_MAX: usize = if cfg!(test) { 1000 } else { 1_000_000 };

/// Bytes of a copy of the ledger on a disk, above which the same is done.
const LENGTH_MAX: u64 = 256 << 20;

/// Heads of the ledger in the last minutes.
#[derive(Default)]
struct Past(VecDeque<(Instant, u64)>);

impl Store {
    /// Begins to do so, for the life of the process.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn keep_tidy(&'static self) -> std::io::Result<()> {
        std::thread::Builder::new().name("store-tidy".to_owned()).spawn(move || {
            let (mut past, mut compared, mut pause) = (Past::default(), 0, PAUSE);
            loop {
                // Woken for nothing, it does no harm.
                std::thread::park_timeout(pause);
                let (began, head) = (Instant::now(), self.ledger().head());
                let old = past.note(began, head);
                if head > compared || !self.ledger().marks().is_empty() {
                    self.compare_all();
                    compared = head;
                    self.forget_purges(head, old);
                }
                pause = PAUSE.max(began.elapsed() * SHARE);
            }
        })?;
        Ok(())
    }

    /// Compares all that is in memory with the ledger: what has been purged makes room.
    pub(super) fn compare_all(&self) {
        for (id, object) in self.memory().iter() {
            let _ = self.usable(&id, object);
        }
        for disk in self.disks().iter() {
            for (id, object) in disk.open_objects() {
                let _ = self.usable(&id, object);
            }
        }
        let running: Vec<Arc<Head>> = self.running().values().cloned().collect();
        let unwritten = self.disks().iter().flat_map(|disk| disk.unwritten_heads());
        for head in unwritten.chain(running) {
            let ledger = self.ledger().head();
            match self.verdict_on_way(&head) {
                Verdict::Alive => head.set_checked(ledger),
                // What is soft is not forgotten without that being noted.
                Verdict::Stale(_) => {}
                // It may end long after what says so has been forgotten.
                Verdict::Dead => head.set_checked(NEVER),
            }
        }
    }

    /// Forgets what all that is stored has been compared with; everything in memory, up to `compared`. `old`: the ledger's
    /// head when the oldest request began whose answer may still be stored.
    pub(super) fn forget_purges(&self, compared: u64, old: u64) {
        let ledger = self.ledger();
        // A disk that is away comes back with what it has.
        let swept = self.disks().iter().map(|disk| disk.swept()).min();
        let settled = swept.unwrap_or(compared).min(compared).min(old);
        ledger.forget(settled, compared.min(old));
        if ledger.marks().len() > MARKS_MAX {
            // What concerns nothing that is stored costs nothing that is: only what has been asked for before, and has not
            // begun to come, is then not stored.
            ledger.forget(settled, compared);
        }
        let long = ledger.length() > LENGTH_MAX;
        if ledger.marks().len() > MARKS_MAX || long {
            self.give_up_before(ledger.marks().quantile(50).min(compared));
        } else {
            ledger.compact(false);
        }
    }

    /// Forgets what has not been compared with everything yet: what is stored and has not been counts as purged.
    pub(super) fn give_up_before(&self, upto: u64) {
        warn!("the ledger is too long: what is stored from before entry {upto} is given up");
        for disk in self.disks().iter().filter(|disk| disk.phase() > Phase::Away) {
            disk.give_up_before(upto);
        }
        self.ledger().forget(upto, upto);
        self.ledger().compact(true);
    }
}

impl Past {
    /// Notes the head; that of some minutes ago.
    fn note(&mut self, now: Instant, head: u64) -> u64 {
        self.0.push_back((now, head));
        while self.0.get(1).is_some_and(|(at, _)| now - *at >= LONGEST_WAIT) {
            self.0.pop_front();
        }
        match self.0.front() {
            Some((at, head)) if now - *at >= LONGEST_WAIT => *head,
            _ => 0,
        }
    }
}
