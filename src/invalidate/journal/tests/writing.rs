use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::invalidate::journal::format::Record;
use crate::invalidate::journal::testing::{
    Keep, Memory, Step, Told, anew, eio, enospc, entry, going_on, hooks, tagged,
};
use crate::invalidate::journal::writer::{MAX_WAITING, Pending, Status, Writer};
use crate::invalidate::journal::{Hooks, Start, Unreadable, Unwritten};
use crate::invalidate::{Entry, Selector};

/// So many ways in which what was not synced may be kept in part.
const CHANCES: u64 = 6;

pub fn open(memory: &Memory, start: Start, hooks: Hooks) -> io::Result<Writer> {
    Writer::open(Box::new(memory.clone()), start, hooks, Arc::new(Status::default()))
}

pub fn writer(memory: &Memory, start: Start) -> Writer {
    open(memory, start, hooks()).unwrap()
}

pub fn pending(entry: Entry, told: &Told) -> Pending {
    let ack = told.ack(entry.sequence);
    Pending { record: Record::Entry { entry: Arc::new(entry), late: false }, ack }
}

/// A group, as the thread writes it.
pub fn place(writer: &mut Writer, entries: impl IntoIterator<Item = Entry>, told: &Told) {
    writer.place(entries.into_iter().map(|entry| pending(entry, told)));
    writer.flush_now(false);
}

fn behind(writer: &Writer) -> bool {
    writer.status.behind.load(Ordering::Acquire)
}

fn floor(writer: &Writer) -> u64 {
    writer.status.floor.load(Ordering::Acquire)
}

/// Entries that a compaction of [`life`] leaves out, and up to which.
const COMPACTED: u64 = 4;

/// What a process does: groups, and compactions between them.
fn life(memory: &Memory, told: &Told) -> io::Result<Writer> {
    let mut writer = open(memory, anew(), hooks())?;
    place(&mut writer, [tagged(1, &["old"]), tagged(2, &["old", "kept"])], told);
    writer.tick();
    place(&mut writer, [entry(3)], told);
    place(&mut writer, [tagged(4, &["old"]), entry(5)], told);
    writer.compact(COMPACTED, |_, selector| *selector != Selector::Tag("old".into()), told.ack(0));
    place(&mut writer, [entry(6)], told);
    writer.tick();
    writer.flush_now(true);
    place(&mut writer, [entry(7)], told);
    writer.compact(0, |_, _| true, told.ack(0));
    place(&mut writer, [entry(8)], told);
    Ok(writer)
}

/// All that was told to be durable is read, or is below what may be missing.
fn assert_kept(memory: &Memory, told: &Told, opened: bool, what: &str) {
    let durable: BTreeSet<u64> = told.durable().into_iter().filter(|sequence| *sequence > 0).collect();
    match memory.read() {
        Ok((summary, entries)) => {
            let read: Vec<u64> = entries.iter().map(|entry| entry.sequence).collect();
            assert!(read.is_sorted() && read.iter().all(|sequence| (1..=8).contains(sequence)), "{what}: {read:?}");
            let missing: Vec<_> =
                durable.iter().filter(|sequence| !read.contains(sequence) && **sequence > summary.compacted).collect();
            assert!(missing.is_empty(), "{what}: {missing:?} of {durable:?} in {summary:?}");
            assert!(summary.head.max(summary.reserved) >= durable.last().copied().unwrap_or(0), "{what}");
            if summary.compacted <= COMPACTED && !durable.is_empty() && read.contains(&2) {
                let tags = &entries.iter().find(|entry| entry.sequence == 2).unwrap().selectors;
                assert!(tags.contains(&Selector::Tag("kept".into())), "{what}");
            }
        }
        Err(Unreadable::Missing) => assert!(!opened && durable.is_empty(), "{what}"),
        Err(other) => panic!("{what}: {other:?}"),
    }
}

fn every_keep() -> impl Iterator<Item = Keep> {
    [Keep::All, Keep::Synced].into_iter().chain((0..CHANCES).map(Keep::Some))
}

