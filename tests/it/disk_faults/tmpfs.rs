//! File systems that are really small and really full.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use rustix::process::Signal;

use super::faulty::{
    KIB, MIB, Mount, NO_MEMORY, Scratch, disk_hits, get, get_all, log_lines, sized, stores_again, targets, tier,
};

/// Writes a file until there is no room left.
fn fill_up(path: &Path) {
    let mut file = File::create(path).expect("a file");
    for piece in [vec![1; 256 * KIB], vec![1; 4 * KIB]] {
        while file.write_all(&piece).is_ok() {}
    }
}

#[tokio::test]
async fn a_file_system_smaller_than_the_disk_was_to_be() {
    let scratch = Scratch::new();
    let Some(mount) = Mount::tmpfs(&scratch.disk(), "8m") else { return };
    let origin = sized().await;
    let edge = scratch.edge(&origin, NO_MEMORY, "size: 256MiB").await;
    // Five times as much as there is room for: written in one go, and as it comes.
    let small = targets(150 * KIB, "small", 160);
    let large = targets(1200 * KIB, "large", 14);
    for (small, large) in small.chunks(20).zip(large.chunks(2).cycle()) {
        get_all(&edge, small, 5).await;
        get_all(&edge, large, 2).await;
    }
    let latest = targets(150 * KIB, "latest", 6);
    get_all(&edge, &latest, 1).await;
    let hits = disk_hits(&get_all(&edge, &latest, 1).await);
    assert!(hits >= latest.len() - 1, "{hits} of {}: {}", latest.len(), edge.log());
    assert_eq!(log_lines(&edge, "suspended"), 0, "{}", edge.log());
    let (used, _) = mount.usage();
    assert!(used > 4 * MIB as u64, "{used}: the room that there is is used");
}

#[tokio::test]
async fn what_is_larger_than_the_file_system_throws_nothing_out() {
    let scratch = Scratch::new();
    let Some(_mount) = Mount::tmpfs(&scratch.disk(), "8m") else { return };
    let origin = sized().await;
    let edge = scratch.edge(&origin, NO_MEMORY, "size: 256MiB").await;
    let small = targets(100 * KIB, "small", 20);
    get_all(&edge, &small, 4).await;
    get(&edge, &format!("/{}/huge", 9 * MIB)).await;
    get(&edge, &format!("/{}/huge", 9 * MIB)).await;
    assert_eq!(disk_hits(&get_all(&edge, &small, 4).await), small.len());
    assert_eq!(log_lines(&edge, "suspended"), 0, "that it is too large is not the disk's fault: {}", edge.log());
}

#[tokio::test]
async fn somebody_else_fills_the_file_system() {
    let scratch = Scratch::new();
    let Some(mount) = Mount::tmpfs(&scratch.path("mount"), "8m") else { return };
    let origin = sized().await;
    let disk = format!("{{ path: \"{}\", size: 256MiB }}", mount.path().join("disk").display());
    let edge = scratch.builder(&super::faulty::yaml(&origin, NO_MEMORY, &disk, "")).start().await;
    edge.wait_log("0 objects").await;
    let other = mount.path().join("other");
    fill_up(&other);
    let large = targets(300 * KIB, "large", 12);
    for _ in 0..2 {
        assert_eq!(disk_hits(&get_all(&edge, &large, 4).await), 0);
    }
    edge.wait_log("writing to the disk is suspended: it is full").await;
    assert_eq!(log_lines(&edge, "is suspended"), 1, "{}", edge.log());
    fs::remove_file(&other).expect("removed");
    stores_again(&edge, 300 * KIB, "after").await;
    get_all(&edge, &large, 4).await;
    assert_eq!(disk_hits(&get_all(&edge, &large, 4).await), large.len());
    assert_eq!(log_lines(&edge, "writing to the disk is resumed"), 1, "{}", edge.log());
}

#[tokio::test]
async fn somebody_else_takes_the_room_while_objects_rotate() {
    let scratch = Scratch::new();
    let Some(mount) = Mount::tmpfs(&scratch.path("mount"), "8m") else { return };
    let origin = sized().await;
    let disk = format!("{{ path: \"{}\", size: 256MiB }}", mount.path().join("disk").display());
    let edge = scratch.builder(&super::faulty::yaml(&origin, NO_MEMORY, &disk, "")).start().await;
    get_all(&edge, &targets(100 * KIB, "before", 30), 4).await;
    let other = mount.path().join("other");
    fill_up(&other);
    for n in 0..4 {
        get_all(&edge, &targets(100 * KIB, &format!("new{n}-"), 20), 4).await;
    }
    assert!(log_lines(&edge, "is suspended") <= 2, "{}", edge.log());
    fs::remove_file(&other).expect("removed");
    stores_again(&edge, 100 * KIB, "after").await;
}

#[tokio::test]
async fn what_is_to_be_left_free_is() {
    const MIN_FREE: u64 = 6 * MIB as u64;
    let scratch = Scratch::new();
    let Some(mount) = Mount::tmpfs(&scratch.disk(), "16m") else { return };
    let origin = sized().await;
    let edge = scratch.edge(&origin, NO_MEMORY, "size: 256MiB, min_free: 6MiB").await;
    let mut least = u64::MAX;
    for n in 0..12 {
        let len = [100 * KIB, 1500 * KIB, 400 * KIB][n % 3];
        get_all(&edge, &targets(len, &format!("round{n}-"), 8), 8).await;
        least = least.min(mount.usage().1);
    }
    assert!(least >= MIN_FREE, "only {least} bytes were left");
    get(&edge, "/100000/last").await;
    assert_eq!(tier(&get(&edge, "/100000/last").await), "disk");
    assert!(mount.usage().0 > 4 * MIB as u64, "{:?}: the rest is used", mount.usage());
}

/// What there is after a restart is not taken for somebody else's.
#[tokio::test]
async fn a_restart_where_the_file_system_sets_the_limit() {
    let scratch = Scratch::new();
    let Some(_mount) = Mount::tmpfs(&scratch.disk(), "16m") else { return };
    let origin = sized().await;
    let all = targets(200 * KIB, "a", 55);
    for signal in [Signal::TERM, Signal::KILL] {
        let edge = scratch.edge(&origin, NO_MEMORY, "size: 256MiB").await;
        get_all(&edge, &all, 5).await;
        assert_eq!(disk_hits(&get_all(&edge, &all, 5).await), all.len());
        edge.signal(signal);
        edge.wait_exit().await;
        let edge = scratch.edge(&origin, NO_MEMORY, "size: 256MiB").await;
        for new in targets(1000, "new", 5) {
            get(&edge, &new).await;
        }
        edge.wait_log(" objects, ").await;
        get_all(&edge, &targets(1000, "more", 20), 5).await;
        assert_eq!(disk_hits(&get_all(&edge, &all, 5).await), all.len(), "{signal:?}");
        edge.signal(Signal::TERM);
        edge.wait_exit().await;
    }
}
