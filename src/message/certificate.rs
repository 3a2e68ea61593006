//! The certificate that a client showed, and the fields in which an origin is told of it (RFC 9440).

use std::sync::OnceLock;
use std::time::Duration;
use std::time::SystemTime;

use http::HeaderName;
use http::HeaderValue;

/// How the fields begin that tell of a client's certificate.
const PREFIX: &str = "client-cert";

/// `client-cert`: the certificate (RFC 9440 §2.2).
pub const CERTIFICATE: HeaderName = HeaderName::from_static("client-cert");
/// `client-cert-chain`: those of its issuers that the client sent along (RFC 9440 §2.3).
pub const CHAIN: HeaderName = HeaderName::from_static("client-cert-chain");
/// `client-cert-verified`: whether there is one; one that is not good ends the handshake.
pub const VERIFIED: HeaderName = HeaderName::from_static("client-cert-verified");
/// `client-cert-subject`: whose it is.
pub const SUBJECT: HeaderName = HeaderName::from_static("client-cert-subject");
/// `client-cert-san`: its alternative names.
pub const NAMES: HeaderName = HeaderName::from_static("client-cert-san");
/// `client-cert-fingerprint`: what tells it from every other one.
pub const FINGERPRINT: HeaderName = HeaderName::from_static("client-cert-fingerprint");

/// All of them; in this order they are sent.
pub static FIELDS: [HeaderName; 6] = [VERIFIED, FINGERPRINT, SUBJECT, NAMES, CERTIFICATE, CHAIN];

/// Whether a field is one of those, or might become one. Nobody's copy of it passes: the word of who holds
/// the private key is in the handshake, and that of everybody else is none.
#[must_use]
pub fn is_claim(name: &str) -> bool {
    // Every field of every request is looked at, and few begin so.
    name.starts_with('c')
        && name.strip_prefix(PREFIX).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// How much an origin is told of a client's certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Introduction {
    /// Nothing.
    #[default]
    Nothing,
    /// Whose it is.
    Identity,
    /// The same, and the certificate itself.
    Whole,
}

/// A certificate that a client showed, that was checked, and whose key the client has.
#[derive(Debug, Default)]
pub struct ClientCertificate {
    /// Whose it is: RFC 4514, in visible ASCII.
    pub subject: String,
    /// Its alternative names, each with its kind: `DNS:a.example`, `IP:192.0.2.1`, `email:a@example.org`,
    /// `URI:spiffe://example.org/a`.
    pub names: Vec<String>,
    /// SHA-256 of the certificate, in small hexadecimal digits.
    pub fingerprint: String,
    /// The certificate and those that the client sent along, in DER.
    pub chain: Vec<Vec<u8>>,
    /// The last second of its validity; `None`: it has no end.
    pub ends: Option<SystemTime>,
    /// What is made of it for origins, once one is told.
    written: OnceLock<Vec<(HeaderName, HeaderValue)>>,
}

impl ClientCertificate {
    /// What a certificate says of itself.
    #[must_use]
    pub fn new(
        subject: String,
        names: Vec<String>,
        fingerprint: String,
        chain: Vec<Vec<u8>>,
    ) -> Self {
        Self { subject, names, fingerprint, chain, ends: None, written: OnceLock::new() }
    }

    /// Whether it is not valid any more. It was when the connection began, which may last longer.
    #[must_use]
    pub fn is_over(&self, now: SystemTime) -> bool {
        // Valid through the whole of that second (RFC 5280 §4.1.2.5).
        let since = self.ends.map(|ends| now.duration_since(ends).unwrap_or_default());
        since.is_some_and(|since| since >= Duration::from_secs(1))
    }

    /// The fields that tell an origin of the certificate.
    pub fn fields(
        &self,
        introduction: Introduction,
    ) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let most = match introduction {
            Introduction::Nothing => 0,
            Introduction::Identity => 4,
            Introduction::Whole => FIELDS.len(),
        };
        let told = move |name: &HeaderName| FIELDS[..most].contains(name);
        let written = self.written.get_or_init(|| self.write());
        written.iter().filter(move |(name, _)| told(name)).cloned()
    }

    fn write(&self) -> Vec<(HeaderName, HeaderValue)> {
        let binary = |der: &Vec<u8>| format!(":{}:", base64(der));
        let text = [
            (VERIFIED, Some("true".to_owned())),
            (FINGERPRINT, Some(self.fingerprint.clone())),
            (SUBJECT, Some(self.subject.clone())),
            (NAMES, Some(list(self.names.iter().filter_map(|name| string(name))))),
            (CERTIFICATE, self.chain.first().map(binary)),
            (CHAIN, Some(list(self.chain.iter().skip(1).map(binary)))),
        ];
        let written = text.into_iter().filter_map(|(name, text)| {
            let text = text.filter(|text| !text.is_empty())?;
            Some((name, HeaderValue::try_from(text).ok()?))
        });
        written.collect()
    }
}

