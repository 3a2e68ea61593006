//! What a regular expression's match is replaced by.

use regex::Regex;

use crate::route::captures::Captures;
use crate::route::encode;
use crate::route::encode::Place;

/// A part of a replacement.
enum Part<'t> {
    Text(&'t str),
    Group(usize),
    Name(&'t str),
    /// A `$` that names nothing.
    Bare,
}

/// The first part of a replacement and what follows it.
fn next_part(text: &str) -> Option<(Part<'_>, &str)> {
    let Some(reference) = text.strip_prefix('$') else {
        let end = text.find('$').unwrap_or(text.len());
        return (end > 0).then(|| (Part::Text(&text[..end]), &text[end..]));
    };
    if let Some(rest) = reference.strip_prefix('$') {
        return Some((Part::Text("$"), rest));
    }
    let (name, rest) = match reference.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
        Some(split) => split,
        // A number ends where its digits end, so that `$1st` is the first group and `st`.
        None if reference.starts_with(|c: char| c.is_ascii_digit()) => {
            split_while(reference, |c| c.is_ascii_digit())
        }
        None => split_while(reference, |c| c.is_ascii_alphanumeric() || c == '_'),
    };
    let part = match name.parse() {
        Ok(group) => Part::Group(group),
        Err(_) if name.is_empty() => Part::Bare,
        Err(_) => Part::Name(name),
    };
    Some((part, rest))
}

fn split_while(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

/// Refuses a replacement that names what is not there.
pub(super) fn check(text: &str, regex: &Regex, captures: &[String]) -> Result<(), String> {
    if !text.starts_with(['/', '$']) {
        return Err(format!("a path begins with a slash: write `/{text}` as the replacement"));
    }
    if text.contains(|c: char| c.is_control() || c == '#') {
        return Err(format!("{text:?} has a character that no path has: write it as `%XX`"));
    }
    let mut rest = text;
    while let Some((part, more)) = next_part(rest) {
        rest = more;
        let missing = match part {
            Part::Text(_) => continue,
            Part::Bare => {
                return Err(format!(
                    "in `{text}` a `$` names no group: write `$$` for a dollar sign"
                ));
            }
            Part::Group(group) if group < regex.captures_len() => continue,
            Part::Name(name)
                if regex.capture_names().flatten().any(|known| known == name)
                    || captures.iter().any(|known| known == name) =>
            {
                continue;
            }
            Part::Group(group) => group.to_string(),
            Part::Name(name) => name.to_owned(),
        };
        let numbers = (1..regex.captures_len()).map(|group| group.to_string());
        let names = regex.capture_names().flatten().map(ToOwned::to_owned);
        let known: Vec<String> = numbers
            .chain(names)
            .chain(captures.iter().cloned())
            .map(|name| format!("`${{{name}}}`"))
            .collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Err(format!("in `{text}` nothing is captured as `{missing}`; there are {known}"));
    }
    Ok(())
}

/// The path and the query that a replacement makes.
pub(super) fn expand(
    text: &str,
    groups: &regex::Captures<'_>,
    captures: &Captures,
) -> (String, String) {
    let mut path = String::with_capacity(text.len());
    let mut query: Option<String> = None;
    let mut rest = text;
    while let Some((part, more)) = next_part(rest) {
        rest = more;
        let value = match part {
            Part::Text(text) => {
                match (&mut query, text.split_once('?')) {
                    (Some(query), _) => query.push_str(text),
                    (None, Some((before, after))) => {
                        path.push_str(before);
                        query = Some(after.to_owned());
                    }
                    (None, None) => path.push_str(text),
                }
                continue;
            }
            Part::Bare => "$",
            Part::Group(group) => groups.get(group).map_or("", |found| found.as_str()),
            Part::Name(name) => groups
                .name(name)
                .map(|found| found.as_str())
                .or_else(|| captures.get(name))
                .unwrap_or_default(),
        };
        match &mut query {
            // What was data in the path must not become another parameter.
            Some(query) => encode::push(query, value, Place::QueryValue),
            None => path.push_str(value),
        }
    }
    (path, query.unwrap_or_default())
}
