//! Signed URLs on the whole way: who is let in, what is stored of it, and where a token is never seen.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustix::process::Signal;

use super::harness::{Ask, Edge, EdgeBuilder, Gate, Origin, Reply, Request, eventually};
use super::over::{BOTH, all};

/// In the body of what only those get who are let in.
const CONTENT: &str = "what has been paid for";

/// Every format, and where each of them guards.
const KEYS: &str = r#"keys:
  media: { format: foreland, secrets: ["file:{dir}/secret"], expired: 410 }
  other: { format: foreland, secrets: ["file:{dir}/other"], parameter: other }
  nginx: { format: secure-link, secrets: ["file:{dir}/secret"] }
  akamai: { format: akamai, secrets: ["file:{dir}/hex"] }
  cloudflare: { format: cloudflare, secrets: ["file:{dir}/secret"], lifetime: 3h }
  jwt: { format: jwt, secrets: ["file:{dir}/secret"], public_keys: { one: "{dir}/public.pem" } }
  cloudfront: { format: cloudfront, public_keys: { ONE: "{dir}/public.pem" } }
"#;

const ROUTES: &str = r#"signed_url: media
routes:
  - { match: { path: "/nginx/**" }, signed_url: nginx }
  - { match: { path: "/akamai/**" }, signed_url: akamai }
  - { match: { path: "/cloudflare/**" }, signed_url: cloudflare }
  - { match: { path: ["/jwt/**", "/es256/**"] }, signed_url: jwt }
  - { match: { path: "/cloudfront/**" }, signed_url: cloudfront }
  - { match: { path: "/several/**" }, signed_url: [media, other] }
  - { match: { path: "/free/**" }, signed_url: off }
"#;

/// An edge with all of these, and what signs for it.
struct Stand {
    edge: Edge,
    key: KeyPair,
}

async fn origin() -> Origin {
    Origin::start(|_| Reply::ok(CONTENT).cache_control("max-age=600").header("ETag", "\"one\"")).await
}

fn builder(yaml: &str) -> (EdgeBuilder, KeyPair) {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
    let builder = Edge::builder(yaml)
        .file("secret", "correct horse battery staple\n")
        .file("other", "another secret of some length\n")
        .file("hex", "aa11bb22cc33dd44\n")
        .file("public.pem", key.public_key_pem());
    (builder, key)
}

async fn stand(origin: &Origin, top: &str) -> Stand {
    let (builder, key) = builder(&format!("{top}{KEYS}{}", Edge::yaml_before(&[origin], ROUTES)));
    Stand { edge: builder.start().await, key }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_secs()
}

/// What `foreland sign` makes of a path of the host; of a URL, the target.
async fn sign(edge: &Edge, key: &str, path: &str, args: &[&str]) -> String {
    let (config, url) = (edge.config_path(), format!("http://edge.test{path}"));
    let config = config.to_str().expect("a path");
    let (status, out, err) = Edge::command(&[&["sign", "-c", config, "--key", key][..], args, &[&*url]].concat()).await;
    assert!(status.success(), "{key} {path}: {err}");
    let out = out.trim_end();
    out.strip_prefix("http://edge.test").unwrap_or(out).to_owned()
}

