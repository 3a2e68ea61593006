//! Backends are checked, and those that are not well get no requests.

use std::sync::Arc;
use std::sync::Barrier;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::Response;

use super::before;
use super::nobody;
use super::with;
use crate::harness::Authority;
use crate::harness::Edge;
use crate::harness::Gate;
use crate::harness::Origin;
use crate::harness::Origin2;
use crate::harness::PATIENCE;
use crate::harness::Respond;
use crate::harness::ok;
use crate::harness::origin2::Call;
use crate::harness::status;

/// One check of each backend, which decides, and no other within the test.
const ONCE: &str = "interval: 1h, timeout: 20s, initial: unknown";

/// An origin that always serves, and says that it is well as long as the switch is on.
fn moody(name: &'static str, well: bool) -> (Origin, Arc<AtomicBool>) {
    let switch = Arc::new(AtomicBool::new(well));
    let is_well = Arc::clone(&switch);
    let origin = Origin::script()
        .with("/health", move |_| match is_well.load(Ordering::SeqCst) {
            true => ok("fine"),
            false => status(500),
        })
        .otherwise(move |_| ok(name))
        .start();
    (origin, switch)
}

/// How many of its requests were no checks.
fn served(origin: &Origin) -> usize {
    origin.seen().len() - origin.seen_at("/health").len()
}

/// Waits for so many further checks.
fn wait_for_checks(origin: &Origin, count: usize) {
    let enough = origin.seen_at("/health").len() + count;
    let began = Instant::now();
    while origin.seen_at("/health").len() < enough {
        origin.wait_for(origin.seen().len() + 1);
        assert!(began.elapsed() < PATIENCE, "it is checked again and again");
    }
}

fn count(edge: &Edge, part: &str) -> usize {
    edge.log().iter().filter(|line| line.contains(part)).count()
}

#[track_caller]
fn expect_no_peer(edge: &Edge) {
    let refused = edge.get_with("/", &[("Accept", "application/json")]);
    assert_eq!(refused.status, 503);
    assert!(refused.text().contains("no_peer"), "{refused:?}");
}

#[test]
fn a_backend_whose_checks_fail_gets_no_requests_until_enough_of_them_pass() {
    let (sick, switch) = moody("sick", true);
    let (well, _) = moody("well", true);
    let health = "    health: {path: /health, interval: 500ms, rise: 3, fall: 2}\n";
    let edge = before(&[&sick, &well], health);
    edge.get("/");
    edge.get("/");
    assert_eq!([served(&sick), served(&well)], [1, 1]);

    switch.store(false, Ordering::SeqCst);
    let line = edge.wait_for_log("backend unhealthy");
    assert!(line.contains("backend=b0") && line.contains("status 500"), "{line}");
    let before_it = served(&sick);
    for _ in 0..6 {
        edge.get("/").expect_body("well");
    }
    assert_eq!(served(&sick), before_it);
    assert_eq!(edge.metric("edgeproxy_backend_up{upstream=\"app\",backend=\"b0\"}"), 0.0);
    let state = "edgeproxy_backend_health_state{upstream=\"app\",backend=\"b0\"}";
    assert_eq!(edge.metric(state), 2.0);
    wait_for_checks(&sick, 3);
    assert_eq!(count(&edge, "backend unhealthy"), 1, "it is told once");

    let checks = |result| {
        let labels = format!("{{upstream=\"app\",backend=\"b0\",result=\"{result}\"}}");
        edge.metric(&format!("edgeproxy_backend_health_checks_total{labels}"))
    };
    let passed = checks("passed");
    assert!(checks("failed") >= 4.0);
    switch.store(true, Ordering::SeqCst);
    let line = edge.wait_for_log("backend healthy");
    assert!(line.contains("backend=b0") && line.contains("from=unhealthy"), "{line}");
    assert!(checks("passed") >= passed + 3.0, "it takes three");
    assert_eq!(edge.metric(state), 0.0);
    let before_it = served(&sick);
    for _ in 0..6 {
        edge.get("/").expect_status(200);
    }
    assert_eq!(served(&sick), before_it + 3);
}

