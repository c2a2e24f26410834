use futures_util::FutureExt;
use pingora_cache::storage::HandleHit;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::store::disk::testing::{Rig, body_of, eventually, wanted};
use crate::store::reading::Followed;
use crate::store::testing;

/// Room in memory alone.
fn room(memory: u64, held: &Arc<AtomicU64>, held_max: u64) -> Room {
    Room { memory, disk: None, held: held.clone(), held_max }
}

fn fill_in(id: u64, expected: Option<u64>, room: Room) -> Arc<Fill> {
    Arc::new(Fill::new(id, testing::key(1), Arc::new(testing::head("1", id)), expected, room))
}

fn fill(expected: Option<u64>, max: u64) -> Arc<Fill> {
    fill_in(1, expected, room(max, &Arc::default(), u64::MAX))
}

/// A fill of a body of that length, which may go to a disk.
fn fill_to(rig: &Rig, number: u64, expected: Option<u64>, held: &Arc<AtomicU64>) -> Arc<Fill> {
    let disk = Some((rig.disk.clone(), 1 << 30));
    let room = Room { memory: 0, disk, held: held.clone(), held_max: u64::MAX };
    let head = Arc::new(testing::head("1", number));
    Arc::new(Fill::new(number, testing::key(number), head, expected, room))
}

/// What is written is on its way to its end.
async fn end(fill: &Arc<Fill>) {
    if let Ok(Filled::Spilled(spill, len)) = fill.filled().await {
        spill.commit(Arc::new(fill.head.with_length(len)), len, || true).await;
    }
    fill.end(true);
}

/// All that a reader gets, and whether it came to the end.
async fn read_all(mut reader: impl HandleHit) -> (Vec<u8>, Result<()>) {
    let mut had = Vec::new();
    loop {
        match reader.read_body().await {
            Ok(Some(piece)) => had.extend_from_slice(&piece),
            Ok(None) => return (had, Ok(())),
            Err(e) => return (had, Err(e)),
        }
    }
}

fn bytes(len: usize) -> Bytes {
    Bytes::from(vec![b'x'; len])
}

/// What a reader can have without waiting.
fn now(reader: &mut Reader) -> Option<Result<Option<Bytes>>> {
    reader.read().now_or_never()
}

#[tokio::test]
async fn readers_get_all_from_the_first_byte_whenever_they_come() {
    let fill = fill(Some(6), 100);
    let mut early = fill.follow(1).unwrap();
    assert!(now(&mut early).is_none(), "nothing is there yet");
    fill.write(Bytes::from_static(b"abc")).unwrap();
    assert_eq!(early.read().await.unwrap().unwrap(), "abc");
    let mut late = fill.follow(2).unwrap();
    fill.write(Bytes::from_static(b"def")).unwrap();
    assert_eq!(fill.body().unwrap().unwrap(), "abcdef");
    fill.end(true);
    assert_eq!(early.read().await.unwrap().unwrap(), "def");
    assert!(early.read().await.unwrap().is_none());
    assert_eq!(late.read().await.unwrap().unwrap(), "abc");
    assert_eq!(late.read().await.unwrap().unwrap(), "def");
    assert!(late.read().await.unwrap().is_none());
}

#[tokio::test]
async fn a_waiting_reader_is_woken() {
    let fill = fill(None, 100);
    let mut reader = fill.follow(1).unwrap();
    let waiting = tokio::spawn(async move { reader.read().await });
    tokio::task::yield_now().await;
    fill.write(Bytes::from_static(b"a")).unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().unwrap(), "a");
}

#[tokio::test]
async fn a_failed_writer_is_an_error_never_an_end() {
    let fill = fill(None, 100);
    let mut reader = fill.follow(1).unwrap();
    fill.write(Bytes::from_static(b"a")).unwrap();
    fill.end(false);
    assert!(fill.follow(9).is_none());
    assert_eq!(reader.read().await.unwrap().unwrap(), "a");
    assert!(reader.read().await.is_err());
    fill.end(true);
    assert!(reader.read().await.is_err(), "what has failed stays failed");
}

#[test]
fn a_length_that_is_not_kept_is_an_error() {
    let short = fill(Some(5), 100);
    short.write(bytes(4)).unwrap();
    assert!(short.body().is_err());
    let long = fill(Some(5), 100);
    assert!(long.write(bytes(6)).is_err());
}

