use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::writing::{open, pending, place};
use crate::invalidate::Entry;
use crate::invalidate::journal::format::Record;
use crate::invalidate::journal::testing::{ID, Keep, Memory, Step, Told, anew, eio, entry, going_on, tagged};
use crate::invalidate::journal::writer::Writer;
use crate::invalidate::journal::{Ack, Begin, Hooks, Journal, Medium, Start, Unwritten};

const NEVER: Duration = Duration::from_secs(3600);

/// What one process has been told of the other.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<u64>>>);

impl Heard {
    fn hooks(&self) -> Hooks {
        let heard = self.clone();
        Hooks {
            last: Box::new(|| 0),
            foreign: Box::new(move |entry: Entry| heard.0.lock().unwrap().push(entry.sequence)),
        }
    }

    fn all(&self) -> Vec<u64> {
        self.0.lock().unwrap().clone()
    }
}

fn sharing(memory: &Memory) -> Start {
    Start { shared: true, ..going_on(memory) }
}

/// The old process with a journal of one entry, and the new one.
fn two(memory: &Memory) -> ((Writer, Heard), (Writer, Heard)) {
    let (old_heard, new_heard) = (Heard::default(), Heard::default());
    let mut old = open(memory, anew(), old_heard.hooks()).unwrap();
    place(&mut old, [entry(1)], &Told::default());
    old.share(true);
    let new = open(memory, sharing(memory), new_heard.hooks()).unwrap();
    ((old, old_heard), (new, new_heard))
}

#[test]
fn each_process_hears_of_the_other_before_it_writes() {
    let memory = Memory::new();
    let ((mut old, old_heard), (mut new, new_heard)) = two(&memory);
    let told = Told::default();
    place(&mut new, [entry(2)], &told);
    place(&mut old, [entry(3)], &told);
    place(&mut new, [entry(4), entry(5)], &told);
    assert_eq!((old_heard.all(), new_heard.all()), (vec![2], vec![3]));
    old.tick();
    assert_eq!(old_heard.all(), [2, 4, 5]);
    assert_eq!(told.durable(), [2, 3, 4, 5]);
    assert_eq!(memory.crash(Keep::Synced).sequences(), [1, 2, 3, 4, 5]);
    // What comes late is written as such.
    place(&mut old, [entry(4)], &told);
    let sequences = memory.crash(Keep::Synced).sequences();
    assert_eq!(sequences, [1, 2, 3, 4, 5, 4]);
    drop(old);
    new.share(false);
    new.place([]);
    place(&mut new, [entry(6)], &told);
    assert_eq!(memory.read().unwrap().0.committed, memory.bytes().len() as u64);
}

/// With one, a new process keeps the old one from giving its purges a sequence that the new one has stored under.
#[test]
fn an_entry_without_selectors_takes_its_sequence() {
    let memory = Memory::new();
    let ((mut old, old_heard), (mut new, _)) = two(&memory);
    let told = Told::default();
    place(&mut new, [tagged(2, &[])], &told);
    old.tick();
    assert_eq!((told.durable(), old_heard.all()), (vec![2], vec![2]));
    assert_eq!(memory.crash(Keep::Synced).sequences(), [1, 2]);
}

#[test]
fn the_file_is_not_replaced_while_it_is_shared() {
    let memory = Memory::new();
    let ((mut old, _), (mut new, _)) = two(&memory);
    let told = Told::default();
    old.compact(0, |_, _| true, told.ack(1));
    new.compact(0, |_, _| true, told.ack(2));
    assert!(told.all().iter().all(|(_, what)| matches!(what, Err(Unwritten::Refused(_)))));
    old.share(false);
    drop(new);
    old.compact(0, |_, _| true, told.ack(3));
    assert_eq!(told.durable(), [3]);
}

