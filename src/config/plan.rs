//! The configuration as meant: what exists here is valid.

use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;

use crate::acme;
use crate::listen;
use crate::message::secret::Token;
use crate::message::target::Normalisation;
use crate::observe;
use crate::route::table::Table;
use crate::storage;
use crate::tls;
use crate::upstream;
use crate::upstream::OriginTls;

/// A whole, valid configuration.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The process: threads, user, files.
    pub process: Process,
    /// Where clients connect; never empty.
    pub listeners: Vec<listen::Settings>,
    /// From whom certificates are ordered; `None`: none are.
    pub acme: Option<acme::Settings>,
    /// What guards every connection.
    pub limits: listen::Limits,
    /// The normal form of paths.
    pub normalisation: Normalisation,
    /// The upstreams, by index from routes.
    pub upstreams: Vec<upstream::Settings>,
    /// The routing table.
    pub routes: Table,
    /// The stores.
    pub storage: storage::Settings,
    /// Where the admin listener is; `None` has none.
    pub admin: Option<AdminAddress>,
    /// What has to be presented to the admin listener; `None` is nothing.
    pub admin_token: Option<Token>,
    /// Where changes of backends at run time are kept; `None`: nowhere.
    pub state_file: Option<PathBuf>,
    /// The access log.
    pub access_log: observe::AccessLog,
    /// The least important diagnostics that are written.
    pub log_level: LevelFilter,
}

impl Plan {
    /// Makes every path absolute, as seen from `here`.
    pub fn make_absolute(&mut self, here: &Path) {
        let absolute = |path: &mut PathBuf| *path = here.join(&*path);
        let process = &mut self.process;
        absolute(&mut process.state_dir);
        absolute(&mut process.pid_file);
        absolute(&mut process.log_file);
        absolute(&mut process.upgrade_socket);
        process.working_directory.as_mut().map(absolute);
        if let Some(AdminAddress::Unix(path)) = &mut self.admin {
            absolute(path);
        }
        self.state_file.as_mut().map(absolute);
        if let Some(observe::Sink::File(path)) = &mut self.access_log.to {
            absolute(path);
        }
        for tls in self.listeners.iter_mut().filter_map(|listener| listener.tls.as_mut()) {
            if let tls::Resumption::Shared(file) = &mut tls.resumption {
                absolute(file);
            }
            let manners = tls.certificates.iter_mut().map(|certificate| &mut certificate.manner);
            for manner in manners.chain([&mut tls.manner]) {
                if let tls::ClientAuth::On(clients) = &mut manner.clients {
                    absolute(&mut clients.authorities);
                    clients.revoked.iter_mut().for_each(absolute);
                }
            }
            for certificate in &mut tls.certificates {
                match &mut certificate.source {
                    tls::Source::Files { certificate, key } => {
                        absolute(certificate);
                        absolute(key);
                    }
                    tls::Source::Acme { folder, proof: _ } => absolute(folder),
                    tls::Source::Internal => {}
                }
            }
        }
        if let Some(acme) = &mut self.acme {
            absolute(&mut acme.folder);
            acme.root.as_mut().map(absolute);
        }
        for upstream in &mut self.upstreams {
            upstream.tls.iter_mut().flat_map(OriginTls::files_mut).for_each(absolute);
            for backend in &mut upstream.backends {
                backend.tls.iter_mut().flat_map(OriginTls::files_mut).for_each(absolute);
                if let upstream::Place::Unix(path) = &mut backend.at {
                    absolute(path);
                }
            }
        }
    }
}

/// The process, as meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Worker threads; at least 1.
    pub threads: usize,
    /// Where certificates of the internal CA and the like are kept.
    pub state_dir: PathBuf,
    /// Written when running as a daemon.
    pub pid_file: PathBuf,
    /// Become this user after binding, as a daemon.
    pub user: Option<String>,
    /// Become this group after binding, as a daemon.
    pub group: Option<String>,
    /// Change into this folder, as a daemon.
    pub working_directory: Option<PathBuf>,
    /// Where diagnostics go, as a daemon.
    pub log_file: PathBuf,
    /// The private socket over which listening sockets are handed to a new process.
    pub upgrade_socket: PathBuf,
    /// How long requests in flight may take after SIGTERM.
    pub drain_timeout: Duration,
    /// Whether the configuration is reloaded when its files change.
    pub watch: bool,
}

/// Where the admin listener is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminAddress {
    /// An address; a loopback one where there is no token.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}
