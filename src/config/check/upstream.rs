//! Checks `upstreams`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path as FilePath;
use std::time::Duration;

use http::uri::Authority;

use crate::balance::Algorithm;
use crate::config::check::DAY;
use crate::config::check::address;
use crate::config::check::file;
use crate::config::check::header;
use crate::config::check::health;
use crate::config::check::moot;
use crate::config::check::names;
use crate::config::check::names::Srv;
use crate::config::check::period;
use crate::config::check::resilience;
use crate::config::check::secret;
use crate::config::check::secret::Files;
use crate::config::check::unwritten;
use crate::config::check::uses;
use crate::config::check::uses::Uses;
use crate::config::check::within;
use crate::config::path::Path;
use crate::config::report::Report;
use crate::config::schema;
use crate::message::secret::Token;
use crate::message::target::Scheme;
use crate::upstream::Backend;
use crate::upstream::Balance;
use crate::upstream::HashBy;
use crate::upstream::OriginTls;
use crate::upstream::Place;
use crate::upstream::Protocol;
use crate::upstream::Settings;
use crate::upstream::Shown;
use crate::upstream::Sticky;
use crate::upstream::Timeouts;
use crate::upstream::WEIGHTS;
use crate::upstream::introduce::ProxyProtocol;
use crate::upstream::pins::Pin;
use crate::upstream::pool;

/// The most bytes of a backend's id: as many as of a host's name.
const LONGEST_ID: usize = 255;

/// The fewest bytes of the key of a sticky cookie.
const SHORTEST_KEY: usize = 16;

/// The upstreams, in the order of their names: a route's index counts in this order.
pub(super) fn upstreams(
    config: &schema::Config,
    files: Files<'_>,
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
        let routes = Path::root().key("routes");
        if !uses::of(name, config).any && !report.is_broken(&routes) {
            report
                .warning_about_key(&at, format!("no route uses the upstream \"{name}\""))
                .help(format!("add a route with `upstream: {name}`, or remove it"));
        }
    }
    let one = |(name, written): (&String, &schema::upstream::Upstream)| {
        one(name, written, uses::of(name, config), files, &at.key(name.as_str()), report)
    };
    config.upstreams.iter().map(one).collect()
}

fn one(
    name: &str,
    written: &schema::upstream::Upstream,
    uses: Uses,
    files: Files<'_>,
    at: &Path,
    report: &mut Report<'_>,
) -> Settings {
    let folder = files.folder;
    if written.addresses.is_empty() && !report.has_lost(at, &["addresses"]) {
        report
            .error(&at.key("addresses"), "the upstream has no address")
            .help("write one: `addresses: [\"10.0.0.1:8080\"]`");
    }
    let tls = written.tls.as_ref().map(|tls| self::tls(tls, folder, &at.key("tls"), report));
    let backends = backends(&written.addresses, tls.as_ref(), folder, &at.key("addresses"), report);
    if !backends.is_empty() && backends.iter().all(|backend| backend.backup) {
        report
            .warning(&at.key("addresses"), "all backends are backups")
            .help("they serve while no other can; without others that is always");
    }
    if let [only] = backends.as_slice()
        && !only.at.is_name()
        && written.ejection.as_ref().is_some()
    {
        report
            .warning(&at.key("ejection"), "the only backend is never ejected")
            .help("it takes others that fail less; a `breaker` looks at one alone");
    } else if let Some(ejection) = written.ejection.as_ref() {
        comparison(ejection, &backends, &at.key("ejection"), report);
    }
    let servers = &written.resolvers;
    let resolvers = names::resolvers(servers, &backends, Srv::here(), &at.key("resolvers"), report);
    let threshold = written.panic_threshold;
    within(report, &at.key("panic_threshold"), threshold, 0, 100);
    if threshold > 0 && written.health.as_ref().is_none() && written.ejection.as_ref().is_none() {
        report
            .error_in_key(&at.key("panic_threshold"), "nothing says that a backend is not well")
            .help("switch `health` or `ejection` on, or remove it");
    }
    let is_set = written.resolve_every != schema::upstream::Upstream::default().resolve_every;
    if is_set && !backends.is_empty() && !backends.iter().any(|backend| backend.at.is_name()) {
        report
            .warning_about_key(&at.key("resolve_every"), "none of the addresses is a name")
            .help("remove it; it counts again when a backend that is a name is added at run time");
    }
    Settings {
        name: name.into(),
        active: written.active,
        backends,
        tls,
        balance: balance(written, at, report),
        sticky: written
            .sticky
            .as_ref()
            .map(|sticky| self::sticky(sticky, files, &at.key("sticky"), report)),
        concurrency: written
            .concurrency
            .as_ref()
            .map(|limit| resilience::concurrency(limit, &at.key("concurrency"), report)),
        panic_threshold: threshold,
        slow_start: written.slow_start.get().map_or(Duration::ZERO, |time| {
            let moment = Duration::from_millis(1);
            period(report, &at.key("slow_start"), time, moment, DAY)
        }),
        protocol: match written.protocol {
            schema::upstream::Protocol::Http1 => Protocol::Http1,
            schema::upstream::Protocol::Http2 => Protocol::Http2,
        },
        proxy_protocol: proxy_protocol(written, at, report),
        host: host(&written.host, &at.key("host"), report),
        timeouts: timeouts(written, uses, &at.key("timeouts"), report),
        resolvers,
        resolve_every: period(
            report,
            &at.key("resolve_every"),
            written.resolve_every,
            Duration::from_secs(1),
            DAY,
        ),
        breaker: written
            .breaker
            .as_ref()
            .map(|breaker| resilience::breaker(breaker, &at.key("breaker"), report)),
        retry: resilience::retry(written, uses, &at.key("retry"), report),
        health: written.health.as_ref().map(|written_health| {
            let at = at.key("health");
            health::health(written_health, written.protocol, &at, files, report)
        }),
        ejection: written
            .ejection
            .as_ref()
            .map(|ejection| health::ejection(ejection, &at.key("ejection"), report)),
        pool: pool(written, &at.key("pool"), report),
    }
}

