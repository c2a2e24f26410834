//! From typed values to a configuration that can hold no invalid state.
//!
//! Each function returns `None` only where a mistake has been reported, by itself or by an earlier stage.

mod admin;
mod cache;
mod guard;
mod limits;
mod listeners;
mod origins;
mod pem;
mod purge;
mod routes;
mod secret;
mod sites;
mod tiers;

pub(super) use origins::listed;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::Env;
use super::decode::Placed;
use super::model::{AccessLog, Config, Listener, LogPath, Origin, ServerAddress};
use super::places::Places;
use super::raw;
use super::report::Report;
use super::words::OffOr;

/// Checks the whole. `source`, `hash` and `warnings` are for the caller to fill in.
pub(super) fn check(root: &raw::Root, base: &Path, env: Env<'_>, report: &mut Report) -> Option<Config> {
    // Everything is looked at before the first `?`: one mistake must not hide another.
    let listeners = listeners::listeners(root, base, report);
    let tickets = listeners::ticket_secrets(root, base, env, report);
    let admin = root.admin.as_ref().map(|raw| admin::admin(raw, base, env, report));
    let tiers = tiers::tiers(root, base, report);
    let background_fetches = root.cache.as_ref().and_then(|tiers| tiers.background_fetches.as_ref());
    let limits = root.limits.as_ref().and_then(|raw| limits::limits(raw, report));
    let overload = limits::overload(root, report);
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
        overload: overload?,
        geo: geo?,
        session_ticket_secrets: tickets?,
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
