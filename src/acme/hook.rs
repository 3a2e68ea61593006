//! DNS records by a program of the operator's.
//!
//! It is told by its environment what to do, and has done it when it ends well; that the record can be seen
//! from outside by then is its business, since only it knows the DNS.

use std::io;
use std::io::Read;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::sync::mpsc::Sender;
use std::sync::mpsc::channel;
use std::thread::sleep;
use std::thread::spawn;
use std::time::Duration;
use std::time::Instant;

use log::info;
use log::warn;
use tokio::task::spawn_blocking;

use crate::acme::Hook;

/// The most characters of its output that are logged or told.
const OUTPUT: usize = 2000;

/// The time between two looks whether a program has ended.
const LOOK: Duration = Duration::from_millis(20);

/// How long its output is waited for when it has.
const AFTERWARDS: Duration = Duration::from_millis(500);

/// What is to be done with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    Set,
    Remove,
}

impl Deed {
    fn word(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::Remove => "remove",
        }
    }
}

/// A TXT record by which a DNS server shows whose a host is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// The host, without `*.`.
    pub(super) host: String,
    /// What the record says.
    pub(super) value: String,
}

impl Record {
    /// Where the record stands (RFC 8555 §8.4).
    fn name(&self) -> String {
        format!("_acme-challenge.{}", self.host)
    }
}

impl Hook {
    /// Runs the program for a record and waits for its end.
    pub(super) async fn run(&self, deed: Deed, record: &Record) -> Result<(), String> {
        let (hook, record) = (self.clone(), record.clone());
        let ran = spawn_blocking(move || hook.run_here(deed, &record));
        ran.await.map_err(|e| e.to_string())?
    }

    /// The same; blocks.
    fn run_here(&self, deed: Deed, record: &Record) -> Result<(), String> {
        let Some((program, arguments)) = self.command.split_first() else {
            return Err("there is no command for DNS records".to_owned());
        };
        let name = record.name();
        let mut child = Command::new(program)
            .args(arguments)
            .env("ACME_ACTION", deed.word())
            .env("ACME_DOMAIN", &record.host)
            .env("ACME_NAME", &name)
            .env("ACME_VALUE", &record.value)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| format!("{program} cannot be started: {e}"))?;
        let (tell, said) = channel();
        if let Some(stdout) = child.stdout.take() {
            listen(stdout, tell.clone());
        }
        if let Some(stderr) = child.stderr.take() {
            listen(stderr, tell);
        }
        let ended = wait(&mut child, self.timeout);
        // A program may leave others behind that hold on to its output.
        let output: Vec<u8> =
            std::iter::from_fn(|| said.recv_timeout(AFTERWARDS).ok()).flatten().collect();
        let output = readable(&output);
        let Some(status) = ended.map_err(|e| format!("{program} cannot be waited for: {e}"))?
        else {
            let why = format!("{program} took longer than {:?}", self.timeout);
            return Err(if output.is_empty() { why } else { format!("{why}: {output}") });
        };
        if !status.success() {
            let why = format!("{program} for {} {name} ended with {status}", deed.word());
            return Err(if output.is_empty() { why } else { format!("{why}: {output}") });
        }
        info!(
            target: "edgeproxy::acme",
            "{program}: {} {name}{}{output}",
            deed.word(),
            if output.is_empty() { "" } else { ": " }
        );
        Ok(())
    }

    /// Removes a record, which is tidiness: that it stays harms nothing.
    pub(super) async fn remove(&self, record: &Record) {
        if let Err(why) = self.run(Deed::Remove, record).await {
            warn!(target: "edgeproxy::acme", "a DNS record stays behind: {why}");
        }
    }
}

/// Waits for the end of a program; `None`: it took too long and was killed.
fn wait(child: &mut Child, patience: Duration) -> io::Result<Option<ExitStatus>> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if started.elapsed() >= patience {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        sleep(LOOK);
    }
}

/// Takes a program's output in, all of it, so that it never waits for us, and tells its beginning.
fn listen(mut output: impl Read + Send + 'static, tell: Sender<Vec<u8>>) {
    spawn(move || {
        let mut told = 0;
        let mut part = [0; 4096];
        while let Ok(length) = output.read(&mut part)
            && length > 0
        {
            if told < OUTPUT {
                told += length;
                let _ = tell.send(part[..length].to_vec());
            }
        }
    });
}

/// What a program said, as one line.
fn readable(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let text: String = text.trim().chars().take(OUTPUT).collect();
    text.split('\n').map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" / ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(script: &str, timeout: u64) -> Hook {
        Hook {
            command: ["sh", "-c", script].map(str::to_owned).to_vec(),
            timeout: Duration::from_millis(timeout),
        }
    }

    fn record() -> Record {
        Record { host: "a.test".to_owned(), value: "v-_1".to_owned() }
    }

    #[tokio::test]
    async fn the_program_is_told_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("said");
        let script =
            format!("echo $ACME_ACTION $ACME_DOMAIN $ACME_NAME $ACME_VALUE > {}", file.display());
        hook(&script, 30_000).run(Deed::Set, &record()).await.unwrap();
        let said = std::fs::read_to_string(&file).unwrap();
        assert_eq!(said, "set a.test _acme-challenge.a.test v-_1\n");
    }

    #[tokio::test]
    async fn what_goes_wrong_is_told_with_what_the_program_said() {
        let why = hook("echo no zone; exit 3", 30_000).run(Deed::Set, &record()).await.unwrap_err();
        assert!(why.contains("exit status: 3") && why.contains("no zone"), "{why}");
        let why = hook("sleep 30", 50).run(Deed::Remove, &record()).await.unwrap_err();
        assert!(why.contains("took longer"), "{why}");
        let nobody = Hook { command: vec!["/no/such".to_owned()], timeout: Duration::from_secs(9) };
        let why = nobody.run(Deed::Set, &record()).await.unwrap_err();
        assert!(why.contains("cannot be started"), "{why}");
    }
}