/// The fields of a client that showed no certificate.
pub fn fields_of_none(
    introduction: Introduction,
) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    let told = introduction != Introduction::Nothing;
    told.then_some((VERIFIED, HeaderValue::from_static("false"))).into_iter()
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

/// A String of structured fields (RFC 9651 §3.3.3); `None` for what has no such form.
fn string(text: &str) -> Option<String> {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            ' '..='~' => quoted.push(c),
            _ => return None,
        }
    }
    quoted.push('"');
    Some(quoted)
}

/// RFC 4648 §4, with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let at = |index: usize| u32::from(three.get(index).copied().unwrap_or_default());
        let bits = (at(0) << 16) | (at(1) << 8) | at(2);
        for place in 0..4 {
            let sextet = (bits >> (18 - 6 * place)) & 63;
            let is_padding = place > three.len();
            text.push(if is_padding { '=' } else { char::from(ALPHABET[sextet as usize]) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (plain, encoded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xbf]), "+/+/");
    }

    #[test]
    fn whoever_might_be_taken_for_one_of_the_fields_is_a_claim() {
        for name in &FIELDS {
            assert!(is_claim(name.as_str()), "{name}");
        }
        assert!(is_claim("client-cert-not-after"));
        for name in ["client", "client-certificate", "x-client-cert", "client-ce"] {
            assert!(!is_claim(name), "{name}");
        }
    }

    fn some() -> ClientCertificate {
        let names = ["DNS:a.example", "URI:x\"y\\z", "email:\u{e9}@example.org"];
        ClientCertificate::new(
            "CN=a".to_owned(),
            names.map(str::to_owned).to_vec(),
            "00ff".to_owned(),
            vec![b"foo".to_vec(), b"fo".to_vec(), b"f".to_vec()],
        )
    }

    #[test]
    fn it_is_over_after_its_last_second() {
        let at = |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        let mut certificate = some();
        assert!(!certificate.is_over(at(u32::MAX.into())));
        certificate.ends = Some(at(5000));
        for (millis, is_over) in [(0, false), (5000, false), (5999, false), (6000, true)] {
            assert_eq!(certificate.is_over(at(millis)), is_over, "{millis}");
        }
    }

    #[test]
    fn an_origin_is_told_as_much_as_is_meant() {
        let told = |introduction| -> Vec<(HeaderName, HeaderValue)> {
            some().fields(introduction).collect()
        };
        let value = HeaderValue::from_static;
        assert_eq!(told(Introduction::Nothing), []);
        let identity = [
            (VERIFIED, value("true")),
            (FINGERPRINT, value("00ff")),
            (SUBJECT, value("CN=a")),
            // A name that is not ASCII is none (RFC 5280 §4.2.1.6).
            (NAMES, value(r#""DNS:a.example", "URI:x\"y\\z""#)),
        ];
        assert_eq!(told(Introduction::Identity), identity);
        let whole = told(Introduction::Whole);
        assert_eq!(whole[..4], identity);
        assert_eq!(whole[4..], [(CERTIFICATE, value(":Zm9v:")), (CHAIN, value(":Zm8=:, :Zg==:"))]);
    }

    #[test]
    fn of_nobody_an_origin_is_told_that() {
        let told: Vec<_> = fields_of_none(Introduction::Whole).collect();
        assert_eq!(told, [(VERIFIED, HeaderValue::from_static("false"))]);
        assert_eq!(fields_of_none(Introduction::Nothing).count(), 0);
        // What a certificate does not have is no field.
        let bare = ClientCertificate::new(String::new(), vec![], "00".to_owned(), vec![]);
        let told: Vec<_> = bare.fields(Introduction::Whole).map(|(name, _)| name).collect();
        assert_eq!(told, [VERIFIED, FINGERPRINT]);
    }
}
