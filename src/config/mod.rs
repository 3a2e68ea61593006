//! Configuration: as written (`schema`), as meant (`plan`), and the way between.
//!
//! ```text
//! text ─document─► tree with places ─expand─► ─read─► schema::Config ─check─► Plan
//!                        └────────── every Diagnostic on the way, at once ──────┘
//! ```
//!
//! A mistake does not end the way: what does not fit is reported, cut out, and the rest goes on, so
//! that one run tells everything. Only a configuration without errors becomes a [`Plan`].

pub mod check;
pub mod diagnostic;
pub mod diff;
pub mod document;
pub mod expand;
mod machine;
mod mask;
mod named;
pub mod path;
pub mod pid_file;
pub mod plan;
pub mod read;
pub mod report;
mod same;
pub mod schema;
mod show;
pub mod suggest;
mod variables;

use std::io::Read;
use std::path::Path as FilePath;
use std::path::PathBuf;
use std::time::SystemTime;

use crate::config::check::Surroundings;
use crate::config::check::secret;
use crate::config::check::secret::Reader;
use crate::config::diagnostic::Diagnostic;
use crate::config::diagnostic::Diagnostics;
use crate::config::diagnostic::Severity;
use crate::config::document::Document;
use crate::config::document::MAX_BYTES;
use crate::config::document::NodeId;
use crate::config::document::Value;
use crate::config::expand::Environment;
use crate::config::path::Path;
use crate::config::path::Step;
use crate::config::plan::Plan;
use crate::config::report::Report;
use crate::config::schema::value::Switch;
use crate::message::target::Scheme;
use crate::upstream;
use crate::upstream::OriginTls;
use crate::upstream::Place;

pub use crate::config::show::effective;
pub use crate::config::show::show;

/// A configuration without errors.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// As meant.
    pub plan: Plan,
    /// As written.
    pub config: schema::Config,
    /// Of routes whose redirect has text from variables: their place, and the redirect as it is written.
    pub from_variables: Vec<(usize, String)>,
    /// What may not be meant.
    pub warnings: Diagnostics,
}

/// Whether it is looked at what a configuration names: files, users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Machine {
    /// It is, at this time.
    Look(SystemTime),
    Leave,
}

/// Loads a file. What it names must be there and fit: certificates with their keys, users.
///
/// # Errors
/// Everything that is wrong with it, warnings among them.
pub fn load(path: impl AsRef<FilePath>) -> Result<Loaded, Diagnostics> {
    File::new(path.as_ref()).load()
}

/// A configuration file that is read again and again, each time as it was the first time: also when the
/// process has another folder and another user meanwhile.
#[derive(Debug, Clone)]
pub struct File {
    /// As it was named.
    name: String,
    path: PathBuf,
    surroundings: Surroundings,
}

impl File {
    /// The file at this path.
    #[must_use]
    pub fn new(path: &FilePath) -> Self {
        let folder = path.parent().map(FilePath::to_path_buf).unwrap_or_default();
        let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        Self {
            name: path.display().to_string(),
            surroundings: Surroundings { file: Some(whole.clone()), ..surroundings(&folder) },
            path: whole,
        }
    }

    /// Loads it.
    ///
    /// # Errors
    /// As [`load`].
    pub fn load(&self) -> Result<Loaded, Diagnostics> {
        let text = read_file(&self.path).map_err(|message| {
            let mut diagnostic = Diagnostic::new(Severity::Error, message);
            diagnostic.help("name a file of YAML, in UTF-8, that is there and that you may read");
            diagnostic.file.clone_from(&self.name);
            let mut found = Diagnostics::default();
            found.push(diagnostic);
            found
        })?;
        let look = Machine::Look(SystemTime::now());
        let environment = |name: &str| std::env::var_os(name);
        through(&text, &self.name, &self.surroundings, &environment, look)
    }

    /// The file, and the files that a configuration in it names and that are read with it.
    #[must_use]
    pub fn all(&self, config: &schema::Config) -> Vec<PathBuf> {
        let mut files = vec![self.path.clone()];
        files.extend(
            named::files(config).into_iter().map(|file| self.surroundings.folder.join(file)),
        );
        files
    }
}

