//! The answer that a stored response makes: its status, its fields, and which part of its body. Both
//! ways to a hit ask here.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::hash::RandomState;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::Response;
use http::StatusCode;
use http::header;
use http::header::HeaderName;
use pingora::Result;

use crate::message::conditional;
use crate::message::conditional::Outcome;
use crate::message::conditional::Validators;
use crate::message::range;
use crate::message::range::Multipart;
use crate::message::range::Ranges;
use crate::proxy::dress::Dress;
use crate::proxy::dress::Fields;
use crate::storage::memory::Entry;
use crate::storage::memory::Reader;

/// Which part of a response answers a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selection {
    /// All of it.
    Whole,
    /// These bytes, never none: 206.
    Part(Range<u64>),
    /// Several parts: 206 as multipart/byteranges.
    Parts(Box<Multipart>),
    /// None, for no byte that was asked for exists: 416.
    Unsatisfiable,
    /// None, for the client has it already: 304.
    NotModified,
}

/// What a 304 does not say again (RFC 9110 §15.4.5): the fields that describe content, and framing.
const NOT_IN_304: [HeaderName; 5] = [
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::TRANSFER_ENCODING,
    header::CONTENT_ENCODING,
    header::ACCEPT_RANGES,
];

/// What a 416 does not say: fields about content that does not follow.
const NOT_IN_416: [HeaderName; 2] = [header::CONTENT_TYPE, header::CONTENT_ENCODING];

impl Selection {
    /// Which part of a response with this status and these fields answers the request, by its
    /// conditions and its range. `length` is that of the body, where it is known.
    pub(crate) fn of(
        method: &Method,
        request: &HeaderMap,
        status: StatusCode,
        response: &HeaderMap,
        length: Option<u64>,
    ) -> Self {
        if conditional::has_conditions(request) {
            match conditional::evaluate(method, request, &Validators::of(response), status) {
                Outcome::NotModified => return Self::NotModified,
                Outcome::IgnoreRange => return Self::Whole,
                // What only the origin may judge does not come here (see `lookup::open`).
                Outcome::Proceed | Outcome::PreconditionFailed => {}
            }
        }
        if status != StatusCode::OK || method != Method::GET || !request.contains_key(header::RANGE)
        {
            return Self::Whole;
        }
        match length.map(|length| Ranges::of(request, length)) {
            Some(Ranges::One(part)) => Self::Part(part),
            Some(Ranges::Unsatisfiable) => Self::Unsatisfiable,
            Some(Ranges::Many(parts)) => Self::several(&parts, response, length),
            Some(Ranges::Whole) | None => Self::Whole,
        }
    }

    /// Several parts, unless what stands between them makes that longer than the whole, which is then
    /// sent instead (RFC 9110 §14.2 leaves it to us).
    fn several(parts: &[Range<u64>], response: &HeaderMap, length: Option<u64>) -> Self {
        let Some(length) = length else { return Self::Whole };
        let content_type = response.get(header::CONTENT_TYPE);
        match Multipart::new(&boundary(), content_type, parts, length) {
            Some(parts) if parts.content_length() < length => Self::Parts(Box::new(parts)),
            Some(_) | None => Self::Whole,
        }
    }

    /// The status that it is answered with.
    pub(crate) fn status(&self, stored: StatusCode) -> StatusCode {
        match self {
            Self::Whole => stored,
            Self::Part(_) | Self::Parts(_) => StatusCode::PARTIAL_CONTENT,
            Self::Unsatisfiable => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::NotModified => StatusCode::NOT_MODIFIED,
        }
    }

    /// What follows the header, in the order in which it is sent.
    pub(crate) fn plan(&self, method: &Method, stored: StatusCode, length: u64) -> Plan {
        let mut plan = Plan::default();
        if method == Method::HEAD || stored == StatusCode::NO_CONTENT {
            return plan;
        }
        match self {
            Self::Whole => plan.first = Some(0..length),
            Self::Part(part) => plan.first = Some(part.clone()),
            Self::Parts(parts) => {
                for part in parts.parts() {
                    plan.more.push_back(Step::Text(part.header.clone()));
                    plan.more.push_back(Step::Of(part.range.clone()));
                }
                plan.more.push_back(Step::Text(parts.closing().clone()));
            }
            Self::Unsatisfiable | Self::NotModified => {}
        }
        plan
    }

