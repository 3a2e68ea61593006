//! What differs between the backends of the configuration and those that are in use.
//!
//! A difference is what is kept in the state file, and what is laid over the configuration at the next
//! start: backends that the configuration gained meanwhile are then simply there.

use std::sync::Arc;

use crate::upstream::Backend;

/// A backend, as meant by the configuration and by operators since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meant {
    /// Which one, and how.
    pub backend: Backend,
    /// It finishes what it has and gets nothing new.
    pub draining: bool,
}

/// What is to be different about a backend; what is `None` stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Adjustment {
    /// Its share of requests relative to its siblings.
    pub weight: Option<u32>,
    /// Whether it gets requests.
    pub active: Option<bool>,
    /// Whether it serves only while the others cannot.
    pub backup: Option<bool>,
}

/// What differs from the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Drift {
    /// Backends that it does not have, or has elsewhere.
    pub added: Vec<Meant>,
    /// Those that it has otherwise.
    pub changed: Vec<Changed>,
    /// The ids of those that it has, and that are not in use.
    pub removed: Vec<Arc<str>>,
}

/// How one backend differs from the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// Which one.
    pub id: Arc<str>,
    /// How it is now.
    pub now: Adjustment,
    /// It gets nothing new.
    pub draining: bool,
}

/// Why a part of a difference is laid aside: the configuration has changed since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moot {
    /// It has a backend of this id now.
    Taken,
    /// It has the same backend under another id now.
    SamePlace,
    /// It does not have this backend any more.
    Gone,
    /// Nothing would be left.
    Last,
}

/// What the configuration has overtaken: the id of a backend, and why.
pub type Overtaken = Vec<(Arc<str>, Moot)>;

impl Moot {
    /// The reason in words.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Taken => "the configuration has a backend of this id now",
            Self::SamePlace => "the configuration has the same backend under another id now",
            Self::Gone => "the configuration does not have it any more",
            Self::Last => "no backend would be left",
        }
    }
}

impl Meant {
    /// A backend that is not drained.
    #[must_use]
    pub fn new(backend: Backend) -> Self {
        Self { backend, draining: false }
    }
}

impl Adjustment {
    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Makes `backend` so.
    pub fn apply(&self, backend: &mut Backend) {
        backend.weight = self.weight.unwrap_or(backend.weight);
        backend.active = self.active.unwrap_or(backend.active);
        backend.backup = self.backup.unwrap_or(backend.backup);
    }

    /// What makes `from` like `to`.
    fn between(from: &Backend, to: &Backend) -> Self {
        Self {
            weight: (from.weight != to.weight).then_some(to.weight),
            active: (from.active != to.active).then_some(to.active),
            backup: (from.backup != to.backup).then_some(to.backup),
        }
    }
}

impl Drift {
    /// What differs between the `configured` backends and those in use `now`.
    #[must_use]
    pub fn between(configured: &[Backend], now: &[Meant]) -> Self {
        let mut drift = Self::default();
        for was in configured {
            let is = now.iter().find(|is| is.backend.id == was.id);
            match is.filter(|is| is_same(&is.backend, was)) {
                None => drift.removed.push(Arc::clone(&was.id)),
                Some(is) => {
                    let changed = Changed {
                        id: Arc::clone(&was.id),
                        now: Adjustment::between(was, &is.backend),
                        draining: is.draining,
                    };
                    if changed.draining || !changed.now.is_empty() {
                        drift.changed.push(changed);
                    }
                }
            }
        }
        let is_new = |is: &&Meant| {
            !configured.iter().any(|was| was.id == is.backend.id && is_same(was, &is.backend))
        };
        drift.added = now.iter().filter(is_new).cloned().collect();
        drift
    }