impl Stand {
    /// A signed target in one of the formats, valid until a time.
    async fn signed(&self, format: &str, path: &str, until: u64) -> String {
        let expires = until.to_string();
        match format {
            "es256" => {
                let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256","kid":"one"}"#);
                let claims = format!(r#"{{"exp":{until},"cdniuc":"regex:http://edge\\.test{path}"}}"#);
                let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
                let signature = URL_SAFE_NO_PAD.encode(self.by(&ECDSA_P256_SHA256_FIXED_SIGNING, &message));
                format!("{path}?URISigningPackage={message}.{signature}")
            }
            "cloudfront" => {
                let policy = format!(
                    r#"{{"Statement":[{{"Resource":"http://edge.test{path}","Condition":{{"DateLessThan":{{"AWS:EpochTime":{until}}}}}}}]}}"#
                );
                let signature = STANDARD.encode(self.by(&ECDSA_P256_SHA256_ASN1_SIGNING, &policy));
                let signature = signature.replace('+', "-").replace('=', "_").replace('/', "~");
                format!("{path}?Expires={until}&Signature={signature}&Key-Pair-Id=ONE&Hash-Algorithm=SHA256")
            }
            "nginx" => sign(&self.edge, "nginx", path, &["--expires", &expires, "--ip", "127.0.0.1"]).await,
            _ => sign(&self.edge, format, path, &["--expires", &expires]).await,
        }
    }

    fn by(&self, algorithm: &'static EcdsaSigningAlgorithm, message: &str) -> Vec<u8> {
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, &self.key.serialize_der()).expect("a key");
        pair.sign(&SystemRandom::new(), message.as_bytes()).expect("a signature").as_ref().to_vec()
    }
}

/// The same with one character of what is signed, or of the signature, changed.
fn forged(target: &str) -> String {
    let begin =
        ["mac=", "md5=", "hmac=", "-", "."].iter().find_map(|mark| target.rfind(mark).map(|at| at + mark.len()));
    let at = begin.expect("a signature").min(target.len() - 2);
    let other = if target.as_bytes()[at] == b'0' { "1" } else { "0" };
    format!("{}{other}{}", &target[..at], &target[at + 1..])
}

/// Whatever the origin was sent has none of these words.
fn assert_unseen(seen: &[Request], words: &[&str]) {
    for request in seen {
        let text = format!("{request:?}").to_ascii_lowercase();
        for word in words {
            assert!(!text.contains(&word.to_ascii_lowercase()), "{word} in {request:?}");
        }
    }
}

#[tokio::test]
async fn every_format_lets_in_who_has_signed_and_shares_what_is_stored() {
    let origin = origin().await;
    let stand = stand(&origin, "").await;
    let edge = &stand.edge;
    for (n, format) in ["media", "nginx", "akamai", "cloudflare", "jwt", "es256", "cloudfront"].iter().enumerate() {
        let path = format!("/{format}/a.mp4");
        assert_eq!(edge.get(&path).await.status, 403, "{format}");
        let [first, second, over] = all([3600, 3700, 0].map(|ahead| {
            let until = if ahead == 0 { now() - 60 } else { now() + ahead };
            stand.signed(format, &path, until)
        }))
        .await
        .try_into()
        .expect("three");
        assert_ne!(first, second);
        let miss = edge.get(&first).await;
        assert_eq!((miss.status, miss.is_hit()), (200, false), "{format}: {first}: {miss:?}");
        for target in [&first, &second] {
            let hit = edge.get(target).await;
            assert!(hit.is_hit(), "{format}: {target}: {hit:?}");
            assert_eq!(hit.text(), CONTENT);
        }
        let refused = edge.get(&over).await;
        assert_eq!(refused.status, if *format == "media" { 410 } else { 403 }, "{format}: {over}");
        assert!(!refused.text().contains("expired"), "{refused:?}");
        for wrong in [forged(&first), first.replace("a.mp4", "b.mp4"), path.clone()] {
            let refused = edge.get(&wrong).await;
            assert_eq!(refused.status, 403, "{format}: {wrong}");
            assert!(!refused.text().contains(CONTENT));
        }
        assert_eq!(origin.count(), n + 1, "{format}");
        assert_eq!(origin.seen()[n].target, path, "{format}");
    }
    // A route that does not ask for a signature has what looks like one in its key.
    assert_eq!(edge.get("/free/a?token=x").await.status, 200);
    assert_eq!(origin.seen().last().expect("a request").target, "/free/a?token=x");
    let log = edge.access_log_lines(7 * 8 + 1).await;
    let reasons: Vec<_> = log.iter().filter_map(|line| line["detail"].as_str()).collect();
    assert!(
        reasons.iter().any(|why| why.starts_with("signed_url media: ") && why.contains("the token ended at")),
        "{reasons:?}"
    );
}