#[test]
fn a_check_is_the_request_that_was_configured() {
    let origin = Origin::script().on("/up", status(204)).otherwise(|_| status(500)).start();
    let edge = before(
        &[&origin],
        "    health:\n      path: \"/up?deep=1\"\n      method: HEAD\n      host: app.test\n      \
         headers: {X-Check: \"yes\", Authorization: secret-word}\n      statuses: [204]\n      \
         interval: 1h\n      timeout: 20s\n      initial: unknown\n",
    );
    edge.wait_for_log("backend healthy");
    let seen = &origin.seen_at("/up")[0];
    assert_eq!(seen.line, "HEAD /up?deep=1 HTTP/1.1");
    assert_eq!(seen.values("host"), ["app.test"]);
    assert_eq!(seen.values("user-agent"), ["edgeproxy-health"]);
    assert_eq!(seen.values("x-check"), ["yes"]);
    assert_eq!(seen.values("authorization"), ["secret-word"]);
    assert_eq!(seen.values("connection"), ["close"]);
    assert_eq!(count(&edge, "secret-word"), 0);
}

#[test]
fn without_a_host_it_is_asked_as_what_it_is() {
    let origin = Origin::always(ok("fine"));
    let edge = before(&[&origin], &format!("    health: {{type: http, {ONCE}}}\n"));
    edge.wait_for_log("backend healthy");
    let seen = &origin.seen_at("/health")[0];
    assert_eq!(seen.values("host"), [origin.address.to_string()]);
}

#[test]
fn checks_of_several_backends_run_at_once() {
    // Each is answered only while the other one is asked.
    let both = Arc::new(Barrier::new(2));
    let [a, b] = ["a", "b"].map(|name| {
        let both = Arc::clone(&both);
        let check = move |_: &_| {
            both.wait();
            ok("fine")
        };
        Origin::script().with("/health", check).otherwise(move |_| ok(name)).start()
    });
    let edge = before(&[&a, &b], &format!("    health: {{path: /health, {ONCE}}}\n"));
    edge.wait_for_metric("edgeproxy_backend_health_checks_total{", 2.0);
    edge.get("/");
    edge.get("/");
    assert_eq!([served(&a), served(&b)], [1, 1]);
}

#[test]
fn an_unknown_backend_gets_no_requests_before_its_first_check() {
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let wait = Arc::clone(&gate);
    let origin = Origin::script()
        .with("/health", move |_| {
            let open = wait.0.lock().expect("no test panics while it holds this");
            drop(wait.1.wait_while(open, |open| !*open));
            ok("fine")
        })
        .otherwise(|_| ok("served"))
        .start();
    let edge = before(&[&origin], &format!("    health: {{path: /health, {ONCE}}}\n"));
    expect_no_peer(&edge);
    assert_eq!(edge.metric("edgeproxy_backend_health_state{"), 1.0);
    assert_eq!(served(&origin), 0);
    *gate.0.lock().expect("no test panics while it holds this") = true;
    gate.1.notify_all();
    let line = edge.wait_for_log("backend healthy");
    assert!(line.contains("from=unknown"), "{line}");
    edge.get("/").expect_body("served");
    assert_eq!(origin.seen_at("/health").len(), 1, "that took longer than the start waits for it");
}

#[test]
fn a_first_check_goes_on_through_reloads_and_nobody_who_is_known_is_asked_again() {
    let gate = Gate::default();
    let wait = gate.clone();
    let slow = Origin::script()
        .with("/health", move |_| {
            wait.pass();
            ok("fine")
        })
        .otherwise(|_| ok("slow"))
        .start();
    let quick = Origin::script().on("/health", ok("fine")).otherwise(|_| ok("quick")).start();
    let config = |more: &str| {
        let (slow, quick) = (slow.address, quick.address);
        format!(
            "listeners: [{{name: http, address: \"127.0.0.1:0\"}}]\nupstreams:\n  app:\n    \
             addresses: [{{id: slow, address: \"{slow}\"}}, {{id: quick, address: \"{quick}\"}}]\n    \
             health: {{path: /health, {ONCE}}}\n{more}routes: [{{upstream: app}}]\n"
        )
    };
    let edge = Edge::with(&config(""));
    for more in ["slow_start: 1ms", "balance: random"] {
        edge.write(&config(&format!("    {more}\n"))).reload().expect_status(200);
    }
    edge.get("/").expect_body("quick");
    assert_eq!([&slow, &quick].map(|one| one.seen_at("/health").len()), [1, 1]);
    gate.open();
    let line = edge.wait_for_log("backend=slow");
    assert!(line.contains("backend healthy") && line.contains("from=unknown"), "{line}");
    assert_eq!(super::shares(&edge, 100).len(), 2);
    assert_eq!([&slow, &quick].map(|one| one.seen_at("/health").len()), [1, 1]);
}

