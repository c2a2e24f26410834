use pingora_cache::trace::Span;

use super::*;
use crate::config::model;
use crate::invalidate::{By, Selector};
use crate::store::disk::testing::Rig;
use crate::store::{Disks, testing};

const KEY: [u8; 16] = [3; 16];

fn store() -> &'static Store {
    Store::leak(model::MemoryTier { size: 1 << 20, max_object: 1 << 16 }, Disks::none())
}

fn key() -> CacheKey {
    let mut key = CacheKey::new(Vec::new(), "");
    key.set_primary_bin_override(KEY);
    key.extensions.insert(Looked { text: Bytes::from_static(testing::TEXT), tiers: Tiers::default() });
    key
}

fn meta(tag: &str, id: u64, began: u64) -> CacheMeta {
    testing::meta(&[("etag", tag)], id, began)
}

async fn fill(store: &'static Store, began: u64, tag: &str) -> Box<dyn HandleMiss + Send + Sync> {
    store.get_miss_handler(&key(), &meta(tag, 0, began), &Span::inactive().handle()).await.unwrap()
}

fn stored(store: &Store) -> Option<(String, u64)> {
    let object = store.memory().peek(&ObjectKey::primary(KEY).id())?;
    Some((testing::tag(&object.head).to_owned(), object.head.record.id))
}

fn purge(store: &Store) {
    let _ = store.ledger().append(testing::selector(), false, By::Api);
}

#[tokio::test]
async fn a_confirmation_changes_only_what_it_is_about() {
    let store = store();
    let span = Span::inactive();
    fill(store, 0, "v1").await.finish().await.ok().unwrap();
    let (_, first) = stored(store).unwrap();
    fill(store, 0, "v2").await.finish().await.ok().unwrap();
    assert!(!store.update_meta(&key(), &meta("v1 again", first, 0), &span.handle()).await.unwrap());
    let (tag, second) = stored(store).unwrap();
    assert_eq!(tag, "v2");
    assert!(store.update_meta(&key(), &meta("v2 again", second, 0), &span.handle()).await.unwrap());
    assert_eq!(stored(store), Some(("v2 again".to_owned(), second)));
}

#[tokio::test]
async fn what_was_asked_for_before_an_invalidation_is_neither_stored_nor_found() {
    let store = store();
    let span = Span::inactive();
    let before = store.ledger().head();
    let writer = fill(store, before, "old").await;
    assert!(store.lookup(&key(), &span.handle()).await.unwrap().is_some());
    purge(store);
    assert!(store.lookup(&key(), &span.handle()).await.unwrap().is_none());
    writer.finish().await.ok().unwrap();
    assert_eq!(stored(store), None);
    fill(store, store.ledger().head(), "new").await.finish().await.ok().unwrap();
    assert_eq!(stored(store).map(|(tag, _)| tag), Some("new".to_owned()));
    purge(store);
    assert!(store.lookup(&key(), &span.handle()).await.unwrap().is_none());
    assert_eq!(stored(store), None);
}

#[tokio::test]
async fn each_writer_finds_its_own_reader_whatever_else_fills_the_key() {
    let store = store();
    let span = Span::inactive();
    let (first, second) = (fill(store, 0, "1").await, fill(store, 0, "2").await);
    for writer in [&first, &second] {
        let tag = writer.streaming_write_tag();
        let (_, mut reader) = store.lookup_streaming_write(&key(), tag, &span.handle()).await.unwrap().unwrap();
        let followed = reader.as_any_mut().downcast_mut::<Followed>().unwrap();
        assert_eq!(Some(U64WriteId::from(followed.fill().id).as_bytes()), tag);
    }
    drop((first, second));
    assert!(store.starting().is_empty() && store.fills_running() == 0);
}

// ---- with a disk alone

fn on_disk(rig: &Rig) -> &'static Store {
    Store::leak(model::MemoryTier { size: 0, max_object: 0 }, rig.disks())
}

fn only_disk() -> Tiers {
    Tiers { memory: false, disk: true }
}

/// A fill for the disk alone, of a body of that length.
fn disk_fill(store: &'static Store, tag: &str, len: usize) -> Writer {
    let len = len.to_string();
    let meta = testing::meta(&[("etag", tag), ("content-length", &len)], 0, store.ledger().head());
    let mut head = crate::store::Head::of(&meta).unwrap();
    head.record.tiers = only_disk();
    store.fill(ObjectKey::primary(KEY), head)
}

async fn find(store: &Store) -> Option<String> {
    let object = store.find(ObjectKey::primary(KEY), testing::TEXT, only_disk()).await?;
    Some(testing::tag(&object.head).to_owned())
}

