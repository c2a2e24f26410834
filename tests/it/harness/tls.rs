//! Certificates of a test's own making, and clients that speak TLS.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256,
};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Connection, H2Connection, within};

/// Somebody who signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key, in PEM.
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// The authority's own certificate.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for these names, with a key of P-256.
    pub fn issue(&self, names: &[&str]) -> Identity {
        self.sign(names, &KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key"))
    }

    /// The same with an RSA key.
    pub fn issue_rsa(&self, names: &[&str]) -> Identity {
        self.sign(names, &KeyPair::generate_for(&PKCS_RSA_SHA256).expect("a key"))
    }

    fn sign(&self, names: &[&str], key: &KeyPair) -> Identity {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let params = CertificateParams::new(names).expect("names");
        let certificate = params.signed_by(key, &self.issuer).expect("a certificate").pem();
        Identity { certificate, key: key.serialize_pem() }
    }
}

impl Identity {
    /// Writes `NAME.pem` and `NAME.key`.
    pub fn write(&self, folder: &Path, name: &str) {
        std::fs::write(folder.join(format!("{name}.pem")), &self.certificate).expect("a file");
        std::fs::write(folder.join(format!("{name}.key")), &self.key).expect("a file");
    }
}

/// How a client speaks TLS; it keeps sessions to resume.
#[derive(Clone)]
pub struct TlsClient {
    name: String,
    config: Arc<ClientConfig>,
}

impl TlsClient {
    /// Trusts `authority`, and asks for `name`.
    pub fn new(authority: &Authority, name: &str) -> TlsClient {
        TlsClient::with(authority, name, rustls::ALL_VERSIONS, None, aws_lc_rs::default_provider())
    }

    /// The same with a certificate of its own.
    pub fn identified(authority: &Authority, name: &str, identity: &Identity) -> TlsClient {
        TlsClient::with(authority, name, rustls::ALL_VERSIONS, Some(identity), aws_lc_rs::default_provider())
    }

    /// The same with these versions and what `provider` can do.
    pub fn limited(
        authority: &Authority,
        name: &str,
        versions: &[&'static SupportedProtocolVersion],
        provider: CryptoProvider,
    ) -> TlsClient {
        TlsClient::with(authority, name, versions, None, provider)
    }

    fn with(
        authority: &Authority,
        name: &str,
        versions: &[&'static SupportedProtocolVersion],
        identity: Option<&Identity>,
        provider: CryptoProvider,
    ) -> TlsClient {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).expect("PEM")).expect("an authority");
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes());
                let chain = chain.collect::<Result<_, _>>().expect("PEM");
                let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("PEM");
                builder.with_client_auth_cert(chain, key).expect("an identity")
            }
        };
        config.resumption = Resumption::in_memory_sessions(8);
        TlsClient { name: name.to_owned(), config: Arc::new(config) }
    }

    /// Offers these protocols by ALPN.
    pub fn alpn(&self, protocols: &[&str]) -> TlsClient {
        let mut config = (*self.config).clone();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsClient { name: self.name.clone(), config: Arc::new(config) }
    }

    /// Says no name.
    pub fn nameless(&self) -> TlsClient {
        let mut config = (*self.config).clone();
        config.enable_sni = false;
        TlsClient { name: self.name.clone(), config: Arc::new(config) }
    }

    /// A handshake. With TLS 1.3, a server that does not like the client's certificate says so only afterwards.
    pub async fn try_stream(&self, address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = within("a connection", TcpStream::connect(address)).await?;
        self.over(stream).await
    }

    /// A handshake over a connection that there is.
    pub async fn over(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        let _ = stream.set_nodelay(true);
        let name = ServerName::try_from(self.name.clone()).expect("a name");
        within("a TLS handshake", TlsConnector::from(self.config.clone()).connect(name, stream)).await
    }

    pub async fn stream(&self, address: SocketAddr) -> TlsStream<TcpStream> {
        self.try_stream(address).await.unwrap_or_else(|e| panic!("no TLS with {address}: {e}"))
    }

    /// A connection for HTTP/1.1.
    pub async fn open(&self, address: SocketAddr) -> Connection {
        Connection::over_any(self.stream(address).await)
    }

    /// A connection for HTTP/2, which the server must choose.
    pub async fn open_h2(&self, address: SocketAddr) -> H2Connection {
        let stream = self.alpn(&["h2", "http/1.1"]).stream(address).await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        H2Connection::over(stream, &h2::client::Builder::new()).await
    }
}
