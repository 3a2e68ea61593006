//! The authority of a request: host and port (RFC 3986 §3.2, RFC 9110 §7.2).

use std::fmt;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

use crate::message::target::Scheme;
use crate::refusal::Refusal;

/// The longest authority, in bytes.
const LONGEST: usize = 255;

/// A valid host and the port written with it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Authority {
    /// `host` or `host:port`.
    text: String,
    /// Where the host ends.
    host: usize,
    port: Option<u16>,
}

impl Authority {
    /// Reads `host`, `host:port`, `192.0.2.1`, `[2001:db8::1]:8080`.
    ///
    /// The host is lower-cased, a trailing dot removed, an IPv6 address brought into the form of
    /// RFC 5952. A name is made of letters, digits, `-`, `_` and single dots. One whose last label
    /// is a number has to be a dotted IPv4 address: `127.1` and `0x7f.1` are the same host to some
    /// resolvers and another to a routing table. A port is 1 to 65535 without leading zeros.
    ///
    /// # Errors
    /// [`Refusal::BadHost`] for everything else: user information, an empty port, zone
    /// identifiers, escapes.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.is_empty() || bytes.len() > LONGEST {
            return Err(Refusal::BadHost);
        }
        let given = std::str::from_utf8(bytes).map_err(|_| Refusal::BadHost)?;
        let (host, rest) = match bytes {
            [b'[', rest @ ..] => {
                let end = rest.iter().position(|&byte| byte == b']').ok_or(Refusal::BadHost)?;
                (Host::Ipv6(&given[1..=end]), &given[end + 2..])
            }
            _ => {
                let (end, last) = named_host(bytes)?;
                let rest = &given[end..];
                // The root's dot names the same host; "a.." does not.
                (Host::Named(&given[..end], last), rest.strip_prefix('.').unwrap_or(rest))
            }
        };
        let port = match rest.as_bytes() {
            [] => None,
            [b':', digits @ ..] => Some(parse_port(digits)?),
            _ => return Err(Refusal::BadHost),
        };
        let mut text = String::with_capacity(bytes.len());
        match host {
            Host::Ipv6(address) => push_ipv6(&mut text, address)?,
            Host::Named(name, last) => push_name(&mut text, name, last)?,
        }
        let host = text.len();
        text.push_str(rest);
        Ok(Self { text, host, port })
    }

    /// `host` or `host:port`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The host: a lower-case name without a trailing dot, an IPv4 address, or an IPv6 address in
    /// brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.text[..self.host]
    }

    /// The port, if one is written.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The port that is meant: the one written, or the scheme's.
    #[must_use]
    pub fn effective_port(&self, scheme: Scheme) -> u16 {
        self.port.unwrap_or(scheme.default_port())
    }

    /// The same authority without a port that the scheme implies (RFC 3986 §6.2.3).
    #[must_use]
    pub fn without_default_port(mut self, scheme: Scheme) -> Self {
        if self.port == Some(scheme.default_port()) {
            self.port = None;
            self.text.truncate(self.host);
        }
        self
    }

    /// The same port of another host, whose name is in normal form.
    #[must_use]
    pub fn of_host(&self, host: &str) -> Self {
        Self { text: [host, &self.text[self.host..]].concat(), host: host.len(), port: self.port }
    }

    /// Whether both name the same host and port under this scheme.
    #[must_use]
    pub fn agrees_with(&self, other: &Self, scheme: Scheme) -> bool {
        self.host() == other.host() && self.effective_port(scheme) == other.effective_port(scheme)
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A host as it is written.
enum Host<'a> {
    /// What stands in brackets.
    Ipv6(&'a str),
    /// A registered name or an IPv4 address, without the root's dot, and where its last label begins.
    Named(&'a str, usize),
}

fn push_ipv6(to: &mut String, text: &str) -> Result<(), Refusal> {
    let address: Ipv6Addr = text.parse().map_err(|_| Refusal::BadHost)?;
    to.push_str(&format!("[{address}]"));
    Ok(())
}

/// Which bytes may stand in a label.
static LABEL: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        table[byte] = b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        byte += 1;
    }
    table
};

/// Where a name at the start ends, before the root's dot, and where its last label begins. What follows is for others to
/// judge.
fn named_host(bytes: &[u8]) -> Result<(usize, usize), Refusal> {
    let mut label = 0;
    let mut at = 0;
    loop {
        let length = bytes[at..].iter().take_while(|byte| LABEL[usize::from(**byte)]).count();
        if length == 0 {
            // Nothing, or nothing behind a dot, which may be the root's.
            return match at.checked_sub(1) {
                Some(end) => Ok((end, label)),
                None => Err(Refusal::BadHost),
            };
        }
        label = at;
        at += length;
        match bytes.get(at) {
            Some(b'.') => at += 1,
            Some(_) | None => return Ok((at, label)),
        }
    }
}

/// Writes a registered name or an IPv4 address whose last label begins there; `to` is empty.
fn push_name(to: &mut String, name: &str, last: usize) -> Result<(), Refusal> {
    to.push_str(name);
    to.make_ascii_lowercase();
    if is_number(&to[last..]) && to.parse::<Ipv4Addr>().is_err() {
        return Err(Refusal::BadHost);
    }
    Ok(())
}

