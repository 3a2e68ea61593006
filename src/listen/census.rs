//! How many connections and HTTP/2 streams there are, in all and from each client address.

use std::collections::HashMap;
use std::future::Future;
use std::future::poll_fn;
use std::hash::BuildHasher;
use std::hash::RandomState;
use std::net::IpAddr;
use std::net::Ipv6Addr;
use std::pin::Pin;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Sleep;

use crate::listen::hands::Hands;

const SHARDS: usize = 32;

/// Counts connections and holds them under their limits.
#[derive(Debug)]
pub struct Census {
    total: AtomicU64,
    streams: AtomicU64,
    shards: Vec<Mutex<HashMap<IpAddr, Arc<Client>>>>,
    hasher: RandomState,
    empty: Notify,
    cut: AtomicBool,
    end: Notify,
    /// The handshakes that are under way.
    pub(super) hands: Hands,
}

/// What one client address has: known of for as long as it has anything.
#[derive(Debug, Default)]
struct Client {
    /// Changed under the lock of its shard.
    connections: AtomicU64,
    streams: AtomicU64,
}

/// Why a connection, or a stream, is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The limit in all is reached.
    Total,
    /// The limit for this client address is reached.
    Client,
}

impl Full {
    /// The label in metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Total => "total_limit",
            Self::Client => "client_limit",
        }
    }
}

impl Default for Census {
    fn default() -> Self {
        Self {
            total: AtomicU64::new(0),
            streams: AtomicU64::new(0),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            empty: Notify::new(),
            cut: AtomicBool::new(false),
            end: Notify::new(),
            hands: Hands::default(),
        }
    }
}

impl Census {
    /// Lets a connection from `address` in, unless a limit is reached. It counts until the returned
    /// place is dropped.
    ///
    /// # Errors
    /// Which limit is reached.
    pub fn enter(
        self: &Arc<Self>,
        address: IpAddr,
        total_limit: u64,
        client_limit: u64,
    ) -> Result<Place, Full> {
        if self.total.fetch_add(1, Ordering::AcqRel) >= total_limit {
            self.leave_total();
            return Err(Full::Total);
        }
        let address = client_of(address);
        match self.enter_client(address, client_limit) {
            Ok(client) => Ok(Place { census: Arc::clone(self), address, client }),
            Err(full) => {
                self.leave_total();
                Err(full)
            }
        }
    }

    /// How many connections there are.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Acquire)
    }

    /// Waits until there is no connection.
    pub async fn emptied(&self) {
        loop {
            let notified = self.empty.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.total() == 0 {
                return;
            }
            notified.await;
        }
    }

    /// Ends every connection: what was begun on it is cut.
    pub fn cut(&self) {
        self.cut.store(true, Ordering::Release);
        self.end.notify_waiters();
    }

    /// Whether every connection is to end now.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Acquire)
    }

    /// Runs a connection. When all are cut, it is run on for `grace`, in which it is to say so; then it is
    /// dropped.
    pub(crate) async fn until_cut(&self, grace: Duration, connection: impl Future<Output = ()>) {
        let mut connection = pin!(connection);
        // Woken once; the flag says what woke. A task has one waker, so it is registered once.
        let mut end = pin!(self.end.notified());
        end.as_mut().enable();
        let mut is_registered = false;
        let mut over: Option<Pin<Box<Sleep>>> = None;
        poll_fn(|cx| {
            if !is_registered {
                is_registered = true;
                let _ = end.as_mut().poll(cx);
            }
            if connection.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            if over.is_none() && self.is_cut() {
                over = Some(Box::pin(tokio::time::sleep(grace)));
                // What was waited for meanwhile may have missed it.
                cx.waker().wake_by_ref();
            }
            over.as_mut().map_or(Poll::Pending, |over| over.as_mut().poll(cx))
        })
        .await;
    }

    fn shard(&self, address: IpAddr) -> &Mutex<HashMap<IpAddr, Arc<Client>>> {
        let hash = self.hasher.hash_one(address);
        &self.shards[(hash % SHARDS as u64) as usize]
    }

    fn enter_client(&self, address: IpAddr, limit: u64) -> Result<Arc<Client>, Full> {
        let mut shard = self.shard(address).lock();
        let client = shard.entry(address).or_default();
        if client.connections.load(Ordering::SeqCst) >= limit {
            return Err(Full::Client);
        }
        client.connections.fetch_add(1, Ordering::SeqCst);
        Ok(Arc::clone(client))
    }

    fn leave_client(&self, address: IpAddr, client: &Client) {
        let mut shard = self.shard(address).lock();
        let last = client.connections.fetch_sub(1, Ordering::SeqCst) == 1;
        if last && client.streams.load(Ordering::SeqCst) == 0 {
            shard.remove(&address);
        }
    }

    /// Forgets a client that has nothing any more.
    fn forget(&self, address: IpAddr) {
        let mut shard = self.shard(address).lock();
        if shard.get(&address).is_some_and(|client| client.is_gone()) {
            shard.remove(&address);
        }
    }

    fn leave_total(&self) {
        if self.total.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.empty.notify_waiters();
        }
    }
}

