//! The tier behind Pingora's traits.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http::header::ETAG;
use pingora::http::ResponseHeader;
use pingora_cache::CacheKey;
use pingora_cache::CacheMeta;
use pingora_cache::key::CompactCacheKey;
use pingora_cache::storage::HitHandler;
use pingora_cache::storage::PurgeOutcome;
use pingora_cache::storage::PurgeTarget;
use pingora_cache::storage::PurgeType;
use pingora_cache::storage::Storage;
use pingora_cache::trace::Span;
use pingora_cache::trace::SpanHandle;

use super::*;
use crate::storage::memory::Found;

fn leaked(limit: u64) -> &'static Memory {
    Box::leak(Box::new(tier(limit)))
}

fn trace() -> SpanHandle {
    Span::inactive().handle()
}

fn key(tier: &Memory, base: &str, request: &HeaderMap) -> CacheKey {
    tier.cache_key(base, "", Arc::new(request.clone()))
}

fn header(list: &[(&'static str, &str)]) -> ResponseHeader {
    let mut header = ResponseHeader::build(200, None).expect("a valid status");
    for (name, value) in list {
        header.append_header(*name, *value).expect("a valid field");
    }
    header
}

/// A response of second 1000, ten seconds old by then, for a minute.
fn meta(list: &[(&'static str, &str)]) -> CacheMeta {
    let mut meta = CacheMeta::new(at(1050), at(1000), 7, 9, header(list));
    meta.set_epoch_override(at(990));
    meta
}

async fn fill(tier: &'static Memory, key: &CacheKey, meta: &CacheMeta, parts: &[&'static str]) {
    let mut miss = tier.get_miss_handler(key, meta, &trace()).await.expect("it never fails");
    for part in parts {
        miss.write_body(Bytes::from_static(part.as_bytes()), false).await.expect("it never fails");
    }
    miss.finish().await.expect("it never fails");
}

async fn find(tier: &'static Memory, key: &CacheKey) -> Option<(CacheMeta, HitHandler)> {
    Storage::lookup(tier, key, &trace()).await.expect("it never fails")
}

async fn read(hit: &mut HitHandler) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(part) = hit.read_body().await.expect("it never fails") {
        all.extend_from_slice(&part);
    }
    all
}

#[tokio::test]
async fn a_response_comes_back_with_its_header_times_and_body() {
    let tier = leaked(MIB);
    let key = key(tier, "k", &HeaderMap::new());
    fill(tier, &key, &meta(&[("X-One", "1"), ("Content-Length", "5")]), &["hel", "lo"]).await;
    let (meta, mut hit) = find(tier, &key).await.expect("it was stored");
    assert_eq!(meta.headers()["x-one"], "1");
    assert_eq!((meta.created(), meta.fresh_until(), meta.epoch()), (at(1000), at(1050), at(990)));
    assert_eq!((meta.stale_while_revalidate_sec(), meta.stale_if_error_sec()), (7, u32::MAX));
    let Found(entry) = meta.extensions().get::<Found>().expect("the entry comes along");
    assert_eq!(entry.times().lifetime, Duration::from_secs(60));
    assert_eq!(entry.times().age, Duration::from_secs(10));
    assert_eq!(entry.times().if_error, Duration::from_secs(9));
    assert_eq!(read(&mut hit).await, b"hello");
}

#[tokio::test]
async fn a_body_of_its_announced_length_is_there_before_it_is_said_to_have_ended() {
    let tier = leaked(MIB);
    let key = key(tier, "k", &HeaderMap::new());
    let sized = meta(&[("Content-Length", "5")]);
    let mut miss = tier.get_miss_handler(&key, &sized, &trace()).await.expect("it never fails");
    miss.write_body(Bytes::from_static(b"hel"), false).await.expect("it never fails");
    assert!(find(tier, &key).await.is_none());
    miss.write_body(Bytes::from_static(b"lo"), false).await.expect("it never fails");
    let (_, mut hit) = find(tier, &key).await.expect("it is whole");
    assert_eq!(read(&mut hit).await, b"hello");
    miss.finish().await.expect("it never fails");
    assert!(find(tier, &key).await.is_some());
}

#[tokio::test]
async fn the_times_that_the_policy_attached_come_back_exactly() {
    let tier = leaked(MIB);
    let key = key(tier, "k", &HeaderMap::new());
    let exact = Times { lifetime: Duration::from_millis(1500), ..a_minute() };
    let mut meta = meta(&[]);
    meta.extensions_mut().insert(exact);
    fill(tier, &key, &meta, &[]).await;
    let (meta, _) = find(tier, &key).await.expect("it was stored");
    let Found(entry) = meta.extensions().get::<Found>().expect("the entry comes along");
    assert_eq!(entry.times(), exact);
    assert_eq!(meta.fresh_until(), exact.fresh_until());
}

#[tokio::test]
async fn both_ways_find_the_same_variant() {
    let tier = leaked(MIB);
    let (german, french) = (fields(&[("x-lang", "de")]), fields(&[("x-lang", "fr")]));
    fill(tier, &key(tier, "k", &german), &meta(&[("Vary", "X-Lang")]), &["de"]).await;
    assert!(find(tier, &key(tier, "k", &french)).await.is_none());
    let (_, mut hit) = find(tier, &key(tier, "k", &german)).await.expect("it was stored");
    assert_eq!(read(&mut hit).await, b"de");
    let entry = look(tier, b"k", &german).expect("it was stored");
    assert_eq!(body_of(&entry), b"de");
}

#[tokio::test]
async fn writing_never_fails_even_without_room() {
    let tier = leaked(20_000);
    let key = key(tier, "k", &HeaderMap::new());
    let body: &'static [u8] = &[0; 50_000];
    let mut miss = tier.get_miss_handler(&key, &meta(&[]), &trace()).await.expect("never fails");
    for _ in 0..3 {
        miss.write_body(Bytes::from_static(body), false).await.expect("never fails");
    }
    miss.finish().await.expect("never fails");
    assert!(find(tier, &key).await.is_none());
}

#[tokio::test]
async fn a_body_of_another_length_than_announced_is_finished_but_not_stored() {
    let tier = leaked(MIB);
    let key = key(tier, "k", &HeaderMap::new());
    fill(tier, &key, &meta(&[("Content-Length", "9")]), &["hello"]).await;
    assert!(find(tier, &key).await.is_none());
}

#[tokio::test]
async fn a_dropped_writer_stores_nothing() {
    let tier = leaked(MIB);
    let key = key(tier, "k", &HeaderMap::new());
    let mut miss = tier.get_miss_handler(&key, &meta(&[]), &trace()).await.expect("never fails");
    miss.write_body(Bytes::from_static(b"hel"), false).await.expect("never fails");
    drop(miss);
    assert!(find(tier, &key).await.is_none());
}

#[tokio::test]
async fn ranges_are_read_by_seeking() {
    let tier = leaked(MIB);
    let key = key(tier, "k", &HeaderMap::new());
    fill(tier, &key, &meta(&[]), &["hello"]).await;
    let (_, mut hit) = find(tier, &key).await.expect("it was stored");
    assert!(hit.can_seek());
    hit.seek(1, Some(3)).expect("it is within the body");
    assert_eq!(read(&mut hit).await, b"el");
    hit.seek(3, None).expect("it is within the body");
    assert_eq!(read(&mut hit).await, b"lo");
    assert!(hit.seek(6, None).is_err());
}

#[tokio::test]
async fn a_purge_by_pingoras_short_key_removes_all_variants() {
    let tier = leaked(MIB);
    for lang in ["de", "fr"] {
        let request = fields(&[("x-lang", lang)]);
        fill(tier, &key(tier, "k", &request), &meta(&[("Vary", "X-Lang")]), &["x"]).await;
    }
    let compact = key(tier, "k", &HeaderMap::new()).to_compact();
    let target = PurgeTarget::Active(&compact);
    let purge = || async { Storage::purge(tier, target, PurgeType::Invalidation, &trace()).await };
    assert_eq!(purge().await.expect("our key"), PurgeOutcome::Purged(None));
    assert_eq!(purge().await.expect("our key"), PurgeOutcome::NotFound);
    assert_eq!(tier.stats().objects, 0);
}

#[tokio::test]
async fn a_soft_purge_closes_freshness_and_leaves_the_entry() {
    let tier = leaked(MIB);
    let key = key(tier, "k", &HeaderMap::new());
    let mut fresh = meta(&[]);
    fresh.extensions_mut().insert(Times { lifetime: Duration::from_secs(1 << 32), ..a_minute() });
    fill(tier, &key, &fresh, &["x"]).await;
    let compact = key.to_compact();
    let target = PurgeTarget::Active(&compact);
    let outcome = Storage::expire(tier, target, &trace()).await.expect("our key");
    assert_eq!(outcome, PurgeOutcome::Expired);
    let (meta, _) = find(tier, &key).await.expect("it is stale and not gone");
    assert!(!meta.is_fresh(SystemTime::now() + Duration::from_secs(1)));
}

#[tokio::test]
async fn a_purge_by_a_key_of_other_making_is_an_error_and_not_a_miss() {
    let tier = leaked(MIB);
    for compact in [CompactCacheKey::default(), CacheKey::new("k", "").to_compact()] {
        let target = PurgeTarget::Active(&compact);
        assert!(Storage::purge(tier, target, PurgeType::Invalidation, &trace()).await.is_err());
    }
}

#[tokio::test]
async fn what_was_asked_before_a_purge_is_not_stored_after_it() {
    let tier = leaked(MIB);
    let key = key(tier, "k", &HeaderMap::new());
    Memory::purge(tier, b"k");
    fill(tier, &key, &meta(&[]), &["old"]).await;
    assert!(find(tier, &key).await.is_none());
}

#[tokio::test]
async fn a_validation_updates_the_very_variant_that_was_found() {
    let tier = leaked(MIB);
    for lang in ["de", "fr"] {
        let request = fields(&[("x-lang", lang)]);
        fill(tier, &key(tier, "k", &request), &meta(&[("Vary", "X-Lang")]), &["x"]).await;
    }
    let german = key(tier, "k", &fields(&[("x-lang", "de")]));
    let (found, _) = find(tier, &german).await.expect("it was stored");
    let mut validated = meta(&[("Vary", "X-Lang"), ("ETag", "\"2\"")]);
    validated.extensions_mut().extend(found.extensions().clone());
    assert!(tier.update_meta(&german, &validated, &trace()).await.expect("never fails"));
    let tag = |entry: Arc<Entry>| entry.headers().get(ETAG).cloned();
    let look = |lang| look(tier, b"k", &fields(&[("x-lang", lang)])).expect("it was stored");
    assert!(tag(look("de")).is_some());
    assert!(tag(look("fr")).is_none());
}

#[tokio::test]
async fn a_validation_of_what_vanished_changes_nothing() {
    let tier = leaked(MIB);
    let key = key(tier, "k", &HeaderMap::new());
    fill(tier, &key, &meta(&[]), &["x"]).await;
    let (found, _) = find(tier, &key).await.expect("it was stored");
    Memory::purge(tier, b"k");
    assert!(!tier.update_meta(&key, &found, &trace()).await.expect("never fails"));
    assert!(!tier.update_meta(&key, &meta(&[]), &trace()).await.expect("never fails"));
    assert_eq!(tier.stats().objects, 0);
}

#[tokio::test]
async fn a_validation_that_varies_by_everything_removes_the_variant() {
    let tier = leaked(MIB);
    let key = key(tier, "k", &HeaderMap::new());
    fill(tier, &key, &meta(&[]), &["x"]).await;
    let (found, _) = find(tier, &key).await.expect("it was stored");
    let mut validated = meta(&[("Vary", "*")]);
    validated.extensions_mut().extend(found.extensions().clone());
    assert!(!tier.update_meta(&key, &validated, &trace()).await.expect("never fails"));
    assert!(find(tier, &key).await.is_none());
}