/// Whether rates of success, where nothing else ejects, can be compared among so few. Names may stand for several.
fn comparison(
    ejection: &schema::health::Ejection,
    backends: &[Backend],
    at: &Path,
    report: &mut Report<'_>,
) {
    let compares = ejection.consecutive.get().is_none() && ejection.deviations.get().is_some();
    let is_fixed = !backends.is_empty() && !backends.iter().any(|backend| backend.at.is_name());
    let there_are = u32::try_from(backends.len()).unwrap_or(u32::MAX);
    let needed = ejection.min_backends;
    if compares && is_fixed && there_are < needed {
        report
            .warning(
                &at.key("min_backends"),
                format!("none of {there_are} backends is ever ejected: they are compared from {needed} on"),
            )
            .help("write `min_backends` with less, or a number for `consecutive`");
    }
}

/// How a client comes to the same backend again.
fn sticky(
    written: &schema::upstream::Sticky,
    files: Files<'_>,
    at: &Path,
    report: &mut Report<'_>,
) -> Sticky {
    // A token (RFC 6265 §4.1.1).
    let name = &written.cookie;
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.bytes().all(is_token) {
        report
            .error(&at.key("cookie"), format!("\"{name}\" is no name for a cookie"))
            .help("letters, digits, - and _");
    }
    let moment = Duration::from_secs(1);
    let max_age =
        written.max_age.get().map(|age| period(report, &at.key("max_age"), age, moment, 400 * DAY));
    Sticky { cookie: name.clone(), max_age, key: sticky_key(written, files, at, report) }
}

/// By what backends are numbered in the cookie.
fn sticky_key(
    written: &schema::upstream::Sticky,
    files: Files<'_>,
    at: &Path,
    report: &mut Report<'_>,
) -> Option<Token> {
    let (key, path) = (written.key.as_ref(), written.key_file.as_deref());
    let secret = secret::either(("key", key), path, at, files, report)?;
    let text = secret.reveal().trim();
    // Where files are not looked at, something stands for what they hold.
    let is_known = key.is_some() || files.read.is_some();
    if is_known && text.len() < SHORTEST_KEY {
        let at = at.key(if key.is_some() { "key" } else { "key_file" });
        report
            .error(&at, format!("a key of less than {SHORTEST_KEY} bytes can be guessed"))
            .help("write a longer one by chance, such as `openssl rand -hex 32` makes");
    }
    Some(Token::new(text))
}

