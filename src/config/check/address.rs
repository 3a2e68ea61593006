//! Addresses: where to listen, and where origins are.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::path::Path as FilePath;
use std::path::PathBuf;

use crate::config::mask;
use crate::message::target::Scheme;
use crate::upstream::Place;

/// What is wrong with an address, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) message: String,
    pub(super) help: String,
}

impl Wrong {
    fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }
}

/// An address to listen on. Port 0 lets the system choose one; the log says which.
pub(super) fn listen(text: &str) -> Result<SocketAddr, Wrong> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return possible(address);
    }
    let message = format!("\"{text}\" is not an address to listen on");
    let port = text.strip_prefix(':').unwrap_or(text);
    let help = if port.parse::<u16>().is_ok_and(|port| port != 0) {
        format!(
            "for every IPv4 address write \"0.0.0.0:{port}\", for every IPv6 one \"[::]:{port}\""
        )
    } else if let Some(port) = text.strip_prefix("localhost:") {
        format!("write \"127.0.0.1:{port}\" or \"[::1]:{port}\"")
    } else if let Some(port) = text.strip_prefix("*:") {
        format!("write \"0.0.0.0:{port}\" or \"[::]:{port}\"")
    } else if let Ok(ip) = text.parse::<IpAddr>() {
        format!("add a port: \"{}\"", SocketAddr::new(ip, 8080))
    } else {
        "write an IP address and a port: \"0.0.0.0:8080\", \"[::1]:8080\"".to_owned()
    };
    Err(Wrong::new(message, help))
}

/// Refuses where nobody can listen, or be reached.
fn possible(address: SocketAddr) -> Result<SocketAddr, Wrong> {
    let (ip, port) = (address.ip(), address.port());
    if let IpAddr::V6(six) = ip
        && let Some(four) = six.to_ipv4_mapped()
    {
        return Err(Wrong::new(
            format!("{address} is an IPv4 address, and IPv6 listeners are IPv6 only"),
            format!("write \"{four}:{port}\""),
        ));
    }
    if ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
        let every = if ip.is_ipv4() { "0.0.0.0" } else { "[::]" };
        return Err(Wrong::new(
            format!("{address} stands for many machines, and nobody can connect to it"),
            format!("write an address of this machine, or \"{every}:{port}\" for every one it has"),
        ));
    }
    Ok(address)
}

/// Whether two listeners cannot both have their address. IPv6 listeners are IPv6 only.
pub(super) fn clash(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() == other.port()
        && one.port() != 0
        && one.is_ipv4() == other.is_ipv4()
        && (one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified())
}

/// Where an origin is, and what its address says of TLS.
pub(super) struct Origin {
    /// Where.
    pub(super) place: Place,
    /// The scheme, where it was written as a URL.
    pub(super) scheme: Option<Scheme>,
}

/// The address of an origin; a relative socket is below `folder`.
pub(super) fn origin(text: &str, folder: &FilePath) -> Result<Origin, Wrong> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Ok(Origin { place: place(text, folder)?, scheme: None });
    };
    let (scheme, port) = match scheme.to_ascii_lowercase().as_str() {
        "http" => (Scheme::Http, 80),
        "https" => (Scheme::Https, 443),
        _ => {
            let help = "write \"host:port\", \"http://host\", \"https://host\" or \"unix:/path\"";
            return Err(Wrong::new(format!("\"{scheme}\" is not spoken to origins"), help));
        }
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if authority.contains('@') {
        let help = "send them as a header: `headers: {request: {set: {authorization: …}}}`";
        return Err(Wrong::new("an address holds no user and password", help));
    }
    if !path.is_empty() || rest.contains(['?', '#']) {
        let help = format!(
            "the path goes to `rewrite: {{add_prefix: /{}}}` of the route",
            mask::url(path)
        );
        return Err(Wrong::new(format!("\"{}\": an address has no path", mask::url(text)), help));
    }
    let bare = match authority.rsplit_once(':') {
        Some((_, port)) => port.ends_with(']'),
        None => true,
    };
    let authority = if bare { format!("{authority}:{port}") } else { authority.to_owned() };
    Ok(Origin { place: place(&authority, folder)?, scheme: Some(scheme) })
}

