//! Keeping secrets that clients put into URLs out of the log.
//!
//! The value of a parameter whose name says that it is a secret becomes `***`. Names are compared
//! without case, after percent-decoding (origins decode them too), word by word: `api_key`,
//! `X-Amz-Signature`, `accessToken` and `user[password]` are secrets, `keyboard` and `author` are not.

/// Words that make a parameter's value a secret.
pub const SECRET_WORDS: &[&str] = &[
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
const SECRET_PARTS: &[&str] =
    &["token", "secret", "password", "passwd", "signature", "session", "sessid", "apikey"];

/// What stands for a secret.
const MASK: &[u8] = b"***";

/// The longest name that is looked at; the value of a longer one is masked.
const NAME_MAX: usize = 96;

/// Hands over `query` with its secrets masked. Parameters are separated by `&` or `;`.
pub fn query(query: &[u8], piece: &mut dyn FnMut(&[u8])) {
    parameters(query, |byte| matches!(byte, b'&' | b';'), piece);
}

/// Hands over `path` with the secrets in its parameters (`/a;jsessionid=…`) masked.
pub fn path(path: &[u8], piece: &mut dyn FnMut(&[u8])) {
    let Some(first) = path.iter().position(|&byte| byte == b';') else { return piece(path) };
    piece(&path[..first]);
    parameters(&path[first..], |byte| matches!(byte, b';' | b'/'), piece);
}

/// Hands over `url` with the secrets in its query, its fragment and its user part masked.
pub fn url(url: &[u8], piece: &mut dyn FnMut(&[u8])) {
    let end = url.iter().position(|&byte| matches!(byte, b'?' | b'#')).unwrap_or(url.len());
    let (before, after) = url.split_at(end);
    let authority = before.windows(3).position(|window| window == b"://").map_or(0, |at| at + 3);
    let (scheme, rest) = before.split_at(authority);
    piece(scheme);
    let slash = rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len());
    let (host, path_part) = rest.split_at(slash);
    match host.iter().rposition(|&byte| byte == b'@').filter(|_| authority > 0) {
        Some(at) => {
            piece(MASK);
            piece(&host[at..]);
        }
        None => piece(host),
    }
    path(path_part, piece);
    parameters(after, |byte| matches!(byte, b'?' | b'#' | b'&' | b';'), piece);
}

/// Hands over `bytes`, a list of `name=value` between separators, with secret values masked.
fn parameters(bytes: &[u8], separates: impl Fn(u8) -> bool, piece: &mut dyn FnMut(&[u8])) {
    let mut rest = bytes;
    loop {
        let end = rest.iter().position(|&byte| separates(byte)).unwrap_or(rest.len());
        let parameter = &rest[..end];
        match parameter.iter().position(|&byte| byte == b'=') {
            Some(equals) if is_secret(&parameter[..equals]) => {
                piece(&parameter[..=equals]);
                if equals + 1 < parameter.len() {
                    piece(MASK);
                }
            }
            _ => piece(parameter),
        }
        let Some(&separator) = rest.get(end) else { return };
        piece(&[separator]);
        rest = &rest[end + 1..];
    }
}

/// Does this name say that the value is a secret?
fn is_secret(name: &[u8]) -> bool {
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
            if is_secret_word(&word[..length]) {
                return true;
            }
            length = 0;
        }
        if byte.is_ascii_alphanumeric() {
            word[length] = byte.to_ascii_lowercase();
            length += 1;
        }
    }
    is_secret_word(&word[..length])
}

fn is_secret_word(word: &[u8]) -> bool {
    SECRET_WORDS.iter().any(|secret| secret.as_bytes() == word)
        || SECRET_PARTS
            .iter()
            .any(|part| word.windows(part.len()).any(|window| window == part.as_bytes()))
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

#[cfg(test)]
mod tests {
    use super::*;

    type Masker = fn(&[u8], &mut dyn FnMut(&[u8]));

    fn masked(with: Masker, input: &str) -> String {
        let mut output = Vec::new();
        with(input.as_bytes(), &mut |piece| output.extend_from_slice(piece));
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn names_that_say_secret_are_masked() {
        for name in [
            "token",
            "api_key",
            "X-Amz-Signature",
            "accessToken",
            "TOKEN",
            "user[password]",
            "sig",
            "PHPSESSID",
            "client_secret",
            "id.token",
            "%74oken",
            "to%6Ben",
            "refreshtoken",
            "code",
            "X-Amz-Security-Token",
            "x-auth",
        ] {
            assert_eq!(masked(query, &format!("{name}=hunter2")), format!("{name}=***"));
        }
    }

    #[test]
    fn other_names_are_not() {
        for name in ["q", "page", "keyboard", "author", "monkey", "codec", "passage", "design", ""]
        {
            let input = format!("{name}=value");
            assert_eq!(masked(query, &input), input);
        }
    }

    #[test]
    fn only_the_value_of_the_secret_goes() {
        assert_eq!(masked(query, "a=1&token=x=y&b=2"), "a=1&token=***&b=2");
        assert_eq!(masked(query, "a=1;token=x;b"), "a=1;token=***;b");
        assert_eq!(masked(query, "token&token=&&"), "token&token=&&");
    }

    #[test]
    fn the_value_of_a_name_longer_than_the_limit_is_masked() {
        let (fits, long) = ("a".repeat(NAME_MAX), "a".repeat(NAME_MAX + 1));
        assert_eq!(masked(query, &format!("{fits}=x")), format!("{fits}=x"));
        assert_eq!(masked(query, &format!("{long}=x")), format!("{long}=***"));
    }

    #[test]
    fn path_parameters_are_masked() {
        assert_eq!(masked(path, "/a;jsessionid=F00/b;v=1"), "/a;jsessionid=***/b;v=1");
        assert_eq!(masked(path, "/token=a"), "/token=a");
    }

    #[test]
    fn a_url_loses_its_user_and_its_secrets() {
        assert_eq!(
            masked(url, "https://me:pw@a.test/p;sid=1?q=1&token=2#access_token=3"),
            "https://***@a.test/p;sid=***?q=1&token=***#access_token=***"
        );
        assert_eq!(masked(url, "https://a.test/u@v?w=x"), "https://a.test/u@v?w=x");
        assert_eq!(masked(url, "/only/path@x"), "/only/path@x");
    }
}
