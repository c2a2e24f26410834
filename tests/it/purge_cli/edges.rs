//! Against an edge.

use super::stand_in::Run;
use crate::harness::{Edge, Origin, Reply};

/// The edge refuses before it has read a body that is this large, and ends the connection.
#[tokio::test]
async fn a_wrong_token_is_refused_however_long_the_list_is() {
    let origin = Origin::start(|_| Reply::ok("x")).await;
    let yaml = Edge::yaml_before(&[&origin], "")
        + "admin: { address: \"127.0.0.1:{admin}\", token: \"env:FORELAND_TEST_TOKEN\" }\n";
    let edge = Edge::builder(&yaml).env("FORELAND_TEST_TOKEN", "right").token("right").start().await;
    let url = format!("http://{}", edge.admin_address());
    let input: String = (0..10_000).map(|n| format!("http://a/{n}/{}\n", "x".repeat(80))).collect();
    let run = Run::new().env("FORELAND_ADMIN_TOKEN", "wrong").args(["--admin", &url, "--url", "-"]);
    let said = run.input(input).run().await;
    assert_eq!((said.code, said.out.as_str()), (Some(1), ""));
    assert!(said.err.contains("does not take the token in FORELAND_ADMIN_TOKEN"), "{}", said.err);
    assert!(said.err.ends_with("nothing is purged\n"), "{}", said.err);
}
