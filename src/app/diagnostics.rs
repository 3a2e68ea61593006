//! Diagnostics of the process: where they go, and which are told. A reload may change the latter.

mod flood;
pub(super) mod queue;

use std::sync::OnceLock;
use std::time::Instant;

use arc_swap::ArcSwap;
use env_logger::Logger;
use env_logger::Target;
use env_logger::WriteStyle;
use log::Level;
use log::LevelFilter;
use log::Log;
use log::Metadata;
use log::Record;
use parking_lot::Mutex;

use crate::app::diagnostics::flood::Flood;
use crate::app::diagnostics::flood::Verdict;
use crate::app::diagnostics::queue::Way;
use crate::config::diagnostic::Style;

/// The logger of this process.
struct Diagnostics {
    logger: ArcSwap<Logger>,
    /// What libraries say.
    flood: Mutex<Flood>,
}

static DIAGNOSTICS: OnceLock<Diagnostics> = OnceLock::new();

/// From now on what is as important as `level` is told, or what RUST_LOG says.
pub(super) fn tell(level: LevelFilter) {
    let logger = builder(level).parse_default_env().build();
    let most = logger.filter();
    match DIAGNOSTICS.get() {
        Some(diagnostics) => diagnostics.logger.store(logger.into()),
        None => {
            let diagnostics = DIAGNOSTICS.get_or_init(|| Diagnostics {
                logger: ArcSwap::from_pointee(logger),
                flood: Mutex::default(),
            });
            // A second logger is possible only in tests, where the first one serves as well.
            let _ = log::set_logger(diagnostics);
        }
    }
    log::set_max_level(most);
}

impl Log for Diagnostics {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.logger.load().enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let logger = self.logger.load();
        let is_ours = record.target().starts_with("edgeproxy");
        // Who debugs wants to see everything.
        if is_ours || record.level() > Level::Info {
            return logger.log(record);
        }
        if !logger.matches(record) {
            return;
        }
        let path = record.module_path().unwrap_or(record.target());
        let place = (path.to_owned(), record.line().unwrap_or_default());
        let verdict = self.flood.lock().say(place, Instant::now());
        let add = |text: std::fmt::Arguments<'_>| {
            let (level, target) = (record.level(), record.target());
            logger.log(&Record::builder().level(level).target(target).args(text).build());
        };
        match verdict {
            Verdict::Tell { untold: 0 } => logger.log(record),
            Verdict::Tell { untold } => {
                add(format_args!("{untold} more like this were said since the last one: "));
                logger.log(record);
            }
            Verdict::TellLast => {
                logger.log(record);
                add(format_args!("more like this is only counted for a minute"));
            }
            Verdict::Count => {}
        }
    }

    fn flush(&self) {
        self.logger.load().flush();
    }
}

/// What is told at this level.
fn builder(level: LevelFilter) -> env_logger::Builder {
    let mut builder = env_logger::Builder::new();
    builder.target(Target::Pipe(Box::new(Way))).write_style(match Style::of_stderr() {
        Style::Colour => WriteStyle::Always,
        Style::Plain => WriteStyle::Never,
    });
    builder.filter_level(level.min(LevelFilter::Warn)).filter_module("edgeproxy", level);
    // Who purged or changed what is told at every level but `off`.
    if level != LevelFilter::Off {
        builder.filter_module("edgeproxy::audit", level.max(LevelFilter::Info));
    }
    // Pingora tells of every request that fails; our access log does that.
    builder.filter_module("pingora_proxy", level.min(LevelFilter::Error));
    // It calls an error what is none: a client that had not sent all of its request when an HTTP/2 origin had
    // answered. Nobody has to act, and clients could flood the log.
    if level < LevelFilter::Debug {
        builder.filter_module("pingora_proxy::proxy_custom", LevelFilter::Off);
    }
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_told(level: LevelFilter, target: &str, at: Level) -> bool {
        let record = Record::builder().target(target).level(at).build();
        builder(level).build().matches(&record)
    }

    #[test]
    fn what_pingora_calls_an_error_and_is_none_is_told_to_who_debugs() {
        let custom = "pingora_proxy::proxy_custom";
        assert!(!is_told(LevelFilter::Info, custom, Level::Error));
        assert!(is_told(LevelFilter::Debug, custom, Level::Error));
        assert!(is_told(LevelFilter::Info, "pingora_core::listeners", Level::Error));
        assert!(is_told(LevelFilter::Info, "edgeproxy::app", Level::Info));
        assert!(!is_told(LevelFilter::Off, "edgeproxy::app", Level::Error));
        assert!(is_told(LevelFilter::Error, "edgeproxy::audit", Level::Info));
        assert!(!is_told(LevelFilter::Off, "edgeproxy::audit", Level::Info));
    }
}