/// Whether a resolver may read this label as a number: decimal, octal or hexadecimal.
fn is_number(label: &str) -> bool {
    // Few last labels begin so, and none of the others is one.
    if !label.starts_with(|first: char| first.is_ascii_digit()) {
        return false;
    }
    match label.strip_prefix("0x") {
        Some(hex) => hex.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => label.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

fn parse_port(digits: &[u8]) -> Result<u16, Refusal> {
    if !matches!(digits, [b'1'..=b'9', ..]) {
        return Err(Refusal::BadHost);
    }
    digits
        .iter()
        .try_fold(0_u16, |port, byte| match byte {
            b'0'..=b'9' => port.checked_mul(10)?.checked_add(u16::from(byte - b'0')),
            _ => None,
        })
        .ok_or(Refusal::BadHost)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Option<String> {
        Authority::parse(text.as_bytes()).ok().map(|authority| authority.to_string())
    }

    #[test]
    fn names_addresses_and_ports_are_read() {
        for (text, normal) in [
            ("example.org", "example.org"),
            ("EXAMPLE.Org:8080", "example.org:8080"),
            ("example.org.", "example.org"),
            ("example.org.:80", "example.org:80"),
            ("a_b.c-d", "a_b.c-d"),
            ("localhost:1", "localhost:1"),
            ("x:65535", "x:65535"),
            ("192.0.2.1:8080", "192.0.2.1:8080"),
            ("1.2.3.4.example", "1.2.3.4.example"),
            ("[::1]", "[::1]"),
            ("[2001:DB8:0:0::1]:443", "[2001:db8::1]:443"),
        ] {
            assert_eq!(read(text).as_deref(), Some(normal), "{text}");
        }
    }

    #[test]
    fn everything_doubtful_is_refused() {
        for text in [
            "",
            ".",
            "..",
            ".a",
            "a..b",
            "a..",
            ":80",
            "a:",
            "a:0",
            "a:080",
            "a:65536",
            "a:99999999999",
            "a:+80",
            "a:8 0",
            "a:80:80",
            "user@a",
            "u:p@a",
            "a b",
            "a/b",
            "a?b",
            "a#b",
            "a\\b",
            "a<b",
            "a,b",
            "a%41",
            "é",
            "[::1",
            "::1",
            "[::1]x",
            "[::1]:",
            "[::1%25eth0]",
            "[v1.a]",
            "[]",
            "[1.2.3.4]",
            "127.1",
            "256.1.1.1",
            "1.2.3",
            "2130706433",
            "0x7f.1",
            "a.0x7f",
            "01.2.3.4",
            "1.2.3.4.5",
            "a:80\0",
            "a\t",
        ] {
            assert_eq!(Authority::parse(text.as_bytes()), Err(Refusal::BadHost), "{text}");
        }
    }

    #[test]
    fn an_authority_has_at_most_255_bytes() {
        assert!(Authority::parse(&[b'a'; 255]).is_ok());
        assert!(Authority::parse(&[b'a'; 256]).is_err());
    }

    #[test]
    fn the_default_port_depends_on_the_scheme() {
        let authority = |text: &str| Authority::parse(text.as_bytes()).unwrap();
        let bare = |text, scheme| authority(text).without_default_port(scheme).to_string();
        assert_eq!(bare("a:80", Scheme::Http), "a");
        assert_eq!(bare("a:80", Scheme::Https), "a:80");
        assert_eq!(bare("a:443", Scheme::Https), "a");
        assert!(authority("a").agrees_with(&authority("A:443"), Scheme::Https));
        assert!(!authority("a").agrees_with(&authority("a:443"), Scheme::Http));
        assert!(!authority("a").agrees_with(&authority("b"), Scheme::Http));
    }

    /// Byte by byte, as it is said: the same without haste.
    fn plainly(text: &str) -> Option<String> {
        let at = text.find(':').unwrap_or(text.len());
        let (name, port) = text.split_at(at);
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let is_label = |label: &str| {
            let may = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            !label.is_empty() && label.chars().all(may)
        };
        let last = name.rsplit('.').next()?;
        let digits = |text: &str, radix| text.chars().all(|c| c.is_digit(radix));
        let is_number =
            digits(last, 10) || last.strip_prefix("0x").is_some_and(|hex| digits(hex, 16));
        let port_is_good = port.is_empty()
            || port[1..]
                .parse::<u16>()
                .is_ok_and(|number| port == format!(":{number}") && number > 0);
        let is_good = name.split('.').all(is_label)
            && (!is_number || name.parse::<Ipv4Addr>().is_ok())
            && port_is_good
            && text.len() <= LONGEST;
        is_good.then(|| format!("{name}{port}"))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]

        #[test]
        fn names_are_read_as_it_is_said(
            text in "([a-cA-F0-9xX_-]{0,3}\\.){0,4}[a-cA-F0-9xX_-]{0,3}[.:@ \u{e9}]?[.:]?[0-9]{0,6}"
        ) {
            prop_assert_eq!(read(&text), plainly(&text));
        }

        #[test]
        fn what_is_accepted_is_already_normal_when_printed(
            bytes in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..20),
                "[\\[\\]0-9a-fA-Fx:.]{0,20}".prop_map(String::into_bytes),
            ]
        ) {
            if let Ok(authority) = Authority::parse(&bytes) {
                let again = Authority::parse(authority.to_string().as_bytes());
                prop_assert_eq!(again, Ok(authority));
            }
        }
    }
}
