//! A YAML document as a tree in which every key and value knows its line and column.
//!
//! Only the part of YAML that a configuration needs: one document, mappings with plain keys, lists,
//! scalars, anchors with aliases and `<<`. Tags are refused. Everything is bounded: size, depth, and
//! what aliases may blow up to.

mod builder;
mod rescue;

use std::collections::HashSet;

use crate::config::diagnostic::Diagnostic;
use crate::config::diagnostic::Diagnostics;
use crate::config::diagnostic::Severity;
use crate::config::diagnostic::Snippet;
use crate::config::document::builder::Builder;
use crate::config::path::Path;
use crate::config::path::Step;

/// The largest document, in bytes.
pub const MAX_BYTES: usize = 4 << 20;

/// A value's number within its document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodeId(usize);

/// Where something stands in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The line, counted from 1.
    pub line: usize,
    /// The column in characters, counted from 0.
    pub column: usize,
    /// How many characters it takes of its first line.
    pub width: usize,
    /// Its last line.
    pub last_line: usize,
}

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// Text as written, quotes removed.
    Scalar {
        /// The text.
        text: String,
        /// Whether it was quoted, and so is text whatever it looks like.
        quoted: bool,
    },
    /// A list.
    List(Vec<NodeId>),
    /// A mapping, in the order written.
    Map(Vec<Entry>),
}

/// One entry of a mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub key_place: Place,
    /// The value.
    pub value: NodeId,
    /// Reported as wrong and to be passed over from now on.
    pub cut: bool,
}

#[derive(Debug, Clone)]
struct Node {
    value: Value,
    place: Place,
    /// The container, and the position of the list's element or the mapping's entry in it.
    parent: Option<(NodeId, usize)>,
}

/// A parsed document.
#[derive(Debug, Clone)]
pub struct Document {
    name: String,
    lines: Vec<String>,
    nodes: Vec<Node>,
    root: NodeId,
    broken: Vec<Path>,
    /// Those of them that are keys which nobody knows.
    unknown: Vec<Path>,
    /// Elements of lists that are passed over.
    skipped: HashSet<NodeId>,
}

impl Document {
    /// Parses `text`, which came from the file `name`.
    ///
    /// Beside the document stand the problems that do not keep it from being read on: keys written
    /// twice, of which the first one counts, and whole sections that are no YAML.
    ///
    /// # Errors
    /// When it is no YAML or goes beyond the bounds above.
    pub fn parse(text: &str, name: &str) -> Result<(Self, Diagnostics), Diagnostics> {
        let whole = Builder::new(text, name).build(text);
        match whole {
            Ok(read) => Ok(read),
            Err(found) if text.len() > MAX_BYTES => Err(found),
            Err(found) => rescue::rescue(text, name).ok_or_else(|| rescue::hopeless(found)),
        }
    }

    /// The whole document's value.
    #[must_use]
    pub fn root(&self) -> NodeId {
        self.root
    }

    /// A value.
    #[must_use]
    pub fn value(&self, id: NodeId) -> &Value {
        &self.nodes[id.0].value
    }

    /// Puts other text in a scalar's place; what was unquoted and becomes empty is no value.
    pub fn replace(&mut self, id: NodeId, text: String) {
        let node = &mut self.nodes[id.0];
        if let Value::Scalar { quoted, .. } = node.value {
            node.value = scalar(text, quoted);
        }
    }

    /// The same with the value of a variable that stood there alone: quotes around its name say nothing of what
    /// it is, which brackets and braces need them for.
    pub fn replace_whole(&mut self, id: NodeId, text: String) {
        let node = &mut self.nodes[id.0];
        match node.value {
            Value::Scalar { quoted: true, .. } => {
                node.value = Value::Scalar { text, quoted: false }
            }
            Value::Scalar { quoted: false, .. } => node.value = scalar(text, false),
            Value::Null | Value::List(_) | Value::Map(_) => {}
        }
    }

    /// Every scalar that is not cut.
    #[must_use]
    pub fn scalars(&self) -> Vec<NodeId> {
        self.scalars_where(|entry| !entry.cut)
    }