    /// Whether this part is described without this field of the whole, or with another value.
    pub(crate) fn changes(&self, name: &HeaderName) -> bool {
        match self {
            Self::Whole => false,
            Self::NotModified => NOT_IN_304.contains(name),
            Self::Unsatisfiable => {
                matches!(*name, header::CONTENT_LENGTH | header::CONTENT_RANGE)
                    || NOT_IN_416.contains(name)
            }
            Self::Part(_) => matches!(*name, header::CONTENT_LENGTH | header::CONTENT_RANGE),
            Self::Parts(_) => {
                matches!(
                    *name,
                    header::CONTENT_LENGTH | header::CONTENT_RANGE | header::CONTENT_TYPE
                )
            }
        }
    }

    /// Brings the fields of the whole response into the form for this part; [`Self::status`] goes with
    /// them. `length` is that of the whole body.
    pub(crate) fn reshape(&self, response: &mut impl Fields, length: u64) -> Result<()> {
        match self {
            Self::Whole => {}
            Self::NotModified => {
                for name in &NOT_IN_304 {
                    response.remove(name);
                }
            }
            Self::Unsatisfiable => {
                for name in &NOT_IN_416 {
                    response.remove(name);
                }
                response.insert(header::CONTENT_LENGTH, HeaderValue::from(0))?;
                response.insert(header::CONTENT_RANGE, range::unsatisfied(length))?;
            }
            Self::Part(part) => {
                let bytes = HeaderValue::from(part.end - part.start);
                response.insert(header::CONTENT_LENGTH, bytes)?;
                response.insert(header::CONTENT_RANGE, range::content_range(part, length))?;
            }
            Self::Parts(parts) => {
                // Each part says which one it is (RFC 9110 §15.3.7.2).
                response.remove(&header::CONTENT_RANGE);
                let bytes = HeaderValue::from(parts.content_length());
                response.insert(header::CONTENT_LENGTH, bytes)?;
                response.insert(header::CONTENT_TYPE, parts.content_type().clone())?;
            }
        }
        Ok(())
    }
}

/// What no body holds that was written before: nobody can have known it.
fn boundary() -> String {
    // The standard library's keys come from the system's random source.
    let half = |n: u8| RandomState::new().hash_one(n);
    format!("{:016x}{:016x}", half(0), half(1))
}

/// What follows a header: stretches of a body, and what stands between them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Plan {
    /// The usual one stretch, which needs no list.
    first: Option<Range<u64>>,
    more: VecDeque<Step>,
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// These bytes of the stored body.
    Of(Range<u64>),
    /// This, which is not stored.
    Text(Bytes),
}

impl Plan {
    /// Whether it goes through the stored body forwards only, as a body that is not kept has to be
    /// read.
    pub(crate) fn is_ascending(&self) -> bool {
        self.stretches().is_sorted_by(|one, next| one.end <= next.start)
    }

    /// The stretches of the stored body, in their order.
    pub(crate) fn stretches(&self) -> impl Iterator<Item = &Range<u64>> {
        let more = self.more.iter().filter_map(|step| match step {
            Step::Of(part) => Some(part),
            Step::Text(_) => None,
        });
        self.first.iter().chain(more)
    }

    /// Whether nothing follows.
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none() && self.more.is_empty()
    }
}

impl Iterator for Plan {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        self.first.take().map(Step::Of).or_else(|| self.more.pop_front())
    }
}

/// Reads what follows the header of an answer from a stored response.
#[derive(Debug)]
pub(crate) struct Body {
    reader: Reader,
    plan: Plan,
}

impl Body {
    /// What `plan` says of the body of `entry`.
    pub(crate) fn new(entry: &Arc<Entry>, mut plan: Plan) -> Self {
        let first = plan.first.take().unwrap_or_default();
        let mut body = Self { reader: entry.reader(), plan };
        body.go_to(first);
        body
    }

    /// Whether nothing follows any more.
    pub(crate) fn is_done(&self) -> bool {
        self.reader.remaining() == 0 && self.plan.is_empty()
    }

    fn go_to(&mut self, part: Range<u64>) {
        if self.reader.seek(part.start, Some(part.end)).is_err() {
            debug_assert!(false, "a plan lies within its body");
        }
    }
}

