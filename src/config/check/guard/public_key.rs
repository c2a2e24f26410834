//! Public keys from PEM files.

use std::io::Read;
use std::path::Path;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, VerificationAlgorithm,
};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION};
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::super::resolve;
use super::keys::takes;
use crate::config::decode::Map;
use crate::config::model::{PublicKey, PublicKeyKind};
use crate::config::report::Report;
use crate::config::words::{FilePath, PublicKeyId, UrlFormatWord};

/// A file larger than this holds no public key, but something else.
const LONGEST: u64 = 64 << 10;

/// The keys of a mapping, each of a kind that the format has.
pub(super) fn all(
    map: &Map<PublicKeyId, FilePath>,
    format: UrlFormatWord,
    base: &Path,
    report: &mut Report,
) -> Option<Vec<PublicKey>> {
    let mut keys = Vec::new();
    for (id, file) in &map.0 {
        let path = resolve(base, &file.0);
        match read(&path).and_then(|text| parse(&text)) {
            Err(why) => report.error(&file.place, format!("{} {why}", path.display())),
            Ok((kind, _)) if !takes(format, kind) => report.error(
                &file.place,
                format!("{} is a key of P-384, which `format: {}` does not have", path.display(), format.as_str()),
            ),
            Ok((kind, bytes)) => keys.push(PublicKey { id: id.0.clone(), path, kind, bytes }),
        }
    }
    (keys.len() == map.0.len()).then_some(keys)
}

/// The kind of the one key that a text has in PEM form, and its bytes as [`PublicKey::bytes`] has them.
///
/// # Errors
/// A phrase about the file, without a byte of it.
fn parse(text: &[u8]) -> Result<(PublicKeyKind, Vec<u8>), String> {
    let has = |label: &[u8]| memchr::memmem::find(text, label).is_some();
    if has(b"PRIVATE KEY") {
        return Err(
            "holds a private key; only the public one is needed here, and the private one is safer elsewhere".into()
        );
    }
    let mut keys = SubjectPublicKeyInfoDer::pem_slice_iter(text);
    let der = match keys.next() {
        Some(Ok(der)) => der,
        Some(Err(why)) => return Err(format!("is not right PEM: {why}")),
        None if has(b"BEGIN RSA PUBLIC KEY") => {
            return Err("holds a key in PKCS#1 form; `openssl rsa -RSAPublicKey_in -pubout` makes one of \
                        SubjectPublicKeyInfo of it"
                .into());
        }
        None if has(b"BEGIN CERTIFICATE") => {
            return Err("holds a certificate; `openssl x509 -pubkey -noout` prints its public key".into());
        }
        None => return Err("holds no public key in PEM form (`BEGIN PUBLIC KEY`)".into()),
    };
    if keys.next().is_some() {
        return Err("holds more than one public key".into());
    }
    let wrong = || "holds a public key that is broken".to_owned();
    let (rest, info) = SubjectPublicKeyInfo::from_der(&der).map_err(|_| wrong())?;
    if !rest.is_empty() {
        return Err(wrong());
    }
    if info.algorithm.algorithm == OID_PKCS1_RSAENCRYPTION {
        let Ok(x509_parser::public_key::PublicKey::RSA(key)) = info.parsed() else { return Err(wrong()) };
        let bits = bits(key.modulus);
        if !(2048..=8192).contains(&bits) {
            return Err(format!("holds an RSA key of {bits} bits; from 2048 to 8192 are needed"));
        }
        let algorithm: &'static dyn VerificationAlgorithm = &RSA_PKCS1_2048_8192_SHA256;
        ParsedPublicKey::new(algorithm, &*der).map_err(|_| wrong())?;
        return Ok((PublicKeyKind::Rsa, der.to_vec()));
    }
    let curve = info.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    let (kind, algorithm): (_, &'static dyn VerificationAlgorithm) = match curve {
        Some(curve) if info.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY && curve == OID_EC_P256 => {
            (PublicKeyKind::P256, &ECDSA_P256_SHA256_ASN1)
        }
        Some(curve) if info.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY && curve == OID_NIST_EC_P384 => {
            (PublicKeyKind::P384, &ECDSA_P384_SHA384_ASN1)
        }
        _ => return Err("holds a public key that is neither RSA nor of P-256 or P-384".into()),
    };
    let point = info.subject_public_key.data.to_vec();
    // A compressed point begins with 2 or 3 (SEC 1 §2.3.3).
    if point.first() != Some(&4) {
        return Err("holds a public key whose point is compressed; it is needed whole".into());
    }
    ParsedPublicKey::new(algorithm, &point).map_err(|_| wrong())?;
    Ok((kind, point))
}

