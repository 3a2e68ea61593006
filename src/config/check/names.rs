//! Checks what names are looked up, and of whom.

use std::net::SocketAddr;

use crate::config::check::address;
use crate::config::path::Path;
use crate::config::report::Report;
use crate::upstream::Backend;

/// Whether this program asks DNS servers itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Srv {
    /// It was built with the feature.
    BuiltIn,
    /// It was not.
    Missing,
}

impl Srv {
    /// This program's.
    pub(super) fn here() -> Self {
        if cfg!(feature = "srv") { Self::BuiltIn } else { Self::Missing }
    }

    /// Says what is missing for `what`.
    fn require(self, what: &str, at: &Path, report: &mut Report<'_>) {
        match self {
            Self::BuiltIn => {}
            Self::Missing => {
                report
                    .error(at, format!("{what} needs what this program was built without"))
                    .help("build it with `cargo build --release --locked --features srv`");
            }
        }
    }
}

/// A backend that is a service, written with this weight.
pub(super) fn service(name: &str, weight: u32, srv: Srv, at: &Path, report: &mut Report<'_>) {
    srv.require(&format!("\"srv:{name}\""), at, report);
    if weight != 1 {
        report
            .error_in_key(&at.key("weight"), "`weight` has no effect on a service")
            .help("its records say the weights; remove it");
    }
}

/// The servers that the names of these backends are asked of.
pub(super) fn resolvers(
    written: &[String],
    backends: &[Backend],
    srv: Srv,
    at: &Path,
    report: &mut Report<'_>,
) -> Vec<SocketAddr> {
    if written.is_empty() {
        return Vec::new();
    }
    srv.require("`resolvers`", at, report);
    if !backends.is_empty() && !backends.iter().any(|backend| backend.at.is_name()) {
        // One may come at run time.
        report
            .warning_about_key(at, "none of the addresses is a name")
            .help("nothing is asked of them; remove them");
    }
    let mut servers = Vec::with_capacity(written.len());
    for (n, text) in written.iter().enumerate() {
        match address::resolver(text) {
            Ok(server) => servers.push(server),
            Err(wrong) => {
                report.error(&at.index(n), wrong.message).help(wrong.help);
            }
        }
    }
    servers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::diagnostic::Diagnostics;
    use crate::upstream::Place;

    /// What is said.
    fn said(check: impl FnOnce(&Path, &mut Report<'_>)) -> Vec<String> {
        let mut report = Report::new(None, Diagnostics::default());
        check(&Path::root().key("here"), &mut report);
        report.finish().all().iter().map(|one| one.message.clone()).collect()
    }

    fn at(place: Place) -> [Backend; 1] {
        [Backend::new("one", place)]
    }

    fn named() -> [Backend; 1] {
        at(Place::Tcp { host: "app.test".to_owned(), port: 80 })
    }

    #[test]
    fn a_program_without_the_feature_refuses_what_needs_it() {
        let refused =
            said(|at, report| service("_http._tcp.app.test", 1, Srv::Missing, at, report));
        let [refused] = &refused[..] else { panic!("{refused:?}") };
        assert!(refused.contains("\"srv:_http._tcp.app.test\" needs"), "{refused}");
        let servers = ["10.0.0.2".to_owned()];
        let check = |srv| {
            said(|at, report| {
                resolvers(&servers, &named(), srv, at, report);
            })
        };
        assert!(check(Srv::Missing)[0].contains("`resolvers` needs"));
        assert!(check(Srv::BuiltIn).is_empty());
        assert!(said(|at, report| service("a.test", 1, Srv::BuiltIn, at, report)).is_empty());
        let none = said(|at, report| {
            resolvers(&[], &named(), Srv::Missing, at, report);
        });
        assert!(none.is_empty(), "{none:?}");
    }

    #[test]
    fn the_weights_of_a_service_are_its_records() {
        let said = said(|at, report| service("a.test", 2, Srv::BuiltIn, at, report));
        assert_eq!(said, ["`weight` has no effect on a service"]);
    }

    #[test]
    fn servers_are_addresses_and_asked_for_names_only() {
        let check = |servers: &[&str], backends: &[Backend]| {
            let servers: Vec<String> = servers.iter().map(|&one| one.to_owned()).collect();
            said(|at, report| {
                resolvers(&servers, backends, Srv::BuiltIn, at, report);
            })
        };
        let wrong = check(&["dns.test"], &named());
        assert_eq!(wrong, ["\"dns.test\" is not the address of a DNS server"]);
        let fixed = at(Place::Tcp { host: "10.0.0.1".to_owned(), port: 80 });
        assert_eq!(check(&["10.0.0.2"], &fixed), ["none of the addresses is a name"]);
        let service = at(Place::Service("app.test".to_owned()));
        assert!(check(&["10.0.0.2", "[::1]:53"], &service).is_empty());
    }
}
