//! Checks what keeps requests away from backends that are not well: health checks, ejection.

use std::ops::RangeInclusive;
use std::time::Duration;

use http::Method;
use http::uri::PathAndQuery;

use crate::config::check::DAY;
use crate::config::check::header;
use crate::config::check::moot;
use crate::config::check::period;
use crate::config::check::resilience;
use crate::config::check::secret::Files;
use crate::config::check::unwritten;
use crate::config::check::upstream::authority;
use crate::config::check::within;
use crate::config::path::Path;
use crate::config::report::Report;
use crate::config::schema;
use crate::config::schema::health::HealthType;
use crate::config::schema::health::Initial;
use crate::config::schema::upstream::Protocol;
use crate::resilience::ejection;
use crate::resilience::health as judge;
use crate::resilience::health::Assumed;
use crate::units::Period;
use crate::upstream::Ejection;
use crate::upstream::health;
use crate::upstream::health::Probe;

/// The shortest time between two checks of a backend, and between two comparisons.
const INTERVAL: Duration = Duration::from_millis(10);

/// How long a check may take where nothing else is said.
const TIMEOUT: Period = Period(Duration::from_secs(2));

/// The path that is asked for where none is said.
const PATH: &str = "/health";

/// How backends are checked.
pub(super) fn health(
    written: &schema::health::Health,
    protocol: Protocol,
    at: &Path,
    files: Files<'_>,
    report: &mut Report<'_>,
) -> health::Settings {
    let kind = kind(written);
    let (why, help) = match kind {
        HealthType::Tcp => {
            (" on TCP checks", "it only connects; `type: http` or a `path` makes it ask")
        }
        HealthType::Http => (" on HTTP checks", "`type: grpc` asks for a service"),
        HealthType::Grpc => (" on gRPC checks", "a `service` is what it asks for"),
    };
    moot(at, about_other_checks(written), why, help, report);
    if kind == HealthType::Grpc && protocol != Protocol::Http2 {
        report
            .error(&at.key("type"), "gRPC is spoken over HTTP/2, and the upstream speaks HTTP/1")
            .help("write `protocol: http2` beside `health`");
    }
    let interval = period(report, &at.key("interval"), written.interval, INTERVAL, DAY);
    if let Some(timeout) = written.timeout {
        if timeout > written.interval {
            report
                .error(&at.key("timeout"), "it is longer than `interval`")
                .help("a check has to end before the next one is due");
        }
        period(report, &at.key("timeout"), timeout, Duration::from_millis(1), DAY);
    }
    within(report, &at.key("jitter"), written.jitter, 0, 100);
    within(report, &at.key("rise"), written.rise, 1, 1000);
    within(report, &at.key("fall"), written.fall, 1, 1000);
    health::Settings {
        probe: probe(written, kind, at, files, report),
        interval,
        jitter: written.jitter,
        timeout: timeout(written).0,
        judged: judge::Settings {
            rise: written.rise,
            fall: written.fall,
            initial: match written.initial {
                Initial::Healthy => Assumed::Healthy,
                Initial::Unknown => Assumed::Unknown,
            },
        },
    }
}

/// Fills in what nobody wrote of it.
pub(super) fn fill(written: &mut schema::health::Health) {
    let kind = kind(written);
    written.kind = Some(kind);
    if kind == HealthType::Http {
        written.path.get_or_insert_with(|| PATH.to_owned());
    }
    written.timeout = Some(timeout(written));
}

/// How long a check may take.
fn timeout(written: &schema::health::Health) -> Period {
    written.timeout.unwrap_or(written.interval.min(TIMEOUT))
}

/// What is asked.
fn kind(written: &schema::health::Health) -> HealthType {
    match (written.kind, &written.path) {
        (Some(kind), _) => kind,
        (None, Some(_)) => HealthType::Http,
        (None, None) => HealthType::Tcp,
    }
}

