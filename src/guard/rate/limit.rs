//! Rates, by the generic cell rate algorithm: a bucket of tokens that needs one number for each key.
//!
//! A key owes the time that its requests are worth (see [`super::table`]). One request is worth `per / requests`; a key
//! that owes more than `burst - 1` of them is over its rate. All of that is in fractions whose denominator is `requests`:
//! nothing is rounded, whatever the rate, and nothing drifts.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::key::{KeyHash, Keys};
use super::table::{CAPACITY, Moment, Table};
use crate::config::model::{OverRate, RateLimit};
use crate::guard::Asked;
use crate::guard::signed::Grant;

/// What has been counted under all rate limits of the process.
///
/// It outlives reloads: a limit whose name, key and rate stay goes on with what it has counted.
#[derive(Debug)]
pub struct Limiter {
    table: Table,
}

/// What a limit says of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is within the rate, and has been counted.
    Within {
        /// How many more may come at once now.
        remaining: u64,
        /// Until the whole burst may come at once again.
        reset: Duration,
    },
    /// It is to wait so long, and has been counted.
    Wait {
        wait: Duration,
        /// As above.
        reset: Duration,
    },
    /// It is beyond the rate, and has not been counted.
    Over {
        /// Until another one would be let through, at once or to wait, if none comes meanwhile.
        retry_after: Duration,
    },
}

/// What several limits say of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Of each limit that has been asked, in their order: all of them, or those up to the one that rejects.
    pub verdicts: SmallVec<[Verdict; 2]>,
    /// The place of the limit that rejects the request, and how long until it would let one through.
    pub rejected: Option<(usize, Duration)>,
    /// How long the request is to wait before it goes on: as long as the slowest says.
    pub wait: Duration,
}

impl Limiter {
    /// With room for about two million keys in debt, in 32 MiB that are taken as they are used.
    pub fn new() -> Limiter {
        Limiter::with_capacity(CAPACITY)
    }

    /// With so many bytes, rounded up to a power of two.
    pub fn with_capacity(bytes: usize) -> Limiter {
        Limiter { table: Table::new(bytes) }
    }

    /// Counts a request under its limits, each of which must let it through. `now` counts from anything that stays, such as
    /// the start of the process.
    ///
    /// The first limit that rejects it ends that, and those before it get back what it has cost: a request that is not
    /// served costs nothing, as with nginx. Limits that only log reject nothing, and count what they would let through.
    pub fn judge(
        &self,
        limits: &[Arc<RateLimit>],
        keys: &Keys,
        asked: &Asked<'_>,
        grant: Option<&Grant>,
        now: Duration,
    ) -> Judgement {
        let mut judgement = Judgement { verdicts: SmallVec::new(), rejected: None, wait: Duration::ZERO };
        let mut counted: SmallVec<[(&RateLimit, KeyHash); 2]> = SmallVec::new();
        for (place, limit) in limits.iter().enumerate() {
            let key = keys.of(&limit.name, &limit.key, asked, grant);
            let verdict = self.check(limit, key, now);
            judgement.verdicts.push(verdict);
            match verdict {
                Verdict::Within { .. } => counted.push((limit, key)),
                Verdict::Wait { wait, .. } => {
                    counted.push((limit, key));
                    judgement.wait = judgement.wait.max(wait);
                }
                Verdict::Over { .. } if limit.action == OverRate::Log => {}
                Verdict::Over { retry_after } => {
                    judgement.rejected = Some((place, retry_after));
                    judgement.wait = Duration::ZERO;
                    counted.iter().for_each(|(limit, key)| self.give_back(limit, *key));
                    return judgement;
                }
            }
        }
        judgement
    }

