//! Random histories against a naive model: a list of variants per key, nothing ever evicted.
//!
//! Whatever the tier serves, the model must have: right key, right variant, not purged, not
//! superseded, whole. Where there is room for everything, the tier must have what the model has.

use std::collections::HashMap;
use std::sync::Arc;

use http::HeaderMap;
use proptest::prelude::*;

use super::*;
use crate::storage::memory::Fill;
use crate::storage::memory::Reader;

/// What a request says in the two selecting fields.
type Said = (Option<u8>, Option<u8>);

#[derive(Debug, Clone)]
enum Op {
    Begin { key: u8, said: Said, vary: u8, len: usize, announced: bool },
    Finish { which: usize },
    Cut { which: usize },
    Lookup { key: u8, said: Said },
    Hold { key: u8, said: Said },
    Release { which: usize },
    Refresh { which: usize },
    Purge { key: u8 },
    PurgeAll,
    Expire { key: u8 },
    Sweep { steps: usize },
}

#[derive(Debug, Clone, PartialEq)]
struct Stored {
    /// The named fields with what the request said in them; `None`: not named.
    lang: Option<Option<u8>>,
    device: Option<Option<u8>>,
    id: u32,
    revision: u32,
    len: usize,
    is_stale: bool,
}

impl Stored {
    fn is_selected_by(&self, said: Said) -> bool {
        self.lang.is_none_or(|lang| lang == said.0)
            && self.device.is_none_or(|device| device == said.1)
    }

    fn varies(&self) -> bool {
        self.lang.is_some() || self.device.is_some()
    }
}

struct Pending {
    fill: Fill,
    key: u8,
    stored: Stored,
    is_purged: bool,
}

struct Held {
    reader: Reader,
    key: u8,
    said: Said,
}

struct World {
    tier: Memory,
    /// Whether nothing needs to be evicted.
    is_roomy: bool,
    model: HashMap<u8, Vec<Stored>>,
    pending: Vec<Pending>,
    held: Vec<Held>,
    next: u32,
}

fn key_bytes(key: u8) -> Vec<u8> {
    vec![b'k', key]
}

fn request(said: Said) -> HeaderMap {
    let mut list = Vec::new();
    let text = |value: u8| value.to_string();
    let (lang, device) = (said.0.map(text), said.1.map(text));
    list.extend(lang.as_deref().map(|lang| ("x-lang", lang)));
    list.extend(device.as_deref().map(|device| ("x-device", device)));
    fields(&list)
}

fn response(stored: &Stored) -> HeaderMap {
    let mut list = vec![];
    let (id, revision) = (stored.id.to_string(), stored.revision.to_string());
    list.push(("x-id", id.as_str()));
    list.push(("x-revision", revision.as_str()));
    match (stored.lang, stored.device) {
        (None, None) => {}
        (Some(_), None) => list.push(("vary", "x-lang")),
        (None, Some(_)) => list.push(("vary", "x-device")),
        (Some(_), Some(_)) => list.push(("vary", "x-device, x-lang")),
    }
    fields(&list)
}

fn content(id: u32, len: usize) -> Vec<u8> {
    (0..len).map(|at| (id as usize).wrapping_mul(31).wrapping_add(at) as u8).collect()
}

fn number(entry: &Entry, name: &str) -> u32 {
    let headers = entry.headers();
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.and_then(|value| value.parse().ok()).expect("the test stored a number")
}

