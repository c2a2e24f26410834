//! A shield between edges and the origin, from the very files that show how: conf/examples/shield.

use std::net::SocketAddr;

use rustix::process::Signal;

use crate::harness::{Ask, Edge, Gate, Origin, Reply, Response, eventually};

/// What the files say, and what it is here.
const EDGES: [(&str, &str, &str); 2] = [
    (include_str!("../../conf/examples/shield/edge-a.yaml"), "127.0.0.1:8081", "127.0.0.1:9181"),
    (include_str!("../../conf/examples/shield/edge-b.yaml"), "127.0.0.1:8082", "127.0.0.1:9182"),
];
const SHIELD: (&str, &str, &str) =
    (include_str!("../../conf/examples/shield/shield.yaml"), "127.0.0.1:8090", "127.0.0.1:9190");

/// An example with other addresses in it. What is to be replaced is there, exactly once.
fn adapted(text: &str, changes: &[(&str, &str)]) -> String {
    changes.iter().fold(text.to_owned(), |text, (from, to)| {
        assert_eq!(text.matches(from).count(), 1, "{from} in\n{text}");
        text.replace(from, to)
    })
}

fn shield_before(origin: SocketAddr) -> String {
    let (text, listener, admin) = SHIELD;
    let changes = [
        (listener, "127.0.0.1:{port}"),
        (admin, "127.0.0.1:{admin}"),
        ("servers: [127.0.0.1:9000]", &format!("servers: [\"{origin}\"]")),
    ];
    adapted(text, &changes)
}

/// The edges `a` and `b` before these shields.
async fn edges_before(shields: &[&Edge]) -> (Edge, Edge) {
    let servers: Vec<_> = shields.iter().map(|shield| format!("\"{}\"", shield.address())).collect();
    let yaml = EDGES.map(|(text, listener, admin)| {
        let changes = [
            (listener, "127.0.0.1:{port}"),
            (admin, "127.0.0.1:{admin}"),
            ("servers: [127.0.0.1:8090]", &format!("servers: [{}]", servers.join(", "))),
            ("interval: 1s, timeout: 500ms", "interval: 100ms, timeout: 100ms"),
        ];
        adapted(text, &changes)
    });
    tokio::join!(Edge::start(&yaml[0]), Edge::start(&yaml[1]))
}

async fn chain(origin: &Origin) -> (Edge, Edge, Edge) {
    let shield = Edge::start(&shield_before(origin.address())).await;
    let (a, b) = edges_before(&[&shield]).await;
    (shield, a, b)
}

/// What each cache says in Cache-Status (RFC 9211 §2): the one nearest to the origin first.
fn members(response: &Response) -> Vec<String> {
    let lines: Vec<&str> = response.headers.all("Cache-Status");
    lines.join(", ").split("Foreland; ").skip(1).map(|member| member.trim_end_matches(", ").to_owned()).collect()
}

