//! Certificates and servers for tests.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion, version};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::model::{Origin, OriginTls, Pem, PrivatePem, Server, ServerAddress, TlsVersion};

/// Versions of TLS.
pub(in crate::origin) static ALL_TLS: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];
pub(in crate::origin) static ONLY_TLS_1_2: &[&SupportedProtocolVersion] = &[&version::TLS12];
pub(in crate::origin) static ONLY_TLS_1_3: &[&SupportedProtocolVersion] = &[&version::TLS13];

/// An origin with one server.
pub(in crate::origin) fn origin(tls: Option<OriginTls>) -> Origin {
    let address = ServerAddress::Socket(SocketAddr::from(([127, 0, 0, 1], 1)));
    let mut origin = Origin::plain("o", vec![Server { address, weight: 1, tier: 0 }]);
    origin.tls = tls;
    // Not what a test waits for, unless it says so.
    origin.connect_timeout = std::time::Duration::from_secs(20);
    origin.idle_timeout = std::time::Duration::from_secs(60);
    origin
}

/// Issues certificates.
pub(in crate::origin) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
pub(in crate::origin) struct Issued {
    pub(in crate::origin) certificate: CertificateDer<'static>,
    pub(in crate::origin) key: KeyPair,
}

impl Authority {
    pub(in crate::origin) fn new() -> Authority {
        static NUMBER: AtomicUsize = AtomicUsize::new(1);
        let name = format!("authority {}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(in crate::origin) fn issue(&self, name: &str) -> Issued {
        self.issue_as(name, |_| ())
    }

    pub(in crate::origin) fn issue_as(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap().der().clone();
        Issued { certificate, key }
    }

    /// What servers are verified with that trusts it alone.
    pub(in crate::origin) fn trusted(&self) -> OriginTls {
        let ca = Pem { path: PathBuf::from("ca.pem"), certificates: Arc::new([self.0.der().to_vec()]) };
        OriginTls { verify: true, ca: Some(ca), sni: None, certificate: None, min_version: TlsVersion::Tls12 }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        roots
    }
}

impl Issued {
    pub(in crate::origin) fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.serialize_der().into())
    }

    /// For a client.
    pub(in crate::origin) fn pem(&self) -> (Pem, PrivatePem) {
        let certificates = Arc::new([self.certificate.to_vec()]);
        let key = PrivatePem { path: PathBuf::from("key.pem"), text: self.key.serialize_pem().into_bytes().into() };
        (Pem { path: PathBuf::from("certificate.pem"), certificates }, key)
    }
}

/// How a server speaks TLS.
pub(in crate::origin) struct ServerTls<'a> {
    pub(in crate::origin) issued: &'a Issued,
    /// Whose certificates clients must show.
    pub(in crate::origin) clients: Option<&'a Authority>,
    pub(in crate::origin) alpn: &'a [&'a str],
    pub(in crate::origin) versions: &'static [&'static SupportedProtocolVersion],
}

impl<'a> ServerTls<'a> {
    pub(in crate::origin) fn of(issued: &'a Issued) -> ServerTls<'a> {
        ServerTls { issued, clients: None, alpn: &[], versions: ALL_TLS }
    }

    pub(in crate::origin) fn config(&self) -> ServerConfig {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config =
            ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(self.versions).unwrap();
        let config = match self.clients {
            None => config.with_no_client_auth(),
            Some(authority) => {
                let roots = Arc::new(authority.roots());
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                config.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let chain = vec![self.issued.certificate.clone()];
        let mut config = config.with_single_cert(chain, self.issued.key_der()).unwrap();
        config.alpn_protocols = self.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }
}

/// A server that tells, in a line, how it has been spoken to: the name asked for, the protocol and whether a session was
/// resumed. It then keeps the connection.
pub(in crate::origin) async fn telling(config: ServerConfig) -> SocketAddr {
    serve_tls(config, |mut stream: TlsStream<TcpStream>| async move {
        let session = stream.get_ref().1;
        let name = session.server_name().unwrap_or("-").to_owned();
        let protocol = String::from_utf8(session.alpn_protocol().unwrap_or(b"-").to_vec()).unwrap();
        let kind = session.handshake_kind();
        let line = format!("{name} {protocol} {kind:?}\n");
        if stream.write_all(line.as_bytes()).await.is_ok() {
            let _ = stream.flush().await;
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        }
    })
    .await
}

/// A server on a port of its own that does `then` with each connection whose handshake succeeds.
pub(in crate::origin) async fn serve_tls<F, T>(config: ServerConfig, then: F) -> SocketAddr
where
    F: Fn(TlsStream<TcpStream>) -> T + Send + Sync + 'static,
    T: Future<Output = ()> + Send + 'static,
{
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let then = Arc::new(then);
    serve(move |tcp| {
        let (acceptor, then) = (acceptor.clone(), then.clone());
        async move {
            if let Ok(stream) = acceptor.accept(tcp).await {
                then(stream).await;
            }
        }
    })
    .await
}

/// The same without TLS.
pub(in crate::origin) async fn serve<F, T>(then: F) -> SocketAddr
where
    F: Fn(TcpStream) -> T + Send + 'static,
    T: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(then(tcp));
        }
    });
    address
}
