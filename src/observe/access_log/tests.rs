use super::*;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::Map;
use serde_json::Value as Json;

fn line(record: &Record<'_>, format: Format, fields: &[Field]) -> String {
    let mut line = Vec::new();
    write_line(record, format, fields, &mut line);
    String::from_utf8(line).unwrap()
}

/// Hands over a masked value piece by piece.
type Masker<'a> = &'a dyn Fn(&mut dyn FnMut(&[u8]));

/// What a reader of the line gets for these bytes.
fn read_back(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|&byte| char::from(byte)));
    }
    text
}

fn example() -> Record<'static> {
    Record {
        time: UNIX_EPOCH + Duration::from_millis(1_767_323_045_678),
        request_id: "0193",
        client: Some([192, 0, 2, 1].into()),
        peer: Some(([192, 0, 2, 9], 4711).into()),
        listener: "https",
        protocol: "HTTP/2",
        tls_version: Some("1.3"),
        method: b"GET",
        scheme: "https",
        host: b"a.test",
        path: b"/x",
        query: Some(b"page=2&token=hunter2"),
        status: Some(200),
        bytes_sent: 1024,
        duration: Duration::from_micros(12_345),
        route: Some("pages"),
        cache: Some("hit"),
        user_agent: Some(b"curl/8.5.0"),
        ..Record::default()
    }
}

#[test]
fn a_json_line_has_the_fields_in_their_order_and_leaves_out_what_is_absent() {
    let fields = [Field::Time, Field::Status, Field::Upstream, Field::Uri, Field::Duration];
    assert_eq!(
        line(&example(), Format::Json, &fields),
        "{\"time\":\"2026-01-02T03:04:05.678Z\",\"status\":200,\
         \"uri\":\"/x?page=2&token=***\",\"duration_ms\":12.345}\n"
    );
}

#[test]
fn a_text_line_has_a_place_for_every_field() {
    let fields =
        [Field::Upstream, Field::Client, Field::Peer, Field::Method, Field::Uri, Field::BytesSent];
    assert_eq!(
        line(&example(), Format::Text, &fields),
        "upstream=- client=192.0.2.1 peer=192.0.2.9:4711 method=GET \
         uri=\"/x?page=2&token=***\" bytes_sent=1024\n"
    );
}

#[test]
fn a_line_without_fields_is_a_line() {
    assert_eq!(line(&example(), Format::Json, &[]), "{}\n");
    assert_eq!(line(&example(), Format::Text, &[]), "\n");
}

#[test]
fn an_absent_first_field_leaves_no_comma() {
    let fields = [Field::Upstream, Field::Status];
    assert_eq!(line(&example(), Format::Json, &fields), "{\"status\":200}\n");
}

#[test]
fn what_a_refused_connection_never_said_is_absent() {
    let record = Record { method: b"", host: b"", ..example() };
    let fields = [Field::Method, Field::Host, Field::Status];
    assert_eq!(line(&record, Format::Json, &fields), "{\"status\":200}\n");
    assert_eq!(line(&record, Format::Text, &fields), "method=- host=- status=200\n");
}

#[test]
fn no_secret_of_query_or_referer_reaches_any_field() {
    let record = Record {
        path: b"/a;jsessionid=hunter2",
        query: Some(b"api_key=hunter2"),
        referer: Some(b"https://me:hunter2@a.test/?sig=hunter2"),
        ..example()
    };
    for format in [Format::Json, Format::Text] {
        let line = line(&record, format, Field::ALL);
        assert!(!line.contains("hunter2"), "{line}");
    }
}

#[test]
fn names_and_fields_are_one_to_one() {
    for &field in Field::ALL {
        assert_eq!(Field::parse(field.name()), Some(field));
        assert!(field.description().ends_with('.'), "{field:?}");
    }
    assert_eq!(Field::names().count(), Field::ALL.len());
    assert_eq!(Field::parse("Status"), None);
    assert_eq!(Field::parse("cookie"), None);
}

#[test]
fn times_are_written_in_utc() {
    for (seconds, expected) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (951_782_399, "2000-02-28T23:59:59.000Z"),
        (951_782_400, "2000-02-29T00:00:00.000Z"),
        (951_868_800, "2000-03-01T00:00:00.000Z"),
        (1_735_689_599, "2024-12-31T23:59:59.000Z"),
        (4_107_542_400, "2100-03-01T00:00:00.000Z"),
    ] {
        let mut text = Vec::new();
        rfc3339(&mut text, UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }
}

