//! Where an origin's message ends (RFC 9112 §6.3): what its head says of that is made unambiguous, or refused.

use http::header::{CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING};
use http::{StatusCode, Version};
use pingora::http::ResponseHeader;
use pingora::{Error, ErrorSource, ErrorType, Result};
use pingora_cache::NoCacheReason;
use pingora_proxy::Session;

use super::context::Context;
use super::{checks, trace};
use crate::http_cache;

/// Whether the connection that a message came over is known to be at the message's end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum End {
    #[default]
    Known,
    /// A body was announced where there is none: it may come yet, and would be taken for the next response.
    InDoubt,
}

/// Puts the head of an origin's response in the form in which it is stored and passed on: HTTP/1.1, without fields of the
/// origin's connection, with one length or none. Transfer-Encoding stays where a body follows, since Pingora frames the
/// response by it.
///
/// # Errors
/// `InvalidHTTPHeader`: a body follows in a transfer coding that nobody here decodes, or it is not known where it ends.
pub fn settle(head: &mut ResponseHeader) -> Result<End> {
    let is_coded = head.headers.contains_key(TRANSFER_ENCODING);
    // RFC 9112 §6.1: faulty, whatever else it says.
    let is_too_old = head.version == Version::HTTP_10 && is_coded;
    // RFC 9112 §2.3: whoever passes a message on says its own version.
    head.set_version(Version::HTTP_11);
    let no_body =
        head.status.is_informational() || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if !no_body && !checks::is_decoded(&head.headers) {
        return Err(malformed("a body in a transfer coding other than chunked"));
    }
    if !no_body && is_too_old {
        return Err(malformed("a transfer coding in HTTP/1.0"));
    }
    for name in http_cache::hop_by_hop(&head.headers) {
        if no_body || name != TRANSFER_ENCODING {
            head.remove_header(&name);
        }
    }
    let length = one_length(head)?;
    // RFC 9110 §8.6: not there. RFC 9112 §6.3: nor beside a coding, which overrides it.
    if head.status.is_informational() || head.status == StatusCode::NO_CONTENT || is_coded {
        head.remove_header(&CONTENT_LENGTH);
    }
    let announced = is_coded || length.is_some_and(|length| length > 0);
    Ok(if head.status == StatusCode::NO_CONTENT && announced { End::InDoubt } else { End::Known })
}

/// Checks an answer that ends HTTP on the connection (RFC 9110 §7.8).
///
/// # Errors
/// `InvalidHTTPHeader`: nobody has asked for that.
pub fn switching(session: &Session, head: &ResponseHeader) -> Result<()> {
    match session.is_upgrade_req() && head.version == Version::HTTP_11 {
        true => Ok(()),
        false => Err(malformed("a 101 to a request that asked for no other protocol")),
    }
}

/// Answers with a response whose end is in doubt: its head is all that there is. Pingora keeps the connection that it came
/// over unless there was an error, so this is one, which the client does not see.
///
/// # Errors
/// Always.
pub async fn answer_once(session: &mut Session, head: &ResponseHeader, ctx: &mut Context) -> Result<()> {
    if session.cache.enabled() {
        session.cache.disable(NoCacheReason::OriginNotCache);
    }
    let mut head = Box::new(head.clone());
    trace::complete(session, &mut head, ctx)?;
    // After an error, Pingora does not keep the client's connection either.
    session.set_keepalive(None);
    session.write_response_header(head, true).await?;
    Err(malformed("a 204 that announces a body"))
}

/// Makes one of lengths that say the same (RFC 9112 §6.3), and reads it.
fn one_length(head: &mut ResponseHeader) -> Result<Option<u64>> {
    let mut lengths =
        head.headers.get_all(CONTENT_LENGTH).iter().flat_map(|line| line.as_bytes().split(|b| *b == b','));
    let Some(first) = lengths.next() else { return Ok(None) };
    let length = number(first);
    let mut is_one = true;
    for other in lengths {
        is_one = false;
        if number(other) != length {
            return Err(malformed("lengths that differ"));
        }
    }
    let Some(length) = length else { return Err(malformed("a length that is none")) };
    if !is_one {
        head.insert_header(CONTENT_LENGTH, HeaderValue::from(length))?;
    }
    Ok(Some(length))
}

