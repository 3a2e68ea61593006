//! After a thousand reloads nothing is left behind.

use std::fs;

use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::ok;
use crate::process::daemon::eventually;
use crate::process::free_address;

/// How many there are of each.
const RELOADS: usize = 1000;

/// What a process holds.
#[derive(Debug, Clone, Copy)]
struct Held {
    threads: usize,
    files: usize,
    tasks: f64,
}

fn held(edge: &Edge) -> Held {
    let count = |what: &str| {
        let folder = format!("/proc/{}/{what}", edge.pid());
        fs::read_dir(folder).expect("the process is there").count()
    };
    Held { threads: count("task"), files: count("fd"), tasks: edge.metric("edgeproxy_tasks") }
}

/// Other upstreams each time, one of them with a name to look up and all of them with checks; another
/// route, another listener and another access log.
fn config(n: usize, origin: &Origin, listener: std::net::SocketAddr) -> String {
    let port = origin.address.port();
    let kind = n % 4;
    let more = match kind {
        0 => format!(", {{name: more-{n}, address: \"{listener}\"}}"),
        _ => String::new(),
    };
    format!(
        "listeners: [{{name: http, address: \"127.0.0.1:0\"}}{more}]\n\
         upstreams:\n\
         \x20 stays:\n    addresses: [\"{address}\"]\n    timeouts: {{total: {total}s}}\n    pool: {{warm: 1}}\n\
         \x20 named-{n}:\n    addresses: [\"localhost:{port}\"]\n    resolve_every: 1h\n    \
         health: {{path: /health, interval: 1s}}\n\
         \x20 checked-{n}:\n    addresses: [\"{address}\"]\n    health: {{initial: unknown, interval: 1s}}\n    \
         pool: {{warm: 1}}\n\
         routes:\n  - {{name: route-{n}, match: {{path: /named}}, upstream: named-{n}}}\n  \
         - {{name: all, upstream: stays}}\n  - {{name: checked, match: {{path: /checked}}, upstream: checked-{n}}}\n\
         access_log: {{to: {log}}}\n",
        address = origin.address,
        total = 10 + kind,
        log = if kind < 2 { "stdout" } else { "$DIR/access.log" },
    )
}

#[test]
fn nothing_is_left_behind() {
    let origin = Origin::always(ok("hello"));
    let listener = free_address();
    let edge = Edge::with(&config(1, &origin, listener));
    let visit = |n: usize| {
        edge.write(&config(n, &origin, listener)).reload().expect_status(200);
        for path in ["/", "/named", "/checked"] {
            edge.get(path).expect_status(200).expect_body("hello");
        }
    };
    // What is made once is made by then: every kind was there, several times.
    for n in 0..40 {
        visit(n);
    }
    visit(1);
    let before = held(&edge);
    let memory = edge.resident();
    let series = edge.admin("GET", "/metrics").text().lines().count();
    for n in 0..RELOADS {
        visit(n);
    }
    visit(1);
    eventually("as much is held as before", || {
        let now = held(&edge);
        let fits = now.threads <= before.threads + 2
            && now.files <= before.files + 4
            && now.tasks <= before.tasks + 4.0;
        fits.then_some(())
    });
    let lines = edge.admin("GET", "/metrics").text().lines().count();
    assert!(lines <= series + 40, "{lines} lines of metrics, {series} before");
    let grown = edge.resident().saturating_sub(memory);
    assert!(grown < 12 << 20, "{grown} bytes more than {memory}");
}
