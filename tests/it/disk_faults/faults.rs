//! Errors of a disk: traffic goes on with right answers, the log says it once, and the disk comes back by itself.

use super::faulty::{
    KIB, LARGE, LITTLE_MEMORY, MIB, NO_MEMORY, Scratch, check, disk_hits, get, get_all, hits_disk, log_lines,
    object_files, sized, stores_again, targets, text, tier, with_large,
};
use crate::harness::{Ask, Edge, Gate, Origin, Reply, eventually};
use crate::over::{BOTH, Over, all, is_broken};

const WRITING: &str = "writing to the disk is suspended";
const READING: &str = "reading from the disk is suspended";

/// Writing fails, as `fault` has it; the log calls it `reason`.
async fn writing_fails(fault: &str, reason: &str) {
    let scratch = Scratch::new();
    let origin = sized().await;
    let edge = scratch.edge(&origin, LITTLE_MEMORY, "size: 64MiB").await;
    let before = targets(LARGE, "before", 20);
    get_all(&edge, &before, 4).await;

    scratch.fault(fault);
    let large = targets(LARGE, "large", 12);
    let spilled = targets(MIB, "spilled", 2);
    for round in 0..2 {
        for responses in [get_all(&edge, &large, 4).await, get_all(&edge, &spilled, 2).await] {
            assert_eq!(disk_hits(&responses), 0, "{fault}, round {round}: nothing of it can be on the disk");
        }
    }
    let small = targets(KIB, "small", 8);
    get_all(&edge, &small, 4).await;
    let again = get_all(&edge, &small, 4).await;
    assert!(again.iter().all(|r| tier(r) == "memory"), "{fault}: the memory tier works");
    // A disk that is full gives some of it up.
    let hits = disk_hits(&get_all(&edge, &before, 4).await);
    let least = if reason == "it is full" { 12 } else { before.len() };
    assert!(hits >= least, "{fault}: what is there is still read: {hits} hits");
    let line = format!("{WRITING}: {reason}");
    edge.wait_log(&line).await;
    assert_eq!((log_lines(&edge, WRITING), log_lines(&edge, &line)), (1, 1), "{fault}: {}", edge.log());
    assert_eq!(log_lines(&edge, READING), 0, "{fault}");

    scratch.heal();
    stores_again(&edge, LARGE, "after").await;
    assert_eq!(log_lines(&edge, "writing to the disk is resumed"), 1, "{fault}");
    assert_eq!(log_lines(&edge, WRITING), 1, "{fault}");
    // What takes long to be written is answered from memory until it is.
    eventually("all of it to be on the disk", async || disk_hits(&get_all(&edge, &large, 4).await) == large.len())
        .await;
}

#[tokio::test]
async fn no_space_is_left() {
    writing_fails("write ENOSPC\n", "it is full").await;
}

#[tokio::test]
async fn no_file_can_be_made_for_want_of_space() {
    writing_fails("create ENOSPC\n", "it is full").await;
}

#[tokio::test]
async fn the_file_system_becomes_read_only() {
    let fault = "write EROFS\ncreate EROFS\npublish EROFS\nunlink EROFS\nmkdir EROFS\n";
    writing_fails(fault, "it is read-only").await;
}

#[tokio::test]
async fn writes_fail() {
    writing_fails("write EIO\n", "it fails").await;
}

#[tokio::test]
async fn a_file_cannot_be_given_its_name() {
    writing_fails("publish EIO\ncreate EIO\n", "it fails").await;
}

#[tokio::test]
async fn a_large_file_cannot_be_given_its_name() {
    let scratch = Scratch::new();
    let origin = sized().await;
    let edge = scratch.edge(&origin, NO_MEMORY, "size: 64MiB").await;
    scratch.fault("publish EIO\n");
    let spilled = targets(MIB, "spilled", 3);
    for _ in 0..2 {
        assert_eq!(disk_hits(&get_all(&edge, &spilled, 3).await), 0);
    }
    assert_eq!(log_lines(&edge, WRITING), 1, "{}", edge.log());
    assert!(object_files(&scratch.disk()).is_empty());
    scratch.heal();
    stores_again(&edge, MIB, "after").await;
}

#[tokio::test]
async fn permission_to_write_is_lost() {
    writing_fails("create EACCES\npublish EACCES\nunlink EACCES\n", "permission is denied").await;
}

/// Reading fails, as `fault` has it; the log calls it `reason`.
async fn reading_fails(fault: &str, reason: &str) {
    let (scratch, origin, edge, large) = with_large(LITTLE_MEMORY).await;
    get(&edge, "/1000/small").await;
    let asked = origin.count();

    scratch.fault(fault);
    for _ in 0..3 {
        let responses = get_all(&edge, &large, 4).await;
        assert_eq!(disk_hits(&responses), 0, "{fault}");
        assert_eq!(tier(&get(&edge, "/1000/small").await), "memory", "{fault}");
    }
    assert!(origin.count() >= asked + 2 * large.len(), "{fault}: it comes from the origin");
    let line = format!("{READING}: {reason}");
    edge.wait_log(&line).await;
    assert_eq!((log_lines(&edge, READING), log_lines(&edge, &line)), (1, 1), "{fault}: {}", edge.log());

    scratch.heal();
    for target in &large {
        hits_disk(&edge, target).await;
    }
    assert_eq!(log_lines(&edge, "reading from the disk is resumed"), 1, "{fault}");
}