/// Keys that mean nothing for checks of this kind.
pub(in crate::config) fn about_other_checks(
    written: &schema::health::Health,
) -> impl Iterator<Item = &'static str> {
    let (tcp, http, grpc) = match kind(written) {
        HealthType::Tcp => (true, false, false),
        HealthType::Http => (false, true, false),
        HealthType::Grpc => (false, false, true),
    };
    let parts = [
        ("path", !http),
        ("method", !http),
        ("statuses", !http),
        ("body", !http),
        ("host", tcp),
        ("headers", tcp && !written.headers.is_empty()),
        ("service", !grpc),
    ];
    parts.into_iter().filter(|(_, is_moot)| *is_moot).map(|(key, _)| key)
}

fn probe(
    written: &schema::health::Health,
    kind: HealthType,
    at: &Path,
    files: Files<'_>,
    report: &mut Report<'_>,
) -> Probe {
    let host = written.host.as_deref();
    let host = host.map(|host| authority(host, &at.key("host"), report));
    let headers = header::own(&written.headers, &at.key("headers"), files, report);
    // Checked for every kind: what has no effect is told as that, and may be meant.
    let request = health::Request {
        method: method(&written.method, &at.key("method"), report),
        target: target(written.path.as_deref(), &at.key("path"), report),
        host: host.clone(),
        headers: headers.clone(),
        statuses: statuses(&written.statuses, &at.key("statuses"), report),
        body: body(written, at, report),
    };
    match kind {
        HealthType::Tcp => Probe::Tcp,
        HealthType::Http => Probe::Http(request),
        HealthType::Grpc => {
            let service = written.service.clone().unwrap_or_default();
            Probe::Grpc { service, host, headers }
        }
    }
}

/// A check is repeated for ever: it must not change anything.
fn method(written: &str, at: &Path, report: &mut Report<'_>) -> Method {
    match written {
        "GET" => Method::GET,
        "HEAD" => Method::HEAD,
        "OPTIONS" => Method::OPTIONS,
        other => {
            report
                .error(at, format!("\"{other}\" is not a method for checks"))
                .help("write GET, HEAD or OPTIONS: they change nothing, however often");
            Method::GET
        }
    }
}

fn target(written: Option<&str>, at: &Path, report: &mut Report<'_>) -> String {
    let path = written.unwrap_or(PATH);
    let parsed = path.parse::<PathAndQuery>();
    let is_target = path.is_ascii() && parsed.is_ok_and(|parsed| parsed.as_str() == path);
    if !path.starts_with('/') || !is_target {
        report
            .error(at, format!("\"{path}\" is not the path of a request"))
            .help("it begins with a slash, and what is no URL character is percent-encoded");
    }
    path.to_owned()
}

fn body(written: &schema::health::Health, at: &Path, report: &mut Report<'_>) -> Option<String> {
    let text = written.body.clone()?;
    let (health, at) = (at, at.key("body"));
    if text.is_empty() {
        report.error(&at, "every answer contains nothing").help("write a text, or remove the key");
    }
    if text.len() > health::BODY {
        report
            .error(&at, "it is longer than what is searched of an answer, 64 KiB")
            .help("write a shorter part of the answer");
    }
    if written.method == "HEAD" {
        report
            .error_in_key(&at, "an answer to HEAD has no body")
            .help("write `method: GET`, or remove `body`");
    } else if !written.statuses.is_empty()
        && !report.is_broken(&health.key("statuses"))
        && written.statuses.iter().all(|one| is_bodiless(&one.0))
    {
        report.error_in_key(&at, "an answer with one of these `statuses` has no body").help(
            "write one of an answer with a body, such as 200, in `statuses`, or remove `body`",
        );
    }
    Some(text)
}

/// Whether no answer with this status has content (RFC 9110 §15.3.5, §15.3.6, §15.4.5).
fn is_bodiless(status: &str) -> bool {
    matches!(status, "204" | "205" | "304")
}