#[tokio::test]
async fn what_both_edges_want_at_once_is_asked_of_the_origin_once() {
    let gate = Gate::new();
    let at = gate.clone();
    let origin = Origin::start(move |_| Reply::ok("shared").cache_control("max-age=60").hold(&at)).await;
    let (shield, a, b) = chain(&origin).await;
    let (from_a, from_b, ()) = tokio::join!(a.get("/page"), b.get("/page"), async {
        shield.wait_metrics("one to wait", |m| m.metric("foreland_cache_waits_total") >= Some(1.0)).await;
        gate.open();
    });
    for response in [&from_a, &from_b] {
        assert_eq!((response.status, response.text()), (200, "shared"), "{response:?}");
        let members = members(response);
        assert!(members.len() == 2 && members.iter().all(|member| member.starts_with("fwd=uri-miss")), "{members:?}");
    }
    let collapsed = [&from_a, &from_b].map(|response| members(response)[0].contains("collapsed"));
    assert!(collapsed[0] != collapsed[1], "one waited at the shield: {collapsed:?}");
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn what_one_edge_has_fetched_the_other_finds_at_the_shield() {
    let origin = Origin::start(|_| Reply::ok("page").cache_control("max-age=60").header("Surrogate-Key", "all")).await;
    let (_shield, a, b) = chain(&origin).await;
    let first = members(&a.get("/page").await);
    assert!(first.len() == 2 && first.iter().all(|member| member.starts_with("fwd=uri-miss")), "{first:?}");
    let response = b.get("/page").await;
    let second = members(&response);
    assert_eq!((response.status, response.text()), (200, "page"));
    assert!(second.len() == 2 && second[0].starts_with("hit") && second[1].starts_with("fwd=uri-miss"), "{second:?}");
    assert_eq!(response.header("Surrogate-Key"), None, "tags end at the edges");
    for edge in [&a, &b] {
        let members = members(&edge.get("/page").await);
        assert!(members.last().is_some_and(|own| own.starts_with("hit")), "{members:?}");
    }
    assert_eq!(origin.count(), 1);

    // The tags have come as far as the edges.
    let purged = b.admin_post("/v1/purge", r#"{"tags": ["all"]}"#).await;
    assert_eq!(purged.status, 200, "{purged:?}");
    assert!(members(&b.get("/page").await)[1].starts_with("fwd=uri-miss"));
    assert_eq!(origin.count(), 1, "the shield has it still");
}

#[tokio::test]
async fn the_origin_sees_the_whole_way() {
    let origin = Origin::start(|_| Reply::ok("page").cache_control("no-store")).await;
    let (_shield, a, b) = chain(&origin).await;
    for edge in [&a, &b] {
        assert_eq!(edge.ask(&Ask::get("/").host("shop.test")).await.status, 200);
    }
    let ways: Vec<Vec<String>> = origin
        .seen()
        .iter()
        .map(|r| r.header("CDN-Loop").unwrap_or_default().split(", ").map(str::to_owned).collect())
        .collect();
    let [from_a, from_b] = &ways[..] else { panic!("{ways:?}") };
    assert!(from_a.len() == 2 && from_b.len() == 2, "{ways:?}");
    assert!(from_a[0] != from_b[0] && from_a[0] != from_a[1], "each has its own name: {ways:?}");
    assert_eq!(from_a[1], from_b[1], "the shield");
    for request in origin.seen() {
        assert_eq!(request.header("Host"), Some("shop.test"));
        assert_eq!(request.header("X-Forwarded-For"), Some("127.0.0.1, 127.0.0.1"));
        assert_eq!(request.header("Via"), Some("1.1 foreland, 1.1 foreland"));
    }
}

#[tokio::test]
async fn an_edge_that_leads_to_itself_is_told() {
    let origin = Origin::start(|_| Reply::ok("page")).await;
    let (shield, a, b) = chain(&origin).await;
    shield.write_config(&shield_before(a.address()));
    shield.signal(Signal::HUP);
    let reloaded = r#"foreland_config_reloads_total{result="ok"}"#;
    shield.wait_metrics("a reload", |m| m.metric(reloaded) == Some(1.0)).await;
    let response = a.get("/page").await;
    assert_eq!(response.status, 508);
    assert!(response.text().contains("has passed through this server before"), "{response:?}");
    // From the other edge the way leads through the shield twice.
    assert_eq!(b.get("/page").await.status, 508);
    assert_eq!(origin.count(), 0);
}

#[tokio::test]
async fn without_the_shield_an_edge_has_what_is_stale_and_goes_on_when_it_is_back() {
    // Past its lifetime as it comes, and for longer than it may be served while it is refreshed.
    let origin = Origin::start(|r| match r.path() {
        "/kept" => Reply::ok("kept").cache_control("max-age=60").header("Age", "100").header("ETag", "\"v1\""),
        _ => Reply::ok("fresh").cache_control("max-age=60"),
    })
    .await;
    let (shield, a, _b) = chain(&origin).await;
    assert_eq!(a.get("/kept").await.text(), "kept");
    assert_eq!(a.get("/page").await.text(), "fresh");
    shield.kill().await;
    for n in 0..3 {
        let stale = a.get("/kept").await;
        assert_eq!((stale.status, stale.text()), (200, "kept"), "{stale:?}");
        let said = members(&stale);
        assert!(said.last().is_some_and(|own| own.contains("detail=stale-if-error")), "{said:?}");
        let fresh = members(&a.get("/page").await);
        assert!(fresh.last().is_some_and(|own| own.starts_with("hit")), "{fresh:?}");
        let none = a.get(&format!("/new{n}")).await;
        assert!(matches!(none.status, 502 | 503), "{none:?}");
    }
    let shield = shield.again();
    shield.wait_ready().await;
    let mut n = 0;
    eventually("the edge to go on", async || {
        n += 1;
        a.get(&format!("/back{n}")).await.status == 200
    })
    .await;
    eventually("what is stale to be fetched", async || {
        members(&a.get("/kept").await).last().is_some_and(|own| own.starts_with("fwd=stale"))
    })
    .await;
}

#[tokio::test]
async fn of_several_shields_a_url_has_one() {
    let origin = Origin::start(|r| Reply::ok(r.target.clone()).cache_control("max-age=60")).await;
    let yaml = shield_before(origin.address());
    let (one, two) = tokio::join!(Edge::start(&yaml), Edge::start(&yaml));
    let (a, b) = edges_before(&[&one, &two]).await;
    const URLS: usize = 40;
    for edge in [&a, &b] {
        for n in 0..URLS {
            let target = format!("/{n}?of={URLS}");
            assert_eq!(edge.get(&target).await.text(), target);
        }
    }
    assert_eq!(origin.count(), URLS, "each was asked of the origin once");
    let requests = async |shield: &Edge| shield.metrics().await.sum("foreland_requests_total", &[]);
    eventually("all requests to be counted", async || requests(&one).await + requests(&two).await == 2.0 * URLS as f64)
        .await;
    assert!(requests(&one).await > 0.0 && requests(&two).await > 0.0, "both have a share");
}
