//! Purges of many at once, compared with a naive oracle that remembers every purge.

use std::sync::atomic::Ordering;

use http::HeaderMap;
use proptest::prelude::*;

use super::*;
use crate::cache::KeyRules;
use crate::cache::QueryRule;
use crate::cache::key::Key;
use crate::cache::key::Target;
use crate::cache::key::in_zone;
use crate::cache::purge::Many;
use crate::cache::purge::Prefix;
use crate::message::target::Normalisation;
use crate::storage::memory::Counted;
use crate::storage::memory::Kind;
use crate::storage::memory::ZoneSettings;

const ROUTES: [&str; 2] = ["r", "s"];
const RULES: KeyRules = KeyRules {
    ranges: crate::cache::Ranges::Whole,
    search: crate::cache::Search::Heeded,
    host: None,
    query: QueryRule::All,
    sort_query: false,
    headers: Vec::new(),
    cookies: Vec::new(),
    slice: None,
};

/// A response as an origin would tell it apart.
#[derive(Debug, Clone)]
struct Described {
    zone: &'static str,
    upstream: &'static str,
    route: usize,
    secure: bool,
    host: &'static str,
    path: String,
    keys: Vec<u8>,
}

impl Described {
    fn key(&self) -> Vec<u8> {
        let target = Target {
            space: &match self.zone {
                "" => self.upstream.to_owned(),
                zone => in_zone(zone, self.upstream),
            },
            scheme: if self.secure { "https" } else { "http" },
            host: self.host,
            port: None,
            path: &self.path,
            query: None,
        };
        Key::new(&target, &HeaderMap::new(), &RULES).into_bytes()
    }

    fn headers(&self) -> HeaderMap {
        let keys: Vec<String> = self.keys.iter().map(|key| format!("k{key}")).collect();
        match keys.is_empty() {
            true => HeaderMap::new(),
            false => fields(&[("surrogate-key", &keys.join(" "))]),
        }
    }

    fn store(&self, tier: &Memory) -> Result<Arc<Entry>, Abandoned> {
        self.asked(tier, tier.generation())
    }

    fn asked(&self, tier: &Memory, asked: Generation) -> Result<Arc<Entry>, Abandoned> {
        let (key, headers, none) = (self.key(), self.headers(), HeaderMap::new());
        let route = Arc::from(ROUTES[self.route]);
        let belonging = Belonging { route: Some(&route), ..Belonging::default() };
        tier.begin_fill(&Arrival { belonging, asked, ..arrival(tier, &key, &none, &headers) })?
            .finish()
    }

    /// The naive reading of every purge.
    fn is_concerned(&self, purge: &What) -> bool {
        match purge {
            What::Host(host) => self.host == *host,
            What::Route(route) => self.route == *route,
            What::Upstream(upstream) => self.upstream == *upstream,
            What::Zone(zone) => self.zone == *zone,
            What::Key(key) => self.keys.contains(key),
            What::Prefix { secure, host, path } => {
                let at_end = path.ends_with('/') || self.path == *path;
                secure.is_none_or(|secure| secure == self.secure)
                    && self.host == *host
                    && (self.path.starts_with(path.as_str()) && at_end
                        || self.path.starts_with(&format!("{path}/")))
            }
            What::Everything => true,
        }
    }
}

