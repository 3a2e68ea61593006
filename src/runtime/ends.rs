//! When what listeners have ends: certificates, and lists of revoked clients.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::observe::metrics::EndSample;
use crate::observe::metrics::labels::Ending;
use crate::observe::metrics::labels::Label;
use crate::runtime::Runtime;

/// For each listener the first end of either. Where one has gone and one of its name has come, both count until
/// the first has nobody in.
#[must_use]
pub fn samples(runtime: &Runtime) -> Vec<EndSample> {
    let mut first: BTreeMap<(&Arc<str>, &str), EndSample> = BTreeMap::new();
    for (listener, store) in runtime.listener_names.iter().zip(&runtime.certificates) {
        let Some(ends) = store.as_ref().map(|store| store.ends()) else { continue };
        let both =
            [(Ending::Certificate, ends.certificate), (Ending::Revocations, ends.revocations)];
        for (what, at) in both {
            let Some(at) = at else { continue };
            let known = first.entry((listener, what.label())).or_insert_with(|| EndSample {
                listener: Arc::clone(listener),
                what,
                at,
            });
            known.at = known.at.min(at);
        }
    }
    first.into_values().collect()
}
