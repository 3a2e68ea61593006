use http::HeaderValue;
use proptest::prelude::*;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn trusted() -> Vec<IpNet> {
    ["10.0.0.0/8", "2001:db8:1::/48"].map(|network| network.parse().unwrap()).to_vec()
}

fn fields(lines: &[(&'static str, &str)]) -> HeaderMap {
    lines
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
        .collect()
}

fn found(peer: &str, lines: &[(&'static str, &str)]) -> Client {
    client(Some(ip(peer)), Scheme::Http, &trusted(), &fields(lines))
}

fn host() -> Authority {
    Authority::parse(b"example.org").unwrap()
}

/// What an origin is told, read out of the text.
struct Sent {
    x_forwarded_for: Option<String>,
    x_real_ip: Option<String>,
    x_forwarded_proto: &'static str,
    forwarded: String,
}

fn sent(client: &Client, host: &Authority) -> Sent {
    let said = client.say(host);
    let read = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut text = Vec::new();
        write(&mut text);
        String::from_utf8(text).unwrap()
    };
    Sent {
        x_forwarded_for: said.has_address().then(|| read(&|out| said.write_chain(out))),
        x_real_ip: said.has_address().then(|| read(&|out| said.write_address(out))),
        x_forwarded_proto: said.proto(),
        forwarded: read(&|out| said.write_forwarded(out)),
    }
}

#[test]
fn a_stranger_is_the_client_whatever_it_says() {
    let client = found(
        "192.0.2.9",
        &[
            ("x-forwarded-for", "1.1.1.1"),
            ("forwarded", "for=1.1.1.1;proto=https"),
            ("x-forwarded-proto", "https"),
        ],
    );
    assert_eq!(client.address, Some(ip("192.0.2.9")));
    assert_eq!((client.scheme, client.peer), (Scheme::Http, Trust::Untrusted));
    let sent = sent(&client, &host());
    assert_eq!(sent.x_forwarded_for.unwrap(), "192.0.2.9");
    assert_eq!(sent.x_real_ip.unwrap(), "192.0.2.9");
    assert_eq!(sent.x_forwarded_proto, "http");
    assert_eq!(sent.forwarded, "for=192.0.2.9;host=example.org;proto=http");
}

#[test]
fn a_trusted_proxy_names_the_client() {
    let client =
        found("10.0.0.1", &[("x-forwarded-for", "192.0.2.1"), ("x-forwarded-proto", "HTTPS")]);
    assert_eq!(client.address, Some(ip("192.0.2.1")));
    assert_eq!((client.scheme, client.peer), (Scheme::Https, Trust::Trusted));
    let sent = sent(&client, &host());
    assert_eq!(sent.x_forwarded_for.unwrap(), "192.0.2.1, 10.0.0.1");
    assert_eq!(sent.x_real_ip.unwrap(), "192.0.2.1");
    assert_eq!(sent.x_forwarded_proto, "https");
    assert_eq!(
        sent.forwarded,
        "for=192.0.2.1;host=example.org;proto=https, for=10.0.0.1;host=example.org;proto=http"
    );
}

#[test]
fn the_walk_ends_at_the_first_untrusted_address() {
    let lines =
        [("x-forwarded-for", "6.6.6.6, 192.0.2.1, 10.0.0.2"), ("x-forwarded-for", "10.0.0.3")];
    let client = found("10.0.0.1", &lines);
    assert_eq!(client.address, Some(ip("192.0.2.1")));
    let sent = sent(&client, &host());
    assert_eq!(sent.x_forwarded_for.unwrap(), "192.0.2.1, 10.0.0.2, 10.0.0.3, 10.0.0.1");
    assert_eq!(
        sent.forwarded,
        "for=192.0.2.1;host=example.org;proto=http, for=10.0.0.2, for=10.0.0.3, \
         for=10.0.0.1;host=example.org;proto=http"
    );
}

#[test]
fn when_all_are_trusted_the_outermost_is_the_client() {
    let client = found("10.0.0.1", &[("x-forwarded-for", "10.0.0.3, 10.0.0.2")]);
    assert_eq!(client.address, Some(ip("10.0.0.3")));
}

#[test]
fn malformed_entries_stop_the_walk() {
    for bad in
        ["unknown", "_hidden", "1.2.3", "1.2.3.4:x", "1.2.3.4:", "[::1", "::1%eth0", "é", "a b"]
    {
        let chain = format!("192.0.2.1, {bad}, 10.0.0.2");
        let client = found("10.0.0.1", &[("x-forwarded-for", &chain)]);
        assert_eq!(client.address, Some(ip("10.0.0.2")), "{bad}");
        assert_eq!(sent(&client, &host()).x_forwarded_for.unwrap(), "10.0.0.2, 10.0.0.1", "{bad}");
    }
}

#[test]
fn entries_may_have_ports_and_brackets() {
    for (entry, address) in [
        ("192.0.2.1:4711", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
    ] {
        let client = found("10.0.0.1", &[("x-forwarded-for", entry)]);
        assert_eq!(client.address, Some(ip(address)), "{entry}");
    }
}

#[test]
fn an_ipv4_peer_on_an_ipv6_socket_is_recognised() {
    let client = found("::ffff:10.0.0.1", &[("x-forwarded-for", "192.0.2.1")]);
    assert_eq!(client.address, Some(ip("192.0.2.1")));
}

#[test]
fn forwarded_is_read_where_x_forwarded_for_is_absent() {
    let chain = "for=6.6.6.6, For=\"[2001:db8::9]:47\";Proto=https;by=_x, for=10.0.0.2;proto=http";
    let client = found("10.0.0.1", &[("forwarded", chain)]);
    assert_eq!((client.address, client.scheme), (Some(ip("2001:db8::9")), Scheme::Https));
    let sent = sent(&client, &host());
    assert_eq!(sent.x_forwarded_for.unwrap(), "2001:db8::9, 10.0.0.2, 10.0.0.1");
    assert!(sent.forwarded.starts_with("for=\"[2001:db8::9]\";host="));

    let both = found("10.0.0.1", &[("forwarded", "for=1.1.1.1"), ("x-forwarded-for", "192.0.2.1")]);
    assert_eq!(both.address, Some(ip("192.0.2.1")));
}

#[test]
fn malformed_forwarded_elements_name_nobody() {
    for bad in [
        "for=unknown",
        "for=_x",
        "for=2001:db8::1",
        "for=1.1.1.1;for=1.1.1.2",
        "for=1.1.1.1;",
        "for = 1.1.1.1",
        "for",
        "by=1.1.1.1",
        "for=\"1.1.1.1",
    ] {
        let client = found("10.0.0.1", &[("forwarded", bad), ("x-forwarded-proto", "https")]);
        match bad {
            // An empty parameter is no fault.
            "for=1.1.1.1;" => assert_eq!(client.address, Some(ip("1.1.1.1"))),
            _ => assert_eq!(client.address, Some(ip("10.0.0.1")), "{bad}"),
        }
        assert_eq!(client.scheme, Scheme::Http);
    }
}

#[test]
fn the_scheme_is_the_one_beside_the_client() {
    let chain = ("x-forwarded-for", "6.6.6.6, 192.0.2.1, 10.0.0.2");
    let scheme = |proto| found("10.0.0.1", &[chain, ("x-forwarded-proto", proto)]).scheme;
    assert_eq!(scheme("http, https, http"), Scheme::Https);
    assert_eq!(scheme("https, http"), Scheme::Http);
    assert_eq!(scheme("https"), Scheme::Https);
    assert_eq!(scheme("wss"), Scheme::Http);
    assert_eq!(scheme(""), Scheme::Http);
    assert_eq!(found("10.0.0.1", &[("x-forwarded-proto", "https")]).scheme, Scheme::Https);
}

#[test]
fn a_peer_on_a_unix_socket_has_no_address() {
    let headers = fields(&[("x-forwarded-for", "192.0.2.1")]);
    let client = client(None, Scheme::Http, &trusted(), &headers);
    assert_eq!((client.address, client.peer), (None, Trust::Untrusted));
    let sent = sent(&client, &host());
    assert_eq!((sent.x_forwarded_for, sent.x_real_ip), (None, None));
    assert_eq!(sent.forwarded, "for=unknown;host=example.org;proto=http");
}

#[test]
fn a_host_with_a_port_is_quoted() {
    let client = found("2001:db8::5", &[]);
    let sent = sent(&client, &Authority::parse(b"[::1]:8080").unwrap());
    assert_eq!(sent.forwarded, "for=\"[2001:db8::5]\";host=\"[::1]:8080\";proto=http");
}

#[test]
fn a_chain_is_followed_for_32_hops() {
    let chain = |n: usize| format!("192.0.2.1{}", ", 10.0.0.9".repeat(n));
    let address = |n| found("10.0.0.1", &[("x-forwarded-for", &chain(n))]).address;
    assert_eq!(address(31), Some(ip("192.0.2.1")));
    assert_eq!(address(32), Some(ip("10.0.0.9")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_claims_have_an_answer_that_can_be_sent(
        chain in "[0-9a-f.:, \\[\\]\"=;forunkw_]{0,40}", which in 0..2_usize
    ) {
        let name = ["x-forwarded-for", "forwarded"][which];
        let client = found("10.0.0.1", &[(name, chain.as_str())]);
        let sent = sent(&client, &host());
        // What we send, the next hop reads the same way.
        let mut headers = HeaderMap::new();
        headers.insert(X_FORWARDED_FOR, sent.x_forwarded_for.unwrap().parse().unwrap());
        let mut networks = trusted();
        networks.push("127.0.0.1/32".parse().unwrap());
        let next = super::client(Some(ip("127.0.0.1")), Scheme::Http, &networks, &headers);
        prop_assert_eq!(next.address, client.address);
        let headers = HeaderMap::from_iter([(header::FORWARDED, sent.forwarded.parse().unwrap())]);
        let next = super::client(Some(ip("127.0.0.1")), Scheme::Http, &networks, &headers);
        prop_assert_eq!(next.address, client.address);
    }

    #[test]
    fn a_stranger_never_moves_its_address(chain in "[ -~]{0,30}") {
        let client = found("192.0.2.9", &[("x-forwarded-for", chain.as_str())]);
        prop_assert_eq!(client.address, Some(ip("192.0.2.9")));
    }

    #[test]
    fn addresses_are_written_as_they_display(v4 in any::<[u8; 4]>(), v6 in any::<[u8; 16]>()) {
        let mapped = std::net::Ipv4Addr::from(v4).to_ipv6_mapped();
        for address in [IpAddr::from(v4), IpAddr::from(v6), IpAddr::from(mapped)] {
            let written = Address::of(address);
            let written = std::str::from_utf8(written.text()).unwrap();
            prop_assert_eq!(written, &address.to_string());
        }
    }

    #[test]
    fn a_host_is_quoted_where_it_is_no_token(text in "[a-z0-9_.-]{1,12}(:[1-9]{1,4})?|\\[[0-9a-f:]{2,12}\\](:80)?") {
        if let Ok(host) = Authority::parse(text.as_bytes()) {
            let forwarded = sent(&found("192.0.2.9", &[]), &host).forwarded;
            let quote = if list::is_token(host.as_str().as_bytes()) { "" } else { "\"" };
            prop_assert_eq!(forwarded, format!("for=192.0.2.9;host={quote}{host}{quote};proto=http"));
        }
    }
}
