use proptest::prelude::*;

use super::*;

const MERGE: Normalisation =
    Normalisation { merge_slashes: true, encoded_slash: EncodedSlash::Keep };
const PLAIN: Normalisation =
    Normalisation { merge_slashes: false, encoded_slash: EncodedSlash::Keep };
const STRICT: Normalisation =
    Normalisation { merge_slashes: true, encoded_slash: EncodedSlash::Refuse };

fn normal(raw: &str) -> Result<String, Refusal> {
    Target::normalise(raw.as_bytes(), &MERGE).map(|target| target.to_string())
}

fn assert_normal(pairs: &[(&str, &str)], how: &Normalisation) {
    for (raw, expected) in pairs {
        let target = Target::normalise(raw.as_bytes(), how);
        assert_eq!(target.as_ref().map(Target::as_str), Ok(*expected), "{raw}");
    }
}

#[test]
fn a_normal_target_stays_as_it_is() {
    for raw in ["/", "/a", "/a/b.html", "/a/", "/~u/x-y_z", "/a;v=1,2:3@4!$&'()*+=", "/a.b/c..d/e."]
    {
        assert_eq!(normal(raw).as_deref(), Ok(raw));
    }
}

#[test]
fn path_and_query_are_parts_of_one_text() {
    let target = Target::normalise(b"/a/b?x=1&y=?/", &MERGE).unwrap();
    assert_eq!((target.path(), target.query()), ("/a/b", Some("x=1&y=?/")));
    assert_eq!(target.as_str(), "/a/b?x=1&y=?/");
    let bare = Target::normalise(b"/a", &MERGE).unwrap();
    assert_eq!((bare.path(), bare.query()), ("/a", None));
    let empty = Target::normalise(b"/a?", &MERGE).unwrap();
    assert_eq!((empty.path(), empty.query()), ("/a", Some("")));
}

#[test]
fn the_asterisk_is_a_path_of_its_own() {
    let asterisk = Target::asterisk();
    assert_eq!((asterisk.path(), asterisk.query(), asterisk.as_str()), ("*", None, "*"));
}

#[test]
fn a_target_begins_with_a_slash() {
    for raw in ["", "a", "*", "?x", "../..", "@host/", "http://a/", "#", " /a"] {
        assert_eq!(normal(raw), Err(Refusal::BadTarget), "{raw}");
    }
}

#[test]
fn escaped_unreserved_characters_are_decoded_and_other_escapes_upper_cased() {
    assert_normal(
        &[
            ("/%41%7e%5f%2D", "/A~_-"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/%20%3f%23%26", "/%20%3F%23%26"),
            ("/%2541", "/%2541"),
            ("/a?%41=%e9&b=%2f%3d", "/a?A=%E9&b=%2F%3D"),
        ],
        &MERGE,
    );
}

#[test]
fn bytes_that_no_uri_may_hold_are_escaped() {
    assert_normal(
        &[
            ("/é", "/%C3%A9"),
            ("/a|b{c}\"<>^`[]", "/a%7Cb%7Bc%7D%22%3C%3E%5E%60%5B%5D"),
            ("/?q=é\"<>", "/?q=%C3%A9%22%3C%3E"),
            ("/?q=[a]|{b}^`\\", "/?q=[a]|{b}^`\\"),
        ],
        &MERGE,
    );
    let target = Target::normalise(b"/\xff", &MERGE);
    assert_eq!(target.as_ref().map(Target::as_str), Ok("/%FF"));
}

#[test]
fn invalid_escapes_and_escaped_controls_in_a_path_are_refused() {
    for raw in ["/%zz", "/%", "/%4", "/%4g", "/a%?x", "/%00", "/%0a", "/%0D", "/%1f", "/%7f"] {
        assert_eq!(normal(raw), Err(Refusal::BadTarget), "{raw}");
    }
}

#[test]
fn escapes_in_a_query_are_data() {
    assert_normal(
        &[
            ("/?t=a%0d%0Ab", "/?t=a%0D%0Ab"),
            ("/?t=100%", "/?t=100%25"),
            ("/?t=%zz", "/?t=%25zz"),
            ("/?t=%%36%31", "/?t=%2561"),
            ("/?a=../..//%2e%2e", "/?a=../..//.."),
        ],
        &MERGE,
    );
    assert_eq!(normal("/?t=%00"), Err(Refusal::BadTarget));
}

#[test]
fn raw_controls_spaces_fragments_and_backslashes_are_refused() {
    for raw in ["/a\0", "/a\tb", "/a\r\nb", "/\x7f", "/?\n", "\n"] {
        assert_eq!(normal(raw), Err(Refusal::ControlByte), "{raw:?}");
    }
    for raw in ["/a b", "/?a b", "/#", "/?#", "/a\\b", "/..\\a"] {
        assert_eq!(normal(raw), Err(Refusal::BadTarget), "{raw:?}");
    }
}

#[test]
fn dot_segments_are_removed_however_they_are_written() {
    assert_normal(
        &[
            ("/.", "/"),
            ("/./", "/"),
            ("/a/.", "/a/"),
            ("/a/./b", "/a/b"),
            ("/a/..", "/"),
            ("/a/../", "/"),
            ("/a/b/..", "/a/"),
            ("/a/b/../c", "/a/c"),
            ("/a/b/../../c", "/c"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/a/%2e/b", "/a/b"),
            ("/.a/..b/c../...", "/.a/..b/c../..."),
        ],
        &MERGE,
    );
}

#[test]
fn climbing_above_the_root_is_refused() {
    for raw in
        ["/..", "/../", "/../a", "/a/../..", "/a/../../b", "/%2e%2e/a", "/./..", "//..", "/.//.."]
    {
        assert_eq!(normal(raw), Err(Refusal::BadTarget), "{raw}");
    }
}

#[test]
fn segments_that_climb_for_some_origins_are_refused() {
    for raw in ["/a/..;/b", "/a/..;x=1/b", "/a/..%2fb", "/a/x%2f..%2fb", "/a/b%5c..", "/a/..%5Cb"] {
        assert_eq!(normal(raw), Err(Refusal::BadTarget), "{raw}");
    }
    for raw in ["/a/..b;x", "/a/x..%2Fb", "/a/x%2F..b", "/a/.;x"] {
        assert_eq!(normal(raw).as_deref(), Ok(raw));
    }
}

#[test]
fn slashes_are_merged_when_so_configured() {
    assert_normal(
        &[("//", "/"), ("///a", "/a"), ("/a//b", "/a/b"), ("/a//", "/a/"), ("/a//../b", "/b")],
        &MERGE,
    );
    assert_normal(
        &[("/a//b", "/a//b"), ("/a//", "/a//"), ("/a//../b", "/a/b"), ("/a//..", "/a/")],
        &PLAIN,
    );
}

#[test]
fn slashes_at_the_front_are_merged_in_any_case() {
    for how in [&MERGE, &PLAIN] {
        assert_normal(
            &[("//", "/"), ("//a", "/a"), ("///a/b", "/a/b"), ("/.//a", "/a"), ("/a/..//b", "/b")],
            how,
        );
        assert_eq!(Target::normalise(b"//..", how), Err(Refusal::BadTarget));
    }
}

#[test]
fn an_encoded_slash_is_kept_or_refused() {
    assert_normal(&[("/a%2fb", "/a%2Fb"), ("/a%5cb", "/a%5Cb")], &MERGE);
    for raw in ["/a%2fb", "/a%2Fb", "/a%5cb"] {
        assert_eq!(Target::normalise(raw.as_bytes(), &STRICT), Err(Refusal::BadTarget), "{raw}");
    }
    // In a query it is data under either rule.
    assert_normal(&[("/?a%2fb", "/?a%2Fb")], &STRICT);
}

/// Targets made of what matters to the normal form.
fn tricky() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just("/"),
        Just("."),
        Just(".."),
        Just("/.."),
        Just("%2e"),
        Just("%2F"),
        Just("%5c"),
        Just("%25"),
        Just("%"),
        Just("%4"),
        Just("41"),
        Just("a"),
        Just(";"),
        Just("?"),
        Just("é"),
        Just("|"),
    ];
    prop_oneof![
        4 => proptest::collection::vec(piece, 0..12)
            .prop_map(|pieces| format!("/{}", pieces.concat()).into_bytes()),
        1 => proptest::collection::vec(any::<u8>(), 0..24),
    ]
}

