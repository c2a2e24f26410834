use std::sync::Arc;

use proptest::prelude::*;

use super::writing::{place, writer};
use crate::http_cache::Timestamp;
use crate::invalidate::journal::format::{self, Base, HEADER_LEN, Header, RECORDS_AT, Record, SLOTS_AT};
use crate::invalidate::journal::testing::{Memory, Told, anew, entry, going_on};
use crate::invalidate::journal::{Medium, Unreadable};
use crate::invalidate::{By, Entry, Selector};

fn any_text() -> impl Strategy<Value = Box<str>> {
    prop_oneof!["[ -~]{0,12}", "\\PC{0,300}"].prop_map(String::into_boxed_str)
}

fn any_selector() -> impl Strategy<Value = Selector> {
    prop_oneof![
        Just(Selector::Everything),
        any_text().prop_map(Selector::Site),
        any_text().prop_map(Selector::Host),
        (any_text(), any_text(), any::<bool>()).prop_map(|(host, path, raw)| Selector::Prefix { host, path, raw }),
        (any_text(), any_text(), proptest::option::of(any_text())).prop_map(|(host, path, query)| Selector::Url {
            host,
            path,
            query
        }),
        any_text().prop_map(Selector::Tag),
        (any_text(), any_text()).prop_map(|(host, name)| Selector::Group { host, name }),
    ]
}

