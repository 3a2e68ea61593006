//! A request arrives: who asks, on which connection, under which id.

use std::cell::Cell;
use std::hash::BuildHasher;
use std::hash::RandomState;
use std::time::Duration;
use std::time::SystemTime;

use http::HeaderMap;
use http::Version;
use http::header::HeaderName;
use pingora::protocols::http::ServerSession;
use pingora_proxy::Session;
use uuid::Builder;

use crate::listen::conn;
use crate::message::digits::hex;
use crate::message::trace;
use crate::proxy::context::RequestCtx;
use crate::proxy::errand;

/// How long a request body that nobody wants is read away before the connection is closed instead.
const DRAIN: Duration = Duration::from_secs(2);

/// The name of the request id's field, towards origin and client.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Learns what is known before the message is judged, and sets the session's deadlines.
pub(crate) fn introduce(session: &mut Session, ctx: &mut RequestCtx) {
    ctx.conn = conn::current();
    if session.as_downstream().is_subrequest() {
        return errand::take_over(session, ctx);
    }
    ctx.version = session.req_header().version;
    let downstream = session.as_downstream_mut();
    // What is below guards the client's pace: the connection of HTTP/1, the stream of HTTP/2.
    downstream.set_read_timeout(None);
    downstream.set_total_drain_timeout(Some(DRAIN));
    if let ServerSession::H1(http1) = downstream {
        // A client of HTTP/1.0 takes an interim response for the answer (RFC 9110 §15.2).
        http1.set_ignore_info_resp(ctx.version == Version::HTTP_10);
    }
    ctx.id = request_id(&session.req_header().headers, ctx.wall);
}

/// The id of a request that arrives now: the client's, if it is acceptable, or one of our own.
pub(crate) fn request_id(headers: &HeaderMap, now: SystemTime) -> String {
    let theirs = headers.get(REQUEST_ID).map_or(&b""[..], |id| id.as_bytes());
    match std::str::from_utf8(theirs) {
        Ok(id) if trace::is_acceptable_request_id(theirs) => id.to_owned(),
        _ => new_id(now),
    }
}

/// A UUID of version 7, without hyphens. It has to be unique, not a secret: asking the system for
/// random bytes would cost more than all else that is done for a short answer.
pub(crate) fn new_id(now: SystemTime) -> String {
    let since_1970 = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let millis = u64::try_from(since_1970.as_millis()).unwrap_or_default();
    let (first, second) = two_random();
    let mut random = [0; 10];
    random[..8].copy_from_slice(&first.to_le_bytes());
    random[8..].copy_from_slice(&second.to_le_bytes()[..2]);
    let (upper, lower) =
        Builder::from_unix_timestamp_millis(millis, &random).into_uuid().as_u64_pair();
    let mut id = String::with_capacity(32);
    for half in [upper, lower] {
        id.push_str(std::str::from_utf8(&hex(half)).unwrap_or_default());
    }
    id
}

/// The next two numbers of SplitMix64, from a seed that no two threads and no two processes share.
fn two_random() -> (u64, u64) {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    thread_local! {
        // Nothing to set up and nothing to drop, which each look would ask about.
        static STATE: Cell<Option<u64>> = const { Cell::new(None) };
    }
    // The standard library's keys come from the system's random source.
    let seed = || RandomState::new().hash_one(std::thread::current().id());
    let first = STATE.get().unwrap_or_else(seed).wrapping_add(STEP);
    let second = first.wrapping_add(STEP);
    STATE.set(Some(second));
    (mixed(first), mixed(second))
}

fn mixed(state: u64) -> u64 {
    let mut mixed = state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use uuid::Uuid;

    use super::*;

    #[test]
    fn ids_are_unique_and_begin_with_their_time() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let ids = || (0..1000).map(|_| new_id(at(1_700_000_000))).collect::<Vec<_>>();
        let other = std::thread::spawn(move || {
            (0..1000).map(|_| new_id(at(1_700_000_000))).collect::<Vec<_>>()
        });
        let all: HashSet<String> =
            ids().into_iter().chain(other.join().expect("no panic")).collect();
        assert_eq!(all.len(), 2000);
        for id in &all {
            let uuid = Uuid::parse_str(id).expect("a UUID");
            assert_eq!((uuid.get_version_num(), id.len()), (7, 32), "{id}");
            assert!(*id < new_id(at(1_700_000_001)), "{id}");
        }
    }

    #[test]
    fn an_acceptable_id_of_the_client_is_kept() {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, http::HeaderValue::from_static("theirs-1"));
        assert_eq!(request_id(&headers, SystemTime::UNIX_EPOCH), "theirs-1");
        headers.insert(REQUEST_ID, http::HeaderValue::from_static("not theirs"));
        assert_ne!(request_id(&headers, SystemTime::UNIX_EPOCH), "not theirs");
    }
}
