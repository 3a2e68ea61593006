//! Which paths a route serves.

/// One path pattern.
#[derive(Debug, Clone)]
pub struct PathPattern(());

impl PathPattern {
    /// Every path.
    #[must_use]
    pub fn any() -> Self {
        Self(())
    }
    /// Exactly this path.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it. The same holds for its siblings.
    pub fn exact(_text: &str) -> Result<Self, String> {
        Ok(Self(()))
    }
    /// This path and everything below it, at segment boundaries.
    ///
    /// # Errors
    /// As above.
    pub fn prefix(_text: &str) -> Result<Self, String> {
        Ok(Self(()))
    }
    /// Segments with captures: `/users/{id}/files/{*rest}`.
    ///
    /// # Errors
    /// As above.
    pub fn pattern(_text: &str) -> Result<Self, String> {
        Ok(Self(()))
    }
    /// A regular expression over the whole path; named groups are captures.
    ///
    /// # Errors
    /// As above.
    pub fn regex(_text: &str) -> Result<Self, String> {
        Ok(Self(()))
    }
    /// The names that `{name}` may use in a redirect or a rewrite.
    #[must_use]
    pub fn captures(&self) -> Vec<String> {
        Vec::new()
    }
}
