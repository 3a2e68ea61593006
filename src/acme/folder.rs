//! What is kept of one ACME server, in a folder that several nodes may share.
//!
//! ```text
//! account.json        the account and its key
//! NAME.pem            a certificate, its chain and its key
//! NAME.json           how the last attempts went
//! NAME.lock           held by who orders it
//! challenges/TOKEN    what is shown to the server now
//! ```
//!
//! Files are for their owner alone, and replaced as a whole. Locks are those of the kernel: they end with the
//! process that holds them, however it ends.

use std::fs::File;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use instant_acme::AccountCredentials;
use nix::errno::Errno;
use nix::fcntl::Flock;
use nix::fcntl::FlockArg;
use serde::Deserialize;
use serde::Serialize;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::acme::decide::Validity;
use crate::tls::disk;
use crate::tls::issued;
use crate::tls::leaf::Identity;

/// The time between two attempts to get a lock that another node has.
pub(super) const POLL: Duration = Duration::from_millis(500);

/// How old a text is that nobody can be interested in any more.
const LEFT: Duration = Duration::from_secs(24 * 3600);

/// A folder of one server's.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    path: PathBuf,
}

/// Held by who orders.
#[derive(Debug)]
pub(super) struct Lock {
    _file: Flock<File>,
}

/// How the last attempts at a certificate went.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Record {
    /// How many failed in a row.
    pub(super) failures: u32,
    /// Not to be tried before this, in seconds since the epoch.
    pub(super) again: Option<u64>,
    /// Why the last one failed.
    pub(super) error: Option<String>,
    /// When the last one succeeded, in seconds since the epoch.
    pub(super) succeeded: Option<u64>,
    /// When the server asks for a renewal, in seconds since the epoch, and when to ask it again.
    pub(super) suggested: Option<u64>,
    pub(super) ask_again: Option<u64>,
}

/// A certificate that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) validity: Validity,
    /// `None`: nothing can be asked about it.
    pub(super) identity: Option<Identity>,
    pub(super) der: Vec<u8>,
    /// When it was put there.
    pub(super) written: SystemTime,
}

impl Folder {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Where nodes show each other's texts.
    pub(super) fn challenges(&self) -> PathBuf {
        self.path.join("challenges")
    }

    /// The certificate for these hosts. One that cannot be used is as good as none, and told by who
    /// serves it.
    pub(super) async fn kept(&self, hosts: &[String]) -> Option<Kept> {
        let (path, hosts) = (self.path.clone(), hosts.to_vec());
        let looked = spawn_blocking(move || {
            let found = issued::load(&path, &hosts).ok()??;
            let der = found.certified.cert.first()?;
            let moment =
                |seconds: i64| UNIX_EPOCH + Duration::from_secs(seconds.max(0).unsigned_abs());
            let written = issued::place(&path, &hosts).metadata().and_then(|file| file.modified());
            Some(Kept {
                validity: Validity {
                    from: moment(found.leaf.not_before),
                    until: moment(found.leaf.not_after),
                },
                identity: Identity::read(der),
                der: der.to_vec(),
                written: written.unwrap_or(UNIX_EPOCH),
            })
        });
        looked.await.ok().flatten()
    }

    /// Keeps what was issued.
    pub(super) async fn keep(
        &self,
        hosts: &[String],
        chain: String,
        key: String,
    ) -> Result<(), String> {
        let (path, hosts) = (self.path.clone(), hosts.to_vec());
        let kept = spawn_blocking(move || issued::keep(&path, &hosts, &chain, &key));
        let kept = kept.await.map_err(|e| e.to_string())?;
        kept.map(drop).map_err(|e| e.to_string())
    }

