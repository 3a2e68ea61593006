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
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::fcntl::AtFlags;
use nix::fcntl::FcntlArg;
use nix::fcntl::OFlag;
use nix::fcntl::fcntl;
use nix::unistd;
use nix::unistd::AccessFlags;
use nix::unistd::Gid;
use nix::unistd::Group;
use nix::unistd::Uid;
use nix::unistd::User;

use crate::config::plan::Process;

/// Readable for the group, as log files are.
const LOG_MODE: u32 = 0o640;

/// Of a folder that root makes for the user.
const FOLDER_MODE: u32 = 0o750;

/// More links than this lead nowhere, as the kernel says too.
const LINKS_MAX: usize = 40;

/// Whose it is what root had to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Give {
    /// The user's, who goes on writing to it.
    Away,
    /// Root's: others trust it because only root can have written it.
    Nothing,
}

/// Whether an identity may write to a folder.
type MayWrite<'a> = &'a dyn Fn(&Path) -> io::Result<bool>;

/// What an identity can do about where a path leads.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Reach {
    /// Nothing: every folder on the way is root's, and not for the identity to write to.
    Beyond,
    /// The same as far as it goes; this folder is the first one that is not there.
    Missing(PathBuf),
    /// It could have laid a step of the way.
    Within,
}

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

    /// Which of these files this identity may not read. Only while the process has one thread.
    pub(crate) fn may_not_read<'a>(&self, files: &'a [PathBuf]) -> io::Result<Vec<&'a PathBuf>> {
        let denied = |file: &&PathBuf| {
            // A pipe is not waited for.
            let asked = unistd::faccessat(AT_FDCWD, *file, AccessFlags::R_OK, AtFlags::AT_EACCESS);
            asked == Err(Errno::EACCES)
        };
        self.lend(|| files.iter().filter(denied).collect())
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

    /// Does `work` on what is, or is to be, at `path`: as this identity, and where only root can, as root.
    /// What root made is given away as `give` says. Only while the process has one thread.
    pub(crate) fn make<T>(
        &self,
        path: &Path,
        give: Give,
        work: impl Fn(&Path) -> io::Result<T>,
    ) -> io::Result<T> {
        let refused = match self.lend(|| work(path))? {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => e,
            done => return done,
        };
        let path = std::path::absolute(path)?;
        match reach(&path, &|folder| self.may_write(folder))? {
            Reach::Within => Err(refused),
            Reach::Missing(folder) => {
                std::fs::DirBuilder::new().mode(FOLDER_MODE).create(&folder)?;
                self.own(&folder)?;
                self.lend(|| work(&path))?
            }
            Reach::Beyond => {
                let done = work(&path)?;
                let about = std::fs::symlink_metadata(&path)?;
                let kind = about.file_type();
                let plain = (kind.is_file() && about.nlink() == 1) || kind.is_socket();
                // What another user has there stays that user's, and a device the system's.
                if give == Give::Away && plain && about.uid() == 0 {
                    self.own(&path)?;
                }
                Ok(done)
            }
        }
    }

    /// Whether this identity may write to a folder: by its mode, its groups or a list of rights.
    fn may_write(&self, folder: &Path) -> io::Result<bool> {
        let asked = || unistd::faccessat(AT_FDCWD, folder, AccessFlags::W_OK, AtFlags::AT_EACCESS);
        match self.lend(asked)? {
            Ok(()) => Ok(true),
            Err(Errno::EACCES | Errno::EROFS | Errno::EPERM) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Gives the state folder and what root made in it to this identity. A folder with anything in
    /// it that is not ours (`/var/lib` written by mistake) is left alone, and so is one that another
    /// user could have put links into. `files` are the paths that the configuration names.
    pub(crate) fn adopt(&self, state: &Path, files: &[&Path]) -> io::Result<()> {
        if !state.exists() {
            // Whatever it is that is missing, this makes it.
            return self.make(&state.join("edgeproxy"), Give::Away, |_| make_folder(state));
        }
        self.adopt_there(state, files, &|folder| self.may_write(folder))
    }

    fn adopt_there(
        &self,
        state: &Path,
        files: &[&Path],
        may_write: MayWrite<'_>,
    ) -> io::Result<()> {
        let state = std::path::absolute(state)?;
        let is_ours = |path: &Path| {
            let known = |name: &std::ffi::OsStr| {
                ["acme", "ca", "certs"].iter().any(|known| name == *known)
                    || name.as_encoded_bytes().starts_with(b"edgeproxy")
            };
            let at_top = path.parent() == Some(state.as_path());
            (at_top && path.file_name().is_some_and(known)) || files.contains(&path)
        };
        let is_way = |path: &Path| files.iter().any(|file| file.starts_with(path));
        let out_of_reach = reach(&state.join("edgeproxy"), may_write)? == Reach::Beyond;
        if out_of_reach && holds_only(&state, &is_ours, &is_way)? {
            self.own_all(&state)?;
        }
        Ok(())
    }

    /// Gives what is at `path` to this identity, with all that is in it, the folder after what is in it: until
    /// then nobody else can put anything there. What is not root's is left alone.
    fn own_all(&self, path: &Path) -> io::Result<()> {
        let about = std::fs::symlink_metadata(path)?;
        if about.uid() != 0 {
            return Ok(());
        }
        if about.is_dir() {
            if about.mode() & 0o022 != 0 {
                return Ok(());
            }
            for inner in std::fs::read_dir(path)? {
                self.own_all(&inner?.path())?;
            }
        }
        self.own(path)
    }

    /// Makes sure that this identity can append to a log file, making it where needed.
    pub(crate) fn open_log(&self, path: &Path) -> io::Result<File> {
        self.make(path, Give::Away, open_log)
    }
}

/// Who can have laid the way to `path`, which is absolute, when an identity may write where this says. As long as the answer is not
/// [`Reach::Within`], root can go it: nobody but root can lay it anew.
fn reach(path: &Path, may_write: MayWrite<'_>) -> io::Result<Reach> {
    let mut ahead: Vec<PathBuf> =
        path.components().rev().map(|part| part.as_os_str().into()).collect();
    let mut here = PathBuf::from("/");
    let mut links = 0;
    while let Some(step) = ahead.pop() {
        if step == Path::new("/") {
            here = step;
            continue;
        }
        if step == Path::new("..") {
            here.pop();
            continue;
        }
        let folder = std::fs::symlink_metadata(&here)?;
        let is_writable = may_write(&here)?;
        let is_sticky = folder.mode() & 0o1000 != 0;
        if folder.uid() != 0 || (is_writable && !is_sticky) {
            return Ok(Reach::Within);
        }
        let next = here.join(&step);
        let about = match std::fs::symlink_metadata(&next) {
            // The file itself need not be there.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Ok(match (is_writable, ahead.is_empty()) {
                    (true, _) => Reach::Within,
                    (false, true) => Reach::Beyond,
                    (false, false) => Reach::Missing(next),
                });
            }
            about => about?,
        };
        // In /tmp and the like only what is root's stays where it is.
        if is_writable && (about.uid() != 0 || !about.is_dir() || ahead.is_empty()) {
            return Ok(Reach::Within);
        }
        if about.is_symlink() {
            links += 1;
            // A group may write there that the identity is not in: its links are not root's.
            if ahead.is_empty() || folder.mode() & 0o022 != 0 || links > LINKS_MAX {
                return Ok(Reach::Within);
            }
            let to = std::fs::read_link(&next)?;
            ahead.extend(to.components().rev().map(|part| PathBuf::from(part.as_os_str())));
        } else if !ahead.is_empty() {
            here = next;
        }
    }
    Ok(Reach::Beyond)
}

