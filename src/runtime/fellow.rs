//! Processes beside this one: while one follows another, each tells the other what it purges.
//!
//! A purge is told after it was done here and before whoever asked for it hears of that. Whoever is told does
//! it by its own configuration, and for the very keys under which the teller had something: it may have that
//! by now.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::sync::atomic::fence;
use std::time::Duration;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use serde::Deserialize;
use serde::Serialize;

use crate::cache::key;
use crate::cache::key::Parts;
use crate::cache::key::Resource;
use crate::cache::purge::Group;
use crate::cache::purge::Many;
use crate::cache::purge::Prefix;
use crate::message::target::Authority;
use crate::message::target::Scheme;
use crate::runtime::Runtime;
use crate::runtime::purge;
use crate::storage::memory::Kind;

/// A purge, as another process is told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Word {
    what: What,
    /// When it became stale, in nanoseconds since 1970; without it, it is gone.
    stale: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum What {
    Url {
        scheme: String,
        host: String,
        port: Option<u16>,
        path: String,
        query: Option<String>,
        /// The routes that it is about; all where none are named.
        routes: Option<Vec<String>>,
        /// The resources that this was for the teller, and whether they have many keys.
        resources: Vec<(Vec<u8>, bool)>,
    },
    Everything,
    Host(String),
    Route(String),
    Upstream(String),
    Zone(String),
    SurrogateKey(String),
    Group {
        scheme: String,
        host: String,
        port: Option<u16>,
        name: String,
    },
    Prefix {
        scheme: Option<String>,
        authority: String,
        path: String,
    },
}

/// Another process.
pub trait Fellow: Send + Sync {
    /// Tells it; returns when it has done the same, or cannot be heard of any more. Blocks.
    fn tell(&self, word: &Word);
    /// Whether it is the one that follows this process, and can be told.
    fn is_heir(&self) -> bool;
    /// This process ends, and told everything.
    fn farewell(&self);
}

/// The processes beside this one: at most that which it follows and that which follows it.
#[derive(Default)]
pub struct Fellows {
    all: ArcSwap<Vec<Arc<dyn Fellow>>>,
    followed: AtomicBool,
    /// Whether this process has said that it ends.
    parted: AtomicBool,
}

impl Fellows {
    /// Another process serves in the place of this one.
    pub fn note_followed(&self) {
        self.followed.store(true, Ordering::Release);
    }

    /// Whether another process serves that cannot be told what is purged here, or not any more: whoever asks for a
    /// purge has to ask that one. To be called after a purge was told.
    pub fn is_cut_off(&self) -> bool {
        self.followed.load(Ordering::Acquire) && !self.all.load().iter().any(|one| one.is_heir())
    }

    /// One more. What is purged from now on it is told.
    pub fn join(&self, fellow: &Arc<dyn Fellow>) {
        self.all.rcu(|all| {
            let mut all = Vec::clone(all);
            all.push(Arc::clone(fellow));
            all
        });
        // Whoever looks at what is stored after this, and does not see a purge, is told of that.
        fence(Ordering::SeqCst);
    }

    /// One less.
    pub fn leave(&self, fellow: &Arc<dyn Fellow>) {
        self.all.rcu(|all| {
            let mut all = Vec::clone(all);
            all.retain(|one| !Arc::ptr_eq(one, fellow));
            all
        });
    }

    /// Tells all of them but the one that told this process. To be called when it is done here. Blocks while
    /// there are any.
    pub fn tell(&self, word: impl FnOnce() -> Word, but: Option<&Arc<dyn Fellow>>) {
        fence(Ordering::SeqCst);
        let all = self.all.load();
        if all.is_empty() {
            return;
        }
        let word = word();
        let others = all.iter().filter(|one| but.is_none_or(|but| !Arc::ptr_eq(one, but)));
        others.for_each(|one| one.tell(&word));
    }

