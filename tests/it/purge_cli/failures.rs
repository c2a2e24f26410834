//! What is no success, and what is tried again.

use std::fs::OpenOptions;

use crate::harness::Port;

use super::stand_in::{Admin, Reply, Run, Said, done};

async fn one(admin: &Admin, more: &[&str]) -> Said {
    Run::to(admin).args(["--tag", "t"]).args(more).run().await
}

#[tokio::test]
async fn nobody_is_there() {
    let port = Port::reserve();
    let url = format!("http://{}", port.address());
    let said = Run::new().args(["--admin", &url, "--tag", "t"]).run().await;
    assert_eq!((said.code, said.out.as_str()), (Some(1), ""));
    let expected = format!("foreland: purge: nothing listens at {url}: is the edge running");
    assert!(said.err.starts_with(&expected) && said.err.ends_with("\nnothing is purged\n"), "{}", said.err);
    let said = Run::new().args(["--admin", "unix:/nowhere/admin.sock", "--tag", "t"]).run().await;
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("there is no socket unix:/nowhere/admin.sock"), "{}", said.err);
}

#[tokio::test]
async fn what_is_refused_is_told_in_plain_words() {
    for (status, says) in [
        (403, "an edge answers to an IP address and to localhost alone"),
        (404, "has nothing that purges"),
        (405, "has nothing that purges"),
        (413, "takes no call of 1 selector"),
        (400, "refuses the call"),
        (503, "cannot purge now"),
    ] {
        let admin = Admin::tcp([(status, r#"{"error": "the edge's own words"}"#).into()]);
        let said = one(&admin, &[]).await;
        assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{status}");
        let told = said.err.contains(says) && said.err.contains(&format!("({status}: the edge's own words)"));
        assert!(told && said.err.ends_with("\nnothing is purged\n"), "{status}: {}", said.err);
    }
}

#[tokio::test]
async fn an_answer_that_proves_nothing_is_a_failure() {
    let large = format!("{{\"sequence\":1{}}}", " ".repeat(1 << 20));
    for (reply, says) in [
        ((200, "ok").into(), "no JSON"),
        ((200, "").into(), "no JSON"),
        ((200, "{}").into(), "no sequence"),
        ((201, "{\"sequence\":1}").into(), "status 201"),
        ((500, r#"{"error": "this failed"}"#).into(), "status 500: this failed"),
        ((200, large).into(), "longer than 1 MiB"),
        (Reply::Cut, "broke off"),
        (Reply::Nothing, "ended the connection without an answer"),
    ] {
        let admin = Admin::tcp([reply]);
        let said = one(&admin, &[]).await;
        assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{says}: {}", said.err);
        let state = "\nwhether the selector is purged is not known\nrun it again: to purge twice does no harm\n";
        assert!(said.err.contains(says) && said.err.ends_with(state), "{says}: {}", said.err);
        assert_eq!(admin.seen().len(), 1);
    }
}

#[tokio::test]
async fn no_answer_in_time_is_a_failure() {
    let admin = Admin::tcp([Reply::Silence]);
    let said = one(&admin, &["--timeout", "300ms", "--json"]).await;
    assert_eq!((said.code, said.out.as_str()), (Some(1), ""));
    assert!(said.err.contains("has not answered within 300ms (--timeout)"), "{}", said.err);
    assert!(said.err.contains("is not known"), "{}", said.err);
}

#[tokio::test]
async fn what_is_in_force_but_not_durable_is_a_failure() {
    let body = r#"{"error": "disk full", "sequence": 8, "in_force": true}"#;
    let admin = Admin::tcp([Reply::from((503, body)).with("Retry-After: 0\r\n")]);
    let said = one(&admin, &["--soft"]).await;
    assert_eq!((said.code, said.out.as_str()), (Some(1), ""));
    assert!(said.err.contains("not written down") && said.err.contains("disk full"), "{}", said.err);
    assert!(said.err.contains("the selector is in force, but not for good\nrun it again"), "{}", said.err);
    assert_eq!(admin.seen().len(), 1);
}

#[tokio::test]
async fn an_edge_that_is_busy_is_asked_again() {
    let busy = |fields| Reply::from((503, r#"{"error": "busy"}"#)).with(fields);
    let past = "Retry-After: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    let admin = Admin::tcp([busy("Retry-After: 0\r\n"), busy(past), busy("Retry-After: 0\r\n").then_end(), done(3)]);
    let said = one(&admin, &[]).await;
    let expected = (Some(0), "purged 1 selector: sequence 3\n", "");
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), expected);
    let seen = admin.seen();
    assert_eq!(seen.len(), 4);
    assert!(seen.iter().all(|asked| asked.json == seen[0].json));
    assert_eq!(seen.iter().map(|asked| asked.connection).collect::<Vec<_>>(), [0, 0, 0, 1]);
}

#[tokio::test]
async fn an_edge_that_stays_busy_is_given_up_in_time() {
    let busy = |fields| Reply::from((503, r#"{"error": "busy"}"#)).with(fields);
    let admin = Admin::tcp(std::iter::repeat_n(busy("Retry-After: 0\r\n"), 100));
    let said = one(&admin, &["--timeout", "500ms"]).await;
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("cannot purge now (503: busy)") && said.err.contains("--timeout 500ms"), "{}", said.err);
    assert!(said.err.ends_with("nothing is purged\n") && admin.seen().len() >= 2, "{}", said.err);
    // Later than there is time for: to wait would be in vain.
    let admin = Admin::tcp([busy("Retry-After: 3600\r\n")]);
    let said = one(&admin, &[]).await;
    assert_eq!((said.code, admin.seen().len()), (Some(1), 1));
    // It does not ask for it.
    let admin = Admin::tcp([busy("")]);
    let said = one(&admin, &[]).await;
    assert_eq!((said.code, admin.seen().len()), (Some(1), 1));
}

/// An edge ends connections that are idle, and may do so at the very moment at which the next call begins.
#[tokio::test]
async fn a_kept_connection_that_ends_is_replaced() {
    let input: String = (1..=20_001).map(|n| format!("n{n}\n")).collect();
    let admin = Admin::tcp([done(1).then_end(), done(2), Reply::Nothing, done(3)]);
    let said = Run::to(&admin).args(["--tag", "-", "--quiet"]).input(input).run().await;
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
    let sent: Vec<_> = admin.seen().iter().map(|asked| (asked.connection, asked.list("tags").len())).collect();
    assert_eq!(sent, [(0, 10_000), (1, 10_000), (1, 1), (2, 1)]);
}

#[tokio::test]
async fn standard_output_that_cannot_be_written_is_a_failure() {
    let full = || OpenOptions::new().write(true).open("/dev/full").expect("a device");
    let admin = Admin::tcp([done(1)]);
    let said = Run::to(&admin).args(["--tag", "t"]).out(full()).run().await;
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("standard output cannot be written"), "{}", said.err);
    assert!(said.err.ends_with("\nthe selector is purged\n"), "{}", said.err);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let input: String = (1..=30_000).map(|n| format!("n{n}\n")).collect();
    let admin = Admin::tcp([done(1)]);
    let said = Run::to(&admin).args(["--tag", "-", "--json"]).input(input).out(writer).run().await;
    assert_eq!((said.code, admin.seen().len()), (Some(1), 1));
    let state = "the first 10,000 selectors are purged; nothing of the rest\ngo on at line 10001 of standard input\n";
    assert!(said.err.ends_with(state), "{}", said.err);
}

#[tokio::test]
async fn what_a_stranger_says_does_nothing_to_a_terminal() {
    let body = r#"{"error": "\u001b]0;owned\u0007", "selectors": []}"#;
    let admin = Admin::tcp([(400, body).into()]);
    let said = one(&admin, &[]).await;
    assert!(said.code == Some(1) && !said.err.contains(['\u{1b}', '\u{7}']), "{:?}", said.err);
}
