//! The state file: what operators changed about backends, kept for the next start.
//!
//! It holds differences and no whole lists, so that a configuration that changes meanwhile counts. It is
//! replaced as a whole, or not at all.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::fs::DirBuilder;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use log::error;
use log::info;
use log::warn;
use parking_lot::Mutex;
use parking_lot::MutexGuard;
use serde::Deserialize;
use serde::Serialize;

use crate::config;
use crate::config::schema::upstream::Address;
use crate::upstream;
use crate::upstream::Settings;
use crate::upstream::drift::Adjustment;
use crate::upstream::drift::Changed;
use crate::upstream::drift::Drift;
use crate::upstream::drift::Meant;
use crate::upstream::peer::Upstream;

/// The form of the file.
const VERSION: u32 = 1;
/// The largest file that is read.
const BYTES_MOST: u64 = 16 << 20;
/// How many files are kept aside.
const ASIDE_MOST: u32 = 100;

/// Keeps changes, one at a time.
#[derive(Debug, Default)]
pub struct Keeper {
    path: Option<PathBuf>,
    /// Why nothing can be kept, although it should be.
    trouble: Mutex<Option<String>>,
    /// Another process begins, or has begun, with what is kept now. Written while nobody else changes anything.
    is_handed_on: AtomicBool,
}

/// The file.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    upstreams: BTreeMap<String, Group>,
}

