//! The program: from arguments to an exit code.

mod ask;
mod bequest;
mod bind;
mod check;
pub mod cli;
mod daemon;
mod diagnostics;
mod doors;
mod explain;
mod fellow;
mod frames;
mod handover;
mod identity;
mod init;
mod keys;
mod life;
mod man;
mod notify;
mod offer;
mod order;
mod purge;
mod quick;
mod reload;
mod server;
mod stamps;
mod starting;
mod succession;
mod sweep;
mod tell;
mod upgrade;
mod upstreams;

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::CommandFactory;
use clap::Parser;
use nix::errno::Errno;
use nix::fcntl::FcntlArg;
use nix::fcntl::OFlag;
use nix::fcntl::fcntl;

use crate::app::bind::Origin;
use crate::app::cli::Cli;
use crate::app::cli::ConfigVerb;
use crate::app::cli::RunFlags;
use crate::app::cli::Verb;
use crate::app::daemon::Starter;
use crate::app::identity::Identity;
use crate::app::server::Ground;
use crate::app::server::Manner;
use crate::app::server::Written;
use crate::app::succession::Invocation;
use crate::config;
use crate::config::Loaded;
use crate::config::diagnostic::Diagnostic;
use crate::config::diagnostic::Severity;
use crate::config::diagnostic::Style;
use crate::config::plan::Plan;

/// The command line makes no sense (sysexits: EX_USAGE).
const USAGE: u8 = 64;
/// The configuration is wrong (sysexits: EX_CONFIG).
const CONFIGURATION: u8 = 78;
/// Anything else that ends the process out of order.
const FAILURE: u8 = 1;

/// How long the end of the process waits for who reads its diagnostics.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Runs the program.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    let mut is = |mark: &str| {
        let marked = arguments.get(1).is_some_and(|first| first == mark);
        if marked {
            arguments.remove(1);
        }
        marked
    };
    let role = match (is(daemon::MARK), is(succession::MARK)) {
        (false, false) => Role::Command,
        (true, false) => Role::Daemon,
        (true, true) => Role::NextDaemon,
        (false, true) => Role::Next,
    };
    let mut cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(e) => {
            return if e.use_stderr() {
                let _ = e.print();
                ExitCode::from(USAGE)
            } else {
                exit(written(e.print()))
            };
        }
    };
    let settled = cli.settle().map_err(|flag| {
        Failure::usage(format!("{flag} stands before `run` and behind it: write it once"))
    });
    exit(settled.and_then(|()| dispatch(&cli, role, &arguments)))
}

/// Says what went wrong, if anything did; its code.
fn exit(ended: Result<(), Failure>) -> ExitCode {
    let can_be_told = diagnostics::queue::flush(LAST_WORDS);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { code, message }) => {
            // Who reads nothing of the diagnostics would be waited for here as well.
            if can_be_told && !message.is_empty() {
                complain(&format!("{}\n", message.trim_end()));
            }
            ExitCode::from(code)
        }
    }
}

/// Writes to standard error, and goes on where that cannot be: nobody is left who could be told, and the exit
/// code still says it. (`eprint!` would panic, and end a daemon's start by a full disk.)
fn complain(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// What this process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// What somebody typed.
    Command,
    /// The daemon that such a command started.
    Daemon,
    /// The daemon that the running one started, to be followed by it.
    NextDaemon,
    /// The same in the foreground.
    Next,
}

/// Why the program ends out of order.
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    fn usage(message: impl Into<String>) -> Self {
        Self { code: USAGE, message: format!("error: {}", message.into()) }
    }

    fn other(message: impl std::fmt::Display) -> Self {
        Self { code: FAILURE, message: format!("error: {message}") }
    }
}

fn dispatch(cli: &Cli, role: Role, arguments: &[OsString]) -> Result<(), Failure> {
    if let Some((flag, verb)) = cli.idle_flag() {
        return Err(Failure::usage(format!(
            "{flag} means nothing to {verb}: leave it out (edgeproxy {verb} --help)",
        )));
    }
    let quick = cli.quick.port.is_some() || cli.quick.origin.is_some();
    if quick && cli.conf.is_some() {
        return Err(Failure::usage("--port and --origin stand for a file: leave -c out, or them"));
    }
    if cli.quick.clear_cache {
        let message = purge::clear(cli)?;
        return print(&message);
    }
    if cli.quick.print_config {
        if !quick {
            return Err(Failure::usage(
                "--print-config belongs to --port and --origin; of a file: \
                 edgeproxy config show -c FILE",
            ));
        }
        return print(&quick::yaml(&cli.quick).map_err(Failure::usage)?);
    }
    if !quick && cli.quick.cache_ttl.is_some() {
        return Err(Failure::usage("--cache-ttl belongs to --port and --origin"));
    }
    match &cli.verb {
        None | Some(Verb::Run { .. }) => run(cli, &cli.run, role, arguments),
        Some(Verb::Check { route, json }) => check::check(cli, route.as_deref(), *json),
        Some(Verb::Config { what: ConfigVerb::Show }) => {
            let loaded = load(cli)?;
            print(&config::shown(&loaded))
        }
        Some(Verb::Explain(flags)) => print(&explain::explain(cli, flags)?),
        Some(Verb::Purge(flags)) => print(&purge::purge(cli, flags)?),
        Some(Verb::Reload(flags)) => print(&tell::reload(cli, flags)?),
        Some(Verb::Upgrade(flags)) => print(&upgrade::upgrade(cli, flags)?),
        Some(Verb::Upstreams { what }) => print(&upstreams::upstreams(cli, what)?),
        Some(Verb::Schema(_)) => print(&config::json_schema()),
        Some(Verb::Init { file, .. }) => init::init(file),
        Some(Verb::Completions { shell, .. }) => {
            let mut out = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "edgeproxy", &mut out);
            print(&String::from_utf8_lossy(&out))
        }
        Some(Verb::Man(_)) => print(&man::page().map_err(Failure::other)?),
    }
}

