//! The head of a stored response as HTTP/1.1 writes it, without building it first: what `stored` and
//! `dress` would make of it, in the same order, written at once.

use std::fmt;
use std::time::SystemTime;

use http::HeaderName;
use http::StatusCode;
use http::header;
use pingora::Result;
use pingora::http::ResponseHeader;

use crate::cache::date;
use crate::listen::shortcut::Afterwards;
use crate::message::append::append;
use crate::message::append::append_few;
use crate::message::digits::Digits;
use crate::message::hops;
use crate::message::hops::Nominated;
use crate::message::list;
use crate::message::range;
use crate::message::reply::ReplyText;
use crate::message::title;
use crate::proxy::dress::Dress;
use crate::proxy::dress::Fields;
use crate::proxy::dress::Head;
use crate::proxy::dress::SERVER_TIMING;
use crate::proxy::stored;
use crate::proxy::stored::Selection;
use crate::storage::memory::Entry;

/// Appends the head of the answer that `selection` is of `entry`, dressed and with its last line.
///
/// # Errors
/// A route adds what no header can hold.
pub(crate) fn write(
    out: &mut Vec<u8>,
    entry: &Entry,
    selection: &Selection,
    dress: &Dress<'_>,
    after: Afterwards,
) -> Result<()> {
    status_line(out, selection.status(entry.status()));
    if dress.rules.is_empty() {
        kept(out, entry, selection, dress);
        described(out, entry, selection);
        let via = entry.lines().filter(|line| line.name.eq_ignore_ascii_case("via"));
        dressed(out, via.map(|line| line.value), dress);
    } else {
        // What a route's rules change is only known when all is there.
        let mut response: ResponseHeader =
            stored::head(entry, selection, dress)?.into_parts().0.into();
        response.remove_header(&header::CONNECTION);
        response.header_to_h1_wire(out);
    }
    let connection: &[u8] = match after {
        Afterwards::Keep => b"keep-alive",
        Afterwards::Close => b"close",
    };
    line(out, "Connection", connection);
    append_few(out, *b"\r\n");
    Ok(())
}

/// Appends the head of an answer that an origin gave to what is passed through, dressed; without its last lines,
/// which say how it is framed and what becomes of the connection.
///
/// # Errors
/// A route adds what no header can hold.
pub(crate) fn write_passed(
    out: &mut Vec<u8>,
    response: &mut (impl Head + Fields),
    dress: &Dress<'_>,
) -> Result<()> {
    dress.put_on(response)?;
    status_line(out, response.status());
    for (name, value) in response.all() {
        if *name != header::TRANSFER_ENCODING && *name != header::CONNECTION {
            line(out, title::of(name), value.as_bytes());
        }
    }
    Ok(())
}

/// The same of one that stands where it was read and that no rules of a route change, without what belongs to its
/// origin's connection: most of it is copied as it is. `ends` are the fields that Connection names.
pub(crate) fn write_text(
    out: &mut Vec<u8>,
    response: &ReplyText<'_>,
    ends: &Nominated<'_>,
    dress: &Dress<'_>,
) {
    status_line(out, response.status);
    let mut run = 0..0;
    let mut is_dated = false;
    for field in response.lines() {
        // Alt-Svc is another connection's offer; ours makes its own.
        let is = |name: &[u8]| list::is_word(field.name, name);
        if ends.ends(field.name) || dress.covers(field.name) || is(b"alt-svc") {
            continue;
        }
        is_dated |= is(b"date");
        match field.place {
            Some((begin, end)) if begin == run.end => run.end = end,
            Some((begin, end)) => {
                let before = std::mem::replace(&mut run, begin..end);
                append(out, response.bytes(before));
            }
            None => {
                append(out, response.bytes(std::mem::take(&mut run)));
                line(out, field.name, field.value);
            }
        }
    }
    append(out, response.bytes(run));
    if !is_dated {
        line(out, "date", date::format(SystemTime::now()).as_bytes());
    }
    dressed(out, response.values(&header::VIA), dress);
}

fn status_line(out: &mut Vec<u8>, status: StatusCode) {
    append(out, b"HTTP/1.1 ");
    append(out, status.as_str().as_bytes());
    out.push(b' ');
    append(out, status.canonical_reason().unwrap_or_default().as_bytes());
    append_few(out, *b"\r\n");
}

