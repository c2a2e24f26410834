//! Where requests are worked on: threads that may block, so many for each kind of work.

use std::sync::Arc;

use axum::response::Response;
use http::StatusCode;
use tokio::sync::Semaphore;

use super::{Control, Readiness, reply};

/// A few scrapes and lookups beside a reload.
const ASKING: usize = 4;

/// Purges that are read and put in force at once. They have threads of their own, since a purge that matters must not stand
/// behind a lookup on a disk that does not answer. That they are written down, none of them waits for.
const PURGING: usize = 16;

/// The threads that all of this needs.
pub const THREADS: usize = ASKING + PURGING;

/// The edge, and the places at which it is asked.
#[derive(Clone)]
pub struct Desk {
    edge: Arc<dyn Control>,
    asking: Arc<Semaphore>,
    purging: Arc<Semaphore>,
}

impl Desk {
    pub fn new(edge: Arc<dyn Control>) -> Desk {
        let places = |n| Arc::new(Semaphore::new(n));
        Desk { edge, asking: places(ASKING), purging: places(PURGING) }
    }

    /// Does not block.
    pub fn ready(&self) -> Readiness {
        self.edge.ready()
    }

    /// Asks on a thread that may block.
    pub async fn ask(&self, answer: impl FnOnce(&dyn Control) -> Response + Send + 'static) -> Response {
        on_a_thread(&self.asking, &self.edge, answer).await.unwrap_or_else(|failed| failed)
    }

    /// As [`ask`](Desk::ask), and without a wait for anything but other purges.
    ///
    /// # Errors
    /// What is to be answered where that failed.
    pub async fn purge<T: Send + 'static>(
        &self,
        begin: impl FnOnce(&dyn Control) -> T + Send + 'static,
    ) -> Result<T, Response> {
        on_a_thread(&self.purging, &self.edge, begin).await
    }
}

async fn on_a_thread<T: Send + 'static>(
    places: &Arc<Semaphore>,
    edge: &Arc<dyn Control>,
    answer: impl FnOnce(&dyn Control) -> T + Send + 'static,
) -> Result<T, Response> {
    // It is never closed. A client that goes away while it waits here gives up its turn.
    let place = Arc::clone(places).acquire_owned().await;
    let edge = Arc::clone(edge);
    // The place is taken until the work is done, whether or not the client still waits for it.
    let work = move || {
        let answer = answer(&*edge);
        drop(place);
        answer
    };
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        log::error!("admin: a request failed: {error}");
        reply::error(StatusCode::INTERNAL_SERVER_ERROR, "this failed; the process's log says more")
    })
}
