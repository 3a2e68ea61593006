//! Host, path and query: one normal form for routing, filters, the cache key and the origin.

/// How paths are brought into their normal form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Normalisation {
    /// Whether `//` becomes `/`.
    pub merge_slashes: bool,
    /// What is done with `%2F` and `%5C` in a path.
    pub encoded_slash: EncodedSlash,
}

/// What is done with an encoded slash in a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncodedSlash {
    /// It stays encoded: data, not structure.
    Keep,
    /// The request is refused.
    Refuse,
}

impl Default for Normalisation {
    fn default() -> Self {
        Self { merge_slashes: true, encoded_slash: EncodedSlash::Keep }
    }
}
