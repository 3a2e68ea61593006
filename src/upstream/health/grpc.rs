//! One check by the gRPC health checking protocol: `grpc.health.v1.Health/Check`.
//!
//! The two messages are small enough to be written and read by hand: a request has the name of the
//! service as its field 1, an answer has the state as its field 1.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::header::CONTENT_TYPE;
use http::header::TE;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;

use super::checker::Failure;
use super::http2;
use super::http2::Said;

/// The method that is called.
const CHECK: &str = "/grpc.health.v1.Health/Check";

/// The most bytes of an answer that are read. One of a health service has seven.
const ANSWER: usize = 4 << 10;

/// What is called.
pub(super) struct Call<'a> {
    pub(super) service: &'a str,
    pub(super) headers: &'a HeaderMap,
    pub(super) host: &'a Arc<str>,
    pub(super) secure: bool,
    pub(super) patience: Duration,
}

/// Makes the call and judges the answer.
pub(super) async fn ask<T>(io: T, call: &Call<'_>) -> Result<(), Failure>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let said = Said {
        method: Method::POST,
        host: call.host,
        secure: call.secure,
        target: CHECK,
        own: own(call.patience),
        headers: call.headers,
        body: request(call.service),
    };
    http2::say(io, said, judge).await
}

fn own(patience: Duration) -> HeaderMap {
    let mut own = HeaderMap::new();
    own.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    own.insert(TE, HeaderValue::from_static("trailers"));
    // At most eight digits.
    let millis = patience.as_millis().clamp(1, 99_999_999);
    if let Ok(value) = HeaderValue::from_str(&format!("{millis}m")) {
        own.insert("grpc-timeout", value);
    }
    own
}

async fn judge(response: http::Response<RecvStream>) -> Result<(), Failure> {
    let status = response.status().as_u16();
    if status != 200 {
        return Err(Failure::Status(status));
    }
    // An answer without a message has its status where others have their header.
    done(response.headers())?;
    let mut body = response.into_body();
    let mut message = Vec::new();
    while let Some(part) = http2::next(&mut body).await? {
        message.extend_from_slice(&part);
        if message.len() > ANSWER {
            return Err(Failure::NotGrpc("the message is too long"));
        }
    }
    let trailers = body.trailers().await.map_err(|error| Failure::of_http2(&error))?;
    done(&trailers.unwrap_or_default())?;
    match serving(&message).map_err(Failure::NotGrpc)? {
        1 => Ok(()),
        0 => Err(Failure::NotServing("UNKNOWN")),
        2 => Err(Failure::NotServing("NOT_SERVING")),
        3 => Err(Failure::NotServing("SERVICE_UNKNOWN")),
        _ => Err(Failure::NotServing("a state that is none")),
    }
}

/// Whether the call failed, as far as these fields say.
fn done(fields: &HeaderMap) -> Result<(), Failure> {
    let Some(status) = fields.get("grpc-status") else { return Ok(()) };
    match status.to_str().ok().and_then(|status| status.parse().ok()) {
        Some(0) => Ok(()),
        Some(status) => Err(Failure::Grpc(status)),
        None => Err(Failure::NotGrpc("the status is no number")),
    }
}

/// The request for a service, in its frame: not compressed, its length, the message.
fn request(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        // Field 1, with a length.
        message.push(0x0A);
        varint(service.len() as u64, &mut message);
        message.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend_from_slice(&message);
    frame.into()
}

/// The state in a framed answer; a message without the field has its default.
fn serving(frame: &[u8]) -> Result<u64, &'static str> {
    let Some((head, message)) = frame.split_first_chunk::<5>() else {
        return Err("there is no message");
    };
    let [compressed, length @ ..] = head;
    if *compressed != 0 {
        return Err("the message is compressed");
    }
    if u32::from_be_bytes(*length) as usize != message.len() {
        return Err("the message has another length");
    }
    state(message).ok_or("the message is malformed")
}

/// Field 1 of a message; of several, the last counts.
fn state(mut message: &[u8]) -> Option<u64> {
    let mut state = 0;
    while !message.is_empty() {
        let tag = take_varint(&mut message)?;
        match tag & 7 {
            0 => {
                let value = take_varint(&mut message)?;
                if tag >> 3 == 1 {
                    state = value;
                }
            }
            1 => message = message.get(8..)?,
            2 => {
                let length = usize::try_from(take_varint(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            5 => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(state)
}

fn varint(mut value: u64, to: &mut Vec<u8>) {
    while value >= 0x80 {
        to.push((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

fn take_varint(from: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for n in 0..10 {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        value |= u64::from(byte & 0x7F).checked_shl(7 * n)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_names_its_service_unless_it_means_the_server() {
        assert_eq!(request("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(request("ab")[..], [0, 0, 0, 0, 4, 0x0A, 2, b'a', b'b']);
        let long = request(&"x".repeat(300));
        assert_eq!(long[..8], [0, 0, 0, 1, 47, 0x0A, 0xAC, 2]);
    }

    #[test]
    fn the_state_is_field_one() {
        assert_eq!(serving(&[0, 0, 0, 0, 2, 8, 1]), Ok(1));
        assert_eq!(serving(&[0, 0, 0, 0, 2, 8, 2]), Ok(2));
        assert_eq!(serving(&[0, 0, 0, 0, 0]), Ok(0), "the default is not sent");
    }

    #[test]
    fn other_fields_are_passed_over() {
        let message =
            [0x12, 2, 7, 7, 0x21, 1, 2, 3, 4, 5, 6, 7, 8, 8, 1, 0x1D, 1, 2, 3, 4, 0x10, 9];
        assert_eq!(state(&message), Some(1));
    }

    #[test]
    fn what_is_no_answer_is_told_apart() {
        assert_eq!(serving(&[]), Err("there is no message"));
        assert_eq!(serving(&[0, 0, 0, 0]), Err("there is no message"));
        assert_eq!(serving(&[1, 0, 0, 0, 2, 8, 1]), Err("the message is compressed"));
        assert_eq!(serving(&[0, 0, 0, 0, 3, 8, 1]), Err("the message has another length"));
        assert_eq!(serving(&[0, 0, 0, 0, 1, 8]), Err("the message is malformed"));
        assert_eq!(serving(&[0, 0, 0, 0, 2, 0x0A, 200]), Err("the message is malformed"));
    }

    #[test]
    fn the_status_of_a_call_counts_where_it_is() {
        let fields = |value: &'static str| {
            HeaderMap::from_iter([(
                http::HeaderName::from_static("grpc-status"),
                HeaderValue::from_static(value),
            )])
        };
        assert_eq!(done(&HeaderMap::new()), Ok(()));
        assert_eq!(done(&fields("0")), Ok(()));
        assert_eq!(done(&fields("12")), Err(Failure::Grpc(12)));
        assert_eq!(done(&fields("x")), Err(Failure::NotGrpc("the status is no number")));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = serving(&bytes);
            let _ = state(&bytes);
        }

        #[test]
        fn numbers_read_back(value in any::<u64>()) {
            let mut bytes = Vec::new();
            varint(value, &mut bytes);
            let mut rest = bytes.as_slice();
            prop_assert_eq!(take_varint(&mut rest), Some(value));
            prop_assert!(rest.is_empty());
        }
    }
}
