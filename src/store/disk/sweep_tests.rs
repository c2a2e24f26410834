use super::super::testing::{ID, Rig, always, body, eventually, found};
use super::*;
use crate::invalidate::{By, Selector};
use crate::store::disk::disk::name;
use crate::store::testing::{self, head, object};

/// A disk with one object.
async fn with_one() -> Rig {
    let rig = Rig::new(8 << 20);
    rig.store(ID, object(head("v1", 1), body(1, 1000)), always).await;
    rig.drain();
    rig.close_all();
    rig
}

#[tokio::test]
async fn many_urls_in_one_purge_are_many() {
    let rig = with_one().await;
    // After the first sweep, the keeper takes its time.
    eventually("it has been swept", || !rig.vouching.is_unsure()).await;
    let url = |number| Selector::Url { host: "a.example".into(), path: format!("/{number}").into(), query: None };
    let mut sweeps = Sweeps::default();
    let _ = rig.vouching.ledger().append([url(0)].into(), false, By::Api);
    assert!(!sweeps.is_due(&rig, Instant::now()));
    let _ = rig.vouching.ledger().append((0..FEW).map(url).collect(), false, By::Api);
    assert!(sweeps.is_due(&rig, Instant::now()));
}

#[tokio::test]
async fn what_could_not_be_read_when_the_disk_was_swept_does_not_come_back() {
    let rig = with_one().await;
    let path = rig.scratch.path("disk").join(name(&ID));
    let sound = std::fs::read(&path).unwrap();
    let mut damaged = sound.clone();
    damaged[200] ^= 1;
    std::fs::write(&path, damaged).unwrap();
    let sequence = rig.vouching.ledger().append(testing::selector(), false, By::Api).sequence;
    eventually("it has been swept", || rig.swept() >= sequence).await;
    if path.exists() {
        // Once more, it reads as it was written.
        std::fs::write(&path, sound).unwrap();
    }
    assert_eq!(found(&rig, ID).await, None);
}