#[tokio::test]
async fn what_outgrows_the_tier_goes_through_a_window() {
    let held = Arc::new(AtomicU64::new(0));
    let fill = fill_in(2, None, room(100_000, &held, u64::MAX));
    let (mut fast, slow) = (fill.follow(1).unwrap(), fill.follow(2).unwrap());
    assert_eq!(fill.write(bytes(64 * 1024)).unwrap(), Written::Kept);
    assert_eq!(fill.write(bytes(64 * 1024)).unwrap(), Written::Outgrown);
    assert!(fill.follow(9).is_none() && fill.body().unwrap().is_none());
    // The slow reader holds everything back until it is too far behind.
    let mut most = 0;
    for _ in 0..200 {
        assert_eq!(fill.write(bytes(64 * 1024)).unwrap(), Written::Passed);
        while let Some(Ok(Some(_))) = now(&mut fast) {}
        assert!(fill.pause(false).is_none(), "a reader keeps up");
        most = most.max(held.load(Ordering::Relaxed));
    }
    assert!(most <= MAX_LAG + 3 * 64 * 1024, "{most} bytes held");
    assert!(held.load(Ordering::Relaxed) <= 64 * 1024, "what all have read is let go");
    let mut slow = slow;
    assert!(slow.read().await.is_err(), "dropped, and told so");
    drop(fast);
    drop(slow);
    assert!(fill.write(bytes(1)).is_err(), "nobody wants it");
    drop(fill);
    assert_eq!(held.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn the_writers_own_reader_gets_several_chunks_at_once() {
    let fill = fill(None, 100 * 64 * 1024);
    let (mut own, mut other) = (fill.follow_own(1).unwrap(), fill.follow(2).unwrap());
    for _ in 0..10 {
        fill.write(bytes(64 * 1024)).unwrap();
    }
    fill.end(true);
    for len in [reader::AT_ONCE, 2 * 64 * 1024] {
        assert_eq!(own.read().await.unwrap().unwrap().len(), len);
    }
    assert!(own.read().await.unwrap().is_none());
    assert_eq!(other.read().await.unwrap().unwrap().len(), 64 * 1024, "others share the chunks as they are");
}

#[tokio::test]
async fn the_writers_own_reader_fails_only_when_the_writer_is_done() {
    let fill = fill(None, 10);
    let (mut own, mut other) = (fill.follow_own(1).unwrap(), fill.follow(2).unwrap());
    for _ in 0..80 {
        fill.write(bytes(64 * 1024)).unwrap();
        assert!(other.read().await.unwrap().is_some());
    }
    assert!(now(&mut own).is_none(), "it waits");
    fill.end(true);
    assert!(own.read().await.is_err());
    assert!(other.read().await.unwrap().is_none());
}

#[test]
fn what_nobody_takes_ends() {
    let abandoned = fill(None, 10);
    let _own = abandoned.follow_own(1).unwrap();
    abandoned.write(bytes(64 * 1024)).unwrap();
    abandoned.own_reader_left();
    assert!(abandoned.write(bytes(1)).is_err());
    let stalled = fill(None, 10);
    let _own = stalled.follow_own(1).unwrap();
    let taken = (0..1000).take_while(|_| stalled.write(bytes(64 * 1024)).is_ok()).count() as u64;
    assert_eq!(taken, MAX_HELD / (64 * 1024) + 1);
}

#[test]
fn what_is_kept_is_written_to_its_end_without_readers() {
    let fill = fill(None, 1024 * 1024);
    drop(fill.follow_own(1).unwrap());
    fill.own_reader_left();
    for _ in 0..16 {
        assert_eq!(fill.write(bytes(64 * 1024)).unwrap(), Written::Kept);
    }
    assert_eq!(fill.body().unwrap().unwrap().len(), 1024 * 1024);
}

#[test]
fn a_writer_far_ahead_is_slowed_down_in_proportion() {
    let fill = fill(None, 10);
    let (_reader, own) = (fill.follow(1).unwrap(), fill.follow_own(2).unwrap());
    fill.write(bytes(2 * 1024 * 1024)).unwrap();
    assert!(fill.pause(false).is_none(), "its own reader would pause with it");
    assert!(fill.pause(true).is_some(), "a write to it goes on meanwhile");
    drop(own);
    let mut last = Duration::ZERO;
    for _ in 0..40 {
        fill.write(bytes(64 * 1024)).unwrap();
        let pause = fill.pause(false).unwrap_or_default();
        assert!(pause >= last && pause <= MAX_PAUSE);
        last = pause;
    }
    assert!(last > Duration::from_millis(50), "{last:?}");
}

#[tokio::test]
async fn what_was_rightly_held_is_still_to_be_had_when_the_response_outgrows_the_tier() {
    let max = 64 * 1024 * 1024;
    let fill = fill(None, max);
    let (mut fast, mut slow) = (fill.follow_own(1).unwrap(), fill.follow(2).unwrap());
    let mut written = 0;
    while written <= max {
        fill.write(bytes(1024 * 1024)).unwrap();
        written += 1024 * 1024;
        while let Some(Ok(Some(_))) = now(&mut fast) {}
    }
    assert!(fill.is_oversize());
    // The slow one is 65 MiB behind, and catches up.
    let mut had = 0;
    while had < written {
        fill.write(bytes(64 * 1024)).unwrap();
        written += 64 * 1024;
        while let Some(Ok(Some(_))) = now(&mut fast) {}
        for _ in 0..2 {
            if let Some(piece) = now(&mut slow) {
                had += piece.unwrap().unwrap().len() as u64;
            }
        }
    }
    fill.end(true);
    assert!(slow.read().await.unwrap().is_none());
}

#[test]
fn together_they_hold_no_more_than_they_may() {
    let held = Arc::new(AtomicU64::new(0));
    let fills: Vec<_> = (0..100).map(|id| fill_in(id, None, room(1024 * 1024, &held, 1024 * 1024))).collect();
    let readers: Vec<_> = fills.iter().map(|fill| fill.follow_own(1).unwrap()).collect();
    let mut kept = 0;
    for _ in 0..4 {
        kept = fills.iter().filter(|fill| fill.write(bytes(20 * 1024)).is_ok_and(|w| w == Written::Kept)).count();
    }
    assert!(kept < 52, "{kept} of 100 are still to be kept");
    drop(readers);
    drop(fills);
    assert_eq!(held.load(Ordering::Relaxed), 0);
}

// ---- by way of the disk

/// What happens to the disk in the middle of a fill.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Trouble {
    None,
    Slow,
    Uncached,
    WriteFails,
    CreateFails,
    ReadFails,
    CommitFails,
}

impl Trouble {
    fn faults(self) -> &'static str {
        match self {
            Trouble::None => "",
            Trouble::Slow => "write delay=4ms\nread delay=1ms",
            Trouble::Uncached => "read nowait",
            Trouble::WriteFails => "write EIO",
            Trouble::CreateFails => "create EIO",
            Trouble::ReadFails => "read EIO",
            Trouble::CommitFails => "publish EIO",
        }
    }
}

