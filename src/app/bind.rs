//! Everything that can fail before requests are answered: sockets, certificates, files, rights.
//!
//! Done before the process gives up the rights of root and before it has a second thread. A process
//! that fails here has taken nothing from the one that it was to replace.

use std::io;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use log::warn;
use nix::sys::stat::Mode;
use nix::sys::stat::umask;

use crate::app::handover;
use crate::app::handover::Named;
use crate::app::handover::Taken;
use crate::app::identity::Give;
use crate::app::identity::Identity;
use crate::app::identity::make_folder;
use crate::config::plan::AdminAddress;
use crate::config::plan::Plan;
use crate::listen;
use crate::listen::accept::Bound;
use crate::listen::accept::bind;
use crate::tls::Source;
use crate::tls::answers::Answers;
use crate::tls::error::Error;
use crate::tls::internal;
use crate::tls::store::CertificateStore;
use crate::upstream::Place;

/// The names of our own sockets in a handover. Listeners are handed over by address, and no address
/// looks like this.
const ADMIN: &str = "\tadmin";
const UPGRADE: &str = "\tupgrade";

/// Why the process does not start.
#[derive(Debug)]
pub(crate) enum StartError {
    /// An address cannot be listened on.
    Bind(String, String, io::Error),
    /// No running process hands its sockets over.
    Upgrade(String, io::Error),
    /// Certificates, files or rights are not usable.
    Material(String),
    /// What came after all that failed.
    Start(String),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bind(name, address, e) => {
                write!(f, "cannot listen on {address} (listener \"{name}\"): {e}")?;
                match e.kind() {
                    io::ErrorKind::AddrInUse => write!(
                        f,
                        "; stop what listens there, or take over from it with -u if it is edgeproxy"
                    ),
                    io::ErrorKind::PermissionDenied if address.starts_with('/') => Ok(()),
                    io::ErrorKind::PermissionDenied => {
                        write!(f, "; ports below 1024 need root or CAP_NET_BIND_SERVICE")
                    }
                    io::ErrorKind::AddrNotAvailable => {
                        write!(f, "; the address is not one of this machine's")
                    }
                    _ => Ok(()),
                }
            }
            Self::Upgrade(path, e) => match e.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => write!(
                    f,
                    "cannot take over: no running edgeproxy answers at {path} ({e}); start without \
                     -u, or make process.upgrade_socket the same in both configurations"
                ),
                _ => write!(f, "cannot take over from the process at {path}: {e}"),
            },
            Self::Material(what) => f.write_str(what),
            Self::Start(what) => write!(f, "cannot start: {what}"),
        }
    }
}

/// A listener with everything that can fail done.
pub(crate) struct Prepared {
    pub(crate) socket: TcpListener,
    pub(crate) tls: Option<Arc<CertificateStore>>,
}

/// Every socket that the process listens on.
pub(crate) struct Sockets {
    /// In the plan's order.
    pub(crate) listeners: Vec<Prepared>,
    pub(crate) admin: Option<Bound>,
    pub(crate) demo: Option<TcpListener>,
    /// Where sockets are offered to the next process; `None`: this was not possible.
    pub(crate) upgrade: Option<UnixListener>,
    /// The sockets' files, removed in the end.
    pub(crate) files: Vec<SocketFile>,
    /// What ACME servers are shown.
    pub(crate) answers: Arc<Answers>,
    /// The process that is replaced.
    pub(crate) taken: Option<Taken>,
}