#[tokio::test]
async fn times_clients_methods_and_parameters() {
    let origin = origin().await;
    let stand = stand(&origin, "trusted_proxies: [127.0.0.0/8]\n").await;
    let edge = &stand.edge;
    let hour = (now() + 3600).to_string();
    let later = (now() + 1800).to_string();
    let with = async |more: &[&str]| sign(edge, "media", "/a?w=1&x=2", &[&["--expires", &*hour], more].concat()).await;
    let early = with(&["--not-before", &later]).await;
    assert_eq!(edge.get(&early).await.status, 403);
    let bound = with(&["--ip", "192.0.2.0/24"]).await;
    for (address, status) in [("192.0.2.7", 200), ("198.51.100.7", 403)] {
        let answer = edge.ask(&Ask::get(&bound).header("X-Forwarded-For", address)).await;
        assert_eq!(answer.status, status, "{address}");
    }
    let sized = with(&["--query", "w"]).await;
    assert_eq!(edge.get(&sized).await.status, 200);
    assert_eq!(edge.get(&sized.replace("x=2", "x=3")).await.status, 200);
    assert_eq!(edge.get(&sized.replace("w=1", "w=2")).await.status, 403);
    assert_eq!(edge.get(&sized.replace("w=1", "w=1&w=2")).await.status, 403);
    let posting = with(&["--method", "POST"]).await;
    assert_eq!(edge.ask(&Ask::new("POST", &posting).body("x")).await.status, 200);
    assert_eq!(edge.get(&posting).await.status, 403);
    for host in ["other.test", "edge.test:81"] {
        assert_eq!(edge.ask(&Ask::get(&sized).host(host)).await.status, 403, "{host}");
    }
    assert_eq!(edge.ask(&Ask::get(&sized).host("EDGE.test:80")).await.status, 200);
    // Either key of a list.
    for key in ["media", "other"] {
        let target = sign(edge, key, "/several/a", &["--expires", &hour]).await;
        assert_eq!(edge.get(&target).await.status, 200, "{key}");
    }
    let foreign = sign(edge, "other", "/a", &["--expires", &hour]).await;
    assert_eq!(edge.get(&foreign).await.status, 403);
    assert_unseen(&origin.seen(), &["token", "mac="]);
}

#[tokio::test]
async fn hls_by_path_cookie_and_query() {
    let origin = origin().await;
    let stand = stand(&origin, "").await;
    let edge = &stand.edge;
    let hour = (now() + 3600).to_string();
    let by = async |place: &str| {
        sign(edge, "media", "/vod/42/master.m3u8", &["--expires", &hour, "--prefix", "--in", place]).await
    };
    let playlist = by("path").await;
    let folder = playlist.strip_suffix("master.m3u8").expect("the playlist").to_owned();
    assert!(folder.starts_with("/token=") && folder.ends_with("/vod/42/"), "{folder}");
    for over in BOTH {
        assert_eq!(over.get(edge, &playlist).await.status, 200, "{over:?}");
        for (relative, status) in [
            ("1080p/1.ts", 200),
            ("1080p/../1080p/1.ts", 200),
            ("../43/1.ts", 403),
            ("..%2f43/1.ts", 403),
            ("1080p/..%5c..%5c43", 403),
        ] {
            let asked =
                Ask::get(&format!("{folder}{relative}")).header("Referer", format!("http://edge.test{playlist}"));
            assert_eq!(over.ask(edge, &asked).await.status, status, "{relative} over {over:?}");
        }
        // The token alone is no path of its own.
        let alone = folder.strip_suffix("/vod/42/").expect("the folder");
        assert_eq!(over.get(edge, alone).await.status, 403);
        assert_eq!(over.get(edge, &format!("/x{playlist}")).await.status, 403);
    }
    let cookie = by("cookie").await;
    let query = by("query").await.split_once('?').expect("a token").1.to_owned();
    assert!(cookie.starts_with("token=") && query == cookie, "{cookie} {query}");
    let segment = "/vod/42/720p/2.ts";
    assert_eq!(edge.get(segment).await.status, 403);
    let others = Ask::get(segment).header("Cookie", format!("a=1; {cookie}; b=2"));
    assert_eq!(edge.ask(&others).await.status, 200);
    assert!(edge.get(&format!("{segment}?{query}")).await.is_hit());
    assert!(edge.ask(&Ask::get(segment).header("Cookie", format!("token=wrong; {cookie}"))).await.is_hit());
    // In pieces, as HTTP/2 sends them.
    let pieces = Ask::get("/vod/42/3.ts").header("Cookie", "a=1").header("Cookie", &cookie).header("Cookie", "b=2");
    assert_eq!(BOTH[1].ask(edge, &pieces).await.status, 200);
    let seen = origin.seen();
    let cookies: Vec<_> = seen.iter().flat_map(|request| request.headers.all("Cookie")).collect();
    assert_eq!(cookies, ["a=1; b=2", "a=1; b=2"]);
    let refererers: Vec<_> = seen.iter().filter_map(|request| request.header("Referer")).collect();
    assert_eq!(refererers, ["http://edge.test/vod/42/master.m3u8"], "of what was stored, once");
    assert_unseen(&seen, &["token", "mac="]);
}