/// Takes a configuration from text; `name` stands for it in messages, and relative paths begin in the
/// working directory. The files that it names are not looked at; a secret in one of them is `***`.
///
/// # Errors
/// Everything that is wrong with it, warnings among them.
pub fn from_text(text: &str, name: &str) -> Result<Loaded, Diagnostics> {
    let surroundings = surroundings(FilePath::new(""));
    through(text, name, &surroundings, &|name| std::env::var_os(name), Machine::Leave)
}

/// Takes a configuration that the program put together, as quick mode does.
///
/// # Errors
/// Everything that is wrong with it, warnings among them.
pub fn from_config(config: schema::Config) -> Result<Loaded, Diagnostics> {
    let surroundings = surroundings(FilePath::new(""));
    let mut report = Report::new(None, Diagnostics::default());
    let plan = check::check(&config, &surroundings, None, &mut report);
    finish(plan, config, report)
}

/// Takes one backend that is to be added to a running upstream, whose TLS is `outer`.
///
/// # Errors
/// What is wrong with it, and what to do.
pub fn backend(
    written: &schema::upstream::Address,
    outer: Option<&OriginTls>,
) -> Result<upstream::Backend, String> {
    let mut backend = clear(written, outer)?;
    if written.id.is_none() {
        let id = backend.at.to_string();
        if id.contains('/') {
            return Err("a socket needs an `id`: it stands in logs, metrics and paths".to_owned());
        }
        backend.id = id.into();
    }
    usable(backend)
}

/// The same for one that is to be otherwise, or was before the program ended, and goes by this id. That may be
/// an address, as it stands in a configuration, and no id that could be given.
///
/// # Errors
/// As [`backend`].
pub fn backend_of(
    id: &str,
    written: &schema::upstream::Address,
    outer: Option<&OriginTls>,
) -> Result<upstream::Backend, String> {
    let written = schema::upstream::Address { id: None, ..written.clone() };
    let backend = clear(&written, outer)?;
    usable(upstream::Backend { id: id.into(), ..backend })
}

/// What the address of a backend says of TLS; `None`: nothing, or it is none.
#[must_use]
pub fn scheme(address: &str) -> Option<Scheme> {
    check::scheme(address)
}

fn clear(
    written: &schema::upstream::Address,
    outer: Option<&OriginTls>,
) -> Result<upstream::Backend, String> {
    let mut report = Report::new(None, Diagnostics::default());
    let nowhere = FilePath::new("");
    let backend = check::upstream::backend(written, outer, nowhere, &Path::root(), &mut report);
    let found = report.finish();
    let wrong = found.all().iter().filter(|one| one.severity == Severity::Error).map(|one| {
        let place = if one.path.is_empty() { "" } else { ": " };
        let help = one.help.as_ref().map(|help| format!("; {help}")).unwrap_or_default();
        format!("{}{place}{}{help}", one.path, one.message)
    });
    let wrong: Vec<String> = wrong.collect();
    backend.filter(|_| wrong.is_empty()).ok_or_else(|| wrong.join(" / "))
}

fn usable(backend: upstream::Backend) -> Result<upstream::Backend, String> {
    // There is no file whose folder they could begin in.
    let socket = match &backend.at {
        Place::Unix(path) => Some(path),
        Place::Tcp { .. } | Place::Service(_) | Place::Demo => None,
    };
    let files = backend.tls.iter().flat_map(OriginTls::files);
    if let Some(path) = socket.into_iter().chain(files).find(|path| path.is_relative()) {
        return Err(format!("\"{}\" is relative; begin it with a slash", path.display()));
    }
    if backend.at == Place::Demo {
        return Err("the demo origin can stand in the configuration only".to_owned());
    }
    Ok(backend)
}

/// A backend as it would be written: [`backend_of`] takes it back as it is.
#[must_use]
pub fn written(backend: &upstream::Backend) -> schema::upstream::Address {
    let tls = backend.tls.as_ref().map_or(Switch::Off, |tls| {
        let OriginTls { server_name, ca, verify, names, shown } = tls.clone();
        let names = names.iter().map(ToString::to_string).collect();
        let (certificate, key) = shown.map(|shown| (shown.certificate, shown.key)).unzip();
        Switch::On(schema::upstream::OriginTls { server_name, ca, verify, names, certificate, key })
    });
    schema::upstream::Address {
        id: Some(backend.id.to_string()),
        address: backend.at.to_string(),
        weight: backend.weight,
        active: backend.active,
        backup: backend.backup,
        tls: Some(tls),
    }
}