#[test]
fn a_first_check_ends_with_its_backend() {
    let gate = Gate::default();
    let wait = gate.clone();
    let slow = Origin::script()
        .with("/health", move |_| {
            wait.pass();
            status(500)
        })
        .start();
    let quick = Origin::script().on("/health", ok("fine")).otherwise(|_| ok("quick")).start();
    let edge = before(&[&quick], &format!("    health: {{path: /health, {ONCE}}}\n"));
    let added = format!("{{\"id\": \"slow\", \"address\": \"{}\"}}", slow.address);
    for _ in 0..3 {
        edge.admin_post("/v1/upstreams/app/backends", &added).expect_status(201);
        edge.admin_says("DELETE", "/v1/upstreams/app/backends/slow", "").expect_status(200);
    }
    gate.open();
    edge.get("/").expect_body("quick");
    assert_eq!(edge.metrics("edgeproxy_backend_health_state{").len(), 1);
    assert_eq!(count(&edge, "backend=slow from=unknown"), 0, "{:?}", edge.log());
}

#[test]
fn a_port_that_nobody_listens_on_is_found_by_connecting() {
    let origin = Origin::always(ok("here"));
    let addresses = format!("{{id: gone, address: \"{}\"}}, \"{}\"", nobody(), origin.address);
    let edge = with(&addresses, &format!("    health: {{{ONCE}}}\n"));
    let line = edge.wait_for_log("backend unhealthy");
    assert!(line.contains("backend=gone") && line.contains("connect_failed"), "{line}");
    for _ in 0..4 {
        edge.get("/").expect_body("here");
    }
    assert_eq!(edge.metric("edgeproxy_backend_failures_total{"), 0.0, "nobody tried the other");
}

#[test]
fn without_a_word_every_backend_is_checked_by_connecting() {
    let origin = Origin::always(ok("here"));
    let edge = before(&[&origin], "");
    assert_eq!(edge.metric("edgeproxy_backend_health_state{"), 0.0);
    assert_eq!(edge.metrics("edgeproxy_backend_health_checks_total{").len(), 2);
    let edge = before(&[&origin], "    health: off\n");
    assert_eq!(edge.metrics("edgeproxy_backend_health").len(), 0);
    edge.get("/").expect_body("here");
}

#[test]
fn while_none_is_well_the_answer_is_503_at_once() {
    let (a, _) = moody("a", false);
    let (b, _) = moody("b", false);
    let edge = before(&[&a, &b], &format!("    health: {{path: /health, {ONCE}}}\n"));
    edge.wait_for_metric("edgeproxy_backend_health_checks_total{", 2.0);
    expect_no_peer(&edge);
    assert_eq!([served(&a), served(&b)], [0, 0]);
}

#[test]
fn below_the_panic_threshold_health_is_not_heeded() {
    let (a, _) = moody("a", false);
    let (b, _) = moody("b", false);
    let (c, well) = moody("c", false);
    let edge = before(
        &[&a, &b, &c],
        "    panic_threshold: 30\n    health: {path: /health, interval: 500ms, initial: unknown}\n",
    );
    edge.wait_for_gauge("edgeproxy_backend_health_state{", 6.0);
    for _ in 0..6 {
        edge.get("/").expect_status(200);
    }
    assert_eq!([served(&a), served(&b), served(&c)], [2, 2, 2]);
    well.store(true, Ordering::SeqCst);
    edge.wait_for_log("backend healthy");
    for _ in 0..4 {
        edge.get("/").expect_body("c");
    }
}

#[test]
fn a_backup_that_is_well_goes_before_panic() {
    let (a, _) = moody("a", false);
    let (b, _) = moody("b", false);
    let (spare, well) = moody("spare", true);
    let addresses = format!(
        "{{id: a, address: \"{}\"}}, {{id: b, address: \"{}\"}}, {{id: c, address: \"{}\", backup: true}}",
        a.address, b.address, spare.address
    );
    let edge = with(
        &addresses,
        "    panic_threshold: 60\n    health: {path: /health, interval: 500ms, initial: unknown, fall: 1}\n",
    );
    edge.wait_for_gauge("edgeproxy_backend_health_state{", 4.0);
    for _ in 0..6 {
        edge.get("/").expect_body("spare");
    }
    well.store(false, Ordering::SeqCst);
    edge.wait_for_gauge("edgeproxy_backend_health_state{", 6.0);
    // None is well: the first ones are tried before the backup.
    for _ in 0..4 {
        assert_ne!(edge.get("/").expect_status(200).text(), "spare");
    }
}

