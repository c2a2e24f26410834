//! What the listeners must tell of a client for a rule to mean anything.

use super::Layer;
use crate::config::decode::Placed;
use crate::config::model::{Https, KeyPart, Listener};
use crate::config::raw;
use crate::config::report::{Place, Report};
use crate::config::words::{Choice, OffOr, OffOrMany};

/// Checks the rules by clients' certificates, and warns of those by TLS, against the listeners that there are.
pub(in crate::config::check) fn facts(root: &raw::Root, listeners: &[Listener], report: &mut Report) {
    let asked = listeners.iter().any(|l| l.tls.as_ref().is_some_and(|tls| tls.client_auth.is_some()));
    let proxies = root.trusted_proxies.as_ref().is_none_or(|list| !list.0.is_empty());
    let secured = proxies || listeners.iter().any(|listener| listener.tls.is_some());
    let sites = root.sites.iter().flat_map(|list| &list.0);
    for site in sites {
        let routes = || site.routes.iter().flat_map(|list| &list.0);
        for layer in std::iter::once(Layer::from(site)).chain(routes().map(Layer::from)) {
            if !asked {
                identities(&layer, report);
            }
            if !secured {
                transport(&layer, report);
            }
        }
        for matcher in routes().filter_map(|route| route.r#match.as_ref()) {
            if let Some(list) = matcher.identities.as_ref().filter(|_| !asked) {
                unknown(&list.place, "identities", report);
            }
            if let Some(scheme) = matcher.scheme.as_ref().filter(|scheme| scheme.secure && !secured) {
                report.warn(&scheme.place, format!("the route takes no request: {NOBODY}"));
            }
        }
    }
}

/// Why no request counts as one that has come by https.
const NOBODY: &str = "no listener has TLS, and there are no `trusted_proxies` that could say `https`";

fn transport(layer: &Layer<'_>, report: &mut Report) {
    if let Some(raw) = layer.https {
        match raw.value {
            Https::Optional => {}
            Https::Redirect => report.warn(&raw.place, format!("every request is redirected: {NOBODY}")),
            Https::Required => report.warn(&raw.place, format!("every request is refused: {NOBODY}")),
        }
    }
    if let Some(raw) = layer.hsts.filter(|raw| !matches!(raw.value, Choice::Off)) {
        report.warn(&raw.place, format!("it is never sent: {NOBODY}"));
    }
}

fn identities(layer: &Layer<'_>, report: &mut Report) {
    if let Some(OffOr::Keys(access)) = layer.access.map(|raw| &raw.value)
        && let Some(list) = &access.identities
    {
        unknown(&list.place, "identities", report);
    }
    if let Some(OffOrMany::Many(list)) = layer.rate_limit.map(|raw| &raw.value) {
        list.0.iter().filter_map(|limit| limit.key.as_ref()).for_each(|key| counted(&key.0, report));
    }
    if let Some(OffOrMany::Many(list)) = layer.concurrency_limit.map(|raw| &raw.value) {
        list.0.iter().filter_map(|limit| limit.key.as_ref()).for_each(|key| counted(&key.0, report));
    }
}

fn counted(key: &[Placed<KeyPart>], report: &mut Report) {
    for part in key.iter().filter(|part| part.value == KeyPart::Identity) {
        unknown(&part.place, "identity", report);
    }
}

fn unknown(place: &Place, key: &str, report: &mut Report) {
    // Listeners of which something is wrong may have meant to ask.
    if !report.is_wrong("listeners") {
        report.error(place, format!("`{key}` is by the client's certificate, for which no listener asks"));
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;
    use crate::config::decode::Trail;
    use crate::config::model::{ClientAuth, Pem, Tls, TlsVersion, UnknownSni};
    use crate::config::node::Node;

    fn listener(tls: bool, asks: bool) -> Listener {
        let ca = Pem { path: PathBuf::from("/ca.pem"), certificates: [Vec::new()].into() };
        let auth = ClientAuth { ca, required: false, certificate_header: None, identity_header: None };
        let tls = tls.then(|| Tls {
            certificates: Vec::new(),
            min_version: TlsVersion::Tls12,
            h2: true,
            unknown_sni: UnknownSni::Default,
            client_auth: asks.then_some(auth),
            session_tickets: true,
            handshake_timeout: Duration::from_secs(10),
        });
        let address = "127.0.0.1:1".parse().unwrap();
        Listener { address, h2c: false, proxy_protocol: Vec::new(), tls }
    }

    /// The paths of errors and of warnings.
    fn found(more: &str, listeners: &[Listener]) -> (Vec<String>, Vec<String>) {
        let text = format!(
            "listeners: [{{address: '127.0.0.1:1'}}]\norigins: {{a: {{servers: ['127.0.0.1:2']}}}}\n{more}\n\
             sites:\n  - hosts: ['*']\n    origin: a\n    https: redirect\n    hsts: on\n\
             \x20   access: {{identities: [a]}}\n    rate_limit: {{key: [client-ip, identity], rate: 1/s}}\n\
             \x20   concurrency_limit: {{key: identity, requests: 1}}\n    routes:\n\
             \x20     - {{match: {{identities: b}}, hsts: off}}\n      - {{match: {{scheme: https}}, https: required}}\n"
        );
        let node = Node::parse(&text).unwrap();
        let mut report = Report::default();
        let root = Placed::<raw::Root>::decode(&node, &Trail::ROOT, &mut report).unwrap();
        assert!(report.errors.is_empty(), "{:?}", report.errors);
        facts(&root, listeners, &mut report);
        let paths = |findings: Vec<crate::config::Finding>| findings.into_iter().map(|f| f.place.path).collect();
        (paths(report.errors), paths(report.warnings))
    }

    #[test]
    fn rules_by_certificates_need_a_listener_that_asks() {
        let rules = [
            "sites[0].access.identities",
            "sites[0].rate_limit.key[1]",
            "sites[0].concurrency_limit.key",
            "sites[0].routes[0].match.identities",
        ];
        assert_eq!(found("", &[listener(true, false)]).0, rules);
        assert_eq!(found("", &[listener(false, false), listener(true, true)]), (vec![], vec![]));
    }

    #[test]
    fn rules_by_tls_need_a_listener_that_has_it_or_proxies() {
        let rules = ["sites[0].https", "sites[0].hsts", "sites[0].routes[1].https", "sites[0].routes[1].match.scheme"];
        assert_eq!(found("", &[listener(false, false)]).1, rules);
        assert_eq!(found("", &[listener(false, false), listener(true, false)]).1, [""; 0]);
        assert_eq!(found("trusted_proxies: [127.0.0.1]", &[listener(false, false)]).1, [""; 0]);
    }
}
