//! `foreland explain`: what it says of a request, and that a running edge does the same.

mod agreement;
mod guards;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::{Edge, http_date, within};

const YAML: &str = r#"listeners: [{ address: "127.0.0.1:8080" }]
trusted_proxies: [10.0.0.0/8]
limits: { header_count: 20, uri_length: 200B, body_size: 1KiB }
cache: { memory: { size: 1MiB, max_object: 1KiB } }
origins:
  app: { servers: ["127.0.0.1:9000"] }
  media: { servers: ["127.0.0.1:9001"], host: media.internal }
sites:
  - name: shop
    hosts: [example.com, "*.example.com"]
    origin: app
    cache: { ttl: 1h, heuristics: false, key: { headers: [Accept-Language] } }
    routes:
      - name: secret
        match: { headers: { X-Original-URL: true } }
        origin: media
      - match: { methods: [POST, PUT] }
        cache: off
      - name: images
        match: { path: ["/img/**", "/pic/*"], extensions: [png] }
        origin: media
        cache: { ttl: 1d, override: true, ignore_client_cache_control: true, key: { headers: [X-Forwarded-Host] } }
      - name: debug
        match: { query: { debug: true } }
        cache: { ttl_by_status: { 404: 10s }, store_set_cookie: true, vary: { accept_encoding: [br, gzip] } }
  - hosts: ["*"]
    origin: app
    cache: off
"#;

/// What came of a run, with the file's path as `FILE`.
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("not JSON ({e}): {}{}", self.out, self.err))
    }

    /// Whether a line is printed, wherever it is indented.
    fn says(&self, line: &str) -> bool {
        self.out.lines().any(|printed| words(printed) == words(line))
    }
}

/// Without the white space that aligns.
fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// A folder below Cargo's, for the files of one test.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("explain-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}

/// Runs the command on a file, whose path is written `FILE` in what it says.
async fn explain_file(file: &Path, args: &[String]) -> Said {
    let shown = file.display().to_string();
    let args = ["explain", "-c", &shown].into_iter().chain(args.iter().map(String::as_str)).collect::<Vec<_>>();
    let (status, out, err) = Edge::command(&args).await;
    Said { code: status.code(), out: out.replace(&shown, "FILE"), err: err.replace(&shown, "FILE") }
}

/// The same on a text; `args` are separated by spaces, those with `'` around them may have some.
async fn explain(name: &str, yaml: &str, args: &str) -> Said {
    let folder = folder(name);
    let file = folder.join("foreland.yaml");
    std::fs::write(&file, yaml).expect("written");
    let said = explain_file(&file, &split(args)).await;
    let _ = std::fs::remove_dir_all(&folder);
    said
}

