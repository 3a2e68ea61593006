use http::HeaderName;
use http::HeaderValue;
use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { header_bytes: 1_000, header_fields: 10, target_bytes: 100 };

/// One request, changed step by step and admitted at the end.
struct Case {
    method: Method,
    target: Vec<u8>,
    version: Version,
    headers: HeaderMap,
    scheme: Scheme,
    authority: Option<Vec<u8>>,
}

fn get(target: &str) -> Case {
    Case {
        method: Method::GET,
        target: target.as_bytes().to_vec(),
        version: Version::HTTP_11,
        headers: HeaderMap::from_iter([(header::HOST, HeaderValue::from_static("a.example"))]),
        scheme: Scheme::Http,
        authority: None,
    }
}

fn h2(target: &str) -> Case {
    Case {
        version: Version::HTTP_2,
        headers: HeaderMap::new(),
        scheme: Scheme::Https,
        authority: Some(b"a.example".to_vec()),
        ..get(target)
    }
}

impl Case {
    fn method(self, method: Method) -> Self {
        Self { method, ..self }
    }

    fn version(self, version: Version) -> Self {
        Self { version, ..self }
    }

    fn scheme(self, scheme: Scheme) -> Self {
        Self { scheme, ..self }
    }

    fn field(mut self, name: &'static str, value: &str) -> Self {
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        self.headers.append(HeaderName::from_static(name), value);
        self
    }

    fn host(mut self, value: &str) -> Self {
        self.headers.remove(header::HOST);
        self.field("host", value)
    }

    fn without_host(mut self) -> Self {
        self.headers.remove(header::HOST);
        self
    }

    fn authority(self, authority: Option<&str>) -> Self {
        Self { authority: authority.map(|text| text.as_bytes().to_vec()), ..self }
    }

    fn admit(&self) -> Result<Admitted, Refusal> {
        let fallback = Authority::parse(b"192.0.2.7:8080").unwrap();
        let request = Received {
            method: &self.method,
            target: &self.target,
            version: self.version,
            headers: &self.headers,
            scheme: self.scheme,
            authority: self.authority.as_deref(),
            read: None,
            fallback: Some(&fallback),
        };
        admit(&request, &LIMITS, &Normalisation::default())
    }

    /// `authority target` of what is admitted.
    fn place(&self) -> Result<String, Refusal> {
        self.admit().map(|admitted| format!("{} {}", admitted.authority, admitted.target))
    }
}

#[test]
fn an_ordinary_request_is_admitted_in_normal_form() {
    let admitted = get("/a/./%62?q").host("A.Example.:80").admit().unwrap();
    assert_eq!(admitted.authority.to_string(), "a.example");
    assert_eq!(admitted.target.as_str(), "/a/b?q");
    assert_eq!(admitted.scheme, Scheme::Http);
    assert_eq!(
        (admitted.asterisk, admitted.body, admitted.upgrade),
        (false, Body::None, Upgrade::None)
    );
}

#[test]
fn trace_and_connect_are_not_allowed() {
    for method in [Method::TRACE, Method::CONNECT] {
        assert_eq!(get("/").method(method.clone()).admit(), Err(Refusal::MethodNotAllowed));
        assert_eq!(h2("/").method(method).admit(), Err(Refusal::MethodNotAllowed));
    }
    let other = Method::from_bytes(b"purge").unwrap();
    assert!(get("/").method(other).admit().is_ok());
}

#[test]
fn a_method_is_no_longer_than_any_that_is_known_by_far() {
    for form in [get, h2] {
        let of = |length: usize| {
            let method = Method::from_bytes("M".repeat(length).as_bytes()).unwrap();
            form("/a").method(method).admit().map(drop)
        };
        assert_eq!((of(32), of(33)), (Ok(()), Err(Refusal::BadMethod)));
    }
}

#[test]
fn the_scheme_of_a_stream_is_that_of_its_connection() {
    use Scheme::Http;
    use Scheme::Https;
    use Trust::Trusted;
    use Trust::Untrusted;

    for (named, connection, peer, expected) in [
        (None, Http, Untrusted, Ok(())),
        (Some("http"), Http, Untrusted, Ok(())),
        (Some("HTTPS"), Https, Untrusted, Ok(())),
        (Some("https"), Http, Untrusted, Err(Refusal::Misdirected)),
        (Some("http"), Https, Untrusted, Err(Refusal::Misdirected)),
        (Some("https"), Http, Trusted, Ok(())),
        (Some("ftp"), Http, Untrusted, Err(Refusal::BadTarget)),
        (Some("ftp"), Http, Trusted, Err(Refusal::BadTarget)),
    ] {
        let named = named.map(str::as_bytes);
        assert_eq!(check_scheme(named, connection, peer), expected, "{named:?} {connection}");
    }
}

