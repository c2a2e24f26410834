//! A record as one line, in either format. Everything here appends to a buffer and allocates nothing.

use std::io::Write;
use std::net::IpAddr;
use std::time::Duration;

use super::escape;
use super::record::Record;
use super::stamp::Stamp;
use crate::config::model::LogFormat;

/// What a client sent is cut after this many bytes, so that a line has a bound: escaped, at six times its length.
const FIELD_LIMIT: usize = 16 << 10;

/// Appends `record` as a line, its end included.
pub fn append(format: LogFormat, out: &mut Vec<u8>, stamp: &mut Stamp, record: &Record<'_>) {
    match format {
        LogFormat::Json => json(out, stamp, record),
        LogFormat::Combined => combined(out, stamp, record),
    }
}

fn json(out: &mut Vec<u8>, stamp: &mut Stamp, record: &Record<'_>) {
    out.extend_from_slice(b"{\"time\":\"");
    stamp.rfc3339(out, record.time);
    out.push(b'"');
    if let Some(client) = record.client {
        out.extend_from_slice(b",\"client\":\"");
        address(out, client);
        out.push(b'"');
    }
    member(out, b",\"method\":\"", record.method);
    optional(out, b",\"host\":\"", record.host);
    member(out, b",\"uri\":\"", record.uri);
    member(out, b",\"protocol\":\"", record.protocol.as_bytes());
    out.extend_from_slice(b",\"status\":");
    number(out, u64::from(record.status));
    out.extend_from_slice(b",\"bytes\":");
    number(out, record.bytes);
    out.extend_from_slice(b",\"bytes_received\":");
    number(out, record.bytes_received);
    out.extend_from_slice(b",\"duration\":");
    seconds(out, record.duration);
    if let Some(first_byte) = record.first_byte {
        out.extend_from_slice(b",\"first_byte\":");
        seconds(out, first_byte);
    }
    member(out, b",\"cache\":\"", record.cache.as_bytes());
    optional(out, b",\"cache_status\":\"", record.cache_status);
    optional(out, b",\"tier\":\"", record.tier.map(str::as_bytes));
    optional(out, b",\"site\":\"", record.site.map(str::as_bytes));
    optional(out, b",\"route\":\"", record.route.map(str::as_bytes));
    optional(out, b",\"origin\":\"", record.origin.map(str::as_bytes));
    optional(out, b",\"server\":\"", record.server.map(str::as_bytes));
    if let Some(duration) = record.origin_duration {
        out.extend_from_slice(b",\"origin_duration\":");
        seconds(out, duration);
    }
    out.extend_from_slice(b",\"retries\":");
    number(out, u64::from(record.retries));
    optional(out, b",\"request_id\":\"", record.request_id.map(str::as_bytes));
    optional(out, b",\"referer\":\"", record.referer);
    optional(out, b",\"user_agent\":\"", record.user_agent);
    optional(out, b",\"country\":\"", record.country.map(str::as_bytes));
    if let Some(asn) = record.asn {
        out.extend_from_slice(b",\"asn\":");
        number(out, u64::from(asn));
    }
    optional(out, b",\"tls\":\"", record.tls.map(str::as_bytes));
    optional(out, b",\"identity\":\"", record.identity.map(str::as_bytes));
    optional(out, b",\"token\":\"", record.token.map(str::as_bytes));
    optional(out, b",\"detail\":\"", record.detail.map(str::as_bytes));
    out.extend_from_slice(b"}\n");
}

fn combined(out: &mut Vec<u8>, stamp: &mut Stamp, record: &Record<'_>) {
    match record.client {
        Some(client) => address(out, client),
        None => out.push(b'-'),
    }
    out.extend_from_slice(b" - - [");
    stamp.common(out, record.time);
    out.extend_from_slice(b"] \"");
    escape::combined(out, cut(record.method));
    out.push(b' ');
    escape::combined(out, cut(record.uri));
    out.push(b' ');
    escape::combined(out, cut(record.protocol.as_bytes()));
    out.extend_from_slice(b"\" ");
    // Always three digits, as parsers of this format expect.
    let status = record.status;
    out.extend_from_slice(&[status / 100, status / 10, status].map(|digits| b'0' + (digits % 10) as u8));
    out.push(b' ');
    number(out, record.bytes);
    for field in [record.referer, record.user_agent] {
        out.extend_from_slice(b" \"");
        match field {
            Some(field) if !field.is_empty() => escape::combined(out, cut(field)),
            _ => out.push(b'-'),
        }
        out.push(b'"');
    }
    out.push(b'\n');
}