    /// The lock of this name, unless another has it.
    pub(super) async fn try_lock(&self, name: &str) -> Result<Option<Lock>, String> {
        let (folder, path) = (self.path.clone(), self.path.join(format!("{name}.lock")));
        let tried = spawn_blocking(move || {
            disk::make_folder(&folder).map_err(|e| e.to_string())?;
            let said = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
            let mut options = OpenOptions::new();
            let options = options.write(true).create(true).truncate(false).mode(0o600);
            let file = options.open(&path).map_err(|e| said(&e))?;
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) => Ok(Some(Lock { _file: file })),
                Err((_, Errno::EWOULDBLOCK)) => Ok(None),
                Err((_, e)) => Err(said(&e)),
            }
        });
        tried.await.map_err(|e| e.to_string())?
    }

    /// The lock of this name, waiting for it.
    pub(super) async fn lock(&self, name: &str) -> Result<Lock, String> {
        loop {
            match self.try_lock(name).await? {
                Some(lock) => return Ok(lock),
                None => sleep(POLL).await,
            }
        }
    }

    /// Removes texts that a process left which died.
    pub(super) async fn tidy(&self) {
        let folder = self.challenges();
        let tidied = spawn_blocking(move || {
            for entry in std::fs::read_dir(folder).ok()?.flatten() {
                let age = entry.metadata().ok()?.modified().ok()?.elapsed().unwrap_or_default();
                if age > LEFT {
                    std::fs::remove_file(entry.path()).ok()?;
                }
            }
            Some(())
        });
        // Where it cannot be done, nothing is lost.
        let _ = tidied.await;
    }

    /// The account, if there is one.
    pub(super) async fn account(&self) -> Result<Option<AccountCredentials>, String> {
        let path = self.path.join("account.json");
        let found = read(path.clone()).await?;
        let parsed = found.map(|bytes| serde_json::from_slice(&bytes)).transpose();
        parsed.map_err(|e| {
            format!("{}: is damaged ({e}); remove it to have a new account made", path.display())
        })
    }

    /// Keeps the account.
    pub(super) async fn keep_account(&self, account: &AccountCredentials) -> Result<(), String> {
        let bytes = serde_json::to_vec_pretty(account).map_err(|e| e.to_string())?;
        write(self.path.join("account.json"), bytes).await
    }

    /// Puts the account aside, which the server does not know.
    pub(super) async fn forget_account(&self) -> Result<(), String> {
        let (from, to) = (self.path.join("account.json"), self.path.join("account.unknown.json"));
        let moved = spawn_blocking(move || std::fs::rename(from, to)).await;
        moved.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
    }

    /// How the last attempts went. What cannot be read is nothing that is known.
    pub(super) async fn record(&self, name: &str) -> Record {
        let bytes = read(self.path.join(format!("{name}.json"))).await.ok().flatten();
        bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    /// Keeps how they went.
    pub(super) async fn keep_record(&self, name: &str, record: &Record) -> Result<(), String> {
        let bytes = serde_json::to_vec_pretty(record).map_err(|e| e.to_string())?;
        write(self.path.join(format!("{name}.json")), bytes).await
    }
}

async fn read(path: PathBuf) -> Result<Option<Vec<u8>>, String> {
    let read = spawn_blocking(move || disk::read_if_there(&path)).await;
    read.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
}

async fn write(path: PathBuf, bytes: Vec<u8>) -> Result<(), String> {
    let written = spawn_blocking(move || disk::replace(&path, &bytes)).await;
    written.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lock_is_one_nodes_until_it_lets_go() {
        let temporary = tempfile::tempdir().unwrap();
        let folders = [Folder::new(temporary.path()), Folder::new(temporary.path())];
        let held = folders[0].try_lock("a").await.unwrap().unwrap();
        assert!(folders[1].try_lock("a").await.unwrap().is_none());
        assert!(folders[1].try_lock("b").await.unwrap().is_some());
        drop(held);
        assert!(folders[1].try_lock("a").await.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_record_is_read_as_it_was_kept_and_damage_is_no_record() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::new(temporary.path());
        assert_eq!(folder.record("a").await, Record::default());
        let record = Record { failures: 3, again: Some(9), ..Record::default() };
        folder.keep_record("a", &record).await.unwrap();
        assert_eq!(folder.record("a").await, record);
        std::fs::write(temporary.path().join("a.json"), "{").unwrap();
        assert_eq!(folder.record("a").await, Record::default());
    }

    #[tokio::test]
    async fn a_damaged_account_is_told_and_left_alone() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::new(temporary.path());
        assert!(folder.account().await.unwrap().is_none());
        std::fs::write(temporary.path().join("account.json"), "{").unwrap();
        let why = folder.account().await.map(drop).unwrap_err();
        assert!(why.contains("account.json") && why.contains("remove it"), "{why}");
    }
}
