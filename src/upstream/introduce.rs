//! The PROXY protocol towards origins: the header by which a connection says for whom it speaks, before anything
//! else (versions 1 and 2 of HAProxy's specification, `proxy-protocol.txt`).

use std::io;
use std::net::SocketAddr;

use ppp::v1;
use ppp::v2;

use crate::message::ends::Ends;

/// The version of the PROXY protocol that an upstream understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

impl ProxyProtocol {
    /// The header of a connection that speaks for this client; `None` speaks for ourselves, as health checks do.
    ///
    /// # Errors
    /// None that is known: the library's writer may say so.
    pub(super) fn header(self, client: Option<Ends>) -> io::Result<Vec<u8>> {
        match self {
            Self::V1 => Ok(text(client).into_bytes()),
            Self::V2 => binary(client),
        }
    }
}

fn text(client: Option<Ends>) -> String {
    use SocketAddr::V4;
    use SocketAddr::V6;
    let addresses = match client.map(|ends| (ends.source, ends.destination)) {
        Some((V4(from), V4(to))) => {
            v1::Addresses::new_tcp4(*from.ip(), *to.ip(), from.port(), to.port())
        }
        Some((V6(from), V6(to))) => {
            v1::Addresses::new_tcp6(*from.ip(), *to.ip(), from.port(), to.port())
        }
        // A header has one family of addresses.
        Some((V4(_), V6(_)) | (V6(_), V4(_))) | None => v1::Addresses::Unknown,
    };
    addresses.to_string()
}

fn binary(client: Option<Ends>) -> io::Result<Vec<u8>> {
    let same = client.filter(|ends| ends.source.is_ipv4() == ends.destination.is_ipv4());
    let header = match same {
        Some(ends) => v2::Builder::with_addresses(
            v2::Version::Two | v2::Command::Proxy,
            v2::Protocol::Stream,
            (ends.source, ends.destination),
        ),
        None => v2::Builder::new(
            v2::Version::Two | v2::Command::Local,
            v2::AddressFamily::Unspecified | v2::Protocol::Unspecified,
        ),
    };
    header.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(source: &str, destination: &str) -> Option<Ends> {
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        Some(Ends { source, destination })
    }

    fn text(client: Option<Ends>) -> String {
        String::from_utf8(ProxyProtocol::V1.header(client).unwrap()).unwrap()
    }

    #[test]
    fn a_line_of_text_names_both_ends() {
        let four = ends("192.0.2.7:56324", "198.51.100.1:443");
        assert_eq!(text(four), "PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n");
        let six = ends("[2001:db8::7]:56324", "[2001:db8::1]:443");
        assert_eq!(text(six), "PROXY TCP6 2001:db8::7 2001:db8::1 56324 443\r\n");
        assert_eq!(text(None), "PROXY UNKNOWN\r\n");
        assert_eq!(text(ends("192.0.2.7:1", "[2001:db8::1]:2")), "PROXY UNKNOWN\r\n");
    }

    #[test]
    fn a_binary_header_names_both_ends() {
        let header = |client| ProxyProtocol::V2.header(client).unwrap();
        let mut four = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
        four.extend([192, 0, 2, 7, 198, 51, 100, 1, 0xdc, 0x04, 0x01, 0xbb]);
        assert_eq!(header(ends("192.0.2.7:56324", "198.51.100.1:443")), four);
        let mut six = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24".to_vec();
        let (mut from, mut to) = ([0; 16], [0; 16]);
        (from[..4]).copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        (to[..4]).copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        (from[15], to[15]) = (7, 1);
        six.extend(from.into_iter().chain(to).chain([0, 80, 0, 90]));
        assert_eq!(header(ends("[2001:db8::7]:80", "[2001:db8::1]:90")), six);
        let local = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\0\0";
        assert_eq!(header(None), local);
        assert_eq!(header(ends("192.0.2.7:1", "[2001:db8::1]:2")), local);
    }
}