#[tokio::test]
async fn an_akamai_token_in_a_field() {
    let origin = origin().await;
    let stand = stand(&origin, "").await;
    let signed = stand.signed("akamai", "/akamai/a", now() + 3600).await;
    let token = signed.split_once("hdnts=").expect("a token").1;
    for (field, value, hit) in [
        ("hdnts", token.to_owned(), false),
        ("HDNTS", token.to_owned(), true),
        ("Cookie", format!("hdnts={token}"), true),
    ] {
        let answer = stand.edge.ask(&Ask::get("/akamai/a").header(field, value)).await;
        assert_eq!((answer.status, answer.is_hit()), (200, hit), "{field}: {answer:?}");
    }
    assert_eq!(stand.edge.get("/akamai/a").await.status, 403);
    assert_unseen(&origin.seen(), &["hdnts", "hmac"]);
}

#[tokio::test]
async fn cloudfronts_cookies() {
    let origin = origin().await;
    let stand = stand(&origin, "").await;
    let policy = format!(
        r#"{{"Statement":[{{"Resource":"http*://edge.test/cloudfront/42/*","Condition":{{"DateLessThan":{{"AWS:EpochTime":{}}}}}}}]}}"#,
        now() + 3600
    );
    let base64 = |bytes: &[u8]| STANDARD.encode(bytes).replace('+', "-").replace('=', "_").replace('/', "~");
    let signature = base64(&stand.by(&ECDSA_P256_SHA256_ASN1_SIGNING, &policy));
    let cookie = format!(
        "a=1; CloudFront-Policy={}; CloudFront-Signature={signature}; CloudFront-Key-Pair-Id=ONE; \
         CloudFront-Hash-Algorithm=SHA256",
        base64(policy.as_bytes())
    );
    let status = async |path: &str| stand.edge.ask(&Ask::get(path).header("Cookie", &cookie)).await.status;
    assert_eq!((status("/cloudfront/42/1.ts").await, status("/cloudfront/43/1.ts").await), (200, 403));
    assert_eq!(status("/cloudfront/42/../43/1.ts").await, 403);
    assert_eq!(origin.seen()[0].header("Cookie"), Some("a=1"));
    assert_unseen(&origin.seen(), &["CloudFront-"]);
}

