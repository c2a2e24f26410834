//! What the requests that a server gets say about it: the rules, without a clock and without a pool.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::window::{Totals, Window};
use crate::config::model::Outliers;
use crate::config::show_duration;
use crate::origin::balance::clock::millis;
use crate::origin::failure::FailureKind;

/// What became of one try of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub result: TryResult,
    /// From the choice of the server to the answer's head, or to the failure.
    pub latency: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryResult {
    /// The head of an answer has come, with this status.
    Answered(u16),
    /// [`FailureKind::Other`] is not held against the server: it may be anybody's.
    Failed(FailureKind),
}

/// What is known of one server. Times are the choices' clock's ([`crate::origin::balance::clock`]), in milliseconds and
/// never 0.
#[derive(Debug, Default)]
pub(in crate::origin) struct Record {
    /// Failures.
    in_a_row: AtomicU32,
    window: Window,
    /// Of the newest ejection; 0: there was none.
    ejected_at: AtomicU64,
    /// The end of an ejection that is not yet known to have ended; 0: there is none.
    until: AtomicU64,
    ejections: AtomicU64,
    backoff: Mutex<Backoff>,
}

impl Record {
    /// Notes an answer. The clock is read where the rules look at times at all.
    pub(super) fn answered(&self, rules: &Outliers, latency: Duration, now: impl FnOnce() -> u64) {
        // Read first: a server that is well costs no write that other processors would see.
        if self.in_a_row.load(Ordering::Relaxed) != 0 {
            self.in_a_row.store(0, Ordering::Relaxed);
        }
        if looks_back(rules) {
            self.window.add(millis(rules.window), now(), Some(latency));
        }
    }

    /// Notes a failure after so long; the reason why the server is to be ejected, where the rules want that.
    pub(super) fn failed(&self, rules: &Outliers, failure: Failure, latency: Duration, now: u64) -> Option<String> {
        // What began before the server was ejected has been judged with it.
        let began = now.saturating_sub(millis(latency));
        if self.is_ejected(now) || began < self.ejected_at.load(Ordering::Relaxed) {
            return None;
        }
        let in_a_row = self.in_a_row.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if looks_back(rules) {
            self.window.add(millis(rules.window), now, None);
        }
        if rules.consecutive_failures.is_some_and(|most| in_a_row >= most) {
            return Some(format!("{in_a_row} failures in a row, the last: {failure}"));
        }
        let most = u64::from(rules.failure_rate?);
        let Totals { requests, failures, .. } = self.totals(rules, now);
        (requests >= u64::from(rules.min_requests) && failures * 100 >= requests * most).then(|| {
            let window = show_duration(rules.window);
            format!("{failures} failures of {requests} requests within {window}, the last: {failure}")
        })
    }

    /// Sums over the window of the rules.
    pub(super) fn totals(&self, rules: &Outliers, now: u64) -> Totals {
        self.window.totals(millis(rules.window), now)
    }

    /// Takes it out; for how long.
    pub(super) fn eject(&self, rules: &Outliers, now: u64) -> Duration {
        let length = self.backoff.lock().unwrap_or_else(PoisonError::into_inner).eject(rules, now);
        self.ejected_at.store(now, Ordering::Relaxed);
        self.until.store(now.saturating_add(length).max(1), Ordering::Relaxed);
        self.ejections.fetch_add(1, Ordering::Relaxed);
        // It begins anew as it returns.
        self.in_a_row.store(0, Ordering::Relaxed);
        self.window.clear();
        Duration::from_millis(length)
    }

