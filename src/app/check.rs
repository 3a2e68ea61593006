//! `edgeproxy check`: is the configuration right, and which route does a request take?

use http::HeaderMap;
use http::Method;

use crate::app::CONFIGURATION;
use crate::app::Failure;
use crate::app::cli::Cli;
use crate::app::load;
use crate::app::print;
use crate::config;
use crate::config::Loaded;
use crate::config::diagnostic::Style;
use crate::config::plan::Plan;
use crate::message::target::Authority;
use crate::message::target::Scheme;
use crate::message::target::Target;
use crate::route::Ask;

/// Checks the configuration; with `route`, a method and a URL, says where that request goes.
pub(crate) fn check(cli: &Cli, route: Option<&[String]>, json: bool) -> Result<(), Failure> {
    if json {
        return check_json(cli);
    }
    let loaded = load(cli)?;
    if let Some([method, url]) = route {
        return explain(&loaded.plan, method, url);
    }
    if !loaded.warnings.is_empty() {
        eprint!("{}", loaded.warnings.render(Style::of_stderr()));
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
        Ok(loaded) => print(&loaded.warnings.to_json()),
        Err(diagnostics) => {
            print(&diagnostics.to_json())?;
            Err(Failure { code: CONFIGURATION, message: String::new() })
        }
    }
}

fn explain(plan: &Plan, method: &str, url: &str) -> Result<(), Failure> {
    let wrong = |what: &str| {
        Failure::usage(format!(
            "--route {method} {url}: {}; write it like --route GET https://www.example.org/a?b=c",
            what.trim_end_matches('.')
        ))
    };
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| wrong("no such method"))?;
    if matches!(method, Method::TRACE | Method::CONNECT) {
        return print(&format!("no route: 405, since {method} is refused before any is asked"));
    }
    let (scheme, rest) = url
        .split_once("://")
        .ok_or_else(|| wrong("the URL starts with neither http:// nor https://"))?;
    let scheme =
        Scheme::parse(scheme.as_bytes()).ok_or_else(|| wrong("only http and https have routes"))?;
    let (authority, target) = match rest.find(['/', '?']) {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    let target = if target.starts_with('?') { format!("/{target}") } else { target.to_owned() };
    let authority =
        Authority::parse(authority.as_bytes()).map_err(|_| wrong("the host is not valid"))?;
    let target = Target::normalise(target.as_bytes(), &plan.normalisation)
        .map_err(|refusal| wrong(refusal.sentence()))?;
    let headers = HeaderMap::new();
    let explanation = plan.routes.explain(&Ask {
        method: &method,
        scheme,
        host: authority.host(),
        path: target.path(),
        query: target.query(),
        headers: &headers,
    });
    print(&explanation.to_string())
}
