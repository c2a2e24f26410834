use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::invalidate::journal::testing::{Keep, Memory, Step, Told, anew, eio, entry, going_on, hooks, tagged};
use crate::invalidate::journal::writer::MAX_WAITING;
use crate::invalidate::journal::{Ack, Journal, Unwritten};

/// Longer than a test takes.
const NEVER: Duration = Duration::from_secs(3600);

pub fn journal(memory: &Memory) -> Journal {
    Journal::open_with(Box::new(memory.clone()), anew(), hooks(), NEVER).unwrap()
}

/// An ack, and what it tells.
pub fn wait() -> (Ack, Receiver<Result<(), Unwritten>>) {
    let (tell, told) = mpsc::channel();
    (Ack::new(move |what| tell.send(what).unwrap()), told)
}

/// The next sync says that it has come and waits until it may go on.
fn gate(memory: &Memory) -> (Receiver<()>, Sender<()>) {
    let (come, has_come) = mpsc::channel();
    let (go, may_go) = mpsc::channel();
    let mut gate = Some((come, may_go));
    memory.plan(move |_, step| {
        if step == Step::Sync
            && let Some((come, may_go)) = gate.take()
        {
            come.send(()).unwrap();
            let _ = may_go.recv();
        }
        None
    });
    (has_come, go)
}

#[test]
fn all_that_waits_for_a_sync_has_the_next_one_in_common() {
    let memory = Memory::new();
    let journal = journal(&memory);
    let (has_come, go) = gate(&memory);
    let told = Told::default();
    journal.append(Arc::new(entry(1)), told.ack(1));
    has_come.recv().unwrap();
    for sequence in 2..101 {
        journal.append(Arc::new(entry(sequence)), told.ack(sequence));
    }
    let (ack, last) = wait();
    journal.append(Arc::new(entry(101)), ack);
    assert!(told.all().is_empty());
    go.send(()).unwrap();
    last.recv().unwrap().unwrap();
    assert_eq!(told.durable(), (1..101).collect::<Vec<_>>());
    assert_eq!(memory.count(Step::Sync), 2);
    assert_eq!(journal.durable(), 101);
    assert_eq!(memory.crash(Keep::Synced).sequences().len(), 101);
}

#[test]
fn what_waits_is_bounded_and_the_rest_is_refused_at_once() {
    let memory = Memory::new();
    let journal = journal(&memory);
    let (has_come, go) = gate(&memory);
    let told = Told::default();
    journal.append(Arc::new(entry(1)), told.ack(1));
    has_come.recv().unwrap();
    let long = "x".repeat(1 << 20);
    let long = long.as_str();
    let large = Arc::new(tagged(2, &[long; 40]));
    assert!(journal.has_room(&large));
    journal.append(large.clone(), told.ack(2));
    assert!(!journal.has_room(&large) && journal.has_room(&entry(3)));
    journal.append(large, told.ack(3));
    journal.append(Arc::new(tagged(3, &[long; 70])), told.ack(4));
    for sequence in 4..MAX_WAITING as u64 + 3 {
        journal.append(Arc::new(entry(sequence)), Ack::none());
    }
    assert!(!journal.has_room(&entry(9000)));
    journal.append(Arc::new(entry(9000)), told.ack(9000));
    let refused = told.all();
    assert_eq!(refused.iter().map(|(sequence, _)| *sequence).collect::<Vec<_>>(), [3, 4, 9000]);
    assert!(refused.iter().all(|(_, what)| matches!(what, Err(Unwritten::Refused(_)))));
    go.send(()).unwrap();
    journal.shut();
    assert_eq!(memory.sequences().len(), MAX_WAITING + 1);
}

#[test]
fn the_end_writes_what_waits_and_nothing_comes_after_it() {
    let memory = Memory::new();
    let journal = journal(&memory);
    let told = Told::default();
    journal.append(Arc::new(entry(1)), told.ack(1));
    journal.reserve(50, told.ack(2));
    journal.swept(1, 0, told.ack(3));
    journal.compact(0, |_, _| true, told.ack(4));
    journal.shut();
    assert_eq!(told.durable(), [1, 2, 3, 4]);
    journal.append(Arc::new(entry(2)), told.ack(5));
    assert!(matches!(told.all().last(), Some((5, Err(Unwritten::Refused(_))))));
    let (summary, _) = memory.crash(Keep::Synced).read().unwrap();
    assert_eq!((summary.head, summary.reserved, summary.swept), (1, 50, 1));
    assert_eq!((journal.reserved(), journal.length()), (50, summary.length));
    let again = Journal::open_with(Box::new(memory.clone()), going_on(&memory), hooks(), NEVER).unwrap();
    assert_eq!((again.reserved(), again.durable(), again.floor()), (50, 1, 0));
}

#[test]
fn it_heals_by_itself() {
    let memory = Memory::new();
    let journal = Journal::open_with(Box::new(memory.clone()), anew(), hooks(), Duration::from_millis(1)).unwrap();
    let failing = Arc::new(Mutex::new(3));
    memory.plan(move |_, step| {
        let mut left = failing.lock().unwrap();
        (step == Step::Sync && *left > 0).then(|| {
            *left -= 1;
            eio()
        })
    });
    let mut sequence = 0;
    loop {
        sequence += 1;
        let (ack, told) = wait();
        journal.append(Arc::new(entry(sequence)), ack);
        if told.recv().unwrap().is_ok() {
            break;
        }
    }
    assert!(!journal.is_behind() && sequence > 1);
    assert_eq!(memory.crash(Keep::Synced).sequences(), (1..=sequence).collect::<Vec<_>>());
}

#[test]
fn an_ack_that_is_dropped_tells_of_failure() {
    let told = Told::default();
    drop(told.ack(1));
    assert!(matches!(told.all()[..], [(1, Err(Unwritten::Refused(_)))]));
}

#[test]
fn a_thread_that_panics_leaves_nobody_waiting() {
    let memory = Memory::new();
    let journal = journal(&memory);
    let told = Told::default();
    journal.append(Arc::new(entry(1)), told.ack(1));
    journal.compact(0, |_, _| panic!("of the test"), told.ack(2));
    journal.append(Arc::new(entry(2)), told.ack(3));
    journal.shut();
    journal.append(Arc::new(entry(3)), told.ack(4));
    let all = told.all();
    assert_eq!((all.len(), told.durable()), (4, vec![1]));
}
