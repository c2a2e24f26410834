//! All pools of one configuration.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::member::ServerStatus;
use super::pool::Pool;
use crate::config::model::{Config, Origin};

/// The pools of a configuration, in the order of [`Config::origins`].
#[derive(Debug, Default)]
pub struct Pools {
    pools: Vec<Arc<Pool>>,
}

impl Pools {
    /// Makes the pools. An origin that has not changed keeps its pool, and a changed one what is known about the
    /// servers that stay (see [`Pool::from_previous`]). Nothing runs, and nothing changes for `previous`, before
    /// [`Pools::start`]: a new configuration may still be given up.
    pub fn new(config: &Config, previous: Option<&Pools>) -> Pools {
        let pool = |origin: &Arc<_>| match previous.and_then(|pools| pools.find(origin)) {
            Some(pool) if pool.origin() == origin => pool.clone(),
            Some(pool) => Arc::new(Pool::from_previous(origin.clone(), pool)),
            None => Arc::new(Pool::new(origin.clone())),
        };
        Pools { pools: config.origins.iter().map(pool).collect() }
    }

    /// Starts resolving and checking on `runtime`, which must outlive the pools, and stops the tasks of those of
    /// `previous` that are not kept: requests may hold them for long, and the checks of an earlier configuration
    /// must not decide about servers that are shared with this one.
    pub fn start(&self, runtime: &Handle, previous: Option<&Pools>) {
        for old in previous.map_or(&[][..], |previous| &previous.pools) {
            if !self.pools.iter().any(|pool| Arc::ptr_eq(pool, old)) {
                old.stop();
            }
        }
        for pool in &self.pools {
            pool.start(runtime);
        }
    }

    /// Waits for the first resolution of every name and the first reading of every file, at most about 2 s
    /// ([`Pool::ready`]).
    pub async fn ready(&self) {
        // All have begun at once, so each one's limit runs out with the first's.
        let deadline = tokio::time::Instant::now() + super::pool::READY_LIMIT;
        for pool in &self.pools {
            let _ = tokio::time::timeout_at(deadline, pool.ready()).await;
        }
    }

    /// By index into [`Config::origins`].
    pub fn get(&self, index: usize) -> Option<&Arc<Pool>> {
        self.pools.get(index)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.pools.iter()
    }

    /// Every server of every pool, for metrics.
    pub fn servers(&self) -> Vec<ServerStatus> {
        self.pools.iter().flat_map(|pool| pool.servers()).collect()
    }

    /// The state of all servers, as `/v1/origins` shows it:
    /// `{"origins": [{"name": …, "last_error": …, "servers": [{"server": …, "address": …, …}]}]}`.
    pub fn status(&self) -> Value {
        let status = |pool: &Arc<Pool>| json!({ "name": pool.origin().name, "last_error": pool.last_error(), "servers": pool.servers() });
        json!({ "origins": self.pools.iter().map(status).collect::<Vec<_>>() })
    }

    /// Takes a server out of the rotation of an origin, or back in ([`Pool::set_drained`]). Kept over reloads for
    /// servers that stay.
    ///
    /// # Errors
    /// A sentence for the operator where there is no such origin or no such server.
    pub fn set_drained(&self, origin: &str, server: &str, drained: bool) -> Result<(), String> {
        let pool = self
            .pools
            .iter()
            .find(|pool| pool.origin().name == origin)
            .ok_or_else(|| format!("there is no origin `{origin}`"))?;
        if pool.set_drained(server, drained) {
            return Ok(());
        }
        let known: Vec<String> = pool.servers().into_iter().map(|status| status.server).collect();
        Err(format!("origin `{origin}` has no server `{server}`; it has {}", known.join(", ")))
    }

    fn find(&self, origin: &Origin) -> Option<&Arc<Pool>> {
        self.pools.iter().find(|pool| pool.origin().name == origin.name)
    }
}

#[cfg(test)]
pub(super) mod tests;
