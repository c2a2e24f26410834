//! The edge under test: the real binary as a process of its own, with its files in a folder of its own.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Pid, Signal, kill_process};

use super::client::{Ask, Connection, Response, exchange};
use super::{H2Connection, Identity, Metrics, Origin, Port, eventually};

/// A running edge. Killed as it is dropped; where the test panics, its log is printed and its files stay.
pub struct Edge {
    place: Arc<Place>,
    child: Mutex<Child>,
    serial: usize,
    token: Option<String>,
}

/// What to start, where the YAML alone does not say it.
pub struct EdgeBuilder {
    yaml: String,
    files: Vec<(String, Vec<u8>)>,
    env: Vec<(String, String)>,
    token: Option<String>,
}

/// The files and ports of an edge, which its successor in an upgrade shares.
struct Place {
    folder: PathBuf,
    http: Port,
    h2c: Port,
    tls: Port,
    admin: Port,
    /// What the builder said, for successors.
    env: Vec<(String, String)>,
    started: AtomicUsize,
}

impl Edge {
    /// Starts an edge with this YAML, and waits until it takes traffic.
    ///
    /// `{port}`, `{h2c}`, `{tls}`, `{admin}` (ports) and `{dir}` (a folder) are filled in. Where the YAML has none of its own,
    /// it is given: `listeners` on `{port}` (HTTP/1.1) and `{h2c}` (HTTP/2 too), `admin` on `{admin}`, `access_log`
    /// as JSON in `{dir}/access.log`, and two worker threads.
    pub async fn start(yaml: &str) -> Edge {
        Edge::builder(yaml).start().await
    }

    /// Starts an edge with a site for every host before this origin; `site` is further YAML of the site's mapping,
    /// indented as at its top.
    pub async fn before(origin: &Origin, site: &str) -> Edge {
        Edge::start(&Edge::yaml_before(&[origin], site)).await
    }

    /// The YAML of [`Edge::before`], for one origin with several servers.
    pub fn yaml_before(servers: &[&Origin], site: &str) -> String {
        let servers: Vec<_> = servers.iter().map(|o| o.address().to_string()).collect();
        let mut yaml = format!(
            "origins:\n  o:\n    servers: [{}]\nsites:\n  - hosts: [\"*\"]\n    origin: o\n",
            servers.iter().map(|s| format!("\"{s}\"")).collect::<Vec<_>>().join(", ")
        );
        for line in site.lines() {
            yaml.push_str(&format!("    {line}\n"));
        }
        yaml
    }

    pub fn builder(yaml: &str) -> EdgeBuilder {
        EdgeBuilder { yaml: yaml.into(), files: Vec::new(), env: Vec::new(), token: None }
    }

    /// Runs the binary with these arguments to its end: its status, standard output and standard error.
    pub async fn command(args: &[&str]) -> (ExitStatus, String, String) {
        let mut command = Command::new(BINARY);
        command.args(args).stdin(Stdio::null());
        let run = tokio::task::spawn_blocking(move || command.output());
        let output = super::within("the binary's end", run).await.expect("a task").expect("the binary starts");
        let text = |b: Vec<u8>| String::from_utf8_lossy(&b).into_owned();
        (output.status, text(output.stdout), text(output.stderr))
    }

    /// The HTTP/1.1 listener.
    pub fn address(&self) -> SocketAddr {
        self.place.http.address()
    }

    /// The listener that also speaks HTTP/2 with prior knowledge.
    pub fn h2c_address(&self) -> SocketAddr {
        self.place.h2c.address()
    }

    /// Where the YAML has `{tls}`.
    pub fn tls_address(&self) -> SocketAddr {
        self.place.tls.address()
    }

    pub fn admin_address(&self) -> SocketAddr {
        self.place.admin.address()
    }

    /// The folder `{dir}`.
    pub fn folder(&self) -> &Path {
        &self.place.folder
    }

    pub async fn get(&self, target: &str) -> Response {
        self.ask(&Ask::get(target)).await
    }

    /// One exchange over a connection of its own.
    pub async fn ask(&self, ask: &Ask) -> Response {
        exchange(self.address(), ask).await
    }

    pub async fn connect(&self) -> Connection {
        Connection::open(self.address()).await
    }

    pub async fn connect_h2(&self) -> H2Connection {
        H2Connection::open(self.h2c_address()).await
    }

    pub async fn admin_get(&self, target: &str) -> Response {
        self.admin(Ask::get(target)).await
    }

    /// POST with a JSON body; an empty string sends no body.
    pub async fn admin_post(&self, target: &str, json: &str) -> Response {
        let ask = Ask::new("POST", target);
        let ask = if json.is_empty() {
            ask.header("Content-Length", "0")
        } else {
            ask.header("Content-Type", "application/json").body(json.to_owned())
        };
        self.admin(ask).await
    }

