//! How much of a trace the memory tier answers, beside an exact LRU of as many bytes: `cargo bench --bench hit_ratio`.
//!
//! Everything is computed: traces, sizes and keys follow from one seed, so the table is the same everywhere but for what
//! `f64::powf` makes of the last bit. `bench/README.md` has the table and says how to read it.

use std::collections::VecDeque;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use foreland::config::model;
use foreland::http_cache::{Policy, RequestDirectives, RequestFacts, Tiers, Timestamp, storability};
use foreland::store::{Body, Head, MemoryTier, Object, ObjectId, ObjectKey, Record};
use pingora::http::ResponseHeader;
use pingora_cache::CacheMeta;

/// Keys that are asked for more than once.
const KEYS: u32 = 100_000;
const REQUESTS: usize = 2_000_000;
/// Requests at the beginning that fill the cache and are not counted.
const WARM_UP: usize = REQUESTS / 4;
/// The cache in hundredths of what all keys take.
const SHARES: [u64; 4] = [1, 5, 10, 25];
/// As the configuration has it when it says nothing.
const MAX_OBJECT: u64 = 1 << 20;

fn main() -> ExitCode {
    println!("| Trace | Sizes | Cache | LRU | Foreland | Difference |");
    println!("|---|---|--:|--:|--:|--:|");
    let mut behind = 0;
    for sizes in [Sizes::Various, Sizes::One] {
        let objects = Objects::new(sizes);
        let footprint: u64 = (0..KEYS).map(|key| objects.of(key).weight()).sum();
        for trace in &TRACES {
            for share in SHARES {
                let capacity = footprint * share / 100;
                let requests = trace.requests(&objects, capacity);
                let lru = ratio(&requests, Lru::new(capacity, &objects));
                let ours = ratio(&requests, Ours::new(capacity, &objects));
                let difference = ours - lru;
                println!("| {trace} | {sizes} | {share} % | {lru:.2} % | {ours:.2} % | {difference:+.2} |");
                behind += u32::from(trace.must_win() && difference <= 0.0);
            }
        }
    }
    if behind > 0 {
        eprintln!("{behind} rows of Zipf, with scans or without, where the memory tier is not ahead of LRU");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// What is asked for.
enum Trace {
    /// The key of rank `n` is asked for in proportion to `n^-skew`. Of a hundred requests, `scans` are for keys that
    /// nobody asks for again.
    Zipf { skew: f64, scans: u64 },
    /// As Zipf, and after so many requests there is a new key that is asked for most; the others lose a rank.
    Drift { skew: f64, every: usize },
    /// As Zipf, and after so many requests all that was asked for much is asked for little.
    Turn { skew: f64, every: usize },
    /// One after the other, round and round: a tenth more than the cache holds.
    Loop,
}

const TRACES: [Trace; 13] = [
    Trace::Zipf { skew: 0.7, scans: 0 },
    Trace::Zipf { skew: 0.9, scans: 0 },
    Trace::Zipf { skew: 1.1, scans: 0 },
    Trace::Zipf { skew: 0.7, scans: 10 },
    Trace::Zipf { skew: 0.9, scans: 10 },
    Trace::Zipf { skew: 1.1, scans: 10 },
    Trace::Zipf { skew: 0.7, scans: 50 },
    Trace::Zipf { skew: 0.9, scans: 50 },
    Trace::Zipf { skew: 1.1, scans: 50 },
    Trace::Drift { skew: 0.9, every: 100 },
    Trace::Drift { skew: 0.9, every: 10 },
    Trace::Turn { skew: 0.9, every: 200_000 },
    Trace::Loop,
];

impl Trace {
    fn must_win(&self) -> bool {
        matches!(self, Trace::Zipf { .. })
    }

    fn requests(&self, objects: &Objects, capacity: u64) -> Vec<u32> {
        let mut random = Random(1);
        match *self {
            Trace::Zipf { skew, scans } => {
                let zipf = Zipf::new(skew);
                let mut new = KEYS..;
                let mut next = || match random.below(100) < scans {
                    true => new.next().unwrap_or(KEYS),
                    false => zipf.rank(&mut random),
                };
                (0..REQUESTS).map(|_| next()).collect()
            }
            Trace::Drift { skew, every } => {
                let zipf = Zipf::new(skew);
                // The newest key has the lowest number.
                let newest = |n: usize| ((REQUESTS - n) / every) as u32;
                (0..REQUESTS).map(|n| newest(n) + zipf.rank(&mut random)).collect()
            }
            Trace::Turn { skew, every } => {
                let zipf = Zipf::new(skew);
                let first = |n: usize| (n / every) as u32 * (KEYS * 3 / 8);
                (0..REQUESTS).map(|n| (first(n) + zipf.rank(&mut random)) % KEYS).collect()
            }
            Trace::Loop => {
                let sum = |sum: &mut u64, key| {
                    *sum += objects.of(key).weight();
                    (*sum < capacity + capacity / 10).then_some(key)
                };
                let keys: Vec<u32> = (0..KEYS).scan(0, sum).collect();
                keys.into_iter().cycle().take(REQUESTS).collect()
            }
        }
    }
}

impl std::fmt::Display for Trace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Trace::Zipf { skew, scans: 0 } => write!(f, "Zipf {skew}"),
            Trace::Zipf { skew, scans } => write!(f, "Zipf {skew}, {scans} % scan"),
            Trace::Drift { skew, every } => write!(f, "Zipf {skew}, new top each {every}"),
            Trace::Turn { skew, every } => write!(f, "Zipf {skew}, all anew each {every}"),
            Trace::Loop => f.write_str("Loop of 1.1 caches"),
        }
    }
}

