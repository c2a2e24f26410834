//! TLS towards servers: certificates and keys are read here, so that one that will not do is told of before it is used.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore};

use super::{is_given, resolve};
use crate::config::decode::Placed;
use crate::config::model::{OriginTls, Pem, PrivatePem, TlsVersion};
use crate::config::raw;
use crate::config::report::Report;
use crate::config::words::{Choice, FilePath};

/// A file larger than this holds something else: all authorities of the web take less than half a megabyte.
const LONGEST: u64 = 4 << 20;

/// TLS of an origin; `Some(None)`: plain.
pub(super) fn tls(origin: &raw::Origin, base: &Path, report: &mut Report) -> Option<Option<OriginTls>> {
    let raw = origin.tls.as_ref()?;
    match &raw.value {
        Choice::Off => Some(None),
        Choice::On => Some(Some(OriginTls {
            verify: true,
            ca: None,
            sni: None,
            certificate: None,
            min_version: TlsVersion::Tls12,
        })),
        Choice::Keys(keys) => settings(keys, &raw.place, base, report).map(Some),
    }
}

fn settings(
    raw: &raw::OriginTls,
    place: &crate::config::report::Place,
    base: &Path,
    report: &mut Report,
) -> Option<OriginTls> {
    let unverified = raw.verify.as_ref().filter(|verify| !verify.value);
    if let Some(verify) = unverified {
        report.warn(
            &verify.place,
            "certificates are not verified: whoever stands between can read and change everything",
        );
        if let Some(ca) = &raw.ca {
            report.error(&ca.place, "`ca` has no effect beside `verify: false`");
        }
    }
    let ca = raw.ca.as_ref().map(|path| authorities(path, base, report));
    let certificate = match (&raw.certificate, &raw.key) {
        (Some(certificate), Some(key)) => Some(identity(certificate, key, base, report)),
        (Some(certificate), None) if !is_given(&raw.key, place, "key", report) => {
            report.error(&certificate.place, "`certificate` has no effect without its `key`");
            None
        }
        (None, Some(key)) if !is_given(&raw.certificate, place, "certificate", report) => {
            report.error(&key.place, "`key` has no effect without its `certificate`");
            None
        }
        _ => None,
    };
    Some(OriginTls {
        verify: raw.verify.as_ref()?.value,
        ca: super::all_or_none(ca)?,
        sni: raw.sni.as_ref().map(|name| name.value.0.clone()),
        certificate: super::all_or_none(certificate)?,
        min_version: raw.min_version.as_ref().map_or(TlsVersion::Tls12, |version| version.value),
    })
}

/// The authorities of a file, each of which can be trusted.
fn authorities(raw: &Placed<FilePath>, base: &Path, report: &mut Report) -> Option<Pem> {
    let path = resolve(base, &raw.0);
    let read = read(&path).and_then(|bytes| certificates(&path, &bytes)).and_then(|certificates| {
        let mut store = RootCertStore::empty();
        for (i, certificate) in certificates.iter().enumerate() {
            store
                .add(certificate.clone())
                .map_err(|why| format!("{}: certificate {} cannot be an authority: {why}", path.display(), i + 1))?;
        }
        Ok(certificates)
    });
    let certificates = read.map_err(|why| report.error(&raw.place, why)).ok()?;
    Some(pem(path, &certificates))
}

/// A certificate and its private key, which belong together.
fn identity(
    certificate: &Placed<FilePath>,
    key: &Placed<FilePath>,
    base: &Path,
    report: &mut Report,
) -> Option<(Pem, PrivatePem)> {
    let (chain_path, key_path) = (resolve(base, &certificate.0), resolve(base, &key.0));
    let chain = read(&chain_path).and_then(|bytes| certificates(&chain_path, &bytes));
    let text = read(&key_path).and_then(|text| private_key(&key_path, &text).map(|key| (text, key)));
    let chain = chain.map_err(|why| report.error(&certificate.place, why)).ok();
    let text = text.map_err(|why| report.error(&key.place, why)).ok();
    let (chain, (text, private)) = (chain?, text?);
    let signing = aws_lc_rs::default_provider().key_provider.load_private_key(private);
    let signing = signing
        .map_err(|why| report.error(&key.place, format!("{}: the key cannot be used: {why}", key_path.display())))
        .ok()?;
    match CertifiedKey::new(chain.clone(), signing).keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
        Err(rustls::Error::InconsistentKeys(_)) => {
            let (chain, key_shown) = (chain_path.display(), key_path.display());
            report.error(&key.place, format!("{key_shown} is not the key of the first certificate in {chain}"));
            return None;
        }
        Err(why) => {
            let shown = chain_path.display();
            report.error(&certificate.place, format!("{shown}: the first certificate cannot be used: {why}"));
            return None;
        }
    }
    Some((pem(chain_path, &chain), PrivatePem { path: key_path, text: text.into() }))
}

