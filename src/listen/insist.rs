//! How a listener sees to it that clients come over TLS.

use http::HeaderValue;

use crate::message::target::Scheme;

/// What a listener does so that clients come over TLS.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Insistence {
    /// Nothing.
    #[default]
    None,
    /// It speaks plain text, and sends who asks for `http` to `https` at this port.
    Redirects(u16),
    /// It speaks TLS, and tells browsers to come by nothing else (RFC 6797): the field's value.
    Tells(HeaderValue),
}

impl Insistence {
    /// The port to which a request of this scheme is sent, if it is not answered here.
    #[must_use]
    pub fn https_port(&self, scheme: Scheme) -> Option<u16> {
        match (self, scheme) {
            (Self::Redirects(port), Scheme::Http) => Some(*port),
            // A proxy that is believed says that the client came over TLS: there is no way further.
            (Self::Redirects(_), Scheme::Https) | (Self::None | Self::Tells(_), _) => None,
        }
    }

    /// The value of Strict-Transport-Security, for answers over TLS only (RFC 6797 §7.2).
    #[must_use]
    pub fn told(&self, is_secure: bool) -> Option<&HeaderValue> {
        match self {
            Self::Tells(value) if is_secure => Some(value),
            Self::None | Self::Redirects(_) | Self::Tells(_) => None,
        }
    }
}

/// Where the client finds by `https` what it asked for: `host` and `target` in their normal forms.
#[must_use]
pub fn location(host: &str, port: u16, target: &str) -> String {
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    // `OPTIONS *` asks about the server, which has no path.
    let target = if target.starts_with('/') { target } else { "/" };
    format!("https://{host}{port}{target}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_came_without_tls_is_sent_elsewhere() {
        let sends = Insistence::Redirects(8443);
        assert_eq!(sends.https_port(Scheme::Http), Some(8443));
        assert_eq!(sends.https_port(Scheme::Https), None, "a balancer in front did TLS");
        assert_eq!(sends.told(true), None);
        assert_eq!(Insistence::None.https_port(Scheme::Http), None);
    }

    #[test]
    fn only_who_came_over_tls_is_told() {
        let tells = Insistence::Tells(HeaderValue::from_static("max-age=1"));
        assert_eq!(tells.told(true).map(HeaderValue::as_bytes), Some(&b"max-age=1"[..]));
        // A connection that is older than the reload which made the listener speak TLS.
        assert_eq!(tells.told(false), None);
        assert_eq!(tells.https_port(Scheme::Http), None);
    }

    #[test]
    fn the_port_is_named_unless_it_is_that_of_https() {
        for (host, port, target, to) in [
            ("a.test", 443, "/b?c=d", "https://a.test/b?c=d"),
            ("a.test", 8443, "/", "https://a.test:8443/"),
            ("[::1]", 443, "/", "https://[::1]/"),
            ("a.test", 443, "*", "https://a.test/"),
        ] {
            assert_eq!(location(host, port, target), to);
        }
    }
}