/// A cache that is asked for a key, and stores it where it does not have it, as the edge does.
trait Cache {
    /// Whether it had it.
    fn ask(&mut self, key: u32) -> bool;
}

/// Hits of a hundred requests.
fn ratio(requests: &[u32], mut cache: impl Cache) -> f64 {
    let (warm_up, counted) = requests.split_at(WARM_UP);
    warm_up.iter().for_each(|key| _ = cache.ask(*key));
    let hits = counted.iter().filter(|key| cache.ask(**key)).count();
    100.0 * hits as f64 / counted.len() as f64
}

/// The memory tier.
struct Ours<'a> {
    tier: MemoryTier,
    objects: &'a Objects,
}

impl Ours<'_> {
    fn new(size: u64, objects: &Objects) -> Ours<'_> {
        Ours { tier: MemoryTier::new(model::MemoryTier { size, max_object: MAX_OBJECT.min(size) }), objects }
    }
}

impl Cache for Ours<'_> {
    fn ask(&mut self, key: u32) -> bool {
        let name = name(key);
        let hit = self.tier.get(&name).is_some();
        if !hit {
            self.tier.insert(name, self.objects.of(key).clone());
        }
        hit
    }
}

/// Throws out what has not been asked for the longest.
struct Lru<'a> {
    capacity: u64,
    objects: &'a Objects,
    bytes: u64,
    /// For each key the request that last asked for it, if it is held.
    last: Vec<Option<u32>>,
    /// All requests, with their keys: one that is not its key's last is passed over.
    queue: VecDeque<(u32, u32)>,
    now: u32,
}

impl Lru<'_> {
    fn new(capacity: u64, objects: &Objects) -> Lru<'_> {
        Lru { capacity, objects, bytes: 0, last: vec![None; KEYS as usize + REQUESTS], queue: VecDeque::new(), now: 0 }
    }
}

impl Cache for Lru<'_> {
    fn ask(&mut self, key: u32) -> bool {
        self.now += 1;
        self.queue.push_back((key, self.now));
        let hit = self.last[key as usize].replace(self.now).is_some();
        if !hit {
            self.bytes += self.objects.of(key).weight();
        }
        while self.bytes > self.capacity {
            let Some((oldest, asked)) = self.queue.pop_front() else { break };
            if self.last[oldest as usize] == Some(asked) {
                self.last[oldest as usize] = None;
                self.bytes -= self.objects.of(oldest).weight();
            }
        }
        hit
    }
}

