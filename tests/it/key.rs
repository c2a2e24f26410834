//! Which requests are for the same stored response.

use crate::harness::{Ask, Edge, Origin, Reply};
use crate::over::BOTH;

/// An origin whose answers tell what it was asked for.
async fn echo() -> Origin {
    Origin::start(|r| {
        let host = r.header("host").unwrap_or("-").to_owned();
        Reply::ok(format!("{host} {}", r.target)).cache_control("max-age=60")
    })
    .await
}

/// Whether a request is answered from what another one has left.
async fn share(edge: &Edge, first: &Ask, second: &Ask) -> bool {
    edge.ask(first).await;
    edge.ask(second).await.is_hit()
}

#[tokio::test]
async fn the_host_in_normal_form_counts() {
    let origin = echo().await;
    let edge = Edge::before(&origin, "").await;
    for over in BOTH {
        let path = format!("/{over:?}");
        let ask = |host: &str| Ask::get(&path).host(host);
        assert_eq!(over.ask(&edge, &ask("a.test")).await.text(), format!("a.test {path}"));
        for (host, same) in [
            ("A.TEST", true),
            ("a.test:80", true),
            ("a.test:8080", false),
            ("A.Test.:8080", true),
            ("b.test", false),
            ("a.test.b.test", false),
        ] {
            let response = over.ask(&edge, &ask(host)).await;
            assert_eq!(response.is_hit(), same, "{host} over {over:?}: {response:?}");
            assert!(same || response.text().starts_with(host), "{response:?}");
        }
    }
}

#[tokio::test]
async fn the_origin_sees_the_host_that_is_in_the_key() {
    let origin = echo().await;
    let edge = Edge::before(&origin, "").await;
    for over in BOTH {
        for (n, (host, seen)) in [
            ("A.Test", "a.test"),
            ("a.test.", "a.test"),
            ("a.test:80", "a.test"),
            ("a.test:080", "a.test"),
            ("a.test:1337", "a.test:1337"),
        ]
        .into_iter()
        .enumerate()
        {
            let path = format!("/{over:?}{n}");
            assert_eq!(over.ask(&edge, &Ask::get(&path).host(host)).await.text(), format!("{seen} {path}"), "{host}");
            let request = origin.seen().pop().expect("a request");
            assert_eq!(request.headers.all("X-Forwarded-Host"), [seen]);
        }
    }
}

#[tokio::test]
async fn what_a_trusted_proxy_says_of_scheme_and_host_is_in_the_key() {
    let origin = Origin::start(|r| {
        let said = |name| r.header(name).unwrap_or("none").to_owned();
        Reply::ok(format!("{} {}", said("x-forwarded-proto"), said("x-forwarded-host"))).cache_control("max-age=60")
    })
    .await;
    let yaml = "trusted_proxies: [127.0.0.0/8]\n".to_owned() + &Edge::yaml_before(&[&origin], "");
    let edge = Edge::start(&yaml).await;
    let ask = |proto: &str, host: &str| {
        let ask = Ask::get("/a").header("X-Forwarded-Proto", proto);
        if host.is_empty() { ask } else { ask.header("X-Forwarded-Host", host) }
    };
    for (proto, host, expected, hit) in [
        ("http", "", "http edge.test", false),
        ("https", "", "https edge.test", false),
        ("https", "", "https edge.test", true),
        ("http", "", "http edge.test", true),
        ("http", "other.test", "http other.test", false),
        ("https", "other.test", "https other.test", false),
    ] {
        let response = edge.ask(&ask(proto, host)).await;
        assert_eq!((response.text(), response.is_hit()), (expected, hit), "{proto} {host}: {response:?}");
    }
}

