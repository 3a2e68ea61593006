//! A starter configuration, and beside it the schema by which editors complete and check it.

use std::io::ErrorKind;
use std::path::Path;

use crate::app::Failure;
use crate::app::print;
use crate::app::write_new;
use crate::config;

/// The schema's file, which the first line of the starter names.
const SCHEMA: &str = "edgeproxy.schema.json";

/// What `init` writes; a test checks that it loads.
pub(crate) const STARTER: &str = "\
# yaml-language-server: $schema=edgeproxy.schema.json
#
# One origin behind TLS and a cache. What is wrong with this file: edgeproxy check -c FILE
# Every key with the value that it has: edgeproxy config show -c FILE
# What each key means: the schema beside this file, which editors show while you type.

listeners:
  # Both serve the routes below.
  - name: http
    address: \"0.0.0.0:8080\"
  - name: https
    address: \"0.0.0.0:8443\"
    tls:
      certificates:
        # The internal CA makes this one. For the internet, name your files instead:
        #   - {hosts: [www.example.org], certificate: /etc/ssl/www.pem, key: /etc/ssl/www.key}
        - {hosts: [localhost], internal: true}

upstreams:
  app:
    addresses: [\"127.0.0.1:9000\"]

routes:
  - name: assets
    match: {path_prefix: /static}
    upstream: app
    cache: {ttl: 1h}
  - name: app
    upstream: app

cache:
  memory: 256MiB

admin:
  address: \"127.0.0.1:9180\"
";

/// Writes the starter configuration to `path`, which must not exist, and the schema beside it.
pub(crate) fn init(path: &Path) -> Result<(), Failure> {
    write_new(path, STARTER).map_err(|e| {
        let path = path.display();
        if e.kind() == ErrorKind::AlreadyExists {
            Failure::other(format!("{path} exists and stays as it is; name another file"))
        } else {
            Failure::other(format!("cannot write {path}: {e}"))
        }
    })?;
    let schema = path.with_file_name(SCHEMA);
    let told = match write_new(&schema, &config::json_schema()) {
        Ok(()) => format!("Wrote {}, and {} for your editor.", path.display(), schema.display()),
        // Perhaps of another version, perhaps somebody's own.
        Err(e) if e.kind() == ErrorKind::AlreadyExists => format!(
            "Wrote {0}. {1} was there and stays as it is; of this version: edgeproxy schema > {1}",
            path.display(),
            schema.display()
        ),
        Err(e) => return Err(Failure::other(format!("cannot write {}: {e}", schema.display()))),
    };
    print(&format!(
        "{told}\nEdit it, then:\n  edgeproxy check -c {0}\n  edgeproxy -c {0}",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_starter_loads_without_a_word() {
        let loaded = config::from_text(STARTER, "starter").map_err(|d| d.to_json()).unwrap();
        assert!(loaded.warnings.is_empty(), "{}", loaded.warnings.to_json());
    }
}
