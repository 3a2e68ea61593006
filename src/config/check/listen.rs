//! Checks `listeners`, `limits` and `trusted_proxies`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path as FilePath;
use std::time::Duration;

use ipnet::IpNet;

use crate::config::check::DAY;
use crate::config::check::acme;
use crate::config::check::address;
use crate::config::check::file;
use crate::config::check::insist;
use crate::config::check::matching::HOST;
use crate::config::check::period;
use crate::config::check::route;
use crate::config::check::size;
use crate::config::check::within;
use crate::config::path::Path;
use crate::config::report::Report;
use crate::config::schema;
use crate::config::schema::listen::ClientAuth;
use crate::config::schema::listen::ClientCertificate;
use crate::config::schema::listen::DefaultCertificate;
use crate::config::schema::listen::ProxyProtocolOthers;
use crate::config::schema::listen::Tickets;
use crate::config::schema::listen::TlsVersion;
use crate::config::schema::value::Switch;
use crate::listen::Limits;
use crate::listen::Settings;
use crate::listen::proxied;
use crate::route::host::HostPattern;
use crate::tls;

/// The listeners; `None` for one whose address is not clear.
pub(super) fn listeners(
    written: &[schema::listen::Listener],
    orders: &acme::Source,
    folder: &FilePath,
    at: &Path,
    report: &mut Report<'_>,
) -> Vec<Option<Settings>> {
    if written.is_empty() && !report.is_broken(at) {
        report
            .error(at, "there is no listener")
            .help("write one: `listeners: [{address: \"0.0.0.0:8080\"}]`");
    }
    let mut checked: Vec<Option<Settings>> = Vec::with_capacity(written.len());
    let mut names: HashMap<&str, usize> = HashMap::new();
    for (n, listener) in written.iter().enumerate() {
        let at = at.index(n);
        let settings = one(listener, orders, folder, &at, report);
        let name = listener.name.as_deref().unwrap_or(&listener.address);
        if let Some(m) = names.insert(name, n)
            && listener.name.is_some()
        {
            report
                .error(&at.key("name"), format!("listeners[{m}] has this name already"))
                .help("choose another name: names tell listeners apart in logs and metrics");
        }
        if let Some(settings) = &settings {
            for (m, earlier) in checked.iter().enumerate() {
                let Some(earlier) = earlier else { continue };
                if address::clash(earlier.address, settings.address) {
                    let message = format!("listeners[{m}] listens on {} already", earlier.address);
                    report
                        .error(&at.key("address"), message)
                        .help("give one of them another port, or remove one");
                }
            }
        }
        checked.push(settings);
    }
    checked
}

fn one(
    written: &schema::listen::Listener,
    orders: &acme::Source,
    folder: &FilePath,
    at: &Path,
    report: &mut Report<'_>,
) -> Option<Settings> {
    let tls =
        written.tls.as_ref().map(|tls| self::tls(tls, orders, folder, &at.key("tls"), report));
    if tls.is_some() && written.h2c {
        report
            .error(&at.key("h2c"), "h2c is HTTP/2 over plain text; this listener speaks TLS")
            .help("remove h2c: `tls.http2` offers HTTP/2 here");
    }
    if written.name.as_ref().is_some_and(|name| name.trim().is_empty()) {
        report.error(&at.key("name"), "the name is empty").help("write one, or remove the key");
    }
    if written.name.as_ref().is_some_and(|name| name.contains(char::is_control)) {
        route::one_line(&at.key("name"), report);
    }
    let proxied = (written.proxy_protocol.as_ref())
        .map(|written| proxied(written, &at.key("proxy_protocol"), report));
    let insists = insist::insistence(written, at, report);
    let listener = at;
    let at = at.key("address");
    if written.address.is_empty() {
        if !report.has_lost(listener, &["address"]) {
            report
                .error(&at, "the listener has no address")
                .help("write an IP address and a port: `address: \"0.0.0.0:8080\"`");
        }
        return None;
    }
    match address::listen(&written.address) {
        Ok(address) => Some(Settings {
            name: written.name.as_ref().unwrap_or(&written.address).as_str().into(),
            address,
            proxied,
            tls,
            h2c: written.h2c,
            insists,
        }),
        Err(wrong) => {
            report.error(&at, wrong.message).help(wrong.help);
            None
        }
    }
}

