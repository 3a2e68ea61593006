//! Whether what is written is something else under another name: by a link.
//!
//! Names as they are written are compared by `check/paths.rs`, without a look at the machine; what was reported
//! there is not reported again.

use std::collections::HashSet;
use std::fs;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path as FilePath;
use std::path::PathBuf;

use crate::config::Surroundings;
use crate::config::check::kept;
use crate::config::check::plain;
use crate::config::named;
use crate::config::path::Path;
use crate::config::report::Report;
use crate::config::schema::Config;
use crate::config::schema::value::OrAuto;
use crate::config::schema::value::OrOff;

/// How deep folders are looked into where keys are kept, and how many files are looked at there.
const DEPTH_MOST: usize = 3;
const FILES_MOST: usize = 10_000;

/// A file that is written: the key that names it, and its whole path.
struct Written {
    at: Path,
    path: PathBuf,
    is_log: bool,
}

/// Reports files that are written to and are other ones by another name: those that are read, those in which
/// keys are kept, and each other.
pub(super) fn look(config: &Config, surroundings: &Surroundings, report: &mut Report<'_>) {
    let folder = surroundings.folder.as_path();
    let written = written(config, surroundings);
    let read: Vec<PathBuf> =
        surroundings.file.clone().into_iter().chain(named::files(config)).collect();
    let kept = kept(config, &state(config, surroundings), folder);
    let secret: HashSet<(u64, u64)> = kept.iter().flat_map(|folder| inside(folder)).collect();
    for (n, one) in written.iter().enumerate() {
        let (name, at) = (one.path.strip_prefix(folder).unwrap_or(&one.path).display(), &one.at);
        let own = about(&one.path).filter(Metadata::is_file).map(|about| number(&about));
        for read in read.iter().filter(|read| plain(&folder.join(read)) != plain(&one.path)) {
            if own.is_some() && about(&folder.join(read)).map(|about| number(&about)) == own {
                let message = format!("{name} is the same file as {}", read.display());
                report.error(at, message).help("it would be written over: name another file");
            }
        }
        let is_in = |kept: &&PathBuf| real(&one.path).starts_with(real(kept));
        // As it is written it was reported.
        let is_told = kept.iter().any(|kept| plain(&one.path).starts_with(plain(kept)));
        let found = kept.iter().find(is_in).filter(|_| !is_told);
        if let Some(kept) = found {
            in_kept(&one.path, kept, at, report);
        } else if !is_told && own.is_some_and(|own| secret.contains(&own)) {
            let message = format!("{name} is a file in which a key or a certificate is kept");
            report.error(at, message).help("it would be written over: name another file");
        }
        for other in &written[..n] {
            let is_same = real(&one.path) == real(&other.path)
                || (own.is_some() && about(&other.path).map(|about| number(&about)) == own);
            let is_told = plain(&one.path) == plain(&other.path);
            // Lines of two logs can be in one file.
            if !is_same || is_told || (one.is_log && other.is_log) {
                continue;
            }
            let (at, that) = if report.has(at) { (at, &other.at) } else { (&other.at, at) };
            report
                .error(at, format!("{name} is {that} as well, by another name"))
                .help("name another path, each thing needs its own");
        }
    }
}

/// Reports a path among files that hold keys.
pub(super) fn in_kept(path: &FilePath, kept: &FilePath, at: &Path, report: &mut Report<'_>) {
    let message = format!(
        "{} is in {}, where keys and certificates are kept",
        path.display(),
        kept.display()
    );
    report.error(at, message).help("name a path elsewhere");
}

fn state(config: &Config, surroundings: &Surroundings) -> PathBuf {
    match &config.process.state_dir {
        OrAuto::Auto => surroundings.state_dir.clone(),
        OrAuto::Is(path) => surroundings.folder.join(path),
    }
}

/// What is written, wherever that was said; without devices, which take what anybody writes.
fn written(config: &Config, surroundings: &Surroundings) -> Vec<Written> {
    let (root, state) = (Path::root(), state(config, surroundings));
    let (process, at) = (&config.process, root.key("process"));
    let path = |path: &OrAuto<PathBuf>, name: &str| match path {
        OrAuto::Auto => state.join(name),
        OrAuto::Is(path) => path.clone(),
    };
    let mut all = vec![
        (at.key("pid_file"), path(&process.pid_file, "edgeproxy.pid"), false),
        (at.key("log_file"), path(&process.log_file, "edgeproxy.log"), true),
    ];
    if let Some(OrOff::Is(path)) = config.admin.as_ref().map(|admin| &admin.state_file) {
        all.push((root.key("admin").key("state_file"), path.clone(), false));
    }
    if !matches!(config.access_log.to.as_str(), "off" | "stdout") {
        all.push((root.key("access_log").key("to"), config.access_log.to.as_str().into(), true));
    }
    // An empty one was reported as that.
    let all = all.into_iter().filter(|(_, path, _)| !path.as_os_str().is_empty());
    let all =
        all.map(|(at, path, is_log)| Written { at, path: surroundings.folder.join(path), is_log });
    all.filter(|one| !one.path.starts_with("/dev")).collect()
}

fn about(path: &FilePath) -> Option<Metadata> {
    fs::metadata(path).ok()
}

/// The number of a file, which all of its names have in common.
fn number(about: &Metadata) -> (u64, u64) {
    (about.dev(), about.ino())
}

/// The path without links, also where it is not there yet.
fn real(path: &FilePath) -> PathBuf {
    let there = path.ancestors().find_map(|part| Some((part, part.canonicalize().ok()?)));
    let Some((part, real)) = there else { return path.to_path_buf() };
    // What is there itself has no rest, with which it would become a folder.
    path.strip_prefix(part)
        .map_or(real.clone(), |rest| real.components().chain(rest.components()).collect())
}

/// The numbers of the files in a folder and below it.
fn inside(folder: &FilePath) -> Vec<(u64, u64)> {
    let mut numbers = Vec::new();
    let mut folders = vec![(folder.to_path_buf(), 1)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(about) = entry.metadata() else { continue };
            if about.is_file() && numbers.len() < FILES_MOST {
                numbers.push(number(&about));
            } else if about.is_dir() && depth < DEPTH_MOST {
                folders.push((entry.path(), depth + 1));
            }
        }
    }
    numbers
}
