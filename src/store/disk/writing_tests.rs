use bytes::Bytes;
use std::sync::atomic::{AtomicBool, AtomicU64};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::super::spill::Spill;
use super::super::testing::{ID, Random, Rig, always, body, body_of, eventually, found, long, wanted};
use super::*;
use crate::store::testing::{self, head, key, object};

/// A large object by way of a file that is written while it comes; whether it came to its end.
async fn spilled(disk: &Arc<Disk>, number: u64, head: Head, body: &Bytes, current: impl Current) -> bool {
    let spill = Spill::begin(disk, key(number), &head, None);
    let (told, well) = tokio::sync::oneshot::channel();
    spill.append(0, vec![body.clone()], |how| _ = told.send(how.is_ok()));
    if well.await != Ok(true) {
        return false;
    }
    spill.commit(Arc::new(head), body.len() as u64, current).await;
    true
}

/// Stores an object in any case: the keeper may just have come upon a fault that is no more.
async fn put(rig: &Rig, id: ObjectId, object: Arc<Object>) {
    loop {
        rig.heal();
        rig.store(id, object.clone(), always).await;
        rig.drain();
        if rig.space.lock().index.get(id).is_some() {
            return;
        }
    }
}

// ---- storing and removing

#[derive(Clone, Copy, Debug, PartialEq)]
enum Act {
    Store(u64),
    Remove,
}

/// Every order of the three.
fn orders() -> Vec<[Act; 3]> {
    let acts = [Act::Store(1), Act::Remove, Act::Store(2)];
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    orders.map(|order| order.map(|at| acts[at])).to_vec()
}

#[tokio::test]
async fn in_whatever_order_jobs_end_what_counts_is_the_order_in_which_they_were_asked_for() {
    let rig = Rig::new(64 << 20);
    let mut number = 0;
    for faults in ["", "write delay=15ms", "unlink delay=15ms", "create delay=15ms", "publish delay=15ms"] {
        for (order, stored_before) in orders().into_iter().flat_map(|order| [(order, false), (order, true)]) {
            let case = format!("{order:?} with {faults:?}, {stored_before}");
            number += 1;
            let id = key(number).id();
            // The numbers are in the order of the requests to the origin.
            let heads = [head("0", 10), head("1", 11), head("2", 12)];
            rig.faults("");
            if stored_before {
                put(&rig, id, object(heads[0].with_length(3), "old")).await;
            }
            rig.faults(faults);
            let mut under_way: Vec<BoxFuture<()>> = Vec::new();
            let mut expected = stored_before.then_some(0);
            for act in order {
                match act {
                    Act::Store(which) => {
                        under_way
                            .push(rig.store(id, object(heads[which as usize].with_length(3), "new"), always).boxed());
                        // One that began earlier does not take the place of one that began later.
                        expected = Some(expected.map_or(which, |there| there.max(which)));
                    }
                    Act::Remove => {
                        under_way.push(rig.remove(id).map(|_| ()).boxed());
                        expected = None;
                    }
                }
                let now = found(&rig, id).await;
                if expected.is_none() {
                    assert_eq!(now, None, "{case}: after {act:?}");
                }
            }
            futures_util::future::join_all(under_way).await;
            rig.drain();
            let last = found(&rig, id).await;
            if order == [Act::Store(2), Act::Remove, Act::Store(1)] {
                // What began before that which has been removed may be as outdated.
                assert!(last.is_none() || last.as_deref() == Some("1"), "{case}: {last:?}");
            } else {
                assert_eq!(last, expected.map(|which| which.to_string()), "{case}");
            }
        }
    }
    rig.faults("");
    rig.balances().await;
    let rig = rig.reopened();
    rig.balances().await;
}

#[tokio::test]
async fn what_is_about_to_be_written_is_found_at_once_and_not_once_it_is_removed() {
    let rig = Rig::new(4 << 20);
    rig.faults("write hang");
    let stored = rig.store(ID, object(head("1", 1), "one"), always);
    assert_eq!(found(&rig, ID).await.as_deref(), Some("1"));
    let removed = rig.remove(ID);
    assert_eq!(found(&rig, ID).await, None);
    let again = rig.store(ID, object(head("2", 2), "two"), always);
    assert_eq!(found(&rig, ID).await.as_deref(), Some("2"));
    rig.faults("");
    assert!(removed.await, "there was something");
    stored.await;
    again.await;
    rig.drain();
    assert_eq!(found(&rig, ID).await.as_deref(), Some("2"));
    rig.balances().await;
}

