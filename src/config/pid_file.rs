//! What may be replaced by a pid file: nothing but another one.

use std::fs::OpenOptions;
use std::io;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

/// More than any number of a process.
const LENGTH_MAX: u64 = 32;

/// The number in the pid file at `path`, if there is such a file with one in it.
///
/// # Errors
/// What is there is no pid file, or cannot be read.
pub fn read(path: &Path) -> io::Result<Option<u32>> {
    let other = || io::Error::new(io::ErrorKind::AlreadyExists, "what is there is no pid file");
    match std::fs::symlink_metadata(path) {
        Ok(about) if about.is_file() => {}
        Ok(_) => return Err(other()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    }
    // Nothing that came in its place meanwhile is waited for.
    let flags = (OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW).bits();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let mut bytes = Vec::new();
    file.take(LENGTH_MAX + 1).read_to_end(&mut bytes)?;
    match bytes.trim_ascii() {
        [] if bytes.len() as u64 <= LENGTH_MAX => Ok(None),
        digits if digits.iter().all(u8::is_ascii_digit) => {
            let text = std::str::from_utf8(digits).map_err(|_| other())?;
            text.parse().map(Some).map_err(|_| other())
        }
        _ => Err(other()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_number_or_nothing_is_a_pid_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        assert_eq!(read(&path).unwrap(), None);
        for (text, pid) in [("", None), ("\n", None), ("17\n", Some(17)), (" 17", Some(17))] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(read(&path).unwrap(), pid, "{text:?}");
        }
        let blank = " ".repeat(100);
        for text in ["-1", "1 2", "listeners: []", "99999999999", &blank] {
            std::fs::write(&path, text).unwrap();
            assert!(read(&path).is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_file_is_not_looked_into() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::fs::write(at("pid"), "1").unwrap();
        std::os::unix::fs::symlink("pid", at("link")).unwrap();
        std::fs::create_dir(at("folder")).unwrap();
        for name in ["pipe", "link", "folder"] {
            assert!(read(&at(name)).is_err(), "{name}");
        }
        assert!(read(Path::new("/dev/null")).is_err());
    }
}