#[derive(Clone, Copy)]
enum Sizes {
    /// Log-normal: half of the bodies are below 12 KiB; none is below 1 KiB or above 256 KiB.
    Various,
    /// All 16 KiB.
    One,
}

impl std::fmt::Display for Sizes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Sizes::Various => "1 to 256 KiB",
            Sizes::One => "16 KiB",
        })
    }
}

/// What is stored: objects of every size, each for many keys. Their bodies share one allocation.
struct Objects(Vec<Arc<Object>>);

impl Objects {
    const COUNT: usize = 4096;

    fn new(sizes: Sizes) -> Objects {
        let bytes = Bytes::from(vec![0; 256 << 10]);
        let head = Arc::new(head());
        let mut random = Random(2);
        let mut size = || match sizes {
            Sizes::Various => {
                // The sum of twelve is normal enough, with a deviation of 1.
                let normal = (0..12).map(|_| random.fraction()).sum::<f64>() - 6.0;
                (12_288.0 * (1.25 * normal).exp()).clamp(1024.0, bytes.len() as f64) as usize
            }
            Sizes::One => 16 << 10,
        };
        Objects(
            (0..Self::COUNT)
                .map(|_| Arc::new(Object::new(head.clone(), Body::Memory(bytes.slice(..size())))))
                .collect(),
        )
    }

    fn of(&self, key: u32) -> &Arc<Object> {
        &self.0[mixed(u64::from(key)) as usize % Self::COUNT]
    }
}

fn head() -> Head {
    let mut response = ResponseHeader::build(200, None).expect("a valid status");
    for (name, value) in [("cache-control", "max-age=3600"), ("content-type", "image/webp"), ("etag", "\"5f3a-61b2\"")]
    {
        response.insert_header(name, value).expect("a valid field");
    }
    let now = SystemTime::now();
    let at = Timestamp::from(now);
    let request = RequestFacts::new(&http::Method::GET, &response.headers, &RequestDirectives::default(), at);
    let stored = storability(&request, response.status, &response.headers, &Policy::default(), at).expect("storable");
    let key = Bytes::from_static(b"www.example.com/images/0123456789");
    let mut meta = CacheMeta::new(now, now, 0, 0, response);
    let tiers = Tiers::default();
    meta.extensions_mut().insert(Record {
        facts: stored.facts,
        key,
        id: 0,
        began: 0,
        asked: at,
        tags: stored.tags.clone(),
        tiers,
    });
    Head::of(&meta).expect("a record of this program's own")
}

/// The name of a key: any hash will do.
fn name(key: u32) -> ObjectId {
    let half = mixed(u64::from(key) ^ (1 << 40)).to_le_bytes();
    let other = mixed(u64::from(key) ^ (1 << 41)).to_le_bytes();
    ObjectKey::primary(std::array::from_fn(|i| if i < 8 { half[i] } else { other[i - 8] })).id()
}

/// Ranks from 0 to `KEYS`, the lower the more frequent.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(skew: f64) -> Zipf {
        let mut sum = 0.0;
        let mut up_to: Vec<f64> = Vec::with_capacity(KEYS as usize);
        for n in 1..=KEYS {
            sum += f64::from(n).powf(-skew);
            up_to.push(sum);
        }
        Zipf(up_to)
    }

    fn rank(&self, random: &mut Random) -> u32 {
        let point = random.fraction() * self.0[self.0.len() - 1];
        self.0.partition_point(|sum| *sum <= point).min(self.0.len() - 1) as u32
    }
}

/// Steele, Lea and Flood's SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let word = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// From 0 to below 1.
    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

fn mixed(word: u64) -> u64 {
    Random(word).next()
}
