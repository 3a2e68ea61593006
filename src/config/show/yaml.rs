//! Writes YAML that every reader takes for the same thing: what could be mistaken is quoted, and no
//! value is folded over lines.

use serde_yaml::Mapping;
use serde_yaml::Value;
use serde_yaml::value::Tag;
use serde_yaml::value::TaggedValue;

use crate::config::expand;

/// Text in which variables stand for their values, where other text has none.
const WRITTEN: &str = "written";

/// A value in which variables stand for their values.
pub(super) fn as_written(text: String) -> Value {
    Value::Tagged(Box::new(TaggedValue { tag: Tag::new(WRITTEN), value: Value::String(text) }))
}

/// A whole document.
pub(super) fn write(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Mapping(map) if !map.is_empty() => section(&mut out, map, 0),
        other => {
            inline(&mut out, other);
            out.push('\n');
        }
    }
    out
}

fn section(out: &mut String, map: &Mapping, depth: usize) {
    for (n, (key, value)) in map.iter().enumerate() {
        // The first key of a list's element stands behind its dash.
        if n > 0 || out.is_empty() || out.ends_with('\n') {
            indent(out, depth);
        }
        // Keys are not expanded, and so not escaped.
        match key {
            Value::String(key) => text(out, key),
            other => inline(out, other),
        }
        out.push(':');
        below(out, value, depth + 1);
    }
}

/// What follows a colon.
fn below(out: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Mapping(map) if !map.is_empty() => {
            out.push('\n');
            section(out, map, depth);
        }
        Value::Sequence(items) if !items.is_empty() => {
            out.push('\n');
            for item in items {
                indent(out, depth);
                out.push('-');
                match item {
                    Value::Mapping(map) if !map.is_empty() => {
                        out.push(' ');
                        section(out, map, depth + 1);
                    }
                    other => below(out, other, depth + 1),
                }
            }
        }
        other => {
            out.push(' ');
            inline(out, other);
            out.push('\n');
        }
    }
}

fn indent(out: &mut String, depth: usize) {
    for _ in 0..depth {
        out.push_str("  ");
    }
}

/// A value on its line.
fn inline(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Value::Number(number) => out.push_str(&number.to_string()),
        // `${` would be read as a variable.
        Value::String(text) => self::text(out, &expand::escape(text)),
        Value::Sequence(_) => out.push_str("[]"),
        Value::Mapping(_) => out.push_str("{}"),
        Value::Tagged(tagged) => match &tagged.value {
            Value::String(written) if tagged.tag == WRITTEN => text(out, written),
            other => inline(out, other),
        },
    }
}

fn text(out: &mut String, text: &str) {
    if is_plain(text) {
        out.push_str(text);
        return;
    }
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            // Line ends of older YAML, and what an editor would not show.
            '\u{2028}' | '\u{2029}' | '\u{feff}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Whether text can do without quotes in any version of YAML. `on`, `off` and `auto` are words of our
/// own and have always been written without.
fn is_plain(text: &str) -> bool {
    let Some(first) = text.chars().next() else { return false };
    let ends_as_unit = text.ends_with(|c: char| c.is_ascii_alphabetic());
    let is_based = ["0x", "0o", "0b"].iter().any(|base| text.starts_with(base));
    let starts = first.is_ascii_alphabetic()
        || first == '/'
        || (first.is_ascii_digit() && ends_as_unit && !is_based);
    let is_word = ["null", "true", "false", "yes", "no", "y", "n"]
        .iter()
        .any(|word| text.eq_ignore_ascii_case(word));
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_-./+%".contains(c);
    starts && !is_word && text.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> String {
        let mut out = String::new();
        super::text(&mut out, text);
        out
    }

    #[test]
    fn words_paths_and_units_stand_without_quotes() {
        for plain in
            ["api", "/run/a.sock", "30s", "0s", "64KiB", "off", "text/plain", "origin.example.org"]
        {
            assert_eq!(written(plain), plain);
        }
    }

    #[test]
    fn what_could_be_something_else_is_quoted() {
        for other in
            ["", "1.2", "true", "No", "null", "~", "a b", "a: b", "- a", "0x1f", "1e3", "*", "#"]
        {
            assert_eq!(written(other), format!("\"{other}\""));
        }
    }

    #[test]
    fn what_cannot_be_seen_is_escaped() {
        assert_eq!(written("a\"\\\n\u{85}\u{2028}"), "\"a\\\"\\\\\\n\\u0085\\u2028\"");
    }

    #[test]
    fn lists_and_sections_are_indented_by_two() {
        let value: Value =
            serde_yaml::from_str("{a: [{b: 1, c: [x]}, [z]], d: {}, e: []}").expect("YAML");
        let expected = "a:\n  - b: 1\n    c:\n      - x\n  -\n    - z\nd: {}\ne: []\n";
        assert_eq!(write(&value), expected);
        assert_eq!(serde_yaml::from_str::<Value>(expected).expect("YAML"), value);
    }
}
