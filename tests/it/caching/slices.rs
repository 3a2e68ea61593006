//! Large objects in pieces: what the origin is asked for, and that no answer is made of two versions.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use crate::caching::minute;
use crate::caching::with_rules;
use crate::harness::Edge;
use crate::harness::Gate;
use crate::harness::Origin;
use crate::harness::Respond;
use crate::harness::client::End;
use crate::harness::http2;
use crate::harness::ok;
use crate::harness::origin::Seen;
use crate::harness::status;

const PIECE: usize = 16 * 1024;
const LENGTH: usize = 100_000;
const RULES: &str = "{slice: 16KiB}";

/// A version of an object: bytes that are different at every place, and in every version.
fn version(number: u8) -> Vec<u8> {
    (0..LENGTH).map(|at| (at as u8) ^ ((at >> 8) as u8).wrapping_mul(31) ^ number).collect()
}

/// What an origin that knows ranges answers for this object.
fn partial(seen: &Seen, body: &[u8], more: &[(&str, &str)]) -> Respond {
    let asked = seen.value("range").and_then(|range| {
        let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
        Some((first.parse::<usize>().ok()?, last.parse().unwrap_or(usize::MAX)))
    });
    let respond = match asked {
        Some((first, _)) if first >= body.len() => {
            status(416).field("Content-Range", &format!("bytes */{}", body.len()))
        }
        Some((first, last)) => {
            let last = last.min(body.len() - 1);
            let at = format!("bytes {first}-{last}/{}", body.len());
            status(206).body(&body[first..=last]).field("Content-Range", &at)
        }
        None => status(200).body(body),
    };
    let respond = respond.field("Content-Type", "video/x");
    more.iter().fold(respond, |respond, (name, value)| respond.field(name, value))
}

const FRESH: &[(&str, &str)] = &[("Cache-Control", "max-age=60"), ("ETag", "\"1\"")];

/// An origin with one object, and an edge that stores it in pieces.
fn sliced(more: &'static [(&'static str, &'static str)]) -> (Origin, Edge) {
    let body = version(1);
    let origin = Origin::script().with("/", move |seen| partial(seen, &body, more)).start();
    let edge = with_rules(&origin, RULES);
    (origin, edge)
}

fn ranges(origin: &Origin) -> Vec<String> {
    let range = |seen: &Seen| seen.value("range").unwrap_or("none").to_owned();
    origin.seen().iter().map(range).collect()
}

#[test]
fn a_part_of_a_large_object_pulls_only_its_pieces() {
    let (origin, edge) = sliced(FRESH);
    let body = version(1);
    let mut wire = edge.wire();
    for (range, x_cache, first, last) in [
        ("bytes=40000-40009", "MISS", 40_000, 40_009),
        ("bytes=33000-33001", "HIT", 33_000, 33_001),
        ("bytes=49000-50000", "HIT", 49_000, 50_000),
        ("bytes=99990-", "MISS", 99_990, 99_999),
    ] {
        let part = wire.get("edge.test", "/", &[("Range", range)]);
        part.expect_status(206).expect_cache(x_cache);
        assert_eq!(part.body, &body[first..=last], "{range}");
        let at = format!("bytes {first}-{last}/{LENGTH}");
        assert_eq!(part.values("content-range"), [at]);
        assert_eq!(part.value("content-length"), Some(&*(last - first + 1).to_string()));
    }
    assert_eq!(ranges(&origin), ["bytes=32768-49151", "bytes=49152-65535", "bytes=98304-114687"]);
}

#[test]
fn the_whole_is_put_together_from_its_pieces() {
    let (origin, edge) = sliced(FRESH);
    let body = version(1);
    edge.get_with("/", &[("Range", "bytes=20000-20001")]).expect_status(206).expect_miss();
    let mut wire = edge.wire();
    for x_cache in ["MISS", "HIT"] {
        let whole = wire.get("edge.test", "/", &[]);
        whole.expect_status(200).expect_cache(x_cache);
        assert!(whole.body == body && whole.end == End::Whole);
        assert_eq!(whole.value("content-length"), Some("100000"));
        assert_eq!((whole.value("content-range"), whole.value("etag")), (None, Some("\"1\"")));
        assert_eq!(ranges(&origin).len(), LENGTH.div_ceil(PIECE), "each piece once");
    }
}

#[test]
fn the_end_of_an_object_is_found_by_its_beginning() {
    let (origin, edge) = sliced(FRESH);
    let part = edge.get_with("/", &[("Range", "bytes=-10")]);
    part.expect_status(206);
    assert_eq!(part.body, &version(1)[LENGTH - 10..]);
    assert_eq!(ranges(&origin), ["bytes=0-16383", "bytes=98304-114687"]);
}

