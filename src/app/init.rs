//! A starter configuration.

use std::path::Path;

use crate::app::Failure;
use crate::app::print;
use crate::app::write_new;

/// What `init` writes; a test checks that it loads.
pub(crate) const STARTER: &str = "\
# edgeproxy: one origin behind TLS and a cache. Check it with: edgeproxy check -c FILE
# Every key and its default: conf/reference.yaml

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

/// Writes the starter configuration to `path`, which must not exist.
pub(crate) fn init(path: &Path) -> Result<(), Failure> {
    write_new(path, STARTER)?;
    print(&format!(
        "Wrote {0}. Edit it, then:\n  edgeproxy check -c {0}\n  edgeproxy -c {0}",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_starter_loads_without_a_word() {
        let loaded = crate::config::from_text(STARTER, "starter").map_err(|d| d.to_json()).unwrap();
        assert!(loaded.warnings.is_empty(), "{}", loaded.warnings.to_json());
    }
}
