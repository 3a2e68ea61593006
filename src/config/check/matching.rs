//! Checks the `match` section of a route.

use std::collections::BTreeMap;

use http::Method;

use crate::config::check::header;
use crate::config::check::secret::is_written;
use crate::config::path::Path;
use crate::config::report::Report;
use crate::config::schema;
use crate::config::schema::route::Condition;
use crate::config::schema::route::Match;
use crate::config::schema::route::Scheme;
use crate::message::certificate;
use crate::message::secret::MASK;
use crate::message::secret::is_field;
use crate::message::secret::is_named_so;
use crate::message::target;
use crate::route::client::ClientMatch;
use crate::route::client::Presence;
use crate::route::host::HostPattern;
use crate::route::path::PathPattern;
use crate::route::predicate::Predicates;
use crate::route::predicate::ValueMatch;

/// Which requests a route takes.
pub(super) struct Matching {
    pub(super) hosts: Vec<HostPattern>,
    pub(super) path: PathPattern,
    pub(super) when: Predicates,
}

/// Checks a `match` section; `None` when its path is not clear.
pub(super) fn matching(written: &Match, at: &Path, report: &mut Report<'_>) -> Option<Matching> {
    let hosts = hosts(&written.hosts, &at.key("hosts"), report);
    let when = Predicates {
        scheme: written.scheme.map(|scheme| match scheme {
            Scheme::Http => target::Scheme::Http,
            Scheme::Https => target::Scheme::Https,
        }),
        methods: methods(&written.methods, &at.key("methods"), report),
        headers: headers(&written.headers, &at.key("headers"), report),
        queries: conditions(&written.query, &at.key("query"), report),
        cookies: cookies(&written.cookies, &at.key("cookies"), report),
        client: match &written.client_cert {
            Some(clients) => self::clients(clients, &at.key("client_cert"), report),
            None => ClientMatch::default(),
        },
    };
    let path = path(written, at, report)?;
    Some(Matching { hosts, path, when })
}

/// Of what is no pattern of hosts.
pub(super) const HOST: &str =
    "write a name like www.example.org, or *.example.org for all below it";

/// Of what is no regular expression.
pub(super) const REGEX: &str =
    "a backslash takes the next character as it is; https://docs.rs/regex/#syntax has the rest";

fn hosts(written: &[String], at: &Path, report: &mut Report<'_>) -> Vec<HostPattern> {
    let mut hosts: Vec<HostPattern> = Vec::with_capacity(written.len());
    for (n, text) in written.iter().enumerate() {
        let at = at.index(n);
        if text.contains("://") {
            report
                .error(&at, format!("\"{text}\" is a URL, not a host"))
                .help("write the name alone: www.example.org");
            continue;
        }
        let Some(host) = report.take(&at, HostPattern::parse(text), HOST) else { continue };
        if hosts.contains(&host) {
            report
                .warning(&at, format!("the host \"{text}\" stands here twice"))
                .help("remove one of the two");
        } else {
            hosts.push(host);
        }
    }
    hosts
}

/// Builds a pattern from its text.
type Constructor = fn(&str) -> Result<PathPattern, String>;

fn path(written: &Match, at: &Path, report: &mut Report<'_>) -> Option<PathPattern> {
    let ways: [(&str, &Option<String>, Constructor); 4] = [
        ("path", &written.path, PathPattern::exact),
        ("path_prefix", &written.path_prefix, PathPattern::prefix),
        ("path_pattern", &written.path_pattern, PathPattern::pattern),
        ("path_regex", &written.path_regex, PathPattern::regex),
    ];
    // One whose value could not be read is there as well.
    let is_there = |key: &str, text: &Option<String>| text.is_some() || report.has(&at.key(key));
    let chosen: Vec<_> = ways.iter().filter(|(key, text, _)| is_there(key, text)).collect();
    let Some(((key, text, build), others)) = chosen.split_first() else {
        return Some(PathPattern::any());
    };
    let mut pattern = pattern(key, text.as_deref(), *build, &at.key(*key), report);
    for (other, text, build) in others {
        let at = at.key(*other);
        report
            .error_in_key(&at, format!("`{other}` beside `{key}`: a route has one path"))
            .help("write two routes, or one pattern");
        // What is wrong with it counts if it is the one that stays.
        self::pattern(other, text.as_deref(), *build, &at, report);
        pattern = None;
    }
    pattern
}

