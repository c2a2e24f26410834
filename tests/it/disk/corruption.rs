//! Damaged files are never served.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;

use super::{assert_stored, body_of, folder, length, objects, sized, stored, yaml};
use crate::harness::{Ask, Edge, End, Response};
use crate::over::BOTH;

/// The file of the only object.
fn the_file(edge: &Edge) -> PathBuf {
    let files = objects(&folder(edge));
    assert_eq!(files.len(), 1, "{files:?}");
    files.into_iter().next().expect("a file")
}

/// The files that have appeared since `before` was listed.
fn new_file(edge: &Edge, before: &[PathBuf]) -> PathBuf {
    let new: Vec<_> = objects(&folder(edge)).into_iter().filter(|path| !before.contains(path)).collect();
    assert_eq!(new.len(), 1, "{new:?}");
    new.into_iter().next().expect("a file")
}

/// Turns a byte of a file into another, and sees to it that the file's time of change says so: the file system's clock
/// moves in steps.
fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).expect("a file");
    let time = || {
        let meta = file.metadata().expect("metadata");
        (meta.mtime(), meta.mtime_nsec())
    };
    let (mut byte, before) = ([0], time());
    file.read_exact_at(&mut byte, at).expect("a byte");
    byte[0] ^= 0x20;
    while time() == before {
        file.write_all_at(&byte, at).expect("written");
    }
}

/// Puts these bytes in the place of whatever is there, as one step.
fn put(path: &Path, bytes: &[u8]) {
    let new = path.with_extension("new");
    fs::write(&new, bytes).expect("written");
    fs::rename(&new, path).expect("renamed");
}

fn assert_right(response: &Response, url: &str) {
    assert_eq!((response.status, response.end), (200, End::Clean), "{url}: {:?}", response.headers);
    assert!(response.body == body_of(url, length(url)), "{url}: other bytes");
}

/// Bytes of a slot for a head, as a file says (`docs/store.md`).
fn capacity(file: &[u8]) -> usize {
    u32::from_le_bytes(file[12..16].try_into().expect("four bytes")) as usize
}

const SMALL: &str = "/object/100";

#[tokio::test]
async fn no_byte_of_a_file_can_be_changed_unnoticed_while_it_is_in_use() {
    let origin = sized().await;
    let edge = Edge::start(&yaml(&origin, "off", "size: 64MiB")).await;
    let mut client = edge.connect().await;
    assert_right(&client.ask(&Ask::get(SMALL)).await, SMALL);
    let path = the_file(&edge);
    let whole = fs::read(&path).expect("a file");
    let mut unnoticed = Vec::new();
    for at in 0..whole.len() {
        // So that the file is open.
        assert!(client.ask(&Ask::get(SMALL)).await.is_hit(), "before byte {at}");
        flip(&path, at as u64);
        let response = client.ask(&Ask::get(SMALL)).await;
        assert_right(&response, SMALL);
        if response.is_hit() {
            unnoticed.push(at);
            flip(&path, at as u64);
        }
    }
    // The slot that is not in force has no say.
    let unused = 128 + capacity(&whole)..128 + 2 * capacity(&whole);
    assert_eq!(unnoticed, unused.collect::<Vec<_>>());
    assert_eq!(origin.count() - 1, whole.len() - capacity(&whole));
    assert_causes(&edge, origin.count() - 1);
}

/// The log has each damaged file, and all the words that flipping bytes leads to.
fn assert_causes(edge: &Edge, damaged: usize) {
    let log = edge.log();
    assert_eq!(log.matches("is damaged (").count(), damaged);
    for cause in ["magic", "version", "checksum"] {
        assert!(log.contains(&format!("is damaged ({cause})")), "{cause}");
    }
    assert!(!log.contains("suspended"), "{log}");
}

#[tokio::test]
async fn no_byte_of_a_file_can_be_changed_unnoticed_while_nobody_looks() {
    let origin = sized().await;
    let edge = Edge::start(&yaml(&origin, "64MiB", "size: 64MiB")).await;
    let mut client = edge.connect().await;
    // An object for each byte of one. Their heads are of the same length.
    let url = |n: usize| format!("/{n:06}/100");
    client.ask(&Ask::get(&url(0))).await;
    let first = fs::read(the_file(&edge)).expect("a file");
    for n in 1..first.len() {
        client.ask(&Ask::get(&url(n))).await;
    }
    edge.signal(Signal::TERM);
    assert!(edge.wait_exit().await.success());
    let files = objects(&folder(&edge));
    assert_eq!(files.len(), first.len());
    for (at, path) in files.iter().enumerate() {
        assert_eq!(fs::metadata(path).expect("a file").len() as usize, first.len(), "{}", path.display());
        flip(path, at as u64);
    }
    let edge = edge.again();
    edge.wait_ready().await;
    let fetched = origin.count();
    let mut client = edge.connect().await;
    for n in 0..first.len() {
        assert_right(&client.ask(&Ask::get(&url(n))).await, &url(n));
    }
    assert_eq!(origin.count() - fetched, first.len() - capacity(&first), "all but what has no say");
    assert_causes(&edge, origin.count() - fetched);
    for n in 0..first.len() {
        assert!(client.ask(&Ask::get(&url(n))).await.is_hit(), "{n}: replaced by what the origin gave");
    }
}

