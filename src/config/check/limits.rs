//! What bounds clients, and what the process gives up for the others' sake.

use std::time::Duration;

use crate::config::decode::Placed;
use crate::config::model::{Http2Limits, Limits, Overload};
use crate::config::raw;
use crate::config::report::Report;
use crate::config::units::show_size;
use crate::config::words::OffOr;

/// What Retry-After says where nothing is ever turned away.
const RETRY_AFTER: Duration = Duration::from_secs(5);

pub(super) fn limits(raw: &raw::Limits, report: &mut Report) -> Option<Limits> {
    if let (Some(all), Some(one)) = (&raw.connections, &raw.connections_per_address)
        && one.0 > all.0
    {
        let all = all.0;
        report.error(&one.place, format!("has no effect: there are never more than {all} connections (`connections`)"));
    }
    let bytes = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    Some(Limits {
        header_count: raw.header_count.as_ref()?.0,
        header_size: bytes(raw.header_size.as_ref()?.0),
        uri_length: bytes(raw.uri_length.as_ref()?.0),
        body_size: raw.body_size.as_ref()?.0,
        idle_timeout: raw.idle_timeout.as_ref()?.0,
        header_timeout: raw.header_timeout.as_ref()?.0,
        body_timeout: raw.body_timeout.as_ref()?.0,
        write_timeout: raw.write_timeout.as_ref()?.0,
        connections: raw.connections.as_ref()?.0,
        connections_per_address: raw.connections_per_address.as_ref().map(|most| most.0),
        body_min_rate: raw.body_min_rate.as_ref().map(|rate| rate.0),
        send_min_rate: raw.send_min_rate.as_ref().map(|rate| rate.0),
        http2: http2(raw.http2.as_ref()?)?,
    })
}

pub(super) fn overload(root: &raw::Root, report: &mut Report) -> Option<Overload> {
    let Some(raw) = &root.overload else {
        return Some(Overload { requests: None, delay: None, memory: None, retry_after: RETRY_AFTER });
    };
    let limited = raw.requests.is_some() || raw.delay.is_some() || raw.memory.is_some();
    if !limited && !report.is_wrong(&raw.place.path) {
        report.error(&raw.place, "has no effect without `requests`, `delay` or `memory`");
    }
    if let (Some(memory), Some(tier)) = (&raw.memory, memory_tier(root))
        && memory.0 <= tier
    {
        let tier = show_size(tier);
        let what = "the memory tier alone takes as much once it is full";
        report.error(&memory.place, format!("must be more than `cache.memory.size` ({tier}): {what}"));
    }
    Some(Overload {
        requests: raw.requests.as_ref().map(|most| most.0),
        delay: raw.delay.as_ref().map(|most| most.0),
        memory: raw.memory.as_ref().map(|most| most.0),
        retry_after: raw.retry_after.as_ref()?.0,
    })
}

fn http2(raw: &Placed<raw::Http2Limits>) -> Option<Http2Limits> {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Some(Http2Limits {
        streams: number(raw.streams.as_ref()?.0),
        resets: number(raw.resets.as_ref()?.0),
        control_frames: number(raw.control_frames.as_ref()?.0),
    })
}

/// The memory tier's size in bytes, where there is one.
fn memory_tier(root: &raw::Root) -> Option<u64> {
    match &root.cache.as_ref()?.memory.as_ref()?.value {
        OffOr::Off => None,
        OffOr::Keys(memory) => memory.size.as_ref().map(|size| size.0),
    }
}
