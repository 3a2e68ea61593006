//! Reading on in a file that is no YAML as a whole.
//!
//! A parser ends at its first error. The sections of a configuration stand side by side, each with its key
//! at the beginning of a line; so each is read alone, those that are no YAML are told and left out, and
//! what is wrong in the others is told as well.

use crate::config::diagnostic::Diagnostics;
use crate::config::diagnostic::Snippet;
use crate::config::document::Document;
use crate::config::document::Place;
use crate::config::document::builder::Builder;
use crate::config::document::builder::secret_from;
use crate::config::path::Path;

/// The most sections in which this is tried.
const MOST: usize = 64;

/// A section at the top of the document: its key, and its lines counted from 0.
struct Section {
    key: String,
    lines: std::ops::Range<usize>,
}

/// The document without the sections that are no YAML, and what is wrong with them. `None`: this is not
/// how the file is made, or what is left cannot be read either.
pub(super) fn rescue(text: &str, name: &str) -> Option<(Document, Diagnostics)> {
    let lines: Vec<&str> = text.split('\n').collect();
    let sections = sections(&lines);
    if sections.is_empty() || sections.len() > MOST {
        return None;
    }
    let mut found = Diagnostics::default();
    let mut lost: Vec<&Section> = Vec::new();
    for section in &sections {
        let only = without(&lines[..section.lines.end], |n| !section.lines.contains(&n));
        let Err(problems) = Builder::new(&only, name).showing(text).build(&only) else { continue };
        let first = problems.all().first()?;
        // What is defined in another section.
        if first.message.contains("unknown anchor") {
            continue;
        }
        let mut problem = first.clone();
        problem.path.clone_from(&section.key);
        // What is missing at the end is not missed in the next section.
        let end = section.lines.end;
        if problem.line.is_some_and(|line| line > end) {
            let text = lines[end - 1].to_owned();
            let start = text.chars().count();
            problem.line = Some(end);
            problem.column = Some(start + 1);
            problem.snippet = Some(Snippet { text, start, width: 1 });
        }
        let more =
            format!("more may be wrong in `{}`: it is read on when this is mended", section.key);
        let help =
            problem.help.take().map_or_else(|| more.clone(), |help| format!("{help}; {more}"));
        problem.help(help);
        found.push(problem);
        lost.push(section);
    }
    if lost.is_empty() {
        return None;
    }
    let rest = without(&lines, |n| lost.iter().any(|section| section.lines.contains(&n)));
    let (mut document, problems) = Builder::new(&rest, name).showing(text).build(&rest).ok()?;
    for (line, text) in (1..).zip(&lines) {
        if lost.iter().any(|section| section.lines.contains(&(line - 1)))
            && let Some(column) = secret_from(text)
        {
            found.hide(Place { line, column, width: usize::MAX, last_line: line });
        }
    }
    for problem in problems.all() {
        found.push(problem.clone());
    }
    document.broken.extend(lost.iter().map(|section| Path::root().key(section.key.as_str())));
    Some((document, found))
}

/// What is wrong with a document of which nothing else can be read.
pub(super) fn hopeless(found: Diagnostics) -> Diagnostics {
    let mut told = Diagnostics::default();
    let last = found.all().len().saturating_sub(1);
    for (n, problem) in found.all().iter().enumerate() {
        let problem = told.push(problem.clone());
        if n == last && problem.help.is_none() {
            problem.help("more may be wrong: the file is read on when this is mended");
        }
    }
    told
}

fn sections(lines: &[&str]) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for (n, line) in lines.iter().enumerate() {
        let key = line.split(':').next().unwrap_or_default();
        let is_key = line.contains(':')
            && !key.is_empty()
            && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if is_key {
            sections.push(Section { key: key.to_owned(), lines: n..n });
        }
        if let Some(section) = sections.last_mut() {
            section.lines.end = n + 1;
        }
    }
    sections
}

/// The text with some lines empty, so that the others keep their numbers.
fn without(lines: &[&str], is_left_out: impl Fn(usize) -> bool) -> String {
    let kept = lines.iter().enumerate();
    let kept: Vec<&str> = kept.map(|(n, line)| if is_left_out(n) { "" } else { *line }).collect();
    kept.join("\n")
}
