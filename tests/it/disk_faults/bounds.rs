//! Limits of size and number, which hold at every moment.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use super::faulty::{
    Inodes, KIB, MIB, NO_MEMORY, Scratch, check, disk_hits, get, get_all, inodes, log_lines, object_files, sized,
    targets, tier,
};
use crate::harness::{Ask, Edge, eventually};
use crate::over::all;

const WRITERS: usize = 16;
const EACH: usize = 8;
const SIZES: [usize; 7] = [KIB, 10 * KIB, 60 * KIB, 200 * KIB, 500 * KIB, 1200 * KIB, 2 * MIB];

/// The most that was there at any moment that was looked at.
#[derive(Clone, Copy, Debug, Default)]
struct Most {
    blocks: u64,
    lengths: u64,
    objects: usize,
    looks: usize,
}

/// Looks again and again what a disk takes, until told to stop.
struct Sampler {
    stop: Sender<()>,
    thread: std::thread::JoinHandle<Most>,
}

impl Sampler {
    fn start(edge: &std::sync::Arc<Edge>, disk: PathBuf) -> Sampler {
        let (stop, stopped) = channel();
        let edge = edge.clone();
        let thread = std::thread::spawn(move || {
            let (mut most, mut before) = (Most::default(), Inodes::new());
            while stopped.recv_timeout(Duration::from_millis(2)) == Err(RecvTimeoutError::Timeout) {
                let now = inodes(&edge, &disk);
                // What was there at both looks was there at the moment between them, all of it together.
                let both: Vec<_> = now.iter().filter_map(|(n, inode)| Some((inode, before.get(n)?))).collect();
                most.blocks = most.blocks.max(both.iter().map(|(a, b)| a.blocks.min(b.blocks)).sum());
                most.lengths = most.lengths.max(both.iter().map(|(a, b)| a.len.min(b.len)).sum());
                most.objects = most.objects.max(both.iter().filter(|(a, b)| a.is_object && b.is_object).count());
                most.looks += 1;
                before = now;
            }
            most
        });
        Sampler { stop, thread }
    }

    fn end(self) -> Most {
        drop(self.stop);
        let most = self.thread.join().expect("a sampler without a panic");
        assert!(most.looks > 20, "{most:?}: too seldom to mean anything");
        most
    }
}

/// Mixed sizes, some without a length, many at once.
async fn strain(edge: &Edge) {
    all((0..WRITERS).map(async |writer| {
        let mut client = edge.connect().await;
        for n in 0..EACH {
            let size = SIZES[(writer * 3 + n * 5) % SIZES.len()] + writer * 100 + n;
            let query = if (writer + n) % 3 == 0 { "?chunked" } else { "" };
            let target = format!("/{size}/{writer}-{n}{query}");
            for _ in 0..2 {
                check(&client.ask(&Ask::get(&target)).await, &target);
            }
        }
    }))
    .await;
}

async fn works(edge: &Edge) {
    let latest = targets(50 * KIB, "latest", 5);
    get_all(edge, &latest, 1).await;
    assert_eq!(disk_hits(&get_all(edge, &latest, 1).await), latest.len());
    assert_eq!(log_lines(edge, "suspended"), 0, "{}", edge.log());
}

#[tokio::test]
async fn no_more_bytes_than_may_be() {
    const SIZE: u64 = 16 * MIB as u64;
    let scratch = Scratch::new();
    let origin = sized().await;
    let edge = std::sync::Arc::new(scratch.edge(&origin, NO_MEMORY, "size: 16MiB").await);
    let sampler = Sampler::start(&edge, scratch.disk());
    strain(&edge).await;
    let most = sampler.end();
    assert!(most.blocks.max(most.lengths) <= SIZE + SIZE / 100, "{most:?}");
    assert!(most.blocks > SIZE * 3 / 4, "{most:?}: the room is used");
    works(&edge).await;
}

#[tokio::test]
async fn no_more_objects_than_may_be() {
    const MOST: usize = 20;
    let scratch = Scratch::new();
    let origin = sized().await;
    let options = format!("size: 256MiB, max_objects: {MOST}");
    let edge = std::sync::Arc::new(scratch.edge(&origin, NO_MEMORY, &options).await);
    let sampler = Sampler::start(&edge, scratch.disk());
    strain(&edge).await;
    let most = sampler.end();
    assert_eq!(most.objects, MOST, "{most:?}");
    works(&edge).await;
    assert!(object_files(&scratch.disk()).len() <= MOST);
}

#[tokio::test]
async fn what_is_larger_than_the_largest_object_is_not_stored() {
    let scratch = Scratch::new();
    let origin = sized().await;
    let edge = scratch.edge(&origin, NO_MEMORY, "size: 64MiB, max_object: 700KiB").await;
    for (len, stored) in [(700 * KIB, true), (700 * KIB + 1, false), (3 * MIB, false), (200 * KIB, true)] {
        for query in ["", "?chunked"] {
            let target = format!("/{len}/a{query}");
            get(&edge, &target).await;
            let again = get(&edge, &target).await;
            assert_eq!(tier(&again), if stored { "disk" } else { "" }, "{target}");
        }
    }
    assert_eq!(object_files(&scratch.disk()).len(), 4);
}

#[tokio::test]
async fn what_fits_in_no_way_throws_nothing_out() {
    let scratch = Scratch::new();
    let origin = sized().await;
    let edge = scratch.edge(&origin, NO_MEMORY, "size: 8MiB").await;
    let small = targets(100 * KIB, "small", 20);
    get_all(&edge, &small, 4).await;
    // All of the disk's size, but then there is what stands beside it.
    let target = format!("/{}/all", 8 * MIB);
    for query in ["", "?chunked"] {
        get(&edge, &format!("{target}{query}")).await;
        assert_eq!(tier(&get(&edge, &format!("{target}{query}")).await), "");
    }
    // What comes without a length is known too late; but one that has a length costs nobody else anything.
    get_all(&edge, &small, 4).await;
    get(&edge, &target).await;
    assert_eq!(disk_hits(&get_all(&edge, &small, 4).await), small.len());
    assert_eq!(log_lines(&edge, "suspended"), 0, "{}", edge.log());
}

/// What the edge says of itself is what is there.
#[tokio::test]
async fn the_figures_are_right() {
    let scratch = Scratch::new();
    let origin = sized().await;
    let edge = scratch.edge(&origin, NO_MEMORY, "size: 16MiB").await;
    strain(&edge).await;
    let real = |disk: &Path| {
        let files = object_files(disk);
        let bytes =
            files.iter().map(|file| std::fs::metadata(file).map_or(0, |meta| meta.len().next_multiple_of(4096)));
        (files.len() as u64, bytes.sum::<u64>())
    };
    eventually("figures that agree", async || {
        let cache = edge.admin_get("/v1/cache").await.json();
        let disk = cache["tiers"].as_array().and_then(|tiers| tiers.iter().find(|t| t["tier"] == "disk")).cloned();
        let Some(disk) = disk else { panic!("no disk in {cache}") };
        let (objects, bytes) = real(&scratch.disk());
        let said = disk["bytes"].as_u64().expect("bytes");
        // Beside the objects there are folders, the counters of invalidations and the like.
        disk["objects"] == objects && said >= bytes && said <= bytes + 2 * MIB as u64
    })
    .await;
}
