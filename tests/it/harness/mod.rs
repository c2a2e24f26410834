//! The tools of the integration tests: a scripted [`Origin`], the [`Edge`] under test, clients, and [`Gate`]s.
//!
//! ```text
//! let origin = Origin::start(|_| Reply::ok("hello").header("Cache-Control", "max-age=60")).await;
//! let edge = Edge::before(&origin, "").await;
//! assert_eq!(edge.get("/a").await.text(), "hello");
//! assert_eq!(edge.get("/a").await.text(), "hello");
//! assert_eq!(origin.seen().len(), 1);
//! ```
//!
//! Nothing here sleeps to let something happen: an order of events is forced with a [`Gate`], and a result that
//! arrives by itself is waited for with [`eventually`]. Every wait has a deadline and says what it waited for.

#![allow(dead_code, unused_imports, reason = "a kit: not every subject needs every tool")]

mod client;
mod edge;
mod fields;
mod gate;
mod h2c;
mod metrics;
mod origin;
mod port;
mod reply;
mod selftest;
mod tls;
mod wire;

use std::time::{Duration, SystemTime};

pub use client::{Ask, Connection, End, Response, exchange};
pub use edge::{Edge, EdgeBuilder};
pub use fields::Fields;
pub use gate::Gate;
pub use h2c::{H2Connection, H2Exchange, H2Waiting};
pub use metrics::Metrics;
pub use origin::{Origin, Request};
pub use port::Port;
pub use reply::Reply;
pub use tls::{Authority, Identity, TlsClient};

/// The longest that a test waits for any one thing. Long, because a loaded machine is no failure; never reached by a
/// test that passes.
pub const DEADLINE: Duration = Duration::from_secs(15);

/// How often [`eventually`] looks.
const POLL: Duration = Duration::from_millis(5);

/// Waits for `future`; panics with `what` when [`DEADLINE`] has passed.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {DEADLINE:?} in vain: {what}"),
    }
}

/// Waits until `condition` holds; panics with `what` when [`DEADLINE`] has passed.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !condition().await {
            tokio::time::sleep(POLL).await;
        }
    })
    .await;
}

/// Now plus `offset` seconds as an HTTP-date, for `Date`, `Expires` and `Last-Modified`.
pub fn http_date(offset: i64) -> String {
    let shift = Duration::from_secs(offset.unsigned_abs());
    let now = SystemTime::now();
    httpdate::fmt_http_date(if offset < 0 { now - shift } else { now + shift })
}
