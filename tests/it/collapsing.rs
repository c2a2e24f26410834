//! Many clients, one resource: the origin is asked once where one answer serves all, and nobody waits in vain.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::{Ask, Edge, Gate, Origin, Reply, Response, http_date, within};
use crate::over::{BOTH, all};

/// Waits until so many requests are at the edge, unanswered.
/// Of `n` requests, one fetches and the others wait for it.
async fn waiting(edge: &Edge, n: usize) {
    in_flight(edge, n).await;
    let all_but_one = (n - 1) as f64;
    edge.wait_metrics("all but one to wait", |m| m.metric("foreland_cache_waits_total") >= Some(all_but_one)).await;
}

async fn in_flight(edge: &Edge, n: usize) {
    edge.wait_metrics(&format!("{n} requests in flight"), |m| m.sum("foreland_requests_in_flight", &[]) == n as f64)
        .await;
}

/// `n` clients ask at once, half of them over HTTP/2; `meanwhile` runs beside them.
async fn at_once(edge: &Edge, n: usize, meanwhile: impl Future<Output = ()>) -> Vec<Response> {
    let asks = (0..n).map(|i| BOTH[i % 2].get(edge, "/a"));
    tokio::join!(all(asks), meanwhile).0
}

#[tokio::test]
async fn one_request_serves_all() {
    for chunked in [false, true] {
        let gate = Gate::new();
        let at = gate.clone();
        let origin = Origin::start(move |_| {
            let reply = Reply::ok("the same for all").cache_control("max-age=60").hold(&at);
            if chunked { reply.chunked() } else { reply }
        })
        .await;
        let edge = Edge::before(&origin, "").await;
        let responses = at_once(&edge, 20, async {
            waiting(&edge, 20).await;
            gate.open();
        })
        .await;
        for response in &responses {
            assert_eq!((response.status, response.text()), (200, "the same for all"), "{response:?}");
        }
        assert_eq!(origin.count(), 1);
        let collapsed = responses.iter().filter(|r| r.cache_status().contains("; collapsed")).count();
        assert_eq!(collapsed, 19, "{:?}", responses.iter().map(Response::cache_status).collect::<Vec<_>>());
        // A request is counted when it has ended here, which may be a moment after its client has the whole.
        edge.wait_metrics("20 requests counted, one of them a miss", |m| {
            let requests = |cache| m.sum("foreland_requests_total", &[("cache", cache)]);
            (requests("collapsed"), requests("miss")) == (19.0, 1.0)
        })
        .await;
    }
}

#[tokio::test]
async fn different_resources_do_not_wait_for_each_other() {
    let gate = Gate::new();
    let at = gate.clone();
    let origin = Origin::start(move |r| {
        let reply = Reply::ok(r.target.clone()).cache_control("max-age=60");
        if r.target == "/a" { reply.hold(&at) } else { reply }
    })
    .await;
    let edge = Edge::before(&origin, "").await;
    let (held, ()) = tokio::join!(edge.get("/a"), async {
        origin.wait_for(1).await;
        for target in ["/b", "/a?b", "/A"] {
            assert_eq!(edge.get(target).await.text(), target);
        }
        gate.open();
    });
    assert_eq!(held.text(), "/a");
}

#[tokio::test]
async fn an_answer_that_cannot_be_shared_lets_everyone_go_on_at_once() {
    let (first_head, bodies) = (Gate::new(), Gate::new());
    let (head, body) = (first_head.clone(), bodies.clone());
    let serial = AtomicUsize::new(0);
    let origin = Origin::start(move |_| {
        let serial = serial.fetch_add(1, Ordering::Relaxed);
        let reply = Reply::ok("number ").wait(&body).body(serial.to_string()).cache_control("private");
        if serial == 0 { reply.hold(&head) } else { reply }
    })
    .await;
    let edge = Edge::before(&origin, "").await;
    let responses = at_once(&edge, 12, async {
        waiting(&edge, 12).await;
        origin.wait_for(1).await;
        assert_eq!(origin.count(), 1, "the others wait");
        first_head.open();
        // No body has been let through yet: the head alone sets the others free.
        origin.wait_for(12).await;
        bodies.open();
    })
    .await;
    let mut texts: Vec<_> = responses.iter().map(|r| r.text().to_owned()).collect();
    texts.sort();
    texts.dedup();
    assert_eq!(texts.len(), 12, "each its own: {texts:?}");

    // From now on it is known, and nobody waits for anybody.
    let (first, body) = (Gate::new(), Gate::new());
    let (at_first, at) = (first.clone(), body.clone());
    let serial = AtomicUsize::new(0);
    origin.answer(move |_| {
        let reply = Reply::ok("x").cache_control("private");
        if serial.fetch_add(1, Ordering::Relaxed) == 0 { reply.hold(&at_first) } else { reply.hold(&at) }
    });
    at_once(&edge, 6, async {
        origin.wait_for(12 + 6).await;
        first.open();
        body.open();
    })
    .await;
}

