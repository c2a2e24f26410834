//! A disk in memory: each step may fail, and it may stop at any, with or without what was not synced.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use super::{Ack, Base, Begin, File, Hooks, Medium, Start, Stat, Summary, Unreadable, Unwritten, read};
use crate::http_cache::Timestamp;
use crate::invalidate::{By, Entry, Selector};

pub const ID: u64 = 7;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Open,
    Create,
    Publish,
    Discard,
    SyncFolder,
    Current,
    Stat,
    Read,
    Write,
    Sync,
    Truncate,
    Lock,
    Unlock,
}

/// What survives the end of the system.
#[derive(Clone, Copy, Debug)]
pub enum Keep {
    /// All: it was the process alone that was killed.
    All,
    /// What was synced.
    Synced,
    /// Some of the rest, by chance.
    Some(u64),
}

/// Given the number of a step, how it fails.
type Plan = Box<dyn FnMut(usize, Step) -> Option<io::Error> + Send>;

#[derive(Clone)]
pub struct Memory(Arc<(Mutex<Disk>, Condvar)>);

#[derive(Default)]
struct Disk {
    files: Vec<Inode>,
    names: BTreeMap<&'static str, usize>,
    /// Those on the disk, and all those since the last sync.
    synced_names: Vec<BTreeMap<&'static str, usize>>,
    steps: Vec<Step>,
    plan: Option<Plan>,
    opened: usize,
}

#[derive(Clone, Default)]
struct Inode {
    cached: Vec<u8>,
    synced: Vec<u8>,
    /// What a sync would bring from the one to the other.
    dirty: Vec<Change>,
    locked: Option<usize>,
}

#[derive(Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Truncate(u64),
}

struct Open {
    disk: Memory,
    inode: usize,
    number: usize,
}

impl Memory {
    pub fn new() -> Memory {
        let disk = Disk { synced_names: vec![BTreeMap::new()], ..Disk::default() };
        Memory(Arc::new((Mutex::new(disk), Condvar::new())))
    }

    /// From now on, steps fail by that plan; they are numbered from 0.
    pub fn plan(&self, plan: impl FnMut(usize, Step) -> Option<io::Error> + Send + 'static) {
        let mut disk = self.disk();
        disk.steps.clear();
        disk.plan = Some(Box::new(plan));
    }

    pub fn heal(&self) {
        self.disk().plan = None;
    }

    /// The steps since the last plan.
    pub fn steps(&self) -> Vec<Step> {
        self.disk().steps.clone()
    }

    pub fn count(&self, step: Step) -> usize {
        self.disk().steps.iter().filter(|its| **its == step).count()
    }

    /// What the system finds when it starts again. What has been opened before does not get at it.
    pub fn crash(&self, keep: Keep) -> Memory {
        let disk = self.disk();
        let mut files = disk.files.clone();
        let mut names = disk.names.clone();
        let mut chance = match keep {
            Keep::Some(seed) => seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            _ => 1,
        };
        let mut next = |below: usize| {
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (chance >> 33) as usize % below
        };
        match keep {
            Keep::All => {}
            Keep::Synced => {
                names = disk.synced_names[0].clone();
                files.iter_mut().for_each(|file| file.cached = file.synced.clone());
            }
            Keep::Some(_) => {
                names = disk.synced_names[next(disk.synced_names.len())].clone();
                for file in &mut files {
                    for change in std::mem::take(&mut file.dirty) {
                        match (next(3), change) {
                            (0, _) => {}
                            (1, Change::Write(at, bytes)) => {
                                let half = bytes[..next(bytes.len() + 1)].to_vec();
                                Change::Write(at, half).apply(&mut file.synced);
                            }
                            (_, change) => change.apply(&mut file.synced),
                        }
                    }
                    file.cached = file.synced.clone();
                }
            }
        }
        if !matches!(keep, Keep::All) {
            files.iter_mut().for_each(|file| file.dirty.clear());
        }
        files.iter_mut().for_each(|file| file.locked = None);
        let synced_names = match keep {
            Keep::All => disk.synced_names.clone(),
            _ => vec![names.clone()],
        };
        let disk = Disk { files, names, synced_names, ..Disk::default() };
        Memory(Arc::new((Mutex::new(disk), Condvar::new())))
    }

