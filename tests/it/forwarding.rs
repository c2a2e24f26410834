//! What the origin is told of a request's way, and what neither side may tell the other.

use super::harness::{Ask, Edge, Origin, Reply, eventually};

const TRUSTING: &str = "trusted_proxies: [127.0.0.1/32]\n";

/// What an intermediary may say of the client, and what a client must not.
fn with_claims(ask: Ask) -> Ask {
    ask.header("X-Forwarded-For", "203.0.113.7")
        .header("X-Forwarded-For", "198.51.100.2, 127.0.0.1")
        .header("X-Forwarded-Proto", "https")
        .header("X-Forwarded-Host", "public.test")
        .header("Forwarded", "for=203.0.113.7;proto=https")
        .header("X-Real-IP", "203.0.113.7")
        .header("X-Original-URL", "/admin")
        .header("X-Rewrite-URL", "/admin")
        .header("X-HTTP-Method-Override", "DELETE")
        .header("X-Host", "evil.test")
}

#[tokio::test]
async fn a_strangers_claims_are_dropped() {
    let origin = Origin::start(|_| Reply::ok("x")).await;
    let edge = Edge::before(&origin, "").await;
    edge.ask(&with_claims(Ask::get("/"))).await.text();
    let seen = &origin.seen()[0];
    assert_eq!(seen.headers.all("X-Forwarded-For"), ["127.0.0.1"]);
    assert_eq!(seen.headers.all("X-Forwarded-Proto"), ["http"]);
    assert_eq!(seen.headers.all("X-Forwarded-Host"), ["edge.test"]);
    assert_eq!(seen.headers.all("Forwarded"), ["for=127.0.0.1;host=edge.test;proto=http"]);
    assert_eq!(seen.headers.all("Host"), ["edge.test"]);
    for name in ["X-Real-IP", "X-Original-URL", "X-Rewrite-URL", "X-HTTP-Method-Override", "X-Host"] {
        assert_eq!(seen.header(name), None, "{name}");
    }
    assert_eq!(edge.access_log_lines(1).await[0]["client"], "127.0.0.1");
}