#[tokio::test]
async fn what_is_stored_is_for_nobody_without_a_token() {
    let gate = Gate::new();
    let at = gate.clone();
    let origin = Origin::start(move |request| {
        let reply = Reply::ok(CONTENT).header("ETag", "\"one\"");
        match request.path() {
            "/stale" => reply.cache_control("max-age=0, stale-while-revalidate=600, stale-if-error=600"),
            "/held" => reply.cache_control("max-age=600").hold(&at),
            _ => reply.cache_control("max-age=600"),
        }
    })
    .await;
    let stand = stand(&origin, "").await;
    let edge = &stand.edge;
    for path in ["/fresh", "/stale"] {
        let signed = stand.signed("media", path, now() + 3600).await;
        assert_eq!(edge.get(&signed).await.text(), CONTENT);
        let fetched = origin.count();
        for over in BOTH {
            for ask in [
                Ask::get(path),
                Ask::head(path),
                Ask::get(path).header("Range", "bytes=0-3"),
                Ask::get(path).header("If-None-Match", "\"one\""),
                Ask::get(path).header("Cache-Control", "only-if-cached"),
                Ask::get(path).header("Cache-Control", "no-cache"),
                Ask::new("POST", path).body("x"),
                Ask::new("OPTIONS", path),
                Ask::get(&forged(&signed)),
                Ask::get(path).header("Cookie", "token=exp=9999999999~mac=AAAAAAAAAAAAAAAAAAAAAA"),
            ] {
                let refused = over.ask(edge, &ask).await;
                assert_eq!(refused.status, 403, "{ask:?} over {over:?}");
                assert!(!refused.body.windows(4).any(|part| part == &CONTENT.as_bytes()[..4]), "{refused:?}");
                assert!(refused.header("ETag").is_none() && refused.header("Age").is_none(), "{refused:?}");
            }
        }
        // Nor has any of these refreshed, or removed, what is stored.
        assert_eq!(origin.count(), fetched, "{path}");
        let again = edge.get(&signed).await;
        assert!(again.is_hit(), "{again:?}");
    }
    // While it is fetched for one who may, others neither follow nor wait.
    let signed = stand.signed("media", "/held", now() + 3600).await;
    let (leader, follower, refused) = tokio::join!(edge.get(&signed), edge.get(&signed), async {
        gate.reached(1).await;
        let refused = edge.get("/held").await;
        gate.open();
        refused
    });
    assert_eq!((leader.text(), follower.text(), refused.status), (CONTENT, CONTENT, 403));
}

#[tokio::test]
async fn a_token_is_in_no_variant_and_no_key() {
    let origin =
        Origin::start(|_| Reply::ok(CONTENT).cache_control("max-age=600").header("Vary", "Cookie, Referer")).await;
    let site = "signed_url: media\ncache: { key: { cookies: [token, lang], query: all } }";
    let yaml = format!("{KEYS}{}", Edge::yaml_before(&[&origin], site));
    let (builder, key) = builder(&yaml);
    let stand = Stand { edge: builder.start().await, key };
    let token = async |until| stand.signed("media", "/a", until).await.split_once('?').expect("a token").1.to_owned();
    let [one, two] = [token(now() + 3600).await, token(now() + 3601).await];
    let ask = |cookie: String| Ask::get("/a").header("Cookie", cookie);
    assert!(!stand.edge.ask(&ask(format!("{one}; lang=de"))).await.is_hit());
    assert!(stand.edge.ask(&ask(format!("lang=de; {two}"))).await.is_hit());
    let english = stand.edge.ask(&ask(format!("lang=en; {two}"))).await;
    assert_eq!((english.status, english.is_hit()), (200, false));
    // Referers that differ in their tokens alone are the same.
    let refer = |token: &str| ask(format!("{one}; lang=de")).header("Referer", format!("http://edge.test/x?{token}"));
    assert!(!stand.edge.ask(&refer(&one)).await.is_hit());
    assert!(stand.edge.ask(&refer(&two)).await.is_hit());
    assert_unseen(&origin.seen(), &["token", "mac="]);
}

