//! Methods beside GET: HEAD of what is stored (RFC 9111 §4.3.5), and POST whose answer a GET may have (RFC 9110 §9.3.3).

use crate::harness::{Ask, Edge, Gate, Origin, Reply, Request};
use crate::over::BOTH;

/// An origin whose answer to GET is stale as it arrives, and whose answer to HEAD is `head`.
async fn stale_before(head: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Origin {
    Origin::start(move |r| match &*r.method {
        "HEAD" => head(r),
        _ if r.headers.has("If-None-Match") => Reply::new(304).cache_control("max-age=600"),
        _ => stored("old"),
    })
    .await
}

fn stored(body: &'static str) -> Reply {
    let reply = Reply::ok(body).cache_control("max-age=60, stale-if-error=600").header("Age", "61");
    reply.header("ETag", "\"v1\"").header("X-Version", "1").header("X-Only", "stored")
}

fn head(version: &str) -> Reply {
    let reply = Reply::new(200).cache_control("max-age=600").header("ETag", "\"v1\"");
    reply.header("X-Version", version).header("Content-Length", "3")
}

#[tokio::test]
async fn a_head_of_something_stale_goes_on_as_a_head_and_freshens_it() {
    for over in BOTH {
        let origin = stale_before(|_| head("2")).await;
        let edge = Edge::before(&origin, "").await;
        over.get(&edge, "/a").await;
        let answer = over.ask(&edge, &Ask::head("/a")).await;
        assert_eq!((answer.status, answer.text()), (200, ""), "{over:?}: {answer:?}");
        assert_eq!(answer.header("X-Version"), Some("2"));
        assert_eq!(answer.header("X-Only"), None, "it is the origin's answer, not what is stored");
        assert!(answer.cache_status().starts_with("Foreland; fwd=stale; fwd-status=200; detail=head"), "{answer:?}");
        let seen = &origin.seen()[1];
        assert_eq!((&*seen.method, seen.header("if-none-match")), ("HEAD", Some("\"v1\"")), "{over:?}");

        let hit = over.get(&edge, "/a").await;
        assert!(hit.is_hit(), "{over:?}: {hit:?}");
        assert_eq!((hit.text(), hit.header("X-Version"), hit.header("X-Only")), ("old", Some("2"), Some("stored")));
        assert_eq!(hit.headers.all("Cache-Control"), ["max-age=600"]);
        assert_eq!(origin.count(), 2);
    }
}

#[tokio::test]
async fn a_head_that_is_answered_with_304_validates() {
    let origin = stale_before(|_| Reply::new(304).cache_control("max-age=600").header("X-Version", "2")).await;
    let edge = Edge::before(&origin, "").await;
    edge.get("/a").await;
    let answer = edge.ask(&Ask::head("/a")).await;
    assert_eq!((answer.status, answer.text(), answer.header("X-Only")), (200, "", Some("stored")), "{answer:?}");
    assert!(edge.get("/a").await.is_hit());
    assert_eq!(origin.seen()[1].method, "HEAD");
}

#[tokio::test]
async fn a_head_that_shows_a_change_makes_what_is_stored_stale() {
    for (name, value) in
        [("ETag", "\"v2\""), ("Content-Length", "4"), ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")]
    {
        let origin = Origin::start(move |r| match &*r.method {
            "HEAD" => Reply::new(200).cache_control("max-age=600").header(name, value),
            _ => Reply::ok("old")
                .cache_control("max-age=60")
                .header("ETag", "\"v1\"")
                .header("Last-Modified", "Sun, 06 Nov 1994 08:49:36 GMT"),
        })
        .await;
        let edge = Edge::before(&origin, "").await;
        edge.get("/a").await;
        // What is fresh is asked about only where the client wants that.
        let ask = Ask::head("/a").header("Cache-Control", "no-cache");
        assert_eq!(edge.ask(&ask).await.status, 200);
        let next = edge.get("/a").await;
        assert!(!next.is_hit(), "{name}: {next:?}");
        let seen: Vec<_> = origin.seen().iter().map(|r| r.method.clone()).collect();
        assert_eq!(seen, ["GET", "HEAD", "GET"], "{name}");
    }
}

#[tokio::test]
async fn a_head_before_a_failing_origin_is_answered_with_what_is_stale() {
    for over in BOTH {
        let origin = stale_before(|_| Reply::new(503).header("Content-Length", "3")).await;
        let edge = Edge::before(&origin, "").await;
        over.get(&edge, "/a").await;
        let answer = over.ask(&edge, &Ask::head("/a")).await;
        assert_eq!((answer.status, answer.header("X-Only"), answer.text()), (200, Some("stored"), ""), "{answer:?}");
        assert!(answer.cache_status().contains("; detail=stale-if-error"), "{answer:?}");
    }
}

/// What a POST is answered with: the resource itself, as far as `location` and `control` say so.
fn created(location: &str, control: &str) -> Reply {
    let reply = Reply::ok("made by POST").cache_control(control);
    if location.is_empty() { reply } else { reply.header("Content-Location", location) }
}

#[tokio::test]
async fn an_answer_to_post_that_is_the_resource_itself_serves_later_gets() {
    for over in BOTH {
        for (location, control, is_stored) in [
            ("/a?x=1", "max-age=60", true),
            ("http://edge.test/a?x=1", "s-maxage=60", true),
            ("/a?x=1", "public", false),
            ("/a", "max-age=60", false),
            ("http://other.test/a?x=1", "max-age=60", false),
            ("", "max-age=60", false),
            ("/a?x=1", "max-age=60, no-store", false),
            ("/a?x=1", "max-age=60, private", false),
        ] {
            let origin = Origin::start(move |r| match &*r.method {
                "POST" => created(location, control),
                _ => Reply::ok("from GET").cache_control("max-age=60"),
            })
            .await;
            let edge = Edge::before(&origin, "").await;
            let case = format!("{over:?} {location} {control}");
            over.get(&edge, "/a?x=1").await;
            let post = over.ask(&edge, &Ask::new("POST", "/a?x=1").body("12345")).await;
            assert_eq!(post.text(), "made by POST", "{case}");
            assert!(post.cache_status().starts_with("Foreland; fwd=method"), "{case}: {post:?}");
            assert_eq!(post.cache_status().contains("; stored"), is_stored, "{case}: {post:?}");
            let get = over.get(&edge, "/a?x=1").await;
            let expected = if is_stored { "made by POST" } else { "from GET" };
            assert_eq!((get.text(), get.is_hit()), (expected, is_stored), "{case}: {get:?}");
            // Another POST is never answered from the store.
            assert_eq!(over.ask(&edge, &Ask::new("POST", "/a?x=1").body("1")).await.text(), "made by POST");
            assert_eq!(origin.seen().iter().filter(|r| r.method == "POST").count(), 2, "{case}");
        }
    }
}

#[tokio::test]
async fn an_answer_to_post_that_is_cut_off_is_not_stored() {
    let origin = Origin::start(|r| match &*r.method {
        "POST" => created("/a", "max-age=60").claim_length(100).cut(),
        _ => Reply::ok("from GET").cache_control("max-age=60"),
    })
    .await;
    let edge = Edge::before(&origin, "").await;
    let mut client = edge.connect().await;
    client.send(Ask::new("POST", "/a").body("12345").bytes()).await;
    let response = client.response("POST").await;
    assert!(crate::over::is_broken(response.end), "{response:?}");
    assert_eq!(edge.get("/a").await.text(), "from GET");
}

#[tokio::test]
async fn a_get_during_an_answer_to_post_does_not_wait_for_it() {
    let gate = Gate::new();
    let at = gate.clone();
    let origin = Origin::start(move |r| match &*r.method {
        "POST" => created("/a", "max-age=60").body("more").wait(&at).body("last"),
        _ => Reply::ok("from GET").cache_control("max-age=60"),
    })
    .await;
    let edge = Edge::before(&origin, "").await;
    let mut post = BOTH[1].start(&edge, &Ask::new("POST", "/a").body("1")).await;
    post.bytes(6).await;
    // A client that reads slowly, or leaves, is no business of those who ask by GET.
    assert_eq!(edge.get("/a").await.text(), "from GET");
    gate.open();
    post.rest().await;
}

#[tokio::test]
async fn an_answer_to_post_that_something_has_overtaken_is_not_stored() {
    let gate = Gate::new();
    let at = gate.clone();
    let origin = Origin::start(move |r| match &*r.method {
        "POST" => created("/a", "max-age=60").hold(&at),
        "PUT" => Reply::new(204),
        _ => Reply::ok("after PUT").cache_control("max-age=60"),
    })
    .await;
    let edge = Edge::before(&origin, "").await;
    let post = Ask::new("POST", "/a").body("1");
    let (post, ()) = tokio::join!(edge.ask(&post), async {
        gate.reached(1).await;
        assert_eq!(edge.ask(&Ask::new("PUT", "/a").body("2")).await.status, 204);
        gate.open();
    });
    assert!(post.text() == "made by POST" && !post.cache_status().contains("stored"), "{post:?}");
    assert_eq!(edge.get("/a").await.text(), "after PUT");
}

/// A purge by a tag that only the answer tells of concerns it all the same, if it came before the answer.
#[tokio::test]
async fn an_answer_to_post_that_was_purged_by_its_tag_meanwhile_is_not_stored() {
    for (field, tags) in [("Surrogate-Key", "shoes product-17"), ("Cache-Tag", "product-17")] {
        let gate = Gate::new();
        let held = gate.clone();
        let origin = Origin::start(move |r| match &*r.method {
            "POST" => created("/a", "max-age=60").header(field, tags).hold(&held),
            _ => Reply::ok("from GET").cache_control("max-age=60"),
        })
        .await;
        let edge = Edge::before(&origin, "").await;
        let ask = Ask::new("POST", "/a").body("1");
        let (post, ()) = tokio::join!(edge.ask(&ask), async {
            gate.reached(1).await;
            assert_eq!(edge.admin_post("/v1/purge", r#"{"tags": ["product-17"]}"#).await.status, 200);
            gate.open();
        });
        assert_eq!(post.text(), "made by POST");
        assert_eq!(edge.get("/a").await.text(), "from GET", "{field}: {post:?}");
    }
}

#[tokio::test]
async fn an_answer_to_post_under_other_settings_than_a_gets_is_not_stored() {
    let routes = "routes: [{ match: { methods: POST }, cache: { key: { headers: [X-Forwarded-Host] } } }]";
    let origin = Origin::start(|r| {
        let host = r.header("x-forwarded-host").unwrap_or("none").to_owned();
        Reply::ok(host).cache_control("max-age=60").header("Content-Location", "/a")
    })
    .await;
    let edge = Edge::before(&origin, routes).await;
    let post = Ask::new("POST", "/a").body("1").header("X-Forwarded-Host", "evil.test");
    assert_eq!(edge.ask(&post).await.text(), "evil.test");
    assert_eq!(edge.get("/a").await.text(), "edge.test");
}

#[tokio::test]
async fn an_empty_answer_to_post_is_stored_too() {
    let origin = Origin::start(|r| match &*r.method {
        "POST" => Reply::ok("").cache_control("max-age=60").header("Content-Location", "/a"),
        _ => Reply::ok("from GET").cache_control("max-age=60"),
    })
    .await;
    let edge = Edge::before(&origin, "").await;
    assert!(edge.ask(&Ask::new("POST", "/a").body("1")).await.cache_status().contains("; stored"));
    let get = edge.get("/a").await;
    assert!(get.is_hit() && get.text().is_empty(), "{get:?}");
}

#[tokio::test]
async fn a_head_of_one_variant_leaves_the_others_alone() {
    let origin = Origin::start(|r| {
        let a = r.header("x-a").unwrap_or_default().to_owned();
        let age = if a == "1" { "61" } else { "0" };
        let reply = if r.method == "HEAD" { Reply::new(200).header("Content-Length", "1") } else { Reply::ok(a) };
        reply.cache_control("max-age=60").header("Age", age).header("Vary", "X-A").header("ETag", "\"v\"")
    })
    .await;
    let edge = Edge::before(&origin, "").await;
    for a in ["1", "2"] {
        edge.ask(&Ask::get("/a").header("X-A", a)).await;
    }
    let head = edge.ask(&Ask::head("/a").header("X-A", "1")).await;
    assert!(head.cache_status().starts_with("Foreland; fwd=stale"), "{head:?}");
    let other = edge.ask(&Ask::get("/a").header("X-A", "2")).await;
    assert!(other.is_hit() && other.text() == "2", "{other:?}");
}

#[tokio::test]
async fn heads_of_something_stale_do_not_wait_for_each_other() {
    let gate = Gate::new();
    let at = gate.clone();
    let origin = stale_before(move |_| head("2").hold(&at)).await;
    let edge = Edge::before(&origin, "").await;
    edge.get("/a").await;
    let asks = (0..6).map(|i| async move { i }).collect::<Vec<_>>();
    let ask = Ask::head("/a");
    let (answers, ()) = tokio::join!(
        crate::over::all(asks.into_iter().map(|i| async {
            let i = i.await;
            BOTH[i % 2].ask(&edge, &ask).await
        })),
        async {
            gate.reached(6).await;
            gate.open();
        }
    );
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
}
