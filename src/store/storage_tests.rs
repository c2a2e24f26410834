use pingora_cache::trace::Span;

use super::*;
use crate::config::model;
use crate::store::{Disks, testing};

const KEY: [u8; 16] = [3; 16];

fn store() -> &'static Store {
    Store::leak(model::MemoryTier { size: 1 << 20, max_object: 1 << 16 }, Disks::none())
}

fn key() -> CacheKey {
    let mut key = CacheKey::new(Vec::new(), "");
    key.set_primary_bin_override(KEY);
    key.extensions.insert(Looked { text: testing::TEXT, tiers: Tiers::default() });
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
    let before = store.sequence(&KEY);
    let writer = fill(store, before, "old").await;
    assert!(store.lookup(&key(), &span.handle()).await.unwrap().is_some());
    store.invalidate(KEY, &KEY).await;
    assert!(store.lookup(&key(), &span.handle()).await.unwrap().is_none());
    writer.finish().await.ok().unwrap();
    assert_eq!(stored(store), None);
    fill(store, store.sequence(&KEY), "new").await.finish().await.ok().unwrap();
    assert_eq!(stored(store).map(|(tag, _)| tag), Some("new".to_owned()));
    store.invalidate(KEY, &KEY).await;
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
