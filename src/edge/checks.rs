//! What every request must be before anything is looked up: within limits, and of one length. Pure.

use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, TRANSFER_ENCODING};
use http::{Method, StatusCode};

use crate::config::model::Limits;
use crate::site::Refusal;

/// What a trusted proxy wants to know beside: `key`, the cache key in Cache-Status. The field goes no further.
pub static DEBUG: HeaderName = HeaderName::from_static("foreland-debug");

/// Whether a request is within the limits. Its fields are those that were sent.
///
/// # Errors
/// The answer to one that is not.
pub fn within_limits(method: &Method, target: &[u8], headers: &HeaderMap, limits: &Limits) -> Result<(), Refusal> {
    if target.len() > limits.uri_length {
        return Err(Refusal::new(
            StatusCode::URI_TOO_LONG,
            "The request's target is too long.",
            format!("target of {} bytes, limits.uri_length is {}", target.len(), limits.uri_length),
        )
        .closing());
    }
    let count = headers.len();
    let size = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>()
        + target.len()
        + method.as_str().len();
    if count > limits.header_count || size > limits.header_size {
        return Err(Refusal::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "The request's header section is too large.",
            format!(
                "header section of {count} fields and {size} bytes, limits are {} and {}",
                limits.header_count, limits.header_size
            ),
        )
        .closing());
    }
    Ok(())
}

/// Whether the body that a request announces is no larger than it may be.
///
/// # Errors
/// The answer to one that is.
pub fn body_within(headers: &HeaderMap, limit: Option<u64>) -> Result<(), Refusal> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.trim().parse::<u64>().ok());
    match (announced, limit) {
        (Some(announced), Some(limit)) if announced > limit => Err(too_large(announced, limit)),
        _ => Ok(()),
    }
}

/// The answer to a request whose body is larger than it may be.
fn too_large(size: u64, limit: u64) -> Refusal {
    Refusal::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "The request's body is too large.",
        format!("request body of {size} bytes, body_size is {limit}"),
    )
    .closing()
}

/// Refuses a header section with a line that ends in LF alone. RFC 9112 §2.2 lets a recipient take it for a line's end, but
/// not every origin and every proxy behind this one does: what is a field for one is part of a value for the other.
///
/// # Errors
/// The answer to such a request.
pub fn line_ends(head: &[u8]) -> Result<(), Refusal> {
    let bare = memchr::memchr_iter(b'\n', head).any(|at| at == 0 || head[at - 1] != b'\r');
    match bare {
        true => Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "The request's lines do not end as HTTP has it.",
            "a line that ends in LF without CR",
        )
        .closing()),
        false => Ok(()),
    }
}

/// Refuses what another server might read another length of. `states_length`: whether there was a Content-Length beside
/// a Transfer-Encoding, asked only where there is the latter.
///
/// # Errors
/// The answer to such a request.
pub fn framing(headers: &HeaderMap, states_length: impl FnOnce() -> bool) -> Result<(), Refusal> {
    let ambiguous = |reason: &'static str| {
        Err(Refusal::new(StatusCode::BAD_REQUEST, "The request's length is ambiguous.", reason).closing())
    };
    if headers.contains_key(TRANSFER_ENCODING) {
        if states_length() {
            return ambiguous("Content-Length beside Transfer-Encoding");
        }
        if !is_decoded(headers) {
            let (text, reason) =
                ("The request's transfer coding is not supported.", "Transfer-Encoding beyond chunked");
            return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, text, reason).closing());
        }
    }
    // RFC 9112 §6.3 allows for a list of equal values, but not every origin counts them as one.
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let is_list = lengths.next().is_some_and(|length| length.as_bytes().contains(&b','));
    if is_list || lengths.next().is_some() {
        return ambiguous("more than one Content-Length");
    }
    Ok(())
}

/// Whether the transfer coding, if there is one, is understood (RFC 9112 §6.1). None but chunked is decoded here: what is
/// left of another, once the chunks are taken off, would be taken for the content. Of requests and responses alike.
pub fn is_decoded(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return true };
    codings.next().is_none() && coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_chunks_are_decoded() {
        let is_decoded = |lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(TRANSFER_ENCODING, HeaderValue::from_static(line));
            }
            is_decoded(&headers)
        };
        assert!(is_decoded(&[]) && is_decoded(&["chunked"]) && is_decoded(&[" CHUNKED"]));
        for other in
            [&["gzip, chunked"][..], &["gzip"], &["chunked, gzip"], &["chunked", "chunked"], &["identity"], &[""]]
        {
            assert!(!is_decoded(other), "{other:?}");
        }
    }
}
