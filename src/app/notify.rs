//! What the service manager is told: `sd_notify(3)` and its watchdog, in plain datagrams.
//!
//! Nothing here can fail for anybody: where no manager listens, or it does not, the process goes on.

use std::ffi::OsString;
use std::io;
use std::io::IoSlice;
use std::io::Read;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use log::debug;
use nix::time::ClockId;
use nix::time::clock_gettime;
use rustix::net::SendAncillaryBuffer;
use rustix::net::SendAncillaryMessage;
use rustix::net::SendFlags;
use rustix::net::sendmsg;

/// Where the manager listens.
const SOCKET: &str = "NOTIFY_SOCKET";
/// How often it wants to hear of us, in microseconds, and of which process.
const WATCHDOG: &str = "WATCHDOG_USEC";
const WATCHDOG_PID: &str = "WATCHDOG_PID";
/// How long it may take to take note of something.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the manager is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News {
    /// The process serves, with this configuration.
    Ready,
    /// It reads its configuration again.
    Reloading,
    /// It does not end, but what it was told to do came to nothing.
    Refused(String),
    /// It ends.
    Stopping,
    /// Another process is the one to look after from now on.
    Successor(u32),
    /// It lives.
    Alive,
}

impl News {
    fn text(&self) -> String {
        match self {
            Self::Ready => "READY=1\nSTATUS=serving".to_owned(),
            Self::Reloading => {
                let now = clock_gettime(ClockId::CLOCK_MONOTONIC);
                let micros = now.map_or(0, |now| now.tv_sec() * 1_000_000 + now.tv_nsec() / 1000);
                format!("RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS=reading the configuration")
            }
            Self::Refused(why) => {
                format!("READY=1\nSTATUS=serving; the configuration is not reloaded: {}", line(why))
            }
            Self::Stopping => "STOPPING=1\nSTATUS=draining".to_owned(),
            Self::Successor(pid) => format!("MAINPID={pid}"),
            Self::Alive => "WATCHDOG=1".to_owned(),
        }
    }
}

/// What a status can say: one line.
fn line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// Tells the manager, if there is one.
pub(crate) fn tell(news: &News) {
    if let Some(name) = std::env::var_os(SOCKET)
        && let Err(e) = manager(&name).and_then(|manager| manager.send(news.text().as_bytes()))
    {
        debug!(target: "edgeproxy::app", "the service manager cannot be told {news:?}: {e}");
    }
}

/// Tells the manager, and waits until it took note: who sends may be gone a moment later.
pub(crate) fn tell_and_wait(news: &News) {
    tell(news);
    if let Some(name) = std::env::var_os(SOCKET)
        && let Err(e) = barrier(&name)
    {
        debug!(target: "edgeproxy::app", "the service manager does not say that it heard: {e}");
    }
}

/// The manager closes what it is sent when it has looked at all that came before.
fn barrier(name: &OsString) -> io::Result<()> {
    let (mut ours, theirs) = UnixStream::pair()?;
    ours.set_read_timeout(Some(PATIENCE))?;
    let fds = [theirs.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if control.push(SendAncillaryMessage::ScmRights(&fds)) {
        let text = [IoSlice::new(b"BARRIER=1")];
        sendmsg(&manager(name)?, &text, &mut control, SendFlags::empty())?;
    }
    drop(theirs);
    ours.read(&mut [0]).map(|_| ())
}

/// A way to the manager that listens there: a path, or a name behind an `@` that is in no file system.
fn manager(name: &OsString) -> io::Result<UnixDatagram> {
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

/// How often the manager is to be told that this process lives, if it wants to know: three times within what
/// it allows, so that two processes that follow one another leave no gap.
fn beat() -> Option<Duration> {
    let allowed: u64 = std::env::var(WATCHDOG).ok()?.parse().ok().filter(|allowed| *allowed > 0)?;
    let meant =
        std::env::var(WATCHDOG_PID).ok().is_none_or(|pid| pid == std::process::id().to_string());
    meant.then(|| Duration::from_micros(allowed / 3))
}

/// Tells the manager that this process lives, for as long as its runtime does anything.
pub(crate) async fn keep_alive() {
    let Some(beat) = beat() else { return };
    let mut every = tokio::time::interval(beat.max(Duration::from_millis(1)));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        every.tick().await;
        tell(&News::Alive);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_are_what_sd_notify_knows() {
        assert_eq!(News::Successor(7).text(), "MAINPID=7");
        assert_eq!(News::Stopping.text().lines().next(), Some("STOPPING=1"));
        let refused = News::Refused("no route\nREADY=0".to_owned()).text();
        assert_eq!(refused.lines().count(), 2, "{refused}");
        let text = News::Reloading.text();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("RELOADING=1"));
        let micros = lines.next().and_then(|line| line.strip_prefix("MONOTONIC_USEC=")).unwrap();
        assert!(micros.parse::<u64>().unwrap() > 0);
    }

    #[test]
    fn a_name_that_is_no_address_is_an_error_and_no_more() {
        assert!(manager(&OsString::from("")).is_err());
        assert!(manager(&OsString::from("/none/there")).is_err());
        assert!(manager(&OsString::from(format!("@{}", "x".repeat(200)))).is_err());
    }
}
