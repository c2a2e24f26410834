//! Keys of the tests, whose private halves nobody has any more, but for CloudFront's and RFC 9246's own.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::config::model::{PublicKey, PublicKeyKind};

/// RSA of 2048 bits.
pub fn rsa(id: &str) -> PublicKey {
    key(id, PublicKeyKind::Rsa, RSA)
}

pub fn p256(id: &str) -> PublicKey {
    key(id, PublicKeyKind::P256, P256)
}

pub fn p384(id: &str) -> PublicKey {
    key(id, PublicKeyKind::P384, P384)
}

/// That of the examples in older editions of the CloudFront Developer Guide: RSA of 1024 bits.
pub fn cloudfront() -> Vec<u8> {
    bytes(CLOUDFRONT)
}

/// A key from its text in base64.
pub fn key(id: &str, kind: PublicKeyKind, text: &str) -> PublicKey {
    PublicKey { id: id.to_owned(), path: "key.pem".into(), kind, bytes: bytes(text) }
}

fn bytes(text: &str) -> Vec<u8> {
    STANDARD.decode(text).expect("base64")
}

const RSA: &str = "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAzjWfb9R4VcfvBScFvkETKn14GlYyqNsOF8EVVq3k3k1FrjhG3rJMEwrG\
     kc6KbEdmXLOOcKkhaJ4YVSLypjcbldBms+bGhi+sBapoqkEthUrQ0m3Ui9t5/usfcN8Xu31oZzfpNnRckRjqWVOl9uvAMHGS68R5\
     T9rDEnrvlB3zky6jVjzNyF6Yo8Z0V7+pF38K74YogJJisTMHtsDT1GYH+y/6qZ/hseGBxH+Pxs+W+Ii6e+zYUlN19xx1Po5mX9dP\
     lD/c9+pv44Z2LBni8phGKyh6Y7zn0VMRIjaH90wZh3wSEo87J3iEzKn+YoPLTxZEi4DDpF1hugMo8VafgjeG7QIDAQAB";
const P256: &str = "BDK70OaLsM3VDNEbsx9nELriwuscwqSQ2cde5qnTO5TFAOp2C1/1jZnBIG/DKD9Kvx22V/rCOk6QTCDu37MQbfg=";
const P384: &str = "BEMt5z2DSkFAu9YIJdGOKBwzMkza1/n0OGjT3qNww7/p7eEnKl0OsRKSLNC4nhxYYNBrtYXsFGukxhKA8D8az0gpyCnKaNQxL8uw\
     VwQSQL7GKzTxVZQgfOxLuS+3P2e69g==";
const CLOUDFRONT: &str = "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDA7ki9gI/lRygIoOjV1yymgx6FYFlzJ+z1ATMaLo57nL57AavWhb68HYY8EA0G\
     JU9xQdMVaHBogF3eiCWYXSUZCWM/+M5+ZcdQraRRScucmn6g4EvY2K4W2pxbqH8vmUikPxir41EeBPLjMOzKvbzzQy9e/zzIQVRE\
     KSp/7y1mywIDAQAB";
