//! One check over HTTP/1.1, on a connection under the same guard as those of requests.

use http::HeaderValue;
use http::header::CONNECTION;
use http::header::HOST;
use http::header::USER_AGENT;
use memchr::memmem;
use pingora::http::RequestHeader;
use pingora::protocols::http::v1::client::HttpSession;

use super::BODY;
use super::Request;
use super::checker::Failure;
use crate::message::reply::ReplyLimits;
use crate::upstream::guard::OriginIo;
use crate::upstream::line::Line;

/// How a check calls itself, so that origins can leave it out of their statistics.
pub(super) const AGENT: &str = "edgeproxy-health";

/// Sends the request and judges the answer.
pub(super) async fn ask(
    line: Line,
    limits: ReplyLimits,
    request: &Request,
    host: &str,
) -> Result<(), Failure> {
    let mut session = HttpSession::new(Box::new(OriginIo::fresh(line, None, limits)));
    let broken = |error: Box<pingora::Error>| Failure::of(&error);
    let head = head(request, host).map_err(broken)?;
    session.write_request_header(Box::new(head)).await.map_err(broken)?;
    let status = loop {
        session.read_response().await.map_err(broken)?;
        match session.get_status().map(|status| status.as_u16()) {
            // Interim answers; the guard allows so many. Nothing was offered that 101 could take up.
            Some(100..=199) => {}
            Some(status) => break status,
            None => return Err(Failure::Broken("origin_malformed: no status".to_owned())),
        }
    };
    if !request.allows(status) {
        return Err(Failure::Status(status));
    }
    let Some(text) = &request.body else { return Ok(()) };
    let mut search = Search::new(text);
    while let Some(part) = session.read_body_bytes().await.map_err(broken)? {
        if let Some(found) = search.take(&part) {
            return found;
        }
    }
    Err(Failure::Body)
}

fn head(request: &Request, host: &str) -> pingora::Result<RequestHeader> {
    let target = request.target.as_bytes();
    let mut head = RequestHeader::build(request.method.clone(), target, Some(8))?;
    head.insert_header(HOST, host)?;
    head.insert_header(USER_AGENT, AGENT)?;
    for (name, value) in &request.headers {
        head.append_header(name.clone(), HeaderValue::clone(value))?;
    }
    head.insert_header(CONNECTION, "close")?;
    Ok(head)
}

impl Request {
    /// Whether this is the status of a backend that is well.
    pub(super) fn allows(&self, status: u16) -> bool {
        self.statuses.iter().any(|range| range.contains(&status))
    }
}

/// A text that is looked for in what comes, up to a limit.
pub(super) struct Search<'a> {
    text: &'a [u8],
    /// What came and was searched, but for an end that may be the text's beginning.
    tail: Vec<u8>,
    seen: usize,
}

impl<'a> Search<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text: text.as_bytes(), tail: Vec::new(), seen: 0 }
    }

    /// Takes more in; `None` wants more still.
    pub(super) fn take(&mut self, part: &[u8]) -> Option<Result<(), Failure>> {
        let part = &part[..part.len().min(BODY - self.seen)];
        self.seen += part.len();
        self.tail.extend_from_slice(part);
        if memmem::find(&self.tail, self.text).is_some() {
            return Some(Ok(()));
        }
        let keep = self.text.len().saturating_sub(1).min(self.tail.len());
        self.tail.drain(..self.tail.len() - keep);
        (self.seen == BODY).then_some(Err(Failure::Body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_wherever_it_is_cut() {
        let body = b"all systems nominal";
        for first in 0..body.len() {
            for second in first..body.len() {
                let mut search = Search::new("systems");
                let parts = [&body[..first], &body[first..second], &body[second..]];
                let found = parts.into_iter().find_map(|part| search.take(part));
                assert_eq!(found, Some(Ok(())), "{first} {second}");
            }
        }
    }

    #[test]
    fn a_text_behind_the_limit_is_not_there() {
        let mut search = Search::new("up");
        assert_eq!(search.take(&vec![b'x'; BODY - 2]), None);
        assert_eq!(search.take(b"up"), Some(Ok(())));
        let mut search = Search::new("up");
        assert_eq!(search.take(&vec![b'x'; BODY - 1]), None);
        assert_eq!(search.take(b"up"), Some(Err(Failure::Body)));
    }

    #[test]
    fn statuses_go_by_ranges_with_both_ends() {
        let request = Request {
            method: http::Method::GET,
            target: "/".to_owned(),
            host: None,
            headers: http::HeaderMap::new(),
            statuses: vec![200..=299, 404..=404],
            body: None,
        };
        let allowed: Vec<u16> = (100..600).filter(|status| request.allows(*status)).collect();
        assert_eq!((allowed.len(), allowed[0], allowed[99], allowed[100]), (101, 200, 299, 404));
    }
}