#[tokio::test]
async fn requests_are_counted_by_token() {
    let origin = origin().await;
    let site = "signed_url: media\nrate_limit:\n  - { key: token-id, rate: 1/d, burst: 1 }\n  \
                - { name: guesses, key: client-ip, rate: 8/d, burst: 8 }";
    let (builder, key) = builder(&format!("{KEYS}{}", Edge::yaml_before(&[&origin], site)));
    let stand = Stand { edge: builder.start().await, key };
    let edge = &stand.edge;
    for ahead in [3600, 3601] {
        let token = stand.signed("media", "/a", now() + ahead).await;
        assert_eq!((edge.get(&token).await.status, edge.get(&token).await.status), (200, 429));
    }
    // Who guesses signatures is held to what does not depend on them.
    for status in [403, 403, 403, 403, 429] {
        assert_eq!(edge.get("/a?token=exp=9999999999~mac=AAAAAAAAAAAAAAAAAAAAAA").await.status, status);
    }
}

#[tokio::test]
async fn keys_are_rotated_by_a_reload() {
    let origin = origin().await;
    let yaml = |secrets: &str| {
        let keys = format!("keys: {{ media: {{ format: foreland, secrets: [{secrets}] }} }}\n");
        keys + &Edge::yaml_before(&[&origin], "signed_url: media")
    };
    let (builder, _) = builder(&yaml("\"file:{dir}/secret\""));
    let edge = builder.start().await;
    let hour = (now() + 3600).to_string();
    let old = sign(&edge, "media", "/a", &["--expires", &hour]).await;
    assert_eq!(edge.get(&old).await.status, 200);
    edge.write_config(&yaml("\"file:{dir}/other\", \"file:{dir}/secret\""));
    edge.signal(Signal::HUP);
    let new = sign(&edge, "media", "/a", &["--expires", &hour]).await;
    eventually("the new secret", async || edge.get(&new).await.is_hit()).await;
    assert!(edge.get(&old).await.is_hit());
    edge.write_config(&yaml("\"file:{dir}/other\""));
    edge.signal(Signal::HUP);
    eventually("the old secret's end", async || edge.get(&old).await.status == 403).await;
    assert!(edge.get(&new).await.is_hit());
}

#[tokio::test]
async fn no_log_has_a_token() {
    let mut origin = origin().await;
    // A target within its own limit, and beyond that.
    let limits = "limits: { uri_length: 300B, header_size: 2KiB }\n";
    let yaml = format!("{limits}{KEYS}{}", Edge::yaml_before(&[&origin], ROUTES)).replace("\"*\"", "edge.test");
    let (builder, key) = builder(&yaml);
    let stand = Stand { edge: builder.start().await, key };
    let edge = &stand.edge;
    let hour = (now() + 3600).to_string();
    let signed = stand.signed("media", "/a", now() + 3600).await;
    let query = signed.split_once('?').expect("a token").1;
    let mac = query.split_once("mac=").expect("a signature").1.to_owned();
    let in_path = format!("/{query}");
    let referer = |ask: Ask, url: &str| ask.header("Referer", format!("http://edge.test{url}"));
    let both = [
        (200, Ask::get(&signed)),
        (200, Ask::get(&format!("{in_path}/a"))),
        (403, Ask::get(&format!("/b?{query}"))),
        (421, Ask::get(&signed).host("nobody.test")),
        (403, referer(Ask::get("/b"), &signed)),
    ];
    for (status, ask) in &both {
        assert_eq!(BOTH[1].ask(edge, ask).await.status, *status, "{ask:?}");
    }
    let mut asks = vec![
        (200, Ask::get(&signed)),
        (200, Ask::get(&format!("http://edge.test{signed}"))),
        (200, Ask::get(&format!("{in_path}/a"))),
        (200, Ask::get(&format!("http://edge.test{in_path}/a"))),
        (403, Ask::get(&format!("/b?{query}"))),
        (403, Ask::get(&format!("/b?%74oken={}", &query[6..]))),
        (403, Ask::get(&format!("/%74oken={}/b", &query[6..]))),
        (421, Ask::get(&signed).host("nobody.test")),
        (421, Ask::get(&format!("http://nobody.test{in_path}/a")).host("nobody.test")),
        (414, Ask::get(&format!("{signed}&{}", "x".repeat(300)))),
        (431, Ask::get(&signed).header("X-Long", "x".repeat(2048))),
        (405, Ask::new("TRACE", &signed)),
    ];
    let refering: Vec<_> = [&signed, &format!("{in_path}/a")]
        .iter()
        .flat_map(|url| [(200, referer(Ask::get(&signed), url)), (403, referer(Ask::get("/b"), url))])
        .collect();
    asks.extend(refering);
    for (status, ask) in &asks {
        assert_eq!(edge.ask(ask).await.status, *status, "{ask:?}");
    }
    origin.stop().await;
    let lost = sign(edge, "media", "/lost", &["--expires", &hour]).await;
    let lost_mac = lost.split_once("mac=").expect("a signature").1.to_owned();
    assert_eq!(edge.get(&lost).await.status, 502);
    let log = edge.access_log_lines(both.len() + asks.len() + 1).await;
    let text = std::fs::read_to_string(edge.folder().join("access.log")).expect("a log") + &edge.log();
    for mac in [&mac, &lost_mac] {
        assert!(!text.contains(&mac[8..]), "{text}");
    }
    for line in &log {
        let id = (line["status"] == 200).then(|| &mac[..8]);
        assert!(id.is_none() || line["token"].as_str() == id, "{line}");
    }
    assert!(log.iter().any(|line| line["uri"] == "/a" && line["status"] == 421), "{log:?}");
}