    /// Counts a request under one limit. A clock that goes back makes debts look larger than they are, and no more.
    pub fn check(&self, limit: &RateLimit, key: KeyHash, now: Duration) -> Verdict {
        let rate = Rate::of(limit);
        let clock = now_ns(now);
        let now = Moment { ns: clock, part: 0 };
        let latest = rate.add(now, rate.worth(limit.burst.saturating_sub(1)));
        let patience = match limit.action {
            OverRate::Delay(patience) => now_ns(patience),
            OverRate::Reject | OverRate::Log => 0,
        };
        let empty = rate.add(now, rate.worth(limit.burst));
        let most = Moment { ns: empty.ns.saturating_add(patience), ..empty };
        self.table.charge(rate.apart(key), clock, most, |owes| {
            let start = owes.max(now);
            let then = rate.add(start, rate.worth(1));
            if start <= latest {
                let remaining = rate.how_many(rate.since(empty, then));
                return (Some(then), Verdict::Within { remaining, reset: rate.duration(rate.since(then, now)) });
            }
            let wait = rate.since(start, latest);
            if wait <= (Moment { ns: patience, part: 0 }) {
                let (wait, reset) = (rate.duration(wait), rate.duration(rate.since(then, now)));
                return (Some(then), Verdict::Wait { wait, reset });
            }
            let retry_after = rate.duration(rate.since(wait, Moment { ns: patience, part: 0 }));
            (None, Verdict::Over { retry_after })
        })
    }

    /// Takes back that a request has been counted, since nothing came of it.
    pub fn give_back(&self, limit: &RateLimit, key: KeyHash) {
        let rate = Rate::of(limit);
        self.table.change(rate.apart(key), |owes| rate.since(owes, rate.worth(1)));
    }

    /// Bytes that the counts take.
    pub fn bytes(&self) -> usize {
        self.table.bytes()
    }

    /// How many keys that were in debt have had to make room for others: where this grows, strangers may be rejected before
    /// they have had their burst.
    pub fn evicted(&self) -> u64 {
        self.table.evicted()
    }
}

impl Default for Limiter {
    fn default() -> Self {
        Limiter::new()
    }
}

/// A rate, and arithmetic with what is a multiple of `1 / requests` nanoseconds.
#[derive(Clone, Copy)]
struct Rate {
    /// At least 1.
    requests: u32,
    /// In nanoseconds, at least 1.
    per: u64,
}

impl Rate {
    fn of(limit: &RateLimit) -> Rate {
        Rate { requests: limit.requests.max(1), per: now_ns(limit.per).max(1) }
    }

    /// The key under limits of this rate alone: what has been counted in other units says nothing here.
    fn apart(self, key: KeyHash) -> u64 {
        // Odd, and the digits of the golden ratio: for each rate, another permutation of all hashes.
        const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;
        key.0 ^ (self.per ^ u64::from(self.requests).rotate_left(40)).wrapping_mul(SPREAD)
    }

    /// What so many requests are worth.
    fn worth(self, requests: u32) -> Moment {
        self.moment(u128::from(self.per) * u128::from(requests))
    }

    /// From units of `1 / requests` nanoseconds.
    fn moment(self, units: u128) -> Moment {
        let requests = u64::from(self.requests);
        match u64::try_from(units) {
            // Nearly always, and much cheaper.
            Ok(units) => Moment { ns: units / requests, part: (units % requests) as u32 },
            Err(_) => {
                let requests = u128::from(requests);
                Moment { ns: u64::try_from(units / requests).unwrap_or(u64::MAX), part: (units % requests) as u32 }
            }
        }
    }

    fn add(self, a: Moment, b: Moment) -> Moment {
        let part = u64::from(a.part) + u64::from(b.part);
        let requests = u64::from(self.requests);
        let carry = part >= requests;
        let part = (if carry { part - requests } else { part }) as u32;
        Moment { ns: a.ns.saturating_add(b.ns).saturating_add(u64::from(carry)), part }
    }

    /// From `b` to `a`; nothing where that is later.
    fn since(self, a: Moment, b: Moment) -> Moment {
        match a.part.checked_sub(b.part) {
            _ if a <= b => Moment::default(),
            Some(part) => Moment { ns: a.ns.saturating_sub(b.ns), part },
            None => {
                let part = u64::from(a.part) + u64::from(self.requests) - u64::from(b.part);
                Moment { ns: a.ns.saturating_sub(b.ns).saturating_sub(1), part: part as u32 }
            }
        }
    }

    /// How many requests fit into a time.
    fn how_many(self, time: Moment) -> u64 {
        let units = u128::from(time.ns) * u128::from(self.requests) + u128::from(time.part);
        match u64::try_from(units) {
            Ok(units) => units / self.per,
            Err(_) => u64::try_from(units / u128::from(self.per)).unwrap_or(u64::MAX),
        }
    }

    /// Rounded up: who waits so long has waited long enough.
    fn duration(self, time: Moment) -> Duration {
        Duration::from_nanos(time.ns.saturating_add(u64::from(time.part > 0)))
    }
}

fn now_ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
