//! What is wrong with a configuration, said to people: all of it, with places and advice.
//!
//! ```text
//! error: unknown upstream "aip"
//!   --> edge.yaml:14:15  routes[2].upstream
//!    |
//! 14 |     upstream: aip
//!    |               ^^^
//!    = help: did you mean "api"? defined upstreams: api, static
//! ```

use std::fmt;
use std::io::IsTerminal;

use serde::Serialize;

use crate::config::document::Place;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing starts with this.
    Error,
    /// It works, but probably not as meant.
    Warning,
}

/// One thing that is wrong, or looks wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The file's name, as it was given; empty when the configuration came from no file.
    pub file: String,
    /// The line, counted from 1.
    pub line: Option<usize>,
    /// The column in characters, counted from 1.
    pub column: Option<usize>,
    /// Where in the document: `routes[2].upstream`; empty is the whole document.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// The line itself, for the picture.
    #[serde(skip)]
    pub snippet: Option<Snippet>,
}

/// A line of a file with a marked part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snippet {
    /// The line without its end.
    pub text: String,
    /// The first marked character, counted from 0.
    pub start: usize,
    /// How many characters are marked; at least 1.
    pub width: usize,
}

impl Diagnostic {
    /// A diagnostic without a place.
    #[must_use]
    pub fn new(severity: Severity, message: impl Into<String>) -> Self {
        Self {
            severity,
            file: String::new(),
            line: None,
            column: None,
            path: String::new(),
            message: message.into(),
            help: None,
            snippet: None,
        }
    }

    /// Adds what to do about it.
    pub fn help(&mut self, help: impl Into<String>) -> &mut Self {
        self.help = Some(help.into());
        self
    }
}

/// A message apart from what it says behind a semicolon: what to do. One within quotes is not meant.
#[must_use]
pub fn advice(text: &str) -> (&str, Option<&str>) {
    let is_quoted =
        |at: usize| ['`', '"'].iter().any(|quote| text[..at].matches(*quote).count() % 2 == 1);
    let at = text.match_indices("; ").map(|(at, _)| at).find(|at| !is_quoted(*at));
    at.map_or((text, None), |at| (&text[..at], Some(&text[at + 2..])))
}

/// Everything that was found in one configuration, in the order of the lines.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Diagnostics {
    found: Vec<Diagnostic>,
}

/// How diagnostics are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Text only.
    Plain,
    /// With the terminal's colours.
    Colour,
}

impl Style {
    /// Colours when standard error is a terminal that wants them (<https://no-color.org>).
    #[must_use]
    pub fn of_stderr() -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        if refused || dumb || !std::io::stderr().is_terminal() { Self::Plain } else { Self::Colour }
    }
}

impl Diagnostics {
    /// Adds one.
    pub fn push(&mut self, diagnostic: Diagnostic) -> &mut Diagnostic {
        self.found.push(diagnostic);
        let last = self.found.len() - 1;
        &mut self.found[last]
    }

    /// Puts them in the order of the lines; those without a place come last. What an alias repeats is
    /// said once.
    pub fn sort(&mut self) {
        self.found.sort_by_key(|d| (d.line.unwrap_or(usize::MAX), d.column, d.severity));
        self.found.dedup_by(|a, b| {
            a.line.is_some() && (a.line, a.column, &a.message) == (b.line, b.column, &b.message)
        });
    }

    /// Blots a place out of every picture.
    pub fn hide(&mut self, place: Place) {
        for diagnostic in &mut self.found {
            let Some(line) = diagnostic.line else { continue };
            let hidden = match line {
                line if line == place.line => {
                    place.column..place.column.saturating_add(place.width)
                }
                // Where on its other lines it stands is not known.
                line if (place.line..=place.last_line).contains(&line) => 0..usize::MAX,
                _ => continue,
            };
            if let Some(Snippet { text, .. }) = &mut diagnostic.snippet {
                let blot = |(n, c)| if hidden.contains(&n) { '*' } else { c };
                *text = text.chars().enumerate().map(blot).collect();
            }
        }
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[Diagnostic] {
        &self.found
    }

    /// How many are errors.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.found.iter().filter(|d| d.severity == Severity::Error).count()
    }

