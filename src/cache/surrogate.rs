//! Surrogate keys: the names that an origin gives its responses, so that they can be purged together.
//!
//! There is no standard, but three fields are in use: `Surrogate-Key` and `xkey`, whose names are
//! separated by white space (in `xkey` by commas too), and `Cache-Tag`, where commas separate. Names
//! are compared byte by byte.

use http::HeaderMap;
use http::HeaderName;

/// The fields that carry surrogate keys.
pub const FIELDS: [HeaderName; 3] = [
    HeaderName::from_static("surrogate-key"),
    HeaderName::from_static("cache-tag"),
    HeaderName::from_static("xkey"),
];

/// How many surrogate keys of a response are told apart; one with more is taken to have every key,
/// so that a purge concerns too much rather than too little.
pub const MOST: usize = 256;

/// The longest surrogate key that can be purged, in bytes.
pub const LONGEST: usize = 1024;

/// The surrogate keys of a response, in no particular order; repeated ones come again.
pub fn keys(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let separated = |name: &HeaderName, separator: fn(&u8) -> bool| {
        let lines = headers.get_all(name).iter();
        lines.flat_map(move |line| line.as_bytes().split(separator)).map(<[u8]>::trim_ascii)
    };
    let [surrogate_key, cache_tag, xkey] = &FIELDS;
    separated(surrogate_key, |byte| matches!(byte, b' ' | b'\t'))
        .chain(separated(cache_tag, |byte| *byte == b','))
        .chain(separated(xkey, |byte| matches!(byte, b' ' | b'\t' | b',')))
        .filter(|key| !key.is_empty())
}

/// Whether a response has this surrogate key, or more than are told apart.
pub fn has(headers: &HeaderMap, wanted: &[u8]) -> bool {
    let mut count = 0;
    for key in keys(headers) {
        count += 1;
        if key == wanted || count > MOST {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            map.append(name, HeaderValue::from_str(value).unwrap());
        }
        map
    }

    fn found(lines: &[(&str, &str)]) -> Vec<String> {
        keys(&headers(lines)).map(|key| String::from_utf8_lossy(key).into_owned()).collect()
    }

    #[test]
    fn each_field_separates_in_its_own_way() {
        assert_eq!(found(&[("surrogate-key", "a  b,c\td")]), ["a", "b,c", "d"]);
        assert_eq!(found(&[("cache-tag", "a, b c ,,d")]), ["a", "b c", "d"]);
        assert_eq!(found(&[("xkey", "a, b c")]), ["a", "b", "c"]);
        assert_eq!(found(&[("x-key", "a")]), [""; 0]);
    }

    #[test]
    fn all_lines_of_all_fields_count() {
        let lines = [("xkey", "x"), ("surrogate-key", "a"), ("cache-tag", "c"), ("xkey", "y")];
        assert_eq!(found(&lines), ["a", "c", "x", "y"]);
    }

    #[test]
    fn keys_are_compared_whole_and_with_their_case() {
        let headers = headers(&[("surrogate-key", "article-12")]);
        assert!(has(&headers, b"article-12"));
        assert!(!has(&headers, b"article-1") && !has(&headers, b"Article-12"));
        assert!(!has(&HeaderMap::new(), b"article-12"));
    }

    #[test]
    fn what_has_too_many_has_every_key() {
        let list = |count: usize| (0..count).map(|n| format!("k{n} ")).collect::<String>();
        assert!(!has(&headers(&[("surrogate-key", &list(MOST))]), b"other"));
        assert!(has(&headers(&[("surrogate-key", &list(MOST + 1))]), b"other"));
    }

    proptest! {
        #[test]
        fn any_values_give_keys_without_white_space_around_them(
            value in "[a-c ,\t]{0,20}",
            field in 0_usize..3,
        ) {
            let headers = headers(&[(FIELDS[field].as_str(), &value)]);
            for key in keys(&headers) {
                prop_assert!(!key.is_empty() && key == key.trim_ascii());
                prop_assert!(has(&headers, key));
            }
        }
    }
}
