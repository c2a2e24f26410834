//! The control API: what an operator, a probe and a scraper ask a running edge.
//!
//! It has a listener, a thread and an asynchronous runtime of its own, so that neither rendering ten thousand series
//! nor reading a configuration file ever delays a request of a client. What it does to the edge goes through
//! [`Control`], the only thing that it knows of the other rooms. All of its own settings but the address follow a reload.

mod bind;
mod desk;
mod guard;
mod in_force;
mod limits;
mod purge;
mod purge_body;
mod query;
mod reply;
mod routes;
mod serve;
mod tls;

use std::pin::Pin;
use std::time::SystemTime;

use serde_json::Value;

pub use bind::{Bound, bind};
pub use serve::Serving;

use crate::config::model::Admin;
pub use crate::invalidate::{Purge, WrongSelector};

/// What the edge lets itself be asked and told. Everything but
/// [`ready`](Control::ready) and [`settings`](Control::settings) is called on a thread that
/// may block.
pub trait Control: Send + Sync + 'static {
    /// Whether traffic should be sent here. Called on the admin's own thread: must not block.
    fn ready(&self) -> Readiness;

    /// The hash of the configuration in force, and its text with every default filled in and no secret.
    fn effective(&self) -> (String, String);

    /// The settings of the admin API itself in the configuration in force, where it has any. Called on the admin's own
    /// thread: must not block.
    fn settings(&self) -> Option<Admin>;

    /// Loads the configuration again.
    ///
    /// # Errors
    /// Every error of the new file, one a line; the old configuration stays in force.
    fn reload(&self) -> Result<ReloadReport, String>;

    /// The state of every origin and every server of it.
    fn origins(&self) -> Value;

    /// Takes a server out of the balance, or back in. Requests in flight are finished.
    ///
    /// # Errors
    /// Where there is no such origin, or it has no such server.
    fn set_drained(&self, origin: &str, server: &str, drained: bool) -> Result<(), String>;

    /// The cache's tiers: sizes, health, what has become of what came.
    fn cache(&self) -> Value;

    /// What is stored for a GET of a URL with these header fields (`Name: value`).
    ///
    /// # Errors
    /// The question cannot be answered.
    fn lookup(&self, url: &str, fields: &[String]) -> Result<Value, Unanswered>;

    /// Purges what is selected, all of it or nothing. Once it has returned, nothing of that is served to a request that
    /// begins afterwards; the future is done when it is written down, or cannot be.
    ///
    /// # Errors
    /// Nothing has been done: see [`NotPurged`].
    fn purge(&self, purge: &Purge) -> Result<Purging, NotPurged>;

    /// The ledger: its head, whether all of it is written down, and the latest entries, at most `limit` (1 to 1,000), the
    /// latest first. What it looks like is `Ledger` in docs/openapi.json.
    fn ledger(&self, limit: usize) -> Value;

    /// The text exposition.
    fn render_metrics(&self) -> Vec<u8>;
}

/// Whether the edge takes traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Not yet.
    Starting,
    Ready,
    /// Not any more: finishing what it has.
    Draining,
}

/// Why a URL cannot be looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// It is no request that the edge would take.
    Bad(String),
    /// No site serves it.
    NoSite(String),
}

/// A purge that is in force and written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purged {
    /// Its sequence in the ledger.
    pub sequence: u64,
    pub at: SystemTime,
}

/// A purge that is in force, and waits to be written down.
pub type Purging = Pin<Box<dyn Future<Output = Result<Purged, NotPurged>> + Send>>;

/// Why something is not purged, or not for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotPurged {
    /// These selectors are wrong; nothing has been done.
    Wrong(Vec<WrongSelector>),
    /// It is in force here, but could not be written down (it says why): a crash could undo it.
    NotDurable { sequence: u64, why: String },
    /// Nothing has been done; later, it may be.
    Unavailable(String),
}

/// What a reload that succeeded came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReloadReport {
    /// The hash of the configuration that is now in force.
    pub hash: String,
    /// The settings that differ from what the process started with and have effect only after a restart.
    pub needs_restart: Vec<String>,
}

#[cfg(test)]
mod tests;