/// The file of a Unix socket that we listen on.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl SocketFile {
    fn of(path: &Path) -> Option<Self> {
        Some(Self { path: path.to_owned(), inode: path.symlink_metadata().ok()?.ino() })
    }

    /// Removes it, unless another process has put its own there.
    pub(crate) fn remove(&self) {
        if self.path.symlink_metadata().is_ok_and(|about| about.ino() == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Whether the process takes over from a running one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// It starts from nothing.
    Fresh,
    /// It takes the sockets of the process that runs.
    Successor,
}

/// Opens everything, with what a process that is replaced hands over. Files become `identity`'s.
pub(crate) fn prepare(
    plan: &Plan,
    origin: Origin,
    identity: Option<&Identity>,
) -> Result<Sockets, StartError> {
    let mut taken = match origin {
        Origin::Fresh => None,
        Origin::Successor => Some(take_over(&plan.process.upgrade_socket, identity)?),
    };
    if let Some(identity) = identity {
        issue_as(identity, plan)?;
    }
    let answers = Arc::default();
    let listeners = listeners(plan, &answers, &mut taken)?;
    let mut files = Vec::new();
    let admin = match &plan.admin {
        None => None,
        Some(at) => Some(admin_socket(at, &mut taken, identity, &mut files)?),
    };
    let demo = demo_socket(plan)?;
    let upgrade = upgrade_socket(&plan.process.upgrade_socket, &mut taken, identity, &mut files);
    Ok(Sockets { listeners, admin, demo, upgrade, files, answers, taken })
}

fn take_over(path: &Path, identity: Option<&Identity>) -> Result<Taken, StartError> {
    let becomes = identity.map(Identity::user);
    handover::take(path, becomes).map_err(|e| StartError::Upgrade(path.display().to_string(), e))
}

/// The socket of this name, if it was handed over.
fn inherited(taken: &mut Option<Taken>, name: &str) -> Option<OwnedFd> {
    let sockets = &mut taken.as_mut()?.sockets;
    let at = sockets.iter().position(|(known, _)| known == name)?;
    Some(sockets.swap_remove(at).1)
}

/// Lets the internal CA make what is missing as who will renew it.
fn issue_as(identity: &Identity, plan: &Plan) -> Result<(), StartError> {
    let now = SystemTime::now();
    let state = &plan.process.state_dir;
    for listener in &plan.listeners {
        for certificate in listener.tls.iter().flat_map(|tls| &tls.certificates) {
            let is_ours = match &certificate.source {
                // For an ACME server it stands in.
                Source::Internal | Source::Acme { .. } => true,
                Source::Files { .. } => false,
            };
            if is_ours {
                identity
                    .lend(|| internal::ensure(state, &certificate.hosts, now))
                    .map_err(|e| StartError::Material(format!("cannot change user: {e}")))?
                    .map_err(|e| material(listener, &e))?;
            }
        }
    }
    Ok(())
}

fn material(listener: &listen::Settings, error: &Error) -> StartError {
    StartError::Material(format!("listener \"{}\": {error}", listener.name))
}

fn listeners(
    plan: &Plan,
    answers: &Arc<Answers>,
    taken: &mut Option<Taken>,
) -> Result<Vec<Prepared>, StartError> {
    let state = plan.process.state_dir.as_path();
    plan.listeners.iter().map(|one| listener(one, state, answers, taken)).collect()
}

/// Reads the certificates of a listener and binds its address.
pub(crate) fn listener(
    listener: &listen::Settings,
    state: &Path,
    answers: &Arc<Answers>,
    taken: &mut Option<Taken>,
) -> Result<Prepared, StartError> {
    let tls = match &listener.tls {
        None => None,
        Some(settings) => {
            let store = CertificateStore::load(settings, state, SystemTime::now());
            let store = store.map_err(|e| material(listener, &e))?;
            Some(Arc::new(store.with_answers(Arc::clone(answers))))
        }
    };
    let failed = |e| StartError::Bind(listener.name.to_string(), listener.address.to_string(), e);
    // Handed over by address: a listener may be renamed, but not moved.
    let socket = match inherited(taken, &listener.address.to_string()) {
        Some(fd) => {
            let socket = TcpListener::from(fd);
            socket.set_nonblocking(true).map_err(failed)?;
            socket
        }
        None => bind(listener.address).map_err(failed)?,
    };
    Ok(Prepared { socket, tls })
}

fn admin_socket(
    at: &AdminAddress,
    taken: &mut Option<Taken>,
    identity: Option<&Identity>,
    files: &mut Vec<SocketFile>,
) -> Result<Bound, StartError> {
    match at {
        AdminAddress::Tcp(address) => {
            let failed = |e| StartError::Bind("admin".to_owned(), address.to_string(), e);
            let socket = match inherited(taken, ADMIN).map(TcpListener::from) {
                Some(socket) if socket.local_addr().is_ok_and(|local| local == *address) => socket,
                _ => bind(*address).map_err(failed)?,
            };
            socket.set_nonblocking(true).map_err(failed)?;
            Ok(Bound::Tcp(socket))
        }
        AdminAddress::Unix(path) => {
            let failed = |e| StartError::Bind("admin".to_owned(), path.display().to_string(), e);
            let inherited = inherited(taken, ADMIN);
            let socket = private_socket(path, inherited, identity).map_err(failed)?;
            files.extend(SocketFile::of(path));
            Ok(Bound::Unix(socket))
        }
    }
}

/// The place where sockets are offered to a process that is started with `-u`. A process without one
/// serves all the same.
fn upgrade_socket(
    path: &Path,
    taken: &mut Option<Taken>,
    identity: Option<&Identity>,
    files: &mut Vec<SocketFile>,
) -> Option<UnixListener> {
    let inherited = inherited(taken, UPGRADE);
    match private_socket(path, inherited, identity) {
        Ok(socket) => {
            files.extend(SocketFile::of(path));
            Some(socket)
        }
        Err(e) => {
            let hint = match e.kind() {
                io::ErrorKind::AddrInUse => "; another edgeproxy has this process.upgrade_socket",
                _ => "",
            };
            warn!(
                target: "edgeproxy::app",
                "upgrades with -u are not possible: cannot listen on {}: {e}{hint}",
                path.display()
            );
            None
        }
    }
}

/// A non-blocking Unix socket that only its owner can open: the one that was handed over if it is at
/// `path`, else a new one. What nobody listens on any more is replaced.
fn private_socket(
    path: &Path,
    inherited: Option<OwnedFd>,
    identity: Option<&Identity>,
) -> io::Result<UnixListener> {
    if let Some(socket) = inherited.map(UnixListener::from) {
        let here = socket.local_addr().is_ok_and(|at| at.as_pathname() == Some(path));
        if here && path.exists() {
            socket.set_nonblocking(true)?;
            return Ok(socket);
        }
    }
    let bound = match identity {
        Some(identity) => identity.make(path, Give::Away, bind_private)?,
        None => bind_private(path)?,
    };
    bound.set_nonblocking(true)?;
    Ok(bound)
}

/// Listens at `path`, for its owner alone; what nobody listens on any more is replaced.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let private = |mode| {
        // The mode counts from the first moment on; nothing else runs yet.
        let before = umask(Mode::from_bits_truncate(mode));
        move || umask(before)
    };
    if let Some(folder) = path.parent().filter(|folder| !folder.exists()) {
        let restore = private(0o077);
        let made = make_folder(folder);
        restore();
        made?;
    }
    let bind = || {
        let restore = private(0o177);
        let bound = UnixListener::bind(path);
        restore();
        bound
    };
    match bind() {
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
            // Something else that has this name is somebody's.
            if !path.symlink_metadata()?.file_type().is_socket() {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "what is there is no socket",
                ));
            }
            match UnixStream::connect(path) {
                Ok(_) => Err(e),
                // Of another user's nobody can say whether it is in use.
                Err(denied) if denied.kind() == io::ErrorKind::PermissionDenied => Err(denied),
                Err(_) => {
                    std::fs::remove_file(path)?;
                    bind()
                }
            }
        }
        bound => bound,
    }
}

