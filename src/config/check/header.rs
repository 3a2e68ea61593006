//! Checks header names, values and the header changes of a route.

use std::collections::BTreeMap;
use std::collections::HashMap;

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;

use crate::config::check::secret;
use crate::config::check::secret::Files;
use crate::config::check::secret::is_written;
use crate::config::path::Path;
use crate::config::report::Report;
use crate::config::schema::route;
use crate::config::schema::route::HeaderChanges;
use crate::config::schema::route::Headers;
use crate::config::schema::secret::FieldText;
use crate::message::certificate::Introduction;
use crate::message::secret::is_field;
use crate::route::HeaderRule;
use crate::route::HeaderRules;
use crate::route::Underscores;

/// Fields that say how a message is framed or belong to one connection (RFC 9110 §7.6.1): edgeproxy
/// writes them itself, and a rule about them could only break the message.
const OWN: &[&str] = &[
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Fields that edgeproxy writes to the origin, so that it can believe them.
const FORWARDED: &[&str] =
    &["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"];

/// The name of a header field.
pub(super) fn name(written: &str, at: &Path, report: &mut Report<'_>) -> Option<HeaderName> {
    match HeaderName::from_bytes(written.as_bytes()) {
        Ok(name) => Some(name),
        Err(_) => {
            report
                .error_in_key(at, format!("\"{written}\" is not the name of a header"))
                .help("letters, digits and hyphens");
            None
        }
    }
}

/// What the value of a header field can be.
const VALUE: &str = "one line of text, without control characters and without spaces at the ends";

/// The value of a header field.
pub(super) fn value(written: &str, at: &Path, report: &mut Report<'_>) -> Option<HeaderValue> {
    let value = HeaderValue::from_str(written).ok();
    if value.is_none() || written.trim() != written {
        report.error(at, "this cannot be the value of a header").help(VALUE);
        return None;
    }
    value
}

/// The value of this field, which may be a secret: by its name, or since it comes from a file.
/// Whoever prints it sees that it is one, and HTTP/2 keeps it out of its tables (RFC 7541 §7.1.3).
fn secret_value(
    key: &str,
    written: &FieldText,
    at: &Path,
    files: Files<'_>,
    report: &mut Report<'_>,
) -> Option<HeaderValue> {
    let FieldText { value: text, value_file } = written;
    let Some(file) = value_file else {
        let Some(text) = text else {
            if !report.has_lost(at, &["value", "value_file"]) {
                report
                    .error(at, "the header has no value")
                    .help("write `value_file: …`, or the value");
            }
            return None;
        };
        // In the long form the text has a key of its own.
        let inner = at.key("value");
        let at = if report.has(&inner) { &inner } else { at };
        return field_value(key, text.reveal(), at, report);
    };
    let found = secret::either(("value", text.as_ref()), Some(file), at, files, report)?;
    let mut value = HeaderValue::from_str(found.reveal())
        .ok()
        .filter(|_| found.reveal().trim() == found.reveal());
    match &mut value {
        Some(value) => value.set_sensitive(true),
        None => {
            let problem = format!("what {} holds cannot be the value of a header", file.display());
            report.error(&at.key("value_file"), problem).help(VALUE);
        }
    }
    value
}

/// The value that is written for this field.
fn field_value(
    key: &str,
    written: &str,
    at: &Path,
    report: &mut Report<'_>,
) -> Option<HeaderValue> {
    if !is_field(key) {
        return value(written, at, report);
    }
    report.hide(at);
    let mut value = value(written, at, report).filter(|_| is_written(written, at, report))?;
    value.set_sensitive(true);
    Some(value)
}

/// The changes in both directions.
pub(super) fn rules(
    written: &Headers,
    at: &Path,
    files: Files<'_>,
    report: &mut Report<'_>,
) -> HeaderRules {
    let Headers { request, response, underscores, client_cert } = written;
    HeaderRules {
        underscores: match underscores {
            route::Underscores::Drop => Underscores::Drop,
            route::Underscores::Pass => Underscores::Pass,
        },
        client: match client_cert {
            route::Introduction::Off => Introduction::Nothing,
            route::Introduction::Identity => Introduction::Identity,
            route::Introduction::Whole => Introduction::Whole,
        },
        request: changes(request, Direction::Request, &at.key("request"), files, report),
        response: changes(response, Direction::Response, &at.key("response"), files, report),
    }
}

/// The header fields of a fixed response.
pub(super) fn map(
    written: &BTreeMap<String, String>,
    at: &Path,
    report: &mut Report<'_>,
) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (key, text) in written {
        let at = at.key(key.as_str());
        let name = changeable(key, Direction::Response, &at, report);
        let value = field_value(key, text, &at, report);
        if let (Some(name), Some(value)) = (name, value)
            && map.insert(name, value).is_some()
        {
            report.error_in_key(&at, format!("the header \"{key}\" is written twice")).help(TWICE);
        }
    }
    map
}

