//! Certificates and keys in files, read so that one that will not do is told of before it is used.
//!
//! Every error is a sentence with the file's name, and without a byte of a key.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{InconsistentKeys, RootCertStore, SignatureAlgorithm};

use super::model::{Pem, PrivatePem};

/// A file larger than this holds something else: all authorities of the web take less than half a megabyte.
pub(super) const LONGEST: u64 = 4 << 20;

/// The authorities of a file, each of which can be trusted; at least one.
///
/// # Errors
/// The file cannot be read, or one of its certificates cannot be an authority.
pub fn authorities(path: &Path) -> Result<Pem, String> {
    let certificates = certificates(path, &read(path)?)?;
    let mut store = RootCertStore::empty();
    for (i, certificate) in certificates.iter().enumerate() {
        store
            .add(certificate.clone())
            .map_err(|why| format!("{}: certificate {} cannot be an authority: {why}", path.display(), i + 1))?;
    }
    Ok(pem(path, &certificates))
}

/// A certificate with its chain, from a file; at least one.
///
/// # Errors
/// The file cannot be read, or holds no certificate.
pub fn chain(path: &Path) -> Result<Pem, String> {
    read(path).and_then(|bytes| certificates(path, &bytes)).map(|certificates| pem(path, &certificates))
}

/// A private key that can be used.
#[derive(Debug)]
pub struct Key {
    pub file: PrivatePem,
    signing: Arc<dyn SigningKey>,
}

impl Key {
    /// # Errors
    /// The file cannot be read, holds no key or several, or one that is encrypted or of an unknown kind.
    pub fn read(path: &Path) -> Result<Key, String> {
        let text = read(path)?;
        let private = private_key(path, &text)?;
        let signing = aws_lc_rs::default_provider()
            .key_provider
            .load_private_key(private)
            .map_err(|why| format!("{}: the key cannot be used: {why}", path.display()))?;
        Ok(Key { file: PrivatePem { path: path.to_owned(), text: text.into() }, signing })
    }

    pub fn algorithm(&self) -> SignatureAlgorithm {
        self.signing.algorithm()
    }

    /// Whether it is the key of the chain's first certificate.
    ///
    /// # Errors
    /// See [`Mismatch`].
    pub fn belongs_to(&self, chain: &Pem) -> Result<(), Mismatch> {
        let certificates = chain.certificates.iter().map(|der| CertificateDer::from(der.clone())).collect();
        match CertifiedKey::new(certificates, self.signing.clone()).keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(()),
            Err(rustls::Error::InconsistentKeys(_)) => {
                let (chain, key) = (chain.path.display(), self.file.path.display());
                Err(Mismatch::Key(format!("{key} is not the key of the first certificate in {chain}")))
            }
            Err(why) => {
                let shown = chain.path.display();
                Err(Mismatch::Certificate(format!("{shown}: the first certificate cannot be used: {why}")))
            }
        }
    }
}

/// Why a key and a chain do not go together, in words.
#[derive(Debug)]
pub enum Mismatch {
    /// The key is another's.
    Key(String),
    /// The certificate cannot be used with any.
    Certificate(String),
}

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Mismatch::Key(why) | Mismatch::Certificate(why) => f.write_str(why),
        }
    }
}

fn pem(path: &Path, certificates: &[CertificateDer<'_>]) -> Pem {
    let certificates: Arc<[Vec<u8>]> = certificates.iter().map(|certificate| certificate.to_vec()).collect();
    Pem { path: PathBuf::from(path), certificates }
}

fn certificates(path: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let shown = path.display();
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(format!("{shown} holds no certificate in PEM form")),
        Ok(certificates) => Ok(certificates),
        Err(why) => Err(format!("{shown} is not right PEM: {why}")),
    }
}

/// What is wrong with a key is told without a byte of it.
fn private_key(path: &Path, bytes: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    let shown = path.display();
    let mut keys = PrivateKeyDer::pem_slice_iter(bytes);
    let key = match keys.next() {
        Some(Ok(key)) => key,
        Some(Err(_)) => return Err(format!("{shown} is not right PEM")),
        None if memchr::memmem::find(bytes, b"BEGIN ENCRYPTED PRIVATE KEY").is_some() => {
            return Err(format!("the private key in {shown} is encrypted; it is needed as it is"));
        }
        None => return Err(format!("{shown} holds no private key in PEM form")),
    };
    match keys.next() {
        Some(_) => Err(format!("{shown} holds more than one private key")),
        None => Ok(key),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let shown = path.display();
    let file = std::fs::File::open(path).map_err(|why| format!("{shown} cannot be opened: {why}"))?;
    let mut bytes = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(|why| format!("{shown} cannot be read: {why}"))?;
    match bytes.len() as u64 > LONGEST {
        true => Err(format!("{shown} is too long for certificates and keys")),
        false => Ok(bytes),
    }
}
