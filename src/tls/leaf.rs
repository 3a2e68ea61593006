//! What a certificate says about itself: names, validity, issuer. Read once, at load.

use std::net::IpAddr;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::extensions::ParsedExtension;
use x509_parser::parse_x509_certificate;

/// The facts of a certificate that edgeproxy looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// DNS names (wildcards as written) in lower case, then addresses. The common name is not among
    /// them: clients do not look at it (RFC 9525 §2).
    pub names: Vec<String>,
    /// First second of validity, since the epoch.
    pub not_before: i64,
    /// Last second of validity, since the epoch.
    pub not_after: i64,
    /// The subject's common name, if there is exactly one.
    pub common_name: Option<String>,
    /// The subject, in DER.
    pub subject: Vec<u8>,
    /// The issuer, in DER.
    pub issuer: Vec<u8>,
    /// The public key's SubjectPublicKeyInfo, in DER.
    pub public_key: Vec<u8>,
    /// Whether it may issue others.
    pub authority: Authority,
}

/// Whether a certificate may issue others (RFC 5280 §4.2.1.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authority {
    /// It is an authority's.
    Yes,
    /// It is a leaf.
    No,
}

/// What tells a certificate from every other one (RFC 9773 §4.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The key identifier of its authority.
    pub authority: Vec<u8>,
    /// Its serial number, as encoded.
    pub serial: Vec<u8>,
}

impl Identity {
    /// The identity of `certificate`; `None` when it does not name its authority's key.
    #[must_use]
    pub fn read(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = parse_x509_certificate(certificate).ok()?;
        let authority =
            parsed.extensions().iter().find_map(|one| match one.parsed_extension() {
                ParsedExtension::AuthorityKeyIdentifier(of) => of.key_identifier.as_ref(),
                _ => None,
            })?;
        Some(Self { authority: authority.0.to_vec(), serial: parsed.raw_serial().to_vec() })
    }
}

impl Leaf {
    /// The facts of `certificate`; `None` when it is not valid X.509.
    #[must_use]
    pub fn read(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (rest, parsed) = parse_x509_certificate(certificate).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let mut names = Vec::new();
        if let Some(alternative) = parsed.subject_alternative_name().ok()? {
            for name in &alternative.value.general_names {
                match name {
                    GeneralName::DNSName(name) => names.push(name.to_ascii_lowercase()),
                    GeneralName::IPAddress(bytes) => {
                        names.extend(address(bytes).map(|a| a.to_string()))
                    }
                    _ => {}
                }
            }
        }
        let mut common_names = parsed.subject().iter_common_name();
        let common_name = match (common_names.next(), common_names.next()) {
            (Some(name), None) => name.as_str().ok().map(str::to_owned),
            _ => None,
        };
        let authority = match parsed.basic_constraints().ok()? {
            Some(constraints) if constraints.value.ca => Authority::Yes,
            _ => Authority::No,
        };
        Some(Self {
            names,
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            common_name,
            subject: parsed.subject().as_raw().to_vec(),
            issuer: parsed.issuer().as_raw().to_vec(),
            public_key: parsed.public_key().raw.to_vec(),
            authority,
        })
    }

    /// Does the certificate name `host` (RFC 9525 §6.3)? A wildcard covers exactly one label; a
    /// configured wildcard needs the same wildcard in the certificate. `host` is in lower case.
    #[must_use]
    pub fn covers(&self, host: &str) -> bool {
        if let Ok(wanted) = host.parse::<IpAddr>() {
            return self.names.iter().any(|name| name.parse::<IpAddr>() == Ok(wanted));
        }
        self.names.iter().any(|name| {
            if name == host {
                return true;
            }
            let Some(parent) = name.strip_prefix("*.") else { return false };
            match host.split_once('.') {
                Some((label, rest)) => !label.is_empty() && label != "*" && rest == parent,
                None => false,
            }
        })
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(v4));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

/// Whole seconds since the epoch; a clock before it counts as the epoch.
pub(super) fn seconds(now: SystemTime) -> i64 {
    let since = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    i64::try_from(since).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naming(names: &[&str]) -> Leaf {
        Leaf {
            names: names.iter().map(|&n| n.to_owned()).collect(),
            not_before: 0,
            not_after: 0,
            common_name: None,
            subject: Vec::new(),
            issuer: Vec::new(),
            public_key: Vec::new(),
            authority: Authority::No,
        }
    }

    #[test]
    fn a_wildcard_covers_one_label_and_not_two_or_none() {
        let leaf = naming(&["*.example.com"]);
        assert!(leaf.covers("a.example.com"));
        assert!(!leaf.covers("a.b.example.com"));
        assert!(!leaf.covers("example.com"));
        assert!(!leaf.covers(".example.com"));
    }

    #[test]
    fn a_configured_wildcard_needs_the_same_wildcard() {
        assert!(naming(&["*.example.com"]).covers("*.example.com"));
        assert!(!naming(&["*.com"]).covers("*.example.com"));
        assert!(!naming(&["*.com"]).covers("*.com.example"));
    }

    #[test]
    fn addresses_are_compared_as_addresses() {
        let leaf = naming(&["::1", "127.0.0.1"]);
        assert!(leaf.covers("0:0:0:0:0:0:0:1"));
        assert!(leaf.covers("127.0.0.1"));
        assert!(!leaf.covers("127.0.0.2"));
    }

    #[test]
    fn a_wildcard_covers_no_address() {
        assert!(!naming(&["*.0.0.1"]).covers("127.0.0.1"));
    }

    #[test]
    fn what_is_not_x509_has_no_facts() {
        assert_eq!(Leaf::read(&CertificateDer::from(b"hello".to_vec())), None);
    }
}
