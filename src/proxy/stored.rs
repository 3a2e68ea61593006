//! The answer that a stored response makes: its status, its fields, and which part of its body. Both
//! ways to a hit ask here.

use std::ops::Range;

use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::Response;
use http::StatusCode;
use http::header;
use http::header::HeaderName;
use pingora::Result;
use pingora::http::ResponseHeader;

use crate::message::conditional;
use crate::message::conditional::Outcome;
use crate::message::conditional::Validators;
use crate::message::range;
use crate::message::range::Ranges;
use crate::proxy::dress::Dress;
use crate::proxy::dress::Fields;
use crate::storage::memory::Entry;

/// Which part of a response answers a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selection {
    /// All of it.
    Whole,
    /// These bytes, never none: 206.
    Part(Range<u64>),
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
            // Several ranges at once are answered with the whole (RFC 9110 §14.2 leaves it to us).
            Some(Ranges::Whole | Ranges::Many(_)) | None => Self::Whole,
        }
    }

    /// The status that it is answered with.
    pub(crate) fn status(&self, stored: StatusCode) -> StatusCode {
        match self {
            Self::Whole => stored,
            Self::Part(_) => StatusCode::PARTIAL_CONTENT,
            Self::Unsatisfiable => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::NotModified => StatusCode::NOT_MODIFIED,
        }
    }

    /// The bytes of the body that follow the header; empty when none do.
    pub(crate) fn body(&self, method: &Method, stored: StatusCode, length: u64) -> Range<u64> {
        if method == Method::HEAD || stored == StatusCode::NO_CONTENT {
            return 0..0;
        }
        match self {
            Self::Whole => 0..length,
            Self::Part(part) => part.clone(),
            Self::Unsatisfiable | Self::NotModified => 0..0,
        }
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
        }
        Ok(())
    }
}

/// The header of the answer that `selection` is of a stored response, dressed for the client; the part
/// of the body that follows it is [`Selection::body`].
pub(crate) fn head(
    entry: &Entry,
    selection: &Selection,
    dress: &Dress<'_>,
) -> Result<ResponseHeader> {
    let mut response = Response::new(());
    *response.status_mut() = selection.status(entry.status());
    let fields = response.headers_mut();
    *fields = entry.headers();
    if let Some(length) = entry.unsaid_length() {
        Fields::insert(fields, header::CONTENT_LENGTH, HeaderValue::from(length))?;
    }
    selection.reshape(fields, entry.body_len())?;
    dress.put_on(fields)?;
    Ok(response.into_parts().0.into())
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

    #[test]
    fn several_ranges_get_the_whole() {
        let two = [(header::RANGE, "bytes=0-9, 20-29")];
        assert_eq!(select(&Method::GET, &two, 200), Selection::Whole);
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
            selection.body(method, StatusCode::from_u16(status).expect("a status"), LENGTH)
        };
        assert_eq!(body(Selection::Whole, &Method::GET, 200), 0..100);
        assert_eq!(body(Selection::Part(5..7), &Method::GET, 200), 5..7);
        for selection in [Selection::NotModified, Selection::Unsatisfiable] {
            assert!(body(selection, &Method::GET, 200).is_empty());
        }
        assert!(body(Selection::Whole, &Method::HEAD, 200).is_empty());
        assert!(body(Selection::Whole, &Method::GET, 204).is_empty());
    }

    #[test]
    fn each_answer_says_what_it_is() {
        let part = reshaped(&Selection::Part(10..20));
        assert_eq!(part.status, StatusCode::PARTIAL_CONTENT);
        assert_eq!(part.headers[header::CONTENT_LENGTH], "10");
        assert_eq!(part.headers[header::CONTENT_RANGE], "bytes 10-19/100");

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
