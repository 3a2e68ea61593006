//! Checks `admin`, `access_log` and `log`.

use std::net::SocketAddr;
use std::path::Path as FilePath;
use std::path::PathBuf;

use log::LevelFilter;

use crate::config::check::address;
use crate::config::check::file;
use crate::config::check::secret;
use crate::config::check::secret::Files;
use crate::config::check::socket_length;
use crate::config::check::within;
use crate::config::path::Path;
use crate::config::plan::AdminAddress;
use crate::config::report::Report;
use crate::config::schema;
use crate::config::schema::observe::Admin;
use crate::config::schema::observe::Level;
use crate::config::schema::value::OrOff;
use crate::config::suggest;
use crate::listen::Settings;
use crate::message::secret::Token;
use crate::observe::AccessLog;
use crate::observe::Format;
use crate::observe::Sink;
use crate::observe::access_log::Field;

/// Where the admin listener is when nothing else is said.
const ADMIN: &str = "127.0.0.1:9180";

/// The admin listener.
pub(super) fn admin(
    written: &Admin,
    files: Files<'_>,
    listeners: &[Option<Settings>],
    at: &Path,
    report: &mut Report<'_>,
) -> (Option<AdminAddress>, Option<Token>) {
    let path = written.token_file.as_deref();
    let token = secret::token(written.token.as_ref(), path, at, files, report);
    let is_guarded = written.token.is_some() || path.is_some();
    (place(written, is_guarded, files.folder, listeners, at, report), token)
}

/// Where changes at run time are kept.
pub(super) fn state_file(
    written: &Admin,
    folder: &FilePath,
    at: &Path,
    report: &mut Report<'_>,
) -> Option<PathBuf> {
    match &written.state_file {
        OrOff::Off => None,
        OrOff::Is(path) => Some(file(report, &at.key("state_file"), folder, path)),
    }
}

fn place(
    written: &Admin,
    is_guarded: bool,
    folder: &FilePath,
    listeners: &[Option<Settings>],
    at: &Path,
    report: &mut Report<'_>,
) -> Option<AdminAddress> {
    let tcp = match (&written.socket, &written.address) {
        (Some(_), None) => None,
        (_, address) => {
            let address = address.as_deref().unwrap_or(ADMIN);
            tcp(address, is_guarded, listeners, &at.key("address"), report)
        }
    };
    if let Some(socket) = &written.socket {
        if written.address.is_some() {
            report
                .error_in_key(&at.key("address"), "the admin listener has one place")
                .help("either `address` or `socket`");
        }
        let socket = file(report, &at.key("socket"), folder, socket);
        socket_length(report, &at.key("socket"), &socket);
        return Some(AdminAddress::Unix(socket));
    }
    tcp.map(AdminAddress::Tcp)
}

fn tcp(
    written: &str,
    is_guarded: bool,
    listeners: &[Option<Settings>],
    at: &Path,
    report: &mut Report<'_>,
) -> Option<SocketAddr> {
    let address = match address::listen(written) {
        Ok(address) => address,
        Err(wrong) => {
            report.error(at, wrong.message).help(wrong.help);
            return None;
        }
    };
    if !address.ip().is_loopback() && is_guarded {
        report
            .warning(at, format!("the token for {address} crosses the network in plain text"))
            .help("let only a network reach it that you trust");
    } else if !address.ip().is_loopback() {
        report
            .error(at, format!("the admin listener at {address} could be reached from outside"))
            .help(format!(
                "write \"127.0.0.1:{}\", or a `socket`, or beside it a `token_file`",
                address.port()
            ));
    }
    for (n, listener) in listeners.iter().enumerate() {
        if listener.as_ref().is_some_and(|l| address::clash(l.address, address)) {
            report
                .error(at, format!("listeners[{n}] has the same port"))
                .help("give one of them another port");
        }
    }
    Some(address)
}

/// The access log.
pub(super) fn access_log(
    config: &schema::Config,
    folder: &FilePath,
    at: &Path,
    report: &mut Report<'_>,
) -> AccessLog {
    let written = &config.access_log;
    within(report, &at.key("queue"), written.queue, 1, 1 << 20);
    let to = match written.to.as_str() {
        "off" => None,
        "stdout" => Some(Sink::Stdout),
        path => {
            let at = at.key("to");
            let plain = !path.contains(['/', '.']);
            if let Some(near) = suggest::nearest(path, ["off", "stdout"]).filter(|_| plain) {
                report
                    .warning(&at, format!("lines go to a file with the name \"{path}\""))
                    .help(format!("did you mean {near}? For a file write \"./{path}\""));
            }
            Some(Sink::File(file(report, &at, folder, FilePath::new(path))))
        }
    };
    let list = at.key("fields");
    if written.fields.is_empty() && to.is_some() && !report.is_broken(&list) {
        report
            .error(&list, "a line needs at least one field")
            .help("remove the key to have the usual ones, or write `to: off`");
    }
    let mut fields: Vec<Field> = Vec::with_capacity(written.fields.len());
    for (n, name) in written.fields.iter().enumerate() {
        let at = list.index(n);
        match Field::parse(name) {
            Some(field) if fields.contains(&field) => {
                report
                    .error(&at, format!("the field \"{name}\" stands here twice"))
                    .help("remove one of the two");
            }
            Some(field) => fields.push(field),
            None => {
                let names: Vec<&str> = Field::names().collect();
                report
                    .error(&at, format!("unknown field \"{name}\""))
                    .help(suggest::help(name, &names, "fields"));
            }
        }
    }
    AccessLog {
        to,
        format: match written.format {
            schema::observe::Format::Json => Format::Json,
            schema::observe::Format::Text => Format::Text,
        },
        fields,
        queue: usize::try_from(written.queue).unwrap_or(usize::MAX),
    }
}

/// The level of diagnostics.
pub(super) fn level(written: Level) -> LevelFilter {
    match written {
        Level::Off => LevelFilter::Off,
        Level::Error => LevelFilter::Error,
        Level::Warn => LevelFilter::Warn,
        Level::Info => LevelFilter::Info,
        Level::Debug => LevelFilter::Debug,
        Level::Trace => LevelFilter::Trace,
    }
}
