//! A request that is sent to a second server, since the first takes its time.

use super::{BOTH, refused, statuses};
use crate::harness::{Ask, Edge, Gate, Metrics, Origin, Reply};

/// A server that holds every request, and one that does not; the first is asked first.
async fn slow_and_fast() -> (Origin, Gate, Origin) {
    let gate = Gate::new();
    let held = Reply::ok("slow").cache_control("no-store").hold(&gate);
    let slow = Origin::start(move |_| held.clone()).await;
    (slow, gate, Origin::start(|_| Reply::ok("fast").cache_control("no-store")).await)
}

fn hedges(metrics: &Metrics) -> f64 {
    metrics.sum("foreland_origin_hedges_total", &[("origin", "o")])
}

#[tokio::test]
async fn a_slow_servers_request_is_answered_by_another() {
    for way in BOTH {
        let (slow, _gate, fast) = slow_and_fast().await;
        let edge = way.pool(&[&slow, &fast], "balance: failover, hedge: { after: 100ms }").await;
        for path in ["/1", "/2", "/3"] {
            assert_eq!(edge.get(path).await.text(), "fast", "{way:?}");
        }
        assert_eq!(edge.ask(&Ask::head("/4")).await.status, 200, "{way:?}");
        assert_eq!((slow.count(), fast.count()), (4, 4), "{way:?}");
        // Nobody waits for the other answer.
        slow.wait_for_open(0).await;
        assert_eq!(hedges(&edge.metrics().await), 4.0, "{way:?}");
    }
}

#[tokio::test]
async fn the_first_answer_counts_whosever_it_is() {
    for way in BOTH {
        let (slow, gate, fast) = slow_and_fast().await;
        let second = Gate::new();
        let held = Reply::ok("second").hold(&second);
        fast.answer(move |_| held.clone());
        let edge = way.pool(&[&slow, &fast], "balance: failover, hedge: { after: 100ms }").await;
        let (response, ()) = tokio::join!(edge.get("/"), async {
            second.reached(1).await;
            gate.open();
        });
        assert_eq!(response.text(), "slow", "{way:?}");
        // Its own answer is not anybody's, and its connection is not used again.
        fast.wait_for_open(0).await;
    }
}

#[tokio::test]
async fn one_of_both_may_fail() {
    for way in BOTH {
        // The second.
        let (slow, gate, bad) = slow_and_fast().await;
        bad.answer(|_| Reply::rst());
        let edge = way.pool(&[&slow, &bad], "balance: failover, hedge: { after: 100ms }").await;
        let (response, ()) = tokio::join!(edge.get("/"), async {
            bad.wait_for(1).await;
            bad.wait_for_open(0).await;
            gate.open();
        });
        assert_eq!(response.text(), "slow", "{way:?}");
        // The first, while the second is at it.
        let (slow, gate, fast) = slow_and_fast().await;
        let dies = Reply::raw("").wait(&gate).reset();
        slow.answer(move |_| dies.clone());
        let second = Gate::new();
        let held = Reply::ok("second").hold(&second);
        fast.answer(move |_| held.clone());
        let edge = way.pool(&[&slow, &fast], "balance: failover, hedge: { after: 100ms }").await;
        let (response, ()) = tokio::join!(edge.get("/"), async {
            second.reached(1).await;
            gate.open();
            slow.wait_for_open(0).await;
            second.open();
        });
        assert_eq!(response.text(), "second", "{way:?}");
        assert_eq!((slow.count(), fast.count()), (1, 1), "{way:?}");
    }
}

#[tokio::test]
async fn what_may_not_be_repeated_is_not_hedged() {
    for way in BOTH {
        let (slow, gate, fast) = slow_and_fast().await;
        let edge = way.pool(&[&slow, &fast], "balance: failover, hedge: { after: 100ms }").await;
        let mut post = edge.connect().await;
        post.send(Ask::new("POST", "/").body("x").bytes()).await;
        gate.reached(1).await;
        // Asked later, and hedged: so the time of the other has passed as well.
        assert_eq!(edge.get("/").await.text(), "fast", "{way:?}");
        assert_eq!(fast.count(), 1, "{way:?}");
        gate.open();
        assert_eq!(post.response("POST").await.text(), "slow", "{way:?}");
        assert!(fast.seen().iter().all(|r| r.method == "GET"), "{way:?}");
    }
}

#[tokio::test]
async fn hedges_are_in_the_budget() {
    for way in BOTH {
        let (slow, gate, fast) = slow_and_fast().await;
        let settings = "balance: failover, hedge: { after: 100ms }, retry: { budget: 20%, floor: 0 }";
        let edge = way.pool(&[&slow, &fast], settings).await;
        let (responses, ()) = tokio::join!(super::crowd(&edge, 10, 1), async {
            gate.reached(10).await;
            // Each has been hedged or not been allowed to be.
            edge.wait_metrics("each hedge's fate", |m| hedges(m) + refused(m) == 10.0).await;
            gate.open();
        });
        assert_eq!(statuses(&responses), [(200, 10)].into(), "{way:?}");
        // A fifth, and one more where two take the last one at once.
        let hedged = hedges(&edge.metrics().await) as usize;
        assert!((2..=3).contains(&hedged), "{way:?}: {hedged}");
        assert_eq!((slow.count(), fast.count()), (10, hedged), "{way:?}");
    }
}

#[tokio::test]
async fn without_another_server_the_first_one_is_waited_for() {
    for way in BOTH {
        let (slow, gate, _) = slow_and_fast().await;
        let edge: Edge = way.pool(&[&slow], "hedge: { after: 100ms }").await;
        let mut first = edge.connect().await;
        first.send(Ask::get("/1").bytes()).await;
        gate.reached(1).await;
        // A second request whose time for a hedge begins later: when a third server answers it, the first one's is over.
        let (other, _other_gate, fast) = slow_and_fast().await;
        let clock = way.pool(&[&other, &fast], "balance: failover, hedge: { after: 100ms }").await;
        assert_eq!(clock.get("/").await.text(), "fast", "{way:?}");
        gate.open();
        assert_eq!(first.response("GET").await.text(), "slow", "{way:?}");
        assert_eq!((slow.count(), hedges(&edge.metrics().await)), (1, 0.0), "{way:?}");
    }
}