#[test]
fn whatever_step_is_the_last_what_was_told_to_be_durable_is() {
    let whole = Memory::new();
    whole.plan(|_, _| None);
    life(&whole, &Told::default()).unwrap();
    let steps = whole.steps().len();
    assert!(steps > 40, "{steps}");
    for last in 0..=steps {
        let (memory, told) = (Memory::new(), Told::default());
        memory.plan(move |number, _| (number >= last).then(eio));
        let opened = life(&memory, &told);
        for keep in every_keep() {
            let what = format!("{keep:?} after {last} steps");
            let after = memory.crash(keep);
            assert_kept(&after, &told, opened.is_ok(), &what);
            // And whoever goes on with it does no harm.
            if after.read().is_ok() {
                let start = going_on(&after);
                let mut writer = writer(&after, start);
                let told_later = Told::default();
                place(&mut writer, [entry(100)], &told_later);
                assert_eq!(told_later.durable(), [100], "{what}");
                assert!(!after.has("ledger.new"), "{what}");
                let after = after.crash(Keep::Synced);
                assert_eq!(after.sequences().last(), Some(&100), "{what}");
                let before: Vec<u64> =
                    after.read().unwrap().1.iter().map(|entry| entry.sequence).filter(|at| *at < 100).collect();
                let compacted = after.read().unwrap().0.compacted;
                assert!(
                    told.durable().iter().all(|at| *at <= compacted || before.contains(at)),
                    "{what}: {before:?} of {:?}",
                    told.durable()
                );
            }
        }
    }
}

#[test]
fn whatever_step_fails_once_all_is_durable_in_the_end() {
    let whole = Memory::new();
    whole.plan(|_, _| None);
    life(&whole, &Told::default()).unwrap();
    for (failing, step) in whole.steps().into_iter().enumerate() {
        for error in [eio, enospc] {
            let (memory, told) = (Memory::new(), Told::default());
            memory.plan(move |number, _| (number == failing).then(error));
            let what = format!("{step:?}, the step {failing}");
            let Ok(mut writer) = life(&memory, &told) else {
                assert!(told.all().is_empty(), "{what}");
                continue;
            };
            for keep in every_keep() {
                assert_kept(&memory.crash(keep), &told, true, &what);
            }
            writer.tick();
            writer.tick();
            assert!(!behind(&writer), "{what}");
            let mut all: Vec<u64> = told.all().into_iter().map(|(sequence, _)| sequence).collect();
            all.sort_unstable();
            assert_eq!(all, [0, 0, 1, 2, 3, 4, 5, 6, 7, 8], "{what}: each is told once");
            let after = memory.crash(Keep::Synced);
            let (summary, entries) = after.read().unwrap();
            assert_eq!(floor(&writer), 0, "{what}: nothing has been lost");
            let read: Vec<u64> = entries.iter().map(|entry| entry.sequence).collect();
            let mut wanted = vec![1, 2, 3, 4, 5, 6, 7, 8];
            if summary.compacted > 0 {
                wanted.retain(|at| ![1, 4].contains(at) || read.contains(at));
            }
            assert_eq!(read, wanted, "{what}");
        }
    }
}

#[test]
fn a_disk_that_fails_for_a_while_has_everything_when_it_is_well_again() {
    for step in [Step::Write, Step::Sync, Step::Current] {
        let memory = Memory::new();
        let mut writer = writer(&memory, anew());
        let told = Told::default();
        place(&mut writer, [entry(1)], &told);
        // A file that is opened again is not asked whether it is the one.
        let also = if step == Step::Current { Step::Open } else { step };
        memory.plan(move |_, its| (its == step || its == also).then(enospc));
        for sequence in 2..6 {
            place(&mut writer, [entry(sequence)], &told);
            writer.tick();
        }
        assert!(behind(&writer), "{step:?}");
        assert_eq!(told.durable(), [1]);
        assert!(told.all()[1..].iter().all(|(_, what)| matches!(what, Err(Unwritten::Failed(_)))));
        assert_eq!(writer.status.durable.load(Ordering::Acquire), 1);
        memory.heal();
        writer.tick();
        assert_eq!((behind(&writer), floor(&writer)), (false, 0), "{step:?}");
        assert_eq!(memory.crash(Keep::Synced).sequences(), [1, 2, 3, 4, 5], "{step:?}");
        place(&mut writer, [entry(6)], &told);
        assert_eq!(told.durable(), [1, 6]);
    }
}

