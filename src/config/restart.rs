//! What a reload cannot change.

use std::path::Path;

use super::model::{AdminAddress, Config};

/// The keys that differ between two configurations and take effect only with a new process. Empty: a reload applies
/// all of the new one.
pub fn needs_restart(old: &Config, new: &Config) -> Vec<String> {
    let mut keys = Vec::new();
    let mut differs = |differs: bool, key: &str| {
        if differs {
            keys.push(key.to_owned());
        }
    };
    differs(old.threads != new.threads, "threads");
    differs(old.pid_file != new.pid_file, "pid_file");
    differs(old.upgrade_socket != new.upgrade_socket, "upgrade_socket");
    differs(sockets(old) != sockets(new), "listeners");
    differs(admin(old) != admin(new), "admin.address");
    let turned = (old.memory.size == 0) != (new.memory.size == 0);
    differs(turned, "cache.memory");
    differs(!turned && old.memory.size != new.memory.size, "cache.memory.size");
    differs(!turned && old.memory.max_object != new.memory.max_object, "cache.memory.max_object");
    differs(!disks(old).eq(disks(new)), "cache.disk");
    keys
}

/// In whatever order they are written. All else of a listener a reload applies to new connections.
fn sockets(config: &Config) -> Vec<std::net::SocketAddr> {
    let mut sockets: Vec<_> = config.listeners.iter().map(|listener| listener.address).collect();
    sockets.sort_unstable();
    sockets
}

/// Their order counts too: a disk is known by its place in the list. A reload applies their limits.
fn disks(config: &Config) -> impl Iterator<Item = &Path> {
    config.disks.iter().map(|disk| disk.path.as_path())
}

/// All else of it a reload applies: but not while the address is another, since who may ask depends on it.
fn admin(config: &Config) -> Option<&AdminAddress> {
    config.admin.as_ref().map(|admin| &admin.address)
}
