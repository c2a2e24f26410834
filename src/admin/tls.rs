//! TLS of the admin listener.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::certificate::identities;
use crate::config::model::{AdminTls, Pem};

/// What answers handshakes as the configuration says.
///
/// # Errors
/// The certificate, the key or the authorities will not do, which the configuration has checked.
pub fn acceptor(settings: &AdminTls) -> Result<TlsAcceptor, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let config = match &settings.client_ca {
        None => config.with_no_client_auth(),
        Some(ca) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities(ca)?), provider);
            // Who has none may have a token.
            let verifier = verifier.allow_unauthenticated().build().map_err(|error| error.to_string())?;
            config.with_client_cert_verifier(verifier)
        }
    };
    let identity = &settings.identity;
    let key = PrivateKeyDer::from_pem_slice(&identity.key.text)
        .map_err(|error| format!("{}: {error}", identity.key.path.display()))?;
    let mut config = config
        .with_single_cert(certificates(&identity.chain).collect(), key)
        .map_err(|error| format!("{}: {error}", identity.chain.path.display()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Nothing is resumed: whoever comes shows a certificate that is verified now. There are too few handshakes to save any.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Ends a handshake, and says who the client is: the names in its certificate, which has been verified; none where it has
/// shown none.
///
/// # Errors
/// The client's, or that it took too long.
pub async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    acceptor: &TlsAcceptor,
    stream: S,
    within: Duration,
) -> io::Result<(TlsStream<S>, Arc<[String]>)> {
    let stream = tokio::time::timeout(within, acceptor.accept(stream)).await??;
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let names = certificate.map(|certificate| identities(certificate)).unwrap_or_default();
    Ok((stream, names.into()))
}

fn certificates(pem: &Pem) -> impl Iterator<Item = CertificateDer<'static>> {
    pem.certificates.iter().map(|der| CertificateDer::from(der.clone()))
}

fn authorities(pem: &Pem) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem) {
        roots.add(certificate).map_err(|error| format!("{}: {error}", pem.path.display()))?;
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// A client that says half of a record and then nothing.
    #[tokio::test]
    async fn a_handshake_that_takes_too_long_is_ended() {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["a".to_owned()]).unwrap().self_signed(&key).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
            .unwrap();
        let (mut client, server) = tokio::io::duplex(1024);
        client.write_all(b"\x16\x03\x01\x02\x00\x01").await.unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let done = handshake(&acceptor, server, Duration::from_millis(20)).await;
        assert_eq!(done.map(|_| ()).unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
