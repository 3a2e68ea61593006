//! Handing the listening sockets to a new process, so that an upgrade refuses no connection.
//!
//! The running process offers its sockets on a private Unix socket. A process started with `-u`
//! connects, receives them with their names, starts, and says so; only then does the old one begin
//! to drain. If the new process dies before that, the old one sees the connection end and goes on.

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
/// What the new process says first, and once it serves. Who says nothing only looks whether somebody
/// is there.
const HELLO: u8 = b'H';
const READY: u8 = b'R';
/// How long one step of the exchange may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What became of a connection to the place where sockets are offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Given {
    /// The other side serves; this process may go.
    Replaced,
    /// The other side took the sockets and ended before it served.
    Died,
    /// The other side wanted nothing.
    Nothing,
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

/// Takes the sockets of the process that offers them at `path`.
pub(crate) fn take(path: &Path) -> io::Result<Taken> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
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
    let names: Vec<String> = text.lines().map(str::to_owned).collect();
    if names.is_empty() || names.len() != fds.len() {
        return Err(io::Error::other("the running process handed over no usable sockets"));
    }
    Ok(Taken { stream, sockets: names.into_iter().zip(fds).collect() })
}

/// Gives `sockets` to whoever connected.
pub(crate) fn give(mut stream: UnixStream, sockets: &[Named]) -> io::Result<Given> {
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    if !heard(&mut stream, HELLO)? {
        return Ok(Given::Nothing);
    }
    if sockets.is_empty() {
        return Err(io::Error::other("this process is ending and has nothing to hand over"));
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
            let (stream, _) = place.accept().unwrap();
            give(stream, &[("http".to_owned(), listening.into())]).unwrap()
        });

        let mut taken = take(&path).unwrap();
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
            let (stream, _) = place.accept().unwrap();
            give(stream, &[("http".to_owned(), listening.into())]).unwrap()
        });
        drop(take(&path).unwrap());
        assert_eq!(old.join().unwrap(), Given::Died);
    }

    #[test]
    fn who_only_knocks_is_given_nothing() {
        let (knocking, place) = UnixStream::pair().unwrap();
        drop(knocking);
        let listening = TcpListener::bind("127.0.0.1:0").unwrap();
        let given = give(place, &[("http".to_owned(), listening.into())]).unwrap();
        assert_eq!(given, Given::Nothing);
    }

    #[test]
    fn a_process_that_ends_hands_nothing_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("upgrade.sock");
        let place = UnixListener::bind(&path).unwrap();
        let old = std::thread::spawn(move || give(place.accept().unwrap().0, &[]));
        assert!(take(&path).is_err());
        assert!(old.join().unwrap().is_err());
    }

    #[test]
    fn nobody_there_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(take(&folder.path().join("none.sock")).is_err());
    }
}
