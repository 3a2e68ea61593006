//! Becoming another user, and leaving behind what that user can work with.
//!
//! A daemon that root starts opens privileged ports and key files as root and then becomes
//! `process.user` for good. What it keeps using afterwards (state, logs, sockets) must be that user's:
//! such files are made *as* that user where the folder allows it, and given to it where only root may
//! make them. Root never follows a link in a folder that the user can write to.

use std::ffi::CString;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::AT_FDCWD;
use nix::fcntl::AtFlags;
use nix::fcntl::OFlag;
use nix::unistd;
use nix::unistd::Gid;
use nix::unistd::Group;
use nix::unistd::Uid;
use nix::unistd::User;

use crate::config::plan::Process;

/// Readable for the group, as log files are.
const LOG_MODE: u32 = 0o640;

/// Who the process becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    uid: Uid,
    gid: Gid,
    /// For the supplementary groups; without a user there are none.
    name: Option<CString>,
}

impl Identity {
    /// Who `process.user` and `process.group` are; `None` when the process stays who it is.
    ///
    /// # Errors
    /// A sentence: nobody is called so, or only root may do this.
    pub(crate) fn of(process: &Process) -> Result<Option<Self>, String> {
        let (mut uid, mut gid, mut name) = (unistd::geteuid(), unistd::getegid(), None);
        if let Some(wanted) = &process.user {
            let user = User::from_name(wanted)
                .map_err(|e| format!("process.user \"{wanted}\" cannot be looked up: {e}"))?
                .ok_or_else(|| format!("process.user: there is no user \"{wanted}\" here"))?;
            (uid, gid) = (user.uid, user.gid);
            name = CString::new(user.name).ok();
        }
        if let Some(wanted) = &process.group {
            gid = Group::from_name(wanted)
                .map_err(|e| format!("process.group \"{wanted}\" cannot be looked up: {e}"))?
                .ok_or_else(|| format!("process.group: there is no group \"{wanted}\" here"))?
                .gid;
        }
        if uid == unistd::geteuid() && gid == unistd::getegid() {
            return Ok(None);
        }
        if !unistd::geteuid().is_root() {
            return Err("process.user and process.group need a start by root".to_owned());
        }
        Ok(Some(Self { uid, gid, name }))
    }

    /// The number of the user.
    pub(crate) fn user(&self) -> u32 {
        self.uid.as_raw()
    }

    /// Does `work` with this identity's rights, then goes on with root's. Only while the process has
    /// one thread.
    pub(crate) fn lend<T>(&self, work: impl FnOnce() -> T) -> io::Result<T> {
        let before = (unistd::getgroups()?, unistd::getegid(), unistd::geteuid());
        self.groups()?;
        unistd::setegid(self.gid)?;
        unistd::seteuid(self.uid)?;
        let done = work();
        unistd::seteuid(before.2)?;
        unistd::setegid(before.1)?;
        unistd::setgroups(&before.0)?;
        Ok(done)
    }

    /// Becomes this identity for good.
    pub(crate) fn assume(&self) -> io::Result<()> {
        self.groups()?;
        unistd::setgid(self.gid)?;
        unistd::setuid(self.uid)?;
        if !self.uid.is_root() && unistd::setuid(Uid::from_raw(0)).is_ok() {
            return Err(io::Error::other("the rights of root could be taken back"));
        }
        Ok(())
    }

    fn groups(&self) -> nix::Result<()> {
        match &self.name {
            Some(name) => unistd::initgroups(name, self.gid),
            None => unistd::setgroups(&[self.gid]),
        }
    }

    /// Gives the file at `path` to this identity; of a link, the link itself.
    pub(crate) fn own(&self, path: &Path) -> io::Result<()> {
        let (uid, gid) = (Some(self.uid), Some(self.gid));
        Ok(unistd::fchownat(AT_FDCWD, path, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)?)
    }

