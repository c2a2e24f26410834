use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::sync::{Semaphore, oneshot};

use super::routes::{Access, OPENAPI, operations};
use super::*;
use crate::config::model::{Admin, AdminAddress, AdminToken, Role, Secret};

const LONG: Duration = Duration::from_secs(30);

/// An edge that does as it is told, and remembers what it was told.
struct Fake {
    ready: Mutex<Readiness>,
    reload: Mutex<Result<ReloadReport, String>>,
    settings: Mutex<Option<Admin>>,
    drained: Mutex<Vec<(String, String, bool)>>,
    metrics: Mutex<Vec<u8>>,
    purge: Mutex<Result<Purged, NotPurged>>,
    purged: Mutex<Vec<Purge>>,
    /// Purges that may be written down.
    writable: Arc<Semaphore>,
    /// Lookups of `http://slow/` that have begun, and whether they may end.
    slow: Mutex<(usize, bool)>,
    slower: Condvar,
}

impl Fake {
    fn new() -> Arc<Fake> {
        Arc::new(Fake {
            ready: Mutex::new(Readiness::Ready),
            reload: Mutex::new(Ok(ReloadReport { hash: "beef".to_owned(), needs_restart: Vec::new() })),
            settings: Mutex::default(),
            drained: Mutex::default(),
            metrics: Mutex::new(b"foreland_up 1\n".to_vec()),
            purge: Mutex::new(Ok(Purged { sequence: 7, at: UNIX_EPOCH + Duration::from_millis(1_234) })),
            purged: Mutex::default(),
            writable: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            slow: Mutex::default(),
            slower: Condvar::new(),
        })
    }
}

impl Control for Fake {
    fn ready(&self) -> Readiness {
        *self.ready.lock().unwrap()
    }

    fn effective(&self) -> (String, String) {
        ("cafe".to_owned(), "threads: 2\n".to_owned())
    }

    fn reload(&self) -> Result<ReloadReport, String> {
        self.reload.lock().unwrap().clone()
    }

    fn settings(&self) -> Option<Admin> {
        self.settings.lock().unwrap().clone()
    }

    fn origins(&self) -> Value {
        json!({ "origins": [{ "name": "media" }] })
    }

    fn set_drained(&self, origin: &str, server: &str, drained: bool) -> Result<(), String> {
        assert_ne!(origin, "panic", "as the test wants it");
        if origin != "media" {
            return Err(format!("there is no origin {origin}"));
        }
        self.drained.lock().unwrap().push((origin.to_owned(), server.to_owned(), drained));
        Ok(())
    }

    fn cache(&self) -> Value {
        json!({ "memory": { "objects": 3 } })
    }

    fn lookup(&self, url: &str, fields: &[String]) -> Result<Value, Unanswered> {
        match url {
            "http://nobody/" => Err(Unanswered::NoSite("no site".to_owned())),
            "http://slow/" => {
                let mut slow = self.slow.lock().unwrap();
                slow.0 += 1;
                self.slower.notify_all();
                drop(self.slower.wait_while(slow, |slow| !slow.1).unwrap());
                Ok(json!({}))
            }
            "nonsense" => Err(Unanswered::Bad("no URL".to_owned())),
            url => Ok(json!({ "url": url, "fields": fields })),
        }
    }

    fn purge(&self, purge: &Purge) -> Result<Purging, NotPurged> {
        self.purged.lock().unwrap().push(purge.clone());
        self.slower.notify_all();
        let (writable, answer) = (self.writable.clone(), self.purge.lock().unwrap().clone());
        match answer {
            Err(failure @ (NotPurged::Wrong(_) | NotPurged::Unavailable(_))) => Err(failure),
            written => Ok(Box::pin(async move {
                writable.acquire().await.unwrap().forget();
                written
            })),
        }
    }

    fn ledger(&self, limit: usize) -> Value {
        json!({ "limit": limit })
    }

    fn render_metrics(&self) -> Vec<u8> {
        self.metrics.lock().unwrap().clone()
    }
}

/// An admin listener on a free port.
struct Running {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<Serving>,
}

impl Running {
    fn start(control: Arc<Fake>, token: Option<&str>) -> Running {
        Running::with(control, config(AdminAddress::Tcp("127.0.0.1:0".parse().unwrap()), token))
    }

