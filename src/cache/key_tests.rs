use http::HeaderName;
use http::HeaderValue;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::cache::Policy;

const PLAIN: Target<'static> =
    Target { space: "", scheme: "https", host: "example.com", port: None, path: "/a", query: None };

fn rules(query: QueryRule) -> KeyRules {
    KeyRules { query, ..Policy::default().key }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in lines {
        map.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    map
}

fn key(target: &Target<'_>) -> Key {
    Key::new(target, &HeaderMap::new(), &rules(QueryRule::All))
}

fn with_query(query: &str, rules: &KeyRules) -> Key {
    Key::new(&Target { query: Some(query), ..PLAIN }, &HeaderMap::new(), rules)
}

fn with_headers(lines: &[(&'static str, &str)], rules: &KeyRules) -> Key {
    Key::new(&PLAIN, &headers(lines), rules)
}

#[test]
fn every_part_of_the_uri_counts() {
    let all = [
        key(&PLAIN),
        key(&Target { space: "b", ..PLAIN }),
        key(&Target { scheme: "http", ..PLAIN }),
        key(&Target { host: "example.org", ..PLAIN }),
        key(&Target { port: Some(8443), ..PLAIN }),
        key(&Target { path: "/b", ..PLAIN }),
        key(&Target { path: "/A", ..PLAIN }),
        key(&Target { query: Some(""), ..PLAIN }),
        key(&Target { query: Some("x"), ..PLAIN }),
        key(&Target { path: "/a?x", ..PLAIN }),
    ];
    for (at, one) in all.iter().enumerate() {
        assert!(all[at + 1..].iter().all(|other| other != one), "{at}");
    }
}

#[test]
fn the_host_is_case_insensitive() {
    assert_eq!(key(&PLAIN), key(&Target { host: "EXAMPLE.com", ..PLAIN }));
}

#[test]
fn a_default_port_is_no_port() {
    assert_eq!(key(&PLAIN), key(&Target { port: Some(443), ..PLAIN }));
    assert_ne!(key(&PLAIN), key(&Target { port: Some(80), ..PLAIN }));
    let plain = Target { scheme: "http", ..PLAIN };
    assert_eq!(key(&plain), key(&Target { port: Some(80), ..plain }));
}

#[test]
fn a_port_is_not_part_of_the_host() {
    assert_ne!(
        key(&Target { host: "a:8443", ..PLAIN }),
        key(&Target { host: "a", port: Some(8443), ..PLAIN })
    );
}

#[test]
fn the_whole_query_counts_as_written() {
    let all = rules(QueryRule::All);
    assert_ne!(with_query("a=1&b=2", &all), with_query("b=2&a=1", &all));
    assert_ne!(with_query("a=%61", &all), with_query("a=a", &all));
}

#[test]
fn an_ignored_query_does_not_count() {
    let none = rules(QueryRule::None);
    assert_eq!(with_query("a=1", &none), with_query("b=2", &none));
    assert_eq!(with_query("a=1", &none), Key::new(&PLAIN, &HeaderMap::new(), &none));
}

#[test]
fn only_the_listed_parameters_count() {
    let only = rules(QueryRule::Only(names(&["a"])));
    assert_eq!(with_query("a=1&z=9", &only), with_query("y=8&a=1", &only));
    assert_ne!(with_query("a=1", &only), with_query("a=2", &only));
    assert_ne!(with_query("a=1", &only), with_query("a=1&a=2", &only));
    assert_ne!(with_query("a", &only), with_query("a=", &only));
}

#[test]
fn all_but_the_listed_parameters_count() {
    let except = rules(QueryRule::Except(names(&["utm_source"])));
    assert_eq!(with_query("a=1&utm_source=x", &except), with_query("a=1", &except));
    assert_ne!(with_query("a=1", &except), with_query("a=2", &except));
}

#[test]
fn parameter_names_are_compared_decoded() {
    let only = rules(QueryRule::Only(names(&["a b"])));
    for query in ["a%20b=1", "a+b=1", "%61+b=1"] {
        assert_ne!(with_query(query, &only), with_query("", &only), "{query}");
    }
    let except = rules(QueryRule::Except(names(&["utm_source"])));
    assert_eq!(with_query("utm%5fsource=x", &except), with_query("utm%5Fsource=y", &except));
}

#[test]
fn a_parameter_with_a_semicolon_always_counts() {
    let only = rules(QueryRule::Only(names(&["a"])));
    assert_ne!(with_query("x=1;a=1", &only), with_query("x=1;a=2", &only));
    let except = rules(QueryRule::Except(names(&["x"])));
    assert_ne!(with_query("x=1;a=1", &except), with_query("x=1;a=2", &except));
}

#[test]
fn a_broken_escape_stands_for_itself() {
    assert_eq!(&*decode("%4"), b"%4");
    assert_eq!(&*decode("%zz+%41"), b"%zz A");
}

#[test]
fn sorting_is_by_name_and_keeps_the_order_within_one() {
    let sorted = KeyRules { sort_query: true, ..rules(QueryRule::All) };
    assert_eq!(with_query("b=2&a=1", &sorted), with_query("a=1&b=2", &sorted));
    assert_ne!(with_query("a=1&a=2", &sorted), with_query("a=2&a=1", &sorted));
}

#[test]
fn fields_that_are_not_chosen_do_not_count() {
    let all = rules(QueryRule::All);
    assert_eq!(with_headers(&[("x-a", "1"), ("cookie", "a=1")], &all), key(&PLAIN));
}

#[test]
fn all_lines_of_a_chosen_field_count() {
    let chosen =
        KeyRules { headers: vec![HeaderName::from_static("x-tenant")], ..rules(QueryRule::All) };
    let one = with_headers(&[("x-tenant", "a")], &chosen);
    assert_ne!(one, with_headers(&[("x-tenant", "a"), ("x-tenant", "admin")], &chosen));
    assert_ne!(one, with_headers(&[], &chosen));
    assert_ne!(with_headers(&[("x-tenant", "")], &chosen), with_headers(&[], &chosen));
}

#[test]
fn all_values_of_a_chosen_cookie_count() {
    let chosen = KeyRules { cookies: names(&["lang"]), ..rules(QueryRule::All) };
    let english = with_headers(&[("cookie", "sid=1; lang=en")], &chosen);
    assert_eq!(english, with_headers(&[("cookie", "lang=en;x"), ("cookie", "sid=2")], &chosen));
    assert_eq!(english, with_headers(&[("cookie", "sid=1"), ("cookie", "lang=en")], &chosen));
    assert_ne!(english, with_headers(&[("cookie", "lang=de")], &chosen));
    assert_ne!(english, with_headers(&[("cookie", "lang=en; lang=de")], &chosen));
    assert_ne!(english, with_headers(&[("cookie", "xlang=en")], &chosen));
    assert_ne!(english, with_headers(&[], &chosen));
}

#[test]
fn a_header_and_a_cookie_of_the_same_name_and_value_differ() {
    let header = KeyRules { headers: vec![HeaderName::from_static("a")], ..rules(QueryRule::All) };
    let cookie = KeyRules { cookies: names(&["a"]), ..rules(QueryRule::All) };
    assert_ne!(with_headers(&[("a", "1")], &header), with_headers(&[("cookie", "a=1")], &cookie));
}

#[test]
fn a_resource_is_the_front_of_all_its_keys_and_of_no_other() {
    let tenants = KeyRules {
        headers: vec![HeaderName::from_static("x-tenant")],
        cookies: names(&["c"]),
        ..rules(QueryRule::Except(names(&["u"])))
    };
    let target = Target { query: Some("q=1&u=2"), ..PLAIN };
    let resource = Resource::new(&target, &tenants);
    assert_eq!(resource.parts, super::Parts::Many);
    for lines in [&[][..], &[("x-tenant", "a")], &[("x-tenant", "b"), ("cookie", "c=1")]] {
        let key = Key::new(&Target { query: Some("u=3&q=1"), ..PLAIN }, &headers(lines), &tenants);
        assert_eq!(&key.as_bytes()[..key.resource_len()], &resource.bytes[..]);
        let other = Key::new(&PLAIN, &headers(lines), &tenants);
        assert_ne!(&other.as_bytes()[..other.resource_len()], &resource.bytes[..]);
    }
}

#[test]
fn a_resource_whose_url_is_all_that_counts_is_its_own_key() {
    let resource = Resource::new(&PLAIN, &rules(QueryRule::All));
    assert_eq!((resource.parts, &resource.bytes[..]), (super::Parts::One, key(&PLAIN).as_bytes()));
    assert_eq!(key(&PLAIN).resource_len(), resource.bytes.len());
}

#[test]
fn what_is_no_key_says_nothing() {
    let whole = key(&Target { port: Some(8443), ..PLAIN }).into_bytes();
    // The query is the last byte here.
    for end in 0..whole.len() - 1 {
        assert_eq!(Asked::of(&whole[..end]), None, "{end}");
    }
    assert_eq!(Asked::of(&[0xff; 40]), None);
}

/// The parts of a request.
#[derive(Debug, Clone, PartialEq)]
struct Parts {
    texts: Vec<String>,
    port: Option<u16>,
    query: Option<String>,
    field: Vec<String>,
    cookie: Vec<String>,
}

prop_compose! {
    /// Short and from few letters, so that collisions would be found.
    fn parts()(
        texts in vec("[ab/&=;]{0,3}", 4),
        port in proptest::option::of(1_u16..4),
        query in proptest::option::of("[ab&=;]{0,4}"),
        field in vec("[ab]{0,2}", 0..3),
        cookie in vec("[ab]{0,2}", 0..3),
    ) -> Parts {
        Parts { texts, port, query, field, cookie }
    }
}

fn key_of(parts: &Parts) -> Key {
    let chosen = KeyRules {
        headers: vec![HeaderName::from_static("x-a")],
        cookies: names(&["c"]),
        ..rules(QueryRule::All)
    };
    let mut map = HeaderMap::new();
    for value in &parts.field {
        map.append("x-a", HeaderValue::from_str(value).unwrap());
    }
    for value in &parts.cookie {
        map.append("cookie", HeaderValue::from_str(&format!("c={value}")).unwrap());
    }
    let target = Target {
        space: &parts.texts[0],
        scheme: &parts.texts[1],
        host: &parts.texts[2],
        port: parts.port,
        path: &parts.texts[3],
        query: parts.query.as_deref(),
    };
    Key::new(&target, &map, &chosen)
}

/// Two requests, of which the second often differs from the first by one move of one character: what
/// a missing boundary would not see.
fn neighbours() -> impl Strategy<Value = (Parts, Parts)> {
    (parts(), parts(), 0..5_usize).prop_map(|(one, other, way)| {
        let mut next = one.clone();
        match way {
            0 => {
                let moved = next.texts[0].pop();
                next.texts[1].extend(moved);
            }
            1 => {
                let moved = next.texts[2].pop();
                next.texts[3].extend(moved);
            }
            2 => next.cookie.extend(next.field.pop()),
            3 => {
                let moved = next.texts[3].pop();
                next.query = moved.map(String::from);
            }
            _ => next = other,
        }
        (one, next)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn keys_are_equal_only_when_all_parts_are((one, other) in neighbours()) {
        prop_assert_eq!(key_of(&one) == key_of(&other), one == other);
    }

    #[test]
    fn a_key_says_what_was_asked_for(parts in parts()) {
        let key = key_of(&parts);
        let asked = Asked::of(key.as_bytes()).expect("a key");
        let [space, scheme, host, path] = &parts.texts[..] else { unreachable!("four") };
        prop_assert_eq!(asked, Asked {
            space: space.as_bytes(),
            scheme: scheme.as_bytes(),
            host: host.as_bytes(),
            port: parts.port,
            path: path.as_bytes(),
        });
    }

    #[test]
    fn no_two_lists_share_an_encoding(
        a in vec(vec(any::<u8>(), 0..4), 0..6),
        b in vec(vec(any::<u8>(), 0..4), 0..6),
    ) {
        let encode = |list: &Vec<Vec<u8>>| {
            let mut bytes = Vec::new();
            list.iter().for_each(|part| push(&mut bytes, part));
            bytes
        };
        prop_assert_eq!(encode(&a) == encode(&b), a == b);
    }
}

#[test]
fn aliases_share_one_key() {
    let rules = KeyRules { host: Some("www.example.com".to_owned()), ..rules(QueryRule::All) };
    let of = |target: &Target<'_>| Key::new(target, &HeaderMap::new(), &rules);
    let www = of(&Target { host: "www.example.com", ..PLAIN });
    assert_eq!(of(&PLAIN), www);
    assert_eq!(www, key(&Target { host: "www.example.com", ..PLAIN }));
    assert_ne!(of(&Target { port: Some(8443), ..PLAIN }), www);
    assert_ne!(of(&Target { scheme: "http", ..PLAIN }), www);
}

#[test]
fn each_piece_has_a_key_of_its_own_and_belongs_to_its_resource() {
    let rules = KeyRules { slice: Some(10), ..rules(QueryRule::All) };
    let whole = Key::new(&PLAIN, &HeaderMap::new(), &rules);
    let resource = Resource::new(&PLAIN, &rules);
    assert_eq!(resource.parts, super::Parts::Many);
    let piece = |index, size| whole.piece(Piece { index, size });
    let all = [whole.clone(), piece(0, 10), piece(1, 10), piece(0, 20), piece(10, 1)];
    for (at, one) in all.iter().enumerate() {
        assert_eq!(one.as_bytes()[..one.resource_len()], resource.bytes);
        assert!(one.as_bytes().len() > resource.bytes.len(), "more than the resource");
        assert!(all[at + 1..].iter().all(|other| other != one), "{at}");
    }
}

#[test]
fn equivalent_urls_share_one_resource_under_a_rule() {
    let said = |value: &'static str| {
        Variance::of(&headers(&[("no-vary-search", value)])).expect("it says something")
    };
    let rule = said("params=(\"utm\"), key-order");
    let all = rules(QueryRule::All);
    let of = |query, rules: &KeyRules, rule: &Variance, number| {
        let target = Target { query, ..PLAIN };
        Resource::equivalents(&target, rules, (rule, number))
    };
    let one = of(Some("a=1&utm=x&b=2"), &all, &rule, 1);
    assert_eq!(one, of(Some("b=2&a=%31"), &all, &rule, 1));
    assert_ne!(one, of(Some("b=2&a=2"), &all, &rule, 1));
    assert_ne!(one, of(Some("b=2&a=1"), &all, &rule, 2), "a rule that was let go is another one");
    let chosen = rules(QueryRule::Except(names(&["a"])));
    assert_ne!(
        one,
        of(Some("b=2&a=1"), &chosen, &rule, 1),
        "other rules of the route, another key"
    );
    assert_eq!(of(Some("b=2&a=1"), &chosen, &rule, 1), of(Some("a=9&b=2&utm"), &chosen, &rule, 1));
    assert_eq!(of(None, &all, &rule, 1), of(Some("utm=1"), &all, &rule, 1));
    assert_ne!(Resource::new(&PLAIN, &all), of(None, &all, &rule, 1));
    let asked = Asked::of(&one.bytes).expect("it begins like any key");
    assert_eq!((asked.host, asked.path), (&b"example.com"[..], &b"/a"[..]));
    assert!(one.bytes.starts_with(&origin(&PLAIN, &all)));
}

#[test]
fn what_other_rules_left_of_a_query_is_not_taken_for_the_same() {
    let all = [
        rules(QueryRule::All),
        rules(QueryRule::None),
        rules(QueryRule::Only(names(&["b"]))),
        rules(QueryRule::Only(names(&["b", "d"]))),
        rules(QueryRule::Except(names(&["c"]))),
        rules(QueryRule::Except(names(&["c", "a"]))),
        KeyRules { sort_query: true, ..rules(QueryRule::All) },
        KeyRules { sort_query: true, ..rules(QueryRule::Except(names(&["c"]))) },
    ];
    let keys: Vec<_> = all.iter().map(|rules| with_query("b=1", rules)).collect();
    for (at, key) in keys.iter().enumerate() {
        assert!(keys[at + 1..].iter().all(|other| other != key), "{at}");
    }
    assert_ne!(key(&PLAIN), Key::new(&PLAIN, &HeaderMap::new(), &all[1]), "it may be of any query");
}

#[test]
fn a_key_tells_where_its_resource_ends() {
    let accept = headers(&[("accept", "text/html"), ("x-a", "1")]);
    for query in [
        QueryRule::All,
        QueryRule::None,
        QueryRule::Only(names(&["a", "b"])),
        QueryRule::Except(names(&["a"])),
    ] {
        for (sort_query, fields) in [(false, vec![]), (true, vec![]), (true, vec!["accept", "x-a"])]
        {
            let fields = fields.into_iter().map(HeaderName::from_static).collect();
            let rules = KeyRules { sort_query, headers: fields, ..rules(query.clone()) };
            for target in [
                PLAIN,
                Target { query: Some(""), ..PLAIN },
                Target { query: Some("b=2&a=1&a=0"), port: Some(1), space: "s\nr", ..PLAIN },
            ] {
                let key = Key::new(&target, &accept, &rules);
                assert_eq!(extent(key.as_bytes()), Extent::Bytes(key.resource_len()));
                for cut in 0..key.resource_len() {
                    assert_eq!(extent(&key.as_bytes()[..cut]), Extent::Unknown, "{cut}");
                }
                let mut fields = HeaderMap::new();
                let value = HeaderValue::from_static("params=(\"x\")");
                fields.insert(crate::cache::search::NO_VARY_SEARCH, value);
                let variance = Variance::of(&fields).unwrap();
                let numbered = Resource::equivalents(&target, &rules, (&variance, 7));
                assert_eq!(extent(&numbered.bytes), Extent::Numbered);
            }
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_have_an_extent_or_none(bytes in vec(any::<u8>(), 0..200)) {
        if let Extent::Bytes(end) = extent(&bytes) {
            prop_assert!(end <= bytes.len());
        }
    }
}
