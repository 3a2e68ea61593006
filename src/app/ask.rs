//! Asking the running process, over its admin listener.

use std::io;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::app::Failure;
use crate::app::quick;
use crate::config::plan::AdminAddress;
use crate::config::plan::Plan;
use crate::message::secret::Token;

/// How long an answer may be waited for, and each part of it.
const PATIENCE: Duration = Duration::from_secs(60);
/// The largest answer, in bytes.
const ANSWER_MOST: u64 = 16 << 20;

/// Where a running process is asked.
pub(crate) struct Running {
    at: AdminAddress,
    token: Option<Token>,
}

/// What it answers.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// In which form it is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// For programs.
    Json,
    /// For people.
    Text,
}

/// Why there is no answer.
pub(crate) enum Unheard {
    /// Nobody listens there.
    Nobody,
    /// Anything else.
    Failed(Failure),
}

impl Running {
    /// The process that runs with this configuration.
    ///
    /// # Errors
    /// It has no admin listener.
    pub(crate) fn with(plan: Plan) -> Result<Self, Failure> {
        let at = plan.admin.ok_or_else(|| {
            Failure::other("this configuration has no admin listener, so nobody can be told; write `admin: on`")
        })?;
        Ok(Self { at, token: plan.admin_token })
    }

    /// The process of the one-line mode on this port.
    pub(crate) fn on_port(port: u16) -> Self {
        Self { at: AdminAddress::Unix(quick::admin_socket(port)), token: None }
    }

    /// Where that is, for people.
    pub(crate) fn place(&self) -> String {
        match &self.at {
            AdminAddress::Tcp(at) => at.to_string(),
            AdminAddress::Unix(socket) => socket.display().to_string(),
        }
    }

    /// Posts a JSON body to a path and waits for the answer.
    pub(crate) fn post(&self, path: &str, body: &str, form: Form) -> Result<Answer, Unheard> {
        self.ask("POST", path, body, form)
    }

    /// The same with any method.
    pub(crate) fn ask(
        &self,
        method: &str,
        path: &str,
        body: &str,
        form: Form,
    ) -> Result<Answer, Unheard> {
        let told = match &self.at {
            AdminAddress::Tcp(at) => TcpStream::connect_timeout(at, PATIENCE).and_then(|stream| {
                stream.set_read_timeout(Some(PATIENCE))?;
                self.exchange(stream, &format!("{method} {path}"), body, form)
            }),
            AdminAddress::Unix(socket) => UnixStream::connect(socket).and_then(|stream| {
                stream.set_read_timeout(Some(PATIENCE))?;
                self.exchange(stream, &format!("{method} {path}"), body, form)
            }),
        };
        told.map_err(|e| match e.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Unheard::Nobody,
            _ => Unheard::Failed(Failure::other(format!(
                "the running process cannot be reached: {e}"
            ))),
        })
    }

    fn exchange(
        &self,
        mut stream: impl Read + Write,
        begin: &str,
        body: &str,
        form: Form,
    ) -> io::Result<Answer> {
        let length = body.len();
        let accept = match form {
            Form::Json => "application/json",
            Form::Text => "text/plain",
        };
        let mut request = format!(
            "{begin} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAccept: {accept}\r\n\
             Content-Length: {length}\r\nConnection: close\r\n"
        )
        .into_bytes();
        if let Some(token) = &self.token {
            request.extend_from_slice(b"Authorization: Bearer ");
            request.extend_from_slice(token.reveal());
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        request.extend_from_slice(body.as_bytes());
        stream.write_all(&request)?;
        let mut answer = String::new();
        stream.take(ANSWER_MOST).read_to_string(&mut answer)?;
        let strange = || io::Error::other("it answers what is no HTTP");
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(strange)?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Ok(Answer { status: status.ok_or_else(strange)?, body: body.trim().to_owned() })
    }
}
