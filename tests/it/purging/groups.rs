//! Groups that the answer to an unsafe method makes invalid (RFC 9875).

use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::ok;
use crate::harness::origin::Seen;
use crate::harness::status;
use crate::purging::store;

/// Pages belong to the groups in their query, separated by `+`; a POST invalidates those in its query,
/// and its answer has the status in its path, if there is one.
fn grouping() -> Origin {
    Origin::script()
        .otherwise(|seen: &Seen| {
            let (path, groups) = seen.target().split_once('?').unwrap_or((seen.target(), ""));
            let list: Vec<String> = groups.split('+').map(|name| format!("\"{name}\"")).collect();
            let list = list.join(", ");
            match (seen.method(), path.trim_start_matches('/').parse()) {
                ("GET", _) if groups == "invalidating" => ok("page")
                    .field("Cache-Group-Invalidation", "\"a\"")
                    .field("Cache-Control", "no-store"),
                ("GET", _) => {
                    ok("page").field("Cache-Control", "max-age=60").field("Cache-Groups", &list)
                }
                (_, Ok(code)) => status(code).field("Cache-Group-Invalidation", &list),
                (_, Err(_)) => ok("done").field("Cache-Group-Invalidation", &list),
            }
        })
        .start()
}

fn post(edge: &Edge, host: &str, target: &str) {
    edge.wire().request("POST", host, target, &[], b"x");
}

fn is_hit(edge: &Edge, host: &str, target: &str) -> bool {
    edge.wire().get(host, target, &[]).value("x-cache") == Some("HIT")
}

#[test]
fn a_post_invalidates_the_groups_that_its_answer_names_and_no_others() {
    let origin = grouping();
    let edge = Edge::to(&origin);
    let pages = ["/1?a", "/2?a+b", "/3?b", "/4?A", "/5"];
    store(&edge, &pages);
    post(&edge, "edge.test", "/change?a+c");
    let left: Vec<&str> =
        pages.into_iter().filter(|page| is_hit(&edge, "edge.test", page)).collect();
    assert_eq!(left, ["/3?b", "/4?A", "/5"]);
    assert_eq!(edge.metric("edgeproxy_cache_groups_invalidated_total"), 2.0);
    // What came since then stays.
    edge.get("/1?a").expect_hit();
    edge.get("/2?a+b").expect_hit();
}

#[test]
fn a_group_is_of_one_origin() {
    let origin = grouping();
    let edge = Edge::to(&origin);
    let hosts = ["a.test", "a.test:8080", "b.test"];
    for host in hosts {
        assert!(!is_hit(&edge, host, "/?a") && is_hit(&edge, host, "/?a"), "{host}");
    }
    post(&edge, "A.test:80", "/change?a");
    let left: Vec<&str> = hosts.into_iter().filter(|host| is_hit(&edge, host, "/?a")).collect();
    assert_eq!(left, ["a.test:8080", "b.test"]);
}

#[test]
fn the_answer_to_a_get_invalidates_no_group() {
    let origin = grouping();
    let edge = Edge::to(&origin);
    store(&edge, &["/1?a"]);
    edge.get("/2?invalidating").expect_miss();
    edge.get("/1?a").expect_hit();
}

#[test]
fn an_error_that_names_groups_invalidates_them_as_well() {
    let origin = grouping();
    let edge = Edge::to(&origin);
    store(&edge, &["/1?a"]);
    post(&edge, "edge.test", "/500?a");
    edge.get("/1?a").expect_miss();
}
