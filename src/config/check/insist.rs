//! Checks how a listener sees to it that clients come over TLS: `to_https` and `hsts`.

use std::time::Duration;

use http::HeaderValue;

use crate::config::check::DAY;
use crate::config::check::period;
use crate::config::check::within;
use crate::config::path::Path;
use crate::config::report::Report;
use crate::config::schema::listen::Hsts;
use crate::config::schema::listen::Listener;
use crate::config::schema::value::Switch;
use crate::listen::insist::Insistence;

/// The shortest time that lists of preloaded hosts take.
const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// What the listener at `at` does.
pub(super) fn insistence(written: &Listener, at: &Path, report: &mut Report<'_>) -> Insistence {
    let has_tls = written.tls.as_ref().is_some();
    let is_plain = !has_tls && !report.has_lost(at, &["tls"]);
    let mut insists = Insistence::None;
    if let Switch::On(to) = &written.to_https {
        let at = at.key("to_https");
        if has_tls {
            report
                .error(&at, "this listener speaks TLS, so every client is at https already")
                .help("write it at the listener for plain text");
        }
        within(report, &at.key("port"), to.port, 1, u16::MAX);
        insists = Insistence::Redirects(to.port);
    }
    if let Switch::On(hsts) = &written.hsts {
        let at = at.key("hsts");
        if is_plain {
            report
                .error(&at, "browsers heed Strict-Transport-Security over TLS only; this listener speaks plain text")
                .help("write it at the listener with `tls`; here, `to_https: on` sends them there");
        }
        insists = Insistence::Tells(value(hsts, &at, report));
    }
    insists
}

fn value(written: &Hsts, at: &Path, report: &mut Report<'_>) -> HeaderValue {
    let at_age = at.key("max_age");
    let age = period(report, &at_age, written.max_age, Duration::ZERO, 3650 * DAY);
    if age.subsec_nanos() != 0 {
        report
            .error(&at_age, "the field counts whole seconds")
            .help("write a length of time without a fraction of a second: `365d`");
    }
    if written.preload && !(written.subdomains && age >= YEAR) {
        report.error(&at.key("preload"), "lists of preloaded hosts take no such promise").help(
            "they want `subdomains: true` and a `max_age` of at least 365d; or remove `preload`",
        );
    }
    let mut text = format!("max-age={}", age.as_secs());
    if written.subdomains {
        text.push_str("; includeSubDomains");
    }
    if written.preload {
        text.push_str("; preload");
    }
    HeaderValue::try_from(text).expect("digits and words are visible text")
}
