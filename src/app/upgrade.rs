//! `edgeproxy upgrade`: the running process is to be followed by a new one, from this program or another.

use std::io;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use crate::app::CONFIGURATION;
use crate::app::Failure;
use crate::app::absolute;
use crate::app::cli::Cli;
use crate::app::cli::UpgradeFlags;
use crate::app::daemon;
use crate::app::handover;
use crate::app::load;
use crate::app::quick;
use crate::app::succession;
use crate::app::succession::Outcome;
use crate::app::succession::Wish;
use crate::config::plan::Process;
use crate::units::Period;

/// How long the new process may take until it serves.
const WITHIN: Duration = Duration::from_secs(60);
/// How much longer than that an answer may take.
const SLACK: Duration = Duration::from_secs(30);

/// Has the running process followed by another; returns what to say about it.
pub(crate) fn upgrade(cli: &Cli, flags: &UpgradeFlags) -> Result<String, Failure> {
    let (path, process) = place(cli, flags)?;
    let program = match &flags.binary {
        Some(program) => std::path::absolute(program).map_err(Failure::other)?,
        None => std::env::current_exe().map_err(Failure::other)?,
    };
    if !program.is_file() {
        return Err(Failure::usage(format!(
            "--binary {}: there is no such program",
            program.display()
        )));
    }
    let within = flags.timeout.map_or(WITHIN, |Period(within)| within);
    if within.is_zero() {
        return Err(Failure::usage(
            "--timeout 0s is no time: leave it out, or write one such as 1m",
        ));
    }
    let mut stream = handover::knock(&path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Failure::other(format!(
            "no running edgeproxy answers at {}: start it without `upgrade`, or make \
             process.upgrade_socket what it is for the running process",
            path.display()
        )),
        _ => Failure::other(format!("{} cannot be used: {e}", path.display())),
    })?;
    stream.write_all(&[handover::UPGRADE]).map_err(|e| succession::silent(&e))?;
    let millis = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
    let wish = Wish { program, within: millis, notes: process.is_some() };
    let note = |pid| match &process {
        Some(process) => daemon::note(process, pid),
        None => Err("the one-line mode becomes no other user".to_owned()),
    };
    let outcome = succession::ask(stream, &wish, within.saturating_add(SLACK), note);
    match outcome.map_err(|e| succession::silent(&e))? {
        Outcome { code: 0, new: Some(new), old, .. } => {
            Ok(format!("Process {new} serves; process {old} finishes what it has begun, and ends."))
        }
        Outcome { code, message, old, .. } => {
            let what = match code {
                CONFIGURATION => "with this configuration the new process does not start",
                _ => "the new process does not serve",
            };
            let message = format!("{}\nerror: {what}; process {old} goes on", message.trim_end());
            Err(Failure { code: code.max(1), message })
        }
    }
}

/// Where the running process is asked, and how it is meant to run, if a file says that it becomes another user.
fn place(cli: &Cli, flags: &UpgradeFlags) -> Result<(PathBuf, Option<Process>), Failure> {
    match (&cli.conf, flags.port.or(cli.quick.port)) {
        (Some(_), Some(_)) => Err(Failure::usage("--port stands for a file: leave -c out, or it")),
        (Some(_), None) => {
            let process = absolute(load(cli)?.plan)?.process;
            let socket = process.upgrade_socket.clone();
            let becomes = process.user.is_some() || process.group.is_some();
            Ok((socket, becomes.then_some(process)))
        }
        (None, Some(port)) => Ok((quick::upgrade_socket(port), None)),
        (None, None) => Err(Failure::usage(
            "this needs to know which process is meant: edgeproxy upgrade --port 3000, or -c FILE",
        )),
    }
}
