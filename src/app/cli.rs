//! The command line.

use std::path::PathBuf;

use clap::ArgGroup;
use clap::Args;
use clap::Parser;
use clap::Subcommand;
use clap::ValueEnum;
use clap_complete::Shell;

use crate::units::Period;

/// What stands below `--help`, and in the manual: sections apart by an empty line, each with a title.
pub(crate) const EXAMPLES: &str = "\
Examples:
  edgeproxy --port 3000 --origin http://localhost:8000 --cache-ttl 5m
                                         a caching proxy in one line
  edgeproxy -c conf/edge.yaml            run in the foreground
  edgeproxy -c conf/edge.yaml -d         run as a daemon
  edgeproxy -c conf/edge.yaml -t         check the configuration and exit
  edgeproxy -c conf/edge.yaml -d -u      take over from the running process, dropping nothing
  edgeproxy purge -c conf/edge.yaml --tag article-12
                                         forget what has this tag
  edgeproxy explain -c conf/edge.yaml https://www.example.org/a
                                         say what a request would get from the cache, and why
  edgeproxy upstreams list -c conf/edge.yaml
                                         every backend of the running process and how it does
  edgeproxy reload -c conf/edge.yaml     let the running process read its configuration again
  edgeproxy upgrade -c conf/edge.yaml    let a new process follow the running one, dropping
                                         nothing
  edgeproxy check -c conf/edge.yaml --route GET https://www.example.org/a
                                         say which route a request takes, and why

Exit codes:
  0 success   64 wrong usage   78 wrong configuration   1 anything else

Signals:
  TERM drain and exit   INT exit at once   USR1 open log files again   HUP that, and read
  the configuration again";

/// What stands below `upstreams --help`.
const UPSTREAMS_EXAMPLES: &str = "\
Examples:
  edgeproxy upstreams list -c conf/edge.yaml
                                         every backend: state, weight, requests
  edgeproxy upstreams add -c conf/edge.yaml app 10.0.0.3:8080 --id c --weight 2
                                         one more; it gets requests at once
  edgeproxy upstreams set -c conf/edge.yaml app c --weight 5
                                         another share
  edgeproxy upstreams set -c conf/edge.yaml app c --address 10.0.0.9:8080
                                         elsewhere from the next request on
  edgeproxy upstreams drain -c conf/edge.yaml app c
                                         nothing new; what it has it finishes
  edgeproxy upstreams remove -c conf/edge.yaml app c

Changes end with the process unless admin.state_file names a file to keep them in.";

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
    #[arg(long, conflicts_with = "clear_cache")]
    pub print_config: bool,
    /// Clear the cache of the running process, and exit.
    #[arg(long)]
    pub clear_cache: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run the proxy.
    Run {
        /// How to run.
        #[command(flatten)]
        run: RunFlags,
        /// The one-line mode.
        #[command(flatten)]
        quick: QuickFlags,
    },
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
    /// Ask the running process what a request would get, and why.
    Explain(ExplainFlags),
    /// Purge stored responses of the running process.
    Purge(PurgeFlags),
    /// Let the running process read its configuration again.
    Reload(ReloadFlags),
    /// Let a new process follow the running one, dropping nothing.
    ///
    /// The running process starts the new one as it was started itself, and goes when that serves. If it does
    /// not come to serve, nothing has changed.
    Upgrade(UpgradeFlags),
    /// See and change the backends of the running process.
    #[command(after_help = UPSTREAMS_EXAMPLES)]
    Upstreams {
        /// What to do.
        #[command(subcommand)]
        what: UpstreamsVerb,
    },
    /// Print the JSON Schema of the configuration file.
    Schema(Bare),
    /// Write a commented starter configuration.
    Init {
        /// Where to; it must not exist yet.
        #[arg(value_name = "FILE", default_value = "edge.yaml")]
        file: PathBuf,
        /// No configuration.
        #[command(flatten)]
        bare: Bare,
    },
    /// Print a completion script.
    Completions {
        /// For which shell.
        shell: Shell,
        /// No configuration.
        #[command(flatten)]
        bare: Bare,
    },
    /// Print the manual page.
    Man(Bare),
}

