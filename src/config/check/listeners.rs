//! Where clients are served: addresses, and TLS.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;

use rustls::SignatureAlgorithm;

use super::{pem, secret};
use crate::config::Env;
use crate::config::decode::Placed;
use crate::config::model::{AdminAddress, ClientAuth, Identity, Listener, TicketSecrets, Tls, TlsVersion};
use crate::config::raw;
use crate::config::report::{Place, Report};

/// As long as the output of the hash that tickets' keys are made with: below, guessing would be easier than breaking it.
const SHORTEST_SECRET: usize = 32;

pub(super) fn listeners(root: &raw::Root, base: &Path, report: &mut Report) -> Option<Vec<Listener>> {
    let raw = root.listeners.as_ref()?;
    let mut bound: Vec<Bound<'_>> = Vec::new();
    let mut listeners = Vec::new();
    for raw in &raw.0 {
        if let Some(address) = &raw.address {
            claim(&mut bound, address.0, &address.place, report);
        }
        listeners.push(listener(raw, base, report));
    }
    if let Some(address) = root.admin.as_ref().and_then(|admin| admin.address.as_ref())
        && let AdminAddress::Tcp(socket) = address.value
    {
        claim(&mut bound, socket, &address.place, report);
    }
    listeners.into_iter().collect()
}

/// Secrets of session tickets, which need somebody who gives tickets.
pub(super) fn ticket_secrets(
    root: &raw::Root,
    base: &Path,
    env: Env<'_>,
    report: &mut Report,
) -> Option<TicketSecrets> {
    let Some(list) = &root.session_ticket_secrets else { return Some(Vec::new()) };
    let gives = |raw: &Placed<raw::Listener>| {
        // One that is given and wrong has been reported.
        let tls = raw.tls.as_ref();
        tls.is_some_and(|tls| tls.session_tickets.as_ref().is_none_or(|tickets| tickets.value))
    };
    let listeners = root.listeners.iter().flat_map(|list| &list.0);
    if !report.is_wrong("listeners") && !listeners.into_iter().any(gives) {
        report.error(
            &list.place,
            "`session_ticket_secrets` has no effect without a listener with TLS and session tickets",
        );
    }
    let mut seen: HashMap<Vec<u8>, &Place> = HashMap::new();
    let mut read = Vec::new();
    for raw in &list.0 {
        let secret = secret::read(raw, base, env, report);
        if let Some(secret) = &secret {
            if secret.0.len() < SHORTEST_SECRET {
                report.error(&raw.place, format!("the secret is shorter than {SHORTEST_SECRET} bytes"));
            }
            match seen.get(&secret.0) {
                Some(first) => {
                    let (path, line) = (&first.path, first.mark.line);
                    report.error(&raw.place, format!("the secret is the same as that of {path} on line {line}"));
                }
                None => _ = seen.insert(secret.0.clone(), &raw.place),
            }
        }
        read.push(secret);
    }
    read.into_iter().collect()
}

/// An address that something listens on.
struct Bound<'a> {
    address: SocketAddr,
    place: &'a Place,
}

/// Notes an address, or reports what has taken it.
fn claim<'a>(bound: &mut Vec<Bound<'a>>, address: SocketAddr, place: &'a Place, report: &mut Report) {
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

fn listener(raw: &Placed<raw::Listener>, base: &Path, report: &mut Report) -> Option<Listener> {
    let tls = raw.tls.as_ref().map(|raw| tls(raw, base, report));
    if let (Some(h2c), Some(_)) = (&raw.h2c, &raw.tls)
        && h2c.value
    {
        report.error(&h2c.place, "`h2c` has no place beside `tls`, where clients choose HTTP/2 by ALPN (`tls.h2`)");
    }
    Some(Listener {
        address: raw.address.as_ref()?.0,
        h2c: raw.h2c.as_ref()?.value,
        proxy_protocol: raw.proxy_protocol.iter().flat_map(|list| &list.0).map(|network| network.value.0).collect(),
        tls: match tls {
            Some(tls) => Some(tls?),
            None => None,
        },
    })
}

