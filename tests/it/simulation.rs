//! Random origins, directives, clocks, purges and faults against the real program, and an oracle that
//! knows what must never come of them.
//!
//! The program's clock stands still by libfaketime, and is turned between requests: what an age or a
//! lifetime is off by shows to the second. Each seed is a story of its own on hosts of its own;
//! `SEED=123 cargo test --test it simulation` tells one again.

mod dice;
mod oracle;
mod policy;
mod world;

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc;

use crate::harness::Clock;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::Reply;
use crate::harness::Wire;
use crate::harness::client::End;
use crate::harness::edge::binary;
use crate::harness::edge::write_config;

use dice::Dice;
use oracle::Asking;
use oracle::ROUTES;
use policy::Policy;
use world::Fault;
use world::Hold;
use world::Place;
use world::Purge;
use world::Resource;
use world::Shared;
use world::What;

/// How many stories are told.
const SEEDS: u64 = 200;
/// How much happens in each.
const STEPS: usize = 60;
/// Programs that run at the same time, each with a clock of its own.
const WORKERS: u64 = 2;
const TARGETS: [&str; 15] = [
    "/p/a",
    "/r/a",
    "/n/a?v=1&u=1",
    "/n/a?u=2&v=1",
    "/p/a?v=1",
    "/s/a",
    "/n/a?w=1&v=1",
    "/n/a?v=1&w=1&u=3",
    "/p/b",
    "/r/b",
    "/t/a",
    "/t/b",
    "/o/a",
    "/k/a?v=1",
    "/k/a?v=2",
];

/// How often what came of a request.
type Tally = BTreeMap<String, usize>;

#[test]
fn nothing_is_ever_served_that_must_not_be() {
    let only = std::env::var("SEED").ok().map(|seed| seed.parse::<u64>().expect("a number"));
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let is_mine = move |seed: &u64| seed % WORKERS == worker;
            let seeds = only.map_or(0..SEEDS, |seed| seed..seed + 1).filter(is_mine);
            std::thread::spawn(move || tell_all(seeds))
        })
        .collect();
    // All of them end before one of them fails the test, so that no program is left behind.
    let told: Vec<_> = workers.into_iter().map(std::thread::JoinHandle::join).collect();
    let mut tally = Tally::new();
    for told in told {
        for (what, count) in told.unwrap_or_else(|panic| std::panic::resume_unwind(panic)) {
            *tally.entry(what).or_default() += count;
        }
    }
    eprintln!("{tally:?}");
    if only.is_some() {
        return;
    }
    // What never happened was not tried.
    for what in [
        "HIT",
        "MISS",
        "EXPIRED",
        "REVALIDATED",
        "STALE",
        "collapsed",
        "cut",
        "206",
        "304",
        "equivalent",
        "part",
    ] {
        assert!(tally.get(what).is_some_and(|count| *count >= 20), "{what}: {tally:?}");
    }
}

fn tell_all(seeds: impl Iterator<Item = u64>) -> Tally {
    let folder = Arc::new(tempfile::tempdir().expect("a folder can be made"));
    let clock = Arc::new(Clock::new(folder.path()));
    let shared = Shared::new(Arc::clone(&clock));
    let origin = shared.origin();
    let mut tally = Tally::new();
    let edge = start(folder, &clock, &origin);
    for seed in seeds {
        let mut story = Story::new(seed, &edge, shared.clone());
        for _ in 0..STEPS {
            story.step();
        }
        for (what, count) in std::mem::take(&mut story.tally) {
            *tally.entry(what).or_default() += count;
        }
    }
    tally
}

fn start(folder: Arc<tempfile::TempDir>, clock: &Clock, origin: &Origin) -> Edge {
    let yaml = format!(
        "listeners: [{{name: http, address: \"127.0.0.1:0\"}}]\n\
         upstreams: {{origin: {{breaker: off, addresses: [\"{}\"]}}}}\n{ROUTES}",
        origin.address
    );
    let mut command = Command::new(binary());
    command.arg("-c").arg(write_config(&folder, &yaml));
    clock.give_to(&mut command);
    Edge::start(folder, command)
}

/// What happens by one seed.
struct Story<'a> {
    seed: u64,
    dice: Dice,
    edge: &'a Edge,
    shared: Shared,
    /// The connection that is kept.
    wire: Option<Wire>,
    hosts: [String; 2],
    /// Tags that clients saw, by place.
    seen: Vec<(Place, String)>,
    tally: Tally,
    /// What happened, for whoever has to understand it.
    log: Vec<String>,
}

impl<'a> Story<'a> {
    fn new(seed: u64, edge: &'a Edge, shared: Shared) -> Self {
        let mut dice = Dice::new(seed);
        let hosts = [format!("a{seed}.test"), format!("b{seed}.test")];
        let mut world = shared.lock();
        world.begin();
        for host in &hosts {
            for target in TARGETS {
                let resource = Resource {
                    policy: Policy::any(&mut dice, target),
                    fault: Fault::None,
                    has_failed: false,
                    version: 0,
                    made: shared.clock.now(),
                };
                world.resources.insert((host.clone(), target.to_owned()), resource);
            }
        }
        drop(world);
        let (seen, log) = (Vec::new(), Vec::new());
        Self { seed, dice, edge, shared, wire: None, hosts, seen, tally: Tally::new(), log }
    }

