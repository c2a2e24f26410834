//! Tools: folders for disks, faults for them, file systems of their own, and an origin whose bodies can be told apart.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use crate::harness::{Ask, Edge, EdgeBuilder, End, Origin, Reply, Response, eventually};
use crate::over::all;

pub const KIB: usize = 1 << 10;
pub const MIB: usize = 1 << 20;

/// No memory tier: whatever is a hit comes from a disk.
pub const NO_MEMORY: &str = "off";

/// A memory tier for bodies of up to 2 KiB: what is larger is on the disk alone.
pub const LITTLE_MEMORY: &str = "{ size: 4MiB, max_object: 2KiB }";

/// Bytes of a body that is on the disk alone, and written whole.
pub const LARGE: usize = 100 * KIB;

/// A folder for disks and their faults, which several edges may use one after the other. It goes with this value, unless
/// the test has failed.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Scratch {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("disks-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        // A process with the same number may have left one behind.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("a folder for disks");
        Scratch(folder)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The folder of the disk where there is only one.
    pub fn disk(&self) -> PathBuf {
        self.path("disk")
    }

    /// From now on these faults are in force, and no others.
    pub fn fault(&self, lines: &str) {
        let new = self.path("faults.new");
        fs::write(&new, lines).expect("faults are written");
        fs::rename(&new, self.path("faults")).expect("faults are put in place");
    }

    /// The disks are well again.
    pub fn heal(&self) {
        self.fault("");
    }

    /// An edge with this YAML, whose disks have the faults of this folder.
    pub fn builder(&self, yaml: &str) -> EdgeBuilder {
        Edge::builder(yaml).env("FORELAND_DISK_FAULTS", &self.path("faults").display().to_string())
    }

    /// An edge with one disk before the origin; `options` are further keys of the disk, `{ size: 1GiB }` without the
    /// braces, say.
    pub async fn edge(&self, origin: &Origin, memory: &str, options: &str) -> Edge {
        self.builder(&self.yaml(origin, memory, options, "")).start().await
    }

    pub fn yaml(&self, origin: &Origin, memory: &str, options: &str, site: &str) -> String {
        let disk = format!("{{ path: \"{}\", {options} }}", self.disk().display());
        yaml(origin, memory, &disk, site)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // Left-overs are below Cargo's target folder and hurt nobody.
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// An edge with this memory tier and a disk of 64 MiB, which has the twelve targets that come with it.
pub async fn with_large(memory: &str) -> (Scratch, Origin, Edge, Vec<String>) {
    let scratch = Scratch::new();
    let origin = sized().await;
    let edge = scratch.edge(&origin, memory, "size: 64MiB").await;
    let large = targets(LARGE, "large", 12);
    get_all(&edge, &large, 4).await;
    (scratch, origin, edge, large)
}

/// The YAML of an edge before an origin, with these tiers.
pub fn yaml(origin: &Origin, memory: &str, disk: &str, site: &str) -> String {
    format!("cache:\n  memory: {memory}\n  disk: {disk}\n") + &Edge::yaml_before(&[origin], site)
}

/// A file system of its own, in memory. Unmounted as it is dropped, whoever still uses it.
pub struct Mount(PathBuf);

impl Mount {
    /// `None`, and a word about it, where this process may not mount.
    pub fn tmpfs(folder: &Path, size: &str) -> Option<Mount> {
        fs::create_dir_all(folder).expect("a folder to mount at");
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(folder).output();
        match mount {
            Ok(output) if output.status.success() => Some(Mount(folder.to_owned())),
            other => {
                println!("skipped, for nothing can be mounted here: {other:?}");
                None
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Bytes in use and free.
    pub fn usage(&self) -> (u64, u64) {
        let stat = rustix::fs::statvfs(&self.0).expect("the mounted file system's figures");
        ((stat.f_blocks - stat.f_bfree) * stat.f_frsize, stat.f_bavail * stat.f_frsize)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// An origin that answers `/LENGTH/NAME` with so many bytes that only this target has, fresh for an hour; chunked where
/// the query says so.
pub async fn sized() -> Origin {
    Origin::start(|request| {
        let reply = Reply::ok(body(&request.target)).cache_control("max-age=3600");
        if request.query() == Some("chunked") { reply.chunked() } else { reply }
    })
    .await
}

/// What [`sized`] answers.
pub fn body(target: &str) -> Bytes {
    let len = target.split('/').nth(1).and_then(|len| len.parse().ok()).expect("/LENGTH/NAME");
    text(target, len)
}

/// So many bytes that this seed alone has, no two blocks of them alike.
pub fn text(seed: &str, len: usize) -> Bytes {
    let mut out = Vec::with_capacity(len + 64);
    while out.len() < len {
        out.extend_from_slice(format!("{seed}@{}|................................", out.len()).as_bytes());
    }
    out.truncate(len);
    out.into()
}

/// Asks for it, and sees that it is answered with all of the right body.
pub async fn get(edge: &Edge, target: &str) -> Response {
    let response = edge.get(target).await;
    check(&response, target);
    response
}

/// Sees that it is all of the right body.
pub fn check(response: &Response, target: &str) {
    let head = (response.status, response.end, &response.headers);
    assert!(response.status == 200 && response.end == End::Clean, "{target}: {head:?}");
    // Not `assert_eq`: nobody wants to read megabytes.
    assert!(response.body == body(target), "{target}: not its body: {head:?}, {} bytes", response.body.len());
}

/// Asks for each, so many at once, and sees that all are answered rightly.
pub async fn get_all(edge: &Edge, targets: &[String], at_once: usize) -> Vec<Response> {
    let mut out = Vec::new();
    for some in targets.chunks(at_once) {
        out.extend(all(some.iter().map(async |target| get(edge, target).await)).await);
    }
    out
}

/// `/LENGTH/NAME0`, `/LENGTH/NAME1`, …
pub fn targets(len: usize, name: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("/{len}/{name}{n}")).collect()
}

/// Where a hit came from: `memory`, `disk`, or nothing for what is none.
pub fn tier(response: &Response) -> &'static str {
    let says = |tier: &str| response.is_hit() && response.cache_status().contains(&format!("detail={tier}"));
    match (says("memory"), says("disk")) {
        (true, false) => "memory",
        (false, true) => "disk",
        _ => "",
    }
}

/// How many of them came from a disk.
pub fn disk_hits(responses: &[Response]) -> usize {
    responses.iter().filter(|response| tier(response) == "disk").count()
}

/// Waits until what is asked for for the first time is stored on the disk and comes from there.
pub async fn stores_again(edge: &Edge, len: usize, name: &str) {
    let mut n = 0;
    eventually("the disk to be in use again", async || {
        n += 1;
        let target = format!("/{len}/{name}{n}");
        get(edge, &target).await;
        tier(&get(edge, &target).await) == "disk"
    })
    .await;
}

/// Waits until it comes from the disk.
pub async fn hits_disk(edge: &Edge, target: &str) {
    eventually(&format!("{target} from the disk"), async || tier(&get(edge, target).await) == "disk").await;
}

/// How many lines of the log have this text.
pub fn log_lines(edge: &Edge, text: &str) -> usize {
    edge.log().lines().filter(|line| line.contains(text)).count()
}

/// The files of objects below a disk's folder.
pub fn object_files(disk: &Path) -> Vec<PathBuf> {
    let entries = |folder: &Path| -> Vec<PathBuf> {
        fs::read_dir(folder).map(|dir| dir.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
    };
    let folders = entries(disk).into_iter().filter(|path| is_hex(path, 2));
    folders.flat_map(|folder| entries(&folder)).filter(|path| is_hex(path, 32)).collect()
}

/// A file or a folder that a disk takes room for, by the number of its inode.
pub type Inodes = HashMap<u64, Inode>;

#[derive(Clone, Copy, Debug)]
pub struct Inode {
    /// Bytes on the disk.
    pub blocks: u64,
    /// Bytes of a file.
    pub len: u64,
    pub is_object: bool,
}

/// All that takes room on a disk: what is below its folder, and the files without a name that the process has open there.
/// It takes some time to look, in which things come and go.
pub fn inodes(edge: &Edge, disk: &Path) -> Inodes {
    let mut inodes = Inodes::new();
    let mut add = |meta: &fs::Metadata, is_object: bool| {
        let len = if meta.is_file() { meta.len() } else { 0 };
        inodes.entry(meta.ino()).or_insert(Inode { blocks: meta.blocks() * 512, len, is_object });
    };
    let mut folders = vec![disk.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            // What goes meanwhile takes nothing.
            let Ok(meta) = entry.metadata() else { continue };
            add(&meta, is_hex(&entry.path(), 32));
            if meta.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    let handles = format!("/proc/{}/fd", edge.pid().as_raw_nonzero());
    for entry in fs::read_dir(handles).into_iter().flatten().flatten() {
        let below = fs::read_link(entry.path()).is_ok_and(|path| path.starts_with(disk));
        if let Some(meta) = fs::metadata(entry.path()).ok().filter(|meta| below && meta.nlink() == 0) {
            add(&meta, false);
        }
    }
    inodes
}

fn is_hex(path: &Path, len: usize) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.len() == len && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What a client asks for that takes a stored response and nothing else.
pub fn only_if_cached(target: &str) -> Ask {
    Ask::get(target).header("Cache-Control", "only-if-cached")
}
