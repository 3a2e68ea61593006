//! From the parser's events to the tree.

use std::collections::HashMap;
use std::collections::HashSet;

use saphyr_parser::Event;
use saphyr_parser::Parser;
use saphyr_parser::ScalarStyle;
use saphyr_parser::Span;

use crate::config::diagnostic::Diagnostic;
use crate::config::diagnostic::Diagnostics;
use crate::config::diagnostic::Severity;
use crate::config::document::Document;
use crate::config::document::Entry;
use crate::config::document::MAX_BYTES;
use crate::config::document::Node;
use crate::config::document::NodeId;
use crate::config::document::Place;
use crate::config::document::Value;
use crate::config::document::scalar;
use crate::config::path::Path;
use crate::message::secret::is_field;

/// The deepest nesting.
pub(super) const MAX_DEPTH: usize = 48;
/// The most values, copies by aliases included.
const MAX_NODES: usize = 400_000;

/// An open list or mapping.
struct Frame {
    id: NodeId,
    anchor: usize,
    /// The key whose value comes next.
    key: Option<(String, Place)>,
    /// Where each key was first written.
    seen: HashMap<String, Place>,
    /// Whether that key was there before.
    again: bool,
    /// Whether that key is `<<`, without quotes.
    merges: bool,
    /// What `<<` names.
    merged: Vec<NodeId>,
}

/// Builds a document.
pub(super) struct Builder {
    document: Document,
    stack: Vec<Frame>,
    anchors: HashMap<usize, NodeId>,
    rooted: bool,
    found: Diagnostics,
}

/// The document cannot be read on; what is wrong is among the diagnostics.
struct Hopeless;

impl Builder {
    pub(super) fn new(text: &str, name: &str) -> Self {
        let start = Place { line: 1, column: 0, width: 1, last_line: 1 };
        let document = Document {
            name: name.to_owned(),
            lines: text.lines().map(str::to_owned).collect(),
            nodes: vec![Node { value: Value::Null, place: start, parent: None }],
            root: NodeId(0),
            broken: Vec::new(),
            unknown: Vec::new(),
            skipped: HashSet::new(),
        };
        let found = Diagnostics::default();
        Self { document, stack: Vec::new(), anchors: HashMap::new(), rooted: false, found }
    }

    /// Shows the lines of this text beside problems, of which the text to be read has some only.
    pub(super) fn showing(mut self, text: &str) -> Self {
        self.document.lines = text.lines().map(str::to_owned).collect();
        self
    }

    pub(super) fn build(mut self, text: &str) -> Result<(Document, Diagnostics), Diagnostics> {
        if text.len() > MAX_BYTES {
            let message = format!("the file is larger than {} MiB", MAX_BYTES >> 20);
            let mut diagnostic = Diagnostic::new(Severity::Error, message);
            diagnostic.help("no configuration is: look whether it is the right file");
            diagnostic.file.clone_from(&self.document.name);
            self.found.push(diagnostic);
            return Err(self.found);
        }
        if self.read(text.strip_prefix('\u{feff}').unwrap_or(text)).is_err() {
            // Without the tree it is not known whose value is what.
            for (line, text) in (1..).zip(&self.document.lines) {
                if let Some(column) = secret_from(text) {
                    self.found.hide(Place { line, column, width: usize::MAX, last_line: line });
                }
            }
            return Err(self.found);
        }
        self.adopt();
        Ok((self.document, self.found))
    }

    fn read(&mut self, text: &str) -> Result<(), Hopeless> {
        let mut parser = Parser::new_from_str(text);
        while let Some(next) = parser.next_event() {
            let (event, span) = match next {
                Ok(pair) => pair,
                Err(error) => {
                    let mark = error.marker();
                    let line = mark.line();
                    let place = Place { line, column: mark.col(), width: 1, last_line: line };
                    let message = format!("this is not YAML: {}", error.info());
                    let mut problem = self.document.diagnostic(Severity::Error, place, message);
                    let line = self.document.lines.get(mark.line() - 1);
                    // The brace of a variable begins a mapping there.
                    if error.info().contains("flow") && line.is_some_and(|l| l.contains("${")) {
                        problem.help("within { } and [ ] a variable needs quotes: \"${NAME}\"");
                    }
                    self.found.push(problem);
                    return Err(Hopeless);
                }
            };
            self.take(event, place(span))?;
        }
        Ok(())
    }

