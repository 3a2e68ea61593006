//! The head of an answer that another layer has read, as of HTTP/2, held to what HTTP/1's are.

use http::HeaderMap;
use http::StatusCode;
use http::header;

use super::OriginFault;
use super::ReplyLimits;
use crate::message::admit;
use crate::message::list;

/// Whether a head may be passed on.
///
/// # Errors
/// What is wrong with it.
pub fn check(
    status: StatusCode,
    headers: &HeaderMap,
    limits: &ReplyLimits,
) -> Result<(), OriginFault> {
    if status.as_u16() > 599 {
        return Err(OriginFault::BadStatus);
    }
    if headers.len() > limits.fields {
        return Err(OriginFault::TooManyFields);
    }
    if admit::header_size(headers) > limits.head {
        return Err(OriginFault::HeadTooLarge);
    }
    // RFC 9113 §8.2.1: no space around a value.
    if headers.values().any(|value| list::trim(value.as_bytes()).len() != value.len()) {
        return Err(OriginFault::MalformedField);
    }
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else { return Ok(()) };
    if status.is_informational() || status == StatusCode::NO_CONTENT {
        return Err(OriginFault::UnexpectedBody);
    }
    let is_number = !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit);
    if !is_number || lengths.next().is_some() {
        return Err(OriginFault::BadContentLength);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use http::HeaderValue;

    use super::*;

    fn checked(status: u16, fields: &[(&'static str, &'static str)]) -> Result<(), OriginFault> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let limits = ReplyLimits { head: 60, fields: 3, interim: 0 };
        check(StatusCode::from_u16(status).unwrap(), &headers, &limits)
    }

    #[test]
    fn what_http_1_may_not_say_http_2_may_not_either() {
        assert_eq!(checked(599, &[("content-length", "4"), ("x", "a b")]), Ok(()));
        assert_eq!(checked(204, &[("x", "")]), Ok(()));
        for (status, fields, fault) in [
            (600, &[("x", "a")][..], OriginFault::BadStatus),
            (999, &[], OriginFault::BadStatus),
            (200, &[("x", "1"), ("x", "2"), ("x", "3"), ("x", "4")], OriginFault::TooManyFields),
            (
                200,
                &[("x", "0123456789012345678901234567890123456789012345678901234567")],
                OriginFault::HeadTooLarge,
            ),
            (200, &[("x", " a")], OriginFault::MalformedField),
            (200, &[("x", "a\t")], OriginFault::MalformedField),
            (
                200,
                &[("content-length", "4"), ("content-length", "4")],
                OriginFault::BadContentLength,
            ),
            (200, &[("content-length", "4, 4")], OriginFault::BadContentLength),
            (200, &[("content-length", "+4")], OriginFault::BadContentLength),
            (200, &[("content-length", "")], OriginFault::BadContentLength),
            (204, &[("content-length", "4")], OriginFault::UnexpectedBody),
            (103, &[("content-length", "0")], OriginFault::UnexpectedBody),
        ] {
            assert_eq!(checked(status, fields), Err(fault), "{status} {fields:?}");
        }
    }
}