    /// How many are warnings.
    #[must_use]
    pub fn warnings(&self) -> usize {
        self.found.len() - self.errors()
    }

    /// Whether there is nothing to say.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Draws all of them, with a line at the end that counts them.
    #[must_use]
    pub fn render(&self, style: Style) -> String {
        let mut out = String::new();
        for diagnostic in &self.found {
            draw(&mut out, diagnostic, style);
            out.push('\n');
        }
        if let Some(total) = self.total() {
            out.push_str(&total);
            out.push('\n');
        }
        out
    }

    /// The same as a JSON array, one object for each.
    #[must_use]
    pub fn to_json(&self) -> String {
        let json = serde_json::to_string_pretty(self);
        json.expect("text and numbers can always be written as JSON")
    }

    fn total(&self) -> Option<String> {
        let plural = |n: usize, word: &str| match n {
            0 => None,
            1 => Some(format!("1 {word}")),
            n => Some(format!("{n} {word}s")),
        };
        let parts = [plural(self.errors(), "error"), plural(self.warnings(), "warning")];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(Style::Plain))
    }
}

impl std::error::Error for Diagnostics {}

/// The most characters of a line that are shown.
const SHOWN: usize = 100;

/// Draws one diagnostic.
fn draw(out: &mut String, diagnostic: &Diagnostic, style: Style) {
    let (word, colour) = match diagnostic.severity {
        Severity::Error => ("error", "\x1b[1;31m"),
        Severity::Warning => ("warning", "\x1b[1;33m"),
    };
    let paint = |colour: &str, text: &str| match style {
        Style::Plain => text.to_owned(),
        Style::Colour => format!("{colour}{text}\x1b[0m"),
    };
    let (bold, blue) = ("\x1b[1m", "\x1b[1;34m");
    let message = format!(": {}", printable(&diagnostic.message));
    out.push_str(&paint(colour, word));
    out.push_str(&paint(bold, &message));
    out.push('\n');

    let number = diagnostic.line.map(|line| line.to_string()).unwrap_or_default();
    let margin = " ".repeat(number.len().max(2));
    let place = place(diagnostic);
    if !place.is_empty() {
        out.push_str(&format!("{margin}{} {place}\n", paint(blue, "-->")));
    }
    if let Some(snippet) = &diagnostic.snippet {
        let (text, start, width) = window(snippet);
        let bar = paint(blue, "|");
        let caret = paint(colour, &"^".repeat(width));
        let pad = " ".repeat(margin.len() - number.len());
        out.push_str(&format!("{margin} {bar}\n"));
        out.push_str(&format!("{pad}{} {bar} {text}\n", paint(blue, &number)));
        out.push_str(&format!("{margin} {bar} {}{caret}\n", " ".repeat(start)));
    }
    if let Some(help) = &diagnostic.help {
        let help = printable(help);
        out.push_str(&format!("{margin} {} {} {help}\n", paint(blue, "="), paint(bold, "help:")));
    }
}

/// `file:line:column  path`, as far as they are known.
fn place(diagnostic: &Diagnostic) -> String {
    let mut text = printable(&diagnostic.file);
    if let Some(line) = diagnostic.line {
        text.push_str(&format!(":{line}"));
        if let Some(column) = diagnostic.column {
            text.push_str(&format!(":{column}"));
        }
    }
    if !diagnostic.path.is_empty() {
        if !text.is_empty() {
            text.push_str("  ");
        }
        text.push_str(&printable(&diagnostic.path));
    }
    text
}

/// The part of a long line that holds the mark, and where the mark is in it.
fn window(snippet: &Snippet) -> (String, usize, usize) {
    let text: Vec<char> = printable(snippet.text.trim_end()).chars().collect();
    let start = snippet.start.min(text.len());
    let width = snippet.width.clamp(1, text.len().saturating_sub(start).max(1));
    if text.len() <= SHOWN {
        return (text.iter().collect(), start, width);
    }
    let from = start.saturating_sub(SHOWN / 2).min(text.len() - SHOWN);
    let part: String = text.iter().skip(from).take(SHOWN).collect();
    (part, start - from, width.min(SHOWN.saturating_sub(start - from).max(1)))
}

