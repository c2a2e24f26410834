//! The control API over TLS: its certificate, its clients', and `foreland purge` as one of them.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustix::process::Signal;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::harness::{Edge, Origin, Reply, eventually, within};

const TOKEN: &str = "correct-horse-battery";

/// Issues certificates into a folder, which is gone with it.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
}

impl Authority {
    fn new() -> Authority {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("admin authority {number}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("admin-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("ca.pem"), issuer.pem()).unwrap();
        Authority { issuer, folder }
    }

    /// A new certificate for a name, as `FILE.pem` and `FILE.key`.
    fn issue(&self, file: &str, name: &str) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.folder.join(format!("{file}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.folder.join(format!("{file}.key")), key.serialize_pem()).unwrap();
    }

    fn path(&self, file: &str) -> String {
        self.folder.join(file).display().to_string()
    }

    fn der(&self, file: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.folder.join(file)).unwrap()
    }

    /// Shows the certificate of this name, if any.
    fn connector(&self, client: Option<(&Authority, &str)>) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match client {
            None => config.with_no_client_auth(),
            Some((authority, file)) => {
                let key = PrivateKeyDer::from_pem_file(authority.folder.join(format!("{file}.key"))).unwrap();
                config.with_client_auth_cert(vec![authority.der(&format!("{file}.pem"))], key).unwrap()
            }
        };
        TlsConnector::from(Arc::new(config))
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A connection to the control API by TLS.
struct Talk {
    stream: TlsStream<TcpStream>,
    address: SocketAddr,
}

impl Talk {
    async fn open(edge: &Edge, connector: TlsConnector) -> io::Result<Talk> {
        let address = edge.admin_address();
        let tcp = TcpStream::connect(address).await?;
        let name = address.ip().into();
        let stream = within("a handshake", connector.connect(name, tcp)).await?;
        Ok(Talk { stream, address })
    }

    /// Status and body.
    async fn ask(&mut self, method: &str, target: &str, fields: &str) -> io::Result<(u16, String)> {
        let length = if method == "GET" { "" } else { "Content-Length: 0\r\n" };
        let request = format!("{method} {target} HTTP/1.1\r\nHost: {}\r\n{length}{fields}\r\n", self.address);
        self.stream.write_all(request.as_bytes()).await?;
        within("an answer", self.answer()).await
    }

    async fn answer(&mut self) -> io::Result<(u16, String)> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.stream.read_u8().await?);
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await?;
        Ok((head[9..12].parse().unwrap(), String::from_utf8(body).unwrap()))
    }

    async fn status(&mut self, method: &str, target: &str) -> u16 {
        self.ask(method, target, "").await.unwrap().0
    }

    fn certificate(&self) -> CertificateDer<'static> {
        self.stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
    }
}

/// An edge whose control API speaks TLS with the authority's `edge`, and knows clients that it has issued certificates to.
async fn start(origin: &Origin, authority: &Authority, more: &str) -> Edge {
    let edge = Edge::builder(&yaml(origin, authority, more)).env("FORELAND_TEST_TOKEN", TOKEN).spawn();
    ready(&edge, authority).await;
    edge
}

async fn ready(edge: &Edge, authority: &Authority) {
    eventually("the edge to be ready", async || {
        let Ok(mut talk) = Talk::open(edge, authority.connector(None)).await else { return false };
        talk.ask("GET", "/readyz", "").await.is_ok_and(|(status, _)| status == 200)
    })
    .await;
}

fn yaml(origin: &Origin, authority: &Authority, more: &str) -> String {
    let path = |file| authority.path(file);
    format!(
        "{}admin:\n  address: \"127.0.0.1:{{admin}}\"\n  tls: {{ certificate: \"{}\", key: \"{}\", client_ca: \"{}\" }}\n{more}",
        Edge::yaml_before(&[origin], ""),
        path("edge.pem"),
        path("edge.key"),
        path("ca.pem"),
    )
}

const CLIENTS: &str = "  clients: [{ identity: ops.example.com, role: all }, { identity: scraper, role: read }]\n";

async fn plain() -> Origin {
    Origin::start(|_| Reply::ok("x")).await
}

fn issued() -> Authority {
    let authority = Authority::new();
    for (file, name) in
        [("edge", "127.0.0.1"), ("ops", "Ops.example.com"), ("scraper", "scraper"), ("stranger", "stranger")]
    {
        authority.issue(file, name);
    }
    authority
}

