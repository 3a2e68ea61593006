//! A backend that fails where the others do not is left out for a while.

use std::time::Instant;

use super::before;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::PATIENCE;
use crate::harness::ok;
use crate::harness::status;

/// What else could keep requests away is off.
const BARE: &str = "    health: off\n    breaker: off\n    retry: off\n";

fn ejecting(origins: &[&Origin], ejection: &str) -> Edge {
    before(origins, &format!("{BARE}    ejection: {ejection}\n"))
}

/// Asks until the log has this.
#[track_caller]
fn ask_until(edge: &Edge, part: &str) -> String {
    let began = Instant::now();
    loop {
        if let Some(line) = edge.log().into_iter().find(|line| line.contains(part)) {
            return line;
        }
        assert!(began.elapsed() < PATIENCE, "no line with {part:?}: {:#?}", edge.log());
        edge.get("/");
    }
}

#[test]
fn errors_in_a_row_eject_a_backend_from_its_group() {
    let (bad, good) = (Origin::always(status(503)), Origin::always(ok("good")));
    let edge = ejecting(&[&bad, &good], "{consecutive: 3, out_for: 5m}");
    for _ in 0..20 {
        edge.get("/");
    }
    assert_eq!([bad.seen().len(), good.seen().len()], [3, 17]);
    let line = edge.wait_for_log("backend ejected");
    for part in ["backend=b0", "cause=streak", "seconds=300", "error=status", "503"] {
        assert!(line.contains(part), "{line}");
    }
    let of = |metric: &str, backend: &str| {
        edge.metric(&format!("{metric}{{upstream=\"app\",backend=\"{backend}\"}}"))
    };
    assert_eq!(of("edgeproxy_backend_ejections_total", "b0"), 1.0);
    assert_eq!(of("edgeproxy_backend_ejections_total", "b1"), 0.0);
    assert_eq!(of("edgeproxy_backend_up", "b0"), 0.0);
    assert_eq!(of("edgeproxy_backend_up", "b1"), 1.0);
}

#[test]
fn the_last_one_is_never_ejected() {
    let (a, b) = (Origin::always(status(503)), Origin::always(status(503)));
    let edge = ejecting(&[&a, &b], "{consecutive: 2, out_for: 5m, max_percent: 100}");
    for _ in 0..20 {
        edge.get("/").expect_status(503);
    }
    assert_eq!(a.seen().len() + b.seen().len(), 20, "somebody is always asked");
    assert_eq!(edge.metric("edgeproxy_backend_ejections_total{"), 1.0);
}

#[test]
fn its_time_passes_and_the_next_one_is_longer() {
    let (bad, good) = (Origin::always(status(503)), Origin::always(ok("good")));
    let edge = ejecting(&[&bad, &good], "{consecutive: 1, out_for: 100ms, interval: 1h}");
    ask_until(&edge, "seconds=0.1");
    ask_until(&edge, "seconds=0.2");
    ask_until(&edge, "seconds=0.3");
    assert!(edge.metric("edgeproxy_backend_ejections_total{") >= 3.0);
}

#[test]
fn a_rate_of_success_far_below_the_others_ejects() {
    let (a, b) = (Origin::always(ok("a")), Origin::always(ok("b")));
    let bad = Origin::always(status(502));
    let edge = ejecting(
        &[&a, &bad, &b],
        "{consecutive: off, deviations: 100, min_requests: 1, min_backends: 3, interval: 100ms, \
          out_for: 5m}",
    );
    let line = ask_until(&edge, "backend ejected");
    assert!(line.contains("backend=b1") && line.contains("cause=rate"), "{line}");
    let seen = bad.seen().len();
    for _ in 0..6 {
        edge.get("/").expect_status(200);
    }
    assert_eq!(bad.seen().len(), seen);
}

#[test]
fn a_status_that_is_not_named_is_no_error() {
    let (bad, good) = (Origin::always(status(503)), Origin::always(ok("good")));
    let edge = ejecting(&[&bad, &good], "{consecutive: 1, statuses: [500]}");
    for _ in 0..10 {
        edge.get("/");
    }
    assert_eq!([bad.seen().len(), good.seen().len()], [5, 5]);
}

#[test]
fn who_is_ejected_stays_so_across_a_reload() {
    let (bad, good) = (Origin::always(status(503)), Origin::always(ok("good")));
    let edge = ejecting(&[&bad, &good], "{consecutive: 1, out_for: 5m}");
    edge.get("/");
    edge.get("/");
    assert_eq!(bad.seen().len(), 1);
    let before = std::fs::read_to_string(edge.folder().path().join("edge.yaml"));
    let before = before.expect("it was written there");
    let after = before.replace("    health: off\n", "    health: off\n    timeouts: {total: 7s}\n");
    assert_ne!(before, after);
    edge.write(&after).reload().expect_status(200);
    for _ in 0..6 {
        edge.get("/").expect_body("good");
    }
    assert_eq!(bad.seen().len(), 1);
    assert_eq!(edge.metric("edgeproxy_backend_ejections_total{"), 1.0);

    // Nobody is ejected any more.
    let off = after.replace("ejection: {consecutive: 1, out_for: 5m}", "ejection: off");
    assert_ne!(off, after);
    edge.write(&off).reload().expect_status(200);
    let line = edge.wait_for_log("backend no longer ejected");
    assert!(line.contains("backend=b0") && line.contains("cause=switched_off"), "{line}");
    for _ in 0..4 {
        edge.get("/");
    }
    assert_eq!(bad.seen().len(), 3);
}