#[tokio::test]
async fn what_becomes_cacheable_is_shared_again() {
    let origin = Origin::start(|_| Reply::ok("mine").cache_control("private")).await;
    let edge = Edge::before(&origin, "").await;
    edge.get("/a").await;
    origin.answer(|_| Reply::ok("ours").cache_control("max-age=60"));
    assert_eq!(edge.get("/a").await.text(), "ours");
    assert!(edge.get("/a").await.is_hit());
}

/// The first answer to come is `bad`, the others are good: each client but the first gets a good one.
async fn a_bad_first_answer(origin_settings: &str, bad: impl Fn() -> Reply + Send + Sync + 'static, status: u16) {
    let gate = Gate::new();
    let at = gate.clone();
    let serial = AtomicUsize::new(0);
    let origin = Origin::start(move |_| match serial.fetch_add(1, Ordering::Relaxed) {
        0 => bad().hold(&at),
        _ => Reply::ok("good").cache_control("max-age=60"),
    })
    .await;
    let address = origin.address();
    let edge = Edge::start(&format!(
        "origins:\n  o: {{ servers: [\"{address}\"]{origin_settings} }}\nsites:\n  - hosts: [\"*\"]\n    origin: o\n"
    ))
    .await;
    let responses = at_once(&edge, 20, async {
        waiting(&edge, 20).await;
        gate.open();
    })
    .await;
    let bad = responses.iter().filter(|r| r.status == status).count();
    let good = responses.iter().filter(|r| r.status == 200 && r.text() == "good").count();
    let statuses: Vec<_> = responses.iter().map(|r| r.status).collect();
    assert_eq!((bad, good), (1, 19), "{statuses:?}");
}

#[tokio::test]
async fn a_first_answer_of_500_is_only_the_first_clients() {
    a_bad_first_answer("", || Reply::new(500).body("broken"), 500).await;
}

#[tokio::test]
async fn a_first_answer_that_is_reset_is_only_the_first_clients() {
    a_bad_first_answer(", retries: 0", Reply::rst, 502).await;
}

#[tokio::test]
async fn a_first_answer_that_never_comes_is_only_the_first_clients() {
    // No gate: the timeout is what ends it. Those who arrive in the meantime wait, then ask for themselves.
    let serial = AtomicUsize::new(0);
    let origin = Origin::start(move |_| match serial.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::never(),
        _ => Reply::ok("good").cache_control("max-age=60"),
    })
    .await;
    let address = origin.address();
    let edge = Edge::start(&format!(
        "origins:\n  o: {{ servers: [\"{address}\"], retries: 0, read_timeout: 500ms }}\nsites:\n  - hosts: [\"*\"]\n    origin: o\n"
    ))
    .await;
    let responses = at_once(&edge, 20, async {}).await;
    let mut statuses: Vec<_> = responses.iter().map(|r| r.status).collect();
    statuses.sort();
    assert_eq!(statuses.iter().filter(|s| **s == 504).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|s| **s == 200).count(), 19, "{statuses:?}");
    // One of the others asked for all. One that had looked before that answer came, and gets to ask after it, asks too.
    assert!((2..=4).contains(&origin.count()), "{} requests", origin.count());
}

#[tokio::test]
async fn an_origin_that_keeps_failing_strands_nobody() {
    let gate = Gate::new();
    let at = gate.clone();
    let origin = Origin::start(move |_| Reply::new(503).body("busy").hold(&at)).await;
    let edge = Edge::before(&origin, "").await;
    let responses = at_once(&edge, 20, async {
        waiting(&edge, 20).await;
        gate.open();
    })
    .await;
    assert!(responses.iter().all(|r| r.status == 503 && r.text() == "busy"), "{responses:?}");
}

#[tokio::test]
async fn an_origin_that_hangs_up_on_everyone_is_not_asked_one_by_one() {
    let gate = Gate::new();
    let at = gate.clone();
    let origin = Origin::start(move |_| Reply::hang_up().hold(&at)).await;
    let address = origin.address();
    let edge = Edge::start(&format!(
        "origins:\n  o: {{ servers: [\"{address}\"], retries: 0 }}\nsites:\n  - hosts: [\"*\"]\n    origin: o\n"
    ))
    .await;
    let responses = at_once(&edge, 12, async {
        let mut waits = 0.0;
        for failed in 0..3 {
            gate.reached(failed + 1).await;
            waits += (11 - failed) as f64;
            edge.wait_metrics("the others to wait", |m| m.metric("foreland_cache_waits_total") == Some(waits)).await;
            assert_eq!(origin.count(), failed + 1, "the others wait");
            gate.let_one_through();
        }
        // With nothing to lose, those who are left wait no longer.
        gate.reached(12).await;
        gate.open();
    })
    .await;
    let statuses: Vec<_> = responses.iter().map(|r| r.status).collect();
    assert_eq!(statuses, [502; 12]);
}