    /// Every scalar, also of what is passed over.
    #[must_use]
    pub fn all_scalars(&self) -> Vec<NodeId> {
        self.scalars_where(|_| true)
    }

    fn scalars_where(&self, counts: fn(&Entry) -> bool) -> Vec<NodeId> {
        let (mut open, mut found) = (vec![self.root], Vec::new());
        while let Some(id) = open.pop() {
            match self.value(id) {
                Value::Null => {}
                Value::Scalar { .. } => found.push(id),
                Value::List(items) => open.extend(items),
                Value::Map(entries) => {
                    open.extend(entries.iter().filter(|e| counts(e)).map(|e| e.value));
                }
            }
        }
        found
    }

    /// The way to a value.
    #[must_use]
    pub fn path(&self, id: NodeId) -> Path {
        let mut steps = Vec::new();
        let mut at = id;
        while let Some((parent, position)) = self.nodes[at.0].parent {
            steps.push(match self.value(parent) {
                Value::Map(entries) => Step::Key(entries[position].key.clone()),
                _ => Step::Index(position),
            });
            at = parent;
        }
        steps.into_iter().rev().fold(Path::root(), |path, step| path.then(step))
    }

    /// Where a value stands: a scalar itself, a list or mapping by the key that holds it.
    #[must_use]
    pub fn place(&self, id: NodeId) -> Place {
        let node = &self.nodes[id.0];
        match (&node.value, node.parent) {
            (Value::Scalar { .. }, _) | (_, None) => node.place,
            (_, Some((parent, position))) => match self.value(parent) {
                Value::Map(entries) => entries[position].key_place,
                _ => node.place,
            },
        }
    }

    /// Where the value at `path` stands, or the nearest one around it that exists. `None`: only the
    /// document as a whole is around it.
    #[must_use]
    pub fn locate(&self, path: &Path) -> Option<Place> {
        let id = self.find(path.steps());
        (id != self.root).then(|| self.place(id))
    }

    /// Where the value at `path` stands, if there is one.
    #[must_use]
    pub fn exactly(&self, path: &Path) -> Option<Place> {
        let id = self.find(path.steps());
        (self.path(id) == *path).then(|| self.place(id))
    }

    /// Where the key stands that holds the value at `path`, or the nearest thing around it.
    #[must_use]
    pub fn locate_key(&self, path: &Path) -> Option<Place> {
        let id = self.find(path.steps());
        let (parent, position) = self.nodes[id.0].parent?;
        Some(match self.value(parent) {
            Value::Map(entries) => entries[position].key_place,
            _ => self.place(id),
        })
    }

    fn find(&self, steps: &[Step]) -> NodeId {
        let mut at = self.root;
        for step in steps {
            let next = match (step, self.value(at)) {
                (Step::Key(key), Value::Map(entries)) => {
                    entries.iter().find(|e| e.key == *key).map(|e| e.value)
                }
                (Step::Index(index), Value::List(items)) => items.get(*index).copied(),
                _ => None,
            };
            match next {
                Some(next) => at = next,
                None => break,
            }
        }
        at
    }

    /// A diagnostic that points at `place`, or at the document as a whole.
    #[must_use]
    pub fn diagnostic(
        &self,
        severity: Severity,
        place: impl Into<Option<Place>>,
        message: String,
    ) -> Diagnostic {
        let mut diagnostic = Diagnostic::new(severity, message);
        diagnostic.file.clone_from(&self.name);
        let Some(place) = place.into() else { return diagnostic };
        diagnostic.line = Some(place.line);
        diagnostic.column = Some(place.column + 1);
        let line = place.line.checked_sub(1).and_then(|n| self.lines.get(n));
        diagnostic.snippet = line.map(|text| Snippet {
            text: text.clone(),
            start: place.column,
            width: place.width.max(1),
        });
        diagnostic
    }

    /// The text of a line, counted from 1.
    #[must_use]
    pub fn line(&self, number: usize) -> Option<&str> {
        self.lines.get(number.checked_sub(1)?).map(String::as_str)
    }