    /// Notes that an ejection has ended by now; whether one has, since nobody has noted it.
    pub(super) fn end(&self, now: u64) -> bool {
        let until = self.until.load(Ordering::Relaxed);
        until != 0
            && until <= now
            && self.until.compare_exchange(until, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// The end of the ejection that is not yet noted to have ended.
    pub(in crate::origin) fn until(&self) -> Option<u64> {
        Some(self.until.load(Ordering::Relaxed)).filter(|until| *until != 0)
    }

    pub(in crate::origin) fn is_ejected(&self, now: u64) -> bool {
        now < self.until.load(Ordering::Relaxed)
    }

    /// Whether it may be ejected: what needs a clock can be left out where not.
    pub(in crate::origin) fn may_be_ejected(&self) -> bool {
        self.until.load(Ordering::Relaxed) != 0
    }

    /// Since the server is known.
    pub(in crate::origin) fn ejections(&self) -> u64 {
        self.ejections.load(Ordering::Relaxed)
    }
}

/// How long ejections take.
#[derive(Debug, Default)]
struct Backoff {
    /// How often the next one is doubled.
    doublings: u32,
    /// When the last ejection ended, and later, when a doubling was last taken back.
    calm_since: u64,
}

impl Backoff {
    /// The length of an ejection that begins now, in milliseconds.
    fn eject(&mut self, rules: &Outliers, now: u64) -> u64 {
        let (first, longest) = (millis(rules.ejection_time).max(1), millis(rules.max_ejection_time).max(1));
        let calm = now.saturating_sub(self.calm_since) / first;
        self.doublings = self.doublings.saturating_sub(u32::try_from(calm).unwrap_or(u32::MAX));
        let factor = 1u64.checked_shl(self.doublings).unwrap_or(u64::MAX);
        let length = first.saturating_mul(factor).min(longest);
        // Once at its longest it stays there, and comes down from there.
        if length < longest {
            self.doublings += 1;
        }
        self.calm_since = now.saturating_add(length);
        length
    }
}

/// How many of so many servers may be ejected at once.
pub(super) fn most_ejected(servers: usize, percent: u8) -> usize {
    let share = servers * usize::from(percent.min(100)) / 100;
    if servers > 1 && percent > 0 { share.max(1) } else { share }
}

/// Those whose mean latency is above `limit` and above twice the median of the others', the slowest first, each with
/// that median. Nobody is slow alone.
pub(super) fn slow(means: &[Duration], limit: Duration) -> Vec<(usize, Duration)> {
    let mut slow: Vec<(usize, Duration)> = Vec::new();
    for (position, mean) in means.iter().enumerate().filter(|(_, mean)| **mean > limit) {
        let others = means.iter().enumerate().filter(|(other, _)| *other != position).map(|(_, mean)| *mean);
        if let Some(median) = median(others.collect()).filter(|median| *mean > median.saturating_mul(2)) {
            slow.push((position, median));
        }
    }
    slow.sort_by_key(|(position, _)| std::cmp::Reverse(means.get(*position)));
    slow
}

/// The lower one of two in the middle.
fn median(mut values: Vec<Duration>) -> Option<Duration> {
    values.sort_unstable();
    values.get(values.len().saturating_sub(1) / 2).copied()
}

/// Whether the rules need to know more than the failures in a row.
fn looks_back(rules: &Outliers) -> bool {
    rules.failure_rate.is_some() || rules.latency.is_some()
}

impl Outcome {
    /// What it says about the server: `None` where it says nothing.
    pub(super) fn verdict(&self, rules: &Outliers) -> Option<Result<(), Failure>> {
        match self.result {
            TryResult::Failed(FailureKind::Other) => None,
            TryResult::Failed(kind) => Some(Err(Failure::Kind(kind))),
            TryResult::Answered(status) if is_within(&rules.failure_statuses, status) => {
                Some(Err(Failure::Status(status)))
            }
            TryResult::Answered(_) => Some(Ok(())),
        }
    }
}

/// What is held against a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    Kind(FailureKind),
    Status(u16),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Failure::Status(status) => return write!(f, "status {status}"),
            Failure::Kind(FailureKind::Connect) => "no connection",
            Failure::Kind(FailureKind::ConnectTimeout) => "no connection in time",
            Failure::Kind(FailureKind::Tls) => "no TLS connection",
            Failure::Kind(FailureKind::Timeout) => "no answer in time",
            Failure::Kind(FailureKind::Reset) => "the connection ended before the answer did",
            Failure::Kind(FailureKind::Invalid) => "an answer that is not HTTP",
            Failure::Kind(FailureKind::Status) => "its status",
            Failure::Kind(FailureKind::Other) => "another failure",
        })
    }
}

/// Whether a status is in one of the ranges, both ends included.
pub(super) fn is_within(ranges: &[(u16, u16)], status: u16) -> bool {
    ranges.iter().any(|(first, last)| (*first..=*last).contains(&status))
}

#[cfg(test)]
mod tests;
