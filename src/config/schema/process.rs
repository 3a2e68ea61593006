//! The `process` section, as written.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::config::schema::value::OrAuto;
use crate::units::Period;

/// The process: threads, files, user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Process {
    /// Worker threads, 1 to 1024; `auto` takes one for each core.
    pub threads: OrAuto<u32>,
    /// Where the internal CA and its certificates are kept. `auto`: /var/lib/edgeproxy for root,
    /// else edgeproxy in $XDG_STATE_HOME or ~/.local/state.
    pub state_dir: OrAuto<PathBuf>,
    /// Written when running as a daemon. `auto`: edgeproxy.pid in the state folder.
    pub pid_file: OrAuto<PathBuf>,
    /// Become this user after binding, as a daemon started by root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Become this group after binding, as a daemon started by root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Change into this folder, as a daemon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_directory: Option<PathBuf>,
    /// Where diagnostics go as a daemon. `auto`: edgeproxy.log in the state folder.
    pub log_file: OrAuto<PathBuf>,
    /// The private socket over which a new process takes the listening sockets over. `auto`:
    /// upgrade.sock in the state folder.
    pub upgrade_socket: OrAuto<PathBuf>,
    /// How long requests in flight may take after SIGTERM.
    pub drain_timeout: Period,
    /// Whether this file and those that it names are looked at every second, and the configuration is
    /// reloaded when one of them changes.
    pub watch: bool,
}

impl Default for Process {
    fn default() -> Self {
        Self {
            threads: OrAuto::Auto,
            state_dir: OrAuto::Auto,
            pid_file: OrAuto::Auto,
            user: None,
            group: None,
            working_directory: None,
            log_file: OrAuto::Auto,
            upgrade_socket: OrAuto::Auto,
            drain_timeout: Period(Duration::from_secs(30)),
            watch: false,
        }
    }
}
