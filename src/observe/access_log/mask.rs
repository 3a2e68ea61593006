//! Keeping secrets that clients put into URLs out of the log.
//!
//! The value of a parameter whose name says that it is a secret (`message/secret.rs`) becomes `***`.

use crate::message::secret;
use crate::message::secret::MASK;

/// Hands over `query` with its secrets masked. Parameters are separated by `&` or `;`; only what was refused
/// has a fragment behind it.
pub fn query(query: &[u8], piece: &mut dyn FnMut(&[u8])) {
    let separates = |byte: u8| matches!(byte, b'&' | b';');
    let mut rest = query;
    loop {
        let end = rest.iter().position(|&byte| separates(byte)).unwrap_or(rest.len());
        let (parameter, after) = rest.split_at(end);
        match parameter.iter().position(|&byte| byte == b'#') {
            // The value of a secret may have the sign in it, and goes as a whole.
            Some(at) if !is_secret(&parameter[..at]) => {
                parameters(&parameter[..=at], |_| false, piece);
                parameters(&parameter[at + 1..], |_| false, piece);
            }
            Some(_) | None => parameters(parameter, |_| false, piece),
        }
        let Some(&separator) = after.first() else { return };
        piece(&[separator]);
        rest = &after[1..];
    }
}

/// Hands over `url` with the secrets in its parameters (`/a;jsessionid=…`), its query, its fragment and its
/// user part masked. It may be only a path, or what was refused: an authority, or neither.
pub fn url(url: &[u8], piece: &mut dyn FnMut(&[u8])) {
    let url = if url.starts_with(b"/") { url } else { front(url, piece) };
    let end = url.iter().position(|&byte| matches!(byte, b'?' | b'#')).unwrap_or(url.len());
    let (path, after) = url.split_at(end);
    match path.iter().position(|&byte| byte == b';') {
        Some(first) => {
            piece(&path[..first]);
            parameters(&path[first..], |byte| matches!(byte, b';' | b'/'), piece);
        }
        None => piece(path),
    }
    parameters(after, |byte| matches!(byte, b'?' | b'#' | b'&' | b';'), piece);
}

/// Hands over the scheme at the front of a URL, and the mask if the authority has a user part; returns what
/// follows.
fn front<'u>(url: &'u [u8], piece: &mut dyn FnMut(&[u8])) -> &'u [u8] {
    let is_scheme = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
    let name = url.iter().take_while(|byte| is_scheme(byte)).count();
    let authority = if url[name..].starts_with(b"://") { name + 3 } else { 0 };
    let (scheme, rest) = url.split_at(authority);
    piece(scheme);
    let ends = |byte: &u8| matches!(byte, b'/' | b'?' | b'#');
    let host = &rest[..rest.iter().position(ends).unwrap_or(rest.len())];
    let place = host.iter().rposition(|&byte| byte == b'@').map_or(0, |at| at + 1);
    // A password may have in it what ends an authority; then what stands before that is no host and port.
    // Without a scheme nothing says what is one.
    let user = if authority > 0 && is_host_and_port(&host[place..]) { host } else { rest };
    let Some(at) = user.iter().rposition(|&byte| byte == b'@') else { return rest };
    piece(MASK.as_bytes());
    &rest[at..]
}

/// Hands over `host`, as it came in a request, without a user part, and without what should be a port and is
/// none: it may be a password.
pub fn host(host: &[u8], piece: &mut dyn FnMut(&[u8])) {
    let user = host.iter().rposition(|&byte| byte == b'@');
    if user.is_some() {
        piece(MASK.as_bytes());
    }
    let rest = &host[user.unwrap_or(0)..];
    let is_address = |byte: &u8| byte.is_ascii_hexdigit() || b":.".contains(byte);
    if is_host_and_port(rest) || rest.iter().all(is_address) {
        return piece(rest);
    }
    let bracket = rest.iter().rposition(|&byte| byte == b']').map_or(0, |at| at + 1);
    let colon = rest[bracket..].iter().position(|&byte| byte == b':');
    piece(&rest[..colon.map_or(rest.len(), |at| bracket + at + 1)]);
    piece(MASK.as_bytes());
}

