//! Looking through a disk's folders for what there is, after an end that left no word of it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use log::{info, warn};

use super::disk::{Disk, Phase, folder_of, id_of, in_index, name};
use super::folders::Folders;
use super::health::{Kind, READ_ERRORS};
use super::index::Walked;
use super::io::{FileKind, TEMP_DIR};
use crate::store::key::ObjectId;

/// Places of the index that are looked at under one lock.
const SWEEP: usize = 4096;

/// The longest pause after a page of names.
const MAX_PAUSE: Duration = Duration::from_millis(20);

/// What the walks could not look at.
#[derive(Default)]
pub struct Unlisted {
    /// In the last walk.
    last: Folders,
    /// For good: the log has heard of it.
    passed_over: Folders,
}

impl Unlisted {
    /// Whether there are folders of which nobody knows what is in them.
    pub fn has_passed_over(&self) -> bool {
        self.passed_over.count() > 0
    }
}

/// How far looking at something has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Whole,
    /// The disk has failed.
    Failed,
    /// It is no longer for this process to say.
    Stopped,
}

/// Looks through all folders. Whether it came to the end of all, but for those that cannot be looked at time and again.
pub fn walk(disk: &Arc<Disk>) -> bool {
    let began = Instant::now();
    disk.space.lock().index.begin_walk();
    let mut found = Vec::new();
    let outcome = walk_folders(disk, &mut found);
    // The newest first: each comes before those that came.
    found.sort_unstable_by_key(|(modified, _)| std::cmp::Reverse(*modified));
    let ids: Vec<ObjectId> = found.iter().map(|(_, id)| *id).collect();
    for some in ids.chunks(SWEEP) {
        disk.space.lock().index.settle(some);
    }
    if outcome != Outcome::Whole {
        return false;
    }
    loop {
        if disk.is_stopped() {
            return false;
        }
        let Some(gone) = disk.space.lock().index.unwalked(SWEEP) else { break };
        drop(gone);
    }
    info!("{}: looked through in {:?}", disk.path().display(), began.elapsed());
    true
}

fn walk_folders(disk: &Arc<Disk>, found: &mut Vec<(i64, ObjectId)>) -> Outcome {
    let (mut failed, mut failures, mut whole) = (Folders::default(), 0, true);
    for folder in 0..=255_u8 {
        match walk_folder(disk, folder, found) {
            Ok(Outcome::Whole) => {}
            Ok(outcome) => return outcome,
            Err(e) => {
                disk.failed(Kind::Read, &e);
                failures += 1;
                // It is not the folder, but the disk.
                if failures >= READ_ERRORS || !disk.health.may_read() {
                    return Outcome::Failed;
                }
                failed.add(folder);
                whole &= pass_over(disk, folder, &e);
            }
        }
        // It may take long.
        disk.measure();
        disk.probe();
    }
    disk.keeper.unlisted.lock().unwrap_or_else(PoisonError::into_inner).last = failed;
    if whole { Outcome::Whole } else { Outcome::Failed }
}

/// Whether to do without a folder that could not be looked at: one that failed the last time too, or that is none. A
/// single bad block must not keep all else from being known.
fn pass_over(disk: &Disk, folder: u8, e: &io::Error) -> bool {
    let mut unlisted = disk.keeper.unlisted.lock().unwrap_or_else(PoisonError::into_inner);
    if !unlisted.last.has(folder) && e.kind() != io::ErrorKind::NotADirectory {
        return false;
    }
    if !unlisted.passed_over.has(folder) {
        unlisted.passed_over.add(folder);
        warn!("{}: what is in {folder:02x} cannot be listed, and is lost: {e}", disk.path().display());
    }
    true
}

/// One folder. Files that are new to the index are noted with when they were written.
fn walk_folder(disk: &Arc<Disk>, folder: u8, found: &mut Vec<(i64, ObjectId)>) -> io::Result<Outcome> {
    let stopped = || if disk.is_stopped() { Outcome::Stopped } else { Outcome::Whole };
    let mut dir = match disk.io.read_dir(&folder_of(folder)) {
        Ok(dir) => dir,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(stopped()),
        Err(e) => return Err(e),
    };
    disk.space.lock().add_folder(folder);
    loop {
        let began = Instant::now();
        let mut names = Vec::new();
        let more = match dir.page(|name, kind| {
            if let (FileKind::File, Some(id)) = (kind, id_of(name))
                && id.0[0] == folder
            {
                names.push(id);
            }
        }) {
            // It has become empty, and been removed.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(stopped()),
            more => more?,
        };
        for id in names {
            let Ok(stat) = disk.io.stat_name(&name(&id)) else { continue };
            if disk.walked(id, in_index(stat.size)) == Some(Walked::New) {
                found.push((stat.modified, id));
            }
        }
        if stopped() == Outcome::Stopped || !more {
            return Ok(stopped());
        }
        // Half of the disk's time is the traffic's.
        disk.pause(began.elapsed().min(MAX_PAUSE));
    }
}

/// Looks which folders there are, where nobody walks through them: those that are empty take room too.
pub fn note_folders(disk: &Disk) {
    for byte in 0..=255_u8 {
        if disk.io.stat_name(&folder_of(byte)).is_ok() {
            disk.space.lock().add_folder(byte);
        }
    }
}

/// Removes what processes before left half-written.
pub fn clear_temporary(disk: &Disk) {
    let folder = Path::new(TEMP_DIR);
    let Ok(mut dir) = disk.io.read_dir(folder) else { return };
    let own = disk.instance();
    loop {
        let mut names: Vec<PathBuf> = Vec::new();
        let more = dir.page(|name, _| {
            if let Ok(name) = std::str::from_utf8(name)
                && !name.starts_with(own)
            {
                names.push(folder.join(name));
            }
        });
        for name in names {
            // From then on they are another's.
            if disk.phase() >= Phase::Handed {
                return;
            }
            let _ = disk.io.unlink(&name);
        }
        if !matches!(more, Ok(true)) {
            return;
        }
    }
}
