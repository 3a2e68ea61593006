//! What a request says, said in one of few ways: so that few variants and keys answer all.
//!
//! A field that is normalised is replaced in the request itself, before the key is made, a variant is
//! selected or the origin is asked. All three read the same: otherwise what the origin made of one
//! client's own words would be stored for all whose words have the same normal form.

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::header;

use crate::cache::fields::members;
use crate::cache::fields::trim;
use crate::cache::vary;

/// The field that tells the origin the class of a client's device.
pub const DEVICE_CLASS: HeaderName = HeaderName::from_static("x-device-class");

const CH_MOBILE: &str = "sec-ch-ua-mobile";

/// What a route normalises.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules {
    /// The content codings that the origin has, the most wanted first; empty leaves Accept-Encoding.
    pub encodings: Vec<String>,
    /// The languages that the origin has, the most wanted first; empty leaves Accept-Language.
    pub languages: Vec<String>,
    /// Fields, and the values that mean something in them; any other is as if it were not there.
    pub fields: Vec<(HeaderName, Vec<String>)>,
    /// Whether the class of the device is told.
    pub device: Device,
}

/// Whether the class of a client's device is told to the origin, and part of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Device {
    /// It is not; what clients say in the field is theirs.
    #[default]
    Untold,
    /// It is, in [`DEVICE_CLASS`].
    Told,
}

impl Rules {
    /// Whether nothing is normalised.
    pub fn is_empty(&self) -> bool {
        self.encodings.is_empty()
            && self.languages.is_empty()
            && self.fields.is_empty()
            && self.device == Device::Untold
    }

    /// The fields of a request in their normal form; `None` where nothing is normalised.
    pub fn normal_form(&self, headers: &HeaderMap) -> Option<HeaderMap> {
        if self.is_empty() {
            return None;
        }
        let mut normal = headers.clone();
        for (name, value) in self.changes(headers) {
            match value {
                Some(value) => drop(normal.insert(name, value)),
                None => drop(normal.remove(name)),
            }
        }
        Some(normal)
    }

    /// What has to change in a request: fields, each with the one value that it has from now on, or none.
    pub fn changes(&self, headers: &HeaderMap) -> Vec<(HeaderName, Option<HeaderValue>)> {
        let mut changes = Vec::new();
        if !self.encodings.is_empty()
            && let Some(value) = encoding(&self.encodings, headers)
        {
            changes.push((header::ACCEPT_ENCODING, Some(value)));
        }
        if !self.languages.is_empty() {
            changes.push((header::ACCEPT_LANGUAGE, language(&self.languages, headers)));
        }
        for (name, values) in &self.fields {
            changes.push((name.clone(), one_of(values, name, headers)));
        }
        if self.device == Device::Told {
            let class = HeaderValue::from_static(device(headers).name());
            changes.push((DEVICE_CLASS, Some(class)));
        }
        changes
    }
}

/// The coding that the client likes best among those that the origin has; of two that it likes the
/// same, the one that stands first. `identity` where it takes none of them, and where it does not say:
/// then anything is acceptable (RFC 9110 §12.5.3), but few that say nothing decode anything. `None`
/// leaves what it says: it wants no content rather than plain content.
fn encoding(codings: &[String], headers: &HeaderMap) -> Option<HeaderValue> {
    let accepted = vary::weights(&header::ACCEPT_ENCODING, headers);
    let weight_of = |coding: &str| {
        let said = accepted.iter().find(|(what, _)| what == coding);
        said.or_else(|| accepted.iter().find(|(what, _)| what == "*")).map(|(_, weight)| *weight)
    };
    let best = best(codings, |coding| weight_of(coding).unwrap_or(0));
    match best {
        Some(coding) => HeaderValue::from_str(coding).ok(),
        None if weight_of("identity") == Some(0) => None,
        None => Some(HeaderValue::from_static("identity")),
    }
}

