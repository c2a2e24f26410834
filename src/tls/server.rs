//! What the handshakes of one listener have in common.

use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::{NoClientAuth, NoServerSessionStorage};
use rustls::version::{TLS12, TLS13};

use super::certificates::{Certificates, Expiry};
use super::tickets::{Sealer, Tickets};
use super::{clients, suites};
use crate::config::model::{ClientAuth, Tls, TlsVersion};
use crate::watched::Watcher;

/// TLS of one listener, as one configuration has it.
#[derive(Debug)]
pub struct Server {
    pub(super) config: Arc<ServerConfig>,
    pub(super) certificates: Arc<Certificates>,
    settings: Tls,
}

impl Server {
    /// `before`: that of the configuration before, which is taken over where it is the same.
    ///
    /// # Errors
    /// Certificates or keys that cannot be used, which the configuration's checks have let none of through.
    pub fn new(
        settings: &Tls,
        tickets: &Arc<Tickets>,
        watcher: Option<&Watcher>,
        before: Option<&Arc<Server>>,
    ) -> Result<Arc<Server>, String> {
        if let Some(before) = before
            && before.settings == *settings
        {
            return Ok(before.clone());
        }
        // The first random bytes take some 40 ms to gather: now, rather than on the worker of the first handshake.
        aws_lc_rs::rand::fill(&mut [0; 32]).map_err(|_| "the system gives no random bytes".to_owned())?;
        let provider = Arc::new(suites::provider());
        let versions: &[_] = match settings.min_version {
            TlsVersion::Tls12 => &[&TLS13, &TLS12],
            TlsVersion::Tls13 => &[&TLS13],
        };
        let verifier = match &settings.client_auth {
            Some(auth) => clients::verifier(auth, provider.clone())?,
            None => Arc::new(NoClientAuth),
        };
        let certificates = Arc::new(Certificates::new(&settings.certificates, settings.unknown_sni, watcher)?);
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(|e| e.to_string())?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(certificates.clone());
        let protocols: &[&[u8]] = if settings.h2 { &[b"h2", b"http/1.1"] } else { &[b"http/1.1"] };
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        // What a session resumes from is in its ticket alone: nothing to fill up, nothing to share.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        match settings.session_tickets {
            true => config.ticketer = Arc::new(Sealer::new(tickets.clone(), &context(settings))),
            false => config.send_tls13_tickets = 0,
        }
        Ok(Arc::new(Server { config: Arc::new(config), certificates, settings: settings.clone() }))
    }

    /// From the connection to the end of the handshake.
    pub fn handshake_timeout(&self) -> Duration {
        self.settings.handshake_timeout
    }

    pub fn client_auth(&self) -> Option<&ClientAuth> {
        self.settings.client_auth.as_ref()
    }

    /// When the certificates end, as they are now.
    pub fn expiries(&self) -> Vec<Expiry> {
        self.certificates.expiries(self.settings.certificates.iter().map(|identity| identity.chain.path.as_path()))
    }
}

/// What a ticket is bound to: a session that another authority's certificate has begun is not to be resumed.
fn context(settings: &Tls) -> Vec<u8> {
    let mut context = Vec::new();
    if let Some(auth) = &settings.client_auth {
        context.push(u8::from(auth.required));
        for der in auth.ca.certificates.iter() {
            context.extend_from_slice(&(der.len() as u64).to_be_bytes());
            context.extend_from_slice(der);
        }
    }
    context
}
