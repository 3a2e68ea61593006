//! Quantities that people write: `64KiB`, `30s`, `5m`. Parsed once, typed from then on.

use std::time::Duration;

/// A number of bytes; written `512`, `64KiB`, `10MB`, `1GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// A length of time; written `500ms`, `30s`, `5m`, `1h30m`, `7d`, or a bare `0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(pub Duration);
