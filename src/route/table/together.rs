//! Which routes a client of one host can take, one request after the other.

use crate::route::Route;
use crate::route::table::Table;
use crate::route::table::shadow;

/// The routes of each kind of host, by their positions.
pub(super) fn together(table: &Table) -> impl Iterator<Item = Vec<usize>> {
    table.hosts.all().map(|(name, _)| {
        // A first label that is in no pattern stands for all hosts that have none of their own.
        let host = match name {
            Some(name) if name.starts_with('.') => format!("\0{name}"),
            Some(name) => name.to_owned(),
            None => "\0".to_owned(),
        };
        let mut met = at(table, &host);
        met.sort_unstable();
        met.dedup();
        met
    })
}

/// The routes of a host, up to one that leaves nothing to those behind it.
fn at(table: &Table, host: &str) -> Vec<usize> {
    let mut met = Vec::new();
    for &index in table.hosts.serving(host).flat_map(|paths| paths.order()) {
        met.push(index);
        if takes_all(&table.routes[index]) {
            break;
        }
    }
    met
}

fn takes_all(route: &Route) -> bool {
    let sweeps = || shadow::swept(&route.path).is_some_and(|branch| branch == "/");
    route.when.conditions() == 0 && (route.path.is_any() || sweeps())
}
