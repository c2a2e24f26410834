//! Who may get whose response: Vary, Authorization, cookies; and what a change of the resource takes away.

use crate::harness::{Ask, Edge, Gate, Origin, Reply};
use crate::over::BOTH;

#[tokio::test]
async fn variants_lie_side_by_side() {
    for over in BOTH {
        let origin = Origin::start(|r| {
            let language = r.header("accept-language").unwrap_or("none").to_owned();
            Reply::ok(language).cache_control("max-age=60").header("Vary", "Accept-Language")
        })
        .await;
        let edge = Edge::before(&origin, "").await;
        let mut client = over.connect(&edge).await;
        for round in 0..3 {
            for language in ["de", "en", "fr"] {
                let response = client.ask(&Ask::get("/a").header("Accept-Language", language)).await;
                assert_eq!(response.text(), language, "{over:?}");
                assert_eq!(response.is_hit(), round > 0, "round {round} of {language} over {over:?}: {response:?}");
            }
            let none = client.get("/a").await;
            assert!(none.text() == "none" && none.is_hit() == (round > 0), "round {round} over {over:?}: {none:?}");
        }
        assert_eq!(origin.count(), 4);
    }
}

#[tokio::test]
async fn a_miss_of_a_variant_says_so() {
    let origin = Origin::start(|_| Reply::ok("x").cache_control("max-age=60").header("Vary", "Accept-Language")).await;
    let edge = Edge::before(&origin, "").await;
    let ask = |language| Ask::get("/a").header("Accept-Language", language);
    assert!(edge.ask(&ask("de")).await.cache_status().starts_with("Foreland; fwd=uri-miss; fwd-status=200; stored"));
    assert!(edge.ask(&ask("en")).await.cache_status().starts_with("Foreland; fwd=vary-miss; fwd-status=200; stored"));
}

#[tokio::test]
async fn a_vary_that_changes_is_followed() {
    let gate = Gate::new();
    let at = gate.clone();
    let origin = Origin::start(move |r| {
        let reply = Reply::ok(format!("{:?} {:?}", r.header("x-a"), r.header("x-b")));
        // Stale on arrival until the test says so, so that each request is a chance for a change.
        let reply = reply.cache_control("max-age=60").header("ETag", "\"x\"");
        match r.header("x-now") {
            Some("b") => reply.header("Vary", "X-B"),
            _ => reply.header("Age", "60").header("Vary", "X-A").hold(&at),
        }
    })
    .await;
    gate.open();
    let edge = Edge::before(&origin, "").await;
    let ask = |a, b, now| Ask::get("/v").header("X-A", a).header("X-B", b).header("X-Now", now);
    edge.ask(&ask("1", "1", "a")).await;
    edge.ask(&ask("2", "1", "a")).await;
    for b in ["1", "2"] {
        let response = edge.ask(&ask("1", b, "b")).await;
        assert_eq!(response.text(), format!("Some(\"1\") Some(\"{b}\")"));
    }
    for b in ["1", "2"] {
        let response = edge.ask(&ask("3", b, "b")).await;
        assert_eq!(response.text(), format!("Some(\"1\") Some(\"{b}\")"), "only X-B counts now: {response:?}");
    }
}

#[tokio::test]
async fn a_field_that_the_origin_does_not_get_selects_no_variant() {
    let origin = Origin::start(|r| {
        let language = r.header("accept-language").unwrap_or("none").to_owned();
        Reply::ok(language).cache_control("max-age=60").header("Vary", "Accept-Language")
    })
    .await;
    let edge = Edge::before(&origin, "").await;
    let ask = Ask::get("/a").header("Accept-Language", "en");
    for options in ["Accept-Language", "keep-alive, accept-language", "close,ACCEPT-LANGUAGE ,x"] {
        let response = edge.ask(&ask.clone().header("Connection", options)).await;
        assert_eq!(response.text(), "none", "{options}");
    }
    assert_eq!(edge.ask(&ask).await.text(), "en");
    assert!(edge.get("/a").await.is_hit(), "it is the variant of those who say nothing");
    assert_eq!(origin.count(), 2);
}