fn statuses(
    written: &[schema::cache::Statuses],
    at: &Path,
    report: &mut Report<'_>,
) -> Vec<RangeInclusive<u16>> {
    if written.is_empty() && !report.is_broken(at) {
        report.error(at, "no status is that of a backend that is well").help("write [2xx, 3xx]");
    }
    let mut ranges = Vec::with_capacity(written.len());
    for (n, statuses) in written.iter().enumerate() {
        match range(&statuses.0) {
            Some(range) => ranges.push(range),
            None => {
                report
                    .error(&at.index(n), format!("\"{}\" is not a status", statuses.0))
                    .help("write a final status like 200, or a class: 2xx, 3xx, 4xx, 5xx");
            }
        }
    }
    ranges
}

fn range(text: &str) -> Option<RangeInclusive<u16>> {
    if let Some(class) = text.strip_suffix("xx") {
        let class: u16 = class.parse().ok().filter(|class| (2..=5).contains(class))?;
        return Some(class * 100..=class * 100 + 99);
    }
    let status: u16 = text.parse().ok().filter(|status| (200..=599).contains(status))?;
    Some(status..=status)
}

/// What belongs to the comparison of backends.
pub(in crate::config) const ABOUT_DEVIATIONS: [&str; 2] = ["min_requests", "min_backends"];

/// When a backend that fails where others do not is left out.
pub(super) fn ejection(
    written: &schema::health::Ejection,
    at: &Path,
    report: &mut Report<'_>,
) -> Ejection {
    let (consecutive, deviations) = (written.consecutive.get(), written.deviations.get());
    if let Some(consecutive) = consecutive {
        within(report, &at.key("consecutive"), consecutive, 1, 1_000_000);
    }
    match deviations {
        Some(deviations) => within(report, &at.key("deviations"), deviations, 1, 10_000),
        None => {
            let help = "remove the key, or write a number for `deviations`";
            moot(at, ABOUT_DEVIATIONS, " with `deviations: off`", help, report);
        }
    }
    if consecutive.is_none() && deviations.is_none() {
        report
            .error(at, "`consecutive` and `deviations` are off, and nothing else ejects")
            .help("write `ejection: off`, or switch one of them on");
    }
    within(report, &at.key("min_requests"), written.min_requests, 1, 1_000_000);
    within(report, &at.key("min_backends"), written.min_backends, 2, 10_000);
    within(report, &at.key("max_percent"), written.max_percent, 1, 100);
    resilience::statuses(&written.statuses, &at.key("statuses"), report);
    let max_out_for = at.key("max_out_for");
    if written.max_out_for < written.out_for && report.has_both(&at.key("out_for"), &max_out_for) {
        report
            .error(&max_out_for, "it is shorter than `out_for`")
            .help("the first time already exceeds it; make it longer, or `out_for` shorter");
    }
    let interval = period(report, &at.key("interval"), written.interval, INTERVAL, DAY);
    let moment = Duration::from_millis(1);
    for (key, time) in [("out_for", written.out_for), ("max_out_for", written.max_out_for)] {
        period(report, &at.key(key), time, moment, DAY);
    }
    let (out_for, max_out_for) = unwritten::rests(written);
    Ejection {
        settings: ejection::Settings {
            consecutive: consecutive.unwrap_or(0),
            deviations: deviations.unwrap_or(0).saturating_mul(10),
            min_requests: written.min_requests,
            min_peers: written.min_backends,
            base: out_for.0,
            longest: max_out_for.0,
            max_percent: written.max_percent,
        },
        interval,
        statuses: written.statuses.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_numbers_or_classes_of_final_ones() {
        assert_eq!(range("2xx"), Some(200..=299));
        assert_eq!(range("404"), Some(404..=404));
        for wrong in ["", "1xx", "6xx", "xx", "100", "199", "600", "abc", "-200", "2XX"] {
            assert_eq!(range(wrong), None, "{wrong}");
        }
    }
}