fn any_rule() -> impl Strategy<Value = Normalisation> {
    prop::sample::select(&[MERGE, PLAIN, STRICT][..])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn the_normal_form_is_its_own_normal_form(raw in tricky(), how in any_rule()) {
        if let Ok(target) = Target::normalise(&raw, &how) {
            prop_assert_eq!(Target::normalise(target.as_str().as_bytes(), &how), Ok(target));
        }
    }

    #[test]
    fn a_normal_path_has_no_dot_segments_and_no_encoded_way_up(raw in tricky(), how in any_rule()) {
        if let Ok(target) = Target::normalise(&raw, &how) {
            prop_assert!(target.path().starts_with('/'));
            let decoded = target.path().replace("%2F", "/").replace("%5C", "/");
            prop_assert!(decoded.split('/').all(|segment| segment != ".."));
            prop_assert!(target.path().split('/').all(|segment| segment != "."));
            prop_assert!(!(how.merge_slashes && target.path().contains("//")));
            prop_assert!(!target.path().starts_with("//"));
        }
    }

    #[test]
    fn a_normal_target_is_one_for_the_http_crate_too(raw in tricky(), how in any_rule()) {
        if let Ok(target) = Target::normalise(&raw, &how) {
            let parsed: http::uri::PathAndQuery = target.as_str().parse().unwrap();
            prop_assert_eq!(parsed.as_str(), target.as_str());
            prop_assert_eq!((parsed.path(), parsed.query()), (target.path(), target.query()));
        }
    }

    #[test]
    fn segments_survive_as_a_stack_would_have_them(
        segments in proptest::collection::vec(prop::sample::select(&["a", "b", ".", ".."][..]), 1..10)
    ) {
        let mut stack: Option<Vec<&str>> = Some(Vec::new());
        for segment in &segments {
            stack = stack.and_then(|mut stack| match *segment {
                "." => Some(stack),
                ".." => stack.pop().map(|_| stack),
                name => { stack.push(name); Some(stack) }
            });
        }
        let ends_in_folder = matches!(segments.last(), Some(&"." | &".."));
        let expected = stack.map(|stack| match stack.is_empty() {
            true => "/".to_owned(),
            false => format!("/{}{}", stack.join("/"), if ends_in_folder { "/" } else { "" }),
        });
        prop_assert_eq!(normal(&format!("/{}", segments.join("/"))).ok(), expected);
    }
}
