//! A disk for tests: in a folder of its own, with faults at will.

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::disk::{Disk, Phase, Wanted};
use super::health::Kind;
use super::io::tests::Scratch;
use super::keeper::Begin;
use super::space::units;
use super::sweep::Sweeps;
use super::{Disks, Place};
use crate::config::model::DiskTier;
use crate::http_cache::Tiers;
use crate::invalidate::Ledger;
use crate::store::key::ObjectId;
use crate::store::object::{Body, Head, Object};
use crate::store::testing;

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(8);

/// A disk that is ready.
pub struct Rig {
    pub scratch: Scratch,
    pub disk: Arc<Disk>,
    /// Held by who changes the faults.
    faults: Mutex<()>,
}

impl Rig {
    /// With that many bytes.
    pub fn new(size: u64) -> Rig {
        let scratch = Scratch::new();
        let disk = open(&scratch, size);
        Rig { scratch, disk, faults: Mutex::default() }
    }

    /// As another process would find it, after this one has ended in an orderly way.
    pub fn reopened(mut self) -> Rig {
        self.disk.shut();
        let size = self.disk.usage().capacity;
        self.disk = open(&self.scratch, size);
        self
    }

    /// As all the disks there are.
    pub fn disks(&self) -> Disks {
        let place = Place { disk: self.disk.clone(), seed: 0, size: 1.0 };
        Disks { disks: vec![place], ledger: self.disk.vouching.ledger().clone() }
    }

    /// Puts faults in the place of those there were; what the ones before have led to is forgotten.
    pub fn faults(&self, lines: &str) {
        let _alone = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        self.scratch.faults(lines);
        self.heal();
    }

    /// The disk is taken for well.
    pub fn heal(&self) {
        for kind in [Kind::Read, Kind::Write] {
            self.disk.health.probed(kind, Ok(()), Instant::now());
        }
    }

    /// Nothing is under way any more.
    pub fn drain(&self) {
        assert!(self.disk.pool.drain(Instant::now() + PATIENCE), "jobs do not end");
    }

    /// The objects' files: how many they are, and their units.
    pub fn files(&self) -> (u64, u64) {
        let root = self.scratch.path("disk");
        let mut sum = (0, 0);
        for folder in std::fs::read_dir(root).unwrap().map(Result::unwrap) {
            if !folder.file_type().unwrap().is_dir() {
                continue;
            }
            for file in std::fs::read_dir(folder.path()).unwrap() {
                // It may just be going.
                let Ok(metadata) = file.unwrap().metadata() else { continue };
                sum = (sum.0 + 1, sum.1 + units(metadata.len()));
            }
        }
        sum
    }

    /// The same as the disk has it in its books.
    pub fn booked(&self) -> (u64, u64) {
        let state = self.disk.space.lock();
        (state.index.len() as u64, state.of_files())
    }

    /// Nothing is open, and the books are right.
    pub async fn balances(&self) {
        self.disk.close_all();
        eventually("the books are right", || {
            self.drain();
            self.booked() == self.files()
        })
        .await;
    }
}

impl Deref for Rig {
    type Target = Arc<Disk>;

    fn deref(&self) -> &Arc<Disk> {
        &self.disk
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.scratch.faults("");
        self.disk.close_all();
        self.disk.shut();
    }
}

fn open(scratch: &Scratch, size: u64) -> Arc<Disk> {
    let path = scratch.path("disk");
    let settings = DiskTier { path, size, max_object: size, max_objects: None, min_free: 0 };
    let ledger = Arc::new(Ledger::with_id(7));
    let disk = Disk::over(scratch.io(), settings, "one", 64, &ledger);
    disk.begin(Begin::Alone).unwrap();
    super::join(&ledger, &[Place { disk: disk.clone(), seed: 0, size: 1.0 }], Begin::Alone);
    disk.keep().unwrap();
    let began = Instant::now();
    while disk.phase() != Phase::Ready {
        assert!(began.elapsed() < PATIENCE, "it does not get ready");
        std::thread::yield_now();
    }
    disk
}

/// Sweeps of a disk that come when they are called for.
#[derive(Default)]
pub struct Broom(Sweeps);

impl Broom {
    /// Goes on with a sweep, or begins one, by so many places of the index; whether it has come to its end.
    pub fn sweep(&mut self, disk: &Arc<Disk>, places: usize) -> bool {
        if !self.0.is_under_way() {
            if !disk.can_sweep() {
                return true;
            }
            disk.begin_sweep(&mut self.0);
        }
        disk.sweep_places(&mut self.0, places);
        !self.0.is_under_way()
    }
}

/// All that is on the disks is known.
pub fn get_ready(disks: &Disks) {
    let began = Instant::now();
    while disks.iter().any(|disk| disk.phase() != Phase::Ready) {
        assert!(began.elapsed() < PATIENCE, "they do not get ready");
        std::thread::yield_now();
    }
}

/// Nothing is under way any more.
pub fn drain(disks: &Disks) {
    disks.iter().for_each(|disk| assert!(disk.pool.drain(Instant::now() + PATIENCE), "jobs do not end"));
}

/// Gives back what disks have that have been shut: a store lives as long as the process, and there are thousands of
/// stores in one test.
pub fn end(disks: &Disks) {
    for disk in disks.iter() {
        disk.close_all();
        disk.pool.end();
        disk.vouching.close();
        disk.io.close();
    }
}

/// No file is open.
pub fn close_files(disks: &Disks) {
    disks.iter().for_each(|disk| disk.close_all());
}

/// Where the file of a primary key is, below the disk's folder.
pub fn name_of(key: [u8; 16]) -> std::path::PathBuf {
    super::disk::name(&ObjectId(key))
}

/// What is looked for in tests.
pub fn wanted() -> Wanted<'static> {
    Wanted { text: testing::TEXT, variance: None, tiers: Tiers::default() }
}

/// The validator of what is found.
pub async fn found(disk: &Arc<Disk>, id: ObjectId) -> Option<String> {
    disk.find(id, wanted()).await.map(|object| testing::tag(&object.head).to_owned())
}

/// The whole body of an object.
pub async fn body_of(object: &Object) -> pingora::Result<bytes::Bytes> {
    match &object.body {
        Body::Memory(bytes) => Ok(bytes.clone()),
        Body::Disk(file) => file.read(0..file.len()).await,
    }
}

/// Waits until it is so.
pub async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "{what}: not in time");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Steele, Lea and Flood's SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        super::mixed(self.0) % bound
    }
}

/// The name of an object.
pub const ID: ObjectId = ObjectId([7; 16]);

/// What is never outdated.
pub fn always() -> bool {
    true
}

/// A head whose tag is that long.
pub fn long(tag: char, len: usize, id: u64) -> Head {
    testing::head(&tag.to_string().repeat(len), id)
}

/// A body of its own for each seed.
pub fn body(seed: u64, len: usize) -> Bytes {
    testing::body(len + seed as usize).slice(seed as usize..)
}
