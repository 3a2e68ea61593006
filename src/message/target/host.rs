//! What Host says (RFC 9110 §7.2), in the two forms that are asked for.

use http::HeaderValue;

use crate::message::target::Authority;
use crate::refusal::Refusal;

/// An authority, and the value of the field that says it.
#[derive(Debug, Clone)]
pub struct Host {
    authority: Authority,
    value: HeaderValue,
}

impl Host {
    /// Reads it as [`Authority::parse`] does.
    ///
    /// # Errors
    /// Those of it.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        Self::of(Authority::parse(bytes)?)
    }

    /// What says that it is this one.
    ///
    /// # Errors
    /// [`Refusal::BadHost`], if no field can.
    pub fn of(authority: Authority) -> Result<Self, Refusal> {
        let value = HeaderValue::from_str(authority.as_str()).map_err(|_| Refusal::BadHost)?;
        Ok(Self { authority, value })
    }

    /// The same read once more, which takes no time where these bytes are its normal form: that is read as itself.
    ///
    /// # Errors
    /// Those of [`Self::parse`]; nothing is known then.
    pub fn read_again<'k>(known: &'k mut Option<Self>, bytes: &[u8]) -> Result<&'k Self, Refusal> {
        let same = known.take().filter(|known| known.value.as_bytes() == bytes);
        Ok(match same {
            Some(same) => known.insert(same),
            None => known.insert(Self::parse(bytes)?),
        })
    }

    /// Whom it names.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The value of Host in normal form.
    #[must_use]
    pub fn value(&self) -> &HeaderValue {
        &self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_what_was_read_last() {
        let mut known = None;
        for (bytes, normal) in [
            ("A.example:80", "a.example:80"),
            ("a.example:80", "a.example:80"),
            ("a.example", "a.example"),
            ("b.example.", "b.example"),
            ("b.example", "b.example"),
            ("[0:0:0:0:0:0:0:1]:8443", "[::1]:8443"),
            ("[::1]:8443", "[::1]:8443"),
            ("[::1]", "[::1]"),
            ("[::FFFF:192.0.2.1]", "[::ffff:192.0.2.1]"),
            ("[::ffff:192.0.2.1]", "[::ffff:192.0.2.1]"),
        ] {
            let host = Host::read_again(&mut known, bytes.as_bytes()).expect("a valid host");
            assert_eq!(
                (host.authority().as_str(), host.value().as_bytes()),
                (normal, normal.as_bytes())
            );
        }
        assert!(Host::read_again(&mut known, b"b example").is_err());
        assert!(known.is_none());
    }
}