#[test]
fn other_versions_are_not_spoken() {
    for version in [Version::HTTP_09, Version::HTTP_3] {
        assert_eq!(get("/").version(version).admit(), Err(Refusal::UnsupportedVersion));
    }
}

#[test]
fn targets_in_no_known_form_are_refused() {
    for target in
        ["", "foo", "*", "?x", "../..", "a.example:80", "ftp://a.example/", "//", "http:/a", "/.."]
    {
        let expected =
            if target == "//" { Ok("a.example /".into()) } else { Err(Refusal::BadTarget) };
        assert_eq!(get(target).place(), expected, "{target}");
    }
    assert_eq!(get("http://a.example\0/").admit(), Err(Refusal::ControlByte));
}

#[test]
fn an_absolute_target_becomes_origin_form() {
    for (target, place) in [
        ("http://a.example/x?y", "a.example /x?y"),
        ("HTTP://A.EXAMPLE:80/%2e/x", "a.example /x"),
        ("http://a.example", "a.example /"),
        ("http://a.example?y", "a.example /?y"),
    ] {
        assert_eq!(get(target).place().as_deref(), Ok(place), "{target}");
    }
    assert_eq!(get("http://a.example#x").admit(), Err(Refusal::BadTarget));
    assert_eq!(get("http://u@a.example/").admit(), Err(Refusal::BadHost));
    assert_eq!(get("http:///x").admit(), Err(Refusal::BadHost));
}

#[test]
fn an_absolute_target_agrees_with_host() {
    assert_eq!(get("http://b.example/").admit(), Err(Refusal::ConflictingHost));
    assert_eq!(get("http://a.example:81/").admit(), Err(Refusal::ConflictingHost));
    assert!(get("http://a.example/").host("A.example:80").admit().is_ok());
    assert_eq!(get("http://a.example/").without_host().admit(), Err(Refusal::MissingHost));
}

#[test]
fn an_absolute_target_has_the_scheme_of_the_connection() {
    assert_eq!(get("https://a.example/").admit(), Err(Refusal::Misdirected));
    let secure = get("https://a.example:443/").scheme(Scheme::Https);
    assert_eq!(secure.place().as_deref(), Ok("a.example /"));
    assert_eq!(get("http://a.example/").scheme(Scheme::Https).admit(), Err(Refusal::Misdirected));
}

#[test]
fn options_may_ask_about_the_server() {
    for target in ["*", "http://a.example"] {
        let admitted = get(target).method(Method::OPTIONS).admit().unwrap();
        assert!(admitted.asterisk);
        assert_eq!(admitted.target.as_str(), "*");
    }
    assert!(h2("*").method(Method::OPTIONS).admit().unwrap().asterisk);
    let slash = get("http://a.example/").method(Method::OPTIONS).admit().unwrap();
    assert!(!slash.asterisk);
}

#[test]
fn there_is_exactly_one_valid_host() {
    assert_eq!(get("/").without_host().admit(), Err(Refusal::MissingHost));
    assert_eq!(get("/").field("host", "a.example").admit(), Err(Refusal::DuplicateHost));
    for bad in ["", "a b", "a/b", "a@b", "a:", "a:99999", "[::1", "a,b"] {
        assert_eq!(get("/").host(bad).admit(), Err(Refusal::BadHost), "{bad}");
    }
}

#[test]
fn http_1_0_without_host_is_for_the_listener() {
    let old = get("/").version(Version::HTTP_10);
    assert_eq!(old.place().as_deref(), Ok("a.example /"));
    assert_eq!(old.without_host().place().as_deref(), Ok("192.0.2.7:8080 /"));
    let absolute = get("http://b.example/").version(Version::HTTP_10).without_host();
    assert_eq!(absolute.place().as_deref(), Ok("b.example /"));
}

#[test]
fn http_2_names_its_authority_or_host_or_both_alike() {
    assert_eq!(h2("/").place().as_deref(), Ok("a.example /"));
    assert_eq!(h2("/").host("a.example").place().as_deref(), Ok("a.example /"));
    assert_eq!(h2("/").host("A.example:443").place().as_deref(), Ok("a.example /"));
    assert_eq!(h2("/").authority(None).host("b.example").place().as_deref(), Ok("b.example /"));
    assert_eq!(h2("/").authority(None).admit(), Err(Refusal::MissingHost));
    assert_eq!(h2("/").host("b.example").admit(), Err(Refusal::ConflictingHost));
    assert_eq!(h2("/").host("a.example:80").admit(), Err(Refusal::ConflictingHost));
    assert_eq!(h2("/").authority(Some("")).admit(), Err(Refusal::BadHost));
    assert_eq!(h2("/").authority(Some("u@a")).admit(), Err(Refusal::BadHost));
    assert_eq!(h2("/").authority(Some("a b")).host("a b").admit(), Err(Refusal::BadHost));
    assert_eq!(h2("https://a.example/").admit(), Err(Refusal::BadTarget));
}

