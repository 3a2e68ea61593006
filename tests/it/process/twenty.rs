//! Twenty upgrades in a row under constant load: nobody notices.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use super::daemon::eventually;
use super::free_address;
use crate::harness::Edge;
use crate::harness::PATIENCE;
use crate::harness::Wire;
use crate::harness::client::End;
use crate::harness::http2;
use crate::reload::load::PARTS;
use crate::reload::load::Slow;
use crate::reload::load::Work;
use crate::reload::load::origin;

const UPGRADES: usize = 20;

/// Asks on kept connections, each of which goes as far as it is let.
fn asking(address: SocketAddr) -> Work {
    let mut wire = Wire::plain(address);
    Work::begin(move |_| {
        for path in ["/one", "/stored", "/other"] {
            let reply = wire.get("edge.test", path, &[]);
            let body = if path == "/stored" { "stored" } else { path };
            assert_eq!(reply.expect_status(200).end, End::Whole);
            reply.expect_body(body);
            if reply.value("connection") == Some("close") {
                wire = Wire::plain(address);
            }
        }
        let reply = wire.request("POST", "edge.test", "/upload", &[], b"12345");
        reply.expect_status(200).expect_body("5");
        if reply.value("connection") == Some("close") {
            wire = Wire::plain(address);
        }
    })
}

/// Whoever is told by GOAWAY that a stream was not looked at says it again elsewhere; every other end of one
/// is a failure.
fn asking_over_http2(address: SocketAddr) -> Work {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime can be made");
    let mut send = runtime.block_on(http2::plain(address));
    Work::begin(move |_| {
        runtime.block_on(async {
            for path in ["/one", "/stored"] {
                let uri = format!("http://edge.test{path}");
                let asked = http2::get(&mut send, &uri, &[]);
                let reply = tokio::time::timeout(PATIENCE, asked).await.expect("it hangs");
                let reply = match reply {
                    Ok(reply) => reply,
                    Err(e) => {
                        let no_error = e.reason().is_none_or(|why| why == h2::Reason::NO_ERROR);
                        assert!(no_error, "{path}: {e}");
                        send = http2::plain(address).await;
                        http2::get(&mut send, &uri, &[]).await.expect("it is answered")
                    }
                };
                assert_eq!(reply.status, 200);
                let body = if path == "/stored" { "stored" } else { path };
                assert_eq!(reply.body, body.as_bytes());
            }
        });
    })
}

fn descriptors(edge: &Edge) -> usize {
    fs::read_dir(format!("/proc/{}/fd", edge.pid())).expect("it runs").count()
}

#[test]
fn nobody_notices() {
    let parts = Arc::new(AtomicUsize::new(0));
    let origin = origin(Arc::clone(&parts));
    let address = free_address();
    let yaml = format!(
        "listeners: [{{name: http, address: \"{address}\", h2c: true}}]\n\
         upstreams: {{app: {{health: off, addresses: [\"{}\"], timeouts: {{total: 5m}}}}}}\n\
         routes: [{{name: all, upstream: app}}]\n\
         process: {{threads: 2, state_dir: $DIR/state, drain_timeout: 5m}}\n",
        origin.address
    );
    let folder = Arc::new(tempfile::tempdir().expect("a folder can be made"));
    let mut edge = Edge::in_folder(Arc::clone(&folder), &yaml, &[]);
    for n in 0..100 {
        edge.get(&format!("/stored?{n}")).expect_status(200);
    }
    let (files, memory) = (descriptors(&edge), edge.resident());

    let slow = Slow::begin(address, &parts);
    let works = [asking(address), asking(address), asking_over_http2(address)];
    let all = || works.iter().chain([&slow.talking]);
    all().for_each(|work| work.more(3));
    let mut before = Vec::new();
    for n in 1..=UPGRADES {
        let next = Edge::in_folder(Arc::clone(&folder), &yaml, &["-u"]);
        before.push(std::mem::replace(&mut edge, next));
        parts.store(n * PARTS / UPGRADES, Ordering::SeqCst);
        all().for_each(|work| work.more(2));
    }
    let mut rounds = works.map(Work::end).into_iter().chain([slow.end()]);
    assert!(rounds.all(|rounds| rounds > 2 * UPGRADES), "every kind went on all the time");
    for mut old in before {
        assert_eq!(old.wait().code(), Some(0));
        old.wait_for_log("drained");
    }

    // The last one is as the first one was: what was stored, and little more than that.
    let hits =
        (0..100).filter(|n| edge.get(&format!("/stored?{n}")).value("x-cache") == Some("HIT"));
    assert!(hits.count() >= 95);
    assert_eq!(edge.metric("edgeproxy_panics_total"), 0.0);
    edge.wait_for_gauge("edgeproxy_connections{", 0.0);
    eventually("descriptors are back where they were", || {
        (descriptors(&edge) <= files + 2).then_some(())
    });
    assert!(edge.resident() < memory * 2, "{} from {memory}", edge.resident());
}
