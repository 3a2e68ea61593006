//! Files that are kept: private, whole or not there at all.

use std::fs;
use std::fs::DirBuilder;
use std::fs::File;
use std::fs::OpenOptions;
use std::hash::BuildHasher;
use std::hash::RandomState;
use std::io;
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use super::error::Error;

/// What a file holds; `None` when there is none.
pub(crate) fn read_if_there(file: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(file) {
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
