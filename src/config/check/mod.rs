//! From typed values to a configuration that can hold no invalid state.
//!
//! Each function returns `None` only where a mistake has been reported, by itself or by an earlier stage.

mod admin;
mod cache;
mod guard;
mod origins;
mod purge;
mod routes;
mod secret;
mod sites;
mod tiers;

pub(super) use origins::listed;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Env;
use super::decode::Placed;
use super::model::{
    AccessLog, AdminAddress, Config, Http2Limits, Limits, Listener, LogPath, Origin, Overload, ServerAddress,
};
use super::places::Places;
use super::raw;
use super::report::Report;
use super::words::OffOr;

/// Checks the whole. `source`, `hash` and `warnings` are for the caller to fill in.
pub(super) fn check(root: &raw::Root, base: &Path, env: Env<'_>, report: &mut Report) -> Option<Config> {
    // Everything is looked at before the first `?`: one mistake must not hide another.
    let listeners = listeners(root, report);
    let admin = root.admin.as_ref().map(|raw| admin::admin(raw, base, env, report));
    let tiers = tiers::tiers(root, base, report);
    let background_fetches = root.cache.as_ref().and_then(|tiers| tiers.background_fetches.as_ref());
    let limits = root.limits.as_ref().and_then(|raw| limits(raw));
    let origins = origins::origins(root, base, env, report);
    let geo = guard::geo(root, base, report);
    let keys = guard::keys(root, base, env, report);
    let sites = sites::sites(root, tiers.there, base, env, report);
    if let (Some(listeners), Some(origins)) = (&listeners, &origins) {
        warn_of_loops(root, listeners, origins, report);
    }
    if let Some(listeners) = &listeners {
        guard::facts(root, listeners, report);
    }
    Some(Config {
        source: None,
        hash: String::new(),
        threads: root.threads.as_ref()?.0.unwrap_or_else(cores),
        drain: root.drain.as_ref()?.value,
        pid_file: root.pid_file.as_ref().map(|path| resolve(base, &path.0)),
        upgrade_socket: root.upgrade_socket.as_ref().map(|path| resolve(base, &path.0)),
        trusted_proxies: root.trusted_proxies.as_ref()?.0.iter().map(|net| net.value.0).collect(),
        listeners: listeners?,
        admin: match admin {
            Some(admin) => Some(admin?),
            None => None,
        },
        access_log: access_log(root.access_log.as_ref()?, base)?,
        memory: tiers.memory?,
        disks: tiers.disks?,
        background_fetches: background_fetches?.0,
        limits: limits?,
        overload: Overload { requests: None, delay: None, memory: None, retry_after: Duration::from_secs(5) },
        geo: geo?,
        session_ticket_secrets: Vec::new(),
        keys: keys?,
        origins: origins?.into_iter().map(Into::into).collect(),
        sites: sites?,
        warnings: Vec::new(),
        places: Places::of(root),
    })
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A path as written, or below the configuration file's folder.
fn resolve(base: &Path, path: &Path) -> PathBuf {
    base.join(path)
}

fn listeners(root: &raw::Root, report: &mut Report) -> Option<Vec<Listener>> {
    let raw = root.listeners.as_ref()?;
    let mut bound: Vec<Bound<'_>> = Vec::new();
    let mut listeners = Vec::new();
    for listener in &raw.0 {
        if let Some(address) = &listener.address {
            claim(&mut bound, address.0, &address.place, report);
        }
        if let (Some(address), Some(h2c)) = (&listener.address, &listener.h2c) {
            listeners.push(Listener { address: address.0, h2c: h2c.value, proxy_protocol: Vec::new(), tls: None });
        }
    }
    if let Some(address) = root.admin.as_ref().and_then(|admin| admin.address.as_ref())
        && let AdminAddress::Tcp(socket) = address.value
    {
        claim(&mut bound, socket, &address.place, report);
    }
    Some(listeners)
}

/// An address that something listens on.
struct Bound<'a> {
    address: SocketAddr,
    place: &'a super::report::Place,
}

/// Notes an address, or reports what has taken it.
fn claim<'a>(bound: &mut Vec<Bound<'a>>, address: SocketAddr, place: &'a super::report::Place, report: &mut Report) {
    let overlaps = |other: &Bound<'_>| {
        let (a, b) = (address, other.address);
        let unspecified = a.ip().is_unspecified() || b.ip().is_unspecified();
        a.port() == b.port() && a.is_ipv4() == b.is_ipv4() && (a.ip() == b.ip() || unspecified)
    };
    match bound.iter().find(|other| overlaps(other)) {
        Some(other) => report.error(
            place,
            format!(
                "{address} is already taken by {} ({}) on line {}",
                other.place.path, other.address, other.place.mark.line
            ),
        ),
        None => bound.push(Bound { address, place }),
    }
}

fn limits(raw: &raw::Limits) -> Option<Limits> {
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
        connections_per_address: None,
        body_min_rate: None,
        send_min_rate: None,
        http2: Http2Limits { streams: 128, resets: 1000, control_frames: 1000 },
    })
}

fn access_log(raw: &Placed<OffOr<raw::AccessLog>>, base: &Path) -> Option<Option<AccessLog>> {
    match &raw.value {
        OffOr::Off => Some(None),
        OffOr::Keys(keys) => {
            let path = match &keys.path.as_ref()?.0 {
                LogPath::Stdout => LogPath::Stdout,
                LogPath::File(path) => LogPath::File(resolve(base, path)),
            };
            Some(Some(AccessLog { path, format: keys.format.as_ref()?.value }))
        }
    }
}

/// A server that is one of our own listeners sends requests round until something gives.
fn warn_of_loops(root: &raw::Root, listeners: &[Listener], origins: &[Origin], report: &mut Report) {
    let own = |address: &SocketAddr| {
        listeners.iter().any(|l| {
            let everywhere = l.address.ip().is_unspecified() && address.ip().is_loopback();
            l.address.port() == address.port() && (l.address.ip() == address.ip() || everywhere)
        })
    };
    let Some(raw) = &root.origins else { return };
    for (name, _) in &raw.0 {
        let Some(origin) = origins.iter().find(|o| o.name == name.0) else { continue };
        for server in &origin.servers {
            if let ServerAddress::Socket(address) = &server.address
                && own(address)
            {
                report.warn(&name.place, format!("the server {address} is a listener of this very process"));
            }
        }
    }
}
