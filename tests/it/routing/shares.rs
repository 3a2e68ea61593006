//! Several addresses of one upstream share its requests.

use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::ok;

fn sharing(addresses: &str) -> Edge {
    Edge::with(&format!(
        "listeners:\n  - {{name: http, address: \"127.0.0.1:0\"}}\n\
         upstreams:\n  both:\n    addresses: [{addresses}]\n\
         routes:\n  - {{upstream: both, cache: off}}\n"
    ))
}

#[test]
fn shares_are_exact_over_a_cycle() {
    let (one, three) = (Origin::always(ok("1")), Origin::always(ok("3")));
    let edge = sharing(&format!(
        "{{address: \"{}\", weight: 1}}, {{address: \"{}\", weight: 3}}",
        one.address, three.address
    ));
    let mut wire = edge.wire();
    for cycle in 1..=5 {
        for _ in 0..4 {
            wire.get("edge.test", "/", &[]).expect_status(200);
        }
        assert_eq!((one.seen().len(), three.seen().len()), (cycle, 3 * cycle));
    }
}

#[test]
fn without_weights_they_take_turns() {
    let (one, other) = (Origin::always(ok("1")), Origin::always(ok("2")));
    let edge = sharing(&format!("\"{}\", \"{}\"", one.address, other.address));
    let mut wire = edge.wire();
    let told: Vec<String> = (0..6).map(|_| wire.get("edge.test", "/", &[]).text()).collect();
    assert!(told.windows(2).all(|pair| pair[0] != pair[1]), "{told:?}");
}

#[test]
fn an_address_that_refuses_is_passed_over() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
    let gone = nobody.local_addr().expect("bound");
    drop(nobody);
    let here = Origin::always(ok("here"));
    let edge = sharing(&format!("\"{gone}\", \"{}\"", here.address));
    let mut wire = edge.wire();
    for _ in 0..6 {
        wire.get("edge.test", "/", &[]).expect_status(200).expect_body("here");
    }
}