    /// The `configured` backends with this difference, and what of it is moot.
    #[must_use]
    pub fn over(self, configured: &[Backend]) -> (Vec<Meant>, Overtaken) {
        let mut moot = Vec::new();
        let kept = configured.iter().filter(|was| !self.removed.contains(&was.id));
        let mut now: Vec<Meant> = kept.cloned().map(Meant::new).collect();
        for changed in self.changed {
            match now.iter_mut().find(|meant| meant.backend.id == changed.id) {
                Some(meant) => {
                    changed.now.apply(&mut meant.backend);
                    meant.draining = changed.draining;
                }
                None => moot.push((changed.id, Moot::Gone)),
            }
        }
        for added in self.added {
            let id = Arc::clone(&added.backend.id);
            // What is removed and added is elsewhere, and no more than that.
            let is_moved = self.removed.contains(&id);
            if is_moved && !configured.iter().any(|was| was.id == id) {
                moot.push((id, Moot::Gone));
            } else if now.iter().any(|meant| meant.backend.id == id) {
                moot.push((id, Moot::Taken));
            } else if now.iter().any(|meant| is_same(&meant.backend, &added.backend)) {
                moot.push((Arc::clone(&id), Moot::SamePlace));
                // One that was brought there is where it was before, as long as nobody else is.
                let was = configured.iter().find(|was| was.id == id);
                let was = was.filter(|was| !now.iter().any(|meant| is_same(&meant.backend, was)));
                now.extend(was.map(|was| Meant { backend: was.clone(), ..added }));
            } else {
                now.push(added);
            }
        }
        if now.is_empty() {
            moot.extend(self.removed.into_iter().map(|id| (id, Moot::Last)));
            now = configured.iter().cloned().map(Meant::new).collect();
        }
        (now, moot)
    }

    /// Whether nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }

    /// How many backends differ; one that is elsewhere now counts once.
    #[must_use]
    pub fn count(&self) -> usize {
        let moved = |meant: &&Meant| self.removed.contains(&meant.backend.id);
        let moved = self.added.iter().filter(moved).count();
        self.added.len() + self.changed.len() + self.removed.len() - moved
    }
}

