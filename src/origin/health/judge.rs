//! Passive health: a pool's servers, judged by what becomes of the requests that they get.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use super::outlier::{self, Outcome, most_ejected};
use crate::config::model::{Origin, Outliers};
use crate::config::show_duration;
use crate::origin::balance::clock;
use crate::origin::member::Member;

/// How often latencies are compared: each tenth of their window, within these.
const MIN_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// Judges the servers of one pool.
pub(in crate::origin) struct Judge {
    origin: String,
    rules: Outliers,
    /// Locked to eject, to end ejections, and while they change: by no request that goes well. Weak, because they refer
    /// to their judge.
    servers: Mutex<Vec<Weak<Member>>>,
    /// Called where it changes who can take requests.
    changed: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// There is one more ejection to be ended.
    ejected: Notify,
}

impl Judge {
    /// `None`: the origin's servers are not judged.
    pub(in crate::origin) fn new(origin: &Origin) -> Option<Arc<Judge>> {
        let rules = origin.outliers.clone()?;
        let (servers, changed, ejected) = (Mutex::default(), OnceLock::new(), Notify::new());
        Some(Arc::new(Judge { origin: origin.name.clone(), rules, servers, changed, ejected }))
    }

    /// Whom to tell of changes; only the first call counts.
    pub(in crate::origin) fn on_change(&self, changed: impl Fn() + Send + Sync + 'static) {
        // The first one stays, as documented.
        let _ = self.changed.set(Box::new(changed));
    }

    /// The pool's servers from now on.
    pub(in crate::origin) fn watch(&self, members: &[Arc<Member>]) {
        *self.servers() = members.iter().map(Arc::downgrade).collect();
        // One of them may have been ejected under an earlier judge.
        self.ejected.notify_one();
    }

    /// Notes what became of a request to one of them, and ejects the server where the rules want that.
    pub(in crate::origin) fn report(&self, member: &Member, outcome: &Outcome) {
        let record = &member.state.health.record;
        match outcome.verdict(&self.rules) {
            None => {}
            Some(Ok(())) => record.answered(&self.rules, outcome.latency, clock::now),
            Some(Err(failure)) => {
                let now = clock::now();
                if let Some(reason) = record.failed(&self.rules, failure, outcome.latency, now) {
                    self.eject(member, &reason, now);
                }
            }
        }
    }

    /// Ends ejections, and compares latencies, until dropped.
    pub(in crate::origin) async fn run(&self) {
        let pause = self.rules.latency.map(|_| (self.rules.window / 10).clamp(MIN_PAUSE, MAX_PAUSE));
        loop {
            let now = clock::now();
            let next = self.end_ejections(now);
            if let Some(limit) = self.rules.latency {
                self.eject_slow(limit, now);
            }
            tokio::select! {
                () = self.ejected.notified() => {}
                () = after([next, pause].into_iter().flatten().min()) => {}
            }
        }
    }

    /// Takes a server out, if so many may be.
    fn eject(&self, member: &Member, reason: &str, now: u64) -> bool {
        let servers = self.servers();
        // Those that take requests; who does not is no loss, and no reserve either.
        let taking: Vec<_> = servers.iter().filter_map(Weak::upgrade).filter(|other| takes_requests(other)).collect();
        let is_out = |other: &&Arc<Member>| other.state.health.record.is_ejected(now);
        let known = taking.iter().find(|other| Arc::ptr_eq(&other.state, &member.state));
        let room = taking.iter().filter(is_out).count() < most_ejected(taking.len(), self.rules.max_ejected);
        // Gone meanwhile, or another request's failure has ejected it.
        if !room || known.as_ref().is_none_or(is_out) {
            return false;
        }
        let length = member.state.health.eject(&self.rules, reason, now);
        drop(servers);
        self.tell();
        self.ejected.notify_one();
        log::warn!(
            "origin {}: server {} ({}) is ejected for {}: {reason}",
            self.origin,
            member.found.text,
            member.endpoint(),
            show_duration(length)
        );
        true
    }

    /// Ends what is over; how long the next one still takes.
    fn end_ejections(&self, now: u64) -> Option<Duration> {
        let members: Vec<_> = self.servers().iter().filter_map(Weak::upgrade).collect();
        let mut next: Option<u64> = None;
        for member in &members {
            let health = &member.state.health;
            if health.end_ejection(now) {
                self.tell();
                let (server, addr) = (&member.found.text, member.endpoint());
                log::info!("origin {}: server {server} ({addr}) is no longer ejected", self.origin);
            }
            if let Some(until) = health.record.until() {
                next = Some(next.map_or(until, |next| next.min(until)));
            }
        }
        next.map(|until| Duration::from_millis(until.saturating_sub(now)))
    }

    fn eject_slow(&self, limit: Duration, now: u64) {
        let members: Vec<_> = self.servers().iter().filter_map(Weak::upgrade).collect();
        let judged: Vec<(Arc<Member>, Duration)> = members
            .into_iter()
            .filter(|member| takes_requests(member) && !member.state.health.record.is_ejected(now))
            .filter_map(|member| {
                let totals = member.state.health.record.totals(&self.rules, now);
                let enough = totals.answered() >= u64::from(self.rules.min_requests);
                totals.mean_latency().filter(|_| enough).map(|mean| (member, mean))
            })
            .collect();
        let means: Vec<Duration> = judged.iter().map(|(_, mean)| *mean).collect();
        for (position, median) in outlier::slow(&means, limit) {
            let Some((member, mean)) = judged.get(position) else { continue };
            let window = show_duration(self.rules.window);
            let reason = format!("a mean latency of {mean:.1?} within {window}, the others' median is {median:.1?}");
            self.eject(member, &reason, now);
        }
    }

    fn tell(&self) {
        if let Some(changed) = self.changed.get() {
            changed();
        }
    }

    fn servers(&self) -> MutexGuard<'_, Vec<Weak<Member>>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Judge").field("origin", &self.origin).field("rules", &self.rules).finish_non_exhaustive()
    }
}

fn takes_requests(member: &Member) -> bool {
    member.found.weight > 0 && !member.is_drained()
}

async fn after(pause: Option<Duration>) {
    match pause {
        Some(pause) => sleep(pause).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