    /// Takes a value out that was reported as wrong, so that the rest can be read.
    ///
    /// Its siblings in a list keep their numbers, so that an element becomes empty at first; when it is
    /// wrong even so, it becomes like a sibling; and when none of them is right, it is passed over.
    /// Returns whether there was anything left to take out.
    pub fn cut(&mut self, id: NodeId) -> bool {
        let path = self.path(id);
        let before = self.broken.iter().filter(|broken| **broken == path).count();
        self.broken.push(path);
        let Some((parent, position)) = self.nodes[id.0].parent else {
            let was_empty = self.nodes[id.0].value == Value::Null;
            self.nodes[id.0].value = Value::Null;
            return !was_empty;
        };
        if let Value::Map(entries) = &mut self.nodes[parent.0].value {
            entries[position].cut = true;
            return true;
        }
        let instead = match before.checked_sub(1) {
            None => Some(Value::Null),
            Some(earlier) => self.right_siblings(parent).nth(earlier).cloned(),
        };
        match instead {
            Some(value) => self.nodes[id.0].value = value,
            None => return self.skipped.insert(id),
        }
        true
    }

    /// The scalars of a list of which none was taken out.
    fn right_siblings(&self, list: NodeId) -> impl Iterator<Item = &Value> {
        let items = match self.value(list) {
            Value::List(items) => items.as_slice(),
            Value::Null | Value::Scalar { .. } | Value::Map(_) => &[],
        };
        let right = items.iter().filter(|id| !self.broken.contains(&self.path(**id)));
        right.map(|id| self.value(*id)).filter(|value| matches!(value, Value::Scalar { .. }))
    }

    /// Whether this element of a list is passed over.
    #[must_use]
    pub fn is_skipped(&self, id: NodeId) -> bool {
        self.skipped.contains(&id)
    }

    /// Takes an entry of a mapping out.
    pub fn cut_entry(&mut self, map: NodeId, position: usize) {
        let path = self.path(map);
        if let Value::Map(entries) = &mut self.nodes[map.0].value {
            let entry = &mut entries[position];
            entry.cut = true;
            let path = path.key(entry.key.clone());
            self.unknown.push(path.clone());
            self.broken.push(path);
        }
    }

    /// Whether the section at `path` may have had one of these keys, which was taken out: as a wrong
    /// value, as a misspelt key, or with all of the section.
    #[must_use]
    pub fn has_lost_key(&self, path: &Path, keys: &[&str]) -> bool {
        let is_cut = |key: &&str| {
            let path = path.key(*key);
            self.broken.iter().any(|broken| path.contains(broken))
        };
        let is_there = |key: &&str| self.exactly(&path.key(*key)).is_some();
        let is_child = |unknown: &&Path| {
            path.contains(unknown) && unknown.steps().len() == path.steps().len() + 1
        };
        keys.iter().any(is_cut)
            || !keys.iter().any(is_there) && self.unknown.iter().any(|unknown| is_child(&unknown))
            || self.broken.iter().any(|broken| broken.contains(path))
    }

    /// Whether what stands at `path` now stands for something that was taken out.
    #[must_use]
    pub fn is_lost(&self, path: &Path) -> bool {
        self.broken.iter().any(|broken| broken.contains(path))
    }

    /// Whether this value, or something in it, was taken out.
    #[must_use]
    pub fn has_lost(&self, id: NodeId) -> bool {
        let path = self.path(id);
        id != self.root && self.broken.iter().any(|broken| path.contains(broken))
    }

    /// Whether something at or below `path` was taken out, or `path` lies in something that was.
    #[must_use]
    pub fn is_broken(&self, path: &Path) -> bool {
        self.broken.iter().any(|broken| path.contains(broken) || broken.contains(path))
    }
}

/// What plain text means: nothing at all has three spellings.
fn scalar(text: String, quoted: bool) -> Value {
    if !quoted && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL") {
        return Value::Null;
    }
    Value::Scalar { text, quoted }
}

#[cfg(test)]
mod tests;
