//! What one message leaves behind for the next: memory of buffers and of maps of fields, kept for each thread.
//!
//! Messages need the same few pieces of memory again and again, and those above a kibibyte cost an allocator
//! more than most of what is done with them. Nothing of a message stays in them.

use std::cell::RefCell;

use bytes::BytesMut;
use http::HeaderMap;

use crate::message::head::Field;
use crate::message::head::fields::Span;

/// The places of names and values in a head.
pub(in crate::message) type Places = Vec<(Span, Span)>;

/// How many pieces of a kind a thread keeps.
const MOST: usize = 8;
/// The largest piece of memory that is kept, in bytes.
const LARGEST: usize = 16 * 1024;
/// The most fields that a map which is kept has room for.
const MOST_FIELDS: usize = 64;

thread_local! {
    static TEXTS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static MAPS: RefCell<Vec<HeaderMap>> = const { RefCell::new(Vec::new()) };
    static BUFFERS: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
    static PLACES: RefCell<Vec<Places>> = const { RefCell::new(Vec::new()) };
    static LINES: RefCell<Vec<Vec<Field>>> = const { RefCell::new(Vec::new()) };
}

/// An empty text.
#[must_use]
pub fn text() -> Vec<u8> {
    TEXTS.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Leaves the memory of a text behind.
pub fn leave_text(mut text: Vec<u8>) {
    if text.capacity() > 0 && text.capacity() <= LARGEST {
        text.clear();
        // Not at the very end of the thread.
        let _ = TEXTS.try_with(|kept| keep(kept, text));
    }
}

/// An empty map of fields.
#[must_use]
pub fn fields() -> HeaderMap {
    MAPS.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Leaves the memory of a map behind.
pub fn leave_fields(mut fields: HeaderMap) {
    if fields.capacity() > 0 && fields.capacity() <= MOST_FIELDS {
        fields.clear();
        // Not at the very end of the thread.
        let _ = MAPS.try_with(|kept| keep(kept, fields));
    }
}

/// An empty buffer. Where parts of what it held are still in use, it makes itself new memory.
#[must_use]
pub fn buffer() -> BytesMut {
    BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Leaves the memory of a buffer behind.
pub fn leave_buffer(mut buffer: BytesMut) {
    if buffer.capacity() <= LARGEST {
        buffer.clear();
        // Not at the very end of the thread.
        let _ = BUFFERS.try_with(|kept| keep(kept, buffer));
    }
}

/// No places yet.
pub(in crate::message) fn places() -> Places {
    PLACES.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Leaves the memory of places behind.
pub(in crate::message) fn leave_places(mut places: Places) {
    if places.capacity() > 0 && places.capacity() <= MOST_FIELDS {
        places.clear();
        // Not at the very end of the thread.
        let _ = PLACES.try_with(|kept| keep(kept, places));
    }
}

/// No lines of a head yet.
pub(in crate::message) fn lines() -> Vec<Field> {
    LINES.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Leaves the memory of lines behind.
pub(in crate::message) fn leave_lines(mut lines: Vec<Field>) {
    if lines.capacity() > 0 && lines.capacity() <= MOST_FIELDS {
        lines.clear();
        // Not at the very end of the thread.
        let _ = LINES.try_with(|kept| keep(kept, lines));
    }
}

fn keep<T>(kept: &RefCell<Vec<T>>, piece: T) {
    let mut kept = kept.borrow_mut();
    if kept.len() < MOST {
        kept.push(piece);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header;

    use super::*;

    #[test]
    fn memory_comes_back_and_nothing_in_it() {
        let mut text = text();
        text.extend_from_slice(b"some text");
        let (at, room) = (text.as_ptr(), text.capacity());
        leave_text(text);
        let text = super::text();
        assert_eq!((text.as_ptr(), text.capacity(), &*text), (at, room, &b""[..]));

        let mut map = fields();
        map.insert(header::AGE, HeaderValue::from_static("1"));
        let room = map.capacity();
        leave_fields(map);
        let map = fields();
        assert_eq!((map.len(), map.capacity()), (0, room));

        let mut places = places();
        places.push((Span::new(0, 1), Span::new(2, 3)));
        let (at, room) = (places.as_ptr(), places.capacity());
        leave_places(places);
        let places = super::places();
        assert_eq!((places.as_ptr(), places.capacity(), places.len()), (at, room, 0));

        let mut bytes = buffer();
        bytes.extend_from_slice(b"some bytes");
        leave_buffer(bytes);
        assert!(buffer().is_empty());
    }

    #[test]
    fn what_is_still_read_of_a_buffer_is_not_written_over() {
        let mut bytes = buffer();
        bytes.reserve(4096);
        bytes.extend_from_slice(b"a head and its body");
        let head = bytes.split_to(6).freeze();
        leave_buffer(bytes);
        let mut again = buffer();
        again.reserve(4096);
        again.extend_from_slice(b"something else, and more");
        assert_eq!(head, "a head");
    }

    #[test]
    fn what_is_large_or_too_much_is_not_kept() {
        leave_text(Vec::with_capacity(LARGEST + 1));
        assert_eq!(text().capacity(), 0);
        for _ in 0..2 * MOST {
            leave_fields(HeaderMap::with_capacity(8));
        }
        assert_eq!(MAPS.with_borrow(Vec::len), MOST);
        leave_fields(HeaderMap::with_capacity(1000));
        assert!(MAPS.with_borrow(|maps| maps.iter().all(|map| map.capacity() <= MOST_FIELDS)));
    }
}