    fn step(&mut self) {
        match self.dice.below(100) {
            0..=54 => self.ask(),
            55..=62 => self.ask_at_once(),
            63..=67 => self.write(),
            68..=79 => self.turn(),
            80..=84 => self.change(),
            85..=91 => self.fail(),
            92..=96 => self.purge(),
            _ => self.purge_while_it_arrives(),
        }
    }

    /// Few places are asked for often.
    fn place(&mut self) -> Place {
        let host = self.dice.below(self.hosts.len());
        let near = self.dice.below(TARGETS.len());
        let at = self.dice.below(near + 1);
        (self.hosts[host].clone(), TARGETS[at].to_owned())
    }

    fn asking(&mut self, place: Place) -> Asking {
        let dice = &mut self.dice;
        let client = dice.one(&["c1", "c2", "c3", "c4"]);
        let mut fields = vec![("X-Client", client.to_owned())];
        for name in ["X-A", "X-B"] {
            if dice.percent(50) {
                fields.push((name, dice.one(&["1", "2"]).to_owned()));
            }
        }
        if dice.percent(25) {
            fields.push(("Cookie", format!("who={client}")));
        }
        if dice.percent(15) {
            fields.push(("Authorization", format!("Bearer {client}")));
        }
        let mut method = "GET";
        match dice.below(20) {
            0 | 1 => method = "HEAD",
            2 | 3 => {
                let seen = self.seen.iter().rfind(|(at, _)| *at == place);
                let tag = seen.map_or_else(|| "\"none\"".to_owned(), |(_, tag)| tag.clone());
                fields.push(("If-None-Match", tag));
            }
            4 => fields.push(("Range", "bytes=3-11".to_owned())),
            5 if !place.1.starts_with("/r") => fields.push(("Range", "bytes=-4".to_owned())),
            6 if place.1.starts_with("/s") => {
                fields.push(("Range", "bytes=700-40000".to_owned()));
            }
            5..=18 if place.1.starts_with("/r") => {
                let ranges = ["bytes=0-9", "bytes=10-19", "bytes=3-16", "bytes=5-14", "bytes=8-"];
                fields.push(("Range", dice.one(&ranges).to_owned()));
            }
            _ => {}
        }
        let since = self.shared.lock().order;
        Asking { method, place, fields, since }
    }

    fn ask(&mut self) {
        let place = self.place();
        let asking = self.asking(place);
        let kept = self.wire.take().map(|wire| send(wire, &asking));
        // A kept connection may have ended meanwhile; every client tries another then.
        let kept = kept.filter(|(reply, _)| reply.status != 0);
        let (reply, wire) = kept.unwrap_or_else(|| send(self.edge.wire(), &asking));
        self.wire = wire;
        self.judge(&asking, &reply);
    }

    /// Several clients ask for the same at the same time.
    fn ask_at_once(&mut self) {
        let place = self.place();
        let count = 2 + self.dice.below(4);
        let askings: Vec<_> = (0..count).map(|_| self.asking(place.clone())).collect();
        let clients: Vec<_> = askings
            .into_iter()
            .map(|asking| {
                let wire = self.edge.wire();
                std::thread::spawn(move || (send(wire, &asking).0, asking))
            })
            .collect();
        for client in clients {
            let (reply, asking) = client.join().expect("a reply comes");
            self.judge(&asking, &reply);
        }
    }

    fn write(&mut self) {
        let place = self.place();
        let since = self.shared.lock().order;
        let asking = Asking { method: "POST", place: place.clone(), fields: Vec::new(), since };
        let (reply, _) = send(self.edge.wire(), &asking);
        self.log.push(format!("{asking:?} gave {}", reply.status));
        if reply.status < 400 {
            // What was asked of the origin after it is as the write left it.
            self.purged(since, What::Place(place), false);
        }
    }

    fn turn(&mut self) {
        // What is under way would take this long.
        self.edge.wait_for_gauge("edgeproxy_cache_fetches", 0.0);
        let seconds = self.dice.one(&[1, 10, 40, 49, 51, 99, 100, 250]);
        self.shared.clock.turn(seconds);
        self.log.push(format!("{seconds} s later"));
    }

    fn change(&mut self) {
        let place = self.place();
        let mut world = self.shared.lock();
        let resource = world.resources.get_mut(&place).expect("every place has one");
        if self.dice.percent(50) {
            resource.policy.retune(&mut self.dice);
        } else {
            resource.policy = Policy::any(&mut self.dice, &place.1);
            resource.version += 1;
        }
        self.log.push(format!("{place:?} is now {:?}", resource.policy));
    }