/// The language that the client likes best among those that the origin has, by lookup (RFC 4647 §3.4);
/// the first that stands there where it likes none of them, or does not say.
fn language(languages: &[String], headers: &HeaderMap) -> Option<HeaderValue> {
    let accepted = vary::weights(&header::ACCEPT_LANGUAGE, headers);
    let weight_of = |language: &str| {
        let language = language.to_ascii_lowercase();
        let named = accepted.iter().filter(|(range, _)| range != "*" && falls_to(range, &language));
        let any = accepted.iter().filter(|(range, _)| range == "*").map(|(_, weight)| *weight);
        named.map(|(_, weight)| *weight).max().or_else(|| any.max()).unwrap_or(0)
    };
    let best = best(languages, weight_of).or_else(|| languages.first());
    best.and_then(|language| HeaderValue::from_str(language).ok())
}

/// Whether a language range comes down to this tag when it is cut at its hyphens.
fn falls_to(range: &str, tag: &str) -> bool {
    let rest = range.strip_prefix(tag);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// The one with the largest weight, the first of several; none where all weigh nothing.
fn best(choices: &[String], weight_of: impl Fn(&str) -> u16) -> Option<&String> {
    let weighed = choices.iter().map(|choice| (choice, weight_of(choice)));
    let wanted = weighed.filter(|(_, weight)| *weight > 0);
    wanted.reduce(|best, next| if next.1 > best.1 { next } else { best }).map(|(choice, _)| choice)
}

/// The value, where it is one of these and there is no other.
fn one_of(values: &[String], name: &HeaderName, headers: &HeaderMap) -> Option<HeaderValue> {
    let mut lines = headers.get_all(name).iter();
    let (line, None) = (lines.next()?, lines.next()) else { return None };
    let said = trim(line.as_bytes());
    let known = values.iter().find(|value| value.as_bytes().eq_ignore_ascii_case(said))?;
    HeaderValue::from_str(known).ok()
}

/// The class of a client's device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A telephone.
    Mobile,
    /// A tablet.
    Tablet,
    /// Anything else.
    Desktop,
}

impl Class {
    /// As the origin reads it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mobile => "mobile",
            Self::Tablet => "tablet",
            Self::Desktop => "desktop",
        }
    }
}

