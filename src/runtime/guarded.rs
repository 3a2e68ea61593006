//! The hosts whose clients must show a certificate, wherever their requests come in.
//!
//! What a connection is held to is decided by its listener and the name that it was made for. A listener that has
//! no certificate for such a host, as one for plain text, has asked nobody: routes know hosts, not listeners, and
//! would serve there what is guarded elsewhere.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::config::plan::Plan;
use crate::listen;
use crate::listen::conn::Conn;
use crate::tls;

/// Those hosts.
#[derive(Debug, Default)]
pub struct Guarded {
    /// What each listener that speaks TLS says of its hosts; none, where no host is guarded.
    listeners: Vec<(Box<str>, Hosts)>,
}

/// What one listener says of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Here {
    /// Its clients must show a certificate.
    Required,
    /// They need not.
    Open,
    /// It has no certificate for it.
    Unknown,
}

/// Whether a client must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Must {
    Show,
    Nothing,
}

/// What is said of hosts, as certificates name them.
#[derive(Debug, Default)]
struct Hosts {
    exact: HashMap<Box<str>, Must>,
    /// By what follows the `*`, with its dot.
    below: HashMap<Box<str>, Must>,
    addresses: HashMap<IpAddr, Must>,
}

impl Guarded {
    /// The guarded hosts of a plan.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        let speaking = plan.listeners.iter().filter_map(|one| Some((&one.name, one.tls.as_ref()?)));
        let is_required = |certificate: &tls::Certificate| certificate.manner.clients.is_required();
        if !speaking.clone().any(|(_, tls)| tls.certificates.iter().any(is_required)) {
            return Self::default();
        }
        let listeners = speaking.map(|(name, tls)| (name.as_ref().into(), Hosts::of(tls)));
        Self { listeners: listeners.collect() }
    }

    /// Whether a listener serves this host to clients with a certificate alone.
    #[must_use]
    pub fn is_guarded(&self, host: &str) -> bool {
        self.listeners.iter().any(|(_, hosts)| hosts.find(host) == Some(Must::Show))
    }

    /// What this listener says of a host.
    #[must_use]
    pub fn here(listener: &listen::Settings, host: &str) -> Here {
        let hosts = listener.tls.as_ref().map(Hosts::of);
        match hosts.and_then(|hosts| hosts.find(host)) {
            Some(Must::Show) => Here::Required,
            Some(Must::Nothing) => Here::Open,
            None => Here::Unknown,
        }
    }

    /// Whether a request for `host` may be answered on this connection, as far as that is not settled by its
    /// certificate. `host` is in lower case, without port.
    #[must_use]
    pub fn admits(&self, conn: Option<&Conn>, host: &str) -> bool {
        if !self.is_guarded(host) {
            return true;
        }
        // Nobody's connection: what is asked for is ours.
        let Some(conn) = conn else { return true };
        let mut here = self.listeners.iter().filter(|(name, _)| **name == *conn.listener_name);
        conn.is_secure() && here.any(|(_, hosts)| hosts.find(host).is_some())
    }
}

impl Hosts {
    fn of(tls: &tls::Settings) -> Self {
        let mut all = Self::default();
        for certificate in &tls.certificates {
            let must = match certificate.manner.clients.is_required() {
                true => Must::Show,
                false => Must::Nothing,
            };
            // The first one that names a host keeps it.
            for host in &certificate.hosts {
                match (host.parse(), host.strip_prefix('*')) {
                    (Ok(address), _) => all.addresses.entry(address).or_insert(must),
                    (Err(_), Some(below)) => all.below.entry(below.into()).or_insert(must),
                    (Err(_), None) => all.exact.entry(host.as_str().into()).or_insert(must),
                };
            }
        }
        all
    }

    fn find(&self, host: &str) -> Option<Must> {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = bare.parse() {
            return self.addresses.get(&address).copied();
        }
        let parent = host.find('.').filter(|dot| *dot > 0).map(|dot| &host[dot..]);
        let below = || self.below.get(parent?);
        self.exact.get(host).or_else(below).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::OnceLock;
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::AtomicU64;

    use super::*;
    use crate::config;
    use crate::listen::conn::TlsFacts;
    use crate::tls::Version;
    use crate::tls::clients::Scope;
    use crate::tls::terms::Terms;

    fn conn(listener: &str, secure: bool) -> Conn {
        let terms = Terms { min_version: Version::Tls12, clients: Scope::OPEN };
        let facts = TlsFacts {
            version: Version::Tls13,
            server_name: None,
            terms: Arc::new(terms),
            client: None,
        };
        Conn {
            listener: 0,
            listener_name: listener.into(),
            peer: ([127, 0, 0, 1], 1).into(),
            local: ([127, 0, 0, 1], 2).into(),
            tls: secure.then_some(facts),
            requests: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            whole: AtomicBool::new(false),
            room: OnceLock::new(),
        }
    }

    #[test]
    fn a_guarded_host_is_served_only_where_a_certificate_is_for_it() {
        let text = "\
listeners:
  - {name: http, address: \"127.0.0.1:1\"}
  - name: https
    address: \"127.0.0.1:2\"
    tls:
      client_auth: {ca: ca.pem}
      certificates:
        - {hosts: [a.test, \"*.b.test\", 192.0.2.1, \"::1\"], internal: true}
        - {hosts: [open.test, open.b.test], internal: true, client_auth: off}
        - {hosts: [may.test], internal: true, client_auth: {mode: optional, ca: ca.pem}}
  - name: other
    address: \"127.0.0.1:3\"
    tls: {certificates: [{hosts: [a.test], internal: true}]}
routes: [{respond: {status: 204}}]
";
        let plan = config::from_text(text, "test").map_err(|d| d.to_json()).unwrap().plan;
        let guarded = Guarded::of(&plan);
        let (http, https) = (conn("http", false), conn("https", true));
        let other = conn("other", true);
        for host in ["a.test", "x.b.test", "192.0.2.1", "[::1]"] {
            assert!(!guarded.admits(Some(&http), host), "{host}");
            assert!(guarded.admits(Some(&https), host), "{host}");
            // Here somebody said what its clients are held to.
            assert_eq!(guarded.admits(Some(&other), host), host == "a.test", "{host}");
            assert!(guarded.admits(None, host), "{host}");
        }
        for host in
            ["open.test", "open.b.test", "may.test", "c.test", "b.test", "x.x.b.test", "[::2]"]
        {
            assert!(guarded.admits(Some(&http), host), "{host}");
        }
    }
}
