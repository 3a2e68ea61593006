//! What listeners do with a request before its route does anything: for those who ask what would become of it.
//!
//! Routes know hosts, not listeners; who asks about a URL names none. So this is told of every listener that speaks
//! its scheme.

use std::fmt;

use crate::config::plan::Plan;
use crate::listen;
use crate::listen::insist;
use crate::message::target::Scheme;
use crate::route::action::Action;
use crate::runtime::guarded::Guarded;
use crate::runtime::guarded::Here;

/// What a listener does with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entrance {
    /// It sends the client to this URL.
    ToHttps(String),
    /// Its clients show a certificate, or have no handshake.
    Certificate,
    /// The host is served to clients with a certificate alone, and this listener has asked nobody for one.
    Misdirected,
    /// Nobody has a handshake for this host.
    NoHandshake,
}

/// A listener that does not just serve the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At<'a> {
    /// Its name.
    pub listener: &'a str,
    /// What it does.
    pub does: Entrance,
}

/// A request that is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Arriving<'a> {
    /// Over TLS or not.
    pub scheme: Scheme,
    /// In lower case, without port.
    pub host: &'a str,
    /// Path and query, in their normal form.
    pub target: &'a str,
    /// What its route does; `None`: none takes it.
    pub action: Option<&'a Action>,
}

/// What the listeners of this scheme do before the route counts; those that just serve it are left out.
#[must_use]
pub fn entrances<'p>(plan: &'p Plan, arriving: &Arriving<'_>) -> Vec<At<'p>> {
    let guarded = Guarded::of(plan);
    let speaks = |one: &&listen::Settings| one.tls.is_some() == (arriving.scheme == Scheme::Https);
    let at = |one: &'p listen::Settings| {
        Some(At { listener: &one.name, does: entrance(one, &guarded, arriving)? })
    };
    plan.listeners.iter().filter(speaks).filter_map(at).collect()
}

fn entrance(
    listener: &listen::Settings,
    guarded: &Guarded,
    arriving: &Arriving<'_>,
) -> Option<Entrance> {
    if let Some(port) = listener.insists.https_port(arriving.scheme) {
        let to = insist::location(arriving.host, port, arriving.target);
        return Some(Entrance::ToHttps(to));
    }
    let here = Guarded::here(listener, arriving.host);
    let refuses = listener.tls.as_ref().is_some_and(|tls| tls.default.is_none());
    match (here, arriving.action) {
        (Here::Required, _) => Some(Entrance::Certificate),
        (Here::Unknown, _) if refuses => Some(Entrance::NoHandshake),
        // It leads to where the client is asked.
        (Here::Unknown, Some(Action::Redirect { .. }) | None) | (Here::Open, _) => None,
        (Here::Unknown, Some(Action::Upstream(_) | Action::Respond { .. })) => {
            guarded.is_guarded(arriving.host).then_some(Entrance::Misdirected)
        }
    }
}

impl fmt::Display for Entrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ToHttps(to) => write!(f, "answers 308 to {to}, whichever route takes it"),
            Self::Certificate => f.write_str("serves this host to clients with a certificate alone"),
            Self::Misdirected => f.write_str(
                "answers 421: clients of this host must show a certificate, and this listener asks for none",
            ),
            Self::NoHandshake => f.write_str("has no certificate for this host: there is no handshake"),
        }
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "listener {} {}", self.listener, self.does)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    const YAML: &str = "
listeners:
  - {name: sends, address: \"127.0.0.1:1\", to_https: {port: 8443}}
  - {name: plain, address: \"127.0.0.1:2\"}
  - name: asks
    address: \"127.0.0.1:3\"
    tls:
      default: refuse
      certificates:
        - {hosts: [open.test], internal: true}
        - {hosts: [guarded.test, \"*.guarded.test\"], internal: true, client_auth: {ca: CA}}
  - name: other
    address: \"127.0.0.1:4\"
    tls: {certificates: [{hosts: [open.test], internal: true}]}
routes:
  - {match: {path: /away}, redirect: {to: \"https://guarded.test/\"}}
  - {respond: {status: 204}}
";

    fn told(url: &str) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["ca.test".to_owned()]).unwrap();
        let ca = folder.path().join("ca.pem");
        std::fs::write(&ca, made.cert.pem()).unwrap();
        let file = folder.path().join("edge.yaml");
        std::fs::write(&file, YAML.replace("CA", &ca.display().to_string())).unwrap();
        let plan = config::load(&file).unwrap().plan;
        let (scheme, rest) = url.split_once("://").unwrap();
        let at = rest.find('/').unwrap();
        let (host, target) = rest.split_at(at);
        let routes = plan.routes.routes();
        let action = &routes[usize::from(target != "/away")].action;
        let scheme = Scheme::parse(scheme.as_bytes()).unwrap();
        let arriving = Arriving { scheme, host, target, action: Some(action) };
        entrances(&plan, &arriving).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn who_comes_by_http_is_sent_on_or_has_been_asked_for_nothing() {
        let sends =
            "listener sends answers 308 to https://open.test:8443/a?b, whichever route takes it";
        assert_eq!(told("http://open.test/a?b"), [sends]);
        let told_of = told("http://guarded.test/");
        assert_eq!(told_of.len(), 2, "{told_of:?}");
        assert!(told_of[1].starts_with("listener plain answers 421"), "{told_of:?}");
        assert_eq!(told("http://guarded.test/away").len(), 1);
    }

    #[test]
    fn a_host_may_be_for_clients_with_a_certificate_at_one_listener_and_at_no_other() {
        assert!(told("https://open.test/").is_empty());
        for host in ["guarded.test", "a.guarded.test"] {
            let told_of = told(&format!("https://{host}/"));
            assert!(
                told_of[0].starts_with("listener asks serves this host to clients"),
                "{told_of:?}"
            );
            assert!(told_of[1].starts_with("listener other answers 421"), "{told_of:?}");
        }
        let told_of = told("https://nobody.test/");
        assert_eq!(
            told_of,
            ["listener asks has no certificate for this host: there is no handshake"]
        );
    }
}