fn proxied(
    written: &schema::listen::ProxyProtocol,
    at: &Path,
    report: &mut Report<'_>,
) -> proxied::Settings {
    let at_from = at.key("from");
    if written.from.is_empty() && !report.is_broken(at) {
        report
            .error(&at_from, "no proxy is trusted to say who its connections are from")
            .help("name your load balancers: `proxy_protocol: {from: [10.0.0.0/8]}`");
    }
    proxied::Settings {
        from: trusted(&written.from, &at_from, report),
        others: match written.others {
            ProxyProtocolOthers::Refuse => proxied::Others::Refuse,
            ProxyProtocolOthers::Serve => proxied::Others::Serve,
        },
    }
}

fn tls(
    written: &schema::listen::ListenerTls,
    orders: &acme::Source,
    folder: &FilePath,
    at: &Path,
    report: &mut Report<'_>,
) -> tls::Settings {
    let list = at.key("certificates");
    let outer = tls::Manner {
        min_version: version(written.min_version),
        http2: written.http2,
        clients: client_auth(&written.client_auth, folder, &at.key("client_auth"), report),
    };
    if written.certificates.is_empty()
        && !written.auto
        && !report.has_lost(at, &["certificates", "auto"])
    {
        report
            .error(&list, "TLS needs at least one certificate")
            .help("by ACME: `tls: auto`; for trying out: `certificates: [{hosts: [localhost], internal: true}]`");
    }
    let mut first: HashMap<String, usize> = HashMap::new();
    let mut certificates = Vec::with_capacity(written.certificates.len());
    for (n, certificate) in written.certificates.iter().enumerate() {
        let at = list.index(n);
        if certificate.hosts.is_empty() && !report.has_lost(&at, &["hosts"]) {
            report
                .error(&at.key("hosts"), "the certificate is for no host")
                .help("name its hosts: `hosts: [www.example.org, \"*.example.org\"]`");
        }
        let hosts = hosts(&certificate.hosts, &at.key("hosts"), report);
        for (h, host) in hosts.iter().enumerate() {
            if let Some(m) = first.insert(host.clone(), n)
                && m != n
            {
                first.insert(host.clone(), m);
                report
                    .warning(
                        &at.key("hosts").index(h),
                        format!("certificates[{m}] is for \"{host}\" already; that one is shown"),
                    )
                    .help("remove the host from one of them");
            }
        }
        let manner = tls::Manner {
            min_version: certificate.min_version.map_or(outer.min_version, version),
            http2: certificate.http2.unwrap_or(outer.http2),
            clients: match &certificate.client_auth {
                Some(clients) => client_auth(clients, folder, &at.key("client_auth"), report),
                None => outer.clients.clone(),
            },
        };
        if let Some(source) = source(certificate, orders, folder, &at, report) {
            certificates.push(tls::Certificate { hosts, source, manner });
        }
    }
    if written.auto {
        certificates.extend(automatic(&certificates, &outer, orders, at, report));
    }
    tls::Settings {
        default: match written.default {
            DefaultCertificate::First => (!certificates.is_empty()).then_some(0),
            DefaultCertificate::Refuse => None,
        },
        certificates,
        manner: outer,
        resumption: match &written.tickets {
            Switch::Off => tls::Resumption::Off,
            Switch::On(Tickets { file: None }) => tls::Resumption::Own,
            Switch::On(Tickets { file: Some(path) }) => {
                let at = at.key("tickets").key("file");
                tls::Resumption::Shared(file(report, &at, folder, path))
            }
        },
    }
}

fn version(written: TlsVersion) -> tls::Version {
    match written {
        TlsVersion::Tls12 => tls::Version::Tls12,
        TlsVersion::Tls13 => tls::Version::Tls13,
    }
}

/// Whose certificates clients show.
fn client_auth(
    written: &Switch<ClientAuth>,
    folder: &FilePath,
    at: &Path,
    report: &mut Report<'_>,
) -> tls::ClientAuth {
    let Switch::On(clients) = written else { return tls::ClientAuth::Off };
    let Some(ca) = &clients.ca else {
        if !report.has_lost(at, &["ca"]) {
            report
                .error(at, "it is not said whose certificates are believed")
                .help("name the file with the authorities of your clients: `client_auth: {ca: clients.pem}`");
        }
        return tls::ClientAuth::Off;
    };
    let lists = clients.crl.iter().enumerate();
    tls::ClientAuth::On(tls::Clients {
        need: match clients.mode {
            ClientCertificate::Required => tls::Need::Required,
            ClientCertificate::Optional => tls::Need::Optional,
        },
        authorities: file(report, &at.key("ca"), folder, ca),
        revoked: lists
            .map(|(n, list)| file(report, &at.key("crl").index(n), folder, list))
            .collect(),
    })
}

