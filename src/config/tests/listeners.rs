//! Listeners, their TLS, the admin API's, and what bounds clients: what their keys mean, and what holds without them.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384, SanType, date_time_ymd};

use super::{SMALL, environment, root, small};
use crate::config::model::{ClientAuth, Http2Limits, Listener, Overload, Role, Tls, TlsVersion, UnknownSni};
use crate::config::{Config, Errors, from_bytes, needs_restart};

const CDN: &str = "certificates: [{certificate: certs/cdn.pem, key: certs/cdn.key}]";

fn read(text: &str, base: &Path) -> Result<Config, Errors> {
    from_bytes(text.as_bytes(), None, base, &environment)
}

/// A listener with further keys.
fn listener(more: &str) -> Listener {
    let text = SMALL.replace("8080'}", &format!("8080', {more}}}"));
    read(&text, &root().join("tests/config")).unwrap_or_else(|e| panic!("{e}")).listeners.remove(0)
}

fn tls(more: &str) -> Tls {
    listener(&format!("tls: {{{CDN}{more}}}")).tls.unwrap()
}

#[test]
fn what_is_left_out_has_the_documented_default() {
    let plain = listener("h2c: false");
    assert_eq!((plain.proxy_protocol.len(), plain.tls.is_none()), (0, true));
    let usual = tls("");
    assert_eq!(usual.certificates[0].names, ["cdn.example.com", "*.cdn.example.com", "192.0.2.7"]);
    let at = (usual.min_version, usual.h2, usual.unknown_sni, usual.session_tickets);
    assert_eq!(at, (TlsVersion::Tls12, true, UnknownSni::Default, true));
    assert_eq!((usual.client_auth.is_none(), usual.handshake_timeout), (true, Duration::from_secs(10)));
    let said = ", min_version: \"1.2\", h2: true, unknown_sni: default, session_tickets: true, handshake_timeout: 10s";
    assert_eq!(tls(said), usual);
    let auth = |more: &str| tls(&format!(", client_auth: {{ca: tls/ca.pem{more}}}")).client_auth.unwrap();
    let ClientAuth { required, certificate_header, identity_header, ca } = auth("");
    assert_eq!((required, certificate_header.as_deref(), identity_header), (true, Some("client-cert"), None));
    assert_eq!(ca.certificates.len(), 1);
    assert_eq!(auth(", mode: required, certificate_header: Client-Cert"), auth(""));
    assert_eq!(auth(", certificate_header: off").certificate_header, None);
    let config = small("");
    assert!(config.session_ticket_secrets.is_empty());
    let limits = config.limits;
    let rates = (limits.connections_per_address, limits.body_min_rate, limits.send_min_rate);
    assert_eq!(rates, (None, None, None));
    assert_eq!(limits.http2, Http2Limits { streams: 128, resets: 500, control_frames: 1000 });
    let none = Overload { requests: None, delay: None, memory: None, retry_after: Duration::from_secs(5) };
    assert_eq!(config.overload, none);
    let some = small("overload: {requests: 7}\n").overload;
    assert_eq!(some, Overload { requests: Some(7), ..none });
}

#[test]
fn what_is_said_holds() {
    let config = read(
        &std::fs::read_to_string(root().join("tests/config/good/listeners.yaml")).unwrap(),
        &root().join("tests/config"),
    );
    let config = config.unwrap();
    let networks: Vec<_> = config.listeners[0].proxy_protocol.iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["10.0.0.0/8", "2001:db8::/32", "127.0.0.1/32"]);
    let tls = config.listeners[1].tls.as_ref().unwrap();
    let names: Vec<_> = tls.certificates.iter().map(|it| it.names[0].as_str()).collect();
    assert_eq!(names, ["cdn.example.com", "cdn.example.com", "admin.example.com"]);
    assert_eq!((tls.min_version, tls.h2, tls.unknown_sni), (TlsVersion::Tls13, false, UnknownSni::Refuse));
    assert_eq!((tls.session_tickets, tls.handshake_timeout), (false, Duration::from_millis(1500)));
    let auth = tls.client_auth.as_ref().unwrap();
    let fields = (auth.certificate_header.as_deref(), auth.identity_header.as_deref());
    assert_eq!((auth.required, fields), (false, (Some("x-cert"), Some("x-client"))));
    let secrets: Vec<_> = config.session_ticket_secrets.iter().map(|secret| secret.1.as_str()).collect();
    assert_eq!(secrets, ["env:TICKETS", "env:TICKETS_OLD"]);
    let admin = config.admin.as_ref().unwrap();
    assert_eq!(admin.tls.as_ref().unwrap().client_ca.as_ref().unwrap().certificates.len(), 1);
    let clients: Vec<_> = admin.clients.iter().map(|client| (client.identity.as_str(), client.role)).collect();
    assert_eq!(clients, [("ops.example.com", Role::All), ("spiffe://example.com/Scraper", Role::Read)]);
    let limits = config.limits;
    let rates = (limits.connections_per_address, limits.body_min_rate, limits.send_min_rate);
    assert_eq!(rates, (Some(100), Some(500), Some(2048)));
    assert_eq!(limits.http2, Http2Limits { streams: 64, resets: 200, control_frames: 400 });
    let (delay, memory) = (Some(Duration::from_millis(250)), Some(4 << 30));
    assert_eq!(
        config.overload,
        Overload { requests: Some(10_000), delay, memory, retry_after: Duration::from_secs(30) }
    );
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn only_another_address_needs_a_restart() {
    let old = small("");
    let config = |from: &str, to: &str, more: &str| {
        read(&(SMALL.replace(from, to) + more), &root().join("tests/config")).unwrap_or_else(|e| panic!("{e}"))
    };
    let new = config(
        "8080'}",
        &format!("8080', proxy_protocol: [10.0.0.0/8], tls: {{{CDN}}}}}"),
        "session_ticket_secrets: [env:TICKETS]\nlimits: {connections_per_address: 1, http2: {resets: 1}}\n\
         overload: {delay: 1s}\n",
    );
    assert!(needs_restart(&old, &new).is_empty() && needs_restart(&new, &old).is_empty());
    assert_eq!(needs_restart(&old, &config("8080'}", "8081'}", "")), ["listeners"]);
    assert_eq!(needs_restart(&old, &config("8080'}", "8080'}, {address: '127.0.0.1:8081'}", "")), ["listeners"]);
}

