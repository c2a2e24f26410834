//! What is stored: a response, ready to be sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{AGE, CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, StatusCode};
use pingora::http::ResponseHeader;
use pingora_cache::CacheMeta;
use pingora_cache::key::HashBinary;

use super::disk::StoredFile;
use crate::http_cache::{Facts, Tags, Tiers, Timestamp, parse_http_date};

/// What goes to the store with a response and comes back with it, in the extensions of Pingora's `CacheMeta`.
#[derive(Clone, Debug)]
pub struct Record {
    /// What decides over the response's reuse.
    pub facts: Facts,
    /// The cache key in full.
    pub key: Bytes,
    /// Which object this is: a fill gives each one a number, and what freshens it keeps it. 0: none yet.
    pub id: u64,
    /// The ledger's head when the request began whose response this is: purges after that concern it.
    pub began: u64,
    /// When the origin was asked for it.
    pub asked: Timestamp,
    /// By what else than its URL it can be purged.
    pub tags: Tags,
    /// Where it may be kept: as its route has it, so not stored with it.
    pub tiers: Tiers,
}

/// A stored response without its body.
#[derive(Debug)]
pub struct Head {
    /// Status and fields, as stored: without hop-by-hop fields, and with values of their own (those that come from
    /// an HTTP/1 origin are slices of its whole read buffer).
    pub response: ResponseHeader,
    pub record: Record,
    /// Which variant this is, where the response varies.
    pub variance: Option<HashBinary>,
    /// When the family of variants that this response belongs to began: a secondary variant from before the primary's
    /// is of an older `Vary` and not used.
    pub provenance: SystemTime,
    /// Bytes that the fields take in memory.
    size: usize,
    /// The ledger's head when it was last compared with that.
    checked: AtomicU64,
}

/// A whole response in memory.
#[derive(Debug)]
pub struct Object {
    pub head: Arc<Head>,
    pub body: Body,
    /// The HTTP/1.1 status line and fields, each with its line end; without Age and whatever else differs from one
    /// response to the next, and without the empty line.
    pub wire: Bytes,
    hits: AtomicU32,
    /// How many of them an eviction policy has taken into account.
    credited: AtomicU32,
}

/// Where a stored body is.
#[derive(Clone, Debug)]
pub enum Body {
    Memory(Bytes),
    Disk(Arc<StoredFile>),
}

impl Body {
    /// In bytes.
    pub fn len(&self) -> u64 {
        match self {
            Body::Memory(bytes) => bytes.len() as u64,
            Body::Disk(file) => file.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The name of the tier, as logs and metrics have it.
    pub fn tier(&self) -> &'static str {
        match self {
            Body::Memory(_) => "memory",
            Body::Disk(_) => "disk",
        }
    }
}

impl Head {
    /// A copy of what is to be stored. `None` where the metadata does not come from this program's own rules.
    pub fn of(meta: &CacheMeta) -> Option<Head> {
        let record = meta.extensions().get::<Record>()?.clone();
        let (response, fields) = compact(meta.response_header());
        let size = fields + record.key.len() + record.tags.weight();
        Some(Head {
            response,
            record,
            variance: meta.variance(),
            provenance: meta.provenance(),
            size,
            checked: AtomicU64::new(0),
        })
    }

    /// A head that was kept outside of memory. The fields' values should share one allocation of their own.
    pub fn stored(
        response: ResponseHeader,
        record: Record,
        variance: Option<HashBinary>,
        provenance: SystemTime,
    ) -> Head {
        let size = size_of_fields(&response.headers) + record.key.len() + record.tags.weight();
        Head { response, record, variance, provenance, size, checked: AtomicU64::new(0) }
    }

    /// The same head for a body whose length is known now.
    pub fn with_length(&self, len: u64) -> Head {
        let mut response = self.response.clone();
        if response.status != StatusCode::NO_CONTENT && !response.headers.contains_key(CONTENT_LENGTH) {
            let _ = response.insert_header(CONTENT_LENGTH, len);
        }
        self.with(response, self.record.clone())
    }

    /// The same head, with other facts.
    pub fn with_facts(&self, facts: Facts) -> Head {
        self.with(self.response.clone(), Record { facts, ..self.record.clone() })
    }

    fn with(&self, response: ResponseHeader, record: Record) -> Head {
        Head { response, record, checked: AtomicU64::new(self.checked.load(Ordering::Relaxed)), ..*self }
    }

    /// The sequence of the latest entry of the ledger that it need not be compared with.
    pub fn since(&self) -> u64 {
        self.record.began.max(self.checked.load(Ordering::Acquire))
    }

    /// It has been compared with all entries up to that one.
    pub fn set_checked(&self, head: u64) {
        self.checked.fetch_max(head, Ordering::Release);
    }

    /// Whether another response for the same, which came while this one was being fetched, is the later of the two
    /// (RFC 9111 §4): by Date, and by the order in which they came where that is the same.
    pub fn is_older_than(&self, other: &Head) -> bool {
        let (ours, theirs) = (&self.record, &other.record);
        if theirs.facts.received < ours.asked {
            return false;
        }
        let date = |head: &Head| {
            let date = head.response.headers.get(DATE)?;
            parse_http_date(date.as_bytes(), head.record.facts.received)
        };
        match (date(self), date(other)) {
            (Some(a), Some(b)) if a != b => a < b,
            _ => ours.id < theirs.id,
        }
    }

