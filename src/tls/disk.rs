//! Files that are kept: private, whole or not there at all.

use std::fs;
use std::fs::DirBuilder;
use std::fs::File;
use std::fs::OpenOptions;
use std::hash::BuildHasher;
use std::hash::RandomState;
use std::io;
use std::io::Read as _;
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use nix::fcntl::OFlag;

use super::error::Error;

/// The most that a file of certificates, keys or lists may hold, in bytes. The largest lists of revoked
/// certificates have a few MiB.
const MOST_BYTES: u64 = 16 << 20;

/// Opens a file to read it. What is no file is not opened, or not waited for: a pipe would wait for a writer.
///
/// # Errors
/// It cannot be opened, or is no file.
pub(crate) fn open(file: &Path) -> io::Result<File> {
    let no_file = || io::Error::other("it is not a file");
    if !file.metadata()?.is_file() {
        return Err(no_file());
    }
    // Another thing may have come in its place meanwhile.
    let open = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(file)?;
    if open.metadata()?.is_file() { Ok(open) } else { Err(no_file()) }
}

/// What a file holds that somebody else wrote.
///
/// # Errors
/// It cannot be read, is no file, or is too large to be what is meant.
pub(crate) fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(file)?.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(io::Error::other(format!("it is larger than {} MiB", MOST_BYTES >> 20)));
    }
    Ok(bytes)
}

/// The text in a file that somebody else wrote.
///
/// # Errors
/// As [`read`], or it is no text.
pub(crate) fn read_text(file: &Path) -> io::Result<String> {
    String::from_utf8(read(file)?).map_err(|_| io::Error::other("it is not UTF-8 text"))
}

/// What a file holds; `None` when there is none.
pub(crate) fn read_if_there(file: &Path) -> Result<Option<Vec<u8>>, Error> {
    match read(file) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::read(file)(error)),
    }
}

/// Makes a folder and those above it, for its owner alone.
pub(crate) fn make_folder(folder: &Path) -> Result<(), Error> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(Error::write(folder))
}

/// A name that no other file has, for something that becomes `of`.
pub(crate) fn draft_name(of: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    // Machines that share a folder may have processes of the same number.
    static TAG: OnceLock<u64> = OnceLock::new();
    let tag = TAG.get_or_init(|| RandomState::new().hash_one(()));
    format!(".{of}.{}.{tag:x}.{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Writes a file that is not there yet, for its owner alone.
pub(crate) fn write_new(file: &Path, bytes: &[u8]) -> Result<(), Error> {
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .and_then(|mut open| open.write_all(bytes).and_then(|()| open.sync_all()));
    written.map_err(Error::write(file))
}

/// Puts `bytes` at `file`: readers see all of it or what was there before.
pub(crate) fn replace(file: &Path, bytes: &[u8]) -> Result<(), Error> {
    let folder = file.parent().unwrap_or(Path::new("."));
    let draft = folder.join(draft_name("leaf"));
    // A draft of this name can only be the rest of a process that is gone.
    let _ = fs::remove_file(&draft);
    let done = write_new(&draft, bytes)
        .and_then(|()| fs::rename(&draft, file).map_err(Error::write(file)))
        .and_then(|()| sync_folder(folder));
    if done.is_err() {
        let _ = fs::remove_file(&draft);
    }
    done
}

/// Has it kept which files are in a folder.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), Error> {
    File::open(folder).and_then(|open| open.sync_all()).map_err(Error::write(folder))
}

#[cfg(test)]
mod tests {
    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn what_is_no_file_is_neither_read_nor_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        for other in [&*pipe, folder.path(), Path::new("/dev/zero")] {
            assert_eq!(read(other).unwrap_err().to_string(), "it is not a file", "{other:?}");
        }
    }

    #[test]
    fn no_more_is_read_than_a_file_of_certificates_holds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large");
        let file = File::create(&path).unwrap();
        file.set_len(MOST_BYTES).unwrap();
        assert_eq!(read(&path).unwrap().len() as u64, MOST_BYTES);
        file.set_len(MOST_BYTES + 1).unwrap();
        assert_eq!(read(&path).unwrap_err().to_string(), "it is larger than 16 MiB");
    }
}
