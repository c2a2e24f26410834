//! A gate: what an origin's reply waits at until the test lets it through.

use tokio::sync::watch;

use super::within;

/// Shut at first. Clones are the same gate.
#[derive(Clone, Debug)]
pub struct Gate(watch::Sender<State>);

#[derive(Clone, Copy, Debug, Default)]
struct State {
    open: bool,
    permits: usize,
    arrived: usize,
}

impl Gate {
    pub fn new() -> Gate {
        Gate(watch::Sender::new(State::default()))
    }

    /// Lets through everyone who waits, and who comes later.
    pub fn open(&self) {
        self.0.send_modify(|s| s.open = true);
    }

    /// Lets through one who waits, or the next to come.
    pub fn let_one_through(&self) {
        self.0.send_modify(|s| s.permits += 1);
    }

    /// Waits until `n` in all have come to this gate, whether through or not.
    pub async fn reached(&self, n: usize) {
        let mut state = self.0.subscribe();
        within(&format!("{n} arrivals at a gate"), async {
            // The sender is `self`, so the wait cannot fail.
            let _ = state.wait_for(|s| s.arrived >= n).await;
        })
        .await;
    }

    /// Waits here until let through. Without a deadline: whoever waits for this one's result has one.
    pub async fn pass(&self) {
        let mut state = self.0.subscribe();
        self.0.send_modify(|s| s.arrived += 1);
        loop {
            let mut through = false;
            self.0.send_if_modified(|s| {
                through = s.open || s.permits > 0;
                if !s.open && s.permits > 0 {
                    s.permits -= 1;
                }
                false
            });
            if through || state.changed().await.is_err() {
                return;
            }
        }
    }
}

impl Default for Gate {
    fn default() -> Self {
        Gate::new()
    }
}
