//! The `acme` section, as written.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::config::schema::secret::Secret;
use crate::config::schema::value::OrAuto;
use crate::units::Period;

/// From whom certificates are ordered by ACME (RFC 8555), and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Acme {
    /// The URL of the server's directory. `auto`: that of Let's Encrypt.
    pub directory: OrAuto<String>,
    /// Let's Encrypt's staging instead: for trying out, with certificates that nobody trusts.
    pub staging: bool,
    /// A PEM file of authorities to trust for a server of one's own, in place of the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<PathBuf>,
    /// An e-mail address for the account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contact: Option<String>,
    /// Whether the server is told that its terms of service are agreed to.
    pub terms_agreed: bool,
    /// An account at the server's operator to which ours is bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_account: Option<ExternalAccount>,
    /// How the server is shown whose the hosts are.
    pub challenge: Challenge,
    /// The port of the listener that the server reaches as 80 (`http-01`) or 443 (`tls-alpn-01`),
    /// where that is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The program that sets DNS records, for `dns-01`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsHook>,
    /// Where account and certificates are kept. Nodes that share it order each certificate once.
    /// `auto`: acme in the state folder.
    pub storage: OrAuto<PathBuf>,
    /// The time to the next attempt after a failure, 1s to 1d; it doubles with each one, up to a day.
    pub retry: Period,
}

/// An account elsewhere, to which the ACME account is bound.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ExternalAccount {
    /// The name of its key. Required.
    pub key_id: String,
    /// The key, in base64url.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hmac_key: Option<Secret>,
    /// A file that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hmac_key_file: Option<PathBuf>,
}

/// A program that sets and removes DNS records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DnsHook {
    /// The program and its arguments. It finds what to do in ACME_ACTION (set or remove), ACME_NAME,
    /// ACME_VALUE and ACME_DOMAIN, and ends when the record can be seen. Required.
    pub command: Vec<String>,
    /// How long it may take.
    pub timeout: Period,
}

/// How a server is shown whose a host is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Challenge {
    /// By a text at the host, over plain HTTP.
    #[serde(rename = "http-01")]
    Http01,
    /// By a certificate at the host.
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
    /// By a DNS record, which a program sets; wildcards need it.
    #[serde(rename = "dns-01")]
    Dns01,
}

impl Default for Acme {
    fn default() -> Self {
        Self {
            directory: OrAuto::Auto,
            staging: false,
            root: None,
            contact: None,
            terms_agreed: true,
            external_account: None,
            challenge: Challenge::Http01,
            port: None,
            dns: None,
            storage: OrAuto::Auto,
            retry: Period(Duration::from_secs(300)),
        }
    }
}

impl Default for DnsHook {
    fn default() -> Self {
        Self { command: Vec::new(), timeout: Period(Duration::from_secs(300)) }
    }
}
