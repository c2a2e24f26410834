use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use pingora::http::ResponseHeader;
use proptest::collection::vec;
use proptest::prelude::*;

use super::table::Table;
use super::*;
use crate::http_cache::{Facts, Tags, Tiers, Timestamp};
use crate::store::{Body, Object, Record, meta_of};

const ID: ObjectId = ObjectId([7; 16]);

const LEDGER: u64 = 0x1234_5678_9abc_def0;

/// How many of a file's first bytes a reader takes at first; small, so that it has to come again.
const FEW: usize = 100;

/// A head as a fill makes it.
fn head(
    status: u16,
    fields: &[(String, Vec<u8>)],
    record: Record,
    variance: Option<[u8; 16]>,
    provenance: SystemTime,
) -> Head {
    let mut response = ResponseHeader::build(status, None).unwrap();
    for (name, value) in fields {
        response.append_header(name.clone(), HeaderValue::from_bytes(value).unwrap()).unwrap();
    }
    let mut meta = meta_of(&record.facts, provenance, response);
    if let Some(variance) = variance {
        meta.set_variance(variance);
    }
    meta.extensions_mut().insert(record);
    Head::of(&meta).unwrap()
}

fn record(key: &'static str) -> Record {
    let facts = Facts {
        received: Timestamp::from_millis(1_700_000_000_123),
        fresh_until: Timestamp::from_millis(1_700_000_060_123),
        last_modified: Some(Timestamp::from_secs(1_600_000_000)),
        immutable: true,
        ..Facts::default()
    };
    let asked = Timestamp::from_millis(1_700_000_000_100);
    Record {
        facts,
        key: Bytes::from_static(key.as_bytes()),
        id: 3,
        began: 5,
        asked,
        tags: Tags::default(),
        tiers: Tiers::default(),
    }
}

fn tags(tags: &str, group: &str) -> Tags {
    let mut fields = HeaderMap::new();
    fields.insert("surrogate-key", tags.parse().unwrap());
    fields.insert("cache-groups", format!("\"{group}\"").parse().unwrap());
    Tags::read(&fields, &[HeaderName::from_static("surrogate-key")]).unwrap()
}

/// An ordinary one.
fn ordinary(tag: &str) -> Head {
    let field = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
    let fields = [
        field("content-type", "text/html; charset=utf-8"),
        field("cache-control", "public, max-age=60, stale-while-revalidate=30"),
        field("etag", tag),
        field("date", "Tue, 14 Nov 2023 22:13:20 GMT"),
        field("last-modified", "Sun, 13 Sep 2020 12:26:40 GMT"),
        field("vary", "Accept-Encoding"),
        field("x-served-by", "app-17"),
        field("link", "</a.css>; rel=preload"),
        field("link", "</b.js>; rel=preload"),
    ];
    let mut record = record("https://www.example.com/news/2023/index.html");
    record.tags = tags("news front", "g1");
    head(200, &fields, record, Some([4; 16]), UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789))
}

/// A whole file.
fn file(head: &Head, body: &[u8]) -> (Vec<u8>, State) {
    let mut table = TableBuilder::default();
    table.update(body);
    let table = table.finish();
    let layout = Layout::for_head(ID, head, LEDGER).unwrap();
    let (mut file, state) = encode(layout, head, body.len() as u64, table.crc()).unwrap();
    assert_eq!(file.len() as u64, layout.body_offset());
    file.extend_from_slice(body);
    assert_eq!(file.len() as u64, layout.table_offset(body.len() as u64));
    file.extend(table.encode());
    assert_eq!(file.len() as u64, layout.file_len(body.len() as u64));
    (file, state)
}

