//! The admin API's address, and who may ask it.

use std::collections::HashMap;
use std::path::Path;

use super::pem::{self, Pair};
use super::{resolve, secret};
use crate::config::Env;
use crate::config::decode::Placed;
use crate::config::model::{Admin, AdminAddress, AdminClient, AdminTls, AdminToken, Identity, Secret};
use crate::config::raw;
use crate::config::report::{Place, Report};

pub(super) fn admin(raw: &raw::Admin, base: &Path, env: Env<'_>, report: &mut Report) -> Option<Admin> {
    let mut secrets = HashMap::new();
    let token = raw.token.as_ref().map(|token| {
        let read = secret::read(token, base, env, report);
        unique_secret(read.as_ref(), &token.place, &mut secrets, report);
        read
    });
    let tokens = match &raw.tokens {
        Some(list) => tokens(&list.0, base, env, &mut secrets, report),
        None => Some(Vec::new()),
    };
    let tls = raw.tls.as_ref().map(|tls| admin_tls(tls, raw, base, report));
    let clients = clients(raw, report);
    let address = raw.address.as_ref()?;
    if let AdminAddress::Tcp(socket) = address.value
        && !socket.ip().is_loopback()
        && raw.token.is_none()
        && raw.tokens.is_none()
        && raw.clients.is_none()
        // What could not be read has been reported; it is not missing.
        && !["admin.token", "admin.tokens", "admin.clients"].iter().any(|key| report.is_wrong(key))
    {
        report.error(
            &address.place,
            format!(
                "{socket} can be reached from other machines: `token`, `tokens` or `clients` is needed, or a loopback \
                 address or unix:PATH"
            ),
        );
        return None;
    }
    let address = match &address.value {
        AdminAddress::Unix(path) => AdminAddress::Unix(resolve(base, path)),
        tcp => tcp.clone(),
    };
    let token = match token {
        Some(token) => Some(token?),
        None => None,
    };
    let tls = match tls {
        Some(tls) => Some(tls?),
        None => None,
    };
    Some(Admin { address, token, tokens: tokens?, tls, clients: clients? })
}

fn admin_tls(raw: &Placed<raw::AdminTls>, admin: &raw::Admin, base: &Path, report: &mut Report) -> Option<AdminTls> {
    if let Some(AdminAddress::Unix(_)) = admin.address.as_ref().map(|address| &address.value) {
        report.error(&raw.place, "TLS has no place on a Unix socket");
    }
    let pair = match (&raw.certificate, &raw.key) {
        (Some(certificate), Some(key)) => pem::pair(certificate, key, base, report),
        // A key that is missing has been reported.
        _ => None,
    };
    let client_ca = raw.client_ca.as_ref().map(|ca| pem::authorities(ca, base, report));
    if let Some(ca) = &raw.client_ca
        && admin.clients.is_none()
        && !report.is_wrong("admin.clients")
    {
        report.error(&ca.place, "`client_ca` has no effect without `clients`, which says who may do what");
    }
    let Pair { chain, key, facts, .. } = pair?;
    Some(AdminTls {
        identity: Identity { chain, key, names: facts.names, not_after: facts.not_after },
        client_ca: match client_ca {
            Some(ca) => Some(ca?),
            None => None,
        },
    })
}

fn clients(admin: &raw::Admin, report: &mut Report) -> Option<Vec<AdminClient>> {
    let Some(list) = &admin.clients else { return Some(Vec::new()) };
    let asked = admin.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    if !asked && !report.is_wrong("admin.tls") {
        report.error(
            &list.place,
            "`clients` has no effect without `tls.client_ca`, by which their certificates are verified",
        );
    }
    let mut identities = HashMap::new();
    let mut checked = Vec::new();
    for raw in &list.0 {
        if let Some(identity) = &raw.identity {
            unique("identity", &identity.0, &identity.place, &mut identities, report);
        }
        checked.push((|| {
            Some(AdminClient { identity: raw.identity.as_ref()?.0.clone(), role: raw.role.as_ref()?.value })
        })());
    }
    checked.into_iter().collect()
}

fn tokens(
    raw: &[Placed<raw::AdminToken>],
    base: &Path,
    env: Env<'_>,
    secrets: &mut HashMap<Vec<u8>, Place>,
    report: &mut Report,
) -> Option<Vec<AdminToken>> {
    let mut names = HashMap::new();
    let mut checked = Vec::new();
    for raw in raw {
        if let Some(name) = &raw.name {
            unique("name", &name.0, &name.place, &mut names, report);
        }
        let secret = raw.token.as_ref().and_then(|token| {
            let read = secret::read(token, base, env, report);
            unique_secret(read.as_ref(), &token.place, secrets, report);
            read
        });
        checked.push((|| {
            Some(AdminToken { name: raw.name.as_ref()?.0.clone(), secret: secret?, role: raw.role.as_ref()?.value })
        })());
    }
    checked.into_iter().collect()
}

fn unique<'a>(
    what: &str,
    name: &'a str,
    place: &'a Place,
    seen: &mut HashMap<&'a str, &'a Place>,
    report: &mut Report,
) {
    match seen.get(name) {
        Some(first) => report
            .error(place, format!("the {what} `{name}` is already that of {} on line {}", first.path, first.mark.line)),
        None => _ = seen.insert(name, place),
    }
}

/// Which of two tokens a client has shown could not be told if they had the same secret.
fn unique_secret(secret: Option<&Secret>, place: &Place, seen: &mut HashMap<Vec<u8>, Place>, report: &mut Report) {
    let Some(secret) = secret else { return };
    match seen.get(&secret.0) {
        Some(first) => {
            report.error(place, format!("the secret is the same as that of {} on line {}", first.path, first.mark.line))
        }
        None => _ = seen.insert(secret.0.clone(), place.clone()),
    }
}
