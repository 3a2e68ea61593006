//! Which backend a request goes to.

use super::before;
use super::nobody;
use super::with;
use crate::harness::Origin;
use crate::harness::ok;

fn three() -> [Origin; 3] {
    ["a", "b", "c"].map(|name| Origin::always(ok(name)))
}

#[test]
fn requests_go_round_and_weights_count() {
    let [a, b, c] = three();
    let addresses = format!(
        "\"{}\", {{address: \"http://{}\", weight: 2}}, {{address: \"{}\", active: false}}",
        a.address, b.address, c.address
    );
    let edge = with(&addresses, "");
    for _ in 0..9 {
        edge.get("/").expect_status(200);
    }
    assert_eq!([a.seen().len(), b.seen().len(), c.seen().len()], [3, 6, 0]);
}

#[test]
fn a_hash_brings_what_belongs_together_to_the_same_backend() {
    let origins = three();
    let [a, b, c] = &origins;
    let edge = before(&[a, b, c], "    balance: hash\n    hash_by: \"header:x-user\"\n");
    for user in 0..20 {
        let name = format!("user-{user}");
        let first = edge.get_with("/", &[("X-User", &name)]).text();
        for _ in 0..3 {
            assert_eq!(edge.get_with("/other", &[("X-User", &name)]).text(), first);
        }
    }
    let used = origins.iter().filter(|origin| !origin.seen().is_empty()).count();
    assert!(used > 1, "twenty users come to more than one of three backends");
}

#[test]
fn every_algorithm_serves_and_passes_over_who_is_not_there() {
    for balance in ["round_robin", "random", "least_connections", "peak_ewma", "hash"] {
        let origin = Origin::always(ok("here"));
        let addresses = format!("\"{}\", \"{}\"", nobody(), origin.address);
        let edge = with(&addresses, &format!("    balance: {balance}\n"));
        for n in 0..8 {
            edge.get(&format!("/{n}")).expect_status(200);
        }
        assert_eq!(origin.seen().len(), 8, "{balance}");
    }
}

#[test]
fn backups_serve_only_while_no_other_can() {
    let (main, spare) = (Origin::always(ok("main")), Origin::always(ok("spare")));
    let addresses = format!(
        "{{id: main, address: \"{}\"}}, {{id: spare, address: \"{}\", backup: true}}",
        main.address, spare.address
    );
    let edge = with(&addresses, "");
    for _ in 0..5 {
        edge.get("/").expect_body("main");
    }
    assert_eq!(spare.seen().len(), 0);

    let addresses = format!(
        "{{id: main, address: \"{}\"}}, {{id: spare, address: \"{}\", backup: true}}",
        nobody(),
        spare.address
    );
    let edge = with(&addresses, "");
    for _ in 0..5 {
        edge.get("/").expect_body("spare");
    }
}