    /// One exchange with the control API, with its address as Host and the token where there is one.
    pub async fn admin(&self, ask: Ask) -> Response {
        let mut ask = ask.host(&self.admin_address().to_string());
        if let Some(token) = &self.token {
            ask = ask.header("Authorization", format!("Bearer {token}"));
        }
        exchange(self.admin_address(), &ask).await
    }

    pub async fn metrics(&self) -> Metrics {
        Metrics::parse(self.admin_get("/metrics").await.text())
    }

    /// Waits until a scrape satisfies `condition`.
    pub async fn wait_metrics(&self, what: &str, mut condition: impl FnMut(&Metrics) -> bool) {
        eventually(what, async || condition(&self.metrics().await)).await;
    }

    pub fn config_path(&self) -> PathBuf {
        self.place.folder.join("foreland.yaml")
    }

    /// Replaces the configuration in one step; the edge reads it when it is told to.
    pub fn write_config(&self, yaml: &str) {
        self.place.write_config(yaml);
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: Signal) {
        let pid = self.pid();
        kill_process(pid, signal).unwrap_or_else(|e| panic!("cannot signal {pid:?}: {e}"));
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child())
    }

    pub fn is_running(&self) -> bool {
        matches!(self.child().try_wait(), Ok(None))
    }

    /// Waits for the process to end by itself.
    pub async fn wait_exit(&self) -> ExitStatus {
        let mut status = None;
        eventually("the edge's exit", async || {
            status = self.child().try_wait().expect("the edge's status");
            status.is_some()
        })
        .await;
        status.expect("was waited for")
    }

    /// What the process has written to standard error, and to standard output, so far.
    pub fn log(&self) -> String {
        self.output("stderr") + &self.output("stdout")
    }

    /// Standard output alone.
    pub fn stdout(&self) -> String {
        self.output("stdout")
    }

    /// Waits until [`Edge::log`] has this text.
    pub async fn wait_log(&self, text: &str) {
        eventually(&format!("{text:?} in the log"), async || self.log().contains(text)).await;
    }

    /// The whole lines of `{dir}/access.log` so far, as JSON.
    pub fn access_log(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.place.folder.join("access.log")).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let json = |l| serde_json::from_str(l).unwrap_or_else(|e| panic!("not JSON in the access log ({e}): {l}"));
        whole.lines().map(json).collect()
    }

    /// Waits until the access log has `n` lines in all.
    pub async fn access_log_lines(&self, n: usize) -> Vec<serde_json::Value> {
        eventually(&format!("{n} lines in the access log"), async || self.access_log().len() >= n).await;
        self.access_log()
    }

    /// Starts the binary once more on the same files and ports with `--upgrade`, and does not wait for it.
    pub fn successor(&self) -> Edge {
        Edge::spawn(Arc::clone(&self.place), &["--upgrade"], self.token.clone())
    }

    /// Starts the binary once more on the same files and ports, where the process before has ended. Does not wait for it.
    pub fn again(&self) -> Edge {
        Edge::spawn(Arc::clone(&self.place), &[], self.token.clone())
    }

    /// Ends the process as an operator does, and starts another on the same files and ports.
    pub async fn restart(&self) -> Edge {
        self.signal(Signal::TERM);
        let status = self.wait_exit().await;
        assert!(status.success(), "{status}");
        let next = self.again();
        next.wait_ready().await;
        next
    }

    /// Ends the process as a power cut of its own: it has no say in it.
    pub async fn kill(&self) {
        self.signal(Signal::KILL);
        self.wait_exit().await;
    }

    /// Waits until `/readyz` says ready and the listener accepts; panics where the process ends instead.
    pub async fn wait_ready(&self) {
        eventually("the edge to be ready", async || {
            if let Ok(Some(status)) = self.child().try_wait() {
                panic!("the edge ended instead of getting ready: {status}");
            }
            self.is_ready().await && Connection::try_open(self.address()).await.is_some()
        })
        .await;
    }

    async fn is_ready(&self) -> bool {
        let ask = Ask::get("/readyz").host(&self.admin_address().to_string());
        let Some(mut connection) = Connection::try_open(self.admin_address()).await else { return false };
        if connection.try_send(ask.bytes()).await.is_err() {
            return false;
        }
        connection.try_head("GET").await.is_some_and(|r| r.status == 200)
    }

    fn spawn(place: Arc<Place>, args: &[&str], token: Option<String>) -> Edge {
        let serial = place.started.fetch_add(1, Ordering::Relaxed);
        let file = |name: &str| File::create(place.folder.join(format!("{name}.{serial}"))).expect("a log file");
        let child = Command::new(BINARY)
            .arg("run")
            .arg("-c")
            .arg(place.folder.join("foreland.yaml"))
            .args(args)
            .env_remove("NOTIFY_SOCKET")
            .envs(place.env.iter().map(|(n, v)| (n, v)))
            .stdin(Stdio::null())
            .stdout(file("stdout"))
            .stderr(file("stderr"))
            .spawn()
            .expect("the binary starts");
        Edge { place, child: Mutex::new(child), serial, token }
    }

    fn output(&self, name: &str) -> String {
        let bytes = fs::read(self.place.folder.join(format!("{name}.{}", self.serial))).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        let mut child = self.child();
        // Both fail only where it has ended already.
        let _ = child.kill();
        let _ = child.wait();
        drop(child);
        if std::thread::panicking() {
            // `print!` is what the test runner captures and shows beside the panic.
            println!("--- log of the edge in {}:\n{}---", self.place.folder.display(), self.log());
        }
    }
}

