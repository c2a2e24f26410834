//! Fields behind a body (RFC 9110 §6.5): who may have them, and which may be there.
//!
//! They are passed on as trailers and never merged into a head. They are not stored (RFC 9111 §3).

use http::header::TE;
use http::{HeaderMap, HeaderName, Version};
use pingora_proxy::Session;

use super::link;
use crate::config::model::Config;
use crate::site;

/// In the extensions of a request over HTTP/2: what was behind its body.
#[derive(Clone, Debug)]
pub struct Behind(pub HeaderMap);

/// Fields that say where a message ends, whom it is for, under which conditions, who asks, how the content is to be read,
/// or how long an answer is good: whoever has looked at the head has acted on them already (RFC 9110 §6.5.1). In order.
const NEVER: [&str; 50] = [
    "accept-encoding",
    "age",
    "authentication-info",
    "authorization",
    "cache-control",
    "cache-status",
    "cdn-cache-control",
    "cdn-loop",
    "clear-site-data",
    "connection",
    "content-encoding",
    "content-length",
    "content-location",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "expect",
    "expires",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "keep-alive",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "retry-after",
    "set-cookie",
    "set-cookie2",
    "strict-transport-security",
    "surrogate-control",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "x-accel-expires",
    "x-accel-redirect",
    "x-request-id",
];

/// Whether the client says that it takes trailers (RFC 9110 §10.1.4): the origin is told.
pub fn are_wanted(session: &Session) -> bool {
    let request = session.req_header();
    if request.headers.get_all(TE).iter().any(|line| names_trailers(line.as_bytes())) {
        return true;
    }
    // Connection names the field, so that it is gone from the fields by now.
    request.version == Version::HTTP_11
        && link::raw_head(session).is_some_and(|head| {
            head.split(|byte| *byte == b'\n').any(|line| {
                line.get(..3).is_some_and(|name| name.eq_ignore_ascii_case(b"te:"))
                    && names_trailers(line.get(3..).unwrap_or_default())
            })
        })
}

/// Whether they can be given to the client: over HTTP/2 always, over HTTP/1.1 to one that [wants](are_wanted) them.
pub fn may_follow(session: &Session, wanted: bool) -> bool {
    link::is_http2(session) || (wanted && session.req_header().version == Version::HTTP_11)
}

/// Those of an answer that may be passed on; `None`: none are left.
pub fn of_answer(mut trailers: HeaderMap) -> Option<HeaderMap> {
    keep(&mut trailers, is_passed);
    Some(trailers).filter(|left| !left.is_empty())
}

/// Those of a request that may be passed on; `None`: none are left. Besides, none says what the edge tells the origin
/// itself (`told`), or what the head has said already: an origin that takes both for one is not to be deceived.
pub fn of_request(mut trailers: HeaderMap, head: &HeaderMap, told: &[&str]) -> Option<HeaderMap> {
    for name in &site::withheld(&trailers, false) {
        trailers.remove(name);
    }
    keep(&mut trailers, |name| is_passed(name) && !head.contains_key(name) && !told.contains(&name.as_str()));
    Some(trailers).filter(|left| !left.is_empty())
}

/// The last chunk of a body in chunks, with these behind it (RFC 9112 §7.1.2).
pub fn last_chunk(trailers: &HeaderMap) -> Vec<u8> {
    let mut last = Vec::with_capacity(128);
    last.extend_from_slice(b"0\r\n");
    for (name, value) in trailers {
        last.extend_from_slice(name.as_str().as_bytes());
        last.extend_from_slice(b": ");
        last.extend_from_slice(value.as_bytes());
        last.extend_from_slice(b"\r\n");
    }
    last.extend_from_slice(b"\r\n");
    last
}

/// The fields by which the origin is told who the client is and where from, where that is configured.
pub fn told(config: &Config) -> Vec<&str> {
    let clients = config.listeners.iter().filter_map(|listener| listener.tls.as_ref()?.client_auth.as_ref());
    let certificates = clients.flat_map(|clients| [&clients.certificate_header, &clients.identity_header]);
    let all = [&config.geo.country_header, &config.geo.asn_header].into_iter().chain(certificates);
    all.filter_map(|name| name.as_deref()).collect()
}

fn is_passed(name: &HeaderName) -> bool {
    NEVER.binary_search(&name.as_str()).is_err()
}

fn keep(trailers: &mut HeaderMap, mut is_kept: impl FnMut(&HeaderName) -> bool) {
    let gone: Vec<HeaderName> = trailers.keys().filter(|name| !is_kept(name)).cloned().collect();
    for name in gone {
        trailers.remove(name);
    }
}

/// Whether a value of TE has the member `trailers`. One with a weight is none (RFC 9110 §10.1.4), but is meant so.
fn names_trailers(te: &[u8]) -> bool {
    te.split(|byte| *byte == b',').any(|member| {
        let coding = member.split(|byte| *byte == b';').next().unwrap_or_default();
        coding.trim_ascii().eq_ignore_ascii_case(b"trailers")
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn fields(names: &[&'static str]) -> HeaderMap {
        names.iter().map(|name| (HeaderName::from_static(name), HeaderValue::from_static("v"))).collect()
    }

    #[test]
    fn what_has_been_acted_on_may_not_follow() {
        assert!(NEVER.is_sorted());
        let passed =
            of_answer(fields(&["grpc-status", "content-length", "set-cookie", "x-sum", "te", "host"])).unwrap();
        assert_eq!(passed, fields(&["grpc-status", "x-sum"]));
        assert_eq!(of_answer(fields(&["transfer-encoding", "trailer"])), None);
    }

    #[test]
    fn a_request_does_not_deceive_an_origin_from_behind() {
        let sent = fields(&["x-sum", "x-forwarded-for", "x_real_ip", "via", "x-country", "x-role", "x-request-id"]);
        assert_eq!(of_request(sent, &fields(&["x-role"]), &["x-country"]), Some(fields(&["x-sum"])));
    }

    #[test]
    fn te_names_trailers() {
        for yes in ["trailers", "Trailers", "gzip, trailers", "trailers;q=0.5", " trailers\r"] {
            assert!(names_trailers(yes.as_bytes()), "{yes}");
        }
        for no in ["", "gzip", "trailer", "trailersx", "x;trailers"] {
            assert!(!names_trailers(no.as_bytes()), "{no}");
        }
    }

    #[test]
    fn they_follow_the_last_chunk() {
        assert_eq!(last_chunk(&fields(&["x-sum"])), b"0\r\nx-sum: v\r\n\r\n");
    }
}