/// How connections say for whom they speak.
fn proxy_protocol(
    written: &schema::upstream::Upstream,
    at: &Path,
    report: &mut Report<'_>,
) -> Option<ProxyProtocol> {
    let version = match written.proxy_protocol {
        schema::upstream::ProxyProtocol::Off => return None,
        schema::upstream::ProxyProtocol::V1 => ProxyProtocol::V1,
        schema::upstream::ProxyProtocol::V2 => ProxyProtocol::V2,
    };
    if written.protocol == schema::upstream::Protocol::Http2 {
        report
            .error_in_key(
                &at.key("proxy_protocol"),
                "a connection of HTTP/2 carries requests of many clients, and can speak for one only",
            )
            .help("remove `protocol: http2`, or this: `X-Forwarded-For` says who the client is");
    }
    if written.pool.warm > 0 {
        report
            .error_in_key(
                &at.key("pool").key("warm"),
                "with `proxy_protocol` nobody knows yet for whom a connection will speak",
            )
            .help("remove `warm`");
    }
    Some(version)
}

/// How connections are kept.
fn pool(
    upstream: &schema::upstream::Upstream,
    at: &Path,
    report: &mut Report<'_>,
) -> pool::Settings {
    let written = &upstream.pool;
    within(report, &at.key("max_connections"), written.max_connections, 1, 100_000);
    within(report, &at.key("queue"), written.queue, 0, 1_000_000);
    if let Some(most) = written.max_requests.get() {
        within(report, &at.key("max_requests"), most, 1, 1_000_000_000);
    }
    if let Some(most) = written.max_uploads {
        within(report, &at.key("max_uploads"), most, 1, written.max_connections.max(1));
    }
    if written.warm > written.max_connections {
        report
            .error(&at.key("warm"), "more than `max_connections`")
            .help("what is kept ready counts among the connections");
    }
    let queue_timeout = at.key("queue_timeout");
    let is_set = report.has(&queue_timeout);
    if written.queue == 0 && is_set {
        report
            .error_in_key(&queue_timeout, "nobody waits where `queue` is 0")
            .help("remove it, or let some requests wait");
    } else if written.queue_timeout > upstream.timeouts.total && is_set {
        report
            .error(&queue_timeout, "it is longer than `timeouts.total`")
            .help("nobody waits longer than for the answer; make it shorter, or `total` longer");
    }
    let moment = Duration::from_millis(1);
    pool::Settings {
        max_connections: written.max_connections,
        uploads: unwritten::uploads(upstream),
        queue: written.queue,
        queue_timeout: period(report, &queue_timeout, written.queue_timeout, moment, DAY)
            .min(upstream.timeouts.total.0),
        idle: upstream.timeouts.idle.0,
        max_age: written
            .max_age
            .get()
            .map(|age| period(report, &at.key("max_age"), age, Duration::from_secs(1), DAY)),
        max_requests: written.max_requests.get(),
        min_idle: written.warm,
    }
}

/// How a backend is chosen.
fn balance(written: &schema::upstream::Upstream, at: &Path, report: &mut Report<'_>) -> Balance {
    let algorithm = match written.balance {
        schema::upstream::Balance::RoundRobin => Algorithm::RoundRobin,
        schema::upstream::Balance::Random => Algorithm::Random,
        schema::upstream::Balance::LeastConnections => Algorithm::LeastConnections,
        schema::upstream::Balance::PeakEwma => Algorithm::PeakEwma,
        schema::upstream::Balance::Hash => {
            Algorithm::ConsistentHash { bound: written.hash_bound.get() }
        }
    };
    if let Some(bound) = written.hash_bound.get() {
        within(report, &at.key("hash_bound"), bound, 100, 1000);
    }
    let by = hash_by(&written.hash_by, &at.key("hash_by"), report);
    if written.balance != schema::upstream::Balance::Hash {
        let keys = ["hash_by"].into_iter().chain(written.hash_bound.get().map(|_| "hash_bound"));
        moot(at, keys, " without `balance: hash`", "write it beside this, or remove it", report);
        return Balance { algorithm, by: None };
    }
    Balance { algorithm, by }
}

/// What requests have in common that come to the same backend.
fn hash_by(written: &str, at: &Path, report: &mut Report<'_>) -> Option<HashBy> {
    match written.split_once(':') {
        None if written == "uri" => return Some(HashBy::Uri),
        None if written == "client" => return Some(HashBy::Client),
        Some(("header", name)) => return header::name(name, at, report).map(HashBy::Header),
        Some(("cookie", name)) if !name.is_empty() && !name.contains([';', '=', ' ', ',']) => {
            return Some(HashBy::Cookie(name.to_owned()));
        }
        Some(_) | None => {}
    }
    report
        .error(at, format!("\"{written}\" is nothing that requests have in common"))
        .help("write uri, client, \"header:NAME\" or \"cookie:NAME\"");
    None
}

