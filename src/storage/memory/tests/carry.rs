//! What one tier gives to another.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::cache::KeyRules;
use crate::cache::Policy as CachePolicy;
use crate::cache::key::Key;
use crate::cache::key::Target;
use crate::cache::purge::Many;
use crate::storage::memory::Carried;
use crate::storage::memory::Record;
use crate::storage::memory::Unwanted;

fn tier(limit: u64) -> Memory {
    Memory::new(Options::with_limit(limit))
}

/// Everything that `from` has, as far as it fits into `most`, on the way.
fn given(from: &Memory, most: u64) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut all = Vec::new();
    for hot in from.hottest(most) {
        for Carried { record, body } in from.carried(&hot) {
            all.push((record.encode(), body.collect::<Vec<_>>().concat()));
        }
    }
    all
}

fn take(to: &Memory, all: &[(Vec<u8>, Vec<u8>)]) -> Vec<Result<(), Unwanted>> {
    let mut names = HashMap::new();
    let taken = all.iter().map(|(record, body)| {
        let record = Record::decode(record).expect("it is a record");
        let mut carrying = to.take_in(&record, &mut names)?;
        for part in body.chunks(SEGMENT) {
            carrying.push(part)?;
        }
        carrying.finish(to)
    });
    taken.collect()
}

#[test]
fn an_entry_arrives_with_all_that_is_known_of_it() {
    let (from, to) = (tier(8 * MIB), tier(8 * MIB));
    let mut headers =
        fields(&[("etag", "\"a\""), ("vary", "accept"), ("surrogate-key", "one two")]);
    let mut secret = HeaderValue::from_static("secret");
    secret.set_sensitive(true);
    headers.insert("x-secret", secret);
    let route: Arc<str> = "blog".into();
    let request = fields(&[("accept", "text/html")]);
    let times = Times {
        created: at(900),
        responded: at(1000) + Duration::from_nanos(7),
        age: Duration::from_secs(3),
        while_revalidate: Duration::from_secs(5),
        if_error: Duration::from_secs(6),
        ..a_minute()
    };
    let target = Target {
        space: "up",
        scheme: "https",
        host: "a.example",
        port: None,
        path: "/x",
        query: Some("q"),
    };
    let rules =
        KeyRules { headers: vec![HeaderName::from_static("x-lang")], ..CachePolicy::default().key };
    let key = Key::new(&target, &fields(&[("x-lang", "de")]), &rules);
    let belonging = Belonging { resource: key.resource_len(), route: Some(&route) };
    let body = vec![7; 3 * SEGMENT + 5];
    let arrival =
        Arrival { times, belonging, ..arrival(&from, key.as_bytes(), &request, &headers) };
    let mut fill = from.begin_fill(&arrival).expect("there is room");
    fill.push(&body).expect("there is room");
    fill.finish().expect("it is stored");
    for second in 0..3 {
        from.lookup(key.as_bytes(), Some(&request), at(1010 + second)).expect("it is there");
    }
    let old = from.peek(key.as_bytes(), Some(&request), |_| true).expect("it is there");

    assert_eq!(take(&to, &given(&from, u64::MAX)), [Ok(())]);
    let other = fields(&[("accept", "text/plain")]);
    assert!(to.peek(key.as_bytes(), Some(&other), |_| true).is_none());
    let new = to.peek(key.as_bytes(), Some(&request), |_| true).expect("it is there");
    assert_eq!((new.status(), new.headers(), new.times()), (old.status(), old.headers(), times));
    assert!(new.headers()["x-secret"].is_sensitive() && !new.headers()["etag"].is_sensitive());
    assert_eq!((new.hits(), new.last_use()), (3, at(1012)));
    assert_eq!((new.fresh_until(), new.restraint()), (old.fresh_until(), old.restraint()));
    assert_eq!(new.reader().collect::<Vec<_>>().concat(), body);
    assert_eq!(new.subject().expect("a key says much").route, Some("blog"));
    assert_eq!(new.size(), old.size());

    // It is purged by each of its names.
    for many in [
        Many::Host("a.example".to_owned()),
        Many::Route("blog".to_owned()),
        Many::Upstream("up".to_owned()),
        Many::SurrogateKey("two".to_owned()),
        Many::Everything,
    ] {
        let to = tier(8 * MIB);
        assert_eq!(take(&to, &given(&from, u64::MAX)), [Ok(())]);
        to.purge_many(&many, Kind::Hard);
        assert!(to.peek(key.as_bytes(), Some(&request), |_| true).is_none(), "{many:?}");
    }
    let resource = Resource::new(&target, &rules);
    assert_eq!(to.purge_resource(&resource, Kind::Hard), 1);
    assert!(to.peek(key.as_bytes(), Some(&request), |_| true).is_none());
}

