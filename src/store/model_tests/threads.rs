//! Everything at once, on several threads: by one clock for all, no hit that began after a purge had returned is of a
//! version whose request came before that purge was called for.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use pingora_cache::storage::{HandleMiss, Storage};
use pingora_cache::trace::Span;

use super::oracle::{GROUPS, Labels, Purged, RESOURCES, Resource, TAGS, VARIANTS, Version};
use super::steps::Place;
use super::world::{Folder, body, cache_key, holds, key, meta, version_of};
use crate::config::model::{DiskTier, MemoryTier};
use crate::http_cache::{Tiers, Timestamp};
use crate::invalidate::{By, Selector};
use crate::store::disk::testing::{Broom, Random, body_of, close_files, end, get_ready};
use crate::store::{Begin, Disks, Head, Store, Whole};

/// Tasks, and what each of them does.
const TASKS: u64 = 8;
const TIMES: u64 = 700;

/// What all tasks share.
struct Stage {
    store: &'static Store,
    clock: AtomicU64,
    versions: Mutex<Vec<Version>>,
    /// Requests that go to the origin, with the ledger's head when they came.
    under_way: Mutex<HashMap<u64, u64>>,
    purges: Mutex<Vec<(Purged, u64)>>,
    hits: Mutex<Vec<Hit>>,
    done: AtomicBool,
}

struct Hit {
    began: u64,
    version: usize,
    fresh_until: Timestamp,
}

impl Stage {
    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    /// A request comes: its number, which is when, and the ledger's head.
    fn ask(&self) -> (u64, u64) {
        let mut under_way = self.under_way.lock().unwrap();
        let head = self.store.ledger().head();
        let came = self.tick();
        under_way.insert(came, head);
        (came, head)
    }

    fn answered(&self, came: u64) {
        self.under_way.lock().unwrap().remove(&came);
    }

    fn enter(&self, version: impl FnOnce(usize) -> Version) -> (usize, Version) {
        let mut versions = self.versions.lock().unwrap();
        let (number, version) = (versions.len(), version(versions.len()));
        versions.push(version.clone());
        (number, version)
    }

    async fn fill(&self, random: &mut Random) {
        let place = place(random);
        let (came, began) = self.ask();
        let labels = Labels(random.below(1 << (TAGS.len() + GROUPS.len())) as u8);
        let length = random.below(200) as usize;
        let of = |number| Version { resource: place.0, variant: place.1, labels, came, body: body(number, length) };
        let (number, version) = self.enter(of);
        let head = Head::of(&meta(&version, number, 0, began, tiers())).unwrap();
        let mut writer = self.store.fill(key(place), head);
        tokio::task::yield_now().await;
        writer.write_body(version.body, false).await.unwrap();
        tokio::task::yield_now().await;
        match random.below(4) {
            0 => writer.finish_aside(),
            1 => drop(writer),
            _ => _ = writer.finish().await.unwrap(),
        }
        self.answered(came);
    }

    async fn hit(&self, random: &mut Random) {
        let place = place(random);
        let began = self.tick();
        let found = match random.below(3) {
            0 => self.store.find(key(place), &RESOURCES[place.0].key(), tiers()).await,
            1 => {
                let id = key(place).id();
                self.store.memory().get(&id).and_then(|object| self.store.usable(&id, object))
            }
            _ => {
                let key = cache_key(place, tiers());
                match self.store.lookup(&key, &Span::inactive().handle()).await.unwrap() {
                    None => None,
                    Some((meta, handler)) => match handler.as_any().downcast_ref::<Whole>() {
                        Some(whole) => Some(whole.object().clone()),
                        None => {
                            let version = version_of(meta.headers());
                            let fresh_until = Timestamp::from(meta.fresh_until());
                            return self.hits.lock().unwrap().push(Hit { began, version, fresh_until });
                        }
                    },
                }
            }
        };
        let Some(found) = found else { return };
        let version = version_of(&found.head.response.headers);
        if let Ok(body) = body_of(&found).await {
            assert_eq!(body, self.versions.lock().unwrap()[version].body);
        }
        let fresh_until = found.head.record.facts.fresh_until;
        self.hits.lock().unwrap().push(Hit { began, version, fresh_until });
    }

    async fn validate(&self, random: &mut Random) {
        let place = place(random);
        let Some(found) = self.store.find(key(place), &RESOURCES[place.0].key(), tiers()).await else { return };
        let (came, began) = self.ask();
        let before = version_of(&found.head.response.headers);
        let before = self.versions.lock().unwrap()[before].clone();
        let (number, version) = self.enter(|_| Version { came, ..before });
        let meta = meta(&version, number, found.head.record.id, began, tiers());
        tokio::task::yield_now().await;
        self.store.freshen(&key(place), &meta).await;
        self.answered(came);
    }

