//! What is shown to an ACME server while an order is in progress, so that it sees whose hosts these are.
//!
//! Listeners ask here: plain ones for the text at `/.well-known/acme-challenge/` (RFC 8555 §8.3), TLS ones for
//! the certificate of a handshake for `acme-tls/1` (RFC 8737). The server may reach another node than the
//! one that orders; so texts are also kept in the folder that all nodes share.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::RwLock;
use rcgen::CertificateParams;
use rcgen::CustomExtension;
use rcgen::KeyPair;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::CertifiedKey;

use super::disk;
use super::error::Error;
use super::files;

/// Where the text is that belongs to a token.
pub const PREFIX: &[u8] = b"/.well-known/acme-challenge/";

/// The protocol that is agreed on when an ACME server wants to see its certificate (RFC 8737 §6.2).
pub const PROTOCOL: &[u8] = b"acme-tls/1";

/// The longest token; they have 43 characters or less, as far as is known.
const TOKEN_MAX: usize = 128;

/// The longest text that belongs to a token: the token, a dot and a thumbprint.
const TEXT_MAX: usize = TOKEN_MAX + 128;

/// What is shown at this moment.
#[derive(Default)]
pub struct Answers {
    texts: RwLock<HashMap<String, String>>,
    certificates: RwLock<HashMap<String, Arc<CertifiedKey>>>,
    /// Where the nodes that share a storage folder keep their texts.
    shared: RwLock<Option<PathBuf>>,
}

/// Something is shown for as long as this lives.
pub struct Shown {
    answers: Arc<Answers>,
    what: What,
}

enum What {
    Text(String),
    Certificate(String),
}

impl Answers {
    /// Also looks for texts in this folder, where other nodes put theirs.
    pub fn share(&self, folder: Option<PathBuf>) {
        *self.shared.write() = folder;
    }

    /// The text at a path, if it is one that is to be shown now. `path` begins with [`PREFIX`].
    #[must_use]
    pub fn text(&self, path: &[u8]) -> Option<String> {
        let token = token(path)?;
        if let Some(text) = self.texts.read().get(token) {
            return Some(text.clone());
        }
        let shared = self.shared.read().clone()?;
        let text = fs::read_to_string(shared.join(token)).ok()?;
        // What belongs to a token begins with it: nothing else that lies there is ever shown.
        let is_ours = text.len() <= TEXT_MAX
            && text.strip_prefix(token).is_some_and(|rest| rest.starts_with('.'));
        is_ours.then_some(text)
    }

    /// The certificate for a handshake for [`PROTOCOL`] with this name.
    #[must_use]
    pub fn certificate(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.certificates.read().get(name).cloned()
    }

    /// Shows a text. Blocks on the file system.
    ///
    /// # Errors
    /// The token is not one, or the shared folder cannot be written to.
    pub fn show_text(self: &Arc<Self>, token: &str, text: &str) -> Result<Shown, String> {
        if !is_token(token) {
            return Err(format!("the server gave a token that is none: {token:?}"));
        }
        if let Some(shared) = &*self.shared.read() {
            disk::make_folder(shared)
                .and_then(|()| disk::replace(&shared.join(token), text.as_bytes()))
                .map_err(|e| e.to_string())?;
        }
        self.texts.write().insert(token.to_owned(), text.to_owned());
        Ok(Shown { answers: Arc::clone(self), what: What::Text(token.to_owned()) })
    }

    /// Shows a certificate for `name` that contains `digest` (RFC 8737 §3).
    ///
    /// # Errors
    /// It cannot be made.
    pub fn show_certificate(self: &Arc<Self>, name: &str, digest: &[u8]) -> Result<Shown, Error> {
        let made = Arc::new(certificate(name, digest)?);
        let name = name.to_ascii_lowercase();
        self.certificates.write().insert(name.clone(), made);
        Ok(Shown { answers: Arc::clone(self), what: What::Certificate(name) })
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        match &self.what {
            What::Text(token) => {
                self.answers.texts.write().remove(token);
                if let Some(shared) = &*self.answers.shared.read() {
                    let _ = fs::remove_file(shared.join(token));
                }
            }
            What::Certificate(name) => drop(self.answers.certificates.write().remove(name)),
        }
    }
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers").finish_non_exhaustive()
    }
}

