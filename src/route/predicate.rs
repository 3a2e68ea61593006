//! Conditions on method, header, query and cookie.

use http::HeaderName;
use http::Method;
use regex::Regex;

/// Conditions that must all hold.
#[derive(Debug, Clone, Default)]
pub struct Predicates {
    /// The methods; empty is every method. GET includes HEAD.
    pub methods: Vec<Method>,
    /// Conditions on request fields.
    pub headers: Vec<(HeaderName, ValueMatch)>,
    /// Conditions on query parameters.
    pub queries: Vec<(String, ValueMatch)>,
    /// Conditions on cookies.
    pub cookies: Vec<(String, ValueMatch)>,
}

/// A condition on one value.
#[derive(Debug, Clone)]
pub enum ValueMatch {
    /// There is one.
    Present,
    /// There is none.
    Absent,
    /// One of the values is exactly this.
    Exact(String),
    /// One of the values starts with this.
    Prefix(String),
    /// One of the values matches as a whole.
    Regex(Regex),
}

impl ValueMatch {
    /// Compiles a regular expression, anchored at both ends and bounded in size.
    ///
    /// # Errors
    /// What the expression's parser says.
    pub fn regex(text: &str) -> Result<Self, String> {
        Regex::new(text).map(Self::Regex).map_err(|e| e.to_string())
    }
}
