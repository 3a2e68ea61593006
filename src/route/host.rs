//! Which hosts a route serves.

/// One host pattern: `www.example.org`, `*.example.org`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPattern(String);

impl HostPattern {
    /// Reads a pattern as written in the configuration.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        Ok(Self(text.to_ascii_lowercase()))
    }
}