#[test]
fn what_is_being_written_is_neither_read_nor_cut_off() {
    let memory = Memory::new();
    let ((_old, _), (mut new, new_heard)) = two(&memory);
    let whole = memory.bytes();
    // The other one has got halfway.
    let mut record = whole.clone();
    let header = Medium::open(&memory).unwrap();
    let seed = crate::invalidate::journal::read::header(&*header).unwrap().seed();
    Record::Entry { entry: Arc::new(entry(2)), late: false }.encode(seed, &mut record);
    let (from, half) = (whole.len() as u64, whole.len() + 20);
    header.write(from, &record[whole.len()..half]).unwrap();
    assert!(!new.catch_up().unwrap());
    assert_eq!(memory.bytes().len(), half);
    header.write(half as u64, &record[half..]).unwrap();
    assert!(new.catch_up().unwrap());
    assert_eq!(new_heard.all(), [2]);
    // One that was killed halfway has no lock any more: what it left is cut off.
    header.write(record.len() as u64, &[1, 2, 3]).unwrap();
    place(&mut new, [entry(3)], &Told::default());
    assert_eq!((memory.sequences(), memory.read().unwrap().0.torn), (vec![1, 2, 3], 0));
}

#[test]
fn one_whose_sync_failed_writes_it_again_behind_what_the_other_wrote() {
    for step in [Step::Sync, Step::Write] {
        let memory = Memory::new();
        let ((mut old, old_heard), (mut new, new_heard)) = two(&memory);
        let told = Told::default();
        memory.plan(move |_, its| (its == step).then(eio));
        place(&mut old, [entry(2)], &told);
        memory.heal();
        place(&mut new, [entry(3)], &told);
        old.tick();
        new.tick();
        assert_eq!(told.durable(), [3]);
        assert_eq!((old_heard.all(), new_heard.all()), (vec![3], vec![2]), "{step:?}");
        let mut sequences = memory.crash(Keep::Synced).sequences();
        sequences.sort_unstable();
        assert_eq!(sequences, [1, 2, 3], "{step:?}");
        place(&mut old, [entry(4)], &told);
        assert_eq!(told.durable(), [3, 4]);
    }
}

#[test]
fn what_one_begins_anew_the_other_goes_on_with() {
    let memory = Memory::new();
    let ((mut old, _), (mut new, new_heard)) = two(&memory);
    let told = Told::default();
    memory.empty();
    place(&mut old, [entry(2)], &told);
    assert_eq!(told.durable(), [2]);
    place(&mut old, [entry(3)], &told);
    place(&mut new, [entry(4)], &told);
    new.tick();
    old.tick();
    assert_eq!(new_heard.all(), [2, 3]);
    let floors = [&old, &new].map(|writer| writer.status.floor.load(std::sync::atomic::Ordering::Acquire));
    assert_eq!(floors, [2, 2]);
    let (summary, _) = memory.crash(Keep::Synced).read().unwrap();
    assert_eq!((summary.compacted, memory.crash(Keep::Synced).sequences()), (2, vec![2, 3, 4]));
    assert_eq!(told.durable(), [2, 3, 4]);
}

#[test]
fn whatever_step_of_one_fails_nothing_is_lost_or_written_twice() {
    // The steps of the old one, once it shares the file.
    for failing in 0..40 {
        let memory = Memory::new();
        let ((mut old, _), (mut new, new_heard)) = two(&memory);
        let told = Told::default();
        memory.plan(move |number, _| (number == failing).then(eio));
        place(&mut old, [entry(2)], &told);
        place(&mut new, [entry(3)], &told);
        place(&mut old, [entry(4)], &told);
        memory.heal();
        for _ in 0..2 {
            old.tick();
            new.tick();
        }
        let mut all: Vec<u64> = told.all().into_iter().map(|(sequence, _)| sequence).collect();
        all.sort_unstable();
        assert_eq!(all, [2, 3, 4], "{failing}");
        for writer in [&mut old, &mut new] {
            writer.flush_now(true);
        }
        let after = memory.crash(Keep::Synced);
        let mut sequences = after.sequences();
        sequences.sort_unstable();
        assert_eq!(sequences, [1, 2, 3, 4], "{failing}");
        assert!([2, 4].iter().all(|sequence| new_heard.all().contains(sequence)), "{failing}");
    }
}

