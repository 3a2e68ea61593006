//! Which hosts a route serves.
//!
//! Patterns are compared with the normal form of a request's host: lower case, no port, no trailing
//! dot, IPv6 addresses in brackets.

use std::fmt;
use std::net::Ipv6Addr;

/// One host pattern: `www.example.org`, `*.example.org`, or `*` for every host.
///
/// `*.example.org` stands for one or more labels: `www.example.org` and `a.b.example.org`, but not
/// `example.org` itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPattern(Kind);

/// The forms of a host pattern, most specific first.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::route) enum Kind {
    /// This host.
    Exact(Box<str>),
    /// Every host below this one; the text begins with a dot.
    Below(Box<str>),
    /// Every host.
    Any,
}

impl HostPattern {
    /// Reads a pattern as written in the configuration.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self(Kind::Any));
        }
        if let Some(address) = text.strip_prefix('[') {
            return ipv6(text, address);
        }
        if let Some(scheme) = text.find("://") {
            let host = text[scheme + 3..].split(['/', ':']).next().unwrap_or_default();
            return Err(format!("a host stands without scheme and path: write `{host}`"));
        }
        if text.parse::<Ipv6Addr>().is_ok() {
            return Err(format!("an IPv6 address stands in brackets: write `[{text}]`"));
        }
        if let Some((host, _)) = text.split_once(':') {
            return Err(format!("a host matches on every port: write `{host}` without the port"));
        }
        let lower = text.to_ascii_lowercase();
        let (below, name) = lower.strip_prefix("*.").map_or((false, &*lower), |name| (true, name));
        let name = name.strip_suffix('.').unwrap_or(name);
        check_name(text, name)?;
        Ok(Self(if below {
            Kind::Below(format!(".{name}").into())
        } else {
            Kind::Exact(name.into())
        }))
    }

    /// Whether the pattern matches a host in its normal form.
    #[must_use]
    pub fn matches(&self, host: &str) -> bool {
        match &self.0 {
            Kind::Exact(name) => **name == *host,
            Kind::Below(suffix) => host.len() > suffix.len() && host.ends_with(&**suffix),
            Kind::Any => true,
        }
    }

    pub(in crate::route) fn any() -> Self {
        Self(Kind::Any)
    }

    pub(in crate::route) fn kind(&self) -> &Kind {
        &self.0
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Exact(name) => f.write_str(name),
            Kind::Below(suffix) => write!(f, "*{suffix}"),
            Kind::Any => f.write_str("*"),
        }
    }
}

fn ipv6(text: &str, inner: &str) -> Result<HostPattern, String> {
    let address =
        inner.strip_suffix(']').and_then(|inner| inner.parse::<Ipv6Addr>().ok()).ok_or_else(
            || format!("`{text}` is not an IPv6 address in brackets, like `[2001:db8::1]`"),
        )?;
    Ok(HostPattern(Kind::Exact(format!("[{address}]").into())))
}

fn check_name(written: &str, name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err(format!(
            "`{written}` names no host: write `www.example.org` or `*.example.org`, or leave the \
             hosts out to serve every host"
        ));
    }
    if name.contains('*') {
        return Err(format!(
            "`{written}`: a `*` stands for the first labels only; write it as in `*.example.org`"
        ));
    }
    if !name.is_ascii() {
        return Err(format!(
            "`{written}` has letters outside ASCII: write the form that is sent, which begins with `xn--`"
        ));
    }
    if name.len() > 253 {
        return Err(format!("`{written}` is longer than the 253 bytes that a host name may have"));
    }
    for label in name.split('.') {
        if label.is_empty() {
            return Err(format!("`{written}` has an empty label; write one dot between labels"));
        }
        if label.len() > 63 {
            return Err(format!("the label `{label}` is longer than 63 bytes"));
        }
        let odd = |c: &char| !c.is_ascii_alphanumeric() && *c != '-' && *c != '_';
        if let Some(odd) = label.chars().find(odd) {
            return Err(format!("{odd:?} cannot stand in the host name `{written}`"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> HostPattern {
        HostPattern::parse(text).expect("a valid pattern")
    }

    #[test]
    fn an_exact_host_is_compared_in_lower_case_without_its_last_dot() {
        assert!(pattern("WWW.Example.org.").matches("www.example.org"));
        assert!(!pattern("www.example.org").matches("example.org"));
    }

    #[test]
    fn a_wildcard_matches_one_or_more_labels_but_not_the_bare_domain() {
        let wildcard = pattern("*.example.org");
        assert!(wildcard.matches("www.example.org"));
        assert!(wildcard.matches("a.b.example.org"));
        assert!(!wildcard.matches("example.org"));
        assert!(!wildcard.matches(".example.org"));
        assert!(!wildcard.matches("notexample.org"));
    }

    #[test]
    fn a_star_alone_serves_every_host() {
        assert!(pattern("*").matches("anything"));
        assert!(pattern("*").matches(""));
    }

    #[test]
    fn an_ipv6_address_is_brought_into_its_shortest_form() {
        assert!(pattern("[2001:DB8:0:0::1]").matches("[2001:db8::1]"));
    }

    #[test]
    fn a_pattern_is_shown_as_it_is_understood() {
        for (written, shown) in
            [("*.Example.ORG", "*.example.org"), ("*", "*"), ("[::1]", "[::1]"), ("a.b.", "a.b")]
        {
            assert_eq!(pattern(written).to_string(), shown);
        }
    }

    #[test]
    fn what_is_wrong_says_what_to_write_instead() {
        for (text, help) in [
            ("https://a.org/x", "write `a.org`"),
            ("a.org:443", "write `a.org` without the port"),
            ("::1", "write `[::1]`"),
            ("[::1", "is not an IPv6 address"),
            ("", "names no host"),
            ("*.", "names no host"),
            ("www.*.org", "as in `*.example.org`"),
            ("*example.org", "as in `*.example.org`"),
            ("bücher.example", "`xn--`"),
            ("a..b", "empty label"),
            ("a b", "' ' cannot stand"),
            ("a/b", "'/' cannot stand"),
        ] {
            let error = HostPattern::parse(text).expect_err(text);
            assert!(error.contains(help), "{text}: {error}");
        }
    }

    #[test]
    fn a_label_has_at_most_63_bytes_and_a_name_253() {
        assert!(HostPattern::parse(&"a".repeat(63)).is_ok());
        assert!(HostPattern::parse(&"a".repeat(64)).is_err());
        let name = format!("{}a", "a.".repeat(126));
        assert!(HostPattern::parse(&name).is_ok());
        assert!(HostPattern::parse(&format!("{name}a")).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn any_text_is_read_or_refused_and_what_is_read_prints_back(text in ".{0,40}") {
            if let Ok(pattern) = HostPattern::parse(&text) {
                prop_assert_eq!(HostPattern::parse(&pattern.to_string()), Ok(pattern));
            }
        }
    }
}
