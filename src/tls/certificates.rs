//! Certificates by SNI.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::SignatureScheme;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::config::certificate::Facts;
use crate::config::model::{Identity, UnknownSni};
use crate::config::pem::{self, Key, Mismatch};
use crate::watched::{Watcher, Watching};

/// The certificates of one listener. Those whose files change are read again.
pub struct Certificates {
    held: Arc<Held>,
    unknown: UnknownSni,
    /// Ends with this.
    _watching: Vec<Watching>,
}

/// What is in force.
struct Held {
    index: ArcSwap<Index>,
    /// In the order of the configuration.
    loaded: Mutex<Vec<Loaded>>,
}

/// A certificate with its key, ready to sign.
#[derive(Clone)]
struct Loaded {
    names: Vec<String>,
    not_after: i64,
    key: Arc<CertifiedKey>,
}

/// A certificate's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// The file.
    pub file: String,
    /// The first of its names.
    pub name: String,
    /// Seconds since the epoch.
    pub not_after: i64,
}

/// The certificates for each name, in the order of the configuration.
struct Index {
    exact: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// `example.com` for `*.example.com`.
    wildcard: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// Those that have the names of the first.
    default: Vec<Arc<CertifiedKey>>,
}

impl Certificates {
    /// Makes ready to sign, and begins to watch, what the configuration has read.
    ///
    /// # Errors
    /// A key that cannot be used: the configuration's checks have let nothing of the kind through.
    pub fn new(
        identities: &[Identity],
        unknown: UnknownSni,
        watcher: Option<&Watcher>,
    ) -> Result<Certificates, String> {
        let loaded = identities.iter().map(load).collect::<Result<Vec<_>, _>>()?;
        let held = Arc::new(Held { index: ArcSwap::from_pointee(Index::new(&loaded)), loaded: Mutex::new(loaded) });
        let watching = watcher.iter().flat_map(|watcher| {
            identities.iter().enumerate().map(|(i, identity)| {
                let (chain, key) = (identity.chain.path.clone(), identity.key.path.clone());
                let (what, held) = (format!("certificate {}", chain.display()), held.clone());
                watcher.watch(what, vec![chain.clone(), key.clone()], move || {
                    held.replace(i, load(&read(&chain, &key)?)?);
                    Ok(())
                })
            })
        });
        let watching = watching.collect();
        Ok(Certificates { held, unknown, _watching: watching })
    }

    /// Whether there is a certificate for a name.
    pub fn knows(&self, name: Option<&str>) -> bool {
        name.is_some_and(|name| self.held.index.load().find(name).is_some())
    }

    /// Whether a client that asks for a name without a certificate, or for none, is refused.
    pub fn refuses_unknown(&self) -> bool {
        self.unknown == UnknownSni::Refuse
    }

    /// When each of them ends. `files`: those that they were read from, in the order of the configuration.
    pub fn expiries<'a>(&self, files: impl Iterator<Item = &'a Path>) -> Vec<Expiry> {
        let loaded = self.held.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |(file, loaded): (&Path, &Loaded)| Expiry {
            file: file.display().to_string(),
            name: loaded.names.first().cloned().unwrap_or_default(),
            not_after: loaded.not_after,
        };
        files.zip(&*loaded).map(of).collect()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let index = self.held.index.load();
        let found = hello.server_name().and_then(|name| index.find(name));
        let candidates = match found {
            None if self.refuses_unknown() => return None,
            None => &index.default,
            Some(found) => found,
        };
        choose(candidates, hello.signature_schemes()).cloned()
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("unknown", &self.unknown).finish_non_exhaustive()
    }
}

/// The first that the client can verify; else the first, for an alert that says so.
fn choose<'a>(candidates: &'a [Arc<CertifiedKey>], schemes: &[SignatureScheme]) -> Option<&'a Arc<CertifiedKey>> {
    // One that is smaller and quicker to sign with goes first, whatever the order.
    let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
    let is_rsa = |key: &&Arc<CertifiedKey>| key.key.algorithm() == rustls::SignatureAlgorithm::RSA;
    let quick = candidates.iter().filter(|key| !is_rsa(key)).find(fits);
    quick.or_else(|| candidates.iter().find(fits)).or(candidates.first())
}

impl Held {
    fn replace(&self, i: usize, new: Loaded) {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = loaded.get_mut(i) {
            *place = new;
            self.index.store(Arc::new(Index::new(&loaded)));
        }
    }
}

impl Index {
    fn new(loaded: &[Loaded]) -> Index {
        let mut index = Index { exact: HashMap::new(), wildcard: HashMap::new(), default: Vec::new() };
        for certificate in loaded {
            for name in &certificate.names {
                let (map, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut index.wildcard, parent),
                    None => (&mut index.exact, name.as_str()),
                };
                map.entry(name.to_ascii_lowercase()).or_default().push(certificate.key.clone());
            }
        }
        if let Some(first) = loaded.first() {
            let same = loaded.iter().filter(|other| other.names == first.names);
            index.default = same.map(|certificate| certificate.key.clone()).collect();
        }
        index
    }

    /// The certificates for a name, which is in lower case, as rustls gives it. A wildcard stands for one label
    /// (RFC 6125 §6.4.3).
    fn find(&self, name: &str) -> Option<&Vec<Arc<CertifiedKey>>> {
        self.exact.get(name).or_else(|| self.wildcard.get(name.split_once('.')?.1))
    }
}

/// What the files hold now. Blocks.
///
/// # Errors
/// Why it cannot be put in force: a phrase that follows their name.
pub fn read(chain: &Path, key: &Path) -> Result<Identity, String> {
    let wrong = |why: String| format!("cannot be put in force: {why}");
    let chain = pem::chain(chain).map_err(wrong)?;
    let key = Key::read(key).map_err(wrong)?;
    key.belongs_to(&chain).map_err(|(Mismatch::Key(why) | Mismatch::Certificate(why))| wrong(why))?;
    let facts = chain.certificates.first().and_then(|der| Facts::of(der));
    let Facts { names, not_after, .. } = facts.ok_or_else(|| wrong("the certificate cannot be read".to_owned()))?;
    Ok(Identity { chain, key: key.file, names, not_after })
}

fn load(identity: &Identity) -> Result<Loaded, String> {
    let chain = identity.chain.certificates.iter().map(|der| CertificateDer::from(der.clone())).collect();
    let key = PrivateKeyDer::from_pem_slice(&identity.key.text)
        .map_err(|e| format!("has a key that cannot be read: {}: {e}", identity.key.path.display()))?;
    let key = aws_lc_rs::default_provider()
        .key_provider
        .load_private_key(key)
        .map_err(|e| format!("has a key that cannot be used: {}: {e}", identity.key.path.display()))?;
    let (names, not_after) = (identity.names.clone(), identity.not_after);
    Ok(Loaded { names, not_after, key: Arc::new(CertifiedKey::new(chain, key)) })
}
