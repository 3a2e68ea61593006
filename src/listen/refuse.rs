//! The answer to what is not a request: written by hand, since HTTP never got to see it.

use std::fmt::Write;
use std::time::SystemTime;

use crate::refusal::Refusal;

/// A whole HTTP/1.1 response that closes the connection, to a client that sent `heard`, under this id
/// (empty for none).
///
/// What was heard could not be understood as a whole; what it seems to say decides about the form of
/// the answer, and about nothing else.
pub(crate) fn response(refusal: Refusal, heard: &[u8], id: &str, now: SystemTime) -> Vec<u8> {
    let status = refusal.status();
    let json = Refusal::prefers_json(accept(heard));
    let body = refusal.body(json);
    let mut text = String::with_capacity(320 + body.len());
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "HTTP/1.1 {} {}\r\nDate: {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\n",
        status.as_u16(),
        status.canonical_reason().unwrap_or("Error"),
        httpdate::fmt_http_date(now),
        Refusal::content_type(json),
        body.len(),
    );
    if !id.is_empty() {
        let _ = write!(text, "X-Request-Id: {id}\r\n");
    }
    if refusal == Refusal::MethodNotAllowed {
        let _ = write!(text, "Allow: {}\r\n", Refusal::METHODS);
    }
    text.push_str("Connection: close\r\n\r\n");
    if !heard.trim_ascii_start().starts_with(b"HEAD ") {
        text.push_str(&body);
    }
    text.into_bytes()
}

/// The value of the first line that looks like Accept; nothing, if none does.
fn accept(heard: &[u8]) -> &[u8] {
    let lines = heard.split(|byte| *byte == b'\n').skip(1).map(<[u8]>::trim_ascii);
    let mut values = lines.take_while(|line| !line.is_empty()).filter_map(|line| {
        let (name, value) = line.split_at_checked(b"accept:".len())?;
        name.eq_ignore_ascii_case(b"accept:").then_some(value)
    });
    values.next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Head and body of what is answered to these bytes.
    fn answer(refusal: Refusal, heard: &str) -> (String, String) {
        let bytes = response(refusal, heard.as_bytes(), "0193", SystemTime::UNIX_EPOCH);
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    #[test]
    fn the_response_is_framed_and_closes() {
        let (head, body) = answer(Refusal::BareLineFeed, "GET / HTTP/1.1\n\n");
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
        assert!(head.contains("\r\nConnection: close"), "{head}");
        assert!(head.contains("\r\nX-Request-Id: 0193\r\n"), "{head}");
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
        assert!(!head.contains("Allow"), "{head}");
        assert!(body.contains("Lines must end in CRLF."), "{body}");
    }

    #[test]
    fn json_goes_to_who_asks_for_it_however_the_rest_is() {
        for (heard, json) in [
            ("GET / HTTP/1.1\r\nAccept: application/json\r\nbad\r\n\r\n", true),
            ("GET / HTTP/1.1\naccept:application/problem+json\n\n", true),
            ("GET / HTTP/1.1\r\nAccept: text/html, application/json\r\n\r\n", false),
            ("GET / HTTP/1.1\r\nAccept-X: application/json\r\n\r\n", false),
            ("GET / HTTP/1.1\r\n\r\nAccept: application/json\r\n", false),
            ("Accept: application/json", false),
            ("", false),
        ] {
            let (head, body) = answer(Refusal::MalformedField, heard);
            assert_eq!(head.contains("application/problem+json"), json, "{heard}");
            assert_eq!(body.starts_with('{'), json, "{heard}");
        }
    }

    #[test]
    fn the_answer_to_head_has_no_body() {
        let (head, body) = answer(Refusal::DuplicateHost, "\r\nHEAD / HTTP/1.1\r\n\r\n");
        assert!(head.contains("\r\nContent-Length: 5"), "{head}");
        assert_eq!(body, "");
    }

    #[test]
    fn a_405_says_what_is_allowed() {
        let (head, _) = answer(Refusal::MethodNotAllowed, "TRACE / HTTP/1.1\r\n\r\n");
        assert!(head.contains("\r\nAllow: GET, HEAD, POST"), "{head}");
    }
}
