//! Certificates by ACME: which ones the configuration asks for, and who sees to them.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::acme;
use crate::acme::keeper::Keeper;
use crate::acme::keeper::Standing;
use crate::app::life::Life;
use crate::config::plan::Plan;
use crate::observe::metrics::OrderSample;
use crate::tls::Source;
use crate::tls::answers::Answers;

/// Who sees to the certificates that the current configuration has from an ACME server.
pub(crate) struct Orders {
    answers: Arc<Answers>,
    life: Arc<Life>,
    current: Mutex<Option<Current>>,
}

struct Current {
    settings: acme::Settings,
    groups: Vec<Vec<String>>,
    keeper: Keeper,
}

impl Orders {
    /// Nobody yet.
    pub(crate) fn new(answers: Arc<Answers>, life: Arc<Life>) -> Arc<Self> {
        Arc::new(Self { answers, life, current: Mutex::default() })
    }

    /// Does as `plan` says from now on. Where that is what it said before, nothing changes: an order under
    /// way goes on.
    pub(crate) fn follow(&self, plan: &Plan) {
        let mut current = self.current.lock();
        let groups = groups(plan);
        let is_same = match (&*current, &plan.acme) {
            (Some(current), Some(settings)) => {
                current.settings == *settings && current.groups == groups
            }
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if is_same {
            return;
        }
        // The old tasks end before new ones begin.
        *current = None;
        *current = plan.acme.clone().map(|settings| {
            let life = Arc::clone(&self.life);
            let on_new = Arc::new(move || life.renew.notify_one());
            let answers = Arc::clone(&self.answers);
            let keeper = Keeper::start(settings.clone(), groups.clone(), answers, on_new);
            Current { settings, groups, keeper }
        });
    }

    /// How each certificate stands.
    pub(crate) fn standings(&self) -> Vec<Standing> {
        let current = self.current.lock();
        current.as_ref().map(|current| current.keeper.standings()).unwrap_or_default()
    }

    /// The same in numbers.
    pub(crate) fn samples(&self) -> Vec<OrderSample> {
        let sample = |one: Standing| OrderSample {
            hosts: one.hosts.join(","),
            issued: one.issued,
            failed: one.failed,
            failures: one.failures,
            succeeded: one.succeeded,
            expires: one.expires,
        };
        self.standings().into_iter().map(sample).collect()
    }
}

/// The hosts of each certificate, in the order written; one that two listeners have is one.
fn groups(plan: &Plan) -> Vec<Vec<String>> {
    let mut groups: Vec<Vec<String>> = Vec::new();
    let listeners = plan.listeners.iter().filter_map(|listener| listener.tls.as_ref());
    for certificate in listeners.flat_map(|tls| &tls.certificates) {
        let is_ordered = match certificate.source {
            Source::Acme { .. } => true,
            Source::Files { .. } | Source::Internal => false,
        };
        if is_ordered && !groups.contains(&certificate.hosts) {
            groups.push(certificate.hosts.clone());
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_host_that_routes_name_is_ordered_once() {
        let text = "\
listeners:
  - {address: \"0.0.0.0:80\"}
  - {address: \"0.0.0.0:443\", tls: auto}
  - {address: \"0.0.0.0:8443\", tls: {auto: true, certificates: [{hosts: [a.example, c.example], acme: true}]}}
routes:
  - {match: {hosts: [b.example, A.example, localhost]}, respond: {status: 204}}
  - {match: {hosts: [a.example, \"*\"]}, respond: {status: 204}}
";
        let plan = crate::config::from_text(text, "test").map_err(|d| d.to_json()).unwrap().plan;
        assert_eq!(
            groups(&plan),
            [vec!["a.example"], vec!["b.example"], vec!["a.example", "c.example"]]
        );
    }
}
