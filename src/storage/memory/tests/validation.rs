//! What a 304 changes, and what it cannot bring back.

use http::HeaderMap;

use super::*;

#[test]
fn a_validation_replaces_the_head_and_keeps_body_creation_and_uses() {
    let tier = tier(MIB);
    let none = HeaderMap::new();
    put(&tier, b"k", b"hello").expect("there is room");
    let old = look(&tier, b"k", &none).expect("it was stored");
    let headers = fields(&[("etag", "\"2\"")]);
    let times = Times { created: at(2000), responded: at(2000), ..a_minute() };
    let arrival = Arrival { times, ..arrival(&tier, b"ignored", &none, &headers) };
    let new = tier.refresh(&old, &arrival).expect("it is still there");
    assert!(Arc::ptr_eq(&new, &look(&tier, b"k", &none).expect("it is there")));
    assert_eq!((new.headers(), body_of(&new)), (headers.clone(), b"hello".to_vec()));
    assert_eq!((new.times().created, new.times().responded), (at(1000), at(2000)));
    assert_eq!((new.hits(), tier.stats().objects), (2, 1));
    assert_eq!(tier.refresh(&old, &arrival).err(), Some(Abandoned::Vanished));
}

#[test]
fn a_validation_cannot_bring_back_what_was_purged_meanwhile() {
    let tier = tier(MIB);
    let none = HeaderMap::new();
    let old = put(&tier, b"k", b"1").expect("there is room");
    let asked = arrival(&tier, b"k", &none, &none);
    tier.purge(b"k");
    assert_eq!(tier.refresh(&old, &asked).err(), Some(Abandoned::Purged));
    put(&tier, b"k", b"2").expect("there is room");
    let later = arrival(&tier, b"k", &none, &none);
    assert_eq!(tier.refresh(&old, &later).err(), Some(Abandoned::Vanished));
    assert_eq!(body_of(&look(&tier, b"k", &none).expect("the new one")), b"2");
}

#[test]
fn a_validation_that_was_asked_for_before_a_soft_purge_leaves_it_stale() {
    let tier = tier(MIB);
    let none = HeaderMap::new();
    let old = put(&tier, b"k", b"1").expect("there is room");
    let before = arrival(&tier, b"k", &none, &none);
    tier.expire(b"k", at(1010));
    let still = tier.refresh(&old, &before).expect("it is there");
    assert_eq!(still.stale_since(), Some(at(1010)));
    let after = arrival(&tier, b"k", &none, &none);
    let fresh = tier.refresh(&still, &after).expect("it is there");
    assert_eq!(fresh.stale_since(), None);
}

#[test]
fn a_validation_that_names_other_fields_is_selected_by_them_from_then_on() {
    let tier = tier(MIB);
    let german = fields(&[("x-lang", "de")]);
    let old = store(&tier, b"k", &german, &HeaderMap::new(), b"1").expect("there is room");
    let vary = fields(&[("vary", "x-lang")]);
    tier.refresh(&old, &arrival(&tier, b"k", &german, &vary)).expect("it is there");
    assert!(look(&tier, b"k", &german).is_some());
    assert!(!has(&tier, b"k"));
}
