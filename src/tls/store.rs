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
use super::clients::Checked;
use super::clients::ClientAuth;
use super::clients::Scope;
use super::error::Error;
use super::error::Warning;
use super::files;
use super::internal;
use super::issued;
use super::leaf::Leaf;
use super::leaf::seconds;
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
    /// What was read, for the next reading: one that cannot be used leaves it in use.
    read: Vec<(Certificate, Arc<CertifiedKey>)>,
    checked: Vec<(ClientAuth, Checked)>,
    ends: Ends,
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
    /// The keys of tickets; `None`: those in use stay.
    given: Option<Given>,
    now: SystemTime,
}

/// When the first of what a listener has ends, in seconds since the epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ends {
    /// Of its certificates.
    pub certificate: Option<i64>,
    /// Of the lists of clients that were revoked: from then on all are refused.
    pub revocations: Option<i64>,
}

/// What came of reading everything again.
#[derive(Debug)]
pub struct Renewed {
    /// Whether anything in use is another one now.
    pub replaced: Replaced,
    /// What cannot be used: what was in use in its place stays, and the rest does not wait for it.
    pub refused: Vec<Error>,
}

/// What is done where something cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    /// Nothing is read at all.
    EndsAll,
    /// What is in use in its place stays.
    StaysAsItWas,
}

/// What is in use while everything is read anew.
struct Known<'a> {
    table: Option<&'a Table>,
    broken: Broken,
    refused: Vec<Error>,
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
        let mut known = Known { table: None, broken: Broken::EndsAll, refused: Vec::new() };
        let (table, _) = Table::load(settings, state_dir, now, &lasting, &mut known)?;
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
        self.read_or(Broken::EndsAll, settings, state_dir, now).map(|(read, _)| read)
    }

    /// Reads everything again; says what of it cannot be used.
    fn read_or(
        &self,
        broken: Broken,
        settings: &Settings,
        state_dir: &Path,
        now: SystemTime,
    ) -> Result<(Read, Vec<Error>), Error> {
        let before = self.table.load();
        let mut known = Known { table: Some(&before), broken, refused: Vec::new() };
        let given = known.or(tickets::read(&settings.resumption).map(Some), |_| Some(None))?;
        let (table, warnings) = Table::load(settings, state_dir, now, &before.lasting, &mut known)?;
        Ok((Read { table, warnings, given, now }, known.refused))
    }

    /// Replaces everything at once by what was read; handshakes under way keep what they have.
    /// Warnings are logged. Says whether certificates are others.
    pub fn put(&self, read: Read) -> Replaced {
        for warning in read.warnings {
            log::warn!(target: "edgeproxy::tls", "{warning}");
        }
        let keys = match read.given {
            Some(given) => read.table.lasting.tickets.adopt(given, read.now),
            None => Replaced::BySame,
        };
        let before = self.table.swap(Arc::new(read.table));
        match before.shows() == self.table.load().shows() {
            true => keys,
            false => Replaced::ByOthers,
        }
    }

    /// Reads everything again and replaces at once what can be used of it; handshakes under way keep what they
    /// have. Called when a file changed, and once a day, so that the internal CA's leaves are renewed. One
    /// certificate that is broken does not keep another one from being renewed, nor a list of revoked ones from
    /// counting. Warnings are logged. Blocks on the file system.
    pub fn renew(&self, settings: &Settings, state_dir: &Path, now: SystemTime) -> Renewed {
        match self.read_or(Broken::StaysAsItWas, settings, state_dir, now) {
            Ok((read, refused)) => Renewed { replaced: self.put(read), refused },
            Err(error) => Renewed { replaced: Replaced::BySame, refused: vec![error] },
        }
    }

    /// When the first of what is in use ends.
    #[must_use]
    pub fn ends(&self) -> Ends {
        self.table.load().ends
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
        known: &mut Known<'_>,
    ) -> Result<(Self, Vec<Warning>), Error> {
        let tickets = match settings.resumption {
            Resumption::Off => None,
            Resumption::Own | Resumption::Shared(_) => Some(&before.tickets),
        };
        let (all, warnings) = (Vec::new(), Vec::new());
        let mut speech = Speech { now, before, tickets, known, all, warnings };
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
            read: Vec::new(),
            checked: Vec::new(),
            ends: Ends::default(),
            lasting: before.clone(),
        };
        let mut all: Vec<Arc<CertifiedKey>> = Vec::new();
        for (index, entry) in settings.certificates.iter().enumerate() {
            let certified = speech.certificate(entry, state_dir)?;
            let certified = match all.iter().find(|known| known.cert == certified.cert) {
                Some(known) => Arc::clone(known),
                None => certified,
            };
            all.push(Arc::clone(&certified));
            table.read.push((entry.clone(), Arc::clone(&certified)));
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
        table.checked =
            all.iter().map(|one| (one.manner.clients.clone(), one.checked.clone())).collect();
        let leaves = table.read.iter().filter_map(|(_, shown)| shown.cert.first());
        table.ends = Ends {
            certificate: leaves.filter_map(Leaf::read).map(|leaf| leaf.not_after).min(),
            revocations: all.iter().filter_map(|one| one.checked.revocations_end).min(),
        };
        table.lasting.terms = all.iter().map(|one| Arc::clone(&one.terms)).collect();
        table.lasting.sessions =
            all.iter().map(|one| (one.terms.clients, Arc::clone(&one.sessions))).collect();
        Ok((table, warnings))
    }

    /// The certificate in use for an entry.
    fn certified(&self, entry: &Certificate) -> Option<Arc<CertifiedKey>> {
        let is = |(known, _): &&(Certificate, _)| {
            known.hosts == entry.hosts && known.source == entry.source
        };
        self.read.iter().find(is).map(|(_, certified)| Arc::clone(certified))
    }

    /// What is in use to look at clients' certificates.
    fn checked(&self, clients: &ClientAuth) -> Option<Checked> {
        self.checked.iter().find(|(known, _)| known == clients).map(|(_, checked)| checked.clone())
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

impl Known<'_> {
    /// What was read, or what is in use in its place.
    fn or<T>(
        &mut self,
        read: Result<T, Error>,
        in_use: impl FnOnce(&Table) -> Option<T>,
    ) -> Result<T, Error> {
        let error = match read {
            Ok(read) => return Ok(read),
            Err(error) => error,
        };
        let stays = match self.broken {
            Broken::EndsAll => None,
            Broken::StaysAsItWas => self.table.and_then(in_use),
        };
        match stays {
            Some(stays) => {
                self.refused.push(error);
                Ok(stays)
            }
            None => Err(error),
        }
    }
}