/// The JSON Schema of the file, for editors.
#[must_use]
pub fn json_schema() -> String {
    let mut schema = schemars::schema_for!(schema::Config).to_value();
    variables::allow(&mut schema);
    // It knows in which order its keys are read best.
    let schema = schemars::Schema::try_from(schema).expect("it was one");
    let mut text = serde_json::to_string_pretty(&schema).expect("a schema is plain JSON");
    text.push('\n');
    text
}

/// The whole way, with everything that it depends on as arguments.
fn through(
    text: &str,
    name: &str,
    surroundings: &Surroundings,
    environment: Environment<'_>,
    machine: Machine,
) -> Result<Loaded, Diagnostics> {
    let (mut document, mut found) = Document::parse(text, name)?;
    let secret_places = secret::places(&document);
    let from_variables = from_variables(&document);
    expand::expand_all(&mut document, environment, &mut found);
    let Some(config) = read::read::<schema::Config>(&mut document, &mut found) else {
        secret_places.into_iter().for_each(|place| found.hide(place));
        found.sort();
        return Err(found);
    };
    let mut report = Report::new(Some(&document), found);
    report.hide_places(secret_places);
    let secrets: Option<Reader<'_>> = match machine {
        Machine::Look(_) => Some(&machine::secret),
        Machine::Leave => None,
    };
    let plan = check::check(&config, surroundings, secrets, &mut report);
    if let Machine::Look(now) = machine {
        machine::look(&config, surroundings, now, &mut report);
    }
    let loaded = finish(plan, config, report)?;
    Ok(Loaded { from_variables, ..loaded })
}

/// The redirects of a document that name variables, as they are written.
fn from_variables(document: &Document) -> Vec<(usize, String)> {
    let written = |id: &NodeId| {
        let path = document.path(*id);
        let [Step::Key(routes), Step::Index(route), Step::Key(redirect), Step::Key(to)] =
            path.steps()
        else {
            return None;
        };
        let Value::Scalar { text, .. } = document.value(*id) else { return None };
        let is_one =
            (routes.as_str(), redirect.as_str(), to.as_str()) == ("routes", "redirect", "to");
        if !is_one || !text.contains("${") {
            return None;
        }
        Some((*route, text.clone()))
    };
    document.scalars().iter().filter_map(written).collect()
}

/// The effective configuration as YAML, as `show` does, of a file: with what `auto` stands for here, and with the
/// names of variables in redirects instead of what they hold.
#[must_use]
pub fn shown(loaded: &Loaded) -> String {
    show::written(&show::settled(&loaded.config, &loaded.plan), &loaded.from_variables)
}

fn finish(
    plan: Option<Plan>,
    config: schema::Config,
    report: Report<'_>,
) -> Result<Loaded, Diagnostics> {
    match plan.filter(|_| !report.has_errors()) {
        Some(plan) => {
            Ok(Loaded { plan, config, from_variables: Vec::new(), warnings: report.finish() })
        }
        None => Err(report.finish()),
    }
}

/// A file's text; never more of it than a document may have.
fn read_file(path: &FilePath) -> Result<String, String> {
    let file = std::fs::File::open(path).map_err(|error| format!("cannot open it: {error}"))?;
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_end(&mut bytes).map_err(|error| format!("cannot read it: {error}"))?;
    if bytes.len() > MAX_BYTES {
        return Err(format!("the file is larger than {} MiB", MAX_BYTES >> 20));
    }
    String::from_utf8(bytes).map_err(|error| {
        let line = error.as_bytes()[..error.utf8_error().valid_up_to()]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count();
        format!("line {} is not UTF-8", line + 1)
    })
}

/// What this machine and this user contribute.
fn surroundings(folder: &FilePath) -> Surroundings {
    // Absolute, so that a daemon that changes its folder still finds its files.
    let folder = std::path::absolute(folder.join(".")).unwrap_or_else(|_| folder.to_path_buf());
    let variable =
        |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state_dir = if nix::unistd::geteuid().is_root() {
        PathBuf::from("/var/lib/edgeproxy")
    } else if let Some(state) = variable("XDG_STATE_HOME") {
        state.join("edgeproxy")
    } else if let Some(home) = variable("HOME") {
        home.join(".local/state/edgeproxy")
    } else {
        folder.join("edgeproxy-state")
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Surroundings { folder, file: None, state_dir, cores }
}

#[cfg(test)]
mod tests;