#[tokio::test]
async fn a_refresh_in_the_background_and_purges_need_no_token() {
    let origin = Origin::start(|_| {
        Reply::ok(CONTENT).cache_control("max-age=0, stale-while-revalidate=600").header("ETag", "\"one\"")
    })
    .await;
    let yaml = format!("{KEYS}{}", Edge::yaml_before(&[&origin], "signed_url: media\npurge: { from: [127.0.0.0/8] }"));
    let (builder, key) = builder(&yaml);
    let stand = Stand { edge: builder.start().await, key };
    let edge = &stand.edge;
    let signed = stand.signed("media", "/a", now() + 3600).await;
    let token = signed.split_once('?').expect("a token").1;
    assert_eq!(edge.get(&signed).await.status, 200);
    let ways =
        [Ask::get(&signed), Ask::get("/a").header("Cookie", format!("a=1; {token}")), Ask::get(&format!("/{token}/a"))];
    for (n, ask) in (2..).zip(&ways) {
        let stale = edge.ask(ask).await;
        assert!(stale.cache_status().ends_with("; detail=stale-while-revalidate"), "{ask:?}: {stale:?}");
        let refresh = &origin.wait_for(n).await[n - 1];
        assert_eq!((&*refresh.target, refresh.header("If-None-Match")), ("/a", Some("\"one\"")), "{ask:?}");
        // It is over when the next one is begun.
        eventually("its end", async || {
            edge.metrics().await.metric("foreland_cache_background_fetches").is_none_or(|n| n == 0.0)
        })
        .await;
    }
    assert_unseen(&origin.seen(), &["token", "mac="]);
    let fetched = origin.count();
    // Nor does it hurt where there is one.
    for (n, target) in (1..).zip(["/a", &*signed, &*format!("/{token}/a")]) {
        let purge = edge.ask(&Ask::new("PURGE", target)).await;
        assert_eq!(purge.status, 200, "{purge:?}");
        let miss = edge.get(&signed).await;
        assert!(!miss.is_hit(), "{target}: {miss:?}");
        assert_eq!(origin.count(), fetched + n, "{target}");
    }
    let purged = edge.admin_post("/v1/purge", "{\"urls\": [\"http://edge.test/a\"]}").await;
    assert_eq!(purged.status, 200, "{purged:?}");
    let miss = edge.get(&signed).await;
    assert!(!miss.is_hit(), "{miss:?}");
    assert_eq!(origin.count(), fetched + 4);
}