#[test]
fn in_panic_clients_stay_where_they_are_and_attempts_go_on() {
    let (a, _) = moody("a", false);
    let (b, _) = moody("b", false);
    let edge = before(
        &[&a, &b],
        "    panic_threshold: 50\n    sticky: on\n    \
         health: {path: /health, interval: 500ms, initial: unknown}\n",
    );
    edge.wait_for_gauge("edgeproxy_backend_health_state{", 4.0);
    let first = edge.get("/");
    let told = first.value("set-cookie").expect("the client is told").to_owned();
    let pair = told.split(';').next().unwrap_or_default();
    for n in 0..5 {
        let again = edge.get_with(&format!("/{n}"), &[("Cookie", pair)]);
        assert_eq!(again.text(), first.text());
    }
}

#[test]
fn the_answer_must_contain_the_text() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                   6\r\nall sy\r\n8\r\nstems go\r\n0\r\n\r\n";
    let bodies = [
        ("chunked", Respond::raw(chunked), true),
        ("whole", ok("all systems go"), true),
        ("none", ok("all is lost"), false),
        ("cut", Respond::raw("HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\nall sys"), false),
        ("malformed", Respond::raw("HTTP/1.1 20 OK\r\n\r\nall systems go"), false),
    ];
    for (name, answer, well) in bodies {
        let origin = Origin::always(answer);
        let health = format!("    health: {{path: /, body: \"systems go\", {ONCE}}}\n");
        let edge = before(&[&origin], &health);
        let word = if well { "backend healthy" } else { "backend unhealthy" };
        edge.wait_for_log(word);
        assert_eq!(count(&edge, "backend unhealthy"), usize::from(!well), "{name}");
    }
}

#[test]
fn a_check_that_takes_too_long_has_failed() {
    let origin = Origin::script()
        .take_over("/health", |_, stream| {
            // Held until edgeproxy gives it up.
            let mut stream = stream;
            let _ = std::io::Read::read(&mut stream, &mut [0]);
        })
        .otherwise(|_| ok("served"))
        .start();
    let health = "    health: {path: /health, timeout: 50ms, initial: unknown}\n";
    let edge = before(&[&origin], health);
    let line = edge.wait_for_log("backend unhealthy");
    assert!(line.contains("no answer within 50ms"), "{line}");
}

#[test]
fn a_backend_that_is_switched_off_is_not_checked() {
    let (off, on) = (Origin::always(ok("off")), Origin::always(ok("on")));
    let addresses = format!(
        "{{id: off, address: \"{}\", active: false}}, {{id: on, address: \"{}\"}}",
        off.address, on.address
    );
    let edge = with(&addresses, "    health: {path: /health, interval: 500ms, initial: unknown}\n");
    wait_for_checks(&on, 3);
    edge.get("/").expect_body("on");
    assert_eq!(off.connections(), 0);
}

#[test]
fn checks_speak_tls_as_requests_do() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().expect("a folder can be made");
    let ca = authority.write(folder.path());
    let right = Origin::script()
        .otherwise(|_| ok("right"))
        .start_tls(authority.server(&["app.test"], &["http/1.1"]));
    let wrong = Origin::script()
        .otherwise(|_| ok("wrong"))
        .start_tls(authority.server(&["other.test"], &["http/1.1"]));
    for probe in ["path: /health, ", ""] {
        let edge = before(
            &[&right, &wrong],
            &format!(
                "    health: {{{probe}{ONCE}}}\n    tls: {{server_name: app.test, ca: \"{}\"}}\n",
                ca.display()
            ),
        );
        let line = edge.wait_for_log("backend unhealthy");
        assert!(line.contains("backend=b1") && line.contains("origin_certificate"), "{line}");
        edge.wait_for_log("backend healthy");
        for _ in 0..4 {
            edge.get("/").expect_body("right");
        }
    }
    let seen = &right.seen_at("/health")[0];
    assert_eq!(seen.server_name.as_deref(), Some("app.test"));
}