#[test]
fn http_2_has_no_connection_specific_fields() {
    for (name, value, refusal) in [
        ("connection", "close", Refusal::BadConnection),
        ("keep-alive", "5", Refusal::BadConnection),
        ("proxy-connection", "close", Refusal::BadConnection),
        ("transfer-encoding", "chunked", Refusal::BadTransferEncoding),
        ("upgrade", "websocket", Refusal::BadUpgrade),
        ("te", "gzip", Refusal::BadConnection),
        ("te", "trailers, gzip", Refusal::BadConnection),
    ] {
        assert_eq!(h2("/").field(name, value).admit(), Err(refusal), "{name}");
    }
    assert!(h2("/").field("te", "trailers").admit().is_ok());
}

#[test]
fn http_2_values_are_not_padded() {
    for value in [" x", "x ", "\tx", " "] {
        assert_eq!(h2("/").field("x", value).admit(), Err(Refusal::MalformedField), "{value:?}");
        assert!(get("/").field("x", value).admit().is_ok());
    }
}

#[test]
fn the_number_of_fields_is_limited() {
    let with = |n: usize| {
        let mut case = get("/");
        for _ in 1..n {
            case.headers.append("x", HeaderValue::from_static("1"));
        }
        case.admit().map(|_| ())
    };
    assert_eq!(with(10), Ok(()));
    assert_eq!(with(11), Err(Refusal::TooManyFields));
}

#[test]
fn the_size_of_the_fields_is_limited() {
    // "host: a.example\r\n" is 17 bytes, "x: \r\n" is 5.
    let with = |n: usize| get("/").field("x", &"v".repeat(n - 22)).admit().map(|_| ());
    assert_eq!(with(1_000), Ok(()));
    assert_eq!(with(1_001), Err(Refusal::HeadTooLarge));
    assert_eq!(h2("/").field("x", &"v".repeat(1_000)).admit(), Err(Refusal::HeadTooLarge));
}

#[test]
fn the_length_of_the_target_is_limited() {
    let with = |n: usize| get(&format!("/{}", "a".repeat(n - 1))).admit().map(|_| ());
    assert_eq!(with(100), Ok(()));
    assert_eq!(with(101), Err(Refusal::TargetTooLong));
}

#[test]
fn content_length_is_one_line_of_one_number() {
    let length = |value: &str| get("/").field("content-length", value).admit().map(|a| a.body);
    assert_eq!(length("0"), Ok(Body::Length(0)));
    assert_eq!(length("42"), Ok(Body::Length(42)));
    assert_eq!(length("9223372036854775807"), Ok(Body::Length(i64::MAX as u64)));
    for bad in [
        "",
        "-1",
        "+1",
        "1.0",
        "0x1",
        "5, 5",
        "5,5",
        "5 5",
        "1_0",
        "007",
        "00",
        "a",
        " 5",
        "9223372036854775808",
        "99999999999999999999999",
    ] {
        assert_eq!(length(bad), Err(Refusal::BadContentLength), "{bad}");
    }
    let twice = get("/").field("content-length", "5").field("content-length", "5");
    assert_eq!(twice.admit(), Err(Refusal::BadContentLength));
    assert_eq!(h2("/").field("content-length", "x").admit(), Err(Refusal::BadContentLength));
}

#[test]
fn the_framing_of_http_2_is_the_stream_or_a_length() {
    assert_eq!(h2("/").admit().unwrap().body, Body::Stream);
    let length = h2("/").field("content-length", "7").admit().unwrap();
    assert_eq!(length.body, Body::Length(7));
}

#[test]
fn transfer_encoding_is_chunked_and_nothing_else() {
    let coding = |value: &str| get("/").field("transfer-encoding", value).admit().map(|a| a.body);
    assert_eq!(coding("chunked"), Ok(Body::Chunked));
    assert_eq!(coding("Chunked"), Ok(Body::Chunked));
    for bad in
        ["", "chunked,", ",chunked", "chunked, chunked", "chunked;x=1", "\"chunked\"", "chunked x"]
    {
        assert_eq!(coding(bad), Err(Refusal::BadTransferEncoding), "{bad}");
    }
    for unknown in ["gzip", "identity", "xchunked", "gzip, chunked", "chunked, identity"] {
        assert_eq!(coding(unknown), Err(Refusal::UnknownTransferCoding), "{unknown}");
    }
    let twice =
        get("/").field("transfer-encoding", "chunked").field("transfer-encoding", "chunked");
    assert_eq!(twice.admit(), Err(Refusal::BadTransferEncoding));
}

