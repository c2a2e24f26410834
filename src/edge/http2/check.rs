//! What is wrong with a request before anybody looks at what it wants (RFC 9113 §8.1.1).
//!
//! HTTP/2's own framing cannot be fooled, but that of an origin's HTTP/1.1 can: by bytes in the target that end it there,
//! by a length that contradicts itself, by two names for the host.

use http::Method;
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use pingora::http::RequestHeader;
use pingora::protocols::http::authority::{RawTargetAuthority, raw_target_authority, validate_request_authority};

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Where it ends is doubtful: the stream is reset.
    Framing(&'static str),
    /// Whom it is for is doubtful: the answer is 400.
    Authority(&'static str),
    /// It is a CONNECT, which wants a tunnel: the answer is 405.
    Method,
}

/// Checks the header section of a request.
///
/// # Errors
/// What is wrong with it.
pub fn check(request: &RequestHeader) -> Result<(), Fault> {
    if request.raw_path().iter().any(|byte| matches!(byte, b'\0' | b'\n' | b'\r' | b' ')) {
        return Err(Fault::Framing("a target with a byte that ends it in HTTP/1.1"));
    }
    if request.headers.contains_key(TRANSFER_ENCODING) {
        return Err(Fault::Framing("a transfer coding, of which there are none here"));
    }
    if !one_length(request) {
        return Err(Fault::Framing("lengths that differ, or are none"));
    }
    authority(request).map_err(Fault::Authority)?;
    if request.method == Method::CONNECT { Err(Fault::Method) } else { Ok(()) }
}

/// Whether all that is said of the length says the same (RFC 9110 §8.6).
fn one_length(request: &RequestHeader) -> bool {
    let mut lengths = request.headers.get_all(CONTENT_LENGTH).iter().flat_map(|line| {
        line.as_bytes().split(|byte| *byte == b',').map(|length| {
            let digits = length.trim_ascii();
            let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
            is_number.then(|| std::str::from_utf8(digits).ok()?.parse::<u64>().ok()).flatten()
        })
    });
    match lengths.next() {
        None => true,
        Some(None) => false,
        Some(first) => lengths.all(|length| length == first),
    }
}

/// Whether the request is for one host, which all of its parts agree on (RFC 9113 §8.3.1).
fn authority(request: &RequestHeader) -> Result<(), &'static str> {
    if request.uri.authority().is_none() && !request.headers.contains_key(HOST) {
        return Err("neither :authority nor Host");
    }
    if validate_request_authority(request).is_err() {
        return Err(":authority and Host that differ, or are none");
    }
    // That of a CONNECT is no path, and is refused by its method.
    if request.method != Method::CONNECT && raw_target_authority(request.raw_path()) != RawTargetAuthority::None {
        return Err("an absolute :path");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uri: &str, fields: &[(&'static str, &str)]) -> Result<(), Fault> {
        let mut request = http::Request::builder().version(http::Version::HTTP_2).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        check(&RequestHeader::from(request.body(()).unwrap().into_parts().0))
    }

    #[test]
    fn a_request_is_for_one_host() {
        let is_refused = |uri, fields: &[_]| matches!(request(uri, fields), Err(Fault::Authority(_)));
        assert_eq!(request("http://a.test/x", &[]), Ok(()));
        assert_eq!(request("http://a.test/x", &[("host", "a.test")]), Ok(()));
        assert_eq!(request("/x", &[("host", "a.test")]), Ok(()));
        assert!(is_refused("/x", &[]));
        assert!(is_refused("http://a.test/x", &[("host", "b.test")]));
        assert!(is_refused("http://a.test/x", &[("host", "a.test"), ("host", "a.test")]));
        assert!(is_refused("http://a.test/x", &[("host", "a.test:80")]));
        assert!(is_refused("http://user@a.test/x", &[]));
        assert!(is_refused("/x", &[("host", "user@a.test")]));
    }

    #[test]
    fn a_body_has_one_length() {
        let is_refused = |fields: &[_]| matches!(request("http://a.test/", fields), Err(Fault::Framing(_)));
        let length = "content-length";
        for fine in [&[][..], &[(length, "3")], &[(length, "3"), (length, "3")], &[(length, "3, 3")], &[(length, "0")]]
        {
            assert_eq!(request("http://a.test/", fine), Ok(()), "{fine:?}");
        }
        for wrong in ["", "x", "-1", "+3", "3,", "3, 4", "0x3", "99999999999999999999999"] {
            assert!(is_refused(&[(length, wrong)]), "{wrong:?}");
        }
        assert!(is_refused(&[(length, "3"), (length, "4")]));
        assert!(is_refused(&[("transfer-encoding", "chunked")]));
    }
}