#[test]
fn numbers_are_written_whole() {
    for number in [0, 9, 10, 99, 100, u64::MAX] {
        let mut text = Vec::new();
        decimal(&mut text, number);
        assert_eq!(String::from_utf8(text).unwrap(), number.to_string());
    }
}

/// The parts of a random record that the network or the configuration decide.
#[derive(Debug)]
struct Parts {
    bytes: [Vec<u8>; 5],
    texts: [String; 4],
    optional: [Option<Vec<u8>>; 3],
    optional_texts: [Option<String>; 5],
    numbers: (u64, u64, u32),
    statuses: [Option<u16>; 2],
    micros: (u64, Option<u64>, Option<u64>),
    refusal: Option<Refusal>,
    client: Option<[u8; 16]>,
}

impl Parts {
    fn record(&self) -> Record<'_> {
        let [method, host, path, ..] = &self.bytes;
        let [user_agent, referer, traceparent] = &self.optional;
        let [request_id, listener, protocol, scheme] = &self.texts;
        let [sni, route, upstream, cache, reason] = &self.optional_texts;
        Record {
            time: UNIX_EPOCH + Duration::from_millis(self.numbers.0 >> 20),
            request_id,
            client: self.client.map(IpAddr::from),
            peer: self.client.map(|address| SocketAddr::from((address, 1))),
            listener,
            protocol,
            tls_version: None,
            tls_sni: sni.as_deref(),
            tls_client: None,
            method,
            scheme,
            host,
            path,
            query: Some(&self.bytes[3]),
            status: self.statuses[0],
            bytes_sent: self.numbers.0,
            bytes_received: self.numbers.1,
            duration: Duration::from_micros(self.micros.0),
            time_to_first_byte: self.micros.1.map(Duration::from_micros),
            route: route.as_deref(),
            upstream: upstream.as_deref(),
            upstream_address: None,
            upstream_status: self.statuses[1],
            upstream_time: self.micros.2.map(Duration::from_micros),
            attempts: self.numbers.2,
            hedge: None,
            cache: cache.as_deref(),
            cache_reason: reason.as_deref(),
            refusal: self.refusal,
            user_agent: user_agent.as_deref(),
            referer: referer.as_deref(),
            traceparent: traceparent.as_deref(),
        }
    }

    /// The line as a reader should see it.
    fn expected(&self) -> Map<String, Json> {
        let record = self.record();
        let mut map = Map::new();
        let mut text = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                map.insert(name.to_owned(), Json::from(value));
            }
        };
        let filled = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let masked = |with: Masker<'_>| {
            let mut bytes = Vec::new();
            with(&mut |piece| bytes.extend_from_slice(piece));
            read_back(&bytes)
        };
        let path = masked(&|piece| mask::url(record.path, piece));
        let query = masked(&|piece| mask::query(&self.bytes[3], piece));
        text("request_id", filled(record.request_id));
        text("client", record.client.map(|client| client.to_string()));
        text("peer", record.peer.map(|peer| peer.to_string()));
        text("listener", filled(record.listener));
        text("protocol", filled(record.protocol));
        text("tls_sni", record.tls_sni.map(str::to_owned));
        text("tls_client_verified", Some("no".to_owned()));
        text("method", filled(&read_back(record.method)));
        text("scheme", filled(record.scheme));
        text("host", filled(&masked(&|piece| mask::host(record.host, piece))));
        text("uri", Some(format!("{path}?{query}")));
        text("path", Some(path));
        text("query", Some(query));
        text("route", record.route.map(str::to_owned));
        text("upstream", record.upstream.map(str::to_owned));
        text("cache", record.cache.map(str::to_owned));
        text("cache_reason", record.cache_reason.map(str::to_owned));
        text("refusal", record.refusal.map(|refusal| refusal.label().to_owned()));
        text("user_agent", record.user_agent.map(read_back));
        text("referer", record.referer.map(|url| masked(&|piece| mask::url(url, piece))));
        text("traceparent", record.traceparent.map(read_back));
        for (name, number) in [
            ("status", record.status.map(u64::from)),
            ("bytes_sent", Some(record.bytes_sent)),
            ("bytes_received", Some(record.bytes_received)),
            ("upstream_status", record.upstream_status.map(u64::from)),
            ("attempts", Some(record.attempts.into())),
        ] {
            if let Some(number) = number {
                map.insert(name.to_owned(), Json::from(number));
            }
        }
        map
    }
}

