//! Lists on standard input.

use std::fs::File;
use std::io::Read;

use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use serde_json::json;

use super::stand_in::{Admin, Reply, Run, done};

/// So many lines: `n1`, `n2`, …
fn numbered(count: usize) -> String {
    (1..=count).map(|n| format!("n{n}\n")).collect()
}

#[tokio::test]
async fn each_line_is_a_selector() {
    for (option, key) in
        [("--url", "urls"), ("--host", "hosts"), ("--prefix", "prefixes"), ("--tag", "tags"), ("--site", "sites")]
    {
        let admin = Admin::tcp([done(1)]);
        let input = "# of today\r\n\r\nfirst\r\n  \nsecond # too\n#last";
        let said = Run::to(&admin).args([option, "zeroth", option, "-"]).input(input).run().await;
        assert_eq!((said.code, said.out.as_str()), (Some(0), "purged 3 selectors: sequence 1\n"), "{}", said.err);
        assert_eq!(admin.seen()[0].json, json!({ key: ["zeroth", "first", "second # too"] }));
    }
}

#[tokio::test]
async fn an_empty_list_is_a_success() {
    let admin = Admin::tcp([]);
    let said = Run::to(&admin).args(["--tag", "-"]).input("# nothing\n\n").run().await;
    assert_eq!((said.code, said.out.as_str()), (Some(0), ""));
    assert!(said.err.contains("lists no selector"), "{}", said.err);
    let said = Run::to(&admin).args(["--tag", "-", "--quiet"]).run().await;
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (Some(0), "", ""));
    assert!(admin.seen().is_empty());
}

#[tokio::test]
async fn ten_thousand_fit_in_a_call() {
    let admin = Admin::tcp([done(7)]);
    let said = Run::to(&admin).args(["--tag", "-"]).input(numbered(10_000)).run().await;
    let expected = (Some(0), "purged 10,000 selectors: sequence 7\n", "");
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), expected);
    assert_eq!(admin.seen().len(), 1);
}

#[tokio::test]
async fn more_go_out_one_call_after_the_other() {
    let admin = Admin::tcp([done(7), done(8), done(9)]);
    let said = Run::to(&admin).args(["--host", "h", "--tag", "-", "--soft"]).input(numbered(20_000)).run().await;
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
    let lines: Vec<&str> = said.out.lines().collect();
    let [first, second, third, summary] = lines[..] else { panic!("{}", said.out) };
    assert_eq!(first, "made stale 10,000 selectors: sequence 7");
    assert_eq!(second, "made stale 10,000 selectors: sequence 8");
    assert_eq!(third, "made stale 1 selector: sequence 9");
    assert!(summary.starts_with("made stale 20,001 selectors in 3 calls, in "), "{summary}");
    let seen = admin.seen();
    assert!(seen.iter().all(|asked| asked.connection == 0 && asked.json["soft"] == true), "one connection");
    let counts: Vec<_> = seen.iter().map(|asked| (asked.list("hosts").len(), asked.list("tags").len())).collect();
    assert_eq!(counts, [(1, 9_999), (0, 10_000), (0, 1)]);
    let tags: Vec<String> = seen.iter().flat_map(|asked| asked.list("tags")).map(str::to_owned).collect();
    assert!(tags.iter().map(String::as_str).eq(numbered(20_000).lines()), "in their order, and each once");
}

#[tokio::test]
async fn answers_are_printed_as_they_came() {
    let admin = Admin::tcp([done(7), done(8)]);
    let said = Run::to(&admin).args(["--tag", "-", "--json"]).input(numbered(10_001)).run().await;
    let line = |n| format!("{{\"at\":\"2026-11-21T15:00:00.123Z\",\"sequence\":{n}}}\n");
    assert_eq!((said.code, said.out, said.err), (Some(0), line(7) + &line(8), String::new()));
}

#[tokio::test]
async fn long_selectors_go_out_in_calls_that_the_listener_takes() {
    let admin = Admin::tcp((1..=4).map(done));
    let input: String = (0..1000).map(|n| format!("http://a/{n}/{}\n", "x".repeat(20_000))).collect();
    let said = Run::to(&admin).args(["--url", "-", "--quiet"]).input(input.clone()).run().await;
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
    let seen = admin.seen();
    assert!(seen.len() == 2 && seen.iter().all(|asked| asked.length <= 16 << 20), "{}", seen.len());
    assert!(seen.iter().flat_map(|asked| asked.list("urls")).eq(input.lines()));
}

#[tokio::test]
async fn a_wrong_selector_is_named_with_its_line() {
    let wrong = r#"{"error": "wrong", "selectors": [
        {"list": "urls", "index": 0, "value": "a", "error": "no scheme"},
        {"list": "urls", "index": 2, "value": "n2", "error": "no scheme"}]}"#;
    let admin = Admin::tcp([(400, wrong).into()]);
    let said = Run::to(&admin).args(["--url", "-", "--url", "a"]).input("# urls\nn1\n\nn2\n").run().await;
    assert_eq!((said.code, said.out.as_str()), (Some(1), ""));
    let expected = "foreland: purge: 2 selectors are wrong, so that nothing of this call is purged:\n  \
        --url a: no scheme\n  --url n2 (line 4 of standard input): no scheme\nnothing is purged\n";
    assert_eq!(said.err, expected);
}