#[derive(Clone, Debug)]
struct Follower {
    /// The chunk before which it comes.
    after: usize,
    own: bool,
    /// In thousandths of the body.
    seek: Option<u64>,
    /// Where a range that it wants ends, from there on.
    wants: Option<u64>,
}

fn followers() -> impl Strategy<Value = Vec<Follower>> {
    let thousandth = || proptest::option::of(0..1000_u64);
    let one = (0..40_usize, any::<bool>(), thousandth(), thousandth());
    vec(one.prop_map(|(after, own, seek, wants)| Follower { after, own, seek, wants }), 1..6)
}

fn troubles() -> impl Strategy<Value = Trouble> {
    prop_oneof![
        3 => Just(Trouble::None),
        2 => Just(Trouble::Slow),
        2 => Just(Trouble::Uncached),
        2 => Just(Trouble::WriteFails),
        1 => Just(Trouble::CreateFails),
        1 => Just(Trouble::ReadFails),
        1 => Just(Trouble::CommitFails),
    ]
}

/// One of the fills below.
#[derive(Clone, Debug)]
struct Case {
    chunks: Vec<usize>,
    length_known: bool,
    followers: Vec<Follower>,
    trouble: (usize, Trouble),
    /// The origin breaks off before its end.
    breaks_off: bool,
}

