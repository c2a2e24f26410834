//! What is stale, while servers cannot give what is fresh.

use tokio::task::JoinSet;

use super::{Way, statuses};
use crate::harness::{Ask, Connection, Edge, Gate, Origin, Reply, Response, eventually, exchange};

/// Past its lifetime as it comes, and to be served for long where there is nothing better.
fn old(name: &str) -> Reply {
    Reply::ok(name.to_owned())
        .cache_control("max-age=60, stale-if-error=3600")
        .header("Age", "61")
        .header("ETag", "\"v\"")
}

async fn server() -> Origin {
    Origin::start(
        |r| if r.path().starts_with("/old") { old("old") } else { Reply::ok("new").cache_control("no-store") },
    )
    .await
}

fn is_stale(response: &Response) -> bool {
    response.status == 200
        && response.text() == "old"
        && response.cache_status().contains("fwd=stale")
        && response.cache_status().contains("detail=stale-if-error")
}

#[tokio::test]
async fn while_all_servers_are_gone() {
    let check = "health_check: { interval: 200ms, timeout: 200ms, unhealthy_after: 1, healthy_after: 1 }";
    for settings in ["", check, &format!("{check}, panic_below: 0%"), "balance: consistent-hash, timeout: 5s"] {
        let mut servers = [server().await, server().await];
        let edge = Way::Through.pool(&[&servers[0], &servers[1]], settings).await;
        for path in ["/old/1", "/old/2"] {
            assert_eq!(edge.get(path).await.text(), "old");
        }
        for server in &mut servers {
            server.stop().await;
        }
        // Before anybody has noticed, and after.
        for round in 0..2 {
            for path in ["/old/1", "/old/2"] {
                let response = edge.get(path).await;
                assert!(is_stale(&response), "{settings}, round {round}: {response:?}");
            }
            assert!((502..=503).contains(&edge.get("/new").await.status), "{settings}");
            if settings.contains("health_check") {
                edge.wait_metrics("both servers down", |m| m.sum("foreland_origin_server_up", &[]) == 0.0).await;
            }
        }
        for server in &mut servers {
            server.restart();
            server.answer(|_| Reply::ok("fresh").cache_control("max-age=60"));
        }
        eventually("what is fresh", async || edge.get("/old/1").await.text() == "fresh").await;
    }
}

#[tokio::test]
async fn while_all_servers_fail() {
    for (failure, retry) in [
        ((|| Reply::new(503).body("busy")) as fn() -> Reply, "on: [reset, 503], budget: 1000%"),
        (|| Reply::new(503).body("busy"), "on: [503], budget: 0%, floor: 0"),
        (Reply::rst, "on: [reset], budget: 1000%"),
        (Reply::rst, "on: [reset], budget: 0%, floor: 0"),
    ] {
        let servers = [server().await, server().await];
        let edge = Way::Through.pool(&[&servers[0], &servers[1]], &format!("retry: {{ {retry} }}")).await;
        let paths: Vec<_> = (0..8).map(|n| format!("/old/{n}")).collect();
        for path in &paths {
            assert_eq!(edge.get(path).await.text(), "old");
        }
        for server in &servers {
            server.answer(move |_| failure());
        }
        // By all of them at once, through ejections, and whatever the budget.
        for _ in 0..3 {
            let mut asks = JoinSet::new();
            for path in &paths {
                let (address, ask) = (edge.address(), Ask::get(path));
                asks.spawn(async move { exchange(address, &ask).await });
            }
            let responses = asks.join_all().await;
            assert!(responses.iter().all(is_stale), "{retry}: {responses:?}");
            assert_eq!(statuses(&responses), [(200, 8)].into());
        }
    }
}

#[tokio::test]
async fn while_there_is_no_time_left() {
    let servers = [server().await, server().await];
    let edge = Way::Through
        .pool(&[&servers[0], &servers[1]], "try_timeout: 200ms, timeout: 300ms, retry: { on: [timeout] }")
        .await;
    assert_eq!(edge.get("/old").await.text(), "old");
    for server in &servers {
        server.answer(|_| Reply::never());
    }
    let response = edge.get("/old").await;
    assert!(is_stale(&response), "{response:?}");
}

#[tokio::test]
async fn while_the_servers_have_enough_to_do() {
    let gate = Gate::new();
    let held = Reply::ok("held").cache_control("no-store").hold(&gate);
    let origin = Origin::start(move |r| if r.path() == "/held" { held.clone() } else { old("old") }).await;
    let edge: Edge = Way::Through.pool(&[&origin], "limits: { requests: 1 }").await;
    assert_eq!(edge.get("/old").await.text(), "old");
    let mut client = Connection::open(edge.address()).await;
    // The place of the first answer is free again only when its last byte has been read.
    eventually("a place for the request that is held", async || {
        client = Connection::open(edge.address()).await;
        client.send(Ask::get("/held").bytes()).await;
        tokio::select! {
            () = gate.reached(1) => true,
            _ = client.head("GET") => false,
        }
    })
    .await;
    let asked = origin.count();
    let response = edge.get("/old").await;
    assert!(is_stale(&response), "{response:?}");
    assert_eq!(edge.get("/new").await.status, 503);
    assert_eq!(origin.count(), asked);
    gate.open();
    assert_eq!(client.response("GET").await.text(), "held");
}
