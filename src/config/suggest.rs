//! "Did you mean": the nearest of the words that were possible.

/// The closest of `known` to `written`, when it is close enough to be a slip of the fingers, or one of
/// them begins with the other.
#[must_use]
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A third of the letters may be wrong, but in short words one at least: "aip" for "api".
    let allowed = (written.chars().count() / 3).max(1);
    let lower = written.to_ascii_lowercase().replace('-', "_");
    known
        .into_iter()
        .map(|candidate| {
            let plain = candidate.to_ascii_lowercase().replace('-', "_");
            let is_part = lower.len().min(plain.len()) >= 3
                && (plain.starts_with(&lower) || lower.starts_with(&plain));
            let distance = strsim::osa_distance(&lower, &plain);
            (if is_part { distance.min(allowed) } else { distance }, candidate)
        })
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// More names than this are not listed when one of them is near.
const SHORT: usize = 8;

/// A help sentence for a name that is not among `known`; `what` heads the list of all of them.
#[must_use]
pub fn help(written: &str, known: &[&str], what: &str) -> String {
    let mut text = String::new();
    if let Some(near) = nearest(written, known.iter().copied()) {
        text.push_str("did you mean \"");
        text.push_str(near);
        text.push_str("\"?");
        if known.len() > SHORT {
            return text;
        }
        text.push(' ');
    }
    text.push_str(what);
    text.push_str(": ");
    if known.is_empty() {
        text.push_str("none");
    } else {
        text.push_str(&known.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swapped_letters_are_one_mistake() {
        assert_eq!(nearest("aip", ["static", "api"]), Some("api"));
    }

    #[test]
    fn a_different_word_is_not_suggested() {
        assert_eq!(nearest("users", ["static", "api"]), None);
    }

    #[test]
    fn hyphens_case_and_underscores_do_not_count() {
        assert_eq!(nearest("Max-Body", ["max_body"]), Some("max_body"));
    }

    #[test]
    fn a_third_of_the_letters_may_be_wrong_and_no_more() {
        assert_eq!(nearest("abcdef", ["abcdxy"]), Some("abcdxy"));
        assert_eq!(nearest("abcdef", ["abcxyz"]), None);
    }

    #[test]
    fn a_word_that_goes_on_is_the_same_word() {
        assert_eq!(nearest("warning", ["off", "error", "warn"]), Some("warn"));
        assert_eq!(nearest("max", ["max_body"]), Some("max_body"));
        assert_eq!(nearest("x", ["xylophone"]), None);
    }

    #[test]
    fn a_long_list_is_not_repeated_beside_a_suggestion() {
        let known = ["aa", "bb", "cc", "dd", "ee", "ff", "gg", "hh", "iii"];
        assert_eq!(help("iij", &known, "keys here"), "did you mean \"iii\"?");
        assert!(help("zzzz", &known, "keys here").starts_with("keys here: aa, bb"));
    }

    #[test]
    fn help_names_the_nearest_and_then_all() {
        assert_eq!(
            help("aip", &["api", "static"], "defined upstreams"),
            "did you mean \"api\"? defined upstreams: api, static"
        );
        assert_eq!(help("x", &[], "defined upstreams"), "defined upstreams: none");
    }
}
