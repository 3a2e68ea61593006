//! The internal CA: a root of our own in the state folder, and leaves for the configured hosts.
//!
//! ```text
//! <state_dir>/ca/root.pem     the root certificate, for `curl --cacert` and trust stores
//! <state_dir>/ca/root.key     its key
//! <state_dir>/certs/*.pem     one leaf and its key each, named after the first host
//! ```
//!
//! Folders are made 0700 and files 0600. Several processes may start at once: the folder `ca` is
//! filled under another name and renamed, which only one of them can do; the others take what it
//! made. What exists and is damaged is reported and never overwritten: somebody may trust it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::fs::DirBuilder;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::SystemTime;

use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::DistinguishedName;
use rcgen::DnType;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyPair;
use rcgen::KeyUsagePurpose;
use rcgen::PublicKeyData;
use rcgen::SanType;
use rcgen::date_time_ymd;
use ring::digest;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;

use super::disk;
use super::disk::draft_name;
use super::disk::make_folder;
use super::disk::read_if_there;
use super::disk::replace;
use super::disk::sync_folder;
use super::disk::write_new;
use super::error::Error;
use super::files;
use super::leaf::Authority;
use super::leaf::Leaf;
use super::leaf::seconds;

const DAY: i64 = 24 * 3600;
const ROOT_LIFETIME: i64 = 3653 * DAY;
const LEAF_LIFETIME: i64 = 90 * DAY;

/// Certificates are valid from a little before they are made, for clients whose clocks are behind.
const BACKDATE: i64 = 3600;

/// The largest common name (RFC 5280, `ub-common-name`).
const COMMON_NAME_MAX: usize = 64;

/// Where the root certificate is, or will be: what clients have to trust.
#[must_use]
pub fn root_certificate(state_dir: &Path) -> PathBuf {
    state_dir.join("ca").join("root.pem")
}

fn root_key(state_dir: &Path) -> PathBuf {
    state_dir.join("ca").join("root.key")
}

/// A certificate of the internal CA for `hosts`, with its key. The CA is made on first use; a leaf is
/// kept and given again until its hosts change or less than a third of its life remains.
///
/// Blocks on the file system.
///
/// # Errors
/// The state folder cannot be read or written, what it holds is damaged, or a host cannot stand in a
/// certificate. Nothing that exists was changed then.
pub fn ensure(state_dir: &Path, hosts: &[String], now: SystemTime) -> Result<CertifiedKey, Error> {
    if hosts.is_empty() {
        return Err(Error::NoHosts);
    }
    let now = seconds(now);
    let root = Root::open_or_make(state_dir, now)?;
    let file = state_dir.join("certs").join(leaf_name(hosts));
    if let Some(kept) = kept_leaf(&file, &root, hosts, now)? {
        return Ok(kept);
    }
    let pem = root.issue(hosts, now)?;
    make_folder(&state_dir.join("certs"))?;
    replace(&file, pem.as_bytes())?;
    read_leaf(&file, pem.as_bytes()).map(|(_, certified)| certified)
}

/// The kept leaf, unless there is none or it is time for another one.
fn kept_leaf(
    file: &Path,
    root: &Root,
    hosts: &[String],
    now: i64,
) -> Result<Option<CertifiedKey>, Error> {
    let bytes = match disk::read(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::read(file)(error)),
    };
    let damaged = |source| Error::Damaged { file: file.to_owned(), source: Box::new(source) };
    let (leaf, certified) = read_leaf(file, &bytes).map_err(damaged)?;
    Ok(may_keep(&leaf, root, hosts, now).then_some(certified))
}

fn may_keep(leaf: &Leaf, root: &Root, hosts: &[String], now: i64) -> bool {
    let life = leaf.not_after.saturating_sub(leaf.not_before);
    let left = leaf.not_after.saturating_sub(now);
    let named: BTreeSet<_> = leaf.names.iter().cloned().collect();
    leaf.issuer == root.facts.subject
        && named == canonical(hosts)
        && leaf.not_before <= now
        && left.saturating_mul(3) >= life
}

