//! What is kept with a stored response, so that no hit has to parse its fields (RFC 9111 §4.2).

use std::time::Duration;

use super::directives::{MAX_DELTA_SECONDS, RequestDirectives};
use super::time::{Timestamp, millis};

/// What a cache needs to know about a stored response to decide on its reuse: small, `Copy`, and made once, when the
/// response is stored or freshened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// When the response arrived.
    pub received: Timestamp,
    /// corrected_initial_age (RFC 9111 §4.2.3), in milliseconds.
    pub initial_age_ms: i64,
    /// The instant from which the response is stale.
    pub fresh_until: Timestamp,
    /// Length of the stale-while-revalidate window after `fresh_until`, in milliseconds.
    pub stale_while_revalidate_ms: i64,
    /// Length of the stale-if-error window after `fresh_until`, in milliseconds.
    pub stale_if_error_ms: i64,
    /// Last-Modified, where it is a valid date.
    pub last_modified: Option<Timestamp>,
    /// The origin forbids stale reuse: must-revalidate, proxy-revalidate, s-maxage or no-cache.
    pub must_revalidate: bool,
    /// Never reused without a successful validation (unqualified `no-cache`).
    pub no_cache: bool,
    /// RFC 8246.
    pub immutable: bool,
}

impl Facts {
    /// current_age (RFC 9111 §4.2.3): the corrected initial age and the time spent here, at most 2^31 seconds.
    pub fn age(&self, now: Timestamp) -> Duration {
        Duration::from_millis(u64::try_from(self.age_ms(now)).unwrap_or(0))
    }

    /// The value of the Age field when the response is sent from the cache (RFC 9111 §5.1).
    pub fn age_seconds(&self, now: Timestamp) -> u64 {
        self.age(now).as_secs()
    }

    /// Freshness left, in milliseconds; zero or less when stale.
    pub fn remaining_ms(&self, now: Timestamp) -> i64 {
        self.fresh_until.millis_since(now.max(self.received))
    }

    /// Freshness left in whole seconds, as Cache-Status has it (RFC 9211 §2.4): negative when stale.
    pub fn ttl(&self, now: Timestamp) -> i64 {
        self.remaining_ms(now).div_euclid(1000)
    }

    /// Whether the response is reusable without a word to the origin, the request's wishes aside.
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        self.remaining_ms(now) > 0 && !self.no_cache
    }

    /// Whether the response may answer now when the origin cannot be reached, or answers with a server error
    /// (RFC 5861 §4). Not for a client that asked for a validation.
    pub fn stale_if_error_allowed(&self, request: &RequestDirectives, now: Timestamp) -> bool {
        if request.no_cache || self.no_cache {
            return false;
        }
        let staleness = self.remaining_ms(now).saturating_neg();
        staleness < 0 || (!self.must_revalidate && staleness < self.stale_if_error_ms)
    }

    /// From now on stale: what a soft purge makes of a response. The stale windows begin at `now`.
    pub fn expired_at(self, now: Timestamp) -> Facts {
        Facts { fresh_until: self.fresh_until.min(now), ..self }
    }

    pub(super) fn age_ms(&self, now: Timestamp) -> i64 {
        let resident = now.millis_since(self.received).max(0);
        self.initial_age_ms.saturating_add(resident).clamp(0, millis(MAX_AGE))
    }

    /// The form in which a store keeps the facts on disk: fixed-size, little-endian.
    pub fn encode(&self) -> [u8; Facts::ENCODED_LENGTH] {
        let numbers = [
            self.received.as_millis(),
            self.initial_age_ms,
            self.fresh_until.as_millis(),
            self.stale_while_revalidate_ms,
            self.stale_if_error_ms,
            self.last_modified.unwrap_or_default().as_millis(),
        ];
        let mut bytes = [0; Facts::ENCODED_LENGTH];
        let (flags, rest) = bytes.split_at_mut(1);
        flags.fill(
            u8::from(self.must_revalidate)
                | u8::from(self.no_cache) << 1
                | u8::from(self.immutable) << 2
                | u8::from(self.last_modified.is_some()) << 3,
        );
        for (slot, number) in rest.chunks_exact_mut(8).zip(numbers) {
            slot.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    /// The inverse of [`Facts::encode`]. `None` where a flag is set that this version does not know, or a length of
    /// time is negative.
    pub fn decode(bytes: &[u8; Facts::ENCODED_LENGTH]) -> Option<Facts> {
        let (&flags, rest) = bytes.split_first()?;
        let (numbers, _) = rest.as_chunks::<8>();
        let &[received, initial_age, fresh_until, revalidate, error, modified] = numbers.first_chunk()?;
        let number = i64::from_le_bytes;
        let length = |bytes| Some(number(bytes)).filter(|length| *length >= 0);
        if flags & !0b1111 != 0 {
            return None;
        }
        Some(Facts {
            received: Timestamp::from_millis(number(received)),
            initial_age_ms: length(initial_age)?,
            fresh_until: Timestamp::from_millis(number(fresh_until)),
            stale_while_revalidate_ms: length(revalidate)?,
            stale_if_error_ms: length(error)?,
            last_modified: (flags & 0b1000 != 0).then(|| Timestamp::from_millis(number(modified))),
            must_revalidate: flags & 0b0001 != 0,
            no_cache: flags & 0b0010 != 0,
            immutable: flags & 0b0100 != 0,
        })
    }

    /// Bytes of [`Facts::encode`]: the flags and six numbers.
    pub const ENCODED_LENGTH: usize = 1 + 6 * 8;
}

const MAX_AGE: Duration = Duration::from_secs(MAX_DELTA_SECONDS as u64);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn unknown_flags_and_negative_lengths_are_refused() {
        let mut bytes = Facts::default().encode();
        assert_eq!(Facts::decode(&bytes), Some(Facts::default()));
        bytes[0] = 0x10;
        assert_eq!(Facts::decode(&bytes), None);
        let negative = Facts { stale_if_error_ms: -1, ..Facts::default() };
        assert_eq!(Facts::decode(&negative.encode()), None);
    }

    proptest! {
        #[test]
        fn decodes_what_it_encodes(
            numbers in any::<[i64; 3]>(),
            lengths in [0..i64::MAX, 0..i64::MAX, 0..i64::MAX],
            flags in any::<[bool; 4]>(),
        ) {
            let facts = Facts {
                received: Timestamp::from_millis(numbers[0]),
                initial_age_ms: lengths[0],
                fresh_until: Timestamp::from_millis(numbers[1]),
                stale_while_revalidate_ms: lengths[1],
                stale_if_error_ms: lengths[2],
                last_modified: flags[3].then(|| Timestamp::from_millis(numbers[2])),
                must_revalidate: flags[0],
                no_cache: flags[1],
                immutable: flags[2],
            };
            prop_assert_eq!(Facts::decode(&facts.encode()), Some(facts));
        }

        #[test]
        fn total_on_arbitrary_bytes(start in any::<[u8; 32]>(), end in any::<[u8; 17]>(), now in any::<i64>()) {
            let mut bytes = [0; Facts::ENCODED_LENGTH];
            bytes[..32].copy_from_slice(&start);
            bytes[32..].copy_from_slice(&end);
            if let Some(facts) = Facts::decode(&bytes) {
                let now = Timestamp::from_millis(now);
                facts.age(now);
                facts.ttl(now);
                facts.stale_if_error_allowed(&RequestDirectives::default(), now);
            }
        }
    }
}
