//! `foreland purge`: what it asks of an admin listener, what it prints, and how it ends.

mod edges;
mod failures;
mod lists;
mod stand_in;

use std::os::unix::net::UnixListener;

use serde_json::json;

use self::stand_in::{Admin, Run, done};

#[tokio::test]
async fn all_kinds_go_out_in_one_call() {
    let admin = Admin::tcp([done(1234)]);
    let said = Run::to(&admin)
        .args(["--url", "http://a/1", "--url", "http://a/2?x=\"é\"", "--host", "a", "--prefix", "a/b/"])
        .args(["--tag", "t", "--site", "s", "--everything"])
        .run()
        .await;
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (Some(0), "purged 7 selectors: sequence 1234\n", ""));
    let [asked] = &admin.seen()[..] else { panic!("{:?}", admin.seen()) };
    assert_eq!(asked.start, "POST /v1/purge HTTP/1.1");
    assert_eq!(asked.field("host"), Some(admin.authority().as_str()));
    assert_eq!(asked.field("content-type"), Some("application/json"));
    assert_eq!(asked.field("content-length"), Some(asked.length.to_string().as_str()));
    assert!(asked.field("user-agent").is_some_and(|it| it.starts_with("foreland/")), "{asked:?}");
    assert_eq!((asked.field("authorization"), asked.field("transfer-encoding")), (None, None));
    let expected = json!({
        "urls": ["http://a/1", "http://a/2?x=\"é\""], "hosts": ["a"], "prefixes": ["a/b/"], "tags": ["t"],
        "sites": ["s"], "everything": true,
    });
    assert_eq!(asked.json, expected);
}

#[tokio::test]
async fn what_is_printed() {
    let admin = Admin::tcp([
        done(1),
        done(2),
        (200, "{ \"sequence\": 3,\n  \"at\": \"2026-11-21T15:00:00.123Z\" }\n").into(),
        done(4),
    ]);
    let said = Run::to(&admin).args(["--tag", "t"]).run().await;
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (Some(0), "purged 1 selector: sequence 1\n", ""));
    let said = Run::to(&admin).args(["--tag", "t", "--tag", "u", "--soft"]).run().await;
    assert_eq!(
        (said.code, said.out.as_str(), said.err.as_str()),
        (Some(0), "made stale 2 selectors: sequence 2\n", "")
    );
    let said = Run::to(&admin).args(["--prefix", "a/b", "--raw", "--json"]).run().await;
    let expected = "{ \"sequence\": 3,   \"at\": \"2026-11-21T15:00:00.123Z\" }\n";
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (Some(0), expected, ""));
    let said = Run::to(&admin).args(["--site", "s", "--quiet"]).run().await;
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (Some(0), "", ""));
    let sent: Vec<_> = admin.seen().into_iter().map(|asked| asked.json).collect();
    let expected = [
        json!({ "tags": ["t"] }),
        json!({ "tags": ["t", "u"], "soft": true }),
        json!({ "prefixes": ["a/b"], "raw": true }),
        json!({ "sites": ["s"] }),
    ];
    assert_eq!(sent, expected);
}

#[tokio::test]
async fn mistakes_in_the_command_line() {
    let admin = Admin::tcp([]);
    for (args, says) in [
        (&[][..], "--url"),
        (&["--soft"], "--url"),
        (&["--raw", "--url", "http://a/"], "--prefix"),
        (&["--url", ""], "--url"),
        (&["--url", "-", "--tag", "-"], "standard input can be read once"),
        (&["--tag", "-", "--tag", "-"], "standard input can be read once"),
        (&["--tag", "t", "--quiet", "--json"], "--json"),
        (&["--tag", "t", "--timeout", "30"], "with a unit"),
        (&["--tag", "t", "--timeout", "0s"], "more than nothing"),
        (&["--tag", "t", "--admin", "https://"], "expected a name"),
        (&["--tag", "t", "--ca", "ca.pem"], "no effect without https://"),
        (&["--tag", "t", "--admin", "https://a", "--client-key", "a.key"], "--client-certificate"),
        (&["--tag", "t", "--admin", "127.0.0.1:9180"], "expected http://"),
        (&["--tag", "t", "--token", "x"], "--token"),
        (&["t"], "'t'"),
    ] {
        let said = Run::new().env("FORELAND_ADMIN", &admin.url()).args(args).run().await;
        assert_eq!((said.code, said.out.as_str()), (Some(2), ""), "{args:?}: {}", said.err);
        assert!(said.err.contains(says), "{args:?}: {}", said.err);
    }
    let said = Run::new().env("FORELAND_ADMIN", "ftp://a").args(["--tag", "t"]).run().await;
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("FORELAND_ADMIN") && said.err.contains("expected http://"), "{}", said.err);
    assert!(admin.seen().is_empty());
}