/// Which request is explained. Nothing is sent to an origin, and nothing changes in the cache.
#[derive(Debug, Clone, Default, Args)]
pub struct ExplainFlags {
    /// Its URL, such as `https://www.example.org/a?b`.
    #[arg(value_name = "URL")]
    pub url: String,
    /// A field that it has, such as `Accept-Language: de`; may be given again.
    #[arg(short = 'H', long, value_name = "NAME: VALUE")]
    pub header: Vec<String>,
    /// Its method.
    #[arg(long, value_name = "METHOD", default_value = "GET")]
    pub method: String,
    /// Print the answer as JSON.
    #[arg(long)]
    pub json: bool,
    /// The running process of the one-line mode on this port.
    #[arg(long, value_name = "PORT", conflicts_with = "conf")]
    pub port: Option<u16>,
}

/// What is purged, and how: everything that any of these names.
#[derive(Debug, Clone, Default, Args)]
pub struct PurgeFlags {
    /// A URL, with all its variants, such as `https://www.example.org/a?b`; without a scheme, http
    /// and https.
    #[arg(value_name = "URL")]
    pub url: Vec<String>,
    /// A URL with all that is below it and any query.
    #[arg(long, value_name = "URL")]
    pub prefix: Vec<String>,
    /// Everything of a host, on every port.
    #[arg(long, value_name = "HOST")]
    pub host: Vec<String>,
    /// What a route stored.
    #[arg(long, value_name = "NAME")]
    pub route: Vec<String>,
    /// What came from an upstream.
    #[arg(long, value_name = "NAME")]
    pub upstream: Vec<String>,
    /// What is in a zone of the store; `default` is that of all that name none.
    #[arg(long, value_name = "NAME")]
    pub zone: Vec<String>,
    /// What has this tag: a surrogate key, in Surrogate-Key, Cache-Tag or xkey.
    #[arg(long, value_name = "TAG")]
    pub tag: Vec<String>,
    /// Everything.
    #[arg(long)]
    pub all: bool,
    /// Only make it stale: it serves while the origin fails, within its windows, and is confirmed
    /// otherwise.
    #[arg(long)]
    pub soft: bool,
    /// Change nothing; say how much there is.
    #[arg(long)]
    pub dry_run: bool,
    /// Count everything, however long that takes.
    #[arg(long)]
    pub count: bool,
    /// Print the answer as JSON.
    #[arg(long)]
    pub json: bool,
    /// The running process of the one-line mode on this port.
    #[arg(long, value_name = "PORT", conflicts_with = "conf")]
    pub port: Option<u16>,
}

/// A configuration that is wrong, or that needs another process, changes nothing.
#[derive(Debug, Clone, Default, Args)]
pub struct ReloadFlags {
    /// Print the answer as JSON.
    #[arg(long)]
    pub json: bool,
    /// The running process of the one-line mode on this port.
    #[arg(long, value_name = "PORT", conflicts_with = "conf")]
    pub port: Option<u16>,
}

/// A new process in the place of the running one.
#[derive(Debug, Clone, Default, Args)]
pub struct UpgradeFlags {
    /// The program to start; the one that is asked to do this when left out.
    #[arg(long, value_name = "PATH")]
    pub binary: Option<PathBuf>,
    /// How long the new process may take until it serves; 60s when left out.
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<Period>,
    /// The running process of the one-line mode on this port.
    #[arg(long, value_name = "PORT", conflicts_with = "conf")]
    pub port: Option<u16>,
}

