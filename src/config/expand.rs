//! `${VAR}` and `${VAR:-default}` in values.
//!
//! Expansion happens after parsing, value by value: a variable can never change the structure of the
//! document, and every position stays true. Keys are left alone.

use std::collections::HashSet;
use std::ffi::OsString;

use crate::config::diagnostic::Diagnostics;
use crate::config::diagnostic::Severity;
use crate::config::document::Document;
use crate::config::document::NodeId;
use crate::config::document::Place;
use crate::config::document::Value;

/// Where variables come from.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// What can be wrong with a `${…}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Wrong {
    /// The variable is not set and has no default.
    Unset(String),
    /// The variable is set to what is no text.
    NotUtf8(String),
    /// There is no `}`.
    Open,
    /// What stands within is no name.
    Name(String),
}

/// Expands every value of a document. What cannot be expanded is reported and cut.
pub fn expand_all(document: &mut Document, environment: Environment<'_>, found: &mut Diagnostics) {
    // An alias repeats a value; its problem is told once.
    let mut told = HashSet::new();
    for id in document.scalars() {
        let Value::Scalar { text, .. } = document.value(id) else { continue };
        if !text.contains("${") {
            continue;
        }
        match expand(text, environment) {
            Ok(expanded) if is_one(text) => document.replace_whole(id, expanded),
            Ok(expanded) => document.replace(id, expanded),
            Err(wrongs) => {
                for wrong in &wrongs {
                    let place = pinpoint(document, id, wrong);
                    if told.insert((place.line, place.column, wrong.clone())) {
                        report(document, id, place, wrong, found);
                    }
                }
                document.cut(id);
            }
        }
    }
}

/// Whether this is one variable, perhaps with a default, and nothing else.
fn is_one(text: &str) -> bool {
    let inner = text.strip_prefix("${").and_then(|text| text.strip_suffix('}'));
    inner.is_some_and(|inner| !inner.contains('}'))
}

/// Expands one text. `$${` stands for `${`.
///
/// # Errors
/// All of its variables that are missing, and of its expressions that are malformed.
pub fn expand(text: &str, environment: Environment<'_>) -> Result<String, Vec<Wrong>> {
    let mut wrongs = Vec::new();
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$${") {
            out.push_str("${");
            rest = after;
        } else if let Some(after) = rest.strip_prefix("${") {
            let Some(end) = after.find('}') else {
                wrongs.push(Wrong::Open);
                break;
            };
            match variable(&after[..end], environment) {
                Ok(value) => out.push_str(&value),
                Err(wrong) => wrongs.push(wrong),
            }
            rest = &after[end + 1..];
        } else {
            out.push('$');
            rest = &rest[1..];
        }
    }
    if !wrongs.is_empty() {
        return Err(wrongs);
    }
    out.push_str(rest);
    Ok(out)
}

/// Writes `${` so that it is read back as itself.
#[must_use]
pub fn escape(text: &str) -> String {
    text.replace("${", "$${")
}

/// The value of `NAME` or `NAME:-default`.
fn variable(expression: &str, environment: Environment<'_>) -> Result<String, Wrong> {
    let (name, default) = match expression.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (expression, None),
    };
    let mut bytes = name.bytes();
    let starts = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    if !starts || !bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(Wrong::Name(expression.to_owned()));
    }
    let value = match environment(name).map(OsString::into_string) {
        Some(Ok(value)) => Some(value),
        // A default is for what is not set: this one is, to something else.
        Some(Err(_)) => return Err(Wrong::NotUtf8(name.to_owned())),
        None => None,
    };
    // As in a shell: with `:-` an empty variable counts as none.
    match (value, default) {
        (Some(value), Some(default)) if value.is_empty() => Ok(default.to_owned()),
        (Some(value), _) => Ok(value),
        (None, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(Wrong::Unset(name.to_owned())),
    }
}

/// The expression's own place, when it stands on the line where its value begins.
fn pinpoint(document: &Document, id: NodeId, wrong: &Wrong) -> Place {
    let place = document.place(id);
    let written = match wrong {
        Wrong::Unset(name) => format!("${{{name}}}"),
        // With a default or without one.
        Wrong::NotUtf8(name) => format!("${{{name}"),
        Wrong::Name(expression) => format!("${{{expression}}}"),
        Wrong::Open => "${".to_owned(),
    };
    let line: String =
        document.line(place.line).unwrap_or_default().chars().skip(place.column).collect();
    let found = match wrong {
        // The last one is the one that nothing ends.
        Wrong::Open => line.rfind(&written),
        Wrong::Unset(_) | Wrong::NotUtf8(_) | Wrong::Name(_) => line.find(&written),
    };
    match found {
        Some(at) => {
            let column = place.column + line[..at].chars().count();
            Place { column, width: written.chars().count(), ..place }
        }
        None => place,
    }
}