    fn fail(&mut self) {
        let place = self.place();
        let faults =
            [Fault::Error(500), Fault::Error(503), Fault::Reset, Fault::Cut, Fault::Garbage];
        let fault = if self.dice.percent(40) { Fault::None } else { self.dice.one(&faults) };
        let mut world = self.shared.lock();
        let resource = world.resources.get_mut(&place).expect("every place has one");
        resource.fault = fault;
        self.log.push(format!("{place:?} is now {fault:?}"));
    }

    fn purge(&mut self) {
        let place = self.place();
        let soft = self.dice.percent(40);
        let (host, target) = &place;
        let (what, wish) = match self.dice.below(10) {
            0..=3 => (What::Place(place.clone()), format!("\"url\": \"http://{host}{target}\"")),
            4 | 5 => {
                let prefix = &target[..2];
                let wish = format!("\"prefix\": \"http://{host}{prefix}\"");
                (What::Prefix(host.clone(), prefix.to_owned()), wish)
            }
            6 => (What::Host(host.clone()), format!("\"host\": \"{host}\"")),
            7 | 8 => {
                let tag = world::surrogate_key(&place);
                let wish = format!("\"tag\": \"{tag}\"");
                (What::Tag(tag), wish)
            }
            _ => (What::Everything, "\"everything\": true".to_owned()),
        };
        let order = self.shared.lock().order;
        let reply = self.edge.admin_post("/v1/purge", &format!("{{{wish}, \"soft\": {soft}}}"));
        self.log.push(format!("purged {wish} soft={soft}: {}", reply.text()));
        reply.expect_status(200);
        self.purged(order, what, soft);
    }

    fn purged(&mut self, order: u64, what: What, soft: bool) {
        let at = self.shared.clock.now();
        *self.tally.entry("purge".to_owned()).or_default() += 1;
        self.shared.lock().purges.push(Purge { order, at, soft, what });
    }

    /// The origin is asked, something is purged, and only then it answers.
    fn purge_while_it_arrives(&mut self) {
        let place = self.place();
        let asking = self.asking(place.clone());
        let (came, event) = mpsc::channel();
        let (gate, held) = mpsc::channel();
        self.shared.lock().hold = Some(Hold { place, came: came.clone(), gate: held });
        let wire = self.edge.wire();
        let sent = asking.clone();
        let client = std::thread::spawn(move || {
            let (reply, _) = send(wire, &sent);
            // It was answered without the origin.
            let _ = came.send(());
            reply
        });
        event.recv().expect("the origin is asked, or the client has its answer");
        let is_held = self.shared.lock().hold.take().is_none();
        if is_held {
            self.purge();
        }
        drop(gate);
        let reply = client.join().expect("a reply comes");
        self.judge(&asking, &reply);
    }

    fn judge(&mut self, asking: &Asking, reply: &Reply) {
        let now = self.shared.clock.now();
        let x_cache = reply.value("x-cache").unwrap_or("-").to_owned();
        let status = reply.value("cache-status").unwrap_or_default();
        self.log.push(format!(
            "{asking:?} gave {} {:?} {x_cache} serial {:?} age {:?}: {status}",
            reply.status,
            reply.end,
            reply.value("x-serial"),
            reply.value("age")
        ));
        let verdict = self.shared.lock().judge(asking, reply, now);
        if let Err(why) = verdict {
            panic!("{why}: {reply:?}");
        }
        if let Some(tag) = reply.value("etag") {
            self.seen.push((asking.place.clone(), tag.to_owned()));
        }
        let mut count = |what: &str| *self.tally.entry(what.to_owned()).or_default() += 1;
        let shown = reply.value("x-serial").and_then(|serial| serial.parse::<usize>().ok());
        if shown.is_some_and(|serial| self.shared.lock().is_by_rule(serial, &asking.place)) {
            count("equivalent");
        }
        if asking.place.1.starts_with("/r") && reply.status == 206 && x_cache == "HIT" {
            count("part");
        }
        count(&x_cache);
        count(&reply.status.to_string());
        if status.contains("; collapsed") {
            count("collapsed");
        }
        if reply.end == End::Cut {
            count("cut");
        }
    }
}

impl Drop for Story<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let access = self.edge.access_log();
            eprintln!("{}\nSEED={}", self.log.join("\n"), self.seed);
            eprintln!("{}", access[access.len().saturating_sub(5)..].join("\n"));
        }
    }
}

/// The reply, and the connection if it can be used again.
fn send(mut wire: Wire, asking: &Asking) -> (Reply, Option<Wire>) {
    let fields: Vec<_> = asking.fields.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let (host, target) = &asking.place;
    wire.ask(asking.method, host, target, &fields, b"");
    let reply = wire.any_reply(asking.method).unwrap_or_else(nothing);
    let is_open = reply.end == End::Whole && reply.value("connection") != Some("close");
    (reply, is_open.then_some(wire))
}

/// The connection ended instead.
fn nothing() -> Reply {
    Reply { status: 0, fields: Vec::new(), body: Vec::new(), end: End::Cut }
}