    /// What Pingora's cache wants to know.
    pub fn meta(&self) -> CacheMeta {
        let mut meta = meta_of(&self.record.facts, self.provenance, self.response.clone());
        if let Some(variance) = self.variance {
            meta.set_variance(variance);
        }
        // What it has been compared with, whoever stores it again need not compare it with.
        meta.extensions_mut().insert(Record { began: self.since(), ..self.record.clone() });
        meta
    }
}

impl Object {
    /// A whole response; a body in memory should not share it with anything larger.
    pub fn new(head: Arc<Head>, body: Body) -> Object {
        let wire = wire(&head.response, body.len());
        Object { head, body, wire, hits: AtomicU32::new(0), credited: AtomicU32::new(0) }
    }

    /// The same response with another head or in another tier: its hits go on counting.
    pub fn succeeding(self, before: &Object) -> Object {
        self.hits.store(before.hits(), Ordering::Relaxed);
        self
    }

    /// Counts a hit.
    pub fn hit(&self) {
        self.hits.fetch_add(1, Ordering::Relaxed);
    }

    /// Hits since it was stored, or found on the disk.
    pub fn hits(&self) -> u32 {
        self.hits.load(Ordering::Relaxed)
    }

    /// Whether there have been hits since this was last asked.
    pub fn was_hit_lately(&self) -> bool {
        let hits = self.hits();
        self.credited.swap(hits, Ordering::Relaxed) != hits
    }

    /// The bytes that this object takes, all told.
    pub fn weight(&self) -> u64 {
        /// Cost of the tier's own entry, of allocations' headers and rounding.
        const ENTRY: usize = 256;
        let body = match &self.body {
            Body::Memory(bytes) => bytes.len(),
            Body::Disk(_) => 0,
        };
        (size_of::<Object>() + size_of::<Head>() + self.head.size + self.wire.len() + body + ENTRY) as u64
    }
}

/// Pingora's view of a response's freshness. It rounds to seconds; the exact decisions are made from the facts.
pub fn meta_of(facts: &Facts, created: SystemTime, response: ResponseHeader) -> CacheMeta {
    let seconds = |ms: i64| u32::try_from(ms.max(0) / 1000 + i64::from(ms > 0)).unwrap_or(u32::MAX);
    let swr = seconds(facts.stale_while_revalidate_ms);
    CacheMeta::new(facts.fresh_until.into(), created, swr, seconds(facts.stale_if_error_ms), response)
}

/// The response with fields that share one allocation of their own, and the bytes they take.
fn compact(response: &ResponseHeader) -> (ResponseHeader, usize) {
    let values: usize = response.headers.values().map(HeaderValue::len).sum();
    let mut shared = bytes::BytesMut::with_capacity(values);
    response.headers.values().for_each(|value| shared.extend_from_slice(value.as_bytes()));
    let mut shared = shared.freeze();
    let mut compact = match ResponseHeader::build_no_case(response.status, Some(response.headers.len())) {
        Ok(compact) => compact,
        // A status that was valid is valid; keep the original in case it ever is not.
        Err(_) => return (response.clone(), size_of_fields(&response.headers)),
    };
    for (name, value) in &response.headers {
        let bytes = shared.split_to(value.len());
        if name == TRANSFER_ENCODING {
            continue;
        }
        // The bytes are those of a valid value; should they ever not be, the value is kept as it is.
        let own = HeaderValue::from_maybe_shared(bytes).unwrap_or_else(|_| value.clone());
        let _ = compact.append_header(name.clone(), own);
    }
    (compact, size_of_fields(&response.headers))
}

/// The bytes that fields take in memory.
fn size_of_fields(fields: &HeaderMap) -> usize {
    /// A bucket of `HeaderMap` with its share of the index.
    const BUCKET: usize = 112;
    let values: usize = fields.values().map(HeaderValue::len).sum();
    values + fields.len().next_power_of_two().max(8) * BUCKET
}

/// Fields that are written anew for each response, or that a stored response has no use for.
fn is_written_apart(name: &http::HeaderName) -> bool {
    name == AGE || name == TRANSFER_ENCODING || name == CONTENT_LENGTH
}

fn wire(response: &ResponseHeader, body_len: u64) -> Bytes {
    let status = response.status;
    let mut wire =
        Vec::with_capacity(64 + response.headers.iter().map(|(n, v)| n.as_str().len() + v.len() + 4).sum::<usize>());
    wire.extend_from_slice(b"HTTP/1.1 ");
    wire.extend_from_slice(status.as_str().as_bytes());
    wire.push(b' ');
    wire.extend_from_slice(status.canonical_reason().unwrap_or("").as_bytes());
    wire.extend_from_slice(b"\r\n");
    for (name, value) in response.headers.iter().filter(|(name, _)| !is_written_apart(name)) {
        write_field(&mut wire, name.as_str(), value.as_bytes());
    }
    // RFC 9110 §8.6: no Content-Length in a 204.
    if status != StatusCode::NO_CONTENT {
        let mut digits = itoa::Buffer::new();
        write_field(&mut wire, CONTENT_LENGTH.as_str(), digits.format(body_len).as_bytes());
    }
    Bytes::from(wire.into_boxed_slice())
}

/// Writes a field as HTTP/1.1 has it, `content-type` as `Content-Type`: field names are case-insensitive, but some old
/// clients do not know.
pub fn write_field(wire: &mut Vec<u8>, name: &str, value: &[u8]) {
    match name {
        "etag" => wire.extend_from_slice(b"ETag"),
        _ => {
            let mut start = true;
            for byte in name.bytes() {
                wire.push(if start { byte.to_ascii_uppercase() } else { byte });
                start = byte == b'-';
            }
        }
    }
    wire.extend_from_slice(b": ");
    wire.extend_from_slice(value);
    wire.extend_from_slice(b"\r\n");
}
