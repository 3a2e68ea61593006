//! Certificates from PEM files: loading them, and saying what is wrong with them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::SystemTime;

use rustls::InconsistentKeys;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem;
use rustls::pki_types::pem::PemObject;
use rustls::sign::CertifiedKey;

use super::disk;
use super::error::Error;
use super::error::Warning;
use super::leaf::Leaf;
use super::leaf::seconds;

const DAY: i64 = 24 * 3600;

/// Below this many days of validity an operator is warned.
const SOON_DAYS: i64 = 14;

/// Which of the two files something is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The one with the chain.
    Certificate,
    /// The one with the key.
    Key,
}

/// What is wrong and what is odd about a certificate and its key.
#[derive(Debug, Default)]
pub struct Findings {
    /// They cannot be used.
    pub errors: Vec<(Part, Error)>,
    /// They are used nevertheless.
    pub warnings: Vec<(Part, Warning)>,
}

/// Looks at a chain and its key, as `edgeproxy check` does: everything that can be said of them at
/// once. One that is not given is not missed.
#[must_use]
pub fn inspect(
    certificate: Option<&Path>,
    key: Option<&Path>,
    hosts: &[String],
    now: SystemTime,
) -> Findings {
    let mut found = Findings::default();
    let chain = certificate.and_then(|file| match read_chain(file, hosts, now) {
        Ok((chain, odd)) => {
            found.warnings.extend(odd.into_iter().map(|warning| (Part::Certificate, warning)));
            Some((file, chain))
        }
        Err(error) => {
            found.errors.push((Part::Certificate, error));
            None
        }
    });
    let private = key.and_then(|file| {
        found.warnings.extend(key_warning(file).map(|warning| (Part::Key, warning)));
        match read_key(file) {
            Ok(private) => Some((file, private)),
            Err(error) => {
                found.errors.push((Part::Key, error));
                None
            }
        }
    });
    if let (Some((certificate, chain)), Some((key, private))) = (chain, private)
        && let Err(error) = certified(chain, private, certificate, key)
    {
        let is_chain = matches!(error, Error::Certificate { .. });
        found.errors.push((if is_chain { Part::Certificate } else { Part::Key }, error));
    }
    found
}

/// Loads a chain and its key, and looks at what they say: whether the certificate is valid `now` and
/// names `hosts`.
///
/// # Errors
/// A file cannot be read, holds no certificate or key, or the two do not belong together.
pub fn load(
    certificate: &Path,
    key: &Path,
    hosts: &[String],
    now: SystemTime,
) -> Result<(CertifiedKey, Vec<Warning>), Error> {
    let (chain, mut warnings) = read_chain(certificate, hosts, now)?;
    let private = read_key(key)?;
    warnings.extend(key_warning(key));
    Ok((certified(chain, private, certificate, key)?, warnings))
}

/// A chain and its key, whatever they say.
///
/// # Errors
/// A file cannot be read, holds no certificate or key, or the two do not belong together.
pub fn pair(certificate: &Path, key: &Path) -> Result<CertifiedKey, Error> {
    let chain = chain(certificate, &disk::read(certificate).map_err(Error::read(certificate))?)?;
    certified(chain, read_key(key)?, certificate, key)
}

fn read_chain(
    file: &Path,
    hosts: &[String],
    now: SystemTime,
) -> Result<(Vec<CertificateDer<'static>>, Vec<Warning>), Error> {
    let chain = chain(file, &disk::read(file).map_err(Error::read(file))?)?;
    let leaf = Leaf::read(&chain[0]).ok_or_else(|| Error::Certificate { file: file.to_owned() })?;
    let mut warnings = leaf_warnings(&leaf, file, hosts, now);
    warnings.extend(chain_warning(&chain, &leaf, file)?);
    Ok((chain, warnings))
}

fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    private_key(file, &disk::read(file).map_err(Error::read(file))?)
}

/// The certificates of a PEM file, at least one, in the order of the file.
pub(super) fn chain(file: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let chain = CertificateDer::pem_slice_iter(bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| Error::Pem { file: file.to_owned(), source })?;
    if !chain.is_empty() {
        return Ok(chain);
    }
    Err(if PrivateKeyDer::from_pem_slice(bytes).is_ok() {
        Error::KeyInsteadOfCertificate { file: file.to_owned() }
    } else {
        Error::NoCertificate { file: file.to_owned() }
    })
}

