//! The data of a chunked body, taken out of bytes that a scanner has let pass.

use bytes::Buf;
use bytes::Bytes;
use bytes::BytesMut;

/// Takes the data out of a chunked body whose grammar was checked as it came
/// ([`ChunkScanner`](super::ChunkScanner)). Extensions and trailers are left out.
#[derive(Debug, Default)]
pub struct ChunkReader {
    place: Place,
}

#[derive(Debug, Default)]
enum Place {
    #[default]
    Size,
    /// So much of a chunk is still to come.
    Data(u64),
    DataEnd,
    Trailers,
    Done,
}

/// What the bytes that are there amount to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chunk {
    /// Some data, never none of it.
    Data(Bytes),
    /// More bytes are needed.
    NeedMore,
    /// The body is whole.
    End,
}

impl ChunkReader {
    /// Takes what comes next off the front of `buf`.
    pub fn next(&mut self, buf: &mut BytesMut) -> Chunk {
        loop {
            self.place = match self.place {
                Place::Size => match line(buf) {
                    None => return Chunk::NeedMore,
                    Some(line) => match size(&line) {
                        0 => Place::Trailers,
                        size => Place::Data(size),
                    },
                },
                Place::Data(0) => Place::DataEnd,
                Place::Data(_) if buf.is_empty() => return Chunk::NeedMore,
                Place::Data(left) => {
                    let here = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
                    let data = buf.split_to(here).freeze();
                    self.place = Place::Data(left - here as u64);
                    return Chunk::Data(data);
                }
                Place::DataEnd if buf.len() < 2 => return Chunk::NeedMore,
                Place::DataEnd => {
                    buf.advance(2);
                    Place::Size
                }
                Place::Trailers => match line(buf) {
                    None => return Chunk::NeedMore,
                    Some(line) if line.is_empty() => Place::Done,
                    Some(_) => Place::Trailers,
                },
                Place::Done => return Chunk::End,
            };
        }
    }
}

/// Takes a line off, without its end.
fn line(buf: &mut BytesMut) -> Option<BytesMut> {
    let end = buf.iter().position(|byte| *byte == b'\n')?;
    let mut line = buf.split_to(end + 1);
    line.truncate(end.saturating_sub(1));
    Some(line)
}

/// The number at the start of a chunk's first line.
fn size(line: &[u8]) -> u64 {
    let digits = line.iter().map_while(|byte| char::from(*byte).to_digit(16));
    digits.fold(0, |size: u64, digit| size.wrapping_mul(16).wrapping_add(digit.into()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::chunked::ChunkScanner;

    /// The data of a body that comes in these parts, and whether it is whole.
    fn read<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, bool) {
        let mut reader = ChunkReader::default();
        let (mut buf, mut data) = (BytesMut::new(), Vec::new());
        for part in parts {
            buf.extend_from_slice(part);
            loop {
                match reader.next(&mut buf) {
                    Chunk::Data(more) => {
                        assert!(!more.is_empty());
                        data.extend_from_slice(&more);
                    }
                    Chunk::NeedMore => break,
                    Chunk::End => return (data, true),
                }
            }
        }
        (data, false)
    }

    #[test]
    fn extensions_and_trailers_are_left_out() {
        let body = b"5;a=b\r\nhello\r\n00A\r\n, world ab\r\n0;last\r\nX: y\r\nZ:\r\n\r\n";
        assert_eq!(read([&body[..]]), (b"hello, world ab".to_vec(), true));
        assert!(!read([&body[..body.len() - 1]]).1, "the last byte is missing");
    }

    proptest! {
        #[test]
        fn the_data_comes_out_however_it_is_cut(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
            step in 1_usize..20,
        ) {
            let mut body = Vec::new();
            for chunk in &chunks {
                body.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
                body.extend_from_slice(chunk);
                body.extend_from_slice(b"\r\n");
            }
            body.extend_from_slice(b"0\r\n\r\n");
            let mut scanner = ChunkScanner::default();
            prop_assert!(scanner.feed(&body).is_ok_and(|fed| fed.done));
            prop_assert_eq!(read(body.chunks(step)), (chunks.concat(), true));
        }
    }
}
