//! The index against the same rules written in the plainest way.

use std::collections::{HashMap, HashSet};

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::snapshot::{Decoder, Encoder, HEADER_LEN, Written};
use super::tests::{check, id, never, saved};
use super::*;

/// Names used. Enough for more entries than one eviction spares.
const NAMES: u64 = 200;

#[derive(Clone, Debug)]
enum Op {
    Insert(u64, u32),
    Touch(u64, u8),
    Resize(u64, u32),
    Remove(u64),
    /// The caller says that every n-th name was used, or none for 0.
    Victim(u64),
    /// So many names from the first on, of one unit.
    Scan(u64, u64),
    Restore(u64, u32, u8, Queue),
    BeginWalk,
    Walked(u64, u32),
    Unwalked(usize),
    Settle(Vec<u64>),
}

#[derive(Clone, Debug)]
struct Row {
    n: u64,
    units: u32,
    frequency: u8,
    walk: u64,
}

/// Each queue from the old end to the new.
struct Model {
    probation: Vec<Row>,
    main: Vec<Row>,
    found: Vec<Row>,
    ghosts: Ghosts,
    walk: u64,
}

impl Model {
    fn new() -> Model {
        let ghosts = Ghosts::new();
        Model { probation: Vec::new(), main: Vec::new(), found: Vec::new(), ghosts, walk: 1 }
    }

    fn queue(&mut self, queue: Queue) -> &mut Vec<Row> {
        match queue {
            Queue::Probation => &mut self.probation,
            Queue::Main => &mut self.main,
            Queue::Found => &mut self.found,
        }
    }

    fn rows(&self) -> impl Iterator<Item = &Row> {
        self.probation.iter().chain(&self.main).chain(&self.found)
    }

    fn len(&self) -> usize {
        self.rows().count()
    }

    fn units(&self) -> u64 {
        self.rows().map(|row| u64::from(row.units)).sum()
    }

    fn row(&mut self, n: u64) -> Option<&mut Row> {
        self.probation.iter_mut().chain(&mut self.main).chain(&mut self.found).find(|row| row.n == n)
    }

    fn take(&mut self, n: u64) -> Option<(Queue, Row)> {
        [Queue::Probation, Queue::Main, Queue::Found].into_iter().find_map(|queue| {
            let at = self.queue(queue).iter().position(|row| row.n == n)?;
            Some((queue, self.queue(queue).remove(at)))
        })
    }

    fn insert(&mut self, n: u64, units: u32) -> Option<u32> {
        let walk = self.walk;
        if let Some((queue, row)) = self.take(n) {
            let queue = if queue == Queue::Main { Queue::Main } else { Queue::Probation };
            self.queue(queue).push(Row { units, walk, ..row });
            return Some(row.units);
        }
        let queue = if self.ghosts.recall(lookup::hash(&id(n))) { Queue::Main } else { Queue::Probation };
        self.queue(queue).push(Row { n, units, frequency: 0, walk });
        self.ghosts.fit(self.len());
        None
    }

    fn turn(&self) -> Option<Queue> {
        let probation: u64 = self.probation.iter().map(|row| u64::from(row.units)).sum();
        match () {
            _ if self.len() == 0 => None,
            _ if !self.found.is_empty() => Some(Queue::Found),
            _ if self.main.is_empty() => Some(Queue::Probation),
            _ if self.probation.is_empty() => Some(Queue::Main),
            _ if 10 * probation > self.units() => Some(Queue::Probation),
            _ => Some(Queue::Main),
        }
    }

    fn victim(&mut self, used: impl Fn(u64) -> bool) -> Option<(ObjectId, u32)> {
        for spared in 0.. {
            let queue = self.turn()?;
            let mut row = self.queue(queue).remove(0);
            row.frequency = (row.frequency + u8::from(spared < 64 && used(row.n))).min(3);
            if row.frequency == 0 || spared == 64 {
                if queue != Queue::Main {
                    self.ghosts.remember(lookup::hash(&id(row.n)));
                }
                return Some((id(row.n), row.units));
            }
            row.frequency = if queue == Queue::Main { row.frequency - 1 } else { 0 };
            self.main.push(row);
        }
        None
    }

    fn restore(&mut self, n: u64, units: u32, frequency: u8, queue: Queue) {
        if self.row(n).is_none() {
            let row = Row { n, units, frequency, walk: self.walk - 1 };
            self.queue(queue).insert(0, row);
            self.ghosts.fit(self.len());
        }
    }

