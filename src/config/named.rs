//! The files that a configuration names and that are read with it.

use std::path::PathBuf;

use serde_yaml::Value;

use crate::config::schema::Config;

/// The keys whose values are such files. That of a header may be called so, too: then there is mostly no
/// file, and one that is there only costs a look.
const KEYS: &[&str] =
    &["certificate", "key", "ca", "file", "token_file", "value_file", "hmac_key_file", "root"];

/// The key whose value is a list of such files.
const LISTS: &str = "crl";

/// Every one of them, as written.
pub(super) fn files(config: &Config) -> Vec<PathBuf> {
    let mut files = Vec::new();
    if let Ok(value) = serde_yaml::to_value(config) {
        collect(&value, &mut files);
    }
    files.sort();
    files.dedup();
    files
}

fn collect(value: &Value, files: &mut Vec<PathBuf>) {
    match value {
        Value::Mapping(entries) => {
            for (key, value) in entries {
                match (key.as_str(), value.as_str()) {
                    (Some(key), Some(path)) if KEYS.contains(&key) => files.push(path.into()),
                    (Some(key), None) if key == LISTS => {
                        let paths = value.as_sequence().into_iter().flatten();
                        files.extend(paths.filter_map(Value::as_str).map(PathBuf::from));
                    }
                    _ => collect(value, files),
                }
            }
        }
        Value::Sequence(values) => values.iter().for_each(|value| collect(value, files)),
        Value::Tagged(tagged) => collect(&tagged.value, files),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn every_file_that_is_read_is_found_once() {
        let text = "listeners:\n  - address: \"127.0.0.1:0\"\n    tls: {certificates: [\
                    {hosts: [a.test], certificate: a.pem, key: a.key}], client_auth: {ca: clients.pem, crl: [a.crl, \
                    b.crl]}}\n\
                    upstreams:\n  app: {addresses: [\"a:1\"], tls: {ca: ca.pem}}\n  b:\n    addresses:\n      \
                    - {address: \"b:1\", tls: {ca: ca.pem}}\n\
                    routes:\n  - upstream: app\n    headers: {request: {set: {x-token: \
                    {value_file: token}}}}\n    purge: {token_file: purge}\n\
                    admin: {token_file: admin, state_file: state}\n\
                    process: {pid_file: pid, log_file: log}\n";
        let loaded = config::from_text(text, "test").unwrap();
        let files = files(&loaded.config);
        let files: Vec<&str> = files.iter().filter_map(|file| file.to_str()).collect();
        assert_eq!(
            files,
            [
                "a.crl",
                "a.key",
                "a.pem",
                "admin",
                "b.crl",
                "ca.pem",
                "clients.pem",
                "purge",
                "token",
            ]
        );
    }
}