/// What is different about one upstream.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Group {
    added: Vec<Added>,
    changed: BTreeMap<String, Otherwise>,
    removed: Vec<String>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Added {
    backend: Address,
    #[serde(default)]
    draining: bool,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Otherwise {
    #[serde(skip_serializing_if = "Option::is_none")]
    weight: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    active: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backup: Option<bool>,
    draining: bool,
}

impl Keeper {
    /// Keeps changes in this file; `None`: nowhere.
    #[must_use]
    pub fn new(path: Option<PathBuf>) -> Self {
        Self { path, trouble: Mutex::default(), is_handed_on: AtomicBool::new(false) }
    }

    /// The backends that each of these upstreams begins with: those of the configuration, with what was
    /// changed since. A file that cannot be read is kept aside, and the configuration counts.
    #[must_use]
    pub fn begin(&self, upstreams: &[Settings]) -> Vec<Vec<Meant>> {
        let configured = |one: &Settings| one.backends.iter().cloned().map(Meant::new).collect();
        let Some(path) = &self.path else { return upstreams.iter().map(configured).collect() };
        let name = path.display();
        let document = match read(path) {
            Ok(document) => document,
            Err(why) => {
                error!(target: "edgeproxy::state", "the state file {name} cannot be used: {why}");
                match aside(path, |from, to| fs::rename(from, to)) {
                    Ok(to) => error!(
                        target: "edgeproxy::state",
                        "the backends are those of the configuration; the file is kept as {}",
                        to.display()
                    ),
                    Err(e) => {
                        let trouble =
                            format!("{name} cannot be used, and not be put aside either: {e}");
                        error!(target: "edgeproxy::state", "changes are not kept: {trouble}");
                        *self.trouble.lock() = Some(trouble);
                    }
                }
                Document::default()
            }
        };
        self.lay_over(path, document, upstreams)
    }

    fn lay_over(
        &self,
        path: &Path,
        mut document: Document,
        upstreams: &[Settings],
    ) -> Vec<Vec<Meant>> {
        let mut lost = false;
        let mut stale = false;
        let mut all = Vec::with_capacity(upstreams.len());
        let mut drifts = Vec::with_capacity(upstreams.len());
        for settings in upstreams {
            let name = &*settings.name;
            let group = document.upstreams.remove(name).unwrap_or_default();
            let (drift, problems) = group.drift(settings);
            for (backend, problem) in problems {
                lost = true;
                warn!(target: "edgeproxy::state", upstream = name, backend, problem;
                    "a backend of the state file is left out");
            }
            let was = drift.clone();
            let (now, moot) = drift.over(&settings.backends);
            for (backend, moot) in moot {
                stale = true;
                info!(target: "edgeproxy::state", upstream = name, backend = &*backend,
                    reason = moot.reason(); "a change in the state file is obsolete");
            }
            let drift = Drift::between(&settings.backends, &now);
            // As where the configuration says by now what was changed.
            stale |= drift != was;
            if !drift.is_empty() {
                let (added, changed) = (drift.added.len(), drift.changed.len());
                let removed = drift.removed.len();
                warn!(target: "edgeproxy::state", upstream = name, added, changed, removed;
                    "its backends differ from the configuration, by the state file");
            }
            drifts.push((Arc::clone(&settings.name), drift));
            all.push(now);
        }
        for name in document.upstreams.keys() {
            lost = true;
            warn!(target: "edgeproxy::state", upstream = name.as_str();
                "the configuration does not have this upstream of the state file");
        }
        if lost {
            keep_aside(path);
        }
        // Otherwise what is obsolete would come back when the configuration changes once more.
        if (lost || stale)
            && let Err(why) = self.write(&drifts, &self.trouble.lock())
        {
            warn!(target: "edgeproxy::state", "{why}");
        }
        all
    }

    /// Says of upstreams that the configuration does not have any more what of them was changed at run time and goes
    /// with them; the file that has it is kept aside.
    pub fn forget(&self, gone: &[Arc<Upstream>]) {
        let mut lost = false;
        for upstream in gone {
            let drift = upstream.drift();
            if drift.is_empty() {
                continue;
            }
            lost = true;
            let (added, changed) = (drift.added.len(), drift.changed.len());
            let (name, removed) = (&*upstream.settings().name, drift.removed.len());
            warn!(target: "edgeproxy::state", upstream = name, added, changed, removed;
                "the configuration does not have this upstream any more: what was changed of its backends is lost");
        }
        if let Some(path) = self.path.as_ref().filter(|path| lost && path.exists()) {
            keep_aside(path);
        }
    }

    /// Waits until nobody else changes anything.
    pub fn turn(&self) -> MutexGuard<'_, Option<String>> {
        self.trouble.lock()
    }

    /// Another process is about to begin with what is kept, or has died over it.
    pub fn hand_on(&self, is_handed_on: bool) {
        let _turn = self.turn();
        self.is_handed_on.store(is_handed_on, Ordering::Relaxed);
    }

    /// Whether what is changed from here on would be lost: another process does not know of it.
    pub fn is_handed_on(&self, _turn: &MutexGuard<'_, Option<String>>) -> bool {
        self.is_handed_on.load(Ordering::Relaxed)
    }

    /// Keeps what is different about these upstreams now.
    ///
    /// # Errors
    /// It could not be written; what was kept before still is.
    pub fn keep(
        &self,
        turn: &MutexGuard<'_, Option<String>>,
        upstreams: &[Arc<Upstream>],
    ) -> Result<(), String> {
        if self.path.is_none() {
            return Ok(());
        }
        let drift = |one: &Arc<Upstream>| (Arc::clone(&one.settings().name), one.drift());
        let drifts: Vec<_> = upstreams.iter().map(drift).collect();
        self.write(&drifts, turn)
    }

    fn write(&self, drifts: &[(Arc<str>, Drift)], trouble: &Option<String>) -> Result<(), String> {
        let Some(path) = &self.path else { return Ok(()) };
        if let Some(trouble) = trouble {
            return Err(trouble.clone());
        }
        let differ = drifts.iter().filter(|(_, drift)| !drift.is_empty());
        let upstreams = differ.map(|(name, drift)| (name.to_string(), Group::of(drift))).collect();
        let document = Document { version: VERSION, upstreams };
        let text = serde_json::to_string_pretty(&document).map_err(|e| e.to_string())?;
        replace(path, &text)
            .map_err(|e| format!("the state file {} cannot be written: {e}", path.display()))
    }
}

impl Group {
    fn of(drift: &Drift) -> Self {
        let added = |meant: &Meant| Added {
            backend: config::written(&meant.backend),
            draining: meant.draining,
        };
        let changed = |changed: &Changed| {
            let Adjustment { weight, active, backup } = changed.now;
            let otherwise = Otherwise { weight, active, backup, draining: changed.draining };
            (changed.id.to_string(), otherwise)
        };
        Self {
            added: drift.added.iter().map(added).collect(),
            changed: drift.changed.iter().map(changed).collect(),
            removed: drift.removed.iter().map(ToString::to_string).collect(),
        }
    }

