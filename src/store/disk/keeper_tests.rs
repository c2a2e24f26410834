use std::thread;

use super::super::stock::{INDEX, PAGE};
use super::*;
use crate::config::model::DiskTier;
use crate::invalidate::Ledger;
use crate::store::disk::health::Cause;
use crate::store::disk::io::tests::Scratch;
use crate::store::disk::testing::{Rig, eventually};
use crate::store::key::ObjectId;

/// The units of everything that is entered in these tests.
const FEW: u32 = 3;

/// A disk in the folder of that name, of which nobody has taken care yet.
fn disk(scratch: &Scratch) -> Arc<Disk> {
    let settings =
        DiskTier { path: scratch.path("disk"), size: 1 << 30, max_object: 1 << 20, max_objects: None, min_free: 0 };
    Disk::over(scratch.io(), settings, "one", 64, &Arc::new(Ledger::with_id(7)))
}

fn id(number: u64) -> ObjectId {
    ObjectId(std::array::from_fn(|i| number.to_le_bytes()[i % 8]))
}

/// Enters objects of which there are no files.
fn enter(disk: &Disk, count: u64) {
    let mut state = disk.space.lock();
    (0..count).for_each(|number| _ = state.index.insert(id(number), FEW));
}

/// Puts a file where an object's would be.
fn put(scratch: &Scratch, id: ObjectId) {
    let path = scratch.path("disk").join(super::super::disk::name(&id));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, [0; 100]).unwrap();
}

/// The disk is taken for well.
fn heal(disk: &Disk) {
    for kind in [Kind::Read, Kind::Write] {
        disk.health.probed(kind, Ok(()), Instant::now());
    }
}

fn running(disk: &Disk) -> io::Result<()> {
    disk.save(Written::Running, || disk.phase() != Phase::Ready)
}

#[test]
fn what_is_handed_over_while_it_is_looked_through_stays_handed_over() {
    let scratch = Scratch::new();
    let disk = disk(&scratch);
    std::fs::create_dir(scratch.path("disk/tmp")).unwrap();
    std::fs::write(scratch.path("disk/tmp/another"), "of the next process").unwrap();
    scratch.faults("readdir hang");
    disk.begin(Begin::Alone).unwrap();
    let of_thread = disk.clone();
    let loading = thread::spawn(move || of_thread.load(false));
    disk.hand_over();
    assert_eq!(disk.phase(), Phase::Handed);
    scratch.faults("");
    loading.join().unwrap();
    assert_eq!(disk.phase(), Phase::Handed);
    assert!(!disk.usage().complete);
    assert!(scratch.path("disk/tmp/another").exists());
    assert!(scratch.path("disk/index").exists(), "what the next process waits for");
    disk.shut();
    disk.ready();
    assert_eq!(disk.phase(), Phase::Closed);
}

#[tokio::test]
async fn what_is_written_down_at_the_end_is_whole_whatever_is_being_written_down_then() {
    const COUNT: u64 = 5 * PAGE as u64;
    let rig = Rig::new(1 << 30);
    enter(&rig, COUNT);
    rig.faults("write hang");
    let of_thread = rig.disk.clone();
    let periodic = thread::spawn(move || running(&of_thread));
    eventually("it is being written down", || rig.keeper.saving.try_lock().is_err()).await;
    let of_thread = rig.disk.clone();
    let end = thread::spawn(move || of_thread.shut());
    eventually("the end has come", || rig.is_stopped()).await;
    rig.faults("");
    periodic.join().unwrap().unwrap();
    end.join().unwrap();
    let next = disk(&rig.scratch);
    assert_eq!(next.recall(INDEX, None).unwrap(), Written::Clean);
    assert_eq!(next.space.lock().index.len() as u64, COUNT);
}

#[test]
fn an_end_with_files_left_to_remove_is_not_clean() {
    for left in [false, true] {
        let scratch = Scratch::new();
        let ending = disk(&scratch);
        ending.begin(Begin::Alone).unwrap();
        ending.load(false);
        put(&scratch, id(1));
        ending.remove_later(id(1), None);
        scratch.faults(if left { "unlink EPERM" } else { "" });
        ending.shut();
        let expected = if left { Written::Running } else { Written::Clean };
        assert_eq!(disk(&scratch).recall(INDEX, None).unwrap(), expected);
    }
}