/// What to do with the backends of the running process.
#[derive(Debug, Clone, Subcommand)]
pub enum UpstreamsVerb {
    /// Every backend, or those of one upstream.
    List {
        /// The name of an upstream.
        #[arg(value_name = "UPSTREAM")]
        upstream: Option<String>,
        /// Print all that is known, as JSON.
        #[arg(long)]
        json: bool,
        /// Whom to ask.
        #[command(flatten)]
        whom: Whom,
    },
    /// Add a backend.
    Add {
        /// The name of the upstream.
        #[arg(value_name = "UPSTREAM")]
        upstream: String,
        /// Where it is: `host:port`, `http://host`, `https://host` or `unix:/path`.
        #[arg(value_name = "ADDRESS")]
        address: String,
        /// What it is called; without it, as its address.
        #[arg(long, value_name = "ID")]
        id: Option<String>,
        /// Its share of requests relative to its siblings, 1 to 1000.
        #[arg(long, value_name = "N")]
        weight: Option<u32>,
        /// It gets requests only while none of the others can be used.
        #[arg(long)]
        backup: bool,
        /// It gets no requests before `set --active true`.
        #[arg(long)]
        inactive: bool,
        /// How it is spoken to.
        #[command(flatten)]
        tls: TlsFlags,
        /// Whom to ask.
        #[command(flatten)]
        whom: Whom,
    },
    /// Change a backend.
    #[command(group = ArgGroup::new("what").required(true).multiple(true).args(["address", "tls", "server_name", "ca", "weight", "active", "backup"]))]
    Set {
        /// Which one.
        #[command(flatten)]
        which: Which,
        /// Where it is from now on; it keeps its id.
        #[arg(long, value_name = "ADDRESS")]
        address: Option<String>,
        /// How it is spoken to.
        #[command(flatten)]
        tls: TlsFlags,
        /// Its share of requests relative to its siblings, 1 to 1000.
        #[arg(long, value_name = "N")]
        weight: Option<u32>,
        /// Whether it gets requests.
        #[arg(long, value_name = "true|false")]
        active: Option<bool>,
        /// Whether it gets requests only while none of the others can be used.
        #[arg(long, value_name = "true|false")]
        backup: Option<bool>,
    },
    /// Give a backend no more requests; what it has it finishes.
    Drain(Which),
    /// Give it requests again.
    Undrain(Which),
    /// Remove a backend; what it has it finishes.
    Remove(Which),
    /// Close its circuit breaker.
    Reset(Which),
    /// Check the health of the backends of an upstream now, or of one.
    Check {
        /// The name of the upstream.
        #[arg(value_name = "UPSTREAM")]
        upstream: String,
        /// The id of a backend.
        #[arg(value_name = "ID")]
        id: Option<String>,
        /// Whom to ask.
        #[command(flatten)]
        whom: Whom,
    },
}

/// A backend of the running process.
#[derive(Debug, Clone, Args)]
pub struct Which {
    /// The name of the upstream.
    #[arg(value_name = "UPSTREAM")]
    pub upstream: String,
    /// The id of the backend.
    #[arg(value_name = "ID")]
    pub id: String,
    /// Whom to ask.
    #[command(flatten)]
    pub whom: Whom,
}

/// TLS towards a backend. Further keys can be set over the admin listener.
#[derive(Debug, Clone, Default, Args)]
pub struct TlsFlags {
    /// TLS with every default, none, or what the upstream has.
    #[arg(long, value_name = "on|off|upstream", conflicts_with_all = ["server_name", "ca"])]
    pub tls: Option<TlsFlag>,
    /// The name that it is told, and that its certificate must have.
    #[arg(long, value_name = "NAME")]
    pub server_name: Option<String>,
    /// A PEM file with the authorities to trust.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
}

/// Whether TLS is spoken to a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TlsFlag {
    /// It is.
    On,
    /// It is not.
    Off,
    /// As the upstream says.
    Upstream,
}

/// The running process.
#[derive(Debug, Clone, Default, Args)]
pub struct Whom {
    /// That of the one-line mode on this port.
    #[arg(long, value_name = "PORT", conflicts_with = "conf")]
    pub port: Option<u16>,
}

