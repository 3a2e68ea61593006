//! Handing the listening sockets to a new process, so that an upgrade refuses no connection.
//!
//! The running process offers its sockets on a private Unix socket. A process started with `-u`
//! connects, receives them with their names, starts, and says so; only then does the old one begin
//! to drain. If the new process dies before that, the old one sees the connection end and goes on.
//!
//! Both sides look who is at the other end: the user of this process, the one that it becomes, or root.

use std::io;
use std::io::IoSlice;
use std::io::IoSliceMut;
use std::io::Read;
use std::io::Write;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::unistd::geteuid;
use rustix::net::RecvAncillaryBuffer;
use rustix::net::RecvAncillaryMessage;
use rustix::net::RecvFlags;
use rustix::net::SendAncillaryBuffer;
use rustix::net::SendAncillaryMessage;
use rustix::net::SendFlags;
use rustix::net::recvmsg;
use rustix::net::sendmsg;

/// The most sockets that are handed over; the kernel allows 253 at once.
const MOST: usize = 128;
/// The most bytes of names.
const NAMES: usize = 16 * 1024;
/// What the new process says first, and once it serves.
const HELLO: u8 = b'H';
const READY: u8 = b'R';
/// What an operator says first, who wants this process to start the new one.
pub(super) const UPGRADE: u8 = b'U';
/// What the new process says first where it wants what is stored.
const STORED: u8 = b'S';
/// What the new process says first where it wants the keys of tickets.
const KEYS: u8 = b'K';
/// What a refusal begins with, in the place of names.
const REFUSED: char = '!';
/// How long one step of the exchange may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What somebody wants who connected to the place where sockets are offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Nothing: it was looked whether somebody is there.
    Nothing,
    /// The sockets, to take over.
    Sockets,
    /// What is stored.
    Stored,
    /// The keys of tickets.
    Keys,
    /// That this process starts its successor.
    Successor,
}

/// What became of a process that took the sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Given {
    /// It serves; this process may go.
    Replaced,
    /// It ended before it served.
    Died,
}

/// A socket and the name of what listens on it.
pub(crate) type Named = (String, OwnedFd);

/// The new process's end of the exchange, kept until it serves.
#[derive(Debug)]
pub(crate) struct Taken {
    stream: UnixStream,
    /// What was handed over.
    pub(crate) sockets: Vec<Named>,
}

impl Taken {
    /// Tells the old process to go.
    pub(crate) fn serves(mut self) -> io::Result<()> {
        self.stream.write_all(&[READY])
    }
}

/// Connects to the process that offers its sockets at `path`, which runs as this user, as root, or as
/// `becomes`.
pub(crate) fn connect(path: &Path, becomes: Option<u32>) -> io::Result<UnixStream> {
    let stream = knock(path)?;
    is_trusted(&stream, becomes)?;
    Ok(stream)
}

/// Connects to whoever is at `path`, to ask for something and to hear how that went: nothing is taken from it.
pub(crate) fn knock(path: &Path) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn is_trusted(stream: &UnixStream, becomes: Option<u32>) -> io::Result<()> {
    let peer = getsockopt(stream, PeerCredentials)?.uid();
    if peer == 0 || peer == geteuid().as_raw() || Some(peer) == becomes {
        return Ok(());
    }
    let what =
        format!("who is at the other end runs as user {peer}, which is neither this one nor root");
    Err(io::Error::new(io::ErrorKind::PermissionDenied, what))
}

