use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use super::super::io::tests::Scratch;
use super::*;
use crate::http_cache::Timestamp;
use crate::invalidate::journal::{Ack, Base, Begin, Hooks, Journal, Start, Summary, Unwritten, read};
use crate::invalidate::{By, Entry, Selector};

fn entry(sequence: u64) -> Arc<Entry> {
    let selectors = Box::new([Selector::Tag("a tag".into())]);
    Arc::new(Entry { sequence, at: Timestamp::from_millis(1), soft: false, by: By::Api, selectors })
}

fn start(from: Begin, shared: bool) -> Start {
    Start { id: 1, from, shared }
}

fn hooks(heard: &Arc<Mutex<Vec<u64>>>) -> Hooks {
    let heard = heard.clone();
    Hooks { last: Box::new(|| 0), foreign: Box::new(move |entry| heard.lock().unwrap().push(entry.sequence)) }
}

fn append(journal: &Journal, sequence: u64) -> Result<(), Unwritten> {
    let (tell, told) = mpsc::channel();
    journal.append(entry(sequence), Ack::new(move |what| tell.send(what).unwrap()));
    told.recv().unwrap()
}

fn sequences(io: &Io) -> (Summary, Vec<u64>) {
    let mut sequences = Vec::new();
    let summary = read(io, |entry| sequences.push(entry.sequence)).unwrap();
    (summary, sequences)
}

#[test]
fn a_journal_is_kept_in_the_folder_of_the_disk() {
    let scratch = Scratch::new();
    let io = scratch.io();
    let heard = Arc::default();
    let journal = Journal::open(io.clone(), start(Begin::New(Base::default()), false), hooks(&heard)).unwrap();
    append(&journal, 1).unwrap();
    append(&journal, 2).unwrap();
    let (tell, told) = mpsc::channel();
    journal.compact(1, |entry, _| entry.sequence > 1, Ack::new(move |what| tell.send(what).unwrap()));
    told.recv().unwrap().unwrap();
    append(&journal, 3).unwrap();
    journal.shut();
    let (summary, all) = sequences(&io);
    assert_eq!((summary.compacted, all), (1, vec![2, 3]));
    assert!(!scratch.path("disk/ledger.new").exists());
    std::fs::write(scratch.path("disk/ledger.new"), "left over").unwrap();
    let journal = Journal::open(io.clone(), start(Begin::Continue(summary), false), hooks(&heard)).unwrap();
    assert!(!scratch.path("disk/ledger.new").exists());
    append(&journal, 4).unwrap();
    assert_eq!(sequences(&io).1, [2, 3, 4]);
    // The folder is emptied.
    std::fs::remove_file(scratch.path("disk/ledger")).unwrap();
    append(&journal, 5).unwrap();
    assert_eq!((journal.floor(), sequences(&io).0.compacted), (5, 5));
}

#[test]
fn the_faults_of_a_disk_are_met() {
    for fault in ["sync EIO", "write ENOSPC", "stat EIO"] {
        let scratch = Scratch::new();
        let io = scratch.io();
        let heard = Arc::default();
        let journal = Journal::open(io.clone(), start(Begin::New(Base::default()), false), hooks(&heard)).unwrap();
        append(&journal, 1).unwrap();
        scratch.faults(fault);
        assert!(matches!(append(&journal, 2), Err(Unwritten::Failed(_))), "{fault}");
        assert!(journal.is_behind());
        scratch.faults("");
        // The last attempt is at the end.
        journal.shut();
        assert_eq!(sequences(&io).1, [1, 2], "{fault}");
    }
}

#[test]
fn the_lock_is_between_processes_and_the_name_leads_to_one_file() {
    let scratch = Scratch::new();
    let io = scratch.io();
    let (old_heard, new_heard) = (Arc::default(), Arc::default());
    let old = Journal::open(io.clone(), start(Begin::New(Base::default()), false), hooks(&old_heard)).unwrap();
    append(&old, 1).unwrap();
    old.share(true);
    let new = Journal::open(io.clone(), start(Begin::Continue(sequences(&io).0), true), hooks(&new_heard)).unwrap();
    std::thread::scope(|scope| {
        let mut exclusive = new.exclusive().unwrap();
        let waiting = scope.spawn(|| append(&old, 3));
        exclusive.place(entry(2), Ack::none()).unwrap();
        drop(exclusive);
        waiting.join().unwrap().unwrap();
    });
    new.catch_up().unwrap();
    let both = sequences(&io).1;
    assert_eq!(both.len(), 3);
    assert_eq!((old_heard.lock().unwrap().clone(), new_heard.lock().unwrap().clone()), (vec![2], vec![3]));
    let opened = Medium::open(&io).unwrap();
    assert!(opened.is_current().unwrap());
    Medium::create(&io).unwrap();
    Medium::publish(&io).unwrap();
    assert!(!opened.is_current().unwrap());
    assert!(!opened.stat().unwrap().linked);
    scratch.faults("lock EIO");
    assert!(opened.lock().is_err());
}
