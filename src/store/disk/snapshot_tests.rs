use proptest::prelude::*;

use super::*;

fn entries(count: u32) -> Vec<Saved> {
    let entry = |n: u32| Saved {
        id: ObjectId(std::array::from_fn(|i| (n.wrapping_mul(0x9e37_79b9) >> (i % 4 * 8)) as u8 ^ i as u8)),
        units: n % 1000 + 1,
        frequency: (n % 4) as u8,
        queue: [Queue::Probation, Queue::Main, Queue::Found][n as usize % 3],
    };
    (0..count).map(entry).collect()
}

fn encode(entries: &[Saved], page: usize, created: u64, clean: bool) -> Vec<u8> {
    let mut encoder = Encoder::new(created);
    let mut file = vec![0; HEADER_LEN];
    for page in entries.chunks(page.max(1)) {
        encoder.add(page, &mut file);
    }
    assert_eq!(encoder.entries(), entries.len() as u64);
    let header = encoder.finish(if clean { Written::Clean } else { Written::Running }, &mut file);
    file[..HEADER_LEN].copy_from_slice(&header);
    file
}

/// What a caller does with a file.
fn decode(file: &[u8]) -> Result<(Header, Vec<Saved>), Defect> {
    let mut decoder = Decoder::new(file, file.len() as u64)?;
    let (mut entries, mut at) = (Vec::new(), HEADER_LEN);
    while decoder.next_len() > 0 {
        let end = at + decoder.next_len();
        decoder.block(&file[at..end], &mut entries)?;
        at = end;
    }
    assert_eq!(at, file.len());
    Ok((*decoder.header(), entries))
}

/// A file with a changed record, block or header whose checksums are right nevertheless.
fn forged(mut file: Vec<u8>, at: usize, byte: u8) -> Vec<u8> {
    file[at] = byte;
    if at < HEADER_LEN {
        let sum = crc32fast::hash(&file[..60]);
        file[60..64].copy_from_slice(&sum.to_le_bytes());
    } else {
        let block = (at - HEADER_LEN) / BLOCK_LEN * BLOCK_LEN + HEADER_LEN;
        let end = (block + BLOCK_LEN).min(file.len());
        let sum = crc32fast::hash(&file[block + 4..end]);
        file[block..block + 4].copy_from_slice(&sum.to_le_bytes());
    }
    file
}

#[test]
fn what_is_written_is_read() {
    const FULL: u32 = BLOCK_RECORDS as u32;
    for count in [0, 1, 2, FULL - 1, FULL, FULL + 1, 2 * FULL, 2 * FULL + 7] {
        for page in [1, 1000, usize::MAX] {
            let entries = entries(count);
            let units = entries.iter().map(|entry| u64::from(entry.units)).sum();
            let file = encode(&entries, page, 77, count % 2 == 0);
            let written = if count % 2 == 0 { Written::Clean } else { Written::Running };
            let header = Header { written, created: 77, entries: count.into(), units };
            assert_eq!(decode(&file), Ok((header, entries)), "{count} by {page}");
        }
    }
}

#[test]
fn the_bytes_are_as_documented() {
    let entry = Saved { id: ObjectId(*b"0123456789abcdef"), units: 0x0102_0304, frequency: 3, queue: Queue::Main };
    let file = encode(&[entry], 1, 0x1122_3344_5566_7788, true);
    let mut header = Vec::from(
        *b"FORESNAP\x01\0\0\0\x01\0\0\0\x88\x77\x66\x55\x44\x33\x22\x11\x01\0\0\0\0\0\0\0\x04\x03\x02\x01\0\0\0\0",
    );
    header.resize(60, 0);
    assert_eq!(file[..60], header);
    assert_eq!(file[60..64], crc32fast::hash(&header).to_le_bytes());
    let block = b"\0\0\0\0\x88\x77\x66\x55\x44\x33\x22\x110123456789abcdef\x04\x03\x02\x01\x01\x03\0\0";
    assert_eq!(file[64..68], crc32fast::hash(block).to_le_bytes());
    assert_eq!(file[68..], block[..]);
}

#[test]
fn when_it_was_written_is_in_the_flags() {
    for (written, flags) in [(Written::Running, 0), (Written::Clean, 1), (Written::HandedOver, 2)] {
        let header = Encoder::new(5).finish(written, &mut Vec::new());
        assert_eq!(header[12..16], [flags, 0, 0, 0]);
        assert_eq!(decode(&header).map(|(header, _)| header.written), Ok(written));
    }
}

#[test]
fn a_flipped_bit_anywhere_is_a_defect() {
    let file = encode(&entries(20), 20, 5, true);
    for bit in 0..file.len() * 8 {
        let mut flipped = file.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let expected = match bit / 8 {
            0..8 => Defect::Magic,
            8..HEADER_LEN => Defect::Header,
            _ => Defect::Checksum,
        };
        assert_eq!(decode(&flipped), Err(expected), "bit {bit}");
    }
}

#[test]
fn a_flipped_byte_in_any_block_is_a_defect_and_gives_nothing_of_that_block() {
    let file = encode(&entries(3 * BLOCK_RECORDS as u32 - 5), 4096, 5, true);
    for at in (HEADER_LEN..file.len()).step_by(997) {
        let mut flipped = file.clone();
        flipped[at] ^= 0x40;
        let mut decoder = Decoder::new(&flipped, file.len() as u64).expect("the header is sound");
        let mut read = Vec::new();
        let blocks = flipped[HEADER_LEN..].chunks(BLOCK_LEN);
        let defect = blocks.into_iter().find_map(|block| decoder.block(block, &mut read).err());
        assert_eq!(defect, Some(Defect::Checksum));
        assert_eq!(read.len(), (at - HEADER_LEN) / BLOCK_LEN * BLOCK_RECORDS);
    }
}

