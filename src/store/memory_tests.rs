use super::*;
use crate::store::testing;
use crate::store::{Head, ObjectKey};

fn object(body: usize, fields: usize) -> Arc<Object> {
    let fields: Vec<_> = (0..fields).map(|i| (format!("x-field-{i}"), "v".repeat(100))).collect();
    let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    testing::object(Head::of(&testing::meta(&fields, 0, 0)).unwrap(), vec![b'x'; body])
}

fn key(n: u64) -> ObjectId {
    testing::key(n).id()
}

fn tier(size: u64, max_object: u64) -> MemoryTier {
    MemoryTier::new(model::MemoryTier { size, max_object })
}

#[test]
fn never_holds_more_bytes_than_it_may() {
    let tier = tier(4 << 20, 1 << 20);
    for n in 0..5_000 {
        tier.insert(key(n), object(if n % 100 == 0 { 1 << 20 } else { 3_000 }, 3));
        assert!(tier.usage().bytes <= 4 << 20);
    }
    let usage = tier.usage();
    assert!(usage.evictions > 3_000 && usage.objects > 100, "{usage:?}");
}

#[test]
fn metadata_counts() {
    let (plain, heavy) = (object(100, 0).weight(), object(100, 50).weight());
    assert!(heavy >= plain + 50 * 200, "50 fields of 100 bytes, in two forms: {plain} and {heavy}");
}

#[test]
fn the_largest_object_allowed_is_kept_even_in_a_small_tier() {
    let tier = tier(2 << 20, 1 << 20);
    tier.insert(key(1), object(1 << 20, 3));
    assert!(tier.get(&key(1)).is_some());
}

#[test]
fn a_scan_does_not_throw_out_what_is_asked_for() {
    let tier = tier(8 << 20, 1 << 20);
    for round in 0..3 {
        for n in 0..500 {
            if tier.get(&key(n)).is_none() {
                tier.insert(key(n), object(4_000, 3));
            }
            let _ = round;
        }
    }
    for n in 10_000..30_000 {
        tier.insert(key(n), object(4_000, 3));
    }
    let kept = (0..500).filter(|n| tier.peek(&key(*n)).is_some()).count();
    // An LRU would have kept none.
    assert!(kept > 400, "{kept} of 500 survived the scan");
}

#[test]
fn variants_live_side_by_side() {
    let tier = tier(1 << 20, 1 << 20);
    let (first, second) = (testing::key(1), ObjectKey { variance: Some([9; 16]), ..testing::key(1) });
    let (first, second) = (first.id(), second.id());
    tier.insert(first, object(1, 0));
    tier.insert(second, object(2, 0));
    assert_eq!((tier.get(&first).unwrap().body.len(), tier.get(&second).unwrap().body.len()), (1, 2));
    assert!(tier.remove(&first) && tier.get(&second).is_some());
}

#[test]
fn whoever_is_told_of_an_eviction_may_look_into_the_tier() {
    use std::sync::mpsc;
    use std::time::Duration;

    let tier = Arc::new(MemoryTier::new(model::MemoryTier { size: 64 << 10, max_object: 16 << 10 }));
    let (looked, told) = (tier.clone(), mpsc::channel());
    tier.on_used_evicted(move |id| {
        // The one that made it go is under the same lock.
        looked.iter().for_each(drop);
        let _ = told.0.send(*id);
    });
    let filler = tier.clone();
    std::thread::spawn(move || {
        for number in 0..200_u128 {
            let object = object(8 << 10, 1);
            object.hit();
            filler.insert(ObjectId(number.to_le_bytes()), object);
        }
    });
    let first = told.1.recv_timeout(Duration::from_secs(20));
    assert!(first.is_ok(), "nobody was told, or it never came back");
}

#[test]
fn what_is_there_is_not_replaced_by_what_is_only_for_an_empty_place() {
    let tier = MemoryTier::new(model::MemoryTier { size: 1 << 20, max_object: 16 << 10 });
    let (id, newer, older) = (ObjectId([7; 16]), object(10, 1), object(20, 1));
    assert!(tier.insert_new(id, &newer));
    assert!(!tier.insert_new(id, &older));
    assert!(tier.peek(&id).is_some_and(|there| Arc::ptr_eq(&there, &newer)));
    tier.remove_this(&id, &older);
    assert!(tier.peek(&id).is_some());
    tier.remove_this(&id, &newer);
    assert!(tier.peek(&id).is_none());
}