    /// Whether there is anybody but this one.
    pub fn has_others(&self, but: &Arc<dyn Fellow>) -> bool {
        self.all.load().iter().any(|one| !Arc::ptr_eq(one, but))
    }

    /// This process ends.
    pub fn farewell(&self) {
        self.parted.store(true, Ordering::Release);
        self.all.swap(Arc::default()).iter().for_each(|one| one.farewell());
    }

    /// Whether it has said so: nobody will hear of anything from here any more.
    pub fn has_parted(&self) -> bool {
        self.parted.load(Ordering::Acquire)
    }
}

impl Word {
    /// All of a URL, or what these routes have of it, which were these resources here.
    #[must_use]
    pub fn url(
        target: &key::Target<'_>,
        routes: Option<Vec<String>>,
        resources: &[Resource],
        kind: Kind,
    ) -> Self {
        let resources = resources.iter().map(|one| (one.bytes.clone(), one.parts == Parts::Many));
        let what = What::Url {
            scheme: target.scheme.to_owned(),
            host: target.host.to_owned(),
            port: target.port,
            path: target.path.to_owned(),
            query: target.query.map(str::to_owned),
            routes,
            resources: resources.collect(),
        };
        Self { what, stale: stale(kind) }
    }

    /// All that these have in common.
    #[must_use]
    pub fn many(many: &Many, kind: Kind) -> Self {
        let scheme = |scheme: Scheme| scheme.as_str().to_owned();
        let what = match many {
            Many::Everything => What::Everything,
            Many::Host(name) => What::Host(name.clone()),
            Many::Route(name) => What::Route(name.clone()),
            Many::Upstream(name) => What::Upstream(name.clone()),
            Many::Zone(name) => What::Zone(name.clone()),
            Many::SurrogateKey(key) => What::SurrogateKey(key.clone()),
            Many::Group(Group { scheme: of, host, port, name }) => What::Group {
                scheme: scheme(*of),
                host: host.clone(),
                port: *port,
                name: name.clone(),
            },
            Many::Prefix(Prefix { scheme: of, authority, path }) => What::Prefix {
                scheme: of.map(scheme),
                authority: authority.to_string(),
                path: path.clone(),
            },
        };
        Self { what, stale: stale(kind) }
    }

    /// Does here what another process did.
    pub fn carry_out(&self, runtime: &Runtime) {
        let kind = match self.stale {
            None => Kind::Hard,
            Some(nanos) => Kind::Soft(SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos)),
        };
        let What::Url { scheme, host, port, path, query, routes, resources } = &self.what else {
            // What cannot be read again concerns more rather than less.
            let many = self.what.many().unwrap_or(Many::Everything);
            return runtime.memory.purge_many(&many, kind);
        };
        for (bytes, has_many) in resources {
            let parts = if *has_many { Parts::Many } else { Parts::One };
            runtime.memory.purge_resource(&Resource { bytes: bytes.clone(), parts }, kind);
        }
        let query = query.as_deref();
        let target = key::Target { space: "", scheme, host, port: *port, path, query };
        purge::follow(runtime, &target, routes.as_deref(), kind);
    }
}

impl What {
    fn many(&self) -> Option<Many> {
        let scheme = |text: &String| Scheme::parse(text.as_bytes());
        Some(match self {
            Self::Url { .. } => return None,
            Self::Everything => Many::Everything,
            Self::Host(name) => Many::Host(name.clone()),
            Self::Route(name) => Many::Route(name.clone()),
            Self::Upstream(name) => Many::Upstream(name.clone()),
            Self::Zone(name) => Many::Zone(name.clone()),
            Self::SurrogateKey(key) => Many::SurrogateKey(key.clone()),
            Self::Group { scheme: of, host, port, name } => Many::Group(Group {
                scheme: scheme(of)?,
                host: host.clone(),
                port: *port,
                name: name.clone(),
            }),
            Self::Prefix { scheme: of, authority, path } => Many::Prefix(Prefix {
                scheme: match of {
                    None => None,
                    Some(of) => Some(scheme(of)?),
                },
                authority: Authority::parse(authority.as_bytes()).ok()?,
                path: path.clone(),
            }),
        })
    }
}

