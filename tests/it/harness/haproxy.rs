//! A real HAProxy, the author of the PROXY protocol.

use std::net::SocketAddr;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

use tempfile::TempDir;

use super::acme;

const PORT: u16 = 8000;
const BASE: &str = "global\n  maxconn 100\ndefaults\n  timeout connect 30s\n  timeout client 30s\n  timeout server 30s\n";

/// A running HAProxy; dropping it ends it.
pub(crate) struct Haproxy {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    child: Child,
    _folder: TempDir,
}

impl Haproxy {
    /// One with these sections, in which `{here}` is the address that it should bind.
    pub(crate) fn start(sections: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        // Nobody else has this address, so any port of it is free.
        let address = SocketAddr::from((acme::address(), PORT));
        let config = folder.path().join("haproxy.cfg");
        let text = format!("{BASE}{}", sections.replace("{here}", &address.to_string()));
        std::fs::write(&config, text).expect("the folder can be written to");
        // Debian keeps it where only root's PATH looks.
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/local/sbin:/usr/sbin";
        let child = Command::new("haproxy")
            .env("PATH", path)
            .args(["-db", "-q", "-f"])
            .arg(&config)
            .stdin(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("haproxy cannot be run ({e}): scripts/setup test"));
        let haproxy = Self { address, child, _folder: folder };
        acme::await_port(address);
        haproxy
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