/// The first private key of a PEM file.
pub(super) fn private_key(file: &Path, bytes: &[u8]) -> Result<PrivateKeyDer<'static>, Error> {
    match PrivateKeyDer::from_pem_slice(bytes) {
        Ok(key) => Ok(key),
        Err(pem::Error::NoItemsFound) => Err(if is_encrypted(bytes) {
            Error::EncryptedKey { file: file.to_owned() }
        } else {
            Error::NoKey { file: file.to_owned() }
        }),
        // The older form says it in a header inside of the block, which does not decode.
        Err(_) if is_encrypted(bytes) => Err(Error::EncryptedKey { file: file.to_owned() }),
        Err(source) => Err(Error::Pem { file: file.to_owned(), source }),
    }
}

/// Joins chain and key; `certificate` and `key` are named in errors.
pub(super) fn certified(
    chain: Vec<CertificateDer<'static>>,
    private: PrivateKeyDer<'static>,
    certificate: &Path,
    key: &Path,
) -> Result<CertifiedKey, Error> {
    CertifiedKey::from_der(chain, private, &provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            Error::KeyMismatch { certificate: certificate.to_owned(), key: key.to_owned() }
        }
        rustls::Error::InvalidCertificate(_) => Error::Certificate { file: certificate.to_owned() },
        source => Error::UnsupportedKey { file: key.to_owned(), source },
    })
}

/// The one cryptography provider. Named everywhere, so that no process-wide default is needed.
pub(super) fn provider() -> CryptoProvider {
    aws_lc_rs::default_provider()
}

fn is_encrypted(bytes: &[u8]) -> bool {
    [&b"BEGIN ENCRYPTED PRIVATE KEY"[..], b"Proc-Type: 4,ENCRYPTED"]
        .iter()
        .any(|mark| bytes.windows(mark.len()).any(|window| window == *mark))
}

fn leaf_warnings(leaf: &Leaf, file: &Path, hosts: &[String], now: SystemTime) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let now = seconds(now);
    let left = leaf.not_after.saturating_sub(now);
    // Valid through the second that notAfter names (RFC 5280 §4.1.2.5).
    if left < 0 {
        warnings
            .push(Warning::Expired { file: file.to_owned(), days: left.unsigned_abs() / 86_400 });
    } else if left < SOON_DAYS * DAY {
        warnings.push(Warning::ExpiresSoon {
            file: file.to_owned(),
            days: left.unsigned_abs() / 86_400,
        });
    }
    if now < leaf.not_before {
        warnings.push(Warning::NotYetValid { file: file.to_owned() });
    }
    for host in hosts {
        if !leaf.covers(host) {
            warnings.push(Warning::HostNotNamed {
                file: file.to_owned(),
                host: host.clone(),
                names: leaf.names.clone(),
            });
        }
    }
    warnings
}