/// Writes to standard output. A reader that left early (`| head`) is not a failure.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let newline = if text.ends_with('\n') { "" } else { "\n" };
    written(write!(out, "{text}{newline}").and_then(|()| out.flush()))
}

/// What came of writing to standard output.
fn written(wrote: std::io::Result<()>) -> Result<(), Failure> {
    match wrote.and_then(|()| open_for_writing()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::other(format!("cannot write to standard output: {e}")))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Whether standard output can be written to at all: what is written to one that can only be read is lost, and
/// the library says nothing.
fn open_for_writing() -> std::io::Result<()> {
    let flags = OFlag::from_bits_truncate(fcntl(std::io::stdout(), FcntlArg::F_GETFL)?);
    if flags & OFlag::O_ACCMODE == OFlag::O_RDONLY {
        return Err(Errno::EBADF.into());
    }
    Ok(())
}

/// The configuration of this command line: a file, or the one-line mode.
fn load(cli: &Cli) -> Result<Loaded, Failure> {
    let wrong = |diagnostics: config::diagnostic::Diagnostics| Failure {
        code: CONFIGURATION,
        message: diagnostics.render(Style::of_stderr()),
    };
    if let Some(path) = &cli.conf {
        return config::load(path).map_err(wrong);
    }
    if cli.quick.port.is_some() || cli.quick.origin.is_some() {
        let config = quick::config(&cli.quick).map_err(Failure::usage)?;
        return config::from_config(config).map_err(wrong);
    }
    Err(Failure::usage(
        "nothing to run or to look at: name a configuration with -c FILE, or an origin with --port and --origin \
         (see --help)",
    ))
}

fn run(cli: &Cli, flags: &RunFlags, role: Role, arguments: &[OsString]) -> Result<(), Failure> {
    if flags.test {
        return check::check(cli, None, false);
    }
    let folder = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    let invocation = Invocation { arguments: arguments.to_vec(), folder };
    let origin = match role {
        Role::NextDaemon | Role::Next => Origin::Successor,
        Role::Command | Role::Daemon if flags.upgrade => Origin::Successor,
        Role::Command | Role::Daemon => Origin::Fresh,
    };
    let starter = match role {
        Role::Command => None,
        Role::Daemon | Role::NextDaemon => Some((Starter::detach(), Ground::Back)),
        Role::Next => Some((Starter::beside(), Ground::Fore)),
    };
    if let Some((starter, ground)) = starter {
        let starter = starter.map_err(|e| match ground {
            Ground::Back => {
                Failure::usage(format!("{} is what -d adds by itself; use -d ({e})", daemon::MARK))
            }
            Ground::Fore => Failure::usage(format!(
                "{} is what `upgrade` adds by itself; use that ({e})",
                succession::MARK
            )),
        })?;
        let waiting = Some(starter.clone());
        let manner = Manner { starter: waiting, ground, origin, invocation };
        let ended = load(cli).and_then(|loaded| serve(cli, loaded, manner));
        // Whoever waits sees it, if it comes before the process served. The log has it too.
        return ended.map_err(|failure| starter.failed(failure));
    }
    let mut loaded = load(cli)?;
    if flags.daemon {
        warn_of_readers(cli, &mut loaded);
    }
    if !loaded.warnings.is_empty() {
        complain(&loaded.warnings.render(Style::of_stderr()));
    }
    if flags.daemon {
        let process = absolute(loaded.plan)?.process;
        return daemon::launch(&process, arguments, flags.upgrade);
    }
    serve(cli, loaded, Manner { starter: None, ground: Ground::Fore, origin, invocation })
}

fn serve(cli: &Cli, loaded: Loaded, manner: Manner) -> Result<(), Failure> {
    let file = cli.conf.as_deref().map(config::File::new);
    let seen = reload::seen(file.as_ref(), &loaded.config);
    diagnostics::tell(loaded.plan.log_level);
    // A daemon changes its folder: what was written relative to here stays so.
    let plan = match manner.ground {
        Ground::Back => absolute(loaded.plan)?,
        Ground::Fore => loaded.plan,
    };
    server::run(Written { plan, file, seen }, manner).map_err(Failure::other)
}

/// Warns of files that root reads at the start, and that the user whom a daemon becomes cannot read again when they
/// change: certificates that are renewed would not be seen.
fn warn_of_readers(cli: &Cli, loaded: &mut Loaded) {
    let Some(file) = cli.conf.as_deref().map(config::File::new) else { return };
    // Who is not root, or nobody that is known here, is told of that elsewhere.
    let Ok(Some(identity)) = Identity::of(&loaded.plan.process) else { return };
    let files = file.all(&loaded.config);
    for denied in identity.may_not_read(&files).unwrap_or_default() {
        let denied = denied.display();
        let message = format!("{denied}: process.user may not read this file");
        let mut warning = Diagnostic::new(Severity::Warning, message);
        warning.help(
            "a daemon reads it again as process.user: when it changes, with every reload and upgrade; \
             `chgrp` and `chmod 640` let its group read it",
        );
        loaded.warnings.push(warning);
    }
}

fn absolute(mut plan: Plan) -> Result<Plan, Failure> {
    let here = std::env::current_dir().map_err(Failure::other)?;
    plan.make_absolute(&here);
    Ok(plan)
}

/// Refuses to write over what is there.
fn write_new(path: &Path, text: &str) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true).open(path)?.write_all(text.as_bytes())
}