fn pem(path: PathBuf, certificates: &[CertificateDer<'_>]) -> Pem {
    let certificates: Arc<[Vec<u8>]> = certificates.iter().map(|certificate| certificate.to_vec()).collect();
    Pem { path, certificates }
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

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rcgen::{CertificateParams, KeyPair};

    use crate::config::model::Config;
    use crate::config::{Errors, effective, parse};

    /// A folder of its own, which is gone with the value.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Folder {
            static NUMBER: AtomicUsize = AtomicUsize::new(0);
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("foreland-tls-{}-{number}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn write(&self, name: &str, text: impl AsRef<[u8]>) {
            std::fs::write(self.0.join(name), text).unwrap();
        }

        fn config(&self, tls: &str) -> Result<Config, Errors> {
            let text = format!(
                "listeners: [{{address: '127.0.0.1:1'}}]\n\
                 origins: {{a: {{servers: ['127.0.0.1:2'], tls: {tls}}}}}\n\
                 sites: [{{hosts: ['*'], origin: a}}]\n"
            );
            parse(&text, None, &self.0)
        }

        /// What is said of a setting.
        fn said(&self, tls: &str) -> String {
            let said = self.config(tls).err().map(|errors| errors.to_string()).unwrap_or_default();
            said.replace(self.0.to_str().unwrap(), "DIR")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn certificate(key: &KeyPair) -> String {
        CertificateParams::new(vec!["app.internal".to_owned()]).unwrap().self_signed(key).unwrap().pem()
    }

    const BOTH: &str = "{certificate: c.pem, key: c.key}";

    #[test]
    fn a_certificate_and_its_key_are_read() {
        let (folder, key) = (Folder::new(), KeyPair::generate().unwrap());
        let (first, second) = (certificate(&key), certificate(&KeyPair::generate().unwrap()));
        folder.write("c.pem", format!("a comment\n{first}{second}"));
        folder.write("c.key", key.serialize_pem());
        let config = folder.config("{ca: c.pem, certificate: c.pem, key: c.key}").unwrap();
        let tls = config.origins[0].tls.as_ref().unwrap();
        let (chain, private) = tls.certificate.as_ref().unwrap();
        assert_eq!((chain.certificates.len(), chain.path.as_path()), (2, &*folder.0.join("c.pem")));
        assert_eq!(tls.ca.as_ref().unwrap().certificates, chain.certificates);
        assert_eq!(*private.text, *key.serialize_pem().as_bytes());
        // Printed by its path, and read as the same.
        let text = effective(&config);
        let line = key.serialize_pem().lines().nth(1).unwrap().to_owned();
        assert!(!text.contains(&line) && !format!("{config:?}").contains(&line), "the key is printed");
        assert_eq!(parse(&text, None, Path::new("/nowhere")).unwrap().origins, config.origins);
        // One file may hold both.
        folder.write("both.pem", format!("{}{first}", key.serialize_pem()));
        assert_eq!(folder.said("{certificate: both.pem, key: both.pem}"), "");
    }

    #[test]
    fn a_key_that_belongs_to_another_certificate_is_refused() {
        let (folder, key) = (Folder::new(), KeyPair::generate().unwrap());
        // The chain's second certificate is not the one that is shown as the client's own.
        folder.write("c.pem", format!("{}{}", certificate(&KeyPair::generate().unwrap()), certificate(&key)));
        folder.write("c.key", key.serialize_pem());
        let said = folder.said(BOTH);
        assert!(said.contains("tls.key: DIR/c.key is not the key of the first certificate in DIR/c.pem"), "{said}");
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let (folder, key) = (Folder::new(), KeyPair::generate().unwrap());
        folder.write("c.pem", certificate(&key));
        let key = key.serialize_pem();
        let pem = |label: &str| format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
        for (text, expected) in [
            (format!("{key}{key}"), "DIR/c.key holds more than one private key"),
            (pem("ENCRYPTED PRIVATE KEY"), "the private key in DIR/c.key is encrypted; it is needed as it is"),
            (pem("PRIVATE KEY"), "DIR/c.key: the key cannot be used: "),
            (key.replace("-----END", "!!!!\n-----END"), "DIR/c.key is not right PEM"),
            (certificate(&KeyPair::generate().unwrap()), "DIR/c.key holds no private key in PEM form"),
            ("x".repeat(super::LONGEST as usize + 1), "DIR/c.key is too long for certificates and keys"),
        ] {
            folder.write("c.key", text);
            let said = folder.said(BOTH);
            assert!(said.contains(&format!("origins.a.tls.key: {expected}")), "{said}");
            assert!(!said.contains(key.lines().nth(1).unwrap()), "{said}");
        }
    }

    #[test]
    fn both_files_are_looked_at() {
        let folder = Folder::new();
        folder.write("c.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        let said = folder.said("{ca: c.pem, certificate: none.pem, key: none.key}");
        assert_eq!(said.lines().count(), 3, "{said}");
        folder.write("c.key", KeyPair::generate().unwrap().serialize_pem());
        let said = folder.said(BOTH);
        assert!(said.contains("tls.certificate: DIR/c.pem: the first certificate cannot be used: "), "{said}");
    }
}
