//! What the admin API can ask of the edge.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Map, Value, json};

use super::admin_settings::AdminSettings;
use super::state::{Life, Shared};
use super::{lookup, purge, reload};
use crate::admin::{Control, NotPurged, Purge, Purging, Readiness, ReloadReport, Unanswered};
use crate::config::{self, model::Admin};
use crate::invalidate::By;
use crate::store::{Cause, Defect, Disk, Kind, Load, MemoryTier, Refused, Usage};

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

    fn settings(&self) -> Option<Admin> {
        self.shared.snapshot().admin.as_ref().map(AdminSettings::now)
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
        let store = self.shared.store;
        let disks: Vec<_> = store.disks().iter().map(|disk| (disk, disk.usage())).collect();
        let to_disk: u64 = disks.iter().map(|(_, usage)| usage.spilling).sum();
        let disks = disks.iter().map(|(disk, usage)| of_disk(disk, usage));
        let tiers: Vec<_> = std::iter::once(of_memory(store.memory())).chain(disks).collect();
        let (running, bytes) = (store.fills_running(), store.fill_bytes());
        json!({ "tiers": tiers, "fills": { "running": running, "bytes": bytes, "to_disk": to_disk } })
    }

    fn lookup(&self, url: &str, fields: &[String]) -> Result<Value, Unanswered> {
        lookup::lookup(&self.shared, url, fields)
    }

    fn purge(&self, asked: &Purge) -> Result<Purging, NotPurged> {
        Ok(Box::pin(purge::purge_asked(&self.shared, asked, By::Api)?))
    }

    fn ledger(&self, limit: usize) -> Value {
        purge::ledger(&self.shared, limit)
    }

    fn render_metrics(&self) -> Vec<u8> {
        self.shared.metrics.render()
    }
}

fn of_memory(memory: &MemoryTier) -> Value {
    let usage = memory.usage();
    json!({
        "tier": "memory",
        "objects": usage.objects,
        "bytes": usage.bytes,
        "capacity": usage.capacity,
        "max_object": memory.max_object(),
        "evictions": usage.evictions,
    })
}

fn of_disk(disk: &Disk, usage: &Usage) -> Value {
    let stats = &disk.stats;
    let state = |suspended: Option<Cause>| suspended.map_or("ok", Cause::as_str);
    let load = |Load { queued, running }| json!({ "queued": queued, "running": running });
    let errors = |kind: Kind| counts(Cause::ALL.map(|cause| (cause.as_str(), disk.health.errors(kind, cause))));
    json!({
        "tier": "disk",
        "path": usage.path.to_string_lossy(),
        "phase": usage.phase.as_str(),
        "objects": usage.objects,
        "bytes": usage.bytes,
        "capacity": usage.capacity,
        "max_object": usage.max_object,
        "max_objects": usage.max_objects,
        "min_free": usage.min_free,
        "evictions": usage.evictions,
        "stored": stats.stored.load(Ordering::Relaxed),
        "opened": stats.opened.load(Ordering::Relaxed),
        "index_memory": usage.index_memory,
        "open_files": usage.open_files,
        "complete": usage.complete,
        "fills": usage.spilling,
        "reading": state(usage.reading),
        "writing": state(usage.writing),
        "queues": { "reads": load(disk.pool.reads()), "writes": load(disk.pool.writes()) },
        "errors": Value::Object(Kind::ALL.map(|kind| (kind.as_str().to_owned(), errors(kind))).into_iter().collect()),
        "defects": counts(Defect::ALL.map(|defect| (defect.as_str(), stats.defects(defect)))),
        "refused": counts(Refused::ALL.map(|why| (why.as_str(), stats.refused(why)))),
    })
}

fn counts<const N: usize>(counts: [(&str, u64); N]) -> Value {
    Value::Object(counts.map(|(word, count)| (word.to_owned(), count.into())).into_iter().collect::<Map<_, _>>())
}