impl World {
    fn step(&mut self, op: Op) {
        match op {
            Op::Begin { key, said, vary, len, announced } => {
                self.begin(key, said, vary, len, announced);
            }
            Op::Finish { which } => self.finish(which),
            Op::Cut { which } => drop(self.take_pending(which)),
            Op::Lookup { key, said } => drop(self.lookup(key, said)),
            Op::Hold { key, said } => {
                if let Some(entry) = self.lookup(key, said) {
                    self.held.push(Held { reader: entry.reader(), key, said });
                }
            }
            Op::Release { which } => {
                if !self.held.is_empty() {
                    let held = self.held.remove(which % self.held.len());
                    let entry = Arc::clone(held.reader.entry());
                    let read: Vec<u8> = held.reader.flatten().collect();
                    let expected = content(number(&entry, "x-id"), read.len());
                    assert!(read == expected && read.len() as u64 == entry.body_len());
                }
            }
            Op::Refresh { which } => self.refresh(which),
            Op::Purge { key } => {
                let gone = self.model.remove(&key).map_or(0, |variants| variants.len());
                let purged = self.tier.purge(&key_bytes(key));
                assert!(if self.is_roomy { purged == gone } else { purged <= gone });
                self.mark_pending(|pending| pending.is_purged |= pending.key == key);
            }
            Op::PurgeAll => {
                self.tier.purge_all();
                self.model.clear();
                self.mark_pending(|pending| pending.is_purged = true);
            }
            Op::Expire { key } => {
                self.tier.expire(&key_bytes(key), at(1000));
                let mut expire = |stored: &mut Stored| stored.is_stale = true;
                self.model.entry(key).or_default().iter_mut().for_each(&mut expire);
                self.mark_pending(|pending| pending.stored.is_stale |= pending.key == key);
            }
            Op::Sweep { steps } => drop(self.tier.sweep(at(900), steps)),
        }
        let stats = self.tier.stats();
        assert!(stats.bytes <= stats.limit, "{stats:?}");
    }

    fn begin(&mut self, key: u8, said: Said, vary: u8, len: usize, announced: bool) {
        self.next += 1;
        let stored = Stored {
            lang: (vary & 1 != 0).then_some(said.0),
            device: (vary & 2 != 0).then_some(said.1),
            id: self.next,
            revision: 0,
            len,
            is_stale: false,
        };
        let (key_bytes, request, headers) = (key_bytes(key), request(said), response(&stored));
        let length = announced.then_some(len as u64);
        let arrival = Arrival { length, ..arrival(&self.tier, &key_bytes, &request, &headers) };
        let begun = self.tier.begin_fill(&arrival);
        assert!(begun.is_ok() || !self.is_roomy);
        let Ok(mut fill) = begun else { return };
        // Whether it is refused shows again when it is finished.
        let _ = content(stored.id, len).chunks(5000).try_for_each(|part| fill.push(part));
        self.pending.push(Pending { fill, key, stored, is_purged: false });
    }

    fn finish(&mut self, which: usize) {
        let Some(Pending { fill, key, stored, is_purged }) = self.take_pending(which) else {
            return;
        };
        match fill.finish() {
            Ok(_) => assert!(!is_purged),
            Err(Abandoned::Purged) => {
                assert!(is_purged);
                return;
            }
            Err(reason) => {
                assert!(!self.is_roomy && reason == Abandoned::NoRoom, "{reason:?}");
                return;
            }
        }
        let variants = self.model.entry(key).or_default();
        variants.retain(|old| {
            stored.varies() && (old.lang, old.device) != (stored.lang, stored.device)
        });
        variants.insert(0, stored);
        variants.truncate(self.tier.options().variants);
    }

    fn lookup(&mut self, key: u8, said: Said) -> Option<Arc<Entry>> {
        let found = self.tier.lookup(&key_bytes(key), Some(&request(said)), at(1001));
        let variants = self.model.get(&key).map_or(&[][..], Vec::as_slice);
        let mut selected = variants.iter().filter(|stored| stored.is_selected_by(said));
        let Some(entry) = &found else {
            assert!(!self.is_roomy || selected.next().is_none());
            return found;
        };
        let (id, revision) = (number(entry, "x-id"), number(entry, "x-revision"));
        let stored = match self.is_roomy {
            true => selected.next(),
            false => selected.find(|stored| stored.id == id),
        };
        let stored = stored.expect("what is served was stored, is selected and was not purged");
        assert_eq!((stored.id, stored.revision), (id, revision));
        assert_eq!(body_of(entry), content(id, stored.len));
        assert_eq!(entry.stale_since().is_some(), stored.is_stale);
        found
    }

