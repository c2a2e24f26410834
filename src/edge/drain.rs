//! Knowing when the last connection has ended.

use tokio::sync::mpsc;

/// Counts connections by the clones of a sender: no counter to get wrong.
#[derive(Clone)]
pub struct Drain {
    alive: mpsc::Sender<()>,
}

/// Held by whatever must end before the process does.
#[derive(Clone)]
pub struct Busy {
    _alive: mpsc::Sender<()>,
}

/// Waits for all [`Busy`] to be gone.
pub struct Drained {
    gone: mpsc::Receiver<()>,
}

/// A pair that belongs together.
pub fn drain() -> (Drain, Drained) {
    let (alive, gone) = mpsc::channel(1);
    (Drain { alive }, Drained { gone })
}

impl Drain {
    /// One more thing to wait for.
    pub fn connection(&self) -> Busy {
        Busy { _alive: self.alive.clone() }
    }
}

impl Drained {
    /// Returns once every [`Drain`] and [`Busy`] has been dropped.
    pub async fn wait(&mut self) {
        let _ = self.gone.recv().await;
    }
}
