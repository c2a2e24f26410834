use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::store::disk::testing::Random;

fn space(size: u64, objects: u64) -> Arc<Space> {
    Space::new(Limits { size, objects, ceiling: u64::MAX })
}

fn id(number: u64) -> ObjectId {
    ObjectId(u128::from(number).to_le_bytes())
}

/// What is beside so many objects.
fn beside(objects: u64) -> u64 {
    let state = space(0, 0);
    let state = state.lock();
    state.used_with(0, objects)
}

/// Room for one object of that size, which then is there; others go.
fn store(space: &Arc<Space>, number: u64, units: u64) -> Result<Option<Doomed>, NoRoom> {
    let reserved = space.reserve(units, 1, |_| false, |_, _| true)?;
    let mut state = space.lock();
    reserved.take(&mut state);
    Ok(state.index.insert(id(number), units as u32).map(|old| space.doom(&mut state, old)))
}

#[derive(Clone, Debug)]
enum Step {
    Reserve(u64),
    Free(u64),
    /// The reservation becomes that object.
    Take(usize, u64),
    Shrink(usize, u64),
    Join(usize),
    GiveBack(usize),
    Remove(u64),
    Pin(usize),
    Gone(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let any = any::<usize>;
    vec(
        prop_oneof![
            4 => (0..40_u64).prop_map(Step::Reserve),
            1 => (0..40_u64).prop_map(Step::Free),
            4 => (any(), 0..12_u64).prop_map(|(which, number)| Step::Take(which, number)),
            1 => (any(), 0..40_u64).prop_map(|(which, units)| Step::Shrink(which, units)),
            1 => any().prop_map(Step::Join),
            1 => any().prop_map(Step::GiveBack),
            2 => (0..12_u64).prop_map(Step::Remove),
            1 => any().prop_map(Step::Pin),
            2 => any().prop_map(Step::Gone),
        ],
        0..80,
    )
}

/// One of them.
fn pick<T>(from: &mut Vec<T>, which: usize) -> Option<T> {
    (!from.is_empty()).then(|| from.remove(which % from.len()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_is_in_use_is_what_a_plain_sum_says(steps in steps(), room in 0..120_u64, objects in 1..9_u64) {
        let space = space(beside(8) + room, objects);
        let (mut reserved, mut doomed) = (Vec::new(), Vec::new());
        // What is there, by a plain model.
        let mut there: HashMap<ObjectId, u64> = HashMap::new();
        for step in steps {
            match step {
                Step::Reserve(units) => {
                    // Nobody frees anything meanwhile: it would wait for what is leaving for nothing.
                    doomed = doomed.into_iter().map(Doomed::pin).collect();
                    let evict = |id, gone: Doomed| {
                        assert_eq!(there.remove(&id), Some(gone.units));
                        true
                    };
                    match space.reserve(units, 1, |_| false, evict) {
                        Ok(room) => {
                            reserved.push(room);
                            let state = space.lock();
                            prop_assert!(state.used() <= state.limit(), "{} of {}", state.used(), state.limit());
                            prop_assert!(state.objects() <= objects);
                        }
                        Err(why) => {
                            prop_assert_eq!(why, NoRoom::Busy);
                            let state = space.lock();
                            let in_vain = state.fixed_with(units, state.coming + 1) > state.limit();
                            prop_assert!(in_vain || there.is_empty(), "there is something that could go");
                        }
                    }
                }
                Step::Free(units) => {
                    let before = space.lock().used();
                    let room = space.reserve_free(units, 0);
                    let fits = before + units <= space.lock().limit();
                    prop_assert_eq!(room.is_ok(), fits);
                    reserved.extend(room);
                }
                Step::Take(which, number) => {
                    let Some(room) = pick(&mut reserved, which) else { continue };
                    let mut state = space.lock();
                    let (before, units) = (state.used(), room.units());
                    room.take(&mut state);
                    let old = state.index.insert(id(number), units as u32);
                    prop_assert_eq!(old.map(u64::from), there.insert(id(number), units));
                    doomed.extend(old.map(|old| space.doom(&mut state, old)));
                    // But for a reservation that was for no object of its own.
                    prop_assert!(state.used() <= before + 2);
                }
                Step::Shrink(which, units) => {
                    if let Some(mut room) = pick(&mut reserved, which) {
                        room.shrink(units);
                        reserved.push(room);
                    }
                }
                Step::Join(which) => {
                    if let (Some(mut one), Some(other)) = (pick(&mut reserved, which), reserved.pop()) {
                        let both = one.units() + other.units();
                        one.join(other);
                        prop_assert_eq!(one.units(), both);
                        reserved.push(one);
                    }
                }
                Step::GiveBack(which) => drop(pick(&mut reserved, which)),
                Step::Remove(number) => {
                    let mut state = space.lock();
                    let units = state.index.remove(id(number));
                    prop_assert_eq!(units.map(u64::from), there.remove(&id(number)));
                    doomed.extend(units.map(|units| space.doom(&mut state, units)));
                }
                Step::Pin(which) => {
                    let pinned = pick(&mut doomed, which).map(Doomed::pin);
                    doomed.extend(pinned);
                }
                Step::Gone(which) => drop(pick(&mut doomed, which)),
            }
            let state = space.lock();
            let sum = there.values().sum::<u64>()
                + reserved.iter().map(Reserved::units).sum::<u64>()
                + doomed.iter().map(|gone| gone.units).sum::<u64>();
            prop_assert_eq!(state.of_files(), sum);
            let objects = there.len() as u64 + reserved.iter().map(|room| room.objects).sum::<u64>();
            prop_assert_eq!(state.used(), sum + beside(objects));
        }
        drop((reserved, doomed));
        prop_assert_eq!(space.lock().of_files(), there.values().sum::<u64>());
    }
}

#[test]
fn many_at_a_time_never_take_more_than_there_is() {
    const OBJECTS: u64 = 40;
    let space = space(beside(OBJECTS) + 500, OBJECTS);
    let (stored, most) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for number in 0..8 {
            let (space, stored, most) = (&space, &stored, &most);
            scope.spawn(move || {
                let mut random = Random(number);
                let mut kept = Vec::new();
                for _ in 0..1500 {
                    let key = random.below(200);
                    match store(space, key, 1 + random.below(40)) {
                        Ok(old) => {
                            stored.fetch_add(1, Ordering::Relaxed);
                            // Some of what is replaced is still being read.
                            kept.extend(old.filter(|_| random.below(4) == 0).map(Doomed::pin));
                        }
                        Err(why) => assert_eq!(why, NoRoom::Busy),
                    }
                    let state = space.lock();
                    assert!(state.used() <= state.limit(), "{} of {}", state.used(), state.limit());
                    assert!(state.objects() <= OBJECTS);
                    drop(state);
                    most.fetch_max(space.lock().used(), Ordering::Relaxed);
                    if kept.len() > 2 {
                        kept.remove(0);
                    }
                }
            });
        }
    });
    assert!(stored.into_inner() > 10_000);
    assert!(most.into_inner() > space.lock().limit() - 100, "it was full");
    let state = space.lock();
    assert_eq!(state.of_files(), state.index.units(), "nothing is left of what was under way");
}

#[test]
fn a_full_file_system_is_told_from_a_busy_disk() {
    let space = space(beside(1) + 10, 5);
    let too_much = |space: &Arc<Space>| space.reserve(11, 1, |_| false, |_, _| true).err();
    assert_eq!(too_much(&space), Some(NoRoom::Busy));
    space.lock().limits_mut().ceiling = beside(1) + 9;
    assert_eq!(too_much(&space), Some(NoRoom::Busy), "for less there is room");
    assert!(space.reserve(9, 1, |_| false, |_, _| true).is_ok());
    space.lock().limits_mut().ceiling = beside(1);
    assert_eq!(too_much(&space), Some(NoRoom::Full));
    space.lock().limits_mut().ceiling = beside(1) + 9;
    space.lock().limits_mut().objects = 1;
    let _one = space.reserve(1, 1, |_| false, |_, _| true).unwrap();
    let crowded = space.reserve(0, 1, |_| false, |_, _| true).err();
    assert_eq!(crowded, Some(NoRoom::Busy), "the file system has room for it");
}

#[test]
fn nobody_waits_for_a_file_that_is_being_read() {
    let space = space(beside(2) + 10, 5);
    store(&space, 1, 10).unwrap();
    let mut pinned = Vec::new();
    let began = std::time::Instant::now();
    let refused = space.reserve(
        5,
        1,
        |_| false,
        |_, gone| {
            pinned.push(gone.pin());
            true
        },
    );
    assert_eq!(refused.err(), Some(NoRoom::Busy));
    assert!(began.elapsed() < FREED_SOON / 2);
    pinned.clear();
    assert!(space.reserve(5, 1, |_| false, |_, _| true).is_ok());
}

#[test]
fn room_that_another_is_about_to_free_is_waited_for() {
    let space = space(beside(2) + 10, 5);
    store(&space, 1, 10).unwrap();
    let leaving = {
        let mut state = space.lock();
        let units = state.index.remove(id(1)).unwrap();
        space.doom(&mut state, units)
    };
    thread::scope(|scope| {
        let waiting = scope.spawn(|| space.reserve(8, 1, |_| false, |_, _| true).map(|room| room.units()));
        scope.spawn(move || drop(leaving));
        assert_eq!(waiting.join().unwrap(), Ok(8));
    });
}

#[test]
fn what_cannot_be_evicted_does_not_empty_the_disk() {
    let space = space(beside(10) + 10, 50);
    for number in 0..10 {
        store(&space, number, 1).unwrap();
    }
    let mut stuck = Vec::new();
    let refused = space.reserve(
        2,
        1,
        |_| false,
        |_, gone| {
            stuck.push(gone.pin());
            false
        },
    );
    assert_eq!(refused.err(), Some(NoRoom::Busy));
    assert!(stuck.len() <= 4, "{} have gone", stuck.len());
    let state = space.lock();
    assert_eq!((state.index.len() + stuck.len(), state.of_files()), (10, 10));
}
