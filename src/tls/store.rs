//! The certificates of a listener, found by SNI, replaced as a whole while handshakes go on.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::server::ClientHello;
use rustls::server::ServerSessionMemoryCache;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;

use super::Certificate;
use super::Settings;
use super::Source;
use super::Version;
use super::answers::Answers;
use super::answers::PROTOCOL;
use super::clients;
use super::clients::ClientAuth;
use super::clients::Scope;
use super::error::Error;
use super::error::Warning;
use super::files;
use super::internal;
use super::issued;
use super::meet;
use super::meet::Met;
use super::meet::Whom;
use super::terms::Manner;
use super::terms::Spoken;
use super::terms::Terms;
use super::tickets;
use super::tickets::Bequeathed;
use super::tickets::Given;
use super::tickets::Resumption;
use super::tickets::Tickets;

/// Sessions of TLS 1.2 clients without tickets that are remembered; a few hundred bytes each.
const SESSIONS: usize = 1024;

/// The certificates of one listener, and how its clients are spoken to.
#[derive(Debug)]
pub struct CertificateStore {
    table: ArcSwap<Table>,
    /// What ACME servers are shown, when handshakes are how.
    answers: Option<Arc<Answers>>,
}

#[derive(Debug)]
struct Table {
    /// By host name, in lower case.
    exact: HashMap<Box<str>, Arc<Host>>,
    /// By what follows the `*`, with its dot.
    wildcard: HashMap<Box<str>, Arc<Host>>,
    /// By address.
    address: HashMap<IpAddr, Arc<Host>>,
    /// For clients without SNI: the first certificate that is for an address, else the default.
    nameless: Option<Arc<Host>>,
    /// For names that nothing is for.
    default: Option<Arc<Host>>,
    /// For clients that are shown nothing.
    nobody: Arc<ServerConfig>,
    /// What a connection is held to whose host nothing is for.
    unknown: Arc<Terms>,
    /// What all connections are held to, where that is one and the same.
    same: Option<Arc<Terms>>,
    /// For ACME servers, who are asked for nothing.
    proving: Spoken,
    /// What goes on when the table is replaced.
    lasting: Lasting,
}

/// The hosts of one certificate.
#[derive(Debug)]
struct Host {
    /// The same one for all that are shown the same.
    certified: Arc<CertifiedKey>,
    terms: Arc<Terms>,
    config: Arc<ServerConfig>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
}

/// What outlives a table: sessions that began before are resumed.
#[derive(Debug, Clone)]
struct Lasting {
    tickets: Arc<Tickets>,
    /// Sessions of clients without tickets, by what they are held to.
    sessions: HashMap<Scope, Arc<ServerSessionMemoryCache>>,
    terms: Vec<Arc<Terms>>,
}

/// Certificates that were read and are not in use yet.
#[derive(Debug)]
pub struct Read {
    table: Table,
    warnings: Vec<Warning>,
    /// The keys of tickets.
    given: Given,
    now: SystemTime,
}

/// Whether certificates that were read again are others than before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replaced {
    /// They are the same.
    BySame,
    /// Some are others, or for other names; or clients' are held to something else, or keys are others.
    ByOthers,
}

impl CertificateStore {
    /// Loads every certificate of `settings`; those of the internal CA are issued where needed.
    /// What is odd about them is told with the configuration. Blocks on the file system.
    ///
    /// # Errors
    /// The first file that cannot be used.
    pub fn load(settings: &Settings, state_dir: &Path, now: SystemTime) -> Result<Self, Error> {
        let tickets = Tickets::new(now).ok_or(Error::Random)?;
        let lasting = Lasting { tickets, sessions: HashMap::new(), terms: Vec::new() };
        let given = tickets::read(&settings.resumption)?;
        let (table, _) = Table::load(settings, state_dir, now, &lasting)?;
        let _ = lasting.tickets.adopt(given, now);
        Ok(Self { table: ArcSwap::from_pointee(table), answers: None })
    }

    /// The same, and ACME servers are shown what `answers` has for them.
    #[must_use]
    pub fn with_answers(self, answers: Arc<Answers>) -> Self {
        Self { answers: Some(answers), ..self }
    }

