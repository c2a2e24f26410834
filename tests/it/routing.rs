//! From a request to the site and the route that govern it.

use super::harness::{Ask, Edge, Origin, Reply};

/// An edge with these sites, and with a pool by each of these names; behind all of them is one server, which answers
/// with the name of the pool that asked.
async fn edge(pools: &[&str], sites: &str) -> (Origin, Edge) {
    let origin = Origin::start(|r| Reply::ok(r.header("Host").unwrap_or_default().to_owned())).await;
    let mut yaml = String::from("origins:\n");
    for pool in pools {
        yaml.push_str(&format!("  {pool}: {{ servers: [\"{}\"], host: {pool}.pool }}\n", origin.address()));
    }
    let edge = Edge::start(&format!("{yaml}sites:\n{sites}")).await;
    (origin, edge)
}

#[tokio::test]
async fn an_exact_host_beats_a_wildcard_beats_any() {
    let sites = r#"
  - { hosts: ["*"], origin: any }
  - { hosts: ["*.example.test"], origin: wild }
  - { hosts: ["*.deep.example.test"], origin: deep }
  - { hosts: ["www.example.test", "alias.test"], origin: exact }
"#;
    let (_origin, edge) = edge(&["any", "wild", "deep", "exact"], sites).await;
    for (host, pool) in [
        ("www.example.test", "exact"),
        ("alias.test", "exact"),
        ("WWW.Example.Test", "exact"),
        ("www.example.test:8080", "exact"),
        ("www.example.test.", "exact"),
        ("a.example.test", "wild"),
        ("a.b.example.test", "wild"),
        ("deep.example.test", "wild"),
        ("a.deep.example.test", "deep"),
        ("example.test", "any"),
        ("wwwexample.test", "any"),
        ("127.0.0.1", "any"),
        ("[::1]:80", "any"),
    ] {
        let response = edge.ask(&Ask::get("/").host(host)).await;
        assert_eq!((response.status, response.text()), (200, &*format!("{pool}.pool")), "{host}");
    }
}

#[tokio::test]
async fn an_unknown_host_is_misdirected() {
    let (origin, edge) = edge(&["o"], "  - { hosts: [known.test, \"*.wild.test\"], origin: o }\n").await;
    let mut client = edge.connect().await;
    for host in ["unknown.test", "known.test.evil.test", "wild.test"] {
        let response = client.ask(&Ask::get("/").host(host)).await;
        assert_eq!(response.status, 421, "{host}");
        assert!(response.text().contains("No site of this name is served here."), "{response:?}");
        assert_eq!(response.header("Content-Type"), Some("text/plain; charset=utf-8"));
        assert_eq!(response.header("Cache-Control"), Some("no-store"));
        assert!(response.cache_status().contains("detail=local"), "{response:?}");
    }
    assert_eq!(origin.count(), 0);
    // Nothing is wrong with the connection: the next request on it is served.
    assert_eq!(client.ask(&Ask::get("/").host("known.test")).await.text(), "o.pool");
    let head = client.ask(&Ask::head("/").host("unknown.test")).await;
    assert_eq!((head.status, head.body.len()), (421, 0));
    assert_eq!(client.ask(&Ask::get("/").host("a.wild.test")).await.text(), "o.pool");
}

