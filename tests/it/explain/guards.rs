//! What the guards make of a request: said, and done by a running edge.

use super::{explain, explain_file, folder, split};
use crate::harness::{Ask, Edge, Origin, Reply};

const YAML: &str = r#"listeners: [{ address: "127.0.0.1:8080" }, { address: "127.0.0.1:8443", tls: TLS }]
trusted_proxies: [10.0.0.0/8]
limits: { body_size: 1KiB }
keys:
  media: { format: foreland, secrets: ["file:media.key"] }
geo: { country: COUNTRIES }
origins:
  app: { servers: ["127.0.0.1:9000"] }
sites:
  - name: shop
    hosts: [example.com]
    origin: app
    https: redirect
    hsts: on
    access: { deny: [203.0.113.0/24], deny_countries: [SE], identities: ["*.internal"] }
    rate_limit:
      - { rate: 5/m, burst: 10, action: delay, max_delay: 2s }
      - { name: viewers, key: [client-ip, path], rate: 1/s, action: log }
    concurrency_limit: { requests: 7, status: 503 }
    bandwidth: { rate: 1MiB/s, after: 2MiB }
    body_size: 10B
    routes:
      - { match: { path: /open }, https: optional, access: off, rate_limit: off }
      - name: video
        match: { path: "/video/**" }
        access: off
        signed_url: media
        rate_limit: { key: token-id, rate: 3/s, burst: 3 }
        cache: { key: { query: all } }
  - hosts: [plain.test]
    origin: app
    https: required
  - hosts: [bare.test]
    origin: app
"#;

/// Whoever is let in by the site's rules.
const MEMBER: &str = "--tls --from 198.51.100.1 --identity a.internal";

fn yaml(key: &std::path::Path) -> String {
    let countries = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/config/geo/country.mmdb");
    let certs = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/config/certs");
    let tls = format!(
        "{{ certificates: [{{ certificate: {certs}/cdn.pem, key: {certs}/cdn.key }}], client_auth: {{ ca: {certs}/clients.pem }} }}"
    );
    YAML.replace("TLS", &tls).replace("COUNTRIES", countries).replace("media.key", &key.display().to_string())
}

#[tokio::test]
async fn guards_are_told_in_the_order_of_the_door() {
    let folder = folder("guards");
    let key = folder.join("media.key");
    std::fs::write(&key, "a secret for the videos of this test").expect("written");
    let yaml = yaml(&key);
    let cases: &[(&str, i32, &[&str], &[&str])] = &[
        (
            "MEMBER -H 'Content-Length: 10' http://example.com/a",
            0,
            &[
                "by https, certificate of a.internal, country DE",
                "guards https (FILE:13:12) passes: the request comes by TLS",
                "access (FILE:15:15) passes: no rule is against it",
                "rate_limit shop (FILE:17:11) counts: by client-ip, 5/m with bursts of 10, then waits for up to 2s, then 429",
                "rate_limit viewers (FILE:17:11) counts: by client-ip and path, 1/s with bursts of 1, then only logged",
                "concurrency_limit shop (FILE:19:26) counts: by client-ip, up to 7 in flight, then 503",
                "bandwidth (FILE:20:18) passes: the response leaves at 1MiB/s after 2MiB",
                "body_size (FILE:21:16) passes: a body of up to 10B may come",
                "hsts (FILE:14:11) passes: the response says max-age=31536000",
            ],
            &["refused"],
        ),
        (
            "http://example.com/a?b",
            1,
            &[
                "refused 301 This is served over https.",
                "guards https (FILE:13:12) refuses: https: redirect: 301 to https://example.com:8443/a?b",
                "origin app (FILE:8:3), named at FILE:12:13",
            ],
            &["access", "response"],
        ),
        (
            "-X POST http://example.com/",
            1,
            &["guards https (FILE:13:12) refuses: https: redirect: 308 to https://example.com:8443/"],
            &[],
        ),
        ("http://plain.test/", 1, &["refused 403 This is served over https alone.", "https: required"], &[]),
        ("https://plain.test/", 0, &["by https", "guards https (FILE:32:12) passes: the request comes by TLS"], &[]),
        (
            "--from 10.0.0.1 -H 'X-Forwarded-Proto: https' http://plain.test/",
            0,
            &["client 10.0.0.1, through a trusted proxy", "by https"],
            &["refused"],
        ),
        (
            "http://bare.test/",
            0,
            &["cache used: answers from the store, and stores the response if it may"],
            &["guards"],
        ),
        (
            "--tls --from 203.0.113.9 --identity a.internal http://example.com/",
            1,
            &["refused 403 This request is not allowed here.", "access.deny: 203.0.113.9"],
            &["rate_limit"],
        ),
        (
            "MEMBER --country se http://example.com/",
            1,
            &["by https, certificate of a.internal, country SE", "access.deny_countries: SE"],
            &[],
        ),
        (
            "--tls http://example.com/",
            1,
            &[
                "access.identities: there is no client certificate",
                "access (FILE:15:15) refuses: access.identities: there is no client certificate (from nobody in particular: \
                 --from says who asks)",
            ],
            &[],
        ),
        (
            "-X POST -H 'Content-Length: 11' http://example.com/open",
            1,
            &["body_size (FILE:21:16) refuses: request body of 11 bytes, body_size is 10"],
            &["https", "hsts (FILE:14:11) passes"],
        ),
        (
            "-X POST -H 'Content-Length: 2000' http://bare.test/",
            1,
            &["refused 413 The request's body is too large.", "request body of 2000 bytes, body_size is 1024"],
            &["guards"],
        ),
        ("http://example.com/open", 0, &["hsts (FILE:14:11) passes: nothing is said without TLS"], &["refused"]),
        (
            "--tls https://example.com/video/a.ts?x=1&token=exp=1~mac=AAAAAAAAAAAAAAAAAAAAAA",
            1,
            &[
                "refused 403 This URL is not valid, or no longer.",
                "signed_url (FILE:27:21) refuses: signed_url media: the signature is not of this URL, or of another key",
                "asked for /video/a.ts?x=1, Host as the client asks for it",
                "key site=shop host=example.com path=/video/a.ts query=x=1 scheme=https",
            ],
            &["by token-id"],
        ),
        ("--tls http://example.com/video/a.ts", 1, &["signed_url media: no token"], &[]),
    ];
    for (args, code, lines, absent) in cases {
        let args = args.replace("MEMBER", MEMBER);
        let said = explain("guards-cases", &yaml, &args).await;
        assert_eq!(said.code, Some(*code), "{args}: {}{}", said.out, said.err);
        for line in *lines {
            assert!(said.says(line) || said.out.contains(line), "{args}\n{line}\n{}", said.out);
        }
        for word in *absent {
            assert!(!said.out.lines().any(|line| line.trim_start().starts_with(word)), "{args}\n{word}\n{}", said.out);
        }
    }
    let json = explain("guards-json", &yaml, "--json --tls http://example.com/video/a.ts").await.json();
    let guards = json["guards"].as_array().expect("a list");
    let last = guards.last().expect("a guard");
    assert_eq!((&last["guard"], &last["verdict"]), (&"signed_url".into(), &"refuses".into()), "{json}");
    assert_eq!((&last["at"]["line"], &json["refused"]["status"]), (&27.into(), &403.into()), "{json}");
    let _ = std::fs::remove_dir_all(&folder);
}