/// The head, as a reader gets to it that reads as little as it can.
fn read_head(file: &[u8]) -> Result<Decoded, Defect> {
    let mut len = file.len().min(FEW);
    loop {
        match decode(ID, &file[..len], file.len() as u64) {
            Ok(decoded) => {
                let all_at_once = decode(ID, file, file.len() as u64).unwrap();
                assert_same(&decoded.head, &all_at_once.head);
                return Ok(decoded);
            }
            Err(Undecoded::More(more)) => {
                assert!(more > len && more <= file.len(), "{more} after {len} of {}", file.len());
                len = more;
            }
            Err(Undecoded::Defect(defect)) => return Err(defect),
        }
    }
}

/// The head and the body.
fn read(file: &[u8]) -> Result<(Head, Vec<u8>), Defect> {
    let Decoded { head, state } = read_head(file)?;
    let (body, table) = file.split_at(state.layout.table_offset(state.body_len) as usize);
    let body = &body[state.layout.body_offset() as usize..];
    let table = Table::decode(&state, table)?;
    let mut blocks = body.chunks(BLOCK as usize).enumerate();
    if blocks.all(|(index, block)| table.check(index, block)) {
        Ok((head, body.to_vec()))
    } else {
        Err(Defect::Checksum)
    }
}

fn fields_of(head: &Head) -> Vec<(&str, &[u8])> {
    head.response.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect()
}

/// The same in all that is stored.
fn assert_same(one: &Head, other: &Head) {
    assert_eq!(one.response.status, other.response.status);
    assert_eq!(one.response.version, other.response.version);
    assert_eq!(fields_of(one), fields_of(other));
    assert_eq!((one.variance, one.provenance), (other.variance, other.provenance));
    let of = |Record { facts, key, id, began, asked, tags, tiers: _ }: &Record| {
        (*facts, key.clone(), *id, *began, *asked, tags.clone())
    };
    assert_eq!(of(&one.record), of(&other.record));
}

/// Which of two heads it is.
fn is_which(head: &Head, old: &Head, new: &Head) -> &'static str {
    match fields_of(head) {
        fields if fields == fields_of(old) => "old",
        fields if fields == fields_of(new) => "new",
        _ => "neither",
    }
}

fn apply(file: &mut [u8], write: &Write, len: usize) {
    let offset = write.offset as usize;
    file[offset..offset + len].copy_from_slice(&write.bytes[..len]);
}

/// Makes the checksums right again, as far as the file is long enough for them.
fn reseal(file: &mut [u8]) {
    if file.len() < SLOTS {
        return;
    }
    let number = |file: &[u8], at: usize| u32::from_le_bytes(*file[at..].first_chunk().unwrap());
    let capacity = number(file, 12) as usize;
    let start = SLOTS + if file[RECORD].is_multiple_of(2) { 0 } else { capacity };
    if let Some(slot) = start.checked_add(capacity).and_then(|end| file.get(start..end)) {
        let crc = crc32fast::hash(slot);
        file[RECORD + 24..RECORD + 28].copy_from_slice(&crc.to_le_bytes());
    }
    for at in [0, RECORD] {
        let crc = crc32fast::hash(&file[at..at + 60]);
        file[at + 60..at + 64].copy_from_slice(&crc.to_le_bytes());
    }
}