impl Client {
    fn is_gone(&self) -> bool {
        self.connections.load(Ordering::SeqCst) == 0 && self.streams.load(Ordering::SeqCst) == 0
    }
}

/// A counted connection's place; dropping it leaves.
#[derive(Debug)]
pub struct Place {
    census: Arc<Census>,
    address: IpAddr,
    client: Arc<Client>,
}

impl Place {
    /// Whether the connection is to end now.
    pub(crate) fn is_cut(&self) -> bool {
        self.census.is_cut()
    }

    /// The place of a connection that turned out to be from `address`, unless that client has `limit` already.
    ///
    /// # Errors
    /// The limit is reached; the place is given up.
    pub fn of_client(mut self, address: IpAddr, limit: u64) -> Result<Self, Full> {
        let address = client_of(address);
        let client = self.census.enter_client(address, limit)?;
        self.census.leave_client(self.address, &self.client);
        (self.address, self.client) = (address, client);
        Ok(self)
    }

    /// Where the streams of this connection are counted.
    pub(super) fn streams(&self) -> Streams {
        let census = Arc::clone(&self.census);
        Streams { census, address: self.address, client: Arc::clone(&self.client) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.census.leave_client(self.address, &self.client);
        self.census.leave_total();
    }
}

/// Counts the streams of one connection, with all others and with those of the same client.
#[derive(Debug)]
pub(super) struct Streams {
    census: Arc<Census>,
    address: IpAddr,
    client: Arc<Client>,
}

impl Streams {
    /// Lets a stream in, unless a limit is reached. It counts until [`Self::leave`], which may be after
    /// the end of its connection.
    ///
    /// # Errors
    /// Which limit is reached.
    pub(super) fn enter(&self, total_limit: u64, client_limit: u64) -> Result<(), Full> {
        let (in_all, of_client) = self.count();
        let full = match (in_all >= total_limit, of_client >= client_limit) {
            (true, _) => Full::Total,
            (false, true) => Full::Client,
            (false, false) => return Ok(()),
        };
        self.leave();
        Err(full)
    }

    /// Lets a stream in whatever the limits are. It counts like others.
    pub(super) fn enter_anyway(&self) {
        self.count();
    }

    /// One more, and how many there were, in all and of this client.
    fn count(&self) -> (u64, u64) {
        let of_client = self.client.streams.fetch_add(1, Ordering::SeqCst);
        (self.census.streams.fetch_add(1, Ordering::Relaxed), of_client)
    }

    /// A stream has ended.
    pub(super) fn leave(&self) {
        self.census.streams.fetch_sub(1, Ordering::Relaxed);
        let last = self.client.streams.fetch_sub(1, Ordering::SeqCst) == 1;
        // Whichever of the last stream and the last connection ends later forgets the client.
        if last && self.client.connections.load(Ordering::SeqCst) == 0 {
            self.census.forget(self.address);
        }
    }
}

/// One client is one IPv4 address or one IPv6 /64: a host is given a whole /64 and could else have as
/// many connections as it has addresses.
fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => {
            let network = u128::from(v6) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(network))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_total_limit_holds_and_places_come_back() {
        let census = Arc::new(Census::default());
        let one = census.enter(ip("10.0.0.1"), 2, 9).unwrap();
        let _two = census.enter(ip("10.0.0.2"), 2, 9).unwrap();
        assert_eq!(census.enter(ip("10.0.0.3"), 2, 9).unwrap_err(), Full::Total);
        drop(one);
        assert!(census.enter(ip("10.0.0.3"), 2, 9).is_ok());
    }

