//! Looking through a disk's folders for what there is, after an end that left no word of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::info;

use super::disk::{Disk, id_of, name};
use super::health::Kind;
use super::index::Walked;
use super::io::{FileKind, TEMP_DIR};
use super::keeper::TICK;
use super::space::units;
use crate::store::key::ObjectId;

/// Places of the index that are looked at under one lock.
const SWEEP: usize = 4096;

/// The longest pause after a page of names.
const MAX_PAUSE: Duration = Duration::from_millis(20);

/// Looks through all folders. Whether it came to the end.
pub fn walk(disk: &Arc<Disk>) -> bool {
    let began = Instant::now();
    disk.space.lock().index.begin_walk();
    let (mut found, mut looked) = (Vec::new(), began);
    for folder in 0..=255_u8 {
        if !walk_folder(disk, folder, &mut found) {
            return false;
        }
        // It may take long.
        if looked.elapsed() >= TICK {
            looked = Instant::now();
            disk.measure();
            disk.probe();
        }
    }
    // The newest first: each comes before those that came.
    found.sort_unstable_by_key(|(modified, _)| std::cmp::Reverse(*modified));
    let ids: Vec<ObjectId> = found.iter().map(|(_, id)| *id).collect();
    for some in ids.chunks(SWEEP) {
        disk.space.lock().index.settle(some);
    }
    loop {
        let Some(gone) = disk.space.lock().index.unwalked(SWEEP) else { break };
        if disk.is_stopped() {
            return false;
        }
        drop(gone);
    }
    info!("{}: looked through in {:?}", disk.path().display(), began.elapsed());
    true
}

/// One folder. Files that are new to the index are noted with when they were written.
fn walk_folder(disk: &Arc<Disk>, folder: u8, found: &mut Vec<(i64, ObjectId)>) -> bool {
    let mut dir = match disk.io.read_dir(Path::new(&format!("{folder:02x}"))) {
        Ok(dir) => {
            disk.space.lock().add_folder(folder);
            dir
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return !disk.is_stopped(),
        Err(e) => {
            disk.failed(Kind::Read, &e);
            return false;
        }
    };
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
            Ok(more) => more,
            // It was empty, and has been removed.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => false,
            Err(e) => {
                disk.failed(Kind::Read, &e);
                return false;
            }
        };
        for id in names {
            let Ok(stat) = disk.io.stat_name(&name(&id)) else { continue };
            if disk.walked(id, u32::try_from(units(stat.size)).unwrap_or(u32::MAX)) == Some(Walked::New) {
                found.push((stat.modified, id));
            }
        }
        if disk.is_stopped() {
            return false;
        }
        if !more {
            return true;
        }
        // Half of the disk's time is the traffic's.
        disk.pause(began.elapsed().min(MAX_PAUSE));
    }
}

/// Looks which folders there are, where nobody walks through them: those that are empty take room too.
pub fn note_folders(disk: &Disk) {
    for byte in 0..=255_u8 {
        if disk.io.stat_name(Path::new(&format!("{byte:02x}"))).is_ok() {
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
            let _ = disk.io.unlink(&name);
        }
        if !matches!(more, Ok(true)) {
            return;
        }
    }
}