#[test]
fn what_was_purged_before_it_arrives_stays_away_whoever_purged_it() {
    let from = tier(MIB);
    for key in [b"a", b"b", b"c"] {
        put(&from, key, b"body").expect("there is room");
    }
    let all = given(&from, u64::MAX);
    let to = tier(MIB);
    to.purge(b"a");
    to.expire(b"b", at(1020));
    let taken = take(&to, &all);
    assert_eq!(taken.iter().filter(|taken| taken.is_ok()).count(), 2, "{taken:?}");
    assert!(look(&to, b"a", &HeaderMap::new()).is_none());
    let stale = look(&to, b"b", &HeaderMap::new()).expect("a soft purge leaves it");
    assert_eq!(stale.fresh_until(), at(1020));
    let current = look(&to, b"c", &HeaderMap::new()).expect("nobody purged it");
    assert_eq!(current.fresh_until(), at(1060));

    // What is fetched after the purge is another one.
    put(&to, b"a", b"new").expect("there is room");
    assert!(look(&to, b"a", &HeaderMap::new()).is_some());
    let to = tier(MIB);
    to.purge_all();
    assert!(
        take(&to, &all).iter().all(|taken| *taken == Err(Unwanted::Abandoned(Abandoned::Purged)))
    );
}

#[test]
fn what_the_sender_purged_is_not_sent_and_what_it_made_stale_is_stale() {
    let from = tier(MIB);
    for key in [b"a", b"b", b"c"] {
        put(&from, key, b"body").expect("there is room");
    }
    from.purge(b"a");
    from.expire(b"b", at(1020));
    let hot = from.hottest(u64::MAX);
    // In the last moment, and in a way that touches no entry.
    from.purge_many(&Many::Everything, Kind::Soft(at(1030)));
    let all: Vec<_> = hot.iter().flat_map(|hot| from.carried(hot)).collect();
    assert_eq!(all.len(), 2);
    let all = given(&from, u64::MAX);
    let to = tier(MIB);
    assert_eq!(take(&to, &all), [Ok(()), Ok(())]);
    let since =
        |key: &[u8]| look(&to, key, &HeaderMap::new()).and_then(|entry| entry.stale_since());
    assert_eq!((since(b"a"), since(b"b"), since(b"c")), (None, Some(at(1020)), Some(at(1030))));
}

#[test]
fn variants_keep_their_order() {
    let (from, to) = (tier(MIB), tier(MIB));
    let english = fields(&[("accept-language", "en"), ("accept", "text/html")]);
    store(&from, b"k", &english, &HeaderMap::new(), b"first").expect("there is room");
    let vary = fields(&[("vary", "accept-language")]);
    store(&from, b"k", &english, &vary, b"second").expect("there is room");
    let vary = fields(&[("vary", "accept")]);
    store(&from, b"k", &english, &vary, b"third").expect("there is room");
    assert!(take(&to, &given(&from, u64::MAX)).iter().all(Result::is_ok));
    for request in [english, fields(&[("accept-language", "en")]), fields(&[("accept", "x")])] {
        let body = |tier: &Memory| {
            look(tier, b"k", &request).map(|entry| entry.reader().collect::<Vec<_>>().concat())
        };
        assert_eq!(body(&to), body(&from), "{request:?}");
    }
}

#[test]
fn the_hottest_comes_first_and_the_coldest_is_left() {
    let (from, to) = (tier(MIB), tier(MIB));
    for n in 0..10_u8 {
        put(&from, &[n], &[n; 1000]).expect("there is room");
    }
    // The last of them is used last, but those that were never used again are colder.
    for n in [3_u8, 1, 7] {
        from.lookup(&[n], None, at(2000 + u64::from(n))).expect("it is there");
    }
    let size = look(&from, &[3], &HeaderMap::new()).expect("it is there").size();
    let hot = from.hottest(size * 3);
    assert_eq!(hot.len(), 3);
    let all = given(&from, size * 3);
    take(&to, &all);
    let there: Vec<u8> =
        (0..10).filter(|n| look(&to, &[*n], &HeaderMap::new()).is_some()).collect();
    assert_eq!(there, [1, 3, 7]);
    assert!(from.hottest(0).is_empty());
}

