//! https: whom to trust, and who one is.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::pem::{self, Key, Mismatch};

/// The files of the command line.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// The authorities that are trusted; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// The certificate and the key that are shown to an edge that asks for them.
    pub client: Option<(PathBuf, PathBuf)>,
}

impl Files {
    /// With the authorities of an environment variable, where the command line names none; an empty one counts as none.
    pub fn or_ca(self, variable: Option<OsString>) -> Files {
        let variable = variable.filter(|path| !path.is_empty()).map(PathBuf::from);
        Files { ca: self.ca.or(variable), ..self }
    }
}

/// Speaks TLS as the files say.
#[derive(Clone)]
pub struct Tls(TlsConnector);

impl Tls {
    /// Reads the files, or the system's authorities.
    ///
    /// # Errors
    /// One of them will not do, in words.
    pub fn new(files: &Files) -> Result<Tls, String> {
        let roots = match &files.ca {
            Some(path) => authorities(path)?,
            None => system()?,
        };
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots);
        let mut config = match &files.client {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let (chain, key) = (pem::chain(certificate)?, Key::read(key)?);
                key.belongs_to(&chain).map_err(|why| why.to_string())?;
                let certificates = chain.certificates.iter().map(|der| CertificateDer::from(der.clone())).collect();
                let private = PrivateKeyDer::from_pem_slice(&key.file.text)
                    .map_err(|error| format!("{}: {error}", key.file.path.display()))?;
                config
                    .with_client_auth_cert(certificates, private)
                    .map_err(|error| format!("{}: {error}", chain.path.display()))?
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Tls(TlsConnector::from(Arc::new(config))))
    }

    /// # Errors
    /// The system's, or TLS's (see [`refusal`]).
    pub async fn connect<S>(&self, host: &str, stream: S) -> io::Result<TlsStream<S>>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        self.0.connect(name, stream).await
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls(…)")
    }
}

/// Why there is no connection, in words, with what to do. `None`: TLS has no part in it.
pub fn refusal(error: &io::Error) -> Option<String> {
    tls_error(error).map(words)
}

/// That an edge refuses the client's certificate, in words. With TLS 1.3, it says so only when the client reads its answer
/// (RFC 8446 §4.4.2.4); nothing has been done for the request then. `None`: the error is of another kind.
pub fn refused_late(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>().and_then(tls_error) {
            return matches!(error, rustls::Error::AlertReceived(alert) if about_certificates(*alert))
                .then(|| words(error));
        }
        next = error.source();
    }
    None
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

fn words(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "its certificate is of an unknown authority: --ca names a file with the one that has issued it".to_owned()
        }
        rustls::Error::InvalidCertificate(problem) => format!("its certificate is refused: {problem}"),
        rustls::Error::AlertReceived(alert) if about_certificates(*alert) => {
            let alert = format!("{alert:?}");
            format!(
                "it refuses the client's certificate ({alert}): see --client-certificate, and `admin.tls.client_ca` there"
            )
        }
        rustls::Error::InvalidMessage(_) => "it does not speak TLS: is it http://?".to_owned(),
        error => error.to_string(),
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
            | AlertDescription::DecryptError
    )
}

fn authorities(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for der in pem::authorities(path)?.certificates.iter() {
        let certificate = CertificateDer::from(der.clone());
        roots.add(certificate).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(roots)
}

/// Systems have odd certificates among theirs: those that cannot be read are not trusted.
fn system() -> Result<RootCertStore, String> {
    let certificates = rustls_native_certs::load_native_certs()
        .map_err(|error| format!("the system's certificate authorities cannot be read: {error}"))?;
    let mut roots = RootCertStore::empty();
    match roots.add_parsable_certificates(certificates) {
        (0, _) => Err("this system has no certificate authorities: --ca names a file with some".to_owned()),
        _ => Ok(roots),
    }
}