#[test]
fn conditions_and_heads_need_one_piece() {
    let (origin, edge) = sliced(FRESH);
    let mut wire = edge.wire();
    let head = wire.request("HEAD", "edge.test", "/", &[], b"");
    head.expect_status(200);
    assert_eq!(head.value("content-length"), Some("100000"));
    wire.get("edge.test", "/", &[("If-None-Match", "\"1\"")]).expect_status(304).expect_hit();
    let beyond = wire.get("edge.test", "/", &[("Range", "bytes=100000-")]);
    beyond.expect_status(416);
    assert_eq!(beyond.value("content-range"), Some("bytes */100000"));
    let other = [("Range", "bytes=0-1"), ("If-Range", "\"2\"")];
    let whole = wire.get("edge.test", "/", &other);
    assert_eq!((whole.status, whole.body.len()), (200, LENGTH));
    let same = [("Range", "bytes=0-1"), ("If-Range", "\"1\"")];
    wire.get("edge.test", "/", &same).expect_status(206).expect_hit();
    assert_eq!(ranges(&origin).len(), LENGTH.div_ceil(PIECE));
}

#[test]
fn several_ranges_are_taken_from_several_pieces() {
    let (origin, edge) = sliced(FRESH);
    let body = version(1);
    let reply = edge.get_with("/", &[("Range", "bytes=70000-70004, 10-14, 16380-16390")]);
    reply.expect_status(206);
    assert!(reply.value("content-type").is_some_and(|t| t.starts_with("multipart/byteranges")));
    assert_eq!(reply.value("content-length"), Some(&*reply.body.len().to_string()));
    for part in [70_000..70_005, 10..15, 16_380..16_391] {
        let at = format!("Content-Range: bytes {}-{}/100000\r\n\r\n", part.start, part.end - 1);
        let expected = [at.as_bytes(), &body[part], b"\r\n--"].concat();
        assert!(reply.body.windows(expected.len()).any(|bytes| bytes == expected));
    }
    assert_eq!(ranges(&origin).len(), 3);
}

#[test]
fn http_2_is_answered_from_pieces_as_well() {
    let (origin, edge) = sliced(FRESH);
    http2::run(async {
        let mut send = http2::plain(edge.address("http")).await;
        let range = [("range", "bytes=16000-60000")];
        let reply = http2::get(&mut send, "http://edge.test/", &range).await.expect("a reply");
        assert_eq!(reply.status, 206);
        assert!(reply.body[..] == version(1)[16_000..=60_000]);
    });
    assert_eq!(ranges(&origin).len(), 4);
}

#[test]
fn an_origin_without_ranges_is_stored_whole() {
    let origin = Origin::always(minute("the whole of it").field("ETag", "\"1\""));
    let edge = with_rules(&origin, RULES);
    let part = [("Range", "bytes=4-8")];
    // It is being sent already, and the client may be given more than it asked for.
    edge.get_with("/", &part).expect_status(200).expect_body("the whole of it");
    edge.get_with("/", &part).expect_status(206).expect_miss().expect_body("whole");
    edge.get_with("/", &part).expect_status(206).expect_hit().expect_body("whole");
    edge.get("/").expect_hit();
    assert_eq!(ranges(&origin), ["bytes=0-16383", "none"]);
}

#[test]
fn pieces_without_a_strong_validator_are_not_put_together() {
    let (origin, edge) = sliced(&[("Cache-Control", "max-age=60"), ("ETag", "W/\"1\"")]);
    let part = edge.get_with("/", &[("Range", "bytes=40000-40009")]);
    part.expect_status(206);
    assert_eq!(part.body, &version(1)[40_000..40_010]);
    assert_eq!(ranges(&origin), ["bytes=32768-49151", "bytes=40000-40009"]);
    let told = part.value("cache-status").unwrap_or_default();
    assert!(told.contains("detail=unsliced"), "{told}");
    // What is asked for whole is stored whole.
    for x_cache in ["MISS", "HIT"] {
        let whole = edge.get("/");
        whole.expect_status(200).expect_cache(x_cache);
        assert!(whole.body == version(1));
    }
    assert_eq!(ranges(&origin).len(), 3);
}

#[test]
fn what_may_not_be_stored_is_passed_on_part_by_part() {
    let (origin, edge) = sliced(&[("Cache-Control", "no-store"), ("ETag", "\"1\"")]);
    for _ in 0..2 {
        let part = edge.get_with("/", &[("Range", "bytes=40000-40009")]);
        part.expect_status(206);
        assert_eq!(part.body, &version(1)[40_000..40_010]);
        assert_eq!(part.value("content-range"), Some("bytes 40000-40009/100000"));
    }
    let asked = ["bytes=32768-49151", "bytes=40000-40009", "bytes=40000-40009"];
    assert_eq!(ranges(&origin), asked);
}

