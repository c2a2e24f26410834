use std::collections::{BTreeSet, HashSet};

use super::*;

/// Names spread like hashes.
pub fn id(n: u64) -> ObjectId {
    let mix = |n: u64| {
        let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        n ^ (n >> 31)
    };
    let (high, low) = (mix(n.wrapping_add(1)), mix(n.wrapping_add(1 << 40)));
    ObjectId((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
}

pub fn check(index: &Index) {
    let live = index.queues.check();
    assert_eq!((index.lookup.len(), index.len()), (live, live));
    index.lookup.allocated();
}

pub fn never(_: ObjectId) -> bool {
    false
}

pub fn saved(index: &mut Index, page: usize) -> Vec<Saved> {
    index.begin_pages();
    std::iter::from_fn(|| Some(index.page(page)).filter(|page| !page.is_empty())).flatten().collect()
}

fn filled(objects: std::ops::Range<u64>) -> Index {
    let mut index = Index::new();
    objects.for_each(|n| assert_eq!(index.insert(id(n), 1), None));
    index
}

fn queue_of(index: &Index, n: u64) -> Option<Queue> {
    index.find(&id(n)).and_then(|slot| index.queues.entry(slot).queue)
}

fn victims(index: &mut Index) -> Vec<ObjectId> {
    std::iter::from_fn(|| index.victim(never)).map(|(id, _)| id).collect()
}

/// An index with these objects in main, the first the oldest.
fn mains(objects: std::ops::Range<u64>) -> Index {
    let mut index = Index::new();
    for n in objects.rev() {
        index.restore(Saved { id: id(n), units: 1, frequency: 0, queue: Queue::Main });
    }
    index
}

#[test]
fn untouched_objects_go_first_in_first_out() {
    let mut index = filled(0..1000);
    assert_eq!(victims(&mut index), (0..1000).map(id).collect::<Vec<_>>());
    assert_eq!((index.len(), index.units(), index.victim(never)), (0, 0, None));
}

#[test]
fn a_touched_object_survives_a_scan() {
    let mut index = filled(0..1000);
    assert!(index.touch(id(17), 1));
    assert!(!index.touch(id(5000), 1));
    for n in 1000..11_000 {
        index.insert(id(n), 1);
        assert!(index.victim(never).is_some());
    }
    assert_eq!(index.len(), 1000);
    assert_eq!(index.get(id(17)), Some(1));
    assert_eq!((0..1000).filter(|n| index.get(id(*n)).is_some()).count(), 1);
}

#[test]
fn a_scan_leaves_main_alone() {
    let mut index = mains(0..900);
    (2000..2100).for_each(|n| assert_eq!(index.insert(id(n), 1), None));
    for n in 3000..13_000 {
        index.insert(id(n), 1);
        index.victim(never);
    }
    assert!((0..900).all(|n| index.get(id(n)).is_some()));
    check(&index);
}

#[test]
fn main_gives_way_when_probation_is_small() {
    let mut index = mains(0..100);
    (200..211).for_each(|n| assert_eq!(index.insert(id(n), 1), None));
    // 11 of 111 are not more than a tenth, 12 of 111 are.
    assert_eq!(index.victim(never), Some((id(0), 1)));
    index.insert(id(211), 1);
    assert_eq!(index.victim(never), Some((id(200), 1)));
}

#[test]
fn the_share_of_probation_is_counted_in_units() {
    let mut index = mains(0..100);
    index.insert(id(200), 100);
    assert_eq!(index.victim(never), Some((id(200), 100)));
}

#[test]
fn what_comes_back_soon_goes_to_main() {
    let mut index = filled(0..100);
    assert_eq!(index.victim(never), Some((id(0), 1)));
    index.insert(id(0), 1);
    assert_eq!(queue_of(&index, 0), Some(Queue::Main));
    // Removed is not evicted.
    index.remove(id(1));
    index.insert(id(1), 1);
    assert_eq!(queue_of(&index, 1), Some(Queue::Probation));
}

#[test]
fn main_spares_an_object_as_often_as_it_was_touched() {
    let mut index = mains(0..10);
    index.touch(id(0), 200);
    index.touch(id(1), 1);
    let order: Vec<_> = std::iter::from_fn(|| index.victim(never)).collect();
    let expected: Vec<_> = (2..10).chain([1, 0]).map(|n| (id(n), 1)).collect();
    assert_eq!(order, expected);

    let mut index = mains(0..3);
    index.touch(id(0), 200);
    let mut asked = Vec::new();
    while index
        .victim(|id| {
            asked.push(id);
            false
        })
        .is_some()
    {}
    assert_eq!(asked, [0, 1, 2, 0, 0, 0].map(id), "three times at most, then it goes");
}

#[test]
fn the_caller_is_asked_once_and_a_yes_is_a_touch() {
    let mut index = filled(0..10);
    let mut asked = Vec::new();
    let victim = index.victim(|id| {
        asked.push(id);
        asked.len() <= 3
    });
    assert_eq!(victim, Some((id(3), 1)));
    assert_eq!(asked, (0..4).map(id).collect::<Vec<_>>());
    assert!((0..3).all(|n| queue_of(&index, n) == Some(Queue::Main)));
    assert_eq!(victims(&mut index), [4, 5, 6, 7, 8, 9, 0, 1, 2].map(id), "one touch each, used up");
}

#[test]
fn the_work_of_one_eviction_is_bounded() {
    let mut index = filled(0..1000);
    for n in 0..1000 {
        index.touch(id(n), 3);
    }
    let mut asked = 0;
    let victim = index.victim(|_| {
        asked += 1;
        true
    });
    assert_eq!((asked, victim), (MAX_CHANCES, Some((id(MAX_CHANCES as u64), 1))));
    while index.victim(|_| true).is_some() {}
    assert_eq!((index.len(), index.units()), (0, 0));
}

#[test]
fn a_replaced_object_is_new_but_keeps_its_touches() {
    let mut index = filled(0..3);
    index.touch(id(0), 2);
    assert_eq!(index.insert(id(0), 9), Some(1));
    assert_eq!(index.insert(id(1), 7), Some(1));
    assert_eq!((index.get(id(0)), index.len(), index.units()), (Some(9), 3, 17));
    assert_eq!(victims(&mut index), [2, 1, 0].map(id));

    let mut index = mains(0..3);
    assert_eq!(index.insert(id(0), 9), Some(1));
    assert_eq!(victims(&mut index), [1, 2, 0].map(id), "newest of main");
}

#[test]
fn sizes_are_summed() {
    let mut index = Index::new();
    index.insert(id(1), u32::MAX);
    index.insert(id(2), u32::MAX);
    assert_eq!(index.units(), 2 * u64::from(u32::MAX));
    assert_eq!(index.resize(id(1), 0), Some(u32::MAX));
    assert_eq!(index.resize(id(3), 5), None);
    assert_eq!(index.remove(id(2)), Some(u32::MAX));
    assert_eq!(index.remove(id(2)), None);
    assert_eq!((index.units(), index.len(), index.is_empty()), (0, 1, false));
    assert_eq!(index.victim(never), Some((id(1), 0)));
    assert!(index.is_empty());
}

#[test]
fn variants_of_one_resource_are_told_apart() {
    let variant = |n: u64| {
        let mut id = id(1);
        id.0[8..].copy_from_slice(&n.to_be_bytes());
        id
    };
    let mut index = Index::new();
    (0..2000).for_each(|n| assert_eq!(index.insert(variant(n), n as u32), None));
    assert!((0..2000).all(|n| index.get(variant(n)) == Some(n as u32)));
    check(&index);
}

#[test]
fn an_object_takes_few_bytes() {
    let empty = Index::new().memory();
    assert!(empty < 256 * 1024, "{empty} with nothing in it");
    // A debug build is slow; the memory an object takes does not depend on the number.
    let objects: u64 = if cfg!(debug_assertions) { 200_000 } else { 1_000_000 };
    let mut index = filled(0..objects);
    let an_object = index.memory() as f64 / objects as f64;
    assert!(an_object < 64.0, "{an_object} bytes an object");
    // Nor does it depend on what happens to them.
    for n in 0..objects / 4 {
        index.victim(never);
        index.insert(id(objects + n), 1);
    }
    check(&index);
    let an_object = index.memory() as f64 / objects as f64;
    assert!(an_object < 64.0, "{an_object} bytes an object after evictions");
}

#[test]
fn what_is_found_goes_before_what_is_new_and_oldest_first_once_settled() {
    let mut index = filled(0..5);
    index.begin_walk();
    // In the order of a directory; the number is the rank as well.
    let found = [104, 101, 107, 100, 103, 106, 102, 105];
    found.iter().for_each(|n| assert_eq!(index.walked(id(*n), 2), Walked::New));
    assert_eq!(index.units(), 5 + 16);
    index.insert(id(5), 1);
    index.touch(id(102), 1);
    assert_eq!(index.victim(never), Some((id(104), 2)), "evictable at once");

    let mut ranked = found;
    ranked.sort_unstable_by(|a, b| b.cmp(a));
    let ranked = ranked.map(id);
    index.settle(&ranked[..3]);
    check(&index);
    let mut half = Index::new();
    saved(&mut index, 3).into_iter().for_each(|saved| half.restore(saved));
    assert_eq!(half.victim(never), Some((id(101), 2)), "what is not settled first");
    index.settle(&ranked[3..]);
    assert_eq!(victims(&mut index), [100, 101, 103, 105, 106, 107, 0, 1, 2, 3, 4, 5, 102].map(id));
}

#[test]
fn what_was_not_walked_is_dropped_in_steps() {
    let mut index = filled(0..1000);
    index.remove(id(0));
    index.begin_walk();
    for n in (0..1000).step_by(2) {
        let expected = if n == 0 { Walked::New } else { Walked::Known };
        assert_eq!(index.walked(id(n), 1), expected);
    }
    assert_eq!(index.insert(id(1), 5), Some(1), "replaced");
    assert_eq!(index.resize(id(3), 5), Some(1), "written to");
    assert_eq!(index.insert(id(2000), 5), None);
    index.restore(Saved { id: id(3000), units: 1, frequency: 0, queue: Queue::Main });
    let mut gone = BTreeSet::new();
    let mut steps = 0;
    while let Some(some) = index.unwalked(100) {
        assert!(some.len() <= 100);
        gone.extend(some);
        steps += 1;
        // What comes while it is going on is safe.
        index.insert(id(4000 + steps), 1);
    }
    assert!((10..=12).contains(&steps), "{steps}");
    assert_eq!(gone, (5..1000).step_by(2).chain([3000]).map(id).collect());
    assert_eq!(index.len(), 500 + 3 + steps as usize);
    check(&index);
    assert_eq!(index.unwalked(100), None);

    index.begin_walk();
    let all: Vec<_> = std::iter::from_fn(|| index.unwalked(0)).flatten().collect();
    assert_eq!((all.len(), index.len()), (503 + steps as usize, 0), "another walk that finds nothing");
}

#[test]
fn nothing_is_unwalked_before_a_walk() {
    assert_eq!(filled(0..10).unwalked(10), None);
}

#[test]
fn a_walk_corrects_sizes_but_not_those_newer_than_it() {
    let mut index = filled(0..3);
    index.begin_walk();
    assert_eq!(index.insert(id(1), 8), Some(1));
    assert_eq!(index.resize(id(2), 9), Some(1));
    assert_eq!(index.walked(id(0), 4), Walked::Resized(1));
    assert_eq!(index.walked(id(0), 4), Walked::Known);
    assert_eq!(index.walked(id(1), 4), Walked::Known);
    assert_eq!(index.walked(id(2), 4), Walked::Known);
    assert_eq!([0, 1, 2].map(|n| index.get(id(n))), [Some(4), Some(8), Some(9)]);
    assert_eq!(index.units(), 21);
}

#[test]
fn what_is_restored_is_older_than_what_is_there() {
    let mut before = mains(0..20);
    (20..40).for_each(|n| assert_eq!(before.insert(id(n), 1), None));
    let snapshot = saved(&mut before, 7);
    let mut index = Index::new();
    for (n, saved) in (100..).zip(snapshot) {
        index.insert(id(n), 1);
        index.restore(saved);
    }
    index.restore(Saved { id: id(100), units: 99, frequency: 3, queue: Queue::Main });
    assert_eq!(index.get(id(100)), Some(1), "newer than the snapshot");
    check(&index);
    let restored_and_new: Vec<_> = (20..40).chain(100..140).map(id).collect();
    let order = victims(&mut index);
    let (main, probation): (Vec<_>, Vec<_>) = order.into_iter().partition(|id| !restored_and_new.contains(id));
    assert_eq!(probation, restored_and_new);
    assert_eq!(main, (0..20).map(id).collect::<Vec<_>>());
}

#[test]
fn pages_end_and_keep_what_stays_whatever_else_happens() {
    let mut index = filled(0..1000);
    index.begin_pages();
    let mut met = Vec::new();
    for round in 0.. {
        let page = index.page(10);
        if page.is_empty() {
            break;
        }
        met.extend(page.iter().map(|saved| saved.id));
        // The next to come, which is where the paging stands, and others.
        for n in [989_u64.saturating_sub(round * 10), round * 7, 1000 - round] {
            if n % 3 == 0 {
                index.remove(id(n));
            }
        }
        for n in 0..50 {
            index.insert(id(2000 + round * 50 + n), 1);
        }
        assert!(round < 200, "does not end");
    }
    assert_eq!(index.page(10), [], "stays at the end");
    let once: HashSet<_> = met.iter().copied().collect();
    assert_eq!(once.len(), met.len(), "nothing twice");
    assert!((0..1000).filter(|n| n % 3 != 0).all(|n| once.contains(&id(n))));
}

#[test]
fn pages_end_while_everything_is_spared() {
    let mut index = filled(0..300);
    index.begin_pages();
    let mut pages = 0;
    while !index.page(1).is_empty() {
        pages += 1;
        assert!(pages < 1000, "does not end");
        index.victim(|_| true);
        index.insert(id(1000 + pages), 1);
    }
    assert_eq!(index.len(), 300);
}