/// A folder of its own, which is gone with the value.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("foreland-listeners-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    /// A certificate for these names, as `NAME.pem` and `NAME.key`.
    fn issue(&self, name: &str, names: &[&str], key: &KeyPair, years: (i32, i32)) {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.subject_alt_names = names.iter().map(|name| SanType::DnsName((*name).try_into().unwrap())).collect();
        (params.not_before, params.not_after) = (date_time_ymd(years.0, 1, 1), date_time_ymd(years.1, 1, 1));
        std::fs::write(self.0.join(format!("{name}.pem")), params.self_signed(key).unwrap().pem()).unwrap();
        std::fs::write(self.0.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    /// What is said of a listener with these certificates: errors, or warnings.
    fn said(&self, names: &[&str]) -> Result<String, String> {
        let pairs: Vec<_> = names.iter().map(|name| format!("{{certificate: {name}.pem, key: {name}.key}}")).collect();
        let text = SMALL.replace("8080'}", &format!("8080', tls: {{certificates: [{}]}}}}", pairs.join(", ")));
        let shown = |text: String| text.replace(self.0.to_str().unwrap(), "DIR");
        match read(&text, &self.0) {
            Ok(config) => Ok(shown(config.warnings.join("\n"))),
            Err(errors) => Err(shown(errors.to_string())),
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.0);
    }
}

const LONG: (i32, i32) = (2020, 2999);

#[test]
fn a_certificate_that_is_never_chosen_is_refused() {
    let (folder, key) = (Folder::new(), KeyPair::generate().unwrap());
    let other = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    folder.issue("a", &["a.example.com", "*.example.com"], &key, LONG);
    folder.issue("same", &["A.example.com"], &other, LONG);
    folder.issue("more", &["a.example.com", "b.example.com"], &other, LONG);
    folder.issue("else", &["c.example.com"], &key, LONG);
    let why = "for `a.example.com`, the certificate of listeners[0].tls.certificates[0].certificate on line 1";
    let said = folder.said(&["a", "same"]).unwrap_err();
    assert!(said.contains(&format!("certificates[1].certificate: DIR/same.pem is never chosen: {why} is")), "{said}");
    // What has a name of its own is chosen for that.
    let said = folder.said(&["a", "more"]).unwrap();
    assert!(said.contains(&format!("DIR/more.pem: {why} is chosen, which has the same kind of key")), "{said}");
    // A name below a wildcard is another name.
    assert_eq!(folder.said(&["a", "else"]), Ok(String::new()));
    assert!(folder.said(&["else", "a"]).is_ok_and(|said| said.is_empty()));
}

#[test]
fn a_date_is_warned_of_and_refuses_nothing() {
    let (folder, key) = (Folder::new(), KeyPair::generate().unwrap());
    folder.issue("old", &["a"], &key, (1990, 1999));
    folder.issue("new", &["b"], &key, (2998, 2999));
    let said = folder.said(&["old", "new"]).unwrap();
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 2, "{said}");
    assert!(lines[0].ends_with("DIR/old.pem: the certificate expired on 1999-01-01"), "{said}");
    assert!(lines[1].ends_with("DIR/new.pem: the certificate is not valid before 2998-01-01"), "{said}");
}

#[test]
fn secrets_and_keys_are_not_printed() {
    let config = read(
        &std::fs::read_to_string(root().join("tests/config/good/listeners.yaml")).unwrap(),
        &root().join("tests/config"),
    );
    let config = config.unwrap();
    let key = std::fs::read_to_string(root().join("tests/config/certs/cdn.key")).unwrap();
    let line = key.lines().nth(1).unwrap();
    for text in [format!("{config:?}"), crate::config::effective(&config)] {
        assert!(!text.contains(line) && !text.contains("correct horse"), "{text}");
    }
}
