//! What one message leaves behind for the next: memory of buffers and of maps of fields, kept for each thread.
//!
//! Messages need the same few pieces of memory again and again, and those above a kibibyte cost an allocator
//! more than most of what is done with them. Nothing of a message stays in them.

use bytes::BytesMut;
use http::HeaderMap;

use crate::message::head::Field;
use crate::message::head::fields::Span;
use crate::pieces::Pieces;

/// The places of names and values in a head.
pub(in crate::message) type Places = Vec<(Span, Span)>;

/// The largest piece of memory that is kept, in bytes.
const LARGEST: usize = 16 * 1024;
/// The most fields that a map which is kept has room for.
const MOST_FIELDS: usize = 64;

/// Room for a head, and with it for most bodies.
pub const ROOM: usize = 4 * 1024;

thread_local! {
    static TEXTS: Pieces<Vec<u8>> = const { Pieces::new() };
    static MAPS: Pieces<HeaderMap> = const { Pieces::new() };
    static BUFFERS: Pieces<BytesMut> = const { Pieces::new() };
    static ROOMS: Pieces<Vec<u8>> = const { Pieces::new() };
    static PLACES: Pieces<Places> = const { Pieces::new() };
    static LINES: Pieces<Vec<Field>> = const { Pieces::new() };
}

/// An empty text.
#[must_use]
pub fn text() -> Vec<u8> {
    TEXTS.with(Pieces::take).unwrap_or_default()
}

/// Leaves the memory of a text behind.
pub fn leave_text(mut text: Vec<u8>) {
    if text.capacity() > 0 && text.capacity() <= LARGEST {
        text.clear();
        TEXTS.with(|kept| kept.leave(text));
    }
}

/// An empty map of fields.
#[must_use]
pub fn fields() -> HeaderMap {
    MAPS.with(Pieces::take).unwrap_or_default()
}

/// Leaves the memory of a map behind.
pub fn leave_fields(mut fields: HeaderMap) {
    if fields.capacity() > 0 && fields.capacity() <= MOST_FIELDS {
        fields.clear();
        MAPS.with(|kept| kept.leave(fields));
    }
}

/// An empty buffer. Where parts of what it held are still in use, it makes itself new memory.
#[must_use]
pub fn buffer() -> BytesMut {
    BUFFERS.with(Pieces::take).unwrap_or_default()
}

/// Leaves the memory of a buffer behind.
pub fn leave_buffer(mut buffer: BytesMut) {
    if buffer.capacity() <= LARGEST {
        buffer.clear();
        BUFFERS.with(|kept| kept.leave(buffer));
    }
}

/// Room for [`ROOM`] bytes. What stands there is of no meaning.
#[must_use]
pub fn room() -> Vec<u8> {
    ROOMS.with(Pieces::take).unwrap_or_else(|| vec![0; ROOM])
}

/// Leaves such room behind.
pub fn leave_room(room: Vec<u8>) {
    if room.len() == ROOM {
        ROOMS.with(|kept| kept.leave(room));
    }
}

/// No places yet.
pub(in crate::message) fn places() -> Places {
    PLACES.with(Pieces::take).unwrap_or_default()
}

/// Leaves the memory of places behind.
pub(in crate::message) fn leave_places(mut places: Places) {
    if places.capacity() > 0 && places.capacity() <= MOST_FIELDS {
        places.clear();
        PLACES.with(|kept| kept.leave(places));
    }
}

/// No lines of a head yet.
pub(in crate::message) fn lines() -> Vec<Field> {
    LINES.with(Pieces::take).unwrap_or_default()
}

/// Leaves the memory of lines behind.
pub(in crate::message) fn leave_lines(mut lines: Vec<Field>) {
    if lines.capacity() > 0 && lines.capacity() <= MOST_FIELDS {
        lines.clear();
        LINES.with(|kept| kept.leave(lines));
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
    fn what_is_large_is_not_kept() {
        leave_text(Vec::with_capacity(LARGEST + 1));
        assert!(text().capacity() <= LARGEST);
        leave_fields(HeaderMap::with_capacity(1000));
        assert!(fields().capacity() <= MOST_FIELDS);
    }
}
