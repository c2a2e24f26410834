//! The admin API's settings, and the files of its TLS, which are read again when they change.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::config::model::{Admin, AdminTls};
use crate::config::pem;
use crate::tls;
use crate::watched::{Watcher, Watching};

/// As one configuration says.
pub struct AdminSettings {
    in_force: Arc<ArcSwap<Admin>>,
    /// Ends with this. `None`: there is no TLS.
    _watching: Option<Watching>,
}

impl AdminSettings {
    /// Begins to watch the files that the configuration has read.
    pub fn new(settings: &Admin, watcher: &Watcher) -> AdminSettings {
        let in_force = Arc::new(ArcSwap::from_pointee(settings.clone()));
        let watching = settings.tls.as_ref().map(|its| {
            let (said, changed) = (settings.clone(), in_force.clone());
            let paths = [&its.identity.chain.path, &its.identity.key.path]
                .into_iter()
                .chain(its.client_ca.as_ref().map(|ca| &ca.path));
            let what = format!("admin: certificate {}", its.identity.chain.path.display());
            watcher.watch(what, paths.cloned().collect(), move || {
                let tls = said.tls.as_ref().map(read).transpose()?;
                changed.store(Arc::new(Admin { tls, ..said.clone() }));
                Ok(())
            })
        });
        AdminSettings { in_force, _watching: watching }
    }

    /// With what the files hold now.
    pub fn now(&self) -> Admin {
        Admin::clone(&self.in_force.load())
    }
}

/// What the files of these settings hold now.
fn read(settings: &AdminTls) -> Result<AdminTls, String> {
    let identity = tls::read(&settings.identity.chain.path, &settings.identity.key.path)?;
    let client_ca = settings.client_ca.as_ref().map(|ca| pem::authorities(&ca.path)).transpose();
    let client_ca = client_ca.map_err(|why| format!("cannot be put in force: {why}"))?;
    Ok(AdminTls { identity, client_ca })
}