#[test]
fn other_answers_are_what_they_are() {
    let origin = Origin::script()
        .on("/gone", status(410).field("Cache-Control", "max-age=60").body("gone"))
        .on("/short", status(206).field("Content-Range", "bytes 0-9/100").body("0123456789"))
        .on("/empty", status(416).field("Content-Range", "bytes */0"))
        .start();
    let edge = with_rules(&origin, RULES);
    edge.get("/missing").expect_status(404);
    edge.get("/gone").expect_status(410).expect_miss().expect_body("gone");
    edge.get("/gone").expect_status(410).expect_hit().expect_body("gone");
    // Not what was asked for: nobody can know what it is.
    edge.get("/short").expect_status(502);
    // Without bytes there is no first piece: it is asked for whole.
    edge.get("/empty").expect_status(416);
    assert_eq!(origin.seen_at("/empty").last().and_then(|seen| seen.value("range")), None);
}

/// An origin whose object is of the version that `at` says for each request in turn.
fn changing(at: impl Fn(usize) -> u8 + Send + Sync + 'static) -> Origin {
    let asked = Arc::new(AtomicUsize::new(0));
    Origin::script()
        .with("/", move |seen| {
            let number = at(asked.fetch_add(1, Ordering::SeqCst));
            let more = [("Cache-Control", "max-age=60"), ("ETag", &*format!("\"{number}\""))];
            partial(seen, &version(number), &more)
        })
        .start()
}

#[test]
fn an_object_that_changed_is_begun_anew() {
    let origin = changing(|asked| if asked < 2 { 1 } else { 2 });
    let edge = with_rules(&origin, RULES);
    let part = edge.get_with("/", &[("Range", "bytes=0-20000")]);
    assert!(part.body == version(1)[..=20_000]);
    // Two fresh pieces of the old version are stored; the third shows that it is no more.
    let whole = edge.get("/");
    assert_eq!((whole.status, whole.value("etag"), whole.end), (200, Some("\"2\""), End::Whole));
    assert!(whole.body == version(2));
    let part = edge.get_with("/", &[("Range", "bytes=0-9")]);
    assert!(part.expect_hit().body == version(2)[..10]);
}

#[test]
fn an_object_that_changes_on_the_way_is_cut() {
    let origin = changing(|asked| if asked < 3 { 1 } else { 2 });
    let edge = with_rules(&origin, RULES);
    let whole = edge.get("/");
    assert_eq!((whole.status, whole.value("etag"), whole.end), (200, Some("\"1\""), End::Cut));
    assert!(whole.body.len() < LENGTH && version(1).starts_with(&whole.body));
    let whole = edge.get("/");
    assert_eq!((whole.status, whole.end), (200, End::Whole));
    assert!(whole.body == version(2));
}

#[test]
fn an_origin_that_fails_on_the_way_cuts_the_answer() {
    let body = version(1);
    let asked = AtomicUsize::new(0);
    let origin = Origin::script()
        .with("/", move |seen| match asked.fetch_add(1, Ordering::SeqCst) {
            3 => status(503),
            _ => partial(seen, &body, FRESH),
        })
        .start();
    let edge = with_rules(&origin, RULES);
    let whole = edge.get("/");
    assert_eq!((whole.status, whole.end), (200, End::Cut));
    assert!(version(1).starts_with(&whole.body));
}

#[test]
fn what_is_changed_loses_all_its_pieces() {
    let body = version(1);
    let origin = Origin::script()
        .with("/", move |seen| match seen.method() {
            "POST" => status(204),
            _ => partial(seen, &body, FRESH),
        })
        .start();
    let edge = with_rules(&origin, RULES);
    edge.get("/").expect_status(200);
    let asked = origin.seen().len();
    edge.wire().request("POST", "edge.test", "/", &[], b"").expect_status(204);
    edge.get_with("/", &[("Range", "bytes=40000-40009")]).expect_miss();
    edge.get_with("/", &[("Range", "bytes=0-9")]).expect_miss();
    assert_eq!(origin.seen().len(), asked + 3);
}

