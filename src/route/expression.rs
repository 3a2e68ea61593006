//! Regular expressions from the configuration: anchored, bounded, with errors for people.

use regex::Error;
use regex::Regex;
use regex::RegexBuilder;

/// The largest compiled expression, in bytes.
const SIZE_LIMIT: usize = 1 << 20;

/// Compiles an expression that has to match a text as a whole.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub(in crate::route) fn anchored(text: &str) -> Result<Regex, String> {
    // On its own first: `a)|(b` must not become valid by being wrapped, and what the parser says
    // should be about what was written.
    compile(text).map_err(|error| sentence(text, &error))?;
    compile(&format!(r"\A(?:{text})\z")).map_err(|error| match error {
        Error::Syntax(_) => format!(
            "the regular expression `{text}` ends in a comment: remove the comment, or end its line"
        ),
        other => sentence(text, &other),
    })
}

fn compile(text: &str) -> Result<Regex, Error> {
    RegexBuilder::new(text).size_limit(SIZE_LIMIT).build()
}

fn sentence(text: &str, error: &Error) -> String {
    match error {
        Error::CompiledTooBig(_) => format!(
            "the regular expression `{text}` is larger than 1 MiB when compiled: \
             use smaller repetition counts, or `[0-9]` and `[a-z]` instead of `\\d` and `\\w`"
        ),
        other => {
            // The parser draws a picture and ends with a line `error: …`; the line is the sentence.
            let all = other.to_string();
            let last = all.lines().last().unwrap_or_default();
            let reason = last.strip_prefix("error: ").unwrap_or(last);
            format!("`{text}` is not a regular expression: {reason}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_matches_the_whole_text_only() {
        let regex = anchored("/a|/ab").expect("valid");
        assert!(regex.is_match("/a") && regex.is_match("/ab"));
        assert!(!regex.is_match("/abc") && !regex.is_match("x/a"));
    }

    #[test]
    fn multi_line_mode_does_not_loosen_the_anchors() {
        let regex = anchored("(?m)^/a$").expect("valid");
        assert!(!regex.is_match("/b\n/a"));
    }

    #[test]
    fn wrapping_does_not_make_an_unbalanced_expression_valid() {
        let error = anchored("a)|(b").expect_err("unbalanced");
        assert_eq!(error, "`a)|(b` is not a regular expression: unopened group");
    }

    #[test]
    fn an_expression_that_explodes_is_refused_by_its_size() {
        let error = anchored(r"(\w{200}){200}").expect_err("too big");
        assert!(error.contains("larger than 1 MiB"), "{error}");
    }

    #[test]
    fn a_trailing_comment_is_named_as_the_culprit() {
        let error = anchored("(?x)/a # all of a").expect_err("unfinished");
        assert!(error.contains("ends in a comment"), "{error}");
    }
}
