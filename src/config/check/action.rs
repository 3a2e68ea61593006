//! Checks what a route does: `upstream`, `redirect`, `respond`, `rewrite`.

use bytes::Bytes;
use http::StatusCode;
use http::header::CONTENT_TYPE;

use crate::config::check::header;
use crate::config::check::within;
use crate::config::path::Path;
use crate::config::report::Report;
use crate::config::schema;
use crate::config::schema::route::Redirect;
use crate::config::schema::route::Respond;
use crate::config::suggest;
use crate::route::action::Action;
use crate::route::rewrite::Rewrite;
use crate::route::rewrite::Template;

/// The action of a route; `None` when it is not clear.
pub(super) fn action(
    written: &schema::route::Route,
    config: &schema::Config,
    captures: &[String],
    at: &Path,
    report: &mut Report<'_>,
) -> Option<Action> {
    let there = [
        ("upstream", written.upstream.is_some()),
        ("redirect", written.redirect.is_some()),
        ("respond", written.respond.is_some()),
    ];
    let mut chosen = there.iter().filter(|(_, is_there)| *is_there).map(|(key, _)| *key);
    let Some(first) = chosen.next() else {
        if !report.is_broken(at) {
            report
                .error(at, "the route does nothing")
                .help("write exactly one of `upstream`, `redirect`, `respond`");
        }
        return None;
    };
    for other in chosen {
        report
            .error_in_key(
                &at.key(other),
                format!("`{other}` beside `{first}`: a route does one thing"),
            )
            .help("write exactly one of `upstream`, `redirect`, `respond`");
    }
    match (&written.upstream, &written.redirect, &written.respond) {
        (Some(name), ..) => upstream(name, config, &at.key("upstream"), report),
        (_, Some(to), _) => redirect(to, captures, &at.key("redirect"), report),
        (_, _, Some(answer)) => respond(answer, &at.key("respond"), report),
        (None, None, None) => None,
    }
}

fn upstream(
    name: &String,
    config: &schema::Config,
    at: &Path,
    report: &mut Report<'_>,
) -> Option<Action> {
    if let Some(index) = config.upstreams.keys().position(|known| known == name) {
        return Some(Action::Upstream(index));
    }
    if !report.is_broken(&Path::root().key("upstreams").key(name.as_str())) {
        let known: Vec<&str> = config.upstreams.keys().map(String::as_str).collect();
        report.error(at, format!("unknown upstream \"{name}\"")).help(suggest::help(
            name,
            &known,
            "defined upstreams",
        ));
    }
    None
}

fn redirect(
    written: &Redirect,
    captures: &[String],
    at: &Path,
    report: &mut Report<'_>,
) -> Option<Action> {
    let status = match written.status {
        301 | 302 | 303 | 307 | 308 => StatusCode::from_u16(written.status).ok(),
        other => {
            report
                .error(&at.key("status"), format!("{other} is not the status of a redirect"))
                .help("308 and 307 keep the method, 301, 302 and 303 may turn it into GET");
            None
        }
    };
    let redirect = at;
    let at = at.key("to");
    if written.to.is_empty() {
        if !report.is_broken(redirect) {
            report
                .error(&at, "the redirect leads nowhere")
                .help("write where: `to: \"https://{host}{path}\"`");
        }
        return None;
    }
    let location = Template::parse(&written.to, captures);
    let location = location.and_then(|to| to.check_location().map(|()| to));
    let location = report.take(&at, location)?;
    Some(Action::Redirect { status: status?, location })
}

fn respond(written: &Respond, at: &Path, report: &mut Report<'_>) -> Option<Action> {
    within(report, &at.key("status"), written.status, 200, 599);
    let bodiless = matches!(written.status, 204 | 205 | 304);
    if bodiless && !written.body.is_empty() {
        report
            .error(&at.key("body"), format!("a response with {} has no body", written.status))
            .help("remove the body, or write another status");
    }
    let mut headers = header::map(&written.headers, &at.key("headers"), report);
    let kind = match &written.content_type {
        Some(kind) => header::value(kind, &at.key("content_type"), report),
        None if written.body.is_empty() => None,
        None => Some(http::HeaderValue::from_static("text/plain; charset=utf-8")),
    };
    if let Some(kind) = kind {
        if headers.contains_key(CONTENT_TYPE) {
            if written.content_type.is_some() {
                report
                    .error_in_key(&at.key("content_type"), "`headers` has a Content-Type too")
                    .help("keep one of them");
            }
        } else {
            headers.insert(CONTENT_TYPE, kind);
        }
    }
    let status = StatusCode::from_u16(written.status).ok()?;
    Some(Action::Respond { status, headers, body: Bytes::from(written.body.clone()) })
}

/// The changes to path and host.
pub(super) fn rewrite(
    written: &schema::route::Rewrite,
    captures: &[String],
    at: &Path,
    report: &mut Report<'_>,
) -> Rewrite {
    let mut prefix = |key: &str, text: &Option<String>| {
        let at = at.key(key);
        let text = text.as_deref()?;
        if !text.starts_with('/') {
            report
                .error(&at, format!("the prefix \"{text}\" does not begin with a slash"))
                .help(format!("write \"/{text}\""));
            return None;
        }
        report.take(&at, Rewrite::prefix(text))
    };
    let strip_prefix = prefix("strip_prefix", &written.strip_prefix);
    let add_prefix = prefix("add_prefix", &written.add_prefix);
    let regex = written.regex.as_ref().and_then(|replace| {
        let at = at.key("regex");
        if replace.pattern.is_empty() && !report.is_broken(&at) {
            report.error(&at, "the expression is missing").help("write `pattern: …`");
            return None;
        }
        report.take(&at, Rewrite::replace(&replace.pattern, &replace.replacement, captures))
    });
    let host = written.host.as_ref().and_then(|host| {
        let host = Template::parse(host, captures);
        report.take(&at.key("host"), host.and_then(|host| host.check_host().map(|()| host)))
    });
    Rewrite { strip_prefix, regex, add_prefix, host }
}