/// The length of a big-endian number.
fn bits(number: &[u8]) -> usize {
    let zeros = number.iter().take_while(|b| **b == 0).count();
    let first = number.get(zeros).map_or(0, |b| b.leading_zeros() as usize);
    (number.len() - zeros) * 8 - first
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let file = std::fs::File::open(path).map_err(|why| format!("cannot be opened: {why}"))?;
    let mut bytes = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(|why| format!("cannot be read: {why}"))?;
    match bytes.len() as u64 > LONGEST {
        true => Err("is too long for a public key".to_owned()),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;
    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PublicKeyData};

    use super::*;

    fn pem(label: &str, der: &[u8]) -> String {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
    }

    fn pair(algorithm: &'static rcgen::SignatureAlgorithm) -> KeyPair {
        KeyPair::generate_for(algorithm).unwrap()
    }

    #[test]
    fn curves() {
        for (algorithm, kind, length) in
            [(&PKCS_ECDSA_P256_SHA256, PublicKeyKind::P256, 65), (&PKCS_ECDSA_P384_SHA384, PublicKeyKind::P384, 97)]
        {
            let pair = pair(algorithm);
            let (found, bytes) = parse(pair.public_key_pem().as_bytes()).unwrap();
            assert_eq!((found, bytes.len()), (kind, length));
            assert_eq!(bytes, pair.der_bytes());
        }
    }

    /// The key of the golden files.
    const RSA: &[u8] = include_bytes!("../../../../tests/config/keys/rsa.pem");

    #[test]
    fn rsa() {
        let (kind, bytes) = parse(RSA).unwrap();
        assert_eq!((kind, bytes.first()), (PublicKeyKind::Rsa, Some(&0x30)));
        let short = parse(include_bytes!("../../../../tests/config/keys/rsa_1024.pem")).unwrap_err();
        assert!(short.contains("of 1024 bits"), "{short}");
        assert_eq!([bits(&[]), bits(&[0, 0]), bits(&[0, 1, 0]), bits(&[0x80, 0])], [0, 0, 9, 16]);
    }

    #[test]
    fn what_will_not_do_is_told() {
        let p256 = pair(&PKCS_ECDSA_P256_SHA256);
        let der = p256.subject_public_key_info();
        let mut off_the_curve = der.clone();
        *off_the_curve.last_mut().unwrap() ^= 1;
        let whole = pem("PUBLIC KEY", &der);
        for (text, why) in [
            (p256.serialize_pem(), "holds a private key"),
            (format!("{whole}{}", p256.serialize_pem()), "holds a private key"),
            (format!("{whole}{whole}"), "more than one"),
            (pem("RSA PUBLIC KEY", &der), "PKCS#1"),
            (pem("CERTIFICATE", &der), "holds a certificate"),
            (String::new(), "holds no public key"),
            (pem("PUBLIC KEY", &der[..40]), "broken"),
            (pem("PUBLIC KEY", &[&der[..], b"more"].concat()), "broken"),
            (pem("PUBLIC KEY", &off_the_curve), "broken"),
            (pem("PUBLIC KEY", b""), "broken"),
            (whole.replace("\n-----END", "!!\n-----END"), "not right PEM"),
            (pair(&PKCS_ED25519).public_key_pem(), "neither RSA nor"),
        ] {
            let said = parse(text.as_bytes()).unwrap_err();
            assert!(said.contains(why), "{why}: {said}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(der in prop::collection::vec(any::<u8>(), 0..200), start in any::<bool>(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
            let _ = parse(&der);
            let _ = parse(pem("PUBLIC KEY", &der).as_bytes());
            // A right one with a byte changed.
            let mut text = RSA.to_vec();
            let at = at.index(text.len());
            text[at] = if start { to } else { text[at].wrapping_add(1) };
            let _ = parse(&text);
        }
    }
}