#[test]
fn a_backlog_that_overflows_is_the_end_of_that_file() {
    let memory = Memory::new();
    let mut writer = writer(&memory, anew());
    let told = Told::default();
    writer.place([Pending { record: Record::Reserve(9_000), ack: told.ack(0) }]);
    writer.flush_now(false);
    memory.plan(|_, _| Some(eio()));
    for sequence in 1..=MAX_WAITING as u64 {
        place(&mut writer, [entry(sequence)], &told);
    }
    assert_eq!(floor(&writer), 0);
    place(&mut writer, [entry(5000)], &told);
    place(&mut writer, [entry(5001)], &told);
    assert_eq!(floor(&writer), 5000);
    memory.heal();
    writer.tick();
    assert_eq!((behind(&writer), floor(&writer)), (false, 5001));
    let (summary, entries) = memory.crash(Keep::Synced).read().unwrap();
    assert_eq!((summary.compacted, summary.reserved, summary.swept), (5001, 9000, 0));
    assert!(entries.is_empty());
    place(&mut writer, [entry(5002)], &told);
    assert_eq!(memory.crash(Keep::Synced).sequences(), [5002]);
    assert_eq!(told.durable(), [0, 5002]);
}

#[test]
fn a_file_that_is_gone_or_another_is_begun_anew_above_all() {
    let other = Memory::new();
    drop(writer(&other, Start { id: 99, ..anew() }));
    let others = other.bytes();
    for change in
        [|memory: &Memory, _: &[u8]| memory.empty(), |memory: &Memory, others: &[u8]| memory.set_bytes(others)]
    {
        for idle in [false, true] {
            let memory = Memory::new();
            let mut hooks = hooks();
            hooks.last = Box::new(|| 40);
            let mut writer = open(&memory, anew(), hooks).unwrap();
            let told = Told::default();
            place(&mut writer, [entry(1)], &told);
            writer.swept(0, Pending { record: Record::Swept(1), ack: told.ack(2) });
            writer.flush_now(false);
            assert_eq!(memory.read().unwrap().0.swept, 1);
            change(&memory, &others);
            if idle {
                writer.tick();
            } else {
                place(&mut writer, [entry(41)], &told);
            }
            let head = if idle { 40 } else { 41 };
            assert_eq!((floor(&writer), behind(&writer)), (head, false));
            let (summary, entries) = memory.crash(Keep::Synced).read().unwrap();
            assert_eq!((summary.compacted, summary.swept, entries.len()), (head, 0, 0));
            // Whoever began to sweep before cannot know.
            writer.swept(0, Pending { record: Record::Swept(40), ack: told.ack(3) });
            assert!(matches!(told.all().last(), Some((3, Err(Unwritten::Refused(_))))));
            writer.swept(head, Pending { record: Record::Swept(41), ack: told.ack(4) });
            place(&mut writer, [entry(42)], &told);
            let (summary, entries) = memory.crash(Keep::Synced).read().unwrap();
            assert_eq!((summary.swept, entries), (41, vec![entry(42)]));
        }
    }
}

#[test]
fn a_file_that_cannot_be_begun_anew_is_when_it_can() {
    let memory = Memory::new();
    let mut writer = writer(&memory, anew());
    let told = Told::default();
    place(&mut writer, [entry(1)], &told);
    memory.empty();
    for failing in [Step::Create, Step::Write, Step::Sync, Step::Publish, Step::SyncFolder] {
        memory.plan(move |_, step| (step == failing).then(enospc));
        place(&mut writer, [entry(2)], &told);
        writer.tick();
        assert!(behind(&writer) && told.durable() == [1], "{failing:?}");
        assert_eq!(floor(&writer), 2);
    }
    memory.heal();
    writer.tick();
    assert_eq!(memory.crash(Keep::Synced).read().unwrap().0.compacted, 2);
}