#[tokio::test]
async fn reads_fail() {
    reading_fails("read EIO\n", "it fails").await;
}

#[tokio::test]
async fn files_cannot_be_opened() {
    reading_fails("open EIO\n", "it fails").await;
}

#[tokio::test]
async fn permission_to_read_is_lost() {
    reading_fails("open EACCES\n", "permission is denied").await;
}

#[tokio::test]
async fn nothing_is_permitted_any_more() {
    let (scratch, _origin, edge, large) = with_large(LITTLE_MEMORY).await;
    scratch.fault("any EACCES\n");
    let new = targets(LARGE, "new", 4);
    for _ in 0..3 {
        assert_eq!(disk_hits(&get_all(&edge, &large, 4).await), 0);
        assert_eq!(disk_hits(&get_all(&edge, &new, 4).await), 0);
    }
    for suspended in [WRITING, READING] {
        edge.wait_log(suspended).await;
        assert_eq!(log_lines(&edge, suspended), 1, "{}", edge.log());
    }
    scratch.heal();
    stores_again(&edge, LARGE, "after").await;
    get_all(&edge, &large, 4).await;
    for target in &large {
        hits_disk(&edge, target).await;
    }
}

#[tokio::test]
async fn reading_resumes_where_all_has_been_removed_meanwhile() {
    let (scratch, _origin, edge, large) = with_large(NO_MEMORY).await;
    scratch.fault("read EIO\n");
    get_all(&edge, &large, 4).await;
    edge.wait_log(READING).await;
    for entry in std::fs::read_dir(scratch.disk()).expect("the disk's folder").flatten() {
        let path = entry.path();
        if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }.expect("removed");
    }
    scratch.heal();
    stores_again(&edge, LARGE, "after").await;
}

#[tokio::test]
async fn no_more_files_can_be_opened() {
    for (fault, line) in [
        ("open EMFILE\n", "the disk failed to read: no file can be opened"),
        ("create EMFILE\n", "the disk failed to write: no file can be opened"),
    ] {
        let scratch = Scratch::new();
        let origin = sized().await;
        let edge = scratch.edge(&origin, NO_MEMORY, "size: 64MiB").await;
        let large = targets(LARGE, "large", 12);
        get_all(&edge, &large, 4).await;
        scratch.fault(fault);
        let new = targets(LARGE, "new", 12);
        for _ in 0..2 {
            get_all(&edge, &large, 4).await;
            get_all(&edge, &new, 4).await;
        }
        edge.wait_log(line).await;
        assert_eq!(log_lines(&edge, line), 1, "{}", edge.log());
        assert_eq!(log_lines(&edge, "suspended"), 0, "that is soon over, and no fault of the disk's");
        scratch.heal();
        get_all(&edge, &new, 4).await;
        assert_eq!(disk_hits(&get_all(&edge, &new, 4).await), new.len(), "{fault}: at once");
    }
}

/// What has to go cannot be removed: the limits hold all the same.
async fn removing_fails(fault: &str, suspends: bool) {
    const MOST: usize = 6;
    let scratch = Scratch::new();
    let origin = sized().await;
    let edge = scratch.edge(&origin, NO_MEMORY, &format!("size: 64MiB, max_objects: {MOST}")).await;
    let first = targets(LARGE, "first", MOST);
    get_all(&edge, &first, 2).await;
    assert_eq!(disk_hits(&get_all(&edge, &first, 2).await), MOST);
    scratch.fault(fault);
    for name in ["second", "third"] {
        get_all(&edge, &targets(LARGE, name, 10), 4).await;
        assert!(object_files(&scratch.disk()).len() <= MOST, "{fault}: there are more than may be");
    }
    let hits = disk_hits(&get_all(&edge, &first, 2).await);
    assert!(hits >= MOST - 1, "{fault}: {hits} of {MOST}: what cannot go may as well be used");
    assert_eq!(log_lines(&edge, WRITING), usize::from(suspends), "{fault}: {}", edge.log());
    scratch.heal();
    stores_again(&edge, LARGE, "after").await;
    eventually("no more objects than may be", async || object_files(&scratch.disk()).len() <= MOST).await;
}

#[tokio::test]
async fn nothing_can_be_removed() {
    removing_fails("unlink EIO\n", true).await;
}

#[tokio::test]
async fn nothing_may_be_removed() {
    removing_fails("unlink EPERM\n", false).await;
}

#[tokio::test]
async fn the_disk_is_full_in_the_middle_of_a_large_response() {
    fails_in_a_fill("write ENOSPC\n").await;
}

