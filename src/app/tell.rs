//! `edgeproxy reload`: the running process is to read its configuration again.

use serde::Deserialize;

use crate::app::CONFIGURATION;
use crate::app::Failure;
use crate::app::ask::Form;
use crate::app::ask::Unheard;
use crate::app::cli::Cli;
use crate::app::cli::ReloadFlags;
use crate::app::purge::refused;
use crate::app::purge::running;

/// As much of an answer as is told again.
#[derive(Deserialize)]
struct Done {
    summary: String,
}

#[derive(Deserialize)]
struct NotDone {
    error: String,
}

/// Tells the running process to reload; returns what to say about it. A file that is wrong is told here, and
/// the running process is not asked.
pub(crate) fn reload(cli: &Cli, flags: &ReloadFlags) -> Result<String, Failure> {
    let running = running(cli, flags.port, "edgeproxy reload")?;
    let answer = running.post("/v1/reload", "", Form::Json).map_err(|unheard| match unheard {
        Unheard::Nobody => {
            let at = running.place();
            Failure::other(format!(
                "no running process answers at {at}: there is nothing to reload"
            ))
        }
        Unheard::Failed(failure) => failure,
    })?;
    match answer.status {
        200 if flags.json => Ok(answer.body),
        200 => {
            let done: Done = serde_json::from_str(&answer.body).map_err(Failure::other)?;
            Ok(format!("The configuration is reloaded: {}.", done.summary))
        }
        status @ (409 | 422) => {
            let why: NotDone = serde_json::from_str(&answer.body).map_err(Failure::other)?;
            match status {
                422 => Err(Failure { code: CONFIGURATION, message: why.error }),
                _ => Err(Failure::other(why.error)),
            }
        }
        _ => Err(refused(&answer)),
    }
}