#[tokio::test]
async fn an_answer_to_a_body_is_not_shared() {
    for over in BOTH {
        let origin =
            Origin::start(|r| Reply::ok(format!("<{}>", String::from_utf8_lossy(&r.body))).cache_control("max-age=60"))
                .await;
        let edge = Edge::before(&origin, "").await;
        // Over HTTP/2, without a Content-Length.
        let with_body = Ask::get("/a").body("evil");
        assert_eq!(over.ask(&edge, &with_body).await.text(), "<evil>", "{over:?}");
        assert_eq!(over.get(&edge, "/a").await.text(), "<>", "{over:?}");
        let hit = over.get(&edge, "/a").await;
        assert!(hit.is_hit() && hit.text() == "<>", "{over:?}: {hit:?}");
        let response = over.ask(&edge, &with_body).await;
        assert_eq!(response.text(), "<evil>", "{over:?}");
        assert!(response.cache_status().contains("fwd=bypass"), "{over:?}: {response:?}");
    }
}

#[tokio::test]
async fn what_clients_accept_is_reduced_to_what_there_is() {
    let cache = "cache: { vary: { accept_encoding: [br, gzip], accept_language: [en, de] } }";
    for over in BOTH {
        for (name, asked) in [
            (
                "Accept-Encoding",
                [("gzip, deflate, br", Some("br")), ("gzip;q=0.5", Some("gzip")), ("zstd", Some("identity"))],
            ),
            ("Accept-Language", [("de-CH,de;q=0.9,en;q=0.8", Some("de")), ("en-GB", Some("en")), ("ja", None)]),
        ] {
            let origin = Origin::start(move |r| {
                Reply::ok(r.header(name).unwrap_or("none").to_owned()).cache_control("max-age=60").header("Vary", name)
            })
            .await;
            let edge = Edge::before(&origin, cache).await;
            for (sent, reaches) in asked {
                let response = over.ask(&edge, &Ask::get("/a").header(name, sent)).await;
                assert_eq!(response.text(), reaches.unwrap_or("none"), "{over:?} {name}: {sent}");
            }
            assert_eq!(origin.count(), 3);
            // Other words for the same are the same variant.
            let again =
                if name == "Accept-Encoding" { ["br;q=0.1", "x-gzip", "identity"] } else { ["DE-at", "*", "fr"] };
            for (sent, (_, reaches)) in again.iter().zip(asked) {
                let response = over.ask(&edge, &Ask::get("/a").header(name, sent)).await;
                assert!(response.is_hit(), "{over:?} {name}: {sent}: {response:?}");
                assert_eq!(response.text(), reaches.unwrap_or("none"), "{over:?} {name}: {sent}");
            }
            // A client that does not say is left alone.
            assert_eq!(over.get(&edge, "/b").await.text(), "none");
        }
    }
}

#[tokio::test]
async fn a_reduced_field_counts_as_such_in_the_key() {
    let cache = "cache: { vary: { accept_language: [en, de] }, key: { headers: [Accept-Language] } }";
    let origin = Origin::start(|r| {
        Reply::ok(r.header("accept-language").unwrap_or("none").to_owned()).cache_control("max-age=60")
    })
    .await;
    let edge = Edge::before(&origin, cache).await;
    for (sent, expected, hit) in
        [("de-CH", "de", false), ("de;q=0.3", "de", true), ("ja", "none", false), ("fr", "none", true)]
    {
        let response = edge.ask(&Ask::get("/a").header("Accept-Language", sent)).await;
        assert_eq!((response.text(), response.is_hit()), (expected, hit), "{sent}: {response:?}");
    }
}

#[tokio::test]
async fn vary_by_everything_is_never_shared() {
    let origin = Origin::start(|_| Reply::ok("x").cache_control("max-age=60").header("Vary", "*")).await;
    let edge = Edge::before(&origin, "").await;
    for over in BOTH {
        for _ in 0..2 {
            let response = over.get(&edge, "/a").await;
            assert!(response.cache_status().contains("detail=vary-any") || !response.is_hit(), "{response:?}");
        }
    }
    assert_eq!(origin.count(), 4);
}