/// Where an origin is, written without a scheme.
fn place(text: &str, folder: &FilePath) -> Result<Place, Wrong> {
    if text == "demo" {
        return Ok(Place::Demo);
    }
    if let Some(path) = text.strip_prefix("unix:") {
        if path.is_empty() {
            return Err(Wrong::new("the socket has no path", "write \"unix:/run/app.sock\""));
        }
        let whole = folder.join(PathBuf::from(path));
        // `sun_path` has 108 bytes, and the last one is zero.
        let length = whole.as_os_str().len();
        if length > 107 {
            return Err(Wrong::new(
                format!("a socket's path may have 107 bytes, this one has {length}"),
                format!("it stands for {}", whole.display()),
            ));
        }
        return Ok(Place::Unix(whole));
    }
    if let Some(name) = text.strip_prefix("srv:") {
        return service(name);
    }
    if text.contains('@') {
        let help = "send them as a header: `headers: {request: {set: {authorization: …}}}`";
        return Err(Wrong::new("an address holds no user and password", help));
    }
    let message = || format!("\"{text}\" is not the address of an origin");
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once("]:")) {
        Some((host, port)) if host.parse::<std::net::Ipv6Addr>().is_ok() => (host, port),
        Some(_) => return Err(Wrong::new(message(), "an IPv6 address is written \"[::1]:8080\"")),
        None => match text.rsplit_once(':') {
            Some((host, port)) if host.contains(':') => {
                // One bracket alone was meant as two.
                let bare = |text: &'_ str| text.trim_matches(['[', ']']).to_owned();
                let is_host = bare(host).parse::<std::net::Ipv6Addr>().is_ok();
                let (host, port) = if is_host { (bare(host), port) } else { (bare(text), "8080") };
                let help = format!("put an IPv6 address in brackets: \"[{host}]:{port}\"");
                return Err(Wrong::new(message(), help));
            }
            Some(pair) => pair,
            None if is_host(text) => {
                return Err(Wrong::new(message(), format!("add the port: \"{text}:80\"")));
            }
            None => {
                let help = "write \"host:port\", \"unix:/path/to.sock\" or \"demo\"";
                return Err(Wrong::new(message(), help));
            }
        },
    };
    let port = match port.parse::<u16>() {
        // What is read also takes a sign.
        Ok(number) if number != 0 && !port.starts_with('+') => number,
        _ => return Err(Wrong::new(format!("\"{port}\" is not a port"), "from 1 to 65535")),
    };
    if !is_host(host) && host.parse::<IpAddr>().is_err() {
        let help = "letters, digits, hyphens and dots, or an IP address";
        return Err(Wrong::new(format!("\"{host}\" is not the name of a host"), help));
    }
    Ok(Place::Tcp { host: host.to_ascii_lowercase(), port })
}

/// A service, by the name of its SRV records.
fn service(name: &str) -> Result<Place, Wrong> {
    if let Some((name, _)) = name.split_once(':') {
        let help = format!("its records say the ports: \"srv:{name}\"");
        return Err(Wrong::new("a service has no port of its own", help));
    }
    // At least one label says whose service it is.
    let whose = name.split('.').any(|label| !label.is_empty() && !label.starts_with('_'));
    if !is_host(name) || !whose {
        let message = format!("\"{name}\" is not the name of a service");
        return Err(Wrong::new(message, "write \"srv:_http._tcp.app.example.org\""));
    }
    Ok(Place::Service(name.to_ascii_lowercase()))
}

