//! Checks what a route does: `upstream`, `redirect`, `respond`, `rewrite`.

use bytes::Bytes;
use http::StatusCode;
use http::header::CONTENT_TYPE;

use crate::config::check::header;
use crate::config::check::matching::HOST;
use crate::config::check::matching::REGEX;
use crate::config::check::within;
use crate::config::mask;
use crate::config::path::Path;
use crate::config::report::Report;
use crate::config::schema;
use crate::config::schema::route::Redirect;
use crate::config::schema::route::Respond;
use crate::config::suggest;
use crate::message::secret::MASK;
use crate::route::action::Action;
use crate::route::rewrite::Rewrite;
use crate::route::rewrite::Template;
use crate::route::standin::Answer;
use crate::route::standin::Share;
use crate::route::standin::Standins;

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
        ("split", !written.split.is_empty()),
        ("redirect", written.redirect.is_some()),
        ("respond", written.respond.is_some()),
    ];
    // One whose value could not be read is there as well.
    let is_there = |(key, is_read): &(&str, bool)| *is_read || report.has(&at.key(*key));
    let chosen: Vec<&str> = there.iter().filter(|one| is_there(one)).map(|(key, _)| *key).collect();
    let mut chosen = chosen.into_iter();
    let Some(first) = chosen.next() else {
        if !report.has_lost(at, &[]) {
            report
                .error(at, "the route does nothing")
                .help("write exactly one of `upstream`, `split`, `redirect`, `respond`");
        }
        return None;
    };
    for other in chosen {
        report
            .error_in_key(
                &at.key(other),
                format!("`{other}` beside `{first}`: a route does one thing"),
            )
            .help("write exactly one of `upstream`, `split`, `redirect`, `respond`");
    }
    // All of them are checked, so that what is wrong is told also of the one that stays in the end.
    let upstream = written
        .upstream
        .as_ref()
        .map(|name| known(name, config, &at.key("upstream"), report).map(Action::Upstream));
    let split =
        written.split.first().map(|share| position(&share.upstream, config).map(Action::Upstream));
    let redirect =
        written.redirect.as_ref().map(|to| redirect(to, captures, &at.key("redirect"), report));
    let respond = written.respond.as_ref().map(|answer| {
        let Answer { status, headers, body } = respond(answer, &at.key("respond"), report)?;
        Some(Action::Respond { status, headers, body })
    });
    upstream.or(split).or(redirect).or(respond).flatten()
}

/// The upstreams of a route that are clear: its own, or those that share its requests.
pub(super) fn own(
    written: &schema::route::Route,
    standins: &Standins,
    config: &schema::Config,
) -> Vec<usize> {
    match &written.upstream {
        Some(name) => position(name, config).into_iter().collect(),
        None => standins.split.iter().map(|share| share.upstream).collect(),
    }
}