#[tokio::test]
async fn the_first_route_that_matches_governs() {
    let sites = r#"
  - hosts: ["*"]
    origin: site
    routes:
      - { match: { path: "/video/**" }, origin: video }
      - { match: { path: ["/a/*", "/only", "/x/*/z.txt"] }, origin: glob }
      - { match: { extensions: [png, JPG] }, origin: image }
      - { match: { path: "/m", methods: [POST, PUT] }, origin: write }
      - { match: { path: "/m", methods: [GET] }, origin: read }
      - { match: { headers: { X-Beta: true } }, origin: beta }
      - { match: { headers: { X-Kind: gold } }, origin: gold }
      - { match: { path: "/h", headers: { X-Signed: false } }, origin: unsigned }
      - { match: { query: { preview: true } }, origin: preview }
      - { match: { query: { lang: "de" } }, origin: german }
      - { match: { path: "/q", query: { v: false } }, origin: bare }
"#;
    let pools =
        ["site", "video", "glob", "image", "write", "read", "beta", "gold", "unsigned", "preview", "german", "bare"];
    let (_origin, edge) = edge(&pools, sites).await;
    let get = Ask::get;
    for (ask, pool) in [
        (get("/"), "site"),
        (get("/video/a/b"), "video"),
        (get("/video/"), "video"),
        (get("/video"), "site"),
        (get("/Video/a"), "site"),
        (get("/video/x.png"), "video"),
        (get("/a/b"), "glob"),
        (get("/a/"), "glob"),
        (get("/a/b/c"), "site"),
        (get("/only"), "glob"),
        (get("/only/"), "site"),
        (get("/x/y/z.txt"), "glob"),
        (get("/p.png"), "image"),
        (get("/deep/P.jPg?x=1"), "image"),
        (get("/p.png/more"), "site"),
        (get("/png"), "site"),
        (Ask::new("POST", "/m").body("x"), "write"),
        (Ask::new("PUT", "/m").body("x"), "write"),
        (get("/m"), "read"),
        (Ask::new("DELETE", "/m"), "site"),
        (get("/").header("x-beta", ""), "beta"),
        (get("/").header("X-Kind", "gold"), "gold"),
        (get("/").header("X-Kind", "silver").header("X-Kind", "gold"), "gold"),
        (get("/").header("X-Kind", "Gold"), "site"),
        (get("/h"), "unsigned"),
        (get("/h").header("X-Signed", "1"), "site"),
        (get("/?preview"), "preview"),
        (get("/?a=b&preview=0"), "preview"),
        (get("/?previews"), "site"),
        (get("/?lang=de"), "german"),
        (get("/?l%61ng=%64e"), "german"),
        (get("/?lang=den"), "site"),
        (get("/q"), "bare"),
        (get("/q?v=1"), "site"),
        // Two conditions of two routes: the upper route governs.
        (get("/?preview").header("X-Beta", "1"), "beta"),
    ] {
        let response = edge.ask(&ask).await;
        assert_eq!((response.status, response.text()), (200, &*format!("{pool}.pool")), "{ask:?}");
    }
    // HEAD shares GET's key, so it shares its route.
    edge.ask(&Ask::head("/m")).await;
    let lines = edge.access_log_lines(36).await;
    let head = lines.iter().find(|l| l["method"] == "HEAD").expect("the HEAD in the access log");
    assert_eq!(head["origin"], "read");
}

#[tokio::test]
async fn matches_the_normal_path_and_sends_the_clients_own() {
    let sites = r#"
  - hosts: ["*"]
    origin: site
    routes: [{ match: { path: "/b/**" }, origin: b }]
"#;
    let (origin, edge) = edge(&["site", "b"], sites).await;
    for (target, pool, sent) in [
        ("/%62/c", "b", "/%62/c"),
        ("/b/%7Euser?q=%7e", "b", "/b/%7Euser?q=%7e"),
        ("/b/a%2fb", "b", "/b/a%2fb"),
        ("/b//c", "b", "/b//c"),
        ("//b/c", "site", "//b/c"),
        ("/b%2Fc", "site", "/b%2Fc"),
        ("/b/?", "b", "/b/?"),
        // Dot segments are resolved for the origin too: key and request must not disagree.
        ("/a/../b/c?x=/../y", "b", "/b/c?x=/../y"),
        ("/a/%2e%2E/b/c", "b", "/b/c"),
        ("/b/../c", "site", "/c"),
        ("/../b/./d", "b", "/b/d"),
        ("/b/d/..", "b", "/b/"),
    ] {
        let response = edge.get(target).await;
        assert_eq!((response.status, response.text()), (200, &*format!("{pool}.pool")), "{target}");
        assert_eq!(origin.seen().last().map(|r| r.target.clone()).as_deref(), Some(sent), "{target}");
    }
}