/// A DNS server: an IP address, with or without a port.
pub(super) fn resolver(text: &str) -> Result<SocketAddr, Wrong> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, DNS));
    address.or_else(|_| text.parse::<SocketAddr>()).ok().filter(|at| at.port() != 0).ok_or_else(
        || {
            let message = format!("\"{text}\" is not the address of a DNS server");
            Wrong::new(
                message,
                "write an IP address: \"10.0.0.2\", \"127.0.0.1:8600\", \"[::1]:53\"",
            )
        },
    )
}

/// The port of DNS servers that have no other.
const DNS: u16 = 53;

/// Whether this can be looked up in DNS (RFC 1123 §2.1; `_` occurs in service names).
pub(super) fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    name.len() <= 253 && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn origin_at(text: &str) -> Result<Place, Wrong> {
        origin(text, FilePath::new("/etc/edge")).map(|origin| origin.place)
    }

    fn tcp(host: &str, port: u16) -> Result<Place, Wrong> {
        Ok(Place::Tcp { host: host.into(), port })
    }

    #[test]
    fn an_origin_is_a_host_and_a_port() {
        assert_eq!(origin_at("Origin.Example:8080"), tcp("origin.example", 8080));
        assert_eq!(origin_at("10.0.0.1:80"), tcp("10.0.0.1", 80));
        assert_eq!(origin_at("[::1]:80"), tcp("::1", 80));
        for port in ["+80", "-80", " 80", "65536", "0", ""] {
            assert!(origin_at(&format!("a.test:{port}")).is_err(), "{port}");
        }
        let wrong = origin("[::1:80", FilePath::new("/")).err().unwrap();
        assert!(wrong.help.ends_with("\"[::1]:80\""), "{}", wrong.help);
        let wrong = origin("me:pw@a:80", FilePath::new("/")).err().unwrap();
        assert!(!format!("{}{}", wrong.message, wrong.help).contains("pw"), "{}", wrong.message);
    }

    #[test]
    fn an_origin_may_be_a_socket_or_the_demo() {
        assert_eq!(origin_at("unix:/run/a.sock"), Ok(Place::Unix("/run/a.sock".into())));
        assert_eq!(origin_at("unix:a.sock"), Ok(Place::Unix("/etc/edge/a.sock".into())));
        assert_eq!(origin_at("demo"), Ok(Place::Demo));
    }

    #[test]
    fn an_origin_may_be_a_service_whose_records_say_the_rest() {
        let service = |name: &str| Ok(Place::Service(name.to_owned()));
        assert_eq!(origin_at("srv:_HTTP._tcp.app.Test"), service("_http._tcp.app.test"));
        assert_eq!(origin_at("srv:app.service.consul."), service("app.service.consul."));
        let help = |text| origin_at(text).expect_err(text).help;
        assert!(help("srv:app.test:80").contains("\"srv:app.test\""));
        assert!(help("srv:").contains("srv:_http._tcp.app.example.org"));
        assert!(help("srv:_http._tcp.").contains("srv:_http._tcp.app.example.org"));
    }

    #[test]
    fn a_dns_server_is_an_ip_address_and_perhaps_a_port() {
        let at = |text: &str| text.parse::<SocketAddr>().expect("an address");
        assert_eq!(resolver("10.0.0.2"), Ok(at("10.0.0.2:53")));
        assert_eq!(resolver("127.0.0.1:8600"), Ok(at("127.0.0.1:8600")));
        assert_eq!(resolver("::1"), Ok(at("[::1]:53")));
        assert_eq!(resolver("[::1]"), Ok(at("[::1]:53")));
        assert_eq!(resolver("[::1]:8600"), Ok(at("[::1]:8600")));
        for text in ["dns.test", "10.0.0.2:0", "10.0.0.2:dns", ""] {
            assert!(resolver(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ports_go_from_1_to_65535() {
        assert!(origin_at("a:0").is_err());
        assert!(origin_at("a:1").is_ok());
        assert!(origin_at("a:65535").is_ok());
        assert!(origin_at("a:65536").is_err());
    }

    #[test]
    fn a_url_has_a_scheme_and_perhaps_a_port_but_no_path_and_no_password() {
        let read = |text| origin(text, FilePath::new("/")).map(|o| (o.place, o.scheme));
        let at = |host: &str, port| Place::Tcp { host: host.to_owned(), port };
        assert_eq!(read("http://a"), Ok((at("a", 80), Some(Scheme::Http))));
        assert_eq!(read("https://a/"), Ok((at("a", 443), Some(Scheme::Https))));
        assert_eq!(read("HTTPS://a:8443"), Ok((at("a", 8443), Some(Scheme::Https))));
        assert_eq!(read("http://[::1]"), Ok((at("::1", 80), Some(Scheme::Http))));
        assert_eq!(read("http://[::1]:81"), Ok((at("::1", 81), Some(Scheme::Http))));
        assert_eq!(read("a:80"), Ok((at("a", 80), None)));
        let help =
            |text| origin(text, FilePath::new("/")).map(|_| ()).expect_err("no address").help;
        assert!(help("http://a:8080/x").contains("`rewrite: {add_prefix: /x}`"));
        assert!(help("http://a?x").contains("rewrite"));
        assert!(help("ftp://a").contains("https://host"));
        let secret =
            origin("http://me:secret@a", FilePath::new("/")).map(|_| ()).expect_err("a secret");
        assert!(!format!("{} {}", secret.message, secret.help).contains("secret@"));
    }

    #[test]
    fn a_missing_port_or_bracket_is_explained() {
        assert_eq!(origin_at("app").expect_err("no port").help, "add the port: \"app:80\"");
        assert!(origin_at("::1:80").expect_err("no brackets").help.contains("brackets"));
        assert!(origin_at("a b:80").is_err());
        assert!(origin_at("-a:80").is_err());
        assert!(origin_at("").is_err());
    }

    #[test]
    fn listeners_need_an_ip_address_and_a_port() {
        assert_eq!(listen("0.0.0.0:80"), Ok(SocketAddr::from(([0, 0, 0, 0], 80))));
        for (text, help) in [
            ("8080", "0.0.0.0:8080"),
            (":8080", "0.0.0.0:8080"),
            ("localhost:80", "127.0.0.1:80"),
            ("*:80", "0.0.0.0:80"),
            ("127.0.0.1", "127.0.0.1:8080"),
            ("x", "write an IP address"),
            ("[::ffff:127.0.0.1]:80", "127.0.0.1:80"),
            ("224.0.0.1:80", "0.0.0.0:80"),
            ("255.255.255.255:80", "0.0.0.0:80"),
            ("[ff02::1]:80", "[::]:80"),
        ] {
            let wrong = listen(text).expect_err(text);
            assert!(wrong.help.contains(help), "{text}: {}", wrong.help);
        }
        assert!(listen("127.0.0.1:0").is_ok());
        assert!(listen("127.0.0.1:65536").is_err());
    }

    #[test]
    fn a_wildcard_address_clashes_within_its_family_only() {
        let at = |text: &str| text.parse::<SocketAddr>().expect("an address");
        assert!(clash(at("0.0.0.0:80"), at("127.0.0.1:80")));
        assert!(clash(at("127.0.0.1:80"), at("127.0.0.1:80")));
        assert!(!clash(at("127.0.0.1:80"), at("127.0.0.2:80")));
        assert!(!clash(at("0.0.0.0:80"), at("0.0.0.0:81")));
        assert!(!clash(at("0.0.0.0:80"), at("[::]:80")));
        assert!(!clash(at("127.0.0.1:0"), at("127.0.0.1:0")), "the system chooses two ports");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn no_text_makes_it_panic(text in "[a-z0-9:/.\\[\\]*é -]{0,24}") {
            let _ = origin_at(&text);
            let _ = listen(&text);
        }
    }
}
