//! A running edge does what is said of it.

use serde_json::Value;

use super::explain_file;
use crate::harness::{Ask, Edge, Origin, Reply, http_date};

/// The method, the request's fields, the status and the response's fields.
type Case = (&'static str, Vec<(&'static str, String)>, u16, Vec<(&'static str, String)>);

fn cases() -> Vec<Case> {
    fn own(fields: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
        fields.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
    }
    let cc = |value: &str| ("Cache-Control", value.to_owned());
    let get = |status: u16, response: &[(&'static str, &str)]| ("GET", Vec::new(), status, own(response));
    let with =
        |request: &[(&'static str, &str)], response: &[(&'static str, &str)]| ("GET", own(request), 200, own(response));
    let fresh = ("Cache-Control", "max-age=60");
    vec![
        get(200, &[fresh]),
        get(200, &[("Cache-Control", "max-age=60"), ("Age", "20")]),
        get(200, &[("Cache-Control", "max-age=60"), ("Age", "90"), ("ETag", "\"a\"")]),
        get(200, &[("Cache-Control", "s-maxage=60, max-age=1")]),
        get(200, &[("CDN-Cache-Control", "max-age=60"), ("Cache-Control", "no-store")]),
        get(200, &[("CDN-Cache-Control", "no-store"), fresh]),
        get(200, &[("Cache-Control", "no-store")]),
        get(200, &[("Cache-Control", "private")]),
        get(200, &[("Cache-Control", "no-cache")]),
        get(200, &[("Cache-Control", "no-cache"), ("ETag", "\"a\"")]),
        get(200, &[("Cache-Control", "max-age=0, stale-while-revalidate=60"), ("ETag", "\"a\"")]),
        get(200, &[("Cache-Control", "max-age=60, must-understand")]),
        get(299, &[("Cache-Control", "max-age=60, must-understand")]),
        get(200, &[]),
        get(404, &[]),
        get(404, &[fresh]),
        get(302, &[("Location", "/x")]),
        get(500, &[]),
        get(206, &[fresh, ("Content-Range", "bytes 0-0/2")]),
        get(200, &[fresh, ("Vary", "*")]),
        get(200, &[fresh, ("Vary", "Accept-Encoding, X-A")]),
        get(200, &[fresh, ("Set-Cookie", "a=1")]),
        get(200, &[("Cache-Control", "public, max-age=60"), ("Set-Cookie", "a=1")]),
        get(200, &[fresh, ("Content-Length", "3000")]),
        ("GET", Vec::new(), 200, vec![("Last-Modified", http_date(-36_000))]),
        ("GET", Vec::new(), 200, vec![("Expires", http_date(60)), ("Date", http_date(0))]),
        ("GET", Vec::new(), 200, vec![cc("max-age=60"), ("Date", http_date(-61)), ("ETag", "\"a\"".to_owned())]),
        with(&[("Authorization", "x")], &[fresh]),
        with(&[("Authorization", "x")], &[("Cache-Control", "public, max-age=60")]),
        with(&[("Cache-Control", "no-store")], &[fresh]),
        with(&[("Cache-Control", "no-cache")], &[fresh, ("ETag", "\"a\"")]),
        with(&[("Cache-Control", "max-age=10")], &[fresh, ("Age", "20"), ("ETag", "\"a\"")]),
        with(&[("Cache-Control", "min-fresh=100")], &[fresh, ("ETag", "\"a\"")]),
        with(&[("Cache-Control", "only-if-cached")], &[fresh]),
        with(&[("Cache-Control", "max-stale")], &[("Cache-Control", "max-age=0"), ("ETag", "\"a\"")]),
        with(&[("If-None-Match", "\"a\"")], &[fresh, ("ETag", "\"a\"")]),
        with(&[("Range", "bytes=0-0")], &[fresh]),
        with(&[("Upgrade", "other"), ("Connection", "Upgrade")], &[fresh]),
        ("HEAD", Vec::new(), 200, own(&[fresh])),
        ("OPTIONS", Vec::new(), 200, own(&[fresh])),
        ("POST", Vec::new(), 200, own(&[fresh])),
        ("POST", Vec::new(), 200, own(&[fresh, ("Content-Location", "SELF")])),
        with(&[("Accept-Encoding", "br;q=0.5, gzip")], &[fresh, ("Vary", "Accept-Encoding")]),
        with(&[("If-Modified-Since", "Sun, 06 Nov 1994 08:49:37 GMT")], &[fresh]),
        ("DELETE", Vec::new(), 204, own(&[fresh])),
    ]
}

/// The members of a Cache-Status, and `ttl` on its own.
fn members(status: &str) -> (Vec<&str>, Option<i64>) {
    let parts = status.split(';').map(str::trim);
    let ttl = parts.clone().find_map(|part| part.strip_prefix("ttl=")).map(|ttl| ttl.parse().expect("a number"));
    (parts.filter(|part| !part.starts_with("ttl=")).collect(), ttl)
}

fn agree(what: &str, said: &str, done: &str, open: bool) {
    let ((said_parts, said_ttl), (done_parts, done_ttl)) = (members(said), members(done));
    match open {
        // What the origin makes of it is not foretold.
        true => assert!(done_parts.starts_with(&said_parts), "{what}: said {said}, and was {done}"),
        false => assert_eq!(said_parts, done_parts, "{what}: said {said}, and was {done}"),
    }
    match (said_ttl, done_ttl) {
        (Some(said_ttl), Some(done_ttl)) => {
            assert!((said_ttl - done_ttl).abs() <= 5, "{what}: said {said}, and was {done}");
        }
        (said_ttl, done_ttl) => {
            assert!(said_ttl.is_none() && (open || done_ttl.is_none()), "{what}: said {said}, and was {done}")
        }
    }
}

#[tokio::test]
async fn a_running_edge_does_what_is_said() {
    let script = cases();
    let origin = Origin::start(move |r| {
        let index: usize = r.target.trim_start_matches('/').parse().expect("a number");
        let (_, _, status, fields) = &script[index];
        let length = fields.iter().find(|(name, _)| *name == "Content-Length");
        let body = "x".repeat(length.map_or(2, |(_, length)| length.parse().expect("a length")));
        let reply = if *status == 204 { Reply::new(204) } else { Reply::new(*status).body(body) };
        let fields = fields.iter().filter(|(name, _)| *name != "Content-Length");
        fields.fold(reply, |reply, (name, value)| reply.header(name, value.replace("SELF", &r.target)))
    })
    .await;
    let yaml =
        Edge::yaml_before(&[&origin], "cache: { ttl_by_status: { 500: 1s }, vary: { accept_encoding: [gzip, br] } }")
            + "cache: { memory: { size: 1MiB, max_object: 2KiB } }\n";
    let edge = Edge::start(&yaml).await;
    for (index, (method, request, status, response)) in cases().iter().enumerate() {
        let what = format!("{method} {request:?} {status} {response:?}");
        let mut args = vec!["--json".to_owned(), format!("-X{method}"), format!("--status={status}")];
        args.extend(request.iter().map(|(name, value)| format!("-H{name}: {value}")));
        args.extend(
            response
                .iter()
                .map(|(name, value)| format!("--response={name}: {}", value.replace("SELF", &format!("/{index}")))),
        );
        if !response.iter().any(|(name, _)| *name == "Content-Length") {
            args.push("--response=Content-Length: 2".to_owned());
        }
        args.push(format!("http://edge.test/{index}"));
        let said = explain_file(&edge.config_path(), &args).await.json();
        let said = &said["response"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();

        let ask = request.iter().fold(Ask::new(method, &format!("/{index}")), |ask, (n, v)| ask.header(n, v));
        let first = edge.ask(&ask).await;
        agree(&what, &text(&said["cache_status"]), first.cache_status(), false);
        // A HEAD has its answer before what it fetched is stored.
        edge.wait_metrics("the fill's end", |m| m.metric("foreland_cache_fills_in_progress") == Some(0.0)).await;
        let second = edge.ask(&ask).await;
        match &said["again"] {
            // Where nothing was stored, nothing has changed.
            Value::Null => agree(&what, &text(&said["cache_status"]), second.cache_status(), false),
            again => {
                let open = again["reuse"]["word"] == "revalidate";
                agree(&what, &text(&again["cache_status"]), second.cache_status(), open);
                if let Some(status) = again["status"].as_u64() {
                    assert_eq!(u64::from(second.status), status, "{what}: {second:?}");
                }
                if open {
                    let seen = origin.seen();
                    let seen = seen.last().expect("a request");
                    let validators = again["validators"].as_array().expect("a list");
                    let names = ["If-None-Match", "If-Modified-Since"];
                    assert_eq!(validators.len(), names.iter().filter(|name| seen.headers.has(name)).count(), "{what}");
                }
            }
        }
    }
}
