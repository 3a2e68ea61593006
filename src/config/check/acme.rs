//! Checks `acme`, and which hosts certificates are ordered for.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path as FilePath;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;

use crate::acme;
use crate::acme::LETS_ENCRYPT;
use crate::acme::LETS_ENCRYPT_STAGING;
use crate::config::check::DAY;
use crate::config::check::file;
use crate::config::check::period;
use crate::config::check::secret;
use crate::config::check::secret::Files;
use crate::config::path::Path;
use crate::config::report::Report;
use crate::config::schema;
use crate::config::schema::acme::Acme;
use crate::config::schema::acme::Challenge;
use crate::config::schema::value::OrAuto;
use crate::listen::Settings;
use crate::route::host::HostPattern;
use crate::tls;
use crate::tls::Proof;

/// Where it is kept what the server issues.
pub(super) fn folder(written: &Acme, state: &FilePath, folder: &FilePath) -> PathBuf {
    let storage = match &written.storage {
        OrAuto::Auto => state.join("acme"),
        OrAuto::Is(path) => folder.join(path),
    };
    storage.join(acme::folder_name(&directory(written)))
}

/// What listeners have to know of it.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// Where what is issued is kept.
    pub(super) folder: PathBuf,
    /// How it is shown whose the hosts are.
    pub(super) proof: Proof,
    /// The hosts that routes name, but for `*`.
    pub(super) named: Vec<String>,
}

impl Source {
    /// As a certificate's.
    pub(super) fn certificate(&self) -> tls::Source {
        tls::Source::Acme { folder: self.folder.clone(), proof: self.proof }
    }
}

/// What listeners have to know of it.
pub(super) fn source(
    config: &schema::Config,
    state: &FilePath,
    folder: &FilePath,
    at: &Path,
    report: &mut Report<'_>,
) -> Source {
    if let OrAuto::Is(path) = &config.acme.storage {
        file(report, &at.key("storage"), folder, path);
    }
    let hosts = config.routes.iter().flat_map(|route| &route.matches.hosts);
    // What is no host is reported with its route.
    let hosts = hosts.filter_map(|host| HostPattern::parse(host).ok()).map(|host| host.to_string());
    let hosts: BTreeSet<String> = hosts.filter(|host| host != "*").collect();
    Source {
        folder: self::folder(&config.acme, state, folder),
        proof: match config.acme.challenge {
            Challenge::Http01 => Proof::Http01,
            Challenge::TlsAlpn01 => Proof::TlsAlpn01,
            Challenge::Dns01 => Proof::Dns01,
        },
        named: hosts.into_iter().collect(),
    }
}

fn directory(written: &Acme) -> String {
    match &written.directory {
        OrAuto::Is(directory) => directory.clone(),
        OrAuto::Auto if written.staging => LETS_ENCRYPT_STAGING.to_owned(),
        OrAuto::Auto => LETS_ENCRYPT.to_owned(),
    }
}

/// Whether no ACME server can know the host: the internal CA is for it.
pub(super) fn is_private(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>().is_ok() || host == "localhost" || host.ends_with(".localhost")
}

/// What stands against an order for this host, and what to do.
pub(super) fn obstacle(host: &str, proof: Proof) -> Option<(String, &'static str)> {
    if is_private(host) {
        let why = format!("no ACME server issues a certificate for \"{host}\"");
        return Some((why, "write `internal: true` for it, or name files"));
    }
    if host.starts_with("*.") && proof != Proof::Dns01 {
        let why = format!("a certificate for \"{host}\" needs a DNS record");
        return Some((
            why,
            "write `acme: {challenge: dns-01, dns: {command: [...]}}`, or name the hosts",
        ));
    }
    None
}

/// The section, when a certificate is ordered.
pub(super) fn acme(
    config: &schema::Config,
    source: Source,
    listeners: &[Option<Settings>],
    files: Files<'_>,
    at: &Path,
    report: &mut Report<'_>,
) -> Option<acme::Settings> {
    let written = &config.acme;
    let directory = server(written, at, report);
    let contact = contact(written, at, report);
    let external_account = external(written, files, at, report);
    let hook = hook(written, at, report);
    let root = written.root.as_ref().map(|root| file(report, &at.key("root"), files.folder, root));
    let second = Duration::from_secs(1);
    let retry = period(report, &at.key("retry"), written.retry, second, DAY);

    let mut known = listeners.iter().flatten().filter_map(|listener| listener.tls.as_ref());
    let is_used = known.any(|tls| tls.certificates.iter().any(is_ordered));
    if !is_used {
        let is_meant = config.listeners.iter().any(|listener| {
            let tls = listener.tls.as_ref();
            tls.is_some_and(|tls| tls.auto || tls.certificates.iter().any(|one| one.acme))
        });
        let is_clear = !report.is_broken(&Path::root().key("listeners"));
        if *written != Acme::default() && !is_meant && is_clear {
            report
                .warning(at, "no listener has certificates from an ACME server")
                .help("write `tls: auto` at a listener, or `acme: true` at a certificate");
        }
        return None;
    }
    // A listener that is not clear may be the one that is missed.
    if listeners.iter().all(Option::is_some) {
        reached(written, source.proof, listeners, at, report);
    }
    Some(acme::Settings {
        directory,
        root,
        contact,
        terms_agreed: written.terms_agreed,
        external_account,
        proof: source.proof,
        hook,
        folder: source.folder,
        retry,
    })
}

fn is_ordered(certificate: &tls::Certificate) -> bool {
    match certificate.source {
        tls::Source::Acme { .. } => true,
        tls::Source::Files { .. } | tls::Source::Internal => false,
    }
}