/// Whether a folder has nothing in it but what is ours and, for the rest, folders on the way to that.
fn holds_only(
    folder: &Path,
    is_ours: &dyn Fn(&Path) -> bool,
    is_way: &dyn Fn(&Path) -> bool,
) -> io::Result<bool> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if is_ours(&path) {
            continue;
        }
        let is_folder = std::fs::symlink_metadata(&path)?.is_dir();
        if !is_folder || !is_way(&path) || !holds_only(&path, is_ours, is_way)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Opens a log file to append to, its folder made where needed.
pub(crate) fn open_log(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        make_folder(folder)?;
    }
    // A pipe without a reader would be waited for without end.
    let now = OFlag::O_NONBLOCK.bits();
    let mut options = OpenOptions::new();
    let options = options.append(true).create(true).mode(LOG_MODE).custom_flags(now);
    let file = options.open(path).map_err(unread)?;
    // Who writes diagnostics does not try again.
    fcntl(&file, FcntlArg::F_SETFL(OFlag::O_APPEND))?;
    Ok(file)
}

/// Says what the system's words for it do not.
fn unread(e: io::Error) -> io::Error {
    match e.raw_os_error() {
        Some(number) if number == Errno::ENXIO as i32 => {
            io::Error::other("it is a pipe that nobody reads from")
        }
        _ => e,
    }
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

    /// What somebody may write to who is not root and in no group: these tests share their process, which
    /// therefore cannot ask as another user.
    fn anybody(folder: &Path) -> io::Result<bool> {
        Ok(folder.metadata()?.mode() & 0o002 != 0)
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
        nobody.adopt_there(folder.path(), &[], &anybody).unwrap();
        assert_eq!(folder.path().metadata().unwrap().uid(), 0);

        std::fs::remove_file(folder.path().join("passwd")).unwrap();
        nobody.adopt_there(folder.path(), &[], &anybody).unwrap();
        assert_eq!(folder.path().metadata().unwrap().uid(), nobody.uid.as_raw());
        assert_eq!(folder.path().join("ca").metadata().unwrap().uid(), nobody.uid.as_raw());
    }

    #[test]
    fn folders_on_the_way_to_what_is_ours_are_given_away_with_it() {
        if !unistd::geteuid().is_root() {
            return; // Only root can give anything away.
        }
        let folder = tempfile::tempdir().unwrap();
        let nobody = Identity::of(&process(Some("nobody"))).unwrap().unwrap();
        let (run, pid) = (folder.path().join("run"), folder.path().join("run/edge.pid"));
        std::fs::create_dir(&run).unwrap();
        nobody.adopt_there(folder.path(), &[], &anybody).unwrap();
        assert_eq!(run.metadata().unwrap().uid(), 0);
        std::fs::write(run.join("other"), "").unwrap();
        nobody.adopt_there(folder.path(), &[&pid], &anybody).unwrap();
        assert_eq!(run.metadata().unwrap().uid(), 0);
        std::fs::remove_file(run.join("other")).unwrap();
        nobody.adopt_there(folder.path(), &[&pid], &anybody).unwrap();
        assert_eq!(run.metadata().unwrap().uid(), nobody.uid.as_raw());
        assert_eq!(folder.path().metadata().unwrap().uid(), nobody.uid.as_raw());
    }

    #[test]
    fn root_goes_no_way_that_the_user_can_have_laid() {
        use std::os::unix::fs::symlink;
        if !unistd::geteuid().is_root() {
            return; // Only root can give anything away.
        }
        let folder = tempfile::tempdir().unwrap();
        let nobody = Identity::of(&process(Some("nobody"))).unwrap().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["roots", "users", "roots/inner", "users/inner", "links"] {
            std::fs::create_dir(at(name)).unwrap();
        }
        nobody.own(&at("users")).unwrap();
        symlink("../roots", at("users/link")).unwrap();
        symlink("roots", at("link")).unwrap();
        symlink("users", at("to-users")).unwrap();
        symlink("round", at("round")).unwrap();
        symlink("nowhere", at("roots/log-link")).unwrap();
        let missing = |name: &str| Reach::Missing(at(name));
        for (path, wanted) in [
            ("roots/log", Reach::Beyond),
            ("link/inner/log", Reach::Beyond),
            ("links/../roots/log", Reach::Beyond),
            ("roots/new/log", missing("roots/new")),
            ("link/new/er/log", missing("roots/new")),
            ("users/log", Reach::Within),
            ("users/inner/log", Reach::Within),
            ("users/link/log", Reach::Within),
            ("users/../roots/log", Reach::Beyond),
            ("to-users/inner/log", Reach::Within),
            ("round/log", Reach::Within),
            ("roots/log-link", Reach::Within),
        ] {
            assert_eq!(reach(&at(path), &anybody).unwrap(), wanted, "{path}");
        }
        // Everybody can make files in such a folder, and nobody can replace what is root's.
        let log = std::env::temp_dir().join("log");
        assert_eq!(reach(&log, &anybody).unwrap(), Reach::Within);
    }

    #[test]
    fn a_pipe_that_nobody_reads_from_is_no_log() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(open_log(&path).unwrap_err().to_string().contains("nobody reads"));
        let now = OFlag::O_NONBLOCK.bits();
        let _reader = OpenOptions::new().read(true).custom_flags(now).open(&path).unwrap();
        open_log(&path).unwrap();
    }
}