fn stale(kind: Kind) -> Option<u64> {
    match kind {
        Kind::Hard => None,
        Kind::Soft(at) => {
            let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            Some(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_means_what_was_purged() {
        let authority = || Authority::parse(b"a.example:8080").unwrap();
        let name = || "n".to_owned();
        for many in [
            Many::Everything,
            Many::Host(name()),
            Many::Route(name()),
            Many::Upstream(name()),
            Many::Zone(name()),
            Many::SurrogateKey(name()),
            Many::Group(Group { scheme: Scheme::Https, host: name(), port: Some(1), name: name() }),
            Many::Prefix(Prefix { scheme: None, authority: authority(), path: "/b".to_owned() }),
            Many::Prefix(Prefix {
                scheme: Some(Scheme::Http),
                authority: authority(),
                path: "/".to_owned(),
            }),
        ] {
            let at = SystemTime::UNIX_EPOCH + Duration::from_nanos(1_700_000_000_123_456_789);
            for (kind, stale) in
                [(Kind::Hard, None), (Kind::Soft(at), Some(1_700_000_000_123_456_789))]
            {
                let word = Word::many(&many, kind);
                let told = serde_json::to_vec(&word).unwrap();
                let heard: Word = serde_json::from_slice(&told).unwrap();
                assert_eq!(heard, word);
                assert_eq!((heard.what.many(), heard.stale), (Some(many.clone()), stale));
            }
        }
    }

    #[test]
    fn a_prefix_that_is_none_here_is_everything() {
        let what = What::Prefix { scheme: None, authority: "a b".to_owned(), path: "/".to_owned() };
        assert_eq!(what.many(), None);
    }

    #[test]
    fn who_is_followed_by_a_process_that_cannot_be_told_is_cut_off() {
        struct Next(AtomicBool);
        impl Fellow for Next {
            fn tell(&self, _: &Word) {}
            fn is_heir(&self) -> bool {
                self.0.load(Ordering::Relaxed)
            }
            fn farewell(&self) {}
        }
        let fellows = Fellows::default();
        assert!(!fellows.is_cut_off(), "nobody follows");
        let next = Arc::new(Next(AtomicBool::new(true)));
        let fellow = Arc::clone(&next) as Arc<dyn Fellow>;
        fellows.join(&fellow);
        fellows.note_followed();
        assert!(!fellows.is_cut_off());
        next.0.store(false, Ordering::Relaxed);
        assert!(fellows.is_cut_off(), "it hears nothing any more");
        next.0.store(true, Ordering::Relaxed);
        fellows.leave(&fellow);
        assert!(fellows.is_cut_off(), "it is gone");
    }

    #[test]
    fn who_told_is_not_told() {
        #[derive(Default)]
        struct Counts(parking_lot::Mutex<usize>);
        impl Fellow for Counts {
            fn tell(&self, _: &Word) {
                *self.0.lock() += 1;
            }
            fn is_heir(&self) -> bool {
                false
            }
            fn farewell(&self) {}
        }
        let fellows = Fellows::default();
        let nobody = || -> Word { panic!("nobody is there") };
        fellows.tell(nobody, None);
        let counts = [Arc::new(Counts::default()), Arc::new(Counts::default())];
        let both = counts.clone().map(|one| one as Arc<dyn Fellow>);
        both.iter().for_each(|one| fellows.join(one));
        let word = || Word::many(&Many::Everything, Kind::Hard);
        fellows.tell(word, Some(&both[0]));
        fellows.tell(word, None);
        fellows.leave(&both[1]);
        fellows.tell(word, None);
        assert_eq!(counts.map(|one| *one.0.lock()), [2, 2]);
    }
}