#[derive(Debug, Clone)]
enum What {
    Host(&'static str),
    Route(usize),
    Upstream(&'static str),
    Zone(&'static str),
    Key(u8),
    Prefix { secure: Option<bool>, host: &'static str, path: String },
    Everything,
}

impl What {
    fn many(&self) -> Many {
        match self {
            Self::Host(host) => Many::Host((*host).to_owned()),
            Self::Route(route) => Many::Route(ROUTES[*route].to_owned()),
            Self::Upstream(upstream) => Many::Upstream((*upstream).to_owned()),
            Self::Zone(zone) => Many::Zone((*zone).to_owned()),
            Self::Key(key) => Many::SurrogateKey(format!("k{key}")),
            Self::Prefix { secure, host, path } => {
                let scheme = secure.map_or("", |secure| if secure { "https:" } else { "http:" });
                let text = format!("{scheme}//{host}{path}");
                let how = Normalisation::default();
                Many::Prefix(Prefix::parse(&text, &how).expect("a prefix"))
            }
            Self::Everything => Many::Everything,
        }
    }
}

#[derive(Debug, Clone)]
enum Op {
    Store(Described),
    /// Asked for by now, stored at the end.
    Ask(Described),
    Purge(What, bool),
    Look(usize),
    Sweep(usize),
}

fn described() -> impl Strategy<Value = Described> {
    (
        (prop::sample::select(vec!["", "z"]), prop::sample::select(vec!["u", "v"])),
        0_usize..2,
        any::<bool>(),
        prop::sample::select(vec!["a.org", "b.org"]),
        "(/[ab]{1,2}){1,2}",
        prop::collection::vec(0_u8..14, 0..3),
    )
        .prop_map(|((zone, upstream), route, secure, host, path, keys)| Described {
            zone,
            upstream,
            route,
            secure,
            host,
            path,
            keys,
        })
}

fn what() -> impl Strategy<Value = What> {
    let host = || prop::sample::select(vec!["a.org", "b.org", "c.org", "d.org", "e.org"]);
    prop_oneof![
        2 => host().prop_map(What::Host),
        2 => (0_usize..2).prop_map(What::Route),
        2 => prop::sample::select(vec!["u", "v", "w"]).prop_map(What::Upstream),
        1 => prop::sample::select(vec!["", "z", "y"]).prop_map(What::Zone),
        8 => (0_u8..20).prop_map(What::Key),
        4 => (prop::option::of(any::<bool>()), host(), "(/[ab]{1,2}){0,1}/?").prop_map(
            |(secure, host, path)| What::Prefix {
                secure,
                host,
                path: if path.is_empty() { "/".to_owned() } else { path },
            }
        ),
        1 => Just(What::Everything),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => described().prop_map(Op::Store),
        2 => described().prop_map(Op::Ask),
        4 => (what(), any::<bool>()).prop_map(|(what, hard)| Op::Purge(what, hard)),
        4 => any::<usize>().prop_map(Op::Look),
        2 => (1_usize..600).prop_map(Op::Sweep),
    ]
}

struct World {
    tier: Memory,
    /// Whether no stamp is ever merged or forgotten.
    is_roomy: bool,
    /// What was stored last under each key, and how many purges there were when it was asked for.
    stored: Vec<(Described, usize)>,
    asked: Vec<(Described, usize, Generation)>,
    purges: Vec<(What, bool)>,
}

impl World {
    /// What is left of it: nothing, or since when it is stale, in purges.
    fn oracle(&self, described: &Described, asked: usize) -> Option<Option<SystemTime>> {
        let later = self.purges.iter().enumerate().skip(asked);
        let concerned: Vec<(usize, bool)> = later
            .filter(|(_, (what, _))| described.is_concerned(what))
            .map(|(n, (_, hard))| (n, *hard))
            .collect();
        if concerned.iter().any(|(_, hard)| *hard) {
            return None;
        }
        Some(concerned.first().map(|(n, _)| time_of(*n)))
    }

    fn put(&mut self, described: Described, asked: usize, generation: Generation) {
        let result = described.asked(&self.tier, generation);
        let expected = self.oracle(&described, asked);
        match result {
            Ok(_) => {
                assert!(expected.is_some(), "{described:?} was purged");
                self.stored.retain(|(other, _)| other.key() != described.key());
                self.stored.push((described, asked));
            }
            Err(reason) => {
                assert_eq!(reason, Abandoned::Purged);
                assert!(expected.is_none() || !self.is_roomy, "{described:?} was not purged");
            }
        }
    }

    fn look(&self, described: &Described, asked: usize) {
        let expected = self.oracle(described, asked);
        let found = look(&self.tier, &described.key(), &HeaderMap::new());
        let found = found.map(|entry| entry.stale_since());
        if self.is_roomy {
            // Of more than a few soft purges of one thing a stamp makes one: stale since the earlier.
            let is_stale = |entry: Option<Option<SystemTime>>| entry.map(|since| since.is_some());
            assert_eq!(is_stale(found), is_stale(expected), "{described:?} {:?}", self.purges);
        }
        // Too much may be purged, and be stale for longer; never too little.
        match (found, expected) {
            (None, _) => {}
            (Some(_), None) => panic!("{described:?} was purged: {:?}", self.purges),
            (Some(found), Some(expected)) => {
                let of = |since: Option<SystemTime>| since.unwrap_or(time_of(usize::MAX >> 40));
                assert!(of(found) <= of(expected), "{described:?} {:?}", self.purges);
            }
        }
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Store(described) => {
                self.put(described, self.purges.len(), self.tier.generation());
            }
            Op::Ask(described) => {
                self.asked.push((described, self.purges.len(), self.tier.generation()));
            }
            Op::Purge(what, hard) => {
                let now = time_of(self.purges.len());
                let kind = if hard { Kind::Hard } else { Kind::Soft(now) };
                self.count(&what);
                self.tier.purge_many(&what.many(), kind);
                self.purges.push((what, hard));
            }
            Op::Look(which) => {
                if let Some((described, asked)) =
                    which.checked_rem(self.stored.len()).and_then(|at| self.stored.get(at))
                {
                    self.look(described, *asked);
                }
            }
            // At a time at which everything is of use.
            Op::Sweep(steps) => drop(self.tier.sweep(at(1001), steps)),
        }
    }

    fn count(&self, what: &What) {
        let mut counted = Counted::default();
        while !counted.ended {
            self.tier.count_many(&what.many(), &mut counted, 100);
        }
        let there = |(described, asked): &&(Described, usize)| {
            described.is_concerned(what) && self.oracle(described, *asked).is_some()
        };
        let expected = self.stored.iter().filter(there).count() as u64;
        assert!(if self.is_roomy { counted.found == expected } else { counted.found <= expected });
    }
}

/// When the purge of this number was.
fn time_of(purge: usize) -> SystemTime {
    at(1002 + purge as u64)
}

fn run(limit: u64, is_roomy: bool, ops: Vec<Op>) {
    let zone = ZoneSettings { name: "z".into(), limit: limit / 4 };
    let mut world = World {
        tier: Memory::with_zones(Options::with_limit(limit), &[zone]),
        is_roomy,
        stored: Vec::new(),
        asked: Vec::new(),
        purges: Vec::new(),
    };
    for op in ops {
        world.step(op);
    }
    for (described, asked, generation) in std::mem::take(&mut world.asked) {
        world.put(described, asked, generation);
    }
    for (described, asked) in &world.stored {
        world.look(described, *asked);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_is_left_is_what_a_naive_oracle_says(ops in prop::collection::vec(op(), 1..60)) {
        run(256 * MIB, true, ops);
    }

    #[test]
    fn with_little_room_for_stamps_too_much_goes_and_never_too_little(
        ops in prop::collection::vec(op(), 1..120),
    ) {
        run(MIB / 8, false, ops);
    }
}

fn article(n: usize) -> Described {
    Described {
        zone: "",
        upstream: "u",
        route: 0,
        secure: false,
        host: "a.org",
        path: format!("/{n}"),
        keys: vec![1],
    }
}

#[test]
fn a_purge_of_many_touches_no_entry_and_no_shard() {
    let tier = tier(64 * MIB);
    let entries: Vec<Arc<Entry>> =
        (0..1000).map(|n| article(n).store(&tier).expect("there is room")).collect();
    let seen = |entry: &Arc<Entry>| entry.compared.load(Ordering::SeqCst);
    let before: Vec<u64> = entries.iter().map(seen).collect();
    // Whatever it did to a shard would wait for these for ever.
    let locked: Vec<_> = tier.0.shards.iter().map(|cell| cell.shard.write()).collect();
    for what in [What::Key(1), What::Host("a.org"), What::Route(0), What::Everything] {
        tier.purge_many(&what.many(), Kind::Hard);
    }
    drop(locked);
    assert_eq!(entries.iter().map(seen).collect::<Vec<_>>(), before);
    assert_eq!(tier.stats().objects, 1000);
    assert!((0..1000).all(|n| !has(&tier, &article(n).key())));
}

#[test]
fn an_entry_is_compared_once_after_each_purge_and_then_by_one_number() {
    let tier = tier(64 * MIB);
    let entry = article(1).store(&tier).expect("there is room");
    let compared = || entry.compared.load(Ordering::SeqCst);
    assert!(has(&tier, &article(1).key()));
    assert_eq!(compared(), 0);
    tier.purge_many(&What::Key(2).many(), Kind::Hard);
    // The purge of a single key is none of many.
    tier.purge(b"other");
    assert_eq!(compared(), 0);
    assert!(has(&tier, &article(1).key()));
    assert_eq!(compared(), 1);
    // While the stamps cannot be read, it is still found.
    let stamps = tier.0.broad.locked();
    assert!(has(&tier, &article(1).key()));
    drop(stamps);
}

#[test]
fn the_sweep_returns_the_memory_of_what_was_purged_and_stamps_are_forgotten_after_a_round() {
    let tier = tier(MIB);
    let empty = tier.stats().bytes;
    for n in 0..100 {
        article(n).store(&tier).expect("there is room");
    }
    let asked = tier.generation();
    for key in 0..40 {
        tier.purge_many(&What::Key(key).many(), Kind::Hard);
    }
    // One round that began before the purges, and one after them.
    sweep_all(&tier, at(1001));
    assert_eq!((tier.stats().objects, tier.stats().bytes), (0, empty));
    sweep_all(&tier, at(1001));
    let late = Described { keys: vec![50], ..article(1) };
    assert_eq!(late.asked(&tier, asked).err(), Some(Abandoned::Purged), "doubt refuses");
    assert!(late.store(&tier).is_ok());
}

#[test]
fn a_count_that_stops_early_says_so() {
    let tier = tier(64 * MIB);
    for n in 0..1000 {
        article(n).store(&tier).expect("there is room");
    }
    let mut counted = Counted::default();
    tier.count_many(&What::Key(1).many(), &mut counted, 500);
    assert!(!counted.ended && counted.found > 0 && counted.found <= 500, "{counted:?}");
    while !counted.ended {
        tier.count_many(&What::Key(1).many(), &mut counted, 500);
    }
    assert_eq!(counted.found, 1000);
    assert_eq!(tier.stats().hits, 0, "nothing was used");
}
