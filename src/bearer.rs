//! Bearer tokens (RFC 6750): what a client must prove to know.

use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};

/// A secret, as its digest.
#[derive(Clone)]
pub struct Token([u8; 32]);

impl Token {
    pub fn new(secret: &[u8]) -> Token {
        Token(Sha256::digest(secret).into())
    }

    /// Takes the same time whatever is wrong: the digests are of one length, and compared to their end.
    pub fn is(&self, offered: &[u8]) -> bool {
        let offered: [u8; 32] = Sha256::digest(offered).into();
        let difference = self.0.iter().zip(offered).fold(0, |difference, (a, b)| difference | (a ^ b));
        std::hint::black_box(difference) == 0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

/// The token that a request offers: RFC 6750 §2.1. The scheme's case does not matter (RFC 9110 §11.1).
pub fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.as_bytes().split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every bit of the digest counts.
    #[test]
    fn a_digest_that_differs_in_a_bit_is_another() {
        let right = Token::new(b"secret");
        assert!(right.is(b"secret"));
        for bit in 0..256 {
            let mut other = right.clone();
            other.0[bit / 8] ^= 1 << (bit % 8);
            assert!(!other.is(b"secret"), "bit {bit}");
        }
    }
}