fn read_leaf(file: &Path, bytes: &[u8]) -> Result<(Leaf, CertifiedKey), Error> {
    let chain = files::chain(file, bytes)?;
    let key = files::private_key(file, bytes)?;
    let leaf = Leaf::read(&chain[0]).ok_or_else(|| Error::Certificate { file: file.to_owned() })?;
    Ok((leaf, files::certified(chain, key, file, file)?))
}

/// Hosts as they stand in a certificate: once each, addresses in their shortest form.
pub(super) fn canonical(hosts: &[String]) -> BTreeSet<String> {
    hosts
        .iter()
        .map(|host| {
            host.parse::<IpAddr>().map_or_else(|_| host.to_ascii_lowercase(), |a| a.to_string())
        })
        .collect()
}

/// The file name of the leaf for `hosts`: readable, and another one for other hosts.
pub(super) fn leaf_name(hosts: &[String]) -> String {
    let canonical = canonical(hosts);
    let mut joined = String::new();
    for host in &canonical {
        joined.push_str(host);
        joined.push('\n');
    }
    let mut name: String = hosts[0]
        .chars()
        .take(COMMON_NAME_MAX)
        .map(|c| if c.is_ascii_alphanumeric() || c == '.' || c == '-' { c } else { '_' })
        .collect();
    name.insert(0, '_');
    name.truncate(COMMON_NAME_MAX);
    format!("{}-{}.pem", name.trim_start_matches(['_', '.', '-']), short_hash(joined.as_bytes()))
}

fn short_hash(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(16);
    for byte in &digest::digest(&digest::SHA256, bytes).as_ref()[..8] {
        write!(text, "{byte:02x}").expect("a String takes everything");
    }
    text
}

/// The root, ready to issue.
struct Root {
    key: KeyPair,
    facts: Leaf,
    common_name: String,
    file: PathBuf,
}

impl Root {
    fn open_or_make(state_dir: &Path, now: i64) -> Result<Self, Error> {
        let (certificate, key) = (root_certificate(state_dir), root_key(state_dir));
        // Two rounds: another process may put its folder in place between our two reads.
        for last_round in [false, true] {
            match (read_if_there(&key)?, read_if_there(&certificate)?) {
                (Some(_), Some(pem)) => return Self::open(state_dir, &pem, now),
                (None, None) => {
                    make_root(state_dir, now)?;
                }
                (Some(_), None) if last_round => {
                    return Err(Error::IncompleteAuthority { missing: certificate });
                }
                (None, Some(_)) if last_round => {
                    return Err(Error::IncompleteAuthority { missing: key });
                }
                (Some(_), None) | (None, Some(_)) => {}
            }
        }
        let pem = disk::read(&certificate).map_err(Error::read(&certificate))?;
        Self::open(state_dir, &pem, now)
    }