    /// As a difference, and what cannot be used: a backend, and why.
    fn drift(self, settings: &Settings) -> (Drift, Vec<(String, String)>) {
        let mut problems = Vec::new();
        let mut drift = Drift {
            removed: self.removed.iter().map(|id| id.as_str().into()).collect(),
            ..Drift::default()
        };
        for Added { backend, draining } in self.added {
            let id = backend.id.clone().unwrap_or_else(|| backend.address.clone());
            let meant = match &backend.id {
                Some(id) => config::backend_of(id, &backend, settings.tls.as_ref()),
                None => config::backend(&backend, settings.tls.as_ref()),
            };
            match meant.and_then(usable) {
                Ok(backend) => drift.added.push(Meant { backend, draining }),
                Err(why) => {
                    // Where it was before is better than nowhere, but for requests that it was to get none of.
                    drift.removed.retain(|removed| **removed != *id);
                    let is_configured = settings.backends.iter().any(|one| *one.id == *id);
                    if is_configured && (draining || !backend.active) {
                        let active = (!backend.active).then_some(false);
                        let now = Adjustment { active, ..Adjustment::default() };
                        drift.changed.push(Changed { id: id.as_str().into(), now, draining });
                    }
                    problems.push((id, why));
                }
            }
        }
        for (id, otherwise) in self.changed {
            let Otherwise { weight, active, backup, draining } = otherwise;
            if weight.is_some_and(|weight| !upstream::WEIGHTS.contains(&weight)) {
                problems.push((id, format!("{} is no weight", weight.unwrap_or_default())));
                continue;
            }
            let now = Adjustment { weight, active, backup };
            drift.changed.push(Changed { id: id.into(), now, draining });
        }
        (drift, problems)
    }
}

/// The backend, if it can be used on this machine.
///
/// # Errors
/// What is wrong with it.
pub(super) fn usable(backend: upstream::Backend) -> Result<upstream::Backend, String> {
    if let Some(tls) = &backend.tls {
        upstream::tls::check_files(tls).map_err(|e| e.to_string())?;
    }
    Ok(backend)
}

/// What is in the file; nothing if there is none.
fn read(path: &Path) -> Result<Document, String> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Document::default()),
        Err(e) => return Err(e.to_string()),
    };
    let mut text = String::new();
    file.take(BYTES_MOST + 1).read_to_string(&mut text).map_err(|e| e.to_string())?;
    if text.len() as u64 > BYTES_MOST {
        return Err(format!("it is larger than {} MiB", BYTES_MOST >> 20));
    }
    let document: Document = serde_json::from_str(&text).map_err(|e| e.to_string())?;
    if document.version != VERSION {
        return Err(format!("its version is {}, not {VERSION}", document.version));
    }
    Ok(document)
}

