//! `purge` and `--clear-cache`: what the running process is to forget.

use serde::Deserialize;

use crate::app::Failure;
use crate::app::ask::Answer;
use crate::app::ask::Form;
use crate::app::ask::Running;
use crate::app::ask::Unheard;
use crate::app::cli::Cli;
use crate::app::cli::PurgeFlags;
use crate::app::load;
use crate::cache::purge::Wish;

/// As much of an answer as is told again.
#[derive(Deserialize)]
struct Report {
    purged: Vec<Purged>,
}

#[derive(Deserialize)]
struct Purged {
    what: String,
    #[serde(default)]
    which: String,
    objects: u64,
    exact: bool,
}

#[derive(Deserialize)]
struct Problem {
    error: String,
}

/// Tells the running process to clear its cache; returns what to say about it.
pub(crate) fn clear(cli: &Cli) -> Result<String, Failure> {
    let running = running(cli, cli.quick.port, "edgeproxy --clear-cache")?;
    match running.post("/cache/clear", "", Form::Text) {
        Ok(Answer { status: 200, body }) => Ok(format!("The cache is cleared: {body}")),
        Ok(answer) => Err(refused(&answer)),
        Err(Unheard::Nobody) => {
            Ok("No running process answers, and nothing is stored on disk: there is no cache to \
                clear."
                .to_owned())
        }
        Err(Unheard::Failed(failure)) => Err(failure),
    }
}

/// Tells the running process what to purge; returns what to say about it.
pub(crate) fn purge(cli: &Cli, flags: &PurgeFlags) -> Result<String, Failure> {
    let wish = Wish {
        url: flags.url.clone(),
        prefix: flags.prefix.clone(),
        host: flags.host.clone(),
        route: flags.route.clone(),
        upstream: flags.upstream.clone(),
        zone: flags.zone.clone(),
        tag: flags.tag.clone(),
        everything: flags.all,
        soft: flags.soft,
        dry_run: flags.dry_run,
        count: flags.count,
    };
    let port = flags.port.or(cli.quick.port);
    let running = running(cli, port, "edgeproxy purge --all")?;
    let body = serde_json::to_string(&wish).map_err(Failure::other)?;
    let answer = match running.post("/v1/purge", &body, Form::Json) {
        Ok(answer) if answer.status == 200 => answer.body,
        Ok(answer) => return Err(refused(&answer)),
        Err(Unheard::Nobody) => {
            return Err(Failure::other(
                "no running process answers, and nothing is stored on disk: there is nothing to \
                 purge",
            ));
        }
        Err(Unheard::Failed(failure)) => return Err(failure),
    };
    if flags.json {
        return Ok(answer);
    }
    let report: Report = serde_json::from_str(&answer).map_err(Failure::other)?;
    Ok(report.purged.iter().map(|purged| line(purged, flags)).collect())
}

fn line(Purged { what, which, objects, exact }: &Purged, flags: &PurgeFlags) -> String {
    let done = match (flags.dry_run, flags.soft) {
        (true, _) => "would be purged",
        (false, true) => "stale",
        (false, false) => "purged",
    };
    let plural = if *objects == 1 { "" } else { "s" };
    let more = if *exact { "" } else { " or more" };
    let name = if which.is_empty() { what.clone() } else { format!("{what} {which}") };
    format!("{done}: {name}: {objects} object{plural}{more}\n")
}

pub(crate) fn running(cli: &Cli, port: Option<u16>, example: &str) -> Result<Running, Failure> {
    match (&cli.conf, port) {
        (Some(_), Some(_)) => Err(Failure::usage("--port stands for a file: leave -c out, or it")),
        (Some(_), None) => Running::with(load(cli)?.plan),
        (None, Some(port)) => Ok(Running::on_port(port)),
        (None, None) => Err(Failure::usage(format!(
            "this needs to know which process is meant: {example} --port 3000, or -c FILE",
        ))),
    }
}

/// The running process did not do it.
pub(crate) fn refused(answer: &Answer) -> Failure {
    let why = match serde_json::from_str::<Problem>(&answer.body) {
        Ok(problem) => problem.error,
        Err(_) => answer.body.clone(),
    };
    match answer.status {
        400 => Failure::usage(why),
        401 => Failure::other("the running process wants another token; see admin.token"),
        status => Failure::other(format!("the running process answered {status}: {why}")),
    }
}