/// Takes the sockets of the process that offers them at `path`.
pub(crate) fn take(path: &Path, becomes: Option<u32>) -> io::Result<Taken> {
    let mut stream = connect(path, becomes)?;
    stream.write_all(&[HELLO])?;
    let mut names = vec![0u8; NAMES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        &stream,
        &mut [IoSliceMut::new(&mut names)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    let text = std::str::from_utf8(&names[..received.bytes])
        .map_err(|_| io::Error::other("the running process sent names that are not text"))?;
    if let Some(why) = text.strip_prefix(REFUSED) {
        return Err(io::Error::other(why.to_owned()));
    }
    let names: Vec<String> = text.lines().map(str::to_owned).collect();
    if names.is_empty() || names.len() != fds.len() {
        return Err(io::Error::other("the running process handed over no usable sockets"));
    }
    Ok(Taken { stream, sockets: names.into_iter().zip(fds).collect() })
}

/// Hears what somebody wants who connected. Blocks.
pub(crate) fn wanted(stream: &mut UnixStream) -> io::Result<Wanted> {
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut said = [0u8; 1];
    let heard = match stream.read(&mut said) {
        Ok(heard) => heard,
        Err(e) if e.kind() == io::ErrorKind::ConnectionReset => 0,
        Err(e) => return Err(e),
    };
    if heard == 0 {
        return Ok(Wanted::Nothing);
    }
    is_trusted(stream, None)?;
    match said[0] {
        HELLO => Ok(Wanted::Sockets),
        STORED => Ok(Wanted::Stored),
        KEYS => Ok(Wanted::Keys),
        UPGRADE => Ok(Wanted::Successor),
        other => {
            Err(io::Error::other(format!("another version wants something unknown ({other})")))
        }
    }
}

/// Asks for what is stored, on a connection of its own.
pub(crate) fn want_stored(stream: &mut UnixStream) -> io::Result<()> {
    stream.write_all(&[STORED])
}

/// Asks for the keys of tickets, on a connection of its own.
pub(crate) fn want_keys(stream: &mut UnixStream) -> io::Result<()> {
    stream.write_all(&[KEYS])
}

/// Tells who wants the sockets why they are not handed over.
pub(crate) fn refuse(mut stream: UnixStream, why: &str) -> io::Result<()> {
    stream.write_all(format!("{REFUSED}{why}").as_bytes())
}

/// Gives `sockets` to who wants them, and waits until it serves or ends. Blocks.
pub(crate) fn give(mut stream: UnixStream, sockets: &[Named]) -> io::Result<Given> {
    if sockets.is_empty() {
        let why = "this process is ending and has nothing to hand over";
        refuse(stream, why)?;
        return Err(io::Error::other(why));
    }
    let mut names = String::new();
    for (name, _) in sockets {
        names.push_str(name);
        names.push('\n');
    }
    let fds: Vec<_> = sockets.iter().map(|(_, fd)| fd.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if names.len() > NAMES || !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::Error::other("too many listening sockets to hand over"));
    }
    sendmsg(&stream, &[IoSlice::new(names.as_bytes())], &mut control, SendFlags::empty())?;
    // Starting takes as long as it takes: certificates, a large index. A dead process ends it.
    stream.set_read_timeout(None)?;
    Ok(if heard(&mut stream, READY)? { Given::Replaced } else { Given::Died })
}

/// Whether this is what the other side says next; `false` when it is gone.
fn heard(stream: &mut UnixStream, what: u8) -> io::Result<bool> {
    let mut said = [0u8; 1];
    match stream.read(&mut said) {
        Ok(n) => Ok(n == 1 && said[0] == what),
        Err(e) if e.kind() == io::ErrorKind::ConnectionReset => Ok(false),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    #[test]
    fn sockets_change_hands_and_go_on_listening() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("upgrade.sock");
        let place = UnixListener::bind(&path).unwrap();
        let listening = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listening.local_addr().unwrap();
        let old = std::thread::spawn(move || {
            let (mut stream, _) = place.accept().unwrap();
            assert_eq!(wanted(&mut stream).unwrap(), Wanted::Sockets);
            give(stream, &[("http".to_owned(), listening.into())]).unwrap()
        });

        let mut taken = take(&path, None).unwrap();
        let (name, fd) = taken.sockets.pop().unwrap();
        assert_eq!(name, "http");
        let inherited = TcpListener::from(fd);
        assert_eq!(inherited.local_addr().unwrap(), address);
        taken.serves().unwrap();
        assert_eq!(old.join().unwrap(), Given::Replaced);

        let client = std::thread::spawn(move || std::net::TcpStream::connect(address));
        assert!(inherited.accept().is_ok());
        assert!(client.join().unwrap().is_ok());
    }

    #[test]
    fn a_new_process_that_dies_leaves_the_old_one_in_charge() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("upgrade.sock");
        let place = UnixListener::bind(&path).unwrap();
        let listening = TcpListener::bind("127.0.0.1:0").unwrap();
        let old = std::thread::spawn(move || {
            let (mut stream, _) = place.accept().unwrap();
            assert_eq!(wanted(&mut stream).unwrap(), Wanted::Sockets);
            give(stream, &[("http".to_owned(), listening.into())]).unwrap()
        });
        drop(take(&path, None).unwrap());
        assert_eq!(old.join().unwrap(), Given::Died);
    }

    #[test]
    fn who_only_knocks_is_given_nothing() {
        let (knocking, mut place) = UnixStream::pair().unwrap();
        drop(knocking);
        assert_eq!(wanted(&mut place).unwrap(), Wanted::Nothing);
    }

    #[test]
    fn a_process_that_ends_hands_nothing_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("upgrade.sock");
        let place = UnixListener::bind(&path).unwrap();
        let old = std::thread::spawn(move || {
            let mut stream = place.accept().unwrap().0;
            assert_eq!(wanted(&mut stream).unwrap(), Wanted::Sockets);
            give(stream, &[])
        });
        let error = take(&path, None).unwrap_err();
        assert!(error.to_string().contains("is ending"), "{error}");
        assert!(old.join().unwrap().is_err());
    }

    #[test]
    fn nobody_there_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(take(&folder.path().join("none.sock"), None).is_err());
    }
}
