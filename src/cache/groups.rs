//! Groups: responses of one origin that an answer to an unsafe method makes invalid together
//! (RFC 9875).
//!
//! A response says in `Cache-Groups` which groups it belongs to, and the answer to an unsafe method
//! says in `Cache-Group-Invalidation` which of them changed. Both are lists of strings. A group is of
//! its origin alone (scheme, host and port): no origin reaches another's responses by it.

use http::HeaderMap;
use http::HeaderName;
use http::Method;

use crate::cache::dictionary;
use crate::cache::dictionary::Value;
use crate::cache::forget::is_safe;

/// What a response belongs to.
pub const GROUPS: HeaderName = HeaderName::from_static("cache-groups");
/// What an answer invalidates.
pub const INVALIDATION: HeaderName = HeaderName::from_static("cache-group-invalidation");

/// How many groups of one field are told apart (the RFC asks for 32 at least). A response with more
/// is taken to belong to every group of its origin; of an invalidation, the first so many count.
pub const MOST: usize = 256;

/// The groups that a response belongs to, in any order. None where the field is no list of strings.
pub fn groups(response: &HeaderMap) -> Vec<String> {
    strings(response, &GROUPS)
}

/// Whether a response belongs to a group, or to more than are told apart.
pub fn belongs(response: &HeaderMap, group: &str) -> bool {
    let groups = groups(response);
    groups.len() > MOST || groups.iter().any(|own| own == group)
}

/// The groups that the answer to a request with this method invalidates, each once. A safe method
/// invalidates nothing, whatever its answer says (RFC 9875 §3).
pub fn invalidated(method: &Method, response: &HeaderMap) -> Vec<String> {
    if is_safe(method) || !response.contains_key(&INVALIDATION) {
        return Vec::new();
    }
    let mut groups = strings(response, &INVALIDATION);
    groups.sort_unstable();
    groups.dedup();
    groups.truncate(MOST);
    groups
}

/// A field that is a list of strings; parameters say nothing. One error voids all of it
/// (RFC 9651 §4.2).
fn strings(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let mut text = Vec::new();
    for line in headers.get_all(name) {
        if !text.is_empty() {
            text.extend_from_slice(b", ");
        }
        text.extend_from_slice(line.as_bytes());
    }
    let members = dictionary::parse_list(&text).unwrap_or_default();
    let strings: Option<Vec<String>> = members
        .into_iter()
        .map(|member| match member {
            Value::Text(text) => Some(text),
            Value::Boolean(_)
            | Value::Integer(_)
            | Value::Token(_)
            | Value::List(_)
            | Value::Other => None,
        })
        .collect();
    strings.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn headers(name: &HeaderName, lines: &[&str]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for line in lines {
            map.append(name, HeaderValue::from_str(line).expect("a value"));
        }
        map
    }

    #[test]
    fn groups_are_a_list_of_strings_on_any_number_of_lines() {
        for (lines, expected) in [
            (&["\"a\""][..], &["a"][..]),
            (&["\"a\", \"b, c\""], &["a", "b, c"]),
            (&["\"a\"", " \"b\" "], &["a", "b"]),
            (&["\"a\";x=1;y, \"A\""], &["a", "A"]),
            (&["\"say \\\"a\\\"\""], &["say \"a\""]),
            (&["\"\""], &[""]),
            (&[""], &[]),
            (&[], &[]),
        ] {
            assert_eq!(groups(&headers(&GROUPS, lines)), expected, "{lines:?}");
        }
    }

    #[test]
    fn what_is_no_list_of_strings_says_nothing_at_all() {
        for line in ["a", "\"a\", b", "\"a\",", "\"a\" \"b\"", "\"a", "1", "(\"a\")", "\"a\"; =1"] {
            assert!(groups(&headers(&GROUPS, &[line])).is_empty(), "{line}");
            let invalidating = headers(&INVALIDATION, &[line]);
            assert!(invalidated(&Method::POST, &invalidating).is_empty(), "{line}");
        }
    }

    #[test]
    fn names_are_compared_character_by_character() {
        let response = headers(&GROUPS, &["\"scores\", \"Australia\""]);
        assert!(belongs(&response, "scores") && belongs(&response, "Australia"));
        assert!(!belongs(&response, "australia") && !belongs(&response, "score"));
    }

    #[test]
    fn only_unsafe_methods_invalidate() {
        let answer = headers(&INVALIDATION, &["\"b\", \"a\", \"b\""]);
        for method in ["POST", "PUT", "DELETE", "PATCH", "QUX"] {
            let method = Method::from_bytes(method.as_bytes()).expect("a method");
            assert_eq!(invalidated(&method, &answer), ["a", "b"], "{method}");
        }
        for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
            assert!(invalidated(&method, &answer).is_empty(), "{method}");
        }
    }

    #[test]
    fn who_has_too_many_groups_belongs_to_all() {
        let list =
            |count: usize| (0..count).map(|n| format!("\"g{n}\"")).collect::<Vec<_>>().join(", ");
        assert!(!belongs(&headers(&GROUPS, &[&list(MOST)]), "other"));
        assert!(belongs(&headers(&GROUPS, &[&list(MOST + 1)]), "other"));
        let answer = headers(&INVALIDATION, &[&list(MOST + 1)]);
        assert_eq!(invalidated(&Method::POST, &answer).len(), MOST);
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(names in prop::collection::vec("[ -~]{0,12}", 0..8)) {
            let quote = |name: &String| {
                format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
            };
            let line = names.iter().map(quote).collect::<Vec<_>>().join(" , ");
            prop_assert_eq!(groups(&headers(&GROUPS, &[&line])), names);
        }

        #[test]
        fn any_bytes_are_some_list(line in "[\"a-c,;= \\\\(]{0,24}") {
            let _ = groups(&headers(&GROUPS, &[&line]));
        }
    }
}