#[tokio::test]
async fn what_an_authorised_client_got_is_shared_only_where_the_origin_says_so() {
    for over in BOTH {
        let origin = Origin::start(|r| {
            let reply = Reply::ok(r.header("authorization").unwrap_or("nobody").to_owned());
            reply.cache_control(&r.path()[1..].replace('_', "="))
        })
        .await;
        let edge = Edge::before(&origin, "").await;
        for (path, shared) in [
            ("/max-age_60", false),
            ("/max-age_60,public", true),
            ("/s-maxage_60", true),
            ("/max-age_60,must-revalidate", true),
            ("/private,max-age_60", false),
        ] {
            let ask = |who| Ask::get(path).header("Authorization", who);
            assert_eq!(over.ask(&edge, &ask("alice")).await.text(), "alice");
            let bob = over.ask(&edge, &ask("bob")).await;
            assert_eq!(bob.text(), if shared { "alice" } else { "bob" }, "{path} over {over:?}");
            let nobody = over.get(&edge, path).await;
            assert_eq!(nobody.text(), if shared { "alice" } else { "nobody" }, "{path} over {over:?}");
            assert_eq!(bob.is_hit(), shared);
        }
    }
}

#[tokio::test]
async fn a_response_with_a_cookie_is_its_clients_own() {
    for over in BOTH {
        let origin = Origin::start(|_| {
            Reply::ok("x").cache_control("max-age=60").header("Set-Cookie", "id=1").header("Set-Cookie", "theme=dark")
        })
        .await;
        let edge = Edge::before(&origin, "").await;
        for _ in 0..2 {
            let response = over.get(&edge, "/a").await;
            assert_eq!(response.headers.all("Set-Cookie"), ["id=1", "theme=dark"], "{over:?}");
            assert!(!response.is_hit() && response.cache_status().contains("detail=set-cookie"), "{response:?}");
        }
        assert_eq!(origin.count(), 2);
    }
}

#[tokio::test]
async fn cookies_are_stripped_from_what_is_stored_where_the_operator_says_so() {
    for over in BOTH {
        let gate = Gate::new();
        let at = gate.clone();
        let origin = Origin::start(move |_| {
            let reply = Reply::ok("first ").wait(&at).body("second").cache_control("max-age=60");
            reply.header("Set-Cookie", "id=1").header("Set-Cookie", "theme=dark").header("X-Other", "stays")
        })
        .await;
        let edge = Edge::before(&origin, "cache: { store_set_cookie: true }").await;
        let mut first = over.start(&edge, &Ask::get("/a")).await;
        assert_eq!(first.head().headers.all("Set-Cookie"), ["id=1", "theme=dark"], "the client it is for: {over:?}");
        first.bytes(6).await;
        let follower = over.start(&edge, &Ask::get("/a")).await;
        gate.open();
        let (first, follower) = (first.rest().await, follower.rest().await);
        let hit = over.get(&edge, "/a").await;
        assert!(hit.is_hit(), "{hit:?}");
        for (who, other) in [("a follower", &follower), ("a hit", &hit)] {
            assert!(!other.headers.has("Set-Cookie"), "{who} over {over:?}: {other:?}");
            assert_eq!((other.text(), other.header("x-other")), ("first second", Some("stays")), "{who}: {other:?}");
        }
        assert_eq!(first.end, crate::harness::End::Clean);
        assert_eq!(origin.count(), 1);
    }
}

#[tokio::test]
async fn a_change_takes_the_stored_response_away() {
    for over in BOTH {
        let origin = Origin::start(|r| match (&*r.method, r.query()) {
            ("GET", _) => Reply::ok("x").cache_control("max-age=60").header("Vary", "X-Variant"),
            (_, Some("fails")) => Reply::new(500),
            (_, Some("refused")) => Reply::new(403),
            (_, Some("moves")) => Reply::new(303).header("Location", "/other").header("Content-Location", "third"),
            _ => Reply::new(204),
        })
        .await;
        let edge = Edge::before(&origin, "").await;
        let mut client = over.connect(&edge).await;
        let variant = |v| Ask::get("/a").header("X-Variant", v);
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            for v in ["1", "2"] {
                client.ask(&variant(v)).await;
                assert!(client.ask(&variant(v)).await.is_hit(), "{method} over {over:?}");
            }
            client.ask(&Ask::new(method, "/a").body("b")).await;
            for v in ["1", "2"] {
                assert!(!client.ask(&variant(v)).await.is_hit(), "{method} over {over:?}, variant {v}");
                assert!(client.ask(&variant(v)).await.is_hit(), "{method} over {over:?}, variant {v}");
            }
        }
        // What has failed has changed nothing (RFC 9111 §4.4), and neither has what is safe.
        for (method, target) in [("POST", "/b?fails"), ("POST", "/b?refused"), ("OPTIONS", "/b?fails")] {
            client.get(target).await;
            client.ask(&Ask::new(method, target).body("b")).await;
            assert!(client.get(target).await.is_hit(), "{method} {target} over {over:?}");
        }
        for target in ["/other", "/third", "/fourth"] {
            client.get(target).await;
        }
        client.ask(&Ask::new("POST", "/form?moves").body("b")).await;
        for (target, hit) in [("/other", false), ("/third", false), ("/fourth", true)] {
            assert_eq!(client.get(target).await.is_hit(), hit, "{target} over {over:?}");
        }
    }
}