/// The header fields of a request that edgeproxy makes by itself.
pub(super) fn own(
    written: &BTreeMap<String, FieldText>,
    at: &Path,
    files: Files<'_>,
    report: &mut Report<'_>,
) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (key, text) in written {
        let at = at.key(key.as_str());
        if key.eq_ignore_ascii_case("host") {
            report
                .error_in_key(&at, "the header \"host\" is not written here")
                .help("write `host` beside `headers`");
            secret_value(key, text, &at, files, report);
            continue;
        }
        let name = changeable(key, Direction::Request, &at, report);
        let value = secret_value(key, text, &at, files, report);
        if let (Some(name), Some(value)) = (name, value)
            && map.insert(name, value).is_some()
        {
            report.error_in_key(&at, format!("the header \"{key}\" is written twice")).help(TWICE);
        }
    }
    map
}

/// Which way a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Request,
    Response,
}

/// Of a field that stands twice in one list.
const TWICE: &str = "remove one of the two: names are the same in capitals and in small letters";

fn changes(
    written: &HeaderChanges,
    direction: Direction,
    at: &Path,
    files: Files<'_>,
    report: &mut Report<'_>,
) -> Vec<HeaderRule> {
    let mut rules = Vec::new();
    // What else is done with a field, and where; adding goes with everything.
    let mut done: HashMap<HeaderName, &str> = HashMap::new();
    for (n, key) in written.remove.iter().enumerate() {
        let at = at.key("remove").index(n);
        let Some(name) = changeable(key, direction, &at, report) else { continue };
        if done.insert(name.clone(), "remove").is_some() {
            report.error(&at, format!("the header \"{key}\" is removed twice")).help(TWICE);
        }
        rules.push(HeaderRule::Remove(name));
    }
    for (key, text) in &written.set {
        let at = at.key("set").key(key.as_str());
        let name = changeable(key, direction, &at, report);
        let value = secret_value(key, text, &at, files, report);
        let (Some(name), Some(value)) = (name, value) else { continue };
        match done.insert(name.clone(), "set") {
            None => {}
            Some("set") => {
                report.error_in_key(&at, format!("the header \"{key}\" is set twice")).help(TWICE);
            }
            Some(_) => {
                report
                    .error_in_key(&at, format!("the header \"{key}\" is both removed and set"))
                    .help("set alone replaces what was there");
            }
        }
        rules.push(HeaderRule::Set(name, value));
    }
    for (key, text) in &written.add {
        let at = at.key("add").key(key.as_str());
        let name = changeable(key, direction, &at, report);
        let value = secret_value(key, text, &at, files, report);
        if let (Some(name), Some(value)) = (name, value) {
            rules.push(HeaderRule::Add(name, value));
        }
    }
    rules
}

/// The name of a field that rules may change.
fn changeable(
    written: &str,
    direction: Direction,
    at: &Path,
    report: &mut Report<'_>,
) -> Option<HeaderName> {
    let name = name(written, at, report)?;
    if OWN.contains(&name.as_str()) {
        report.error_in_key(at, format!("the header \"{name}\" cannot be changed")).help(
            "remove it here: it frames the message or belongs to one connection, and is written by edgeproxy",
        );
        return None;
    }
    if direction == Direction::Request && name == http::header::HOST {
        report
            .error_in_key(at, "the header \"host\" cannot be changed here")
            .help("write `rewrite: {host: …}`, or `host` of the upstream");
        return None;
    }
    if direction == Direction::Request && FORWARDED.contains(&name.as_str()) {
        report
            .error_in_key(at, format!("the header \"{name}\" cannot be changed"))
            .help("edgeproxy writes it, so that the origin can believe it; see `trusted_proxies`");
        return None;
    }
    Some(name)
}
