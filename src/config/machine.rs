//! Whether this machine has what a configuration names, and whether it fits: files, certificates,
//! users. Said with its place in the configuration, together with everything else that is wrong, and
//! before anything starts.

use std::io;
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::Path as FilePath;
use std::path::PathBuf;
use std::time::SystemTime;

use nix::errno::Errno;
use nix::unistd;
use nix::unistd::AccessFlags;
use nix::unistd::Group;
use nix::unistd::User;
use nix::unistd::access;

use crate::config::Surroundings;
use crate::config::diagnostic::Severity;
use crate::config::diagnostic::advice;
use crate::config::path::Path;
use crate::config::pid_file;
use crate::config::report::Report;
use crate::config::same;
use crate::config::schema::Config;
use crate::config::schema::listen::Certificate;
use crate::config::schema::listen::ClientAuth;
use crate::config::schema::process::Process;
use crate::config::schema::secret::Secret;
use crate::config::schema::upstream::OriginTls;
use crate::config::schema::value::OrAuto;
use crate::config::schema::value::OrOff;
use crate::config::schema::value::Switch;
use crate::listen::local;
use crate::tls;
use crate::tls::files::Part;
use crate::upstream;

/// Looks at everything that must be there.
pub(super) fn look(
    config: &Config,
    surroundings: &Surroundings,
    now: SystemTime,
    report: &mut Report<'_>,
) {
    let folder = surroundings.folder.as_path();
    places(config, surroundings, report);
    same::look(config, surroundings, report);
    identity(&config.process, &Path::root().key("process"), report);
    let listeners = Path::root().key("listeners");
    for (n, listener) in config.listeners.iter().enumerate() {
        is_ours(&listener.address, &listeners.index(n).key("address"), report);
        let certificates = listener.tls.as_ref().map(|tls| tls.certificates.as_slice());
        let at = listeners.index(n).key("tls");
        if let Some(tls) = listener.tls.as_ref() {
            clients(&tls.client_auth, &at.key("client_auth"), folder, now, report);
            let at = at.key("tickets").key("file");
            let file = tls.tickets.as_ref().and_then(|tickets| tickets.file.as_deref());
            if let Some(file) = there(file, &at, folder, report)
                && let Err(error) = tls::tickets::inspect(&tls::Resumption::Shared(file))
            {
                say(report, Severity::Error, &at, &error.to_string(), KEYS);
            }
        }
        let at = at.key("certificates");
        for (m, each) in certificates.unwrap_or_default().iter().enumerate() {
            certificate(each, &at.index(m), folder, now, report);
            if let Some(own) = &each.client_auth {
                clients(own, &at.index(m).key("client_auth"), folder, now, report);
            }
        }
    }
    if let Some(address) = config.admin.as_ref().and_then(|admin| admin.address.as_deref()) {
        is_ours(address, &Path::root().key("admin").key("address"), report);
    }
    let at_acme = Path::root().key("acme");
    if let Some(root) = there(config.acme.root.as_deref(), &at_acme.key("root"), folder, report)
        && let Err(wrong) = upstream::tls::check_authorities(&root)
    {
        report.error(&at_acme.key("root"), wrong.to_string()).help("PEM certificates are expected");
    }
    if let Some(OrOff::Is(path)) = config.admin.as_ref().map(|admin| &admin.state_file) {
        writable(path, &Path::root().key("admin").key("state_file"), folder, report);
    }
    for (name, upstream) in &config.upstreams {
        let at = Path::root().key("upstreams").key(name.as_str());
        origins(&upstream.tls, &at.key("tls"), folder, now, report);
        for (n, address) in upstream.addresses.iter().enumerate() {
            if let Some(tls) = &address.tls {
                origins(tls, &at.key("addresses").index(n).key("tls"), folder, now, report);
            }
        }
    }
}

/// What to do where nothing better is said.
const PEM: &str = "name files with PEM, a certificate and the key that belongs to it";
const KEYS: &str = "name a file of keys that the process may read";

/// Reports what others say of a file: what to do is behind a semicolon, or else `help`.
fn say(report: &mut Report<'_>, severity: Severity, at: &Path, message: &str, help: &str) {
    let (message, advice) = advice(message);
    let diagnostic = match severity {
        Severity::Error => report.error(at, message),
        Severity::Warning => report.warning(at, message),
    };
    diagnostic.help(advice.unwrap_or(help));
}

/// What is made of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Folder,
    /// Lines are added to it.
    Log,
    Pid,
    Socket,
}