/// The URL as [`url`] hands it over.
#[must_use]
pub fn shown(text: &str) -> String {
    let mut masked = Vec::with_capacity(text.len());
    url(text.as_bytes(), &mut |piece| masked.extend_from_slice(piece));
    String::from_utf8_lossy(&masked).into_owned()
}

/// Whether nothing but a port follows the host, if anything does.
pub fn is_host_and_port(authority: &[u8]) -> bool {
    let host = authority.iter().rposition(|&byte| byte == b']').map_or(0, |at| at + 1);
    let mut parts = authority[host..].splitn(2, |&byte| byte == b':');
    parts.next();
    parts.next().is_none_or(|port| port.iter().all(u8::is_ascii_digit))
}

/// Whether this is a parameter whose name says that its value is a secret.
fn is_secret(parameter: &[u8]) -> bool {
    let equals = parameter.iter().position(|&byte| byte == b'=');
    equals.is_some_and(|equals| secret::is_named_so(&parameter[..equals]))
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
    fn a_fragment_behind_a_query_has_parameters_too() {
        assert_eq!(masked(query, "a=1#access_token=2&b=3"), "a=1#access_token=***&b=3");
        assert_eq!(masked(query, "token=1#2&b=3"), "token=***&b=3");
        assert_eq!(masked(url, "/a#access_token=2"), "/a#access_token=***");
        assert_eq!(masked(query, "#"), "#");
    }

    #[test]
    fn the_value_of_a_name_longer_than_the_limit_is_masked() {
        let (fits, long) = ("a".repeat(NAME_MAX), "a".repeat(NAME_MAX + 1));
        assert_eq!(masked(query, &format!("{fits}=x")), format!("{fits}=x"));
        assert_eq!(masked(query, &format!("{long}=x")), format!("{long}=***"));
    }

    #[test]
    fn path_parameters_are_masked() {
        assert_eq!(masked(url, "/a;jsessionid=F00/b;v=1"), "/a;jsessionid=***/b;v=1");
        assert_eq!(masked(url, "/token=a"), "/token=a");
    }

    #[test]
    fn a_target_that_is_no_path_loses_its_user() {
        assert_eq!(masked(url, "http://me:pw@a.test/u@v;sid=1"), "http://***@a.test/u@v;sid=***");
        assert_eq!(masked(url, "me:pw@a.test:443"), "***@a.test:443");
        assert_eq!(masked(url, "*"), "*");
        assert_eq!(masked(url, "a;sid=1/b"), "a;sid=***/b");
        assert_eq!(masked(url, "/a://me@b"), "/a://me@b");
        assert_eq!(masked(url, "http://me:p/w@a.test/x"), "http://***@a.test/x");
        assert_eq!(masked(url, "http://me:p?w@a.test/x?token=1"), "http://***@a.test/x?token=***");
        assert_eq!(masked(url, "http://me@b:p/w@a.test/x"), "http://***@a.test/x");
        assert_eq!(masked(url, "http://a.test:80/u@v"), "http://a.test:80/u@v");
        assert_eq!(masked(url, "http://[::1]:80/u@v"), "http://[::1]:80/u@v");
        assert_eq!(masked(url, "reset?token=1&to=http://b"), "reset?token=***&to=http://b");
        assert_eq!(masked(url, "me:pw@a.test"), "***@a.test");
    }

    #[test]
    fn a_target_that_only_looks_like_a_url_loses_its_user_too() {
        assert_eq!(masked(url, "http:/me:pw@a.test/"), "***@a.test/");
        assert_eq!(masked(url, "http:me:pw@a.test/"), "***@a.test/");
        assert_eq!(masked(url, "me:80/pw@a.test"), "***@a.test");
    }

    #[test]
    fn a_host_is_shown_without_what_may_be_a_password() {
        for (input, output) in [
            ("a.test", "a.test"),
            ("a.test:80", "a.test:80"),
            ("[::1]:80", "[::1]:80"),
            ("::1", "::1"),
            ("me:pw@x", "***@x"),
            ("me:p@w@x:80", "***@x:80"),
            ("me:pw", "me:***"),
            ("[::1]:pw", "[::1]:***"),
            ("me:80@x:pw", "***@x:***"),
            ("", ""),
        ] {
            assert_eq!(masked(host, input), output);
        }
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
