//! Keeping the addresses of names current, beside the requests and never in their way.
//!
//! Hosts are asked of the system's resolver. Services, and hosts of upstreams with `resolvers` of their own, are
//! asked of DNS servers by the program itself, where it was built with the feature `srv`.

#[cfg(feature = "srv")]
mod dns;
#[cfg(feature = "srv")]
mod service;

use std::hash::BuildHasher;
use std::hash::RandomState;
use std::io;
use std::net::SocketAddr as Address;
use std::sync::Arc;
use std::sync::Weak;
use std::time::Duration;

use log::info;
use log::warn;
use pingora::protocols::l4::socket::SocketAddr;
use tokio::net::lookup_host;
use tokio::sync::oneshot;
use tokio::time::sleep;
use tokio::time::timeout;

use crate::upstream::found::Found;
use crate::upstream::peer::Asked;
use crate::upstream::peer::Change;
use crate::upstream::peer::Name;
use crate::upstream::peer::Upstream;

/// How long the start waits for first answers, which then come when they come.
const START: Duration = Duration::from_secs(2);

/// How long one look-up may take.
const LOOK_UP: Duration = Duration::from_secs(10);

/// How long a change waits for the addresses that it begins with.
const AHEAD: Duration = Duration::from_secs(5);

/// The time to the next look-up after a first failure; it doubles with each one.
const RETRY: Duration = Duration::from_secs(1);

/// The shortest time between two look-ups of a name, however short its records hold.
const LEAST: Duration = Duration::from_secs(1);

/// Resolves the names of `upstream` now and then again for as long as it lives.
///
/// Returns when each name has been looked up once, after two seconds at the latest. A name that
/// fails is retried soon; until then its addresses of before stay, and an upstream that never had
/// any answers `NoPeer`.
pub async fn start(upstream: &Arc<Upstream>) {
    follow(upstream, None).await;
}

/// The same for one backend that was added, or changed.
pub async fn begin(upstream: &Arc<Upstream>, id: &str) {
    follow(upstream, Some(id)).await;
}

/// The addresses that this stands for now.
///
/// # Errors
/// There are none, or they cannot be found out in a few seconds.
pub(super) async fn once(upstream: &Upstream, asked: &Asked) -> io::Result<Vec<Found>> {
    let mut asker = Asker::of(&upstream.settings().resolvers);
    let heard = timeout(AHEAD, asker.look_up(asked)).await;
    let heard = heard.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    if heard.found.is_empty() {
        return Err(no_address());
    }
    Ok(heard.found)
}

async fn follow(upstream: &Arc<Upstream>, id: Option<&str>) {
    for dial in upstream.dials() {
        dial.tend();
    }
    let mut firsts = Vec::new();
    for name in upstream.unfollowed(id) {
        let (done, first) = oneshot::channel();
        let pace = Pace::new(upstream.settings().resolve_every);
        let asker = Asker::of(&upstream.settings().resolvers);
        let task = tokio::spawn(keep(Arc::downgrade(upstream), name, asker, pace, done));
        upstream.adopt(task.abort_handle());
        firsts.push(first);
    }
    let all = async {
        for first in firsts {
            // The task cannot be gone before it answered, unless its backend or the runtime is going.
            let _ = first.await;
        }
    };
    let _ = timeout(START, all).await;
}

async fn keep(
    upstream: Weak<Upstream>,
    name: Name,
    mut asker: Asker,
    mut pace: Pace,
    first: oneshot::Sender<()>,
) {
    let mut first = Some(first);
    loop {
        // Nobody is to be asked for a backend that was removed, or is elsewhere.
        if !upstream.upgrade().is_some_and(|upstream| upstream.knows(name.serial)) {
            return;
        }
        let heard = timeout(LOOK_UP, asker.look_up(&name.asked)).await;
        let heard = heard.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let Some(upstream) = upstream.upgrade() else { return };
        // It may have been meanwhile.
        let Some(answer) = note(&upstream, &name, heard, pace.failures) else { return };
        let wait = pace.next(answer);
        drop(upstream);
        if let Some(first) = first.take() {
            let _ = first.send(());
        }
        sleep(jittered(wait, RandomState::new().hash_one(()))).await;
    }
}

/// What a look-up came to.
#[derive(Debug, Default)]
struct Heard {
    /// The addresses; where some were looked up by a name of their own in vain, also those of before.
    found: Vec<Found>,
    /// These are those of before.
    unheard: Vec<SocketAddr>,
    /// For how long that holds, where its records say so.
    lasts: Option<Duration>,
}

/// Who is asked.
#[derive(Debug)]
struct Asker {
    /// Servers are named: the system's resolver is not asked.
    #[cfg(feature = "srv")]
    by_servers: bool,
    #[cfg(feature = "srv")]
    dns: dns::Asker,
}

impl Asker {
    #[cfg(feature = "srv")]
    fn of(servers: &[Address]) -> Self {
        Self { by_servers: !servers.is_empty(), dns: dns::Asker::of(servers) }
    }

    #[cfg(feature = "srv")]
    async fn look_up(&mut self, asked: &Asked) -> io::Result<Heard> {
        match asked {
            Asked::Host { host, port } if self.by_servers => self.dns.host(host, *port).await,
            Asked::Host { host, port } => of_system(host, *port).await,
            Asked::Service(name) => self.dns.service(name).await,
        }
    }

