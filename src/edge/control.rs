//! What the admin API can ask of the edge.

use std::sync::Arc;

use serde_json::{Value, json};

use super::reload;
use super::state::{Life, Shared};
use crate::admin::{Control, Readiness, ReloadReport};
use crate::config;

/// The edge, as the admin API sees it.
pub struct EdgeControl {
    shared: Arc<Shared>,
}

impl EdgeControl {
    pub fn new(shared: Arc<Shared>) -> EdgeControl {
        EdgeControl { shared }
    }
}

impl Control for EdgeControl {
    fn ready(&self) -> Readiness {
        match self.shared.life() {
            Life::Starting => Readiness::Starting,
            Life::Serving => Readiness::Ready,
            Life::Draining => Readiness::Draining,
        }
    }

    fn effective(&self) -> (String, String) {
        let snapshot = self.shared.snapshot();
        (snapshot.config.hash.clone(), config::effective(&snapshot.config))
    }

    fn reload(&self) -> Result<ReloadReport, String> {
        reload::reload(&self.shared)
    }

    fn origins(&self) -> Value {
        self.shared.snapshot().pools.status()
    }

    fn set_drained(&self, origin: &str, server: &str, drained: bool) -> Result<(), String> {
        self.shared.snapshot().pools.set_drained(origin, server, drained)
    }

    fn cache(&self) -> Value {
        let (store, usage) = (self.shared.store, self.shared.store.memory().usage());
        json!({
            "tiers": [{
                "tier": "memory",
                "objects": usage.objects,
                "bytes": usage.bytes,
                "capacity": usage.capacity,
                "max_object": store.memory().max_object(),
                "evictions": usage.evictions,
            }],
            "fills": { "running": store.fills_running(), "bytes": store.fill_bytes() },
        })
    }

    fn render_metrics(&self) -> Vec<u8> {
        self.shared.metrics.render()
    }
}
