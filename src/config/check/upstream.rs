//! Checks `upstreams`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path as FilePath;
use std::time::Duration;

use http::uri::Authority;

use crate::config::check::DAY;
use crate::config::check::address;
use crate::config::check::file;
use crate::config::check::period;
use crate::config::check::within;
use crate::config::path::Path;
use crate::config::report::Report;
use crate::config::schema;
use crate::config::schema::route::Route;
use crate::upstream::Address;
use crate::upstream::OriginTls;
use crate::upstream::Place;
use crate::upstream::Protocol;
use crate::upstream::Settings;
use crate::upstream::Timeouts;

/// The upstreams, in the order of their names: a route's index counts in this order.
pub(super) fn upstreams(
    config: &schema::Config,
    folder: &FilePath,
    at: &Path,
    report: &mut Report<'_>,
) -> Vec<Settings> {
    for name in config.upstreams.keys() {
        let at = at.key(name.as_str());
        if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control()) {
            report
                .error_in_key(&at, format!("\"{name}\" is no name for an upstream"))
                .help("write it without spaces: it stands in logs and metrics");
        }
        let is_used = |route: &Route| route.upstream.as_ref() == Some(name);
        let routes = Path::root().key("routes");
        if !config.routes.iter().any(is_used) && !report.is_broken(&routes) {
            report
                .warning_about_key(&at, format!("no route uses the upstream \"{name}\""))
                .help(format!("add a route with `upstream: {name}`, or remove it"));
        }
    }
    let one = |(name, written): (&String, &schema::upstream::Upstream)| {
        one(name, written, folder, &at.key(name.as_str()), report)
    };
    config.upstreams.iter().map(one).collect()
}

fn one(
    name: &str,
    written: &schema::upstream::Upstream,
    folder: &FilePath,
    at: &Path,
    report: &mut Report<'_>,
) -> Settings {
    if written.addresses.is_empty() && !report.is_broken(at) {
        report
            .error(&at.key("addresses"), "the upstream has no address")
            .help("write one: `addresses: [\"10.0.0.1:8080\"]`");
    }
    let addresses = addresses(&written.addresses, folder, &at.key("addresses"), report);
    let tls = written.tls.as_ref().map(|tls| self::tls(tls, folder, &at.key("tls"), report));
    if let Some(tls) = &tls {
        for (n, address) in &addresses {
            let problem = match address.at {
                Place::Tcp { .. } => continue,
                Place::Demo => "the demo origin speaks plain text",
                Place::Unix(_) if tls.server_name.is_some() || !tls.verify => continue,
                Place::Unix(_) => "TLS over a socket needs `tls.server_name`",
            };
            report.error(&at.key("addresses").index(*n), problem);
        }
    }
    Settings {
        name: name.into(),
        active: written.active,
        addresses: addresses.into_iter().map(|(_, address)| address).collect(),
        tls,
        protocol: match written.protocol {
            schema::upstream::Protocol::Http1 => Protocol::Http1,
            schema::upstream::Protocol::Http2 => Protocol::Http2,
        },
        host: host(&written.host, &at.key("host"), report),
        timeouts: timeouts(&written.timeouts, &at.key("timeouts"), report),
        resolve_every: period(
            report,
            &at.key("resolve_every"),
            written.resolve_every,
            Duration::from_secs(1),
            DAY,
        ),
    }
}

/// The addresses that are clear, each with its position in the list.
fn addresses(
    written: &[schema::upstream::Address],
    folder: &FilePath,
    at: &Path,
    report: &mut Report<'_>,
) -> Vec<(usize, Address)> {
    let mut addresses = Vec::with_capacity(written.len());
    let mut first: HashMap<Place, usize> = HashMap::new();
    for (n, schema::upstream::Address { address, weight }) in written.iter().enumerate() {
        let at = at.index(n);
        if address.is_empty() && report.is_broken(&at) {
            continue;
        }
        within(report, &at.key("weight"), *weight, 1, 1000);
        match address::origin(address, folder) {
            Ok(place) => {
                if let Some(m) = first.get(&place) {
                    report
                        .warning(&at, format!("addresses[{m}] is the same"))
                        .help("for a larger share write a weight: `{address: …, weight: 2}`");
                } else {
                    first.insert(place.clone(), n);
                }
                addresses.push((n, Address { at: place, weight: *weight }));
            }
            Err(wrong) => {
                report.error(&at, wrong.message).help(wrong.help);
            }
        }
    }
    addresses
}

fn tls(
    written: &schema::upstream::OriginTls,
    folder: &FilePath,
    at: &Path,
    report: &mut Report<'_>,
) -> OriginTls {
    if !written.verify {
        report
            .warning(&at.key("verify"), "the origin's certificate is not checked")
            .help("anybody on the way can answer for it; `ca` trusts a private authority instead");
        if written.ca.is_some() {
            report.error_in_key(&at.key("ca"), "`ca` has no effect with `verify: false`");
        }
    }
    if let Some(name) = &written.server_name
        && !address::is_host(name)
        && name.parse::<IpAddr>().is_err()
    {
        report
            .error(&at.key("server_name"), format!("\"{name}\" is not the name of a host"))
            .help("without scheme and port: `server_name: origin.example.org`");
    }
    let ca = written.ca.as_ref().map(|path| file(report, &at.key("ca"), folder, path));
    OriginTls { server_name: written.server_name.clone(), ca, verify: written.verify }
}

fn host(written: &str, at: &Path, report: &mut Report<'_>) -> Option<std::sync::Arc<str>> {
    if written == "pass" {
        return None;
    }
    let is_authority = written.parse::<Authority>().is_ok() && !written.contains('@');
    if !is_authority {
        report
            .error(at, format!("\"{written}\" is not a Host"))
            .help("write `pass`, or a name with or without a port: `origin.example.org`");
    }
    Some(written.into())
}

fn timeouts(written: &schema::upstream::Timeouts, at: &Path, report: &mut Report<'_>) -> Timeouts {
    let moment = Duration::from_millis(1);
    let mut time = |key: &str, value| period(report, &at.key(key), value, moment, DAY);
    Timeouts {
        connect: time("connect", written.connect),
        read: time("read", written.read),
        write: time("write", written.write),
        idle: time("idle", written.idle),
    }
}
