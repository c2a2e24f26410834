//! The disk tier: what outlasts the process, however that ended.

mod corruption;
mod kill;
mod restart;
mod upgrade;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::harness::{Ask, Edge, End, Origin, Reply, Response};

/// The YAML of an edge before this origin with its cache on a disk in `{dir}/cache`: `memory` is a size or `off`.
fn yaml(origin: &Origin, memory: &str, disk: &str) -> String {
    let memory = if memory == "off" { "off".to_owned() } else { format!("{{ size: {memory} }}") };
    let mut yaml = Edge::yaml_before(&[origin], "");
    yaml.push_str(&format!("cache:\n  memory: {memory}\n  disk: {{ path: \"{{dir}}/cache\", {disk} }}\n"));
    yaml
}

/// The folder of the disk in [`yaml`].
fn folder(edge: &Edge) -> PathBuf {
    edge.folder().join("cache")
}

/// The files of objects below a disk's folder.
fn objects(folder: &Path) -> Vec<PathBuf> {
    let of = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let folders = of(folder).filter(|path| name(path).len() == 2);
    let mut files: Vec<_> = folders.flat_map(|folder| of(&folder).collect::<Vec<_>>()).collect();
    files.retain(|path| name(path).len() == 32);
    files.sort();
    files
}

/// The files below a folder: the number of each, and the bytes that it takes as `du` counts them.
fn census(folder: &Path) -> BTreeMap<PathBuf, (u64, u64)> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(meta) if meta.is_dir() => all.extend(census(&entry.path())),
            Ok(meta) => _ = all.insert(entry.path(), (meta.ino(), meta.blocks() * 512)),
            Err(_) => {}
        }
    }
    all
}

fn bytes_of(census: &BTreeMap<PathBuf, (u64, u64)>) -> u64 {
    census.values().map(|(_, bytes)| bytes).sum()
}

/// So many bytes that are this URL's and no other's.
fn body_of(url: &str, len: usize) -> Vec<u8> {
    let mut state = url
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// An origin whose URLs end in the length of their bodies, `/what/300000`, which may be kept for an hour.
async fn sized() -> Origin {
    Origin::start(|r| Reply::ok(body_of(&r.target, length(&r.target))).cache_control("max-age=3600")).await
}

/// The length that a URL of [`sized`] ends in.
fn length(url: &str) -> usize {
    url.rsplit('/').next().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Waits until a disk's keeper has found out all that is there.
async fn settled(edge: &Edge) {
    edge.wait_log(" objects, ").await;
}

/// What the store has for a URL; a request that never goes to the origin, so that asking changes nothing.
async fn stored(edge: &Edge, url: &str) -> Option<Response> {
    let response = edge.ask(&Ask::get(url).header("Cache-Control", "only-if-cached")).await;
    if response.status == 504 {
        return None;
    }
    assert!(response.is_hit(), "{url}: {response:?}");
    Some(response)
}

/// Panics unless the store has exactly what [`sized`] gives for this URL.
async fn assert_stored(edge: &Edge, url: &str) {
    let response = stored(edge, url).await.unwrap_or_else(|| panic!("{url} is not stored"));
    assert_eq!(response.end, End::Clean, "{url}");
    assert!(response.body == body_of(url, length(url)), "{url}: other bytes");
}