/// Whether both are the same place, spoken to alike.
pub(super) fn is_same(one: &Backend, other: &Backend) -> bool {
    one.at == other.at && one.tls == other.tls
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::upstream::OriginTls;
    use crate::upstream::Place;

    fn backend(id: u8, port: u16, weight: u32) -> Backend {
        let at = Place::Tcp { host: "origin.test".to_owned(), port };
        Backend { weight, ..Backend::new(&format!("b{id}"), at) }
    }

    #[test]
    fn what_stayed_is_no_drift() {
        let configured = [backend(1, 1, 1), backend(2, 2, 2)];
        let now = configured.clone().map(Meant::new);
        let drift = Drift::between(&configured, &now);
        assert!(drift.is_empty());
        assert_eq!(drift.count(), 0);
    }

    #[test]
    fn what_came_went_moved_and_changed_is_told_apart() {
        let configured = [backend(1, 1, 1), backend(2, 2, 1), backend(3, 3, 1), backend(4, 4, 1)];
        let mut drained = Meant::new(backend(4, 4, 1));
        drained.draining = true;
        let now = [
            Meant::new(backend(1, 1, 5)),
            Meant::new(backend(2, 20, 1)),
            drained,
            Meant::new(backend(9, 9, 1)),
        ];
        let drift = Drift::between(&configured, &now);
        let added: Vec<&str> = drift.added.iter().map(|meant| &*meant.backend.id).collect();
        let changed: Vec<&str> = drift.changed.iter().map(|changed| &*changed.id).collect();
        let removed: Vec<&str> = drift.removed.iter().map(|id| &**id).collect();
        assert_eq!(
            (added, changed, removed),
            (vec!["b2", "b9"], vec!["b1", "b4"], vec!["b2", "b3"])
        );
        assert_eq!(drift.count(), 5);
    }

    #[test]
    fn what_the_configuration_gained_or_lost_meanwhile_counts() {
        let drift = Drift {
            added: vec![Meant::new(backend(1, 10, 1)), Meant::new(backend(8, 2, 1))],
            changed: vec![Changed {
                id: "b7".into(),
                now: Adjustment { weight: Some(3), ..Adjustment::default() },
                draining: false,
            }],
            removed: vec!["b6".into()],
        };
        let configured = [backend(1, 1, 1), backend(2, 2, 1)];
        let (now, moot) = drift.over(&configured);
        assert_eq!(now, configured.map(Meant::new));
        let moot: Vec<(&str, Moot)> = moot.iter().map(|(id, moot)| (&**id, *moot)).collect();
        assert_eq!(moot, [("b7", Moot::Gone), ("b1", Moot::Taken), ("b8", Moot::SamePlace)]);
    }

    #[test]
    fn an_upstream_is_never_left_without_a_backend() {
        let drift = Drift { removed: vec!["b1".into()], ..Drift::default() };
        let (now, moot) = drift.over(&[backend(1, 1, 1)]);
        assert_eq!(now, [Meant::new(backend(1, 1, 1))]);
        assert_eq!(moot, [("b1".into(), Moot::Last)]);
    }

    #[test]
    fn one_that_was_brought_to_a_place_that_another_has_now_is_where_it_was() {
        let moved = |id, port| Drift {
            added: vec![Meant { backend: backend(id, port, 1), draining: true }],
            removed: vec![format!("b{id}").into()],
            ..Drift::default()
        };
        let configured = [backend(1, 1, 4), backend(2, 2, 1)];
        let (now, moot) = moved(1, 2).over(&configured);
        let back = Meant { backend: backend(1, 1, 4), draining: true };
        assert_eq!(now, [Meant::new(backend(2, 2, 1)), back]);
        assert_eq!(moot, [("b1".into(), Moot::SamePlace)]);
        // Nobody goes by two ids because of it.
        let mut both = moved(1, 2);
        both.added.insert(0, Meant::new(backend(9, 1, 1)));
        let (now, _) = both.over(&configured);
        assert_eq!(now, [backend(2, 2, 1), backend(9, 1, 1)].map(Meant::new));
    }

    #[test]
    fn one_that_is_elsewhere_stays_there_until_the_configuration_says_so_too() {
        let tls = |ca: &str| Some(OriginTls { ca: Some(ca.into()), ..OriginTls::default() });
        let was = Backend { tls: tls("/a.pem"), ..backend(1, 1, 1) };
        let is = Meant { backend: Backend { tls: tls("/b.pem"), ..was.clone() }, draining: true };
        let drift = Drift::between(std::slice::from_ref(&was), std::slice::from_ref(&is));
        assert_eq!((drift.added.len(), drift.removed.len(), drift.count()), (1, 1, 1));
        let kept = drift.clone();
        let (now, moot) = drift.clone().over(&[was]);
        assert_eq!((now, moot), (vec![is.clone()], Vec::new()));
        // What the configuration has of it counts no more for its weight: that is the operator's, and told as drift.
        let caught_up = Backend { weight: 5, ..is.backend.clone() };
        let (now, moot) = drift.over(std::slice::from_ref(&caught_up));
        assert_eq!((&now, moot), (&vec![is], Vec::new()));
        let drift = Drift::between(&[caught_up], &now);
        assert_eq!((drift.added.len(), drift.removed.len()), (0, 0));
        assert_eq!(drift.changed[0].now.weight, Some(1));
        // Nor is it anywhere when the configuration does not have it any more.
        let other = backend(2, 2, 1);
        let (now, moot) = kept.over(std::slice::from_ref(&other));
        assert_eq!((now, moot), (vec![Meant::new(other)], vec![("b1".into(), Moot::Gone)]));
    }

    fn some() -> impl Strategy<Value = Vec<Meant>> {
        // Each id has its own ports, so that no two backends are the same place.
        let one = (0_u8..6, 0_u16..2, 1_u32..4, any::<bool>(), any::<bool>(), any::<bool>());
        prop::collection::vec(one, 1..6).prop_map(|all| {
            let mut meant: Vec<Meant> = Vec::new();
            for (id, port, weight, active, backup, draining) in all {
                let port = u16::from(id) * 2 + port + 1;
                let backend = Backend { active, backup, ..backend(id, port, weight) };
                if !meant.iter().any(|known| known.backend.id == backend.id) {
                    meant.push(Meant { backend, draining });
                }
            }
            meant
        })
    }

    proptest! {
        #[test]
        fn a_difference_laid_over_what_it_was_taken_from_gives_what_was_there(
            configured in some(),
            now in some(),
        ) {
            let configured: Vec<Backend> =
                configured.into_iter().map(|meant| meant.backend).collect();
            let (mut again, moot) = Drift::between(&configured, &now).over(&configured);
            let mut now = now;
            let by_id = |meant: &Meant| Arc::clone(&meant.backend.id);
            again.sort_by_key(by_id);
            now.sort_by_key(by_id);
            prop_assert_eq!(again, now);
            prop_assert!(moot.is_empty());
        }
    }
}
