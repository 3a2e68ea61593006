//! A DNS server that says what a test tells it to, over UDP and TCP.

use std::collections::HashMap;
use std::io::Read;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use hickory_resolver::proto::op::Message;
use hickory_resolver::proto::op::OpCode;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::Name;
use hickory_resolver::proto::rr::RData;
use hickory_resolver::proto::rr::Record;
use hickory_resolver::proto::rr::RecordType;
use hickory_resolver::proto::rr::rdata::A;
use hickory_resolver::proto::rr::rdata::SRV;

use crate::harness::PATIENCE;

/// What UDP carries of one answer without further ado (RFC 1035 §4.2.1).
const SHORT: usize = 512;

/// A DNS server.
pub(crate) struct Dns {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    zone: Mutex<Zone>,
    asked: Condvar,
}

#[derive(Default)]
struct Zone {
    records: HashMap<(Name, RecordType), Vec<Record>>,
    mood: Mood,
    /// Every question so far.
    questions: Vec<(Name, RecordType)>,
    /// How many came over TCP.
    over_tcp: usize,
}

/// How it answers.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    /// What its records say.
    #[default]
    Well,
    /// That it failed.
    Failing,
    /// Not at all.
    Silent,
}

impl Dns {
    pub(crate) fn start() -> Self {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("loopback can be listened on");
        let address = tcp.local_addr().expect("a bound socket has an address");
        let udp = UdpSocket::bind(address).expect("nobody else has a port of the system's choice");
        let state = Arc::new(State::default());
        let (over_udp, over_tcp) = (Arc::clone(&state), Arc::clone(&state));
        thread::spawn(move || serve_udp(&udp, &over_udp));
        thread::spawn(move || serve_tcp(&tcp, &over_tcp));
        Self { address, state }
    }

    /// From now on this service is there, as (priority, weight, port, target).
    pub(crate) fn service(&self, name: &str, ttl: u32, targets: &[(u16, u16, u16, &str)]) {
        let of = |&(priority, weight, port, target): &(u16, u16, u16, &str)| {
            RData::SRV(SRV::new(priority, weight, port, named(target)))
        };
        self.set(name, RecordType::SRV, ttl, targets.iter().map(of).collect());
    }

    /// From now on this host has these addresses.
    pub(crate) fn host(&self, name: &str, ttl: u32, addresses: &[[u8; 4]]) {
        let of = |ip: &[u8; 4]| RData::A(A(Ipv4Addr::from(*ip)));
        self.set(name, RecordType::A, ttl, addresses.iter().map(of).collect());
    }

    /// From now on it answers so.
    pub(crate) fn is(&self, mood: Mood) {
        self.state.zone.lock().expect("no panic").mood = mood;
    }

    /// How often this was asked for.
    pub(crate) fn asked(&self, name: &str, kind: RecordType) -> usize {
        let asked = (named(name), kind);
        let zone = self.state.zone.lock().expect("no panic");
        zone.questions.iter().filter(|one| **one == asked).count()
    }

    /// How many questions came over TCP.
    pub(crate) fn over_tcp(&self) -> usize {
        self.state.zone.lock().expect("no panic").over_tcp
    }

    /// Waits until this was asked for so often more.
    #[track_caller]
    pub(crate) fn wait_for_more(&self, name: &str, kind: RecordType, more: usize) {
        let wanted = self.asked(name, kind) + more;
        let asked = (named(name), kind);
        let since = Instant::now();
        let mut zone = self.state.zone.lock().expect("no panic");
        while zone.questions.iter().filter(|one| **one == asked).count() < wanted {
            let left = PATIENCE.checked_sub(since.elapsed()).expect("it is asked for in the end");
            zone = self.state.asked.wait_timeout(zone, left).expect("no panic").0;
        }
    }

    fn set(&self, name: &str, kind: RecordType, ttl: u32, data: Vec<RData>) {
        let name = named(name);
        let records = data.into_iter().map(|data| Record::from_rdata(name.clone(), ttl, data));
        let records = records.collect();
        self.state.zone.lock().expect("no panic").records.insert((name, kind), records);
    }
}

fn named(name: &str) -> Name {
    Name::from_ascii(format!("{}.", name.trim_end_matches('.'))).expect("a name")
}

fn serve_udp(socket: &UdpSocket, state: &State) {
    let mut buf = [0; 4096];
    while let Ok((length, client)) = socket.recv_from(&mut buf) {
        let Some(answer) = state.answer(&buf[..length]) else { continue };
        let mut bytes = answer.to_vec().expect("it can be written");
        if bytes.len() > SHORT {
            bytes = answer.truncate().to_vec().expect("it can be written");
        }
        // A client that is gone asks again.
        let _ = socket.send_to(&bytes, client);
    }
}

fn serve_tcp(listener: &TcpListener, state: &Arc<State>) {
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { return };
        let state = Arc::clone(state);
        thread::spawn(move || {
            let mut length = [0; 2];
            while stream.read_exact(&mut length).is_ok() {
                let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
                stream.read_exact(&mut question).expect("a whole question");
                state.zone.lock().expect("no panic").over_tcp += 1;
                let Some(answer) = state.answer(&question) else { continue };
                let bytes = answer.to_vec().expect("it can be written");
                let length = u16::try_from(bytes.len()).expect("it fits").to_be_bytes();
                if stream.write_all(&[&length[..], &bytes].concat()).is_err() {
                    return;
                }
            }
        });
    }
}

impl State {
    fn answer(&self, question: &[u8]) -> Option<Message> {
        let question = Message::from_vec(question).expect("a question");
        let mut zone = self.zone.lock().expect("no panic");
        let query: &Query = question.queries.first().expect("one question");
        let asked = (query.name().clone(), query.query_type());
        zone.questions.push(asked.clone());
        self.asked.notify_all();
        let mut answer = Message::response(question.metadata.id, OpCode::Query);
        answer.add_query(query.clone());
        answer.metadata.recursion_desired = question.metadata.recursion_desired;
        answer.metadata.recursion_available = true;
        match zone.mood {
            Mood::Silent => return None,
            Mood::Failing => answer.metadata.response_code = ResponseCode::ServFail,
            Mood::Well => {
                let is_there = zone.records.keys().any(|(name, _)| *name == asked.0);
                if !is_there {
                    answer.metadata.response_code = ResponseCode::NXDomain;
                }
                answer.add_answers(zone.records.get(&asked).cloned().unwrap_or_default());
            }
        }
        Some(answer)
    }
}
