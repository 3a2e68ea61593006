//! Certificates that an ACME server issued, as they are kept: chain and key in one file, so that they always
//! belong together.

use std::path::Path;
use std::path::PathBuf;

use rustls::sign::CertifiedKey;

use super::disk;
use super::error::Error;
use super::files;
use super::internal;
use super::leaf::Leaf;

/// A certificate that was issued.
#[derive(Debug)]
pub struct Issued {
    /// The chain and its key.
    pub certified: CertifiedKey,
    /// What it says of itself.
    pub leaf: Leaf,
}

/// The name, without an ending, of the files for `hosts`: readable, and another one for other hosts.
#[must_use]
pub fn name(hosts: &[String]) -> String {
    let mut name = internal::leaf_name(hosts);
    name.truncate(name.len() - ".pem".len());
    name
}

/// Where the certificate for `hosts` is kept.
#[must_use]
pub fn place(folder: &Path, hosts: &[String]) -> PathBuf {
    folder.join(internal::leaf_name(hosts))
}

/// The certificate for `hosts`; `None` when there is none yet.
///
/// # Errors
/// It cannot be read, or is damaged, or is for other hosts.
pub fn load(folder: &Path, hosts: &[String]) -> Result<Option<Issued>, Error> {
    let file = place(folder, hosts);
    disk::read_if_there(&file)?.map(|bytes| read(&file, &bytes, hosts)).transpose()
}

/// Keeps what was issued, unless it is not what was ordered.
///
/// # Errors
/// Chain and key do not belong together, it is for other hosts, or the folder cannot be written to.
pub fn keep(folder: &Path, hosts: &[String], chain: &str, key: &str) -> Result<Issued, Error> {
    let file = place(folder, hosts);
    let whole = format!("{}\n{key}", chain.trim_end());
    let issued = read(&file, whole.as_bytes(), hosts)?;
    disk::make_folder(folder)?;
    disk::replace(&file, whole.as_bytes())?;
    Ok(issued)
}

fn read(file: &Path, bytes: &[u8], hosts: &[String]) -> Result<Issued, Error> {
    let chain = files::chain(file, bytes)?;
    let key = files::private_key(file, bytes)?;
    let leaf = Leaf::read(&chain[0]).ok_or_else(|| Error::Certificate { file: file.to_owned() })?;
    if let Some(host) = hosts.iter().find(|host| !leaf.covers(host)) {
        return Err(Error::OtherHosts { file: file.to_owned(), host: host.clone() });
    }
    Ok(Issued { certified: files::certified(chain, key, file, file)?, leaf })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn pair(host: &str) -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec![host.to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn what_was_issued_is_found_again_and_only_the_owner_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("acme");
        let hosts = ["a.test".to_owned()];
        assert!(load(&folder, &hosts).unwrap().is_none());
        let (chain, key) = pair("a.test");
        keep(&folder, &hosts, &chain, &key).unwrap();
        let found = load(&folder, &hosts).unwrap().unwrap();
        assert_eq!(found.leaf.names, ["a.test"]);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&place(&folder, &hosts))), (0o700, 0o600));
    }

    #[test]
    fn what_was_not_ordered_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let hosts = ["a.test".to_owned()];
        let ((chain, key), (_, other)) = (pair("a.test"), pair("a.test"));
        assert!(matches!(
            keep(folder.path(), &hosts, &chain, &other),
            Err(Error::KeyMismatch { .. })
        ));
        let (strange, strangers) = pair("b.test");
        assert!(matches!(
            keep(folder.path(), &hosts, &strange, &strangers),
            Err(Error::OtherHosts { .. })
        ));
        assert!(load(folder.path(), &hosts).unwrap().is_none());
        keep(folder.path(), &hosts, &chain, &key).unwrap();
    }
}
