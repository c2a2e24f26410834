//! Closes what has been unused for too long, or what the server has closed: otherwise an edge without requests would hold
//! on to it for ever.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::task::unconstrained;
use tokio::time::sleep_until;

use super::{Group, is_quiet};

/// How soon it is seen at the latest that a server has closed a connection.
const INTERVAL: Duration = Duration::from_secs(1);
/// Between two looks, however short connections are kept.
const SHORTEST: Duration = Duration::from_millis(10);
/// Connections that are looked at under one lock.
const AT_ONCE: usize = 64;

/// Looks after a group for as long as that has connections.
pub(super) struct Sweeper {
    group: Weak<Group>,
}

impl Sweeper {
    pub(super) fn new(group: &Arc<Group>) -> Sweeper {
        Sweeper { group: Arc::downgrade(group) }
    }

    pub(super) async fn run(mut self) {
        loop {
            let Some(group) = self.group.upgrade() else {
                return;
            };
            // Where a task's budget is at its end, connections would look quiet that are not.
            let Some(next) = unconstrained(async { group.sweep(Instant::now()) }).await else {
                // The next one may be under way already.
                self.group = Weak::new();
                return;
            };
            drop(group);
            sleep_until(next.into()).await;
        }
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        // Its runtime has ended before it.
        if let Some(group) = self.group.upgrade() {
            group.state().swept = false;
        }
    }
}

impl Group {
    /// When to do it again; `None`: there is nothing left.
    fn sweep(&self, now: Instant) -> Option<Instant> {
        let idle_timeout = self.settings.idle_timeout;
        let mut closed = Vec::new();

        let mut state = self.state();
        let late = state.kept.partition_point(|kept| kept.since + idle_timeout <= now);
        closed.extend(state.kept.drain(..late));
        let shared = state.shared.extract_if(.., |shared| {
            let late = shared.idle.as_ref().is_some_and(|(since, _)| *since + idle_timeout <= now);
            late || shared.client.is_closed()
        });
        let shared: Vec<_> = shared.collect();
        drop(state);

        let mut from = 0;
        loop {
            let mut state = self.state();
            let to = state.kept.len().min(from + AT_ONCE);
            if from >= to {
                break;
            }
            // From the end, since those behind one that is taken out move up.
            for at in (from..to).rev() {
                if state.kept.get_mut(at).is_some_and(|kept| !is_quiet(&mut kept.conn)) {
                    closed.extend(state.kept.remove(at));
                }
            }
            from = to;
        }
        // Closing takes its time: not under the lock.
        drop((closed, shared));

        let mut state = self.state();
        if state.kept.is_empty() && state.shared.is_empty() {
            state.swept = false;
            return None;
        }
        let oldest = state.kept.front().map(|kept| kept.since);
        let idle = state.shared.iter().filter_map(|shared| shared.idle.as_ref().map(|(since, _)| *since));
        let due = oldest.into_iter().chain(idle).map(|since| since + idle_timeout).min();
        // What comes to rest meanwhile is not due before that.
        let at_latest = now + INTERVAL.min(idle_timeout.max(SHORTEST));
        Some(due.map_or(at_latest, |due| due.min(at_latest)))
    }
}
