//! How a client's connection came: what TLS says of it, which holds for all of its requests.

use std::sync::Arc;

use http::HeaderValue;
use pingora::http::ResponseHeader;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora_proxy::Session;
use rustls::ServerConnection;

use crate::config::certificate;
use crate::tls::Server;

/// What is known of a connection by TLS.
pub struct Secured {
    /// The settings that it was accepted with.
    pub server: Arc<Server>,
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// HTTP/2 by ALPN.
    pub http2: bool,
    /// The client's certificate, in DER; it has been verified.
    pub certificate: Option<Box<[u8]>>,
    /// The names in it.
    pub identities: Vec<String>,
}

impl Secured {
    /// Of a session whose handshake is over.
    pub fn of(session: &ServerConnection, server: Arc<Server>) -> Secured {
        let certificate = session.peer_certificates().and_then(<[_]>::first);
        Secured {
            server,
            version: match session.protocol_version() {
                Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
                _ => "TLSv1.3",
            },
            http2: session.alpn_protocol() == Some(b"h2"),
            identities: certificate.map(|der| certificate::identities(der)).unwrap_or_default(),
            certificate: certificate.map(|der| Box::from(&**der)),
        }
    }

    /// The certificate as a field has it (RFC 9440 §2.2).
    pub fn certificate_field(&self) -> Option<HeaderValue> {
        use base64::Engine;
        let text = base64::engine::general_purpose::STANDARD.encode(self.certificate.as_ref()?);
        HeaderValue::try_from(format!(":{text}:")).ok()
    }

    /// In the wrapping that Pingora's sessions take along.
    pub fn wrap(self) -> Arc<ProxyDigest> {
        let unused = ResponseHeader::build_no_case(http::StatusCode::OK, Some(0));
        // It fails for no status that there is.
        let unused = unused.unwrap_or_else(|_| pingora::protocols::http::error_resp::gen_error_response(500));
        Arc::new(ProxyDigest::new(Box::new(unused), Some(Box::new(self))))
    }
}

/// What is known by TLS of the connection that a request came by, to be kept; `None`: it is plain. A background fetch has that
/// of the request that it is for.
pub fn of(session: &Session) -> Option<Arc<ProxyDigest>> {
    session.digest()?.proxy_digest.clone().filter(|digest| secured(digest).is_some())
}

/// What is in that.
pub fn secured(digest: &ProxyDigest) -> Option<&Secured> {
    digest.user_data.as_ref()?.downcast_ref()
}
