//! Heads of answers that were given a moment ago, kept for the next that is the same but for its id.
//!
//! What is asked for again and again has the same fields for as long as its age is the same number of
//! seconds. To make a map of them out of what is stored costs as much as all that HTTP/2 does with them;
//! to copy one costs a third. Each thread keeps a few, of what it answered twice within such a second.

use std::sync::Arc;
use std::sync::Weak;

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;

/// How many are kept, by the last bits of the entry's number.
const PLACES: usize = 32;
/// The most bytes that the values of one may have.
const MOST: usize = 4 * 1024;

/// What the fields of a hit follow from, within one generation; the id of the request aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Of {
    /// The number of the stored response, all of which is the answer.
    pub(super) entry: u64,
    /// The route.
    pub(super) route: usize,
    /// The door of the listener.
    pub(super) listener: usize,
    /// The age, in seconds.
    pub(super) age: u64,
    /// The seconds for which it stays fresh.
    pub(super) ttl: i64,
}

/// The heads that one thread keeps, of one generation `G`.
#[derive(Debug)]
pub(super) struct Heads<G> {
    generation: Weak<G>,
    places: Vec<Option<Kept>>,
}

#[derive(Debug)]
struct Kept {
    of: Of,
    /// `None` until it was made a second time.
    head: Option<HeaderMap>,
}

impl<G> Default for Heads<G> {
    fn default() -> Self {
        Self { generation: Weak::new(), places: Vec::new() }
    }
}

impl<G> Heads<G> {
    /// The head of this answer, where it is kept.
    pub(super) fn find(&self, generation: &Arc<G>, of: &Of) -> Option<&HeaderMap> {
        if self.generation.as_ptr() != Arc::as_ptr(generation) {
            return None;
        }
        let kept = self.places.get(place(of))?.as_ref()?;
        kept.head.as_ref().filter(|_| kept.of == *of)
    }

    /// This head was made. `varies` is the field in which every answer has a value of its own.
    pub(super) fn made(
        &mut self,
        generation: &Arc<G>,
        of: &Of,
        head: &HeaderMap,
        varies: &HeaderName,
    ) {
        if self.generation.as_ptr() != Arc::as_ptr(generation) {
            self.generation = Arc::downgrade(generation);
            self.places.clear();
            self.places.resize_with(PLACES, || None);
        }
        let Some(place) = self.places.get_mut(place(of)) else { return };
        match place {
            Some(kept) if kept.of == *of => kept.head = own(head, varies),
            Some(_) | None => *place = Some(Kept { of: *of, head: None }),
        }
    }
}

fn place(of: &Of) -> usize {
    usize::try_from(of.entry % PLACES as u64).unwrap_or_default()
}

/// A copy that shares no memory with what is stored, which would else outlive its end.
fn own(head: &HeaderMap, varies: &HeaderName) -> Option<HeaderMap> {
    if head.values().map(HeaderValue::len).sum::<usize>() > MOST {
        return None;
    }
    let mut own = HeaderMap::try_with_capacity(head.len() + 1).ok()?;
    for (name, value) in head.iter().filter(|(name, _)| *name != varies) {
        let mut copy = HeaderValue::from_bytes(value.as_bytes()).ok()?;
        copy.set_sensitive(value.is_sensitive());
        own.try_append(name, copy).ok()?;
    }
    Some(own)
}

#[cfg(test)]
mod tests {
    use http::header;

    use super::*;
    use crate::proxy::arrive::REQUEST_ID;

    fn of(entry: u64) -> Of {
        Of { entry, route: 0, listener: 0, age: 1, ttl: 9 }
    }

    fn head(etag: &'static str) -> HeaderMap {
        let mut head = HeaderMap::new();
        let mut etag = HeaderValue::from_static(etag);
        etag.set_sensitive(true);
        head.append(header::ETAG, etag);
        head.append(REQUEST_ID, HeaderValue::from_static("one"));
        head.append(header::VIA, HeaderValue::from_static("a"));
        head.append(header::VIA, HeaderValue::from_static("b"));
        head
    }

    #[test]
    fn what_was_made_twice_is_kept_but_for_the_field_that_varies() {
        let (mut heads, now) = (Heads::default(), Arc::new(()));
        assert_eq!(heads.find(&now, &of(7)), None);
        heads.made(&now, &of(7), &head("1"), &REQUEST_ID);
        assert_eq!(heads.find(&now, &of(7)), None);
        heads.made(&now, &of(7), &head("1"), &REQUEST_ID);
        let kept = heads.find(&now, &of(7)).expect("it was made twice");
        let mut like = head("1");
        like.remove(REQUEST_ID);
        assert_eq!(*kept, like);
        assert!(kept[header::ETAG].is_sensitive() && !kept[header::VIA].is_sensitive());
    }

    #[test]
    fn nothing_else_is_answered_with_it() {
        let (mut heads, now) = (Heads::default(), Arc::new(()));
        for _ in 0..2 {
            heads.made(&now, &of(7), &head("1"), &REQUEST_ID);
        }
        for other in [
            of(8),
            of(7 + PLACES as u64),
            Of { route: 1, ..of(7) },
            Of { listener: 1, ..of(7) },
            Of { age: 2, ..of(7) },
            Of { ttl: 8, ..of(7) },
        ] {
            assert_eq!(heads.find(&now, &other), None, "{other:?}");
        }
        assert_eq!(heads.find(&Arc::new(()), &of(7)), None);
        // Nor does another in its place, or of another generation, find or leave it there.
        heads.made(&now, &of(7 + PLACES as u64), &head("2"), &REQUEST_ID);
        assert_eq!(heads.find(&now, &of(7)), None);
        let later = Arc::new(());
        for generation in [&now, &now, &later] {
            heads.made(generation, &of(7), &head("1"), &REQUEST_ID);
        }
        assert_eq!((heads.find(&now, &of(7)), heads.find(&later, &of(7))), (None, None));
    }

    #[test]
    fn what_is_kept_shares_no_memory_with_what_is_stored_and_is_not_long() {
        let (mut heads, now) = (Heads::default(), Arc::new(()));
        for (entry, length, keeps) in [(1, MOST, true), (2, MOST + 1, false)] {
            let stored = bytes::Bytes::from(vec![b'x'; length]);
            let value = HeaderValue::from_maybe_shared(stored.clone()).expect("visible ASCII");
            let head = HeaderMap::from_iter([(header::ETAG, value)]);
            for _ in 0..2 {
                heads.made(&now, &of(entry), &head, &REQUEST_ID);
            }
            drop(head);
            assert_eq!(heads.find(&now, &of(entry)).is_some(), keeps);
            assert!(stored.is_unique());
        }
    }
}