/// A URL that `sign` makes holds, wherever its token is: what is said of key and target has none, and the edge does so.
#[tokio::test]
async fn a_signed_url_is_looked_up_without_its_token() {
    let origin = Origin::start(|_| Reply::ok("film").cache_control("max-age=60")).await;
    let folder = folder("guards-signed");
    let key = folder.join("media.key");
    std::fs::write(&key, "a secret for the videos of this test").expect("written");
    let yaml = Edge::yaml_before(&[&origin], "signed_url: media")
        + &format!("keys: {{ media: {{ format: foreland, secrets: [\"file:{}\"] }} }}\n", key.display());
    let edge = Edge::start(&yaml).await;
    let path = edge.config_path();
    let config = path.display().to_string();
    for place in ["query", "path"] {
        let sign =
            format!("sign -c {config} --key media --expires 1h --prefix --in {place} http://edge.test/video/a.ts");
        let args = split(&sign);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let (status, url, err) = Edge::command(&args).await;
        assert!(status.success(), "{err}");
        let url = url.trim();
        let said = explain_file(&path, &[url.to_owned()]).await;
        assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
        assert!(
            said.out.contains("passes: the signature holds, until ") && said.out.contains(" GMT; token "),
            "{}",
            said.out
        );
        assert!(said.says("asked for /video/a.ts, Host as the client asks for it"), "{}", said.out);
        assert!(said.out.contains("path=/video/a.ts\n"), "{}", said.out);
        let target = url.strip_prefix("http://edge.test").expect("a URL of the site");
        assert_eq!(edge.ask(&Ask::new("GET", target)).await.status, 200, "{place}");
        let forged = format!("{url}x").replace("mac=", "mac=A");
        assert_eq!(explain_file(&path, &[forged]).await.code, Some(1), "{place}");
    }
    assert_eq!(edge.ask(&Ask::new("GET", "/video/a.ts")).await.status, 403);
    assert_eq!(origin.count(), 1);
    let seen = origin.seen();
    assert_eq!(seen[0].target, "/video/a.ts");
    let _ = std::fs::remove_dir_all(&folder);
}

/// A path that an origin may read as a guarded one is refused by the edge, and explained so.
#[tokio::test]
async fn another_reading_of_a_path_is_told_of() {
    let origin = Origin::start(|_| Reply::ok("film").cache_control("max-age=60")).await;
    let routes = "routes: [{ match: { path: \"/video/**\" }, access: { deny: [\"0.0.0.0/0\"] } }]";
    let edge = Edge::before(&origin, routes).await;
    let said = explain_file(&edge.config_path(), &["http://edge.test//video/a.ts".to_owned()]).await;
    assert_eq!(said.code, Some(1), "{}", said.out);
    assert!(said.out.contains("the path could be read as one of routes[0]"), "{}", said.out);
    assert_eq!(edge.get("//video/a.ts").await.status, 403);
    assert_eq!(edge.get("/other/a.ts").await.status, 200);
}