#[test]
fn a_message_has_one_framing() {
    let both = get("/").field("transfer-encoding", "chunked").field("content-length", "5");
    assert_eq!(both.admit(), Err(Refusal::AmbiguousLength));
    let old = get("/").version(Version::HTTP_10).field("transfer-encoding", "chunked");
    assert_eq!(old.admit(), Err(Refusal::BadTransferEncoding));
}

#[test]
fn fields_with_one_meaning_are_there_once() {
    for (name, refusal) in [
        ("authorization", Refusal::MalformedField),
        ("content-type", Refusal::MalformedField),
        ("range", Refusal::MalformedField),
        ("expect", Refusal::BadExpect),
    ] {
        let value = if name == "expect" { "100-continue" } else { "x" };
        assert!(get("/").field(name, value).admit().is_ok(), "{name}");
        let twice = get("/").field(name, value).field(name, value);
        assert_eq!(twice.admit(), Err(refusal), "{name}");
    }
    assert!(get("/").field("accept", "a").field("accept", "b").admit().is_ok());
    assert!(h2("/").field("cookie", "a").field("cookie", "b").admit().is_ok());
}

#[test]
fn only_100_continue_can_be_expected() {
    assert!(get("/").field("expect", "100-Continue").admit().is_ok());
    for bad in ["", "200-ok", "100-continue, x"] {
        assert_eq!(get("/").field("expect", bad).admit(), Err(Refusal::BadExpect), "{bad}");
    }
}

#[test]
fn connection_does_not_remove_what_matters() {
    assert!(get("/").field("connection", "keep-alive, x-hop").admit().is_ok());
    for bad in ["host", "Authorization", "x-forwarded-for", "a b"] {
        assert_eq!(get("/").field("connection", bad).admit(), Err(Refusal::BadConnection), "{bad}");
    }
}

fn websocket() -> Case {
    get("/").field("connection", "keep-alive, Upgrade").field("upgrade", "WebSocket")
}

#[test]
fn a_websocket_upgrade_is_a_get_without_a_body() {
    assert_eq!(websocket().admit().unwrap().upgrade, Upgrade::WebSocket);
    let empty = websocket().field("content-length", "0");
    assert_eq!(empty.admit().unwrap().upgrade, Upgrade::WebSocket);
    for case in [
        websocket().field("content-length", "1"),
        websocket().field("transfer-encoding", "chunked"),
        websocket().method(Method::POST),
    ] {
        assert_eq!(case.admit(), Err(Refusal::BadUpgrade));
    }
}

#[test]
fn other_upgrades_are_ignored() {
    let h2c = get("/").field("connection", "upgrade, http2-settings").field("upgrade", "h2c");
    assert_eq!(h2c.admit().unwrap().upgrade, Upgrade::None);
    let unnamed = get("/").field("upgrade", "websocket");
    assert_eq!(unnamed.admit().unwrap().upgrade, Upgrade::None);
    let old = websocket().version(Version::HTTP_10);
    assert_eq!(old.admit().unwrap().upgrade, Upgrade::None);
}

#[test]
fn fields_that_stand_in_for_checked_ones_are_dropped() {
    for name in DROPPED {
        assert!(is_dropped(&HeaderName::from_static(name)), "{name}");
        let twin = HeaderName::from_bytes(name.replace('-', "_").as_bytes()).unwrap();
        assert!(is_dropped(&twin), "{twin}");
    }
    for name in
        ["x_forwarded_for", "x-forwarded_for", "content_length", "transfer_encoding", "x_real_ip"]
    {
        assert!(is_dropped(&HeaderName::from_static(name)), "{name}");
    }
    for name in ["host", "x-forwarded-for", "x-custom", "x_custom", "accept"] {
        assert!(!is_dropped(&HeaderName::from_static(name)), "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_request_is_admitted_in_normal_form_or_refused(
        target in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..30),
            "(http://)?[a.:/?#@%*-]{0,20}".prop_map(String::into_bytes),
        ],
        host in proptest::collection::vec(0x20..=0x7e_u8, 0..12),
        name in prop::sample::select(&[
            "connection", "transfer-encoding", "content-length", "te", "upgrade", "expect"][..]),
        value in "[ -~]{0,16}",
        version in prop::sample::select(&[Version::HTTP_10, Version::HTTP_11, Version::HTTP_2][..]),
    ) {
        let mut case = get("/").version(version).host(std::str::from_utf8(&host).unwrap());
        case.target = target;
        case = case.field(name, &value);
        if let Ok(admitted) = case.admit() {
            let again = get(admitted.target.as_str()).method(Method::OPTIONS)
                .host(&admitted.authority.to_string());
            prop_assert_eq!(again.place(),
                Ok(format!("{} {}", admitted.authority, admitted.target)));
        }
    }
}
