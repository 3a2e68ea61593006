//! The concrete addresses behind one configured address, and which of them is next.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::upstreams::peer::HttpPeer;

use crate::upstream::Place;

/// How long an address that could not be connected to stands behind its siblings.
const REST: Duration = Duration::from_secs(10);

/// How particular to be about an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// Not tried for this request, and not known to be unreachable.
    Rested,
    /// Not tried for this request.
    Untried,
    /// Any: a lost keepalive connection is no reason not to try the same address again.
    Any,
}

/// One configured address: its place, and what it stands for now.
#[derive(Debug)]
pub(super) struct Member {
    place: Place,
    /// Everything about a peer but its address.
    pattern: HttpPeer,
    endpoints: ArcSwap<Vec<Arc<Endpoint>>>,
    next: AtomicUsize,
}

/// One address that can be connected to.
#[derive(Debug)]
struct Endpoint {
    peer: HttpPeer,
    /// It rests until this many milliseconds on its upstream's clock.
    rests_until: AtomicU64,
}

impl Member {
    /// A member at `place`, of peers like `pattern`, with no address yet.
    pub(super) fn new(place: Place, pattern: HttpPeer) -> Self {
        Self { place, pattern, endpoints: ArcSwap::default(), next: AtomicUsize::new(0) }
    }

    /// Where it was configured.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// The name and port to resolve; `None` when there is nothing to resolve.
    pub(super) fn name(&self) -> Option<(&str, u16)> {
        match &self.place {
            Place::Tcp { host, port } if host.parse::<IpAddr>().is_err() => Some((host, *port)),
            Place::Tcp { .. } | Place::Unix(_) | Place::Demo => None,
        }
    }

    /// Replaces the addresses. Those known before keep their state. Answers whether any came or
    /// went.
    pub(super) fn learn(&self, mut addresses: Vec<SocketAddr>) -> Change {
        addresses.sort();
        addresses.dedup();
        let known = self.endpoints.load();
        let same = known.iter().map(|endpoint| &endpoint.peer._address).eq(&addresses);
        if same {
            return Change::None;
        }
        let endpoints = addresses.into_iter().map(|address| {
            let kept = known.iter().find(|endpoint| endpoint.peer._address == address);
            kept.cloned().unwrap_or_else(|| {
                let mut peer = self.pattern.clone();
                peer._address = address;
                Arc::new(Endpoint { peer, rests_until: AtomicU64::new(0) })
            })
        });
        self.endpoints.store(Arc::new(endpoints.collect()));
        Change::Addresses
    }

    /// Whether an address fits `wish` at `now`.
    pub(super) fn has(&self, wish: Wish, tried: &[SocketAddr], now: Duration) -> bool {
        self.endpoints.load().iter().any(|endpoint| endpoint.fits(wish, tried, now))
    }

    /// The next address that fits, in turn.
    pub(super) fn take(
        &self,
        wish: Wish,
        tried: &[SocketAddr],
        now: Duration,
    ) -> Option<Box<HttpPeer>> {
        let endpoints = self.endpoints.load();
        let turn = self.next.fetch_add(1, Ordering::Relaxed).checked_rem(endpoints.len())?;
        let (before, from) = endpoints.split_at(turn);
        let endpoint =
            from.iter().chain(before).find(|endpoint| endpoint.fits(wish, tried, now))?;
        Some(Box::new(endpoint.peer.clone()))
    }

    /// Lets `address`, if it is one of ours, rest from `now` on.
    pub(super) fn rest(&self, address: &SocketAddr, now: Duration) {
        let endpoints = self.endpoints.load();
        if let Some(endpoint) = endpoints.iter().find(|e| e.peer._address == *address) {
            endpoint.rests_until.store(millis(now.saturating_add(REST)), Ordering::Relaxed);
        }
    }
}

/// What new answers changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing.
    None,
    /// An address came or went.
    Addresses,
}

impl Endpoint {
    fn fits(&self, wish: Wish, tried: &[SocketAddr], now: Duration) -> bool {
        let untried = || !tried.contains(&self.peer._address);
        let rested = || self.rests_until.load(Ordering::Relaxed) <= millis(now);
        match wish {
            Wish::Rested => rested() && untried(),
            Wish::Untried => untried(),
            Wish::Any => true,
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> SocketAddr {
        SocketAddr::Inet(([192, 0, 2, last], 80).into())
    }

    fn member(addresses: &[u8]) -> Member {
        let place = Place::Tcp { host: "origin.test".to_owned(), port: 80 };
        let member = Member::new(place, HttpPeer::new(("192.0.2.0", 0), false, String::new()));
        member.learn(addresses.iter().copied().map(address).collect());
        member
    }

    fn taken(member: &Member, wish: Wish, tried: &[SocketAddr], now: u64) -> Option<SocketAddr> {
        member.take(wish, tried, Duration::from_secs(now)).map(|peer| peer._address)
    }

    #[test]
    fn addresses_take_turns() {
        let member = member(&[1, 2]);
        let turns = [0; 4].map(|_| taken(&member, Wish::Rested, &[], 0));
        assert_eq!(turns, [1, 2, 1, 2].map(|last| Some(address(last))));
    }

    #[test]
    fn an_address_rests_for_exactly_ten_seconds() {
        let member = member(&[1, 2]);
        member.rest(&address(1), Duration::from_secs(5));
        for _ in 0..3 {
            assert_eq!(taken(&member, Wish::Rested, &[], 14), Some(address(2)));
        }
        assert!(!member.has(Wish::Rested, &[address(2)], Duration::from_millis(14_999)));
        assert!(member.has(Wish::Rested, &[address(2)], Duration::from_secs(15)));
    }

    #[test]
    fn a_tried_address_comes_again_only_on_the_last_wish() {
        let member = member(&[1]);
        let tried = [address(1)];
        assert_eq!(taken(&member, Wish::Untried, &tried, 0), None);
        assert_eq!(taken(&member, Wish::Any, &tried, 0), Some(address(1)));
    }

    #[test]
    fn new_answers_replace_addresses_and_keep_the_state_of_those_that_stay() {
        let member = member(&[1, 2]);
        member.rest(&address(1), Duration::ZERO);
        assert_eq!(member.learn(vec![address(2), address(1), address(1)]), Change::None);
        assert_eq!(member.learn(vec![address(1), address(3)]), Change::Addresses);
        assert_eq!(taken(&member, Wish::Rested, &[], 1), Some(address(3)));
        assert_eq!(taken(&member, Wish::Rested, &[address(3)], 1), None);
    }

    #[test]
    fn only_host_names_are_resolved() {
        assert_eq!(member(&[]).name(), Some(("origin.test", 80)));
        for host in ["192.0.2.1", "2001:db8::1"] {
            let place = Place::Tcp { host: host.to_owned(), port: 80 };
            let pattern = HttpPeer::new(("192.0.2.0", 0), false, String::new());
            assert_eq!(Member::new(place, pattern).name(), None);
        }
    }
}
