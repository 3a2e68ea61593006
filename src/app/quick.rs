//! The one-line mode: `--port` and `--origin` stand for a configuration, which then takes the normal
//! road.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

use nix::unistd::geteuid;

use crate::app::cli::QuickFlags;
use crate::config::schema;
use crate::message::secret::MASK;
use crate::message::target::Authority;
use crate::units::Period;

/// The configuration that the flags stand for.
///
/// # Errors
/// A sentence that says which flag is wrong and what to write.
pub(crate) fn config(flags: &QuickFlags) -> Result<schema::Config, String> {
    let text = yaml(flags)?;
    serde_yaml::from_str(&text).map_err(|e| format!("the command line makes no sense: {e}"))
}

/// The configuration that the flags stand for, as one would write it.
///
/// # Errors
/// As for [`config`].
pub(crate) fn yaml(flags: &QuickFlags) -> Result<String, String> {
    let port = flags
        .port
        .ok_or("--origin needs --port too: edgeproxy --port 3000 --origin http://localhost:8000")?;
    if port == 0 {
        return Err("--port 0 is no port: choose one from 1 to 65535".to_owned());
    }
    let origin = flags
        .origin
        .as_deref()
        .ok_or("--port needs --origin too: edgeproxy --port 3000 --origin http://localhost:8000")?;
    let origin = Origin::parse(origin)?;
    if flags.cache_ttl.is_some_and(|Period(ttl)| ttl.is_zero()) {
        return Err(
            "--cache-ttl 0s keeps nothing: leave it out to store what responses allow, or \
                    write a time such as 5m"
                .to_owned(),
        );
    }
    let ttl = flags.cache_ttl.map(|ttl| format!("\n    ttl: {ttl}")).unwrap_or_default();
    let tls = if origin.tls { "\n    tls: {}" } else { "" };
    let host = &origin.host_field;
    let address = &origin.address;
    // Several may run side by side: each has its own files.
    safe(&runtime_folder())?;
    let file = |kind: &str| runtime_file(port, kind).display().to_string();
    let (pid, log, upgrade) = (file("pid"), file("log"), file("upgrade.sock"));
    let socket = file("sock");
    Ok(format!(
        "listeners:\n  - name: http\n    address: \"0.0.0.0:{port}\"\n    h2c: true\n\
         upstreams:\n  origin:\n    addresses: [\"{address}\"]\n    host: \"{host}\"{tls}\n\
         routes:\n  - name: all\n    upstream: origin\n\
         defaults:\n  cache:\n    heuristic_percent: 0{ttl}\n\
         process:\n  pid_file: \"{pid}\"\n  log_file: \"{log}\"\n  \
         upgrade_socket: \"{upgrade}\"\n\
         admin:\n  socket: \"{socket}\"\n"
    ))
}

/// Where the running process of this port listens for its operator.
pub(crate) fn admin_socket(port: u16) -> PathBuf {
    runtime_file(port, "sock")
}

/// Where the running process of this port hands its sockets over.
pub(crate) fn upgrade_socket(port: u16) -> PathBuf {
    runtime_file(port, "upgrade.sock")
}

fn runtime_file(port: u16, kind: &str) -> PathBuf {
    runtime_folder().join(format!("quick-{port}.{kind}"))
}

fn runtime_folder() -> PathBuf {
    std::env::var_os("XDG_RUNTIME_DIR").map_or_else(
        || std::env::temp_dir().join(format!("edgeproxy-{}", geteuid())),
        |folder| PathBuf::from(folder).join("edgeproxy"),
    )
}

/// Others can make folders in the one for temporary files, under this name too.
fn safe(folder: &Path) -> Result<(), String> {
    match folder.symlink_metadata() {
        Ok(about)
            if !about.is_dir()
                || about.uid() != geteuid().as_raw()
                || about.mode() & 0o022 != 0 =>
        {
            Err(format!(
                "{} is not a folder that only this user can write to; remove it, or set \
                 XDG_RUNTIME_DIR",
                folder.display()
            ))
        }
        _ => Ok(()),
    }
}

/// An origin as written on the command line.
#[derive(Debug, PartialEq, Eq)]
struct Origin {
    tls: bool,
    /// Host and port to connect to.
    address: String,
    /// The Host that it sees.
    host_field: String,
}

impl Origin {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            let shown = without_user(text);
            format!(
                "--origin {shown}: {why}; write it like http://localhost:8000 or https://example.org"
            )
        };
        let (tls, rest) = if let Some(rest) = text.strip_prefix("http://") {
            (false, rest)
        } else if let Some(rest) = text.strip_prefix("https://") {
            (true, rest)
        } else {
            return Err(wrong("it starts with neither http:// nor https://"));
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains('@') {
            return Err(wrong(
                "a user and a password are no part of an origin; set the header Authorization in a file",
            ));
        }
        if rest.contains(['/', '?', '#']) {
            return Err(wrong("a path is not part of an origin"));
        }
        let authority = Authority::parse(rest.as_bytes())
            .map_err(|_| wrong("the host or the port is not valid"))?;
        let port = authority.port().unwrap_or(if tls { 443 } else { 80 });
        Ok(Self {
            tls,
            address: format!("{}:{port}", authority.host()),
            host_field: authority.to_string(),
        })
    }
}

/// The text, without what may be a password: all before the last `@`, but for the scheme.
fn without_user(text: &str) -> String {
    let Some((user, host)) = text.rsplit_once('@') else { return text.to_owned() };
    let scheme = user.find("://").map_or("", |at| &user[..at + 3]);
    format!("{scheme}{MASK}@{host}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_neither_taken_nor_shown() {
        for text in [
            "http://user:hunter2@localhost:8000",
            "https://user:hunter2@example.org/",
            "http://user:hunter2@x@example.org",
            "http://user:hunter2/@example.org",
            "user:hunter2@example.org",
            "ftp://user:hunter2@example.org/a",
            "http://user:hunter2@",
        ] {
            let told = Origin::parse(text).expect_err(text);
            assert!(!told.contains("hunter2") && told.contains("***@"), "{told}");
        }
        let told = Origin::parse("http://user:hunter2@localhost:8000").expect_err("a password");
        assert!(
            told.contains("--origin http://***@localhost:8000: a user and a password"),
            "{told}"
        );
    }

    #[test]
    fn an_origin_without_port_takes_the_schemes() {
        let origin = Origin::parse("https://Example.org/").unwrap();
        assert_eq!(origin.address, "example.org:443");
        assert_eq!(origin.host_field, "example.org");
        assert!(origin.tls);
    }

    #[test]
    fn a_folder_that_others_can_write_to_is_not_used() {
        use std::os::unix::fs::PermissionsExt;
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("edgeproxy");
        assert_eq!(safe(&folder), Ok(()));
        std::fs::create_dir(&folder).unwrap();
        for (mode, fine) in [(0o700, true), (0o755, true), (0o775, false), (0o777, false)] {
            std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(safe(&folder).is_ok(), fine, "{mode:o}");
        }
        let link = parent.path().join("link");
        std::os::unix::fs::symlink(&folder, &link).unwrap();
        assert!(safe(&link).is_err());
    }

    #[test]
    fn what_is_no_origin_is_explained() {
        for (text, part) in [
            ("localhost:8000", "neither http://"),
            ("http://a/b", "a path is not part"),
            ("http://a b", "the host or the port is not valid"),
            ("http://", "the host or the port is not valid"),
            ("http://a:99999", "the host or the port is not valid"),
            ("http://a:0", "the host or the port is not valid"),
        ] {
            let error = Origin::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
