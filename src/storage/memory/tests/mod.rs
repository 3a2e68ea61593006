//! What the tier promises, tried from outside; `model` compares it with a naive one.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::SystemTime;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::StatusCode;

use crate::cache::key::Parts;
use crate::cache::key::Resource;
use crate::storage::memory::Abandoned;
use crate::storage::memory::Arrival;
use crate::storage::memory::Belonging;
use crate::storage::memory::Entry;
use crate::storage::memory::Fill;
use crate::storage::memory::Generation;
use crate::storage::memory::Held;
use crate::storage::memory::Kind;
use crate::storage::memory::Memory;
use crate::storage::memory::Options;
use crate::storage::memory::Policy;
use crate::storage::memory::Times;
use crate::storage::memory::body::Body;
use crate::storage::memory::body::OWNER;
use crate::storage::memory::body::SEGMENT;
use crate::storage::memory::body::SEGMENT_OVERHEAD;
use crate::storage::memory::entry::ENTRY_OVERHEAD;
use crate::storage::memory::fill::Draft;
use crate::storage::memory::select::Selection;
use crate::storage::memory::select::Selector;
use crate::storage::memory::shard::Gone;
use crate::storage::memory::shard::Shard;

mod carry;
mod long_way;
mod many;
mod model;
mod replay;
mod resources;
mod threads;
mod validation;
mod zones;

const MIB: u64 = 1 << 20;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn fields(list: &[(&'static str, &str)]) -> HeaderMap {
    list.iter()
        .map(|(name, value)| {
            let value = HeaderValue::from_str(value).expect("a test's value is valid");
            (HeaderName::from_static(name), value)
        })
        .collect()
}

/// Fresh from second 1000 to second 1060, no windows.
fn a_minute() -> Times {
    Times {
        created: at(1000),
        responded: at(1000),
        lifetime: Duration::from_secs(60),
        age: Duration::ZERO,
        while_revalidate: Duration::ZERO,
        if_error: Duration::ZERO,
    }
}

fn arrival<'a>(
    tier: &Memory,
    key: &'a [u8],
    request: &'a HeaderMap,
    headers: &'a HeaderMap,
) -> Arrival<'a> {
    Arrival {
        key,
        belonging: Belonging::default(),
        request: Some(request),
        status: StatusCode::OK,
        headers,
        times: a_minute(),
        length: None,
        largest: u64::MAX,
        asked: tier.generation(),
    }
}

