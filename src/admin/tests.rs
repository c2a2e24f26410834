use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::*;
use crate::config::model::{Admin, AdminAddress, Secret};

const LONG: Duration = Duration::from_secs(30);

/// An edge that does as it is told, and remembers what it was told.
struct Fake {
    ready: Mutex<Readiness>,
    reload: Mutex<Result<ReloadReport, String>>,
    drained: Mutex<Vec<(String, String, bool)>>,
    metrics: Mutex<Vec<u8>>,
}

impl Fake {
    fn new() -> Arc<Fake> {
        Arc::new(Fake {
            ready: Mutex::new(Readiness::Ready),
            reload: Mutex::new(Ok(ReloadReport { hash: "beef".to_owned(), needs_restart: Vec::new() })),
            drained: Mutex::default(),
            metrics: Mutex::new(b"foreland_up 1\n".to_vec()),
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
            "nonsense" => Err(Unanswered::Bad("no URL".to_owned())),
            url => Ok(json!({ "url": url, "fields": fields })),
        }
    }

    fn purge(&self, _: &Purge) -> Result<Purged, NotPurged> {
        Err(NotPurged::Unavailable("not yet".to_owned()))
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
        let config = config(AdminAddress::Tcp("127.0.0.1:0".parse().unwrap()), token);
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
    Admin { address, token: token.map(|token| Secret(token.as_bytes().to_vec(), "env:TOKEN".to_owned())) }
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
    for target in ["/v1/config?url=http://a/", "/v1/origins?", "/v1/cache/?url=http://a/"] {
        assert_eq!(admin.get(target).status, 400, "{target}");
    }
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