/// A gRPC server whose health service gives this answer.
fn grpc(answer: impl Fn(&[u8]) -> Result<u8, u8> + Send + Sync + 'static) -> Origin2 {
    serve_grpc(None, answer)
}

fn serve_grpc(
    tls: Option<Arc<rustls::ServerConfig>>,
    answer: impl Fn(&[u8]) -> Result<u8, u8> + Send + Sync + 'static,
) -> Origin2 {
    let answer = Arc::new(answer);
    Origin2::start(tls, move |mut call: Call| {
        let answer = Arc::clone(&answer);
        async move {
            if call.head.uri.path() != "/grpc.health.v1.Health/Check" {
                return call.respond(Response::new(()), "served");
            }
            let (message, _) = call.whole().await;
            let head = Response::builder().header("content-type", "application/grpc");
            match answer(&message) {
                Ok(state) => {
                    let head = head.body(()).expect("a head");
                    let mut stream = call.answer.send_response(head, false).expect("it is open");
                    let frame = Bytes::from(vec![0, 0, 0, 0, 2, 8, state]);
                    stream.send_data(frame, false).expect("it is open");
                    let mut trailers = HeaderMap::new();
                    trailers.insert("grpc-status", HeaderValue::from_static("0"));
                    stream.send_trailers(trailers).expect("it is open");
                }
                Err(status) => {
                    let head =
                        head.header("grpc-status", u16::from(status)).body(()).expect("a head");
                    call.respond(head, "");
                }
            }
        }
    })
}

#[test]
fn a_grpc_service_has_to_be_serving() {
    let serving = grpc(|message| {
        assert_eq!(message, [0, 0, 0, 0, 6, 0x0A, 4, b's', b'h', b'o', b'p']);
        Ok(1)
    });
    let not_serving = grpc(|_| Ok(2));
    let unknown = grpc(|_| Err(5));
    let addresses = [("serving", &serving), ("not", &not_serving), ("unknown", &unknown)]
        .map(|(id, origin)| format!("{{id: {id}, address: \"{}\"}}", origin.address));
    let edge = with(
        &addresses.join(", "),
        &format!("    protocol: http2\n    health: {{type: grpc, service: shop, {ONCE}}}\n"),
    );
    edge.wait_for_metric("edgeproxy_backend_health_checks_total{", 3.0);
    for _ in 0..4 {
        edge.get("/").expect_body("served");
    }
    assert_eq!(serving.seen().len(), 5);
    let head = &serving.seen()[0];
    assert_eq!(head.method, "POST");
    assert_eq!(head.headers["content-type"], "application/grpc");
    assert_eq!(head.headers["te"], "trailers");
    assert_eq!(head.headers["grpc-timeout"], "20000m");
    for (id, reason) in [("not", "NOT_SERVING"), ("unknown", "gRPC status 5")] {
        let line = edge.log().into_iter().find(|line| line.contains(&format!("backend={id}")));
        assert!(line.as_ref().is_some_and(|line| line.contains(reason)), "{line:?}");
    }
}

#[test]
fn checks_over_http_2_use_tls_and_alpn_as_requests_do() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().expect("a folder can be made");
    let ca = authority.write(folder.path());
    let tls = authority.server(&["app.test"], &["h2"]);
    let origin = serve_grpc(Some(tls), |_| Ok(1));
    let old = Origin::script()
        .otherwise(|_| ok("old"))
        .start_tls(authority.server(&["app.test"], &["http/1.1"]));
    for probe in ["type: grpc", "path: /up, body: serv"] {
        let edge = with(
            &format!(
                "{{id: new, address: \"{}\"}}, {{id: old, address: \"{}\"}}",
                origin.address, old.address
            ),
            &format!(
                "    protocol: http2\n    health: {{{probe}, {ONCE}}}\n    \
                 tls: {{server_name: app.test, ca: \"{}\"}}\n",
                ca.display()
            ),
        );
        let line = edge.wait_for_log("backend healthy");
        assert!(line.contains("backend=new"), "{line}");
        let line = edge.wait_for_log("backend unhealthy");
        assert!(line.contains("backend=old"), "{line}");
        edge.get("/").expect_body("served");
    }
    assert!(origin.server_names().iter().all(|name| name.as_deref() == Some("app.test")));
    assert!(origin.seen().iter().any(|head| head.uri.path() == "/up"));
}