#[tokio::test]
async fn a_change_takes_what_is_on_its_way_too() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |r| match &*r.method {
        "GET" => Reply::new(200).cache_control("max-age=60").body("old ").wait(&held).body("state"),
        _ => Reply::new(204),
    })
    .await;
    let edge = Edge::before(&origin, "").await;
    let mut reader = edge.connect().await;
    reader.send(&Ask::get("/a").bytes()).await;
    let head = reader.head("GET").await;
    assert_eq!(edge.ask(&Ask::new("POST", "/a").body("b")).await.status, 204);
    gate.open();
    // Whoever was reading gets the whole of what it began with; nobody else gets any of it.
    assert_eq!(reader.rest(head).await.text(), "old state");
    assert!(!edge.get("/a").await.is_hit(), "from before the change");
    assert!(edge.get("/a").await.is_hit());
    assert_eq!(origin.count(), 3);
}

#[tokio::test]
async fn a_comma_in_a_cookie_separates_nothing() {
    let origin = Origin::start(|r| {
        Reply::ok(r.header("cookie").unwrap_or("none").to_owned()).cache_control("max-age=60").header("Vary", "Cookie")
    })
    .await;
    let edge = Edge::before(&origin, "").await;
    let one = Ask::get("/a").header("Cookie", "lang=de,role=admin");
    let two = Ask::get("/a").header("Cookie", "lang=de").header("Cookie", "role=admin");
    for over in BOTH {
        assert_eq!(over.ask(&edge, &one).await.text(), "lang=de,role=admin", "{over:?}");
        assert_eq!(over.ask(&edge, &two).await.text(), "lang=de; role=admin", "{over:?}");
    }
    assert_eq!(origin.count(), 2);
}

#[tokio::test]
async fn a_change_takes_away_all_that_is_stored_for_its_url() {
    let origin = Origin::start(|r| match &*r.method {
        "GET" => Reply::ok(r.header("x-dev").unwrap_or("none").to_owned()).cache_control("max-age=60"),
        _ => Reply::new(204),
    })
    .await;
    let site = "cache: { key: { headers: [X-Dev], cookies: [c] } }";
    let edge =
        Edge::start(&("trusted_proxies: [127.0.0.0/8]\n".to_owned() + &Edge::yaml_before(&[&origin], site))).await;
    let asks = [
        Ask::get("/a"),
        Ask::get("/a").header("X-Dev", "1"),
        Ask::get("/a").header("Cookie", "c=1"),
        Ask::get("/a").header("X-Forwarded-Proto", "https"),
    ];
    for over in BOTH {
        for ask in &asks {
            over.ask(&edge, ask).await;
            assert!(over.ask(&edge, ask).await.is_hit(), "{over:?} {ask:?}");
        }
        over.get(&edge, "/b").await;
        assert_eq!(over.ask(&edge, &Ask::new("PUT", "/a").header("X-Dev", "9").body("x")).await.status, 204);
        for ask in &asks {
            assert!(!over.ask(&edge, ask).await.is_hit(), "{over:?} {ask:?}");
            assert!(over.ask(&edge, ask).await.is_hit(), "{over:?} {ask:?}: stored again");
        }
        assert!(over.get(&edge, "/b").await.is_hit());
    }
}
