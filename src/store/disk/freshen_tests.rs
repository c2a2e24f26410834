use std::sync::atomic::{AtomicBool, Ordering};

use super::super::testing::{ID, Rig, always, body, body_of, found, long, wanted};
use super::*;
use crate::store::testing::{self, head, object};

#[tokio::test]
async fn another_head_keeps_the_body_whatever_its_length() {
    let rig = Rig::new(4 << 20);
    let bytes = body(3, 150_000);
    rig.store(ID, object(long('a', 10, 5), bytes.clone()), always).await;
    rig.drain();
    // Twice in a row, longer but fitting, shorter, and longer than there is room for.
    for (tag, len) in [('b', 10), ('c', 10), ('d', 100), ('e', 1), ('f', 5000), ('g', 5100)] {
        rig.freshen(ID, Arc::new(long(tag, len, 5)), always).await;
        // A disk that is slow is not waited for.
        rig.drain();
        for reopened in [false, true] {
            if reopened {
                rig.drain();
                rig.close_all();
            }
            let there = rig.find(ID, wanted()).await.unwrap();
            assert_eq!(testing::tag(&there.head), tag.to_string().repeat(len));
            assert_eq!(body_of(&there).await.unwrap(), bytes);
        }
        rig.balances().await;
    }
    rig.freshen(ID, Arc::new(long('x', 10, 6)), always).await;
    rig.close_all();
    let there = rig.find(ID, wanted()).await.unwrap();
    assert!(testing::tag(&there.head).starts_with('g'), "that was about another response");
    let rig = rig.reopened();
    assert_eq!(body_of(&rig.find(ID, wanted()).await.unwrap()).await.unwrap(), bytes);
}

#[tokio::test]
async fn what_is_given_another_head_before_it_is_written_is_written_with_it() {
    let rig = Rig::new(4 << 20);
    // What is there already is replaced by a file that nobody finds before.
    rig.store(ID, object(head("0", 4), "zero"), always).await;
    rig.drain();
    rig.faults("write hang");
    let stored = rig.store(ID, object(head("1", 5), "one"), always);
    let freshened = rig.freshen(ID, Arc::new(head("2", 5)), always);
    assert_eq!(found(&rig, ID).await.as_deref(), Some("2"));
    rig.faults("");
    tokio::join!(stored, freshened);
    rig.drain();
    rig.close_all();
    let there = rig.find(ID, wanted()).await.unwrap();
    assert_eq!((testing::tag(&there.head), body_of(&there).await.unwrap().as_ref()), ("2", b"one".as_ref()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_see_one_head_or_the_other_and_then_the_latest() {
    let rig = Arc::new(Rig::new(4 << 20));
    let bytes = body(3, 100_000);
    rig.store(ID, object(head("0", 5), bytes.clone()), always).await;
    rig.drain();
    // Between the two writes of a head and after, a request has time to open the file.
    rig.faults("write delay=6ms");
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (rig, done, bytes) = (rig.clone(), done.clone(), bytes.clone());
            tokio::spawn(async move {
                while !done.load(Ordering::Relaxed) {
                    let there = rig.find(ID, wanted()).await.expect("it is there all the time");
                    assert_eq!(body_of(&there).await.unwrap(), bytes);
                    rig.close_all();
                }
            })
        })
        .collect();
    let mut before = "0".to_owned();
    for round in 1..=20 {
        // Some do not fit, and the file is written anew.
        let tag = round.to_string().repeat(if round % 5 == 0 { 300 * round } else { 1 });
        rig.freshen(ID, Arc::new(head(&tag, 5)), always).await;
        // A disk that is slow is not waited for.
        loop {
            let there = found(&rig, ID).await.expect("it is there all the time");
            if there == tag {
                break;
            }
            assert_eq!(there, before, "round {round}");
        }
        before = tag;
    }
    done.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
    rig.faults("");
    rig.balances().await;
}

#[tokio::test]
async fn a_head_that_cannot_be_written_takes_the_object_with_it() {
    let rig = Rig::new(4 << 20);
    rig.store(ID, object(head("1", 5), "one"), always).await;
    rig.drain();
    rig.faults("write EIO");
    rig.freshen(ID, Arc::new(head("2", 5)), always).await;
    rig.drain();
    rig.faults("");
    assert_eq!(found(&rig, ID).await, None);
    rig.balances().await;
}