/// What a flag is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum About {
    /// Which configuration.
    Configuration,
    /// How the proxy runs.
    Running,
    /// What is done instead of running it.
    Deed,
}

impl Cli {
    /// Brings the flags of `run`, which may stand before the verb and behind it, to one place.
    ///
    /// # Errors
    /// A flag that has a value in both places.
    pub fn settle(&mut self) -> Result<(), &'static str> {
        let Some(Verb::Run { run, quick }) = &mut self.verb else { return Ok(()) };
        self.run.add(&std::mem::take(run));
        self.quick.add(std::mem::take(quick))
    }

    /// The first flag that means nothing beside this verb, and the verb: what is accepted has an
    /// effect.
    #[must_use]
    pub fn idle_flag(&self) -> Option<(&'static str, &'static str)> {
        use About::Configuration;
        use About::Deed;
        use About::Running;

        let (verb, uses): (_, &[About]) = match &self.verb {
            None | Some(Verb::Run { .. }) if self.quick.clear_cache => {
                ("--clear-cache", &[Configuration, Deed])
            }
            None | Some(Verb::Run { .. }) if self.quick.print_config => {
                ("--print-config", &[Configuration, Deed])
            }
            None | Some(Verb::Run { .. }) => ("run", &[Configuration, Running]),
            Some(Verb::Check { .. }) => ("check", &[Configuration]),
            Some(Verb::Config { what: ConfigVerb::Show }) => ("config show", &[Configuration]),
            Some(Verb::Explain(_)) => ("explain", &[Configuration]),
            Some(Verb::Purge(_)) => ("purge", &[Configuration]),
            Some(Verb::Reload(_)) => ("reload", &[Configuration]),
            Some(Verb::Upgrade(_)) => ("upgrade", &[Configuration]),
            Some(Verb::Upstreams { .. }) => ("upstreams", &[Configuration]),
            Some(Verb::Schema(_)) => ("schema", &[]),
            Some(Verb::Init { .. }) => ("init", &[]),
            Some(Verb::Completions { .. }) => ("completions", &[]),
            Some(Verb::Man(_)) => ("man", &[]),
        };
        let QuickFlags { port, origin, cache_ttl, print_config, clear_cache } = &self.quick;
        let flags = [
            ("-c", self.conf.is_some(), Configuration),
            ("--port", port.is_some(), Configuration),
            ("--origin", origin.is_some(), Configuration),
            ("--cache-ttl", cache_ttl.is_some(), Configuration),
            ("-d", self.run.daemon, Running),
            ("-t", self.run.test, Running),
            ("-u", self.run.upgrade, Running),
            ("--print-config", *print_config, Deed),
            ("--clear-cache", *clear_cache, Deed),
        ];
        let idle = flags.iter().find(|(_, given, about)| *given && !uses.contains(about));
        idle.map(|(flag, ..)| (*flag, verb))
    }
}

impl RunFlags {
    fn add(&mut self, other: &Self) {
        self.daemon |= other.daemon;
        self.test |= other.test;
        self.upgrade |= other.upgrade;
    }
}

impl QuickFlags {
    fn add(&mut self, other: Self) -> Result<(), &'static str> {
        let Self { port, origin, cache_ttl, print_config, clear_cache } = other;
        add("--port", &mut self.port, port)?;
        add("--origin", &mut self.origin, origin)?;
        add("--cache-ttl", &mut self.cache_ttl, cache_ttl)?;
        self.print_config |= print_config;
        self.clear_cache |= clear_cache;
        Ok(())
    }
}

