//! Text of a configuration without the secrets in it, for whoever shows it.

use crate::message::secret;
use crate::message::secret::MASK;

/// A URL, or the part of one behind its host, without the user and the password in it, and without parameters
/// that are named as secrets are. One that is a variable alone stays: its name is no secret.
pub(super) fn url(url: &str) -> String {
    let (before, rest) = match url.split_once("//") {
        Some((scheme, rest)) => (format!("{scheme}//"), rest),
        None => (String::new(), url),
    };
    let end = rest.find(['?', '#']).unwrap_or(rest.len());
    let (place, mut parameters) = rest.split_at(end);
    let authority = place.split('/').next().unwrap_or_default();
    let place = match authority.rsplit_once('@').filter(|_| !before.is_empty()) {
        Some((user, _)) => format!("{MASK}{}", &place[user.len()..]),
        None => place.to_owned(),
    };
    let mut shown = format!("{before}{place}");
    while let Some(separator) = parameters.chars().next() {
        shown.push(separator);
        let rest = &parameters[separator.len_utf8()..];
        let end = rest.find(['#', '&', ';']).unwrap_or(rest.len());
        shown.push_str(&assignment(&rest[..end]));
        parameters = &rest[end..];
    }
    shown
}

/// The words of a command. What follows the name of a secret is one: `--token X`, `--token=X`, `TOKEN=X`.
pub(super) fn command(words: &[String]) -> Vec<String> {
    let mut is_next = false;
    let mut shown = Vec::with_capacity(words.len());
    for word in words {
        let is_secret = is_next && !names_a_variable(word);
        is_next = word.starts_with('-') && !word.contains('=') && is_secret_name(word);
        shown.push(if is_secret { MASK.to_owned() } else { assignment(&url(word)) });
    }
    shown
}

/// Whether this is `${NAME}`, which shows nothing of what the variable holds.
pub(super) fn names_a_variable(text: &str) -> bool {
    let name = text.strip_prefix("${").and_then(|text| text.strip_suffix('}'));
    name.is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'))
}

/// `name=value`, the value masked if its name says that it is a secret.
fn assignment(pair: &str) -> String {
    match pair.split_once('=') {
        Some((name, value)) if is_secret_name(name) && !names_a_variable(value) => {
            format!("{name}={MASK}")
        }
        Some(_) | None => pair.to_owned(),
    }
}

fn is_secret_name(name: &str) -> bool {
    secret::is_named_so(name.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_loses_its_user_and_what_is_named_as_a_secret() {
        for (written, shown) in [
            ("https://u:pw@h/dir?key=x&a=1", "https://***@h/dir?key=***&a=1"),
            ("/h?token=x", "/h?token=***"),
            ("https://h/#access_token=x", "https://h/#access_token=***"),
            ("https://h/?a=1#token=x&b=2", "https://h/?a=1#token=***&b=2"),
            ("https://${HOST}{path}?{query}", "https://${HOST}{path}?{query}"),
            ("https://h/?token=${T}", "https://h/?token=${T}"),
            ("https://h/?token=${T:-x}", "https://h/?token=***"),
            ("/a@b", "/a@b"),
            ("", ""),
        ] {
            assert_eq!(url(written), shown);
        }
    }

    #[test]
    fn a_command_loses_what_is_named_as_a_secret() {
        let words = ["/bin/dns", "--token", "x", "--api-key=y", "TOKEN=z", "--zone", "a.test"];
        let shown = command(&words.map(str::to_owned));
        let masked =
            ["/bin/dns", "--token", "***", "--api-key=***", "TOKEN=***", "--zone", "a.test"];
        assert_eq!(shown, masked);
    }
}
