//! The control API of a running edge.

use rustix::process::Signal;

use super::harness::{Ask, Edge, Gate, Origin, Reply, eventually, exchange};

const TOKEN: &str = "correct-horse-battery";

async fn with_token(origin: &Origin) -> Edge {
    let yaml = Edge::yaml_before(&[origin], "")
        + "admin: { address: \"127.0.0.1:{admin}\", token: \"env:FORELAND_TEST_TOKEN\" }\n";
    Edge::builder(&yaml).env("FORELAND_TEST_TOKEN", TOKEN).token(TOKEN).start().await
}

async fn plain() -> Origin {
    Origin::start(|_| Reply::ok("x").cache_control("no-store")).await
}

#[tokio::test]
async fn probes_need_no_token_and_everything_else_does() {
    let origin = plain().await;
    let edge = with_token(&origin).await;
    let host = edge.admin_address().to_string();
    let without = async |ask: Ask| exchange(edge.admin_address(), &ask.host(&host)).await;
    for (path, word) in [("/healthz", "ok\n"), ("/readyz", "ready\n")] {
        let answer = without(Ask::get(path)).await;
        assert_eq!((answer.status, answer.text()), (200, word), "{path}");
    }
    let guarded = [
        Ask::get("/metrics"),
        Ask::get("/v1/config"),
        Ask::get("/v1/origins"),
        Ask::get("/v1/cache"),
        Ask::new("POST", "/v1/reload").body(""),
        Ask::new("POST", &format!("/v1/origins/o/servers/{}/drain", origin.address())).body(""),
        Ask::get("/v1/no-such-thing"),
    ];
    for ask in guarded {
        let answer = without(ask.clone()).await;
        assert_eq!(answer.status, 401, "{}", ask.target);
        assert!(answer.header("WWW-Authenticate").is_some_and(|v| v.starts_with("Bearer")), "{answer:?}");
        assert!(!answer.text().contains(TOKEN));
        let wrong = without(ask.clone().header("Authorization", "Bearer wrong")).await;
        assert_eq!(wrong.status, 401, "{}", ask.target);
        let right = edge.admin(ask.clone()).await;
        let expected = if ask.target.ends_with("no-such-thing") { 404 } else { 200 };
        assert_eq!(right.status, expected, "{}: {right:?}", ask.target);
    }
    let yaml = edge.admin_get("/v1/config").await.json();
    assert_eq!(edge.admin_get("/v1/config").await.header("Cache-Control"), Some("no-store"));
    assert!(!yaml.to_string().contains(TOKEN) && !edge.log().contains(TOKEN), "the token is told: {yaml}");
    assert!(yaml["yaml"].as_str().unwrap_or_default().contains("env:FORELAND_TEST_TOKEN"), "{yaml}");
}

#[tokio::test]
async fn readiness_ends_when_draining_begins() {
    let gate = Gate::new();
    let held = Reply::ok("x").hold(&gate);
    let origin = Origin::start(move |_| held.clone()).await;
    let edge = Edge::before(&origin, "").await;
    let mut client = edge.connect().await;
    client.send(Ask::get("/").bytes()).await;
    gate.reached(1).await;
    assert_eq!(edge.admin_get("/readyz").await.status, 200);
    edge.signal(Signal::TERM);
    eventually("503", async || edge.admin_get("/readyz").await.status == 503).await;
    assert_eq!(edge.admin_get("/readyz").await.text(), "draining\n");
    assert_eq!(edge.admin_get("/healthz").await.status, 200, "alive all the same");
    // Figures are scraped to the end.
    assert_eq!(edge.metrics().await.sum("foreland_requests_in_flight", &[]), 1.0);
    gate.open();
    assert_eq!(client.response("GET").await.text(), "x");
    edge.wait_exit().await;
}

#[tokio::test]
async fn the_configuration_in_force_can_be_read_and_used() {
    let origin = plain().await;
    let edge = Edge::before(&origin, "cache: { ttl: 90s }").await;
    let answer = edge.admin_get("/v1/config").await.json();
    let yaml = answer["yaml"].as_str().expect("text");
    for wanted in ["ttl: 1m30s", "idle_timeout: 1m", "max_object: 1MiB"] {
        assert!(yaml.contains(wanted), "{wanted:?} in {yaml}");
    }
    let file = edge.folder().join("effective.yaml");
    std::fs::write(&file, yaml).expect("written");
    let (status, _, errors) = Edge::command(&["check", "-c", file.to_str().expect("text")]).await;
    assert_eq!(status.code(), Some(0), "{errors}");
    let hash = answer["hash"].as_str().expect("a hash");
    assert_eq!(edge.metrics().await.sum("foreland_config_info", &[("hash", hash)]), 1.0);
}

