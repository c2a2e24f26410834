//! The server that is expected to answer first.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use smallvec::SmallVec;

use super::{Candidate, least_by};

/// Milliseconds after which what was measured counts e times less.
const MEMORY: f32 = 10_000.0;
/// How long a server that has not answered yet is not favoured again, once it has been tried.
const PAUSE: u32 = 1_000;
/// What is expected of servers of which nobody knows anything, in microseconds. Only compared with itself.
const UNKNOWN: f32 = 1_000_000.0;
/// The least that is remembered: 0 is the word for none.
const LEAST: f32 = 0.001;

/// A moving average of a server's latency that follows peaks at once and forgets them slowly.
///
/// One word, so that readers need no lock and see an average with its own time: microseconds as `f32` above,
/// milliseconds (which may wrap) below.
#[derive(Debug, Default)]
pub(in crate::origin) struct Latency(AtomicU64);

/// What is known of a server's latency at some time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::origin) enum Reading {
    /// Microseconds.
    Average(f32),
    /// It has not answered yet. Whether it may be favoured, so that there is something to know.
    Unknown { wanted: bool },
}

impl Latency {
    /// The server has answered. `now`: in milliseconds.
    pub(in crate::origin) fn observe(&self, latency: Duration, now: u64) {
        let micros = (latency.as_secs_f64() * 1e6).min(f64::from(f32::MAX)) as f32;
        let micros = micros.max(LEAST);
        let update = |word| {
            let (average, then) = unpack(word);
            let average = if micros >= average {
                micros
            } else {
                let weight = memory(then, now as u32);
                (average * weight + micros * (1.0 - weight)).max(LEAST)
            };
            Some(pack(average, now as u32))
        };
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
    }

