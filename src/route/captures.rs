//! What the named parts of a path pattern matched.

use std::sync::Arc;

/// Names and the text that each matched, in the path's normal (percent-encoded) form. Empty ones
/// take no memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Captures(Vec<(Arc<str>, Box<str>)>);

impl Captures {
    /// The text that `name` matched.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == name).map(|(_, text)| text)
    }

    /// All names with their texts, in the order of the pattern.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, text)| (&**name, &**text))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(in crate::route) fn push(&mut self, name: &Arc<str>, text: &str) {
        self.0.push((Arc::clone(name), text.into()));
    }
}

/// The names that a request offers itself; a capture may not take one of them.
pub(in crate::route) const RESERVED: [&str; 4] = ["scheme", "host", "path", "query"];

/// Whether a capture may have this name.
///
/// # Errors
/// A sentence that says what to write instead.
pub(in crate::route) fn check_name(name: &str) -> Result<(), String> {
    let mut bytes = name.bytes();
    let starts = bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    if !starts || !bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Err(format!(
            "`{name}` is not a name for a capture: write letters, digits and `_`, beginning with a letter"
        ));
    }
    if RESERVED.contains(&name) {
        return Err(format!(
            "a capture cannot be called `{name}`, which is a part of the request: choose another name"
        ));
    }
    Ok(())
}
