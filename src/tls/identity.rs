//! Whose a client's certificate is, in the forms in which routes, logs and origins read it.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;
use std::time::UNIX_EPOCH;

use ring::digest;
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;
use x509_parser::x509::AttributeTypeAndValue;
use x509_parser::x509::X509Name;

use crate::message::certificate::ClientCertificate;

/// The most alternative names that are told; nobody's certificate has as many.
const MOST_NAMES: usize = 64;

/// The short names of RFC 4514 §3, and one more that everybody writes so.
const SHORT: &[(&str, &str)] = &[
    ("2.5.4.3", "CN"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.6", "C"),
    ("2.5.4.9", "STREET"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

/// What a chain says of the client that showed it; `None` for what is no certificate.
pub(crate) fn of(chain: &[CertificateDer<'_>]) -> Option<ClientCertificate> {
    let leaf = chain.first()?;
    let (_, parsed) = parse_x509_certificate(leaf).ok()?;
    let mut names = Vec::new();
    if let Ok(Some(alternative)) = parsed.subject_alternative_name() {
        names.extend(alternative.value.general_names.iter().filter_map(name).take(MOST_NAMES));
    }
    let mut certificate = ClientCertificate::new(
        subject(parsed.subject()),
        names,
        fingerprint(leaf),
        chain.iter().map(|one| one.to_vec()).collect(),
    );
    let ends = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or_default();
    certificate.ends = UNIX_EPOCH.checked_add(Duration::from_secs(ends));
    Some(certificate)
}

/// SHA-256 in small hexadecimal digits.
pub(crate) fn fingerprint(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes everything");
        text
    })
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    let (kind, text) = match name {
        GeneralName::DNSName(name) => ("DNS", (*name).to_ascii_lowercase()),
        GeneralName::RFC822Name(name) => ("email", (*name).to_owned()),
        GeneralName::URI(name) => ("URI", (*name).to_owned()),
        GeneralName::IPAddress(bytes) => ("IP", address(bytes)?.to_string()),
        GeneralName::OtherName(..)
        | GeneralName::X400Address(_)
        | GeneralName::DirectoryName(_)
        | GeneralName::EDIPartyName(_)
        | GeneralName::RegisteredID(_) => return None,
    };
    // RFC 5280 §4.2.1.6: they are ASCII; others are not these names, whatever they look like.
    text.bytes().all(|byte| byte.is_ascii_graphic()).then(|| format!("{kind}:{text}"))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(four));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

/// RFC 4514 §2: the last part first. What is not ASCII is escaped byte by byte, so that the text can stand in
/// a field and means one name.
fn subject(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> = Vec::new();
    for part in name.iter_rdn() {
        let all: Vec<String> = part.iter().map(attribute).collect();
        parts.push(all.join("+"));
    }
    parts.reverse();
    parts.join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let kind = attribute.attr_type().to_id_string();
    let short = SHORT.iter().find(|(id, _)| *id == kind).map(|(_, short)| *short);
    match (short, attribute.as_str()) {
        (Some(short), Ok(text)) => format!("{short}={}", escaped(text)),
        // What has no name, or is no text: the number, and the value as it is encoded (§2.4).
        (short, _) => {
            let value = attribute.attr_value();
            let mut der = vec![u8::try_from(value.tag().0).unwrap_or(0x1f)];
            der.extend(length(value.data.len()));
            der.extend_from_slice(value.data);
            format!("{}=#{}", short.unwrap_or(&kind), hex(&der))
        }
    }
}

/// A length in DER.
fn length(length: usize) -> Vec<u8> {
    if let Ok(short) = u8::try_from(length)
        && short < 0x80
    {
        return vec![short];
    }
    let bytes: Vec<u8> = length.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
    let count = u8::try_from(bytes.len()).unwrap_or_default();
    std::iter::once(0x80 | count).chain(bytes).collect()
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let last = text.len().saturating_sub(1);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' => {
                out.extend(['\\', char::from(byte)]);
            }
            b'#' if at == 0 => out.push_str("\\#"),
            b' ' if at == 0 || at == last => out.push_str("\\ "),
            b' '..=b'~' => out.push(char::from(byte)),
            _ => write!(out, "\\{byte:02X}").expect("a String takes everything"),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use rcgen::CertificateParams;
    use rcgen::DnType;
    use rcgen::DnValue;
    use rcgen::KeyPair;
    use rcgen::SanType;

    use super::*;

    fn certificate(change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn a_subject_is_written_as_the_rfc_says() {
        let shown = certificate(|params| {
            let name = &mut params.distinguished_name;
            name.push(DnType::CountryName, "DE");
            name.push(DnType::OrganizationName, "A, B + C");
            name.push(DnType::CommonName, " #J\u{fc}rgen\n\"");
        });
        let client = of(&[shown]).unwrap();
        assert_eq!(client.subject, r#"CN=\ #J\C3\BCrgen\0A\",O=A\, B \+ C,C=DE"#);
        let odd = certificate(|params| {
            let name = &mut params.distinguished_name;
            name.push(DnType::CustomDnType(vec![2, 5, 4, 5]), "7");
            name.push(DnType::CommonName, DnValue::BmpString("ab".try_into().unwrap()));
        });
        assert_eq!(of(&[odd]).unwrap().subject, "CN=#1e0400610062,2.5.4.5=#0c0137");
        assert_eq!(of(&[certificate(|_| {})]).unwrap().subject, "");
    }

    #[test]
    fn names_have_their_kinds() {
        let shown = certificate(|params| {
            params.subject_alt_names = vec![
                SanType::DnsName("A.example".try_into().unwrap()),
                SanType::IpAddress("2001:db8::1".parse().unwrap()),
                SanType::IpAddress("192.0.2.1".parse().unwrap()),
                SanType::Rfc822Name("a@example.org".try_into().unwrap()),
                SanType::URI("spiffe://example.org/a".try_into().unwrap()),
                SanType::URI("two words".try_into().unwrap()),
            ];
        });
        assert_eq!(
            of(&[shown]).unwrap().names,
            [
                "DNS:a.example",
                "IP:2001:db8::1",
                "IP:192.0.2.1",
                "email:a@example.org",
                "URI:spiffe://example.org/a"
            ]
        );
    }

    #[test]
    fn a_fingerprint_is_that_of_the_whole_certificate() {
        assert_eq!(
            fingerprint(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        let shown = certificate(|_| {});
        let client = of(&[shown.clone(), shown.clone()]).unwrap();
        assert_eq!(client.fingerprint, fingerprint(&shown));
        assert_eq!(client.chain, [shown.to_vec(), shown.to_vec()]);
    }

    #[test]
    fn what_is_no_certificate_is_nobodys() {
        assert!(of(&[]).is_none());
        assert!(of(&[CertificateDer::from(b"no".to_vec())]).is_none());
    }

    #[test]
    fn long_values_have_long_lengths() {
        assert_eq!(length(0x7f), [0x7f]);
        assert_eq!(length(0x80), [0x81, 0x80]);
        assert_eq!(length(0x1234), [0x82, 0x12, 0x34]);
    }
}
