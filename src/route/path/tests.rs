use proptest::prelude::*;

use super::PathPattern;

fn captured(pattern: &PathPattern, path: &str) -> Vec<(String, String)> {
    let captures = pattern.capture(path);
    captures.iter().map(|(name, text)| (name.to_owned(), text.to_owned())).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|&(name, text)| (name.to_owned(), text.to_owned())).collect()
}

#[test]
fn a_prefix_ends_at_a_segment() {
    let prefix = PathPattern::prefix("/api").expect("valid");
    assert!(prefix.matches("/api") && prefix.matches("/api/") && prefix.matches("/api/x"));
    assert!(!prefix.matches("/apix") && !prefix.matches("/ap") && !prefix.matches("/"));
}

#[test]
fn a_prefix_with_a_slash_at_its_end_does_not_match_without_it() {
    let prefix = PathPattern::prefix("/api/").expect("valid");
    assert!(prefix.matches("/api/") && prefix.matches("/api/x"));
    assert!(!prefix.matches("/api"));
}

#[test]
fn the_prefix_of_a_slash_matches_every_path() {
    let prefix = PathPattern::prefix("/").expect("valid");
    assert!(prefix.matches("/") && prefix.matches("/x"));
    assert!(!prefix.matches("*"));
}

#[test]
fn an_exact_path_is_only_itself() {
    let exact = PathPattern::exact("/a").expect("valid");
    assert!(exact.matches("/a"));
    assert!(!exact.matches("/a/") && !exact.matches("/A") && !exact.matches("/ab"));
}

#[test]
fn what_is_written_is_compared_in_the_normal_form() {
    let exact = PathPattern::exact("/caf\u{e9} %7euser/%c3%a9").expect("valid");
    assert!(exact.matches("/caf%C3%A9%20~user/%C3%A9"));
}

#[test]
fn an_encoded_slash_stays_data() {
    let exact = PathPattern::exact("/a%2fb").expect("valid");
    assert!(exact.matches("/a%2Fb"));
    assert!(!exact.matches("/a/b"));
}

#[test]
fn a_pattern_captures_segments_and_the_rest() {
    let pattern = PathPattern::pattern("/users/{id}/files/{*rest}").expect("valid");
    assert_eq!(pattern.captures(), ["id", "rest"]);
    let path = "/users/7/files/a/b.txt";
    assert!(pattern.matches(path));
    assert_eq!(captured(&pattern, path), pairs(&[("id", "7"), ("rest", "a/b.txt")]));
}

#[test]
fn the_rest_may_be_empty_but_its_slash_may_not_be_missing() {
    let pattern = PathPattern::pattern("/files/{*rest}").expect("valid");
    assert_eq!(captured(&pattern, "/files/"), pairs(&[("rest", "")]));
    assert!(!pattern.matches("/files"));
}

#[test]
fn a_captured_segment_is_not_empty() {
    let pattern = PathPattern::pattern("/users/{id}").expect("valid");
    assert!(!pattern.matches("/users/"));
    assert!(!pattern.matches("/users/7/"));
    assert_eq!(captured(&pattern, "/users/7/x"), pairs(&[]));
}

#[test]
fn a_regular_expression_matches_the_whole_path_and_names_its_groups() {
    let regex = PathPattern::regex(r"/(?<year>\d{4})/(.*)(?<tail>\.html)?").expect("valid");
    assert_eq!(regex.captures(), ["year", "tail"]);
    assert_eq!(captured(&regex, "/2024/x"), pairs(&[("year", "2024"), ("tail", "")]));
    assert!(!regex.matches("/a/2024/x"));
}

#[test]
fn paths_without_names_capture_nothing() {
    assert!(PathPattern::any().capture("/a").is_empty());
    assert!(PathPattern::pattern("/a").expect("valid").capture("/a").is_empty());
}

#[test]
fn what_is_wrong_with_a_path_says_what_to_write_instead() {
    for (text, help) in [
        ("api", "write `/api`"),
        ("", "write `/`"),
        ("/a?b=c", "write a condition"),
        ("/a#b", "write `%23`"),
        ("/a%2", "write `%25`"),
        ("/a/*", "write the prefix `/a/`"),
        ("/{id}", "write it as a pattern"),
        ("/a//b", "write one slash"),
        ("/a/../b", "dot segment"),
        ("/a/%2e%2E", "dot segment"),
        ("/a\\b", "`%5C`"),
        ("/a\nb", "control character"),
    ] {
        let error = PathPattern::prefix(text).expect_err(text);
        assert!(error.contains(help), "{text}: {error}");
    }
}

#[test]
fn what_is_wrong_with_a_pattern_says_what_to_write_instead() {
    for (text, help) in [
        ("users/{id}", "write `/users/{id}`"),
        ("/{a}/{a}", "captures `a` twice"),
        ("/{*rest}/x", "nothing can follow"),
        ("/{*}", "write `{*rest}`"),
        ("/{}", "is not a name"),
        ("/{a-b}", "letters, digits and `_`"),
        ("/{1}", "beginning with a letter"),
        ("/{path}", "choose another name"),
        ("/{name}.jpg", "whole segment"),
        ("/{name", "whole segment"),
        ("/a//{b}", "write one slash"),
        ("/../{b}", "dot segment"),
    ] {
        let error = PathPattern::pattern(text).expect_err(text);
        assert!(error.contains(help), "{text}: {error}");
    }
}

#[test]
fn a_group_cannot_take_the_name_of_a_part_of_the_request() {
    let error = PathPattern::regex("/(?<host>.*)").expect_err("reserved");
    assert!(error.contains("choose another name"), "{error}");
}

#[test]
fn a_pattern_has_at_most_64_segments() {
    assert!(PathPattern::pattern(&"/a".repeat(64)).is_ok());
    let error = PathPattern::pattern(&"/a".repeat(65)).expect_err("too long");
    assert!(error.contains("{*rest}"), "{error}");
}

#[test]
fn patterns_are_shown_as_they_are_understood() {
    let shown = |pattern: Result<PathPattern, String>| pattern.expect("valid").to_string();
    assert_eq!(shown(PathPattern::exact("/a b")), "exactly /a%20b");
    assert_eq!(shown(PathPattern::pattern("/{a}/b/{*c}")), "pattern /{a}/b/{*c}");
    assert_eq!(shown(PathPattern::prefix("/a")), "prefix /a");
    assert_eq!(shown(PathPattern::regex("/a|/b")), "regex /a|/b");
    assert_eq!(shown(Ok(PathPattern::any())), "any path");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_text_is_read_or_refused(text in "/?(\\PC|[/{}*%.a]){0,20}", path in "/[/a-c%.]{0,12}") {
        for pattern in [
            PathPattern::exact(&text),
            PathPattern::prefix(&text),
            PathPattern::pattern(&text),
            PathPattern::regex(&text),
        ].into_iter().flatten() {
            prop_assert!(pattern.matches(&path) || pattern.capture(&path).is_empty());
        }
    }

    #[test]
    fn captures_fill_the_pattern_to_the_path(
        one in "[a-z0-9%]{1,6}", rest in "[a-z/]{0,12}",
    ) {
        let pattern = PathPattern::pattern("/a/{one}/{*rest}").expect("valid");
        let captures = pattern.capture(&format!("/a/{one}/{rest}"));
        prop_assert_eq!(captures.get("one"), Some(one.as_str()));
        prop_assert_eq!(captures.get("rest"), Some(rest.as_str()));
    }
}