    /// Reads everything again, for these settings, and puts nothing to use. Blocks on the file system.
    ///
    /// # Errors
    /// The first file that cannot be used.
    pub fn read(
        &self,
        settings: &Settings,
        state_dir: &Path,
        now: SystemTime,
    ) -> Result<Read, Error> {
        let lasting = self.table.load().lasting.clone();
        let given = tickets::read(&settings.resumption)?;
        let (table, warnings) = Table::load(settings, state_dir, now, &lasting)?;
        Ok(Read { table, warnings, given, now })
    }

    /// Replaces everything at once by what was read; handshakes under way keep what they have.
    /// Warnings are logged. Says whether certificates are others.
    pub fn put(&self, read: Read) -> Replaced {
        for warning in read.warnings {
            log::warn!(target: "edgeproxy::tls", "{warning}");
        }
        let keys = read.table.lasting.tickets.adopt(read.given, read.now);
        let before = self.table.swap(Arc::new(read.table));
        match before.shows() == self.table.load().shows() {
            true => keys,
            false => Replaced::ByOthers,
        }
    }

    /// Loads again and replaces everything at once; handshakes under way keep what they have.
    /// Called when the configuration or a file changed, and once a day, so that the internal CA's
    /// leaves are renewed. Warnings are logged. Blocks on the file system.
    ///
    /// # Errors
    /// As [`Self::load`]; what is in use stays then.
    pub fn reload(
        &self,
        settings: &Settings,
        state_dir: &Path,
        now: SystemTime,
    ) -> Result<Replaced, Error> {
        Ok(self.put(self.read(settings, state_dir, now)?))
    }

    /// The keys of its tickets, for the process that follows; `None`: that one finds them itself.
    #[must_use]
    pub fn bequeathed(&self) -> Option<Bequeathed> {
        self.table.load().lasting.tickets.bequeathed()
    }

    /// Sessions that began at the process before go on here.
    pub fn inherit(&self, from: &Bequeathed, now: SystemTime) {
        self.table.load().lasting.tickets.inherit(from, now);
    }

    /// How a client is spoken to that begins so.
    #[must_use]
    pub fn meet(&self, hello: &ClientHello<'_>) -> Met {
        let table = self.table.load();
        if let Some(answers) = &self.answers
            && meet::is_for_proof(hello.alpn())
        {
            let made = hello.server_name().and_then(|name| answers.certificate(name));
            let config = table.proving.proving(made, PROTOCOL);
            return Met { config, whom: Whom::Proof };
        }
        match table.find(hello.server_name().map(str::to_ascii_lowercase).as_deref()) {
            Some(host) => Met {
                config: Arc::clone(&host.config),
                whom: Whom::Host {
                    terms: Arc::clone(&host.terms),
                    verifier: host.verifier.clone(),
                },
            },
            None => Met { config: Arc::clone(&table.nobody), whom: Whom::Nobody },
        }
    }

    /// The certificate for a client that asks for `sni`: exact names before wildcards of one label,
    /// then the default. Without SNI (RFC 6066 §3: clients that connect to an address) the first
    /// certificate that is for an address, else the default.
    #[must_use]
    pub fn find(&self, sni: Option<&str>) -> Option<Arc<CertifiedKey>> {
        self.table.load().find(sni).map(|host| Arc::clone(&host.certified))
    }

    /// May `host` be served on a connection of this version that was made for `sni` under these terms? It
    /// may where the connection was shown the certificate of the host, and its client was held to what the
    /// host's are held to; else its requests belong on another connection: 421 (RFC 9110 §15.5.20). `host` is in
    /// lower case, without port. Without SNI the client chose no name, and no certificate is another
    /// one; a host that no certificate is for is left to routing, under the terms of its listener.
    #[must_use]
    pub fn serves(&self, sni: Option<&str>, terms: &Terms, version: Version, host: &str) -> bool {
        let table = self.table.load();
        // Nearly always: one and the same for everybody, and for whom the connection was made.
        if let Some(same) = &table.same
            && std::ptr::eq(&**same, terms)
            && sni.is_none_or(|sni| sni == host)
        {
            return true;
        }
        let needed = table.serving(host);
        if !terms.fulfil(version, needed.map_or(&table.unknown, |host| &host.terms)) {
            return false;
        }
        let Some(sni) = sni.filter(|sni| *sni != host) else { return true };
        match (table.named(sni).or(table.default.as_ref()), needed) {
            (Some(shown), Some(needed)) => Arc::ptr_eq(&shown.certified, &needed.certified),
            (None, _) | (_, None) => true,
        }
    }
}

