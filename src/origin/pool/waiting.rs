//! Waiting for a place at a server, where all have as many requests as they may.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Mutex, Notify};
use tokio::time::timeout;

use super::choose::{Ask, Chosen};
use super::{NoServer, Pool};

/// The requests that wait. Goes from a pool to the one that follows it with the same limits.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    signal: Arc<Signal>,
    /// Requests in both queues.
    pending: AtomicUsize,
    first: Queue,
    /// Requests that have tried a server already. They may have to wait where others need not, and hold up nobody.
    again: Queue,
}

/// That places are freed. Belongs to an origin's name.
#[derive(Debug, Default)]
struct Signal {
    freed: Notify,
    /// Who listens to it: those that let a place go have nothing to do where nobody does.
    listeners: AtomicUsize,
}

/// The request at the head of it looks for a place, the others wait for their turn, in the order in which they came.
#[derive(Debug, Default)]
struct Queue {
    /// The lock is fair.
    head: Mutex<()>,
    length: AtomicUsize,
}

impl Waiting {
    /// For other limits of the same servers. Nobody has to wait behind those that still wait by the former ones.
    pub(super) fn after(before: &Waiting) -> Waiting {
        Waiting { signal: before.signal.clone(), ..Waiting::default() }
    }

    /// A place is free, or there are other servers.
    pub(super) fn freed(&self) {
        // Whoever listens looks for a place after having begun to: either it sees this one, or is seen here. Counts of
        // requests and of listeners change in one order for all.
        if self.signal.listeners.load(Ordering::SeqCst) > 0 {
            self.signal.freed.notify_waiters();
        }
    }

    fn queue(&self, ask: &Ask<'_>) -> &Queue {
        if ask.tried.is_empty() { &self.first } else { &self.again }
    }

    /// `None`: as many as `limit` wait already.
    fn enter<'a>(&'a self, queue: &'a Queue, limit: usize) -> Option<(Counted<'a>, Counted<'a>)> {
        let more = |pending| (pending < limit).then_some(pending + 1);
        self.pending.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).ok()?;
        Some((Counted(&self.pending), Counted::one(&queue.length)))
    }
}

impl Pool {
    /// Requests that wait for a place at a server.
    pub fn pending(&self) -> usize {
        self.inner.waiting.pending.load(Ordering::Relaxed)
    }

    /// The server for a request. Where all that could take it have as many requests as they may (`limits.requests`), it
    /// waits for a place, in the order in which requests come: at most `limits.pending` requests do, at most for
    /// `limits.pending_timeout`. Requests that have tried a server before have a queue of their own. Whoever stops
    /// waiting leaves nothing behind.
    ///
    /// # Errors
    /// No server can take it, or none could in time.
    pub async fn choose(&self, ask: &Ask<'_>) -> Result<Chosen, NoServer> {
        let limits = &self.inner.origin.limits;
        if limits.requests.is_none() || limits.pending == 0 {
            return self.select(ask);
        }
        // Apart: most requests have no part in it.
        Box::pin(self.wait(ask)).await
    }

    async fn wait(&self, ask: &Ask<'_>) -> Result<Chosen, NoServer> {
        let limits = &self.inner.origin.limits;
        let waiting: &Arc<Waiting> = &self.inner.waiting;
        let queue = waiting.queue(ask);
        // Not past those that wait.
        if queue.length.load(Ordering::SeqCst) == 0 {
            match self.select(ask) {
                Err(NoServer::Full) => {}
                done => return done,
            }
        }
        let Some(_places) = waiting.enter(queue, limits.pending) else { return Err(NoServer::QueueFull) };
        let search = async {
            let _head = queue.head.lock().await;
            loop {
                let freed = self.place_freed();
                match self.select(ask) {
                    Err(NoServer::Full) => freed.await,
                    done => return done,
                }
            }
        };
        timeout(limits.pending_timeout, search).await.unwrap_or(Err(NoServer::WaitedTooLong(limits.pending_timeout)))
    }

    /// Ends when a request to one of the servers is done after this call, or the servers have changed: then another choice
    /// may succeed. What is freed is not kept for anybody.
    pub fn place_freed(&self) -> impl Future<Output = ()> + Send + use<'_> {
        let signal = &self.inner.waiting.signal;
        // Counted and registered now, not when the future is polled first.
        let listening = Counted::one(&signal.listeners);
        let freed = signal.freed.notified();
        async move {
            freed.await;
            drop(listening);
        }
    }
}

#[cfg(test)]
impl Waiting {
    /// Requests that wait, then whatever else is counted for as long as one does.
    pub(super) fn counts(&self) -> [usize; 4] {
        let counts = [&self.pending, &self.signal.listeners, &self.first.length, &self.again.length];
        counts.map(|count| count.load(Ordering::SeqCst))
    }
}

/// One of a count, until dropped.
#[derive(Debug)]
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn one(count: &'a AtomicUsize) -> Counted<'a> {
        count.fetch_add(1, Ordering::SeqCst);
        Counted(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