fn journal(memory: &Memory, start: Start, heard: &Heard) -> Journal {
    Journal::open_with(Box::new(memory.clone()), start, heard.hooks(), NEVER).unwrap()
}

#[test]
fn a_worker_hears_of_it_at_once() {
    let memory = Memory::new();
    let (old_heard, new_heard) = (Heard::default(), Heard::default());
    let old = journal(&memory, anew(), &old_heard);
    old.share(true);
    let new = journal(&memory, sharing(&memory), &new_heard);
    assert!(!old.catch_up().unwrap());
    new.exclusive().unwrap().place(Arc::new(entry(1)), Ack::none()).unwrap();
    memory.plan(|_, _| None);
    assert!(old.catch_up().unwrap());
    assert_eq!(old_heard.all(), [1]);
    let steps = memory.steps().len();
    assert!(!old.catch_up().unwrap());
    // The new one's thread may be syncing.
    let more: Vec<Step> = memory.steps()[steps..].to_vec();
    assert!(more.iter().filter(|step| **step == Step::Stat).count() <= 2, "{more:?}");
    assert!(new_heard.all().is_empty());
}

#[test]
fn no_sequence_is_given_out_by_two() {
    let memory = Memory::new();
    let last = Arc::new(Mutex::new(Vec::new()));
    let hooks = |last: &Arc<Mutex<u64>>| {
        let last = last.clone();
        Hooks { last: Box::new(|| 0), foreign: Box::new(move |entry: Entry| *last.lock().unwrap() = entry.sequence) }
    };
    let heads = [0, 1].map(|_| Arc::new(Mutex::new(0)));
    let old = Journal::open_with(Box::new(memory.clone()), anew(), hooks(&heads[0]), NEVER).unwrap();
    old.share(true);
    let new = Journal::open_with(Box::new(memory.clone()), sharing(&memory), hooks(&heads[1]), NEVER).unwrap();
    std::thread::scope(|scope| {
        for (journal, head) in [(&old, &heads[0]), (&new, &heads[1])] {
            let last = last.clone();
            scope.spawn(move || {
                for _ in 0..50 {
                    let (tell, told) = mpsc::channel();
                    let mut exclusive = journal.exclusive().unwrap();
                    let sequence = {
                        let mut head = head.lock().unwrap();
                        *head += 1;
                        *head
                    };
                    let ack = Ack::new(move |what| tell.send(what).unwrap());
                    exclusive.place(Arc::new(entry(sequence)), ack).unwrap();
                    drop(exclusive);
                    told.recv().unwrap().unwrap();
                    last.lock().unwrap().push(sequence);
                }
            });
        }
    });
    assert_eq!(memory.crash(Keep::Synced).sequences(), (1..101).collect::<Vec<_>>());
    let mut given = last.lock().unwrap().clone();
    given.sort_unstable();
    assert_eq!(given, (1..101).collect::<Vec<_>>());
}

#[test]
fn two_that_both_begin_one_agree() {
    let memory = Memory::new();
    let (old_heard, new_heard) = (Heard::default(), Heard::default());
    let start = Start { shared: true, id: ID, from: Begin::New(Default::default()) };
    let mut old = open(&memory, start, old_heard.hooks()).unwrap();
    let mut new = open(&memory, start, new_heard.hooks()).unwrap();
    let told = Told::default();
    old.place([pending(entry(1), &told)]);
    old.tick();
    place(&mut new, [entry(2)], &told);
    old.tick();
    assert_eq!((old_heard.all(), new_heard.all()), (vec![2], vec![1]));
    assert_eq!(memory.sequences(), [1, 2]);
}