#[tokio::test]
async fn a_client_is_known_by_its_certificate() {
    let (origin, authority, foreign) = (plain().await, issued(), issued());
    let edge = start(&origin, &authority, CLIENTS).await;
    let by = async |file| Talk::open(&edge, authority.connector(Some((&authority, file)))).await.unwrap();
    let mut ops = by("ops").await;
    assert_eq!((ops.status("GET", "/v1/config").await, ops.status("POST", "/v1/reload").await), (200, 200));
    edge.wait_log("admin: POST /v1/reload by `ops.example.com`: 200").await;
    let mut scraper = by("scraper").await;
    assert_eq!((scraper.status("GET", "/metrics").await, scraper.status("POST", "/v1/reload").await), (200, 403));
    // Nobody who is known, and nobody at all: neither learns anything but that the edge lives.
    let mut stranger = by("stranger").await;
    let mut nobody = Talk::open(&edge, authority.connector(None)).await.unwrap();
    for talk in [&mut stranger, &mut nobody] {
        let (status, body) = talk.ask("GET", "/metrics", "").await.unwrap();
        assert_eq!(status, 403, "{body}");
        assert!(body.contains("the certificate of a client"), "{body}");
        assert_eq!(talk.ask("GET", "/v1/config", "Authorization: Bearer x\r\n").await.unwrap().0, 403);
        assert_eq!(talk.status("GET", "/healthz").await, 200);
    }
    // A certificate that another authority has issued is no certificate.
    let refused = async {
        let mut talk = Talk::open(&edge, authority.connector(Some((&foreign, "ops")))).await?;
        talk.ask("GET", "/healthz", "").await
    };
    let error = refused.await.unwrap_err();
    assert!(error.to_string().contains("UnknownCA") || error.to_string().contains("UnknownCa"), "{error}");
    // And who does not speak TLS is not spoken to.
    let mut clear = TcpStream::connect(edge.admin_address()).await.unwrap();
    clear.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // An alert (RFC 8446 §6), if anything.
    let _ = within("the end", clear.read_to_end(&mut answer)).await;
    assert!(answer.is_empty() || answer.starts_with(b"\x15\x03"), "{answer:?}");
}

#[tokio::test]
async fn a_token_suffices_too() {
    let (origin, authority) = (plain().await, issued());
    let edge = start(&origin, &authority, &format!("{CLIENTS}  token: env:FORELAND_TEST_TOKEN\n")).await;
    let mut nobody = Talk::open(&edge, authority.connector(None)).await.unwrap();
    let right = format!("Authorization: Bearer {TOKEN}\r\n");
    assert_eq!(nobody.ask("GET", "/v1/config", &right).await.unwrap().0, 200);
    assert_eq!(nobody.status("GET", "/v1/config").await, 401);
    let mut scraper = Talk::open(&edge, authority.connector(Some((&authority, "scraper")))).await.unwrap();
    assert_eq!((scraper.status("GET", "/metrics").await, scraper.status("POST", "/v1/reload").await), (200, 403));
    assert_eq!(scraper.ask("POST", "/v1/reload", &right).await.unwrap().0, 200);
}

#[tokio::test]
async fn certificates_and_clients_follow_a_reload() {
    let (origin, authority) = (plain().await, issued());
    let edge = start(&origin, &authority, CLIENTS).await;
    let mut ops = Talk::open(&edge, authority.connector(Some((&authority, "ops")))).await.unwrap();
    let old = ops.certificate();
    assert_eq!(old, authority.der("edge.pem"));
    authority.issue("edge", "127.0.0.1");
    assert_eq!(ops.status("POST", "/v1/reload").await, 200);
    let new = Talk::open(&edge, authority.connector(None)).await.unwrap().certificate();
    assert_eq!(new, authority.der("edge.pem"));
    assert_ne!(new, old);
    // A connection that is open goes on, as far as its client still may.
    assert_eq!(ops.status("GET", "/v1/config").await, 200);
    edge.write_config(&yaml(&origin, &authority, "  clients: [{ identity: ops.example.com, role: read }]\n"));
    let (status, report) = ops.ask("POST", "/v1/reload", "").await.unwrap();
    assert_eq!(status, 200);
    assert!(report.contains("\"needs_restart\":[]"), "{report}");
    assert_eq!((ops.status("GET", "/v1/config").await, ops.status("POST", "/v1/reload").await), (200, 403));
    // Files that do not go together change nothing.
    authority.issue("other", "127.0.0.1");
    std::fs::copy(authority.folder.join("other.key"), authority.folder.join("edge.key")).unwrap();
    edge.signal(Signal::HUP);
    edge.wait_log("is not the key of the first certificate in").await;
    assert_eq!(Talk::open(&edge, authority.connector(None)).await.unwrap().certificate(), new);
}