#[tokio::test]
async fn who_has_a_response_whole_has_it_after_a_crash() {
    for len in [1000, 700_000] {
        let rig = Rig::new(8 << 20);
        let store = on_disk(&rig);
        let mut writer = disk_fill(store, "v1", len);
        let mut reader = store.follow(writer.fill(), Fill::follow).unwrap();
        rig.faults("write delay=20ms\npublish delay=20ms");
        let path = rig.scratch.path("disk").join(crate::store::disk::testing::name_of(KEY));
        let reading = tokio::spawn(async move {
            let mut had = 0;
            while let Some(piece) = reader.read().await.unwrap() {
                had += piece.len();
                if had == len {
                    // All that a process that was killed now would leave.
                    assert!(std::fs::metadata(&path).unwrap().len() > len as u64);
                }
            }
            had
        });
        for chunk in testing::body(len).chunks(60_000) {
            writer.write_body(Bytes::copy_from_slice(chunk), false).await.unwrap();
        }
        writer.finish().await.unwrap();
        assert_eq!(reading.await.unwrap(), len);
        assert_eq!(store.fill_bytes(), 0);
        assert_eq!(find(store).await.as_deref(), Some("v1"));
    }
}

#[tokio::test]
async fn what_is_invalidated_while_it_waits_to_be_written_is_not_found_again() {
    let rig = Rig::new(8 << 20);
    let store = on_disk(&rig);
    rig.faults("write hang");
    let mut writer = disk_fill(store, "v1", 1000);
    writer.write(testing::body(1000)).unwrap();
    writer.finish_aside();
    tokio::task::yield_now().await;
    assert_eq!(find(store).await.as_deref(), Some("v1"));
    purge(store);
    assert_eq!(find(store).await, None, "from the call on");
    rig.faults("");
    rig.drain();
    assert_eq!((find(store).await, rig.files()), (None, (0, 0)));
    rig.balances().await;
}

/// What concerns nothing that is stored is not written down, and forgotten sooner.
#[tokio::test]
async fn a_fill_that_has_been_purged_is_not_stored_however_long_it_takes() {
    let rig = Rig::new(8 << 20);
    let store = on_disk(&rig);
    let mut writer = disk_fill(store, "v1", 1000);
    let _ = store.ledger().append_after(|| (), testing::selector(), By::Unsafe, || false);
    let head = store.ledger().head();
    store.compare_all();
    store.forget_purges(head, head);
    writer.write(testing::body(1000)).unwrap();
    writer.finish().await.unwrap();
    rig.drain();
    assert_eq!((find(store).await, rig.files()), (None, (0, 0)));
}

#[tokio::test]
async fn what_has_been_purged_makes_room_when_it_is_found() {
    let rig = Rig::new(8 << 20);
    let store = on_disk(&rig);
    let stored = async |tag| {
        let mut writer = disk_fill(store, tag, 1000);
        writer.write(testing::body(1000)).unwrap();
        writer.finish().await.unwrap();
        rig.drain();
    };
    stored("v1").await;
    purge(store);
    assert_eq!((rig.files().0, find(store).await), (1, None));
    rig.drain();
    assert_eq!(rig.files(), (0, 0));
    stored("v2").await;
    assert_eq!(find(store).await.as_deref(), Some("v2"));
    rig.balances().await;
}

// ---- what concerns nothing that is stored

/// As a request does that changes something of which nothing is stored.
fn purge_in_passing(store: &Store, path: &str) {
    let url = Selector::Url { host: "example.com".into(), path: path.into(), query: None };
    let _ = store.ledger().append_after(|| (), [url].into(), By::Unsafe, || false);
}

#[tokio::test]
async fn what_comes_slowly_is_not_stored_though_the_purge_of_it_has_been_forgotten() {
    let rig = Rig::new(8 << 20);
    let store = on_disk(&rig);
    let mut writer = disk_fill(store, "old", 1000);
    purge_in_passing(store, "/");
    purge_in_passing(store, "/other");
    // The disk has been compared with nothing yet.
    store.compare_all();
    store.forget_purges(store.ledger().head(), store.ledger().head());
    assert_eq!((store.ledger().forgotten(), store.ledger().marks().len()), (0, 0));
    assert!(store.filling(&ObjectKey::primary(KEY)).is_none());
    writer.write(testing::body(1000)).unwrap();
    writer.finish().await.unwrap();
    rig.drain();
    assert_eq!(find(store).await, None);
    rig.balances().await;
}

#[tokio::test]
async fn however_much_is_changed_of_which_nothing_is_stored_what_is_stored_stays() {
    let rig = Rig::new(8 << 20);
    let store = on_disk(&rig);
    let mut writer = disk_fill(store, "v1", 1000);
    writer.write(testing::body(1000)).unwrap();
    writer.finish().await.unwrap();
    rig.drain();
    for number in 0..2000 {
        purge_in_passing(store, &format!("/{number}"));
    }
    store.compare_all();
    store.forget_purges(store.ledger().head(), 0);
    assert_eq!((store.ledger().forgotten(), store.ledger().marks().len()), (0, 0));
    assert_eq!(find(store).await.as_deref(), Some("v1"));
}