#[test]
fn a_smaller_tier_takes_in_what_fits_and_evicts_nothing_for_it() {
    let (from, to) = (tier(16 * MIB), tier(2 * MIB));
    for n in 0..100_u8 {
        put(&from, &[n], &vec![n; 100_000]).expect("there is room");
    }
    let taken = take(&to, &given(&from, u64::MAX));
    let stats = to.stats();
    let kept = taken.iter().filter(|taken| taken.is_ok()).count();
    assert_eq!((stats.objects, stats.evictions), (kept as u64, 0));
    assert!(kept > 10 && stats.bytes <= stats.limit, "{stats:?}");
    let large = tier(64 * MIB);
    put(&large, b"large", &vec![1; 4 << 20]).expect("there is room");
    assert_eq!(take(&to, &given(&large, u64::MAX)), [Err(Unwanted::NoRoom)]);
}

#[test]
fn a_record_that_cannot_be_is_left_out() {
    let (from, to) = (tier(MIB), tier(MIB));
    let vary = fields(&[("vary", "accept")]);
    store(&from, b"k", &HeaderMap::new(), &vary, b"body").expect("there is room");
    let hot = from.hottest(u64::MAX);
    let right = from.carried(&hot[0]).remove(0).record;
    let mut names = HashMap::new();
    let with = |change: fn(&mut Record)| {
        let mut record = right.clone();
        change(&mut record);
        record
    };
    for wrong in [
        with(|record| record.status = 7),
        with(|record| record.lines = b"vary accept\r\n".to_vec()),
        with(|record| record.lines = b"vary: accept\n".to_vec()),
        with(|record| record.lines = b"vary: accept".to_vec()),
        with(|record| record.lines = b"va ry: accept\r\n".to_vec()),
        with(|record| record.lines = b"vary: acc\x01ept\r\n".to_vec()),
        with(|record| record.resource = Some(1)),
        with(|record| record.sensitive = u32::MAX),
        with(|record| record.values = None),
        with(|record| record.lines.clear()),
        with(|record| record.body = u64::MAX),
    ] {
        assert!(to.take_in(&wrong, &mut names).is_err(), "{wrong:?}");
    }
    // A body that is not as long as was announced.
    let mut short = to.take_in(&right, &mut names).expect("it is right");
    short.push(b"bod").expect("it is not too long yet");
    assert_eq!(short.finish(&to), Err(Unwanted::Abandoned(Abandoned::WrongLength)));
    let mut long = to.take_in(&right, &mut names).expect("it is right");
    assert!(long.push(b"body and more").is_err());
    assert_eq!((to.stats().objects, to.stats().evictions), (0, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_a_record_says_nothing_breaks(
        status in any::<u16>(), lines in "([a-z]{1,5}: [ -~]{0,9}\r\n){0,4}", sensitive in 0_u32..40,
        numbers in any::<[u64; 9]>(), body in 0_u64..100, resource in prop::option::of(0_u32..9),
    ) {
        let to = tier(MIB);
        let record = Record {
            key: b"some key".to_vec(),
            resource,
            status,
            lines: lines.into_bytes(),
            sensitive,
            times: numbers[..6].try_into().expect("six"),
            stale_since: numbers[6],
            hits: numbers[7],
            last: numbers[8],
            body,
            ..Record::default()
        };
        if let Ok(mut carrying) = to.take_in(&record, &mut HashMap::new()) {
            carrying.push(&vec![1; usize::try_from(body).expect("small")]).expect("there is room");
            carrying.finish(&to).expect("nothing was purged");
            let entry = to.lookup(b"some key", None, at(1000)).expect("it is there");
            prop_assert_eq!(entry.body_len(), body);
            let _ = (entry.headers(), entry.fresh_until(), entry.times().current_age(at(1)));
            to.sweep(at(1 << 33), 100);
        }
    }
}