/// The backends that are clear.
fn backends(
    written: &[schema::upstream::Address],
    outer: Option<&OriginTls>,
    folder: &FilePath,
    at: &Path,
    report: &mut Report<'_>,
) -> Vec<Backend> {
    let mut backends: Vec<Backend> = Vec::with_capacity(written.len());
    let mut places: HashMap<Place, usize> = HashMap::new();
    let mut ids: HashMap<String, usize> = HashMap::new();
    for (n, address) in written.iter().enumerate() {
        let at = at.index(n);
        let Some(backend) = backend(address, outer, folder, &at, report) else { continue };
        if let Some(m) = places.insert(backend.at.clone(), n) {
            report
                .warning(&at, format!("addresses[{m}] is the same"))
                .help("for a larger share write a weight: `{address: …, weight: 2}`");
            if address.id.is_none() {
                continue;
            }
        }
        if let Some(m) = ids.insert(backend.id.to_string(), n) {
            report
                .error(&at, format!("addresses[{m}] has the id \"{}\" too", backend.id))
                .help("each backend of an upstream needs an id of its own");
        }
        backends.push(backend);
    }
    backends
}

/// One backend, of an upstream whose TLS is `outer`.
pub(in crate::config) fn backend(
    written: &schema::upstream::Address,
    outer: Option<&OriginTls>,
    folder: &FilePath,
    at: &Path,
    report: &mut Report<'_>,
) -> Option<Backend> {
    within(report, &at.key("weight"), written.weight, *WEIGHTS.start(), *WEIGHTS.end());
    let origin = match address::origin(&written.address, folder) {
        Ok(origin) => Some(origin),
        Err(_) if written.address.is_empty() && report.has_lost(at, &["address"]) => None,
        Err(wrong) => {
            report.error(at, wrong.message).help(wrong.help);
            None
        }
    };
    let scheme = origin.as_ref().and_then(|origin| origin.scheme);
    if let Some(Place::Service(name)) = origin.as_ref().map(|origin| &origin.place) {
        names::service(name, written.weight, Srv::here(), at, report);
    }
    let own = written
        .tls
        .as_ref()
        .map(|tls| tls.as_ref().map(|tls| self::tls(tls, folder, &at.key("tls"), report)));
    let tls = match (own, scheme) {
        (Some(None), Some(Scheme::Https)) => {
            report
                .error(&at.key("tls"), "`off`, and the address says https")
                .help("remove the key, or write http:// in the address");
            None
        }
        (Some(Some(tls)), Some(Scheme::Http)) => {
            report
                .error_in_key(&at.key("tls"), "TLS, and the address says http")
                .help("remove the key, or write https:// in the address");
            Some(tls)
        }
        (Some(own), _) => own,
        (None, Some(Scheme::Http)) => None,
        (None, Some(Scheme::Https)) => Some(outer.cloned().unwrap_or_default()),
        (None, None) => outer.cloned(),
    };
    if let (Some(tls), Some(origin)) = (&tls, &origin) {
        const NAME: &str = "write `tls: {server_name: …}`, the name in the origin's certificate";
        let problem = match origin.place {
            Place::Tcp { .. } => None,
            Place::Demo => {
                Some(("the demo origin speaks plain text", "write `tls: off` for this address"))
            }
            Place::Service(_) | Place::Unix(_)
                if tls.server_name.is_some() || !tls.names.is_empty() || !tls.verify =>
            {
                None
            }
            Place::Service(_) => {
                Some(("TLS to the targets of a service needs `tls.server_name`", NAME))
            }
            Place::Unix(_) => Some(("TLS over a socket needs `tls.server_name`", NAME)),
        };
        if let Some((problem, help)) = problem {
            report.error(at, problem).help(help);
        }
    }
    if let Some(id) = &written.id
        && (id.is_empty() || id.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/'))
    {
        report
            .error(&at.key("id"), format!("\"{id}\" is no id for a backend"))
            .help("write it without spaces and slashes: it stands in logs, metrics and paths");
    } else if let Some(id) = &written.id
        && id.len() > LONGEST_ID
    {
        report
            .error(&at.key("id"), format!("it has {} bytes, more than {LONGEST_ID}", id.len()))
            .help("write a shorter one: it stands in logs, metrics and paths");
    }
    Some(Backend {
        id: written.id.as_deref().unwrap_or(&written.address).into(),
        at: origin?.place,
        weight: written.weight,
        active: written.active,
        backup: written.backup,
        tls,
    })
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
            report
                .error_in_key(&at.key("ca"), "`ca` has no effect with `verify: false`")
                .help("remove one of the two: with `ca` alone the certificate is checked");
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
    OriginTls {
        server_name: written.server_name.clone(),
        ca,
        verify: written.verify,
        names: pins(written, at, report),
        shown: shown(written, folder, at, report),
    }
}

/// The names of which a certificate must have one.
fn pins(written: &schema::upstream::OriginTls, at: &Path, report: &mut Report<'_>) -> Vec<Pin> {
    let at = at.key("names");
    if !written.verify && !written.names.is_empty() {
        report
            .error_in_key(&at, "`names` has no effect with `verify: false`")
            .help("remove one of the two: names are looked for where certificates are checked");
    }
    let mut pins: Vec<Pin> = Vec::with_capacity(written.names.len());
    for (n, name) in written.names.iter().enumerate() {
        let at = at.index(n);
        match name.parse() {
            Ok(pin) if pins.contains(&pin) => {
                report
                    .warning(&at, format!("\"{name}\" is there already"))
                    .help("remove one of the two");
            }
            Ok(pin) => pins.push(pin),
            Err(_) => {
                report
                    .error(&at, format!("\"{name}\" is no name that a certificate has"))
                    .help("write a host without wildcard, an address, or a URI: `spiffe://example.org/app`");
            }
        }
    }
    pins
}

/// What an origin is shown that asks who we are.
fn shown(
    written: &schema::upstream::OriginTls,
    folder: &FilePath,
    at: &Path,
    report: &mut Report<'_>,
) -> Option<Shown> {
    let (at_certificate, at_key) = (at.key("certificate"), at.key("key"));
    let help = "name both, or none for origins that ask for no certificate";
    match (&written.certificate, &written.key) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some(Shown {
            certificate: file(report, &at_certificate, folder, certificate),
            key: file(report, &at_key, folder, key),
        }),
        _ if report.has_lost(at, &["certificate", "key"]) => None,
        (Some(_), None) => {
            report.error_in_key(&at_certificate, "its private key is missing").help(help);
            None
        }
        (None, Some(_)) => {
            report.error_in_key(&at_key, "its certificate is missing").help(help);
            None
        }
    }
}

