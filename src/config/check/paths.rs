//! Checks that the files and sockets of the process do not get into each other's way.

use std::path::Component;
use std::path::Path as FilePath;
use std::path::PathBuf;

use crate::config::path::Path;
use crate::config::report::Report;
use crate::config::same;

/// What the process makes of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// It is replaced as a whole, or listened on: nothing else can be there.
    Alone,
    /// Lines are added at its end.
    Log,
    /// A folder, in which other things are.
    Folder,
}

/// A path of the process, with the key that names it or stands for it.
pub(super) struct Own {
    pub(super) at: Path,
    pub(super) path: PathBuf,
    pub(super) used: Use,
}

/// Reports paths that mean two things at once. `file` is the configuration, `read` are the files that are read
/// with it.
pub(super) fn apart(
    own: &[Own],
    file: Option<&FilePath>,
    read: &[PathBuf],
    report: &mut Report<'_>,
) {
    for (n, one) in own.iter().enumerate() {
        let path = plain(&one.path);
        // Devices take what anybody writes.
        if path.starts_with("/dev") {
            continue;
        }
        if one.used != Use::Folder && file.is_some_and(|file| plain(file) == path) {
            report
                .error(&one.at, format!("{} is this configuration", one.path.display()))
                .help("it would be written over: name another file");
        }
        if one.used != Use::Folder && read.iter().any(|read| plain(read) == path) {
            report
                .error(&one.at, format!("{} is read by another key", one.path.display()))
                .help("it would be written over: name another file");
        }
        for other in own[..n].iter().filter(|other| plain(&other.path) == path) {
            // Told where something is written, and not at a default.
            let (at, that) =
                if report.has(&one.at) { (&one.at, &other.at) } else { (&other.at, &one.at) };
            let message = format!("{} is {that} as well", one.path.display());
            let mixed = one.used == Use::Log && other.used == Use::Log;
            if mixed {
                report.warning(at, message).help("the lines of both are mixed: name another file");
            } else {
                report.error(at, message).help("name another path, each thing needs its own");
            }
        }
    }
}

/// Reports what is written among keys and certificates that the process keeps.
pub(super) fn outside(own: &[Own], kept: &[PathBuf], report: &mut Report<'_>) {
    for one in own.iter().filter(|one| one.used != Use::Folder) {
        if let Some(kept) = kept.iter().find(|kept| plain(&one.path).starts_with(plain(kept))) {
            same::in_kept(&one.path, kept, &one.at, report);
        }
    }
}

/// The path without `.` and `..`, as it is written: nothing is looked at.
pub(in crate::config) fn plain(path: &FilePath) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                plain.pop();
            }
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => plain.push(part),
        }
    }
    plain
}