/// Something in the place of an object's file.
type Damage = (&'static str, Box<dyn Fn(&Path)>);

/// All that can be in the place of a file; `other` is the file of another object, whose bytes these are.
fn damages(whole: &[u8], other: &Path) -> Vec<Damage> {
    let mut all: Vec<Damage> = Vec::new();
    for len in [0, 1, 8, 11, 12, 63, 64, 127, 128, 128 + capacity(whole), whole.len() / 2, whole.len() - 1] {
        let bytes = whole[..len].to_vec();
        all.push(("cut", Box::new(move |path| put(path, &bytes))));
    }
    let contents = [
        ("longer", [whole, b"x"].concat()),
        ("of another object", fs::read(other).expect("the other file")),
        ("noise", body_of("noise", whole.len())),
        ("text", b"<html>It works!</html>".to_vec()),
        ("zeros", vec![0; whole.len()]),
        ("of a future version", [&whole[..8], &3_u32.to_le_bytes(), &whole[12..]].concat()),
        ("of a future version, and short", [&whole[..8], &7_u32.to_le_bytes()].concat()),
    ];
    for (what, bytes) in contents {
        all.push((what, Box::new(move |path| put(path, &bytes))));
    }
    let of_other = other.to_owned();
    let kinds: [Damage; 7] = [
        ("a link to another object", Box::new(move |path| symlink(&of_other, path).expect("a link"))),
        ("a link to nothing", Box::new(|path| symlink("nothing", path).expect("a link"))),
        ("a link to itself", Box::new(|path| symlink(path, path).expect("a link"))),
        ("a folder", Box::new(|path| fs::create_dir(path).expect("a folder"))),
        (
            "a folder with a file",
            Box::new(|path| {
                fs::create_dir(path).expect("a folder");
                fs::write(path.join("file"), "text").expect("a file");
            }),
        ),
        ("a pipe", Box::new(|path| node(path, FileType::Fifo))),
        ("a socket", Box::new(|path| node(path, FileType::Socket))),
    ];
    for (what, make) in kinds {
        all.push((
            what,
            Box::new(move |path| {
                fs::remove_file(path).expect("removed");
                make(path);
            }),
        ));
    }
    all
}

fn node(path: &Path, kind: FileType) {
    mknodat(CWD, path, kind, Mode::RUSR | Mode::WUSR, 0).expect("a node");
}

#[tokio::test]
async fn whatever_is_in_the_place_of_a_file_is_not_served_and_does_no_harm() {
    for restarted in [false, true] {
        let origin = sized().await;
        let mut edge = Edge::start(&yaml(&origin, "off", "size: 64MiB")).await;
        edge.get(SMALL).await;
        let path = the_file(&edge);
        let whole = fs::read(&path).expect("a file");
        edge.get("/another/100").await;
        let other = new_file(&edge, std::slice::from_ref(&path));
        for (n, (what, damage)) in damages(&whole, &other).into_iter().enumerate() {
            if restarted {
                edge.signal(Signal::TERM);
                assert!(edge.wait_exit().await.success(), "{what}");
            } else {
                assert_stored(&edge, SMALL).await;
            }
            damage(&path);
            if restarted {
                edge = edge.again();
                edge.wait_ready().await;
            }
            let fetched = origin.count();
            let response = edge.get(SMALL).await;
            assert_right(&response, SMALL);
            assert_eq!(origin.count(), fetched + 1, "{what}: {:?}", response.headers);
            // Its place is taken by what the origin gave.
            assert_stored(&edge, SMALL).await;
            let now = fs::symlink_metadata(&path).expect("a file");
            assert!(now.is_file() && now.len() == whole.len() as u64, "{what}: {now:?}");
            // Nothing else suffers.
            assert_stored(&edge, "/another/100").await;
            let next = format!("/next-{n}/5000");
            edge.get(&next).await;
            assert_stored(&edge, &next).await;
            assert!(!edge.log().contains("suspended"), "{what}: {}", edge.log());
        }
    }
}

#[tokio::test]
async fn what_is_no_file_can_be_purged_and_replaced() {
    let origin = sized().await;
    let edge = Edge::start(&yaml(&origin, "64MiB", "size: 64MiB")).await;
    edge.get(SMALL).await;
    let path = the_file(&edge);
    fs::remove_file(&path).expect("removed");
    fs::create_dir(&path).expect("a folder");
    // An unsafe method invalidates it, which removes the file.
    edge.ask(&Ask::new("POST", SMALL).body("x")).await;
    assert!(stored(&edge, SMALL).await.is_none());
    edge.get(SMALL).await;
    assert_stored(&edge, SMALL).await;
    assert!(!edge.log().contains("suspended"), "{}", edge.log());
    let edge = edge.restart().await;
    assert_stored(&edge, SMALL).await;
}

const LARGE: &str = "/large/3000000";

/// A body that is right, or seen to be cut.
fn assert_right_or_cut(response: &Response, url: &str, what: &str) {
    let right = body_of(url, length(url));
    match response.end {
        End::Clean => assert!(response.body == right, "{what}: {} bytes, ended well", response.body.len()),
        _ => assert!(right.starts_with(&response.body), "{what}: other bytes among {}", response.body.len()),
    }
}

#[tokio::test]
async fn a_large_object_is_never_served_with_a_wrong_byte() {
    for over in BOTH {
        for restarted in [false, true] {
            let origin = sized().await;
            let mut edge = Edge::start(&yaml(&origin, "64MiB", "size: 64MiB")).await;
            edge.get(LARGE).await;
            let path = the_file(&edge);
            let whole = fs::read(&path).expect("a file");
            let body = 128 + 2 * capacity(&whole);
            // In the first part that is looked at before the head leaves, in the middle, at the end; and in the table.
            for at in [body, body + 70_000, body + 1_500_000, body + 2_999_999, whole.len() - 1, whole.len() - 100] {
                let what = format!("{over:?}, restarted: {restarted}, byte {at} of {}", whole.len());
                assert_stored(&edge, LARGE).await;
                if restarted {
                    edge.signal(Signal::TERM);
                    assert!(edge.wait_exit().await.success());
                    flip(&path, at as u64);
                    edge = edge.again();
                    edge.wait_ready().await;
                } else {
                    flip(&path, at as u64);
                }
                let fetched = origin.count();
                let damaged = over.connect(&edge).await.get(LARGE).await;
                assert_right_or_cut(&damaged, LARGE, &what);
                assert!(origin.count() > fetched || damaged.end != End::Clean, "{what}: nobody has noticed");
                let next = over.connect(&edge).await.get(LARGE).await;
                assert_right(&next, LARGE);
                assert_eq!(origin.count(), fetched + 1, "{what}");
                let last = over.connect(&edge).await.get(LARGE).await;
                assert!(last.is_hit(), "{what}");
                assert_right(&last, LARGE);
            }
        }
    }
}

type Happening = (&'static str, fn(&Path));

/// More than the buffers of a connection hold.
const HUGE: &str = "/huge/24000000";

#[tokio::test]
async fn what_happens_to_a_file_while_it_is_sent_is_noticed() {
    let origin = sized().await;
    let edge = Edge::start(&yaml(&origin, "off", "size: 256MiB")).await;
    for over in BOTH {
        let happenings: [Happening; 4] = [
            ("a byte", |path| flip(path, 23_500_000)),
            ("cut", |path| File::options().write(true).open(path).and_then(|f| f.set_len(9_000_000)).expect("cut")),
            ("emptied", |path| File::options().write(true).open(path).and_then(|f| f.set_len(0)).expect("cut")),
            ("removed", |path| fs::remove_file(path).expect("removed")),
        ];
        for (what, happens) in happenings {
            assert_right(&edge.get(HUGE).await, HUGE);
            let path = the_file(&edge);
            let begun = over.start(&edge, &Ask::get(HUGE)).await;
            happens(&path);
            let response = begun.rest().await;
            assert!(response.is_hit(), "{what}");
            assert_right_or_cut(&response, HUGE, what);
            // Who has the file open goes on reading it though its name is gone.
            assert_eq!(response.end == End::Clean, what == "removed", "{over:?}: {what}: {:?}", response.end);
            assert_right(&edge.get(HUGE).await, HUGE);
        }
    }
}

/// A file whose every checksum is right, but that has the body of another.
#[tokio::test]
async fn a_head_does_not_go_with_the_body_of_another() {
    let origin = sized().await;
    for len in [100, 300_000] {
        let edge = Edge::start(&yaml(&origin, "off", "size: 64MiB")).await;
        let (one, two) = (format!("/one/{len}"), format!("/two/{len}"));
        edge.get(&one).await;
        let path = the_file(&edge);
        edge.get(&two).await;
        let other = new_file(&edge, std::slice::from_ref(&path));
        let (head, body) = (fs::read(&path).expect("a file"), fs::read(other).expect("a file"));
        assert_eq!(head.len(), body.len());
        let at = 128 + 2 * capacity(&head);
        put(&path, &[&head[..at], &body[at..]].concat());
        assert_right(&edge.get(&one).await, &one);
        assert_stored(&edge, &one).await;
    }
}