/// The token that a path asks about.
fn token(path: &[u8]) -> Option<&str> {
    let token = std::str::from_utf8(path.strip_prefix(PREFIX)?).ok()?;
    is_token(token).then_some(token)
}

/// Whether this is in the alphabet of base64url (RFC 8555 §8.3), and so no path.
fn is_token(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    !text.is_empty() && text.len() <= TOKEN_MAX && text.bytes().all(known)
}

fn certificate(name: &str, digest: &[u8]) -> Result<CertifiedKey, Error> {
    let issue = |source| Error::Issue { source };
    let mut params = CertificateParams::new(vec![name.to_owned()])
        .map_err(|source| Error::Host { host: name.to_owned(), source })?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate().map_err(issue)?;
    let made = params.self_signed(&key).map_err(issue)?;
    let private = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    // Whoever verifies it must know its extension; that it is the key's is known here.
    let key = files::provider().key_provider.load_private_key(private);
    let key = key.map_err(|source| Error::Settings { source })?;
    Ok(CertifiedKey::new(vec![made.der().clone()], key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(token: &str) -> Vec<u8> {
        [PREFIX, token.as_bytes()].concat()
    }

    #[test]
    fn a_text_is_shown_as_long_as_its_order_is_in_progress() {
        let answers = Arc::new(Answers::default());
        let shown = answers.show_text("abc", "abc.thumb").unwrap();
        assert_eq!(answers.text(&path("abc")).as_deref(), Some("abc.thumb"));
        assert_eq!(answers.text(&path("abcd")), None);
        drop(shown);
        assert_eq!(answers.text(&path("abc")), None);
    }

    #[test]
    fn a_node_shows_the_text_of_another_that_shares_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let nodes = [Arc::new(Answers::default()), Arc::new(Answers::default())];
        for node in &nodes {
            node.share(Some(folder.path().join("challenges")));
        }
        let shown = nodes[0].show_text("abc", "abc.thumb").unwrap();
        assert_eq!(nodes[1].text(&path("abc")).as_deref(), Some("abc.thumb"));
        drop(shown);
        assert_eq!(nodes[1].text(&path("abc")), None);
        assert_eq!(fs::read_dir(folder.path().join("challenges")).unwrap().count(), 0);
    }

    #[test]
    fn nothing_else_is_ever_shown() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("secret"), "a secret").unwrap();
        fs::write(folder.path().join("key"), "key-----BEGIN").unwrap();
        fs::create_dir(folder.path().join("inner")).unwrap();
        fs::write(folder.path().join("inner/abc"), "inner/abc.thumb").unwrap();
        let answers = Answers::default();
        answers.share(Some(folder.path().join("inner")));
        for asked in ["../secret", "..", ".", "", "%2e%2e/secret", "abc?x", "a/b", "abc/", "\u{e9}"]
        {
            assert_eq!(answers.text(&path(asked)), None, "{asked}");
        }
        answers.share(Some(folder.path().to_owned()));
        assert_eq!(answers.text(&path("secret")), None);
        assert_eq!(answers.text(&path("key")), None);
        assert_eq!(answers.text(&path(&"a".repeat(TOKEN_MAX + 1))), None);
    }

    #[test]
    fn a_certificate_is_for_its_name_alone() {
        let answers = Arc::new(Answers::default());
        let shown = answers.show_certificate("A.test", &[7; 32]).unwrap();
        assert!(answers.certificate("a.test").is_some());
        assert!(answers.certificate("b.test").is_none());
        drop(shown);
        assert!(answers.certificate("a.test").is_none());
    }

    #[test]
    fn a_token_that_is_a_path_is_refused() {
        assert!(Arc::new(Answers::default()).show_text("../x", "x").is_err());
    }
}