#[tokio::test]
async fn both_protocols_and_all_targets_name_the_same_thing() {
    let origin = echo().await;
    let edge = Edge::before(&origin, "").await;
    assert!(!edge.ask(&Ask::get("/a?b").host("a.test")).await.is_hit());
    for over in BOTH {
        assert!(over.ask(&edge, &Ask::get("/a?b").host("a.test")).await.is_hit(), "{over:?}");
    }
    let absolute = Ask::get("http://a.test/a?b").host("a.test");
    assert!(edge.ask(&absolute).await.is_hit(), "an absolute target");
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn the_path_in_normal_form_counts() {
    let origin = echo().await;
    let edge = Edge::before(&origin, "").await;
    for (first, second, same) in [
        ("/1/%7euser", "/1/~user", true),
        ("/2/%41%5a", "/2/AZ", true),
        ("/3/%c3%a4", "/3/%C3%A4", true),
        ("/4/a%2fb", "/4/a%2Fb", true),
        ("/4/a%2Fb/c", "/4/a/b/c", false),
        ("/5/./a/../b", "/5/b", true),
        ("/6/x/%2e%2e/b", "/6/b", true),
        ("/7/a", "/7/a/", false),
        ("/8//a", "/8/a", false),
        ("/9/A", "/9/a", false),
        ("/10/%25", "/10/%", false),
        ("/11/a?", "/11/a", false),
        ("/12/a%3Fb", "/12/a?b", false),
    ] {
        assert_eq!(share(&edge, &Ask::get(first), &Ask::get(second)).await, same, "{first} and {second}");
    }
    // Who comes first decides nothing about what is asked for.
    for over in BOTH {
        let root = format!("/{over:?}");
        let response = over.get(&edge, &format!("{root}/a/../%62")).await;
        assert!(over.get(&edge, &format!("{root}/b")).await.is_hit(), "{over:?}: {response:?}");
    }
}

#[tokio::test]
async fn a_key_and_what_is_fetched_for_it_never_disagree() {
    let origin = echo().await;
    let edge = Edge::before(&origin, "").await;
    // The one resolves its dots for the key: had the origin been sent them, one that does not resolve them would have
    // filled the key of /p/admin with something else.
    edge.get("/p/x/../admin").await;
    assert_eq!(origin.seen()[0].target, "/p/admin");
    assert!(edge.get("/p/admin").await.is_hit());
    // Without dots it is the client's own spelling.
    edge.get("/p/%7euser?q=%7e").await;
    assert_eq!(origin.seen()[1].target, "/p/%7euser?q=%7e");
}

#[tokio::test]
async fn the_query_counts_as_the_operator_says() {
    let site = r#"
routes:
  - match: { path: "/none" }
    cache: { key: { query: none } }
  - match: { path: "/only" }
    cache: { key: { query: { only: [a, b] } } }
  - match: { path: "/ignore" }
    cache: { key: { query: { ignore: [utm_*, fbclid] } } }
  - match: { path: "/sort" }
    cache: { key: { sort: true } }
  - match: { path: "/only-sort" }
    cache: { key: { query: { only: [a, b] }, sort: true } }
"#;
    let origin = echo().await;
    let edge = Edge::before(&origin, site).await;
    for (first, second, same) in [
        ("/all?1&a=1&b=2", "/all?1&a=1&b=2", true),
        ("/all?2&a=1&b=2", "/all?2&b=2&a=1", false),
        ("/all?3&a=%7e", "/all?3&a=~", true),
        ("/all?4&a=1", "/all?4&a=2", false),
        ("/all?5&a", "/all?5&a=", false),
        ("/none?a=1", "/none?b=2", true),
        ("/none", "/none?c", true),
        ("/only?a=1&x=1", "/only?x=2&a=1", true),
        ("/only?a=2", "/only?a=3", false),
        ("/only?a=4&b=1", "/only?b=1&a=4", false),
        ("/only?A=5&a=5", "/only?a=5", true),
        ("/ignore?id=1&utm_source=x&utm_medium=y", "/ignore?id=1", true),
        ("/ignore?id=2&fbclid=z", "/ignore?fbclid=y&id=2", true),
        ("/ignore?id=3", "/ignore?id=3&utm=1", false),
        ("/sort?1&b=2&a=1", "/sort?a=1&1&b=2", true),
        ("/sort?2&a=1&a=2", "/sort?2&a=2&a=1", false),
        ("/only-sort?x=1&b=2&a=1", "/only-sort?a=1&b=2&x=9", true),
    ] {
        assert_eq!(share(&edge, &Ask::get(first), &Ask::get(second)).await, same, "{first} and {second}");
    }
    // The origin is asked for what the client asked for, whatever counts.
    let targets: Vec<_> = origin.seen().iter().map(|r| r.target.clone()).collect();
    assert!(targets.contains(&"/ignore?id=1&utm_source=x&utm_medium=y".to_owned()), "{targets:?}");
    assert!(targets.contains(&"/sort?1&b=2&a=1".to_owned()), "{targets:?}");
}

#[tokio::test]
async fn fields_and_cookies_count_where_the_operator_says_so() {
    let origin = echo().await;
    let edge = Edge::before(&origin, "cache: { key: { headers: [X-Device], cookies: [plan] } }").await;
    let ask = |path: &str| Ask::get(path);
    for (first, second, same) in [
        (ask("/1").header("X-Device", "phone"), ask("/1").header("x-device", "phone"), true),
        (ask("/2").header("X-Device", "phone"), ask("/2").header("X-Device", "tv"), false),
        (ask("/3").header("X-Device", "phone"), ask("/3"), false),
        (ask("/4").header("X-Device", ""), ask("/4"), false),
        (ask("/5").header("X-Other", "1"), ask("/5").header("X-Other", "2"), true),
        (ask("/6").header("Cookie", "plan=pro; id=1"), ask("/6").header("Cookie", "id=2; plan=pro"), true),
        (ask("/7").header("Cookie", "plan=pro"), ask("/7").header("Cookie", "plan=free"), false),
        (ask("/8").header("Cookie", "plan=pro"), ask("/8"), false),
        (ask("/9").header("Cookie", "id=1"), ask("/9").header("Cookie", "id=2"), true),
    ] {
        assert_eq!(share(&edge, &first, &second).await, same, "{first:?} and {second:?}");
    }
}

#[tokio::test]
async fn sites_and_hosts_never_share() {
    let (one, two) = (echo().await, echo().await);
    let yaml = format!(
        r#"
origins:
  one: {{ servers: ["{}"] }}
  two: {{ servers: ["{}"] }}
sites:
  - hosts: [a.test, "*.a.test"]
    origin: one
  - hosts: [b.test]
    origin: two
"#,
        one.address(),
        two.address()
    );
    let edge = Edge::start(&yaml).await;
    for over in BOTH {
        let path = format!("/{over:?}");
        for host in ["a.test", "x.a.test", "y.a.test", "b.test"] {
            let ask = Ask::get(&path).host(host);
            let first = over.ask(&edge, &ask).await;
            assert!(!first.is_hit(), "{host} over {over:?}: {first:?}");
            for response in [first, over.ask(&edge, &ask).await] {
                assert_eq!(response.text(), format!("{host} {path}"), "{over:?}");
            }
        }
    }
    assert_eq!((one.count(), two.count()), (6, 2));
}
