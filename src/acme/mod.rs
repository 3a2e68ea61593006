//! Certificates from an ACME server (RFC 8555): ordered, kept, renewed, without hands.
//!
//! [`decide`] says when to order, and how long to wait after a failure. [`keeper`] runs one task for each
//! certificate, which asks it. `folder` is what is kept, shared by all nodes that name the same folder;
//! who holds a certificate's lock orders it, the others wait for what comes of it. `order` talks to the
//! server, by way of `client`; what it shows there of our hosts is in [`Answers`](crate::tls::answers::Answers)
//! or is done by a `hook`.

mod client;
pub mod decide;
mod folder;
mod hook;
pub mod keeper;
mod order;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::tls::Proof;

/// The directory of Let's Encrypt.
pub const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// That of its staging, whose certificates nobody trusts and whose limits are wide.
pub const LETS_ENCRYPT_STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";

/// From whom certificates are ordered, and how, as meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The URL of the server's directory.
    pub directory: String,
    /// Whom to trust for the server; `None` is the system's authorities.
    pub root: Option<PathBuf>,
    /// An e-mail address for the account.
    pub contact: Option<String>,
    /// Whether the server is told that its terms are agreed to.
    pub terms_agreed: bool,
    /// The account that the server knows us by already.
    pub external_account: Option<ExternalAccount>,
    /// How it is shown whose the hosts are.
    pub proof: Proof,
    /// Who sets DNS records; there is one for [`Proof::Dns01`].
    pub hook: Option<Hook>,
    /// Where account and certificates are kept.
    pub folder: PathBuf,
    /// The time to the next attempt after a first failure; it doubles with each one.
    pub retry: Duration,
}

/// A program that sets and removes DNS records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// The program and its arguments; never empty.
    pub command: Vec<String>,
    /// How long it may take.
    pub timeout: Duration,
}

/// An account elsewhere, to which ours is bound (RFC 8555 §7.3.4).
#[derive(Clone, PartialEq, Eq)]
pub struct ExternalAccount {
    /// Its name.
    pub key_id: String,
    /// Its key.
    pub key: Vec<u8>,
}

impl fmt::Debug for ExternalAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExternalAccount").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// The folder, below the one for storage, of what a server issues: certificates of a staging server never
/// stand in for others.
#[must_use]
pub fn folder_name(directory: &str) -> String {
    let rest = directory.split_once("://").map_or(directory, |(_, rest)| rest);
    let plain = |c: char| if c.is_ascii_alphanumeric() || ".-".contains(c) { c } else { '_' };
    let name: String = rest.chars().map(plain).take(128).collect();
    name.trim_matches(['.', '_']).to_owned()
}

/// Bytes written in base64url, as servers hand keys out; padding is not needed.
///
/// # Errors
/// A sentence.
pub fn from_base64url(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut held) = (0_u32, 0_u32);
    for byte in text.trim_end_matches('=').bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'-' | b'+' => 62,
            b'_' | b'/' => 63,
            _ => return Err("it is not base64url".to_owned()),
        };
        held = (held << 6) | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(((held >> bits) & 0xff) as u8);
            held &= (1 << bits) - 1;
        }
    }
    if bits >= 6 || held != 0 {
        return Err("it is cut off".to_owned());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_have_folders_of_their_own() {
        let production = folder_name(LETS_ENCRYPT);
        assert_eq!(production, "acme-v02.api.letsencrypt.org_directory");
        assert_ne!(production, folder_name(LETS_ENCRYPT_STAGING));
        assert_eq!(folder_name("https://../../x"), "x");
    }

    #[test]
    fn keys_are_read_as_servers_write_them() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("Zg", b"f"),
            ("Zg==", b"f"),
            ("Zm8", b"fo"),
            ("Zm9v", b"foo"),
            ("-_-_", &[0xfb, 0xff, 0xbf]),
            ("+/+/", &[0xfb, 0xff, 0xbf]),
        ] {
            assert_eq!(from_base64url(text).as_deref(), Ok(bytes), "{text}");
        }
        for text in ["Z", "Zh", "Zm9vZ", "Zm 9", "\u{e9}"] {
            assert!(from_base64url(text).is_err(), "{text}");
        }
    }
}
