//! Servers by DNS. The name server is one of the test's, which builds with debug assertions let the edge use.

use rustix::process::Signal;

use super::name_server::{NameServer, Zone, a, srv};
use super::*;

const SERVICE: &str = "_http._tcp.test";

fn zone<const N: usize>(names: [(&str, Vec<hickory_resolver::proto::rr::RData>); N]) -> Zone {
    names.into_iter().map(|(name, data)| (name.to_owned(), data)).collect()
}

async fn edge(names: &NameServer, origin: &str) -> Edge {
    Edge::builder(&yaml(origin)).env("FORELAND_NAME_SERVER", &names.address()).start().await
}

#[tokio::test]
async fn srv_records_are_followed() {
    let (x, y, z) = (server("x").await, server("y").await, server("z").await);
    let port = |origin: &Origin| origin.address().port();
    let two = zone([
        (SERVICE, vec![srv(1, 3, port(&x), "x.test."), srv(1, 1, port(&y), "y.test."), srv(2, 1, port(&z), "x.test.")]),
        ("x.test", vec![a(1)]),
        ("y.test", vec![a(1)]),
    ]);
    let names = NameServer::start(two).await;
    let edge = edge(&names, &format!("    servers: [\"srv:{SERVICE}\"]\n")).await;
    let mut client = edge.connect().await;
    // Ready means resolved: from the first request on.
    let response = client.ask(&Ask::get("/")).await;
    assert_eq!(response.status, 200, "{response:?}");
    let servers = status(&edge).await["servers"].clone();
    let shown = |n: usize| (servers[n]["server"].clone(), servers[n]["weight"].clone(), servers[n]["tier"].clone());
    assert_eq!(shown(0), (format!("x.test:{}", port(&x)).into(), 3.into(), 0.into()));
    assert_eq!(shown(1), (format!("y.test:{}", port(&y)).into(), 1.into(), 0.into()));
    assert_eq!(shown(2), (format!("x.test:{}", port(&z)).into(), 1.into(), 1.into()));

    // Drained as the records call it.
    let control = |what: &str| format!("/v1/origins/o/servers/y.test:{}/{what}", port(&y));
    assert_eq!(edge.admin_post(&control("drain"), "").await.status, 200);
    assert_eq!(status(&edge).await["servers"][1]["drained"], true);
    assert_eq!(edge.admin_post(&control("undrain"), "").await.status, 200);

    names.say(zone([(SERVICE, vec![srv(0, 0, port(&z), "z.test.")]), ("z.test", vec![a(1)])]));
    until_only(&mut client, &["z"]).await;
    // The same endpoint by another name.
    edge.wait_log(&format!("changed: z.test:{0} at 127.0.0.1:{0} (weight 1, tier 0)", port(&z))).await;

    // Gone from the DNS: the last good answer stays.
    names.say(Zone::new());
    eventually("the reason in the admin API", async || {
        status(&edge).await["servers"][0]["last_error"].as_str().is_some_and(|e| e.contains("cannot be resolved"))
    })
    .await;
    until_only(&mut client, &["z"]).await;

    // A target of `.`: said, and not failed.
    names.say(zone([(SERVICE, vec![srv(0, 0, 0, ".")])]));
    eventually("no server", async || edge.get("/").await.status == 503).await;
}

#[tokio::test]
async fn addresses_of_names_are_followed() {
    let origin = server("a").await;
    let port = origin.address().port();
    // Nobody listens there.
    let names = NameServer::start(zone([("a.test", vec![a(99)])])).await;
    let edge = edge(&names, &format!("    servers: [\"a.test:{port}\"]\n")).await;
    assert_eq!(status(&edge).await["servers"][0]["address"], format!("127.0.0.99:{port}"));
    names.say(zone([("a.test", vec![a(1)])]));
    eventually("the new address", async || edge.get("/").await.status == 200).await;
    edge.wait_log(&format!("came: a.test:{port} at 127.0.0.1:{port}; went: a.test:{port} at 127.0.0.99:{port}")).await;
}

#[tokio::test]
async fn a_reload_waits_for_the_names_that_come() {
    let (x, y) = (server("x").await, server("y").await);
    let names = NameServer::start(zone([("y.test", vec![a(1)])])).await;
    let edge = edge(&names, &format!("    servers: [\"{}\"]\n", x.address())).await;
    let mut client = edge.connect().await;
    until_only(&mut client, &["x"]).await;
    names.set_silent(true);
    edge.write_config(&yaml(&format!("    servers: [\"y.test:{}\"]\n", y.address().port())));
    edge.signal(Signal::HUP);
    // Asked, but not answered: the servers of before take the requests.
    names.asked("y.test").await;
    for _ in 0..20 {
        assert_eq!(client.ask(&Ask::get("/")).await.text(), "x");
    }
    names.set_silent(false);
    until_only(&mut client, &["y"]).await;
}
