use futures_util::FutureExt;

use super::*;
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