#[tokio::test]
async fn what_nobody_waits_for_is_done_all_the_same() {
    let rig = Rig::new(4 << 20);
    drop(rig.store(ID, object(head("1", 1), "one"), always));
    rig.drain();
    assert_eq!((found(&rig, ID).await.as_deref(), rig.booked()), (Some("1"), (1, 1)));
    drop(rig.freshen(ID, Arc::new(head("2", 1)), always));
    rig.drain();
    rig.close_all();
    assert_eq!(found(&rig, ID).await.as_deref(), Some("2"));
    drop(rig.remove(ID));
    rig.drain();
    assert_eq!(rig.files(), (0, 0));
    rig.store(ID, object(head("3", 3), "three"), always).await;
    rig.drain();
    assert_eq!(found(&rig, ID).await.as_deref(), Some("3"), "it is not hidden for ever");
    rig.balances().await;
}

#[tokio::test]
async fn an_older_response_never_takes_the_place_of_a_newer_one() {
    let rig = Rig::new(4 << 20);
    let (old, older) = (head("older", 1), head("older", 1));
    for (number, spill_newer, spill_older) in [(1, false, false), (2, false, true), (3, true, false), (4, true, true)] {
        let id = key(number).id();
        let (newer, bytes) = (head("newer", 2), body(1, 100_000));
        match spill_newer {
            true => assert!(spilled(&rig, number, newer, &bytes, always).await),
            false => rig.store(id, object(newer, bytes.clone()), always).await,
        }
        rig.drain();
        // Nobody has it open.
        rig.close_all();
        match spill_older {
            true => assert!(spilled(&rig, number, old.with_length(9), &body(2, 70_000), always).await),
            false => rig.store(id, object(older.with_length(9), body(2, 70_000)), always).await,
        }
        rig.drain();
        rig.close_all();
        let there = rig.find(id, wanted()).await.unwrap();
        assert_eq!((testing::tag(&there.head), body_of(&there).await.unwrap()), ("newer", bytes));
    }
    rig.balances().await;
}

#[tokio::test]
async fn what_is_outdated_is_not_written_and_leaves_nothing() {
    let rig = Rig::new(4 << 20);
    let flag = Arc::new(AtomicBool::new(true));
    let current = || {
        let flag = flag.clone();
        move || flag.load(Ordering::Relaxed)
    };
    rig.faults("write hang");
    let stored = rig.store(ID, object(head("1", 1), body(1, 5000)), current());
    let spill = Spill::begin(&rig, key(1), &head("1", 1), None);
    let (told, well) = tokio::sync::oneshot::channel();
    spill.append(0, vec![body(1, 300_000)], |how| _ = told.send(how.is_ok()));
    flag.store(false, Ordering::Relaxed);
    rig.faults("");
    stored.await;
    assert_eq!(well.await, Ok(true));
    spill.commit(Arc::new(head("1", 1)), 300_000, current()).await;
    drop(spill);
    rig.drain();
    assert_eq!((found(&rig, ID).await, found(&rig, key(1).id()).await), (None, None));
    assert_eq!((rig.booked(), rig.files()), ((0, 0), (0, 0)));
}

// ---- room

#[tokio::test]
async fn a_write_that_fails_gives_its_room_back_and_removes_what_was_there_before() {
    let rig = Rig::new(8 << 20);
    for (number, faults) in ["write EIO", "create EIO", "write ENOSPC", "publish EIO"].iter().enumerate() {
        for spill in [false, true] {
            let number = number as u64;
            let id = key(number).id();
            rig.faults("");
            put(&rig, id, object(head("before", 1), body(0, 9000))).await;
            rig.faults(faults);
            match spill {
                true => {
                    // Where it fails before its end, the fill goes on without the disk.
                    if !spilled(&rig, number, head("after", 2), &body(0, 500_000), always).await {
                        rig.remove(id).await;
                    }
                }
                false => rig.store(id, object(head("after", 2), body(0, 90_000)), always).await,
            }
            rig.drain();
            rig.faults("");
            assert_eq!(found(&rig, id).await, None, "{faults}");
            rig.balances().await;
            assert_eq!(rig.booked(), (0, 0), "{faults}, {spill}");
        }
    }
}

#[tokio::test]
async fn what_is_replaced_or_removed_counts_until_all_have_closed_it() {
    let rig = Rig::new(64 << 20);
    rig.store(ID, object(head("1", 1), body(1, 400_000)), always).await;
    rig.drain();
    let (_, one) = rig.booked();
    // Two requests at a time open a file each.
    let (first, second) = tokio::join!(rig.find(ID, wanted()), rig.find(ID, wanted()));
    let (first, second) = (first.unwrap(), second.unwrap());
    rig.store(ID, object(head("2", 2), body(2, 200_000)), always).await;
    rig.drain();
    let (_, all) = rig.booked();
    assert!(all > one, "{all} with both");
    let newer = rig.find(ID, wanted()).await.unwrap();
    rig.close_all();
    drop(second);
    rig.drain();
    assert_eq!(rig.booked().1, all, "the first is still being read");
    assert_eq!(body_of(&first).await.unwrap(), body(1, 400_000));
    drop(first);
    rig.drain();
    assert_eq!(rig.booked(), rig.files());
    assert!(rig.remove(ID).await);
    rig.drain();
    assert_eq!((rig.files().1, rig.booked().1), (0, all - one));
    drop(newer);
    rig.drain();
    assert_eq!(rig.booked(), (0, 0));
}

