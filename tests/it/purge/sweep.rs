//! What has been purged makes room, whether anybody asks for it or not.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Tier, before, is_stored, killed, numbered, purge, softly, tag};
use crate::harness::{Ask, Edge, Reply, eventually};
use crate::over::BOTH;

const BODY: usize = 40_000;

/// The files of objects below a disk's folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let of = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_object = |path: &PathBuf| path.file_name().is_some_and(|name| name.len() == 32);
    of(folder).flat_map(|folder| of(&folder).collect::<Vec<_>>()).filter(is_object).collect()
}

/// Objects and bytes of a tier.
async fn usage(edge: &Edge, tier: usize) -> (u64, u64) {
    let json = edge.admin_get("/v1/cache").await.json();
    let tier = &json["tiers"][tier];
    let number = |name: &str| tier[name].as_u64().unwrap_or_else(|| panic!("no {name}: {json}"));
    (number("objects"), number("bytes"))
}

#[tokio::test]
async fn the_room_is_given_back_without_a_request() {
    let origin = numbered(|request| {
        let tag = request.path().split('/').nth(1).unwrap_or_default();
        Reply::new(200).cache_control("max-age=3600").header("Surrogate-Key", tag).body("x".repeat(BODY))
    })
    .await;
    let edge = before(&origin, Tier::Both, "").await;
    let targets = |tag: &str, n: usize| (0..n).map(|n| format!("/{tag}/{n}")).collect::<Vec<_>>();
    let (gone, stale, kept) = (targets("gone", 60), targets("stale", 10), targets("kept", 10));
    let mut client = edge.connect().await;
    for target in gone.iter().chain(&stale).chain(&kept) {
        client.ask(&Ask::get(target)).await;
        assert!(client.ask(&Ask::get(target)).await.is_hit(), "{target}");
    }
    let folder = edge.folder().join("cache");
    eventually("80 files", async || files(&folder).len() == 80).await;
    let (memory, disk) = (usage(&edge, 0).await, usage(&edge, 1).await);
    let asked = origin.count();

    purge(&edge, &tag("gone")).await;
    purge(&edge, &softly(tag("stale"))).await;
    eventually("the files to go", async || files(&folder).len() == 20).await;
    eventually("the room on the disk", async || {
        let now = usage(&edge, 1).await;
        now.0 == 20 && now.1 + 60 * BODY as u64 <= disk.1
    })
    .await;
    edge.wait_log("60 objects removed, 10 stale").await;
    eventually("the room in memory", async || {
        let now = usage(&edge, 0).await;
        now.0 == 20 && now.1 + 60 * BODY as u64 <= memory.1
    })
    .await;
    assert_eq!(origin.count(), asked, "nobody has asked for it");
    let edge = killed(&edge).await;
    for target in &kept {
        let hit = BOTH[1].get(&edge, target).await;
        assert!(hit.is_hit() && hit.body.len() > BODY, "{target}: {hit:?}");
    }
    for target in gone.iter().chain(&stale) {
        assert!(!is_stored(&edge, &Ask::get(target)).await, "{target}");
    }
    assert_eq!(origin.count(), asked);
}
