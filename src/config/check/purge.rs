//! Checks `purge` of routes and defaults: who may use the method PURGE.

use crate::config::check::listen;
use crate::config::check::secret;
use crate::config::check::secret::Files;
use crate::config::path::Path;
use crate::config::report::Report;
use crate::config::schema::route::Purge;
use crate::config::schema::value::Switch;
use crate::route::purging::Rule;

/// Who may purge; `None` is nobody.
pub(super) fn rule(
    written: &Switch<Purge>,
    files: Files<'_>,
    at: &Path,
    report: &mut Report<'_>,
) -> Option<Rule> {
    let written = written.as_ref()?;
    if written.from.is_none() && written.token.is_none() && written.token_file.is_none() {
        report
            .error(at, "whoever can connect could purge")
            .help("name those who may: `purge: {from: [10.0.0.0/8]}`, or a `token_file`");
        return None;
    }
    let at_from = at.key("from");
    if written.from.as_ref().is_some_and(Vec::is_empty) && !report.is_broken(&at_from) {
        report.error(&at_from, "nobody may purge").help("write `purge: off`, or leave `from` out");
    }
    let is_guarded = written.token.is_some() || written.token_file.is_some();
    let from = written.from.as_ref().map(|texts| {
        let networks = listen::networks(texts, &at_from, report);
        for (n, network) in &networks {
            if network.prefix_len() == 0 && !is_guarded {
                report
                    .warning(&at_from.index(*n), "everybody may purge")
                    .help("name only the networks of those who should, or add a `token_file`");
            }
        }
        networks.into_iter().map(|(_, network)| network).collect()
    });
    let token =
        secret::token(written.token.as_ref(), written.token_file.as_deref(), at, files, report);
    Some(Rule { from, token })
}
