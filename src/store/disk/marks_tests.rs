use super::*;
use crate::config::model::DiskTier;
use crate::store::disk::io::tests::Scratch;
use crate::store::disk::{Begin, Disks};

#[test]
fn the_counts_come_back_from_the_file() {
    let scratch = Scratch::new();
    let io = scratch.io();
    assert!(Marks::read(&io).is_none());
    let marks = Marks::new(1000);
    // The first writes the whole file.
    for slot in [7, 7, 65535, 0, 7] {
        marks.add(slot);
        marks.write_one(&io, slot).unwrap();
    }
    assert_eq!(std::fs::metadata(scratch.path("disk/marks")).unwrap().len(), FILE_LEN);
    let other = Marks::new(9000);
    other.join(&[Marks::read(&io).unwrap()]);
    assert_eq!([0, 1, 7, 65535].map(|slot| other.get(slot)), [1001, 1000, 1003, 1001]);
}

#[test]
fn of_several_files_the_highest_count_holds_and_a_short_one_says_nothing() {
    let files = [vec![5; 1 << 16], vec![4; 1 << 16], vec![6; 10]];
    let marks = Marks::new(1);
    marks.join(&files);
    assert_eq!((marks.get(9), marks.get(10)), (6, 5));
    marks.join(&[]);
    assert_eq!(marks.get(9), 6);
    let scratch = Scratch::new();
    std::fs::create_dir_all(scratch.path("disk")).unwrap();
    std::fs::write(scratch.path("disk/marks"), vec![0; FILE_LEN as usize - 1]).unwrap();
    assert!(Marks::read(&scratch.io()).is_none());
}

#[tokio::test]
async fn they_outlast_the_process_and_without_them_nothing_stored_before_is_usable() {
    let scratch = Scratch::new();
    let tier = |name: &str| DiskTier {
        path: scratch.path(name),
        size: 1 << 20,
        max_object: 1 << 20,
        max_objects: None,
        min_free: 0,
    };
    let (one, two) = (tier("one"), tier("two"));
    let open = |tiers: &[DiskTier]| Disks::open(tiers, Begin::Alone).unwrap();
    let disks = open(std::slice::from_ref(&one));
    let before = disks.marks().get(3);
    disks.mark(3).await;
    // Whoever does not wait for it has it written all the same.
    drop(disks.mark(3));
    assert_eq!(disks.marks().get(3), before + 2);
    disks.shut();
    // A disk more knows of it too.
    let disks = open(&[one.clone(), two.clone()]);
    assert_eq!(disks.marks().get(3), before + 2);
    disks.mark(3).await;
    disks.shut();
    let disks = open(std::slice::from_ref(&two));
    assert_eq!((disks.marks().get(3), disks.marks().get(4)), (before + 3, before));
    disks.shut();
    std::fs::remove_file(two.path.join(NAME)).unwrap();
    let disks = open(std::slice::from_ref(&two));
    for slot in [3, 4] {
        assert!(disks.marks().get(slot) > before + 3, "no count that anything stored before can have");
    }
    disks.shut();
}

#[test]
fn a_file_is_mended_in_place_and_the_higher_count_holds_on_both_sides() {
    let scratch = Scratch::new();
    let io = scratch.io();
    let (one, two) = (Marks::new(10), Marks::new(10));
    one.write(&io).unwrap();
    let before = std::fs::File::open(scratch.path("disk/marks")).unwrap();
    one.add(3);
    one.write_one(&io, 3).unwrap();
    two.add(4);
    two.mend(&io).unwrap();
    assert_eq!([3, 4, 5].map(|slot| two.get(slot)), [11, 11, 10]);
    assert_eq!(Marks::read(&io).unwrap()[3..6], [11, 11, 10]);
    let inode = |metadata: std::fs::Metadata| std::os::unix::fs::MetadataExt::ino(&metadata);
    let now = std::fs::metadata(scratch.path("disk/marks")).unwrap();
    assert_eq!(inode(before.metadata().unwrap()), inode(now), "whoever has it open writes to the same");
    // One that is short, or not there, is written whole.
    for short in [true, false] {
        std::fs::remove_file(scratch.path("disk/marks")).unwrap();
        if short {
            std::fs::write(scratch.path("disk/marks"), "short").unwrap();
        }
        two.mend(&io).unwrap();
        assert_eq!(Marks::read(&io).unwrap()[3..6], [11, 11, 10]);
    }
}