    /// The configuration names no servers: it was checked.
    #[cfg(not(feature = "srv"))]
    fn of(_: &[Address]) -> Self {
        Self {}
    }

    #[cfg(not(feature = "srv"))]
    async fn look_up(&mut self, asked: &Asked) -> io::Result<Heard> {
        match asked {
            Asked::Host { host, port } => of_system(host, *port).await,
            Asked::Service(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

/// The addresses of a host, as the system's resolver knows them.
async fn of_system(host: &str, port: u16) -> io::Result<Heard> {
    let found = lookup_host((host, port)).await?;
    let found: Vec<Found> = found.map(|address| SocketAddr::Inet(address).into()).collect();
    if found.is_empty() {
        return Err(no_address());
    }
    Ok(Heard { found, ..Heard::default() })
}

fn no_address() -> io::Error {
    io::Error::other("the name has no address")
}

/// Puts an answer to use and tells the operator what is news; `None` when nobody needs it any more.
fn note(
    upstream: &Upstream,
    name: &Name,
    heard: io::Result<Heard>,
    failures: u32,
) -> Option<Answer> {
    let (label, host) = (&*upstream.settings().name, name.asked.name());
    match heard {
        Ok(Heard { found, unheard, lasts }) => {
            let count = found.len();
            if upstream.learn(name.serial, found)? == Change::Addresses || failures > 0 {
                info!(target: "edgeproxy::upstream", upstream = label, host, addresses = count;
                    "name resolved");
            }
            if !unheard.is_empty() {
                let count = unheard.len();
                warn!(target: "edgeproxy::upstream", upstream = label, host, addresses = count;
                    "targets not resolved");
                let error = io::Error::other("the name of a target was not resolved");
                upstream.unresolved(name.serial, Some(&unheard), &error)?;
                // Like a failure it is retried soon.
                return Some(Answer::Good(Some(RETRY)));
            }
            Some(Answer::Good(lasts))
        }
        Err(e) => {
            // Only the first of a row: the others say nothing new.
            if failures == 0 {
                warn!(target: "edgeproxy::upstream", upstream = label, host, reason:% = e;
                    "name not resolved");
            }
            upstream.unresolved(name.serial, None, &e)?;
            Some(Answer::Failed)
        }
    }
}

/// How a look-up went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// There are addresses; for so long, where that is known.
    Good(Option<Duration>),
    /// There are none, or no answer came.
    Failed,
}

/// When to look a name up again.
#[derive(Debug)]
struct Pace {
    every: Duration,
    /// How many look-ups have failed in a row.
    failures: u32,
}

impl Pace {
    fn new(every: Duration) -> Self {
        Self { every, failures: 0 }
    }

    /// The time to wait after an answer: the configured one, or shorter when it does not last so long, and
    /// after a failure.
    fn next(&mut self, answer: Answer) -> Duration {
        match answer {
            Answer::Good(lasts) => {
                self.failures = 0;
                lasts.map_or(self.every, |lasts| lasts.max(LEAST).min(self.every))
            }
            Answer::Failed => {
                let doubled = RETRY.saturating_mul(2_u32.saturating_pow(self.failures));
                self.failures = self.failures.saturating_add(1);
                doubled.min(self.every)
            }
        }
    }
}

/// `wait`, a tenth more or less, so that many names and processes do not ask in step.
fn jittered(wait: Duration, random: u64) -> Duration {
    let permille = u32::try_from(900 + random % 201).unwrap_or(1_000);
    wait.saturating_mul(permille) / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_retried_sooner_and_ever_later_up_to_the_interval() {
        let mut pace = Pace::new(Duration::from_secs(5));
        let waits: Vec<u64> = (0..5).map(|_| pace.next(Answer::Failed).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 5, 5]);
    }

    #[test]
    fn a_good_answer_ends_a_row_of_failures() {
        let mut pace = Pace::new(Duration::from_secs(30));
        pace.next(Answer::Failed);
        assert_eq!(pace.next(Answer::Good(None)), Duration::from_secs(30));
        assert_eq!(pace.next(Answer::Failed), RETRY);
    }

    #[test]
    fn an_answer_that_lasts_less_is_asked_for_sooner_but_not_without_end() {
        let mut pace = Pace::new(Duration::from_secs(30));
        let mut after =
            |lasts| pace.next(Answer::Good(Some(Duration::from_millis(lasts)))).as_millis();
        assert_eq!([0, 999, 1_000, 1_001].map(&mut after), [1_000, 1_000, 1_000, 1_001]);
        assert_eq!([29_999, 30_000, 30_001].map(after), [29_999, 30_000, 30_000]);
    }

    #[test]
    fn a_very_long_row_of_failures_overflows_nothing() {
        let mut pace = Pace { every: Duration::from_secs(30), failures: u32::MAX };
        assert_eq!(pace.next(Answer::Failed), Duration::from_secs(30));
    }

    #[test]
    fn jitter_stays_within_a_tenth() {
        let wait = Duration::from_secs(10);
        assert_eq!(jittered(wait, 0), Duration::from_secs(9));
        assert_eq!(jittered(wait, 200), Duration::from_secs(11));
        assert_eq!(jittered(wait, 201), Duration::from_secs(9));
        assert_eq!(jittered(Duration::MAX, 200), Duration::MAX / 1_000);
    }
}
