//! Overload: some requests are given up for the sake of the others.
//!
//! Three things are looked at, each by a setting of its own: requests in flight, how late the event loop is, and the
//! process's memory. A first threshold gives up what would go to an origin, a second one everything: what is in the cache
//! costs little, and is what most clients want. Whoever is refused gets a 503 with Retry-After, at once.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::StatusCode;
use log::{info, warn};
use tokio::time::{Instant, sleep_until};

use super::respond::Answer;
use crate::config::model;

/// How often the event loop's delay is measured where there is a limit on it, and where there is none.
const PROBE: Duration = Duration::from_millis(10);
const SELDOM: Duration = Duration::from_millis(100);

/// How often memory is looked at.
const MEMORY_PROBE: Duration = Duration::from_millis(250);

/// How much longer a sleep may be than asked for without anybody being late: the timer's own grain.
const GRAIN: Duration = Duration::from_millis(2);

/// An overload is over when nobody has been refused for so long: so the log does not follow a load that wavers.
const CALM: Duration = Duration::from_secs(5);

/// The load of the process, and what is made of it.
pub struct Overload {
    settings: ArcSwap<model::Overload>,
    in_flight: AtomicUsize,
    /// How late the event loop is, smoothed; microseconds.
    delay: AtomicU64,
    /// Resident memory, in bytes; 0: nobody asked.
    memory: AtomicU64,
    shed: [AtomicU64; Reason::ALL.len()],
}

/// A request in flight, for as long as this lives.
#[must_use = "the request is in flight only while this lives"]
pub struct Flight(Arc<Overload>);

/// What there is too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Requests,
    Delay,
    Memory,
}

/// A request is to be refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shed {
    pub reason: Reason,
    /// For the log: what there is, and what there may be.
    pub detail: String,
    /// When to ask again.
    pub retry_after: Duration,
}

/// The load at one moment.
#[derive(Clone, Copy, Debug)]
struct Load {
    /// With the request that is looked at.
    in_flight: usize,
    delay: Duration,
    memory: u64,
}

impl Reason {
    pub const ALL: [Reason; 3] = [Reason::Requests, Reason::Delay, Reason::Memory];

    /// The value of the metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Requests => "requests",
            Reason::Delay => "delay",
            Reason::Memory => "memory",
        }
    }
}

impl Overload {
    /// With these settings; [`Overload::run`] measures.
    pub fn new(settings: model::Overload) -> Arc<Overload> {
        Arc::new(Overload {
            settings: ArcSwap::from_pointee(settings),
            in_flight: AtomicUsize::new(0),
            delay: AtomicU64::new(0),
            memory: AtomicU64::new(0),
            shed: Default::default(),
        })
    }

    /// Other settings, from now on.
    pub fn set(&self, settings: model::Overload) {
        self.settings.store(Arc::new(settings));
    }

    /// Counts a request, where requests are limited: otherwise all threads would meet at one counter for nothing.
    pub fn enter(self: &Arc<Overload>) -> Option<Flight> {
        self.settings.load().requests?;
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Some(Flight(self.clone()))
    }

    /// Whether a request that has entered is to be refused: one that the cache answers, or another. Counts it, if so.
    pub fn verdict(&self, is_hit: bool) -> Option<Shed> {
        let settings = self.settings.load();
        let load = self.load();
        let reason = judge(&load, &settings, is_hit)?;
        self.shed[reason as usize].fetch_add(1, Ordering::Relaxed);
        let detail = match reason {
            Reason::Requests => {
                format!("{} requests in flight, overload.requests is {}", load.in_flight, shown(settings.requests))
            }
            Reason::Delay => {
                let limit = settings.delay.unwrap_or_default();
                format!("the event loop is {:?} late, overload.delay is {limit:?}", load.delay)
            }
            Reason::Memory => {
                format!("{} bytes of memory, overload.memory is {}", load.memory, shown(settings.memory))
            }
        };
        Some(Shed { reason, detail: format!("overload: {detail}"), retry_after: settings.retry_after })
    }

