//! Cache-Status (RFC 9211): what the edge did, in one member of its own; and the same in the access log.

use super::{Stage, fresh, is_half_a_minute_over, later, parameter, stale, with};
use crate::harness::{Ask, Gate, Reply, Response, eventually};
use crate::over::{BOTH, all};

/// RFC 9211 §2, §2.1, §2.2: each way that a request can go has its parameters, and they are true.
#[tokio::test]
async fn rule_26_what_became_of_a_request() {
    let stage = Stage::with("routes:\n  - { match: { path: \"/off/**\" }, cache: off }").await;
    let mut expected: Vec<(String, String)> = Vec::new();
    let mut note = |target: String, response: &Response, parameters: &str| {
        let told = member(response);
        let stated = parameter(response, "ttl").unwrap_or("none");
        let case = format!("{target}: {parameters} is to be in {told}");
        assert_eq!(told, format!("Foreland; {parameters}").replace("TTL", stated), "{case}");
        expected.push((target, told.to_owned()));
    };
    for over in BOTH {
        let mut scene = stage.scene(over, [fresh("x").header("Vary", "X-A")]).await;
        let miss = scene.get_with(&[("X-A", "1")]).await;
        note(scene.target.clone(), &miss, "fwd=uri-miss; fwd-status=200; stored; ttl=TTL");
        assert!(matches!(ttl_of(&miss), 59..=60), "{miss:?}");
        let hit = scene.get_with(&[("X-A", "1")]).await;
        note(scene.target.clone(), &hit, "hit; ttl=TTL; detail=memory");
        assert!(matches!(ttl_of(&hit), 50..=60), "{hit:?}");
        let other = scene.get_with(&[("X-A", "2")]).await;
        note(scene.target.clone(), &other, "fwd=vary-miss; fwd-status=200; stored; ttl=TTL");
        let request = scene.get_with(&[("X-A", "1"), ("Cache-Control", "no-cache")]).await;
        note(scene.target.clone(), &request, "fwd=request; fwd-status=200; stored; ttl=TTL");
        let unchanged = scene.get_with(&[("X-A", "1"), ("If-None-Match", "*")]).await;
        note(scene.target.clone(), &unchanged, "hit; ttl=TTL; detail=memory");
        assert_eq!(unchanged.status, 304);

        // RFC 9211 §2.2.2: `request` is for what would have been fresh.
        let no_cache = [("Cache-Control", "no-cache")];
        let mut scene = stage.scene(over, [fresh("x")]).await;
        let first = scene.get_with(&no_cache).await;
        note(scene.target.clone(), &first, "fwd=uri-miss; fwd-status=200; stored; ttl=TTL");
        for wish in ["no-cache", "max-age=0", "min-fresh=600"] {
            let mut scene = stage.scene(over, [stale("old", ""), fresh("new"), fresh("new")]).await;
            scene.get().await;
            let second = scene.get_with(&[("Cache-Control", wish)]).await;
            note(scene.target.clone(), &second, "fwd=stale; fwd-status=200; stored; ttl=TTL");
            let third = scene.get_with(&no_cache).await;
            note(scene.target.clone(), &third, "fwd=request; fwd-status=200; stored; ttl=TTL");
        }

        // Not stored, and why.
        let mut scene = stage.scene(over, [later()]).await;
        note(scene.target.clone(), &scene.get().await, "fwd=uri-miss; fwd-status=200; detail=no-store");
        note(scene.target.clone(), &scene.get().await, "fwd=uri-miss; fwd-status=200; detail=no-store");
        let mut scene = stage.scene(over, [Reply::new(404).cache_control("private")]).await;
        note(scene.target.clone(), &scene.get().await, "fwd=uri-miss; fwd-status=404; detail=private");

        // Stale: confirmed, and replaced by something that is stored, and by something that is not.
        let confirmed = Reply::new(304).cache_control("max-age=60").header("ETag", "\"v1\"");
        for (second, parameters) in [
            (confirmed, "fwd=stale; fwd-status=304; stored; ttl=TTL"),
            (fresh("new"), "fwd=stale; fwd-status=200; stored; ttl=TTL"),
            (later(), "fwd=stale; fwd-status=200; detail=no-store"),
        ] {
            let mut scene = stage.scene(over, [stale("old", ""), second]).await;
            let first = scene.get().await;
            note(scene.target.clone(), &first, "fwd=uri-miss; fwd-status=200; stored; ttl=TTL");
            assert!(matches!(ttl_of(&first), -33..=-30), "{first:?}");
            note(scene.target.clone(), &scene.get().await, parameters);
        }
        // Served stale: the ttl is negative.
        let mut scene = stage.scene(over, [stale("old", ", stale-if-error=600"), Reply::new(503)]).await;
        scene.get().await;
        let failed = scene.get().await;
        note(scene.target.clone(), &failed, "fwd=stale; fwd-status=503; ttl=TTL; detail=stale-if-error");
        assert!(is_half_a_minute_over(&failed), "{failed:?}");
        let gate = Gate::new();
        let refresh = fresh("new").hold(&gate);
        let mut scene = stage.scene(over, [stale("old", ", stale-while-revalidate=600"), refresh]).await;
        scene.get().await;
        let updating = scene.get().await;
        note(scene.target.clone(), &updating, "hit; ttl=TTL; detail=stale-while-revalidate");
        assert!(is_half_a_minute_over(&updating), "{updating:?}");
        gate.open();
        let mut scene = stage.scene(over, [stale("old", "")]).await;
        scene.get().await;
        let taken = scene.get_with(&[("Cache-Control", "max-stale")]).await;
        note(scene.target.clone(), &taken, "hit; ttl=TTL; detail=memory");
        assert!(is_half_a_minute_over(&taken), "{taken:?}");

        // Past the cache.
        let mut scene = stage.scene(over, [fresh("x")]).await;
        let posted = scene.send("POST", &[]).await;
        note(scene.target.clone(), &posted, "fwd=method; fwd-status=200");
        let mut scene = stage.scene_at(&format!("/off/{over:?}"), over, [fresh("x")]).await;
        note(scene.target.clone(), &scene.get().await, "fwd=bypass; fwd-status=200");
        let mut scene = stage.scene(over, [fresh("x")]).await;
        let only = scene.get_with(&[("Cache-Control", "only-if-cached")]).await;
        note(scene.target.clone(), &only, "detail=local");
        assert_eq!(only.status, 504);
    }
    // RFC 9211 §2: the access log says the same.
    let told = |expected: &[(String, String)], log: &[serde_json::Value]| {
        expected
            .iter()
            .all(|(uri, told)| log.iter().any(|l| l["uri"] == uri.as_str() && l["cache_status"] == told.as_str()))
    };
    eventually("the access log to say what the clients were told", async || told(&expected, &stage.edge.access_log()))
        .await;
}

