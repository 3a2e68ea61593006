//! How long connections to an HTTP/1 origin are kept, and who ends them.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::Sender;
use std::time::Duration;
use std::time::Instant;

use super::with;
use crate::harness::Edge;
use crate::harness::PATIENCE;

/// What an origin sees of its connections, which are numbered from 1 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sees {
    /// A request on this one.
    Asked(usize),
    /// The other side has closed this one. The origin never does.
    Closed(usize),
}

use Sees::Asked;
use Sees::Closed;

/// An origin that keeps all of its connections, and tells what it sees.
struct Keeper {
    address: SocketAddr,
    sees: Receiver<Sees>,
}

impl Keeper {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be listened on");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (tell, sees) = mpsc::channel();
        std::thread::spawn(move || {
            for (number, stream) in (1..).zip(listener.incoming().flatten()) {
                let tell = tell.clone();
                std::thread::spawn(move || serve(number, stream, &tell));
            }
        });
        Self { address, sees }
    }

    /// What it sees next.
    #[track_caller]
    fn next(&self) -> Sees {
        self.sees.recv_timeout(PATIENCE).expect("it sees something")
    }

    fn before(&self, more: &str) -> Edge {
        with(&format!("\"{}\"", self.address), &format!("    health: off\n    {more}\n"))
    }
}

fn serve(number: usize, mut stream: TcpStream, tell: &Sender<Sees>) {
    let read = BufReader::new(stream.try_clone().expect("a descriptor can be had"));
    for line in read.lines() {
        let Ok(line) = line else { break };
        if line.is_empty() {
            let _ = tell.send(Asked(number));
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell");
        }
    }
    let _ = tell.send(Closed(number));
}

#[test]
fn a_connection_carries_as_many_requests_as_it_may_and_is_closed() {
    let origin = Keeper::start();
    let edge = origin.before("pool: {max_requests: 2}");
    for _ in 0..20 {
        edge.get("/").expect_status(200).expect_body("well");
    }
    // How many each carried, and which of them are closed. One may not be back yet when the next request comes, which
    // then has another one.
    let (mut carried, mut closed) = (BTreeMap::<usize, usize>::new(), BTreeSet::new());
    let full = |carried: &BTreeMap<usize, usize>| -> BTreeSet<usize> {
        carried.iter().filter(|(_, requests)| **requests == 2).map(|(number, _)| *number).collect()
    };
    while carried.values().sum::<usize>() < 20 || full(&carried) != closed {
        match origin.next() {
            Asked(number) => *carried.entry(number).or_default() += 1,
            Closed(number) => assert!(closed.insert(number), "it is closed once"),
        }
    }
    assert!(carried.values().all(|requests| *requests <= 2), "{carried:?}");
    assert!(!closed.is_empty(), "{carried:?}");
}

#[test]
fn a_connection_that_is_idle_for_too_long_is_closed_and_the_next_request_has_a_new_one() {
    let origin = Keeper::start();
    let edge = origin.before("timeouts: {idle: 1s}");
    let began = Instant::now();
    edge.get("/").expect_status(200);
    assert_eq!([origin.next(), origin.next()], [Asked(1), Closed(1)]);
    assert!(began.elapsed() >= Duration::from_secs(1), "it was not idle for that long");
    edge.wait_for_gauge("edgeproxy_backend_pool_open", 0.0);
    edge.get("/").expect_status(200).expect_body("well");
    assert_eq!(origin.next(), Asked(2));
}

#[test]
fn a_connection_that_is_too_old_is_closed_though_it_is_never_idle() {
    let origin = Keeper::start();
    let edge = origin.before("pool: {max_age: 1s}");
    let began = Instant::now();
    let (mut asked, mut is_open) = (0, true);
    while is_open {
        assert!(began.elapsed() < PATIENCE, "it is never closed");
        edge.get("/").expect_status(200).expect_body("well");
        for seen in origin.sees.try_iter() {
            asked += usize::from(seen == Asked(1));
            is_open &= seen != Closed(1);
        }
    }
    assert!(began.elapsed() >= Duration::from_secs(1), "it was not that old");
    assert!(asked > 1, "it was used again and again");
    edge.get("/").expect_status(200).expect_body("well");
}