#[tokio::test]
async fn the_files_are_read_again_when_they_change() {
    let (origin, authority) = (plain().await, issued());
    let edge = start(&origin, &authority, CLIENTS).await;
    let mut kept = Talk::open(&edge, authority.connector(Some((&authority, "ops")))).await.unwrap();
    let shown = async || Talk::open(&edge, authority.connector(None)).await.unwrap().certificate();
    authority.issue("edge", "127.0.0.1");
    let second = authority.der("edge.pem");
    eventually("the second certificate", async || shown().await == second).await;
    assert_eq!(kept.status("GET", "/v1/config").await, 200, "the connection goes on");
    // Files that do not go together change nothing, and are told of.
    authority.issue("other", "127.0.0.1");
    std::fs::copy(authority.folder.join("other.key"), authority.folder.join("edge.key")).unwrap();
    edge.wait_log("is not the key of the first certificate in").await;
    assert_eq!(shown().await, second);
    std::fs::copy(authority.folder.join("other.pem"), authority.folder.join("edge.pem")).unwrap();
    eventually("the third certificate", async || shown().await == authority.der("other.pem")).await;
    // So do those who may have signed certificates of clients.
    let foreign = issued();
    std::fs::copy(foreign.folder.join("ca.pem"), authority.folder.join("ca.pem")).unwrap();
    let by = async |whose: &Authority| {
        let mut talk = Talk::open(&edge, authority.connector(Some((whose, "ops")))).await?;
        talk.ask("GET", "/v1/config", "").await
    };
    eventually("the other authority", async || by(&foreign).await.is_ok_and(|(status, _)| status == 200)).await;
    assert!(by(&authority).await.is_err());
}

#[tokio::test]
async fn handshakes_that_do_not_end_are_nobody_elses_wait() {
    let (origin, authority) = (plain().await, issued());
    let edge = start(&origin, &authority, CLIENTS).await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        let mut stream = TcpStream::connect(edge.admin_address()).await.unwrap();
        // The beginning of a record, and no more.
        stream.write_all(b"\x16\x03\x01\x02\x00\x01").await.unwrap();
        silent.push(stream);
    }
    let mut ops = Talk::open(&edge, authority.connector(Some((&authority, "ops")))).await.unwrap();
    assert_eq!(ops.status("GET", "/metrics").await, 200);
    // Nor do they keep the process.
    edge.signal(Signal::TERM);
    assert!(edge.wait_exit().await.success());
    drop(silent);
}

async fn purge(args: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_foreland"));
    command.arg("purge").args(args).env_remove("FORELAND_ADMIN_TOKEN").env_remove("FORELAND_ADMIN_CA");
    command.envs(env.iter().copied()).stdin(std::process::Stdio::null());
    let run = tokio::task::spawn_blocking(move || command.output());
    let Output { status, stdout, stderr } = within("the command's end", run).await.unwrap().unwrap();
    (status.code(), String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr))
}

#[tokio::test]
async fn the_command_line_speaks_https() {
    let (origin, authority, foreign) = (plain().await, issued(), issued());
    let edge = start(&origin, &authority, &format!("{CLIENTS}  token: env:FORELAND_TEST_TOKEN\n")).await;
    let url = format!("https://{}", edge.admin_address());
    let (ca, elsewhere) = (authority.path("ca.pem"), foreign.path("ca.pem"));
    let to = ["--everything", "--admin", &url];
    let with = |more: &[&'static str]| [&to[..], more].concat();
    let trusting = [&to[..], &["--ca", &ca]].concat();
    let token = [("FORELAND_ADMIN_TOKEN", TOKEN)];
    let (code, said) = purge(&trusting, &token).await;
    assert_eq!((code, said.starts_with("purged ")), (Some(0), true), "{said}");
    // The variable does as well as the option, which counts before it.
    let from = |ca| [token[0], ("FORELAND_ADMIN_CA", ca)];
    assert_eq!(purge(&with(&[]), &from(&ca)).await.0, Some(0));
    assert_eq!(purge(&trusting, &from(&elsewhere)).await.0, Some(0));
    let (code, said) = purge(&with(&[]), &from(&elsewhere)).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("unknown authority") && said.contains("nothing is purged"), "{said}");
    // A certificate instead of the token.
    let showing = |authority: &Authority, file: &str| {
        let (certificate, key) = (authority.path(&format!("{file}.pem")), authority.path(&format!("{file}.key")));
        let files = ["--client-certificate", &certificate, "--client-key", &key].map(str::to_owned);
        trusting.iter().map(|arg| (*arg).to_owned()).chain(files).collect::<Vec<_>>()
    };
    let run = async |args: Vec<String>| purge(&args.iter().map(String::as_str).collect::<Vec<_>>(), &[]).await;
    let (code, said) = run(showing(&authority, "ops")).await;
    assert_eq!(code, Some(0), "{said}");
    for (authority, file, says) in [
        (&authority, "scraper", "403: this needs the role"),
        (&authority, "stranger", "asks for a token"),
        (&foreign, "ops", "refuses the client's certificate"),
    ] {
        let (code, said) = run(showing(authority, file)).await;
        assert_eq!(code, Some(1), "{file}: {said}");
        assert!(said.contains(says) && said.contains("nothing is purged"), "{file}: {said}");
    }
    let mut mixed = showing(&authority, "ops");
    *mixed.last_mut().unwrap() = authority.path("scraper.key");
    let (code, said) = run(mixed).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("is not the key of the first certificate in"), "{said}");
    let (_, said) = purge(&["--everything", "--admin", &url.replace("https", "http")], &token).await;
    assert!(said.contains("without an answer"), "{said}");
}