/// What is stored, without what this answer does not say or says anew.
fn kept(out: &mut Vec<u8>, entry: &Entry, selection: &Selection, dress: &Dress<'_>) {
    for line in entry.lines() {
        let name = line.name.as_bytes();
        // To make a name of text costs more than to write the line.
        let changes = || HeaderName::from_bytes(name).is_ok_and(|name| selection.changes(&name));
        if !dress.covers(name) && (*selection == Selection::Whole || !changes()) {
            append(out, line.whole);
        }
    }
}

/// What this answer says of its content that is not stored, or not so.
fn described(out: &mut Vec<u8>, entry: &Entry, selection: &Selection) {
    let (length, range) = match selection {
        Selection::NotModified => return,
        Selection::Whole => (entry.unsaid_length(), None),
        Selection::Part(part) => {
            let range = range::content_range(part, entry.body_len());
            (Some(part.end - part.start), Some(range))
        }
        Selection::Parts(parts) => {
            line(out, title::of(&header::CONTENT_TYPE), parts.content_type().as_bytes());
            (Some(parts.content_length()), None)
        }
        Selection::Unsatisfiable => (Some(0), Some(range::unsatisfied(entry.body_len()))),
    };
    if let Some(length) = length {
        append(out, b"Content-Length: ");
        decimal(out, length);
        append_few(out, *b"\r\n");
    }
    if let Some(range) = range {
        line(out, "content-range", range.as_bytes());
    }
}

/// What `Dress` says of a response that came with these lines of Via, without a route's rules.
fn dressed<'a>(out: &mut Vec<u8>, via: impl Iterator<Item = &'a [u8]>, dress: &Dress<'_>) {
    if let Some(age) = dress.age {
        append(out, b"Age: ");
        decimal(out, age);
        append_few(out, *b"\r\n");
    }
    // The end of a line and the beginning of the next at once: each piece has its price.
    append(out, b"via: ");
    hops::write_via(out, via, dress.received);
    append(out, b"\r\nx-request-id: ");
    append(out, dress.id.as_bytes());
    if let Some((status, outcome)) = &dress.cache {
        append(out, b"\r\ncache-status: ");
        status.write_to(&mut Text(out)).expect("a Vec takes everything");
        append(out, b"\r\nx-cache: ");
        append(out, outcome.x_cache().as_bytes());
    }
    append_few(out, *b"\r\n");
    if let Some(timing) = &dress.timing {
        line(out, SERVER_TIMING.as_str(), timing.as_bytes());
    }
    if let Some(hsts) = dress.hsts {
        line(out, header::STRICT_TRANSPORT_SECURITY.as_str(), hsts.as_bytes());
    }
    if let Some(cookie) = dress.stick {
        line(out, title::of(&header::SET_COOKIE), cookie.as_bytes());
    }
}

/// Takes text at its end.
struct Text<'a>(&'a mut Vec<u8>);

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

fn line(out: &mut Vec<u8>, name: impl AsRef<[u8]>, value: &[u8]) {
    append(out, name.as_ref());
    append_few(out, *b": ");
    append(out, value);
    append_few(out, *b"\r\n");
}

