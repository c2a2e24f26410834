//! TLS towards servers: certificates and keys are read here, so that one that will not do is told of before it is used.

use std::path::Path;

use super::is_given;
use crate::config::check::pem;
use crate::config::model::{OriginTls, TlsVersion};
use crate::config::raw;
use crate::config::report::Report;
use crate::config::words::Choice;

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
    let ca = raw.ca.as_ref().map(|path| pem::authorities(path, base, report));
    let certificate = match (&raw.certificate, &raw.key) {
        (Some(certificate), Some(key)) => {
            Some(pem::pair(certificate, key, base, report).map(|pair| (pair.chain, pair.key)))
        }
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
            ("x".repeat(crate::config::pem::LONGEST as usize + 1), "DIR/c.key is too long for certificates and keys"),
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