#[tokio::test]
async fn help_has_an_example_of_each_kind() {
    let said = Run::new().args(["--help"]).run().await;
    assert_eq!(said.code, Some(0));
    let examples = said.out.split("Example:").nth(1).expect("examples");
    for option in [
        "--url https",
        "--host",
        "--prefix",
        "--raw",
        "--tag",
        "--site",
        "--soft",
        "--everything",
        "psql",
        "unix:",
        "-\n",
    ] {
        assert!(examples.contains(option), "{option}: {examples}");
    }
}

#[tokio::test]
async fn the_listener_is_named_by_option_or_environment() {
    let path = std::env::temp_dir().join(format!("foreland-purge-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let socket = Admin::unix(UnixListener::bind(&path).expect("a socket"), [done(1), done(2)]);
    let tcp = Admin::tcp([done(3), done(4)]);
    let unix = format!("unix:{}", path.display());
    let said = Run::new().args(["--admin", &unix, "--everything"]).run().await;
    assert_eq!((said.code, said.out.as_str()), (Some(0), "purged 1 selector: sequence 1\n"), "{}", said.err);
    let said = Run::new().env("FORELAND_ADMIN", &unix).args(["--everything"]).run().await;
    assert_eq!((said.code, said.out.as_str()), (Some(0), "purged 1 selector: sequence 2\n"), "{}", said.err);
    assert_eq!(socket.seen()[0].field("host"), Some("localhost"));
    let named = tcp.url().replace("127.0.0.1", "localhost") + "/";
    let said = Run::new().env("FORELAND_ADMIN", &unix).args(["--everything", "--admin", &named]).run().await;
    assert_eq!((said.code, said.out.as_str()), (Some(0), "purged 1 selector: sequence 3\n"), "{}", said.err);
    let said = Run::new().env("FORELAND_ADMIN", &tcp.url()).args(["--everything"]).run().await;
    assert_eq!(said.code, Some(0), "{}", said.err);
    let _ = std::fs::remove_file(&path);
}

#[tokio::test]
async fn the_token_comes_from_the_environment_and_is_never_shown() {
    const TOKEN: &str = "correct-horse-battery";
    let admin = Admin::tcp([
        done(1),
        done(2),
        (401, r#"{"error": "a bearer token is needed, and the right one"}"#).into(),
        (401, r#"{"error": "a bearer token is needed, and the right one"}"#).into(),
        (500, r#"{"error": "failed"}"#).into(),
    ]);
    let run = |token: &str| Run::to(&admin).env("FORELAND_ADMIN_TOKEN", token).args(["--tag", "t"]).run();
    let right = run(TOKEN).await;
    let none = run("").await;
    let wrong = run(TOKEN).await;
    let missing = run("").await;
    let failed = run(TOKEN).await;
    let bad = run(&format!("{TOKEN}\n")).await;
    let codes = [&right, &none, &wrong, &missing, &failed, &bad].map(|said| said.code);
    assert_eq!(codes, [Some(0), Some(0), Some(1), Some(1), Some(1), Some(1)]);
    let sent: Vec<_> = admin.seen().iter().map(|asked| asked.field("authorization").map(str::to_owned)).collect();
    let bearer = Some(format!("Bearer {TOKEN}"));
    assert_eq!(sent, [bearer.clone(), None, bearer.clone(), None, bearer]);
    assert!(wrong.err.contains("does not take the token in FORELAND_ADMIN_TOKEN"), "{}", wrong.err);
    assert!(missing.err.contains("set FORELAND_ADMIN_TOKEN"), "{}", missing.err);
    assert!(bad.err.contains("FORELAND_ADMIN_TOKEN has a line end"), "{}", bad.err);
    for said in [right, none, wrong, missing, failed, bad] {
        assert!(!said.out.contains(TOKEN) && !said.err.contains(TOKEN), "{}{}", said.out, said.err);
    }
}