fn decimal(out: &mut Vec<u8>, number: u64) {
    append(out, Digits::of(number).as_str().as_bytes());
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;
    use std::time::SystemTime;

    use crate::proxy::dress::timing;
    use bytes::BytesMut;
    use http::HeaderMap;
    use http::HeaderValue;
    use http::Version;
    use proptest::prelude::*;

    use super::*;
    use crate::cache::status::CacheStatus;
    use crate::cache::status::Forward;
    use crate::cache::status::Outcome;
    use crate::message::range::Multipart;
    use crate::message::reply::ReplyLimits;
    use crate::message::reply::ReplyMessage;
    use crate::message::reply::Seen;
    use crate::message::title;
    use crate::proxy::receive;
    use crate::route::HeaderRule;
    use crate::storage::memory::Arrival;
    use crate::storage::memory::Memory;
    use crate::storage::memory::Options;
    use crate::storage::memory::Times;

    /// Names that something is done with, and some that nothing is.
    const NAMES: [&str; 21] = [
        "accept-ranges",
        "age",
        "cache-control",
        "cache-status",
        "cdn-cache-control",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "date",
        "edgeproxy-cache-control",
        "etag",
        "server",
        "set-cookie",
        "strict-transport-security",
        "surrogate-control",
        "vary",
        "via",
        "x-cache",
        "x-custom",
        "x-request-id",
    ];

    /// What origins say of their connection as well.
    const NAMES_OF_ORIGINS: [&str; 26] = [
        "accept-ranges",
        "age",
        "alt-svc",
        "cache-control",
        "cache-status",
        "cdn-cache-control",
        "connection",
        "connection",
        "content-type",
        "date",
        "edgeproxy-cache-control",
        "etag",
        "keep-alive",
        "proxy-authenticate",
        "server",
        "server",
        "set-cookie",
        "strict-transport-security",
        "surrogate-control",
        "te",
        "trailer",
        "vary",
        "via",
        "x-cache",
        "x-custom",
        "x-request-id",
    ];

    fn field() -> impl Strategy<Value = (HeaderName, HeaderValue)> {
        (prop::sample::select(&NAMES[..]), "[!-~]( ?[!-~]){0,8}").prop_map(|(name, value)| {
            let value = HeaderValue::from_str(&value).expect("visible text");
            (HeaderName::from_static(name), value)
        })
    }

    /// A field line as origins write them.
    fn line_of_origin() -> impl Strategy<Value = String> {
        let (names, values) = (
            &NAMES_OF_ORIGINS[..],
            &["x-custom, close", "keep-alive", "server, etag", "7", ""][..],
        );
        let value = prop_oneof![
            "[!-~]( ?[!-~]){0,8}",
            prop::sample::select(values).prop_map(str::to_owned)
        ];
        let spaces = prop::sample::select(&[": ", ": ", ": ", ":", ":  ", ": \t"][..]);
        let end = prop::sample::select(&["", "", "", " ", "\t "][..]);
        (prop::sample::select(names), any::<bool>(), spaces, value, end).prop_map(
            |(name, loud, spaces, value, end)| {
                let name = if loud { name.to_ascii_uppercase() } else { name.to_owned() };
                format!("{name}{spaces}{value}{end}\r\n")
            },
        )
    }

    fn rule() -> impl Strategy<Value = HeaderRule> {
        (field(), 0..3).prop_map(|((name, value), kind)| match kind {
            0 => HeaderRule::Set(name, value),
            1 => HeaderRule::Add(name, value),
            _ => HeaderRule::Remove(name),
        })
    }

    fn selection() -> impl Strategy<Value = Selection> {
        prop_oneof![
            Just(Selection::Whole),
            (0_u64..50, 1_u64..50).prop_map(|(at, length)| Selection::Part(at..at + length)),
            Just(parts()),
            Just(Selection::Unsatisfiable),
            Just(Selection::NotModified),
        ]
    }

    fn parts() -> Selection {
        let parts = Multipart::new("between", None, &[0..10, 20..30], 100);
        Selection::Parts(Box::new(parts.expect("a valid boundary")))
    }

    fn entry(status: u16, fields: &[(HeaderName, HeaderValue)]) -> Arc<Entry> {
        let memory = Memory::new(Options::with_limit(1 << 20));
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, value.clone());
        }
        // What is stored says its length rightly or not at all, and no variants are asked for here.
        headers.remove(header::VARY);
        if headers.contains_key(header::CONTENT_LENGTH) {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("100"));
        }
        let times = Times {
            created: SystemTime::UNIX_EPOCH,
            responded: SystemTime::UNIX_EPOCH,
            lifetime: Duration::from_secs(1),
            age: Duration::ZERO,
            while_revalidate: Duration::ZERO,
            if_error: Duration::ZERO,
        };
        let mut fill = memory
            .begin_fill(&Arrival {
                key: b"key",
                belonging: crate::storage::memory::Belonging::default(),
                request: None,
                status: StatusCode::from_u16(status).expect("a status"),
                headers: &headers,
                times,
                length: None,
                largest: u64::MAX,
                asked: memory.generation(),
            })
            .expect("there is room");
        fill.push(&[b'x'; 100]).expect("there is room");
        fill.finish().expect("it is whole")
    }

    /// The status line, and the fields in a map; each line ends as it must.
    fn read(text: &[u8]) -> (String, HeaderMap) {
        let text = std::str::from_utf8(text).expect("the tests write ASCII");
        let text = text.strip_suffix("\r\n\r\n").expect("an empty line ends the head");
        let mut lines = text.split("\r\n");
        let status = lines.next().expect("a status line").to_owned();
        let mut fields = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(": ").expect("a name and a value");
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a token");
            fields.append(name, HeaderValue::from_str(value).expect("visible text"));
        }
        (status, fields)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// The long way's head, built field by field, is what the short way writes at once.
        #[test]
        fn what_is_written_is_what_would_be_built(
            fields in prop::collection::vec(field(), 0..12),
            rules in prop_oneof![Just(Vec::new()), prop::collection::vec(rule(), 0..4)],
            selection in selection(),
            status in prop::sample::select(&[200_u16, 203, 204, 301, 404][..]),
            age in prop::option::of(0_u64..1 << 32),
            hit in any::<bool>(),
            keep in any::<bool>(),
            tells in any::<bool>(),
        ) {
            let entry = entry(status, &fields);
            let cache = hit.then(|| (CacheStatus::hit(7), Outcome::Hit));
            let timing = timing(Outcome::Hit, None).filter(|_| keep);
            let value = HeaderValue::from_static("max-age=1");
            let hsts = tells.then_some(&value);
            let dress = Dress {
                received: Version::HTTP_11, id: "the-id", age, cache, timing, stick: None, hsts, rules: &rules,
            };
            // As the long way does, on what Pingora holds.
            let mut built: ResponseHeader = entry.response_header();
            selection.reshape(&mut built, entry.body_len()).expect("valid fields");
            built.set_status(selection.status(built.status)).expect("a status");
            dress.put_on(&mut built).expect("valid fields");
            let at_once = stored::head(&entry, &selection, &dress).expect("valid fields");
            prop_assert_eq!((at_once.status(), at_once.headers()), (built.status, &built.headers));
            let (after, connection) =
                if keep { (Afterwards::Keep, "keep-alive") } else { (Afterwards::Close, "close") };
            built.insert_header(header::CONNECTION, connection).expect("a valid field");

            let mut text = Vec::new();
            write(&mut text, &entry, &selection, &dress, after).expect("valid fields");
            let (line, written) = read(&text);
            let reason = built.status.canonical_reason().expect("the tests use known statuses");
            prop_assert_eq!(line, format!("HTTP/1.1 {} {}", built.status.as_u16(), reason));
            prop_assert_eq!(&written, &built.headers);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// The same of an answer that is passed through: what is written of its text is what a map would be.
        #[test]
        fn what_is_passed_is_what_would_be_built(
            fields in prop::collection::vec(line_of_origin(), 0..12),
            rules in prop_oneof![Just(Vec::new()), prop::collection::vec(rule(), 0..4)],
            status in prop::sample::select(&[200_u16, 204, 404, 502][..]),
            age in prop::option::of(0_u64..1 << 32),
            cached in any::<bool>(),
            sticks in any::<bool>(),
            tells in any::<bool>(),
        ) {
            let cache = cached.then(|| (CacheStatus::forwarded(Forward::Bypass), Outcome::Bypass));
            let value = HeaderValue::from_static("max-age=1");
            let (hsts, stick) = (tells.then_some(&value), sticks.then_some(&value));
            let timing = timing(Outcome::Bypass, None).filter(|_| tells);
            let dress = Dress {
                received: Version::HTTP_11, id: "the-id", age, cache, timing, stick, hsts, rules: &rules,
            };
            let came = format!("HTTP/1.1 {status} Whatever\r\n{}\r\nbody", fields.concat());
            let seen = Seen::read(came.as_bytes(), &ReplyLimits::default());
            let seen = seen.expect("a good head").expect("a whole head");
            let head = ReplyText::of(came.as_bytes(), &seen).expect("a good head");
            let mut map = ReplyMessage::take_seen(&mut BytesMut::from(&*came), &seen).expect("a good head");
            receive::strip(&mut map).expect("valid fields");

            let mut text = Vec::new();
            write_passed(&mut text, &mut map, &dress).expect("valid fields");
            text.extend_from_slice(b"\r\n");
            let by_map = read(&text);
            let reason = map.status.canonical_reason().expect("the tests use known statuses");
            prop_assert_eq!(&by_map.0, &format!("HTTP/1.1 {status} {reason}"));
            if !rules.is_empty() {
                return Ok(());
            }
            text.clear();
            let ends = Nominated::by(head.values(&header::CONNECTION)).expect("few names");
            write_text(&mut text, &head, &ends, &dress);
            text.extend_from_slice(b"\r\n");
            prop_assert_eq!(&read(&text), &by_map);
        }
    }

    #[test]
    fn names_are_written_in_the_case_that_pingora_gives_them() {
        for name in NAMES.map(HeaderName::from_static) {
            let mut response = ResponseHeader::build_no_case(200, None).expect("200 is a status");
            response.insert_header(&name, "v").expect("a valid field");
            let mut theirs = Vec::new();
            response.header_to_h1_wire(&mut theirs);
            let mut ours = Vec::new();
            line(&mut ours, title::of(&name), b"v");
            assert_eq!(ours, theirs);
        }
    }
}