fn add<T>(flag: &'static str, to: &mut Option<T>, other: Option<T>) -> Result<(), &'static str> {
    if to.is_some() && other.is_some() {
        return Err(flag);
    }
    *to = to.take().or(other);
    Ok(())
}

/// For verbs that look at no configuration: `-c` is understood, so that it is refused in our words, and
/// not in their help.
#[derive(Debug, Clone, Default, Args)]
pub struct Bare {
    /// The same as that of all other verbs.
    #[arg(id = "conf", short, long, value_name = "FILE", hide = true)]
    pub conf: Option<PathBuf>,
}

/// What to see of the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigVerb {
    /// Every value in effect, defaults included, secrets masked.
    Show,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(line: &str) -> Result<Cli, &'static str> {
        let mut cli = Cli::try_parse_from(line.split(' ')).expect("it is understood");
        cli.settle().map(|()| cli)
    }

    fn idle(line: &str) -> Option<(&'static str, &'static str)> {
        settled(line).expect("nothing is said twice").idle_flag()
    }

    #[test]
    fn flags_of_run_may_stand_before_it_and_behind_it() {
        for line in [
            "edgeproxy --port 1 --origin http://a --cache-ttl 5m -d",
            "edgeproxy run --port 1 --origin http://a --cache-ttl 5m -d",
            "edgeproxy -d --port 1 run --origin http://a --cache-ttl 5m",
        ] {
            let cli = settled(line).expect("nothing is said twice");
            assert_eq!(cli.quick.port, Some(1), "{line}");
            assert_eq!(cli.quick.origin.as_deref(), Some("http://a"), "{line}");
            assert!(cli.quick.cache_ttl.is_some() && cli.run.daemon && !cli.run.test, "{line}");
        }
        for (line, flag) in [
            ("edgeproxy --port 1 run --port 2", "--port"),
            ("edgeproxy --origin http://a run --origin http://a", "--origin"),
            ("edgeproxy --cache-ttl 1s run --cache-ttl 1s", "--cache-ttl"),
        ] {
            assert_eq!(settled(line).err(), Some(flag), "{line}");
        }
    }

    #[test]
    fn every_flag_that_a_verb_has_no_use_for_is_found() {
        for (line, flag, verb) in [
            ("edgeproxy -c a init", "-c", "init"),
            ("edgeproxy init -c a", "-c", "init"),
            ("edgeproxy schema -c a", "-c", "schema"),
            ("edgeproxy --port 1 completions bash", "--port", "completions"),
            ("edgeproxy -d man", "-d", "man"),
            ("edgeproxy --clear-cache init", "--clear-cache", "init"),
            ("edgeproxy --cache-ttl 5m schema", "--cache-ttl", "schema"),
            ("edgeproxy -d check -c a", "-d", "check"),
            ("edgeproxy -t config show -c a", "-t", "config show"),
            ("edgeproxy -u --clear-cache -c a", "-u", "--clear-cache"),
            ("edgeproxy --port 1 --origin http://a -d --print-config", "-d", "--print-config"),
            ("edgeproxy --print-config check -c a", "--print-config", "check"),
            ("edgeproxy --clear-cache run -d -c a", "-d", "--clear-cache"),
            ("edgeproxy run --clear-cache -d -c a", "-d", "--clear-cache"),
        ] {
            assert_eq!(idle(line), Some((flag, verb)), "{line}");
        }
    }

    #[test]
    fn flags_with_an_effect_are_left_alone() {
        for line in [
            "edgeproxy -c a -d -u",
            "edgeproxy -c a run -t",
            "edgeproxy -t run -c a",
            "edgeproxy --port 1 --origin http://a --cache-ttl 5m -d",
            "edgeproxy run --port 1 --origin http://a",
            "edgeproxy run --port 1 --origin http://a --print-config",
            "edgeproxy --port 1 --origin http://a check",
            "edgeproxy --port 1 --origin http://a config show",
            "edgeproxy --port 1 --origin http://a --print-config",
            "edgeproxy --clear-cache --port 1",
            "edgeproxy --clear-cache -c a",
            "edgeproxy init",
        ] {
            assert_eq!(idle(line), None, "{line}");
        }
    }
}