impl Iterator for Body {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.reader.next() {
                return Some(bytes);
            }
            match self.plan.next()? {
                Step::Text(text) => return Some(text),
                Step::Of(part) => self.go_to(part),
            }
        }
    }
}

/// The header of the answer that `selection` is of a stored response, dressed for the client; what
/// follows it is [`Selection::plan`].
pub(crate) fn head(
    entry: &Entry,
    selection: &Selection,
    dress: &Dress<'_>,
) -> Result<Response<()>> {
    let mut response = Response::new(());
    *response.status_mut() = selection.status(entry.status());
    let fields = response.headers_mut();
    *fields = entry.headers();
    if let Some(length) = entry.unsaid_length() {
        Fields::insert(fields, header::CONTENT_LENGTH, HeaderValue::from(length))?;
    }
    selection.reshape(fields, entry.body_len())?;
    dress.put_on(fields)?;
    Ok(response)
}

/// Which part of a stored response answers this request.
pub(crate) fn select(entry: &Entry, method: &Method, request: &HeaderMap) -> Selection {
    if !conditional::has_conditions(request) && !request.contains_key(header::RANGE) {
        // As `of` would say, which wants to see the fields.
        return Selection::Whole;
    }
    let length = (entry.status() != StatusCode::NO_CONTENT).then(|| entry.body_len());
    Selection::of(method, request, entry.status(), &entry.headers(), length)
}

#[cfg(test)]
mod tests {
    use pingora::http::ResponseHeader;

    use super::*;

    const LENGTH: u64 = 100;

    fn stored() -> HeaderMap {
        HeaderMap::from_iter([
            (header::CONTENT_LENGTH, HeaderValue::from_static("100")),
            (header::CONTENT_TYPE, HeaderValue::from_static("text/plain")),
            (header::ETAG, HeaderValue::from_static("\"a\"")),
        ])
    }

    fn select(method: &Method, lines: &[(HeaderName, &'static str)], status: u16) -> Selection {
        let request = lines
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_static(value)))
            .collect();
        let status = StatusCode::from_u16(status).expect("a status");
        Selection::of(method, &request, status, &stored(), Some(LENGTH))
    }

    fn reshaped(selection: &Selection) -> ResponseHeader {
        let mut response = ResponseHeader::build_no_case(200, None).expect("200 is a status");
        for (name, value) in &stored() {
            response.append_header(name, value).expect("a valid field");
        }
        selection.reshape(&mut response, LENGTH).expect("valid fields");
        response.set_status(selection.status(StatusCode::OK)).expect("a status");
        response
    }

    #[test]
    fn a_condition_goes_before_a_range() {
        let both = [(header::IF_NONE_MATCH, "\"a\""), (header::RANGE, "bytes=0-9")];
        assert_eq!(select(&Method::GET, &both, 200), Selection::NotModified);
        assert_eq!(select(&Method::GET, &both[1..], 200), Selection::Part(0..10));
    }

    #[test]
    fn only_a_get_of_a_200_has_parts() {
        let range = [(header::RANGE, "bytes=0-9")];
        assert_eq!(select(&Method::HEAD, &range, 200), Selection::Whole);
        assert_eq!(select(&Method::GET, &range, 404), Selection::Whole);
        assert_eq!(select(&Method::GET, &[(header::RANGE, "bytes=100-")], 200), {
            Selection::Unsatisfiable
        });
    }

    #[test]
    fn if_range_of_another_version_gets_the_whole() {
        let stale = [(header::RANGE, "bytes=0-9"), (header::IF_RANGE, "\"b\"")];
        assert_eq!(select(&Method::GET, &stale, 200), Selection::Whole);
        let same = [(header::RANGE, "bytes=0-9"), (header::IF_RANGE, "\"a\"")];
        assert_eq!(select(&Method::GET, &same, 200), Selection::Part(0..10));
    }

    fn of_a_long_one(range: &'static str) -> Selection {
        let request = HeaderMap::from_iter([(header::RANGE, HeaderValue::from_static(range))]);
        Selection::of(&Method::GET, &request, StatusCode::OK, &stored(), Some(10_000))
    }