/// Every word in what a route writes with captures: its path is not clear, and any of them may be the
/// name of one.
pub(super) fn any_captures(written: &schema::route::Route) -> Vec<String> {
    let rewrite = written.rewrite.as_ref();
    let texts = [
        written.redirect.as_ref().map(|redirect| redirect.to.as_str()),
        rewrite.and_then(|rewrite| rewrite.host.as_deref()),
        rewrite.and_then(|rewrite| Some(rewrite.regex.as_ref()?.replacement.as_str())),
    ];
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = texts.into_iter().flatten().flat_map(|text| text.split(|c| !is_part(c)));
    words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Whether requests are shared among nobody.
fn has_empty_split(written: &schema::route::Route, at: &Path, report: &Report<'_>) -> bool {
    written.split.is_empty() && report.has(at) && !report.is_broken(at)
}

/// Who alone has a share of the requests.
fn only_share(written: &schema::route::Route) -> Option<&String> {
    let mut shares = written.split.iter().filter(|share| share.weight > 0);
    let first = shares.next()?;
    shares.next().is_none().then_some(&first.upstream)
}

/// Who serves beside the upstream of the action.
pub(super) fn standins(
    written: &schema::route::Route,
    config: &schema::Config,
    at: &Path,
    report: &mut Report<'_>,
) -> Standins {
    let mut split = Vec::with_capacity(written.split.len());
    for (n, share) in written.split.iter().enumerate() {
        let at = at.key("split").index(n);
        within(report, &at.key("weight"), share.weight, 0, 1000);
        let upstream = known(&share.upstream, config, &at.key("upstream"), report);
        let Some(upstream) = upstream else { continue };
        if split.iter().any(|known: &Share| known.upstream == upstream) {
            report
                .error(&at, format!("\"{}\" has a share already", share.upstream))
                .help("write each upstream once, with the sum of its weights");
        }
        split.push(Share { upstream, weight: share.weight });
    }
    let is_empty = has_empty_split(written, &at.key("split"), report);
    if is_empty || !split.is_empty() && split.iter().all(|share| share.weight == 0) {
        report
            .error(&at.key("split"), "nobody has a share")
            .help("write a weight above 0: `{upstream: app, weight: 95}`");
    }
    let Some(fallback) = &written.fallback else {
        return Standins { split, ..Standins::default() };
    };
    let at = at.key("fallback");
    if fallback.upstream.is_none() && fallback.respond.is_none() {
        report
            .error(&at, "it names nobody who answers")
            .help("write `upstream: …`, `respond: …` or both");
    }
    if written.upstream.is_none() && written.split.is_empty() {
        report
            .error_in_key(&at, "`fallback` has no effect without an upstream")
            .help("remove it: this route needs no origin");
    }
    let upstream = fallback.upstream.as_ref().and_then(|name| {
        let at = at.key("upstream");
        if written.upstream.as_ref() == Some(name) {
            report
                .error(&at, format!("\"{name}\" is the route's own upstream"))
                .help("name another one");
        } else if only_share(written) == Some(name) {
            report
                .error(&at, format!("\"{name}\" gets all of the route's requests"))
                .help("name another one");
        }
        switched_off(name, "nobody answers there", config, &at, report);
        known(name, config, &at, report)
    });
    let answer =
        fallback.respond.as_ref().and_then(|answer| respond(answer, &at.key("respond"), report));
    Standins { split, fallback: upstream, answer }
}

/// Says what comes of it that this upstream is switched off, if it is.
pub(super) fn switched_off(
    name: &str,
    result: &str,
    config: &schema::Config,
    at: &Path,
    report: &mut Report<'_>,
) {
    if config.upstreams.get(name).is_some_and(|upstream| !upstream.active) {
        report
            .warning(at, format!("\"{name}\" is switched off: {result}"))
            .help(format!("name another one, or remove `upstreams.{name}.active: false`"));
    }
}

/// Where the plan has the upstream of this name.
pub(super) fn position(name: &str, config: &schema::Config) -> Option<usize> {
    config.upstreams.keys().position(|known| known == name)
}

/// The same; one that is not there is reported.
pub(super) fn known(
    name: &str,
    config: &schema::Config,
    at: &Path,
    report: &mut Report<'_>,
) -> Option<usize> {
    if let Some(index) = position(name, config) {
        return Some(index);
    }
    if !report.is_broken(&Path::root().key("upstreams").key(name)) {
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
        if !report.has_lost(redirect, &["to"]) {
            report
                .error(&at, "the redirect leads nowhere")
                .help("write where: `to: \"https://{host}{path}\"`");
        }
        return None;
    }
    if written.to.contains(MASK) {
        report
            .error(&at, format!("{MASK} is what `config show` writes in the place of a secret"))
            .help("write the text itself, or a variable: ${NAME}");
        return None;
    }
    let location = Template::parse(&written.to, captures);
    let location = location.and_then(|to| to.check_location().map(|()| to));
    // What is wrong is said with the text around it.
    let shown = |wrong: String| wrong.replace(&written.to, &mask::url(&written.to));
    let location = location.map_err(shown);
    let location = report.take(&at, location, "write a path, or a URL with http:// or https://")?;
    Some(Action::Redirect { status: status?, location })
}

fn respond(written: &Respond, at: &Path, report: &mut Report<'_>) -> Option<Answer> {
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
    Some(Answer { status, headers, body: Bytes::from(written.body.clone()) })
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
        report.take(&at, Rewrite::prefix(text), "write a path: /new")
    };
    let strip_prefix = prefix("strip_prefix", &written.strip_prefix);
    let add_prefix = prefix("add_prefix", &written.add_prefix);
    let regex = written.regex.as_ref().and_then(|replace| {
        let at = at.key("regex");
        if replace.pattern.is_empty() && !report.has_lost(&at, &["pattern"]) {
            report.error(&at, "the expression is missing").help("write `pattern: …`");
            return None;
        }
        report.take(&at, Rewrite::replace(&replace.pattern, &replace.replacement, captures), REGEX)
    });
    let host = written.host.as_ref().and_then(|host| {
        let host = Template::parse(host, captures);
        report.take(&at.key("host"), host.and_then(|host| host.check_host().map(|()| host)), HOST)
    });
    Rewrite { strip_prefix, regex, add_prefix, host }
}