#[tokio::test]
async fn what_is_evicted_while_it_is_read_counts_until_it_is_closed() {
    let rig = Rig::new(2 << 20);
    let room = 256_000;
    let mut open = Vec::new();
    for number in 0..40 {
        rig.store(key(number).id(), object(head("1", number + 1), body(number, room)), always).await;
        rig.drain();
        open.extend(rig.find(key(number).id(), wanted()).await.map(|object| (number, object)));
        if open.len() > 2 {
            open.remove(0);
        }
        let used = rig.usage().bytes;
        assert!(used <= 2 << 20, "{used}");
    }
    assert!(rig.stats.evictions.load(Ordering::Relaxed) > 5);
    for (number, object) in &open {
        assert_eq!(body_of(object).await.unwrap(), body(*number, room));
    }
    drop(open);
    rig.balances().await;
}

#[tokio::test]
async fn what_cannot_be_removed_counts_is_not_found_and_goes_when_it_can() {
    let rig = Rig::new(4 << 20);
    rig.store(ID, object(head("1", 1), body(1, 50_000)), always).await;
    rig.drain();
    let before = rig.booked();
    rig.faults("unlink EIO");
    rig.remove(ID).await;
    rig.drain();
    assert_eq!((rig.booked(), rig.files()), ((0, before.1), before), "it is still there");
    assert_eq!(found(&rig, ID).await, None);
    rig.faults("");
    rig.balances().await;
    assert_eq!(rig.files(), (0, 0));
    rig.store(ID, object(head("2", 2), "two"), always).await;
    rig.drain();
    assert_eq!(found(&rig, ID).await.as_deref(), Some("2"));
}

#[tokio::test]
async fn a_disk_from_which_nothing_can_be_removed_is_not_written_full_nor_forgotten() {
    let rig = Rig::new(2 << 20);
    for number in 0..8 {
        rig.store(key(number).id(), object(head("1", number + 1), body(0, 100_000)), always).await;
    }
    rig.drain();
    // Not one for which the disk as a whole is taken to be broken.
    rig.faults("unlink EPERM");
    for number in 100..110 {
        rig.store(key(number).id(), object(head("1", number), body(0, 300_000)), always).await;
        rig.drain();
        let used = rig.usage().bytes;
        assert!(used <= 2 << 20, "{used}");
        assert!(rig.files().1 <= rig.booked().1);
    }
    rig.faults("");
    rig.balances().await;
}

#[tokio::test]
async fn what_is_removed_while_it_is_evicted_in_vain_does_not_come_back() {
    let rig = Rig::new(1536 << 10);
    for number in 0..5 {
        rig.store(key(number).id(), object(head("1", number + 1), body(0, 300_000)), always).await;
    }
    rig.drain();
    assert_eq!(rig.booked().0, 5);
    rig.faults("unlink hang\nunlink EPERM");
    drop(rig.store(key(9).id(), object(head("1", 9), body(0, 300_000)), always));
    eventually("one is about to be evicted", || rig.booked().0 < 5).await;
    // Not only the one: whatever has just been taken out of the index.
    let removed: Vec<_> = (0..5).map(|number| rig.remove(key(number).id())).collect();
    rig.faults("unlink EPERM");
    futures_util::future::join_all(removed).await;
    rig.drain();
    for number in 0..5 {
        assert_eq!(found(&rig, key(number).id()).await, None);
    }
    rig.faults("");
    rig.balances().await;
    for number in 0..5 {
        assert_eq!(found(&rig, key(number).id()).await, None);
    }
}

#[tokio::test]
async fn what_is_never_written_leaves_nothing_of_a_small_disk_in_use() {
    let rig = Rig::new(1 << 20);
    rig.store(key(0).id(), object(head("1", 1), body(0, 10_000)), always).await;
    rig.drain();
    let before = rig.usage().bytes;
    for faults in ["create EIO", "write EIO"] {
        for number in 1..300 {
            rig.faults(faults);
            rig.store(key(number).id(), object(head("1", number), body(0, 10_000)), always).await;
        }
    }
    rig.faults("");
    rig.balances().await;
    assert_eq!(rig.usage().bytes, before);
}

