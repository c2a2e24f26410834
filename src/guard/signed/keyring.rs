//! The secrets of a key: the first signs, all verify.

use aws_lc_rs::hmac as aws;
use hmac::digest::block_api::EagerHash;
use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use sha2::Sha256;
use smallvec::SmallVec;
use subtle::{Choice, ConstantTimeEq};

use crate::config::model::Secret;

/// Hash functions of HMAC (RFC 2104). SHA-1 and MD5 are as strong as is needed there, but for no other use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Sha256,
    Sha1,
    Md5,
}

/// A signature, of up to 32 bytes.
pub(super) type Tag = SmallVec<[u8; 32]>;

/// Secrets, each with what HMAC makes of it before it sees a text.
pub(super) enum Keyring {
    Sha256(Vec<Hmac<Sha256>>),
    Sha1(Vec<aws::Key>),
    Md5(Vec<Hmac<Md5>>),
}

impl Keyring {
    pub fn new(algorithm: Algorithm, secrets: &[Secret]) -> Keyring {
        match algorithm {
            Algorithm::Sha256 => Keyring::Sha256(prepared(secrets)),
            Algorithm::Md5 => Keyring::Md5(prepared(secrets)),
            Algorithm::Sha1 => {
                let key = |secret: &Secret| aws::Key::new(aws::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &secret.0);
                Keyring::Sha1(secrets.iter().map(key).collect())
            }
        }
    }

    /// Bytes of a whole signature.
    pub fn length(&self) -> usize {
        match self {
            Keyring::Sha256(_) => 32,
            Keyring::Sha1(_) => 20,
            Keyring::Md5(_) => 16,
        }
    }

    /// Whether the first `expected` bytes of the text's signature by one of the secrets are this tag. The text is that of
    /// the parts, one after the other. The time that it takes tells nothing: neither how much of the tag is right, nor by
    /// which secret.
    pub fn verifies(&self, text: &[&[u8]], tag: &[u8], expected: usize) -> bool {
        if tag.len() != expected || expected == 0 {
            return false;
        }
        let mut any = Choice::from(0);
        self.each(text, |signature| {
            if let Some(begin) = signature.get(..expected) {
                any |= begin.ct_eq(tag);
            }
        });
        any.into()
    }

    /// The text's signature by the first secret.
    pub fn sign(&self, text: &[&[u8]]) -> Tag {
        let mut first = None;
        self.each(text, |signature| {
            first.get_or_insert_with(|| Tag::from_slice(signature));
        });
        first.unwrap_or_default()
    }

    fn each(&self, text: &[&[u8]], mut see: impl FnMut(&[u8])) {
        match self {
            Keyring::Sha256(keys) => keys.iter().for_each(|key| see(&signature(key, text))),
            Keyring::Md5(keys) => keys.iter().for_each(|key| see(&signature(key, text))),
            Keyring::Sha1(keys) => keys.iter().for_each(|key| {
                let mut mac = aws::Context::with_key(key);
                text.iter().for_each(|part| mac.update(part));
                see(mac.sign().as_ref());
            }),
        }
    }
}

/// A secret of any length is a key.
fn prepared<D: EagerHash>(secrets: &[Secret]) -> Vec<Hmac<D>>
where
    Hmac<D>: KeyInit,
{
    secrets.iter().filter_map(|secret| Hmac::new_from_slice(&secret.0).ok()).collect()
}

fn signature<M: Mac + Clone>(key: &M, text: &[&[u8]]) -> hmac::digest::Output<M> {
    let mut mac = key.clone();
    text.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn secrets(texts: &[&str]) -> Vec<Secret> {
        texts.iter().map(|text| Secret(text.as_bytes().to_vec(), String::new())).collect()
    }

    /// RFC 2202 and RFC 4231, test case 2.
    #[test]
    fn the_vectors_of_the_standards() {
        let secrets = secrets(&["Jefe"]);
        for (algorithm, expected) in [
            (Algorithm::Md5, "750c783e6ab0b503eaa86e310a5db738"),
            (Algorithm::Sha1, "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"),
            (Algorithm::Sha256, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
        ] {
            let keys = Keyring::new(algorithm, &secrets);
            let text: [&[u8]; 2] = [b"what do ya want ", b"for nothing?"];
            let tag = keys.sign(&text);
            assert_eq!((hex(&tag), tag.len()), (expected.to_owned(), keys.length()), "{algorithm:?}");
            assert!(keys.verifies(&text, &tag, keys.length()));
        }
    }

    #[test]
    fn every_secret_verifies_and_the_first_signs() {
        let (old, new) = (secrets(&["old"]), secrets(&["new"]));
        let both = Keyring::new(Algorithm::Sha256, &[new[0].clone(), old[0].clone()]);
        let text: [&[u8]; 1] = [b"text"];
        for secret in [&old, &new] {
            let tag = Keyring::new(Algorithm::Sha256, secret).sign(&text);
            assert!(both.verifies(&text, &tag, 32) && both.verifies(&text, &tag[..16], 16));
            assert!(!both.verifies(&[b"texts"], &tag, 32));
            assert!(!both.verifies(&text, &tag[..16], 32) && !both.verifies(&text, &tag, 16));
        }
        assert_eq!(both.sign(&text), Keyring::new(Algorithm::Sha256, &new).sign(&text));
        assert!(!both.verifies(&text, &[], 0) && !both.verifies(&text, &[0; 65], 65));
        assert!(!Keyring::new(Algorithm::Sha256, &secrets(&["other"])).verifies(&text, &both.sign(&text), 32));
    }
}
