//! How a request's path and host are changed on the way to an upstream.

use regex::Regex;

/// Text with `{name}` places, filled from captures and from the request
/// (`{scheme}`, `{host}`, `{path}`, `{query}`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(String);

impl Template {
    /// Reads a template; `captures` are the names that the route's path offers.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn parse(text: &str, _captures: &[String]) -> Result<Self, String> {
        Ok(Self(text.to_owned()))
    }
}

/// Changes to path and host, applied in the order of the fields.
#[derive(Debug, Clone, Default)]
pub struct Rewrite {
    /// Removed from the path's front, at a segment boundary.
    pub strip_prefix: Option<String>,
    /// A regular expression over the whole path and its replacement (`$1`, `$name`).
    pub regex: Option<(Regex, String)>,
    /// Put before the path.
    pub add_prefix: Option<String>,
    /// The Host that the origin sees.
    pub host: Option<Template>,
}