/// A socket for the demo origin, where a backend is it.
pub(crate) fn demo_socket(plan: &Plan) -> Result<Option<TcpListener>, StartError> {
    let wanted = plan.upstreams.iter().flat_map(|u| &u.backends).any(|b| b.at == Place::Demo);
    if !wanted {
        return Ok(None);
    }
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    bind(address).map(Some).map_err(|e| StartError::Bind("demo".to_owned(), address.to_string(), e))
}

/// Copies of the listening sockets, for the process that will take over.
pub(crate) fn offered(sockets: &Sockets) -> Result<Vec<Named>, StartError> {
    let copy = |name: String, fd: io::Result<OwnedFd>| {
        fd.map(|fd| (name, fd)).map_err(|e| {
            StartError::Material(format!("the process may not open enough files: {e}"))
        })
    };
    let Some(upgrade) = &sockets.upgrade else { return Ok(Vec::new()) };
    let mut offered = vec![copy(UPGRADE.to_owned(), upgrade.try_clone().map(OwnedFd::from))?];
    for listener in &sockets.listeners {
        let address = listener.socket.local_addr().map(|a| a.to_string()).unwrap_or_default();
        offered.push(copy(address, listener.socket.try_clone().map(OwnedFd::from))?);
    }
    match &sockets.admin {
        Some(Bound::Tcp(socket)) => {
            offered.push(copy(ADMIN.to_owned(), socket.try_clone().map(OwnedFd::from))?);
        }
        Some(Bound::Unix(socket)) => {
            offered.push(copy(ADMIN.to_owned(), socket.try_clone().map(OwnedFd::from))?);
        }
        None => {}
    }
    Ok(offered)
}
