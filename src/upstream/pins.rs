//! Pinned names: of which an origin's certificate must carry one, in place of the name that is sent.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use rustls::CertificateError;
use rustls::DigitallySignedStruct;
use rustls::RootCertStore;
use rustls::SignatureScheme;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::danger::ServerCertVerified;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::crypto::verify_tls12_signature;
use rustls::crypto::verify_tls13_signature;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::UnixTime;
use rustls::server::ParsedCertificate;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use crate::upstream::tls::TlsError;

/// A name that a certificate can carry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Pin {
    /// The name of a host, which a wildcard of the certificate may stand for, or an address.
    Host(ServerName<'static>),
    /// A URI, which must be there as it is written: `spiffe://example.org/app`.
    Uri(String),
}

impl Pin {
    /// The name of a host or an address, if it is one: what can be sent as well.
    pub(super) fn host(&self) -> Option<String> {
        match self {
            Self::Host(name) => Some(name.to_str().into_owned()),
            Self::Uri(_) => None,
        }
    }

    fn is_of(&self, certificate: &ParsedCertificate<'_>, uris: &[String]) -> bool {
        match self {
            Self::Host(name) => verify_server_name(certificate, name).is_ok(),
            Self::Uri(uri) => uris.contains(uri),
        }
    }
}

impl FromStr for Pin {
    type Err = TlsError;

    fn from_str(text: &str) -> Result<Self, TlsError> {
        let bad = || TlsError::BadPin(text.to_owned());
        if let Some((scheme, rest)) = text.split_once("://") {
            let is_uri = !scheme.is_empty() && !rest.is_empty();
            let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
            return (is_uri && is_plain).then(|| Self::Uri(text.to_owned())).ok_or_else(bad);
        }
        ServerName::try_from(text.to_owned()).map(Self::Host).map_err(|_| bad())
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(name) => f.write_str(&name.to_str()),
            Self::Uri(uri) => f.write_str(uri),
        }
    }
}

/// Checks what is checked everywhere, but for the name: one of the pinned ones must be there.
#[derive(Debug)]
pub(super) struct Pinned {
    pub(super) roots: Arc<RootCertStore>,
    pub(super) names: Vec<Pin>,
    pub(super) provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &self.roots,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        )?;
        let uris = uris(end_entity);
        if self.names.iter().any(|pin| pin.is_of(&certificate, &uris)) {
            return Ok(ServerCertVerified::assertion());
        }
        Err(CertificateError::NotValidForName.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The URIs among the names of a certificate.
fn uris(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let Ok(Some(names)) = parsed.subject_alternative_name() else { return Vec::new() };
    let uri = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    };
    names.value.general_names.iter().filter_map(uri).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::CertificateParams;
    use rcgen::KeyPair;
    use rcgen::SanType;

    use super::*;
    use crate::upstream::tls;

    const IN_TIME: u64 = 1_900_000_000;

    /// An authority, a certificate of it for these names, and whether `pins` let it pass.
    fn passes(names: Vec<SanType>, pins: &[&str], at: u64) -> Result<(), rustls::Error> {
        let mut authority = CertificateParams::default();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority_key = KeyPair::generate().unwrap();
        let root = authority.self_signed(&authority_key).unwrap();
        let issuer = rcgen::Issuer::new(authority, authority_key);
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.not_after = rcgen::date_time_ymd(2035, 1, 1);
        let leaf = params.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(root.der().clone()).unwrap();
        let names = pins.iter().map(|pin| pin.parse().unwrap()).collect();
        let pinned = Pinned { roots: Arc::new(roots), names, provider: tls::provider() };
        let sent = ServerName::try_from("sent.test").unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(at));
        pinned.verify_server_cert(leaf.der(), &[], &sent, &[], now).map(drop)
    }

    fn dns(name: &str) -> SanType {
        SanType::DnsName(name.try_into().unwrap())
    }

    fn uri(name: &str) -> SanType {
        SanType::URI(name.try_into().unwrap())
    }

    #[test]
    fn one_of_the_pinned_names_is_enough_and_the_one_that_is_sent_is_not() {
        let names = || vec![dns("sent.test"), dns("*.app.test"), uri("spiffe://test/app")];
        for pins in [
            &["x.test", "one.app.test"][..],
            &["spiffe://test/app"],
            &["SENT.test"],
            &["spiffe://test/other", "sent.test"],
        ] {
            assert_eq!(passes(names(), pins, IN_TIME), Ok(()), "{pins:?}");
        }
        for pins in [
            &["app.test"][..],
            &["two.one.app.test"],
            &["spiffe://test/app/"],
            &["spiffe://TEST/app"],
            &["192.0.2.1"],
        ] {
            let refused = passes(names(), pins, IN_TIME);
            assert_eq!(refused, Err(CertificateError::NotValidForName.into()), "{pins:?}");
        }
        let address = vec![SanType::IpAddress("192.0.2.1".parse().unwrap())];
        assert_eq!(passes(address, &["192.0.2.1"], IN_TIME), Ok(()));
    }

    #[test]
    fn a_pinned_name_makes_up_for_nothing_else() {
        let late = passes(vec![dns("a.test")], &["a.test"], 2_100_000_000).unwrap_err();
        assert!(late.to_string().contains("expired"), "{late}");
        assert!(passes(Vec::new(), &["a.test"], IN_TIME).is_err());
    }

    #[test]
    fn what_no_certificate_can_carry_is_no_pin() {
        for good in ["a.test", "192.0.2.1", "2001:db8::1", "spiffe://test/a"] {
            assert_eq!(good.parse::<Pin>().unwrap().to_string(), good);
        }
        for bad in ["", "a b", "*.a.test", "https://", "://a", "spiffe://a b", "spiffe://ä"] {
            assert!(bad.parse::<Pin>().is_err(), "{bad}");
        }
    }
}