    /// The folder is emptied.
    pub fn empty(&self) {
        let mut disk = self.disk();
        disk.names.clear();
        disk.synced_names = vec![BTreeMap::new()];
    }

    /// The bytes of the journal.
    pub fn bytes(&self) -> Vec<u8> {
        let disk = self.disk();
        disk.files[disk.names["ledger"]].cached.clone()
    }

    /// Puts others in their place.
    pub fn set_bytes(&self, bytes: &[u8]) {
        let mut disk = self.disk();
        disk.files.push(Inode { cached: bytes.to_vec(), synced: bytes.to_vec(), ..Inode::default() });
        let new = disk.files.len() - 1;
        disk.names.insert("ledger", new);
        disk.synced_names = vec![disk.names.clone()];
    }

    pub fn has(&self, name: &str) -> bool {
        self.disk().names.contains_key(name)
    }

    pub fn read(&self) -> Result<(Summary, Vec<Entry>), Unreadable> {
        let mut entries = Vec::new();
        let summary = read(self, |entry| entries.push(entry))?;
        Ok((summary, entries))
    }

    /// The sequences that are read.
    pub fn sequences(&self) -> Vec<u64> {
        self.read().unwrap().1.iter().map(|entry| entry.sequence).collect()
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn step(&self, step: Step) -> io::Result<MutexGuard<'_, Disk>> {
        match self.attempt(step) {
            (_, Some(error)) => Err(error),
            (disk, None) => Ok(disk),
        }
    }

    fn attempt(&self, step: Step) -> (MutexGuard<'_, Disk>, Option<io::Error>) {
        let mut disk = self.disk();
        let number = disk.steps.len();
        disk.steps.push(step);
        let error = disk.plan.as_mut().and_then(|plan| plan(number, step));
        (disk, error)
    }

    fn opened(&self, disk: &mut Disk, inode: usize) -> Box<dyn File> {
        disk.opened += 1;
        Box::new(Open { disk: self.clone(), inode, number: disk.opened })
    }
}

impl Medium for Memory {
    fn name(&self) -> String {
        "memory".to_owned()
    }

    fn open(&self) -> io::Result<Box<dyn File>> {
        let mut disk = self.step(Step::Open)?;
        let inode = *disk.names.get("ledger").ok_or(io::ErrorKind::NotFound)?;
        Ok(self.opened(&mut disk, inode))
    }

    fn create(&self) -> io::Result<Box<dyn File>> {
        let mut disk = self.step(Step::Create)?;
        disk.files.push(Inode::default());
        let inode = disk.files.len() - 1;
        disk.rename(|names| _ = names.insert("ledger.new", inode));
        Ok(self.opened(&mut disk, inode))
    }

    fn publish(&self) -> io::Result<()> {
        let mut disk = self.step(Step::Publish)?;
        let inode = *disk.names.get("ledger.new").ok_or(io::ErrorKind::NotFound)?;
        disk.rename(|names| {
            names.remove("ledger.new");
            names.insert("ledger", inode);
        });
        Ok(())
    }

    fn discard(&self) -> io::Result<()> {
        self.step(Step::Discard)?.rename(|names| _ = names.remove("ledger.new"));
        Ok(())
    }

    fn sync_folder(&self) -> io::Result<()> {
        let mut disk = self.step(Step::SyncFolder)?;
        disk.synced_names = vec![disk.names.clone()];
        Ok(())
    }
}

impl File for Open {
    fn is_current(&self) -> io::Result<bool> {
        Ok(self.disk.step(Step::Current)?.names.get("ledger") == Some(&self.inode))
    }