    /// Gives the state folder and what root made in it to this identity. A folder with anything in
    /// it that is not ours (`/var/lib` written by mistake) is left alone, and so is one that another
    /// user could have put links into.
    pub(crate) fn adopt(&self, process: &Process, state: &Path) -> io::Result<()> {
        make_folder(state)?;
        let about = std::fs::symlink_metadata(state)?;
        if !about.is_dir() || about.uid() != 0 || about.mode() & 0o022 != 0 {
            return Ok(());
        }
        let ours = [&process.pid_file, &process.log_file, &process.upgrade_socket];
        let mut found = Vec::new();
        for entry in std::fs::read_dir(state)? {
            let entry = entry?;
            let (name, path) = (entry.file_name(), entry.path());
            let known = ["acme", "ca", "certs"].iter().any(|known| name == *known)
                || name.as_encoded_bytes().starts_with(b"edgeproxy")
                || ours.contains(&&path);
            if !known {
                return Ok(());
            }
            found.push(path);
        }
        for path in found {
            self.own_all(&path)?;
        }
        self.own(state)
    }

    /// Gives what is at `path` to this identity, with all that is in it.
    fn own_all(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() && !path.is_symlink() {
            for inner in std::fs::read_dir(path)? {
                self.own_all(&inner?.path())?;
            }
        }
        self.own(path)
    }

    /// Makes sure that this identity can append to a log file, making it where needed.
    pub(crate) fn open_log(&self, path: &Path) -> io::Result<File> {
        match self.lend(|| open_log(path))? {
            // Only root may make files there, so no link can have been planted.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                let flags = OFlag::O_NOFOLLOW.bits();
                let mut options = OpenOptions::new();
                let options = options.append(true).create(true).mode(LOG_MODE).custom_flags(flags);
                let file = options.open(path)?;
                unistd::fchown(&file, Some(self.uid), Some(self.gid))?;
                Ok(file)
            }
            opened => opened,
        }
    }
}

/// Opens a log file to append to, its folder made where needed.
pub(crate) fn open_log(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        make_folder(folder)?;
    }
    OpenOptions::new().append(true).create(true).mode(LOG_MODE).open(path)
}

/// Makes a folder and those above it, if it is not there.
pub(crate) fn make_folder(path: &Path) -> io::Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        Ok(())
    } else {
        std::fs::create_dir_all(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(user: Option<&str>) -> Process {
        let loaded = crate::config::from_text(
            "listeners: [{name: a, address: \"127.0.0.1:0\"}]\nroutes: [{respond: {status: 204}}]\n",
            "test",
        );
        let mut process = loaded.map_err(|d| d.to_json()).unwrap().plan.process;
        process.user = user.map(str::to_owned);
        process
    }

    #[test]
    fn nobody_changes_without_being_asked() {
        assert_eq!(Identity::of(&process(None)), Ok(None));
    }

    #[test]
    fn an_unknown_user_is_named_in_the_error() {
        let error = Identity::of(&process(Some("no-such-user-here"))).unwrap_err();
        assert!(error.contains("no user \"no-such-user-here\""), "{error}");
    }

    #[test]
    fn a_folder_with_foreign_things_is_not_given_away() {
        if !unistd::geteuid().is_root() {
            return; // Only root can give anything away.
        }
        let folder = tempfile::tempdir().unwrap();
        let nobody = Identity::of(&process(Some("nobody"))).unwrap().unwrap();
        std::fs::write(folder.path().join("passwd"), "").unwrap();
        std::fs::create_dir(folder.path().join("ca")).unwrap();
        nobody.adopt(&process(None), folder.path()).unwrap();
        assert_eq!(folder.path().metadata().unwrap().uid(), 0);

        std::fs::remove_file(folder.path().join("passwd")).unwrap();
        nobody.adopt(&process(None), folder.path()).unwrap();
        assert_eq!(folder.path().metadata().unwrap().uid(), nobody.uid.as_raw());
        assert_eq!(folder.path().join("ca").metadata().unwrap().uid(), nobody.uid.as_raw());
    }
}