#[tokio::test]
async fn those_who_wait_before_a_failing_origin_all_get_what_is_stale() {
    let gate = Gate::new();
    let origin =
        Origin::start(|_| Reply::ok("stale").cache_control("max-age=60, stale-if-error=600").header("Age", "60")).await;
    let address = origin.address();
    let edge = Edge::start(&format!(
        "origins:\n  o: {{ servers: [\"{address}\"], retries: 0 }}\nsites:\n  - hosts: [\"*\"]\n    origin: o\n"
    ))
    .await;
    assert_eq!(edge.get("/a").await.text(), "stale");
    let at = gate.clone();
    origin.answer(move |_| Reply::hang_up().hold(&at));
    let responses = at_once(&edge, 6, async {
        in_flight(&edge, 6).await;
        gate.open();
    })
    .await;
    let got: Vec<_> = responses.iter().map(|r| (r.status, r.text())).collect();
    assert_eq!(got, [(200, "stale"); 6]);
}

#[tokio::test]
async fn a_first_client_that_leaves_before_the_head_takes_nothing_away_from_the_others() {
    for over in BOTH {
        let gate = Gate::new();
        let at = gate.clone();
        let origin = Origin::start(move |_| Reply::ok("good").cache_control("max-age=60").hold(&at)).await;
        let edge = Edge::before(&origin, "").await;
        match over {
            crate::over::Over::Http1 => {
                let mut first = edge.connect().await;
                first.send(Ask::get("/a").bytes()).await;
                gate.reached(1).await;
                let others = at_once(&edge, 8, async {
                    in_flight(&edge, 9).await;
                    first.reset();
                    gate.open();
                })
                .await;
                assert!(others.iter().all(|r| r.status == 200 && r.text() == "good"), "{others:?}");
            }
            crate::over::Over::Http2 => {
                let first = edge.connect_h2().await;
                let ask = Ask::get("/a");
                let mut asking = Box::pin(first.try_start(&ask));
                let others = tokio::select! {
                    _ = &mut asking => panic!("an answer before the gate is open"),
                    () = gate.reached(1) => async {
                        let asks = at_once(&edge, 8, async {
                            in_flight(&edge, 9).await;
                            gate.open();
                        });
                        asks.await
                    }
                }
                .await;
                drop(asking);
                drop(first);
                assert!(others.iter().all(|r| r.status == 200 && r.text() == "good"), "{others:?}");
            }
        }
        assert!(origin.count() <= 2, "{} requests", origin.count());
        assert!(edge.get("/a").await.is_hit());
    }
}

