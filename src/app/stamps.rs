//! Whether files have changed, as far as the file system says so without their being read.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

/// How some files were at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Stamps(Vec<(PathBuf, Option<Stamp>)>);

/// How a file was: which one, how large, when it was changed. It is another one when something was renamed
/// into its place, or when a link leads elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamps {
    /// How these files are now.
    pub(super) fn of(files: &[PathBuf]) -> Self {
        Self::default().and(files)
    }

    /// How they were, and how those of `files` are now that are not among them; others are left out.
    pub(super) fn and(&self, files: &[PathBuf]) -> Self {
        let of = |file: &PathBuf| {
            let known = self.0.iter().find(|(known, _)| known == file);
            known.cloned().unwrap_or_else(|| (file.clone(), Stamp::of(file)))
        };
        Self(files.iter().map(of).collect())
    }

    /// Whether this file is among them.
    pub(super) fn has(&self, file: &Path) -> bool {
        self.0.iter().any(|(known, _)| known == file)
    }

    /// How the same files are now.
    pub(super) fn again(&self) -> Self {
        Self(self.0.iter().map(|(file, _)| (file.clone(), Stamp::of(file))).collect())
    }
}

impl Stamp {
    fn of(file: &Path) -> Option<Self> {
        let about = file.metadata().ok()?;
        Some(Self {
            file: (about.dev(), about.ino()),
            size: about.size(),
            modified: (about.mtime(), about.mtime_nsec()),
            changed: (about.ctime(), about.ctime_nsec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn every_way_to_change_a_file_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let [file, link, target] = ["file", "link", "target"].map(|name| folder.path().join(name));
        fs::write(&file, "one").unwrap();
        fs::write(&target, "one").unwrap();
        symlink(&file, &link).unwrap();
        let files = [file.clone(), link.clone()];
        let mut before = Stamps::of(&files);
        assert_eq!(before.again(), before);
        let mut differs = |what: &str| {
            let now = before.again();
            assert_ne!(now, before, "{what}");
            before = now;
        };
        fs::write(&file, "longer").unwrap();
        differs("another length");
        let other = folder.path().join("other");
        fs::write(&other, "longer").unwrap();
        fs::rename(&other, &file).unwrap();
        differs("another file of the same length");
        let other = folder.path().join("link-2");
        symlink(&target, &other).unwrap();
        fs::rename(&other, &link).unwrap();
        differs("a link that leads elsewhere");
        fs::remove_file(&target).unwrap();
        differs("nothing there");
    }

    #[test]
    fn what_was_looked_at_before_a_reading_is_not_looked_at_again() {
        let folder = tempfile::tempdir().unwrap();
        let [old, new] = ["old", "new"].map(|name| folder.path().join(name));
        fs::write(&old, "one").unwrap();
        let before = Stamps::of(std::slice::from_ref(&old));
        fs::write(&old, "changed while it was read").unwrap();
        fs::write(&new, "one").unwrap();
        let both = before.and(&[old, new]);
        assert_ne!(both.again(), both, "the change is still to be seen");
        assert_eq!(both.again().again(), both.again());
    }
}
