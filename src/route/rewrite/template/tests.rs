use http::HeaderValue;
use proptest::prelude::*;

use super::BadHost;
use super::Template;
use super::Values;
use crate::route::captures::Captures;
use crate::route::path::PathPattern;

fn names() -> Vec<String> {
    vec!["a".to_owned(), "rest".to_owned()]
}

fn template(text: &str) -> Template {
    Template::parse(text, &names()).expect("a valid template")
}

/// The captures of `/{a}/{*rest}`.
fn captures(path: &str) -> Captures {
    PathPattern::pattern("/{a}/{*rest}").expect("valid").capture(path)
}

fn values<'a>(path: &'a str, query: Option<&'a str>, captures: &'a Captures) -> Values<'a> {
    Values { scheme: "http", host: "www.example.org", path, query, captures }
}

fn rendered(text: &str, path: &str, query: Option<&str>) -> String {
    template(text).render(&values(path, query, &captures(path)))
}

#[test]
fn places_are_filled_from_the_request_and_the_captures() {
    assert_eq!(
        rendered("https://{host}{path}?{query}", "/x/y", Some("a=1&b")),
        "https://www.example.org/x/y?a=1&b"
    );
    assert_eq!(rendered("{scheme}://a.org/{rest}/{a}", "/x/y/z", None), "http://a.org/y/z/x");
    assert_eq!(rendered("/new/{rest}#{a}", "/x/y", None), "/new/y#x");
}

#[test]
fn double_braces_are_braces() {
    let braces = Template::parse("{{{a}}}", &names()).expect("valid");
    assert_eq!(braces.to_string(), "{{{a}}}");
    assert_eq!(rendered("/x?{{{a}}}", "/v/", None), "/x?{v}");
}

#[test]
fn a_question_mark_before_an_empty_query_goes() {
    assert_eq!(rendered("{path}?{query}", "/x/", None), "/x/");
    assert_eq!(rendered("{path}?{query}", "/x/", Some("")), "/x/");
    assert_eq!(rendered("{path}?v=1&{query}", "/x/", None), "/x/?v=1");
    assert_eq!(rendered("{path}?", "/x/", None), "/x/?");
}

#[test]
fn a_slash_before_the_path_is_not_doubled() {
    assert_eq!(rendered("https://a.org/{path}", "/x/", None), "https://a.org/x/");
    assert_eq!(rendered("/old{path}", "/x/", None), "/old/x/");
}

#[test]
fn a_path_cannot_become_a_host() {
    assert_eq!(rendered("{path}", "//evil.example/x", None), "/evil.example/x");
    assert_eq!(rendered("/{rest}", "/x//evil.example", None), "/evil.example");
    assert_eq!(rendered("/{rest}", "/x/\\evil.example", None), "/%5Cevil.example");
}

#[test]
fn a_capture_in_the_host_stays_within_its_label() {
    assert_eq!(
        rendered("https://{a}.example.org/", "/evil.example:80@x/", None),
        "https://evil.example%3A80%40x.example.org/"
    );
}

#[test]
fn a_value_in_the_query_starts_no_other_pair() {
    let location = rendered("/login?next={path}&v={a}", "/a&b=c/", None);
    assert_eq!(location, "/login?next=/a%26b%3Dc/&v=a%26b%3Dc");
}

#[test]
fn control_bytes_and_spaces_are_encoded() {
    assert_eq!(
        rendered("/é {rest}?{query}", "/x/\r\nSet-Cookie: a", Some("\r\nb c")),
        "/%C3%A9%20%0D%0ASet-Cookie:%20a?%0D%0Ab%20c"
    );
}

#[test]
fn unknown_names_are_answered_with_the_known_ones() {
    let error = Template::parse("/{b}", &names()).expect_err("unknown");
    assert_eq!(
        error,
        "in `/{b}` the name `{b}` is unknown; there are `{scheme}`, `{host}`, `{path}`, \
         `{query}`, `{a}`, `{rest}`, and `{{` is a brace"
    );
}

#[test]
fn what_is_wrong_with_a_template_says_what_to_write_instead() {
    for (text, help) in [
        ("", "write at least"),
        ("/{a", "write `{{`"),
        ("/a}", "write `}}`"),
        ("/a\r\nb", "write it as `%XX`"),
        ("/a\\b", "write it as `%XX`"),
        ("{path}{query}", "write `?{query}`"),
        ("https://{rest}", "choose the host"),
        ("https://{a}/x", "choose the host"),
        ("https://example.org{rest}", "choose the host"),
        ("https://{a}.", "choose the host"),
        ("https://{a}.{rest}/", "choose the host"),
        ("//{a}/", "choose the host"),
        ("{scheme}://{a}", "choose the host"),
        ("https:///x", "no host follows"),
        ("https://{path}", "no host follows"),
        ("https://u@a.org/", "cannot have '@'"),
    ] {
        let error = Template::parse(text, &names()).expect_err(text);
        assert!(error.contains(help), "{text}: {error}");
    }
}