/// The class that a client says its device is of: by Sec-CH-UA-Mobile, or by the words that makers of
/// browsers agreed to write into User-Agent.
pub fn device(headers: &HeaderMap) -> Class {
    let agent = headers.get(header::USER_AGENT).map_or(&b""[..], |agent| agent.as_bytes());
    let says = |word: &str| agent.windows(word.len()).any(|part| part == word.as_bytes());
    let mobile = says("Mobi");
    if says("iPad") || says("Tablet") || (says("Android") && !mobile) {
        return Class::Tablet;
    }
    let hinted = headers.get_all(CH_MOBILE).iter().flat_map(|line| members(line.as_bytes()));
    if mobile || hinted.into_iter().any(|hint| hint == b"?1") {
        return Class::Mobile;
    }
    Class::Desktop
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(lines: &[(HeaderName, &str)]) -> HeaderMap {
        let lines = lines.iter().map(|(name, value)| {
            (name.clone(), HeaderValue::from_str(value).expect("a valid value"))
        });
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, value);
        }
        headers
    }

    fn list(words: &[&str]) -> Vec<String> {
        words.iter().map(ToString::to_string).collect()
    }

    fn coding(said: Option<&str>) -> Option<String> {
        let headers = request(
            &said.map(|said| (header::ACCEPT_ENCODING, said)).into_iter().collect::<Vec<_>>(),
        );
        let rules = Rules { encodings: list(&["br", "gzip"]), ..Rules::default() };
        let changes = rules.changes(&headers);
        let value = changes.first().and_then(|(_, value)| value.as_ref())?;
        Some(value.to_str().expect("text").to_owned())
    }

    fn tongue(said: Option<&str>) -> String {
        let headers = request(
            &said.map(|said| (header::ACCEPT_LANGUAGE, said)).into_iter().collect::<Vec<_>>(),
        );
        let rules = Rules { languages: list(&["de", "en", "pt-BR"]), ..Rules::default() };
        let (_, value) = rules.changes(&headers).pop().expect("a language");
        value.expect("a language").to_str().expect("text").to_owned()
    }

    #[test]
    fn the_best_coding_that_there_is() {
        for (said, chosen) in [
            (Some("gzip, deflate, br"), Some("br")),
            (Some("gzip, deflate"), Some("gzip")),
            (Some("x-gzip"), Some("gzip")),
            (Some("br;q=0.1, gzip;q=0.9"), Some("gzip")),
            (Some("br;q=0, *"), Some("gzip")),
            (Some("*"), Some("br")),
            (Some("zstd"), Some("identity")),
            (Some(""), Some("identity")),
            (None, Some("identity")),
            (Some("zstd, identity;q=0"), None),
            (Some("zstd, *;q=0"), None),
        ] {
            assert_eq!(coding(said).as_deref(), chosen, "{said:?}");
        }
    }

    #[test]
    fn the_best_language_that_there_is() {
        for (said, chosen) in [
            (Some("en-GB, en;q=0.9, de;q=0.8"), "en"),
            (Some("fr;q=0.5, de;q=1.0"), "de"),
            (Some("en, de"), "de"),
            (Some("EN"), "en"),
            (Some("pt-br-x-abc"), "pt-BR"),
            (Some("pt"), "de"),
            (Some("english"), "de"),
            (Some("fr, *;q=0.1"), "de"),
            (Some("de;q=0, *"), "en"),
            (Some(""), "de"),
            (None, "de"),
        ] {
            assert_eq!(tongue(said), chosen, "{said:?}");
        }
    }

    #[test]
    fn of_a_field_only_known_values_are_left() {
        let plan = HeaderName::from_static("x-plan");
        let rules =
            Rules { fields: vec![(plan.clone(), list(&["free", "paid"]))], ..Rules::default() };
        let left = |lines: &[&str]| {
            let lines: Vec<_> = lines.iter().map(|line| (plan.clone(), *line)).collect();
            rules.changes(&request(&lines))
        };
        let is = |value| vec![(plan.clone(), Some(HeaderValue::from_static(value)))];
        assert_eq!(left(&["paid"]), is("paid"));
        assert_eq!(left(&[" FREE"]), is("free"));
        for unknown in [&["gold"][..], &["free", "paid"], &[""], &[]] {
            assert_eq!(left(unknown), [(plan.clone(), None)], "{unknown:?}");
        }
    }

    #[test]
    fn devices_are_of_three_classes() {
        let hint = HeaderName::from_static(CH_MOBILE);
        for (agent, class) in [
            ("Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) Mobile/15E148", Class::Mobile),
            ("Mozilla/5.0 (Linux; Android 14; Pixel 8) Mobile Safari/537.36", Class::Mobile),
            ("Mozilla/5.0 (Linux; Android 14; SM-X710) Safari/537.36", Class::Tablet),
            ("Mozilla/5.0 (iPad; CPU OS 12_5 like Mac OS X) Mobile/15E148", Class::Tablet),
            ("Mozilla/5.0 (X11; Linux x86_64) Firefox/120.0", Class::Desktop),
            ("", Class::Desktop),
        ] {
            assert_eq!(device(&request(&[(header::USER_AGENT, agent)])), class, "{agent}");
        }
        let hinted = request(&[(header::USER_AGENT, "x"), (hint, "?1")]);
        assert_eq!(device(&hinted), Class::Mobile);
        assert_eq!(device(&HeaderMap::new()), Class::Desktop);
    }

    #[test]
    fn what_a_client_says_of_its_class_is_replaced() {
        let rules = Rules { device: Device::Told, ..Rules::default() };
        let claims = request(&[(DEVICE_CLASS, "tablet")]);
        let desktop = HeaderValue::from_static("desktop");
        assert_eq!(rules.changes(&claims), [(DEVICE_CLASS, Some(desktop))]);
    }

    #[test]
    fn normal_is_normal_again() {
        let rules = Rules {
            encodings: list(&["br", "gzip"]),
            languages: list(&["de", "en"]),
            device: Device::Told,
            ..Rules::default()
        };
        for lines in [
            &[][..],
            &[(header::ACCEPT_ENCODING, "gzip"), (header::ACCEPT_LANGUAGE, "en-US,en;q=0.5")],
            &[(header::ACCEPT_ENCODING, "*;q=0.5"), (header::ACCEPT_LANGUAGE, "*")],
        ] {
            let mut headers = request(lines);
            let once = rules.changes(&headers);
            for (name, value) in once.iter().cloned() {
                match value {
                    Some(value) => drop(headers.insert(name, value)),
                    None => drop(headers.remove(name)),
                }
            }
            assert_eq!(rules.changes(&headers), once);
        }
    }
}
