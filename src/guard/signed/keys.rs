//! Public keys of signers, each parsed once for every scheme that it may be used with.

#[cfg(test)]
pub(super) mod testing;

use aws_lc_rs::signature::{self, ParsedPublicKey, VerificationAlgorithm};

use crate::config::model::{PublicKey, PublicKeyKind};

/// Characters of a signature that tell tokens apart. Those of ECDSA in DER begin with a few that are the same for all.
const SHOWN: usize = 16;

/// How something is signed. An RSA key is of no use to a scheme of a curve, nor the other way round: what a token says of
/// its algorithm can only choose among those that fit the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    /// CloudFront's, unless a token says SHA256.
    RsaSha1,
    RsaSha256,
    RsaSha384,
    RsaSha512,
    PssSha256,
    PssSha384,
    PssSha512,
    /// ECDSA on P-256 with a signature in DER, as OpenSSL writes it: CloudFront's.
    P256Sha1Der,
    P256Sha256Der,
    /// ECDSA with both numbers side by side, as JWS has it (RFC 7518 §3.4).
    P256Sha256,
    P384Sha384,
}

impl Scheme {
    fn kind(self) -> PublicKeyKind {
        match self {
            Scheme::RsaSha1 | Scheme::RsaSha256 | Scheme::RsaSha384 | Scheme::RsaSha512 => PublicKeyKind::Rsa,
            Scheme::PssSha256 | Scheme::PssSha384 | Scheme::PssSha512 => PublicKeyKind::Rsa,
            Scheme::P256Sha1Der | Scheme::P256Sha256Der | Scheme::P256Sha256 => PublicKeyKind::P256,
            Scheme::P384Sha384 => PublicKeyKind::P384,
        }
    }

    fn algorithm(self) -> &'static dyn VerificationAlgorithm {
        match self {
            Scheme::RsaSha1 => &signature::RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
            Scheme::RsaSha256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Scheme::RsaSha384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            Scheme::RsaSha512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            Scheme::PssSha256 => &signature::RSA_PSS_2048_8192_SHA256,
            Scheme::PssSha384 => &signature::RSA_PSS_2048_8192_SHA384,
            Scheme::PssSha512 => &signature::RSA_PSS_2048_8192_SHA512,
            Scheme::P256Sha1Der => &signature::ECDSA_P256_SHA1_ASN1,
            Scheme::P256Sha256Der => &signature::ECDSA_P256_SHA256_ASN1,
            Scheme::P256Sha256 => &signature::ECDSA_P256_SHA256_FIXED,
            Scheme::P384Sha384 => &signature::ECDSA_P384_SHA384_FIXED,
        }
    }
}

/// A signer's key.
#[derive(Debug)]
pub(super) struct Key {
    /// Its name in the tokens.
    pub(super) id: String,
    schemes: Vec<(Scheme, ParsedPublicKey)>,
}

impl Key {
    /// The key, for those of the schemes that are of its kind.
    ///
    /// # Errors
    /// A phrase for the operator: the bytes are not such a key, or none of the schemes is for its kind.
    pub(super) fn new(key: &PublicKey, schemes: &[Scheme]) -> Result<Self, String> {
        let mut parsed = Vec::new();
        for scheme in schemes.iter().copied().filter(|scheme| scheme.kind() == key.kind) {
            let usable = ParsedPublicKey::new(scheme.algorithm(), &key.bytes)
                .map_err(|_| format!("{} is not a public key that can be used", key.path.display()))?;
            parsed.push((scheme, usable));
        }
        if parsed.is_empty() {
            return Err(format!("{} is a key of a kind that this format has not", key.path.display()));
        }
        Ok(Key { id: key.id.clone(), schemes: parsed })
    }

    /// Whether this key has signed the message in this way.
    pub(super) fn has_signed(&self, scheme: Scheme, message: &[u8], signature: &[u8]) -> bool {
        let mut fitting = self.schemes.iter().filter(|(known, _)| *known == scheme);
        fitting.any(|(_, key)| key.verify_sig(message, signature).is_ok())
    }

    /// A key for one algorithm, whatever its size: published examples are signed with keys that are too short today.
    #[cfg(test)]
    pub(super) fn of_example(
        id: &str,
        scheme: Scheme,
        algorithm: &'static dyn VerificationAlgorithm,
        bytes: &[u8],
    ) -> Self {
        let parsed = ParsedPublicKey::new(algorithm, bytes).expect("an example's key");
        Key { id: id.to_owned(), schemes: vec![(scheme, parsed)] }
    }
}

/// The scheme of the URL that was asked for.
pub(super) fn scheme(secure: bool) -> &'static str {
    if secure { "https" } else { "http" }
}

/// What tells a token from others without being of use as one: the begin of its signature.
pub(super) fn begin(signature: &str) -> String {
    signature.chars().take(SHOWN).collect()
}
