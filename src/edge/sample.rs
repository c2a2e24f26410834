//! Figures that are only looked at when somebody asks: the store's, the servers', the connections'.

use std::sync::{Arc, Weak};

use super::state::Shared;
use crate::observe::{Samples, table};
use crate::store::Rejection;

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
    out.set(&table::CACHE_FILLS, &[], shared.store.fills_running() as f64);
    out.set(&table::CACHE_FILL_BYTES, &[], shared.store.fill_bytes() as f64);
    out.set(&table::CACHE_WAITS, &[], shared.collapse.waits() as f64);
    out.set(&table::BACKGROUND_FETCHES, &[], shared.background.running() as f64);
    out.set(&table::BACKGROUND_SKIPPED, &[], shared.background.skipped() as f64);
    out.set(&table::CONNECTIONS_ENDED, &[], shared.watch.ended() as f64);
    for server in shared.snapshot().pools.servers() {
        let labels = &[&*server.origin, server.server.as_str()];
        let up = server.address.is_some() && server.healthy && !server.drained;
        out.set(&table::ORIGIN_SERVER_UP, labels, f64::from(up));
        out.set(&table::ORIGIN_SERVER_DRAINED, labels, f64::from(server.drained));
        out.set(&table::ORIGIN_SERVER_IN_FLIGHT, labels, server.active as f64);
    }
    if let Some(log) = &*shared.access_log.load() {
        log.sample(out);
    }
}