    /// With a token for each role beside the one that has none: `the purge`, `the read`, `the all`.
    fn with_roles(control: Arc<Fake>) -> Running {
        let mut config = config(AdminAddress::Tcp("127.0.0.1:0".parse().unwrap()), Some("secret"));
        config.tokens = Role::ALL
            .map(|role| AdminToken {
                name: role.as_str().to_owned(),
                secret: Secret(format!("the {}", role.as_str()).into_bytes(), "env:TOKEN".to_owned()),
                role,
            })
            .into();
        Running::with(control, config)
    }

    fn with(control: Arc<Fake>, config: Admin) -> Running {
        let bound = bind(&config).unwrap();
        let address = bound.address().unwrap();
        let (stop, stopped) = oneshot::channel();
        let serving = bound.serve(control, async move { drop(stopped.await) }).unwrap();
        Running { address, stop: Some(stop), serving: Some(serving) }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream
    }

    fn ask(&self, method: &str, target: &str, fields: &str) -> Answer {
        let mut stream = self.connect();
        let request =
            format!("{method} {target} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{fields}\r\n", self.address);
        stream.write_all(request.as_bytes()).unwrap();
        Answer::read(&mut BufReader::new(stream), method)
    }

    fn get(&self, target: &str) -> Answer {
        self.ask("GET", target, "")
    }

    fn purge(&self, body: &str) -> Answer {
        self.ask("POST", "/v1/purge", &with_body(body))
    }

    fn post(&self, target: &str) -> Answer {
        self.ask("POST", target, "")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.serving.take().unwrap().join();
    }
}

/// The fields of a request with a body, and it.
fn with_body(body: &str) -> String {
    format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn read(stream: &mut impl BufRead, method: &str) -> Answer {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(stream.read_line(&mut head).unwrap(), 0, "the head ends early: {head:?}");
        }
        let head = head.to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
        let mut body = vec![0; if method == "HEAD" { 0 } else { length }];
        stream.read_exact(&mut body).unwrap();
        Answer { status: head[9..12].parse().unwrap(), head, body: String::from_utf8(body).unwrap() }
    }

    fn json(&self) -> Value {
        assert!(self.head.contains("\r\ncontent-type: application/json\r\n"), "{}", self.head);
        serde_json::from_str(&self.body).unwrap()
    }

    fn error(&self) -> String {
        self.json()["error"].as_str().unwrap().to_owned()
    }
}

fn config(address: AdminAddress, token: Option<&str>) -> Admin {
    let token = token.map(|token| Secret(token.as_bytes().to_vec(), "env:TOKEN".to_owned()));
    Admin { address, token, tokens: Vec::new(), tls: None, clients: Vec::new() }
}

#[test]
fn probes_learn_one_word() {
    let fake = Fake::new();
    let admin = Running::start(Arc::clone(&fake), None);
    for (readiness, status, word) in [
        (Readiness::Starting, 503, "starting\n"),
        (Readiness::Ready, 200, "ready\n"),
        (Readiness::Draining, 503, "draining\n"),
    ] {
        *fake.ready.lock().unwrap() = readiness;
        let answer = admin.get("/readyz");
        assert_eq!((answer.status, answer.body.as_str()), (status, word));
        let answer = admin.get("/healthz");
        assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"));
        assert_eq!(admin.ask("HEAD", "/readyz", "").status, status);
    }
}

#[test]
fn every_route_answers() {
    let admin = Running::start(Fake::new(), None);
    let answer = admin.get("/metrics");
    assert_eq!((answer.status, answer.body.as_str()), (200, "foreland_up 1\n"));
    assert!(answer.head.contains("\r\ncontent-type: text/plain; version=0.0.4\r\n"), "{}", answer.head);
    assert!(answer.head.contains("\r\ncache-control: no-store\r\n"));
    assert_eq!(admin.get("/v1/config").json(), json!({ "hash": "cafe", "yaml": "threads: 2\n" }));
    assert_eq!(admin.get("/v1/origins").json(), json!({ "origins": [{ "name": "media" }] }));
    assert_eq!(admin.get("/v1/cache").json(), json!({ "memory": { "objects": 3 } }));
}