fn cases() -> impl Strategy<Value = Case> {
    let chunks = vec(prop_oneof![2 => 1..2_000_usize, 3 => 20_000..100_000_usize], 1..30);
    (chunks, any::<bool>(), followers(), (0..30_usize, troubles()), proptest::bool::weighted(0.1)).prop_map(
        |(chunks, length_known, followers, trouble, breaks_off)| Case {
            chunks,
            length_known,
            followers,
            trouble,
            breaks_off,
        },
    )
}

/// What became of a fill: each follower's range, what it had, and how it ended.
async fn follow_all(rig: &Rig, number: u64, case: &Case, held: &Arc<AtomicU64>) {
    let all = testing::body(case.chunks.iter().sum());
    let fill = fill_to(rig, number, case.length_known.then_some(all.len() as u64), held);
    let (mut rest, mut running, mut failed) = (all.clone(), Vec::new(), false);
    for (at, len) in case.chunks.iter().enumerate() {
        for (id, follower) in
            case.followers.iter().enumerate().filter(|(_, f)| f.after.min(case.chunks.len() - 1) == at)
        {
            let reader = if follower.own { fill.follow_own(id as u64) } else { fill.follow(id as u64) };
            let Some(reader) = reader else { continue };
            let mut hit = Followed::new(reader);
            let of = |thousandth: u64| all.len() * thousandth as usize / 1000;
            let start = follower.seek.map_or(0, of);
            let stop = follower.wants.map_or(all.len(), |wants| (start + of(wants)).min(all.len()));
            if follower.seek.is_some() || follower.wants.is_some() {
                hit.seek(start, follower.wants.map(|_| stop)).unwrap();
            }
            running.push((start..stop, follower.wants.is_some(), tokio::spawn(read_all(hit))));
        }
        if case.trouble.0 == at {
            rig.faults(case.trouble.1.faults());
        }
        if fill.write(rest.split_to(*len)).is_err() {
            failed = true;
            break;
        }
        fill.wait_for_room().await;
        tokio::task::yield_now().await;
    }
    failed |= case.breaks_off;
    if failed {
        fill.end(false);
    } else {
        end(&fill).await;
    }
    for (range, is_part, reading) in running {
        let (had, how) = reading.await.unwrap();
        assert_eq!(had[..], all[range.start..range.start + had.len().min(range.len())], "not what was sent");
        if how.is_ok() {
            assert_eq!(had.len(), range.len(), "it ended early, and well");
            // Of a part, all that is wanted may have come.
            assert!(!failed || is_part, "a broken response with a good end");
        } else {
            assert!(failed || case.trouble.1 != Trouble::None, "nothing was wrong, but {how:?}");
        }
    }
    drop(fill);
    rig.drain();
    assert_eq!(held.load(Ordering::Relaxed), 0);
    rig.faults("");
    if !failed && case.trouble.1 == Trouble::None && all.len() > 300_000 {
        let there = rig.find(testing::key(number).id(), wanted()).await.unwrap();
        assert_eq!(body_of(&there).await.unwrap(), all);
    }
}

#[test]
fn whatever_befalls_the_disk_a_reader_gets_the_body_or_an_error() {
    let rig = Rig::new(64 << 20);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (held, next) = (Arc::default(), AtomicU64::new(1));
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let run = |case: Case| {
        runtime.block_on(follow_all(&rig, next.fetch_add(1, Ordering::Relaxed), &case, &held));
        Ok(())
    };
    runner.run(&cases(), run).unwrap();
    runtime.block_on(rig.balances());
}

#[tokio::test]
async fn a_read_that_is_given_up_leaves_no_hole() {
    let rig = Rig::new(64 << 20);
    let fill = fill_to(&rig, 1, None, &Arc::default());
    let all = testing::body(900_000);
    for chunk in all.chunks(50_000) {
        fill.write(Bytes::copy_from_slice(chunk)).unwrap();
        fill.wait_for_room().await;
    }
    rig.drain();
    let readers = [fill.follow(1).unwrap(), fill.follow_own(2).unwrap()];
    end(&fill).await;
    // Each piece is given up once while it is on its way from the disk, as a proxy does that has something else to do.
    rig.faults("read nowait");
    for mut reader in readers {
        let (mut had, mut given_up) = (Vec::new(), 0);
        while had.len() < all.len() {
            if let Some(piece) = now(&mut reader) {
                had.extend_from_slice(&piece.unwrap().unwrap());
                continue;
            }
            given_up += 1;
            had.extend_from_slice(&reader.read().await.unwrap().unwrap());
        }
        assert!(given_up > 3, "{given_up} pieces of the file");
        assert_eq!(had, all);
    }
    rig.faults("");
}