impl Table {
    fn load(
        settings: &Settings,
        state_dir: &Path,
        now: SystemTime,
        before: &Lasting,
    ) -> Result<(Self, Vec<Warning>), Error> {
        let tickets = match settings.resumption {
            Resumption::Off => None,
            Resumption::Own | Resumption::Shared(_) => Some(&before.tickets),
        };
        let mut speech = Speech { now, before, tickets, all: Vec::new(), warnings: Vec::new() };
        let unknown = speech.of(&settings.manner)?;
        let proving =
            Manner { min_version: Version::Tls12, http2: false, clients: ClientAuth::Off };
        let mut table = Self {
            exact: HashMap::new(),
            wildcard: HashMap::new(),
            address: HashMap::new(),
            nameless: None,
            default: None,
            nobody: unknown.showing(None),
            unknown: Arc::clone(&unknown.terms),
            same: None,
            proving: speech.make(&proving)?,
            lasting: before.clone(),
        };
        let mut all: Vec<Arc<CertifiedKey>> = Vec::new();
        for (index, entry) in settings.certificates.iter().enumerate() {
            let certified = certificate(entry, state_dir, now, &mut speech.warnings)?;
            let certified = match all.iter().find(|known| known.cert == certified.cert) {
                Some(known) => Arc::clone(known),
                None => Arc::new(certified),
            };
            all.push(Arc::clone(&certified));
            let spoken = speech.of(&entry.manner)?;
            let host = Arc::new(Host {
                config: spoken.showing(Some(Arc::clone(&certified))),
                certified,
                terms: Arc::clone(&spoken.terms),
                verifier: spoken.verifier.clone(),
            });
            table.add(&entry.hosts, &host);
            if settings.default == Some(index) {
                table.default = Some(host);
            }
        }
        if table.nameless.is_none() {
            table.nameless.clone_from(&table.default);
        }
        let Speech { all, warnings, .. } = speech;
        if all.iter().all(|one| one.terms == table.unknown) {
            table.same = Some(Arc::clone(&table.unknown));
        }
        table.lasting.terms = all.iter().map(|one| Arc::clone(&one.terms)).collect();
        table.lasting.sessions =
            all.iter().map(|one| (one.terms.clients, Arc::clone(&one.sessions))).collect();
        Ok((table, warnings))
    }

    /// What clients can be shown, by the names that they ask for, and what they are held to.
    fn shows(&self) -> Vec<(&str, Option<IpAddr>, &[CertificateDer<'static>], Scope)> {
        let named = self.exact.iter().chain(&self.wildcard);
        let named = named.map(|(name, host)| (&**name, None, host));
        let by_address = self.address.iter().map(|(at, host)| ("", Some(*at), host));
        let default = self.default.iter().map(|host| ("", None, host));
        let all = named.chain(by_address).chain(default);
        let mut all: Vec<_> = all
            .map(|(name, at, host)| (name, at, host.certified.cert.as_slice(), host.terms.clients))
            .collect();
        all.sort_unstable_by_key(|(name, address, ..)| (*name, *address));
        all
    }

    /// The first certificate that names a host keeps it.
    fn add(&mut self, hosts: &[String], shown: &Arc<Host>) {
        for host in hosts {
            if let Ok(address) = host.parse::<IpAddr>() {
                self.address.entry(address).or_insert_with(|| Arc::clone(shown));
                self.nameless.get_or_insert_with(|| Arc::clone(shown));
                continue;
            }
            let (map, name) = match host.strip_prefix('*') {
                Some(suffix) => (&mut self.wildcard, suffix),
                None => (&mut self.exact, host.as_str()),
            };
            map.entry(name.to_ascii_lowercase().into()).or_insert_with(|| Arc::clone(shown));
        }
    }

    fn find(&self, sni: Option<&str>) -> Option<&Arc<Host>> {
        match sni {
            Some(name) => self.named(name).or(self.default.as_ref()),
            None => self.nameless.as_ref(),
        }
    }

    fn named(&self, name: &str) -> Option<&Arc<Host>> {
        let name = name.strip_suffix('.').unwrap_or(name);
        if let Some(found) = self.exact.get(name) {
            return Some(found);
        }
        let dot = name.find('.').filter(|&dot| dot > 0)?;
        self.wildcard.get(&name[dot..])
    }

    /// What is for the host of a request.
    fn serving(&self, host: &str) -> Option<&Arc<Host>> {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let own = match bare.parse() {
            Ok(address) => self.address.get(&address),
            Err(_) => self.named(host),
        };
        own.or(self.default.as_ref())
    }
}

/// The ways in which clients of one listener are spoken to, each made once.
struct Speech<'a> {
    now: SystemTime,
    before: &'a Lasting,
    tickets: Option<&'a Arc<Tickets>>,
    all: Vec<Arc<Made>>,
    warnings: Vec<Warning>,
}