    fn stat(&self) -> io::Result<Stat> {
        let disk = self.disk.step(Step::Stat)?;
        let linked = disk.names.values().any(|inode| *inode == self.inode);
        Ok(Stat { length: disk.files[self.inode].cached.len() as u64, linked })
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let disk = self.disk.step(Step::Read)?;
        let from = disk.files[self.inode].cached.get(offset as usize..).unwrap_or_default();
        let read = from.len().min(buffer.len());
        buffer[..read].copy_from_slice(&from[..read]);
        Ok(read)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let (mut disk, error) = self.disk.attempt(Step::Write);
        let written = if error.is_some() { &bytes[..bytes.len() / 2] } else { bytes };
        disk.files[self.inode].change(Change::Write(offset, written.to_vec()));
        error.map_or(Ok(()), Err)
    }

    /// After an error, what was to be synced is taken for synced and is not.
    fn sync(&self) -> io::Result<()> {
        let (mut disk, error) = self.disk.attempt(Step::Sync);
        let file = &mut disk.files[self.inode];
        let dirty = std::mem::take(&mut file.dirty);
        if let Some(error) = error {
            return Err(error);
        }
        dirty.into_iter().for_each(|change| change.apply(&mut file.synced));
        Ok(())
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.disk.step(Step::Truncate)?.files[self.inode].change(Change::Truncate(length));
        Ok(())
    }

    fn lock(&self) -> io::Result<()> {
        let mut disk = self.disk.step(Step::Lock)?;
        while disk.files[self.inode].locked.is_some_and(|by| by != self.number) {
            disk = self.disk.0.1.wait(disk).unwrap();
        }
        disk.files[self.inode].locked = Some(self.number);
        Ok(())
    }

    fn unlock(&self) -> io::Result<()> {
        let mut disk = self.disk.step(Step::Unlock)?;
        disk.files[self.inode].unlock(self.number);
        self.disk.0.1.notify_all();
        Ok(())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.disk.disk().files[self.inode].unlock(self.number);
        self.disk.0.1.notify_all();
    }
}

impl Disk {
    fn rename(&mut self, how: impl FnOnce(&mut BTreeMap<&'static str, usize>)) {
        how(&mut self.names);
        self.synced_names.push(self.names.clone());
    }
}

impl Inode {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.cached);
        self.dirty.push(change);
    }

    fn unlock(&mut self, number: usize) {
        if self.locked == Some(number) {
            self.locked = None;
        }
    }
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Change::Write(at, bytes) => {
                let (at, end) = (*at as usize, *at as usize + bytes.len());
                to.resize(to.len().max(end), 0);
                to[at..end].copy_from_slice(bytes);
            }
            Change::Truncate(length) => to.resize(*length as usize, 0),
        }
    }
}

/// What acks have told, by sequence.
#[derive(Clone, Default)]
pub struct Told(Arc<Mutex<Vec<One>>>);

type One = (u64, Result<(), Unwritten>);

impl Told {
    pub fn ack(&self, sequence: u64) -> Ack {
        let told = self.clone();
        Ack::new(move |what| told.0.lock().unwrap().push((sequence, what)))
    }

    pub fn all(&self) -> Vec<One> {
        self.0.lock().unwrap().clone()
    }

    pub fn durable(&self) -> Vec<u64> {
        self.all().into_iter().filter_map(|(sequence, what)| what.is_ok().then_some(sequence)).collect()
    }
}

pub fn entry(sequence: u64) -> Entry {
    tagged(sequence, &["a tag", "another"])
}

pub fn tagged(sequence: u64, tags: &[&str]) -> Entry {
    let selectors = tags.iter().map(|tag| Selector::Tag((*tag).into())).collect();
    let at = Timestamp::from_millis(1_700_000_000_000 + sequence as i64);
    Entry { sequence, at, soft: sequence.is_multiple_of(2), by: By::Api, selectors }
}

/// A ledger whose head is below all, and that does not expect another process.
pub fn hooks() -> Hooks {
    Hooks { last: Box::new(|| 0), foreign: Box::new(|entry| panic!("foreign: {entry:?}")) }
}

pub fn anew() -> Start {
    Start { id: ID, from: Begin::New(Base::default()), shared: false }
}

pub fn going_on(memory: &Memory) -> Start {
    Start { id: ID, from: Begin::Continue(memory.read().unwrap().0), shared: false }
}

pub fn eio() -> io::Error {
    io::Error::from_raw_os_error(libc::EIO)
}

pub fn enospc() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOSPC)
}
