//! A backend that is somewhere else from now on, or is spoken to with other TLS settings.
//!
//! It keeps its id and is a new one otherwise: what is known of the old address says nothing of the new one, and a
//! connection made under other settings is not what was asked for. So all of that begins anew, also where only the
//! settings are others, as it does with a reload.
//!
//! What takes time comes first: files are read, a name is looked up, and where backends come unknown the new
//! address is checked. Then it takes the place of the old one in one step, and there is no moment without a backend.

use std::sync::Arc;

use crate::upstream;
use crate::upstream::backend::Reason;
use crate::upstream::change::Refused;
use crate::upstream::change::find;
use crate::upstream::connect::Dials;
use crate::upstream::drift::is_same;
use crate::upstream::found::Found;
use crate::upstream::health;
use crate::upstream::pattern;
use crate::upstream::peer::Asked;
use crate::upstream::peer::BuildError;
use crate::upstream::peer::Source;
use crate::upstream::peer::Upstream;
use crate::upstream::peer::Way;
use crate::upstream::peer::fixed;
use crate::upstream::resolve;

impl Upstream {
    /// Has the backend of the id of `meant` be as meant, wherever that is. Where it is there already it keeps all that is
    /// known of it. Its connections find their settings in `dials`.
    ///
    /// One that is a name has its addresses by then, and follows it after
    /// [`resolve::begin`]. Reads the files that its TLS names. Other changes have to
    /// wait meanwhile.
    ///
    /// # Errors
    /// There is none of this id, another one is at this place, its name has no address, or it cannot be set up. Then nothing
    /// is changed.
    pub async fn relocate(
        self: &Arc<Self>,
        meant: upstream::Backend,
        dials: &Dials,
    ) -> Result<(), Refused> {
        let id = Arc::clone(&meant.id);
        let (mut source, known) = {
            let mut sources = self.sources.lock();
            if self.is_there(&sources, &meant)? {
                let source = find(&mut sources, &id)?;
                source.settings = meant;
                source.settle(self.now());
                self.regroup(&sources);
                return Ok(());
            }
            let known = known(find(&mut sources, &id)?, &meant).map_err(Refused::Unusable)?;
            let way = Way::new(self, &meant, &sources, &[]).map_err(Refused::Unusable)?;
            (Source::new(self, meant, way), known)
        };
        let found = match Asked::of(&source.settings.at) {
            Some(asked) if known.is_empty() => {
                let found = resolve::once(self, &asked).await;
                found.map_err(|e| Refused::Unresolved(asked.name().to_owned(), e))?
            }
            Some(_) | None => known,
        };
        source.learn(found, self.settings(), self.now());
        let found = health::beforehand(self, &source.backends).await;

        let mut sources = self.sources.lock();
        if let Some(why) = health::why_none_is_well(&found) {
            let now = self.now();
            let serves = find(&mut sources, &id)?.backends.iter().any(|one| one.is_well(now));
            // Where the old one serves, requests would be lost.
            if serves {
                return Err(Refused::Unwell(why));
            }
        }
        // Still there, and nobody else came to this place.
        self.is_there(&sources, &source.settings)?;
        let place = find(&mut sources, &id)?;
        health::known(self, found);
        source.draining = place.draining;
        for backend in &source.backends {
            backend.set(Reason::Draining, source.draining);
        }
        // Before any request can need it.
        dials.set([&source.dial]);
        let gone = std::mem::replace(place, source);
        self.regroup(&sources);
        self.dismiss(vec![gone], &sources);
        drop(sources);
        Ok(())
    }

    /// Whether the backend of this id is where and spoken to as `meant`, with what its files hold now.
    fn is_there(&self, sources: &[Source], meant: &upstream::Backend) -> Result<bool, Refused> {
        let mine = sources.iter().find(|source| source.settings.id == meant.id);
        let mine = mine.ok_or(Refused::Unknown)?;
        if is_same(&mine.settings, meant) {
            let key = pattern::group_key(self.settings(), meant.tls.as_ref(), &meant.at);
            return Ok(mine.key() == key);
        }
        match sources.iter().find(|source| is_same(&source.settings, meant)) {
            Some(other) => Err(Refused::SamePlace(Arc::clone(&other.settings.id))),
            None => Ok(false),
        }
    }
}

/// The addresses of `meant` that need no look-up: none of a name, unless it is the one of before.
fn known(before: &Source, meant: &upstream::Backend) -> Result<Vec<Found>, BuildError> {
    if before.settings.at == meant.at {
        return Ok(before.backends.iter().map(|backend| backend.found()).collect());
    }
    fixed(&meant.at)
}
