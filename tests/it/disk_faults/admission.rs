//! What is stored where, and from which request on.

use super::faulty::{KIB, LITTLE_MEMORY, MIB, NO_MEMORY, Scratch, get, object_files, sized, tier, yaml};
use crate::harness::{Ask, Edge, Origin, Reply};
use crate::over::BOTH;

async fn with_site(scratch: &Scratch, origin: &Origin, memory: &str, options: &str, site: &str) -> Edge {
    scratch.builder(&scratch.yaml(origin, memory, options, site)).start().await
}

const MEMORY: &str = "{ size: 64MiB, max_object: 1MiB }";

#[tokio::test]
async fn in_memory_alone() {
    let scratch = Scratch::new();
    let origin = sized().await;
    let edge = with_site(&scratch, &origin, MEMORY, "size: 64MiB", "cache: { tiers: [memory] }").await;
    for (target, stored) in
        [("/1000/a", "memory"), ("/500000/b", "memory"), ("/500000/c?chunked", "memory"), ("/2000000/d", "")]
    {
        get(&edge, target).await;
        assert_eq!(tier(&get(&edge, target).await), stored, "{target}");
    }
    assert!(object_files(&scratch.disk()).is_empty());
}

#[tokio::test]
async fn on_the_disk_alone() {
    let scratch = Scratch::new();
    let origin = sized().await;
    let edge = with_site(&scratch, &origin, MEMORY, "size: 64MiB", "cache: { tiers: [disk] }").await;
    for target in ["/0/empty", "/1/one", "/1000/a", "/500000/b", "/500000/c?chunked", "/2000000/d"] {
        get(&edge, target).await;
        for over in BOTH {
            for _ in 0..3 {
                assert_eq!(tier(&over.get(&edge, target).await), "disk", "{target} over {over:?}");
            }
        }
    }
    assert_eq!(object_files(&scratch.disk()).len(), 6);
    assert_eq!(edge.metrics().await.metric("foreland_cache_objects{tier=\"memory\"}"), Some(0.0));
}

#[tokio::test]
async fn in_both() {
    let scratch = Scratch::new();
    let origin = sized().await;
    let edge = with_site(&scratch, &origin, LITTLE_MEMORY, "size: 64MiB, max_object: 1MiB", "").await;
    let cases = [("/1000/a", "memory"), ("/3000/b", "disk"), ("/3000/c?chunked", "disk"), ("/2000000/d", "")];
    for (target, stored) in cases {
        get(&edge, target).await;
        assert_eq!(tier(&get(&edge, target).await), stored, "{target}");
    }
    assert_eq!(object_files(&scratch.disk()).len(), 3, "what is in memory is on the disk too");
}

#[tokio::test]
async fn without_a_memory_tier() {
    let scratch = Scratch::new();
    let origin = sized().await;
    let edge = with_site(&scratch, &origin, NO_MEMORY, "size: 64MiB", "").await;
    for target in ["/0/empty", "/1/one", "/1000/a", "/500000/b?chunked", "/2000000/d"] {
        get(&edge, target).await;
        for _ in 0..3 {
            assert_eq!(tier(&get(&edge, target).await), "disk", "{target}");
        }
        let head = edge.ask(&Ask::head(target)).await;
        assert_eq!((head.status, tier(&head)), (200, "disk"), "{target}");
    }
    assert_eq!(object_files(&scratch.disk()).len(), 5);
}

#[tokio::test]
async fn from_the_second_or_third_request_on() {
    for after in [1, 2, 3] {
        let scratch = Scratch::new();
        let origin = sized().await;
        let site = format!("cache: {{ after: {after} }}");
        let edge = with_site(&scratch, &origin, LITTLE_MEMORY, "size: 64MiB", &site).await;
        for (target, stored) in [("/1000/a", "memory"), ("/100000/b", "disk"), ("/2000000/c", "disk")] {
            for n in 1..=5 {
                let response = get(&edge, target).await;
                let expected = if n <= after { "" } else { stored };
                assert_eq!(tier(&response), expected, "after: {after}, request {n} for {target}");
                let says = response.cache_status();
                assert_eq!(says.contains("stored"), n == after, "after: {after}, request {n}: {says}");
            }
        }
        assert_eq!(origin.count(), 3 * after, "after: {after}");
        assert_eq!(object_files(&scratch.disk()).len(), 3);
    }
}

#[tokio::test]
async fn each_route_has_its_own_way() {
    let scratch = Scratch::new();
    let origin = Origin::start(|r| Reply::ok(r.target.repeat(1000)).cache_control("max-age=60")).await;
    let routes = "routes:\n  \
        - { match: { path: /memory/** }, cache: { tiers: [memory] } }\n  \
        - { match: { path: /disk/** }, cache: { tiers: [disk] } }\n  \
        - { match: { path: /second/** }, cache: { tiers: [disk], after: 2 } }\n";
    let disk = format!("{{ path: \"{}\", size: 64MiB }}", scratch.disk().display());
    let edge = scratch.builder(&yaml(&origin, MEMORY, &disk, routes)).start().await;
    for (target, tiers) in
        [("/memory/a", ["", "memory", "memory"]), ("/disk/a", ["", "disk", "disk"]), ("/second/a", ["", "", "disk"])]
    {
        for expected in tiers {
            assert_eq!(tier(&edge.get(target).await), expected, "{target}");
        }
    }
    assert_eq!(object_files(&scratch.disk()).len(), 2);
}

#[tokio::test]
async fn the_largest_object_of_each_tier() {
    let scratch = Scratch::new();
    let origin = sized().await;
    let memory = "{ size: 64MiB, max_object: 400KiB }";
    let edge = with_site(&scratch, &origin, memory, "size: 64MiB, max_object: 300KiB", "").await;
    for (len, files, stored) in [
        (300 * KIB, 1, "memory"),
        (300 * KIB + 1, 0, "memory"),
        (400 * KIB, 0, "memory"),
        (400 * KIB + 1, 0, ""),
        (MIB, 0, ""),
    ] {
        for query in ["", "?chunked"] {
            let before = object_files(&scratch.disk()).len();
            let target = format!("/{len}/a{query}");
            get(&edge, &target).await;
            assert_eq!(tier(&get(&edge, &target).await), stored, "{target}");
            assert_eq!(object_files(&scratch.disk()).len(), before + files, "{target}");
        }
    }
}