    #[test]
    fn the_limit_per_client_holds_and_counts_only_that_client() {
        let census = Arc::new(Census::default());
        let _one = census.enter(ip("10.0.0.1"), 9, 1).unwrap();
        assert_eq!(census.enter(ip("10.0.0.1"), 9, 1).unwrap_err(), Full::Client);
        assert_eq!(census.enter(ip("::ffff:10.0.0.1"), 9, 1).unwrap_err(), Full::Client);
        assert!(census.enter(ip("10.0.0.2"), 9, 1).is_ok());
        assert_eq!(census.total(), 1);
    }

    #[test]
    fn a_slash_64_is_one_client() {
        let census = Arc::new(Census::default());
        let _one = census.enter(ip("2001:db8::1"), 9, 1).unwrap();
        assert_eq!(census.enter(ip("2001:db8::ffff"), 9, 1).unwrap_err(), Full::Client);
        assert!(census.enter(ip("2001:db8:0:1::1"), 9, 1).is_ok());
    }

    #[test]
    fn a_place_can_turn_out_to_be_another_clients() {
        let census = Arc::new(Census::default());
        let proxied = || census.enter(ip("10.0.0.1"), 9, u64::MAX).unwrap();
        let one = proxied().of_client(ip("192.0.2.1"), 1).unwrap();
        assert_eq!(proxied().of_client(ip("192.0.2.1"), 1).unwrap_err(), Full::Client);
        let _other = proxied().of_client(ip("192.0.2.2"), 1).unwrap();
        assert_eq!(census.total(), 2, "whoever is turned away has left");
        drop(one);
        assert!(proxied().of_client(ip("192.0.2.1"), 1).is_ok());
        assert!(census.enter(ip("10.0.0.1"), 9, 1).is_ok(), "the proxy itself holds no place");
    }

    #[test]
    fn streams_are_counted_over_all_connections_of_a_client() {
        let census = Arc::new(Census::default());
        let place = |address| census.enter(ip(address), 9, 9).unwrap();
        let (one, two, other) = (place("10.0.0.1"), place("10.0.0.1"), place("10.0.0.2"));
        let (one, two, other) = (one.streams(), two.streams(), other.streams());
        assert_eq!(one.enter(3, 2), Ok(()));
        assert_eq!(two.enter(3, 2), Ok(()));
        assert_eq!(two.enter(3, 2), Err(Full::Client));
        assert_eq!(other.enter(3, 2), Ok(()));
        assert_eq!(other.enter(3, 2), Err(Full::Total));
        one.leave();
        assert_eq!(two.enter(3, 2), Ok(()), "who was refused counts no more");
        assert_eq!(other.enter(3, 2), Err(Full::Total));
        other.enter_anyway();
        two.leave();
        assert_eq!(two.enter(3, 2), Err(Full::Total));
    }

    #[test]
    fn streams_count_until_their_end_and_then_the_client_is_forgotten() {
        let census = Arc::new(Census::default());
        let known = || census.shards.iter().map(|shard| shard.lock().len()).sum::<usize>();
        for stream_is_last in [true, false] {
            let place = census.enter(ip("10.0.0.1"), 9, 9).unwrap();
            let streams = place.streams();
            assert_eq!(streams.enter(9, 1), Ok(()));
            if stream_is_last {
                drop(place);
                assert_eq!(known(), 1);
                let next = census.enter(ip("10.0.0.1"), 9, 9).unwrap();
                assert_eq!(next.streams().enter(9, 1), Err(Full::Client));
                drop(next);
                streams.leave();
            } else {
                streams.leave();
                assert_eq!(known(), 1);
                drop(place);
            }
            assert_eq!(known(), 0);
        }
    }

    #[tokio::test]
    async fn emptied_waits_for_the_last_one() {
        let census = Arc::new(Census::default());
        let place = census.enter(ip("10.0.0.1"), 9, 9).unwrap();
        let waiting = tokio::spawn({
            let census = Arc::clone(&census);
            async move { census.emptied().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(place);
        waiting.await.unwrap();
    }
}
