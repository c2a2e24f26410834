use super::testing::Random;
use super::*;

fn disks(sizes: &[u64]) -> Disks {
    let place = |(number, size): (usize, &u64)| {
        let path = PathBuf::from(format!("/nowhere/{number}"));
        let settings = DiskTier { path, size: *size, max_object: 1, max_objects: None, min_free: 0 };
        Place {
            disk: Disk::new(settings.clone(), "one", 1, &Arc::new(Ledger::new())),
            seed: seed(&settings),
            size: *size as f64,
        }
    };
    Disks { disks: sizes.iter().enumerate().map(place).collect(), ledger: Arc::new(Ledger::new()) }
}

/// For each object the number of its disk.
fn places(disks: &Disks) -> Vec<usize> {
    let mut random = Random(1);
    let mut id = || ObjectId(std::array::from_fn(|_| random.below(256) as u8));
    let place = |id| {
        let of = disks.of(&id).unwrap();
        disks.iter().position(|disk| Arc::ptr_eq(disk, of)).unwrap()
    };
    (0..40_000).map(|_| place(id())).collect()
}

#[test]
fn objects_are_spread_in_the_measure_of_the_disks_sizes() {
    let sizes = [1 << 30, 2 << 30, 5 << 30, 8 << 30];
    let places = places(&disks(&sizes));
    for (number, size) in sizes.iter().enumerate() {
        let share = places.iter().filter(|place| **place == number).count() as f64 / places.len() as f64;
        let due = *size as f64 / sizes.iter().sum::<u64>() as f64;
        assert!((share - due).abs() < 0.01, "disk {number}: {share} instead of {due}");
    }
}

#[test]
fn a_disk_more_takes_its_share_and_moves_nothing_between_the_others() {
    let (before, after) = (places(&disks(&[3, 4, 5])), places(&disks(&[3, 4, 5, 6])));
    let moved: Vec<_> = before.iter().zip(&after).filter(|(before, after)| before != after).collect();
    assert!(moved.iter().all(|(_, after)| **after == 3));
    let share = moved.len() as f64 / before.len() as f64;
    assert!((share - 6.0 / 18.0).abs() < 0.02, "{share}");
}

#[test]
fn variants_of_a_resource_need_not_be_on_one_disk() {
    let disks = disks(&[1, 1]);
    let of = |number: u64| {
        let mut id = [9; 16];
        id[8..].copy_from_slice(&number.to_le_bytes());
        disks.of(&ObjectId(id)).unwrap().path().to_owned()
    };
    let first = (0..1000).filter(|number| of(*number) == of(0)).count();
    assert!((400..600).contains(&first), "{first}");
}

/// What is stored ends with the process, so nothing has to be written down.
#[tokio::test]
async fn without_a_disk_a_purge_needs_none() {
    let disks = Disks::open(&[], Begin::Alone).unwrap();
    let purge =
        disks.ledger().append(Box::new([crate::invalidate::Selector::Everything]), false, crate::invalidate::By::Api);
    assert_eq!((purge.written().await, disks.ledger().is_nowhere()), (Ok(()), false));
}