    #[test]
    fn several_ranges_get_several_parts_where_that_is_shorter() {
        let two = [(header::RANGE, "bytes=0-9, 20-29")];
        assert_eq!(select(&Method::GET, &two, 200), Selection::Whole, "of 100 bytes");
        let Selection::Parts(parts) = of_a_long_one("bytes=20-29, 0-9") else { panic!("206") };
        let ranges: Vec<_> = parts.parts().iter().map(|part| part.range.clone()).collect();
        assert_eq!(ranges, [20..30, 0..10]);
        assert_eq!(of_a_long_one("bytes=0-4, 3-9"), Selection::Part(0..10));
        assert_eq!(of_a_long_one("bytes=0-4998, 5000-"), Selection::Whole);
    }

    #[test]
    fn no_two_answers_share_a_boundary() {
        assert_ne!(of_a_long_one("bytes=0-4, 8-9"), of_a_long_one("bytes=0-4, 8-9"));
    }

    #[test]
    fn what_is_planned_is_as_long_as_is_said() {
        let selection = of_a_long_one("bytes=0-9, 20-29, -5");
        let Selection::Parts(parts) = &selection else { panic!("206") };
        let plan = selection.plan(&Method::GET, StatusCode::OK, 10_000);
        assert!(plan.is_ascending());
        let planned: u64 = plan
            .map(|step| match step {
                Step::Of(part) => part.end - part.start,
                Step::Text(text) => text.len() as u64,
            })
            .sum();
        assert_eq!(planned, parts.content_length());
        let back = of_a_long_one("bytes=20-29, 0-9");
        assert!(!back.plan(&Method::GET, StatusCode::OK, 10_000).is_ascending());
    }

    #[test]
    fn without_a_length_there_are_no_parts() {
        let request = HeaderMap::from_iter([(header::RANGE, HeaderValue::from_static("bytes=0-"))]);
        let whole = Selection::of(&Method::GET, &request, StatusCode::OK, &stored(), None);
        assert_eq!(whole, Selection::Whole);
    }

    #[test]
    fn no_body_follows_where_none_may() {
        let body = |selection: Selection, method: &Method, status: u16| {
            let status = StatusCode::from_u16(status).expect("a status");
            selection.plan(method, status, LENGTH).collect::<Vec<_>>()
        };
        assert_eq!(body(Selection::Whole, &Method::GET, 200), [Step::Of(0..100)]);
        assert_eq!(body(Selection::Part(5..7), &Method::GET, 200), [Step::Of(5..7)]);
        for selection in [Selection::NotModified, Selection::Unsatisfiable] {
            assert_eq!(body(selection, &Method::GET, 200), []);
        }
        assert_eq!(body(Selection::Whole, &Method::HEAD, 200), []);
        assert_eq!(body(Selection::Whole, &Method::GET, 204), []);
    }

    #[test]
    fn each_answer_says_what_it_is() {
        let part = reshaped(&Selection::Part(10..20));
        assert_eq!(part.status, StatusCode::PARTIAL_CONTENT);
        assert_eq!(part.headers[header::CONTENT_LENGTH], "10");
        assert_eq!(part.headers[header::CONTENT_RANGE], "bytes 10-19/100");

        let several = of_a_long_one("bytes=0-9, 20-29");
        let Selection::Parts(parts) = &several else { panic!("206") };
        let header = reshaped(&several);
        assert_eq!(header.status, StatusCode::PARTIAL_CONTENT);
        assert_eq!(header.headers[header::CONTENT_LENGTH], parts.content_length().to_string());
        assert_eq!(header.headers[header::CONTENT_TYPE], parts.content_type());
        assert!(!header.headers.contains_key(header::CONTENT_RANGE));

        let none = reshaped(&Selection::Unsatisfiable);
        assert_eq!(none.status, StatusCode::RANGE_NOT_SATISFIABLE);
        assert_eq!(none.headers[header::CONTENT_LENGTH], "0");
        assert_eq!(none.headers[header::CONTENT_RANGE], "bytes */100");
        assert!(!none.headers.contains_key(header::CONTENT_TYPE));

        let known = reshaped(&Selection::NotModified);
        assert_eq!(known.status, StatusCode::NOT_MODIFIED);
        assert_eq!(known.headers.keys().collect::<Vec<_>>(), [header::ETAG]);

        assert_eq!(reshaped(&Selection::Whole).status, StatusCode::OK);
    }
}