/// A string member; `opening` is what stands before the value.
#[inline]
fn member(out: &mut Vec<u8>, opening: &[u8], value: &[u8]) {
    out.extend_from_slice(opening);
    escape::json(out, cut(value));
    out.push(b'"');
}

#[inline]
fn optional(out: &mut Vec<u8>, opening: &[u8], value: Option<&[u8]>) {
    if let Some(value) = value {
        member(out, opening, value);
    }
}

fn cut(value: &[u8]) -> &[u8] {
    &value[..value.len().min(FIELD_LIMIT)]
}

fn address(out: &mut Vec<u8>, address: IpAddr) {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            for (place, octet) in address.octets().into_iter().enumerate() {
                if place > 0 {
                    out.push(b'.');
                }
                number(out, u64::from(octet));
            }
        }
        // Writing to a Vec cannot fail.
        IpAddr::V6(address) => {
            let _ = write!(out, "{address}");
        }
    }
}

/// Seconds with six decimals; microseconds are the finest that anybody compares.
fn seconds(out: &mut Vec<u8>, duration: Duration) {
    number(out, duration.as_secs());
    let mut micros = duration.subsec_micros();
    let mut digits = *b".000000";
    for digit in digits[1..].iter_mut().rev() {
        *digit = b'0' + (micros % 10) as u8;
        micros /= 10;
    }
    out.extend_from_slice(&digits);
}

