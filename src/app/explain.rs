//! `explain`: what a request would get from the running process, and why.

use crate::app::Failure;
use crate::app::ask::Form;
use crate::app::ask::Unheard;
use crate::app::cli::Cli;
use crate::app::cli::ExplainFlags;
use crate::app::purge::refused;
use crate::app::purge::running;
use crate::runtime::explain::Question;

/// Asks the running process; returns what it says.
pub(crate) fn explain(cli: &Cli, flags: &ExplainFlags) -> Result<String, Failure> {
    let mut headers = Vec::with_capacity(flags.header.len());
    for line in &flags.header {
        let (name, value) = line.split_once(':').ok_or_else(|| {
            Failure::usage(format!("-H \"{line}\" is no field; write -H 'Accept-Language: de'"))
        })?;
        headers.push((name.trim().to_owned(), value.trim().to_owned()));
    }
    let question = Question { url: flags.url.clone(), method: flags.method.clone(), headers };
    let port = flags.port.or(cli.quick.port);
    let running = running(cli, port, "edgeproxy explain http://localhost:3000/")?;
    let body = serde_json::to_string(&question).map_err(Failure::other)?;
    let form = if flags.json { Form::Json } else { Form::Text };
    match running.post("/v1/explain", &body, form) {
        Ok(answer) if answer.status == 200 => Ok(answer.body),
        Ok(answer) => Err(refused(&answer)),
        Err(Unheard::Nobody) => {
            Err(Failure::other("no running process answers: there is nothing to ask about"))
        }
        Err(Unheard::Failed(failure)) => Err(failure),
    }
}
