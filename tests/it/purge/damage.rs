//! A ledger's file that is not as it was left: what has been purged does not come back, whatever it costs.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::json;

use super::{Stock, Tier, durable, is_stored, killed, ledger, numbered, purge, start, tag, url};
use crate::harness::{Ask, Edge, Origin, Reply, eventually};
use crate::over::BOTH;

/// Each has its path for a tag.
async fn origin() -> Origin {
    numbered(|request| Reply::new(200).cache_control("max-age=3600").header("Surrogate-Key", request.path())).await
}

fn file(edge: &Edge) -> PathBuf {
    edge.folder().join("cache/ledger")
}

const KEPT: [&str; 4] = ["/k0", "/k1", "/k2", "/k3"];
const GONE: [&str; 4] = ["/g0", "/g1", "/g2", "/g3"];

/// An edge that has been told to purge half of what it has, which nobody has looked at since.
async fn purged(origin: &Origin, yaml: &str) -> Edge {
    let edge = start(&(Edge::yaml_before(&[origin], "") + yaml)).await;
    let all = KEPT.iter().chain(&GONE).map(|target| (String::from(*target), Ask::get(target)));
    Stock::fill(&edge, all).await;
    for (target, what) in
        GONE.iter().zip([tag(GONE[0]), url(GONE[1]), json!({ "prefixes": ["edge.test/g2"] }), tag(GONE[3])])
    {
        assert!(what.to_string().contains(target.trim_start_matches('/')));
        purge(&edge, &what).await;
    }
    edge
}

/// Which of these are stored.
async fn stored<'t>(edge: &Edge, targets: &[&'t str]) -> Vec<&'t str> {
    let mut found = Vec::new();
    for target in targets {
        if is_stored(edge, &Ask::get(target)).await {
            found.push(*target);
        }
    }
    found
}

async fn again(edge: &Edge) -> Edge {
    let next = edge.again();
    next.wait_ready().await;
    durable(&next).await;
    next
}

const NOTHING: [&str; 0] = [];

/// Sees that the edge stores and purges as ever, and that it lasts. What is stored is what `left` says, and what is fetched
/// here.
async fn works_on(edge: Edge, what: &str) {
    let asks = ["/n0", "/n1"].map(|target| (target.to_owned(), Ask::get(target)));
    let mut stock = Stock::fill(&edge, asks).await;
    purge(&edge, &tag("/n0")).await;
    let edge = killed(&edge).await;
    assert_eq!(stored(&edge, &GONE).await, NOTHING, "{what}: nothing comes back by another start");
    stock.assert_gone(&mut BOTH[0].connect(&edge).await, false, &["/n0"], what).await;
}

#[tokio::test]
async fn bytes_behind_what_was_written_are_cut_off() {
    let origin = origin().await;
    // Half of a record, nothing that makes sense, zeros; and a length that nothing has.
    for garbage in [&b"\x40\0\0\0\x12\x34\x56\x78\x02abc"[..], &[0xa5; 5000], &[0; 4096], &[0xff; 8]] {
        let edge = purged(&origin, Tier::Disk.yaml()).await;
        let head = ledger(&edge).await["entries"].clone();
        edge.kill().await;
        let path = file(&edge);
        let before = fs::read(&path).expect("a ledger");
        fs::write(&path, [&before[..], garbage].concat()).expect("written");
        let edge = again(&edge).await;
        edge.wait_log(&format!("the ledger's last {} bytes were not written in full", garbage.len())).await;
        assert_eq!(stored(&edge, &GONE).await, NOTHING);
        assert_eq!(stored(&edge, &KEPT).await, KEPT);
        assert_eq!(ledger(&edge).await["entries"], head);
        works_on(edge, "garbage").await;
    }
}

