//! Just enough of WebSocket (RFC 6455) to talk through a proxy.

use std::io::Read;
use std::io::Write;

/// The key of RFC 6455 §1.3, and what it is answered with.
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A client's handshake.
pub(crate) fn handshake(target: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: edge.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    )
}

/// An origin's agreement.
pub(crate) fn agreement() -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    )
}

/// What a frame is.
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;

/// A frame; clients mask theirs.
pub(crate) fn frame(kind: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let mut bytes = vec![0x80 | kind];
    let masked = if mask.is_some() { 0x80 } else { 0 };
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ 0..126), _) => bytes.push(masked | length),
        (_, Ok(length)) => {
            bytes.push(masked | 126);
            bytes.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            bytes.push(masked | 127);
            bytes.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    let Some(mask) = mask else {
        bytes.extend_from_slice(payload);
        return bytes;
    };
    bytes.extend_from_slice(&mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// Reads a frame: what it is, and its payload. `None` at the end.
pub(crate) fn read_frame(from: &mut impl Read) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    from.read_exact(&mut head).ok()?;
    let length = match head[1] & 0x7f {
        126 => u64::from(u16::from_be_bytes(take(from)?)),
        127 => u64::from_be_bytes(take(from)?),
        length => u64::from(length),
    };
    let mask: [u8; 4] = if head[1] & 0x80 == 0 { [0; 4] } else { take(from)? };
    let mut payload = vec![0; usize::try_from(length).ok()?];
    from.read_exact(&mut payload).ok()?;
    for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
    Some((head[0] & 0x0f, payload))
}

/// Sends every message back until the other side closes.
pub(crate) fn echo(stream: &mut (impl Read + Write)) {
    while let Some((kind, payload)) = read_frame(stream) {
        if stream.write_all(&frame(kind, &payload, None)).is_err() || kind == CLOSE {
            return;
        }
    }
}

fn take<const N: usize>(from: &mut impl Read) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes).ok()?;
    Some(bytes)
}
