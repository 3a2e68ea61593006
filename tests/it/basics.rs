//! The first things that a newcomer sees.

use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::ok;

#[test]
fn a_second_get_is_served_from_cache() {
    let origin =
        Origin::script().on("/a", ok("hello").field("Cache-Control", "max-age=60")).start();
    let edge = Edge::to(&origin);

    edge.get("/a").expect_status(200).expect_miss().expect_body("hello");
    let hit = edge.get("/a");
    hit.expect_status(200).expect_hit().expect_body("hello");

    assert!(hit.value("age").is_some(), "{hit:?}");
    assert_eq!(origin.seen_at("/a").len(), 1);
}
