//! Which objects were evicted of late: fingerprints, about as many as there are objects.

/// Fingerprints in a bucket, newest first; when one more comes, the oldest is forgotten.
const WAYS: usize = 8;

/// Buckets in a chunk of memory: 16 KiB.
const CHUNK: usize = 512;

/// No fingerprint.
const EMPTY: u32 = 0;

type Bucket = [u32; WAYS];

/// A table that grows bucket by bucket (linear hashing), so that no call takes long: the low bits of a fingerprint are
/// its bucket's number, and one bit more divides a bucket in two. Four bytes an object; it never shrinks.
///
/// Of the objects evicted last, half as many as there are objects, some 95 % are remembered; of those evicted twice as
/// many before, 1 %. One object in 4000 is taken for another when a million are remembered, which costs a place in the
/// wrong queue and nothing else.
pub struct Ghosts {
    chunks: Vec<Vec<Bucket>>,
    /// At least 1.
    buckets: usize,
}

impl Ghosts {
    pub fn new() -> Ghosts {
        let mut ghosts = Ghosts { chunks: Vec::new(), buckets: 0 };
        ghosts.push([EMPTY; WAYS]);
        ghosts
    }

    /// Grows by one bucket at most, if the table is too small for so many objects. To be called for each new one.
    pub fn fit(&mut self, objects: usize) {
        if self.buckets * WAYS >= objects {
            return;
        }
        let new = self.buckets;
        let span = (new + 1).next_power_of_two();
        let (mut stay, mut leave) = ([EMPTY; WAYS], [EMPTY; WAYS]);
        let (mut staying, mut leaving) = (stay.iter_mut(), leave.iter_mut());
        let divided = self.bucket(new - span / 2);
        for mark in divided.iter().filter(|mark| **mark != EMPTY) {
            let side = if *mark as usize % span == new { &mut leaving } else { &mut staying };
            if let Some(place) = side.next() {
                *place = *mark;
            }
        }
        *divided = stay;
        self.push(leave);
    }

    pub fn remember(&mut self, hash: u64) {
        let mark = mark(hash);
        let bucket = self.bucket_of(mark);
        let last = bucket.iter().position(|other| *other == mark).unwrap_or(WAYS - 1);
        bucket[..=last].rotate_right(1);
        bucket[0] = mark;
    }

    /// Whether it was remembered; it is forgotten then.
    pub fn recall(&mut self, hash: u64) -> bool {
        let mark = mark(hash);
        let bucket = self.bucket_of(mark);
        let Some(at) = bucket.iter().position(|other| *other == mark) else { return false };
        bucket[at..].rotate_left(1);
        bucket[WAYS - 1] = EMPTY;
        true
    }

    /// In bytes.
    pub fn memory(&self) -> usize {
        self.chunks.capacity() * size_of::<Vec<Bucket>>() + self.chunks.len() * CHUNK * size_of::<Bucket>()
    }

    fn push(&mut self, bucket: Bucket) {
        if self.buckets.is_multiple_of(CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        if let Some(chunk) = self.chunks.last_mut() {
            chunk.push(bucket);
            self.buckets += 1;
        }
    }

    fn bucket_of(&mut self, mark: u32) -> &mut Bucket {
        let span = self.buckets.next_power_of_two();
        let at = mark as usize % span;
        // Buckets that are still to come live with the ones that they will be divided from.
        self.bucket(if at < self.buckets { at } else { at - span / 2 })
    }

    /// `at` is below `buckets`.
    fn bucket(&mut self, at: usize) -> &mut Bucket {
        &mut self.chunks[at / CHUNK][at % CHUNK]
    }
}

fn mark(hash: u64) -> u32 {
    (hash as u32).max(EMPTY + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u64) -> u64 {
        n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31)
    }

    fn fitted(objects: usize) -> Ghosts {
        let mut ghosts = Ghosts::new();
        (1..=objects).for_each(|objects| ghosts.fit(objects));
        ghosts
    }

    #[test]
    fn the_recent_are_remembered_once_and_the_old_forgotten() {
        const OBJECTS: u64 = 8192;
        let mut ghosts = fitted(OBJECTS as usize);
        (0..4 * OBJECTS).for_each(|n| ghosts.remember(hash(n)));
        let mut recalled = |from: u64, to: u64| {
            (4 * OBJECTS - to..4 * OBJECTS - from).filter(|n| ghosts.recall(hash(*n))).count() as f64
                / (to - from) as f64
        };
        assert!(recalled(0, OBJECTS / 2) > 0.95);
        assert_eq!(recalled(0, OBJECTS / 2), 0.0, "recalled twice");
        assert!(recalled(2 * OBJECTS, 3 * OBJECTS) < 0.02);
    }

    #[test]
    fn growing_loses_nothing() {
        let mut ghosts = Ghosts::new();
        for n in 0..20_000 {
            ghosts.fit(8 * (n as usize + 1));
            ghosts.remember(hash(n));
        }
        let recalled = (0..20_000).filter(|n| ghosts.recall(hash(*n))).count();
        assert!(recalled > 19_990, "{recalled} of 20000 in eight times as many places");
    }

    #[test]
    fn a_bucket_forgets_its_oldest() {
        let mut ghosts = Ghosts::new();
        (0..9).for_each(|n| ghosts.remember(n << 32 | (n + 1)));
        assert!(!ghosts.recall(1));
        ghosts.remember(2);
        ghosts.remember(100);
        assert!(ghosts.recall(2), "remembered again, so not the oldest");
        assert!(!ghosts.recall(3));
    }

    #[test]
    fn a_fingerprint_of_zero_is_one_like_others() {
        let mut ghosts = Ghosts::new();
        assert!(!ghosts.recall(0));
        ghosts.remember(0);
        assert!(ghosts.recall(0));
        assert!(!ghosts.recall(0));
    }

    #[test]
    fn four_bytes_an_object() {
        let memory = fitted(100_000).memory();
        assert!((400_000..450_000).contains(&memory), "{memory}");
        let mut grown = fitted(1000);
        let before = grown.memory();
        (0..100_000).for_each(|n| grown.remember(hash(n)));
        assert_eq!(grown.memory(), before, "what is remembered takes no memory of its own");
    }
}
