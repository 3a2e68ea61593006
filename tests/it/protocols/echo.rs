//! Origins that say back what they are told, one piece after the other: they do not read while they write.

use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::net::TcpStream;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::Sender;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use crate::harness::Edge;
use crate::harness::PATIENCE;
use crate::harness::websocket;
use crate::protocols::edge_to;

/// More than all buffers on the way hold together.
const IN_ALL: usize = 24 * 1024 * 1024;

/// Answers one request on each connection, with `head` and with all that comes behind the request's head.
fn echoing(at: &Path, head: String) {
    let listener = UnixListener::bind(at).expect("a socket can be made");
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let head = head.clone();
            thread::spawn(move || echo(stream, &head));
        }
    });
}

fn echo(mut stream: UnixStream, head: &str) {
    let mut from = BufReader::new(stream.try_clone().expect("a second handle"));
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        if from.read_line(&mut line).is_ok_and(|bytes| bytes == 0) {
            return;
        }
    }
    if stream.write_all(head.as_bytes()).is_err() {
        return;
    }
    let mut piece = vec![0; 64 * 1024];
    while let Ok(bytes @ 1..) = from.read(&mut piece) {
        if stream.write_all(&piece[..bytes]).is_err() {
            return;
        }
    }
}

fn bytes() -> Vec<u8> {
    (0..IN_ALL).map(|n| u8::try_from(n * 7 % 251).expect("it is small")).collect()
}

/// Sends `head` and everything on one thread while it is read on another; what came behind the answer's head.
#[track_caller]
fn to_and_fro(edge: &Edge, head: &str, status: &str) -> Vec<u8> {
    let mut to = TcpStream::connect(edge.address("http")).expect("it listens");
    let from = to.try_clone().expect("a second handle");
    from.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    to.write_all(head.as_bytes()).expect("the head is taken");
    let mut from = BufReader::new(from);
    let mut line = String::new();
    let mut sender = None;
    // Who offers a tunnel waits for the agreement; who uploads does not.
    let mut send = || {
        thread::spawn({
            let mut to = to.try_clone().expect("a third handle");
            move || to.write_all(&bytes())
        })
    };
    if status.contains("200") {
        sender = Some(send());
    }
    from.read_line(&mut line).expect("an answer comes");
    assert!(line.contains(status), "{line}");
    while line != "\r\n" {
        line.clear();
        from.read_line(&mut line).expect("a whole head comes");
    }
    let sender = sender.unwrap_or_else(&mut send);
    let mut came = vec![0; IN_ALL];
    from.read_exact(&mut came).expect("all of it comes back");
    sender.join().expect("it sends").expect("all of it is taken");
    came
}

#[test]
fn a_tunnel_to_an_origin_that_echoes_does_not_stall() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let at = folder.path().join("origin");
    echoing(&at, websocket::agreement());
    let edge = edge_to(&format!("addresses: [\"unix:{}\"]", at.display()));
    let came = to_and_fro(&edge, &websocket::handshake("/"), "101");
    assert!(came == bytes(), "what came back is something else");
}

#[test]
fn an_upload_to_an_origin_that_echoes_does_not_stall() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let at = folder.path().join("origin");
    echoing(&at, format!("HTTP/1.1 200 OK\r\nContent-Length: {IN_ALL}\r\n\r\n"));
    let edge = edge_to(&format!("addresses: [\"unix:{}\"]", at.display()));
    let head = format!("POST / HTTP/1.1\r\nHost: edge.test\r\nContent-Length: {IN_ALL}\r\n\r\n");
    let came = to_and_fro(&edge, &head, "200");
    assert!(came == bytes(), "what came back is something else");
}

/// Refuses an upload of everything before it reads any of it, says that this was all, and reads it nevertheless.
fn refusing(at: &Path, read: Sender<usize>) {
    let listener = UnixListener::bind(at).expect("a socket can be made");
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("somebody comes");
        let mut from = BufReader::with_capacity(1, stream.try_clone().expect("a second handle"));
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            from.read_line(&mut line).expect("a head comes");
        }
        // Until no more is taken.
        thread::sleep(Duration::from_millis(300));
        let answer = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(answer).expect("the answer is taken");
        stream.shutdown(Shutdown::Write).expect("it has an end");
        thread::sleep(Duration::from_millis(300));
        let bytes = io::copy(&mut stream.take(IN_ALL as u64), &mut io::sink());
        let _ = read.send(usize::try_from(bytes.expect("the body comes")).expect("it is small"));
    });
}

#[test]
fn an_upload_goes_on_behind_an_early_answer_and_the_end_of_its_origin() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let at = folder.path().join("origin");
    let (read, was_read) = channel();
    refusing(&at, read);
    let edge = edge_to(&format!("addresses: [\"unix:{}\"]", at.display()));
    let mut to = TcpStream::connect(edge.address("http")).expect("it listens");
    let head = format!("POST / HTTP/1.1\r\nHost: edge.test\r\nContent-Length: {IN_ALL}\r\n\r\n");
    to.write_all(head.as_bytes()).expect("the head is taken");
    let mut from = BufReader::new(to.try_clone().expect("a second handle"));
    from.get_ref().set_read_timeout(Some(PATIENCE)).expect("a time limit");
    let sender = thread::spawn(move || to.write_all(&bytes()));
    let mut line = String::new();
    from.read_line(&mut line).expect("an answer comes");
    assert!(line.contains("413"), "{line}");
    assert_eq!(was_read.recv_timeout(PATIENCE), Ok(IN_ALL), "the origin gets all of it");
    sender.join().expect("it sends").expect("all of it is taken");
}