/// The paths of the process that are written out. Those that are not are made below the state folder, and a
/// process that needs none of them starts without it.
fn places(config: &Config, surroundings: &Surroundings, report: &mut Report<'_>) {
    let (process, at) = (&config.process, Path::root().key("process"));
    let written = |path: &OrAuto<PathBuf>| match path {
        OrAuto::Auto => None,
        OrAuto::Is(path) => Some(path.clone()),
    };
    // Where certificates are kept, it is needed whoever named it.
    let keeps = config.listeners.iter().any(|listener| {
        let tls = listener.tls.as_ref();
        tls.is_some_and(|tls| {
            tls.auto || tls.certificates.iter().any(|one| one.internal || one.acme)
        })
    });
    let state =
        written(&process.state_dir).or_else(|| keeps.then(|| surroundings.state_dir.clone()));
    let admin = config.admin.as_ref();
    let log = match config.access_log.to.as_str() {
        "off" | "stdout" => None,
        path => Some(PathBuf::from(path)),
    };
    for (at, path, used) in [
        (at.key("state_dir"), state, Use::Folder),
        (at.key("pid_file"), written(&process.pid_file), Use::Pid),
        (at.key("log_file"), written(&process.log_file), Use::Log),
        (at.key("upgrade_socket"), written(&process.upgrade_socket), Use::Socket),
        (
            Path::root().key("admin").key("socket"),
            admin.and_then(|admin| admin.socket.clone()),
            Use::Socket,
        ),
        (Path::root().key("access_log").key("to"), log, Use::Log),
    ] {
        // An empty one was reported as that.
        if let Some(path) = path.filter(|path| !path.as_os_str().is_empty()) {
            usable(&path, used, &at, &surroundings.folder, report);
        }
    }
    let at = at.key("working_directory");
    if let Some(path) = &process.working_directory
        && !path.as_os_str().is_empty()
        && !surroundings.folder.join(path).is_dir()
    {
        let why =
            if surroundings.folder.join(path).exists() { "is no folder" } else { "is not there" };
        report.error(&at, format!("{} {why}", path.display())).help("name a folder that exists");
    }
}

/// Reports what can never be made of a path as an error, and what only this user may not do as a warning:
/// who checks is not always who starts.
fn usable(path: &FilePath, used: Use, at: &Path, folder: &FilePath, report: &mut Report<'_>) {
    let whole = folder.join(path);
    if let Ok(about) = std::fs::metadata(&whole) {
        let kind = about.file_type();
        let problem = match used {
            Use::Folder if !about.is_dir() => "is not a folder",
            Use::Log | Use::Pid if about.is_dir() => "is a folder",
            Use::Pid if is_no_pid_file(&whole) => "is there, and is no pid file",
            Use::Log if kind.is_socket() || kind.is_block_device() => "is there, and is no file",
            // Only what nobody needs is replaced.
            Use::Socket if !about.file_type().is_socket() => "is there, and is no socket",
            Use::Folder | Use::Log | Use::Pid | Use::Socket => "",
        };
        if !problem.is_empty() {
            report.error(at, format!("{} {problem}", path.display())).help("name another path");
            return;
        }
        let right = match used {
            Use::Folder => Some(AccessFlags::W_OK | AccessFlags::X_OK),
            Use::Log | Use::Pid => Some(AccessFlags::W_OK),
            Use::Socket => None,
        };
        // What is called so is a stream of whoever starts it, and has a reader.
        if used == Use::Log && kind.is_fifo() && !whole.starts_with("/dev") {
            report.warning(at, format!("{} is a pipe", path.display())).help(
                "nothing starts while nobody reads from it: name a file, or start its reader first",
            );
        }
        if let Some(right) = right {
            if let Err(error) = access(&whole, right) {
                unwritable(&whole, error, at, report);
            }
            return;
        }
    }
    // A folder that is not there is made, in the nearest one that is.
    let there = whole.ancestors().skip(1).find(|folder| folder.exists());
    let Some(there) = there.filter(|there| !there.as_os_str().is_empty()) else { return };
    if !there.is_dir() {
        report
            .error(
                at,
                format!("{} cannot be made: {} is not a folder", path.display(), there.display()),
            )
            .help("name another path");
    } else if let Err(error) = access(there, AccessFlags::W_OK | AccessFlags::X_OK) {
        unwritable(there, error, at, report);
    }
}