#[tokio::test]
async fn an_object_that_is_found_while_it_is_replaced_does_not_confuse_the_books() {
    let rig = Rig::new(8 << 20);
    for round in 0..20_u64 {
        let len = 1 + (round as usize * 37_000) % 200_000;
        let stored = rig.store(ID, object(head("1", round + 1), body(0, len)), always);
        rig.faults(if round % 2 == 0 { "stat delay=2ms" } else { "read delay=2ms" });
        let finds = (0..4).map(|_| async {
            rig.close_all();
            rig.find(ID, wanted()).await
        });
        let (_, found) = tokio::join!(stored, futures_util::future::join_all(finds));
        assert!(found.iter().all(Option::is_some), "{round}");
    }
    rig.faults("");
    rig.balances().await;
    assert_eq!(rig.booked().0, 1);
}

// ---- all of it

/// What is done at random, by several at a time, on a disk that fails now and then.
async fn at_random(rig: Arc<Rig>, seed: u64) {
    const FAULTS: [&str; 12] = [
        "",
        "",
        "",
        "write EIO",
        "unlink EIO",
        "create EIO",
        "publish EIO",
        "open EIO",
        "write delay=2ms",
        "unlink delay=2ms",
        "read nowait",
        "stat EIO",
    ];
    let mut random = Random(seed);
    let mut held = Vec::new();
    for step in 0..120 {
        let number = random.below(10);
        let (id, order) = (key(number).id(), 1 + step * 10 + seed);
        let len = random.below(90_000) as usize;
        match random.below(12) {
            0..4 => {
                let written = rig.store(id, object(head("1", order), body(number, len)), always);
                if random.below(3) == 0 {
                    written.await;
                }
            }
            4 => _ = spilled(&rig, number, head("1", order), &body(number, 3 * len), always).await,
            5 => {
                let fickle = AtomicU64::new(0);
                let current = move || fickle.fetch_add(1, Ordering::Relaxed) % 3 < 2;
                rig.store(id, object(head("1", order), body(number, len)), current).await;
            }
            6 => _ = rig.remove(id).await,
            7 => {
                if let Some(there) = rig.find(id, wanted()).await {
                    let longer = random.below(3) as usize * 400;
                    let head = long('f', 1 + longer, there.head.record.id);
                    rig.freshen(id, Arc::new(head), always).await;
                }
            }
            8 => {
                let faults = FAULTS[random.below(FAULTS.len() as u64) as usize];
                rig.faults(faults);
            }
            9 => rig.heal(),
            _ => {
                if let Some(there) = rig.find(id, wanted()).await {
                    if let Ok(bytes) = body_of(&there).await {
                        assert_eq!(bytes, body(number, bytes.len()), "another body");
                    }
                    held.push(there);
                }
            }
        }
        if held.len() > 5 {
            held.remove(random.below(5) as usize);
        }
        // A folder can be taken for empty and removed in the moment in which another comes to need it.
        let used = rig.usage().bytes;
        assert!(used <= rig.usage().capacity + 4 * UNIT, "{used}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_the_books_are_right_in_the_end() {
    let rig = Arc::new(Rig::new(1 << 20));
    let tasks: Vec<_> = (1..=4).map(|seed| tokio::spawn(at_random(rig.clone(), seed))).collect();
    for task in tasks {
        task.await.unwrap();
    }
    rig.faults("");
    rig.balances().await;
    // And it can be used as before.
    for number in 0..10 {
        put(&rig, key(number).id(), object(head("last", 1 << 20), body(number, 20_000))).await;
    }
    rig.balances().await;
    let kept = rig.booked();
    assert_eq!(kept.0, 10);
    for number in 0..10 {
        let there = rig.find(key(number).id(), wanted()).await.unwrap();
        assert_eq!((testing::tag(&there.head), body_of(&there).await.unwrap()), ("last", body(number, 20_000)));
    }
    let rig = Arc::into_inner(rig).unwrap().reopened();
    rig.balances().await;
    assert_eq!(rig.booked(), kept, "the same after an orderly end");
}

#[tokio::test]
async fn what_was_taken_from_under_a_disk_is_not_counted_for_long() {
    let rig = Rig::new(4 << 20);
    for number in 0..3 {
        rig.store(key(number).id(), object(head("1", 1), body(0, 5000)), always).await;
    }
    rig.drain();
    let path = |number| rig.scratch.path("disk").join(name(&key(number).id()));
    std::fs::remove_file(path(0)).unwrap();
    // And one is another's, with more in it.
    std::fs::write(path(1), vec![0; 50_000]).unwrap();
    for number in 0..3 {
        assert_eq!(found(&rig, key(number).id()).await.is_some(), number == 2);
    }
    rig.balances().await;
    assert_eq!(rig.booked().0, 1);
}
