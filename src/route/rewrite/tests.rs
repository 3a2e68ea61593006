use proptest::prelude::*;

use super::DotSegment;
use super::Rewrite;
use crate::message::target::EncodedSlash;
use crate::message::target::Normalisation;
use crate::message::target::Target;
use crate::route::captures::Captures;
use crate::route::path::PathPattern;

fn apply(rewrite: &Rewrite, path: &str) -> String {
    rewrite.apply(path, None, &Captures::default()).expect("no dot segment")
}

fn strip(prefix: &str) -> Rewrite {
    Rewrite { strip_prefix: Some(prefix.to_owned()), ..Rewrite::default() }
}

fn add(prefix: &str) -> Rewrite {
    Rewrite { add_prefix: Some(prefix.to_owned()), ..Rewrite::default() }
}

fn replace(text: &str, replacement: &str) -> Rewrite {
    let regex = Rewrite::replace(text, replacement, &[]).expect("valid");
    Rewrite { regex: Some(regex), ..Rewrite::default() }
}

#[test]
fn nothing_to_change_changes_nothing() {
    assert!(Rewrite::default().keeps_path());
    let path = "/a;v=1/b%2Fc/@x:y'(!)~";
    let same = Rewrite::default().apply(path, Some("a[]=1&b=%zz?"), &Captures::default());
    assert_eq!(same.as_deref(), Ok("/a;v=1/b%2Fc/@x:y'(!)~?a[]=1&b=%zz?"));
}

#[test]
fn a_prefix_is_stripped_at_a_segment_boundary() {
    for prefix in ["/api", "/api/"] {
        assert_eq!(apply(&strip(prefix), "/api/x"), "/x");
        assert_eq!(apply(&strip(prefix), "/api/"), "/");
        assert_eq!(apply(&strip(prefix), "/api"), "/");
        assert_eq!(apply(&strip(prefix), "/apix"), "/apix");
        assert_eq!(apply(&strip(prefix), "/other"), "/other");
    }
}

#[test]
fn a_prefix_is_added_with_one_slash_between() {
    assert_eq!(apply(&add("/v1"), "/x"), "/v1/x");
    assert_eq!(apply(&add("/v1/"), "/x"), "/v1/x");
    assert_eq!(apply(&add("/"), "/x"), "/x");
    assert_eq!(apply(&add("/v1"), "/"), "/v1/");
}

#[test]
fn stripping_comes_before_replacing_before_adding() {
    let rewrite = Rewrite {
        strip_prefix: Some("/a".to_owned()),
        add_prefix: Some("/c".to_owned()),
        ..replace("/b/(.*)", "/x/$1")
    };
    assert_eq!(apply(&rewrite, "/a/b/1"), "/c/x/1");
}

#[test]
fn a_replacement_takes_groups_by_number_and_by_name() {
    let rewrite = replace(r"/(?<year>\d+)/(\w+)", "/$2/${year}x/$1st$$");
    assert_eq!(apply(&rewrite, "/2024/may"), "/may/2024x/2024st$");
}

#[test]
fn an_expression_that_does_not_match_the_whole_path_changes_nothing() {
    assert_eq!(apply(&replace("/a", "/b"), "/a/c"), "/a/c");
}

#[test]
fn an_expression_that_was_not_anchored_still_has_to_match_the_whole_path() {
    let regex = regex::Regex::new("/a").expect("valid");
    let rewrite = Rewrite { regex: Some((regex, "/b".to_owned())), ..Rewrite::default() };
    assert_eq!(apply(&rewrite, "/a/c"), "/a/c");
    assert_eq!(apply(&rewrite, "/a"), "/b");
}

#[test]
fn a_replacement_takes_what_the_route_captured() {
    let pattern = PathPattern::pattern("/users/{id}").expect("valid");
    let regex = Rewrite::replace(".*", "/u/$id", &pattern.captures()).expect("valid");
    let rewrite = Rewrite { regex: Some(regex), ..Rewrite::default() };
    let path = "/users/7";
    assert_eq!(rewrite.apply(path, None, &pattern.capture(path)).as_deref(), Ok("/u/7"));
}

#[test]
fn a_query_in_the_replacement_comes_before_the_requests_query() {
    let rewrite = replace("/p/(.*)", "/index?page=$1");
    let with_query = rewrite.apply("/p/x", Some("a=1"), &Captures::default());
    assert_eq!(with_query.as_deref(), Ok("/index?page=x&a=1"));
    assert_eq!(apply(&rewrite, "/p/x"), "/index?page=x");
}