#[tokio::test]
async fn the_last_bytes_wait_for_the_file_to_have_its_name() {
    let rig = Rig::new(64 << 20);
    for (number, chunks) in [(1, 8), (2, 1)] {
        let all = testing::body(400_000);
        let fill = fill_to(&rig, number, Some(all.len() as u64), &Arc::default());
        let (mut early, mut own) = (fill.follow(1).unwrap(), fill.follow_own(2).unwrap());
        for chunk in all.chunks(all.len() / chunks) {
            fill.write(Bytes::copy_from_slice(chunk)).unwrap();
            fill.wait_for_room().await;
        }
        let Filled::Spilled(spill, len) = fill.filled().await.unwrap() else { panic!("it is not on the disk") };
        let mut late = fill.follow(3).unwrap();
        for reader in [&mut early, &mut own, &mut late] {
            let mut had = 0;
            while let Some(piece) = now(reader) {
                had += piece.unwrap().unwrap().len();
            }
            assert!(had < all.len(), "it has all of it");
        }
        rig.faults("publish hang");
        let mut commit = spill.commit(Arc::new(fill.head.with_length(len)), len, || true).boxed();
        assert!((&mut commit).now_or_never().is_none());
        assert!(now(&mut early).is_none() && now(&mut own).is_none() && now(&mut late).is_none());
        rig.faults("");
        commit.await;
        fill.end(true);
        for reader in [early, own, late] {
            let (had, how) = read_all(Followed::new(reader)).await;
            assert!(how.is_ok() && all.ends_with(&had) && !had.is_empty());
        }
        assert!(rig.find(testing::key(number).id(), wanted()).await.is_some());
    }
}

#[tokio::test]
async fn a_large_fill_holds_little_however_slow_its_reader_is() {
    let rig = Rig::new(128 << 20);
    let held = Arc::new(AtomicU64::new(0));
    let fill = fill_to(&rig, 1, None, &held);
    let idle = fill.follow(1).unwrap();
    let mut most = 0;
    for _ in 0..50 * 16 {
        assert_eq!(fill.write(bytes(64 * 1024)).unwrap(), Written::Kept);
        most = most.max(held.load(Ordering::Relaxed));
        fill.wait_for_room().await;
    }
    assert!(most < 3 * 512 * 1024, "{most} bytes held");
    end(&fill).await;
    // And it has lost nothing.
    let (had, how) = read_all(Followed::new(idle)).await;
    assert!(how.is_ok() && had.len() == 50 << 20);
    drop(fill);
    eventually("all is let go", || held.load(Ordering::Relaxed) == 0).await;
    assert_eq!(rig.find(testing::key(1).id(), wanted()).await.unwrap().body.len(), 50 << 20);
}

#[tokio::test]
async fn who_wants_a_part_gets_it_without_what_comes_before() {
    let rig = Rig::new(64 << 20);
    let all = testing::body(2_000_000);
    let fill = fill_to(&rig, 1, Some(all.len() as u64), &Arc::default());
    let ahead = {
        let mut ahead = Followed::new(fill.follow(1).unwrap());
        ahead.seek(1_500_000, Some(1_600_000)).unwrap();
        ahead
    };
    let (before, after) = all.split_at(1_000_000);
    for chunk in before.chunks(40_000) {
        fill.write(Bytes::copy_from_slice(chunk)).unwrap();
        fill.wait_for_room().await;
    }
    rig.drain();
    // Back, to what only the file has.
    let mut back = Followed::new(fill.follow(2).unwrap());
    back.seek(300_000, Some(300_010)).unwrap();
    assert_eq!(back.read_body().await.unwrap().unwrap(), all[300_000..300_010]);
    assert!(back.read_body().await.unwrap().is_none());
    let ahead = tokio::spawn(read_all(ahead));
    for chunk in after.chunks(40_000) {
        fill.write(Bytes::copy_from_slice(chunk)).unwrap();
        fill.wait_for_room().await;
    }
    end(&fill).await;
    let (had, how) = ahead.await.unwrap();
    assert!(how.is_ok() && had == all[1_500_000..1_600_000]);
}