#[tokio::test]
async fn a_failure_says_what_was_purged_before_and_where_to_go_on() {
    let wrong = r#"{"error": "wrong", "selectors": [{"list": "tags", "index": 1, "value": "n10002", "error": "no"}]}"#;
    for (reply, states) in [
        ((400, wrong).into(), "the first 10,000 selectors are purged; nothing of the rest\ngo on at line 10002 of"),
        (
            (401, "{}").into(),
            "the first 10,000 selectors are purged; nothing of the rest\ngo on at line 10002 of standard input\n",
        ),
        (
            (500, "{}").into(),
            "the first 10,000 selectors are purged; whether the next 10,000 are purged is not known; nothing of the \
             rest\ngo on at line 10002 of standard input: to purge twice does no harm\n",
        ),
        (
            Reply::Silence,
            "the first 10,000 selectors are purged; whether the next 10,000 are purged is not known; nothing of the \
             rest\ngo on at line 10002",
        ),
        (
            (503, r#"{"error": "disk full", "sequence": 8, "in_force": true}"#).into(),
            "the first 10,000 selectors are purged; the next 10,000 are in force, but not for good; nothing of the \
             rest\ngo on at line 10002",
        ),
    ] {
        let admin = Admin::tcp([done(7), reply]);
        let input = format!("# tags\n{}", numbered(30_000));
        let said = Run::to(&admin).args(["--tag", "-", "--timeout", "2s"]).input(input).run().await;
        assert_eq!((said.code, said.out.as_str()), (Some(1), "purged 10,000 selectors: sequence 7\n"), "{}", said.err);
        assert!(said.err.contains(states), "{states}\n{}", said.err);
        assert_eq!(admin.seen().len(), 2);
    }
    let admin = Admin::tcp([done(7), (400, wrong).into()]);
    let said = Run::to(&admin).args(["--tag", "-", "--tag", "zeroth"]).input(numbered(10_001)).run().await;
    assert!(said.err.contains("--tag n10002 (line 10001 of standard input): no\n"), "{}", said.err);
    let states = "go on at line 10000 of standard input, without the selectors of the command line\n";
    assert!(said.err.ends_with(states), "{}", said.err);
}

#[tokio::test]
async fn a_line_that_cannot_be_read_stops_it() {
    let long = "x".repeat(64 * 1024 + 1);
    for (line, why) in [(&b"\xff\xfe"[..], "not valid UTF-8"), (long.as_bytes(), "more than 64 KiB")] {
        let admin = Admin::tcp([done(7)]);
        let input = [numbered(10_500).as_bytes(), line, b"\nmore\n"].concat();
        let said = Run::to(&admin).args(["--tag", "-"]).input(input).run().await;
        assert_eq!((said.code, said.out.as_str()), (Some(1), "purged 10,000 selectors: sequence 7\n"));
        let expected = format!(
            "foreland: purge: line 10501 of standard input: {why}\nthe first 10,000 selectors are purged; nothing of the \
             rest\ngo on at line 10001 of standard input\n"
        );
        assert_eq!(said.err, expected);
        assert_eq!(admin.seen().len(), 1);
        let admin = Admin::tcp([]);
        let said = Run::to(&admin).args(["--tag", "-"]).input([b"a\n", line].concat()).run().await;
        assert_eq!(said.err, format!("foreland: purge: line 2 of standard input: {why}\nnothing is purged\n"));
        assert!(said.code == Some(1) && admin.seen().is_empty());
    }
    // As large as may be.
    let admin = Admin::tcp([done(7)]);
    let said = Run::to(&admin).args(["--tag", "-"]).input(&long[1..]).run().await;
    assert_eq!((said.code, admin.seen()[0].list("tags")), (Some(0), vec![&long[1..]]));
}

/// Runs with a terminal as standard error: what appeared there.
async fn on_a_terminal(run: Run) -> (Option<i32>, String) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    unlockpt(&ours).expect("unlocked");
    let theirs = ioctl_tiocgptpeer(&ours, OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("its other side");
    let reader = std::thread::spawn(move || {
        let (mut ours, mut shown, mut buffer) = (File::from(ours), Vec::new(), [0; 4096]);
        // With the last descriptor of the other side gone, reading fails.
        while let Ok(read @ 1..) = ours.read(&mut buffer) {
            shown.extend_from_slice(&buffer[..read]);
        }
        String::from_utf8_lossy(&shown).into_owned()
    });
    let said = run.err(theirs).run().await;
    (said.code, reader.join().expect("read"))
}

#[tokio::test]
async fn a_long_list_has_a_bar_on_a_terminal_alone() {
    let replies = || (1..=3).map(done);
    let long = |admin: &Admin| Run::to(admin).args(["--tag", "-"]).input(numbered(30_000));
    let admin = Admin::tcp(replies());
    let (code, shown) = on_a_terminal(long(&admin)).await;
    assert!(code == Some(0) && shown.contains("10,000 selectors"), "{shown:?}");
    let admin = Admin::tcp(replies());
    assert_eq!(on_a_terminal(long(&admin).args(["--quiet"])).await, (Some(0), String::new()));
    let admin = Admin::tcp(replies());
    let short = Run::to(&admin).args(["--tag", "-"]).input(numbered(10_000));
    assert_eq!(on_a_terminal(short).await, (Some(0), String::new()));
    let admin = Admin::tcp(replies());
    let said = long(&admin).run().await;
    assert_eq!((said.code, said.err.as_str(), said.out.lines().count()), (Some(0), "", 4));
}
