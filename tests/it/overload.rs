//! More than the process can do: some requests are refused for the sake of the others.

use super::harness::{Ask, Edge, Gate, Origin, Reply};

/// An origin that holds what is below `/held`; `/stale` is stale at once.
async fn holding(gate: &Gate) -> Origin {
    let gate = gate.clone();
    Origin::start(move |r| match r.path() {
        path if path.starts_with("/held") => Reply::ok("held").hold(&gate),
        "/stale" => Reply::ok("stale").cache_control("max-age=0, stale-if-error=60"),
        "/refreshed" => Reply::ok("stale").cache_control("max-age=0, stale-while-revalidate=60"),
        _ => Reply::ok("fine").cache_control("max-age=60"),
    })
    .await
}

async fn overloaded(origin: &Origin, overload: &str) -> Edge {
    Edge::start(&format!("{}overload: {{ {overload} }}\n", Edge::yaml_before(&[origin], ""))).await
}

#[tokio::test]
async fn hits_come_before_misses() {
    let gate = Gate::new();
    let origin = holding(&gate).await;
    let edge = overloaded(&origin, "requests: 3, retry_after: 17s").await;
    for target in ["/hit", "/stale", "/refreshed"] {
        assert_eq!(edge.get(target).await.status, 200);
    }
    let asked = origin.count();
    let mut held = Vec::new();
    for n in 0..3 {
        let mut client = edge.connect().await;
        client.send(Ask::get(&format!("/held/{n}")).bytes()).await;
        held.push(client);
        gate.reached(n + 1).await;
    }
    // There is no place left: what would go to the origin is refused, over both versions, and the connection is kept.
    let mut client = edge.connect().await;
    let h2 = edge.connect_h2().await;
    for _ in 0..5 {
        let refused = [client.ask(&Ask::get("/miss")).await, h2.ask(&Ask::get("/miss")).await];
        for response in refused {
            assert_eq!((response.status, response.header("Retry-After")), (503, Some("17")), "{response:?}");
        }
        // What is not read ends its connection with the answer.
        let upload = edge.ask(&Ask::new("POST", "/miss").body(vec![b'x'; 100])).await;
        assert_eq!(upload.status, 503);
        assert!(upload.headers.lists("Connection", "close"), "{upload:?}");
        // What is stored needs no place.
        assert!(client.ask(&Ask::get("/hit")).await.is_hit());
        assert!(h2.ask(&Ask::get("/hit")).await.is_hit());
        // And what is stale is better than nothing, where that is allowed.
        for target in ["/stale", "/refreshed"] {
            let stale = client.ask(&Ask::get(target)).await;
            assert_eq!((stale.status, stale.text()), (200, "stale"), "{target}: {stale:?}");
        }
    }
    assert_eq!(origin.count(), asked + 3);
    assert_eq!(edge.admin_get("/readyz").await.status, 200);
    let shed = "foreland_shed_total{reason=\"requests\"}";
    assert!(edge.metrics().await.metric(shed).is_some_and(|count| count >= 20.0));
    edge.wait_log("overload: requests are refused (overload.requests)").await;
    // As soon as there is a place, it is taken.
    gate.open();
    for mut client in held {
        assert_eq!(client.response("GET").await.text(), "held");
    }
    edge.wait_metrics("nothing is in flight", |m| m.sum("foreland_requests_in_flight", &[]) == 0.0).await;
    assert_eq!(client.ask(&Ask::get("/miss")).await.text(), "fine");
    let refused = edge.access_log().into_iter().find(|line| line["status"] == 503).expect("a line");
    let why = refused["detail"].as_str().unwrap_or_default();
    assert!(why.contains("4 requests in flight, overload.requests is 3"), "{refused}");
    edge.wait_log("overload: over").await;
    assert_eq!(edge.log().matches("overload: requests are refused").count(), 1, "{}", edge.log());
}

#[tokio::test]
async fn beyond_twice_as_much_all_are_refused() {
    let gate = Gate::new();
    let origin = holding(&gate).await;
    let yaml = |requests| format!("{}overload: {{ requests: {requests} }}\n", Edge::yaml_before(&[&origin], ""));
    let edge = Edge::start(&yaml(100)).await;
    assert_eq!(edge.get("/hit").await.status, 200);
    let mut held = Vec::new();
    for n in 0..4 {
        let mut client = edge.connect().await;
        client.send(Ask::get(&format!("/held/{n}")).bytes()).await;
        held.push(client);
        gate.reached(n + 1).await;
    }
    // A reload brings the limit that they are beyond.
    edge.write_config(&yaml(2));
    assert_eq!(edge.admin_post("/v1/reload", "").await.status, 200);
    let response = edge.get("/hit").await;
    assert_eq!((response.status, response.header("Retry-After")), (503, Some("5")));
    edge.write_config(&yaml(3));
    assert_eq!(edge.admin_post("/v1/reload", "").await.status, 200);
    assert!(edge.get("/hit").await.is_hit());
    assert_eq!(edge.get("/miss").await.status, 503);
    gate.open();
    for mut client in held {
        assert_eq!(client.response("GET").await.text(), "held");
    }
}
