//! One line a request.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::cacheable;
use crate::harness::Edge;
use crate::harness::Wire;
use crate::harness::edge::simple;

/// An edge whose access log goes to a file.
struct Logged {
    edge: Edge,
    file: PathBuf,
}

impl Logged {
    fn with(more: &str) -> Self {
        Self::timed(more, "")
    }

    /// The same with these limits.
    fn timed(more: &str, limits: &str) -> Self {
        let section = format!("access_log: {{to: $DIR/access.log{more}}}\nlimits: {{{limits}}}");
        let edge = Edge::with(&simple(&cacheable(), &section));
        let file = edge.folder().path().join("access.log");
        Self { edge, file }
    }

    /// Ends the process, by which every line is written; returns them all.
    fn lines(&mut self) -> Vec<String> {
        self.edge.signal(Signal::SIGTERM);
        assert_eq!(self.edge.wait().code(), Some(0));
        let text = fs::read_to_string(&self.file).expect("it is written");
        text.lines().map(str::to_owned).collect()
    }
}

fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))
}

#[test]
fn as_json_a_line_is_an_object_of_what_is_known() {
    let mut logged = Logged::with(", format: json");
    let reply = logged.edge.get_with("/a?b=c", &[("User-Agent", "test"), ("Referer", "http://r/")]);
    reply.expect_status(200);
    let lines = logged.lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    let line = json(&lines[0]);
    for (field, value) in [
        ("client", "127.0.0.1"),
        ("listener", "http"),
        ("protocol", "HTTP/1.1"),
        ("method", "GET"),
        ("scheme", "http"),
        ("host", "edge.test"),
        ("uri", "/a?b=c"),
        ("route", "all"),
        ("upstream", "origin"),
        ("cache", "miss"),
        ("user_agent", "test"),
        ("referer", "http://r/"),
    ] {
        assert_eq!(line[field], value, "{field}: {line}");
    }
    assert_eq!(line["status"], 200);
    assert_eq!(line["bytes_sent"], 5);
    assert_eq!(line["upstream_status"], 200);
    assert!(line["duration_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{line}");
    assert_eq!(line["request_id"].as_str(), reply.value("x-request-id"), "{line}");
    assert!(line.get("refusal").is_none(), "{line}");
}

#[test]
fn as_text_a_line_is_pairs_in_the_order_of_the_configuration() {
    let mut logged =
        Logged::with(", format: text, fields: [status, method, uri, cache, refusal, host]");
    // On one connection: a request is logged before the next one is read.
    let mut wire = logged.edge.wire();
    wire.get("edge.test", "/a", &[]).expect_miss();
    wire.get("edge.test", "/a?b=c", &[]).expect_miss();
    wire.get("edge.test", "/a", &[]).expect_hit();
    drop(wire);
    assert_eq!(
        logged.lines(),
        [
            "status=200 method=GET uri=/a cache=miss refusal=- host=edge.test",
            "status=200 method=GET uri=\"/a?b=c\" cache=miss refusal=- host=edge.test",
            "status=200 method=GET uri=/a cache=hit refusal=- host=edge.test",
        ]
    );
}

#[test]
fn what_was_refused_before_it_was_a_request_has_a_line_too() {
    let mut logged = Logged::with(", format: json");
    logged.edge.wire().send("GET / HTTP/1.1\r\n\r\n").reply().expect_status(400);
    let lines = logged.lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    let line = json(&lines[0]);
    assert_eq!(line["status"], 400);
    assert!(line["refusal"].as_str().is_some_and(|label| label.contains("host")), "{line}");
}

#[test]
fn secrets_in_targets_and_referers_are_masked_and_cookies_never_written() {
    let mut logged = Logged::with(", format: json");
    let fields = [
        ("Cookie", "sid=COOKIEVALUE"),
        ("Authorization", "Bearer BEARERVALUE"),
        ("Referer", "http://r.test/?access_token=REFERERVALUE"),
    ];
    logged.edge.get_with("/a?token=QUERYVALUE&page=2&api_key=KEYVALUE", &fields);
    let lines = logged.lines();
    for secret in ["COOKIEVALUE", "BEARERVALUE", "REFERERVALUE", "QUERYVALUE", "KEYVALUE"] {
        assert!(!lines[0].contains(secret), "{secret}: {}", lines[0]);
    }
    assert_eq!(json(&lines[0])["uri"], "/a?token=***&page=2&api_key=***");
}

#[test]
fn secrets_in_what_was_refused_before_it_was_a_request_are_masked_too() {
    for (sent, refused, uri) in [
        ("GET /a?token=HIDDEN HTTP/1.1\r\n\r\n", "missing_host", "/a?token=***"),
        (
            "GET /a?page=2&api_key=HIDDEN HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            "duplicate_host",
            "/a?page=2&api_key=***",
        ),
        ("GET /a?token=HIDDEN HTTP/1.1\r\nHost: a b\r\n\r\n", "bad_host", "/a?token=***"),
        (
            "GET http://me:HIDDEN@edge.test/a?token=HIDDEN HTTP/1.1\r\nHost: edge.test\r\n\r\n",
            "",
            "http://***@edge.test/a?token=***",
        ),
        ("GET /a?token=HIDDEN HTTP/1.1\r\nHost: a\r\nb ad: c\r\n\r\n", "", "/a?token=***"),
        ("TRACE /a?token=HIDDEN HTTP/1.1\r\nHost: a\r\n\r\n", "", "/a?token=***"),
        ("CONNECT me:HIDDEN@a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", "", "***@a:443"),
        ("GET /a#access_token=HIDDEN HTTP/1.1\r\nHost: a\r\n\r\n", "", "/a#access_token=***"),
        ("/a?token=HIDDEN\r\n\r\n", "", ""),
        ("GET http://me:HIDDEN#HIDDEN HTTP/1.1\r\nHost: a\r\n\r\n", "", "http://"),
        ("GET http://me:HIDDEN x@a/ HTTP/1.1\r\nHost: a\r\n\r\n", "", "http://"),
        ("GET http:/me:HIDDEN@a/ HTTP/1.1\r\nHost: a\r\n\r\n", "", "***@a/"),
    ] {
        let mut logged = Logged::with(", format: json");
        let reply = logged.edge.wire().send(sent).reply();
        assert!((400..=501).contains(&reply.status), "{sent}: {}", reply.status);
        let lines = logged.lines();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(!lines[0].contains("HIDDEN"), "{}", lines[0]);
        let line = json(&lines[0]);
        assert_eq!(line["uri"], uri, "{line}");
        assert!(line["refusal"].as_str().is_some_and(|label| label.contains(refused)), "{line}");
    }
}

#[test]
fn secrets_in_a_head_that_did_not_come_in_time_are_masked_too() {
    for (sent, uri) in [
        ("GET /a?token=HIDDEN", "/a?token=***"),
        ("GET http://me:HIDDEN", "http://"),
        ("GET http://me:HIDDEN@a.te", "http://"),
        ("GET http://me:HIDDEN/HIDDEN", "http://"),
        ("GET http://me:HIDDEN?HIDDEN", "http://"),
    ] {
        let mut logged = Logged::timed(", format: json", "header_timeout: 100ms");
        logged.edge.wire().send(sent).reply().expect_status(408);
        let lines = logged.lines();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(!lines[0].contains("HIDDEN"), "{}", lines[0]);
        assert_eq!(json(&lines[0])["uri"], uri, "{}", lines[0]);
    }
}

#[test]
fn a_client_cannot_write_lines_of_its_own() {
    for format in ["json", "text"] {
        let mut logged = Logged::with(&format!(", format: {format}"));
        let agent = "a\" status=200 \u{1b}[31m\u{85}\u{2028}{\"x\":1}";
        logged.edge.get_with("/%0a%0dInjected?a=%22%0a", &[("User-Agent", agent)]);
        let lines = logged.lines();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(!lines[0].contains('\u{1b}'), "{lines:?}");
        if format == "json" {
            assert!(json(&lines[0]).get("x").is_none());
        }
    }
}

#[test]
fn after_a_rename_and_a_signal_lines_go_to_a_new_file_and_none_is_lost() {
    let mut logged = Logged::with(", format: text, fields: [uri]");
    let (stop, address) = (Arc::new(AtomicBool::new(false)), logged.edge.address("http"));
    let client = thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            let mut wire = Wire::plain(address);
            let mut number = 0u32;
            // Some more after it was told to stop, for the last file to have lines too.
            let mut rest = 20;
            while rest > 0 {
                wire.get("edge.test", &format!("/{number}"), &[]).expect_status(200);
                number += 1;
                rest -= u32::from(stop.load(Ordering::Relaxed));
            }
            number
        }
    });
    let mut files = Vec::new();
    for round in 0..3 {
        logged.edge.wait_for_some(&logged.file);
        let old = logged.edge.folder().path().join(format!("access.log.{round}"));
        fs::rename(&logged.file, &old).expect("moved");
        logged.edge.signal(Signal::SIGUSR1);
        files.push(old);
    }
    logged.edge.wait_for_some(&logged.file);
    stop.store(true, Ordering::Relaxed);
    let sent = client.join().expect("every request is answered");
    let last = logged.lines();

    let mut all: Vec<String> = Vec::new();
    for file in files {
        let text = fs::read_to_string(file).expect("it was renamed");
        all.extend(text.lines().map(str::to_owned));
    }
    all.extend(last);
    let expected: Vec<String> = (0..sent).map(|number| format!("uri=/{number}")).collect();
    assert_eq!(all, expected);
}

impl Edge {
    /// Waits until a file has a line.
    fn wait_for_some(&self, file: &std::path::Path) {
        let start = std::time::Instant::now();
        while !fs::metadata(file).is_ok_and(|about| about.len() > 0) {
            assert!(start.elapsed() < crate::harness::PATIENCE, "{} stays empty", file.display());
            thread::sleep(std::time::Duration::from_millis(2));
        }
    }
}

#[test]
fn a_file_that_cannot_be_written_ends_the_start() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let yaml = simple(&cacheable(), "access_log: {to: /proc/edgeproxy.log}");
    crate::harness::edge::write_config(&folder, &yaml);
    let (code, said) = super::super::process::outcome(&folder, &["-c", "edge.yaml"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("/proc/edgeproxy.log cannot be used"), "{said}");
    assert!(!folder.path().join("upgrade.sock").exists(), "nothing is left behind");
}

#[test]
fn a_log_that_is_off_writes_nothing() {
    let mut edge = Edge::with(&simple(&cacheable(), "access_log: {to: off}"));
    edge.get("/a").expect_status(200);
    edge.signal(Signal::SIGTERM);
    edge.wait();
    assert!(edge.access_log().is_empty(), "{:?}", edge.access_log());
}