#[test]
fn an_empty_query_stays() {
    let none = Captures::default();
    assert_eq!(Rewrite::default().apply("/a", Some(""), &none).as_deref(), Ok("/a?"));
    let rewrite = replace("/p/(.*)", "/index?page=$1");
    assert_eq!(rewrite.apply("/p/x", Some(""), &none).as_deref(), Ok("/index?page=x"));
}

#[test]
fn what_a_path_captured_starts_no_other_parameter() {
    let rewrite = replace("/p/(.*)", "/index?page=$1");
    assert_eq!(apply(&rewrite, "/p/x&admin=1"), "/index?page=x%26admin%3D1");
}

#[test]
fn a_dot_segment_made_by_a_rewrite_is_refused() {
    let rewrite = replace("/files(.*)", "/data/$1");
    let refused = rewrite.apply("/files../secret", None, &Captures::default());
    assert_eq!(refused, Err(DotSegment));
    assert_eq!(apply(&rewrite, "/files.../secret"), "/data/.../secret");
    let prefixed = Rewrite { add_prefix: Some("/p".to_owned()), ..Rewrite::default() };
    for path in ["/a/%2e%2E/b", "/.%2e", "/a/."] {
        assert_eq!(prefixed.apply(path, None, &Captures::default()), Err(DotSegment));
    }
}

#[test]
fn two_slashes_at_the_front_become_one() {
    assert_eq!(apply(&replace("/go/(.*)", "/$1"), "/go//evil.example/x"), "/evil.example/x");
    let prefixed = Rewrite { add_prefix: Some("/".to_owned()), ..Rewrite::default() };
    assert_eq!(apply(&prefixed, "//evil.example"), "/evil.example");
}

#[test]
fn replacements_that_name_nothing_say_what_there_is() {
    for (text, replacement, help) in [
        ("/a", "b", "write `/b`"),
        ("/(a)", "/$2", "there are `${1}`"),
        ("/a", "/$1", "there are none"),
        ("/a", "/$", "write `$$`"),
        ("/(?<x>a)", "/$y", "`${1}`, `${x}`, `${id}`"),
        ("/a", "/#x", "write it as `%XX`"),
        ("/(", "/", "is not a regular expression"),
    ] {
        let error = Rewrite::replace(text, replacement, &["id".to_owned()]);
        let error = match help {
            "there are none" | "there are `${1}`" => Rewrite::replace(text, replacement, &[]),
            _ => error,
        };
        let error = error.expect_err(replacement);
        assert!(error.contains(help), "{replacement}: {error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_rewritten_path_is_a_request_target(
        path in "/(\\PC|[/.%\\x00-\\x20]){0,16}",
        query in proptest::option::of("(\\PC|[&=%\\x00-\\x20]){0,12}"),
        strip_prefix in proptest::option::of("/[ab]{0,3}"),
        add_prefix in proptest::option::of("(\\PC|/){0,6}"),
        replacement in "(/|\\$1|\\$\\{2\\}|\\?|\\PC){0,6}",
    ) {
        let regex = regex::Regex::new("(?s)/(.?)(.*)").expect("valid");
        let regex = Some((regex, replacement));
        let rewrite = Rewrite { strip_prefix, regex, add_prefix, host: None };
        if let Ok(target) = rewrite.apply(&path, query.as_deref(), &Captures::default()) {
            prop_assert!(target.starts_with('/') && !target.starts_with("//"), "{target}");
            prop_assert!(target.bytes().all(|byte| byte.is_ascii_graphic()), "{target}");
            prop_assert!(!target.contains('#'), "{target}");
            let path = target.split('?').next().expect("a first piece");
            prop_assert!(!path.split('/').any(|s| s == "." || s == ".."), "{target}");
        }
    }

    /// Whoever asks for none may leave out the way through here.
    #[test]
    fn without_a_rewrite_the_normal_form_stays_as_it_is(
        raw in "/([a-z/.;%\\\\{}\\[\\]^|`\"é_~2eEfF=&-]){0,24}(\\?[ -~é]{0,24})?",
        merge_slashes in any::<bool>(),
        refuse in any::<bool>(),
    ) {
        let encoded_slash = if refuse { EncodedSlash::Refuse } else { EncodedSlash::Keep };
        let how = Normalisation { merge_slashes, encoded_slash };
        if let Ok(target) = Target::normalise(raw.as_bytes(), &how) {
            let nothing = Rewrite::default();
            prop_assert!(nothing.keeps_path());
            let same = nothing.apply(target.path(), target.query(), &Captures::default());
            prop_assert_eq!(same.as_deref(), Ok(target.as_str()));
        }
    }
}
