use http::HeaderName;
use http::HeaderValue;
use proptest::prelude::*;

use super::*;

const BASE: Target<'static> = Target {
    space: "",
    scheme: "https",
    host: "example.com",
    port: None,
    path: "/a/b",
    query: Some("q=1"),
};

fn forgotten(method: &str, status: u16, lines: &[(&'static str, &str)]) -> Vec<String> {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let status = StatusCode::from_u16(status).unwrap();
    must_forget(&method, status, &BASE, &headers).iter().map(text).collect()
}

fn text(forgotten: &Forgotten) -> String {
    match &forgotten.query {
        Some(query) => format!("{}?{query}", forgotten.path),
        None => forgotten.path.clone(),
    }
}

fn resolved(reference: &str) -> Option<String> {
    resolve(&BASE, reference).as_ref().map(text)
}

#[test]
fn an_unsafe_or_unknown_method_invalidates_its_uri() {
    for method in ["POST", "PUT", "DELETE", "PATCH", "M-SEARCH", "get", "MKCOL"] {
        assert_eq!(forgotten(method, 200, &[]), ["/a/b?q=1"], "{method}");
    }
}

#[test]
fn a_safe_method_invalidates_nothing() {
    for method in ["GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "REPORT", "SEARCH", "QUERY"] {
        assert!(forgotten(method, 200, &[("location", "/x")]).is_empty(), "{method}");
    }
}

#[test]
fn only_a_non_error_answer_invalidates() {
    for status in [200, 201, 204, 299, 301, 303, 399] {
        assert_eq!(forgotten("POST", status, &[]).len(), 1, "{status}");
    }
    for status in [100, 199, 400, 404, 412, 500, 503, 599] {
        assert!(forgotten("POST", status, &[]).is_empty(), "{status}");
    }
}

#[test]
fn location_and_content_location_are_invalidated() {
    let lines = [("location", "/x"), ("content-location", "y?z")];
    assert_eq!(forgotten("PUT", 201, &lines), ["/a/b?q=1", "/x", "/a/y?z"]);
}

#[test]
fn each_uri_is_named_once() {
    let lines = [("location", "https://example.com/a/b?q=1"), ("content-location", "b?q=1")];
    assert_eq!(forgotten("PUT", 200, &lines), ["/a/b?q=1"]);
}

#[test]
fn another_origin_is_not_touched() {
    for other in [
        "http://example.com/x",
        "https://example.org/x",
        "https://example.com:8443/x",
        "//example.org/x",
        "https://sub.example.com/x",
        "https://user@example.com/x",
        "https://example.com:99999/x",
        "https://example.com.evil.org/x",
        "mailto:x",
        "https:x",
        "https:/x",
    ] {
        assert_eq!(resolved(other), None, "{other}");
    }
}

#[test]
fn the_same_origin_may_be_written_in_several_ways() {
    for same in [
        "https://example.com/x",
        "HTTPS://EXAMPLE.com/x",
        "https://example.com:443/x",
        "https://example.com:/x",
        "//example.com/x",
        "/x",
        " /x ",
        "../x",
        "/x#fragment",
        "/y/../x",
        "/./x",
        "../../../x",
    ] {
        assert_eq!(resolved(same).as_deref(), Some("/x"), "{same}");
    }
}

#[test]
fn an_ipv6_host_is_compared_as_an_address() {
    let base = Target { host: "[::1]", port: Some(8443), ..BASE };
    assert!(resolve(&base, "https://[0:0::1]:8443/x").is_some());
    assert!(resolve(&base, "https://[::1]/x").is_none());
    assert!(resolve(&Target { port: None, ..base }, "https://[::1]/x").is_some());
}

// RFC 3986 §5.4, with the base /a/b?q=1 in place of /b/c/d;p?q.
#[test]
fn references_are_resolved() {
    for (reference, expected) in [
        ("", "/a/b?q=1"),
        ("?y", "/a/b?y"),
        ("#s", "/a/b?q=1"),
        ("g", "/a/g"),
        ("./g", "/a/g"),
        ("g/", "/a/g/"),
        ("g?y", "/a/g?y"),
        (".", "/a/"),
        ("./", "/a/"),
        ("..", "/"),
        ("../", "/"),
        ("../g", "/g"),
        ("/./g/../h/.", "/h/"),
        ("g;x=1/../y", "/a/y"),
        ("g?y/../x", "/a/g?y/../x"),
        ("//example.com", "/"),
        ("//example.com?x", "/?x"),
        ("g:h/i", "none"),
        ("./g:h", "/a/g:h"),
        ("a//b", "/a/a//b"),
        ("..g", "/a/..g"),
    ] {
        assert_eq!(resolved(reference).as_deref().unwrap_or("none"), expected, "{reference}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_resolved_path_has_a_slash_and_no_dot_segments(reference in "[a./:?#@]{0,16}") {
        if let Some(found) = resolve(&BASE, &reference) {
            prop_assert!(found.path.starts_with('/'));
            prop_assert!(found.path.split('/').all(|segment| segment != "." && segment != ".."));
        }
    }

    #[test]
    fn nothing_breaks_on_any_reference(reference in "\\PC{0,30}") {
        let _ = resolve(&BASE, &reference);
    }
}

#[test]
fn an_answer_is_of_its_target_only_where_it_says_so() {
    let is = |locations: &[&str]| {
        let mut headers = HeaderMap::new();
        for location in locations {
            headers.append(
                header::CONTENT_LOCATION,
                HeaderValue::from_str(location).expect("a value"),
            );
        }
        is_of_its_target(&BASE, &headers)
    };
    for own in ["", "/a/b?q=1", "b?q=1", "?q=1", "https://example.com/a/b?q=1", "./../a/b?q=1"] {
        assert!(is(&[own]), "{own}");
    }
    for other in
        ["/a/b", "b", "/a/b?q=2", "https://example.org/a/b?q=1", "http://example.com/a/b?q=1"]
    {
        assert!(!is(&[other]), "{other}");
    }
    assert!(!is(&[]));
    assert!(!is(&["", ""]));
}
