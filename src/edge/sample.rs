//! Figures that are only looked at when somebody asks: the store's, the servers', the connections'.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use super::overload::Reason;
use super::state::Shared;
use super::watch::Abuse;
use crate::invalidate::{By, Ledger};
use crate::observe::{Distribution, Samples, table};
use crate::origin::ServerStatus;
use crate::store::{Cause, Defect, Disk, Disks, Kind, Phase, READ_BUCKETS, Refused, Rejection, Usage};

/// Makes each scrape look.
pub fn register(shared: &Arc<Shared>) {
    // Weak: the metrics belong to what is looked at.
    let looked_at = Arc::downgrade(shared);
    shared.metrics.register(move |out: &mut Samples| sample(&looked_at, out));
}

fn sample(shared: &Weak<Shared>, out: &mut Samples) {
    let Some(shared) = shared.upgrade() else { return };
    let usage = shared.store.memory().usage();
    out.set(&table::CACHE_OBJECTS, &["memory"], usage.objects as f64);
    out.set(&table::CACHE_BYTES, &["memory"], usage.bytes as f64);
    out.set(&table::CACHE_CAPACITY, &["memory"], usage.capacity as f64);
    out.set(&table::CACHE_EVICTIONS, &["memory"], usage.evictions as f64);
    for why in Rejection::ALL {
        out.set(&table::CACHE_REJECTIONS, &["memory", why.as_str()], shared.store.rejected(why) as f64);
    }
    sample_ledger(shared.store.ledger(), out);
    sample_disks(shared.store.disks(), out);
    out.set(&table::CACHE_FILLS, &[], shared.store.fills_running() as f64);
    out.set(&table::CACHE_FILL_BYTES, &[], shared.store.fill_bytes() as f64);
    out.set(&table::CACHE_WAITS, &[], shared.collapse.waits() as f64);
    out.set(&table::BACKGROUND_FETCHES, &[], shared.background.running() as f64);
    out.set(&table::BACKGROUND_SKIPPED, &[], shared.background.skipped() as f64);
    out.set(&table::RATE_LIMIT_EVICTED, &[], shared.rates.limiter.evicted() as f64);
    out.set(&table::RATE_LIMIT_TABLE, &[], shared.rates.limiter.bytes() as f64);
    out.set(&table::CONCURRENCY_KEYS, &[], shared.rates.places.keys() as f64);
    out.set(&table::CONNECTIONS_ENDED, &[], shared.watch.ended() as f64);
    for why in Abuse::ALL {
        out.set(&table::CONNECTIONS_CALMED, &[why.as_str()], shared.watch.calmed(why) as f64);
    }
    for reason in Reason::ALL {
        out.set(&table::SHED, &[reason.as_str()], shared.overload.shed(reason) as f64);
    }
    out.set(&table::LOOP_DELAY, &[], shared.overload.delay().as_secs_f64());
    let snapshot = shared.snapshot();
    for (version, kind, count) in shared.handshakes.by_kind() {
        out.set(&table::TLS_HANDSHAKES, &[version, kind], count as f64);
    }
    for (reason, count) in shared.handshakes.by_failure() {
        out.set(&table::TLS_FAILURES, &[reason], count as f64);
    }
    for expiry in snapshot.doorways().flat_map(|doorway| doorway.tls.iter()).flat_map(|server| server.expiries()) {
        out.set(&table::CERTIFICATE_EXPIRY, &[&expiry.file, &expiry.name], expiry.not_after as f64);
    }
    let files = shared.watcher.totals();
    out.set(&table::FILES_WATCHED, &["ok"], files.watched.saturating_sub(files.failing) as f64);
    out.set(&table::FILES_WATCHED, &["failing"], files.failing as f64);
    out.set(&table::FILES_CHANGES, &["ok"], files.changes as f64);
    out.set(&table::FILES_CHANGES, &["failed"], files.failures as f64);
    out.set(&table::CONNECTIONS_LIMIT, &[], snapshot.config.limits.connections as f64);
    for pool in snapshot.pools.iter() {
        let origin = &[pool.origin().name.as_str()];
        out.set(&table::ORIGIN_PANICKING, origin, f64::from(pool.is_panicking()));
        out.set(&table::ORIGIN_RETRY_BUDGET, origin, pool.retries_left() as f64);
        out.set(&table::ORIGIN_PENDING, origin, pool.pending() as f64);
        pool.servers().iter().for_each(|server| sample_server(server, out));
    }
    if let Some(log) = &*shared.access_log.load() {
        log.sample(out);
    }
}