fn report(document: &Document, id: NodeId, place: Place, wrong: &Wrong, found: &mut Diagnostics) {
    let (message, help) = match wrong {
        Wrong::Unset(name) => (
            format!("the environment variable {name} is not set"),
            format!("set it, or give a default: ${{{name}:-default}}"),
        ),
        Wrong::NotUtf8(name) => (
            format!("the environment variable {name} is not text in UTF-8"),
            "set it to text in UTF-8".to_owned(),
        ),
        Wrong::Open => (
            "`${` without `}`".to_owned(),
            "write ${NAME} or ${NAME:-default}; a literal ${ is written $${".to_owned(),
        ),
        Wrong::Name(expression) => (
            format!("\"{expression}\" is not the name of an environment variable"),
            "write ${NAME} or ${NAME:-default}; a literal ${ is written $${".to_owned(),
        ),
    };
    let mut diagnostic = document.diagnostic(Severity::Error, place, message);
    diagnostic.path = document.path(id).to_string();
    diagnostic.help(help);
    found.push(diagnostic);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::ffi::OsStringExt;

    fn read(text: &str) -> Result<String, Vec<Wrong>> {
        expand(text, &|name| match name {
            "HOST" => Some("example.org".into()),
            "EMPTY" => Some(OsString::new()),
            "BYTES" => Some(OsString::from_vec(b"caf\xe9".to_vec())),
            "NESTED" => Some("${HOST}".into()),
            _ => None,
        })
    }

    #[test]
    fn a_variable_is_replaced_by_its_value() {
        assert_eq!(read("https://${HOST}/${HOST}"), Ok("https://example.org/example.org".into()));
    }

    #[test]
    fn a_default_stands_in_for_a_variable_that_is_unset_or_empty() {
        assert_eq!(read("${NONE:-a:b}"), Ok("a:b".into()));
        assert_eq!(read("${EMPTY:-x}"), Ok("x".into()));
        assert_eq!(read("${HOST:-x}"), Ok("example.org".into()));
        assert_eq!(read("${NONE:-}"), Ok(String::new()));
    }

    #[test]
    fn an_empty_variable_without_a_default_is_empty() {
        assert_eq!(read("[${EMPTY}]"), Ok("[]".into()));
    }

    #[test]
    fn an_unset_variable_without_a_default_is_an_error() {
        assert_eq!(read("${NONE}"), Err(vec![Wrong::Unset("NONE".into())]));
    }

    #[test]
    fn a_variable_that_is_no_text_is_an_error_of_its_own_with_a_default_too() {
        let wrong = || Err(vec![Wrong::NotUtf8("BYTES".into())]);
        assert_eq!(read("${BYTES}"), wrong());
        assert_eq!(read("${BYTES:-x}"), wrong());
        let (mut document, mut found) =
            Document::parse("a: \"x ${BYTES:-y}\"\n", "t.yaml").expect("this is YAML");
        let bytes = OsString::from_vec(vec![0xff]);
        expand_all(&mut document, &|_| Some(bytes.clone()), &mut found);
        let problem = &found.all()[0];
        assert_eq!(problem.message, "the environment variable BYTES is not text in UTF-8");
        assert_eq!((problem.line, problem.column), (Some(1), Some(7)));
    }

    #[test]
    fn two_dollar_signs_keep_the_braces() {
        assert_eq!(read("$${HOST}"), Ok("${HOST}".into()));
        assert_eq!(read("$$${HOST}"), Ok("$${HOST}".into()));
    }

    #[test]
    fn a_lone_dollar_sign_is_text() {
        assert_eq!(read("$1 and $HOST and $"), Ok("$1 and $HOST and $".into()));
    }

    #[test]
    fn malformed_expressions_are_errors() {
        assert_eq!(read("${HOST"), Err(vec![Wrong::Open]));
        assert_eq!(read("${1A}"), Err(vec![Wrong::Name("1A".into())]));
        assert_eq!(read("${}"), Err(vec![Wrong::Name(String::new())]));
    }

    #[test]
    fn all_that_is_wrong_with_one_value_is_told() {
        let (mut document, mut found) =
            Document::parse("a: \"${NONE} ${HOST} ${1A} ${NONE} ${\"\n", "t.yaml").expect("YAML");
        expand_all(&mut document, &|name| (name == "HOST").then(|| "h".into()), &mut found);
        let columns: Vec<_> = found.all().iter().map(|problem| problem.column).collect();
        assert_eq!(columns, [Some(5), Some(21), Some(35)]);
    }

    #[test]
    fn a_value_is_not_expanded_again() {
        assert_eq!(read("${NESTED}"), Ok("${HOST}".into()));
    }

    #[test]
    fn the_caret_points_at_the_expression_itself() {
        let (mut document, mut found) =
            Document::parse("a: \"x ${HOST} ${NONE}\"\n", "t.yaml").expect("this is YAML");
        expand_all(&mut document, &|name| (name == "HOST").then(|| "h".into()), &mut found);
        let problem = &found.all()[0];
        assert_eq!((problem.line, problem.column), (Some(1), Some(15)));
        assert_eq!(problem.path, "a");
        assert!(document.is_broken(&crate::config::path::Path::root().key("a")));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn what_is_escaped_expands_to_itself(text in "[${}A-C:-]{0,20}") {
            prop_assert_eq!(read(&escape(&text)), Ok(text));
        }
    }
}
