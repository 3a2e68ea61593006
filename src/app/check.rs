//! `edgeproxy check`: is the configuration right, and which route does a request take?

use bytes::Bytes;
use http::HeaderMap;
use http::Method;

use crate::app::CONFIGURATION;
use crate::app::Failure;
use crate::app::cli::Cli;
use crate::app::complain;
use crate::app::load;
use crate::app::print;
use crate::app::warn_of_readers;
use crate::config;
use crate::config::Loaded;
use crate::config::diagnostic::Style;
use crate::config::plan::Plan;
use crate::message::admit::Admitted;
use crate::message::admit::Limits;
use crate::message::admit::Received;
use crate::message::admit::admit;
use crate::message::admit::origin_form;
use crate::message::head::HeadLimits;
use crate::message::head::HeadScanner;
use crate::message::head::Scan;
use crate::message::head::canonical_fields;
use crate::message::target::Host;
use crate::message::target::Scheme;
use crate::refusal::Refusal;
use crate::route::Ask;
use crate::route::purging::is_purge;
use crate::runtime::entrance::Arriving;
use crate::runtime::entrance::entrances;

/// Checks the configuration; with `route`, a method and a URL, says where that request goes.
pub(crate) fn check(cli: &Cli, route: Option<&[String]>, json: bool) -> Result<(), Failure> {
    if json {
        return check_json(cli);
    }
    let mut loaded = load(cli)?;
    if let Some([method, url]) = route {
        return explain(&loaded.plan, method, url);
    }
    warn_of_readers(cli, &mut loaded);
    if !loaded.warnings.is_empty() {
        complain(&loaded.warnings.render(Style::of_stderr()));
    }
    let Loaded { plan, .. } = loaded;
    print(&format!(
        "The configuration is valid: {}, {}, {}.",
        count(plan.listeners.len(), "listener"),
        count(plan.routes.routes().len(), "route"),
        count(plan.upstreams.len(), "upstream")
    ))
}

fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

fn check_json(cli: &Cli) -> Result<(), Failure> {
    let Some(path) = &cli.conf else {
        return Err(Failure::usage("--json needs a file: edgeproxy check --json -c FILE"));
    };
    match config::load(path) {
        Ok(mut loaded) => {
            warn_of_readers(cli, &mut loaded);
            print(&loaded.warnings.to_json())
        }
        Err(diagnostics) => {
            print(&diagnostics.to_json())?;
            Err(Failure { code: CONFIGURATION, message: String::new() })
        }
    }
}

/// Says what becomes of a request: it goes the way of one that a client sends, by the same functions, up to
/// its route.
fn explain(plan: &Plan, method: &str, url: &str) -> Result<(), Failure> {
    let wrong = |what: &str| {
        Failure::usage(format!(
            "--route {method} {url}: {what}; write it like --route GET https://www.example.org/a?b=c"
        ))
    };
    let (scheme, rest) = url
        .split_once("://")
        .ok_or_else(|| wrong("the URL starts with neither http:// nor https://"))?;
    let scheme =
        Scheme::parse(scheme.as_bytes()).ok_or_else(|| wrong("only http and https have routes"))?;
    if [method, url].iter().any(|text| text.chars().any(char::is_control)) {
        return Err(wrong("this cannot be sent as one line"));
    }
    let (authority, target) = match rest.find(['/', '?']) {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    // A client that is given a fragment keeps it.
    let target = target.split('#').next().unwrap_or_default();
    let target = if target.starts_with('?') { format!("/{target}") } else { target.to_owned() };
    let sent = Bytes::from(format!("{method} {target} HTTP/1.1\r\nHost: {authority}\r\n\r\n"));
    match admitted(plan, &sent, scheme) {
        Ok((method, headers, admitted)) => {
            let ask = |method| Ask {
                method,
                scheme,
                host: admitted.authority.host(),
                path: admitted.target.path(),
                query: admitted.target.query(),
                headers: &headers,
                client: None,
            };
            if is_purge(&method) {
                return print(&purge(plan, &ask(&Method::GET), &ask(&method)));
            }
            let ask = ask(&method);
            let target = admitted.target.to_string();
            let arriving = Arriving {
                scheme,
                host: ask.host,
                target: &target,
                action: plan.routes.find(&ask).map(|found| &found.route.action),
            };
            let mut told = plan.routes.explain(&ask).to_string();
            for at in entrances(plan, &arriving) {
                told.push_str(&format!("  {at}\n"));
            }
            print(&told)
        }
        Err(refusal) => print(&format!(
            "no route: {}, before any is asked: {}",
            refusal.status().as_u16(),
            refusal.sentence()
        )),
    }
}

/// The request in these bytes, as the proxy understands it.
fn admitted(
    plan: &Plan,
    sent: &Bytes,
    scheme: Scheme,
) -> Result<(Method, HeaderMap, Admitted), Refusal> {
    let limits = HeadLimits {
        bytes: plan.limits.header_bytes,
        fields: plan.limits.header_fields,
        target: plan.limits.target_bytes,
    };
    let head = match HeadScanner::default().scan(sent, &limits) {
        Scan::Head(head) => head,
        Scan::Refused(refusal) => return Err(refusal),
        Scan::NeedMore | Scan::Preface => return Err(Refusal::MalformedRequestLine),
    };
    let mut known = None;
    let (host, target) =
        origin_form(&head.method, head.target(sent), head.host(sent), scheme, &mut known)?;
    let mut headers = HeaderMap::new();
    canonical_fields(sent, &head, host.as_deref().map(Host::value), &mut headers)?;
    let received = Received {
        method: &head.method,
        target: &target,
        version: head.version,
        headers: &headers,
        scheme,
        authority: None,
        read: None,
        fallback: None,
    };
    let limits = Limits {
        header_bytes: plan.limits.header_bytes,
        header_fields: plan.limits.header_fields,
        target_bytes: plan.limits.target_bytes,
    };
    let admitted = admit(&received, &limits, &plan.normalisation)?;
    Ok((head.method.clone(), headers, admitted))
}

/// What becomes of a PURGE: the rule of the route that a GET takes decides, and without one it goes on to
/// an origin only where a route names the method.
fn purge(plan: &Plan, get: &Ask<'_>, purge: &Ask<'_>) -> String {
    let ruled =
        plan.routes.find(get).and_then(|found| Some((found.route, found.route.purge.as_ref()?)));
    if let Some((route, rule)) = ruled {
        let mut needs = Vec::new();
        if let Some(from) = &rule.from {
            let networks: Vec<String> = from.iter().map(ToString::to_string).collect();
            needs.push(format!("403 unless it comes from {}", networks.join(" or ")));
        }
        if rule.token.is_some() {
            needs.push("401 without the token".to_owned());
        }
        return format!(
            "route: {}\n  edgeproxy purges what the URL stored; {}\n",
            route.name,
            needs.join(", ")
        );
    }
    match plan.routes.find(purge) {
        Some(found) if !found.route.passes_purge() => format!(
            "no route: 405, {} passes on no PURGE: name the method in its `match`, or who may purge in \
             `purge`\n",
            found.route.name
        ),
        Some(_) | None => plan.routes.explain(purge).to_string(),
    }
}