    fn walked(&mut self, n: u64, units: u32) -> Walked {
        let walk = self.walk;
        let Some(row) = self.row(n) else {
            self.found.push(Row { n, units, frequency: 0, walk });
            self.ghosts.fit(self.len());
            return Walked::New;
        };
        let old = Row { ..row.clone() };
        row.walk = walk;
        if old.walk == walk || old.units == units {
            return Walked::Known;
        }
        row.units = units;
        Walked::Resized(old.units)
    }

    fn unwalked(&mut self) -> Vec<ObjectId> {
        let gone: Vec<_> = self.rows().filter(|row| row.walk != self.walk).map(|row| row.n).collect();
        gone.iter().for_each(|n| _ = self.take(*n));
        let mut gone: Vec<_> = gone.into_iter().map(id).collect();
        gone.sort_unstable();
        gone
    }

    fn settle(&mut self, newest_first: &[u64]) {
        for n in newest_first {
            if self.found.iter().any(|row| row.n == *n)
                && let Some((_, row)) = self.take(*n)
            {
                self.probation.insert(0, row);
            }
        }
    }

    fn saved(&self) -> Vec<Saved> {
        let queues = [(Queue::Found, &self.found), (Queue::Probation, &self.probation), (Queue::Main, &self.main)];
        let of = |queue: Queue, row: &Row| Saved { id: id(row.n), units: row.units, frequency: row.frequency, queue };
        queues.iter().flat_map(|(queue, rows)| rows.iter().rev().map(|row| of(*queue, row))).collect()
    }
}

/// The names of which the caller says that they were used.
fn every(nth: u64) -> impl Fn(u64) -> bool {
    move |n| nth != 0 && n.is_multiple_of(nth)
}

fn victim(index: &mut Index, nth: u64) -> Option<(ObjectId, u32)> {
    let used: Vec<ObjectId> = (0..NAMES).filter(|n| every(nth)(*n)).map(id).collect();
    index.victim(|id| used.contains(&id))
}

/// Does the same to both, which have to answer the same.
fn apply(op: &Op, index: &mut Index, model: &mut Model) {
    match op {
        Op::Insert(n, units) => assert_eq!(index.insert(id(*n), *units), model.insert(*n, *units)),
        Op::Touch(n, times) => {
            let row = model.row(*n);
            assert_eq!(index.touch(id(*n), *times), row.is_some());
            if let Some(row) = row {
                row.frequency = row.frequency.saturating_add(*times).min(3);
            }
        }
        Op::Resize(n, units) => {
            let walk = model.walk;
            let old = model.row(*n).map(|row| {
                row.walk = walk;
                std::mem::replace(&mut row.units, *units)
            });
            assert_eq!(index.resize(id(*n), *units), old);
        }
        Op::Remove(n) => assert_eq!(index.remove(id(*n)), model.take(*n).map(|(_, row)| row.units)),
        Op::Victim(nth) => assert_eq!(victim(index, *nth), model.victim(every(*nth))),
        Op::Scan(first, count) => {
            for n in *first..(first + count).min(NAMES) {
                assert_eq!(index.insert(id(n), 1), model.insert(n, 1));
            }
        }
        Op::Restore(n, units, frequency, queue) => {
            index.restore(Saved { id: id(*n), units: *units, frequency: *frequency, queue: *queue });
            model.restore(*n, *units, *frequency, *queue);
        }
        Op::BeginWalk => {
            index.begin_walk();
            model.walk += 1;
        }
        Op::Walked(n, units) => assert_eq!(index.walked(id(*n), *units), model.walked(*n, *units)),
        Op::Unwalked(steps) => {
            // A walk that misses some of the files.
            apply(&Op::BeginWalk, index, model);
            let there: Vec<_> = (0..NAMES).filter(|n| n % 16 != 3 && index.get(id(*n)).is_some()).collect();
            there.iter().for_each(|n| apply(&Op::Walked(*n, 2), index, model));
            let mut gone: Vec<_> = std::iter::from_fn(|| index.unwalked(*steps)).flatten().collect();
            gone.sort_unstable();
            assert_eq!(gone, model.unwalked());
        }
        Op::Settle(names) => {
            index.settle(&names.iter().copied().map(id).collect::<Vec<_>>());
            model.settle(names);
        }
    }
    assert_eq!((index.len(), index.units()), (model.len(), model.units()));
}

