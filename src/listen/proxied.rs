//! The PROXY protocol towards clients: who a connection is really from, as a proxy in front says before
//! anything else (versions 1 and 2 of HAProxy's specification, `proxy-protocol.txt`).

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use ppp::HeaderResult;
use ppp::v1;
use ppp::v2;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::message::ends::Ends;

/// The shortest header of version 1 (`PROXY UNKNOWN` and the end of its line): as much can be read of any header
/// before it is known where it ends.
const SHORTEST: usize = 15;
/// The longest header of version 1 (§2.1).
const LONGEST_TEXT: usize = 107;
/// What a header of version 2 begins with (§2.2).
const SIGNATURE: &[u8] = v2::PROTOCOL_PREFIX;
/// The part of a header of version 2 that says how long the rest is.
const FIXED: usize = 16;

/// From whom the header is expected, as meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The proxies. Each of their connections begins with a header, whoever they speak for.
    pub from: Vec<IpNet>,
    /// What becomes of connections from everybody else.
    pub others: Others,
}

/// What becomes of connections that are from no trusted proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Others {
    /// They are closed.
    Refuse,
    /// They are served as their own. A header is not expected, and is no request.
    Serve,
}

/// What a connection begins with, by where it is from. It is never guessed from its bytes (§2: a client could
/// else say that it is somebody else).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beginning {
    /// With the header.
    Header,
    /// With what the client says.
    Client,
    /// With its end.
    Nothing,
}

impl Settings {
    /// What a connection from `address` begins with.
    #[must_use]
    pub fn beginning(&self, address: IpAddr) -> Beginning {
        let address = address.to_canonical();
        match self.others {
            _ if self.from.iter().any(|network| network.contains(&address)) => Beginning::Header,
            Others::Refuse => Beginning::Nothing,
            Others::Serve => Beginning::Client,
        }
    }
}

/// Why there is no header.
#[derive(Debug)]
pub enum Missing {
    /// The connection ended before its first byte, as those that only ask whether somebody listens do.
    Closed,
    /// It did not come in time.
    TimedOut,
    /// What came is none.
    Malformed,
    /// The connection broke, or ended within the header.
    Broken(io::Error),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the connection ended before its first byte"),
            Self::TimedOut => f.write_str("no PROXY protocol header came in time"),
            Self::Malformed => f.write_str("it does not begin with a PROXY protocol header"),
            Self::Broken(e) => write!(f, "the PROXY protocol header did not come whole: {e}"),
        }
    }
}

/// Takes the header, and not a byte more, off the front of a connection. `None`: the proxy speaks for itself,
/// or cannot say who for; the connection's own ends count.
///
/// # Errors
/// There is none within `patience`.
pub async fn read(tcp: &mut TcpStream, patience: Duration) -> Result<Option<Ends>, Missing> {
    let mut header = Vec::with_capacity(LONGEST_TEXT);
    match timeout(patience, take(tcp, &mut header)).await {
        Err(_) => Err(Missing::TimedOut),
        Ok(Err(_)) if header.is_empty() => Err(Missing::Closed),
        Ok(Err(e)) => Err(Missing::Broken(e)),
        Ok(Ok(Whole::No)) => Err(Missing::Malformed),
        Ok(Ok(Whole::Yes)) => meant(&header).ok_or(Missing::Malformed),
    }
}

/// Whether a header was found to its end.
enum Whole {
    Yes,
    No,
}

async fn take(tcp: &mut TcpStream, header: &mut Vec<u8>) -> io::Result<Whole> {
    fill(tcp, header, 1).await?;
    fill(tcp, header, SHORTEST).await?;
    if header.starts_with(SIGNATURE) {
        fill(tcp, header, FIXED).await?;
        let rest = usize::from(u16::from_be_bytes([header[FIXED - 2], header[FIXED - 1]]));
        fill(tcp, header, FIXED + rest).await?;
        return Ok(Whole::Yes);
    }
    if !header.starts_with(v1::PROTOCOL_PREFIX.as_bytes()) {
        return Ok(Whole::No);
    }
    while !header.ends_with(b"\n") {
        let mut ahead = [0; LONGEST_TEXT];
        let room = LONGEST_TEXT - header.len();
        if room == 0 {
            return Ok(Whole::No);
        }
        let there = tcp.peek(&mut ahead[..room]).await?;
        let line = memchr::memchr(b'\n', &ahead[..there]).map_or(there, |end| end + 1);
        // At the connection's end nothing is ahead: the read says so.
        fill(tcp, header, header.len() + line.max(1)).await?;
    }
    Ok(Whole::Yes)
}

