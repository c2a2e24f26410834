//! The disk tier: one self-describing file for each object, found by its name, on one disk or several.
//!
//! What a file looks like is in `format`, what is there in `index` and `space`; `disk` finds, `writing` and `spill` store,
//! and `keeper` keeps in order. All that may wait for a disk is done by its `pool`, below `io`.

#[expect(clippy::module_inception, reason = "one of them")]
mod disk;
mod faults;
mod file;
mod finding;
mod folders;
mod format;
mod freshen;
mod health;
mod index;
mod inspect;
mod io;
mod keeper;
mod ledger;
mod pool;
mod removing;
mod residency;
mod root;
mod snapshot;
mod space;
mod spill;
mod stats;
mod stock;
mod sweep;
#[cfg(test)]
pub mod testing;
mod upkeep;
mod vouching;
mod walk;
mod writing;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use log::warn;

pub use disk::{Disk, Phase, Wanted};
pub use file::StoredFile;
pub use format::Defect;
pub use health::{Cause, Kind};
pub use inspect::{Seen, Variants};
pub use keeper::Begin;
pub use ledger::meeting_place;
pub use pool::{Load, PoolError};
pub use spill::Spill;
pub use stats::{READ_BUCKETS, Refused};

use super::key::ObjectId;
use crate::config::model::DiskTier;
use crate::invalidate::Ledger;
use crate::invalidate::journal::Medium;

/// Files that all disks together may keep open, at most, and the share of what the process may have.
const OPEN_MAX: usize = if cfg!(test) { 64 } else { 8192 };
const OPEN_SHARE: usize = 4;

/// A disk that does nothing for so long at the end is not waited for. Longer than it may take to write what waits.
const STUCK: Duration = keeper::DRAIN.saturating_add(Duration::from_secs(1));

/// All disks.
pub struct Disks {
    disks: Vec<Place>,
    ledger: Arc<Ledger>,
}

/// A disk, and where it stands among the others.
struct Place {
    disk: Arc<Disk>,
    /// Of its path.
    seed: u64,
    /// Bytes.
    size: f64,
}

/// The figures of a disk.
#[derive(Clone, Debug)]
pub struct Usage {
    pub path: PathBuf,
    pub phase: Phase,
    pub objects: u64,
    /// All that it takes, temporary files and metadata included.
    pub bytes: u64,
    pub capacity: u64,
    pub max_object: u64,
    /// `None`: no limit.
    pub max_objects: Option<u64>,
    /// Bytes that are left free on the file system.
    pub min_free: u64,
    pub evictions: u64,
    /// Bodies that are on their way to the disk while they come.
    pub spilling: u64,
    /// Bytes that the index takes in memory.
    pub index_memory: u64,
    pub open_files: u64,
    /// All that is there is known.
    pub complete: bool,
    /// Why it is not read from, or not written to.
    pub reading: Option<Cause>,
    pub writing: Option<Cause>,
}

impl Disks {
    /// No disk.
    pub fn none() -> Disks {
        Disks { disks: Vec::new(), ledger: Arc::new(Ledger::new()) }
    }

    /// Takes the disks into possession, and begins to find out what is on them. Blocks.
    ///
    /// # Errors
    /// Another process uses one of them.
    pub fn open(settings: &[DiskTier], begin: Begin) -> Result<Disks, String> {
        let instance = format!("{}-{:x}-", std::process::id(), nanos_since_epoch());
        let files = open_files() / settings.len().max(1);
        let ledger = Arc::new(Ledger::new());
        let mut disks = Vec::new();
        for settings in settings {
            let disk = Disk::new(settings.clone(), &instance, files.max(16), &ledger);
            disk.begin(begin)?;
            disks.push(Place { disk, seed: seed(settings), size: settings.size as f64 });
        }
        join(&ledger, &disks, begin);
        for Place { disk, .. } in &disks {
            // All that is to be there from the beginning is, and what was there before is believed to be.
            disk.measure();
            disk.keep().map_err(|e| format!("{}: {e}", disk.path().display()))?;
        }
        Ok(Disks { disks, ledger })
    }

    /// All purges.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    pub fn is_empty(&self) -> bool {
        self.disks.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Disk>> {
        self.disks.iter().map(|place| &place.disk)
    }

    /// The disk that an object belongs to: by rendezvous hashing, in the measure of their sizes. A disk more or less
    /// moves no object between the others.
    pub fn of(&self, id: &ObjectId) -> Option<&Arc<Disk>> {
        match &self.disks[..] {
            [] => None,
            [only] => Some(&only.disk),
            places => {
                let best = places.iter().max_by(|a, b| a.score(id).total_cmp(&b.score(id)));
                best.map(|place| &place.disk)
            }
        }
    }