    fn take(&mut self, event: Event<'_>, at: Place) -> Result<(), Hopeless> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) if self.rooted => {
                Err(self.fail(at, "a second document begins here; write one only".into()))
            }
            Event::DocumentStart(_) => Ok(()),
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => {
                Err(self.fail(at, "tags (`!name`) are not used in this file".into()))
            }
            Event::Scalar(text, style, anchor, None) => {
                let quoted = style != ScalarStyle::Plain;
                if self.wants_key() {
                    let key = text.into_owned();
                    let merges = !quoted && key == "<<";
                    return self.take_key(key, at, merges);
                }
                let at = match style {
                    // A block ends where the next thing begins.
                    ScalarStyle::Literal | ScalarStyle::Folded => {
                        Place { last_line: (at.last_line - 1).max(at.line), ..at }
                    }
                    ScalarStyle::Plain | ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => {
                        at
                    }
                };
                let id = self.add(scalar(text.into_owned(), quoted), at)?;
                self.anchors.insert(anchor, id);
                self.attach(id);
                Ok(())
            }
            Event::Alias(anchor) => {
                self.refuse_as_key(at)?;
                let Some(&named) = self.anchors.get(&anchor).filter(|_| anchor != 0) else {
                    return Err(self.fail(at, "an alias within the value that it names".into()));
                };
                let copy = self.copy(named, self.stack.len(), at)?;
                self.attach(copy);
                Ok(())
            }
            Event::SequenceStart(anchor, None) => self.open(Value::List(Vec::new()), anchor, at),
            Event::MappingStart(anchor, None) => self.open(Value::Map(Vec::new()), anchor, at),
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(frame) = self.stack.pop() {
                    let (anchor, id) = (frame.anchor, frame.id);
                    self.merge(frame);
                    self.anchors.insert(anchor, id);
                    self.attach(id);
                }
                Ok(())
            }
        }
    }

    fn open(&mut self, value: Value, anchor: usize, at: Place) -> Result<(), Hopeless> {
        self.refuse_as_key(at)?;
        if self.stack.len() >= MAX_DEPTH {
            return Err(self.fail(at, format!("nested more than {MAX_DEPTH} levels deep")));
        }
        let id = self.add(value, Place { width: 1, ..at })?;
        let (seen, merged) = (HashMap::new(), Vec::new());
        self.stack.push(Frame { id, anchor, key: None, seen, again: false, merges: false, merged });
        Ok(())
    }

    fn wants_key(&self) -> bool {
        let top = self.stack.last();
        top.is_some_and(|f| f.key.is_none() && matches!(self.document.value(f.id), Value::Map(_)))
    }

    fn refuse_as_key(&mut self, at: Place) -> Result<(), Hopeless> {
        if self.wants_key() {
            return Err(self.fail(at, "a key must be plain text".into()));
        }
        Ok(())
    }

    fn take_key(&mut self, key: String, at: Place, merges: bool) -> Result<(), Hopeless> {
        let frame = self.stack.last_mut().expect("a key is wanted only within a mapping");
        let first = frame.seen.get(&key).copied();
        frame.again = first.is_some();
        frame.merges = merges;
        if let Some(first) = first {
            let message = format!("the key \"{key}\" is written twice");
            let path = self.document_path().key(key.clone());
            let mut diagnostic = self.document.diagnostic(Severity::Error, at, message);
            diagnostic.path = path.to_string();
            let (line, column) = (first.line, first.column + 1);
            diagnostic.help(format!("it first stands on line {line}, column {column}"));
            self.found.push(diagnostic);
        } else {
            frame.seen.insert(key.clone(), at);
        }
        let frame = self.stack.last_mut().expect("as above");
        frame.key = Some((key, at));
        Ok(())
    }

    /// The way to the innermost open value.
    fn document_path(&self) -> Path {
        let mut path = Path::root();
        // The innermost frame's own key is the one that is being read.
        let outer = self.stack.len().saturating_sub(1);
        for frame in self.stack.iter().take(outer) {
            path = match (self.document.value(frame.id), &frame.key) {
                (_, Some((key, _))) => path.key(key.clone()),
                (Value::List(items), None) => path.index(items.len()),
                _ => path,
            };
        }
        path
    }

    fn add(&mut self, value: Value, place: Place) -> Result<NodeId, Hopeless> {
        if self.document.nodes.len() >= MAX_NODES {
            return Err(self.fail(place, format!("more than {MAX_NODES} values")));
        }
        self.document.nodes.push(Node { value, place, parent: None });
        Ok(NodeId(self.document.nodes.len() - 1))
    }

    fn attach(&mut self, value: NodeId) {
        let Some(frame) = self.stack.last_mut() else {
            self.document.root = value;
            self.rooted = true;
            return;
        };
        match &mut self.document.nodes[frame.id.0].value {
            Value::List(items) => items.push(value),
            Value::Map(entries) => {
                let (key, key_place) = frame.key.take().expect("a value follows its key");
                if frame.merges {
                    frame.merged.push(value);
                } else {
                    entries.push(Entry { key, key_place, value, cut: frame.again });
                }
            }
            Value::Null | Value::Scalar { .. } => {}
        }
    }

    /// Copies what an alias names, so that every value has one path.
    fn copy(&mut self, from: NodeId, depth: usize, at: Place) -> Result<NodeId, Hopeless> {
        if depth > MAX_DEPTH {
            return Err(self.fail(at, format!("nested more than {MAX_DEPTH} levels deep")));
        }
        let Node { value, place, .. } = self.document.nodes[from.0].clone();
        let value = match value {
            Value::List(items) => {
                let copies: Result<_, _> =
                    items.into_iter().map(|item| self.copy(item, depth + 1, at)).collect();
                Value::List(copies?)
            }
            Value::Map(mut entries) => {
                for entry in &mut entries {
                    entry.value = self.copy(entry.value, depth + 1, at)?;
                }
                Value::Map(entries)
            }
            plain => plain,
        };
        self.add(value, place)
    }

    /// Adds the entries of `<<` that the mapping does not have itself.
    fn merge(&mut self, mut frame: Frame) {
        let mut sources: Vec<NodeId> = Vec::new();
        for named in &frame.merged {
            match self.document.value(*named) {
                Value::List(items) => sources.extend(items),
                _ => sources.push(*named),
            }
        }
        for source in sources {
            let Value::Map(added) = self.document.value(source).clone() else {
                let place = self.document.nodes[source.0].place;
                self.fail(place, "`<<` takes a mapping, or a list of mappings".into());
                continue;
            };
            if let Value::Map(entries) = &mut self.document.nodes[frame.id.0].value {
                for entry in added {
                    if !frame.seen.contains_key(&entry.key) {
                        frame.seen.insert(entry.key.clone(), entry.key_place);
                        entries.push(entry);
                    }
                }
            }
        }
    }

    /// Tells every value whose it is.
    fn adopt(&mut self) {
        let mut open = vec![self.document.root];
        while let Some(id) = open.pop() {
            let children: Vec<NodeId> = match self.document.value(id) {
                Value::List(items) => items.clone(),
                Value::Map(entries) => entries.iter().map(|e| e.value).collect(),
                Value::Null | Value::Scalar { .. } => continue,
            };
            for (position, child) in children.into_iter().enumerate() {
                self.document.nodes[child.0].parent = Some((id, position));
                open.push(child);
            }
        }
    }

    fn fail(&mut self, place: Place, message: String) -> Hopeless {
        self.found.push(self.document.diagnostic(Severity::Error, place, message));
        Hopeless
    }
}

/// The column from which a line may show a secret: behind the first key that is named so.
pub(super) fn secret_from(line: &str) -> Option<usize> {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let names_one = |(colon, _): &(usize, &str)| {
        let before = line[..*colon].trim_end_matches([' ', '"', '\'']);
        is_field(&before[before.trim_end_matches(is_of_name).len()..])
    };
    let (colon, _) = line.match_indices(':').find(names_one)?;
    Some(line[..=colon].chars().count())
}

fn place(span: Span) -> Place {
    let (start, end) = (span.start, span.end);
    let width = if start.line() == end.line() {
        end.col().saturating_sub(start.col())
    } else {
        usize::MAX // To the end of the line.
    };
    Place { line: start.line(), column: start.col(), width, last_line: end.line() }
}