    /// Whether anything that goes to an origin is refused now. Counts nothing.
    pub fn is_pressing(&self) -> bool {
        judge(&self.load(), &self.settings.load(), false).is_some()
    }

    /// How late the event loop is: over the last moments, and rather what it was at its worst.
    pub fn delay(&self) -> Duration {
        Duration::from_micros(self.delay.load(Ordering::Relaxed))
    }

    /// Requests that have been refused.
    pub fn shed(&self, reason: Reason) -> u64 {
        self.shed[reason as usize].load(Ordering::Relaxed)
    }

    /// Measures, again and again, until dropped.
    ///
    /// One task for all workers: a task runs on whichever is free, so what is measured is how long anything has to wait for
    /// a turn.
    pub async fn run(self: Arc<Overload>) {
        let mut alarm = Alarm::default();
        let mut memory_at = Instant::now();
        let mut memory = None;
        loop {
            let (measures_delay, measures_memory) = {
                let settings = self.settings.load();
                (settings.delay.is_some(), settings.memory.is_some())
            };
            let due = Instant::now() + if measures_delay { PROBE } else { SELDOM };
            sleep_until(due).await;
            let now = Instant::now();
            let late = now.saturating_duration_since(due).saturating_sub(GRAIN);
            self.delay.store(smooth(self.delay.load(Ordering::Relaxed), micros(late)), Ordering::Relaxed);
            if measures_memory && now >= memory_at {
                memory_at = now + MEMORY_PROBE;
                self.memory.store(memory.get_or_insert_with(Memory::new).resident(), Ordering::Relaxed);
            } else if !measures_memory {
                self.memory.store(0, Ordering::Relaxed);
            }
            let shed = Reason::ALL.map(|reason| self.shed(reason));
            match alarm.look(&shed, now) {
                Some(Change::Begun(reason)) => {
                    warn!("overload: requests are refused (overload.{})", reason.as_str());
                }
                Some(Change::Over(count)) => info!("overload: over; {count} requests were refused"),
                None => {}
            }
        }
    }