#[test]
fn a_truncated_or_continued_file_is_a_defect() {
    let file = encode(&entries(50), 50, 5, true);
    for len in 0..file.len() {
        let expected = if len < HEADER_LEN { Defect::Magic } else { Defect::Length };
        assert_eq!(decode(&file[..len]), Err(expected), "{len} bytes");
    }
    let mut longer = file.clone();
    longer.push(0);
    assert_eq!(decode(&longer), Err(Defect::Length));
}

#[test]
fn a_block_of_another_length_than_asked_for_is_a_defect() {
    let file = encode(&entries(9), 9, 5, true);
    let block = &file[HEADER_LEN..];
    let mut read = Vec::new();
    for len in 0..block.len() {
        let mut decoder = Decoder::new(&file, file.len() as u64).expect("the header is sound");
        assert_eq!(decoder.block(&block[..len], &mut read), Err(Defect::Length));
    }
    let mut decoder = Decoder::new(&file, file.len() as u64).expect("the header is sound");
    assert_eq!(decoder.block(block, &mut read), Ok(()));
    assert_eq!(decoder.block(block, &mut read), Err(Defect::Length), "one block too many");
    assert_eq!(decoder.block(&[], &mut read), Err(Defect::Length), "nothing is no block");
    assert_eq!(read.len(), 9);
}

#[test]
fn a_header_that_was_never_written_is_a_defect() {
    let mut file = encode(&entries(50), 50, 5, true);
    file[..HEADER_LEN].fill(0);
    assert_eq!(decode(&file), Err(Defect::Magic));
}

#[test]
fn a_lie_with_right_checksums_is_a_defect() {
    let file = encode(&entries(20), 20, 5, true);
    let record = HEADER_LEN + BLOCK_HEAD + 3 * RECORD_LEN;
    for (at, byte, defect) in [
        (8, 2, Defect::Version(2)),
        (12, 3, Defect::Header),
        (12, 4, Defect::Header),
        (40, 1, Defect::Header),
        (59, 1, Defect::Header),
        (16, 6, Defect::Misplaced),
        (24, 21, Defect::Length),
        (31, 0xff, Defect::Length),
        (39, 1, Defect::Units),
        (HEADER_LEN + 4, 1, Defect::Misplaced),
        (HEADER_LEN + 8, 6, Defect::Misplaced),
        (record + 16, 99, Defect::Units),
        (record + 20, 3, Defect::Record),
        (record + 21, 4, Defect::Record),
        (record + 22, 1, Defect::Record),
        (record + 23, 1, Defect::Record),
    ] {
        assert_eq!(decode(&forged(file.clone(), at, byte)), Err(defect), "byte {at}");
    }
    assert_eq!(decode(&forged(encode(&[], 1, 5, true), 32, 1)), Err(Defect::Units));
}

#[test]
fn blocks_are_bound_to_their_place_and_their_snapshot() {
    let entries = entries(2 * BLOCK_RECORDS as u32);
    let file = encode(&entries, 4096, 5, true);
    let mut swapped = file[..HEADER_LEN].to_vec();
    swapped.extend_from_slice(&file[HEADER_LEN + BLOCK_LEN..]);
    swapped.extend_from_slice(&file[HEADER_LEN..HEADER_LEN + BLOCK_LEN]);
    assert_eq!(decode(&swapped), Err(Defect::Misplaced));
    let mut mixed = file.clone();
    mixed[HEADER_LEN + BLOCK_LEN..].copy_from_slice(&encode(&entries, 4096, 6, true)[HEADER_LEN + BLOCK_LEN..]);
    assert_eq!(decode(&mixed), Err(Defect::Misplaced));
}

#[test]
fn defects_have_names_of_their_own() {
    let all = [
        Defect::Magic,
        Defect::Version(9),
        Defect::Header,
        Defect::Length,
        Defect::Checksum,
        Defect::Misplaced,
        Defect::Record,
        Defect::Units,
    ];
    let names: std::collections::BTreeSet<_> = all.iter().map(|defect| defect.name()).collect();
    assert_eq!(names.len(), all.len());
    assert_eq!(Defect::Version(9).to_string(), "a snapshot of version 9, not 1");
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(header in any::<[u8; HEADER_LEN]>(), seal: bool, file_len: u64, block: Vec<u8>) {
        let mut header = header;
        if seal {
            header[..16].copy_from_slice(b"FORESNAP\x01\0\0\0\x01\0\0\0");
            header[40..60].fill(0);
            let sum = crc32fast::hash(&header[..60]);
            header[60..].copy_from_slice(&sum.to_le_bytes());
        }
        // A lying length needs a lying file to go with it, and then allocates nothing.
        let claimed = Header::decode(&header).ok().and_then(|header| header.file_len());
        for file_len in [file_len, claimed.unwrap_or(0)] {
            if let Ok(mut decoder) = Decoder::new(&header, file_len) {
                prop_assert!(decoder.next_len() <= BLOCK_LEN);
                let mut entries = Vec::new();
                prop_assert!(decoder.block(&block, &mut entries).is_err());
                prop_assert_eq!(entries.capacity(), 0);
            }
        }
    }
}
