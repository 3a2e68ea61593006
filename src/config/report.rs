//! Collects what the checks of meaning find, with its places.

use crate::config::diagnostic::Diagnostic;
use crate::config::diagnostic::Diagnostics;
use crate::config::diagnostic::Severity;
use crate::config::diagnostic::advice;
use crate::config::document::Document;
use crate::config::document::Place;
use crate::config::path::Path;

/// The problems found so far, and the document in which they stand, when there is one.
#[derive(Debug)]
pub struct Report<'d> {
    document: Option<&'d Document>,
    found: Diagnostics,
    hidden: Vec<Place>,
    /// What is said of what only stands for something that was reported already.
    moot: Diagnostics,
}

impl<'d> Report<'d> {
    /// A report on a document, or on a configuration that was put together by the program.
    #[must_use]
    pub fn new(document: Option<&'d Document>, found: Diagnostics) -> Self {
        Self { document, found, hidden: Vec::new(), moot: Diagnostics::default() }
    }

    /// An error in the value at `path`.
    pub fn error(&mut self, path: &Path, message: impl Into<String>) -> &mut Diagnostic {
        self.push(Severity::Error, path, Document::locate, message.into())
    }

    /// An error in the key that holds the value at `path`.
    pub fn error_in_key(&mut self, path: &Path, message: impl Into<String>) -> &mut Diagnostic {
        self.push(Severity::Error, path, Document::locate_key, message.into())
    }

    /// A warning about the value at `path`.
    pub fn warning(&mut self, path: &Path, message: impl Into<String>) -> &mut Diagnostic {
        self.push(Severity::Warning, path, Document::locate, message.into())
    }

    /// A warning about the key that holds the value at `path`.
    pub fn warning_about_key(
        &mut self,
        path: &Path,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        self.push(Severity::Warning, path, Document::locate_key, message.into())
    }

    /// Takes what a constructor says about the value at `path`. What to do is what it says behind a semicolon,
    /// or else `help`.
    pub fn take<T>(&mut self, path: &Path, result: Result<T, String>, help: &str) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(message) => {
                let (message, advice) = advice(&message);
                self.error(path, message).help(advice.unwrap_or(help));
                None
            }
        }
    }

    /// Whether a value stands at `path`.
    #[must_use]
    pub fn has(&self, path: &Path) -> bool {
        self.document.is_some_and(|document| document.exactly(path).is_some())
    }

    /// Whether values stand at both of these.
    #[must_use]
    pub fn has_both(&self, one: &Path, other: &Path) -> bool {
        self.has(one) && self.has(other)
    }

    /// A secret is written at `path`: no picture of its line shows it.
    pub fn hide(&mut self, path: &Path) {
        self.hidden.extend(self.document.and_then(|document| document.exactly(path)));
    }

    /// Secrets stand at these places.
    pub fn hide_places(&mut self, places: impl IntoIterator<Item = Place>) {
        self.hidden.extend(places);
    }

    /// Whether something in the value at `path` was reported before and left out: what is missing
    /// there now is not worth another word.
    #[must_use]
    pub fn is_broken(&self, path: &Path) -> bool {
        self.document.is_some_and(|document| document.is_broken(path))
    }

    /// Whether the section at `at` may have had one of these keys, and what it was is reported
    /// already: that it is missing is not worth another word.
    #[must_use]
    pub fn has_lost(&self, at: &Path, keys: &[&str]) -> bool {
        self.document.is_some_and(|document| document.has_lost_key(at, keys))
    }

    /// Whether there is an error among what was found.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.found.errors() > 0
    }

    /// What was found, in the order of the lines.
    #[must_use]
    pub fn finish(mut self) -> Diagnostics {
        for place in &self.hidden {
            self.found.hide(*place);
        }
        self.found.sort();
        self.found
    }

    fn push(
        &mut self,
        severity: Severity,
        path: &Path,
        locate: fn(&Document, &Path) -> Option<Place>,
        message: String,
    ) -> &mut Diagnostic {
        let mut diagnostic = match self.document {
            Some(document) => document.diagnostic(severity, locate(document, path), message),
            None => Diagnostic::new(severity, message),
        };
        diagnostic.path = path.to_string();
        let is_moot = self.document.is_some_and(|document| document.is_lost(path));
        if is_moot { self.moot.push(diagnostic) } else { self.found.push(diagnostic) }
    }
}