/// A file that the index does not have would not be compared with the ledger, and be found again later.
#[test]
fn what_was_written_down_is_not_believed_once_anything_may_have_been_stored() {
    let rig = Rig::new(1 << 30);
    enter(&rig, 7);
    rig.shut();
    let killed = disk(&rig.scratch);
    killed.begin(Begin::Alone).unwrap();
    put(&rig.scratch, id(1));
    killed.unlock();
    let next = disk(&rig.scratch);
    next.begin(Begin::Alone).unwrap();
    next.load(false);
    assert_eq!((next.phase(), next.usage().objects), (Phase::Ready, 1));
    next.shut();
    let last = disk(&rig.scratch);
    last.begin(Begin::Alone).unwrap();
    std::fs::remove_file(rig.scratch.path("disk").join(super::super::disk::name(&id(1)))).unwrap();
    last.load(false);
    assert_eq!((last.phase(), last.usage().objects), (Phase::Ready, 1), "nothing has been looked for");
    last.shut();
}

#[test]
fn an_index_that_cannot_be_set_aside_is_not_believed() {
    let rig = Rig::new(1 << 30);
    enter(&rig, 7);
    rig.shut();
    rig.faults("publish EACCES");
    let next = disk(&rig.scratch);
    next.begin(Begin::Alone).unwrap();
    next.load(false);
    assert_eq!((next.phase(), next.usage().objects), (Phase::Ready, 0), "there are no files");
    assert!(next.keeper.unretired.load(Ordering::Relaxed));
    rig.faults("");
    // As soon as it can be, it is.
    heal(&next);
    next.look_after();
    assert!(!next.keeper.unretired.load(Ordering::Relaxed));
    assert!(!rig.scratch.path("disk/index").exists());
    next.shut();
}

#[tokio::test]
async fn only_what_is_written_to_hand_the_disk_over_ends_the_wait_for_it() {
    let rig = Rig::new(1 << 30);
    enter(&rig, 7);
    let since = nanos_since_epoch();
    let next = disk(&rig.scratch);
    next.begin(Begin::Upgrade).unwrap();
    assert_eq!(next.phase(), Phase::Standby);
    running(&rig).unwrap();
    assert!(rig.scratch.path("disk/index").exists());
    assert!(next.recall(INDEX, Some(since)).is_err(), "it is of the ten minutes");
    let of_thread = next.clone();
    let waiting = thread::spawn(move || of_thread.stand_by(since));
    rig.hand_over();
    eventually("it is taken over", || next.phase() == Phase::Loading).await;
    assert_eq!(next.usage().objects, 7);
    rig.shut();
    waiting.join().unwrap();
    assert_eq!((next.phase(), next.usage().objects), (Phase::Ready, 0), "there are no files");
    next.shut();
}

#[tokio::test]
async fn what_could_not_be_looked_through_is_looked_through_again() {
    let scratch = Scratch::new();
    let disk = disk(&scratch);
    put(&scratch, id(1));
    scratch.faults("readdir EIO");
    disk.begin(Begin::Alone).unwrap();
    disk.keep().unwrap();
    eventually("the walk ends", || !disk.health.may_read()).await;
    assert_eq!(disk.phase(), Phase::Loading);
    scratch.faults("");
    heal(&disk);
    eventually("it is ready", || disk.phase() == Phase::Ready).await;
    assert_eq!(disk.usage().objects, 1);
    disk.shut();
}

#[test]
fn a_file_in_the_place_of_a_folder_is_passed_over() {
    let scratch = Scratch::new();
    let disk = disk(&scratch);
    put(&scratch, id(1));
    std::fs::write(scratch.path("disk/ab"), "").unwrap();
    disk.begin(Begin::Alone).unwrap();
    disk.load(false);
    assert_eq!((disk.phase(), disk.usage().objects), (Phase::Ready, 1));
    assert_eq!(disk.health.errors(Kind::Read, Cause::Missing), 1);
    disk.shut();
}

#[test]
fn what_was_never_there_is_not_left_to_remove() {
    let rig = Rig::new(1 << 30);
    rig.faults("unlink EROFS");
    rig.failed(Kind::Remove, &io::Error::from_raw_os_error(libc::EROFS));
    put(&rig.scratch, id(1));
    for number in 0..100 {
        rig.remove_later(id(number), None);
    }
    rig.remove_what_is_left();
    let left: Vec<_> = rig.later().ids.keys().copied().collect();
    assert_eq!((left, rig.shard(&id(1)).removals.len()), (vec![id(1)], 1));
    assert!(!rig.shard(&id(2)).removals.contains_key(&id(2)));
}
