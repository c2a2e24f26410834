//! Ways around the guards that are closed: spellings of paths, fields that a client puts in a proxy's mouth, and tokens that
//! turn up where they are not meant to be.

use super::harness::{Ask, Edge, Origin, Reply};

const KEY: &str = "keys: { media: { format: foreland, secrets: [file:secret] } }\n";

async fn origin() -> Origin {
    Origin::start(|request| Reply::ok(request.target.clone()).cache_control("max-age=600")).await
}

async fn guarded(origin: &Origin, site: &str) -> Edge {
    let yaml = KEY.to_owned() + "trusted_proxies: [127.0.0.1/32]\n" + &Edge::yaml_before(&[origin], site);
    Edge::builder(&yaml).file("secret", "correct horse battery staple\n").start().await
}

/// What `foreland sign` prints for a URL.
async fn sign(edge: &Edge, url: &str, more: &[&str]) -> String {
    let config = edge.config_path();
    let config = config.to_str().expect("a path");
    let args = [&["sign", "-c", config, url, "--key", "media", "--expires", "1h"], more].concat();
    let (status, out, err) = Edge::command(&args).await;
    assert!(status.success(), "{err}");
    out.trim().to_owned()
}

async fn signed(edge: &Edge, path: &str, more: &[&str]) -> String {
    let url = sign(edge, &format!("http://a.test{path}"), more).await;
    url.strip_prefix("http://a.test").expect("a URL of the host").to_owned()
}

fn get(target: &str) -> Ask {
    Ask::get(target).host("a.test")
}

const OPENED: &str = "signed_url: media\nroutes:\n  - { name: open, match: { path: /open/** }, signed_url: off }\n";

#[tokio::test]
async fn no_spelling_of_a_path_leads_to_another_routes_objects() {
    let origin = origin().await;
    let routes = "routes:\n  \
          - { name: vault, match: { path: /vault/** }, signed_url: media }\n  \
          - { name: login, match: { path: /login }, rate_limit: { rate: 1/h } }\n";
    let edge = guarded(&origin, routes).await;
    for target in [
        "/vault/a",
        "/%76ault/a",
        "/x/../vault/a",
        "/x/%2e%2E/vault/a",
        "http://a.test/vault/a",
        "//vault/a",
        "/vault//a",
        "/vault%2fa",
        "/vault\\a",
        "/vault;v=1/a",
        "/x/..%2Fvault/a",
        "/x/..;/vault/a",
        "//login",
        "/login;x",
    ] {
        for ask in [get(target), Ask::head(target).host("a.test"), Ask::new("POST", target).host("a.test")] {
            let answer = edge.ask(&ask).await;
            assert_eq!(answer.status, 403, "{target}: {answer:?}");
        }
    }
    for target in ["/a//b", "/a%2Fb", "/a;v=1", "/login%2Fx"] {
        assert_eq!(edge.ask(&get(target)).await.status, 200, "{target}");
    }
    // The other way round: what a route opens opens nothing else.
    let edge = guarded(&origin, OPENED).await;
    assert_eq!(edge.ask(&get("/open/a")).await.status, 200);
    for target in ["/open/../a", "/open/..%2fa", "/open/..%5Ca", "/open/..;/a", "/open\\..\\a"] {
        assert_eq!(edge.ask(&get(target)).await.status, 403, "{target}");
    }
}

#[tokio::test]
async fn a_client_cannot_pass_for_its_proxy() {
    let origin = origin().await;
    let edge = guarded(&origin, "access: { allow: [127.0.0.0/8] }").await;
    for begun in [
        "X-Forwarded-For: 192.0.2.1",
        "X-Forwarded-For: \u{ff}, 192.0.2.1",
        "X-Forwarded-For: 127.0.0.2\u{e9}\r\nX-Forwarded-For: 192.0.2.1",
        "Connection: x-forwarded-for\r\nX-Forwarded-For: 192.0.2.1",
        "X-Forwarded-For: 127.0.0.2, 192.0.2.1, ,",
    ] {
        let mut connection = edge.connect().await;
        let head: Vec<u8> =
            format!("GET /a HTTP/1.1\r\nHost: a.test\r\n{begun}\r\n\r\n").chars().map(|c| c as u8).collect();
        connection.send(&head).await;
        assert_eq!(connection.response("GET").await.status, 403, "{begun}");
    }
}

#[tokio::test]
async fn what_changes_a_signed_url_invalidates_what_is_stored_for_it() {
    let origin = origin().await;
    let edge = guarded(&origin, "signed_url: media").await;
    let cookie =
        sign(&edge, "http://a.test/video/a", &["--prefix=/", "--method", "GET", "--method", "POST", "--in", "cookie"])
            .await;
    let with_cookie = |ask: Ask| ask.host("a.test").header("Cookie", &cookie);
    for place in ["path", "query"] {
        let prefix = ["--prefix=/", "--in", "path", "--method", "GET", "--method", "POST"];
        let exact = ["--method", "GET", "--method", "POST"];
        let target = signed(&edge, "/video/a", if place == "path" { &prefix } else { &exact }).await;
        assert_eq!(edge.ask(&get(&target)).await.status, 200, "{target}");
        assert!(edge.ask(&with_cookie(Ask::get("/video/a"))).await.is_hit(), "{place}");
        assert_eq!(edge.ask(&Ask::new("POST", &target).host("a.test")).await.status, 200);
        assert!(!edge.ask(&with_cookie(Ask::get("/video/a"))).await.is_hit(), "{place}");
    }
    assert!(origin.seen().iter().all(|request| request.target == "/video/a"), "{:?}", origin.seen());
}

#[tokio::test]
async fn a_token_is_neither_in_a_referer_nor_in_the_log() {
    let origin = origin().await;
    let edge = guarded(&origin, "signed_url: media").await;
    let target = signed(&edge, "/video/a", &["--prefix=/", "--in", "path"]).await;
    let referer = format!("https://a.test{target}?x=1&token=exp=1~mac=secret");
    assert_eq!(edge.ask(&get(&target).header("Referer", &referer)).await.status, 200);
    assert_eq!(edge.ask(&get(&format!("http://a.test{target}"))).await.status, 200);
    assert_eq!(origin.seen()[0].header("Referer"), Some("https://a.test/video/a?x=1"));
    let lines = edge.access_log_lines(2).await;
    assert!(lines.iter().all(|line| !line.to_string().contains("mac=")), "{lines:?}");
}

#[tokio::test]
async fn a_cookie_that_is_no_text_hides_no_token() {
    let origin = origin().await;
    let edge = guarded(&origin, "signed_url: media").await;
    let cookie = sign(&edge, "http://a.test/a", &["--prefix=/", "--in", "cookie"]).await;
    let mut connection = edge.connect().await;
    let head = format!("GET /a HTTP/1.1\r\nHost: a.test\r\nCookie: name=\u{e9}\r\nCookie: {cookie}\r\n\r\n");
    connection.send(&head.chars().map(|c| c as u8).collect::<Vec<_>>()).await;
    assert_eq!(connection.response("GET").await.status, 200);
}