fn host(written: &str, at: &Path, report: &mut Report<'_>) -> Option<std::sync::Arc<str>> {
    if written == "pass" {
        return None;
    }
    if !is_authority(written) {
        report
            .error(at, format!("\"{written}\" is not a Host"))
            .help("write `pass`, or a name with or without a port: `origin.example.org`");
    }
    Some(written.into())
}

/// The Host of a request that is no client's.
pub(super) fn authority(written: &str, at: &Path, report: &mut Report<'_>) -> std::sync::Arc<str> {
    if !is_authority(written) {
        report
            .error(at, format!("\"{written}\" is not a Host"))
            .help("write a name with or without a port: `origin.example.org`");
    }
    written.into()
}

fn is_authority(text: &str) -> bool {
    text.parse::<Authority>().is_ok() && !text.contains('@')
}

fn timeouts(
    upstream: &schema::upstream::Upstream,
    uses: Uses,
    at: &Path,
    report: &mut Report<'_>,
) -> Timeouts {
    let written = &upstream.timeouts;
    let moment = Duration::from_millis(1);
    let connect = at.key("connect");
    if written.connect > written.total && report.has(&connect) {
        report.error(&connect, "it is longer than `total`").help(
            "connecting is a part of all that `total` bounds; make it shorter, or `total` longer",
        );
    } else if let Some(longest) = unwritten::longest_try(upstream, uses)
        && written.connect > longest
        && report.has(&connect)
    {
        report
            .error(&connect, format!("no attempt takes longer than {longest}"))
            .help("connecting is a part of what `retry.per_try` bounds; make it shorter, or `per_try` longer");
    }
    let mut time = |key: &str, value| period(report, &at.key(key), value, moment, DAY);
    time("connect", written.connect);
    let silence = unwritten::silence(written).0;
    Timeouts {
        connect: unwritten::connect(upstream, uses).0,
        read: written.read.map_or(silence, |read| time("read", read)),
        write: written.write.map_or(silence, |write| time("write", write)),
        idle: time("idle", written.idle),
        total: time("total", written.total),
    }
}
