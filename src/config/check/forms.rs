//! Checks what a route puts into normal forms: fields of a request, and its host.

use http::HeaderName;
use http::header as field;

use crate::cache::normalise::DEVICE_CLASS;
use crate::cache::normalise::Device;
use crate::cache::normalise::Rules;
use crate::cache::vary;
use crate::config::check::header;
use crate::config::path::Path;
use crate::config::report::Report;
use crate::config::schema::cache::Key;
use crate::config::schema::cache::Normalise;
use crate::config::schema::value::OrOff;
use crate::message::target::Authority;

/// Fields that say who asks, where, for which part, or how the message ends: they are for others to
/// read than the cache.
const NOT_TO_CHANGE: [HeaderName; 14] = [
    field::AUTHORIZATION,
    field::CACHE_CONTROL,
    field::CONNECTION,
    field::CONTENT_LENGTH,
    field::COOKIE,
    field::HOST,
    field::IF_MATCH,
    field::IF_MODIFIED_SINCE,
    field::IF_NONE_MATCH,
    field::IF_RANGE,
    field::IF_UNMODIFIED_SINCE,
    field::RANGE,
    field::TRANSFER_ENCODING,
    field::UPGRADE,
];

/// The `normalise` section of a route.
pub(super) fn section(section: &Normalise, at: &Path, report: &mut Report<'_>) {
    let codings = at.key("accept_encoding");
    for (n, coding) in section.accept_encoding.iter().flatten().enumerate() {
        if !is_word(coding)
            || coding == "identity"
            || coding.bytes().any(|b| b.is_ascii_uppercase())
        {
            report
                .error(&codings.index(n), format!("\"{coding}\" is not a content coding to choose"))
                .help("like br, gzip or zstd; identity is what is left when a client takes none");
        }
    }
    let languages = at.key("accept_language");
    for (n, language) in section.accept_language.iter().flatten().enumerate() {
        if !is_word(language) {
            report
                .error(&languages.index(n), format!("\"{language}\" is not a language"))
                .help("a tag like en or pt-BR");
        }
    }
    for (name, values) in section.headers.iter().flatten() {
        let at = at.key("headers").key(name.as_str());
        let parsed = header::name(name, &at, report);
        if let Some(instead) = parsed.as_ref().and_then(not_here) {
            report.error_in_key(&at, format!("`{name}` is not normalised here")).help(instead);
        }
        if values.is_empty() {
            report
                .error(&at, "no value is named")
                .help("name the values that mean something; to drop the field, use headers.request.remove");
        }
        for (n, value) in values.iter().enumerate() {
            if value.is_empty() {
                report
                    .error(&at.index(n), "a field without a value is as good as none")
                    .help("remove the empty text, or write the value that is meant");
            } else {
                header::value(value, &at.index(n), report);
            }
        }
    }
}

/// Why this field is not normalised by a list of values; `None` when it may be.
fn not_here(name: &HeaderName) -> Option<&'static str> {
    if *name == field::ACCEPT_ENCODING {
        return Some("write normalise.accept_encoding");
    }
    if *name == field::ACCEPT_LANGUAGE {
        return Some("write normalise.accept_language");
    }
    if *name == DEVICE_CLASS {
        return Some("write key.device: true");
    }
    let ours = vary::is_ours(name) || NOT_TO_CHANGE.contains(name);
    ours.then_some("it says who asks or for what, which others have to read as it is")
}

/// What may stand in a list of codings or languages.
fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// The host that all hosts of a route stand for.
pub(super) fn host(key: &Key, at: &Path, report: &mut Report<'_>) {
    let Some(OrOff::Is(host)) = &key.host else { return };
    let named = Authority::parse(host.as_bytes()).ok();
    if named.is_none_or(|named| named.port().is_some()) {
        report
            .error(&at.key("host"), format!("\"{host}\" is not the name of a host"))
            .help("without a port: the one that is asked for stays");
    }
}

/// As meant; what cannot be was refused above.
pub(super) fn rules(section: Option<&Normalise>, key: Option<&Key>) -> Rules {
    let nothing = Normalise::default();
    let section = section.unwrap_or(&nothing);
    let fields = section.headers.iter().flatten();
    Rules {
        encodings: section.accept_encoding.clone().unwrap_or_default(),
        languages: section.accept_language.clone().unwrap_or_default(),
        fields: fields
            .filter_map(|(name, values)| Some((name.parse().ok()?, values.clone())))
            .collect(),
        device: match key.and_then(|key| key.device) {
            Some(true) => Device::Told,
            Some(false) | None => Device::Untold,
        },
    }
}

/// The host in its normal form.
pub(super) fn normal_host(key: &Key) -> Option<String> {
    let Some(OrOff::Is(host)) = &key.host else { return None };
    Authority::parse(host.as_bytes()).ok().map(|host| host.host().to_owned())
}
