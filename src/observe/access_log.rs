//! One line a request, chosen fields, never blocking.

/// A field of an access log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Field {
    /// When the request arrived.
    Time,
}
