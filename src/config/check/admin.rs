//! The admin API's address and tokens.

use std::collections::HashMap;
use std::path::Path;

use super::{resolve, secret};
use crate::config::Env;
use crate::config::decode::Placed;
use crate::config::model::{Admin, AdminAddress, AdminToken, Secret};
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
    let address = raw.address.as_ref()?;
    // Tokens that could not be read have been reported; they are not missing.
    let wrong = report.is_wrong("admin.token") || report.is_wrong("admin.tokens");
    if let AdminAddress::Tcp(socket) = address.value
        && !socket.ip().is_loopback()
        && raw.token.is_none()
        && raw.tokens.is_none()
        && !wrong
    {
        report.error(
            &address.place,
            format!(
                "{socket} can be reached from other machines: `token` or `tokens` is needed, or a loopback address or \
                 unix:PATH"
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
    Some(Admin { address, token, tokens: tokens?, tls: None, clients: Vec::new() })
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
            unique_name(&name.0, &name.place, &mut names, report);
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

fn unique_name<'a>(name: &'a str, place: &'a Place, seen: &mut HashMap<&'a str, &'a Place>, report: &mut Report) {
    match seen.get(name) {
        Some(first) => report
            .error(place, format!("the name `{name}` is already that of {} on line {}", first.path, first.mark.line)),
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