fn number(digits: &[u8]) -> Option<u64> {
    let digits = digits.trim_ascii();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn malformed(what: &'static str) -> Box<Error> {
    Error::create(ErrorType::InvalidHTTPHeader, ErrorSource::Upstream, Some(what.into()), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(status: u16, fields: &[(&'static str, &'static str)]) -> ResponseHeader {
        let mut head = ResponseHeader::build(status, None).unwrap();
        for (name, value) in fields {
            head.append_header(*name, *value).unwrap();
        }
        head
    }

    /// The fields that are left, and whether the end is known.
    fn settled(status: u16, fields: &[(&'static str, &'static str)]) -> Option<(String, End)> {
        let mut head = head(status, fields);
        let end = settle(&mut head).ok()?;
        assert_eq!(head.version, Version::HTTP_11);
        let left = head.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()));
        Some((left.collect::<Vec<_>>().join("; "), end))
    }

    #[test]
    fn a_body_is_plain_or_in_chunks() {
        let te = "transfer-encoding";
        assert_eq!(settled(200, &[]), Some((String::new(), End::Known)));
        for chunked in ["chunked", "Chunked"] {
            assert_eq!(settled(200, &[(te, chunked)]), Some((format!("{te}: {chunked}"), End::Known)));
        }
        for other in
            ["gzip, chunked", "chunked, chunked", "gzip", "identity", "chunked,", "", "chunked;a=b", "xchunked"]
        {
            assert_eq!(settled(200, &[(te, other)]), None, "{other:?}");
        }
        assert_eq!(settled(200, &[(te, "chunked"), (te, "identity")]), None);
        assert_eq!(settled(200, &[(te, "chunked"), (te, "chunked")]), None);
        // Where no body follows, it says nothing.
        assert_eq!(settled(304, &[(te, "gzip, chunked")]), Some((String::new(), End::Known)));
        assert_eq!(settled(103, &[(te, "gzip, chunked")]), Some((String::new(), End::Known)));
    }

    #[test]
    fn a_length_is_said_once() {
        let cl = "content-length";
        let two = Some((format!("{cl}: 2"), End::Known));
        assert_eq!(settled(200, &[(cl, "2")]), two);
        assert_eq!(settled(200, &[(cl, "2, 2")]), two);
        assert_eq!(settled(200, &[(cl, "2"), (cl, "2")]), two);
        assert_eq!(settled(304, &[(cl, "2"), (cl, "2")]), two);
        for wrong in ["2, 3", "2,", "", "+2", "-2", "0x2", "99999999999999999999999"] {
            assert_eq!(settled(200, &[(cl, wrong)]), None, "{wrong:?}");
        }
        assert_eq!(settled(200, &[(cl, "2"), (cl, "3")]), None);
    }

    #[test]
    fn a_head_that_ends_the_message_announces_no_body() {
        let (cl, te, none) = ("content-length", "transfer-encoding", String::new);
        for status in [100, 103, 199] {
            assert_eq!(
                settled(status, &[(cl, "7"), ("connection", "x-hop"), ("x-hop", "1")]),
                Some((none(), End::Known))
            );
        }
        assert_eq!(settled(204, &[]), Some((none(), End::Known)));
        assert_eq!(settled(204, &[(cl, "0")]), Some((none(), End::Known)));
        assert_eq!(settled(204, &[(cl, "2")]), Some((none(), End::InDoubt)));
        assert_eq!(settled(204, &[(te, "chunked")]), Some((none(), End::InDoubt)));
    }
}
