//! The command line: what a start needs, what it says where it cannot be, and the other subcommands.

use super::harness::{Edge, Origin, Reply, eventually};
use super::load::echo;

/// A valid file in a folder of its own, that is never served.
async fn file(name: &str, text: &str) -> (tempfile::Folder, String) {
    let folder = tempfile::Folder::new(name);
    let path = folder.path().join("foreland.yaml");
    std::fs::write(&path, text).expect("written");
    let text = path.display().to_string();
    (folder, text)
}

/// A folder that goes with its owner.
mod tempfile {
    use std::path::{Path, PathBuf};

    pub struct Folder(PathBuf);

    impl Folder {
        pub fn new(name: &str) -> Folder {
            let folder = std::env::temp_dir().join(format!("foreland-{}-{name}", std::process::id()));
            // A process with the same number may have left one behind.
            let _ = std::fs::remove_dir_all(&folder);
            std::fs::create_dir_all(&folder).expect("a folder");
            Folder(folder)
        }

        pub fn path(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

const GOOD: &str = "listeners:\n  - address: 127.0.0.1:18080\norigins:\n  o: { servers: [\"127.0.0.1:19000\", \"127.0.0.1:19001\", \"127.0.0.1:19002\"] }\nsites:\n  - hosts: [\"*\"]\n    origin: o\n";

#[tokio::test]
async fn a_port_in_use_is_named() {
    let origin = echo().await;
    let edge = Edge::before(&origin, "").await;
    let listeners = |address: std::net::SocketAddr| {
        Edge::yaml_before(&[&origin], "") + &format!("listeners:\n  - address: {address}\n")
    };
    let taken = edge.address();
    let refused = Edge::builder(&listeners(taken)).spawn();
    assert_eq!(refused.wait_exit().await.code(), Some(1));
    let said = format!("foreland: listening on {taken}: Address already in use");
    assert!(refused.log().contains(&said), "{said:?} in {}", refused.log());

    let taken = edge.admin_address();
    let yaml = Edge::yaml_before(&[&origin], "") + &format!("admin: {{ address: \"{taken}\" }}\n");
    let refused = Edge::builder(&yaml).spawn();
    assert_eq!(refused.wait_exit().await.code(), Some(1));
    assert!(refused.log().contains(&taken.to_string()), "{}", refused.log());
    assert_eq!(refused.log().matches("foreland: ").count(), 1, "said once: {}", refused.log());
    assert_eq!(edge.get("/a").await.text(), "/a", "who was there first goes on");
}

#[tokio::test]
async fn a_file_that_is_missing_or_bad_is_refused_with_every_error() {
    for command in ["run", "check"] {
        let (status, out, errors) = Edge::command(&[command, "-c", "/nowhere/foreland.yaml"]).await;
        assert_eq!((status.code(), out.as_str()), (Some(1), ""), "{command}");
        assert!(errors.contains("/nowhere/foreland.yaml") && errors.contains("No such file"), "{errors}");

        let bad = GOOD.replace("origin: o", "origin: p\n    cache: { ttl: 1 }").replace("[\"*\"]", "[\"a b\"]");
        let (_folder, path) = file(&format!("bad-{command}"), &bad).await;
        let (status, out, errors) = Edge::command(&[command, "-c", &path]).await;
        assert_eq!((status.code(), out.as_str()), (Some(1), ""), "{command}");
        for place in [":6:", ":7:", ":8:", "sites[0].hosts[0]", "sites[0].origin", "sites[0].cache.ttl"] {
            assert!(errors.contains(place), "{place:?} in {errors}");
        }
        for line in errors.lines() {
            assert!(line.starts_with(&format!("{path}:")), "an error names its file: {line}");
        }
    }
}

#[tokio::test]
async fn mistakes_in_the_command_line_are_2() {
    let mistakes: [&[&str]; 6] = [
        &["run"],
        &["run", "-c"],
        &["run", "-c", "a", "--no-such-flag"],
        &["no-such-command"],
        &["demo", "--listen", "here"],
        &["check", "a.yaml"],
    ];
    for args in mistakes {
        let (status, out, errors) = Edge::command(args).await;
        assert_eq!((status.code(), out.as_str()), (Some(2), ""), "{args:?}");
        assert!(errors.starts_with("error: ") && errors.contains("--help"), "{args:?}: {errors}");
    }
    let (status, _, errors) = Edge::command(&[]).await;
    assert_eq!(status.code(), Some(2));
    assert!(errors.contains("Commands:"), "{errors}");
}

#[tokio::test]
async fn help_shows_an_example_for_each_command() {
    let (status, out, _) = Edge::command(&["--help"]).await;
    assert_eq!(status.code(), Some(0));
    let commands: Vec<_> = out
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .filter(|command| *command != "help")
        .collect();
    assert!(commands.contains(&"run") && commands.contains(&"demo"), "{commands:?}");
    for command in commands {
        let (status, out, _) = Edge::command(&[command, "--help"]).await;
        assert_eq!(status.code(), Some(0), "{command}");
        let example = out.split("Example:\n").nth(1).unwrap_or_else(|| panic!("no example in {out}"));
        assert!(example.trim_start().starts_with(&format!("foreland {command}")), "{example}");
    }
    let (status, out, _) = Edge::command(&["--version"]).await;
    assert_eq!((status.code(), out), (Some(0), format!("foreland {}\n", env!("CARGO_PKG_VERSION"))));
}

#[tokio::test]
async fn check_says_ok_and_prints_a_policy_that_says_the_same() {
    let (folder, path) = file("check", GOOD).await;
    let (status, out, errors) = Edge::command(&["check", "-c", &path]).await;
    assert_eq!((status.code(), out, errors.as_str()), (Some(0), format!("{path}: ok\n"), ""));

    let (status, effective, _) = Edge::command(&["check", "-c", &path, "--effective"]).await;
    assert_eq!(status.code(), Some(0));
    assert!(effective.contains("connect_timeout: 2s") && effective.contains("drain: 30s"), "{effective}");
    let again = folder.path().join("again.yaml");
    std::fs::write(&again, &effective).expect("written");
    let (status, twice, errors) = Edge::command(&["check", "-c", &again.display().to_string(), "--effective"]).await;
    assert_eq!((status.code(), errors.as_str()), (Some(0), ""));
    assert_eq!(twice, effective);
}

#[tokio::test]
async fn check_warns_and_accepts() {
    let unused = GOOD.replace("sites:", "  unused: { servers: [\"127.0.0.1:19009\"] }\nsites:");
    let (_folder, path) = file("warn", &unused).await;
    let (status, out, errors) = Edge::command(&["check", "-c", &path]).await;
    assert_eq!((status.code(), out), (Some(0), format!("{path}: ok\n")));
    assert!(errors.contains(":5:") && errors.contains("unused") && errors.ends_with("(warning)\n"), "{errors}");
}

#[tokio::test]
async fn the_schema_is_json_and_names_every_key() {
    let (status, out, _) = Edge::command(&["schema"]).await;
    assert_eq!(status.code(), Some(0));
    let schema: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert!(schema["$schema"].as_str().is_some_and(|s| s.contains("json-schema.org")), "{}", schema["$schema"]);
    for key in ["listeners", "origins", "sites", "admin", "drain", "upgrade_socket"] {
        assert!(schema["$defs"]["Root"]["properties"][key].is_object(), "{key}");
    }
    let (status, out, _) = Edge::command(&["schema", "--markdown"]).await;
    assert_eq!(status.code(), Some(0));
    assert_eq!(out, include_str!("../../docs/configuration.md"), "docs/configuration.md is generated");
}

#[tokio::test]
async fn the_log_names_where_it_listens() {
    let origin = Origin::start(|_| Reply::ok("x")).await;
    let edge = Edge::before(&origin, "").await;
    eventually("both listeners", async || {
        [edge.address(), edge.h2c_address()].iter().all(|a| edge.log().contains(&format!("listening on {a}")))
    })
    .await;
    assert!(!edge.log().contains("WARN") && !edge.log().contains("ERROR"), "{}", edge.log());
}

#[tokio::test]
async fn what_clients_do_wrong_is_no_error_of_the_process() {
    let origin = Origin::start(|_| Reply::ok("x")).await;
    let yaml = Edge::yaml_before(&[&origin], "") + "limits: { idle_timeout: 100ms, header_timeout: 100ms }\n";
    let edge = Edge::start(&yaml).await;
    let mut idle = edge.connect().await;
    idle.closed().await;
    let mut slow = edge.connect().await;
    slow.send("GET / HT").await;
    slow.closed().await;
    let mut nonsense = edge.connect().await;
    nonsense.send("\u{1}\u{2}\u{3}\r\n\r\n").await;
    nonsense.closed().await;
    let mut gone = edge.connect().await;
    gone.send("GET / HTTP/1.1\r\nHo").await;
    gone.reset();
    edge.wait_metrics("all closed", |m| m.metric("foreland_client_connections_open") == Some(0.0)).await;
    assert!(!edge.log().contains("WARN") && !edge.log().contains("ERROR"), "{}", edge.log());
}