#[test]
fn a_url_is_looked_up_and_nothing_else_is_asked() {
    let admin = Running::start(Fake::new(), None);
    let answer = admin.get("/v1/cache?url=http%3A%2F%2Fa%2F%3Fb%3D1%26c&header=X-A:%20b&header=X-C:d");
    assert_eq!(answer.json(), json!({ "url": "http://a/?b=1&c", "fields": ["X-A: b", "X-C:d"] }));
    assert_eq!(admin.get("/v1/cache?url=http://nobody/").status, 404);
    assert_eq!(admin.get("/v1/cache?url=nonsense").status, 400);
    for (query, word) in [
        ("", "url"),
        ("header=a:b", "url"),
        ("url=http://a/&url=http://b/", "url"),
        ("url=http://a/?b=1&c=2", "\"c\""),
        ("url=%zz", "percent"),
        ("url=%ff", "UTF-8"),
    ] {
        let answer = admin.get(&format!("/v1/cache?{query}"));
        assert_eq!(answer.status, 400, "{query}");
        assert!(answer.error().contains(word), "{query}: {}", answer.error());
    }
    assert_eq!(admin.ask("POST", "/v1/cache?url=http://a/", "").status, 405);
}

#[test]
fn a_purge_is_handed_on_whole_and_its_outcome_told() {
    let fake = Fake::new();
    let admin = Running::start(Arc::clone(&fake), None);
    let answer = admin.purge(r#"{"urls": ["http://a/"], "tags": ["x", "y"], "soft": true}"#);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json(), json!({ "sequence": 7, "at": "1970-01-01T00:00:01.234Z" }));
    assert_described(&answer.json(), "Purged");
    let expected = Purge {
        urls: vec!["http://a/".to_owned()],
        tags: vec!["x".to_owned(), "y".to_owned()],
        soft: true,
        ..Purge::default()
    };
    assert_eq!(*fake.purged.lock().unwrap(), [expected]);

    let wrong = |value: String| WrongSelector { list: "hosts", index: 3, value, why: "it is none".to_owned() };
    *fake.purge.lock().unwrap() = Err(NotPurged::Wrong(vec![wrong("a b".to_owned()), wrong("x".repeat(10_000))]));
    let answer = admin.purge(r#"{"hosts": ["a b"]}"#);
    assert_eq!(answer.status, 400);
    let (short, json) = ("x".repeat(256) + "…", answer.json());
    assert_eq!(json["selectors"][0], json!({ "list": "hosts", "index": 3, "value": "a b", "error": "it is none" }));
    assert_eq!(json["selectors"][1]["value"], json!(short));
    assert_described(&json, "PurgeError");
    assert_described(&json["selectors"][0], "WrongSelector");
    assert!(answer.error().starts_with("2 selectors"), "{json}");

    *fake.purge.lock().unwrap() = Err(NotPurged::NotDurable { sequence: 8, why: "the disk is full".to_owned() });
    let answer = admin.purge(r#"{"everything": true}"#);
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json(), json!({ "error": "the disk is full", "sequence": 8, "in_force": true }));
    assert_described(&answer.json(), "NotDurable");
    assert!(!answer.head.contains("retry-after"), "{}", answer.head);

    *fake.purge.lock().unwrap() = Err(NotPurged::Unavailable("too many".to_owned()));
    let answer = admin.purge(r#"{"everything": true}"#);
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json(), json!({ "error": "too many", "in_force": false }));
    assert_described(&answer.json(), "Unavailable");
    assert!(answer.head.contains("\r\nretry-after: 1\r\n"), "{}", answer.head);
}

#[test]
fn a_disk_that_does_not_answer_keeps_no_purge_from_being_in_force() {
    const MANY: usize = 40;
    let fake = Fake::new();
    fake.writable.forget_permits(Semaphore::MAX_PERMITS);
    let admin = Running::start(fake.clone(), None);
    std::thread::scope(|scope| {
        let asked: Vec<_> = (0..MANY).map(|_| scope.spawn(|| admin.purge(r#"{"tags": ["x"]}"#))).collect();
        let in_force = || fake.slower.wait_timeout_while(fake.purged.lock().unwrap(), LONG, |it| it.len() < MANY);
        assert_eq!(in_force().unwrap().0.len(), MANY);
        assert!(asked.iter().all(|asked| !asked.is_finished()), "none of them is written down");
        fake.writable.add_permits(MANY);
        assert!(asked.into_iter().all(|asked| asked.join().unwrap().status == 200));
    });
}

/// As the description has it: all that is required, and nothing but what it knows.
#[track_caller]
fn assert_described(value: &Value, schema: &str) {
    let description: Value = serde_json::from_str(OPENAPI).unwrap();
    let schema = &description["components"]["schemas"][schema];
    for name in schema["required"].as_array().unwrap() {
        assert!(value.get(name.as_str().unwrap()).is_some(), "{name} is missing: {value}");
    }
    for (name, value) in value.as_object().unwrap() {
        let property = schema["properties"].get(name).unwrap_or_else(|| panic!("{name} is not described"));
        let right = match property["type"].as_str() {
            Some("string") => value.is_string(),
            Some("integer") => value.is_u64(),
            Some("array") => value.is_array(),
            _ => property["const"] == *value,
        };
        assert!(right, "{name}: {value} is not {property}");
    }
}

#[test]
fn what_is_no_purge_is_refused_and_not_handed_on() {
    let fake = Fake::new();
    let admin = Running::start(Arc::clone(&fake), None);
    let answer = admin.purge(r#"{"urls": ["a", ""], "tags": [1]}"#);
    assert_eq!(answer.status, 400);
    let selectors = json!([
        { "list": "urls", "index": 1, "value": "", "error": "it is empty" },
        { "list": "tags", "index": 0, "value": "1", "error": "it is not a string" },
    ]);
    assert_eq!(answer.json()["selectors"], selectors);
    let answer = admin.purge(r#"{"url": ["a"]}"#);
    assert_eq!(answer.status, 400);
    assert!(answer.error().contains("\"url\"") && answer.json().get("selectors").is_none(), "{answer:?}");
    assert_eq!(admin.post("/v1/purge").status, 400, "no body");

    let typed = |fields: &str| {
        let body = r#"{"tags":["a"]}"#;
        admin.ask("POST", "/v1/purge", &format!("{fields}Content-Length: {}\r\n\r\n{body}", body.len()))
    };
    for wrong in ["application/x-www-form-urlencoded", "text/json", "application/jsonp", ""] {
        let answer = typed(&format!("Content-Type: {wrong}\r\n"));
        assert_eq!(answer.status, 415, "{wrong}");
        assert!(answer.error().contains("application/json"));
    }
    assert_eq!(typed("Content-Type: application/json\r\nContent-Type: text/plain\r\n").status, 415);
    assert!(fake.purged.lock().unwrap().is_empty());
    for right in ["", "Content-Type: application/json\r\n", "Content-Type: Application/JSON ; charset=utf-8\r\n"] {
        assert_eq!(typed(right).status, 200, "{right}");
    }
}

#[test]
fn a_purge_has_a_body_limit_of_its_own() {
    const LIMIT: usize = 16 << 20;
    let fake = Fake::new();
    let admin = Running::start(Arc::clone(&fake), None);
    let tag = "t".repeat(LIMIT - r#"{"tags":[""]}"#.len());
    let body = format!(r#"{{"tags":["{tag}"]}}"#);
    assert_eq!(body.len(), LIMIT);
    assert_eq!(admin.purge(&body).status, 200);
    assert_eq!(fake.purged.lock().unwrap()[0].tags, [tag]);
    // One that says how long it is, before any of it is sent.
    let mut stream = admin.connect();
    let length = LIMIT + 1;
    write!(stream, "POST /v1/purge HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n\r\n").unwrap();
    assert_eq!(Answer::read(&mut BufReader::new(stream), "POST").status, 413);
    // One that does not: the last byte of these is one too many.
    let mut stream = admin.connect();
    write!(stream, "POST /v1/purge HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
    write!(stream, "{length:x}\r\n{}\r\n", " ".repeat(length)).unwrap();
    assert_eq!(Answer::read(&mut BufReader::new(stream), "POST").status, 413);
}

/// Lookups on a disk that does not answer, and large bodies that do not come.
#[test]
fn a_purge_stands_behind_nothing_else() {
    let fake = Fake::new();
    let admin = Running::start(Arc::clone(&fake), None);
    let slow: Vec<_> = (0..8)
        .map(|_| {
            let mut stream = admin.connect();
            let request = "GET /v1/cache?url=http://slow/ HTTP/1.1\r\nHost: localhost\r\n\r\n";
            stream.write_all(request.as_bytes()).unwrap();
            stream
        })
        .collect();
    // As many as are let in at once.
    drop(fake.slower.wait_while(fake.slow.lock().unwrap(), |slow| slow.0 < 4).unwrap());
    let large: Vec<_> = (0..8)
        .map(|_| {
            let mut stream = admin.connect();
            let head = "POST /v1/purge HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000000\r\n\r\n";
            stream.write_all(head.as_bytes()).unwrap();
            stream
        })
        .collect();
    assert_eq!(admin.purge(r#"{"tags":["a"]}"#).status, 200);
    assert_eq!(fake.slow.lock().unwrap().0, 4, "the others are still waiting");
    fake.slow.lock().unwrap().1 = true;
    fake.slower.notify_all();
    for stream in slow {
        assert_eq!(Answer::read(&mut BufReader::new(stream), "GET").status, 200);
    }
    drop(large);
}

#[test]
fn the_ledger_is_asked_for_so_many_entries() {
    let admin = Running::start(Fake::new(), None);
    for (query, limit) in [("", 100), ("?", 100), ("?limit=1", 1), ("?limit=1000", 1000), ("?%6cimit=%31%30", 10)] {
        assert_eq!(admin.get(&format!("/v1/ledger{query}")).json(), json!({ "limit": limit }), "{query}");
    }
    for query in [
        "limit=0",
        "limit=1001",
        "limit=+1",
        "limit=-1",
        "limit=",
        "limit",
        "limit=ten",
        "limit=1.0",
        "limit=99999999999999999999999",
        "limit=1&limit=1",
        "limit=1&since=2",
        "Limit=1",
        "limit=%ff",
    ] {
        let answer = admin.get(&format!("/v1/ledger?{query}"));
        assert_eq!(answer.status, 400, "{query}");
        assert!(!answer.error().is_empty());
    }
}

#[test]
fn a_reload_says_what_came_of_it() {
    let fake = Fake::new();
    let admin = Running::start(Arc::clone(&fake), None);
    fake.reload.lock().unwrap().as_mut().unwrap().needs_restart.push("listeners".to_owned());
    let answer = admin.post("/v1/reload");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json(), json!({ "reloaded": true, "hash": "beef", "needs_restart": ["listeners"] }));
    *fake.reload.lock().unwrap() = Err("a.yaml:1:2: what?\na.yaml:3:4: how?\n".to_owned());
    let answer = admin.post("/v1/reload");
    assert_eq!(answer.status, 422);
    assert_eq!(answer.json(), json!({ "reloaded": false, "error": "a.yaml:1:2: what?\na.yaml:3:4: how?" }));
}

#[test]
fn servers_are_drained_and_taken_back() {
    let fake = Fake::new();
    let admin = Running::start(Arc::clone(&fake), None);
    let answer = admin.post("/v1/origins/media/servers/127.0.0.1:9001/drain");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json(), json!({ "origin": "media", "server": "127.0.0.1:9001", "drained": true }));
    assert_eq!(admin.post("/v1/origins/media/servers/%5B::1%5D:80/undrain").status, 200);
    let told = [("media", "127.0.0.1:9001", true), ("media", "[::1]:80", false)];
    let told: Vec<_> = told.map(|(o, s, d)| (o.to_owned(), s.to_owned(), d)).into();
    assert_eq!(*fake.drained.lock().unwrap(), told);
    let answer = admin.post("/v1/origins/nothing/servers/a/drain");
    assert_eq!((answer.status, answer.error().as_str()), (404, "there is no origin nothing"));
}

#[test]
fn what_cannot_be_asked_is_refused_in_json() {
    let admin = Running::start(Fake::new(), None);
    for target in ["/", "/v1", "/v1/nothing", "/v1/origins/media/servers/a/explode", "/metrics/"] {
        let answer = admin.get(target);
        assert_eq!(answer.status, 404, "{target}");
        assert!(!answer.error().is_empty());
    }
    for (method, target, allowed) in
        [("GET", "/v1/reload", "post"), ("POST", "/metrics", "get,head"), ("PUT", "/healthz", "get,head")]
    {
        let answer = admin.ask(method, target, "");
        assert_eq!(answer.status, 405, "{method} {target}");
        assert!(answer.error().starts_with(method));
        assert!(answer.head.contains(&format!("\r\nallow: {allowed}\r\n")), "{}", answer.head);
    }
    for target in ["/v1/config?url=http://a/", "/v1/origins?", "/v1/openapi.json?a"] {
        assert_eq!(admin.get(target).status, 400, "{target}");
    }
    assert_eq!(admin.ask("POST", "/v1/purge?soft=1", &with_body(r#"{"tags":["a"]}"#)).status, 400);
    assert_eq!(admin.post("/v1/origins/%ff/servers/a/drain").status, 400);
    assert_eq!(admin.get("/metrics?format=x").status, 200, "scrapers may be configured to send parameters");
}

#[test]
fn a_token_guards_all_but_the_probes() {
    let admin = Running::start(Fake::new(), Some("secret"));
    for target in ["/metrics", "/v1/config", "/v1/origins", "/v1/cache", "/v1/nothing", "/"] {
        for fields in ["", "Authorization: Bearer wrong\r\n"] {
            let answer = admin.ask("GET", target, fields);
            assert_eq!(answer.status, 401, "{target}");
            assert!(answer.head.contains("\r\nwww-authenticate: bearer "), "{}", answer.head);
            assert!(!answer.error().is_empty());
        }
    }
    assert_eq!(admin.post("/v1/reload").status, 401);
    assert_eq!(admin.post("/metrics").status, 401, "nor is it told which methods there are");
    assert_eq!(admin.post("/v1/origins/media/servers/a/drain").status, 401);
    assert_eq!(admin.get("/healthz").status, 200);
    assert_eq!(admin.get("/readyz").status, 200);
    assert_eq!(admin.ask("GET", "/metrics", "Authorization: Bearer secret\r\n").status, 200);
    assert_eq!(admin.ask("POST", "/v1/reload", "Authorization: Bearer secret\r\n").status, 200);
}

#[test]
fn a_role_goes_so_far_and_no_further() {
    let fake = Fake::new();
    let admin = Running::with_roles(Arc::clone(&fake));
    let ask = |method: &str, target: &str, token: &str| {
        let body = if target == "/v1/purge" { r#"{"tags":["a"]}"# } else { "" };
        admin.ask(method, target, &format!("Authorization: Bearer {token}\r\n{}", with_body(body)))
    };
    for (method, target, purge, read) in [
        ("GET", "/metrics", false, true),
        ("HEAD", "/metrics", false, true),
        ("GET", "/v1/config", false, true),
        ("GET", "/v1/origins", false, true),
        ("GET", "/v1/cache", false, true),
        ("GET", "/v1/cache?url=http://a/", false, true),
        ("GET", "/v1/ledger", true, true),
        ("GET", "/v1/openapi.json", true, true),
        ("POST", "/v1/purge", true, false),
        ("POST", "/v1/reload", false, false),
        ("POST", "/v1/origins/media/servers/a/drain", false, false),
        ("POST", "/v1/origins/media/servers/a/undrain", false, false),
    ] {
        for (token, may) in [("the purge", purge), ("the read", read), ("the all", true), ("secret", true)] {
            let answer = ask(method, target, token);
            assert_eq!(answer.status, if may { 200 } else { 403 }, "{method} {target} with {token}");
            let challenge = "\r\nwww-authenticate: bearer realm=\"foreland\", error=\"insufficient_scope\"\r\n";
            assert_eq!(answer.head.contains(challenge), !may);
            if !may && method != "HEAD" {
                let needed = [("`purge`", purge), ("`read`", read), ("`all`", true)];
                let error = answer.error();
                let (said, _) = error.split_once(';').unwrap();
                assert!(needed.iter().all(|(role, may)| said.contains(role) == *may), "{error}");
                assert!(error.ends_with(&format!("`{}`", &token[4..])), "{error}");
            }
        }
        assert_eq!(ask(method, target, "wrong").status, 401);
    }
    assert_eq!(fake.purged.lock().unwrap().len(), 3);
    assert_eq!(fake.drained.lock().unwrap().len(), 4);
    for target in ["/healthz", "/readyz"] {
        assert_eq!(ask("GET", target, "wrong").status, 200);
    }
}

#[test]
fn a_body_is_not_awaited_before_the_role_is_checked() {
    let admin = Running::with_roles(Fake::new());
    let mut stream = admin.connect();
    let fields = "Host: localhost\r\nAuthorization: Bearer the read\r\nContent-Length: 1000";
    write!(stream, "POST /v1/purge HTTP/1.1\r\n{fields}\r\n\r\n").unwrap();
    assert_eq!(Answer::read(&mut BufReader::new(stream), "POST").status, 403);
}

/// The description has what there is, with the right roles, and there is what it has.
#[test]
fn the_description_is_of_all_routes_and_no_others() {
    let description: Value = serde_json::from_str(OPENAPI).unwrap();
    assert_eq!(description["info"]["version"], env!("CARGO_PKG_VERSION"));
    let described: Vec<(String, String)> = description["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| item.as_object().unwrap().keys().map(|method| (path.clone(), method.to_uppercase())))
        .collect();
    let mut there: Vec<_> = operations().iter().map(|it| (it.path.to_owned(), it.method.to_string())).collect();
    there.sort();
    assert_eq!(described, there);
    for operation in operations() {
        let security = &description["paths"][operation.path][operation.method.as_str().to_lowercase()]["security"];
        let expected = match operation.access {
            Access::Open => json!([]),
            Access::Roles(roles) => {
                let roles = roles.iter().chain([&Role::All]).map(|role| json!({ "bearer": [role.as_str()] }));
                roles.chain([json!({})]).collect()
            }
        };
        assert_eq!(*security, expected, "{} {}", operation.method, operation.path);
    }
    // And of those, the router has exactly the methods.
    let admin = Running::start(Fake::new(), None);
    for (path, _) in &described {
        let target = path.replace("{origin}", "media").replace("{server}", "a");
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
            let answer = admin.ask(method, &target, "");
            let known = described.contains(&(path.clone(), method.to_owned()));
            assert_eq!(answer.status != 405 && answer.status != 404, known, "{method} {target}: {}", answer.status);
        }
    }
    assert_eq!(admin.get("/v1/openapi.json").json(), description);
}

#[test]
fn without_a_token_web_pages_are_kept_out() {
    let fake = Fake::new();
    let admin = Running::start(Arc::clone(&fake), None);
    let mut stream = admin.connect();
    stream.write_all(b"GET /v1/config HTTP/1.1\r\nHost: rebound.example\r\n\r\n").unwrap();
    assert_eq!(Answer::read(&mut BufReader::new(stream), "GET").status, 403);
    let target = "/v1/origins/media/servers/a/drain";
    assert_eq!(admin.ask("POST", target, "Origin: http://evil.example\r\n").status, 403);
    assert!(fake.drained.lock().unwrap().is_empty());
    assert_eq!(admin.post(target).status, 200);
}

#[test]
fn a_body_has_a_limit() {
    let admin = Running::start(Fake::new(), None);
    let mut stream = admin.connect();
    let size = (1 << 20) + 1;
    write!(stream, "POST /v1/reload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {size}\r\n\r\n").unwrap();
    // The answer may come, and the connection end, before all is sent.
    let _ = stream.write_all(&vec![b'x'; size]);
    assert_eq!(Answer::read(&mut BufReader::new(stream), "POST").status, 413);
    assert_eq!(admin.ask("POST", "/v1/reload", "Content-Length: 2\r\n\r\n{}").status, 200);
}

#[test]
fn a_body_is_not_awaited_before_the_token_is_checked() {
    let admin = Running::start(Fake::new(), Some("secret"));
    let mut stream = admin.connect();
    stream.write_all(b"POST /v1/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n").unwrap();
    assert_eq!(Answer::read(&mut BufReader::new(stream), "POST").status, 401);
}

#[test]
fn a_connection_is_kept_for_further_requests() {
    let admin = Running::start(Fake::new(), None);
    let mut stream = BufReader::new(admin.connect());
    for _ in 0..3 {
        stream.get_mut().write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        assert_eq!(Answer::read(&mut stream, "GET").status, 200);
    }
}

#[test]
fn a_panic_behind_a_request_is_that_requests_alone() {
    let admin = Running::start(Fake::new(), None);
    let answer = admin.post("/v1/origins/panic/servers/a/drain");
    assert_eq!(answer.status, 500);
    assert!(!answer.error().is_empty());
    assert_eq!(admin.get("/v1/cache").status, 200);
}

#[test]
fn shutdown_closes_idle_connections_and_the_listener() {
    let mut admin = Running::start(Fake::new(), None);
    let mut idle = BufReader::new(admin.connect());
    idle.get_mut().write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert_eq!(Answer::read(&mut idle, "GET").status, 200);
    drop(admin.stop.take());
    assert_eq!(idle.read_to_end(&mut Vec::new()).unwrap(), 0);
    let address = admin.address;
    drop(admin);
    // Nobody holds the address any more.
    drop(TcpListener::bind(address).unwrap());
}

#[test]
fn an_address_in_use_is_an_error_that_names_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = bind(&config(AdminAddress::Tcp(address), None)).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[test]
fn a_listener_of_somebody_else_is_served() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let bound = Bound::from_listener(listener, &config(AdminAddress::Tcp(address), Some("secret")));
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = bound.serve(Fake::new(), async move { drop(stopped.await) }).unwrap();
    let admin = Running { address, stop: Some(stop), serving: Some(serving) };
    assert_eq!(admin.get("/metrics").status, 401);
}

/// A reload gives and takes tokens, on connections that are open already too.
#[test]
fn tokens_follow_a_reload_while_the_address_stays() {
    let fake = Fake::new();
    let of = |address: &str, token| config(AdminAddress::Tcp(address.parse().unwrap()), token);
    let admin = Running::with(Arc::clone(&fake), of("127.0.0.1:0", Some("first")));
    let mut stream = BufReader::new(admin.connect());
    let mut status = |token: &str| {
        let request = format!("GET /v1/cache HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n");
        stream.get_mut().write_all(request.as_bytes()).unwrap();
        Answer::read(&mut stream, "GET").status
    };
    let put = |settings| *fake.settings.lock().unwrap() = settings;
    assert_eq!((status("first"), status("second")), (200, 401));
    put(Some(of("127.0.0.1:0", Some("second"))));
    assert_eq!((status("first"), status("second")), (401, 200));
    // What is right for another address says nothing of this one.
    put(Some(of("127.0.0.2:0", None)));
    assert_eq!((status("first"), status("second")), (401, 200));
    put(None);
    assert_eq!((status("first"), status("second")), (401, 200));
    put(Some(of("127.0.0.1:0", None)));
    assert_eq!(status("first"), 200);
}

/// A path for a socket, in a directory that is removed at the end.
struct SocketPath(PathBuf);

impl SocketPath {
    fn new(test: &str) -> SocketPath {
        let directory = std::env::temp_dir().join(format!("foreland-admin-{}-{test}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        SocketPath(directory.join("admin.sock"))
    }

    fn bind(&self) -> std::io::Result<Bound> {
        bind(&config(AdminAddress::Unix(self.0.clone()), None))
    }
}

impl Drop for SocketPath {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.0.parent().unwrap());
    }
}

fn ask_socket(path: &Path) -> Answer {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.write_all(b"GET /v1/cache HTTP/1.1\r\nHost: whatever\r\n\r\n").unwrap();
    Answer::read(&mut BufReader::new(stream), "GET")
}

#[test]
fn a_unix_socket_is_its_owners_and_goes_with_the_listener() {
    let path = SocketPath::new("owner");
    let bound = path.bind().unwrap();
    assert_eq!(std::fs::metadata(&path.0).unwrap().permissions().mode() & 0o777, 0o600);
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = bound.serve(Fake::new(), async move { drop(stopped.await) }).unwrap();
    assert_eq!(ask_socket(&path.0).status, 200);
    assert_eq!(path.bind().unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    assert_eq!(ask_socket(&path.0).status, 200, "the attempt did not hurt the listener");
    drop(stop);
    serving.join();
    assert!(!path.0.exists());
}

#[test]
fn a_socket_that_nobody_listens_on_is_replaced_and_other_files_are_not() {
    let path = SocketPath::new("stale");
    drop(std::os::unix::net::UnixListener::bind(&path.0).unwrap());
    assert!(path.0.exists());
    drop(path.bind().unwrap());
    std::fs::write(&path.0, "precious").unwrap();
    assert!(path.bind().is_err());
    assert_eq!(std::fs::read_to_string(&path.0).unwrap(), "precious");
}