/// The first certificate that did not issue the one before it. Many clients give up on such a chain.
fn chain_warning(
    chain: &[CertificateDer<'static>],
    leaf: &Leaf,
    file: &Path,
) -> Result<Option<Warning>, Error> {
    let mut issuer = leaf.issuer.clone();
    for (index, certificate) in chain.iter().enumerate().skip(1) {
        let facts =
            Leaf::read(certificate).ok_or_else(|| Error::Certificate { file: file.to_owned() })?;
        if facts.subject != issuer {
            let position = index.saturating_add(1);
            return Ok(Some(Warning::ChainOrder { file: file.to_owned(), position }));
        }
        issuer = facts.issuer;
    }
    Ok(None)
}

fn key_warning(key: &Path) -> Option<Warning> {
    // Readable for a group is how many deployments share keys; readable for all is an accident.
    let mode = fs::metadata(key).ok()?.permissions().mode() & 0o7777;
    (mode & 0o007 != 0).then(|| Warning::KeyReadableByAll { file: key.to_owned(), mode })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use std::time::Duration;
    use std::time::UNIX_EPOCH;

    use rcgen::CertificateParams;
    use rcgen::CertifiedIssuer;
    use rcgen::KeyPair;
    use rcgen::date_time_ymd;
    use tempfile::TempDir;

    struct Files {
        folder: TempDir,
    }

    impl Files {
        fn new() -> Self {
            Self { folder: tempfile::tempdir().unwrap() }
        }

        fn with(self, name: &str, text: &str) -> Self {
            let file = self.at(name);
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
            self
        }

        fn at(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn load(&self, hosts: &[&str], now: SystemTime) -> Result<Vec<Warning>, Error> {
            let hosts: Vec<_> = hosts.iter().map(|&h| h.to_owned()).collect();
            load(&self.at("cert.pem"), &self.at("key.pem"), &hosts, now).map(|(_, found)| found)
        }
    }

    #[test]
    fn both_files_are_looked_at_and_each_problem_is_about_one_of_them() {
        let (cert, key) = pair(&["a.example"]);
        let files = Files::new().with("cert.pem", &cert).with("key.pem", &key).with("no.pem", "");
        let (cert, key, no) = (files.at("cert.pem"), files.at("key.pem"), files.at("no.pem"));
        let look = |certificate: Option<&Path>, key: Option<&Path>| {
            inspect(certificate, key, &["b.example".to_owned()], at(NOT_BEFORE))
        };
        let found = look(Some(&no), Some(&no));
        assert!(
            matches!(
                found.errors[..],
                [
                    (Part::Certificate, Error::NoCertificate { .. }),
                    (Part::Key, Error::NoKey { .. })
                ]
            ),
            "{found:?}"
        );
        let found = look(Some(&cert), Some(&key));
        assert!(found.errors.is_empty(), "{found:?}");
        assert!(
            matches!(found.warnings[..], [(Part::Certificate, Warning::HostNotNamed { .. })]),
            "{found:?}"
        );
        // One alone is looked at as far as that goes.
        assert_eq!(look(Some(&no), None).errors.len(), 1);
        assert_eq!(look(None, Some(&no)).errors.len(), 1);

        let (_, other) = pair(&[]);
        let files = files.with("key.pem", &other);
        let found = look(Some(&cert), Some(&files.at("key.pem")));
        assert!(matches!(found.errors[..], [(Part::Key, Error::KeyMismatch { .. })]), "{found:?}");
    }

    /// A certificate for `names`, valid from 2030-01-01 to 2030-04-01, and its key.
    fn pair(names: &[&str]) -> (String, String) {
        let names: Vec<_> = names.iter().map(|&n| n.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = date_time_ymd(2030, 1, 1);
        params.not_after = date_time_ymd(2030, 4, 1);
        let key = KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    const NOT_BEFORE: u64 = 1_893_456_000;
    const NOT_AFTER: u64 = NOT_BEFORE + 90 * 86_400;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_good_pair_loads_without_a_warning() {
        let (cert, key) = pair(&["a.example", "127.0.0.1"]);
        let files = Files::new().with("cert.pem", &cert).with("key.pem", &key);
        assert_eq!(files.load(&["a.example", "127.0.0.1"], at(NOT_BEFORE)).unwrap(), []);
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Files::new().load(&[], at(NOT_BEFORE)).unwrap_err();
        assert!(
            matches!(&error, Error::Read { file, .. } if file.ends_with("cert.pem")),
            "{error}"
        );
    }

    #[test]
    fn a_file_without_certificate_is_an_error() {
        let (_, key) = pair(&["a.example"]);
        let files = Files::new().with("cert.pem", "nothing here").with("key.pem", &key);
        let error = files.load(&[], at(NOT_BEFORE)).unwrap_err();
        assert!(matches!(error, Error::NoCertificate { .. }), "{error}");
    }

    #[test]
    fn swapped_files_are_recognised() {
        let (cert, key) = pair(&["a.example"]);
        let files = Files::new().with("cert.pem", &key).with("key.pem", &cert);
        let error = files.load(&[], at(NOT_BEFORE)).unwrap_err();
        assert!(matches!(error, Error::KeyInsteadOfCertificate { .. }), "{error}");
    }

    #[test]
    fn a_file_without_key_is_an_error() {
        let (cert, _) = pair(&["a.example"]);
        let files = Files::new().with("cert.pem", &cert).with("key.pem", &cert);
        let error = files.load(&[], at(NOT_BEFORE)).unwrap_err();
        assert!(matches!(&error, Error::NoKey { file } if file.ends_with("key.pem")), "{error}");
    }

    #[test]
    fn an_encrypted_key_is_recognised() {
        let (cert, _) = pair(&["a.example"]);
        let key =
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let files = Files::new().with("cert.pem", &cert).with("key.pem", key);
        let error = files.load(&[], at(NOT_BEFORE)).unwrap_err();
        assert!(matches!(error, Error::EncryptedKey { .. }), "{error}");
    }

    #[test]
    fn a_key_of_another_certificate_is_an_error() {
        let (cert, _) = pair(&["a.example"]);
        let (_, key) = pair(&["a.example"]);
        let files = Files::new().with("cert.pem", &cert).with("key.pem", &key);
        let error = files.load(&[], at(NOT_BEFORE)).unwrap_err();
        assert!(matches!(error, Error::KeyMismatch { .. }), "{error}");
    }

    #[test]
    fn a_broken_block_is_an_error() {
        let (_, key) = pair(&["a.example"]);
        let broken = "-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----\n";
        let files = Files::new().with("cert.pem", broken).with("key.pem", &key);
        let error = files.load(&[], at(NOT_BEFORE)).unwrap_err();
        assert!(matches!(error, Error::Pem { .. }), "{error}");
    }

    #[test]
    fn a_block_that_is_no_certificate_is_an_error() {
        let (_, key) = pair(&["a.example"]);
        let other = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
        let files = Files::new().with("cert.pem", other).with("key.pem", &key);
        let error = files.load(&[], at(NOT_BEFORE)).unwrap_err();
        assert!(matches!(error, Error::Certificate { .. }), "{error}");
    }

    #[test]
    fn the_second_after_the_last_one_is_expired() {
        let (cert, key) = pair(&[]);
        let files = Files::new().with("cert.pem", &cert).with("key.pem", &key);
        let last = files.load(&[], at(NOT_AFTER)).unwrap();
        assert!(matches!(last[..], [Warning::ExpiresSoon { days: 0, .. }]), "{last:?}");
        let after = files.load(&[], at(NOT_AFTER + 1)).unwrap();
        assert!(matches!(after[..], [Warning::Expired { days: 0, .. }]), "{after:?}");
    }

    #[test]
    fn fourteen_days_are_enough_and_a_second_less_is_not() {
        let (cert, key) = pair(&[]);
        let files = Files::new().with("cert.pem", &cert).with("key.pem", &key);
        assert_eq!(files.load(&[], at(NOT_AFTER - 14 * 86_400)).unwrap(), []);
        let less = files.load(&[], at(NOT_AFTER - 14 * 86_400 + 1)).unwrap();
        assert!(matches!(less[..], [Warning::ExpiresSoon { days: 13, .. }]), "{less:?}");
    }

    #[test]
    fn a_second_before_the_first_one_is_not_yet_valid() {
        let (cert, key) = pair(&[]);
        let files = Files::new().with("cert.pem", &cert).with("key.pem", &key);
        let early = files.load(&[], at(NOT_BEFORE - 1)).unwrap();
        assert!(matches!(early[..], [Warning::NotYetValid { .. }]), "{early:?}");
    }

    #[test]
    fn a_host_that_is_not_named_is_a_warning() {
        let (cert, key) = pair(&["*.example"]);
        let files = Files::new().with("cert.pem", &cert).with("key.pem", &key);
        let found = files.load(&["a.example", "b.test"], at(NOT_BEFORE)).unwrap();
        let [Warning::HostNotNamed { host, names, .. }] = &found[..] else { panic!("{found:?}") };
        assert_eq!((host.as_str(), &names[..]), ("b.test", &["*.example".to_owned()][..]));
    }

    #[test]
    fn a_chain_in_disorder_is_a_warning() {
        let (cert, key) = pair(&["a.example"]);
        let mut other = CertificateParams::new(vec![]).unwrap();
        other.distinguished_name.push(rcgen::DnType::CommonName, "somebody else");
        let other =
            CertifiedIssuer::self_signed(other, KeyPair::generate().unwrap()).unwrap().pem();
        let files = Files::new().with("cert.pem", &(cert + &other)).with("key.pem", &key);
        let found = files.load(&[], at(NOT_BEFORE)).unwrap();
        assert!(matches!(found[..], [Warning::ChainOrder { position: 2, .. }]), "{found:?}");
    }

    #[test]
    fn a_key_that_everybody_may_read_is_a_warning_and_a_group_is_not() {
        let (cert, key) = pair(&[]);
        let files = Files::new().with("cert.pem", &cert).with("key.pem", &key);
        for (mode, expected) in [(0o640, 0), (0o644, 1)] {
            fs::set_permissions(files.at("key.pem"), fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(files.load(&[], at(NOT_BEFORE)).unwrap().len(), expected, "{mode:o}");
        }
    }
}