    async fn purge(&self, random: &mut Random) {
        let selectors = vec![selector(random)];
        let (soft, wait) = (random.below(3) == 0, random.below(4) == 0);
        let came = self.tick();
        let (ledger, of) = (self.store.ledger(), selectors.clone().into());
        let is_url = |resource: &Resource| {
            let Resource { host, path, query, .. } = *resource;
            selectors == [Selector::Url { host: host.into(), path: path.into(), query: query.map(Into::into) }]
        };
        let appended = match RESOURCES.iter().position(is_url) {
            // As by a request that changes it.
            Some(resource) if !soft => ledger.append_after(|| (), of, By::Unsafe, || holds(self.store, resource)),
            _ => ledger.append(of, soft, By::Api),
        };
        let returned = self.tick();
        let purged = Purged { selectors, soft, at: appended.at, came, sure: true };
        self.purges.lock().unwrap().push((purged, returned));
        match wait {
            true => appended.written().await.unwrap(),
            false => tokio::task::yield_now().await,
        }
    }

    /// What goes on beside the traffic, more often than it ever would.
    fn tidy(&self) {
        let (mut random, mut broom) = (Random(99), Broom::default());
        while !self.done.load(Ordering::Relaxed) {
            let disk = self.store.disks().iter().next().unwrap();
            while !broom.sweep(disk, 3) {}
            let (head, old) = {
                let under_way = self.under_way.lock().unwrap();
                let head = self.store.ledger().head();
                (head, under_way.values().min().copied().unwrap_or(head))
            };
            self.store.compare_all();
            self.store.forget_purges(head, old);
            match random.below(4) {
                0 => self.store.ledger().compact(true),
                1 => close_files(self.store.disks()),
                2 => {
                    for (id, _) in self.store.memory().iter() {
                        self.store.memory().remove(&id);
                    }
                }
                _ => {}
            }
        }
    }

    fn judge(&self) {
        let (versions, purges, hits) =
            (self.versions.lock().unwrap(), self.purges.lock().unwrap(), self.hits.lock().unwrap());
        for hit in &*hits {
            let version = &versions[hit.version];
            let before = purges.iter().filter(|(purged, returned)| *returned < hit.began && version.came < purged.came);
            for (purged, returned) in before.filter(|(purged, _)| purged.selects(version)) {
                let when = format!("a hit at {} of {version:?}, purged by {purged:?}, back at {returned}", hit.began);
                assert!(purged.soft, "{when}");
                assert!(hit.fresh_until <= purged.at, "{when}: fresh until {:?}", hit.fresh_until);
            }
        }
        assert!(hits.len() as u64 > TASKS * TIMES / 20, "no more than {} hits", hits.len());
    }
}

fn tiers() -> Tiers {
    Tiers { memory: true, disk: true }
}

fn place(random: &mut Random) -> Place {
    let resource = random.below(RESOURCES.len() as u64) as usize;
    (resource, if random.below(4) == 0 { VARIANTS - 1 } else { 0 })
}

fn selector(random: &mut Random) -> Selector {
    let of = RESOURCES[random.below(RESOURCES.len() as u64) as usize];
    match random.below(12) {
        0 => Selector::Everything,
        1 => Selector::Host(of.host.into()),
        2 => Selector::Site(of.site.into()),
        3 => Selector::Prefix { host: of.host.into(), path: of.path.into(), raw: random.below(2) == 0 },
        4..8 => Selector::Url { host: of.host.into(), path: of.path.into(), query: of.query.map(Into::into) },
        8 => Selector::Group { host: of.host.into(), name: GROUPS[random.below(2) as usize].into() },
        _ => Selector::Tag(TAGS[random.below(3) as usize].into()),
    }
}

#[test]
fn all_at_once() {
    let folder = Folder::new();
    let size = 64 << 20;
    let disk = DiskTier { path: folder.disk(0), size, max_object: size, max_objects: None, min_free: 0 };
    let disks = Disks::open(&[disk], Begin::Alone).unwrap();
    get_ready(&disks);
    let store = Store::leak(MemoryTier { size: 16 << 20, max_object: 1 << 16 }, disks);
    let stage = Arc::new(Stage {
        store,
        clock: AtomicU64::new(1),
        versions: Mutex::default(),
        under_way: Mutex::default(),
        purges: Mutex::default(),
        hits: Mutex::default(),
        done: AtomicBool::new(false),
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_time().build().unwrap();
    let of_thread = stage.clone();
    let tidying = std::thread::spawn(move || of_thread.tidy());
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for seed in 0..TASKS {
            let (stage, mut random) = (stage.clone(), Random(seed));
            tasks.spawn(async move {
                for _ in 0..TIMES {
                    match random.below(20) {
                        0 => stage.purge(&mut random).await,
                        1 | 2 => stage.validate(&mut random).await,
                        3..8 => stage.fill(&mut random).await,
                        _ => stage.hit(&mut random).await,
                    }
                }
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
    });
    stage.done.store(true, Ordering::Relaxed);
    tidying.join().unwrap();
    close_files(store.disks());
    store.shut();
    end(store.disks());
    stage.judge();
}
