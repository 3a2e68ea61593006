//! Keeping secrets that clients put into URLs out of the log.
//!
//! The value of a parameter whose name says that it is a secret (`message/secret.rs`) becomes `***`.

use crate::message::secret;
use crate::message::secret::MASK;

/// Hands over `query` with its secrets masked. Parameters are separated by `&` or `;`.
pub fn query(query: &[u8], piece: &mut dyn FnMut(&[u8])) {
    parameters(query, |byte| matches!(byte, b'&' | b';'), piece);
}

/// Hands over `path` with the secrets in its parameters (`/a;jsessionid=…`) masked. What was refused may
/// be no path but a URL or an authority; its user part is masked then.
pub fn path(path: &[u8], piece: &mut dyn FnMut(&[u8])) {
    let path = if path.starts_with(b"/") { path } else { front(path, piece) };
    let Some(first) = path.iter().position(|&byte| byte == b';') else { return piece(path) };
    piece(&path[..first]);
    parameters(&path[first..], |byte| matches!(byte, b';' | b'/'), piece);
}

/// Hands over `url` with the secrets in its query, its fragment and its user part masked.
pub fn url(url: &[u8], piece: &mut dyn FnMut(&[u8])) {
    let end = url.iter().position(|&byte| matches!(byte, b'?' | b'#')).unwrap_or(url.len());
    let (before, after) = url.split_at(end);
    path(before, piece);
    parameters(after, |byte| matches!(byte, b'?' | b'#' | b'&' | b';'), piece);
}

/// Hands over the scheme at the front of a URL, and the authority if it has a user part; returns what follows.
fn front<'u>(url: &'u [u8], piece: &mut dyn FnMut(&[u8])) -> &'u [u8] {
    let authority = url.windows(3).position(|window| window == b"://").map_or(0, |at| at + 3);
    let (scheme, rest) = url.split_at(authority);
    piece(scheme);
    let slash = rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len());
    let (host, path) = rest.split_at(slash);
    let Some(at) = host.iter().rposition(|&byte| byte == b'@') else { return rest };
    piece(MASK.as_bytes());
    piece(&host[at..]);
    path
}

/// Hands over `bytes`, a list of `name=value` between separators, with secret values masked.
fn parameters(bytes: &[u8], separates: impl Fn(u8) -> bool, piece: &mut dyn FnMut(&[u8])) {
    let mut rest = bytes;
    loop {
        let end = rest.iter().position(|&byte| separates(byte)).unwrap_or(rest.len());
        let parameter = &rest[..end];
        match parameter.iter().position(|&byte| byte == b'=') {
            Some(equals) if secret::is_named_so(&parameter[..equals]) => {
                piece(&parameter[..=equals]);
                if equals + 1 < parameter.len() {
                    piece(MASK.as_bytes());
                }
            }
            _ => piece(parameter),
        }
        let Some(&separator) = rest.get(end) else { return };
        piece(&[separator]);
        rest = &rest[end + 1..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::secret::NAME_MAX;

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
    fn a_target_that_is_no_path_loses_its_user() {
        assert_eq!(masked(path, "http://me:pw@a.test/u@v;sid=1"), "http://***@a.test/u@v;sid=***");
        assert_eq!(masked(path, "me:pw@a.test:443"), "***@a.test:443");
        assert_eq!(masked(path, "*"), "*");
        assert_eq!(masked(path, "a;sid=1/b"), "a;sid=***/b");
        assert_eq!(masked(path, "/a://me@b"), "/a://me@b");
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
