//! Secrets: written in the configuration, or in a file that it names.
//!
//! Every key that takes one has a sibling with `_file`. What is wrong with a secret is told without
//! showing it.

use std::fmt;
use std::path::Path as FilePath;

use crate::config::check::file;
use crate::config::document::Document;
use crate::config::document::Place;
use crate::config::document::Value;
use crate::config::mask;
use crate::config::path::Path;
use crate::config::path::Step;
use crate::config::report::Report;
use crate::config::schema::secret::Secret;
use crate::message::secret::MASK;
use crate::message::secret::Token;
use crate::message::secret::is_field;
use crate::message::secret::is_named_so;

/// Reads the file of a secret, or says why it cannot.
pub(in crate::config) type Reader<'a> = &'a dyn Fn(&FilePath) -> Result<Secret, String>;

/// The files of secrets.
#[derive(Clone, Copy)]
pub(in crate::config) struct Files<'a> {
    /// Relative paths begin here.
    pub(in crate::config) folder: &'a FilePath,
    /// `None`: files are not looked at, and something stands for their content.
    pub(in crate::config) read: Option<Reader<'a>>,
}

impl fmt::Debug for Files<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Files").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// Where text stands under the name of a header, query parameter or cookie that makes it a secret, or as
/// the token of a section that takes one, and URLs with a password or with a parameter that is a secret by its
/// name.
///
/// This asks the document, not what was understood of it: a secret in a value of the wrong shape, or
/// beside a misspelt key, is one as well.
pub(in crate::config) fn places(document: &Document) -> Vec<Place> {
    let is_secret = |id: &_| {
        let Value::Scalar { text, .. } = document.value(*id) else { return false };
        let path = document.path(*id);
        let names_a_file =
            matches!(path.steps().last(), Some(Step::Key(key)) if key == "value_file");
        let is_open = names_a_file
            || mask::names_a_variable(text)
            || matches!(text.as_str(), "present" | "absent");
        !is_open && (path.steps().windows(2).any(names_a_secret) || mask::url(text) != *text)
    };
    document.all_scalars().into_iter().filter(is_secret).map(|id| document.place(id)).collect()
}

fn names_a_secret(steps: &[Step]) -> bool {
    let [Step::Key(section), Step::Key(name)] = steps else { return false };
    match section.as_str() {
        "headers" | "set" | "add" => is_field(name),
        "query" | "cookies" => is_named_so(name.trim_end_matches('*').as_bytes()),
        "external_account" => name.starts_with("hmac") && !name.ends_with("_file"),
        "sticky" => is_named_so(name.as_bytes()) && !name.ends_with("_file"),
        // Misspelt, it is still one.
        "admin" | "purge" => {
            !name.ends_with("_file") && (name.starts_with("to") || is_named_so(name.as_bytes()))
        }
        _ => false,
    }
}

/// The secret of the section at `at` that is written as `key` or, by the name of its file, as
/// `key_file`. `None`: neither is there, or what is wrong was reported.
pub(super) fn either(
    (key, written): (&str, Option<&Secret>),
    path: Option<&FilePath>,
    at: &Path,
    files: Files<'_>,
    report: &mut Report<'_>,
) -> Option<Secret> {
    let at_file = at.key(format!("{key}_file"));
    report.hide(&at.key(key));
    match (written, path) {
        (None, None) => None,
        (Some(secret), Some(path)) => {
            report
                .error_in_key(&at_file, format!("`{key}` is there too"))
                .help(format!("keep one of the two: `{key}_file` keeps the secret out of here"));
            text(secret, &at.key(key), report);
            content(path, &at_file, files, report);
            None
        }
        (Some(secret), None) => text(secret, &at.key(key), report).cloned(),
        (None, Some(path)) => content(path, &at_file, files, report),
    }
}

/// The token that the section at `at` has as `token` or `token_file`.
pub(super) fn token(
    written: Option<&Secret>,
    path: Option<&FilePath>,
    at: &Path,
    files: Files<'_>,
    report: &mut Report<'_>,
) -> Option<Token> {
    let secret = either(("token", written), path, at, files, report)?;
    let key = if written.is_some() { "token" } else { "token_file" };
    if secret.reveal().trim().contains(char::is_control) {
        report
            .error(
                &at.key(key),
                "the token has a control character in it, such as the end of a line",
            )
            .help("nobody can present it in a header: write a token of one line");
    }
    if secret.reveal().trim() != secret.reveal() {
        report
            .error(&at.key(key), "the token has white space around it")
            .help("it is presented without");
    }
    Some(Token::new(secret.reveal()))
}

/// A secret that is written out, and is one.
pub(super) fn text<'s>(
    secret: &'s Secret,
    at: &Path,
    report: &mut Report<'_>,
) -> Option<&'s Secret> {
    report.hide(at);
    if secret.reveal().is_empty() {
        report
            .error(at, "the secret is empty")
            .help("write the secret, the name of its file, or a variable: ${NAME}");
        return None;
    }
    is_written(secret.reveal(), at, report).then_some(secret)
}

/// Whether this is a secret and not what `config show` has in the place of one, which would be known
/// to everybody.
pub(super) fn is_written(text: &str, at: &Path, report: &mut Report<'_>) -> bool {
    if text == MASK {
        report
            .error(at, format!("{MASK} is what `config show` writes in the place of a secret"))
            .help("write the secret, the name of its file, or a variable: ${NAME}");
    }
    text != MASK
}

fn content(
    path: &FilePath,
    at: &Path,
    files: Files<'_>,
    report: &mut Report<'_>,
) -> Option<Secret> {
    let whole = file(report, at, files.folder, path);
    if path.as_os_str().is_empty() {
        return None;
    }
    let Some(read) = files.read else { return Some(Secret::new(MASK)) };
    match read(&whole) {
        Ok(secret) => Some(secret),
        Err(problem) => {
            let problem = report
                .error(at, format!("cannot take a secret from {}: {problem}", path.display()));
            problem.help(match path.is_relative() {
                true => format!("relative paths begin in {}", files.folder.display()),
                false => "name a file of text that may be read".to_owned(),
            });
            None
        }
    }
}
