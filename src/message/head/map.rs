//! The fields of a request head, as a parser of its [canonical form](super::canonical) would find them.

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::header;

use super::RequestHead;
use super::canonical::Value;
use super::canonical::lines;
use super::common::common;
use crate::refusal::Refusal;

/// Puts the fields of the canonical form of `head` into `fields`, which is emptied before. Values share
/// the memory of `buf`, the buffer that the head was read from; `host` becomes the only Host, as the authority of
/// [`canonical`](super::canonical) does.
///
/// # Errors
/// What no map of fields can hold; `fields` has a part of it then.
pub fn canonical_fields(
    buf: &Bytes,
    head: &RequestHead,
    host: Option<&HeaderValue>,
    fields: &mut HeaderMap,
) -> Result<(), Refusal> {
    fields.clear();
    if let Some(host) = host {
        fields.try_append(header::HOST, host.clone()).map_err(|_| Refusal::TooManyFields)?;
    }
    let mut whole = Ok(());
    lines(buf, head, |name, value| {
        let appended = append(buf, name, value, fields);
        if whole.is_ok() {
            whole = appended;
        }
    });
    whole
}

fn append(
    buf: &Bytes,
    name: &[u8],
    value: Value<'_>,
    fields: &mut HeaderMap,
) -> Result<(), Refusal> {
    let value = match value {
        // An empty value lies nowhere.
        Value::Received([]) => Ok(HeaderValue::from_static("")),
        Value::Received(bytes) => HeaderValue::from_maybe_shared(buf.slice_ref(bytes)),
        Value::Ours(bytes) => HeaderValue::from_bytes(bytes),
    };
    let value = value.map_err(|_| Refusal::MalformedField)?;
    let name = match common(name) {
        Some(name) => name,
        None => HeaderName::from_bytes(name).map_err(|_| Refusal::MalformedField)?,
    };
    fields.try_append(name, value).map_err(|_| Refusal::TooManyFields)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::head::HeadLimits;
    use crate::message::head::HeadScanner;
    use crate::message::head::Scan;
    use crate::message::head::canonical;

    fn scanned(bytes: &[u8]) -> RequestHead {
        match HeadScanner::default().scan(bytes, &HeadLimits::default()) {
            Scan::Head(head) => head,
            other => panic!("{other:?}"),
        }
    }

    fn fields(bytes: &[u8], host: Option<&str>) -> HeaderMap {
        let mut fields = HeaderMap::from_iter([(header::AGE, HeaderValue::from_static("1"))]);
        let buf = Bytes::copy_from_slice(bytes);
        let host = host.map(|host| HeaderValue::from_str(host).expect("visible text"));
        canonical_fields(&buf, &scanned(bytes), host.as_ref(), &mut fields).expect("a valid head");
        fields
    }

    /// What is read when the canonical form is read again.
    fn read_back(bytes: &[u8], host: Option<&str>) -> HeaderMap {
        let text = canonical(bytes, &scanned(bytes), host, b"/");
        let head = scanned(&text);
        let mut fields = HeaderMap::new();
        for (name, value) in head.fields(&text) {
            let name = HeaderName::from_bytes(name).expect("a token");
            fields.append(name, HeaderValue::from_bytes(value).expect("a field value"));
        }
        fields
    }

    #[test]
    fn the_fields_are_those_of_the_head_written_anew() {
        for text in [
            "GET / HTTP/1.1\r\nHost: e\r\nA:  b \r\nB:\r\na: c\r\nTE: trailers\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: e\r\nConnection: x, close\r\nX: 1\r\nY: 2\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: e\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: e\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: e\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        ] {
            let host = Some("example.org");
            assert_eq!(fields(text.as_bytes(), host), read_back(text.as_bytes(), host), "{text}");
        }
        for text in
            ["GET / HTTP/1.0\r\nA: b\r\n\r\n", "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"]
        {
            assert_eq!(fields(text.as_bytes(), None), read_back(text.as_bytes(), None), "{text}");
        }
    }

    #[test]
    fn values_are_not_copied() {
        let buf = Bytes::from_static(b"GET / HTTP/1.1\r\nHost: e\r\nA: some value\r\n\r\n");
        let mut fields = HeaderMap::new();
        let host =
            HeaderValue::from_maybe_shared(Bytes::from_static(b"other")).expect("visible text");
        canonical_fields(&buf, &scanned(&buf), Some(&host), &mut fields).expect("a valid head");
        let start = buf.as_ptr() as usize;
        let value = fields["a"].as_bytes().as_ptr() as usize;
        assert!((start..start + buf.len()).contains(&value));
        assert_eq!(fields["host"].as_bytes().as_ptr(), host.as_bytes().as_ptr());
    }
}