fn number(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20]; // u64::MAX has 20
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::UNIX_EPOCH;

    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn line(format: LogFormat, record: &Record<'_>) -> String {
        let mut out = Vec::new();
        append(format, &mut out, &mut Stamp::new(), record);
        String::from_utf8(out).expect("a line is UTF-8")
    }

    fn full<'a>() -> Record<'a> {
        Record {
            time: UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
            client: Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10))),
            method: b"GET",
            host: Some(b"cdn.example.com"),
            uri: b"/a?b=\"c\"",
            protocol: "HTTP/1.1",
            status: 200,
            bytes: 1234,
            bytes_received: 5,
            duration: Duration::from_micros(1_000_042),
            first_byte: Some(Duration::from_micros(999)),
            cache: "hit",
            cache_status: Some(b"foreland; hit; ttl=9"),
            tier: Some("memory"),
            site: Some("cdn"),
            route: Some("routes[1]"),
            origin: Some("media"),
            server: Some("127.0.0.1:9001"),
            origin_duration: Some(Duration::from_millis(15)),
            retries: 2,
            request_id: Some("4f2a"),
            referer: Some(b"https://example.com/"),
            user_agent: Some(b"curl/8"),
            country: Some("DE"),
            asn: Some(64500),
            tls: Some("TLSv1.3"),
            identity: Some("one.example.com"),
            token: Some("a1"),
            detail: Some("none whatever"),
        }
    }

    #[test]
    fn json_has_every_field_by_name() {
        let got: Value = serde_json::from_str(&line(LogFormat::Json, &full())).unwrap();
        let want = json!({
            "time": "2023-11-14T22:13:20.123Z", "client": "192.0.2.10", "method": "GET", "host": "cdn.example.com",
            "uri": "/a?b=\"c\"", "protocol": "HTTP/1.1", "status": 200, "bytes": 1234, "bytes_received": 5,
            "duration": 1.000042, "first_byte": 0.000999, "cache": "hit", "cache_status": "foreland; hit; ttl=9",
            "tier": "memory", "site": "cdn", "route": "routes[1]", "origin": "media", "server": "127.0.0.1:9001",
            "origin_duration": 0.015, "retries": 2, "request_id": "4f2a", "referer": "https://example.com/",
            "user_agent": "curl/8", "country": "DE", "asn": 64500, "tls": "TLSv1.3", "identity": "one.example.com",
            "token": "a1", "detail": "none whatever",
        });
        assert_eq!(got, want);
    }

    #[test]
    fn json_leaves_out_what_is_absent() {
        let want = "{\"time\":\"1970-01-01T00:00:00.000Z\",\"method\":\"\",\"uri\":\"\",\"protocol\":\"\",\"status\":0,\
                    \"bytes\":0,\"bytes_received\":0,\"duration\":0.000000,\"cache\":\"local\",\"retries\":0}\n";
        assert_eq!(line(LogFormat::Json, &Record::default()), want);
    }

    #[test]
    fn combined_is_apaches() {
        let want = "192.0.2.10 - - [14/Nov/2023:22:13:20 +0000] \"GET /a?b=\\x22c\\x22 HTTP/1.1\" 200 1234 \
                    \"https://example.com/\" \"curl/8\"\n";
        assert_eq!(line(LogFormat::Combined, &full()), want);
        let want = "- - - [01/Jan/1970:00:00:00 +0000] \"  \" 000 0 \"-\" \"-\"\n";
        assert_eq!(line(LogFormat::Combined, &Record { referer: Some(b""), ..Record::default() }), want);
    }

    #[test]
    fn a_line_has_a_bound() {
        let uri = vec![0; 1 << 20];
        let record = Record { uri: &uri, ..Record::default() };
        for format in [LogFormat::Json, LogFormat::Combined] {
            assert!(line(format, &record).len() < 6 * FIELD_LIMIT + 1000);
        }
    }

    proptest! {
        #[test]
        fn any_record_is_one_line_that_parses_and_round_trips(
            method in vec(any::<u8>(), 0..10),
            host in option::of(vec(any::<u8>(), 0..40)),
            uri in vec(any::<u8>(), 0..100),
            referer in option::of(vec(any::<u8>(), 0..40)),
            user_agent in option::of(vec(any::<u8>(), 0..40)),
            detail in option::of(any::<String>()),
            client in option::of(any::<IpAddr>()),
            status in 0..1000u16,
            bytes in any::<u64>(),
            micros in 0..u64::from(u32::MAX),
        ) {
            let record = Record {
                client,
                method: &method,
                host: host.as_deref(),
                uri: &uri,
                status,
                bytes,
                duration: Duration::from_micros(micros),
                referer: referer.as_deref(),
                user_agent: user_agent.as_deref(),
                detail: detail.as_deref(),
                ..Record::default()
            };
            let text = line(LogFormat::Json, &record);
            prop_assert!(text.ends_with('\n') && text.matches(char::is_control).count() == 1);
            let parsed: Value = serde_json::from_str(&text).unwrap();
            let lossy = |bytes: Option<&[u8]>| bytes.map(|b| String::from_utf8_lossy(b).into_owned());
            let string = |name: &str| parsed.get(name).map(|v| v.as_str().unwrap().to_owned());
            prop_assert_eq!(string("method"), lossy(Some(&method)));
            prop_assert_eq!(string("host"), lossy(host.as_deref()));
            prop_assert_eq!(string("uri"), lossy(Some(&uri)));
            prop_assert_eq!(string("referer"), lossy(referer.as_deref()));
            prop_assert_eq!(string("user_agent"), lossy(user_agent.as_deref()));
            prop_assert_eq!(string("detail"), detail.clone());
            prop_assert_eq!(string("client"), client.map(|ip| ip.to_canonical().to_string()));
            prop_assert_eq!(parsed["status"].as_u64(), Some(u64::from(status)));
            prop_assert_eq!(parsed["bytes"].as_u64(), Some(bytes));
            let seconds = format!("\"duration\":{}.{:06},", micros / 1_000_000, micros % 1_000_000);
            prop_assert!(text.contains(&seconds));

            let text = line(LogFormat::Combined, &record);
            prop_assert!(text.ends_with('\n') && text.matches(|c| !matches!(c, ' '..='~')).count() == 1);
            prop_assert_eq!(text.matches('"').count(), 6);
        }
    }
}