    fn open(state_dir: &Path, pem: &[u8], now: i64) -> Result<Self, Error> {
        let (file, key_file) = (root_certificate(state_dir), root_key(state_dir));
        let mode = fs::metadata(&key_file).map_err(Error::read(&key_file))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(Error::TooOpen { file: key_file, mode: mode & 0o7777 });
        }
        let text = disk::read_text(&key_file).map_err(Error::read(&key_file))?;
        let key = KeyPair::from_pem(&text)
            .map_err(|source| Error::AuthorityKey { file: key_file.clone(), source })?;
        let certificate: CertificateDer<'static> = files::chain(&file, pem)?.swap_remove(0);
        let facts =
            Leaf::read(&certificate).ok_or_else(|| Error::Certificate { file: file.clone() })?;
        if facts.public_key != key.subject_public_key_info() {
            return Err(Error::KeyMismatch { certificate: file, key: key_file });
        }
        let (Authority::Yes, Some(common_name)) = (facts.authority, facts.common_name.clone())
        else {
            return Err(Error::NotAnAuthority { file });
        };
        if facts.not_after < now {
            return Err(Error::RootExpired { file });
        }
        Ok(Self { key, facts, common_name, file })
    }

    /// A new leaf for `hosts` and its key, as one PEM text.
    fn issue(&self, hosts: &[String], now: i64) -> Result<String, Error> {
        let mut params = CertificateParams::default();
        for host in canonical(hosts) {
            params.subject_alt_names.push(match host.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(
                    host.clone().try_into().map_err(|source| Error::Host { host, source })?,
                ),
            });
        }
        let name = Some(hosts[0].as_str()).filter(|name| name.len() <= COMMON_NAME_MAX);
        params.distinguished_name = named(name.unwrap_or("edgeproxy"));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        // A leaf that outlives its root fails with the root's name in the client's message.
        let until = now.saturating_add(LEAF_LIFETIME).min(self.facts.not_after);
        valid(&mut params, now.saturating_sub(BACKDATE), until);
        let key = KeyPair::generate().map_err(|source| Error::Issue { source })?;
        let issuer = Issuer::new(root_params(&self.common_name), &self.key);
        let leaf = params.signed_by(&key, &issuer).map_err(|source| Error::Issue { source })?;
        // The issuer's name was rebuilt from the root's common name: a root with more in its subject
        // is not ours, and clients would not find it.
        if Leaf::read(leaf.der()).is_none_or(|leaf| leaf.issuer != self.facts.subject) {
            return Err(Error::NotAnAuthority { file: self.file.clone() });
        }
        Ok(leaf.pem() + &key.serialize_pem())
    }
}

fn root_params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn valid(params: &mut CertificateParams, from: i64, until: i64) {
    // The last year that X.509 can write is 9999 (RFC 5280 §4.1.2.5).
    const LATEST: u64 = 253_370_764_800;
    let moment = |seconds: i64| {
        date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds.max(0).unsigned_abs().min(LATEST))
    };
    params.not_before = moment(from);
    params.not_after = moment(until);
}

/// Makes a root under another name and renames it into place. Losing that race is not an error.
fn make_root(state_dir: &Path, now: i64) -> Result<(), Error> {
    let key = KeyPair::generate().map_err(|source| Error::Issue { source })?;
    // A name of its own for each root, so that clients that trust several find the right one.
    let id = short_hash(&key.subject_public_key_info());
    let mut params = root_params(&format!("edgeproxy internal CA {id}"));
    valid(&mut params, now.saturating_sub(BACKDATE), now.saturating_add(ROOT_LIFETIME));
    let certificate = params.self_signed(&key).map_err(|source| Error::Issue { source })?;

    make_folder(state_dir)?;
    let draft = make_draft_folder(state_dir)?;
    let filled = write_new(&draft.join("root.key"), key.serialize_pem().as_bytes())
        .and_then(|()| write_new(&draft.join("root.pem"), certificate.pem().as_bytes()))
        .and_then(|()| sync_folder(&draft));
    if let Err(error) = filled {
        let _ = fs::remove_dir_all(&draft);
        return Err(error);
    }
    let place = state_dir.join("ca");
    match fs::rename(&draft, &place) {
        Ok(()) => {
            sync_folder(state_dir)?;
            log::info!(
                target: "edgeproxy::tls",
                root:% = root_certificate(state_dir).display();
                "internal CA made"
            );
            Ok(())
        }
        Err(error) => {
            let _ = fs::remove_dir_all(&draft);
            match error.kind() {
                io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists => Ok(()),
                _ => Err(Error::write(&place)(error)),
            }
        }
    }
}

fn make_draft_folder(parent: &Path) -> Result<PathBuf, Error> {
    loop {
        let folder = parent.join(draft_name("ca"));
        match DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => return Ok(folder),
            // Left behind by a process that had our number and was killed here.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::write(&folder)(error)),
        }
    }
}

#[cfg(test)]
mod tests;