/// What becomes of a ledger while no process has it.
type Damage = (&'static str, fn(Vec<u8>) -> Option<Vec<u8>>);

/// Where the first record is, and where what it says begins.
const RECORDS: usize = 12288;

const DAMAGES: [Damage; 8] = [
    ("gone", |_| None),
    ("empty", |_| Some(Vec::new())),
    ("a byte of the header", |bytes| flipped(bytes, 17)),
    ("a byte of the first record", |bytes| flipped(bytes, RECORDS + 10)),
    ("a byte in the middle", |bytes| {
        let at = (RECORDS + bytes.len()) / 2;
        flipped(bytes, at)
    }),
    ("a byte of the last record", |bytes| {
        let at = bytes.len() - 3;
        flipped(bytes, at)
    }),
    ("cut in the middle", |bytes| Some(bytes[..(RECORDS + bytes.len()) / 2].to_vec())),
    ("something else", |bytes| Some(vec![0x55; bytes.len()])),
];

fn flipped(mut bytes: Vec<u8>, at: usize) -> Option<Vec<u8>> {
    bytes[at] ^= 0x10;
    Some(bytes)
}

fn damage(path: &Path, how: fn(Vec<u8>) -> Option<Vec<u8>>) {
    match how(fs::read(path).expect("a ledger")) {
        Some(bytes) => fs::write(path, bytes).expect("written"),
        None => fs::remove_file(path).expect("removed"),
    }
}

#[tokio::test]
async fn nothing_is_used_that_a_damaged_ledger_does_not_vouch_for() {
    let origin = origin().await;
    for (n, (what, how)) in DAMAGES.into_iter().enumerate() {
        let tier = [Tier::Disk, Tier::Both][n % 2];
        let edge = purged(&origin, tier.yaml()).await;
        // In good order, so that all of it is committed.
        edge.signal(Signal::TERM);
        assert!(edge.wait_exit().await.success());
        damage(&file(&edge), how);
        let edge = again(&edge).await;
        assert_eq!(stored(&edge, &GONE).await, NOTHING, "{what}: what was purged comes back");
        assert_eq!(stored(&edge, &KEPT).await, NOTHING, "{what}: nobody knows whether it was purged");
        if what != "gone" {
            edge.wait_log("the ledger is damaged").await;
        }
        works_on(edge, what).await;
    }
}

/// Each disk's copy has all of it.
#[tokio::test]
async fn another_disk_knows_it_too() {
    let disks =
        "cache: { memory: off, disk: [{ path: \"{dir}/cache\", size: 64MiB }, { path: \"{dir}/b\", size: 64MiB }] }\n";
    let origin = origin().await;
    for (what, how) in [DAMAGES[0], DAMAGES[4], DAMAGES[6]] {
        for one in ["cache", "b"] {
            let edge = purged(&origin, disks).await;
            edge.signal(Signal::TERM);
            assert!(edge.wait_exit().await.success());
            damage(&edge.folder().join(one).join("ledger"), how);
            let edge = again(&edge).await;
            assert_eq!(stored(&edge, &GONE).await, NOTHING, "{what}, {one}");
            assert_eq!(stored(&edge, &KEPT).await, KEPT, "{what}, {one}: the other copy is whole");
            works_on(edge, what).await;
        }
    }
}

#[tokio::test]
async fn a_file_that_goes_while_it_is_in_use() {
    let origin = origin().await;
    for purged_after in [false, true] {
        let edge = purged(&origin, Tier::Disk.yaml()).await;
        fs::remove_file(file(&edge)).expect("removed");
        if purged_after {
            // It is answered only when it is written down: in a file that is begun anew.
            let sequence = purge(&edge, &tag(KEPT[0])).await;
            assert!(file(&edge).exists(), "{sequence} is written down");
            assert!(!is_stored(&edge, &Ask::get(KEPT[0])).await);
        } else {
            eventually("a new file", async || file(&edge).exists()).await;
        }
        edge.wait_log("begins anew").await;
        assert_eq!(stored(&edge, &GONE).await, NOTHING);
        let edge = killed(&edge).await;
        assert_eq!(stored(&edge, &GONE).await, NOTHING);
        assert!(!purged_after || !is_stored(&edge, &Ask::get(KEPT[0])).await);
        works_on(edge, "the file goes").await;
    }
}

#[tokio::test]
async fn a_folder_that_is_emptied_while_it_is_in_use() {
    let origin = origin().await;
    for with_folder in [false, true] {
        let edge = purged(&origin, Tier::Both.yaml()).await;
        let folder = edge.folder().join("cache");
        match with_folder {
            true => remove_all(&folder),
            false => fs::read_dir(&folder).expect("a folder").flatten().for_each(|entry| remove(&entry.path())),
        }
        let answer = edge.admin_post("/v1/purge", &tag(KEPT[0]).to_string()).await;
        assert!(answer.status == 200 || answer.status == 503 && answer.json()["in_force"] == true, "{answer:?}");
        assert!(!is_stored(&edge, &Ask::get(KEPT[0])).await, "it is in force either way");
        durable(&edge).await;
        purge(&edge, &tag(KEPT[1])).await;
        let edge = killed(&edge).await;
        assert_eq!(stored(&edge, &[&GONE[..], &KEPT[..2]].concat()).await, NOTHING, "with folder: {with_folder}");
        works_on(edge, "the folder is emptied").await;
    }
}

/// The files of objects come back from a backup, and the ledger that stood beside them does not.
#[tokio::test]
async fn objects_without_their_ledger() {
    let origin = origin().await;
    let edge = purged(&origin, Tier::Disk.yaml()).await;
    let (folder, copy) = (edge.folder().join("cache"), edge.folder().join("copy"));
    copy_all(&folder, &copy);
    edge.kill().await;
    fs::remove_dir_all(&folder).expect("removed");
    let edge = again(&edge).await;
    purge(&edge, &tag("/another")).await;
    edge.kill().await;
    let ledger = fs::read(file(&edge)).expect("a ledger");
    fs::remove_dir_all(&folder).expect("removed");
    copy_all(&copy, &folder);
    fs::write(file(&edge), ledger).expect("written");
    let edge = again(&edge).await;
    let all: Vec<&str> = GONE.into_iter().chain(KEPT).collect();
    assert_eq!(stored(&edge, &all).await, NOTHING, "another ledger says nothing of them");
    works_on(edge, "another ledger").await;
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        let target = to.join(entry.file_name());
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => copy_all(&entry.path(), &target),
            Ok(kind) if kind.is_file() => _ = fs::copy(entry.path(), target).expect("copied"),
            _ => {}
        }
    }
}

fn remove(path: &Path) {
    match path.is_dir() {
        true => remove_all(path),
        // It may have been a temporary one.
        false => _ = fs::remove_file(path),
    }
}

/// Removes it while others may write below it.
fn remove_all(folder: &Path) {
    while folder.exists() {
        // What is made meanwhile makes it fail, and is removed the next time.
        let _ = fs::remove_dir_all(folder);
    }
}
