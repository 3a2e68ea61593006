//! `--clear-cache`: empties the cache of the running process.

use std::io;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::app::Failure;
use crate::app::cli::Cli;
use crate::app::load;
use crate::app::quick;
use crate::config::plan::AdminAddress;

const PATIENCE: Duration = Duration::from_secs(10);

/// Tells the running process to clear its cache; returns what to say about it.
pub(crate) fn clear(cli: &Cli) -> Result<String, Failure> {
    let address = if cli.conf.is_some() {
        load(cli)?.plan.admin.ok_or_else(|| {
            Failure::other("this configuration has no admin listener, so nobody can be told; write `admin: on`")
        })?
    } else if let Some(port) = cli.quick.port {
        AdminAddress::Unix(quick::admin_socket(port))
    } else {
        return Err(Failure::usage(
            "--clear-cache needs to know whose: edgeproxy --clear-cache --port 3000, or -c FILE",
        ));
    };
    match ask(&address) {
        Ok(answer) if answer.starts_with("HTTP/1.1 200") => {
            let count = answer.rsplit("\r\n\r\n").next().unwrap_or_default().trim();
            Ok(format!("The cache is cleared: {count}"))
        }
        Ok(answer) => {
            let line = answer.lines().next().unwrap_or("nothing");
            Err(Failure::other(format!("the running process answered: {line}")))
        }
        Err(e) if is_nobody(&e) => {
            Ok("No running process answers, and nothing is stored on disk: there is no cache to \
                clear."
                .to_owned())
        }
        Err(e) => Err(Failure::other(format!("the running process cannot be reached: {e}"))),
    }
}

fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

fn ask(address: &AdminAddress) -> io::Result<String> {
    match address {
        AdminAddress::Tcp(at) => {
            let stream = TcpStream::connect_timeout(at, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            exchange(stream)
        }
        AdminAddress::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            exchange(stream)
        }
    }
}

fn exchange(mut stream: impl Read + Write) -> io::Result<String> {
    stream.write_all(
        b"POST /cache/clear HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    )?;
    let mut answer = String::new();
    stream.take(64 * 1024).read_to_string(&mut answer)?;
    Ok(answer)
}
