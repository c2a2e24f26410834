//! The cipher suites: those of rustls with aws-lc-rs, but for how keys are derived.
//!
//! A TLS 1.3 handshake derives some twenty-five keys, several from each secret. What rustls' provider hands to aws-lc begins
//! HKDF anew for each of them, extraction included: about a third of a handshake's instructions with SHA-384. Here a secret is
//! made into an HMAC key once, and the rest is rustls' own HKDF.

use std::sync::LazyLock;

use aws_lc_rs::hmac;
use rustls::crypto::aws_lc_rs as defaults;
use rustls::crypto::hmac::{Hmac, Key, Tag};
use rustls::crypto::tls13::HkdfUsingHmac;
use rustls::crypto::{CipherSuiteCommon, CryptoProvider};
use rustls::{SupportedCipherSuite, Tls13CipherSuite};

static SHA256: Keyed = Keyed(&hmac::HMAC_SHA256);
static SHA384: Keyed = Keyed(&hmac::HMAC_SHA384);
static HKDF_SHA256: HkdfUsingHmac<'static> = HkdfUsingHmac(&SHA256);
static HKDF_SHA384: HkdfUsingHmac<'static> = HkdfUsingHmac(&SHA384);

/// The suites of the process: made once, since sessions refer to them for as long as they last.
static SUITES: LazyLock<Vec<SupportedCipherSuite>> =
    LazyLock::new(|| defaults::DEFAULT_CIPHER_SUITES.iter().map(|suite| quicker(*suite)).collect());

/// What handshakes with clients are made with.
pub fn provider() -> CryptoProvider {
    CryptoProvider { cipher_suites: SUITES.clone(), ..defaults::default_provider() }
}

fn quicker(suite: SupportedCipherSuite) -> SupportedCipherSuite {
    let SupportedCipherSuite::Tls13(base) = suite else { return suite };
    let hkdf = match base.common.hash_provider.output_len() {
        32 => &HKDF_SHA256,
        48 => &HKDF_SHA384,
        _ => return suite,
    };
    let common = CipherSuiteCommon {
        suite: base.common.suite,
        hash_provider: base.common.hash_provider,
        confidentiality_limit: base.common.confidentiality_limit,
    };
    let made = Tls13CipherSuite { common, hkdf_provider: hkdf, aead_alg: base.aead_alg, quic: base.quic };
    SupportedCipherSuite::Tls13(Box::leak(Box::new(made)))
}

/// HMAC of aws-lc, as rustls wants it.
struct Keyed(&'static hmac::Algorithm);

struct Ready(hmac::Key);

impl Hmac for Keyed {
    fn with_key(&self, key: &[u8]) -> Box<dyn Key> {
        Box::new(Ready(hmac::Key::new(*self.0, key)))
    }

    fn hash_output_len(&self) -> usize {
        self.0.digest_algorithm().output_len()
    }
}

impl Key for Ready {
    fn sign_concat(&self, first: &[u8], middle: &[&[u8]], last: &[u8]) -> Tag {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(first);
        middle.iter().for_each(|part| context.update(part));
        context.update(last);
        Tag::new(context.sign().as_ref())
    }

    fn tag_len(&self) -> usize {
        self.0.algorithm().digest_algorithm().output_len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5869, test case 1, by the part of HKDF that TLS uses.
    #[test]
    fn keys_are_derived_as_the_provider_derives_them() {
        let defaults = defaults::default_provider().cipher_suites;
        for (ours, theirs) in SUITES.iter().zip(&defaults) {
            let (Some(ours), Some(theirs)) = (ours.tls13(), theirs.tls13()) else { continue };
            for (salt, secret) in [(None, &b"secret"[..]), (Some(&b"salt"[..]), b"another secret")] {
                let derive = |suite: &Tls13CipherSuite| {
                    let expander = suite.hkdf_provider.extract_from_secret(salt, secret);
                    let block = expander.expand_block(&[b"some", b"info"]);
                    let mut long = [0; 100];
                    assert!(expander.expand_slice(&[b"label"], &mut long).is_ok());
                    let signed = suite.hkdf_provider.hmac_sign(&block, b"message");
                    let mut again = [0; 12];
                    let expander = suite.hkdf_provider.expander_for_okm(&block);
                    assert!(expander.expand_slice(&[b"iv"], &mut again).is_ok());
                    (block.as_ref().to_vec(), long, signed.as_ref().to_vec(), again)
                };
                assert_eq!(derive(ours), derive(theirs), "{:?}", ours.common.suite);
            }
        }
    }

    #[test]
    fn nothing_else_has_changed() {
        let names =
            |suites: &[SupportedCipherSuite]| suites.iter().map(SupportedCipherSuite::suite).collect::<Vec<_>>();
        assert_eq!(names(&provider().cipher_suites), names(&defaults::default_provider().cipher_suites));
    }
}