fn server(written: &Acme, at: &Path, report: &mut Report<'_>) -> String {
    if let OrAuto::Is(directory) = &written.directory {
        let at = at.key("directory");
        let is_https = |uri: Uri| uri.scheme_str() == Some("https") && uri.host().is_some();
        if !directory.parse().is_ok_and(is_https) {
            report
                .error(&at, format!("\"{directory}\" is not the URL of a directory"))
                .help(format!("like {LETS_ENCRYPT}"));
        } else if written.staging {
            report
                .error(&at, "`staging` is Let's Encrypt's, and this is another server")
                .help("keep one of the two");
        }
    } else if written.root.is_some() {
        report
            .error(&at.key("root"), "Let's Encrypt is trusted by the system's authorities")
            .help("name the `directory` of your own server, or remove the key");
    }
    directory(written)
}

fn contact(written: &Acme, at: &Path, report: &mut Report<'_>) -> Option<String> {
    let contact = written.contact.as_deref()?;
    let address = contact.strip_prefix("mailto:").unwrap_or(contact);
    let fits = address
        .split_once('@')
        .is_some_and(|(user, host)| !user.is_empty() && !host.is_empty() && !host.contains('@'));
    if !fits || address.contains(|c: char| c.is_whitespace() || c.is_control() || ",?".contains(c))
    {
        report
            .error(&at.key("contact"), format!("\"{contact}\" is not an e-mail address"))
            .help("one address, like ops@example.org");
    }
    Some(address.to_owned())
}

fn external(
    written: &Acme,
    files: Files<'_>,
    at: &Path,
    report: &mut Report<'_>,
) -> Option<acme::ExternalAccount> {
    let external = written.external_account.as_ref()?;
    let at = at.key("external_account");
    if external.key_id.trim().is_empty() && !report.has_lost(&at, &["key_id"]) {
        report
            .error(&at.key("key_id"), "the key has no name")
            .help("the server's operator gave it");
    }
    let path = external.hmac_key_file.as_deref();
    let named = ("hmac_key", external.hmac_key.as_ref());
    if named.1.is_none() && path.is_none() && !report.has_lost(&at, &["hmac_key", "hmac_key_file"])
    {
        report
            .error(&at, "the key is missing")
            .help("write `hmac_key_file`, the file that holds it");
    }
    let secret = secret::either(named, path, &at, files, report)?;
    let key = if external.hmac_key.is_some() { "hmac_key" } else { "hmac_key_file" };
    // Where files are not looked at, something stands for what they hold.
    if files.read.is_none() && external.hmac_key.is_none() {
        return Some(acme::ExternalAccount { key_id: external.key_id.clone(), key: Vec::new() });
    }
    let bytes = acme::from_base64url(secret.reveal().trim());
    let bytes = bytes.map_err(|wrong| format!("the key cannot be read: {wrong}"));
    let key = report.take(&at.key(key), bytes, "write it as the server's operator gave it")?;
    Some(acme::ExternalAccount { key_id: external.key_id.clone(), key })
}

fn hook(written: &Acme, at: &Path, report: &mut Report<'_>) -> Option<acme::Hook> {
    let is_needed = written.challenge == Challenge::Dns01;
    let at = at.key("dns");
    let Some(hook) = &written.dns else {
        if is_needed && !report.is_broken(&at) {
            report
                .error(&at, "dns-01 needs a program that sets DNS records")
                .help("write `dns: {command: [/path/to/program]}`");
        }
        return None;
    };
    if !is_needed {
        report
            .error_in_key(&at, "only dns-01 sets DNS records")
            .help("write `challenge: dns-01`, or remove the key");
    }
    let second = Duration::from_secs(1);
    let timeout =
        period(report, &at.key("timeout"), hook.timeout, second, Duration::from_secs(3600));
    if hook.command.first().is_none_or(String::is_empty) && !report.has_lost(&at, &["command"]) {
        report
            .error(&at.key("command"), "the command is empty")
            .help("the program and its arguments");
    }
    Some(acme::Hook { command: hook.command.clone(), timeout })
}

/// Whether the server finds a listener where it looks.
fn reached(
    written: &Acme,
    proof: Proof,
    listeners: &[Option<Settings>],
    at: &Path,
    report: &mut Report<'_>,
) {
    let has = |port: u16, secure: bool| {
        let mut found = listeners.iter().flatten();
        found.any(|one| one.address.port() == port && one.tls.is_some() == secure)
    };
    let (standard, secure, what) = match proof {
        Proof::Http01 => (80, false, "plain listener"),
        Proof::TlsAlpn01 => (443, true, "TLS listener"),
        Proof::Dns01 => {
            if written.port.is_some() {
                report
                    .error_in_key(&at.key("port"), "with dns-01 the server reaches no port")
                    .help("remove the key");
            }
            return;
        }
    };
    let challenge = proof.name();
    match written.port {
        Some(port) if !has(port, secure) => {
            report
                .error(&at.key("port"), format!("there is no {what} on port {port}"))
                .help(format!("name the one that the server reaches as port {standard}"));
        }
        None if !has(standard, secure) => {
            let (message, other) = match proof {
                Proof::Http01 | Proof::Dns01 => (
                    format!(
                        "{challenge} needs a plain listener on port 80, where the server looks"
                    ),
                    "add `{address: \"0.0.0.0:80\"}`",
                ),
                Proof::TlsAlpn01 => (
                    format!("{challenge} needs a TLS listener on port 443, where the server looks"),
                    "add one",
                ),
            };
            report.error(at, message).help(format!(
                "{other}; where another port is reached as {standard}, say so with `acme: {{port: ...}}`"
            ));
        }
        Some(_) | None => {}
    }
}