/// Whether something is there that a pid file must not replace. What cannot be read is judged by who starts.
fn is_no_pid_file(path: &FilePath) -> bool {
    pid_file::read(path).is_err_and(|e| e.kind() == io::ErrorKind::AlreadyExists)
}

fn unwritable(there: &FilePath, error: Errno, at: &Path, report: &mut Report<'_>) {
    report
        .warning(at, format!("you cannot write to {}: {}", there.display(), error.desc()))
        .help("who starts the process must, and can be another user");
}

/// Reports that a file could not be written: it is replaced as a whole, so what counts is its folder.
fn writable(path: &FilePath, at: &Path, folder: &FilePath, report: &mut Report<'_>) {
    if path.as_os_str().is_empty() {
        return;
    }
    let whole = folder.join(path);
    if whole.is_dir() {
        report.error(at, format!("{} is a folder", path.display())).help("name a file in it");
        return;
    }
    if whole.exists() && !whole.is_file() {
        let message = format!("{} is there, and is no file", path.display());
        report.error(at, message).help("name another path");
        return;
    }
    // A folder that is not there is made, in the nearest one that is.
    let there = whole.ancestors().skip(1).find(|folder| folder.exists());
    let Some(there) =
        there.map(|folder| if folder.as_os_str().is_empty() { FilePath::new(".") } else { folder })
    else {
        return;
    };
    let problem = match access(there, AccessFlags::W_OK | AccessFlags::X_OK) {
        Ok(()) if there.is_dir() => return,
        Ok(()) => "it is not a folder".to_owned(),
        Err(error) => error.desc().to_owned(),
    };
    report
        .error(at, format!("nothing can be written in {}: {problem}", there.display()))
        .help("name a file in a folder that the process may write to, or write `off`");
}

/// Whom origins must be trusted by, and what they are shown.
fn origins(
    tls: &Switch<OriginTls>,
    at: &Path,
    folder: &FilePath,
    now: SystemTime,
    report: &mut Report<'_>,
) {
    let Some(tls) = tls.as_ref() else { return };
    let at_ca = at.key("ca");
    if let Some(ca) = there(tls.ca.as_deref(), &at_ca, folder, report)
        && let Err(wrong) = upstream::tls::check_authorities(&ca)
    {
        report.error(&at_ca, wrong.to_string()).help("PEM certificates are expected");
    }
    let files = (tls.certificate.as_deref(), tls.key.as_deref());
    pair(files, &[], at, folder, now, report);
}

/// Warns of an address that this machine does not have. It may still get it before it starts, and a
/// process that takes over is given the socket; so this is no error. Whether the port is free is not
/// asked: where one checks, there is mostly one that serves.
fn is_ours(address: &str, at: &Path, report: &mut Report<'_>) {
    // What is no address was reported as that.
    let Ok(address) = address.parse::<SocketAddr>() else { return };
    if local::is_absent(address.ip()) {
        report.warning(at, format!("{} is not an address of this machine now", address.ip())).help(
            "as long as it is not, nothing starts; \"0.0.0.0\" and \"[::]\" are every address",
        );
    }
}

/// The user and the group that a daemon becomes.
fn identity(process: &Process, at: &Path, report: &mut Report<'_>) {
    let user = |name: &str| User::from_name(name).map(|found| found.is_some());
    let group = |name: &str| Group::from_name(name).map(|found| found.is_some());
    is_known("user", process.user.as_deref(), user, at, report);
    is_known("group", process.group.as_deref(), group, at, report);
    let (own_user, own_group) = (unistd::geteuid(), unistd::getegid());
    if own_user.is_root() {
        return;
    }
    let user = process.user.as_deref().and_then(|name| User::from_name(name).ok().flatten());
    let group = process.group.as_deref().and_then(|name| Group::from_name(name).ok().flatten());
    let others = [
        ("user", user.is_some_and(|user| user.uid != own_user)),
        ("group", group.is_some_and(|group| group.gid != own_group)),
    ];
    for (key, _) in others.into_iter().filter(|(_, is_other)| *is_other) {
        report
            .warning(&at.key(key), format!("only root can become this {key}, and you are not root"))
            .help("with -d the process does not start so; in the foreground it stays who it is");
    }
}

fn is_known(
    kind: &str,
    name: Option<&str>,
    find: impl Fn(&str) -> Result<bool, Errno>,
    at: &Path,
    report: &mut Report<'_>,
) {
    // One without a name was reported as that.
    let Some(name) = name.filter(|name| !name.trim().is_empty()) else { return };
    let problem = match find(name) {
        Ok(true) => return,
        Ok(false) => format!("there is no {kind} \"{name}\" on this machine"),
        Err(error) => format!("the {kind} \"{name}\" cannot be looked up: {error}"),
    };
    report
        .error(&at.key(kind), problem)
        .help(format!("name a {kind} that exists, or remove the key to stay who starts it"));
}