/// A way that was made, with the memory of its sessions.
struct Made {
    spoken: Spoken,
    sessions: Arc<ServerSessionMemoryCache>,
}

impl std::ops::Deref for Made {
    type Target = Spoken;

    fn deref(&self) -> &Spoken {
        &self.spoken
    }
}

impl Speech<'_> {
    fn of(&mut self, manner: &Manner) -> Result<Arc<Made>, Error> {
        if let Some(made) = self.all.iter().find(|made| made.manner == *manner) {
            return Ok(Arc::clone(made));
        }
        let (checked, warnings) = clients::read(&manner.clients, self.now)?;
        self.warnings.extend(warnings);
        let terms = Terms { min_version: manner.min_version, clients: checked.scope };
        let here = self.all.iter().map(|made| &made.terms);
        let known = here.chain(&self.before.terms).find(|known| ***known == terms);
        let terms = known.map_or_else(|| Arc::new(terms), Arc::clone);
        let scope = terms.clients;
        let here = self.all.iter().find(|made| made.terms.clients == scope);
        let known = here.map(|made| &made.sessions).or_else(|| self.before.sessions.get(&scope));
        let sessions = known.map_or_else(|| ServerSessionMemoryCache::new(SESSIONS), Arc::clone);
        let kept = Arc::clone(&sessions);
        let spoken = Spoken::new(manner.clone(), checked, terms, self.tickets, kept)?;
        let made = Arc::new(Made { spoken, sessions });
        self.all.push(Arc::clone(&made));
        Ok(made)
    }

    /// One that no host has.
    fn make(&self, manner: &Manner) -> Result<Spoken, Error> {
        let (checked, _) = clients::read(&manner.clients, self.now)?;
        let terms = Arc::new(Terms { min_version: manner.min_version, clients: checked.scope });
        let sessions = ServerSessionMemoryCache::new(1);
        Spoken::new(manner.clone(), checked, terms, self.tickets, sessions)
    }
}

/// The certificate of an entry, with its key.
fn certificate(
    entry: &Certificate,
    state_dir: &Path,
    now: SystemTime,
    warnings: &mut Vec<Warning>,
) -> Result<CertifiedKey, Error> {
    match &entry.source {
        Source::Files { certificate, key } => {
            let (certified, odd) = files::load(certificate, key, &entry.hosts, now)?;
            warnings.extend(odd);
            Ok(certified)
        }
        Source::Internal => {
            let certified = internal::ensure(state_dir, &entry.hosts, now)?;
            log::info!(
                target: "edgeproxy::tls",
                root:% = internal::root_certificate(state_dir).display();
                "certificate of the internal CA for {}: clients trust it with `curl --cacert {}`",
                entry.hosts.join(", "),
                internal::root_certificate(state_dir).display()
            );
            Ok(certified)
        }
        Source::Acme { folder, proof: _ } => match issued::load(folder, &entry.hosts) {
            Ok(Some(issued)) => Ok(issued.certified),
            Ok(None) => internal::ensure(state_dir, &entry.hosts, now),
            Err(error) => {
                log::warn!(
                    target: "edgeproxy::tls",
                    "{error}; the internal CA stands in until another one is issued"
                );
                internal::ensure(state_dir, &entry.hosts, now)
            }
        },
    }
}

#[cfg(test)]
mod tests;