fn store(
    tier: &Memory,
    key: &[u8],
    request: &HeaderMap,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Arc<Entry>, Abandoned> {
    let mut fill = tier.begin_fill(&arrival(tier, key, request, headers))?;
    fill.push(body)?;
    fill.finish()
}

fn put(tier: &Memory, key: &[u8], body: &[u8]) -> Result<Arc<Entry>, Abandoned> {
    store(tier, key, &HeaderMap::new(), &HeaderMap::new(), body)
}

fn look(tier: &Memory, key: &[u8], request: &HeaderMap) -> Option<Arc<Entry>> {
    tier.lookup(key, Some(request), at(1001))
}

fn has(tier: &Memory, key: &[u8]) -> bool {
    look(tier, key, &HeaderMap::new()).is_some()
}

fn body_of(entry: &Arc<Entry>) -> Vec<u8> {
    entry.reader().flatten().collect()
}

/// Sweeps every place once, wherever the last sweep stopped.
fn sweep_all(tier: &Memory, now: SystemTime) {
    (0..2).for_each(|_| assert!(tier.sweep(now, usize::MAX).wrapped));
}

fn tier(limit: u64) -> Memory {
    Memory::new(Options::with_limit(limit))
}

#[test]
fn what_was_stored_is_found_as_it_was() {
    let tier = tier(MIB);
    let headers = fields(&[("content-type", "text/plain"), ("x-one", "1")]);
    store(&tier, b"k", &HeaderMap::new(), &headers, b"hello").expect("there is room");
    let entry = look(&tier, b"k", &HeaderMap::new()).expect("it was stored");
    assert_eq!(entry.headers(), headers);
    assert_eq!(entry.status(), StatusCode::OK);
    assert_eq!(body_of(&entry), b"hello");
    assert_eq!(entry.times(), a_minute());
    assert_eq!((entry.hits(), entry.last_use()), (1, at(1001)));
    assert!(!has(&tier, b"other"));
}

#[test]
fn nothing_is_seen_before_the_body_ended() {
    let tier = tier(MIB);
    let none = HeaderMap::new();
    let mut fill = tier.begin_fill(&arrival(&tier, b"k", &none, &none)).expect("there is room");
    fill.push(b"hel").expect("there is room");
    assert!(!has(&tier, b"k"));
    drop(fill);
    assert!(!has(&tier, b"k"));
    assert_eq!(tier.stats().fills_aborted, 1);
}

#[test]
fn a_body_of_another_length_than_announced_is_not_stored() {
    let tier = tier(MIB);
    let none = HeaderMap::new();
    let announced = Arrival { length: Some(5), ..arrival(&tier, b"k", &none, &none) };
    let mut short = tier.begin_fill(&announced).expect("there is room");
    short.push(b"1234").expect("not more than announced");
    assert_eq!(short.finish().err(), Some(Abandoned::WrongLength));
    let mut long = tier.begin_fill(&announced).expect("there is room");
    assert_eq!(long.push(b"123456"), Err(Abandoned::WrongLength));
    assert_eq!(long.finish().err(), Some(Abandoned::WrongLength));
    let mut right = tier.begin_fill(&announced).expect("there is room");
    right.push(b"12345").expect("as announced");
    assert!(right.finish().is_ok());
    assert_eq!(tier.stats().fills_aborted, 2);
}

#[test]
fn each_variant_is_selected_by_the_fields_its_own_response_named() {
    let tier = tier(MIB);
    let german = fields(&[("x-lang", "de"), ("x-device", "phone")]);
    let french = fields(&[("x-lang", "fr"), ("x-device", "phone")]);
    store(&tier, b"k", &german, &fields(&[("vary", "x-lang")]), b"de").expect("there is room");
    let both = fields(&[("vary", "x-device, x-lang")]);
    store(&tier, b"k", &french, &both, b"fr phone").expect("there is room");
    let desk = |lang| fields(&[("x-lang", lang), ("x-device", "desk")]);
    let body = |request| look(&tier, b"k", &request).map(|entry| body_of(&entry));
    assert_eq!(body(desk("de")), Some(b"de".to_vec()));
    assert_eq!(body(french), Some(b"fr phone".to_vec()));
    assert_eq!(body(desk("fr")), None);
    assert_eq!(body(HeaderMap::new()), None);
}

#[test]
fn of_several_matching_variants_the_newest_serves() {
    let tier = tier(MIB);
    let request = fields(&[("x-lang", "de"), ("x-device", "phone")]);
    store(&tier, b"k", &request, &fields(&[("vary", "x-lang")]), b"1").expect("there is room");
    store(&tier, b"k", &request, &fields(&[("vary", "x-device")]), b"2").expect("there is room");
    let entry = look(&tier, b"k", &request).expect("both match");
    assert_eq!(body_of(&entry), b"2");
    assert_eq!(tier.variants(b"k").len(), 2);
}

#[test]
fn a_response_that_does_not_vary_supersedes_all_variants() {
    let tier = tier(MIB);
    let request = fields(&[("x-lang", "de")]);
    store(&tier, b"k", &request, &fields(&[("vary", "x-lang")]), b"1").expect("there is room");
    put(&tier, b"k", b"2").expect("there is room");
    assert_eq!(tier.variants(b"k").len(), 1);
    assert_eq!(body_of(&look(&tier, b"k", &request).expect("it matches")), b"2");
}

#[test]
fn a_response_that_varies_by_everything_is_not_stored() {
    let tier = tier(MIB);
    let star = fields(&[("vary", "accept, *")]);
    let stored = store(&tier, b"k", &HeaderMap::new(), &star, b"1");
    assert_eq!(stored.err(), Some(Abandoned::VaryStar));
}

#[test]
fn without_the_requests_fields_only_what_does_not_vary_is_found_or_stored() {
    let tier = tier(MIB);
    let none = HeaderMap::new();
    let vary = fields(&[("vary", "x-lang")]);
    store(&tier, b"k", &none, &vary, b"1").expect("there is room");
    assert!(tier.lookup(b"k", None, at(1001)).is_none());
    let unknown = Arrival { request: None, ..arrival(&tier, b"k", &none, &vary) };
    assert_eq!(tier.begin_fill(&unknown).err(), Some(Abandoned::RequestUnknown));
    put(&tier, b"k", b"2").expect("there is room");
    assert!(tier.lookup(b"k", None, at(1001)).is_some());
}

#[test]
fn the_oldest_variant_makes_room_for_one_too_many() {
    let tier = Memory::new(Options { variants: 2, ..Options::with_limit(MIB) });
    let vary = fields(&[("vary", "x-lang")]);
    for lang in ["a", "b", "a", "c"] {
        let request = fields(&[("x-lang", lang)]);
        store(&tier, b"k", &request, &vary, b"1").expect("there is room");
    }
    let found = |lang| look(&tier, b"k", &fields(&[("x-lang", lang)])).is_some();
    assert_eq!((found("a"), found("b"), found("c")), (true, false, true));
    assert_eq!(tier.stats().objects, 2);
}

#[test]
fn a_purge_removes_every_variant_and_says_how_many() {
    let tier = tier(MIB);
    let vary = fields(&[("vary", "x-lang")]);
    for lang in ["a", "b"] {
        let request = fields(&[("x-lang", lang)]);
        store(&tier, b"k", &request, &vary, b"1").expect("there is room");
    }
    put(&tier, b"other", b"1").expect("there is room");
    assert_eq!(tier.purge(b"k"), 2);
    assert_eq!(tier.purge(b"k"), 0);
    assert!(tier.variants(b"k").is_empty());
    assert!(has(&tier, b"other"));
}

#[test]
fn what_was_asked_before_a_purge_never_shows_after_it() {
    let purges: [fn(&Memory) -> u64; 2] = [|tier| tier.purge(b"k") as u64, |tier| tier.purge_all()];
    for purge in purges {
        let tier = tier(MIB);
        let none = HeaderMap::new();
        let before = arrival(&tier, b"k", &none, &none);
        let begun = tier.begin_fill(&before).expect("there is room");
        purge(&tier);
        assert_eq!(begun.finish().err(), Some(Abandoned::Purged));
        let late = tier.begin_fill(&before).expect("there is room");
        assert_eq!(late.finish().err(), Some(Abandoned::Purged));
        put(&tier, b"k", b"new").expect("it was asked for after the purge");
        assert!(has(&tier, b"k"));
    }
}

#[test]
fn thousands_of_purges_of_other_keys_do_not_keep_a_slow_response_out() {
    let tier = tier(256 << 20);
    let key = b"slow\0fi";
    let belonging = Belonging { resource: 4, ..Belonging::default() };
    let none = HeaderMap::new();
    let slow = Arrival { belonging, ..arrival(&tier, key, &none, &none) };
    for n in 0..4000 {
        let bytes = format!("/{n}").into_bytes();
        for parts in [Parts::One, Parts::Many] {
            tier.purge_resource(&Resource { bytes: bytes.clone(), parts }, Kind::Hard);
        }
    }
    tier.begin_fill(&slow).expect("it may be stored").finish().expect("none of them concerned it");
    assert!(has(&tier, key));
    tier.purge_resource(&Resource { bytes: b"slow".to_vec(), parts: Parts::Many }, Kind::Hard);
    assert!(!has(&tier, key));
    let refused = tier.begin_fill(&slow).and_then(Fill::finish);
    assert_eq!(refused.err(), Some(Abandoned::Purged), "it was asked for before");
}

#[test]
fn a_soft_purge_makes_stale_at_that_instant_and_what_was_asked_before_too() {
    let tier = tier(MIB);
    let none = HeaderMap::new();
    put(&tier, b"k", b"1").expect("there is room");
    let fill = tier.begin_fill(&arrival(&tier, b"k", &none, &none)).expect("there is room");
    assert_eq!(tier.expire(b"k", at(1010)), 1);
    assert_eq!(tier.expire(b"k", at(1020)), 1);
    let entry = look(&tier, b"k", &none).expect("it is stale and not gone");
    assert_eq!((entry.fresh_until(), entry.stale_since()), (at(1010), Some(at(1010))));
    let filled = fill.finish().expect("a soft purge lets it in");
    assert_eq!(filled.fresh_until(), at(1010));
    let after = put(&tier, b"k", b"2").expect("there is room");
    assert_eq!(after.stale_since(), None);
}

#[test]
fn purging_everything_hides_all_at_once_and_sweeping_returns_the_memory() {
    let tier = tier(MIB);
    let empty = tier.stats().bytes;
    for n in 0..200_u8 {
        put(&tier, &[n], b"1").expect("there is room");
    }
    assert_eq!(tier.purge_all(), 200);
    assert!((0..200_u8).all(|n| !has(&tier, &[n]) && tier.variants(&[n]).is_empty()));
    let first = tier.sweep(at(1001), 50);
    assert_eq!((first.looked, first.removed, first.wrapped), (50, 50, false));
    assert_eq!(tier.stats().objects, 150);
    assert_eq!(tier.purge(&[199]), 0, "it was purged already");
    sweep_all(&tier, at(1001));
    assert_eq!((tier.stats().objects, tier.stats().bytes), (0, empty));
}

#[test]
fn sweeping_takes_what_can_serve_nobody_and_no_more() {
    let tier = tier(MIB);
    let none = HeaderMap::new();
    let tagged = fields(&[("etag", "\"1\"")]);
    let windows = Times { if_error: Duration::from_secs(30), ..a_minute() };
    let keep = |key, headers, times| {
        let arrival = Arrival { times, ..arrival(&tier, key, &none, headers) };
        tier.begin_fill(&arrival).expect("there is room").finish().expect("there is room");
    };
    keep(b"plain", &none, a_minute());
    keep(b"window", &none, windows);
    keep(b"tagged", &tagged, a_minute());
    let left = |now| {
        sweep_all(&tier, now);
        (has(&tier, b"plain"), has(&tier, b"window"), has(&tier, b"tagged"))
    };
    assert_eq!(left(at(1059)), (true, true, true));
    assert_eq!(left(at(1060)), (false, true, true));
    assert_eq!(left(at(1089)), (false, true, true));
    assert_eq!(left(at(1090)), (false, false, true));
    assert_eq!(left(at(1060 + 3599)), (false, false, true));
    assert_eq!(left(at(1060 + 3600)), (false, false, false));
}

#[test]
fn an_object_above_the_largest_is_refused_announced_or_not() {
    let tier = Memory::new(Options { max_object: 1000, ..Options::with_limit(MIB) });
    let none = HeaderMap::new();
    let announced = Arrival { length: Some(1001), ..arrival(&tier, b"k", &none, &none) };
    assert_eq!(tier.begin_fill(&announced).err(), Some(Abandoned::TooLarge));
    assert_eq!(put(&tier, b"k", &[0; 1001]).err(), Some(Abandoned::TooLarge));
    assert!(put(&tier, b"k", &[0; 1000]).is_ok());
}

#[test]
fn a_fill_without_room_is_abandoned_and_all_it_held_returned() {
    let tier = Memory::new(Options { max_object: u64::MAX, ..Options::with_limit(MIB) });
    let empty = tier.stats().bytes;
    let none = HeaderMap::new();
    let mut fill = tier.begin_fill(&arrival(&tier, b"k", &none, &none)).expect("there is room");
    let chunk = [0; SEGMENT];
    let refused = (0..20).find_map(|_| fill.push(&chunk).err());
    assert_eq!(refused, Some(Abandoned::NoRoom));
    assert_eq!((fill.push(b"more"), fill.len()), (Err(Abandoned::NoRoom), 0));
    assert_eq!(tier.stats().bytes, empty);
    assert_eq!(fill.finish().err(), Some(Abandoned::NoRoom));
    assert_eq!(tier.stats().fills_aborted, 1);
}

#[test]
fn a_tier_without_memory_stores_nothing_and_fails_nothing() {
    let tier = tier(0);
    assert_eq!(put(&tier, b"k", b"").err(), Some(Abandoned::NoRoom));
    assert!(!has(&tier, b"k"));
    assert_eq!(tier.sweep(at(0), 10).removed, 0);
}

#[test]
fn entries_go_to_make_room_and_the_limit_holds() {
    for policy in [Policy::Lru, Policy::S3Fifo] {
        let tier = Memory::new(Options { policy, ..Options::with_limit(MIB) });
        for n in 0..2000_u32 {
            put(&tier, &n.to_be_bytes(), &[0; 2000]).expect("room is made");
            assert!(tier.stats().bytes <= MIB);
        }
        assert!(tier.stats().evictions > 1000);
        assert!(tier.stats().bytes > MIB / 2, "{:?}", tier.stats());
    }
}

#[test]
fn what_a_reader_holds_is_neither_evicted_nor_forgotten_on_the_bill() {
    for policy in [Policy::Lru, Policy::S3Fifo] {
        let tier = Memory::new(Options { policy, ..Options::with_limit(MIB) });
        let whole = vec![7; 3 * SEGMENT];
        let entry = put(&tier, b"held", &whole).expect("there is room");
        let mut reader = entry.reader();
        drop(entry);
        let first = reader.next().expect("the body is not empty");
        for n in 0..2000_u32 {
            put(&tier, &n.to_be_bytes(), &[0; 2000]).expect("room is made");
        }
        assert!(has(&tier, b"held"));
        tier.purge(b"held");
        assert!(tier.stats().bytes >= whole.len() as u64);
        let rest: Vec<u8> = first.into_iter().chain(reader.flatten()).collect();
        assert_eq!(rest, whole);
    }
}

#[test]
fn a_purged_object_costs_a_slow_reader_no_more_than_it_holds() {
    let tier = tier(4 * MIB);
    let empty = tier.stats().bytes;
    let entry = put(&tier, b"k", &vec![7; MIB as usize]).expect("there is room");
    let mut reader = entry.reader();
    let queued = reader.next().expect("the body is not empty");
    tier.purge(b"k");
    drop((entry, reader));
    assert_eq!(tier.stats().bytes - empty, queued.len() as u64 + SEGMENT_OVERHEAD);
}

#[test]
fn a_reader_seeks_and_stops_where_it_is_told() {
    let tier = tier(MIB);
    let whole: Vec<u8> = (0..2 * SEGMENT).map(|n| n as u8).collect();
    let entry = put(&tier, b"k", &whole).expect("there is room");
    let mut reader = entry.reader();
    for (start, end) in [(0, 1), (SEGMENT - 1, SEGMENT + 1), (2 * SEGMENT - 1, 2 * SEGMENT + 9)] {
        reader.seek(start as u64, Some(end as u64)).expect("it is within the body");
        let end = end.min(whole.len());
        assert_eq!(reader.remaining(), (end - start) as u64);
        assert_eq!(reader.by_ref().flatten().collect::<Vec<u8>>(), &whole[start..end]);
    }
    assert!(reader.seek(2 * SEGMENT as u64, None).is_ok());
    assert_eq!(reader.next(), None);
    assert!(reader.seek(2 * SEGMENT as u64 + 1, None).is_err());
}

#[test]
fn a_hit_shares_the_stored_bytes() {
    let tier = tier(MIB);
    put(&tier, b"k", b"hello").expect("there is room");
    let read = || look(&tier, b"k", &HeaderMap::new())?.reader().next();
    let (one, other) = (read().expect("a body"), read().expect("a body"));
    assert_eq!(one.as_ptr(), other.as_ptr());
}

#[test]
fn an_entry_can_be_removed_alone_and_once() {
    let tier = tier(MIB);
    let vary = fields(&[("vary", "x-lang")]);
    let [one, two] = ["a", "b"].map(|lang| {
        let request = fields(&[("x-lang", lang)]);
        store(&tier, b"k", &request, &vary, lang.as_bytes()).expect("there is room")
    });
    assert!(tier.remove(&one));
    assert!(!tier.remove(&one));
    let left = tier.variants(b"k");
    assert!(left.len() == 1 && Arc::ptr_eq(&left[0], &two));
}

#[test]
fn bookkeeping_stays_below_half_a_kibibyte_per_object() {
    let bookkeeping = ENTRY_OVERHEAD + OWNER + SEGMENT_OVERHEAD;
    assert!(bookkeeping <= 512, "{bookkeeping}");
    // An allocator's next larger place is a quarter larger.
    assert_eq!(size_of::<Entry>() + 2 * size_of::<usize>(), 256);
}

#[test]
fn while_the_process_holds_too_much_the_tier_shrinks_and_grows_back_after() {
    let tier = tier(4 * MIB);
    for n in 0..6000_u32 {
        put(&tier, &n.to_be_bytes(), &[0; 1000]).expect("room is made");
    }
    let full = tier.stats();
    tier.relieve(11 * MIB, 10 * MIB);
    let after = tier.stats();
    assert_eq!(after.ceiling, full.ceiling - MIB);
    assert!(after.bytes <= after.ceiling, "{after:?}");
    put(&tier, b"one more", &[0; 1000]).expect("room is made");
    assert!(tier.stats().bytes <= after.ceiling);
    (0..20).for_each(|_| tier.relieve(100 * MIB, 10 * MIB));
    assert!(tier.stats().ceiling >= MIB, "a quarter is left in any case");
    (0..20).for_each(|_| tier.relieve(5 * MIB, 10 * MIB));
    assert_eq!(tier.stats().ceiling, full.ceiling);
}

#[test]
fn nothing_is_taken_while_the_process_holds_far_too_much() {
    let tier = tier(4 * MIB);
    let resident = Arc::new(AtomicU64::new(0));
    let told = Arc::clone(&resident);
    tier.watch(move || Some(Held { resident: told.load(Ordering::Relaxed), allowed: 10 * MIB }));
    put(&tier, b"before", &[0; 1000]).expect("room is made");
    resident.store(11 * MIB, Ordering::Relaxed);
    tier.look();
    assert_eq!(put(&tier, b"while", &[0; 1000]).err(), Some(Abandoned::NoRoom));
    assert!(
        tier.lookup(b"before", None, SystemTime::UNIX_EPOCH).is_some(),
        "what is stored is served"
    );
    // It is looked again after so much was asked for, without anybody's clock.
    resident.store(9 * MIB, Ordering::Relaxed);
    let refused = (0..2000_u32).take_while(|n| put(&tier, &n.to_be_bytes(), &[0; 1000]).is_err());
    assert!(refused.count() < 1000);
    put(&tier, b"after", &[0; 1000]).expect("room is made");
}

#[test]
fn the_sizes_of_entries_add_up_to_what_is_taken() {
    let tier = tier(4 * MIB);
    let empty = tier.stats().bytes;
    let bodies = [0, 1, 1000, SEGMENT, 3 * SEGMENT + 1];
    let heads = [fields(&[]), fields(&[("x-empty", "")]), fields(&[("x-one", "1")])];
    let mut sum = 0;
    for (n, body) in bodies.into_iter().enumerate() {
        for (m, head) in heads.iter().enumerate() {
            let key = [n as u8, m as u8];
            let entry = store(&tier, &key, &HeaderMap::new(), head, &vec![0; body]);
            sum += entry.expect("there is room").size();
        }
    }
    assert_eq!(tier.stats().bytes, empty + sum);
}

#[test]
fn generations_are_ordered_by_purges_of_anything() {
    let tier = tier(MIB);
    let first: Generation = tier.generation();
    assert_eq!(tier.generation(), first);
    tier.purge(b"k");
    assert!(tier.generation() > first);
}

#[test]
fn two_keys_that_share_a_hash_displace_and_never_answer_for_each_other() {
    let tier = tier(MIB);
    let none = HeaderMap::new();
    let mut shard = Shard::new(Policy::S3Fifo, 1 << 20);
    let mut gone = Gone::new();
    for key in [b"one".as_slice(), b"other"] {
        let arrival = arrival(&tier, key, &none, &none);
        let draft = Draft::new(&tier, &arrival, Selection::default()).expect("there is room");
        let body = Body::One(Bytes::new());
        let entry = draft.complete(&tier, 7, 1, body, 0).expect("there is room");
        shard.insert(Arc::new(entry), 16, &mut gone);
    }
    let find = |key| shard.find(7, key, &mut Selector::new(None), |_| true);
    assert!(find(b"one").is_none());
    assert_eq!(find(b"other").map(|entry| entry.key()), Some(b"other".as_slice()));
    assert_eq!((shard.count(), gone.len()), (1, 1));
}