/// A certificate for each host that routes name and none of these is for: one each, so that what is wrong
/// with one host is that host's matter.
fn automatic(
    listed: &[tls::Certificate],
    manner: &tls::Manner,
    orders: &acme::Source,
    at: &Path,
    report: &mut Report<'_>,
) -> Vec<tls::Certificate> {
    let at = if report.has(&at.key("auto")) { at.key("auto") } else { at.clone() };
    let is_listed = |host: &str| {
        let parent = host.split_once('.').map(|(_, parent)| format!("*.{parent}"));
        let mut all = listed.iter().flat_map(|one| &one.hosts);
        all.any(|one| one == host || !host.starts_with("*.") && Some(one) == parent.as_ref())
    };
    if orders.named.is_empty() {
        report
            .error(&at, "no route names a host, so there is nothing to order a certificate for")
            .help(
                "name hosts in routes: `match: {hosts: [www.example.org]}`, or list certificates",
            );
    }
    let mut certificates = Vec::new();
    for host in orders.named.iter().filter(|host| !is_listed(host)) {
        let source = if acme::is_private(host) {
            tls::Source::Internal
        } else {
            if let Some((message, help)) = acme::obstacle(host, orders.proof) {
                report.error(&at, message).help(help);
                continue;
            }
            orders.certificate()
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let manner = manner.clone();
        certificates.push(tls::Certificate { hosts: vec![host], source, manner });
    }
    certificates
}

fn hosts(written: &[String], at: &Path, report: &mut Report<'_>) -> Vec<String> {
    let mut hosts = Vec::with_capacity(written.len());
    for (n, host) in written.iter().enumerate() {
        let is_address = host.parse::<IpAddr>().is_ok();
        if is_address || report.take(&at.index(n), HostPattern::parse(host), HOST).is_some() {
            hosts.push(host.to_ascii_lowercase());
        }
    }
    hosts
}

fn source(
    written: &schema::listen::Certificate,
    orders: &acme::Source,
    folder: &FilePath,
    at: &Path,
    report: &mut Report<'_>,
) -> Option<tls::Source> {
    let help = "one of `acme: true`, `internal: true`, or both `certificate` and `key`";
    if written.acme {
        return ordered(written, orders, at, report);
    }
    let lone = match (&written.certificate, &written.key) {
        (Some(certificate), Some(key)) if !written.internal => {
            return Some(tls::Source::Files {
                certificate: file(report, &at.key("certificate"), folder, certificate),
                key: file(report, &at.key("key"), folder, key),
            });
        }
        (None, None) if written.internal => return Some(tls::Source::Internal),
        _ if report.has_lost(at, &["acme", "internal", "certificate", "key"]) => return None,
        (None, None) => {
            report.error(at, "the certificate comes from nowhere").help(help);
            return None;
        }
        (Some(_), Some(_)) => &["certificate", "key"][..],
        (Some(_), None) => &["certificate"],
        (None, Some(_)) => &["key"],
    };
    for key in lone {
        let message = match (written.internal, *key) {
            (true, _) => "an internal certificate has no files",
            (false, "key") => "the certificate is missing",
            (false, _) => "the private key is missing",
        };
        report.error_in_key(&at.key(*key), message).help(help);
    }
    None
}

/// The source of a certificate that an ACME server issues.
fn ordered(
    written: &schema::listen::Certificate,
    orders: &acme::Source,
    at: &Path,
    report: &mut Report<'_>,
) -> Option<tls::Source> {
    let others = [
        ("internal", written.internal),
        ("certificate", written.certificate.is_some()),
        ("key", written.key.is_some()),
    ];
    for (key, _) in others.iter().filter(|(_, is_there)| *is_there) {
        report
            .error_in_key(&at.key(*key), "a certificate comes from one place, and this one by ACME")
            .help("remove this key, or `acme`");
    }
    for (n, host) in written.hosts.iter().enumerate() {
        if let Some((message, help)) = acme::obstacle(&host.to_ascii_lowercase(), orders.proof) {
            report.error(&at.key("hosts").index(n), message).help(help);
        }
    }
    Some(orders.certificate())
}

/// The limits of connections.
pub(super) fn limits(config: &schema::Config, root: &Path, report: &mut Report<'_>) -> Limits {
    let written = &config.limits;
    let at = root.key("limits");
    let moment = Duration::from_millis(1);
    let hour = Duration::from_secs(3600);
    let at_key = |key: &str| at.key(key);
    within(report, &at_key("connections"), written.connections, 1, 10_000_000);
    within(
        report,
        &at_key("connections_per_client"),
        written.connections_per_client,
        1,
        10_000_000,
    );
    within(
        report,
        &at_key("requests_per_connection"),
        written.requests_per_connection,
        1,
        u32::MAX,
    );
    within(report, &at_key("handshakes"), written.handshakes, 1, 10_000_000);
    within(report, &at_key("header_fields"), written.header_fields, 1, 1000);
    within(report, &at_key("h2_streams"), written.h2_streams, 1, 10_000);
    within(report, &at_key("h2_streams_in_all"), written.h2_streams_in_all, 1, 100_000_000);
    within(report, &at_key("h2_streams_per_client"), written.h2_streams_per_client, 1, 100_000_000);
    if written.h2_streams_per_client > written.h2_streams_in_all {
        report
            .warning(
                &at_key("h2_streams_per_client"),
                "one client may have more streams than there are in all",
            )
            .help("lower it, so that no client can shut the others out");
    }
    if u64::from(written.h2_streams) > written.h2_streams_per_client {
        report
            .warning(
                &at_key("h2_streams"),
                "one connection is promised more streams than its client may have",
            )
            .help(format!("h2_streams_per_client is {}", written.h2_streams_per_client));
    }
    if written.connections > 0 && written.connections_per_client > written.connections {
        report
            .warning(
                &at_key("connections_per_client"),
                "one client may have more connections than there are in all",
            )
            .help("lower it, so that no client can shut the others out");
    }
    let header_bytes =
        size(report, &at_key("header_bytes"), written.header_bytes, 1 << 10, 1 << 20);
    let target_bytes = size(report, &at_key("target_bytes"), written.target_bytes, 64, 1 << 20);
    if target_bytes > header_bytes {
        report
            .error(&at_key("target_bytes"), "the target is part of the header and cannot be larger")
            .help(format!("header_bytes is {}", written.header_bytes));
    }
    Limits {
        connections: written.connections,
        connections_per_client: written.connections_per_client,
        handshakes: written.handshakes,
        header_timeout: period(
            report,
            &at_key("header_timeout"),
            written.header_timeout,
            moment,
            hour,
        ),
        handshake_timeout: period(
            report,
            &at_key("handshake_timeout"),
            written.handshake_timeout,
            moment,
            hour,
        ),
        idle_timeout: period(report, &at_key("idle_timeout"), written.idle_timeout, moment, DAY),
        min_body_rate: size(report, &at_key("min_body_rate"), written.min_body_rate, 0, 1 << 30),
        min_send_rate: size(report, &at_key("min_send_rate"), written.min_send_rate, 0, 1 << 30),
        rate_window: period(
            report,
            &at_key("rate_window"),
            written.rate_window,
            Duration::from_secs(1),
            hour,
        ),
        requests_per_connection: written.requests_per_connection,
        header_bytes: usize::try_from(header_bytes).unwrap_or(usize::MAX),
        header_fields: usize::try_from(written.header_fields).unwrap_or(usize::MAX),
        target_bytes: usize::try_from(target_bytes).unwrap_or(usize::MAX),
        h2_streams: written.h2_streams,
        h2_streams_in_all: written.h2_streams_in_all,
        h2_streams_per_client: written.h2_streams_per_client,
        trusted_proxies: trusted(&config.trusted_proxies, &root.key("trusted_proxies"), report),
    }
}

fn trusted(written: &[String], at: &Path, report: &mut Report<'_>) -> Vec<IpNet> {
    let networks = networks(written, at, report);
    for (n, network) in &networks {
        if network.prefix_len() == 0 {
            report
                .warning(
                    &at.index(*n),
                    "everybody may forge their address: this trusts every client",
                )
                .help("name only the networks of your own proxies");
        }
    }
    networks.into_iter().map(|(_, network)| network).collect()
}

/// Networks and addresses, each with its place in the list.
pub(super) fn networks(
    written: &[String],
    at: &Path,
    report: &mut Report<'_>,
) -> Vec<(usize, IpNet)> {
    let mut networks = Vec::with_capacity(written.len());
    for (n, text) in written.iter().enumerate() {
        let at = at.index(n);
        let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        let Ok(network) = network else {
            report
                .error(&at, format!("\"{text}\" is neither a network nor an address"))
                .help("write \"10.0.0.0/8\", \"2001:db8::/32\" or \"192.0.2.7\"");
            continue;
        };
        if network.prefix_len() > 0 && network.trunc() != network {
            report
                .warning(&at, format!("{network} has bits beyond its prefix"))
                .help(format!("the network is {}", network.trunc()));
        }
        networks.push((n, network.trunc()));
    }
    networks
}