#[test]
fn only_if_cached_is_answered_when_all_pieces_are_there() {
    let (origin, edge) = sliced(FRESH);
    let only = ("Cache-Control", "only-if-cached");
    edge.get_with("/", &[only]).expect_status(504);
    edge.get_with("/", &[("Range", "bytes=0-9")]).expect_status(206);
    edge.get_with("/", &[("Range", "bytes=0-9"), only]).expect_status(206).expect_hit();
    edge.get_with("/", &[only]).expect_status(504);
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn a_stale_piece_is_confirmed_by_itself() {
    let body = version(1);
    let origin = Origin::script()
        .with("/", move |seen| match seen.value("if-none-match") {
            Some("\"1\"") => {
                status(304).field("ETag", "\"1\"").field("Cache-Control", "max-age=60")
            }
            _ => partial(
                seen,
                &body,
                &[("Cache-Control", "max-age=60"), ("Age", "60"), ("ETag", "\"1\"")],
            ),
        })
        .start();
    let edge = with_rules(&origin, RULES);
    let part = [("Range", "bytes=0-9")];
    edge.get_with("/", &part).expect_status(206).expect_miss();
    let confirmed = edge.get_with("/", &part);
    confirmed.expect_status(206).expect_cache("REVALIDATED");
    assert!(confirmed.body == version(1)[..10]);
    edge.get_with("/", &part).expect_hit();
    assert_eq!(ranges(&origin), ["bytes=0-16383", "bytes=0-16383"]);
}

#[test]
fn pieces_for_one_client_alone_follow_those_of_the_same_version_that_are_everybodys() {
    const GUESSED: &[(&str, &str)] =
        &[("Last-Modified", "Sat, 01 Jan 2000 00:00:00 GMT"), ("ETag", "\"1\"")];
    let body = version(1);
    let origin = {
        let body = body.clone();
        Origin::script().with("/", move |seen| partial(seen, &body, GUESSED)).start()
    };
    let edge = with_rules(&origin, RULES);
    edge.get_with("/", &[("Range", "bytes=0-9")]).expect_status(206).expect_miss();
    // What is guessed to be fresh is not stored for who has a cookie.
    let whole = edge.get_with("/", &[("Cookie", "a=b")]);
    whole.expect_status(200).expect_hit();
    assert!(whole.end == End::Whole && whole.body == body, "{} bytes", whole.body.len());
}

/// An origin with an object of two pieces, each answer of which has to be confirmed before it is used again. Half
/// of the piece that begins at `held` comes when the gate is open.
fn hesitant(body: &[u8], held: usize, gate: &Gate) -> Origin {
    let (body, gate) = (body[..2 * PIECE].to_vec(), gate.clone());
    let fields = "ETag: \"1\"\r\nCache-Control: max-age=0\r\nConnection: close\r\n";
    let piece = move |seen: Seen, mut stream: TcpStream| {
        if seen.value("if-none-match").is_some() {
            let head = format!("HTTP/1.1 304 Not Modified\r\n{fields}\r\n");
            return stream.write_all(head.as_bytes()).expect("edgeproxy reads");
        }
        let first = match seen.value("range") {
            Some("bytes=0-16383") => 0,
            Some("bytes=16384-32767") => PIECE,
            other => panic!("nobody wants {other:?}"),
        };
        let (last, length) = (first + PIECE - 1, body.len());
        let head = format!(
            "HTTP/1.1 206 Partial Content\r\n{fields}Content-Length: {PIECE}\r\n\
             Content-Range: bytes {first}-{last}/{length}\r\n\r\n"
        );
        let (half, rest) = body[first..=last].split_at(PIECE / 2);
        stream.write_all(head.as_bytes()).expect("edgeproxy reads");
        stream.write_all(half).expect("edgeproxy reads");
        if first == held {
            gate.pass();
        }
        stream.write_all(rest).expect("edgeproxy reads");
    };
    Origin::script().take_over("/", piece).on("/other", ok("x")).start()
}

#[test]
fn who_may_not_read_along_waits_for_a_piece_and_asks_for_himself() {
    let body = version(1);
    for held in [0, PIECE] {
        let gate = Gate::default();
        let origin = hesitant(&body, held, &gate);
        let edge = with_rules(&origin, RULES);
        if held > 0 {
            edge.get_with("/", &[("Range", "bytes=0-9")]).expect_status(206);
        }
        let mut clients = [edge.wire(), edge.wire()];
        for client in &mut clients {
            client.send("GET / HTTP/1.1\r\nHost: edge.test\r\n\r\n");
            // The first one has begun to fetch what is held, and the other has come to it.
            origin.wait_for(if held > 0 { 3 } else { 1 });
        }
        for n in 0..5 {
            edge.get(&format!("/other?{n}")).expect_status(200);
        }
        gate.open();
        for client in &mut clients {
            let whole = client.reply();
            whole.expect_status(200);
            assert!(whole.end == End::Whole, "{held}: {:?}", whole.fields);
            assert!(whole.body == body[..2 * PIECE], "{held}: {} bytes", whole.body.len());
        }
        assert!(!ranges_at(&origin, "/").contains(&"none".to_owned()), "nobody pulls the whole");
    }
}

fn ranges_at(origin: &Origin, path: &str) -> Vec<String> {
    let range = |seen: &Seen| seen.value("range").unwrap_or("none").to_owned();
    origin.seen_at(path).iter().map(range).collect()
}

#[test]
fn what_one_request_keeps_to_itself_leaves_the_pieces_to_others() {
    for (name, value) in [("Authorization", "anybody"), ("Cache-Control", "no-store")] {
        let (origin, edge) = sliced(FRESH);
        let range = ("Range", "bytes=0-9");
        for _ in 0..2 {
            edge.get_with("/", &[range, (name, value)]).expect_status(206);
        }
        let before = ranges(&origin).len();
        for x_cache in ["MISS", "HIT"] {
            edge.get_with("/", &[range]).expect_status(206).expect_cache(x_cache);
        }
        assert_eq!(ranges(&origin)[before..], ["bytes=0-16383"], "{name}");
        // What others brought is good for it as well.
        edge.get_with("/", &[range, (name, value)]).expect_status(206).expect_hit();
    }
}

#[test]
fn what_begins_with_a_stored_piece_comes_whole_however_seldom_the_others_were_asked_for() {
    let body = version(1);
    let origin = Origin::script().with("/", move |seen| partial(seen, &body, FRESH)).start();
    let edge = with_rules(&origin, "{slice: 16KiB, min_uses: 3}");
    let range = [("Range", "bytes=0-9")];
    for detail in ["detail=min-uses", "detail=min-uses", "stored"] {
        let part = edge.get_with("/", &range);
        part.expect_status(206).expect_miss();
        let said = part.value("cache-status").unwrap();
        assert!(said.ends_with(detail), "{said}");
    }
    edge.get_with("/", &range).expect_hit();
    let mut wire = edge.wire();
    for _ in 0..2 {
        let whole = wire.get("edge.test", "/", &[]);
        whole.expect_status(200).expect_hit();
        assert!(whole.body == version(1) && whole.end == End::Whole);
    }
    let expected: Vec<_> = ["bytes=0-9", "bytes=0-9"].into_iter().map(str::to_owned).collect();
    assert_eq!(ranges(&origin)[..2], expected);
    assert_eq!(ranges(&origin).len(), 2 + LENGTH.div_ceil(PIECE), "each piece once");
}

#[test]
fn an_object_that_is_another_with_every_answer_is_obtained_whole() {
    let count = AtomicUsize::new(0);
    let origin = Origin::script()
        .with("/", move |seen| {
            let tag = format!("\"{}\"", count.fetch_add(1, Ordering::SeqCst));
            partial(seen, &version(1), &[("Cache-Control", "max-age=60"), ("ETag", &tag)])
        })
        .start();
    let edge = with_rules(&origin, RULES);
    let mut wire = edge.wire();
    for x_cache in ["MISS", "HIT"] {
        let whole = wire.get("edge.test", "/", &[]);
        whole.expect_status(200).expect_cache(x_cache);
        assert!(whole.body == version(1) && whole.end == End::Whole);
    }
    assert_eq!(ranges(&origin).last().map(String::as_str), Some("none"), "at last as it is");
    edge.get_with("/", &[("Range", "bytes=0-9")]).expect_status(206).expect_hit();
}

#[test]
fn a_piece_of_an_object_of_unknown_length_is_no_mistake() {
    let origin = Origin::script()
        .with("/", |seen| {
            let body = version(1);
            match seen.value("range") {
                Some("bytes=0-16383") => status(206)
                    .body(&body[..PIECE])
                    .field("Content-Range", "bytes 0-16383/*")
                    .field("Cache-Control", "max-age=60")
                    .field("ETag", "\"1\""),
                Some(_) => partial(seen, &body, FRESH),
                None => ok(body).field("Cache-Control", "max-age=60"),
            }
        })
        .start();
    let edge = with_rules(&origin, RULES);
    let part = edge.get_with("/", &[("Range", "bytes=0-9")]);
    part.expect_status(206).expect_cache("BYPASS");
    assert_eq!(part.body, &version(1)[..10]);
    let whole = edge.get("/");
    whole.expect_status(200).expect_miss();
    assert!(whole.body == version(1));
    assert_eq!(ranges(&origin), ["bytes=0-16383", "bytes=0-9", "none"]);
}