/// As much of a shell's splitting as is needed: spaces, and quotes of both kinds.
fn split(line: &str) -> Vec<String> {
    let (mut args, mut current, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.replace("\\\n", " ").chars() {
        match quote {
            Some(q) if c == q => quote = None,
            None if c == '\'' || c == '"' => {
                quote = Some(c);
                current.get_or_insert_default();
            }
            None if c.is_whitespace() => args.extend(current.take()),
            _ => current.get_or_insert_default().push(c),
        }
    }
    args.into_iter().chain(current).collect()
}

#[tokio::test]
async fn what_governs_a_request_and_where_it_says_so() {
    let cases: &[(&str, &[&str])] = &[
        (
            "http://www.example.com/img/x/../a.PNG?b=1",
            &[
                "request GET /img/x/../a.PNG?b=1 of www.example.com",
                "client not a trusted proxy",
                "site shop (FILE:9:5), by its host *.example.com (FILE:10:26)",
                "route images (FILE:19:9): path /img/**, extension png",
                "not secret (FILE:14:9): header x-original-url is not present",
                "not routes[1] (FILE:17:9): method GET is not POST or PUT",
                "origin media (FILE:7:3), named at FILE:21:17",
                "asked for /img/a.PNG?b=1, Host media.internal",
                "key site=shop host=www.example.com path=/img/a.PNG query=b=1 x-forwarded-host=-",
                "settings ttl 1d FILE:22:23",
                "override true FILE:22:37",
                "ignore_client_cache_control true FILE:22:72",
                "heuristics false FILE:12:35",
                "key.headers [x-forwarded-host] FILE:22:95",
                "key.query all default",
            ],
        ),
        (
            "-H 'Host: EXAMPLE.com:80' -H 'Accept-Language: en' /img/a.gif?debugger",
            &[
                "site shop (FILE:9:5), by its host example.com (FILE:10:13)",
                "route none: the site's own settings",
                "not images (FILE:19:9): extension is not png",
                "not debug (FILE:23:9): query debug is not present",
                "origin app (FILE:6:3), named at FILE:11:13",
                "asked for /img/a.gif?debugger, Host as the client asks for it",
                r#"key site=shop host=example.com path=/img/a.gif query=debugger accept-language="en""#,
                "settings ttl 1h FILE:12:19",
                "heuristics false FILE:12:35",
                "key.headers [accept-language] FILE:12:59",
                "max_ttl none default",
            ],
        ),
        (
            "http://example.com/?debug",
            &[
                "route debug (FILE:23:9): query debug is present",
                "settings ttl 1h FILE:12:19",
                "ttl_by_status {\"404\": 10s} FILE:25:35",
                "store_set_cookie true FILE:25:65",
                "vary.accept_encoding [br, gzip] FILE:25:97",
                "vary.accept_language [] default",
            ],
        ),
        (
            "-H 'Accept-Encoding: deflate, gzip' http://example.com/?debug",
            &["rewritten accept-encoding becomes gzip: `vary` says what there is."],
        ),
        (
            "-X PUT http://example.com/",
            &[
                "route routes[1] (FILE:17:9): method PUT",
                "cache not used (off): The cache is off.",
                "settings cache off FILE:18:16",
            ],
        ),
        (
            "-X DELETE http://example.com/",
            &["cache not used (method): Only GET and HEAD are answered from the store (RFC 9111 §2, §4)."],
        ),
        (
            "-X HEAD http://example.com/",
            &[
                "cache used: answers from the store, and stores the response if it may",
                "HEAD: it shares what is stored for GET, and where nothing is, the origin is asked by GET",
            ],
        ),
        (
            "-H 'Content-Length: 3' http://example.com/",
            &["cache not used (content): The request has content: what that means is between the client and the \
                 origin (RFC 9110 §9.3.1)."],
        ),
        (
            "-H 'Connection: Upgrade' -H 'Upgrade: websocket' http://example.com/",
            &["cache not used (upgrade): The request asks for another protocol (RFC 9110 §7.8)."],
        ),
        (
            "-H 'Cache-Control: no-cache, max-stale, x=1' -H 'Pragma: no-cache' -H 'Range: bytes=0-1' \
             -H 'If-None-Match: \"a\"' -H 'Authorization: x' http://example.com/",
            &[
                "cache-control: no-cache: obeyed (RFC 9111 §5.2.1)",
                "cache-control: max-stale: obeyed (RFC 9111 §5.2.1)",
                "pragma: ignored (RFC 9111 §5.4)",
                "range: the origin is asked for the whole, and a part is cut from that (RFC 9110 §14.2)",
                "if-none-match: compared with what is stored; the origin is asked without it (RFC 9111 §4.3.2)",
                "authorization: the response is stored only where the origin gives it to all (RFC 9111 §3.5)",
            ],
        ),
        (
            "-H 'Cache-Control: max-age=0' http://example.com/pic/a.png",
            &["cache-control: max-age=0: ignored: `ignore_client_cache_control` says so"],
        ),
        ("http://other.test/", &["site * (FILE:26:5), by its host * (FILE:26:13)", "settings cache off FILE:28:12"]),
    ];
    for (args, lines) in cases {
        let said = explain("governs", YAML, args).await;
        assert_eq!(said.code, Some(0), "{args}: {}{}", said.out, said.err);
        for line in *lines {
            assert!(said.says(line), "{args}\n{line}\n{}", said.out);
        }
    }
}

#[tokio::test]
async fn whom_it_is_asked_by() {
    for (args, lines) in [
        (
            "-H 'X-Original-URL: /x' -H 'X-Forwarded-For: 203.0.113.9' -H 'Connection: X-Hop' -H 'X-Hop: 1' \
             http://example.com/",
            &[
                "client not a trusted proxy",
                "route none: the site's own settings",
                "not secret (FILE:14:9): header x-original-url counts as absent: the client is not trusted",
                "dropped x-hop: Connection names it: it is for one hop (RFC 9110 §7.6.1).",
                "x-original-url: The client is not trusted, and the key does not list it.",
                "x-forwarded-for: The client is not trusted, and the key does not list it.",
                "connection: It is for one hop (RFC 9110 §7.6.1).",
            ][..],
        ),
        (
            "--from 198.51.100.1 -H 'X-Forwarded-For: 203.0.113.9' http://example.com/",
            &["client 198.51.100.1, not a trusted proxy"],
        ),
        (
            "--from 10.1.2.3 -H 'X-Original-URL: /x' -H 'X-Forwarded-For: 203.0.113.9, 10.9.9.9' http://example.com/",
            &[
                "client 203.0.113.9, through a trusted proxy",
                "route secret (FILE:14:9): header x-original-url is present",
            ],
        ),
        (
            "-H 'X-Forwarded-Host: a' http://example.com/img/a.png",
            &[r#"key site=shop host=example.com path=/img/a.png x-forwarded-host="a""#],
        ),
    ] {
        let said = explain("whom", YAML, args).await;
        assert_eq!(said.code, Some(0), "{args}: {}", said.err);
        for line in lines {
            assert!(said.says(line), "{args}\n{line}\n{}", said.out);
        }
    }
    let listed = explain("whom", YAML, "-H 'X-Forwarded-Host: a' http://example.com/img/a.png").await;
    assert!(!listed.out.contains("dropped"), "{}", listed.out);
}

#[tokio::test]
async fn what_would_be_refused() {
    let long = format!("http://example.com/{}", "x".repeat(200));
    for (args, status, reason) in [
        ("/", 400, "no Host field, or not a name"),
        ("-H 'Host: a' -H 'Host: b' /", 400, "several Host fields"),
        ("http://user@example.com/", 400, "the host holds an invalid character"),
        ("-X TRACE http://example.com/", 405, "TRACE is not served"),
        ("-X CONNECT http://example.com/", 405, "CONNECT is not served"),
        ("-H 'Host: example.com' '*'", 400, "a target that is neither a path nor a URL"),
        (&long, 414, "target of 201 bytes, limits.uri_length is 200"),
        ("-H 'Content-Length: x' http://example.com/", 400, "Content-Length \"x\" is no length"),
        ("-H 'Content-Length: 1' -H 'Content-Length: 1' http://example.com/", 400, "more than one Content-Length"),
        (
            "-H 'Transfer-Encoding: chunked' -H 'Content-Length: 1' http://example.com/",
            400,
            "Content-Length beside Transfer-Encoding",
        ),
        ("-H 'Transfer-Encoding: gzip' http://example.com/", 501, "Transfer-Encoding beyond chunked"),
    ] {
        let said = explain("refused", YAML, args).await;
        assert_eq!(said.code, Some(1), "{args}: {}", said.out);
        assert!(said.out.contains(&format!("refused   {status} ")) && said.says(reason), "{args}\n{}", said.out);
        let json = explain("refused", YAML, &format!("--json {args}")).await;
        assert_eq!(json.code, Some(1), "{args}");
        let json = json.json();
        assert_eq!((&json["refused"]["status"], &json["refused"]["reason"]), (&status.into(), &reason.into()));
        assert!(json.get("site").is_none(), "{json}");
    }
    let no_site = YAML.replace("\"*\"", "only.test");
    let said = explain("refused", &no_site, "http://nowhere.test/").await;
    assert!(said.out.contains("refused   421") && said.says("no site for host \"nowhere.test\""), "{}", said.out);
    assert_eq!(said.code, Some(1));
}

#[tokio::test]
async fn mistakes_of_the_command_line_and_of_the_file() {
    for args in [
        "",
        "example.com",
        "ftp://example.com/",
        "http://example.com/#top",
        "-H Host http://example.com/",
        "-H 'X A: 1' http://example.com/",
        "-X 'G T' http://example.com/",
        "--from nobody http://example.com/",
        "--country DEU http://example.com/",
        "--asn x http://example.com/",
        "--status 103 http://example.com/",
        "--status ok http://example.com/",
        "--age 5 http://example.com/",
        "--age -5 --status 200 http://example.com/",
        "--response max-age=5 http://example.com/",
    ] {
        let said = explain("usage", YAML, args).await;
        assert_eq!((said.code, said.out.as_str()), (Some(2), ""), "{args}: {}", said.err);
    }
    let said = explain("usage", &YAML.replace("ttl: 1h", "tll: 1h"), "http://example.com/").await;
    assert_eq!((said.code, said.out.as_str()), (Some(1), ""));
    assert!(said.err.contains("FILE:12:") && said.err.contains("did you mean `ttl`?"), "{}", said.err);
    let (status, help, _) = Edge::command(&["explain", "--help"]).await;
    assert!(status.success() && help.contains("Example:\n  foreland explain -c foreland.yaml"), "{help}");
}

#[tokio::test]
async fn what_becomes_of_a_response() {
    let modified = http_date(-1000);
    let (heuristic, past) = (format!("Last-Modified: {modified}"), format!("Date: {}", http_date(-90)));
    let cases: &[(&str, &[&str])] = &[
        (
            "--response 'Cache-Control: max-age=60, stale-while-revalidate=10' --response 'ETag: \"a\"' --age 65",
            &[
                "response 200, stored",
                "directives are those of cache-control",
                "lifetime 1m (max-age): The response says `max-age` (RFC 9111 §5.2.2.1).",
                "age on arrival 0s, fresh for 1m",
                "then served stale while it is refreshed, for 10s",
                "Cache-Status: Foreland; fwd=uri-miss; fwd-status=200; stored; ttl=60",
                "again after 1m5s: stale-while-revalidate, 200: It is stale, and served while it is refreshed in the \
                 background (RFC 5861 §3).",
                "age 65s, ttl -5s",
                "the origin is asked with if-none-match: \"a\"",
                "Cache-Status: Foreland; hit; ttl=-5; detail=stale-while-revalidate",
            ],
        ),
        (
            "--response 'CDN-Cache-Control: max-age=60' --response 'Cache-Control: no-store' --response 'Age: 20'",
            &[
                "directives are those of cdn-cache-control",
                "lifetime 1m (targeted): The response says `max-age` in a field for CDNs (RFC 9213 §2.2).",
                "age on arrival 20s, fresh for 40s",
                "again after 0s: fresh, 200: It is fresh (RFC 9111 §4.2).",
                "age 20s, ttl 40s",
            ],
        ),
        (
            "--response 'Cache-Control: s-maxage=5, stale-if-error=9' --response 'ETag: \"a\"' --age 5",
            &[
                "never served stale (RFC 9111 §4.2.4)",
                "again after 5s: revalidate: Its freshness is over, and no window lets it be used (RFC 9111 §4.2.4).",
                "the origin is asked with if-none-match: \"a\"",
                "Cache-Status: Foreland; fwd=stale",
            ],
        ),
        (
            "--response 'Cache-Control: max-age=5, stale-if-error=9' --age 6",
            &[
                "then served stale when the origin fails, for 9s",
                "the origin is asked without a condition: there is no validator",
                "should the origin fail, it is served all the same (RFC 5861 §4)",
            ],
        ),
        (
            "--response 'Cache-Control: no-cache' --response 'ETag: \"a\"'",
            &[
                "never served without a validation (RFC 9111 §5.2.2.4)",
                "again after 0s: revalidate: The response says `no-cache`: never without a validation (RFC 9111 \
                 §5.2.2.4).",
            ],
        ),
        ("--status 200", &["lifetime 1h (ttl): The setting `ttl` says so."]),
        (
            "--status 404",
            &[
                "response 404, not stored (no-freshness): Nobody says how long it is fresh, and it has no validator to \
                 ask again with (RFC 9111 §3, §4.3.1).",
                "Cache-Status: Foreland; fwd=uri-miss; fwd-status=404; detail=no-freshness",
                "again the origin is asked, as the first time",
            ],
        ),
        (
            "--response 'Cache-Control: private' --response 'Set-Cookie: a=1'",
            &[
                "response 200, not stored (private): The response says `private`: it is for one user (RFC 9111 §5.2.2.7).",
            ],
        ),
        (
            "--response 'Cache-Control: public, max-age=9, no-cache=\"X-Mine\"' --response 'Set-Cookie: a=1' \
             --response 'X-Mine: 1' --response 'Keep-Alive: 5'",
            &[
                "without keep-alive: It is for one hop (RFC 9110 §7.6.1).",
                "without x-mine: The response keeps it from others (RFC 9111 §5.2.2.4, §5.2.2.7).",
                "without set-cookie: It is for the client that asked (RFC 9111 §7.3).",
            ],
        ),
        (
            "--response 'Cache-Control: max-age=9' --response 'Content-Length: 2000'",
            &[
                "response 200, not stored (too-large): Its content of 2000 bytes is larger than `cache.memory.max_object`, \
               1024 bytes.",
            ],
        ),
        ("-H 'Cache-Control: only-if-cached' --status 200", &["Cache-Status: Foreland; detail=local"]),
        (
            "-H 'Range: bytes=0-1' --response 'Cache-Control: max-age=9' --response 'Content-Length: 10'",
            &["again after 0s: fresh, 206: It is fresh (RFC 9111 §4.2)."],
        ),
        (
            "-H 'Range: bytes=0-1' --response 'Cache-Control: max-age=9'",
            &["again after 0s: fresh: It is fresh (RFC 9111 §4.2)."],
        ),
        (
            "-H 'If-None-Match: \"a\"' --response 'Cache-Control: max-age=9' --response 'ETag: \"a\"'",
            &["again after 0s: fresh, 304: It is fresh (RFC 9111 §4.2)."],
        ),
        (
            "-X POST --response 'Cache-Control: max-age=9' --response 'Content-Location: /page'",
            &[
                "response 200, stored for later GETs (RFC 9110 §9.3.3)",
                "Cache-Status: Foreland; fwd=bypass; fwd-status=200; stored",
                "invalidates /page (RFC 9111 §4.4)",
            ],
        ),
        (
            "-X DELETE --status 204 --response 'Location: /other'",
            &["invalidates /page (RFC 9111 §4.4)", "invalidates /other (RFC 9111 §4.4)"],
        ),
    ];
    for (args, lines) in cases {
        let said = explain("response", YAML, &format!("{args} http://example.com/page")).await;
        assert_eq!(said.code, Some(0), "{args}: {}{}", said.out, said.err);
        for line in *lines {
            assert!(said.says(line), "{args}\n{line}\n{}", said.out);
        }
    }
    // What is too large for memory may be for the disk.
    let memory = "cache: { memory: { size: 1MiB, max_object: 1KiB } }";
    let disk =
        "cache: { memory: { size: 1MiB, max_object: 1KiB }, disk: { path: /disk, size: 1MiB, max_object: 3KiB } }";
    let with_disk = YAML.replace(memory, disk);
    let of = |length: u32| format!("--response 'Content-Length: {length}' http://example.com/page");
    for (length, line) in [
        (1000, "Cache-Status: Foreland; hit; ttl=3600; detail=memory"),
        (2000, "Cache-Status: Foreland; hit; ttl=3600; detail=disk"),
        (
            4000,
            "response 200, not stored (too-large): Its content of 4000 bytes is larger than `max_object` of the disk \
             /disk, 3072 bytes.",
        ),
    ] {
        let said = explain("response", &with_disk, &of(length)).await;
        assert!(said.says(line), "{length}\n{line}\n{}{}", said.out, said.err);
    }
    let memory_alone = with_disk.replace("ttl: 1h,", "ttl: 1h, tiers: [memory],");
    let said = explain("response", &memory_alone, &of(2000)).await;
    assert!(said.out.contains("larger than `cache.memory.max_object`, 1024 bytes"), "{}{}", said.out, said.err);
    // What a clock has a part in.
    let json = explain(
        "response",
        &YAML.replace("ttl: 1h, heuristics: false", "heuristics: true"),
        &format!("--json --response '{heuristic}' --response '{past}' http://example.com/"),
    )
    .await
    .json();
    let facts = &json["response"]["facts"];
    assert_eq!((&facts["source"]["word"], &facts["lifetime_ms"]), (&"heuristic".into(), &91_000.into()), "{facts}");
    assert!(facts["initial_age_ms"].as_i64().is_some_and(|age| (89_000..95_000).contains(&age)), "{facts}");
}

#[tokio::test]
async fn nothing_is_printed_that_moves_the_cursor() {
    let said = explain("cursor", YAML, "-H 'X-Forwarded-Host: a\u{202e}b' http://example.com/img/a.png").await;
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.out.chars().all(|c| c == '\n' || !(c.is_control() || c == '\u{202e}')), "{:?}", said.out);
    let many: String = (0..20).map(|i| format!("      - match: {{ path: /{i} }}\n")).collect();
    let yaml = YAML.replace("      - name: secret\n", &format!("{many}      - name: secret\n"));
    let short = explain("cursor", &yaml, "http://example.com/x").await;
    assert!(
        short.says("not routes[7] (FILE:21:9): path is not /7") && short.says("and not 16 more (--verbose)"),
        "{}",
        short.out
    );
    assert!(!short.out.contains("routes[8]"), "{}", short.out);
    let all = explain("cursor", &yaml, "--verbose http://example.com/x").await;
    assert!(all.says("not routes[19] (FILE:33:9): path is not /19") && !all.out.contains("--verbose"), "{}", all.out);
}

#[tokio::test]
async fn the_page_shows_what_is_printed() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/explain.md");
    let text = std::fs::read_to_string(&page).expect("the page");
    let folder = folder("page");
    // A command is about the configuration that stands last before it.
    let configure = |text: &str| {
        for yaml in text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()) {
            std::fs::write(folder.join("foreland.yaml"), yaml).expect("written");
        }
    };
    let mut current = String::new();
    let mut examples = 0;
    for (index, part) in text.split("```console\n").enumerate() {
        let Some((block, rest)) = part.split_once("```").filter(|_| index > 0) else {
            current.push_str(part);
            configure(part);
            continue;
        };
        // The command goes on as long as its lines end with a backslash.
        let mut ends = false;
        let is_command = |line: &&str| !std::mem::replace(&mut ends, !line.ends_with('\\'));
        let command: Vec<&str> = block.lines().take_while(is_command).collect();
        let command = command.join("\n");
        let args = split(command.strip_prefix("$ foreland ").expect("a command"));
        let mut run = Command::new(env!("CARGO_BIN_EXE_foreland"));
        run.args(&args).current_dir(&folder).stdin(Stdio::null());
        let output = within("the command's end", tokio::task::spawn_blocking(move || run.output())).await;
        let output = output.expect("a task").expect("the binary starts");
        let printed = String::from_utf8(output.stdout).expect("text");
        current.push_str(&format!("```console\n{command}\n{printed}```{rest}"));
        configure(rest);
        examples += 1;
    }
    let _ = std::fs::remove_dir_all(&folder);
    assert!(examples >= 4);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&page, &current).expect("written");
    }
    assert!(current == text || std::env::var_os("UPDATE_GOLDEN").is_some(), "`make docs` writes anew:\n{current}");
}