fn op() -> impl Strategy<Value = Op> {
    let name = || 0..NAMES;
    let units = || prop_oneof![8 => 1..40_u32, 1 => Just(0), 1 => Just(u32::MAX)];
    let queue = prop_oneof![Just(Queue::Probation), Just(Queue::Main), Just(Queue::Found)];
    prop_oneof![
        12 => (name(), units()).prop_map(|(n, units)| Op::Insert(n, units)),
        12 => (name(), prop_oneof![4 => 1..4_u8, 1 => Just(255), 1 => Just(0)]).prop_map(|(n, times)| Op::Touch(n, times)),
        2 => (name(), units()).prop_map(|(n, units)| Op::Resize(n, units)),
        4 => name().prop_map(Op::Remove),
        12 => prop_oneof![3 => Just(0), 1 => Just(1), 4 => 2..9_u64].prop_map(Op::Victim),
        2 => (name(), 0..NAMES).prop_map(|(first, count)| Op::Scan(first, count)),
        3 => (name(), units(), 0..4_u8, queue).prop_map(|(n, units, frequency, queue)| Op::Restore(n, units, frequency, queue)),
        1 => Just(Op::BeginWalk),
        4 => (name(), units()).prop_map(|(n, units)| Op::Walked(n, units)),
        1 => (0..50_usize).prop_map(Op::Unwalked),
        1 => vec(name(), 0..20).prop_map(Op::Settle),
    ]
}

/// Through bytes and back, as a restart does it.
fn restarted(index: &mut Index, page: usize) -> Index {
    let (mut encoder, mut file) = (Encoder::new(1), vec![0; HEADER_LEN]);
    saved(index, page).chunks(page).for_each(|page| encoder.add(page, &mut file));
    let header = encoder.finish(Written::Clean, &mut file);
    let mut decoder = Decoder::new(&header, file.len() as u64).expect("sound");
    assert_eq!((decoder.header().entries, decoder.header().units), (index.len() as u64, index.units()));
    let (mut entries, mut at) = (Vec::new(), HEADER_LEN);
    while decoder.next_len() > 0 {
        let end = at + decoder.next_len();
        decoder.block(&file[at..end], &mut entries).expect("sound");
        at = end;
    }
    let mut restarted = Index::new();
    entries.into_iter().for_each(|saved| restarted.restore(saved));
    restarted
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn the_index_does_what_the_model_does(ops in vec(op(), 1..200), page in 1..40_usize) {
        let (mut index, mut model) = (Index::new(), Model::new());
        for op in &ops {
            apply(op, &mut index, &mut model);
        }
        check(&index);
        for n in 0..NAMES {
            assert_eq!(index.get(id(n)), model.row(n).map(|row| row.units));
        }
        assert_eq!(saved(&mut index, page), model.saved());
        while !index.is_empty() {
            assert_eq!(index.victim(never), model.victim(|_| false));
        }
        check(&index);
    }

    #[test]
    fn a_restart_keeps_the_order_of_eviction(ops in vec(op(), 1..200), page in 1..40_usize, nth in 0..9_u64) {
        let (mut index, mut model) = (Index::new(), Model::new());
        for op in &ops {
            apply(op, &mut index, &mut model);
        }
        let mut restarted = restarted(&mut index, page);
        check(&restarted);
        assert_eq!((restarted.len(), restarted.units()), (index.len(), index.units()));
        // New names, which no ghost remembers, come in between.
        for n in NAMES.. {
            let (was, is) = (victim(&mut index, nth), victim(&mut restarted, nth));
            assert_eq!(was, is);
            if was.is_none() {
                break;
            }
            if n % 2 == 0 {
                index.insert(id(n), 3);
                restarted.insert(id(n), 3);
            }
        }
    }

    #[test]
    fn a_restart_under_traffic_loses_nothing(ops in vec(op(), 1..100), fresh in vec((0..NAMES, 1..9_u32), 0..60)) {
        let (mut index, mut model) = (Index::new(), Model::new());
        for op in &ops {
            apply(op, &mut index, &mut model);
        }
        let before = saved(&mut index, 7);
        let mut after = Index::new();
        let mut inserted = HashMap::new();
        let mut fresh = fresh.into_iter();
        for saved in &before {
            if let Some((n, units)) = fresh.next() {
                after.insert(id(n), units);
                inserted.insert(id(n), units);
            }
            after.restore(*saved);
        }
        check(&after);
        for Saved { id, units, .. } in &before {
            assert_eq!(after.get(*id), Some(*inserted.get(id).unwrap_or(units)));
        }
        let names: HashSet<_> = before.iter().map(|saved| saved.id).chain(inserted.keys().copied()).collect();
        assert_eq!(after.len(), names.len());
    }
}
