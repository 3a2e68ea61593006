//! Says in words what did not fit.

use crate::config::diagnostic::Diagnostics;
use crate::config::diagnostic::Severity;
use crate::config::diagnostic::advice;
use crate::config::document::Document;
use crate::config::document::Entry;
use crate::config::document::Value;
use crate::config::read::BOOL;
use crate::config::read::Error;
use crate::config::read::Fault;
use crate::config::read::LIST;
use crate::config::read::SECTION;
use crate::config::read::TEXT;
use crate::config::read::Wrong;
use crate::config::suggest;

/// Adds a diagnostic for an error.
pub(super) fn report(document: &Document, error: &Error, found: &mut Diagnostics) {
    let root = document.root();
    let (path, place, value) = match error.fault {
        Some(Fault::Value(id)) => (document.path(id), document.place(id), id),
        Some(Fault::Key(map, position)) => match document.value(map) {
            Value::Map(entries) => {
                let Entry { key, key_place, value, .. } = &entries[position];
                (document.path(map).key(key.clone()), *key_place, *value)
            }
            _ => (document.path(map), document.place(map), map),
        },
        None => (document.path(root), document.place(root), root),
    };
    let text = error.to_string();
    let (message, advice) = match error.wrong {
        Wrong::Other(_) => advice(&text),
        Wrong::UnknownKey(..) | Wrong::UnknownWord(..) | Wrong::MissingKey(_) | Wrong::Kind(_) => {
            (text.as_str(), None)
        }
    };
    let mut message = message.to_owned();
    if matches!(error.wrong, Wrong::Kind(_)) {
        message.push_str(", found ");
        message.push_str(&describe(document.value(value)));
    }
    let mut diagnostic = document.diagnostic(Severity::Error, place, message);
    diagnostic.path = path.to_string();
    diagnostic.help(match advice {
        Some(advice) => advice.to_owned(),
        None => help(&error.wrong, document.value(value)),
    });
    found.push(diagnostic);
}

/// A value in a few words.
fn describe(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Scalar { text, quoted: false } => format!("\"{}\"", shorten(text)),
        Value::Scalar { text, quoted: true } => format!("the text \"{}\"", shorten(text)),
        Value::List(_) => "a list".to_owned(),
        Value::Map(_) => "a section".to_owned(),
    }
}

fn shorten(text: &str) -> String {
    if text.chars().count() <= 40 {
        return text.to_owned();
    }
    text.chars().take(39).chain(['…']).collect()
}

fn help(wrong: &Wrong, value: &Value) -> String {
    match (wrong, value) {
        (Wrong::UnknownKey(key, known), _) => suggest::help(key, known, "keys here"),
        (Wrong::UnknownWord(word, known), _) => suggest::help(word, known, "possible"),
        (Wrong::MissingKey(key), _) => format!("write `{key}: …`"),
        (Wrong::Kind(expected), Value::Scalar { text, .. }) if expected == LIST => {
            match text.starts_with('[') {
                // A variable held it, or quotes did.
                true => {
                    "a text in quotes, and a variable, is one value: write the list here, with a \
                         variable for each of its elements"
                        .to_owned()
                }
                false => format!("write it as a list: [{}]", shorten(text)),
            }
        }
        (Wrong::Kind(expected), Value::Map(_)) if expected == LIST => {
            "write a dash before each element".to_owned()
        }
        (Wrong::Kind(expected), Value::Scalar { text, .. }) if expected == BOOL => {
            match text.to_ascii_lowercase().as_str() {
                "yes" | "on" | "true" | "1" => "write true, without quotes".to_owned(),
                "no" | "off" | "false" | "0" => "write false, without quotes".to_owned(),
                _ => "write true or false, without quotes".to_owned(),
            }
        }
        (Wrong::Kind(expected), Value::Scalar { .. } | Value::List(_)) if expected == SECTION => {
            "write its keys below it and further in, each with a colon, and without a dash"
                .to_owned()
        }
        (Wrong::Kind(expected), Value::Map(_) | Value::List(_)) if expected == TEXT => {
            "write one value behind the colon".to_owned()
        }
        (Wrong::Kind(_), Value::Scalar { text, quoted: true }) if text.parse::<u64>().is_ok() => {
            "write the number without quotes".to_owned()
        }
        (Wrong::Kind(_), Value::Null) => {
            "write a value, or remove the key to have its default".to_owned()
        }
        (Wrong::Kind(expected), _) => format!("write {expected}"),
        (Wrong::Other(_), _) => "`edgeproxy schema` says what can stand here".to_owned(),
    }
}