fn heads() -> impl Strategy<Value = Head> {
    let name = prop_oneof![
        Just("content-type".to_owned()),
        Just("link".to_owned()),
        Just("etag".to_owned()),
        "x[a-z0-9!#$%&'*+.^_`|~-]{0,80}"
    ];
    let byte = prop_oneof![Just(b'\t'), 0x20..=0x7e_u8, 0x80..=0xff_u8];
    let value = prop_oneof![8 => vec(byte.clone(), 0..40), 1 => vec(byte, 3000..9000)];
    let facts = (any::<[i64; 3]>(), any::<[u32; 3]>(), any::<[bool; 4]>()).prop_map(|(times, lengths, flags)| Facts {
        received: Timestamp::from_millis(times[0]),
        initial_age_ms: lengths[0].into(),
        fresh_until: Timestamp::from_millis(times[1]),
        stale_while_revalidate_ms: lengths[1].into(),
        stale_if_error_ms: lengths[2].into(),
        last_modified: flags[3].then(|| Timestamp::from_millis(times[2])),
        must_revalidate: flags[0],
        no_cache: flags[1],
        immutable: flags[2],
    });
    let tags = proptest::option::of(("[a-z ]{0,20}", "[a-z]{0,5}").prop_map(|(some, group)| tags(&some, &group)));
    let record = (facts, vec(any::<u8>(), 0..300), any::<(u64, u64, i64)>(), tags).prop_map(
        |(facts, key, (id, began, asked), tags)| Record {
            facts,
            key: key.into(),
            id,
            began,
            asked: Timestamp::from_millis(asked),
            tags: tags.unwrap_or_default(),
            tiers: Tiers::default(),
        },
    );
    let seconds = prop_oneof![any::<i64>(), -3..3_i64, 1_600_000_000..2_000_000_000_i64];
    let provenance = (seconds, 0..NANOS).prop_filter_map("outside of what a clock can say", |(seconds, nanos)| {
        let distance = Duration::from_secs(seconds.unsigned_abs());
        let second = if seconds < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
        second?.checked_add(Duration::new(0, nanos))
    });
    let variance = proptest::option::of(any::<[u8; 16]>());
    (100..1000_u16, vec((name, value), 0..20), record, variance, provenance)
        .prop_map(|(status, fields, record, variance, provenance)| head(status, &fields, record, variance, provenance))
}

const NANOS: u32 = 1_000_000_000;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_head_comes_back_as_it_was(head in heads(), body in vec(any::<u8>(), 0..100)) {
        let (bytes, state) = file(&head, &body);
        let Decoded { head: back, state: said } = read_head(&bytes).unwrap();
        assert_same(&back, &head);
        prop_assert_eq!(said, state);
        prop_assert_eq!(read(&bytes).unwrap().1, body);
        // And is written as it was.
        let (again, _) = encode(state.layout, &back, state.body_len, state.table_crc).unwrap();
        prop_assert_eq!(&again[..], &bytes[..again.len()]);
        let weight = |head: Head| Object::new(head.into(), Body::Memory(Bytes::new())).weight();
        prop_assert_eq!(weight(back), weight(head));
    }

    #[test]
    fn the_values_share_one_allocation_of_their_own(head in heads()) {
        let (bytes, _) = file(&head, b"");
        let head = read_head(&bytes).unwrap().head;
        let mut values = head.response.headers.values().filter(|value| !value.is_empty()).map(HeaderValue::as_bytes);
        let Some(first) = values.next() else { return Ok(()) };
        let mut end = first.as_ptr_range().end;
        for value in values {
            prop_assert_eq!(value.as_ptr(), end);
            end = value.as_ptr_range().end;
        }
    }

    #[test]
    fn any_pieces_make_the_same_table(len in 0..300_000_usize, pieces in vec(1..100_000_usize, 1..20)) {
        let body: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
        let mut builder = TableBuilder::default();
        let (mut rest, mut pieces) = (&body[..], pieces.iter().cycle());
        while !rest.is_empty() {
            let (piece, left) = rest.split_at(rest.len().min(*pieces.next().unwrap()));
            builder.update(piece);
            rest = left;
            let done = body.len() - rest.len();
            prop_assert_eq!(builder.body_len(), done as u64);
            prop_assert_eq!(builder.entries().len(), done / BLOCK as usize);
        }
        let whole: Vec<u32> = body.chunks(BLOCK as usize).map(crc32fast::hash).collect();
        let table = builder.finish();
        prop_assert_eq!(table.entries(), &whole[..]);
        prop_assert_eq!(table.crc(), crc32fast::hash(&table.encode()));
        let mut state = file(&ordinary("a"), b"").1;
        (state.body_len, state.table_crc) = (len as u64, table.crc());
        prop_assert_eq!(Table::decode(&state, &table.encode()).unwrap(), table);
    }

    #[test]
    fn garbage_is_a_defect(mut bytes in vec(any::<u8>(), 0..2000), magic in any::<bool>(), sealed in any::<bool>(), more in any::<u64>()) {
        if magic && bytes.len() > 12 {
            bytes[..8].copy_from_slice(&MAGIC);
            bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        }
        if sealed {
            reseal(&mut bytes);
        }
        prop_assert!(read(&bytes).is_err());
        let _ = decode(ID, &bytes, more);
    }

    #[test]
    fn nothing_with_right_checksums_is_too_much(
        head in heads(),
        changes in vec((0..1_usize << 16, any::<u8>()), 1..6),
        lie in prop_oneof![Just(0_u32), Just(u32::MAX), any::<u32>()],
        at in prop_oneof![12..16_usize, 64..92_usize, 128..136_usize, 128..500_usize],
    ) {
        let (mut bytes, state) = file(&head, b"body");
        let end = state.layout.body_offset() as usize;
        for (at, byte) in changes {
            bytes[at % end] = byte;
        }
        let at = at.min(end - 4);
        bytes[at..at + 4].copy_from_slice(&lie.to_le_bytes());
        reseal(&mut bytes);
        let _ = read(&bytes);
        // Whatever the body's length is said to be.
        let len = u64::from_le_bytes(*bytes[72..].first_chunk().unwrap());
        let _ = decode(ID, &bytes, state.layout.file_len(len).max(bytes.len() as u64));
    }
}