fn pattern(
    key: &str,
    text: Option<&str>,
    build: Constructor,
    at: &Path,
    report: &mut Report<'_>,
) -> Option<PathPattern> {
    let text = text?;
    if key != "path_regex" && !text.starts_with('/') {
        report
            .error(at, format!("the path \"{text}\" does not begin with a slash"))
            .help(format!("write \"/{text}\""));
        return None;
    }
    report.take(at, build(text), if key == "path_regex" { REGEX } else { "write a path: /api" })
}

/// Methods that requests may have.
pub(super) fn methods(written: &[String], at: &Path, report: &mut Report<'_>) -> Vec<Method> {
    let mut methods = Vec::with_capacity(written.len());
    for (n, text) in written.iter().enumerate() {
        let at = at.index(n);
        let Ok(method) = Method::from_bytes(text.as_bytes()) else {
            report
                .error(&at, format!("\"{text}\" is not a method"))
                .help("write a word of letters: GET, or a method of your own");
            continue;
        };
        if text.bytes().any(|b| b.is_ascii_lowercase()) {
            report
                .error(&at, format!("the method \"{text}\" has small letters"))
                .help(format!("methods are capitals (RFC 9110 §9.1): {}", text.to_uppercase()));
        } else if method == Method::CONNECT || method == Method::TRACE {
            report
                .error(&at, format!("{method} never reaches a route"))
                .help("edgeproxy refuses it from every client");
        } else if methods.contains(&method) {
            report
                .warning(&at, format!("the method {method} stands here twice"))
                .help("remove one of the two");
        } else {
            methods.push(method);
        }
    }
    methods
}

/// Checks conditions on request fields.
pub(super) fn headers(
    written: &BTreeMap<String, Condition>,
    at: &Path,
    report: &mut Report<'_>,
) -> Vec<(http::HeaderName, ValueMatch)> {
    let mut headers = Vec::with_capacity(written.len());
    for (key, condition) in written {
        let at = at.key(key.as_str());
        let name = header::name(key, &at, report);
        if name == Some(http::header::HOST) {
            report.error_in_key(&at, "the Host has a key of its own").help("write `hosts: […]`");
        }
        if certificate::is_claim(&key.to_ascii_lowercase()) {
            report
                .error_in_key(&at, "what clients send in this field is never believed")
                .help("write `client_cert: {…}` for conditions on the client's certificate");
        }
        if name == Some(http::header::COOKIE) {
            report
                .error_in_key(&at, "cookies have a key of their own")
                .help("write `cookies: {name: …}`");
        }
        let nature = if is_field(key) { Nature::Secret } else { Nature::Open };
        if nature == Nature::Secret && !is_given(condition, &at, report) {
            continue;
        }
        let value = self::condition(condition, nature, &at, report);
        if let (Some(name), Some(value)) = (name, value) {
            headers.push((name, value));
        }
    }
    headers
}

/// Checks conditions on cookies. A route goes by cookies whose names are known.
fn cookies(
    written: &BTreeMap<String, Condition>,
    at: &Path,
    report: &mut Report<'_>,
) -> Vec<(String, ValueMatch)> {
    for name in written.keys().filter(|name| name.contains('*')) {
        report
            .error_in_key(&at.key(name.as_str()), "a route needs the whole name of a cookie")
            .help("names that end with `*` are for `bypass` and `no_store` of its `cache`");
    }
    conditions(written, at, report)
}

