//! Host, path and query: one normal form for routing, filters, the cache key and the origin.
//!
//! Two parties that read one target differently are how caches are poisoned and rules walked
//! around. So there is one reading, taken before anything decides, and it is also what the origin
//! is sent. What could be read in two ways has no normal form and is refused.
//!
//! | raw | normal form |
//! |---|---|
//! | escaped unreserved character (`%41`) | the character (RFC 3986 §6.2.2.2) |
//! | any other escape (`%e9`) | upper-case hex (§6.2.2.1) |
//! | a byte that no URI may hold (`é`, `{`) | its escape |
//! | dot segments, written `.` or `%2e` | removed (§6.2.2.3); refused if they climb above the root |
//! | `//` in the path | `/`, when so configured |
//! | `%zz`, `%00`, an escaped control, `\` in the path | refused |
//! | a lone `%` in the query | `%25` |

mod authority;
mod host;
mod normal;
#[cfg(test)]
mod tests;

use std::fmt;

pub use crate::message::target::authority::Authority;
pub use crate::message::target::host::Host;
use crate::refusal::Refusal;

/// How paths are brought into their normal form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Normalisation {
    /// Whether `//` becomes `/`; at the front of a path it always does.
    pub merge_slashes: bool,
    /// What is done with `%2F` and `%5C` in a path.
    pub encoded_slash: EncodedSlash,
}

/// What is done with an encoded slash in a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncodedSlash {
    /// It stays encoded: data, not structure.
    ///
    /// A segment that would climb if the slash were decoded (`..%2F`) is refused all the same.
    Keep,
    /// The request is refused.
    Refuse,
}

impl Default for Normalisation {
    fn default() -> Self {
        Self { merge_slashes: true, encoded_slash: EncodedSlash::Keep }
    }
}

/// The scheme of a request (RFC 9110 §4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// `http`
    Http,
    /// `https`
    Https,
}

impl Scheme {
    /// Reads `http` or `https` in any case.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.eq_ignore_ascii_case(b"http") {
            Some(Self::Http)
        } else if text.eq_ignore_ascii_case(b"https") {
            Some(Self::Https)
        } else {
            None
        }
    }

    /// `http` or `https`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that is meant when none is written: 80 or 443.
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A path and a query in normal form, held as the one text that the origin is sent.
///
/// The text is ASCII and always valid as `http::uri::PathAndQuery`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    text: String,
    /// Where the path ends: at the `?`, or at the end of the text.
    path_end: usize,
}

impl Target {
    /// Brings an origin-form target (RFC 9112 §3.2.1) into its normal form.
    ///
    /// One that is normal already is copied and nothing else.
    ///
    /// # Errors
    /// [`Refusal::ControlByte`] for a raw control byte, [`Refusal::BadTarget`] for everything else
    /// that has no normal form.
    pub fn normalise(raw: &[u8], how: &Normalisation) -> Result<Self, Refusal> {
        let (text, path_end) = normal::normalise(raw, how)?;
        Ok(Self { text, path_end })
    }

    /// The target of `OPTIONS *` (RFC 9112 §3.2.4).
    #[must_use]
    pub fn asterisk() -> Self {
        Self { text: "*".to_owned(), path_end: 1 }
    }

    /// The path: begins with `/`, or is `*` alone.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.text[..self.path_end]
    }

    /// What follows the `?`; `None` without one, empty if nothing follows it.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.text.get(self.path_end + 1..)
    }

    /// Path, `?` and query: what the origin is sent.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
