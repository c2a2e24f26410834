//! What a slot holds: a head with its record.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::response::Parts;
use http::{HeaderName, HeaderValue, StatusCode};
use pingora::http::ResponseHeader;

use super::cursor::Cursor;
use crate::http_cache::{Facts, Tags, Tiers, Timestamp};
use crate::store::{Head, Record};

/// Bytes before the key.
const FIXED: usize = 4 + 4 + 4 + 8 + 8 + 8 + 8 + 4 + 2 + 16 + 1 + Facts::ENCODED_LENGTH;

/// Bytes of a field's lengths: of its name and of its value.
const LENGTHS: usize = 2 + 4;

const HAS_VARIANCE: u8 = 1;

const NANOS: u32 = 1_000_000_000;

/// The bytes that [`write`] would write.
pub fn length(head: &Head) -> usize {
    let fields = head.response.headers.iter();
    let record = &head.record;
    FIXED
        + record.key.len()
        + record.tags.encoded_length()
        + fields.map(|(n, v)| LENGTHS + n.as_str().len() + v.len()).sum::<usize>()
}

/// Appends the head. `None` where a number is too large for its place, which no head that was let in has.
pub fn write(head: &Head, to: &mut Vec<u8>) -> Option<()> {
    let (record, fields) = (&head.record, &head.response.headers);
    let (seconds, nanos) = split(head.provenance)?;
    to.extend_from_slice(&u32::try_from(fields.len()).ok()?.to_le_bytes());
    to.extend_from_slice(&u32::try_from(record.key.len()).ok()?.to_le_bytes());
    to.extend_from_slice(&u32::try_from(record.tags.encoded_length()).ok()?.to_le_bytes());
    to.extend_from_slice(&record.id.to_le_bytes());
    to.extend_from_slice(&record.began.to_le_bytes());
    to.extend_from_slice(&record.asked.as_millis().to_le_bytes());
    to.extend_from_slice(&seconds.to_le_bytes());
    to.extend_from_slice(&nanos.to_le_bytes());
    to.extend_from_slice(&head.response.status.as_u16().to_le_bytes());
    to.extend_from_slice(&head.variance.unwrap_or_default());
    to.push(if head.variance.is_some() { HAS_VARIANCE } else { 0 });
    to.extend_from_slice(&record.facts.encode());
    to.extend_from_slice(&record.key);
    record.tags.encode(to);
    for (name, value) in fields {
        to.extend_from_slice(&u16::try_from(name.as_str().len()).ok()?.to_le_bytes());
        to.extend_from_slice(&u32::try_from(value.len()).ok()?.to_le_bytes());
    }
    // The values in one piece: a reader keeps them as one allocation.
    fields.iter().for_each(|(name, _)| to.extend_from_slice(name.as_str().as_bytes()));
    fields.values().for_each(|value| to.extend_from_slice(value.as_bytes()));
    Some(())
}

/// The head that a slot's payload is. `None` where it is none that [`write`] makes.
pub fn read(payload: &[u8]) -> Option<Head> {
    let mut from = Cursor(payload);
    let (count, key, tags) = (from.u32()? as usize, from.u32()? as usize, from.u32()? as usize);
    let (id, began, asked) = (from.u64()?, from.u64()?, Timestamp::from_millis(from.i64()?));
    let provenance = join(from.i64()?, from.u32()?)?;
    let status = StatusCode::from_u16(from.u16()?).ok()?;
    let variance = from.array()?;
    let [flags] = from.array()?;
    let facts = Facts::decode(&from.array()?)?;
    let has_variance = flags & HAS_VARIANCE != 0;
    if flags & !HAS_VARIANCE != 0 || !(has_variance || variance == [0; 16]) {
        return None;
    }
    let key = Bytes::copy_from_slice(from.take(key)?);
    let tags = Tags::decode(from.take(tags)?)?;
    let response = fields(status, count, from)?;
    let record = Record { facts, key, id, began, asked, tags, tiers: Tiers::default() };
    Some(Head::stored(response, record, has_variance.then_some(variance), provenance))
}

/// A response of so many fields, which are all that is left.
fn fields(status: StatusCode, count: usize, mut from: Cursor<'_>) -> Option<ResponseHeader> {
    // Bounds `count` by what there is before anything is allocated for it.
    let (lengths, _) = from.take(count.checked_mul(LENGTHS)?)?.as_chunks::<LENGTHS>();
    let lengths =
        lengths.iter().map(|&[a, b, c, d, e, f]| (u16::from_le_bytes([a, b]), u32::from_le_bytes([c, d, e, f])));
    let names: u64 = lengths.clone().map(|(name, _)| u64::from(name)).sum();
    let mut names = Cursor(from.take(usize::try_from(names).ok()?)?);
    // One allocation for all the values, and nothing else in it.
    let mut values = Bytes::copy_from_slice(from.0);
    let mut parts = Parts::from(ResponseHeader::build_no_case(status, Some(count)).ok()?);
    for (name, value) in lengths {
        let name = HeaderName::from_lowercase(names.take(usize::from(name))?).ok()?;
        let value = usize::try_from(value).ok().filter(|len| *len <= values.len())?;
        let value = HeaderValue::from_maybe_shared(values.split_to(value)).ok()?;
        parts.headers.try_append(name, value).ok()?;
    }
    values.is_empty().then(|| parts.into())
}

/// Seconds since the epoch, rounded down, and the nanoseconds from there.
fn split(time: SystemTime) -> Option<(i64, u32)> {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => Some((i64::try_from(after.as_secs()).ok()?, after.subsec_nanos())),
        Err(before) => {
            let before = before.duration();
            let seconds = 0_i64.checked_sub_unsigned(before.as_secs())?;
            match before.subsec_nanos() {
                0 => Some((seconds, 0)),
                nanos => Some((seconds.checked_sub(1)?, NANOS - nanos)),
            }
        }
    }
}

fn join(seconds: i64, nanos: u32) -> Option<SystemTime> {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let second = if seconds < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) }?;
    (nanos < NANOS).then_some(())?;
    second.checked_add(Duration::new(0, nanos))
}
