//! Asking DNS servers ourselves: for SRV records, which the system's resolver does not know, and where the
//! configuration names servers of its own.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::net::SocketAddr as Address;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::ConnectionConfig;
use hickory_resolver::config::LookupIpStrategy;
use hickory_resolver::config::NameServerConfig;
use hickory_resolver::config::ResolveHosts;
use hickory_resolver::config::ResolverConfig;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::Name;
use hickory_resolver::proto::rr::RData;
use pingora::protocols::l4::socket::SocketAddr;
use tokio::task::JoinSet;

use crate::upstream::found::Found;
use crate::upstream::resolve::Heard;
use crate::upstream::resolve::service;
use crate::upstream::resolve::service::Ranked;
use crate::upstream::resolve::service::Record;

/// How long one server is given for one answer, and how often it is asked.
const PATIENCE: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 2;

/// How many targets are looked up at once.
const AT_ONCE: usize = 32;

/// Asks for one name again and again.
#[derive(Debug)]
pub(super) struct Asker {
    servers: Vec<Address>,
    /// The addresses of each target when it was last resolved.
    known: HashMap<Name, Vec<IpAddr>>,
}

/// Where a record points.
type Target = (Name, u16);

/// What is known of the addresses of a target.
struct Known {
    addresses: Vec<IpAddr>,
    /// `None`: it could not be resolved this time.
    until: Option<Instant>,
}

impl Asker {
    /// Asks these servers; the system's, when there are none.
    pub(super) fn of(servers: &[Address]) -> Self {
        Self { servers: servers.to_vec(), known: HashMap::new() }
    }

    /// The addresses of a host.
    pub(super) async fn host(&self, host: &str, port: u16) -> io::Result<Heard> {
        let answer = self.resolver().await?.lookup_ip(host).await.map_err(io::Error::other)?;
        let found = answer.iter().map(|ip| SocketAddr::Inet((ip, port).into()).into());
        Ok(Heard { found: found.collect(), unheard: Vec::new(), lasts: left(answer.valid_until()) })
    }

    /// The addresses of the targets of a service. Those of one that cannot be resolved this time are those of
    /// before.
    pub(super) async fn service(&mut self, name: &str) -> io::Result<Heard> {
        let resolver = self.resolver().await?;
        let answer = resolver.srv_lookup(name).await.map_err(io::Error::other)?;
        let records: Vec<Record<Target>> =
            answer.answers().iter().filter_map(|record| record_of(&record.data)).collect();
        if records.is_empty() {
            // RFC 2782: a single record whose target is the root says so.
            return Err(io::Error::other("its records name no target: the service is not there"));
        }
        let mut until = answer.valid_until();
        let targets = self.addresses(&resolver, records.iter().map(|one| &one.target.0)).await;
        let (mut found, mut unheard) = (Vec::new(), Vec::new());
        for Ranked { step, weight, target: (name, port) } in service::ranked(records) {
            let Some(known) = targets.get(&name) else { continue };
            let addresses = known.addresses.iter().map(|ip| SocketAddr::Inet((*ip, port).into()));
            match known.until {
                Some(time) => until = until.min(time),
                None => unheard.extend(addresses.clone()),
            }
            found.extend(addresses.map(|address| Found { address, step, weight: Some(weight) }));
        }
        self.known = targets.into_iter().map(|(name, known)| (name, known.addresses)).collect();
        if found.is_empty() {
            return Err(io::Error::other("none of its targets has an address"));
        }
        Ok(Heard { found, unheard, lasts: left(until) })
    }

    /// What is known now of each of these.
    async fn addresses<'a>(
        &self,
        resolver: &Arc<TokioResolver>,
        names: impl Iterator<Item = &'a Name>,
    ) -> HashMap<Name, Known> {
        let mut names: Vec<Name> = names.cloned().collect();
        names.sort();
        names.dedup();
        let mut targets = HashMap::new();
        let mut looking = JoinSet::new();
        let mut left = names.into_iter();
        loop {
            while looking.len() < AT_ONCE
                && let Some(name) = left.next()
            {
                let resolver = Arc::clone(resolver);
                looking.spawn(async move { (resolver.lookup_ip(name.clone()).await, name) });
            }
            let Some(done) = looking.join_next().await else { return targets };
            // None is ever aborted, and a panic of one is only its own.
            let Ok((answer, name)) = done else { continue };
            let known = match answer {
                Ok(answer) => {
                    Known { addresses: answer.iter().collect(), until: Some(answer.valid_until()) }
                }
                Err(_) => Known {
                    addresses: self.known.get(&name).cloned().unwrap_or_default(),
                    until: None,
                },
            };
            targets.insert(name, known);
        }
    }

    /// A resolver that knows nothing yet: what it is asked, it asks the servers.
    ///
    /// It is made anew for each look-up, since the system's settings may have changed, and since what one that
    /// is older remembers would be taken for news.
    async fn resolver(&self) -> io::Result<Arc<TokioResolver>> {
        let servers = self.servers.clone();
        // It reads files.
        let made = tokio::task::spawn_blocking(move || made(&servers)).await;
        made.map_err(io::Error::other)?.map(Arc::new).map_err(io::Error::other)
    }
}

fn made(servers: &[Address]) -> Result<TokioResolver, NetError> {
    let mut builder = if servers.is_empty() {
        TokioResolver::builder_tokio()?
    } else {
        let config =
            ResolverConfig::from_parts(None, Vec::new(), servers.iter().map(server).collect());
        let mut builder =
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options = builder.options_mut();
        options.timeout = PATIENCE;
        options.attempts = ATTEMPTS;
        // Who names servers wants their answers.
        options.use_hosts_file = ResolveHosts::Never;
        builder
    };
    builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    builder.build()
}

fn server(at: &Address) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
    let connections = connections.map(|mut connection| {
        connection.port = at.port();
        connection
    });
    NameServerConfig::new(at.ip(), true, connections.into())
}

/// What a record says; `None`: it is another one, or names nothing.
fn record_of(data: &RData) -> Option<Record<Target>> {
    let RData::SRV(srv) = data else { return None };
    if srv.target.is_root() || srv.port == 0 {
        return None;
    }
    let target = (srv.target.clone(), srv.port);
    Some(Record { priority: srv.priority, weight: srv.weight, target })
}

fn left(until: Instant) -> Option<Duration> {
    Some(until.saturating_duration_since(Instant::now()))
}