/// The figures of one server. They are those of the servers that there are now: one that leaves takes its series along.
fn sample_server(server: &ServerStatus, out: &mut Samples) {
    let origin = &*server.origin;
    // Not as configured: a name is as many servers as it has addresses.
    let address = server.address.as_ref().map(ToString::to_string);
    let name = address.as_deref().unwrap_or(&server.server);
    let labels = &[origin, name];
    let ejected = server.ejected_until.is_some();
    let up = address.is_some() && server.healthy && !ejected && !server.drained;
    out.set(&table::ORIGIN_SERVER_UP, labels, f64::from(up));
    out.set(&table::ORIGIN_SERVER_DRAINED, labels, f64::from(server.drained));
    out.set(&table::ORIGIN_SERVER_EJECTED, labels, f64::from(ejected));
    out.set(&table::ORIGIN_SERVER_WEIGHT, labels, server.weight as f64);
    out.set(&table::ORIGIN_SERVER_IN_FLIGHT, labels, server.active as f64);
    if address.is_none() {
        return;
    }
    out.set(&table::ORIGIN_SERVER_EJECTIONS, labels, server.ejections as f64);
    out.set(&table::ORIGIN_SERVER_CONNECTIONS, &[origin, name, "open"], server.connections.open as f64);
    out.set(&table::ORIGIN_SERVER_CONNECTIONS, &[origin, name, "idle"], server.connections.idle as f64);
    for (status, answers) in server.tally.answers() {
        out.set(&table::ORIGIN_SERVER_REQUESTS, &[origin, name, status], answers as f64);
    }
    for (kind, failures) in server.tally.failures() {
        out.set(&table::ORIGIN_SERVER_FAILURES, &[origin, name, kind.as_str()], failures as f64);
    }
    out.durations(&table::ORIGIN_SERVER_FIRST_BYTE, labels, server.tally.first_byte.clone());
}

fn sample_ledger(ledger: &Ledger, out: &mut Samples) {
    for by in By::ALL {
        out.set(&table::PURGES, &[by.as_str()], ledger.entries(by) as f64);
    }
    out.set(&table::PURGE_SELECTORS, &[], ledger.selectors() as f64);
    out.set(&table::PURGES_NOT_DURABLE, &[], ledger.not_durable() as f64);
    out.set(&table::LEDGER_SELECTORS, &[], ledger.marks().len() as f64);
    out.set(&table::LEDGER_BYTES, &[], ledger.length() as f64);
    out.set(&table::LEDGER_BEHIND, &[], ledger.behind().len() as f64);
}

/// The figures of the disk tier, if there is one: of all disks together, and of each.
fn sample_disks(disks: &Disks, out: &mut Samples) {
    if disks.is_empty() {
        return;
    }
    let usages: Vec<_> = disks.iter().map(|disk| disk.usage()).collect();
    let sum = |figure: fn(&Usage) -> u64| usages.iter().map(figure).sum::<u64>() as f64;
    out.set(&table::CACHE_OBJECTS, &["disk"], sum(|usage| usage.objects));
    out.set(&table::CACHE_BYTES, &["disk"], sum(|usage| usage.bytes));
    out.set(&table::CACHE_CAPACITY, &["disk"], sum(|usage| usage.capacity));
    out.set(&table::CACHE_EVICTIONS, &["disk"], sum(|usage| usage.evictions));
    for why in Refused::ALL {
        let refused: u64 = disks.iter().map(|disk| disk.stats.refused(why)).sum();
        out.set(&table::CACHE_REJECTIONS, &["disk", why.as_str()], refused as f64);
    }
    disks.iter().zip(&usages).for_each(|(disk, usage)| sample_disk(disk, usage, out));
}

fn sample_disk(disk: &Disk, usage: &Usage, out: &mut Samples) {
    let stats = &disk.stats;
    let path = usage.path.to_string_lossy();
    let path = &*path;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
    for phase in Phase::ALL {
        out.set(&table::DISK_PHASE, &[path, phase.as_str()], f64::from(phase == usage.phase));
    }
    out.set(&table::DISK_OBJECTS, &[path], usage.objects as f64);
    out.set(&table::DISK_BYTES, &[path], usage.bytes as f64);
    out.set(&table::DISK_CAPACITY, &[path], usage.capacity as f64);
    out.set(&table::DISK_INDEX_BYTES, &[path], usage.index_memory as f64);
    out.set(&table::DISK_INDEX_COMPLETE, &[path], f64::from(usage.complete));
    out.set(&table::DISK_OPEN_FILES, &[path], usage.open_files as f64);
    out.set(&table::DISK_FILLS, &[path], usage.spilling as f64);
    out.set(&table::DISK_STORED, &[path], count(&stats.stored));
    out.set(&table::DISK_OPENED, &[path], count(&stats.opened));
    out.set(&table::DISK_EVICTIONS, &[path], usage.evictions as f64);
    out.set(&table::DISK_PURGED, &[path], count(&stats.purged));
    for why in Refused::ALL {
        out.set(&table::DISK_REFUSED, &[path, why.as_str()], stats.refused(why) as f64);
    }
    for kind in Kind::ALL {
        for cause in Cause::ALL {
            let errors = disk.health.errors(kind, cause);
            out.set(&table::DISK_ERRORS, &[path, kind.as_str(), cause.as_str()], errors as f64);
        }
    }
    for defect in Defect::ALL {
        out.set(&table::DISK_DEFECTS, &[path, defect.as_str()], stats.defects(defect) as f64);
    }
    let (reads, writes) = (disk.pool.reads(), disk.pool.writes());
    for (direction, suspended, load) in [("read", usage.reading, reads), ("write", usage.writing, writes)] {
        out.set(&table::DISK_SUSPENDED, &[path, direction], f64::from(suspended.is_some()));
        out.set(&table::DISK_QUEUED, &[path, direction], load.queued as f64);
        out.set(&table::DISK_RUNNING, &[path, direction], load.running as f64);
    }
    let (buckets, micros) = stats.reads();
    out.durations(&table::DISK_READ, &[path], Distribution::new(&READ_BUCKETS, &buckets, micros));
}
