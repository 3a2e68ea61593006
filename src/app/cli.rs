//! The command line.

use std::path::PathBuf;

use clap::Args;
use clap::Parser;
use clap::Subcommand;
use clap_complete::Shell;

use crate::units::Period;

/// The examples below `--help`.
const EXAMPLES: &str = "\
Examples:
  edgeproxy --port 3000 --origin http://localhost:8000 --cache-ttl 5m
                                         a caching proxy in one line
  edgeproxy -c conf/edge.yaml            run in the foreground
  edgeproxy -c conf/edge.yaml -d         run as a daemon
  edgeproxy -c conf/edge.yaml -t         check the configuration and exit
  edgeproxy -c conf/edge.yaml -d -u      take over from the running process, dropping nothing
  edgeproxy check -c conf/edge.yaml --route GET https://www.example.org/a
                                         say which route a request takes, and why

Exit codes:
  0 success   64 wrong usage   78 wrong configuration   1 anything else

Signals:
  TERM drain and exit   INT exit at once   USR1 open log files again   HUP that, and read
  certificates again";

/// A TLS-terminating, caching edge proxy.
#[derive(Debug, Parser)]
#[command(name = "edgeproxy", version, about, after_help = EXAMPLES)]
#[command(disable_help_subcommand = true)]
pub struct Cli {
    /// What to do; `run` when left out.
    #[command(subcommand)]
    pub verb: Option<Verb>,

    /// The configuration file.
    #[arg(short, long, value_name = "FILE", global = true)]
    pub conf: Option<PathBuf>,

    /// How to run.
    #[command(flatten)]
    pub run: RunFlags,

    /// The one-line mode.
    #[command(flatten)]
    pub quick: QuickFlags,
}

/// How to run.
#[derive(Debug, Clone, Default, Args)]
pub struct RunFlags {
    /// Run as a daemon.
    #[arg(short, long)]
    pub daemon: bool,
    /// Check the configuration and exit.
    #[arg(short, long)]
    pub test: bool,
    /// Take the listening sockets over from the running process.
    #[arg(short, long)]
    pub upgrade: bool,
}

/// A proxy without a configuration file.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Without a configuration file")]
pub struct QuickFlags {
    /// The port to listen on, on every IPv4 address.
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// The origin, such as `http://localhost:8000` or `https://www.example.org`.
    #[arg(long, value_name = "URL")]
    pub origin: Option<String>,
    /// How long responses that say nothing are kept, such as 5m. Without it only what the response
    /// itself allows is stored.
    #[arg(long, value_name = "TIME")]
    pub cache_ttl: Option<Period>,
    /// Print the configuration file that this command line stands for, and exit.
    #[arg(long)]
    pub print_config: bool,
    /// Clear the cache of the running process, and exit.
    #[arg(long)]
    pub clear_cache: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run the proxy.
    Run(RunFlags),
    /// Check the configuration, or ask which route a request takes.
    Check {
        /// A method and a URL: which route would it take, and why?
        #[arg(long, num_args = 2, value_names = ["METHOD", "URL"])]
        route: Option<Vec<String>>,
        /// Print problems as JSON.
        #[arg(long, conflicts_with = "route")]
        json: bool,
    },
    /// Look at the configuration.
    Config {
        /// What to see.
        #[command(subcommand)]
        what: ConfigVerb,
    },
    /// Print the JSON Schema of the configuration file.
    Schema,
    /// Write a commented starter configuration.
    Init {
        /// Where to; it must not exist yet.
        #[arg(value_name = "FILE", default_value = "edge.yaml")]
        file: PathBuf,
    },
    /// Print a completion script.
    Completions {
        /// For which shell.
        shell: Shell,
    },
    /// Print the manual page.
    Man,
}

/// What to see of the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigVerb {
    /// Every value in effect, defaults included, secrets masked.
    Show,
}
