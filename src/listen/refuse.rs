//! The answer to what is not a request: written by hand, since HTTP never got to see it.

use std::fmt::Write;
use std::time::SystemTime;

use crate::refusal::Refusal;

/// A whole HTTP/1.1 response that closes the connection.
pub(crate) fn response(refusal: Refusal, now: SystemTime) -> Vec<u8> {
    let status = refusal.status();
    let body = refusal.body(false);
    let mut text = String::with_capacity(256 + body.len());
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "HTTP/1.1 {} {}\r\nDate: {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n{body}",
        status.as_u16(),
        status.canonical_reason().unwrap_or("Error"),
        httpdate::fmt_http_date(now),
        Refusal::content_type(false),
        body.len(),
    );
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_response_is_framed_and_closes() {
        let bytes = response(Refusal::BareLineFeed, SystemTime::UNIX_EPOCH);
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
        assert!(head.contains("\r\nConnection: close"), "{head}");
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
        assert!(body.contains("Lines must end in CRLF."), "{body}");
    }
}