/// Bytes in which what is dangerous is frequent.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        vec(any::<u8>(), 0..8),
        select(
            &[
                "\r\n",
                "\"",
                "\\",
                "\u{1b}[0m",
                "\u{85}",
                "\u{2028}",
                "\u{202e}",
                "ü",
                "🦀",
                "?",
                "&",
                "=",
                ";",
                "/",
                "://",
                "@",
                "#",
                "token=",
                "%74oken=",
                " ",
                "-",
                "\0",
                "\u{7f}",
                "\",\"status\":500,\"x\":\"",
            ][..]
        )
        .prop_map(|text| text.as_bytes().to_vec()),
    ];
    vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

fn text() -> impl Strategy<Value = String> {
    bytes().prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn parts() -> impl Strategy<Value = Parts> {
    let micros = 0..1_u64 << 50;
    (
        ([bytes(), bytes(), bytes(), bytes(), bytes()], [text(), text(), text(), text()]),
        [option::of(bytes()), option::of(bytes()), option::of(bytes())],
        [text(), text(), text(), text(), text()]
            .prop_flat_map(|texts| texts.map(|t| option::of(Just(t)))),
        any::<(u64, u64, u32)>(),
        any::<[Option<u16>; 2]>(),
        (micros.clone(), option::of(micros.clone()), option::of(micros)),
        option::of(select(Refusal::ALL)),
        any::<Option<[u8; 16]>>(),
    )
        .prop_map(
            |(
                (bytes, texts),
                optional,
                optional_texts,
                numbers,
                statuses,
                micros,
                refusal,
                client,
            )| {
                Parts {
                    bytes,
                    texts,
                    optional,
                    optional_texts,
                    numbers,
                    statuses,
                    micros,
                    refusal,
                    client,
                }
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_record_is_one_json_line_with_its_values(parts in parts()) {
        let line = line(&parts.record(), Format::Json, Field::ALL);
        prop_assert_eq!(line.matches('\n').count(), 1);
        prop_assert!(!line.trim_end_matches('\n').contains(char::is_control), "{:?}", line);
        let mut seen: Map<String, Json> = serde_json::from_str(&line).unwrap();
        prop_assert!(seen.remove("time").is_some());
        for (name, micros) in [
            ("duration_ms", Some(parts.micros.0)),
            ("ttfb_ms", parts.micros.1),
            ("upstream_ms", parts.micros.2),
        ] {
            let written = seen.remove(name).map(|value| (value.as_f64().unwrap() * 1000.0).round() as u64);
            prop_assert_eq!(written, micros);
        }
        prop_assert_eq!(seen, parts.expected());
    }

    #[test]
    fn any_record_is_one_text_line_without_control_bytes(parts in parts()) {
        let line = line(&parts.record(), Format::Text, Field::ALL);
        let inside = line.strip_suffix('\n').unwrap();
        prop_assert!(!inside.contains(char::is_control), "{:?}", line);
        let expected = parts.expected();
        let mut rest = inside;
        for &field in Field::ALL {
            rest = rest.strip_prefix(field.name()).and_then(|r| r.strip_prefix('=')).unwrap();
            let value;
            if rest.starts_with('"') {
                let mut values = serde_json::Deserializer::from_str(rest).into_iter::<String>();
                value = Some(values.next().unwrap().unwrap());
                rest = &rest[values.byte_offset()..];
            } else {
                let end = rest.find(' ').unwrap_or(rest.len());
                value = Some(rest[..end].to_owned()).filter(|value| value != "-");
                rest = &rest[end..];
            }
            rest = rest.strip_prefix(' ').unwrap_or(rest);
            if matches!(field, Field::Time | Field::Duration | Field::TimeToFirstByte | Field::UpstreamTime) {
                continue;
            }
            let wanted = expected.get(field.name()).map(|value| {
                value.as_str().map_or_else(|| value.to_string(), str::to_owned)
            });
            prop_assert_eq!(value, wanted, "{}", field.name());
        }
        prop_assert_eq!(rest, "");
    }
}