    /// The server gets a request.
    pub(in crate::origin) fn tried(&self, now: u64) {
        let word = self.0.load(Ordering::Relaxed);
        if unpack(word).0 == 0.0 {
            // Lost against an answer: that one says more.
            let _ = self.0.compare_exchange(word, pack(0.0, now as u32), Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// The average as time has worn it: a slow server that nobody asks any more is asked again some day.
    pub(in crate::origin) fn read(&self, now: u64) -> Reading {
        let word = self.0.load(Ordering::Relaxed);
        let (average, then) = unpack(word);
        if average == 0.0 {
            return Reading::Unknown { wanted: word == 0 || since(then, now as u32) >= PAUSE };
        }
        Reading::Average((average * memory(then, now as u32)).max(LEAST))
    }
}

/// The one with the least average, times the requests that it would have, for its weight; equal ones in `turn`. A server
/// that has not answered yet comes first once, and until it has counts as much as the slowest that has.
pub(in crate::origin) fn least(
    candidates: &[Candidate],
    reading: impl Fn(&Candidate) -> Reading,
    turn: usize,
) -> Option<usize> {
    let readings: SmallVec<[Reading; 16]> = candidates.iter().map(reading).collect();
    let known = readings.iter().filter_map(|reading| match reading {
        Reading::Average(micros) => Some(*micros),
        Reading::Unknown { .. } => None,
    });
    let slowest = known.reduce(f32::max).unwrap_or(UNKNOWN);
    let costs: SmallVec<[f64; 16]> = candidates
        .iter()
        .zip(&readings)
        .map(|(candidate, reading)| {
            let micros = match reading {
                Reading::Average(micros) => *micros,
                Reading::Unknown { wanted: true } if candidate.active == 0 => 0.0,
                Reading::Unknown { .. } => slowest,
            };
            f64::from(micros) * (candidate.active as f64 + 1.0) / candidate.weight.max(1) as f64
        })
        .collect();
    least_by(costs.len(), turn, |a, b| costs[a].total_cmp(&costs[b]))
}

fn pack(micros: f32, millis: u32) -> u64 {
    // A server that was tried at 0 is told from one that never was.
    (u64::from(micros.to_bits()) << 32) | u64::from(millis.max(1))
}

fn unpack(word: u64) -> (f32, u32) {
    (f32::from_bits((word >> 32) as u32), word as u32)
}

/// Milliseconds, over a wrap too. What is ahead of a clock that lags is now.
fn since(then: u32, now: u32) -> u32 {
    let passed = now.wrapping_sub(then);
    if passed > u32::MAX / 2 { 0 } else { passed }
}

/// What is left of a weight.
fn memory(then: u32, now: u32) -> f32 {
    (-(since(then, now) as f32) / MEMORY).exp()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::candidates;
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn average(latency: &Latency, now: u64) -> f32 {
        match latency.read(now) {
            Reading::Average(micros) => micros / 1000.0,
            Reading::Unknown { .. } => panic!("nothing is known"),
        }
    }

    #[test]
    fn a_peak_counts_at_once_and_fades() {
        let latency = Latency::default();
        latency.observe(ms(10), 1_000);
        assert_eq!(average(&latency, 1_000), 10.0);
        latency.observe(ms(500), 1_001);
        assert_eq!(average(&latency, 1_001), 500.0);
        latency.observe(ms(10), 1_001);
        assert_eq!(average(&latency, 1_001), 500.0, "no time has passed");
        latency.observe(ms(10), 11_001);
        // 500/e + 10(1 - 1/e)
        assert!((average(&latency, 11_001) - 190.26).abs() < 0.1, "{latency:?}");
        assert!((average(&latency, 21_001) - 190.26 / std::f32::consts::E).abs() < 0.1, "unasked it fades too");
    }

    #[test]
    fn it_survives_a_wrap_and_a_clock_that_lags() {
        let (latency, wrap) = (Latency::default(), u64::from(u32::MAX) + 1);
        latency.observe(ms(100), wrap - 5_000);
        assert!((average(&latency, wrap + 5_000) - 100.0 / std::f32::consts::E).abs() < 0.1);
        assert_eq!(average(&latency, wrap - 6_000), 100.0);
    }

    #[test]
    fn the_fastest_for_its_load_and_weight_is_taken() {
        let choose = |servers: &[(usize, usize, u64)]| {
            let shape: Vec<_> = servers.iter().map(|(weight, active, _)| (*weight, *active)).collect();
            least(&candidates(&shape), |c| Reading::Average(servers[c.position].2 as f32), 0)
        };
        assert_eq!(choose(&[(1, 0, 30), (1, 0, 10), (1, 0, 20)]), Some(1));
        assert_eq!(choose(&[(1, 0, 30), (1, 3, 10), (1, 0, 20)]), Some(2));
        assert_eq!(choose(&[(4, 0, 30), (1, 0, 10)]), Some(0));
        assert_eq!(choose(&[]), None);
    }

    #[test]
    fn an_unknown_server_is_tried_soon_and_not_flooded() {
        let (known, new) = (Latency::default(), Latency::default());
        known.observe(ms(5), 1_000);
        let latencies = [&known, &new];
        let choose = |active: [usize; 2], now| {
            least(&candidates(&active.map(|active| (1, active))), |c| latencies[c.position].read(now), 0)
        };
        assert_eq!(choose([0, 0], 1_000), Some(1));
        new.tried(1_000);
        assert_eq!(choose([0, 1], 1_000), Some(0), "it is being tried");
        assert_eq!(choose([2, 0], 1_000), Some(1), "it counts as much as what is known of others");
        assert_eq!(choose([0, 0], 1_010), Some(0), "it has failed");
        assert_eq!(choose([0, 0], 2_000), Some(1), "again, some time later");
        new.observe(ms(1), 2_001);
        new.tried(2_002);
        assert_eq!(new.read(2_001), Reading::Average(1_000.0), "an answer is not forgotten");
    }

    #[test]
    fn nothing_known_of_any_is_the_fewest_requests_in_turn() {
        let choose = |active: [usize; 3], turn| {
            let servers = candidates(&active.map(|active| (1, active)));
            least(&servers, |_| Reading::Unknown { wanted: false }, turn).unwrap()
        };
        assert_eq!(choose([2, 1, 2], 0), 1);
        assert_eq!([0, 1, 2, 3].map(|turn| choose([1, 1, 1], turn)), [0, 1, 2, 0]);
    }

    /// Servers that take each so long, one request after the other is sent every millisecond.
    fn simulate(times: &[u64], requests: usize, use_latency: bool) -> Vec<usize> {
        let latencies: Vec<Latency> = times.iter().map(|_| Latency::default()).collect();
        let mut in_flight: Vec<(u64, usize)> = Vec::new();
        let mut counts = vec![0; times.len()];
        for now in 1..=requests as u64 {
            in_flight.retain(|(end, server)| {
                let done = *end <= now;
                if done {
                    latencies[*server].observe(ms(times[*server]), now);
                }
                !done
            });
            let active = |server| in_flight.iter().filter(|(_, of)| *of == server).count();
            let shape: Vec<_> = (0..times.len()).map(|server| (1, active(server))).collect();
            let servers = candidates(&shape);
            let chosen = match use_latency {
                true => least(&servers, |c| latencies[c.position].read(now), now as usize).unwrap(),
                false => now as usize % times.len(),
            };
            latencies[chosen].tried(now);
            counts[chosen] += 1;
            in_flight.push((now + times[chosen], chosen));
        }
        counts
    }

    #[test]
    fn a_slow_server_of_three_gets_less_than_one_in_a_hundred() {
        let counts = simulate(&[5, 5, 300], 20_000, true);
        assert!(counts[2] * 100 < 20_000, "{counts:?}");
        assert!(counts[2] > 1, "it is looked at now and then: {counts:?}");
        assert!(counts[0].abs_diff(counts[1]) < 2_000, "{counts:?}");
        assert_eq!(simulate(&[5, 5, 300], 3_000, false), [1_000; 3]);
    }

    proptest! {
        #[test]
        fn an_average_stays_within_what_was_seen(samples in proptest::collection::vec((0u64..100_000, 0u64..50_000), 1..50)) {
            let (latency, mut now) = (Latency::default(), 1);
            let (mut least, mut most) = (u64::MAX, 0);
            for (micros, pause) in samples {
                now += pause;
                latency.observe(Duration::from_micros(micros), now);
                (least, most) = (least.min(micros), most.max(micros));
                let average = average(&latency, now) * 1000.0;
                prop_assert!(average >= least as f32 * 0.999 && average <= (most as f32).max(LEAST) * 1.001);
            }
        }
    }
}
