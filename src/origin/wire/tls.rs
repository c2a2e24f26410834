//! TLS towards servers.

use std::io;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, WebPkiServerVerifier};
use rustls::crypto::{self, CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme,
    SupportedProtocolVersion, version,
};
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::io::Socket;
use crate::config::model::{OriginTls, Pem, TlsVersion};

/// The system's authorities, read by the first who needs them.
static SYSTEM: OnceCell<Arc<RootCertStore>> = OnceCell::const_new();

/// From the least version on.
static FROM_1_2: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];
static FROM_1_3: &[&SupportedProtocolVersion] = &[&version::TLS13];

/// Names of a certificate that a message lists.
const NAMES_LISTED: usize = 3;

/// What one origin's handshakes have in common, its resumable sessions included.
pub(super) struct Tls {
    settings: OriginTls,
    /// Made by the first handshake, since that may have to read the system's authorities.
    connector: OnceCell<TlsConnector>,
}

impl Tls {
    pub(super) fn new(settings: OriginTls) -> Tls {
        Tls { settings, connector: OnceCell::new() }
    }

    /// Speaks TLS to `name`, offering `alpn`. In words why not.
    pub(super) async fn handshake(
        &self,
        socket: Socket,
        name: ServerName<'static>,
        alpn: Vec<Vec<u8>>,
    ) -> Result<TlsStream<Socket>, String> {
        let connector = self.connector.get_or_try_init(|| self.configure()).await?;
        connector.with_alpn(alpn).connect(name, socket).await.map_err(|error| words(&error))
    }

    async fn configure(&self) -> Result<TlsConnector, String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = if self.settings.verify {
            let roots = match &self.settings.ca {
                Some(pem) => Arc::new(authorities(pem)?),
                None => SYSTEM.get_or_try_init(system).await?.clone(),
            };
            let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider.clone());
            verifier.build().map_err(|error| error.to_string())?
        } else {
            Arc::new(Unverified { provider: provider.clone() })
        };
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions(self.settings.min_version))
            .map_err(|error| error.to_string())?
            .dangerous() // `Unverified` is: the operator has asked for it.
            .with_custom_certificate_verifier(verifier);
        let config = match &self.settings.certificate {
            None => config.with_no_client_auth(),
            Some((chain, key)) => {
                let certificates = chain.certificates.iter().map(|der| CertificateDer::from(der.clone())).collect();
                let key = PrivateKeyDer::from_pem_slice(&key.text)
                    .map_err(|error| format!("{}: {error}", key.path.display()))?;
                config
                    .with_client_auth_cert(certificates, key)
                    .map_err(|error| format!("{}: {error}", chain.path.display()))?
            }
        };
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.settings.fmt(f)
    }
}

/// Why a server ended a connection whose handshake was complete on our side, in words: with TLS 1.3 that is when one
/// learns that a client certificate does not please (RFC 8446 §4.4.2.4). Nothing has been done for the request then.
/// `None`: the error is of another kind.
pub(super) fn refused_late(error: &io::Error) -> Option<String> {
    let rustls::Error::AlertReceived(alert) = tls_error(error)? else {
        return None;
    };
    about_certificates(*alert).then(|| alert_words(*alert))
}

fn versions(min: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    match min {
        TlsVersion::Tls12 => FROM_1_2,
        TlsVersion::Tls13 => FROM_1_3,
    }
}

fn authorities(pem: &Pem) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for der in pem.certificates.iter() {
        let der = CertificateDer::from(der.clone());
        roots.add(der).map_err(|error| format!("{}: {error}", pem.path.display()))?;
    }
    Ok(roots)
}

/// Reads many files, so not on a worker.
async fn system() -> Result<Arc<RootCertStore>, String> {
    let loaded = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs).await;
    let certificates = loaded
        .map_err(|error| format!("reading the system's certificate authorities: {error}"))?
        .map_err(|error| format!("reading the system's certificate authorities: {error}"))?;
    let mut roots = RootCertStore::empty();
    // Systems have odd certificates among theirs: those that cannot be read are not trusted.
    let (added, ignored) = roots.add_parsable_certificates(certificates);
    if added == 0 {
        return Err("this system has no certificate authorities: set `ca`".to_owned());
    }
    log::debug!("{added} certificate authorities of the system are trusted, {ignored} could not be read");
    Ok(Arc::new(roots))
}

/// Takes every certificate, but only from who has its key.
#[derive(Debug)]
struct Unverified {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

fn words(error: &io::Error) -> String {
    match tls_error(error) {
        Some(rustls::Error::InvalidCertificate(problem)) => certificate_words(problem),
        Some(rustls::Error::AlertReceived(alert)) => alert_words(*alert),
        Some(error) => error.to_string(),
        None if error.kind() == io::ErrorKind::UnexpectedEof => "the server ended the connection".to_owned(),
        None => error.to_string(),
    }
}

fn certificate_words(problem: &CertificateError) -> String {
    use CertificateError::*;
    match problem {
        Expired | ExpiredContext { .. } => "certificate expired".to_owned(),
        NotValidYet | NotValidYetContext { .. } => "certificate not valid yet".to_owned(),
        UnknownIssuer => "certificate of an unknown issuer".to_owned(),
        Revoked => "certificate revoked".to_owned(),
        BadSignature => "certificate with a wrong signature".to_owned(),
        NotValidForName => "certificate not valid for the server's name".to_owned(),
        NotValidForNameContext { expected, presented } => {
            let mut text = format!("certificate not valid for name {}", expected.to_str());
            for (n, name) in presented.iter().take(NAMES_LISTED).enumerate() {
                text.push_str(if n == 0 { ", but for " } else { ", " });
                text.push_str(name);
            }
            if presented.len() > NAMES_LISTED {
                text.push_str(", ...");
            }
            text
        }
        other => rustls::Error::InvalidCertificate(other.clone()).to_string(),
    }
}

fn alert_words(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::ProtocolVersion => "the server speaks no version of TLS that is allowed".to_owned(),
        AlertDescription::NoApplicationProtocol => {
            "the server speaks no version of HTTP that is allowed (ALPN)".to_owned()
        }
        AlertDescription::CertificateRequired => "the server requires a client certificate".to_owned(),
        AlertDescription::UnrecognisedName => "the server does not know the name that it was asked for".to_owned(),
        alert if about_certificates(alert) => format!("the server refused the client certificate: {alert:?}"),
        alert => format!("the server refused: {alert:?}"),
    }
}

/// Of those that a server has no other use for than to judge a client's certificate.
fn about_certificates(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
    )
}