    /// Validates an entry that was found some time ago.
    fn refresh(&mut self, which: usize) {
        if self.held.is_empty() {
            return;
        }
        self.next += 1;
        let Held { reader, key, said } = &self.held[which % self.held.len()];
        let old = Arc::clone(reader.entry());
        let (id, revision) = (number(&old, "x-id"), number(&old, "x-revision"));
        let variants = self.model.entry(*key).or_default();
        let position =
            variants.iter().position(|stored| (stored.id, stored.revision) == (id, revision));
        let mut stored =
            Stored { lang: None, device: None, id, revision: self.next, len: 0, is_stale: false };
        if let Some(position) = position {
            stored = Stored { revision: self.next, is_stale: false, ..variants[position].clone() };
        }
        let (request, headers) = (request(*said), response(&stored));
        let outcome = self.tier.refresh(&old, &arrival(&self.tier, b"", &request, &headers));
        if outcome.is_ok() {
            variants.remove(position.expect("only what is still stored can be refreshed"));
            variants.insert(0, stored);
        } else {
            assert!(!self.is_roomy || position.is_none(), "{outcome:?}");
        }
    }

    fn take_pending(&mut self, which: usize) -> Option<Pending> {
        let at = which.checked_rem(self.pending.len())?;
        Some(self.pending.remove(at))
    }

    fn mark_pending(&mut self, mark: impl FnMut(&mut Pending)) {
        self.pending.iter_mut().for_each(mark);
    }
}

fn said() -> impl Strategy<Value = Said> {
    (prop::option::of(0_u8..2), prop::option::of(0_u8..2))
}

fn op() -> impl Strategy<Value = Op> {
    let key = || 0_u8..4;
    let len = prop_oneof![4 => 0_usize..3000, 1 => 60_000_usize..140_000];
    prop_oneof![
        8 => (key(), said(), 0_u8..4, len, any::<bool>()).prop_map(
            |(key, said, vary, len, announced)| Op::Begin { key, said, vary, len, announced }
        ),
        8 => any::<usize>().prop_map(|which| Op::Finish { which }),
        1 => any::<usize>().prop_map(|which| Op::Cut { which }),
        8 => (key(), said()).prop_map(|(key, said)| Op::Lookup { key, said }),
        2 => (key(), said()).prop_map(|(key, said)| Op::Hold { key, said }),
        2 => any::<usize>().prop_map(|which| Op::Release { which }),
        2 => any::<usize>().prop_map(|which| Op::Refresh { which }),
        1 => key().prop_map(|key| Op::Purge { key }),
        1 => key().prop_map(|key| Op::Expire { key }),
        1 => (1_usize..100).prop_map(|steps| Op::Sweep { steps }),
        1 => Just(Op::PurgeAll),
    ]
}

fn run(options: Options, is_roomy: bool, ops: Vec<Op>) {
    let tier = Memory::new(options);
    let empty = tier.stats().bytes;
    let mut world = World {
        tier: tier.clone(),
        is_roomy,
        model: HashMap::new(),
        pending: Vec::new(),
        held: Vec::new(),
        next: 0,
    };
    for op in ops {
        world.step(op);
    }
    drop(world);
    tier.purge_all();
    sweep_all(&tier, at(1000));
    let stats = tier.stats();
    assert_eq!((stats.objects, stats.bytes), (0, empty), "every byte is given back");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn with_room_for_all_the_tier_is_the_model(ops in prop::collection::vec(op(), 1..120)) {
        run(Options { variants: 3, ..Options::with_limit(256 * MIB) }, true, ops);
    }

    #[test]
    fn without_room_the_tier_serves_nothing_that_the_model_has_not(
        ops in prop::collection::vec(op(), 1..120),
        limit in 10_000_u64..400_000,
        is_lru in any::<bool>(),
    ) {
        let policy = if is_lru { Policy::Lru } else { Policy::S3Fifo };
        let options = Options {
            policy,
            variants: 1000,
            max_object: u64::MAX,
            ..Options::with_limit(limit)
        };
        run(options, false, ops);
    }
}