/// Of rising sequences.
fn any_entries() -> impl Strategy<Value = Vec<Entry>> {
    let by = proptest::sample::select(&By::ALL[..]);
    let one = (1..u64::from(u32::MAX), any::<i64>(), any::<bool>(), by, prop::collection::vec(any_selector(), 1..8));
    prop::collection::vec(one, 0..12).prop_map(|all| {
        let mut last = 0;
        let rising = all.into_iter().map(|(more, at, soft, by, selectors)| {
            last += more;
            Entry { sequence: last, at: Timestamp::from_millis(at), soft, by, selectors: selectors.into() }
        });
        rising.collect()
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read(entries in any_entries(), group in 1_usize..5) {
        let memory = Memory::new();
        let mut writer = writer(&memory, anew());
        let told = Told::default();
        for group in entries.chunks(group) {
            place(&mut writer, group.iter().cloned(), &told);
        }
        let (summary, read) = memory.read().unwrap();
        prop_assert_eq!(summary.head, entries.last().map_or(0, |entry| entry.sequence));
        prop_assert_eq!((summary.length, summary.torn), (memory.bytes().len() as u64, 0));
        prop_assert_eq!(told.durable().len(), entries.len());
        for entry in &entries {
            let mut bytes = Vec::new();
            let record = Record::Entry { entry: Arc::new(entry.clone()), late: false };
            prop_assert!(record.encode(0, &mut bytes));
            prop_assert!(bytes.len() <= format::weight(entry));
        }
        prop_assert_eq!(read, entries);
    }

    #[test]
    fn no_bytes_make_it_panic_or_an_entry_that_was_not_written(
        tail in prop::collection::vec(any::<u8>(), 0..200),
        at in 0..RECORDS_AT as usize,
    ) {
        let memory = Memory::new();
        drop(writer(&memory, anew()));
        let mut bytes = memory.bytes();
        bytes.extend_from_slice(&tail);
        memory.set_bytes(&bytes);
        prop_assert_eq!(memory.read().unwrap().1, vec![]);
        let front = at..(at + tail.len()).min(bytes.len());
        let length = front.len();
        bytes[front].copy_from_slice(&tail[..length]);
        memory.set_bytes(&bytes);
        if let Ok((_, entries)) = memory.read() {
            prop_assert_eq!(entries, vec![]);
        }
    }
}

/// Two groups, the last of which is not known to be durable, and where it begins.
fn with_a_tail() -> (Vec<u8>, usize) {
    let memory = Memory::new();
    let mut writer = writer(&memory, anew());
    place(&mut writer, [entry(1), entry(2)], &Told::default());
    let committed = memory.bytes().len();
    writer.place([entry(3), entry(4)].map(|entry| super::writing::pending(entry, &Told::default())));
    (memory.bytes(), committed)
}

#[test]
fn a_tail_that_is_torn_anywhere_is_known_as_such_and_the_rest_is_kept() {
    let (bytes, committed) = with_a_tail();
    let record = (bytes.len() - committed) / 2;
    let memory = Memory::new();
    for end in committed..=bytes.len() {
        memory.set_bytes(&bytes[..end]);
        let whole = (end - committed) / record;
        let (summary, entries) = memory.read().unwrap();
        assert_eq!(entries, [1, 2, 3, 4].map(entry)[..2 + whole]);
        let torn = (end - committed) % record;
        assert_eq!((summary.length, summary.torn), ((end - torn) as u64, torn as u64));
        assert_eq!(summary.head, 2 + whole as u64);
        // Whoever goes on cuts it off, and what is written then is read.
        let mut writer = writer(&memory, going_on(&memory));
        assert_eq!(memory.bytes().len(), end - torn);
        place(&mut writer, [entry(9)], &Told::default());
        assert_eq!(memory.sequences().last(), Some(&9));
    }
    for at in committed..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        memory.set_bytes(&damaged);
        let (summary, entries) = memory.read().unwrap();
        assert_eq!(entries, [1, 2, 3, 4].map(entry)[..2 + (at - committed) / record], "{at}");
        assert!(summary.torn > 0);
    }
}

#[test]
fn a_wrong_byte_within_what_was_durable_never_goes_unnoticed() {
    let memory = Memory::new();
    let mut writer = writer(&memory, anew());
    for sequence in 1..4 {
        place(&mut writer, [entry(sequence)], &Told::default());
    }
    let (bytes, sound) = (memory.bytes(), memory.read().unwrap());
    for at in (0..10_000).chain(RECORDS_AT as usize - 10..bytes.len()) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        memory.set_bytes(&damaged);
        match memory.read() {
            Err(Unreadable::Corrupt(_)) => {}
            Ok((summary, entries)) => {
                assert!((HEADER_LEN..RECORDS_AT as usize).contains(&at), "{at}");
                assert_eq!((summary.head, summary.length, &entries), (3, sound.0.length, &sound.1));
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    for end in 0..bytes.len() {
        memory.set_bytes(&bytes[..end]);
        assert!(matches!(memory.read(), Err(Unreadable::Corrupt(_))), "{end}");
    }
}

#[test]
fn one_commit_slot_is_enough_and_none_is_not() {
    let memory = Memory::new();
    let mut writer = writer(&memory, anew());
    place(&mut writer, [entry(1)], &Told::default());
    let bytes = memory.bytes();
    let damaged = |slots: &[u64]| {
        let mut damaged = bytes.clone();
        slots.iter().for_each(|at| damaged[*at as usize] ^= 1);
        memory.set_bytes(&damaged);
        memory.read().map(|(_, entries)| entries.len())
    };
    assert_eq!(damaged(&SLOTS_AT[..1]).unwrap(), 1);
    assert_eq!(damaged(&SLOTS_AT[1..]).unwrap(), 1);
    assert!(matches!(damaged(&SLOTS_AT), Err(Unreadable::Corrupt(_))));
}

/// A file of these records, all of them durable.
fn made_of(header: [u8; HEADER_LEN], seed: u32, records: &[Record]) -> Memory {
    let mut bytes = vec![0; RECORDS_AT as usize];
    bytes[..HEADER_LEN].copy_from_slice(&header);
    records.iter().for_each(|record| assert!(record.encode(seed, &mut bytes)));
    let slot = format::slot(bytes.len() as u64, seed);
    bytes[4096..4096 + slot.len()].copy_from_slice(&slot);
    let memory = Memory::new();
    memory.set_bytes(&bytes);
    memory
}

#[test]
fn what_no_journal_writes_is_corrupt() {
    let header = Header { id: 1, salt: 2 };
    let of = |records: &[Record]| made_of(header.encode(), header.seed(), records).read();
    let base = Record::Base(Base { compacted: 1, reserved: 2, swept: 3 });
    let at = |sequence, late| Record::Entry { entry: Arc::new(entry(sequence)), late };
    let (summary, entries) = of(&[
        base.clone(),
        at(5, false),
        Record::Swept(4),
        Record::Reserve(9),
        Record::Reserve(8),
        at(4, true),
        at(5, true),
        at(6, false),
    ])
    .unwrap();
    assert_eq!((summary.id, summary.head, summary.compacted), (1, 6, 1));
    assert_eq!((summary.reserved, summary.swept, entries.len()), (9, 4, 4));
    for wrong in [
        &[][..],
        &[at(1, false)],
        &[base.clone(), base.clone()],
        &[base.clone(), at(0, false)],
        &[base.clone(), at(0, true)],
        &[base.clone(), at(5, false), at(5, false)],
        &[base.clone(), at(5, false), at(4, false)],
        &[base.clone(), at(5, false), at(6, true)],
    ] {
        assert!(matches!(of(wrong), Err(Unreadable::Corrupt(_))), "{wrong:?}");
    }
    let mut other = header.encode();
    other[8] = 2;
    let sum = crc32fast::hash(&other[..32]).to_le_bytes();
    other[32..].copy_from_slice(&sum);
    let Err(Unreadable::Corrupt(why)) = made_of(other, crc32fast::hash(&other[..32]), &[base]).read() else { panic!() };
    assert!(why.contains("version 2"), "{why}");
    assert!(matches!(Memory::new().read(), Err(Unreadable::Missing)));
}

#[test]
fn a_length_that_nobody_wrote_takes_no_memory() {
    let (mut bytes, committed) = with_a_tail();
    let memory = Memory::new();
    for length in [0, u32::MAX, format::MAX_RECORD as u32, 1 << 20] {
        bytes[committed..committed + 4].copy_from_slice(&length.to_le_bytes());
        memory.set_bytes(&bytes);
        memory.plan(|_, _| None);
        assert_eq!(memory.sequences(), [1, 2]);
        assert!(memory.open().is_ok());
    }
}