fn tls(raw: &Placed<raw::ListenerTls>, base: &Path, report: &mut Report) -> Option<Tls> {
    let certificates = raw.certificates.as_ref().map(|list| certificates(&list.0, base, report));
    let client_auth = raw.client_auth.as_ref().map(|raw| client_auth(raw, base, report));
    Some(Tls {
        certificates: certificates??,
        min_version: raw.min_version.as_ref().map_or(TlsVersion::Tls12, |version| version.value),
        h2: raw.h2.as_ref()?.value,
        unknown_sni: raw.unknown_sni.as_ref()?.value,
        client_auth: match client_auth {
            Some(client_auth) => Some(client_auth?),
            None => None,
        },
        session_tickets: raw.session_tickets.as_ref()?.value,
        handshake_timeout: raw.handshake_timeout.as_ref()?.0,
    })
}

fn certificates(raw: &[Placed<raw::CertificateFiles>], base: &Path, report: &mut Report) -> Option<Vec<Identity>> {
    let mut taken = HashMap::new();
    let mut checked = Vec::new();
    for raw in raw {
        let pair = match (&raw.certificate, &raw.key) {
            (Some(certificate), Some(key)) => pem::pair(certificate, key, base, report),
            // A key that is missing has been reported.
            _ => None,
        };
        let algorithm = pair.as_ref().map(|pair| pair.algorithm);
        let identity = pair.map(identity);
        if let (Some(identity), Some(algorithm)) = (&identity, algorithm) {
            let place = raw.certificate.as_ref().map_or(&raw.place, |certificate| &certificate.place);
            unique_names(identity, algorithm, place, &mut taken, report);
        }
        checked.push(identity);
    }
    checked.into_iter().collect()
}

/// As clients ask for it: in lower case.
fn identity(pair: pem::Pair) -> Identity {
    let names = pair.facts.names.iter().map(|name| name.to_ascii_lowercase()).collect();
    Identity { chain: pair.chain, key: pair.key, names, not_after: pair.facts.not_after }
}

/// Of two certificates for one name with keys of one kind, the first is chosen.
fn unique_names<'a>(
    identity: &Identity,
    algorithm: SignatureAlgorithm,
    place: &'a Place,
    taken: &mut HashMap<(String, u8), &'a Place>,
    report: &mut Report,
) {
    let shown = identity.chain.path.display();
    if identity.names.is_empty() {
        report
            .error(place, format!("{shown}: the certificate has no name: no DNS name, no address and no common name"));
        return;
    }
    let mut first: Option<(&str, &Place)> = None;
    let mut free = false;
    for name in &identity.names {
        match taken.get(&(name.clone(), algorithm.into())) {
            Some(place) => first = first.or(Some((name, place))),
            None => {
                free = true;
                taken.insert((name.clone(), algorithm.into()), place);
            }
        }
    }
    let Some((name, other)) = first else { return };
    let by = format!("the certificate of {} on line {}", other.path, other.mark.line);
    if free {
        report.warn(place, format!("{shown}: for `{name}`, {by} is chosen, which has the same kind of key"));
    } else {
        report.error(place, format!("{shown} is never chosen: for `{name}`, {by} is, which has the same kind of key"));
    }
}

fn client_auth(raw: &Placed<raw::ClientAuth>, base: &Path, report: &mut Report) -> Option<ClientAuth> {
    let ca = raw.ca.as_ref().and_then(|ca| pem::authorities(ca, base, report));
    let certificate_header = raw.certificate_header.as_ref().map(|field| field.value.0.as_ref().map(|f| f.0.clone()));
    let identity_header = raw.identity_header.as_ref().map(|field| field.0.clone());
    if let (Some(Some(one)), Some(other), Some(place)) = (&certificate_header, &identity_header, &raw.identity_header)
        && one == other
    {
        report.error(&place.place, format!("`{one}` takes the certificate already (`certificate_header`)"));
    }
    Some(ClientAuth {
        ca: ca?,
        required: raw.mode.as_ref()?.value.required,
        certificate_header: certificate_header?,
        identity_header,
    })
}