/// RFC 9211 §2.6: a request that waited for another's response.
#[tokio::test]
async fn rule_26_collapsed() {
    let stage = Stage::new().await;
    for over in BOTH {
        let gate = Gate::new();
        let scene = stage.scene(over, [fresh("x").hold(&gate), later()]).await;
        let asks = (0..3).map(|_| over.get(&stage.edge, &scene.target));
        let (responses, ()) = tokio::join!(all(asks), async {
            stage.edge.wait_metrics("three at once", |m| m.sum("foreland_requests_in_flight", &[]) == 3.0).await;
            gate.open();
        });
        assert_eq!(scene.seen().len(), 1, "{over:?}");
        let collapsed: Vec<_> = responses.iter().filter(|r| parameter(r, "collapsed").is_some()).collect();
        assert_eq!(collapsed.len(), 2, "{over:?}: {responses:?}");
        for response in collapsed {
            assert_eq!(response.text(), "x");
            assert_eq!(parameter(response, "fwd"), Some("uri-miss"), "{over:?}: {response:?}");
            assert_eq!(parameter(response, "hit"), None, "{over:?}: {response:?}");
        }
        assert_eq!(parameter(&over.get(&stage.edge, &scene.target).await, "collapsed"), None, "{over:?}");
    }
}

/// RFC 9211 §2: the member of this cache follows those of the caches nearer to the origin, once.
#[tokio::test]
async fn rule_26_one_member_after_those_of_others() {
    let stage = Stage::new().await;
    for over in BOTH {
        for (lines, before) in [
            (&["OriginCache; hit; ttl=1100"][..], &["OriginCache; hit; ttl=1100"][..]),
            (&["A; hit, \"B, C\"; fwd=miss; detail=\"x, y\""], &["A; hit, \"B, C\"; fwd=miss; detail=\"x, y\""]),
            (&["A; hit", "B; fwd=stale"], &["A; hit", "B; fwd=stale"]),
            (&[""], &[]),
            (&[], &[]),
        ] {
            for reply in [fresh("x"), later(), stale("x", ", stale-if-error=60")] {
                let reply = lines.iter().fold(reply, |reply, line| reply.header("Cache-Status", line));
                let mut scene = stage.scene(over, [reply, Reply::new(503)]).await;
                let ask = [("If-None-Match", "\"other\"")];
                for response in [scene.get().await, scene.get().await, scene.get_with(&ask).await] {
                    if response.status == 503 {
                        continue;
                    }
                    let value = response.headers.all("Cache-Status").join(", ");
                    let others = before.join(", ");
                    let own = value.strip_prefix(&*others).unwrap_or_else(|| panic!("{over:?}: {value}"));
                    let own = if before.is_empty() { own } else { own.strip_prefix(", ").unwrap_or_default() };
                    let own = own.trim_start_matches([',', ' ']);
                    assert!(own.starts_with("Foreland; "), "{lines:?} over {over:?}: {value}");
                    assert!(
                        !own.contains(", ") && value.matches("Foreland").count() == 1,
                        "{lines:?} {over:?}: {value}"
                    );
                    let kinds = [own.contains("; hit"), own.contains("; fwd=")];
                    assert_eq!(kinds.iter().filter(|kind| **kind).count(), 1, "either hit or fwd: {value}");
                }
            }
        }
    }
}

/// RFC 9211 §2: a response of the edge's own has it as well; §2.7: the key is for those who may know it.
#[tokio::test]
async fn rule_26_failures_and_the_key() {
    let stage = Stage::new().await;
    for over in BOTH {
        let scene = stage.scene(over, [Reply::hang_up()]).await;
        let failed = over.ask(&stage.edge, &with(Ask::get(&scene.target), &[("Foreland-Debug", "key")])).await;
        assert_eq!(failed.status, 502, "{over:?}");
        assert!(failed.cache_status().starts_with("Foreland; fwd=uri-miss"), "{over:?}: {failed:?}");
        for absent in ["hit", "fwd-status", "stored", "ttl", "key"] {
            assert_eq!(parameter(&failed, absent), None, "{absent} over {over:?}: {failed:?}");
        }
        // Where a trusted proxy asks: `crate::hits::a_trusted_proxy_may_ask_for_the_key`.
    }
}

/// Our member, without those of others.
fn member(response: &Response) -> &str {
    response.headers.all("Cache-Status").last().and_then(|line| line.rsplit(", ").next()).unwrap_or_default()
}

fn ttl_of(response: &Response) -> i64 {
    super::ttl(response).unwrap_or(i64::MIN)
}