#[test]
fn every_byte_counts() {
    let (old, new) = (ordinary("\"one\""), ordinary("\"two\""));
    let body: Vec<u8> = (0..300_u32).map(|i| i as u8).collect();
    let (first, state) = file(&old, &body);
    let mut second = first.clone();
    for write in update(&state, &new).unwrap().writes {
        apply(&mut second, &write, write.bytes.len());
    }
    let capacity = state.layout.capacity() as usize;
    let (slot_a, slot_b) = (SLOTS..SLOTS + capacity, SLOTS + capacity..SLOTS + 2 * capacity);
    for (file, head, unused) in [(first, old, slot_b), (second, new, slot_a)] {
        for at in 0..file.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut file = file.clone();
                file[at] ^= flip;
                match read(&file) {
                    Ok((read, content)) => {
                        assert!(unused.contains(&at), "byte {at}");
                        assert_same(&read, &head);
                        assert_eq!(content, body);
                    }
                    Err(defect) => {
                        assert!(!unused.contains(&at), "byte {at}: {defect}");
                        let expected = match at {
                            0..8 => Defect::Magic,
                            8..12 => Defect::Version,
                            _ => Defect::Checksum,
                        };
                        assert_eq!(defect, expected, "byte {at}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_file_of_another_length_is_a_defect() {
    let body = vec![1; BLOCK as usize + 1];
    let (mut file, _) = file(&ordinary("a"), &body);
    let body_at = file.len() - body.len() - 8;
    for len in (0..body_at + 9).chain(file.len() - 9..file.len()) {
        assert_eq!(read(&file[..len]).unwrap_err(), Defect::Length, "{len}");
    }
    file.push(0);
    assert_eq!(read(&file).unwrap_err(), Defect::Length);
}

#[test]
fn another_version_is_told_from_garbage() {
    let (mut file, _) = file(&ordinary("a"), b"body");
    file[8..12].copy_from_slice(&(VERSION + 1).to_le_bytes());
    file[12..].fill(0xaa);
    assert_eq!(read(&file).unwrap_err(), Defect::Version);
    assert_eq!(read(&file[..12]).unwrap_err(), Defect::Version);
    file[0] = b'f';
    assert_eq!(read(&file).unwrap_err(), Defect::Magic);
    assert_eq!(read(b"").unwrap_err(), Defect::Length);
}

#[test]
fn what_belongs_to_another_object_is_a_defect() {
    let head = ordinary("a");
    let (mut bytes, state) = file(&head, b"body");
    let other = ObjectId([8; 16]);
    assert_eq!(decode(other, &bytes, bytes.len() as u64).unwrap_err(), Undecoded::Defect(Defect::WrongKey));
    // The same with the descriptor and the slots alone.
    let layout = Layout { id: other, ..state.layout };
    let (others, _) = encode(layout, &head, state.body_len, state.table_crc).unwrap();
    bytes[RECORD..others.len()].copy_from_slice(&others[RECORD..]);
    assert_eq!(read(&bytes).unwrap_err(), Defect::WrongKey);
}

#[test]
fn right_checksums_do_not_make_sense_of_nonsense() {
    let (file, _) = file(&ordinary("a"), b"body");
    let key_len = u32::from_le_bytes(*file[SLOTS + 4..].first_chunk().unwrap()) as usize;
    let tags_len = u32::from_le_bytes(*file[SLOTS + 8..].first_chunk().unwrap()) as usize;
    let tags = SLOTS + 116 + key_len;
    let lengths = tags + tags_len;
    let name = lengths + 9 * 6;
    for (what, at, bytes) in [
        ("no capacity", 12, &[0; 4][..]),
        ("an odd capacity", 12, &[1, 3, 0, 0]),
        ("a capacity beyond the limit", 12, &[64, 0, 64, 0]),
        ("another size of block", 32, &[12]),
        ("something reserved in the preamble", 41, &[1]),
        ("something reserved in the descriptor", 64 + 44, &[1]),
        ("a payload beyond its slot", 64 + 20, &[255; 4]),
        ("an empty payload", 64 + 20, &[0; 4]),
        ("a payload cut short", 64 + 20, &[200, 1, 0, 0]),
        ("more fields than bytes", SLOTS, &[255; 4]),
        ("a field less", SLOTS, &[8]),
        ("a key longer than the payload", SLOTS + 4, &[255; 4]),
        ("tags longer than the payload", SLOTS + 8, &[255; 4]),
        ("tags a byte longer", SLOTS + 8, &[tags_len as u8 + 1, 0, 0, 0]),
        ("nanoseconds beyond a second", SLOTS + 44, &NANOS.to_le_bytes()),
        ("no status", SLOTS + 48, &[99, 0]),
        ("an unknown flag", SLOTS + 66, &[0b11]),
        ("a variance without its flag", SLOTS + 66, &[0]),
        ("an unknown flag of the facts", SLOTS + 67, &[0x10]),
        ("groups that begin elsewhere", tags, &[255; 4]),
        ("a name without end", lengths, &[255; 2]),
        ("a value without end", lengths + 2, &[255; 4]),
        ("a name in capitals", name, b"C"),
    ] {
        let mut file = file.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        reseal(&mut file);
        assert_eq!(read_head(&file).unwrap_err(), Defect::Malformed, "{what}");
    }
}

#[test]
fn an_update_is_whole_or_not_at_all() {
    let body = b"body";
    let mut head = ordinary("\"0\"");
    let (mut file, mut state) = file(&head, body);
    for version in 1..=5 {
        let next = ordinary(&format!("\"{version}\""));
        let Update { writes, state: after } = update(&state, &next).unwrap();
        let [payload, descriptor] = &writes;
        assert_eq!((descriptor.offset, descriptor.bytes.len()), (64, 64));
        for torn in 0..=payload.bytes.len() {
            let mut file = file.clone();
            apply(&mut file, payload, torn);
            let (read, content) = read(&file).unwrap();
            assert_eq!((is_which(&read, &head, &next), &content[..]), ("old", &body[..]));
        }
        apply(&mut file, payload, payload.bytes.len());
        // No kernel tears a write this small; a disk that does leaves a defect, and no other head than the two.
        for torn in 0..descriptor.bytes.len() {
            let mut file = file.clone();
            apply(&mut file, descriptor, torn);
            assert!(read(&file).map_or(true, |(read, _)| is_which(&read, &head, &next) == "old"));
        }
        apply(&mut file, descriptor, descriptor.bytes.len());
        let Decoded { head: read_back, state: said } = read_head(&file).unwrap();
        assert_same(&read_back, &next);
        assert_eq!((said, said.sequence), (after, version));
        assert_eq!(read(&file).unwrap().1, body);
        // A defect of the new one does not bring the old one back.
        let mut broken = file.clone();
        broken[payload.offset as usize] ^= 1;
        assert_eq!(read(&broken).unwrap_err(), Defect::Checksum);
        (head, state) = (next, after);
    }
}

#[test]
fn a_head_that_does_not_fit_is_not_written() {
    let head = ordinary("a");
    let (_, state) = file(&head, b"");
    let longer = |by: usize| ordinary(&"a".repeat(1 + by));
    assert!(update(&state, &longer(SLACK)).is_some());
    assert!(update(&state, &longer(SLACK + RECORD)).is_none());
    assert!(encode(state.layout, &longer(SLACK + RECORD), 0, 0).is_none());
    assert!(update(&State { sequence: u64::MAX, ..state }, &head).is_none());

    // The largest that fits, and one byte more.
    let room = MAX_CAPACITY - payload::length(&head);
    let layout = Layout::for_head(ID, &longer(room), LEDGER).unwrap();
    assert_eq!(layout.capacity() as usize, MAX_CAPACITY);
    let (largest, _) = file(&longer(room), b"body");
    assert_same(&read_head(&largest).unwrap().head, &longer(room));
    assert_eq!(Layout::for_head(ID, &longer(room + 1), LEDGER), None);
}

#[test]
fn a_length_that_was_not_known_fits() {
    let head = ordinary("a");
    let layout = Layout::for_head(ID, &head, LEDGER).unwrap();
    assert!(encode(layout, &head.with_length(u64::MAX), 0, 0).is_some());
}

#[test]
fn a_small_object_is_read_at_once() {
    let (file, _) = file(&ordinary("\"5f3e-64a1\""), &[1; 1024]);
    assert!(file.len() <= FIRST_READ, "{}", file.len());
}

#[test]
fn lengths_beyond_every_disk_are_no_trouble() {
    let (file, state) = file(&ordinary("a"), b"");
    for body_len in [u64::MAX, u64::MAX / 2, 1 << 62] {
        let mut bytes = file.clone();
        bytes[72..80].copy_from_slice(&body_len.to_le_bytes());
        reseal(&mut bytes);
        assert_eq!(read_head(&bytes).unwrap_err(), Defect::Length);
        let said = decode(ID, &bytes, state.layout.file_len(body_len)).unwrap().state;
        assert_eq!(Table::decode(&said, &[]), Err(Defect::Length));
    }
}

/// What is on disks stays readable: another form is another [`VERSION`].
#[test]
fn the_form_is_that_of_this_version() {
    let (mut bytes, state) = file(&ordinary("\"golden\""), b"body");
    for write in update(&state, &ordinary("\"goldener\"")).unwrap().writes {
        apply(&mut bytes, &write, write.bytes.len());
    }
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let preamble = concat!(
        "464f52454c414e4402000000c002000007070707070707070707070707070707",
        "10f0debc9a78563412000000000000000000000000000000000000002e3252e7"
    );
    // The slot counts with its checksum.
    let descriptor = concat!(
        "01000000000000000400000000000000518bb5edf4010000a3b9cc5f07070707",
        "070707070707070707070707000000000000000000000000000000006f80206c"
    );
    assert_eq!(hex(&bytes[..64]), preamble);
    assert_eq!(hex(&bytes[64..128]), descriptor);
    assert_eq!(hex(&bytes[state.layout.body_offset() as usize..]), "626f6479b20ba8db");
}

#[test]
fn the_words_are_distinct() {
    let mut words: Vec<_> = Defect::ALL.iter().map(|defect| defect.as_str()).collect();
    words.sort_unstable();
    words.dedup();
    assert_eq!(words.len(), Defect::ALL.len());
}