/// Reads until there are `length` bytes.
async fn fill(tcp: &mut TcpStream, header: &mut Vec<u8>, length: usize) -> io::Result<()> {
    let missing = length.saturating_sub(header.len());
    let read = tcp.take(missing as u64).read_to_end(header).await?;
    if read < missing {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

/// What a whole header says; `None` when it is none. `Some(None)`: nothing of addresses that TCP knows.
fn meant(header: &[u8]) -> Option<Option<Ends>> {
    let ends = match HeaderResult::parse(header) {
        HeaderResult::V1(Ok(text)) if text.header.len() == header.len() => match text.addresses {
            // The library takes `+1` for a port. Only what follows UNKNOWN may be anything (§2.1).
            v1::Addresses::Tcp4(_) | v1::Addresses::Tcp6(_) if header.contains(&b'+') => {
                return None;
            }
            v1::Addresses::Tcp4(ip) => Some(over_ipv4(ip)),
            v1::Addresses::Tcp6(ip) => Some(over_ipv6(ip)),
            v1::Addresses::Unknown => None,
        },
        HeaderResult::V2(Ok(binary)) => match (binary.command, binary.protocol, binary.addresses) {
            // §2.2: whatever else such a header says is not about this connection.
            (v2::Command::Local, _, _) => None,
            // HTTP/1 and HTTP/2 do not come in datagrams.
            (v2::Command::Proxy, v2::Protocol::Datagram, _) => return None,
            (v2::Command::Proxy, v2::Protocol::Stream, v2::Addresses::IPv4(ip)) => {
                Some(over_ipv4(ip))
            }
            (v2::Command::Proxy, v2::Protocol::Stream, v2::Addresses::IPv6(ip)) => {
                Some(over_ipv6(ip))
            }
            (
                v2::Command::Proxy,
                v2::Protocol::Stream,
                v2::Addresses::Unix(_) | v2::Addresses::Unspecified,
            )
            | (v2::Command::Proxy, v2::Protocol::Unspecified, _) => None,
        },
        HeaderResult::V1(_) | HeaderResult::V2(Err(_)) => return None,
    };
    Some(ends)
}

fn over_ipv4(ip: v1::IPv4) -> Ends {
    Ends {
        source: (ip.source_address, ip.source_port).into(),
        destination: (ip.destination_address, ip.destination_port).into(),
    }
}

fn over_ipv6(ip: v1::IPv6) -> Ends {
    Ends {
        source: (ip.source_address, ip.source_port).into(),
        destination: (ip.destination_address, ip.destination_port).into(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn ends(source: &str, destination: &str) -> Option<Ends> {
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        Some(Ends { source, destination })
    }

    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut header = SIGNATURE.to_vec();
        header.extend([0x20 | command, family]);
        header.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
        header.extend(rest);
        header
    }

    /// A connection, and its other end.
    async fn pair() -> (TcpStream, TcpStream) {
        let door = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = TcpStream::connect(door.local_addr().unwrap()).await.unwrap();
        (door.accept().await.unwrap().0, proxy)
    }

    /// What is read of a connection that carries these bytes in these portions, and then `GET`.
    async fn of<'a>(portions: impl IntoIterator<Item = &'a [u8]>) -> Result<Option<Ends>, Missing> {
        let (mut tcp, mut proxy) = pair().await;
        let portions: Vec<Vec<u8>> = portions.into_iter().map(<[u8]>::to_vec).collect();
        let send = async {
            for portion in &portions {
                proxy.write_all(portion).await.unwrap();
                proxy.flush().await.unwrap();
                tokio::task::yield_now().await;
            }
            proxy.write_all(b"GET").await.unwrap();
            proxy.shutdown().await.unwrap();
        };
        let (said, ()) = tokio::join!(read(&mut tcp, PATIENCE), send);
        if said.is_ok() {
            let mut rest = Vec::new();
            tcp.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, b"GET", "what follows the header is the client's");
        }
        said
    }

    #[tokio::test]
    async fn a_line_of_text_says_who_the_client_is() {
        let four: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n";
        let expected = ends("192.0.2.7:56324", "198.51.100.1:443");
        assert_eq!(of([four]).await.unwrap(), expected);
        assert_eq!(of(four.chunks(1)).await.unwrap(), expected, "byte for byte");
        let six: &[u8] = b"PROXY TCP6 2001:db8::7 2001:db8::1 56324 443\r\n";
        assert_eq!(of([six]).await.unwrap(), ends("[2001:db8::7]:56324", "[2001:db8::1]:443"));
    }

    #[tokio::test]
    async fn a_proxy_may_not_know_or_speak_for_itself() {
        assert_eq!(of([&b"PROXY UNKNOWN\r\n"[..]]).await.unwrap(), None);
        let odd: &[u8] = b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n";
        assert_eq!(of([odd]).await.unwrap(), None);
        let four = [192, 0, 2, 7, 198, 51, 100, 1, 0xdc, 0x04, 0x01, 0xbb];
        assert_eq!(of([&binary(0, 0x11, &four)[..]]).await.unwrap(), None, "LOCAL");
        assert_eq!(of([&binary(0, 0x00, &[])[..]]).await.unwrap(), None);
        assert_eq!(of([&binary(1, 0x00, &[])[..]]).await.unwrap(), None);
        assert_eq!(of([&binary(1, 0x31, &[b'/'; 216])[..]]).await.unwrap(), None, "Unix");
    }

    #[tokio::test]
    async fn a_binary_header_says_who_the_client_is() {
        let mut four = vec![192, 0, 2, 7, 198, 51, 100, 1, 0xdc, 0x04, 0x01, 0xbb];
        let expected = ends("192.0.2.7:56324", "198.51.100.1:443");
        assert_eq!(of([&binary(1, 0x11, &four)[..]]).await.unwrap(), expected);
        // What else it says is skipped, however much it is.
        four.resize(usize::from(u16::MAX), 0x04);
        let long = binary(1, 0x11, &four);
        assert_eq!(of([&long[..]]).await.unwrap(), expected);
        assert_eq!(of(long.chunks(7)).await.unwrap(), expected);
        let mut six = [0; 36];
        (six[0], six[15], six[16], six[31], six[33], six[35]) = (0x20, 7, 0x20, 1, 80, 90);
        assert_eq!(
            of([&binary(1, 0x21, &six)[..]]).await.unwrap(),
            ends("[2000::7]:80", "[2000::1]:90")
        );
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        let long = format!("PROXY TCP4 192.0.2.7 198.51.100.1 56324 {}", "4".repeat(80));
        let four = [192, 0, 2, 7, 198, 51, 100, 1, 0xdc, 0x04, 0x01];
        let (short, datagrams) = (binary(1, 0x11, &four), binary(1, 0x12, &[0; 12]));
        let (version, command) = (binary(0x10, 0x11, &[0; 12]), binary(2, 0x11, &[0; 12]));
        for bytes in [
            &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\r\n",
            b"PROXY TCP4 2001:db8::7 2001:db8::1 56324 443\r\n",
            b"PROXY TCP4 192.0.2.256 198.51.100.1 56324 443\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 65536\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 +56324 443\r\n",
            b"PROXY TCP6 2001:db8::7 2001:db8::1 56324 +443\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 56324\r\n",
            b"PROXY UDP4 192.0.2.7 198.51.100.1 56324 443\r\n",
            b"proxy TCP4 192.0.2.7 198.51.100.1 56324 443\r\n",
            long.as_bytes(),
            &short,
            &datagrams,
            &version,
            &command,
        ] {
            let said = of([bytes]).await;
            let text = String::from_utf8_lossy(bytes);
            assert!(matches!(said, Err(Missing::Malformed)), "{text:?}: {said:?}");
        }
    }

    #[tokio::test]
    async fn a_header_that_does_not_come_is_not_awaited_for_ever() {
        let (mut tcp, mut proxy) = pair().await;
        proxy.write_all(b"PROXY TCP4 192.0.2.7 ").await.unwrap();
        let said = read(&mut tcp, Duration::from_millis(20)).await;
        assert!(matches!(said, Err(Missing::TimedOut)), "{said:?}");

        let (mut tcp, mut proxy) = pair().await;
        proxy.write_all(b"PROXY TCP4 192.0.2.7 ").await.unwrap();
        drop(proxy);
        let said = read(&mut tcp, PATIENCE).await;
        assert!(matches!(said, Err(Missing::Broken(_))), "{said:?}");

        let (mut tcp, proxy) = pair().await;
        drop(proxy);
        assert!(matches!(read(&mut tcp, PATIENCE).await, Err(Missing::Closed)));
    }

    #[test]
    fn where_a_connection_is_from_says_what_it_begins_with() {
        let from = vec!["10.0.0.0/8".parse().unwrap()];
        let beginning = |others, address: &str| {
            Settings { from: from.clone(), others }.beginning(address.parse().unwrap())
        };
        assert_eq!(beginning(Others::Refuse, "10.1.2.3"), Beginning::Header);
        assert_eq!(beginning(Others::Serve, "::ffff:10.1.2.3"), Beginning::Header);
        assert_eq!(beginning(Others::Refuse, "192.0.2.1"), Beginning::Nothing);
        assert_eq!(beginning(Others::Serve, "192.0.2.1"), Beginning::Client);
    }
}