/// Text without control characters, one character for each: nothing in a file moves the cursor.
fn printable(text: &str) -> String {
    let plain = |c: char| match c {
        '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    text.chars().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Diagnostic {
        Diagnostic {
            severity: Severity::Error,
            file: "edge.yaml".into(),
            line: Some(14),
            column: Some(15),
            path: "routes[2].upstream".into(),
            message: "unknown upstream \"aip\"".into(),
            help: Some("did you mean \"api\"?".into()),
            snippet: Some(Snippet { text: "    upstream: aip".into(), start: 14, width: 3 }),
        }
    }

    fn render(diagnostic: Diagnostic) -> String {
        let mut all = Diagnostics::default();
        all.push(diagnostic);
        all.render(Style::Plain)
    }

    #[test]
    fn a_diagnostic_shows_the_line_and_points_at_the_value() {
        let expected = r#"error: unknown upstream "aip"
  --> edge.yaml:14:15  routes[2].upstream
   |
14 |     upstream: aip
   |               ^^^
   = help: did you mean "api"?

1 error
"#;
        assert_eq!(render(example()), expected);
    }

    #[test]
    fn without_a_file_only_the_path_is_named() {
        let mut diagnostic = Diagnostic::new(Severity::Warning, "odd");
        diagnostic.path = "listeners".into();
        assert_eq!(render(diagnostic), "warning: odd\n  --> listeners\n\n1 warning\n");
    }

    #[test]
    fn control_characters_of_a_file_never_reach_the_terminal() {
        let mut diagnostic = example();
        diagnostic.message = "a\x1b[2Jb\nc".into();
        diagnostic.snippet = Some(Snippet { text: "\x07k: \x1b".into(), start: 4, width: 1 });
        let text = render(diagnostic);
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
        assert_eq!(text.lines().next(), Some("error: a\u{fffd}[2Jb\u{fffd}c"));
    }

    #[test]
    fn a_long_line_is_cut_around_the_mark() {
        let mut diagnostic = example();
        let text = format!("{}MARK{}", "a".repeat(300), "b".repeat(300));
        diagnostic.snippet = Some(Snippet { text, start: 300, width: 4 });
        let rendered = render(diagnostic);
        let lines: Vec<&str> = rendered.lines().collect();
        let at = lines[3].find("MARK").expect("the mark is shown");
        assert_eq!(lines[4].find("^^^^"), Some(at));
        assert!(lines[3].len() < 120);
    }

    #[test]
    fn colours_change_nothing_but_the_colours() {
        let mut all = Diagnostics::default();
        all.push(example());
        let coloured = all.render(Style::Colour);
        let escapes = regex::Regex::new("\x1b\\[[0-9;]*m").expect("a valid expression");
        assert_ne!(coloured, all.render(Style::Plain));
        assert_eq!(escapes.replace_all(&coloured, ""), all.render(Style::Plain));
    }

    #[test]
    fn json_carries_every_field_but_the_picture() {
        let mut all = Diagnostics::default();
        all.push(example());
        let json: serde_json::Value = serde_json::from_str(&all.to_json()).expect("valid JSON");
        assert_eq!(json[0]["severity"], "error");
        assert_eq!(json[0]["line"], 14);
        assert_eq!(json[0]["path"], "routes[2].upstream");
        assert!(json[0].get("snippet").is_none());
    }

    #[test]
    fn the_count_is_grammatical() {
        let mut all = Diagnostics::default();
        assert_eq!(all.render(Style::Plain), "");
        all.push(Diagnostic::new(Severity::Warning, "a"));
        all.push(Diagnostic::new(Severity::Error, "b"));
        all.push(Diagnostic::new(Severity::Error, "c"));
        assert!(all.render(Style::Plain).ends_with("2 errors, 1 warning\n"));
    }

    #[test]
    fn advice_stands_behind_a_semicolon_that_is_not_quoted() {
        assert_eq!(advice("a is wrong; write b; or c"), ("a is wrong", Some("write b; or c")));
        assert_eq!(advice("`a; b` is wrong"), ("`a; b` is wrong", None));
        assert_eq!(advice("\"a; b\" is wrong; write c"), ("\"a; b\" is wrong", Some("write c")));
    }
}
