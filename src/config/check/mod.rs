//! From the configuration as written to the one as meant.
//!
//! Pure: nothing is read, opened or resolved here; what depends on the machine comes in as
//! [`Surroundings`] and as a reader of secrets. Every problem is reported, and only a configuration without errors becomes a
//! [`Plan`]: names became indices, patterns are compiled, addresses are parsed.

mod acme;
mod action;
mod address;
pub(in crate::config) mod asking;
mod cache;
mod forms;
mod header;
pub(in crate::config) mod health;
mod insist;
mod listen;
mod matching;
mod names;
mod observe;
mod paths;
mod purge;
pub(in crate::config) mod resilience;
pub(in crate::config) mod route;
pub(in crate::config) mod secret;
mod sticky;
pub(in crate::config) mod unwritten;
pub(in crate::config) mod upstream;
pub(in crate::config) mod uses;
mod zones;

use std::fmt::Display;
use std::path::Path as FilePath;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::named;
use crate::config::path::Path;
use crate::config::plan::AdminAddress;
use crate::config::plan::Plan;
use crate::config::plan::Process;
use crate::config::report::Report;
use crate::config::schema;
use crate::config::schema::value::OrAuto;
use crate::message::target::EncodedSlash;
use crate::message::target::Normalisation;
use crate::message::target::Scheme;
use crate::observe::Sink;
use crate::units::ByteSize;
use crate::units::Period;

pub(in crate::config) use paths::plain;

/// What the address of an origin says of TLS; `None`: nothing, or it is none.
pub(in crate::config) fn scheme(address: &str) -> Option<Scheme> {
    address::origin(address, FilePath::new("")).ok()?.scheme
}

/// What the machine contributes where the configuration says `auto`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surroundings {
    /// Relative paths begin here.
    pub folder: PathBuf,
    /// The configuration itself, where it is a file.
    pub file: Option<PathBuf>,
    /// Where state is kept.
    pub state_dir: PathBuf,
    /// How many cores there are.
    pub cores: usize,
}

/// The longest time that makes sense for anything that waits: a day.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Checks a whole configuration; `secrets` reads the files that hold secrets. `None` when the report holds errors, older ones included.
pub(in crate::config) fn check(
    config: &schema::Config,
    surroundings: &Surroundings,
    secrets: Option<secret::Reader<'_>>,
    report: &mut Report<'_>,
) -> Option<Plan> {
    let root = Path::root();
    let folder = surroundings.folder.as_path();
    let secrets = secret::Files { folder, read: secrets };
    let process = process(&config.process, surroundings, &root.key("process"), report);
    let at_acme = root.key("acme");
    let orders = acme::source(config, &process.state_dir, folder, &at_acme, report);
    let listeners =
        listen::listeners(&config.listeners, &orders, folder, &root.key("listeners"), report);
    let acme = acme::acme(config, orders, &listeners, secrets, &at_acme, report);
    let limits = listen::limits(config, &root, report);
    let upstreams = upstream::upstreams(config, secrets, &root.key("upstreams"), report);
    let storage = cache::store(config, &root, report);
    let routes = route::routes(config, &upstreams, secrets, &root, report);
    sticky::cookies(config, &upstreams, &routes, &root, report);
    let (admin, admin_token) = config.admin.as_ref().map_or((None, None), |written| {
        observe::admin(written, secrets, &listeners, &root.key("admin"), report)
    });
    let state_file = config
        .admin
        .as_ref()
        .and_then(|written| observe::state_file(written, folder, &root.key("admin"), report));
    let access_log = observe::access_log(config, folder, &root.key("access_log"), report);
    let socket = match &admin {
        Some(AdminAddress::Unix(socket)) => Some(socket.as_path()),
        Some(AdminAddress::Tcp(_)) | None => None,
    };
    let log = match &access_log.to {
        Some(Sink::File(path)) => Some(path.as_path()),
        Some(Sink::Stdout) | None => None,
    };
    let own = own_paths(&process, socket, state_file.as_deref(), log, &root);
    let read: Vec<PathBuf> =
        named::files(config).into_iter().map(|file| folder.join(file)).collect();
    paths::apart(&own, surroundings.file.as_deref(), &read, report);
    paths::outside(&own, &kept(config, &process.state_dir, folder), report);
    if report.has_errors() {
        return None;
    }
    Some(Plan {
        process,
        listeners: listeners.into_iter().flatten().collect(),
        acme,
        limits,
        normalisation: Normalisation {
            merge_slashes: config.paths.merge_slashes,
            encoded_slash: match config.paths.encoded_slash {
                schema::listen::EncodedSlash::Keep => EncodedSlash::Keep,
                schema::listen::EncodedSlash::Refuse => EncodedSlash::Refuse,
            },
        },
        upstreams,
        routes,
        storage,
        admin,
        admin_token,
        state_file,
        access_log,
        log_level: observe::level(config.log.level),
    })
}