#[tokio::test]
async fn a_waiter_that_leaves_takes_nothing_away_from_the_others() {
    let gate = Gate::new();
    let at = gate.clone();
    let origin = Origin::start(move |_| Reply::ok("good").cache_control("max-age=60").hold(&at)).await;
    let edge = Edge::before(&origin, "").await;
    let (first, ()) = tokio::join!(edge.get("/a"), async {
        gate.reached(1).await;
        let mut waiters = Vec::new();
        for _ in 0..4 {
            let mut waiter = edge.connect().await;
            waiter.send(Ask::get("/a").bytes()).await;
            waiters.push(waiter);
        }
        in_flight(&edge, 5).await;
        let stays = waiters.pop();
        waiters.into_iter().for_each(|w| w.reset());
        gate.open();
        let response = stays.expect("the last").response("GET").await;
        assert_eq!(response.text(), "good");
    });
    assert_eq!(first.text(), "good");
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn a_head_and_a_range_wait_for_the_same_fill() {
    let gate = Gate::new();
    let at = gate.clone();
    let origin = Origin::start(move |_| Reply::ok("0123456789").cache_control("max-age=60").hold(&at)).await;
    let edge = Edge::before(&origin, "").await;
    for over in BOTH {
        let target = format!("/{over:?}");
        let (get, head, range) =
            (Ask::get(&target), Ask::head(&target), Ask::get(&target).header("Range", "bytes=2-4"));
        let already = origin.count();
        let ((get, head, range), ()) = tokio::join!(
            async { tokio::join!(over.ask(&edge, &get), over.ask(&edge, &head), over.ask(&edge, &range)) },
            async {
                in_flight(&edge, 3).await;
                gate.let_one_through();
            }
        );
        assert_eq!(within("all three", async { origin.count() }).await, already + 1);
        assert_eq!(get.text(), "0123456789", "{over:?}");
        assert_eq!((head.status, head.header("content-length"), head.text()), (200, Some("10"), ""), "{over:?}");
        assert_eq!((range.status, range.text()), (206, "234"), "{over:?}: {range:?}");
    }
}

#[tokio::test]
async fn users_do_not_wait_for_each_others_answers() {
    let gate = Gate::new();
    let at = gate.clone();
    let origin = Origin::start(move |r| {
        Reply::ok(r.header("authorization").unwrap_or("nobody").to_owned()).cache_control("max-age=60").hold(&at)
    })
    .await;
    let edge = Edge::before(&origin, "").await;
    let round = async |n: usize, origin_has_seen: usize| {
        let asks: Vec<_> = (0..n).map(|i| Ask::get("/a").header("Authorization", format!("user {i}"))).collect();
        let (answers, ()) =
            tokio::join!(all(asks.iter().enumerate().map(|(i, ask)| BOTH[i % 2].ask(&edge, ask))), async {
                gate.reached(origin_has_seen).await;
                gate.let_one_through();
                // The first answer was for its user alone, and so the others go on together.
                gate.reached(n).await;
                gate.open();
            });
        for (i, answer) in answers.iter().enumerate() {
            assert_eq!(answer.text(), format!("user {i}"), "{answer:?}");
        }
    };
    round(6, 1).await;
}

#[tokio::test]
async fn a_failure_for_one_variant_is_none_for_the_others() {
    let gate = Gate::new();
    let at = gate.clone();
    let first = AtomicUsize::new(0);
    let origin = Origin::start(move |r| {
        let a = r.header("x-a").unwrap_or_default().to_owned();
        let old = first.fetch_add(1, Ordering::Relaxed) < 2;
        let reply = match (old, &*a) {
            (true, _) => Reply::ok(format!("old {a}")).header("Age", "61"),
            (false, "1") => Reply::new(503).hold(&at),
            (false, _) => Reply::ok(format!("new {a}")).hold(&at),
        };
        reply.cache_control("max-age=60, stale-if-error=600").header("Vary", "X-A")
    })
    .await;
    let edge = Edge::before(&origin, "").await;
    let ask = |a: &str| Ask::get("/a").header("X-A", a);
    for a in ["1", "2"] {
        edge.ask(&ask(a)).await;
    }
    let asks: Vec<_> = (0..8).map(|i| ask(["1", "2"][i % 2])).collect();
    let (answers, ()) = tokio::join!(all(asks.iter().map(|ask| edge.ask(ask))), async {
        in_flight(&edge, 8).await;
        gate.open();
    });
    for (i, answer) in answers.iter().enumerate() {
        assert_eq!(answer.text(), ["old 1", "new 2"][i % 2], "{answer:?}");
    }
}

#[tokio::test]
async fn of_two_answers_the_later_is_kept() {
    let gate = Gate::new();
    let at = gate.clone();
    let serial = AtomicUsize::new(0);
    let origin = Origin::start(move |_| match serial.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::ok("x").cache_control("private"),
        1 => Reply::ok("older").cache_control("max-age=60").header("Date", crate::harness::http_date(-2)).hold(&at),
        _ => Reply::ok("newer").cache_control("max-age=60").header("Date", crate::harness::http_date(0)),
    })
    .await;
    let edge = Edge::before(&origin, "").await;
    // What could not be shared is not waited for; so two requests are under way at once.
    edge.get("/a").await;
    let (older, ()) = tokio::join!(edge.get("/a"), async {
        gate.reached(1).await;
        assert_eq!(edge.get("/a").await.text(), "newer");
        gate.open();
    });
    assert_eq!(older.text(), "older");
    let kept = edge.get("/a").await;
    assert!(kept.is_hit() && kept.text() == "newer", "{kept:?}");
}

#[tokio::test]
async fn a_follower_has_the_head_before_there_is_a_body() {
    for chunked in [false, true] {
        let gate = Gate::new();
        let at = gate.clone();
        let date = http_date(-5);
        let said = date.clone();
        let origin = Origin::start(move |_| {
            let reply = Reply::new(200).wait(&at).body("late").cache_control("max-age=60").header("Date", &said);
            if chunked { reply.chunked() } else { reply }
        })
        .await;
        let edge = Edge::before(&origin, "").await;
        // Each is read while the origin holds its body back.
        let mut exchanges = Vec::new();
        for over in [BOTH[0], BOTH[0], BOTH[1], BOTH[0]] {
            exchanges.push(over.start(&edge, &Ask::get("/a")).await);
        }
        gate.open();
        for (i, exchange) in exchanges.into_iter().enumerate() {
            let response = exchange.rest().await;
            assert_eq!((response.text(), response.header("Date")), ("late", Some(&*date)), "{i}: {response:?}");
            assert_eq!(response.cache_status().contains("; collapsed"), i > 0, "{i}: {response:?}");
        }
        assert_eq!(origin.count(), 1);
    }
}