#[tokio::test]
async fn a_drained_server_gets_no_new_requests_until_it_is_undrained() {
    let gate = Gate::new();
    let held = Reply::ok("one").hold(&gate).cache_control("no-store");
    let one = Origin::start(move |r| match r.path() {
        "/held" => held.clone(),
        _ => Reply::ok("one").cache_control("no-store"),
    })
    .await;
    let two = Origin::start(|_| Reply::ok("two").cache_control("no-store")).await;
    let edge = Edge::start(&Edge::yaml_before(&[&one, &two], "")).await;
    let mut client = edge.connect().await;
    client.send(Ask::get("/held").bytes()).await;
    gate.reached(1).await;
    let server = one.address().to_string();
    let path = |what: &str| format!("/v1/origins/o/servers/{server}/{what}");
    let state = async || {
        let json = edge.admin_get("/v1/origins").await.json();
        let servers = json["origins"][0]["servers"].as_array().expect("servers").clone();
        servers.into_iter().find(|s| s["server"] == server.as_str()).expect("the server")
    };
    assert_eq!((&state().await["drained"], &state().await["active"]), (&false.into(), &1.into()));

    let drained = edge.admin_post(&path("drain"), "").await;
    assert_eq!((drained.status, &drained.json()["drained"]), (200, &true.into()));
    for _ in 0..4 {
        assert_eq!(edge.get("/a").await.text(), "two");
    }
    let told = state().await;
    assert_eq!((&told["drained"], &told["active"]), (&true.into(), &1.into()), "{told}");
    let figure = format!("foreland_origin_server_drained{{origin=\"o\",server=\"{server}\"}}");
    assert_eq!(edge.metrics().await.metric(&figure), Some(1.0));
    // A reload is no way back in.
    assert_eq!(edge.admin_post("/v1/reload", "").await.status, 200);
    assert_eq!(edge.get("/a").await.text(), "two");
    gate.open();
    assert_eq!(client.response("GET").await.text(), "one", "what is in flight is finished");
    eventually("none in flight", async || state().await["active"] == 0).await;

    assert_eq!(edge.admin_post(&path("undrain"), "").await.status, 200);
    let answers = [edge.get("/a").await.text().to_owned(), edge.get("/a").await.text().to_owned()];
    assert!(answers.contains(&"one".to_owned()) && answers.contains(&"two".to_owned()), "{answers:?}");

    for (target, word) in
        [("/v1/origins/nobody/servers/x:1/drain", "nobody"), ("/v1/origins/o/servers/x:1/drain", server.as_str())]
    {
        let unknown = edge.admin_post(target, "").await;
        assert_eq!(unknown.status, 404);
        assert!(unknown.json()["error"].as_str().unwrap_or_default().contains(word), "{unknown:?}");
    }
}

#[tokio::test]
async fn the_cache_tells_its_sizes() {
    let origin = Origin::start(|_| Reply::ok("x".repeat(500)).cache_control("max-age=60")).await;
    let yaml = Edge::yaml_before(&[&origin], "") + "cache: { memory: { size: 2MiB, max_object: 128KiB } }\n";
    let edge = Edge::start(&yaml).await;
    edge.get("/a").await;
    edge.get("/b").await;
    eventually("two objects", async || edge.admin_get("/v1/cache").await.json()["tiers"][0]["objects"] == 2).await;
    let json = edge.admin_get("/v1/cache").await.json();
    let tier = &json["tiers"][0];
    assert_eq!((&tier["tier"], &tier["capacity"]), (&"memory".into(), &(2 << 20).into()));
    assert_eq!(tier["max_object"], 128 << 10);
    assert!(tier["bytes"].as_u64().is_some_and(|bytes| bytes > 1000), "{json}");
    assert_eq!(json["fills"]["running"], 0);
}

#[tokio::test]
async fn reload_says_what_it_did_or_everything_that_is_wrong() {
    let origin = plain().await;
    let edge = Edge::before(&origin, "").await;
    let before = edge.admin_get("/v1/config").await.json()["hash"].clone();
    edge.write_config("threads: none\nlisteners: []\nsitez: []\n");
    let refused = edge.admin_post("/v1/reload", "").await;
    assert_eq!((refused.status, &refused.json()["reloaded"]), (422, &false.into()));
    let error = refused.json()["error"].as_str().expect("text").to_owned();
    for wanted in ["foreland.yaml:1:", "foreland.yaml:2:", "foreland.yaml:3:", "sitez", "sites", "origins"] {
        assert!(error.contains(wanted), "{wanted:?} in {error}");
    }
    assert_eq!(edge.admin_get("/v1/config").await.json()["hash"], before);
    assert_eq!(edge.get("/").await.status, 200);

    let path = edge.config_path();
    edge.write_config(&(Edge::yaml_before(&[&origin], "cache: off") + "threads: 3\n"));
    let text = std::fs::read_to_string(path).expect("the file");
    let done = edge.admin_post("/v1/reload", "").await.json();
    assert_eq!((&done["reloaded"], &done["needs_restart"]), (&true.into(), &serde_json::json!(["threads"])));
    assert_ne!(done["hash"], before);
    assert_eq!(edge.admin_get("/v1/config").await.json()["hash"], done["hash"]);
    assert!(text.contains("threads: 3"));
    let metrics = edge.metrics().await;
    let reloads = |result| metrics.sum("foreland_config_reloads_total", &[("result", result)]);
    assert_eq!((reloads("ok"), reloads("failed")), (1.0, 1.0));
}

#[tokio::test]
async fn a_web_page_cannot_ask() {
    let origin = plain().await;
    let edge = Edge::before(&origin, "").await;
    let ask = |host: &str| Ask::get("/v1/config").host(host);
    let address = edge.admin_address();
    assert_eq!(exchange(address, &ask("localhost")).await.status, 200);
    assert_eq!(exchange(address, &ask("rebound.example")).await.status, 403);
    let cross = Ask::new("POST", "/v1/reload").host(&address.to_string()).header("Origin", "http://evil.example");
    assert_eq!(exchange(address, &cross.body("")).await.status, 403);
}

#[tokio::test]
async fn methods_and_paths_that_are_not_there_are_refused() {
    let origin = plain().await;
    let edge = Edge::before(&origin, "").await;
    assert_eq!(edge.admin_get("/v1/reload").await.status, 405);
    assert_eq!(edge.admin_post("/v1/config", "").await.status, 405);
    assert_eq!(edge.admin_get("/v1/nothing").await.status, 404);
    assert_eq!(edge.admin_get("/v1/config?url=x").await.status, 400, "a parameter is not ignored");
    // Nor is the control API reachable where clients are served.
    assert_eq!(edge.get("/v1/config").await.text(), "x");
}