#[test]
fn a_sync_that_failed_is_not_believed_when_the_next_one_does_not() {
    let memory = Memory::new();
    let mut writer = writer(&memory, anew());
    let told = Told::default();
    place(&mut writer, [entry(1)], &told);
    memory.plan(|_, step| (step == Step::Sync).then(eio));
    place(&mut writer, [entry(2)], &told);
    // The process ends, and the next one finds in the page cache what never got to the disk.
    drop(writer);
    memory.heal();
    let restarted = memory.crash(Keep::All);
    assert_eq!(restarted.sequences(), [1, 2]);
    drop(self::writer(&restarted, going_on(&restarted)));
    assert_eq!(restarted.crash(Keep::Synced).sequences(), [1, 2]);
}

#[test]
fn a_group_costs_one_write_and_one_sync() {
    let memory = Memory::new();
    let mut writer = writer(&memory, anew());
    memory.plan(|_, _| None);
    place(&mut writer, (1..200).map(entry), &Told::default());
    // The group, and the commit slot.
    assert_eq!((memory.count(Step::Sync), memory.count(Step::Write)), (1, 2));
    writer.flush_now(false);
    assert_eq!(memory.count(Step::Sync), 1);
    writer.flush_now(true);
    writer.flush_now(true);
    assert_eq!(memory.count(Step::Sync), 2, "an idle journal has its slot synced once");
}

#[test]
fn compaction_drops_what_is_not_kept_and_forgets_no_number() {
    let memory = Memory::new();
    let mut writer = writer(&memory, anew());
    let told = Told::default();
    place(&mut writer, [tagged(1, &["a"]), tagged(2, &["a", "b"]), tagged(3, &["a"])], &told);
    writer.place([
        Pending { record: Record::Reserve(2), ack: told.ack(10) },
        Pending { record: Record::Swept(2), ack: told.ack(11) },
    ]);
    let before = memory.bytes().len();
    writer.compact(2, |_, selector| *selector != Selector::Tag("a".into()), told.ack(12));
    assert_eq!(told.durable(), [1, 2, 3, 10, 11, 12]);
    assert!(memory.bytes().len() < before);
    let (summary, entries) = memory.crash(Keep::Synced).read().unwrap();
    assert_eq!(entries, [tagged(2, &["b"])]);
    assert_eq!((summary.compacted, summary.reserved, summary.swept), (2, 3, 2));
    place(&mut writer, [entry(4)], &told);
    assert_eq!(memory.crash(Keep::Synced).sequences(), [2, 4]);
}

#[test]
fn what_could_not_be_read_is_not_written() {
    let memory = Memory::new();
    let mut writer = writer(&memory, anew());
    let told = Told::default();
    let many = vec!["x"; Entry::MAX_SELECTORS + 1];
    place(&mut writer, [entry(1), tagged(2, &[]), tagged(3, &many), tagged(4, &many[1..]), entry(0)], &told);
    let refused: Vec<u64> = told.all().iter().filter(|(_, what)| what.is_err()).map(|(at, _)| *at).collect();
    assert_eq!((refused, told.durable()), (vec![3, 0], vec![1, 2, 4]));
    assert_eq!(memory.crash(Keep::Synced).sequences(), [1, 2, 4]);
}

#[test]
fn another_ledger_is_not_gone_on_with() {
    let memory = Memory::new();
    drop(writer(&memory, anew()));
    let start = going_on(&memory);
    let wrong = open(&memory, Start { id: 8, ..start }, hooks());
    assert_eq!(wrong.err().map(|e| e.kind()), Some(io::ErrorKind::InvalidData));
    drop(writer(&memory, anew()));
    assert_eq!(open(&memory, start, hooks()).err().map(|e| e.kind()), Some(io::ErrorKind::InvalidData));
}