fn process(
    written: &schema::process::Process,
    surroundings: &Surroundings,
    at: &Path,
    report: &mut Report<'_>,
) -> Process {
    let folder = surroundings.folder.as_path();
    let state_dir = match &written.state_dir {
        OrAuto::Auto => surroundings.state_dir.clone(),
        OrAuto::Is(path) => file(report, &at.key("state_dir"), folder, path),
    };
    let in_state =
        |report: &mut Report<'_>, key: &str, path: &OrAuto<PathBuf>, name: &str| match path {
            OrAuto::Auto => state_dir.join(name),
            OrAuto::Is(path) => file(report, &at.key(key), folder, path),
        };
    let threads = match written.threads {
        OrAuto::Auto => surroundings.cores.clamp(1, 1024),
        OrAuto::Is(threads) => {
            within(report, &at.key("threads"), threads, 1, 1024);
            usize::try_from(threads).unwrap_or(1024)
        }
    };
    for (key, name) in [("user", &written.user), ("group", &written.group)] {
        if name.as_ref().is_some_and(|name| name.trim().is_empty()) {
            report.error(&at.key(key), format!("the {key} has no name")).help(format!(
                "write the name of a {key}, or remove the key to stay who starts it"
            ));
        }
    }
    let socket = in_state(report, "upgrade_socket", &written.upgrade_socket, "upgrade.sock");
    socket_length(report, &at.key("upgrade_socket"), &socket);
    Process {
        threads,
        pid_file: in_state(report, "pid_file", &written.pid_file, "edgeproxy.pid"),
        user: written.user.clone(),
        group: written.group.clone(),
        working_directory: written
            .working_directory
            .as_ref()
            .map(|path| file(report, &at.key("working_directory"), folder, path)),
        log_file: in_state(report, "log_file", &written.log_file, "edgeproxy.log"),
        upgrade_socket: socket,
        drain_timeout: period(
            report,
            &at.key("drain_timeout"),
            written.drain_timeout,
            Duration::ZERO,
            DAY,
        ),
        watch: written.watch,
        state_dir,
    }
}

/// The folders in which the process keeps keys and certificates.
pub(in crate::config) fn kept(
    config: &schema::Config,
    state: &FilePath,
    folder: &FilePath,
) -> [PathBuf; 3] {
    [state.join("ca"), state.join("certs"), acme::folder(&config.acme, state, folder)]
}

/// The paths that the process writes to, listens on or keeps things in.
fn own_paths(
    process: &Process,
    socket: Option<&FilePath>,
    state_file: Option<&FilePath>,
    access_log: Option<&FilePath>,
    root: &Path,
) -> Vec<paths::Own> {
    let at = root.key("process");
    let admin = root.key("admin");
    let all = [
        (at.key("state_dir"), Some(process.state_dir.as_path()), paths::Use::Folder),
        (at.key("pid_file"), Some(process.pid_file.as_path()), paths::Use::Alone),
        (at.key("upgrade_socket"), Some(process.upgrade_socket.as_path()), paths::Use::Alone),
        (at.key("log_file"), Some(process.log_file.as_path()), paths::Use::Log),
        (admin.key("socket"), socket, paths::Use::Alone),
        (admin.key("state_file"), state_file, paths::Use::Alone),
        (root.key("access_log").key("to"), access_log, paths::Use::Log),
    ];
    let there = all.into_iter().filter_map(|(at, path, used)| Some((at, path?, used)));
    // An empty one was reported as that.
    let there = there.filter(|(_, path, _)| path.file_name().is_some());
    there.map(|(at, path, used)| paths::Own { at, path: path.to_owned(), used }).collect()
}

/// Reports a value outside of a range.
fn within<T: PartialOrd + Display>(report: &mut Report<'_>, at: &Path, value: T, min: T, max: T) {
    if value < min || value > max {
        report.error(at, format!("{value} is out of range")).help(format!("from {min} to {max}"));
    }
}

/// A length of time within a range.
fn period(
    report: &mut Report<'_>,
    at: &Path,
    Period(value): Period,
    min: Duration,
    max: Duration,
) -> Duration {
    if value.is_zero() && !min.is_zero() {
        report.error(at, "this time must be longer than nothing").help(format!(
            "from {} to {}",
            Period(min),
            Period(max)
        ));
    } else {
        within(report, at, Period(value), Period(min), Period(max));
    }
    value
}

/// A size within a range.
fn size(report: &mut Report<'_>, at: &Path, value: ByteSize, min: u64, max: u64) -> u64 {
    within(report, at, value, ByteSize(min), ByteSize(max));
    value.0
}

/// A path, relative ones below `folder`.
fn file(report: &mut Report<'_>, at: &Path, folder: &FilePath, path: &FilePath) -> PathBuf {
    if path.as_os_str().is_empty() {
        report.error(at, "the path is empty").help("write a path, or remove the key");
    }
    folder.join(path)
}

/// Reports a path too long for a Unix socket (`sun_path` has 108 bytes, the last one is zero).
fn socket_length(report: &mut Report<'_>, at: &Path, path: &FilePath) {
    let length = path.as_os_str().len();
    if length > 107 {
        report
            .error(at, format!("a socket's path may have 107 bytes, this one has {length}"))
            .help(format!("it stands for {}", path.display()));
    }
}

/// Says of each of these keys that is written in the section at `at` that it has no effect, and `why`: be its value the
/// built-in one, who writes it counts on it.
fn moot(
    at: &Path,
    keys: impl IntoIterator<Item = &'static str>,
    why: &str,
    help: &str,
    report: &mut Report<'_>,
) {
    for key in keys {
        if report.has(&at.key(key)) {
            report.error_in_key(&at.key(key), format!("`{key}` has no effect{why}")).help(help);
        }
    }
}
