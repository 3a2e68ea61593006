//! What operators see: metrics and the access log.

pub mod access_log;
pub mod metrics;

use std::path::PathBuf;

/// The access log, as meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog {
    /// Where lines go; `None` writes none.
    pub to: Option<Sink>,
    /// How a line looks.
    pub format: Format,
    /// Which fields a line has, in this order.
    pub fields: Vec<access_log::Field>,
    /// How many lines may wait; more are dropped and counted.
    pub queue: usize,
}

/// Where access log lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sink {
    /// Standard output.
    Stdout,
    /// A file, opened again on SIGUSR1.
    File(PathBuf),
}

/// How an access log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// `key=value` pairs, values quoted where needed.
    Text,
}
