//! Whether the files that a configuration names can be read: said with their place in the
//! configuration, before anything starts.

use std::fs::File;
use std::path::Path as FilePath;

use crate::config::path::Path;
use crate::config::report::Report;
use crate::config::schema::Config;

/// Looks at every file that must be there.
pub(super) fn look(config: &Config, folder: &FilePath, report: &mut Report<'_>) {
    let listeners = Path::root().key("listeners");
    for (n, listener) in config.listeners.iter().enumerate() {
        let certificates = listener.tls.as_ref().map(|tls| tls.certificates.as_slice());
        let at = listeners.index(n).key("tls").key("certificates");
        for (m, certificate) in certificates.unwrap_or_default().iter().enumerate() {
            let at = at.index(m);
            one(certificate.certificate.as_deref(), &at.key("certificate"), folder, report);
            one(certificate.key.as_deref(), &at.key("key"), folder, report);
        }
    }
    for (name, upstream) in &config.upstreams {
        let at = Path::root().key("upstreams").key(name.as_str()).key("tls").key("ca");
        one(upstream.tls.as_ref().and_then(|tls| tls.ca.as_deref()), &at, folder, report);
    }
}

fn one(path: Option<&FilePath>, at: &Path, folder: &FilePath, report: &mut Report<'_>) {
    let Some(path) = path.filter(|path| !path.as_os_str().is_empty()) else { return };
    let whole = folder.join(path);
    let problem = match File::open(&whole).and_then(|file| file.metadata()) {
        Ok(metadata) if metadata.is_file() => return,
        Ok(_) => "it is not a file".to_owned(),
        Err(error) => error.to_string(),
    };
    let diagnostic = report.error(at, format!("cannot read {}: {problem}", path.display()));
    if path.is_relative() {
        diagnostic.help(format!("relative paths begin in {}", folder.display()));
    }
}
