//! Which values are secrets, as their names say.
//!
//! Names are compared without case, after percent-decoding (origins decode them too), word by word:
//! `api_key`, `X-Amz-Signature`, `accessToken` and `user[password]` are secrets, `keyboard` and `author`
//! are not.

use std::fmt;

/// Words in a name that make the value a secret.
pub const WORDS: &[&str] = &[
    "token",
    "key",
    "apikey",
    "signature",
    "sig",
    "password",
    "passwd",
    "passphrase",
    "pass",
    "pwd",
    "secret",
    "auth",
    "authorization",
    "code",
    "session",
    "sessionid",
    "sid",
    "credential",
    "credentials",
    "jwt",
    "assertion",
    "otp",
    "ticket",
];

/// Words that do so within a longer word too: `phpsessid`, `accesstoken`.
pub const PARTS: &[&str] =
    &["token", "secret", "password", "passwd", "signature", "session", "sessid", "apikey"];

/// What stands for a secret.
pub const MASK: &str = "***";

/// The longest name that is looked at; the value of a longer one is a secret.
pub const NAME_MAX: usize = 96;

/// Fields whose names sound like secrets and that are none.
const OPEN_FIELDS: &[&str] = &["surrogate-key", "sec-websocket-key"];

/// Does this name say that its value is a secret?
#[must_use]
pub fn is_named_so(name: &[u8]) -> bool {
    let mut word = [0_u8; NAME_MAX];
    let mut length = 0;
    let mut was_lower = false;
    let mut bytes = name;
    if name.len() > NAME_MAX {
        return true;
    }
    while let Some((byte, rest)) = decode(bytes) {
        bytes = rest;
        let starts = byte.is_ascii_uppercase() && was_lower;
        was_lower = byte.is_ascii_lowercase();
        if starts || !byte.is_ascii_alphanumeric() {
            if is_word(&word[..length]) {
                return true;
            }
            length = 0;
        }
        if byte.is_ascii_alphanumeric() {
            word[length] = byte.to_ascii_lowercase();
            length += 1;
        }
    }
    is_word(&word[..length])
}

/// Does the name of a header field say that its value is a secret?
#[must_use]
pub fn is_field(name: &str) -> bool {
    let is = |other: &str| name.eq_ignore_ascii_case(other);
    let holds_cookies = ["cookie", "set-cookie"].into_iter().any(is);
    holds_cookies || (is_named_so(name.as_bytes()) && !OPEN_FIELDS.iter().any(|open| is(open)))
}

/// The value of a field as it may be shown: itself, or [`MASK`].
#[must_use]
pub fn of_field<'v>(name: &str, value: &'v str) -> &'v str {
    if is_field(name) { MASK } else { value }
}

/// The value of a parameter or a cookie as it may be shown: itself, or [`MASK`].
#[must_use]
pub fn of_name<'v>(name: &str, value: &'v str) -> &'v str {
    if is_named_so(name.as_bytes()) { MASK } else { value }
}

fn is_word(word: &[u8]) -> bool {
    WORDS.iter().any(|secret| secret.as_bytes() == word)
        || PARTS.iter().any(|part| word.windows(part.len()).any(|window| window == part.as_bytes()))
}

/// The next byte of a name, percent-decoded.
fn decode(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    if let (b'%', [high, low, after @ ..]) = (first, rest)
        && let (Some(high), Some(low)) = (hex(*high), hex(*low))
    {
        return Some((high << 4 | low, after));
    }
    Some((first, rest))
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// A secret that a client has to present, or that something is made with: compared, never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Box<[u8]>);

impl Token {
    /// The token of this text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.as_bytes().into())
    }

    /// The text, for presenting it, or for what is made with it.
    #[must_use]
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }

    /// Whether `presented` is it. The time that takes depends on what was presented alone, so that
    /// nobody can find it out byte by byte.
    #[must_use]
    pub fn is(&self, presented: &[u8]) -> bool {
        let mut difference = presented.len() ^ self.0.len();
        for (at, byte) in presented.iter().enumerate() {
            let own = self.0.get(at % self.0.len().max(1)).copied().unwrap_or_default();
            difference |= usize::from(byte ^ own);
        }
        // An empty one would be known to everybody.
        std::hint::black_box(difference) == 0 && !self.0.is_empty()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

/// What the value of an Authorization field presents as a bearer token (RFC 6750 §2.1).
#[must_use]
pub fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = authorization.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_the_same_bytes_and_no_others() {
        let token = Token::new("hunter2");
        assert!(token.is(b"hunter2"));
        for other in
            ["", "h", "hunter", "hunter3", "hunter22", "Hunter2", "hunter2hunter2", "xunter2"]
        {
            assert!(!token.is(other.as_bytes()), "{other}");
        }
        assert!(!Token::new("").is(b""));
        assert_eq!(format!("{token:?}"), MASK);
    }

    #[test]
    fn a_bearer_token_stands_behind_its_scheme() {
        assert_eq!(bearer(b"Bearer abc"), Some(&b"abc"[..]));
        assert_eq!(bearer(b"bEARER  abc "), Some(&b"abc"[..]));
        for other in ["", "Bearer", "Basic abc", "abc", "Bearerabc"] {
            assert_eq!(bearer(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn fields_that_carry_secrets_are_known_by_their_names() {
        for name in [
            "Authorization",
            "proxy-authorization",
            "Cookie",
            "set-cookie",
            "X-Api-Key",
            "x-auth-token",
            "x-origin-secret",
            "x-amz-security-token",
        ] {
            assert!(is_field(name), "{name}");
        }
        for name in
            ["x-gateway", "cache-control", "surrogate-key", "Sec-WebSocket-Key", "x-cookies"]
        {
            assert!(!is_field(name), "{name}");
        }
    }
}