/// Puts `text` in the place of what is there: whoever looks finds all of one or all of the other, also
/// after the machine lost its power.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    if !folder.exists() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut name = OsString::from(".");
    name.push(path.file_name().ok_or_else(|| io::Error::other("it names no file"))?);
    name.push(format!(".{}", std::process::id()));
    let new = folder.join(name);
    let written = write_new(&new, text).and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        let _ = fs::remove_file(&new);
        return written;
    }
    // The name is safe only when the folder is.
    File::open(folder)?.sync_all()
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    // One that a process of the same number left behind when it died.
    let _ = fs::remove_file(path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Copies the file to a name beside its own, and says so.
fn keep_aside(path: &Path) {
    match aside(path, |from, to| fs::copy(from, to).map(|_| ())) {
        Ok(to) => warn!(target: "edgeproxy::state",
            "the state file as it was is kept as {}", to.display()),
        Err(e) => warn!(target: "edgeproxy::state",
            "the state file as it was cannot be kept: {e}"),
    }
}

/// Brings the file to a name beside its own that nothing has yet.
fn aside(path: &Path, bring: impl Fn(&Path, &Path) -> io::Result<()>) -> io::Result<PathBuf> {
    for n in 1..=ASIDE_MOST {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".unused-{n}"));
        let to = PathBuf::from(name);
        if to.symlink_metadata().is_err() {
            return bring(path, &to).map(|()| to);
        }
    }
    Err(io::Error::other(format!("there are {ASIDE_MOST} files beside it already: remove some")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::runtime::patch::Patch;

    fn settings(addresses: &str) -> Vec<Settings> {
        let text = format!(
            "listeners: [{{address: \"127.0.0.1:0\"}}]\nupstreams: {{app: {{addresses: [{addresses}]}}}}\n\
             routes: [{{upstream: app}}]\n"
        );
        config::from_text(&text, "test").expect("it is valid").plan.upstreams
    }

    fn ids(all: &[Vec<Meant>]) -> Vec<&str> {
        all.iter().flatten().map(|meant| &*meant.backend.id).collect()
    }

    #[test]
    fn what_was_kept_is_read_again_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("below/state.json");
        let settings = settings("\"a:1\", \"b:1\", {id: c, address: \"c:1\", weight: 2}");
        let mut now: Vec<Meant> = settings[0].backends.iter().cloned().map(Meant::new).collect();
        now.remove(0);
        now[0].draining = true;
        now[1].backend.weight = 7;
        let written = Address {
            id: Some("d".to_owned()),
            tls: Some(config::schema::value::Switch::On(Default::default())),
            ..Address::new("[::1]:8443")
        };
        now.push(Meant::new(config::backend(&written, None).unwrap()));
        let drift = Drift::between(&settings[0].backends, &now);

        let keeper = Keeper::new(Some(path.clone()));
        keeper.write(&[("app".into(), drift)], &None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing else stays");
        assert_eq!(Keeper::new(Some(path)).begin(&settings), [now]);
    }

    /// Backends with what these change of them, by their ids.
    fn moved(settings: &Settings, patches: &[(&str, &str)]) -> Vec<Meant> {
        let mut now: Vec<Meant> = settings.backends.iter().cloned().map(Meant::new).collect();
        for (id, patch) in patches {
            let meant =
                now.iter_mut().find(|meant| *meant.backend.id == **id).expect("it is there");
            let patch: Patch = serde_json::from_str(patch).expect("it can be read");
            meant.backend = patch.over(&meant.backend, settings).expect("it can be used");
        }
        now
    }

    #[test]
    fn one_that_is_elsewhere_is_kept_under_its_id_with_its_tls() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        let settings = settings("\"http://a:1\", {id: b, address: \"b:1\"}");
        let mut now = moved(
            &settings[0],
            &[
                ("http://a:1", "{\"address\": \"unix:/run/a.sock\", \"weight\": 3}"),
                (
                    "b",
                    "{\"address\": \"https://c\", \"tls\": {\"server_name\": \"in.test\", \
                     \"names\": [\"d.test\"]}}",
                ),
            ],
        );
        now[1].draining = true;
        let drift = Drift::between(&settings[0].backends, &now);
        assert_eq!((drift.added.len(), drift.removed.len(), drift.count()), (2, 2, 2));
        Keeper::new(Some(path.clone())).write(&[("app".into(), drift)], &None).unwrap();
        assert_eq!(Keeper::new(Some(path)).begin(&settings), [now]);
    }

    #[test]
    fn a_place_that_the_configuration_has_by_now_does_not_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        let was = settings("{id: a, address: \"a:1\"}");
        let now = moved(&was[0], &[("a", "{\"address\": \"b:1\"}")]);
        let drift = Drift::between(&was[0].backends, &now);
        Keeper::new(Some(path.clone())).write(&[("app".into(), drift)], &None).unwrap();
        let at = |address: &str| {
            let settings = settings(&format!("{{id: a, address: \"{address}\"}}"));
            Keeper::new(Some(path.clone())).begin(&settings)[0][0].backend.at.to_string()
        };
        assert_eq!(["a:1", "b:1", "c:1"].map(at), ["b:1", "b:1", "c:1"]);
    }

    #[test]
    fn one_that_cannot_be_where_it_was_brought_gets_no_more_requests_than_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        let settings = settings("{id: a, address: \"a:1\"}, {id: b, address: \"b:1\"}");
        let ca = folder.path().join("ca.pem");
        let patch =
            format!("{{\"address\": \"https://c\", \"tls\": {{\"ca\": \"{}\"}}}}", ca.display());
        let mut now = moved(&settings[0], &[("a", &patch), ("b", &patch)]);
        now[0].draining = true;
        now[1].backend.active = false;
        let drift = Drift::between(&settings[0].backends, &now);
        Keeper::new(Some(path.clone())).write(&[("app".into(), drift)], &None).unwrap();
        // The file is not there any more.
        let all = Keeper::new(Some(path)).begin(&settings);
        let told: Vec<_> = all[0]
            .iter()
            .map(|one| (one.backend.at.to_string(), one.draining, one.backend.active))
            .collect();
        assert_eq!(told, [("a:1".to_owned(), true, true), ("b:1".to_owned(), false, false)]);
    }

    #[test]
    fn without_a_file_the_configuration_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        let settings = settings("\"a:1\"");
        assert_eq!(ids(&Keeper::new(Some(path.clone())).begin(&settings)), ["a:1"]);
        assert_eq!(ids(&Keeper::new(None).begin(&settings)), ["a:1"]);
        assert!(!path.exists());
    }

    #[test]
    fn a_damaged_file_is_kept_aside_under_a_name_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        let settings = settings("\"a:1\"");
        for (n, text) in
            ["", "{\"version\": 1, \"upstr", "{\"version\": 2, \"upstreams\": {}}", "\u{0}"]
                .iter()
                .enumerate()
        {
            fs::write(&path, text).unwrap();
            assert_eq!(ids(&Keeper::new(Some(path.clone())).begin(&settings)), ["a:1"], "{text}");
            assert!(!path.exists());
            let aside = folder.path().join(format!("state.json.unused-{}", n + 1));
            assert_eq!(fs::read_to_string(aside).unwrap(), *text);
        }
    }

    #[test]
    fn what_cannot_be_used_is_left_out_and_kept_aside_and_the_rest_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        let settings = settings("\"a:1\", \"b:1\"");
        let text = "{\"version\": 1, \"upstreams\": {\"app\": {\
                    \"added\": [{\"backend\": {\"id\": \"x\", \"address\": \"nowhere\"}}, \
                                {\"backend\": {\"id\": \"y\", \"address\": \"y:1\"}}], \
                    \"changed\": {\"a:1\": {\"weight\": 0}}, \"removed\": [\"b:1\"]}, \
                    \"gone\": {}}}";
        fs::write(&path, text).unwrap();
        let all = Keeper::new(Some(path.clone())).begin(&settings);
        assert_eq!(ids(&all), ["a:1", "y"]);
        assert_eq!(all[0][0].backend.weight, 1);
        let aside = folder.path().join("state.json.unused-1");
        assert_eq!(fs::read_to_string(aside).unwrap(), text);
        // It was written anew, without them.
        assert_eq!(ids(&Keeper::new(Some(path)).begin(&settings)), ["a:1", "y"]);
        assert!(!folder.path().join("state.json.unused-2").exists());
    }

    #[test]
    fn what_is_obsolete_does_not_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        let text = "{\"version\": 1, \"upstreams\": {\"app\": {\"added\": \
                    [{\"backend\": {\"id\": \"b\", \"address\": \"b:1\"}}]}}}";
        fs::write(&path, text).unwrap();
        let begin = |addresses| {
            let all = Keeper::new(Some(path.clone())).begin(&settings(addresses));
            ids(&all).join(" ")
        };
        assert_eq!(begin("\"a:1\""), "a:1 b");
        assert_eq!(begin("\"a:1\", {id: b, address: \"b:1\"}"), "a:1 b");
        assert_eq!(begin("\"a:1\""), "a:1");
    }

    #[test]
    fn a_file_that_cannot_be_written_is_told_and_leaves_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        fs::create_dir(&path).unwrap();
        let keeper = Keeper::new(Some(path.clone()));
        let why = keeper.write(&[], &None).unwrap_err();
        assert!(why.contains("state.json cannot be written"), "{why}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no rest is left");
    }
}
