//! HTTP/2 written by hand: honest libraries would not send what some tests need.

use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RESET: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
const ACK: u8 = 1;
const PREFACE: usize = 24;

/// A frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("tests send small frames").to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// A header block whose fields nobody has to remember (RFC 7541 §6.2.2).
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        literal(&mut block, name);
        literal(&mut block, value);
    }
    block
}

/// A string without Huffman coding (RFC 7541 §5.2).
pub(crate) fn literal(block: &mut Vec<u8>, text: &str) {
    let mut rest = text.len();
    if rest < 127 {
        block.push(u8::try_from(rest).expect("below 127"));
    } else {
        block.push(127);
        rest -= 127;
        while rest >= 128 {
            block.push(u8::try_from(rest % 128 + 128).expect("below 256"));
            rest /= 128;
        }
        block.push(u8::try_from(rest).expect("below 128"));
    }
    block.extend_from_slice(text.as_bytes());
}

/// An origin of HTTP/2 by prior knowledge that answers each request by what a test writes.
pub(crate) struct RawOrigin2 {
    pub(crate) address: SocketAddr,
    asked: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
}

impl RawOrigin2 {
    /// Starts one on a port of its own. Each request is answered on its connection, by the number of its
    /// stream; when the `answer` is false, the connection is closed then.
    pub(crate) fn start(
        answer: impl Fn(&mut TcpStream, u32) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self::with(&[], answer)
    }

    /// The same with settings.
    pub(crate) fn with(
        settings: &[u8],
        answer: impl Fn(&mut TcpStream, u32) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self::taking(usize::MAX, settings, answer)
    }

    /// The same, which takes so many connections and closes all that come afterwards.
    pub(crate) fn taking(
        most: usize,
        settings: &[u8],
        answer: impl Fn(&mut TcpStream, u32) -> bool + Send + Sync + 'static,
    ) -> Self {
        let settings: Arc<[u8]> = settings.into();
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be listened on");
        let address = listener.local_addr().expect("a bound socket has an address");
        let asked = Arc::new(AtomicUsize::new(0));
        let connections = Arc::new(AtomicUsize::new(0));
        let answer = Arc::new(answer);
        std::thread::spawn({
            let (asked, connections) = (Arc::clone(&asked), Arc::clone(&connections));
            move || {
                for stream in listener.incoming() {
                    let Ok(stream) = stream else { return };
                    if connections.fetch_add(1, Ordering::SeqCst) >= most {
                        continue;
                    }
                    let (asked, answer) = (Arc::clone(&asked), Arc::clone(&answer));
                    let settings = Arc::clone(&settings);
                    std::thread::spawn(move || serve(stream, &settings, &asked, answer.as_ref()));
                }
            }
        });
        Self { address, asked, connections }
    }

    /// How many connections were made to it.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// How many requests came.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// Until the other side goes away, or the answer wants so.
fn serve(
    mut stream: TcpStream,
    settings: &[u8],
    asked: &AtomicUsize,
    answer: &impl Fn(&mut TcpStream, u32) -> bool,
) -> Option<()> {
    stream.read_exact(&mut [0; PREFACE]).ok()?;
    stream.write_all(&frame(SETTINGS, 0, 0, settings)).ok()?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload).ok()?;
        match head[3] {
            SETTINGS if head[4] & ACK == 0 => {
                stream.write_all(&frame(SETTINGS, ACK, 0, &[])).ok()?;
            }
            PING if head[4] & ACK == 0 => {
                stream.write_all(&frame(PING, ACK, 0, &payload)).ok()?;
            }
            HEADERS => {
                asked.fetch_add(1, Ordering::SeqCst);
                let number = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
                if !answer(&mut stream, number) {
                    return Some(());
                }
            }
            _ => {}
        }
    }
}
