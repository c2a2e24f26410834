//! A name for each request, in the log and for the origin.

use std::cell::Cell;
use std::fmt;
use std::hash::{BuildHasher, RandomState};

use http::HeaderMap;

/// The longest identifier that is taken over.
const MAX: usize = 64;

/// Taken from X-Request-Id where that holds something sensible, else made.
#[derive(Clone, Copy)]
pub struct RequestId {
    bytes: [u8; MAX],
    len: u8,
}

impl RequestId {
    /// The client's own, or a new one.
    pub fn of(headers: &HeaderMap) -> RequestId {
        match headers.get("x-request-id").map(|v| v.as_bytes()) {
            Some(id) if is_sensible(id) => {
                let mut bytes = [0; MAX];
                bytes[..id.len()].copy_from_slice(id);
                RequestId { bytes, len: id.len() as u8 }
            }
            _ => RequestId::new(),
        }
    }

    /// 32 hexadecimal digits that no other request has.
    pub fn new() -> RequestId {
        let (process, count) = next();
        let mut bytes = [0; MAX];
        hex(process, &mut bytes[..16]);
        // Scattered, so that neighbours are easy to tell apart; one to one, so that they differ.
        hex(count.wrapping_mul(0x9E37_79B9_7F4A_7C15), &mut bytes[16..32]);
        RequestId { bytes, len: 32 }
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or_default()
    }
}

/// Empty: the request has none yet.
impl Default for RequestId {
    fn default() -> RequestId {
        RequestId { bytes: [0; MAX], len: 0 }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn is_sensible(id: &[u8]) -> bool {
    (8..=MAX).contains(&id.len()) && id.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// A random number of this thread, and how many it has made.
fn next() -> (u64, u64) {
    thread_local! {
        static SEED: (u64, Cell<u64>) = (RandomState::new().hash_one(std::thread::current().id()), Cell::new(1));
    }
    SEED.with(|(seed, count)| (*seed, count.replace(count.get() + 1)))
}

fn hex(mut number: u64, out: &mut [u8]) {
    for digit in out.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_ones_differ_and_sensible_ones_are_kept() {
        let made: std::collections::HashSet<_> = (0..1000).map(|_| RequestId::new().to_string()).collect();
        assert_eq!(made.len(), 1000);
        assert!(made.iter().all(|id| id.len() == 32));
        for (sent, kept) in
            [("abcd-1234_x.y", true), ("short", false), ("with space", false), (&"x".repeat(65)[..], false)]
        {
            let mut headers = HeaderMap::new();
            headers.insert("x-request-id", sent.parse().unwrap());
            assert_eq!(RequestId::of(&headers).as_str() == sent, kept, "{sent}");
        }
    }
}