    fn load(&self) -> Load {
        Load {
            in_flight: self.in_flight.load(Ordering::Relaxed),
            delay: self.delay(),
            memory: self.memory.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl From<Shed> for Answer {
    fn from(shed: Shed) -> Answer {
        let text = "The server has more to do than it can.";
        Answer::new(StatusCode::SERVICE_UNAVAILABLE, text, shed.detail).retry_after(shed.retry_after)
    }
}

/// What there is too much of for a request, of the cache or not.
fn judge(load: &Load, settings: &model::Overload, is_hit: bool) -> Option<Reason> {
    let requests = settings.requests.map(|limit| if is_hit { limit.saturating_mul(2) } else { limit });
    if requests.is_some_and(|limit| load.in_flight > limit) {
        return Some(Reason::Requests);
    }
    let delay = settings.delay.map(|limit| if is_hit { limit.saturating_mul(2) } else { limit });
    if delay.is_some_and(|limit| load.delay > limit) {
        return Some(Reason::Delay);
    }
    let memory = settings.memory.map(|limit| if is_hit { limit.saturating_add(limit / 8) } else { limit });
    memory.is_some_and(|limit| load.memory > limit).then_some(Reason::Memory)
}

/// Goes up with two samples, and down with some twenty: one that is late by chance refuses nobody for long, and a loop that
/// is late again and again is seen at once.
fn smooth(before: u64, sample: u64) -> u64 {
    match sample > before {
        true => before + (sample - before) / 2,
        false => before - (before - sample).div_ceil(8),
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn shown<T: ToString>(limit: Option<T>) -> String {
    limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string())
}

/// Says when an overload begins and when it is over.
#[derive(Default)]
struct Alarm {
    shed: [u64; Reason::ALL.len()],
    /// When requests were last refused, and how many since it began.
    since: Option<(Instant, u64)>,
}

#[derive(Debug, PartialEq, Eq)]
enum Change {
    Begun(Reason),
    /// So many requests were refused.
    Over(u64),
}

impl Alarm {
    /// So many requests have been refused by `now`, for each reason.
    fn look(&mut self, shed: &[u64; Reason::ALL.len()], now: Instant) -> Option<Change> {
        let before = std::mem::replace(&mut self.shed, *shed);
        let new = |at: usize| shed[at].saturating_sub(before[at]);
        let count = (0..shed.len()).map(new).sum::<u64>();
        let reason = Reason::ALL.into_iter().find(|reason| new(*reason as usize) > 0);
        match (reason, self.since) {
            (Some(reason), since) => {
                self.since = Some((now, since.map_or(0, |(_, before)| before) + count));
                since.is_none().then_some(Change::Begun(reason))
            }
            (None, Some((last, count))) if now.saturating_duration_since(last) >= CALM => {
                self.since = None;
                Some(Change::Over(count))
            }
            (None, _) => None,
        }
    }
}

/// The process's memory, as the kernel tells it in a few microseconds.
struct Memory {
    file: io::Result<File>,
    page: u64,
}

impl Memory {
    fn new() -> Memory {
        let file = File::open("/proc/self/statm");
        if let Err(e) = &file {
            warn!("overload.memory is without effect: /proc/self/statm: {e}");
        }
        Memory { file, page: rustix::param::page_size() as u64 }
    }

    /// In bytes; 0: unknown.
    fn resident(&self) -> u64 {
        let Ok(file) = &self.file else { return 0 };
        let mut text = [0; 128];
        let Ok(length) = file.read_at(&mut text, 0) else { return 0 };
        pages(text.get(..length).unwrap_or_default()).unwrap_or(0).saturating_mul(self.page)
    }
}

/// The second number of `statm`.
fn pages(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: model::Overload =
        model::Overload { requests: None, delay: None, memory: None, retry_after: Duration::from_secs(7) };
    const IDLE: Load = Load { in_flight: 1, delay: Duration::ZERO, memory: 1 << 20 };

    #[test]
    fn hits_are_refused_last() {
        let settings = model::Overload {
            requests: Some(10),
            delay: Some(Duration::from_millis(50)),
            memory: Some(8 << 30),
            ..NONE
        };
        let judge = |load| (judge(&load, &settings, false), judge(&load, &settings, true));
        assert_eq!(judge(IDLE), (None, None));
        let requests = |in_flight| judge(Load { in_flight, ..IDLE });
        assert_eq!(requests(10), (None, None));
        assert_eq!(requests(11), (Some(Reason::Requests), None));
        assert_eq!(requests(20), (Some(Reason::Requests), None));
        assert_eq!(requests(21), (Some(Reason::Requests), Some(Reason::Requests)));
        let delay = |millis| judge(Load { delay: Duration::from_millis(millis), ..IDLE });
        assert_eq!(delay(50), (None, None));
        assert_eq!(delay(51), (Some(Reason::Delay), None));
        assert_eq!(delay(101), (Some(Reason::Delay), Some(Reason::Delay)));
        let memory = |memory| judge(Load { memory, ..IDLE });
        assert_eq!(memory(8 << 30), (None, None));
        assert_eq!(memory((8 << 30) + 1), (Some(Reason::Memory), None));
        assert_eq!(memory((9 << 30) + 1), (Some(Reason::Memory), Some(Reason::Memory)));
    }

    #[test]
    fn what_is_not_limited_is_not_looked_at() {
        let load = Load { in_flight: usize::MAX, delay: Duration::MAX, memory: u64::MAX };
        assert_eq!((judge(&load, &NONE, false), judge(&load, &NONE, true)), (None, None));
        assert!(Overload::new(NONE).enter().is_none());
    }

    #[test]
    fn requests_in_flight_are_counted() {
        let overload = Overload::new(model::Overload { requests: Some(2), ..NONE });
        let first = overload.enter();
        let _second = overload.enter();
        assert_eq!(overload.verdict(false), None);
        assert!(!overload.is_pressing());
        let third = overload.enter();
        let shed = overload.verdict(false).unwrap();
        assert_eq!(shed.retry_after, Duration::from_secs(7));
        assert_eq!(shed.detail, "overload: 3 requests in flight, overload.requests is 2");
        assert!(overload.is_pressing());
        assert_eq!(overload.verdict(true), None);
        drop((first, third));
        assert_eq!(overload.verdict(false), None);
        assert_eq!(Reason::ALL.map(|reason| overload.shed(reason)), [1, 0, 0]);
        // Those that entered under a limit leave without one.
        overload.set(NONE);
        assert_eq!(overload.verdict(false), None);
    }

    #[test]
    fn one_late_sample_is_soon_forgotten() {
        let mut delay = smooth(0, 100_000);
        assert_eq!(delay, 50_000);
        let rounds = (0..).take_while(|_| {
            delay = smooth(delay, 0);
            delay > 10_000
        });
        assert_eq!(rounds.count(), 12);
        for _ in 0..200 {
            delay = smooth(delay, 0);
        }
        assert_eq!(delay, 0);
        for _ in 0..6 {
            delay = smooth(delay, 100_000);
        }
        assert!(delay > 98_000, "{delay}");
        assert_eq!(smooth(u64::MAX, 0), u64::MAX - u64::MAX.div_ceil(8));
        assert_eq!(smooth(0, u64::MAX), u64::MAX / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn the_log_hears_of_begin_and_end() {
        let mut alarm = Alarm::default();
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        assert_eq!(alarm.look(&[0, 0, 0], at(0)), None);
        assert_eq!(alarm.look(&[0, 3, 0], at(1)), Some(Change::Begun(Reason::Delay)));
        assert_eq!(alarm.look(&[0, 3, 0], at(5)), None);
        assert_eq!(alarm.look(&[1, 3, 0], at(5)), None);
        assert_eq!(alarm.look(&[1, 3, 0], at(9)), None);
        assert_eq!(alarm.look(&[1, 3, 0], at(10)), Some(Change::Over(4)));
        assert_eq!(alarm.look(&[1, 3, 0], at(20)), None);
        assert_eq!(alarm.look(&[1, 3, 9], at(30)), Some(Change::Begun(Reason::Memory)));
    }

    #[test]
    fn memory_is_what_the_kernel_says() {
        assert_eq!(pages(b"2000 300 50 1 0 99 0\n"), Some(300));
        assert_eq!((pages(b""), pages(b"1"), pages(b"1 x"), pages(b"\xff \xff")), (None, None, None, None));
        let (before, held) = (Memory::new().resident(), vec![1u8; 64 << 20]);
        assert!(before > 1 << 20, "{before}");
        let after = Memory::new().resident();
        assert!(after > 64 << 20, "{before} {after} {}", held.len());
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_is_late_is_noticed() {
        let overload =
            Overload::new(model::Overload { delay: Some(Duration::from_millis(20)), memory: Some(1), ..NONE });
        let running = tokio::spawn(overload.clone().run());
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(overload.delay(), Duration::ZERO);
        // A process has more memory than a byte.
        assert_eq!(overload.verdict(true).unwrap().reason, Reason::Memory);
        overload.set(model::Overload { delay: Some(Duration::from_millis(20)), ..NONE });
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(overload.verdict(true), None);
        // Something keeps the only thread for half a second.
        tokio::time::advance(Duration::from_millis(500)).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        let shed = overload.verdict(true).unwrap();
        assert_eq!(shed.reason, Reason::Delay);
        assert!(overload.is_pressing());
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(overload.verdict(false), None);
        running.abort();
    }
}