#[tokio::test]
async fn the_disk_fails_in_the_middle_of_a_large_response() {
    fails_in_a_fill("write EIO\n").await;
}

async fn fails_in_a_fill(fault: &str) {
    for over in BOTH {
        let scratch = Scratch::new();
        let gate = Gate::new();
        let (origin, whole) = in_two_parts(&gate, 2 * MIB, 5 * MIB).await;
        let edge = scratch.edge(&origin, LITTLE_MEMORY, "size: 64MiB").await;
        // What is not kept any more drops whoever is more than 4 MiB behind: nobody can be here.
        let mut first = over.start(&edge, &Ask::get("/a")).await;
        let mut bodies = vec![first.bytes(2 * MIB).await];
        let mut follower = over.start(&edge, &Ask::get("/a")).await;
        bodies.push(follower.bytes(MIB).await);
        scratch.fault(fault);
        gate.open();
        let rests = all([first, follower].into_iter().map(|exchange| exchange.rest())).await;
        for (rest, mut body) in rests.into_iter().zip(bodies) {
            assert!(!is_broken(rest.end), "{over:?}, {fault}: {:?}", rest.end);
            body.extend_from_slice(&rest.body);
            assert!(body == whole, "{over:?}, {fault}: {} bytes", body.len());
        }
        assert_eq!((origin.count(), log_lines(&edge, WRITING)), (1, 1), "{over:?}, {fault}");
        assert!(object_files(&scratch.disk()).is_empty(), "{over:?}, {fault}");
        scratch.heal();
        eventually("it to be stored", async || {
            let response = over.get(&edge, "/a").await;
            assert!(response.body == whole, "{over:?}, {fault}");
            tier(&response) == "disk"
        })
        .await;
    }
}

/// An origin whose one body comes in two parts, with a gate before the second; and the body.
async fn in_two_parts(gate: &Gate, first: usize, len: usize) -> (Origin, bytes::Bytes) {
    let whole = text("whole", len);
    let (gate, parts) = (gate.clone(), whole.clone());
    let origin = Origin::start(move |_| {
        let reply = Reply::ok(parts.slice(..first)).wait(&gate).body(parts.slice(first..));
        reply.cache_control("max-age=3600")
    })
    .await;
    (origin, whole)
}

#[tokio::test]
async fn the_disk_fails_in_the_middle_of_a_hit_over_http1() {
    fails_in_a_hit(Over::Http1).await;
}

#[tokio::test]
async fn the_disk_fails_in_the_middle_of_a_hit_over_http2() {
    fails_in_a_hit(Over::Http2).await;
}

async fn fails_in_a_hit(over: Over) {
    let scratch = Scratch::new();
    let origin = sized().await;
    let target = format!("/{}/large", 16 * MIB);
    let edge = scratch.edge(&origin, LITTLE_MEMORY, "size: 64MiB").await;
    get(&edge, &target).await;
    hits_disk(&edge, &target).await;
    // Each piece takes its time, so that the fault meets one of the later ones.
    scratch.fault("read delay=15ms\n");
    let mut hit = over.start(&edge, &Ask::get(&target)).await;
    assert_eq!((hit.head().status, tier(hit.head())), (200, "disk"), "{over:?}");
    hit.bytes(MIB).await;
    scratch.fault("read EIO\n");
    let rest = hit.rest().await;
    assert!(is_broken(rest.end), "{over:?}: {:?} after {} bytes", rest.end, MIB + rest.body.len());
    assert!(rest.body.len() < 15 * MIB, "{over:?}");
    scratch.heal();
    let whole = over.get(&edge, &target).await;
    check(&whole, &target);
    assert_eq!(tier(&whole), "disk", "{over:?}: one error says nothing of the object");
}

/// A damaged part of a large object ends the connection, and the object.
#[tokio::test]
async fn a_block_goes_bad() {
    for over in BOTH {
        let scratch = Scratch::new();
        let origin = sized().await;
        let target = format!("/{}/large", 6 * MIB);
        let edge: Edge = scratch.edge(&origin, LITTLE_MEMORY, "size: 64MiB").await;
        get(&edge, &target).await;
        hits_disk(&edge, &target).await;
        let files = object_files(&scratch.disk());
        let file = std::fs::File::options().write(true).open(&files[0]).expect("the object's file");
        std::os::unix::fs::FileExt::write_all_at(&file, b"damage", 5 * MIB as u64).expect("damaged");
        let hit = over.get(&edge, &target).await;
        assert!(is_broken(hit.end) && hit.body.len() < 5 * MIB, "{over:?}: {:?}, {}", hit.end, hit.body.len());
        assert!(super::faulty::body(&target).starts_with(&hit.body), "{over:?}: what was sent was right");
        assert_eq!(tier(&get(&edge, &target).await), "", "{over:?}: it is fetched anew");
        hits_disk(&edge, &target).await;
        assert_eq!(log_lines(&edge, "suspended"), 0, "{over:?}");
    }
}