impl EdgeBuilder {
    /// Puts a file beside the configuration.
    pub fn file(mut self, name: &str, bytes: impl Into<Vec<u8>>) -> EdgeBuilder {
        self.files.push((name.into(), bytes.into()));
        self
    }

    /// Puts `NAME.pem` and `NAME.key` beside the configuration.
    pub fn identity(self, name: &str, identity: &Identity) -> EdgeBuilder {
        self.file(&format!("{name}.pem"), identity.certificate.as_str())
            .file(&format!("{name}.key"), identity.key.as_str())
    }

    pub fn env(mut self, name: &str, value: &str) -> EdgeBuilder {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Sends this token to the control API. The YAML names it; [`EdgeBuilder::env`] may hold it.
    pub fn token(mut self, token: &str) -> EdgeBuilder {
        self.token = Some(token.into());
        self
    }

    /// Starts it, and waits until it takes traffic.
    pub async fn start(self) -> Edge {
        let edge = self.spawn();
        edge.wait_ready().await;
        edge
    }

    /// Starts it, and does not wait: for an edge that is to refuse its configuration, say.
    pub fn spawn(self) -> Edge {
        let place = Place {
            folder: new_folder(),
            http: Port::reserve(),
            h2c: Port::reserve(),
            tls: Port::reserve(),
            admin: Port::reserve(),
            env: self.env,
            started: AtomicUsize::new(0),
        };
        for (name, bytes) in self.files {
            fs::write(place.folder.join(name), bytes).expect("a file beside the configuration");
        }
        place.write_config(&self.yaml);
        Edge::spawn(Arc::new(place), &[], self.token)
    }
}

const BINARY: &str = env!("CARGO_BIN_EXE_foreland");

/// What a YAML without this key is given.
const DEFAULTS: [(&str, &str); 4] = [
    ("listeners:", "  - address: 127.0.0.1:{port}\n  - { address: \"127.0.0.1:{h2c}\", h2c: true }\n"),
    ("admin:", "  address: 127.0.0.1:{admin}\n"),
    ("access_log:", "  path: \"{dir}/access.log\"\n  format: json\n"),
    ("threads:", "  2\n"),
];

impl Place {
    fn write_config(&self, yaml: &str) {
        let target = self.folder.join("foreland.yaml");
        let temporary = self.folder.join("foreland.yaml.new");
        fs::write(&temporary, self.complete(yaml)).expect("a configuration is written");
        fs::rename(&temporary, &target).expect("a configuration is put in place");
    }

    fn complete(&self, yaml: &str) -> String {
        let mut out = yaml.trim_end().to_owned() + "\n";
        for (key, value) in DEFAULTS {
            if !yaml.lines().any(|l| l.starts_with(key)) {
                out.push_str(key);
                out.push('\n');
                out.push_str(value);
            }
        }
        out.replace("{port}", &self.http.address().port().to_string())
            .replace("{h2c}", &self.h2c.address().port().to_string())
            .replace("{tls}", &self.tls.address().port().to_string())
            .replace("{admin}", &self.admin.address().port().to_string())
            .replace("{dir}", &self.folder.display().to_string())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // Left-overs are below Cargo's target folder and hurt nobody.
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

fn new_folder() -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("edge-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    // A process with the same number may have left one behind.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder for the edge");
    folder
}

#[tokio::test]
async fn completes_a_configuration() {
    let place = Place {
        folder: PathBuf::from("/folder"),
        http: Port::reserve(),
        h2c: Port::reserve(),
        tls: Port::reserve(),
        admin: Port::reserve(),
        env: Vec::new(),
        started: AtomicUsize::new(0),
    };
    let yaml = place.complete("threads: 1\naccess_log: off\nsites: []\npid_file: {dir}/pid\n");
    let (http, h2c, admin) = (place.http.address(), place.h2c.address(), place.admin.address());
    assert_eq!(
        yaml,
        format!(
            "threads: 1\naccess_log: off\nsites: []\npid_file: /folder/pid\nlisteners:\n  - address: {http}\n  - {{ address: \"{h2c}\", h2c: true }}\nadmin:\n  address: {admin}\n"
        )
    );
}
