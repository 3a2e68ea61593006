//! What comes of a reload, for everybody who asks for one.

use std::fmt;

use futures_util::future::BoxFuture;

use crate::config::diagnostic::Diagnostics;
use crate::config::diagnostic::Style;
use crate::config::diff::Beyond;
use crate::config::diff::Changes;

/// Who or what wants the configuration to be read again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Occasion {
    /// A signal.
    Signal,
    /// Somebody at the admin listener: the address, or `unix` for whoever may open the socket.
    Admin(String),
    /// A file has changed.
    File,
}

/// The new configuration is in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloaded {
    /// What differs; nothing where nothing does.
    pub changes: Changes,
    /// What may not be meant.
    pub warnings: Diagnostics,
}

/// Why the configuration in use stays, wholly and unchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// The process runs without a file.
    NoFile,
    /// The process is ending.
    Ending,
    /// This is wrong with the file.
    Wrong(Diagnostics),
    /// It differs in what a running process cannot change.
    Beyond(Vec<Beyond>),
    /// Something that it names cannot be used: an address, a certificate, a file.
    Unusable(String),
}

/// Reads the configuration again and puts it to use.
pub trait Reload: Send + Sync + 'static {
    /// Does it to its end, also where nobody waits for that.
    fn reload(&self, by: Occasion) -> BoxFuture<'static, Result<Reloaded, Refused>>;
}

impl Occasion {
    /// The word for it in logs.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Signal => "signal",
            Self::Admin(_) => "admin",
            Self::File => "file",
        }
    }

    /// From where; empty where that is this machine's affair.
    #[must_use]
    pub fn from(&self) -> &str {
        match self {
            Self::Admin(from) => from,
            Self::Signal | Self::File => "",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFile => f.write_str(
                "this process runs without a configuration file: start the new one with -u",
            ),
            Self::Ending => f.write_str("this process is ending"),
            // In the words of `check`.
            Self::Wrong(diagnostics) => f.write_str(diagnostics.render(Style::Plain).trim_end()),
            Self::Beyond(beyond) => {
                f.write_str("nothing is changed, since a running process cannot change")?;
                let keys: Vec<String> = beyond.iter().map(ToString::to_string).collect();
                write!(f, " {}", keys.join("; "))
            }
            Self::Unusable(why) => f.write_str(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::diff::Needs;

    #[test]
    fn what_a_process_cannot_change_is_told_with_what_to_do() {
        let beyond = vec![
            Beyond { key: "process.threads", needs: Needs::Upgrade },
            Beyond { key: "process.upgrade_socket", needs: Needs::Restart },
        ];
        assert_eq!(
            Refused::Beyond(beyond).to_string(),
            "nothing is changed, since a running process cannot change process.threads: start a new \
             process with -u; process.upgrade_socket: stop the process and start it again"
        );
    }
}