fn certificate(
    written: &Certificate,
    at: &Path,
    folder: &FilePath,
    now: SystemTime,
    report: &mut Report<'_>,
) {
    let hosts: Vec<String> = written.hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
    let files = (written.certificate.as_deref(), written.key.as_deref());
    pair(files, &hosts, at, folder, now, report);
}

/// A certificate for these hosts, and its key.
fn pair(
    (certificate, key): (Option<&FilePath>, Option<&FilePath>),
    hosts: &[String],
    at: &Path,
    folder: &FilePath,
    now: SystemTime,
    report: &mut Report<'_>,
) {
    let (at_certificate, at_key) = (at.key("certificate"), at.key("key"));
    let certificate = there(certificate, &at_certificate, folder, report);
    let key = there(key, &at_key, folder, report);
    let found = tls::files::inspect(certificate.as_deref(), key.as_deref(), hosts, now);
    let place = |part| match part {
        Part::Certificate => &at_certificate,
        Part::Key => &at_key,
    };
    for (part, error) in found.errors {
        say(report, Severity::Error, place(part), &error.to_string(), PEM);
    }
    for (part, warning) in found.warnings {
        say(report, Severity::Warning, place(part), &warning.to_string(), PEM);
    }
}

/// What clients' certificates are held to.
fn clients(
    written: &Switch<ClientAuth>,
    at: &Path,
    folder: &FilePath,
    now: SystemTime,
    report: &mut Report<'_>,
) {
    let Some(written) = written.as_ref() else { return };
    let ca = there(written.ca.as_deref(), &at.key("ca"), folder, report);
    let lists = written.crl.iter().enumerate();
    let lists: Vec<Option<PathBuf>> =
        lists.map(|(n, list)| there(Some(list), &at.key("crl").index(n), folder, report)).collect();
    let Some(authorities) = ca else { return };
    let mut inspect = |revoked: Vec<PathBuf>, place: &Path| {
        let clients =
            tls::Clients { need: tls::Need::Required, authorities: authorities.clone(), revoked };
        match tls::clients::inspect(&tls::ClientAuth::On(clients), now) {
            Ok(warnings) => {
                for warning in warnings {
                    say(report, Severity::Warning, place, &warning.to_string(), PEM);
                }
                true
            }
            Err(error) => {
                say(report, Severity::Error, place, &error.to_string(), PEM);
                false
            }
        }
    };
    if inspect(Vec::new(), &at.key("ca")) {
        for (n, list) in lists.into_iter().enumerate() {
            if let Some(list) = list {
                inspect(vec![list], &at.key("crl").index(n));
            }
        }
    }
}

/// The most that a file with a secret may hold, in bytes.
const SECRET_BYTES: u64 = 64 << 10;

/// The secret in a file: all of it but for a line break at its end.
pub(super) fn secret(path: &FilePath) -> Result<Secret, String> {
    let say = |error: io::Error| error.to_string();
    let mut bytes = Vec::new();
    let file = tls::disk::open(path).map_err(say)?;
    file.take(SECRET_BYTES + 1).read_to_end(&mut bytes).map_err(say)?;
    if bytes.len() as u64 > SECRET_BYTES {
        return Err(format!("it is larger than {} KiB", SECRET_BYTES >> 10));
    }
    let text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned())?;
    let text =
        text.strip_suffix('\n').map_or(&*text, |text| text.strip_suffix('\r').unwrap_or(text));
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    Ok(Secret::new(text))
}

/// The file that a key names, if it can be read; that it cannot is reported.
fn there(
    path: Option<&FilePath>,
    at: &Path,
    folder: &FilePath,
    report: &mut Report<'_>,
) -> Option<PathBuf> {
    let path = path.filter(|path| !path.as_os_str().is_empty())?;
    let whole = folder.join(path);
    let problem = match tls::disk::open(&whole) {
        Ok(_) => return Some(whole),
        Err(error) => error.to_string(),
    };
    let message = format!("cannot read {}: {problem}", path.display());
    report.error(at, message).help(match path.is_relative() {
        true => format!("relative paths begin in {}", folder.display()),
        false => "name a file that the process may read".to_owned(),
    });
    None
}
