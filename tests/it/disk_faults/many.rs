//! Several disks: each object is on one of them, and a disk more or less moves none between the others.

use std::fs;
use std::path::PathBuf;

use rustix::process::Signal;

use super::faulty::{
    KIB, LITTLE_MEMORY, NO_MEMORY, Scratch, disk_hits, get_all, hits_disk, log_lines, object_files, sized, targets,
    tier, yaml,
};
use crate::harness::{Edge, Origin};

const COUNT: usize = 240;

/// The YAML of an edge with disks of these sizes, in MiB.
fn disks(scratch: &Scratch, origin: &Origin, memory: &str, sizes: &[usize]) -> String {
    let disk = |n: usize, size: &usize| format!("{{ path: \"{}\", size: {size}MiB }}", folder(scratch, n).display());
    let list: Vec<_> = sizes.iter().enumerate().map(|(n, size)| disk(n, size)).collect();
    yaml(origin, memory, &format!("[{}]", list.join(", ")), "")
}

fn folder(scratch: &Scratch, n: usize) -> PathBuf {
    scratch.path(&format!("disk{n}"))
}

fn counts(scratch: &Scratch, disks: usize) -> Vec<usize> {
    (0..disks).map(|n| object_files(&folder(scratch, n)).len()).collect()
}

async fn stop(edge: Edge) {
    edge.signal(Signal::TERM);
    assert!(edge.wait_exit().await.success());
}

#[tokio::test]
async fn each_disk_gets_its_share_by_size() {
    let scratch = Scratch::new();
    let origin = sized().await;
    let edge = scratch.builder(&disks(&scratch, &origin, NO_MEMORY, &[32, 32, 64])).start().await;
    let all = targets(2 * KIB, "a", COUNT);
    get_all(&edge, &all, 8).await;
    assert_eq!(disk_hits(&get_all(&edge, &all, 8).await), COUNT);
    let counts = counts(&scratch, 3);
    assert_eq!(counts.iter().sum::<usize>(), COUNT, "each is on one of them: {counts:?}");
    for (count, share) in counts.iter().zip([COUNT / 4, COUNT / 4, COUNT / 2]) {
        assert!((share * 6 / 10..share * 14 / 10).contains(count), "{counts:?}");
    }
}

#[tokio::test]
async fn a_disk_more_takes_its_share_and_moves_nothing_else() {
    let scratch = Scratch::new();
    let origin = sized().await;
    let all = targets(2 * KIB, "a", COUNT);
    let edge = scratch.builder(&disks(&scratch, &origin, NO_MEMORY, &[32, 32, 32])).start().await;
    get_all(&edge, &all, 8).await;
    stop(edge).await;

    let edge = scratch.builder(&disks(&scratch, &origin, NO_MEMORY, &[32, 32, 32])).start().await;
    assert_eq!(disk_hits(&get_all(&edge, &all, 8).await), COUNT, "after a restart with the same disks");
    stop(edge).await;

    let edge = scratch.builder(&disks(&scratch, &origin, NO_MEMORY, &[32, 32, 32, 32])).start().await;
    let hits = disk_hits(&get_all(&edge, &all, 8).await);
    let moved = COUNT - hits;
    assert!((COUNT * 15 / 100..COUNT * 36 / 100).contains(&moved), "{moved} of {COUNT} have moved");
    assert_eq!(object_files(&folder(&scratch, 3)).len(), moved, "all of them to the new one");
    assert_eq!(disk_hits(&get_all(&edge, &all, 8).await), COUNT);
}

/// What is on which disk: the targets that are not hits while it is dead.
#[tokio::test]
async fn a_disk_that_fails_costs_its_share_alone() {
    let scratch = Scratch::new();
    let origin = sized().await;
    let all = targets(4 * KIB, "a", COUNT);
    let edge = scratch.builder(&disks(&scratch, &origin, LITTLE_MEMORY, &[32, 32, 32])).start().await;
    get_all(&edge, &all, 8).await;
    let before = counts(&scratch, 3);
    scratch.fault(&format!("any EIO {}\n", folder(&scratch, 1).display()));
    for _ in 0..2 {
        let answers = get_all(&edge, &all, 8).await;
        assert_eq!(disk_hits(&answers), COUNT - before[1], "{before:?}");
    }
    for line in ["reading from the disk is suspended", "writing to the disk is suspended"] {
        assert!(log_lines(&edge, line) <= 1, "{}", edge.log());
    }
    assert_eq!(log_lines(&edge, "reading from the disk is suspended"), 1);
    assert_eq!(log_lines(&edge, &format!("{}: reading from", folder(&scratch, 1).display())), 1);
    scratch.heal();
    for target in &all {
        hits_disk(&edge, target).await;
    }
}

#[tokio::test]
async fn a_disk_whose_folder_goes_costs_its_share_alone() {
    let scratch = Scratch::new();
    let origin = sized().await;
    let all = targets(4 * KIB, "a", COUNT);
    let edge = scratch.builder(&disks(&scratch, &origin, LITTLE_MEMORY, &[32, 32, 32])).start().await;
    get_all(&edge, &all, 8).await;
    let before = counts(&scratch, 3);
    fs::rename(folder(&scratch, 1), scratch.path("away")).expect("moved away");
    fs::write(folder(&scratch, 1), "no folder").expect("a file");
    edge.wait_log("writing to the disk is suspended: it is gone").await;
    for _ in 0..2 {
        let answers = get_all(&edge, &all, 8).await;
        assert_eq!(disk_hits(&answers), COUNT - before[1], "{before:?}");
    }
    fs::remove_file(folder(&scratch, 1)).expect("removed");
    for target in &all {
        hits_disk(&edge, target).await;
    }
    assert_eq!(counts(&scratch, 3), before);
}

#[tokio::test]
async fn a_disk_that_is_not_there_at_the_start_costs_its_share_alone() {
    let scratch = Scratch::new();
    let origin = sized().await;
    let all = targets(4 * KIB, "a", COUNT);
    fs::write(folder(&scratch, 1), "no folder").expect("a file");
    let edge = scratch.builder(&disks(&scratch, &origin, LITTLE_MEMORY, &[32, 32, 32])).start().await;
    get_all(&edge, &all, 8).await;
    let answers = get_all(&edge, &all, 8).await;
    let share = disk_hits(&answers);
    assert!((COUNT * 5 / 10..COUNT * 8 / 10).contains(&share), "{share}");
    assert!(answers.iter().all(|answer| ["disk", ""].contains(&tier(answer))));
    fs::remove_file(folder(&scratch, 1)).expect("removed");
    for target in &all {
        hits_disk(&edge, target).await;
    }
}
