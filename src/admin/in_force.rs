//! Who may ask, and by which TLS: as the configuration in force says, whenever it was put in force.

use std::sync::{Arc, Mutex, PoisonError};

use tokio_rustls::TlsAcceptor;

use super::guard::Guard;
use super::{Control, tls};
use crate::config::model::Admin;

/// The settings of a listener, which follow every reload that leaves it its address: what is right for one address could
/// open another to everybody.
#[derive(Clone)]
pub struct InForce(Arc<Inner>);

struct Inner {
    edge: Arc<dyn Control>,
    /// Whoever can open a connection is let in where nobody else is named.
    is_unix: bool,
    made: Mutex<Arc<Made>>,
}

/// What has been made of settings.
pub struct Made {
    settings: Admin,
    pub guard: Guard,
    /// `None`: plain.
    pub tls: Option<TlsAcceptor>,
}

impl InForce {
    /// From the settings that the listener was bound with.
    ///
    /// # Errors
    /// There can be no TLS with them: see [`tls::acceptor`].
    pub fn new(settings: Admin, is_unix: bool, edge: Arc<dyn Control>) -> Result<InForce, String> {
        let made = Mutex::new(Arc::new(Made::new(settings, is_unix)?));
        Ok(InForce(Arc::new(Inner { edge, is_unix, made })))
    }

    /// For a connection or a request that comes now. Does not block.
    pub fn now(&self) -> Arc<Made> {
        let Inner { edge, is_unix, made } = &*self.0;
        let said = edge.settings();
        // Held by the listener's one thread for as long as it takes to read a key.
        let mut made = made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(said) = said.filter(|said| *said != made.settings && said.address == made.settings.address) {
            let new = Made::new(said.clone(), *is_unix).unwrap_or_else(|error| {
                log::error!("admin: TLS, and who may ask, stay as they were: {error}");
                Made { settings: said, guard: made.guard.clone(), tls: made.tls.clone() }
            });
            *made = Arc::new(new);
        }
        made.clone()
    }
}

impl Made {
    fn new(settings: Admin, is_unix: bool) -> Result<Made, String> {
        let tls = settings.tls.as_ref().map(tls::acceptor).transpose()?;
        Ok(Made { guard: Guard::new(&settings, is_unix), settings, tls })
    }
}
