//! Certificates of clients: verified by the authorities that a listener trusts.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use crate::config::model::ClientAuth;

/// What verifies them.
///
/// # Errors
/// An authority that cannot be one: the configuration's checks have let none through.
pub fn verifier(settings: &ClientAuth, provider: Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for der in settings.ca.certificates.iter() {
        roots.add(CertificateDer::from(der.as_slice())).map_err(|e| format!("{}: {e}", settings.ca.path.display()))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = if settings.required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|e| format!("{}: {e}", settings.ca.path.display()))
}