    /// The same by the settings alone: of the disk that an object would belong to.
    pub fn settings_of<'a>(settings: &'a [DiskTier], id: &ObjectId) -> Option<&'a DiskTier> {
        let score = |settings: &DiskTier| score(seed(settings), settings.size as f64, id);
        settings.iter().max_by(|a, b| score(a).total_cmp(&score(b)))
    }

    /// An object was of use.
    pub fn touch(&self, id: &ObjectId) {
        if let Some(disk) = self.of(id) {
            disk.touch(id);
        }
    }

    /// Who is asked whether an object is of use elsewhere before it is evicted.
    pub fn on_eviction(&self, used: impl Fn(ObjectId) -> bool + Clone + Send + Sync + 'static) {
        for disk in self.iter() {
            let _ = disk.used_elsewhere.set(Box::new(used.clone()));
        }
    }

    /// Puts other limits in force; the disks are the same.
    pub fn set_limits(&self, settings: &[DiskTier]) {
        for (disk, settings) in self.iter().zip(settings) {
            if disk.path() == settings.path {
                disk.set_limits(settings.clone());
            }
        }
    }

    /// Another process takes the disks over. Blocks.
    pub fn hand_over(&self) {
        self.unless_stuck(|disk| disk.hand_over());
    }

    /// The end: what there is is written down. Blocks.
    pub fn shut(&self) {
        self.unless_stuck(|disk| disk.shut());
    }

    /// Does something to all disks at once, and waits for it as long as one of them gets on: a disk that hangs must not
    /// keep the process from ending.
    fn unless_stuck(&self, what: impl Fn(&Arc<Disk>) + Clone + Send + 'static) {
        let (done, each_done) = std::sync::mpsc::channel();
        let mut left = 0;
        for disk in self.iter() {
            let (what, done, of_thread) = (what.clone(), done.clone(), disk.clone());
            let thread = std::thread::Builder::new().name("disk-end".to_owned());
            let spawned = thread.spawn(move || {
                what(&of_thread);
                let _ = done.send(());
            });
            match spawned {
                Ok(_) => left += 1,
                Err(e) => warn!("{}: {e}", disk.path().display()),
            }
        }
        let progress = || self.iter().map(|disk| disk.keeper.progress()).sum::<u64>();
        let mut before = progress();
        while left > 0 {
            match each_done.recv_timeout(STUCK) {
                Ok(()) => left -= 1,
                Err(_) if progress() != before => before = progress(),
                Err(_) => {
                    warn!("{left} of the disks do not answer: what there is on them is not written down");
                    return;
                }
            }
        }
    }
}

/// Reads the disks' copies of the ledger, and goes on with them.
fn join(ledger: &Arc<Ledger>, disks: &[Place], begin: Begin) {
    // What is stored ends with the process, then, and the ledger may too.
    if disks.is_empty() {
        return;
    }
    let there = || disks.iter().map(|place| &place.disk).filter(|disk| disk.phase() != Phase::Away);
    let media: Vec<&dyn Medium> = there().map(|disk| &disk.io as &dyn Medium).collect();
    let found = ledger.load(&media);
    there().zip(found).for_each(|(disk, found)| disk.join_ledger(found));
    if begin == Begin::Upgrade && there().any(|disk| disk.phase() == Phase::Standby) {
        // To share takes no reading.
        let _ = ledger.share(true);
        ledger.go_beyond();
    }
}

impl Place {
    fn score(&self, id: &ObjectId) -> f64 {
        score(self.seed, self.size, id)
    }
}

fn score(seed: u64, size: f64, id: &ObjectId) -> f64 {
    let low = u64::from_le_bytes(std::array::from_fn(|i| id.0[8 + i]));
    let high = u64::from_le_bytes(std::array::from_fn(|i| id.0[i]));
    let hash = mixed(mixed(low ^ seed) ^ high);
    // 53 bits: a number above 0 and below 1.
    let fraction = ((hash >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -size / fraction.ln()
}

/// The finaliser of SplitMix64: each bit of the result depends on all.
fn mixed(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

fn seed(settings: &DiskTier) -> u64 {
    use sha2::{Digest, Sha256};
    use std::os::unix::ffi::OsStrExt;
    let hash = Sha256::digest(settings.path.as_os_str().as_bytes());
    u64::from_le_bytes(std::array::from_fn(|i| hash[i]))
}

fn open_files() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = usize::try_from(limit.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
    (limit / OPEN_SHARE).min(OPEN_MAX)
}

/// The time, in nanoseconds since 1970: tells apart what was written at different times.
fn nanos_since_epoch() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