#[tokio::test]
async fn a_strangers_claims_choose_no_variant() {
    let origin = Origin::start(|_| Reply::ok("x").cache_control("max-age=60").header("Vary", "X-Real-IP")).await;
    let edge = Edge::before(&origin, "").await;
    edge.get("/").await.text();
    for address in ["203.0.113.7", "203.0.113.8"] {
        let response = edge.ask(&Ask::get("/").header("X-Real-IP", address)).await;
        assert!(response.is_hit(), "{address}: {response:?}");
    }
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn a_strangers_claims_are_dropped_in_whatever_words() {
    let origin = Origin::start(|_| Reply::ok("x")).await;
    let edge = Edge::before(&origin, "").await;
    let claims = [
        "X-Forwarded-Ssl",
        "X-Forwarded-Uri",
        "X-Forwarded-Anything",
        "X-Original-Host",
        "X-Original-Method",
        "X-Rewrite-Path",
        "Front-End-Https",
        "True-Client-IP",
        "X-Client-IP",
        "X-Cluster-Client-IP",
        "X-URL-Scheme",
        "X-Method-Override",
        // CGI makes the same of an underscore and of a hyphen.
        "X_Forwarded_Host",
        "X-Forwarded_For",
        "X_Real_IP",
        "True_Client-IP",
    ];
    let others = ["X-Forwarded", "X-Forwardedness", "X-Hostile", "X-Originality", "True-Client", "Forwarded-By"];
    let ask = claims.iter().chain(&others).fold(Ask::get("/"), |ask, name| ask.header(name, "evil"));
    edge.ask(&ask).await.text();
    let seen = &origin.seen()[0];
    for name in claims {
        assert_eq!(seen.header(name), None, "{name}");
    }
    for name in others {
        assert_eq!(seen.header(name), Some("evil"), "{name}");
    }
}

/// Fields that a client may not set unless they are in the key.
const CLAIMS: [&str; 7] = [
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Original-URL",
    "X-Rewrite-URL",
    "X-HTTP-Method-Override",
    "X-Host",
    "X_Real_IP",
];

#[tokio::test]
async fn a_listed_claim_reaches_the_origin_and_is_in_the_key() {
    let origin = Origin::start(|r| {
        let said: Vec<_> = CLAIMS.iter().flat_map(|name| r.headers.all(name)).collect();
        Reply::ok(said.join(",")).cache_control("max-age=60")
    })
    .await;
    let routes: String = CLAIMS
        .iter()
        .map(|name| {
            let cache = format!("cache: {{ key: {{ headers: [{name}] }} }}");
            format!("  - {{ match: {{ path: \"/{}\" }}, {cache} }}\n", name.to_lowercase())
        })
        .collect();
    let edge = Edge::before(&origin, &format!("routes:\n{routes}")).await;
    for (i, name) in CLAIMS.into_iter().enumerate() {
        let path = format!("/{}", name.to_lowercase());
        // All claims are made, and one is listed.
        let ask = |value: &str| CLAIMS.iter().fold(Ask::get(&path), |ask, name| ask.header(name, value));
        for value in ["one", "two"] {
            let first = edge.ask(&ask(value)).await;
            let second = edge.ask(&ask(value)).await;
            assert!(!first.is_hit() && second.is_hit(), "{name}: {first:?} {second:?}");
            assert!(first.text().split(',').any(|said| said == value), "{name}: {first:?}");
            assert_eq!(first.text(), second.text(), "{name}");
        }
        assert_eq!(origin.count(), 2 * (i + 1), "{name}");
        for seen in &origin.seen()[2 * i..] {
            for other in CLAIMS.into_iter().filter(|other| *other != name) {
                let own = match other {
                    "X-Forwarded-Host" => Some("edge.test"),
                    "X-Forwarded-Proto" => Some("http"),
                    _ => None,
                };
                assert_eq!(seen.header(other), own, "{other} where {name} is listed");
            }
        }
    }
}

#[tokio::test]
async fn listed_chains_are_continued() {
    let origin = Origin::start(|_| Reply::ok("x").cache_control("max-age=60")).await;
    let edge = Edge::before(&origin, "cache: { key: { headers: [X-Forwarded-For, Forwarded] } }").await;
    for address in ["203.0.113.7", "203.0.113.8"] {
        let ask =
            Ask::get("/").header("X-Forwarded-For", address).header("Forwarded", format!("for={address};proto=https"));
        assert!(!edge.ask(&ask).await.is_hit(), "{address}");
        assert!(edge.ask(&ask).await.is_hit(), "{address}");
        let seen = origin.seen();
        let seen = seen.last().expect("a request");
        assert_eq!(seen.headers.all("X-Forwarded-For"), [format!("{address}, 127.0.0.1")]);
        let forwarded = format!("for={address};proto=https, for=127.0.0.1;host=edge.test;proto=http");
        assert_eq!(seen.headers.all("Forwarded"), [forwarded]);
    }
    // In the key, but not believed.
    assert!(edge.access_log_lines(4).await.iter().all(|line| line["client"] == "127.0.0.1"));
}

#[tokio::test]
async fn a_listed_claim_passes_beside_the_cache_too() {
    let origin = Origin::start(|_| Reply::ok("x")).await;
    let site = r#"
cache: { key: { headers: [X-Forwarded-Host] } }
routes:
  - match: { path: "/off" }
    cache: off
"#;
    let edge = Edge::before(&origin, site).await;
    edge.ask(&Ask::new("POST", "/").header("X-Forwarded-Host", "public.test").body("x")).await.text();
    edge.ask(&Ask::get("/off").header("X-Forwarded-Host", "public.test")).await.text();
    let seen = origin.seen();
    assert_eq!(seen[0].headers.all("X-Forwarded-Host"), ["public.test"]);
    assert_eq!(seen[1].headers.all("X-Forwarded-Host"), ["edge.test"], "nothing can be listed where nothing is cached");
}

#[tokio::test]
async fn a_refresh_in_the_background_says_what_its_key_says() {
    let origin = Origin::start(|r| {
        let host = r.header("X-Forwarded-Host").unwrap_or("-").to_owned();
        Reply::ok(host).cache_control("max-age=0, stale-while-revalidate=60").header("ETag", "\"a\"")
    })
    .await;
    let edge = Edge::before(&origin, "cache: { key: { headers: [X-Forwarded-Host] } }").await;
    let ask = Ask::get("/").header("X-Forwarded-Host", "public.test");
    assert_eq!(edge.ask(&ask).await.text(), "public.test");
    assert_eq!(edge.ask(&ask).await.text(), "public.test");
    eventually("the refresh", async || origin.count() == 2).await;
    assert_eq!(origin.seen()[1].headers.all("X-Forwarded-Host"), ["public.test"]);
}

#[tokio::test]
async fn a_strangers_claims_choose_no_route() {
    let origin = Origin::start(|_| Reply::ok("x").cache_control("max-age=60")).await;
    let routes: String = CLAIMS
        .iter()
        .map(|name| {
            let cache = format!("cache: {{ key: {{ headers: [{name}] }} }}");
            format!("  - {{ name: {name}, match: {{ headers: {{ {name}: evil }} }}, {cache} }}\n")
        })
        .collect();
    let site = format!("routes:\n{routes}");
    let (stranger, trusted) =
        (Edge::before(&origin, &site).await, Edge::start(&(Edge::yaml_before(&[&origin], &site) + TRUSTING)).await);
    for name in CLAIMS {
        let ask = Ask::get(&format!("/{name}")).header(name, "evil");
        stranger.ask(&ask).await.text();
        let seen = origin.seen();
        assert_ne!(seen.last().expect("a request").header(name), Some("evil"), "{name}");
        trusted.ask(&ask).await.text();
        let seen = origin.seen();
        assert_eq!(seen.last().expect("a request").header(name), Some("evil"), "{name}");
    }
    let routes = |lines: Vec<serde_json::Value>| -> Vec<String> {
        let mut routes: Vec<_> = lines.iter().map(|line| line["route"].as_str().unwrap_or("-").to_owned()).collect();
        routes.sort();
        routes
    };
    let mut names = CLAIMS.map(String::from);
    names.sort();
    assert_eq!(routes(stranger.access_log_lines(CLAIMS.len()).await), CLAIMS.map(|_| "-".to_owned()));
    assert_eq!(routes(trusted.access_log_lines(CLAIMS.len()).await), names);
}

#[tokio::test]
async fn a_trusted_proxys_claims_are_continued() {
    let origin = Origin::start(|_| Reply::ok("x")).await;
    let edge = Edge::start(&(Edge::yaml_before(&[&origin], "") + TRUSTING)).await;
    edge.ask(&with_claims(Ask::get("/"))).await.text();
    let seen = &origin.seen()[0];
    // One line: an origin that reads only the first would miss the rest.
    assert_eq!(seen.headers.all("X-Forwarded-For"), ["203.0.113.7, 198.51.100.2, 127.0.0.1, 127.0.0.1"]);
    assert_eq!(seen.headers.all("X-Forwarded-Proto"), ["https"]);
    assert_eq!(seen.headers.all("X-Forwarded-Host"), ["public.test"]);
    let forwarded = "for=203.0.113.7;proto=https, for=127.0.0.1;host=edge.test;proto=http";
    assert_eq!(seen.headers.all("Forwarded"), [forwarded]);
    assert_eq!(seen.header("X-Original-URL"), Some("/admin"));
    // The client is the last address that no trusted proxy has.
    assert_eq!(edge.access_log_lines(1).await[0]["client"], "198.51.100.2");
}

#[tokio::test]
async fn the_way_is_written_down() {
    let origin = Origin::start(|_| Reply::ok("x")).await;
    let edge = Edge::before(&origin, "").await;
    edge.get("/").await.text();
    edge.ask(&Ask::get("/").header("Via", "1.0 fred").header("CDN-Loop", "other; v=1")).await.text();
    let seen = origin.seen();
    assert_eq!(seen[0].headers.all("Via"), ["1.1 foreland"]);
    let [id] = seen[0].headers.all("CDN-Loop")[..] else { panic!("one CDN-Loop: {:?}", seen[0]) };
    assert!(!id.is_empty() && !id.contains([',', ';', ' ']), "{id:?}");
    assert_eq!(seen[1].headers.all("Via"), ["1.0 fred, 1.1 foreland"]);
    assert_eq!(seen[1].headers.all("CDN-Loop"), [format!("other; v=1, {id}")]);
}

#[tokio::test]
async fn each_request_has_a_name() {
    let origin = Origin::start(|_| Reply::ok("x")).await;
    let edge = Edge::before(&origin, "").await;
    edge.get("/").await.text();
    edge.ask(&Ask::get("/").header("X-Request-Id", "client-chose.this_1")).await.text();
    edge.ask(&Ask::get("/").header("X-Request-Id", "bad id, \"injected\"")).await.text();
    let ids: Vec<String> = origin.seen().iter().map(|r| r.headers.all("X-Request-Id").join("|")).collect();
    for made in [&ids[0], &ids[2]] {
        assert!(made.len() == 32 && made.bytes().all(|b| b.is_ascii_hexdigit()), "{ids:?}");
    }
    assert_ne!(ids[0], ids[2]);
    assert_eq!(ids[1], "client-chose.this_1");
    // The log is in order for each worker, not over all of them.
    let lines = edge.access_log_lines(3).await;
    for id in &ids {
        assert!(lines.iter().any(|l| l["request_id"] == id.as_str()), "{id}: {lines:?}");
    }
}

#[tokio::test]
async fn hop_by_hop_fields_stay_on_their_hop() {
    let reply = Reply::ok("x")
        .header("Connection", "X-Origin-Hop, keep-alive")
        .header("X-Origin-Hop", "1")
        .header("Keep-Alive", "timeout=5")
        .header("Proxy-Connection", "keep-alive")
        .header("Upgrade", "h2c")
        .header("X-End", "kept")
        .header("Set-Cookie", "a=1")
        .header("Set-Cookie", "b=2");
    let origin = Origin::start(move |_| reply.clone()).await;
    let edge = Edge::before(&origin, "").await;
    let ask = Ask::get("/")
        .header("Connection", "X-Client-Hop, keep-alive, TE")
        .header("X-Client-Hop", "1")
        .header("Keep-Alive", "timeout=5")
        .header("Proxy-Connection", "keep-alive")
        .header("Proxy-Authorization", "Basic c2VjcmV0")
        .header("TE", "gzip")
        .header("X-End", "one")
        .header("X-End", "two")
        .header("Authorization", "Basic a2VwdA==")
        .header("Cookie", "c=1; d=2");
    let response = edge.ask(&ask).await;
    assert_eq!(response.text(), "x");
    for name in ["X-Origin-Hop", "Keep-Alive", "Proxy-Connection", "Upgrade"] {
        assert_eq!(response.header(name), None, "{name}");
    }
    assert!(!response.headers.lists("Connection", "X-Origin-Hop"));
    assert_eq!(response.header("X-End"), Some("kept"));
    assert_eq!(response.headers.all("Set-Cookie"), ["a=1", "b=2"]);
    let seen = &origin.seen()[0];
    for name in ["X-Client-Hop", "Keep-Alive", "Proxy-Connection", "Proxy-Authorization", "TE"] {
        assert_eq!(seen.header(name), None, "{name}");
    }
    assert!(!seen.headers.lists("Connection", "X-Client-Hop"));
    assert_eq!(seen.headers.all("X-End"), ["one", "two"]);
    assert_eq!(seen.header("Authorization"), Some("Basic a2VwdA=="));
    assert_eq!(seen.header("Cookie"), Some("c=1; d=2"));
}

#[tokio::test]
async fn a_connection_field_cannot_take_the_edges_own_words_away() {
    let origin = Origin::start(|_| Reply::ok("x")).await;
    let edge = Edge::before(&origin, "").await;
    let names = "close, Host, X-Forwarded-For, Via, CDN-Loop, Forwarded, X-Request-Id, X-Forwarded-Proto";
    let response = edge.ask(&Ask::get("/").header("Connection", names)).await;
    // A refusal would do as well; what must not be is a request without them.
    assert!(matches!(response.status, 200 | 400), "{response:?}");
    for seen in origin.seen() {
        assert_eq!(seen.header("Host"), Some("edge.test"));
        assert_eq!(seen.header("X-Forwarded-For"), Some("127.0.0.1"));
        for name in ["Via", "CDN-Loop", "Forwarded", "X-Request-Id", "X-Forwarded-Proto"] {
            assert!(seen.headers.has(name), "{name}: {seen:?}");
        }
    }
}

#[tokio::test]
async fn the_origin_chooses_the_host_it_is_asked_by() {
    let origin = Origin::start(|_| Reply::ok("x")).await;
    let address = origin.address();
    let yaml = format!(
        r#"
origins:
  client: {{ servers: ["{address}"] }}
  server: {{ servers: ["{address}"], host: server }}
  fixed: {{ servers: ["{address}"], host: internal.test }}
sites:
  - hosts: ["*"]
    origin: client
    routes:
      - {{ match: {{ path: "/server" }}, origin: server }}
      - {{ match: {{ path: "/fixed" }}, origin: fixed }}
"#
    );
    let edge = Edge::start(&yaml).await;
    for (path, host) in
        [("/client", "www.example.test:8080"), ("/server", &*address.to_string()), ("/fixed", "internal.test")]
    {
        edge.ask(&Ask::get(path).host("Www.Example.test:8080")).await.text();
        let seen = origin.seen();
        let seen = seen.last().expect("a request");
        assert_eq!(seen.headers.all("Host"), [host], "{path}");
        assert_eq!(seen.header("X-Forwarded-Host"), Some("www.example.test:8080"), "{path}");
    }
}

#[tokio::test]
async fn a_request_that_comes_back_is_refused() {
    let origin = Origin::start(|_| Reply::ok("x")).await;
    let edge = Edge::before(&origin, "").await;
    edge.get("/").await.text();
    let id = origin.seen()[0].header("CDN-Loop").expect("the edge's own id").to_owned();
    for members in [id.clone(), format!("other, {id}; v=1"), id.to_uppercase()] {
        let response = edge.ask(&Ask::get("/").header("CDN-Loop", &members)).await;
        assert_eq!(response.status, 508, "{members}");
        assert!(response.text().contains("passed through this server before"), "{response:?}");
    }
    let two_lines = Ask::get("/").header("CDN-Loop", "other").header("CDN-Loop", &id);
    assert_eq!(edge.ask(&two_lines).await.status, 508);
    assert_eq!(origin.count(), 1);
    assert_eq!(edge.ask(&Ask::get("/").header("CDN-Loop", format!("{id}x"))).await.status, 200);
}

#[tokio::test]
async fn an_edge_before_itself_does_not_spin() {
    let yaml = "origins:\n  o: { servers: [\"127.0.0.1:{port}\"] }\nsites: [{ hosts: [\"*\"], origin: o }]\n";
    let edge = Edge::start(yaml).await;
    let response = edge.get("/").await;
    assert_eq!(response.status, 508);
    // The inner refusal and its outer relay.
    let lines = edge.access_log_lines(2).await;
    assert_eq!(lines.len(), 2);
    assert!(lines.iter().all(|l| l["status"] == 508), "{lines:?}");
    edge.get("/again").await;
    assert_eq!(edge.access_log_lines(4).await.len(), 4);
}