#[test]
fn a_location_begins_with_a_url_or_a_path() {
    for text in ["https://a.org", "{scheme}://{host}/", "//a.org", "/x", "{path}", "app://x/"] {
        assert_eq!(template(text).check_location(), Ok(()), "{text}");
    }
    for text in ["x", "{a}", "{rest}/x", "{host}{path}", "?x", "javascript:{a}", "{scheme}:x"] {
        assert!(template(text).check_location().is_err(), "{text}");
    }
}

#[test]
fn a_host_is_a_name_with_or_without_a_port() {
    for text in ["a.org", "{a}.internal:8080", "{host}", "[::1]:80"] {
        assert_eq!(template(text).check_host(), Ok(()), "{text}");
    }
    for text in ["https://a.org", "a.org/x", "{path}", "{scheme}.org", "ä.org", "a b"] {
        assert!(template(text).check_host().is_err(), "{text}");
    }
}

#[test]
fn a_rendered_host_is_in_lower_case_and_has_only_bytes_of_a_host() {
    let host =
        |text: &str, path: &str| template(text).render_host(&values(path, None, &captures(path)));
    assert_eq!(host("{a}.internal:8080", "/Shop/"), Ok("shop.internal:8080".to_owned()));
    assert_eq!(host("x-{host}", "/a/"), Ok("x-www.example.org".to_owned()));
    for path in ["/a%2Fb/", "/a@b/", "/a:1/", "/..", "/a b/", "/[a/", "/./", "/a..b/"] {
        assert_eq!(host("{a}.internal", path), Err(BadHost), "{path}");
    }
    assert_eq!(host("{rest}", "/a/"), Err(BadHost));
}

#[test]
fn a_host_has_at_most_255_bytes() {
    let host = |length: usize| {
        let path = format!("/{}/", "a".repeat(length));
        template("{a}").render_host(&values(&path, None, &captures(&path)))
    };
    assert!(host(255).is_ok());
    assert_eq!(host(256), Err(BadHost));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_text_is_read_or_refused_and_what_is_read_prints_back(
        text in "(\\PC|[{}/:]|\\{a\\}|\\{path\\}|\\{\\{){0,12}",
    ) {
        if let Ok(template) = Template::parse(&text, &names()) {
            prop_assert_eq!(Template::parse(&template.to_string(), &names()), Ok(template));
        }
    }

    #[test]
    fn a_rendered_location_is_a_valid_field_of_visible_bytes(
        text in "(https://a.org|\\{scheme\\}://\\{host\\}|//\\{a\\}.x|\\{path\\}|/)\
                 (/|\\PC|\\?|#|/\\{a\\}|/\\{rest\\}|/\\{path\\}){0,6}",
        path in "/(\\PC|[/.%\\x00-\\x20]){0,8}/(\\PC|[/.%\\x00-\\x20]){0,8}",
        query in proptest::option::of("(\\PC|[&=%\\x00-\\x20]){0,8}"),
    ) {
        let captures = captures(&path);
        let Ok(template) = Template::parse(&text, &names()) else { return Ok(()) };
        let location = template.render(&values(&path, query.as_deref(), &captures));
        prop_assert!(location.bytes().all(|byte| byte.is_ascii_graphic()), "{location}");
        prop_assert!(HeaderValue::from_str(&location).is_ok());
        if text.starts_with('/') && !text.starts_with("//") || text.starts_with('{') && !text.starts_with("{s") {
            prop_assert!(location.starts_with('/') && !location.starts_with("//"), "{location}");
        }
    }

    #[test]
    fn the_host_of_a_redirect_does_not_depend_on_the_path(
        path in "/(\\PC|[/.%@:?#\\x00-\\x20]){0,8}/(\\PC|[/.%@:?#\\x00-\\x20]){0,8}",
    ) {
        for text in ["https://{host}{path}", "https://{host}/{rest}", "https://{host}/{a}"] {
            let location = rendered(text, &path, None);
            let prefix = "https://www.example.org/";
            prop_assert!(location.starts_with(prefix), "{location}");
        }
    }
}