/// Checks conditions on the certificate that a client showed.
fn clients(
    written: &schema::route::ClientMatch,
    at: &Path,
    report: &mut Report<'_>,
) -> ClientMatch {
    let schema::route::ClientMatch { verified, subject, san, fingerprints } = written;
    let mut check = |key: &str, written: &Option<Condition>| {
        condition(written.as_ref()?, Nature::Open, &at.key(key), report)
    };
    let (subject, names) = (check("subject", subject), check("san", san));
    let mut listed = Vec::with_capacity(fingerprints.len());
    for (n, text) in fingerprints.iter().enumerate() {
        let bare: String = text.chars().filter(|c| *c != ':').collect();
        if bare.len() == 64 && bare.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            listed.push(bare.to_ascii_lowercase());
        } else {
            report.error(&at.key("fingerprints").index(n), "this is no SHA-256 fingerprint").help(
                "64 hexadecimal digits: `openssl x509 -noout -fingerprint -sha256 -in client.pem`",
            );
        }
    }
    if verified.is_none() && subject.is_none() && names.is_none() && fingerprints.is_empty() {
        report
            .warning(at, "it asks for nothing: every client meets it")
            .help("write `client_cert: {verified: true}` for clients with a certificate");
    }
    ClientMatch {
        presence: verified
            .map(|verified| if verified { Presence::Shown } else { Presence::Missing }),
        subject,
        names,
        fingerprints: listed,
    }
}

/// Checks conditions on parameters or cookies.
pub(super) fn conditions(
    written: &BTreeMap<String, Condition>,
    at: &Path,
    report: &mut Report<'_>,
) -> Vec<(String, ValueMatch)> {
    let mut conditions = Vec::with_capacity(written.len());
    for (key, condition) in written {
        let at = at.key(key.as_str());
        if key.is_empty() {
            report
                .error_in_key(&at, "the name is empty")
                .help("write the name before the colon, or remove the line");
        }
        let nature = if is_named_so(key.trim_end_matches('*').as_bytes()) {
            Nature::Secret
        } else {
            Nature::Open
        };
        if nature == Nature::Secret && !is_given(condition, &at, report) {
            continue;
        }
        if let Some(value) = self::condition(condition, nature, &at, report) {
            conditions.push((key.clone(), value));
        }
    }
    conditions
}

/// Whether messages may show what a condition asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Nature {
    Open,
    Secret,
}

/// Whether the text of a condition on a secret, which is a secret as well, is not just its mask.
fn is_given(written: &Condition, at: &Path, report: &mut Report<'_>) -> bool {
    let (key, text) = match written {
        Condition::Present | Condition::Absent => return true,
        Condition::Exact(text) => ("exact", text),
        Condition::Prefix(text) => ("prefix", text),
        Condition::Regex(text) => ("regex", text),
    };
    let long = at.key(key);
    let at = if report.has(&long) { &long } else { at };
    report.hide(at);
    is_written(text, at, report)
}

fn condition(
    written: &Condition,
    nature: Nature,
    at: &Path,
    report: &mut Report<'_>,
) -> Option<ValueMatch> {
    Some(match written {
        Condition::Present => ValueMatch::Present,
        Condition::Absent => ValueMatch::Absent,
        Condition::Exact(text) => ValueMatch::Exact(text.clone()),
        Condition::Prefix(text) if text.is_empty() => {
            report
                .error(&at.key("prefix"), "every value begins with nothing")
                .help("write `present`");
            return None;
        }
        Condition::Prefix(text) => ValueMatch::Prefix(text.clone()),
        Condition::Regex(text) => {
            let shown = |message: String| match nature {
                Nature::Secret => message.replace(text.as_str(), MASK),
                Nature::Open => message,
            };
            return report.take(&at.key("regex"), ValueMatch::regex(text).map_err(shown), REGEX);
        }
    })
}