/// The ways in which clients of one listener are spoken to, each made once.
struct Speech<'a, 'b> {
    now: SystemTime,
    before: &'a Lasting,
    tickets: Option<&'a Arc<Tickets>>,
    known: &'a mut Known<'b>,
    all: Vec<Arc<Made>>,
    warnings: Vec<Warning>,
}

/// A way that was made, with the memory of its sessions.
struct Made {
    spoken: Spoken,
    checked: Checked,
    sessions: Arc<ServerSessionMemoryCache>,
}

impl std::ops::Deref for Made {
    type Target = Spoken;

    fn deref(&self) -> &Spoken {
        &self.spoken
    }
}

impl Speech<'_, '_> {
    fn of(&mut self, manner: &Manner) -> Result<Arc<Made>, Error> {
        if let Some(made) = self.all.iter().find(|made| made.manner == *manner) {
            return Ok(Arc::clone(made));
        }
        let read = clients::read(&manner.clients, self.now);
        let in_use = |table: &Table| Some((table.checked(&manner.clients)?, Vec::new()));
        let (checked, warnings) = self.known.or(read, in_use)?;
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
        let spoken = Spoken::new(manner.clone(), checked.clone(), terms, self.tickets, kept)?;
        let made = Arc::new(Made { spoken, checked, sessions });
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

    /// The certificate of an entry, with its key.
    fn certificate(
        &mut self,
        entry: &Certificate,
        state_dir: &Path,
    ) -> Result<Arc<CertifiedKey>, Error> {
        let now = self.now;
        let in_use = self.known.table.and_then(|table| table.certified(entry));
        let read = certificate(entry, state_dir, now, in_use.as_ref()).and_then(|(read, odd)| {
            // What is valid is not replaced by what no client takes.
            let worse = |in_use: &Arc<CertifiedKey>| !is_valid(&read, now) && is_valid(in_use, now);
            match (&entry.source, in_use.as_ref().is_some_and(worse)) {
                (Source::Files { certificate, .. }, true) => {
                    Err(Error::NotValidNow { file: certificate.clone() })
                }
                (Source::Files { .. } | Source::Internal | Source::Acme { .. }, _) => {
                    Ok((read, odd))
                }
            }
        });
        let (certified, odd) = self.known.or(read, |_| Some((in_use?, Vec::new())))?;
        self.warnings.extend(odd);
        Ok(certified)
    }
}

/// Whether clients take it now, as far as that is a matter of time.
fn is_valid(certified: &CertifiedKey, now: SystemTime) -> bool {
    let leaf = certified.cert.first().and_then(Leaf::read);
    leaf.is_some_and(|leaf| (leaf.not_before..=leaf.not_after).contains(&seconds(now)))
}

/// The certificate of an entry, with its key, and what is odd about them. `in_use` is the one until now.
fn certificate(
    entry: &Certificate,
    state_dir: &Path,
    now: SystemTime,
    in_use: Option<&Arc<CertifiedKey>>,
) -> Result<(Arc<CertifiedKey>, Vec<Warning>), Error> {
    let without_oddities = |certified| (Arc::new(certified), Vec::new());
    match &entry.source {
        Source::Files { certificate, key } => {
            let (certified, odd) = files::load(certificate, key, &entry.hosts, now)?;
            Ok((Arc::new(certified), odd))
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
            Ok(without_oddities(certified))
        }
        Source::Acme { folder, proof: _ } => {
            let problem = match issued::load(folder, &entry.hosts) {
                Ok(Some(issued)) => return Ok(without_oddities(issued.certified)),
                Ok(None) => None,
                Err(error) => Some(error.to_string()),
            };
            let stand_in = internal::ensure(state_dir, &entry.hosts, now)?;
            // What was issued and is in use is worth more than the internal CA, whatever became of its file.
            if let Some(issued) = in_use.filter(|one| issuer(one) != issuer(&stand_in)) {
                let gone = || format!("{}: is gone", issued::place(folder, &entry.hosts).display());
                log::error!(
                    target: "edgeproxy::tls",
                    "{}; the certificate in use stays until another one is issued",
                    problem.unwrap_or_else(gone)
                );
                return Ok((Arc::clone(issued), Vec::new()));
            }
            if let Some(problem) = problem {
                log::warn!(
                    target: "edgeproxy::tls",
                    "{problem}; the internal CA stands in until another one is issued"
                );
            }
            Ok(without_oddities(stand_in))
        }
    }
}

/// Who issued it.
fn issuer(certified: &CertifiedKey) -> Option<Vec<u8>> {
    Some(Leaf::read(certified.cert.first()?)?.issuer)
}

#[cfg(test)]
mod tests;
