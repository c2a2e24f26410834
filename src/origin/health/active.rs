//! Active health checks: one task per server address.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::probe::{Checks, Probe};
use crate::config::model::HealthCheck;
use crate::origin::member::Member;

/// However an interval is set, checks do not spin, and no sum of times overflows.
const MIN_INTERVAL: Duration = Duration::from_millis(5);
const MAX_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// Checks one server until the task is dropped: at once, and then every interval. A server counts as healthy until
/// the first `unhealthy_after` checks in a row have failed. `changed` is called after each change.
pub(in crate::origin) async fn watch(name: &str, checks: &Checks, member: &Member, changed: impl Fn()) {
    let check = &checks.check;
    let probe = match Probe::new(checks, member.endpoint(), &member.found.text) {
        Ok(probe) => probe,
        Err(e) => {
            log::error!("origin {name}: no health checks of {}: {e}", member.found.text);
            return;
        }
    };
    let mut streak = Streak::default();
    // All begin at once: a first pause of any length keeps them apart from then on.
    let mut share = random();
    loop {
        let started = Instant::now();
        let outcome = probe.ask().await;
        if note(member, &mut streak, &outcome, check) {
            changed();
            log_change(name, member, check, &outcome);
        }
        let interval = if member.is_healthy() { check.interval } else { check.interval_down };
        sleep_until(started + pause(interval, check.jitter, random()).mul_f64(share)).await;
        share = 1.0;
    }
}

/// Takes what a check has found; whether that changes the server's state.
fn note(member: &Member, streak: &mut Streak, outcome: &Result<(), String>, check: &HealthCheck) -> bool {
    let health = &member.state.health;
    let flip = streak.observe(outcome.is_ok(), member.is_healthy(), check);
    if let Err(reason) = outcome {
        health.last_error.set(Some(reason.clone()));
    }
    let is_change = flip.is_some_and(|healthy| health.set_healthy(healthy));
    // Recovered, be it from fewer failures than make it unhealthy.
    if outcome.is_ok() && member.is_healthy() {
        health.last_error.set(None);
    }
    is_change
}

fn log_change(origin: &str, member: &Member, check: &HealthCheck, outcome: &Result<(), String>) {
    let (server, addr) = (&member.found.text, member.endpoint());
    match outcome {
        Ok(()) => log::info!("origin {origin}: server {server} ({addr}) is healthy again"),
        Err(reason) => log::warn!(
            "origin {origin}: server {server} ({addr}) is unhealthy after {} failed checks: {reason}",
            check.unhealthy_after
        ),
    }
}

/// Outcomes in a row that contradict the state.
#[derive(Debug, Default)]
struct Streak(usize);

impl Streak {
    /// The new state, where this outcome is the one that changes it.
    fn observe(&mut self, success: bool, healthy: bool, check: &HealthCheck) -> Option<bool> {
        if success == healthy {
            self.0 = 0;
            return None;
        }
        self.0 += 1;
        if self.0 < if success { check.healthy_after } else { check.unhealthy_after } {
            return None;
        }
        self.0 = 0;
        Some(success)
    }
}

/// The interval, by up to `jitter` percent shorter or longer, as `random` from 0 to 1 has it: many edges must not check
/// in step.
fn pause(interval: Duration, jitter: u8, random: f64) -> Duration {
    let jitter = f64::from(jitter.min(100)) / 100.0;
    interval.clamp(MIN_INTERVAL, MAX_INTERVAL).mul_f64(1.0 + jitter * (random * 2.0 - 1.0)).max(MIN_INTERVAL)
}

/// From 0 to 1.
fn random() -> f64 {
    // A fresh RandomState is the standard library's source of randomness.
    RandomState::new().hash_one(0u8) as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::net::TcpListener;

    use super::*;
    use crate::config::model::Origin;

    #[test]
    fn only_a_whole_streak_changes_the_state() {
        let check = HealthCheck::tcp();
        let mut streak = Streak::default();
        let mut observe = |success, healthy| streak.observe(success, healthy, &check);
        assert_eq!([observe(false, true), observe(false, true), observe(true, true)], [None; 3]);
        assert_eq!([observe(false, true), observe(false, true), observe(false, true)], [None, None, Some(false)]);
        assert_eq!([observe(true, false), observe(false, false)], [None; 2]);
        assert_eq!([observe(true, false), observe(true, false)], [None, Some(true)]);
        assert_eq!(observe(true, true), None);
    }

    #[test]
    fn a_failure_is_told_until_the_server_has_recovered() {
        let (check, mut streak) = (HealthCheck::tcp(), Streak::default());
        let member = Member::checked_at(([10, 0, 0, 1], 80).into());
        let mut after = |outcome: Result<(), &str>| {
            let is_change = note(&member, &mut streak, &outcome.map_err(str::to_owned), &check);
            (is_change, member.state.health.last_error.get())
        };
        let told = || Some("refused".to_owned());
        assert_eq!(after(Err("refused")), (false, told()));
        assert_eq!(after(Ok(())), (false, None), "one that has never been unhealthy");
        assert_eq!([(); 3].map(|()| after(Err("refused"))), [(false, told()), (false, told()), (true, told())]);
        assert_eq!([(); 2].map(|()| after(Ok(()))), [(false, told()), (true, None)]);
    }

    #[test]
    fn the_jitter_is_as_wide_as_it_is_set() {
        let ten = Duration::from_secs(10);
        assert_eq!([0.0, 0.5, 1.0].map(|random| pause(ten, 20, random).as_secs()), [8, 10, 12]);
        assert_eq!([0.0, 1.0].map(|random| pause(ten, 0, random)), [ten, ten]);
        assert_eq!([0.0, 1.0].map(|random| pause(ten, 255, random)), [MIN_INTERVAL, 2 * ten]);
        assert!(pause(Duration::ZERO, 50, 0.0) > Duration::ZERO);
        assert!(pause(Duration::MAX, 100, 1.0) <= 2 * MAX_INTERVAL);
        for _ in 0..100 {
            assert!((0.0..=1.0).contains(&random()));
        }
    }

    #[tokio::test]
    async fn a_server_is_watched_until_it_recovers() {
        // An address of its own, so that nobody else is given its port in the meantime.
        let listener = TcpListener::bind("127.83.7.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        drop(listener);
        let often = Duration::from_millis(1);
        let check = HealthCheck { interval: often, interval_down: often, ..HealthCheck::tcp() };
        let media = Origin { health_check: Some(check), ..Origin::plain("media", Vec::new()) };
        let checks = Checks::new(&media).unwrap();
        let member = Member::checked_at(addr);
        let changes = Arc::new(AtomicUsize::new(0));
        let flips = tokio::sync::Notify::new();
        let watching = watch("media", &checks, &member, || {
            changes.fetch_add(1, Ordering::Relaxed);
            flips.notify_one();
        });
        let scenario = async {
            flips.notified().await;
            assert!(!member.is_healthy());
            assert!(member.state.health.last_error.get().is_some());
            let _listener = TcpListener::bind(addr).await.unwrap();
            flips.notified().await;
            assert!(member.is_healthy());
            assert_eq!(member.state.health.last_error.get(), None);
        };
        tokio::select! {
            () = watching => unreachable!("a watch has no end"),
            () = scenario => {}
        }
        assert_eq!(changes.load(Ordering::Relaxed), 2);
        assert_eq!(member.state.health.transitions.load(Ordering::Relaxed), 2);
    }
}
