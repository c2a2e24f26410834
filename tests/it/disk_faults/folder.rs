//! The disk's folder is removed, emptied or replaced while traffic goes on.

use std::fs;
use std::path::Path;

use super::faulty::{
    LARGE, LITTLE_MEMORY, NO_MEMORY, Scratch, disk_hits, get, get_all, log_lines, object_files, sized, stores_again,
    targets, tier, with_large,
};
use crate::harness::{Edge, eventually};

const SUSPENDED: &str = "is suspended";
const ANOTHER: &str = "the folder is another one than before";

/// Removes it while others may write below it.
fn remove_all(folder: &Path) {
    while folder.exists() {
        // What is made meanwhile makes it fail, and is removed the next time.
        let _ = fs::remove_dir_all(folder);
    }
}

fn empty(folder: &Path) {
    for entry in fs::read_dir(folder).expect("the folder").flatten() {
        let path = entry.path();
        if path.is_dir() { remove_all(&path) } else { fs::remove_file(path).expect("a file is removed") }
    }
}

/// All of them are in the end on the disk, and come from there.
async fn fills_again(edge: &Edge, disk: &Path, targets: &[String]) {
    eventually("everything to be on the disk again", async || {
        disk_hits(&get_all(edge, targets, 4).await) == targets.len()
    })
    .await;
    assert!(object_files(disk).len() >= targets.len());
}

#[tokio::test]
async fn the_folder_is_removed() {
    let (scratch, _origin, edge, large) = with_large(LITTLE_MEMORY).await;
    get(&edge, "/1000/small").await;
    remove_all(&scratch.disk());
    for n in 0..3 {
        get_all(&edge, &large, 4).await;
        get_all(&edge, &targets(LARGE, &format!("new{n}-"), 4), 4).await;
        assert_eq!(tier(&get(&edge, "/1000/small").await), "memory");
    }
    fills_again(&edge, &scratch.disk(), &large).await;
    assert_eq!(log_lines(&edge, ANOTHER), 1, "{}", edge.log());
    assert!(log_lines(&edge, SUSPENDED) <= 1, "{}", edge.log());
}

#[tokio::test]
async fn the_folder_is_removed_and_made_again_at_once() {
    let (scratch, _origin, edge, large) = with_large(NO_MEMORY).await;
    remove_all(&scratch.disk());
    fs::create_dir(scratch.disk()).expect("made again");
    get_all(&edge, &large, 4).await;
    edge.wait_log(ANOTHER).await;
    fills_again(&edge, &scratch.disk(), &large).await;
    assert_eq!(log_lines(&edge, ANOTHER), 1, "{}", edge.log());
    assert!(log_lines(&edge, SUSPENDED) <= 1, "{}", edge.log());
}

#[tokio::test]
async fn only_the_contents_are_removed() {
    let (scratch, _origin, edge, large) = with_large(LITTLE_MEMORY).await;
    assert_eq!(disk_hits(&get_all(&edge, &large, 4).await), large.len());
    empty(&scratch.disk());
    let after = get_all(&edge, &large, 4).await;
    assert_eq!(disk_hits(&after), 0, "files that are open have no more claim to be right than the others");
    assert_eq!(disk_hits(&get_all(&edge, &large, 4).await), large.len(), "at once, for the folder is the same");
    assert_eq!(object_files(&scratch.disk()).len(), large.len());
    assert_eq!(log_lines(&edge, SUSPENDED), 0, "{}", edge.log());
}

#[tokio::test]
async fn a_folder_that_was_emptied_is_still_taken() {
    let scratch = Scratch::new();
    let origin = sized().await;
    let edge = scratch.edge(&origin, NO_MEMORY, "size: 64MiB").await;
    empty(&scratch.disk());
    eventually("the lock", async || scratch.disk().join("lock").exists()).await;
    let second = scratch.builder(&scratch.yaml(&origin, NO_MEMORY, "size: 64MiB", "")).spawn();
    assert!(!second.wait_exit().await.success());
    assert!(second.log().contains("is in use by another process"), "{}", second.log());
    get(&edge, "/1000/a").await;
    assert_eq!(tier(&get(&edge, "/1000/a").await), "disk");
}

#[tokio::test]
async fn a_file_stands_in_its_place() {
    let (scratch, _origin, edge, large) = with_large(LITTLE_MEMORY).await;
    // In one step, so that the edge has no time to make the folder again.
    fs::rename(scratch.disk(), scratch.path("away")).expect("moved away");
    fs::write(scratch.disk(), "no folder").expect("a file");
    edge.wait_log("writing to the disk is suspended: it is gone").await;
    for n in 0..3 {
        assert_eq!(disk_hits(&get_all(&edge, &large, 4).await), 0);
        get_all(&edge, &targets(LARGE, &format!("new{n}-"), 4), 4).await;
    }
    assert_eq!(log_lines(&edge, SUSPENDED), 1, "{}", edge.log());
    fs::remove_file(scratch.disk()).expect("removed");
    stores_again(&edge, LARGE, "after").await;
    fills_again(&edge, &scratch.disk(), &large).await;
}

/// As when a device comes back: what is on it is found.
#[tokio::test]
async fn what_was_stored_comes_back_with_its_folder() {
    let (scratch, origin, edge, large) = with_large(NO_MEMORY).await;
    fs::rename(scratch.disk(), scratch.path("away")).expect("moved away");
    fs::write(scratch.disk(), "no folder").expect("a file");
    edge.wait_log("writing to the disk is suspended: it is gone").await;
    fs::remove_file(scratch.disk()).expect("removed");
    // One step, lest the edge make an empty one first. It may; then its own is replaced once more.
    while fs::rename(scratch.path("away"), scratch.disk()).is_err() {
        remove_all(&scratch.disk());
    }
    let asked = origin.count();
    eventually("what was stored", async || {
        let answers =
            crate::over::all(large.iter().map(|t| async { edge.ask(&super::faulty::only_if_cached(t)).await }));
        answers.await.iter().all(|answer| answer.status == 200)
    })
    .await;
    assert_eq!(origin.count(), asked);
}
