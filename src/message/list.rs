//! Comma lists, tokens, quoted strings, parameters and quality values (RFC 9110 §5.6, §12.4.2).
//!
//! Everything works on borrowed bytes, reads all lines of a field, and has an answer for every
//! input: what breaks the grammar is reported as such and never guessed at.

use std::borrow::Cow;

use http::HeaderMap;
use http::HeaderName;

/// A byte of a token (RFC 9110 §5.6.2).
#[must_use]
pub const fn is_token_byte(byte: u8) -> bool {
    matches!(
        byte,
        b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`'
        | b'|' | b'~' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z'
    )
}

/// Whether these bytes are a token: at least one byte, all of them token bytes (RFC 9110 §5.6.2).
#[must_use]
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| is_token_byte(byte))
}

/// Whether this is a word, in any case; `lower` is the word in small letters, digits and hyphens.
///
/// Of bytes that were read as a name or a value, which have no control bytes but tabs, it says what
/// `eq_ignore_ascii_case` does, in a fraction of the time: only a letter differs from what has one bit more.
#[inline]
#[must_use]
pub fn is_word(bytes: &[u8], lower: &[u8]) -> bool {
    const SMALL: u8 = 0x20;
    debug_assert!(lower.iter().all(|byte| byte & SMALL != 0), "{}", lower.escape_ascii());
    bytes.len() == lower.len()
        && bytes.iter().zip(lower).fold(0, |other, (byte, small)| other | ((byte | SMALL) ^ small))
            == 0
}

/// Without the spaces and tabs at both ends (OWS, RFC 9110 §5.6.3).
#[must_use]
pub fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// The elements of one line, split at the separator where it stands outside quoted strings.
///
/// Elements are trimmed; empty ones are left out, as recipients must (RFC 9110 §5.6.1.2). A quoted
/// string that never ends reaches to the end of the line: [`unquote`] refuses it.
#[derive(Debug, Clone)]
pub struct Split<'a> {
    rest: &'a [u8],
    separator: u8,
}

/// The elements of one comma-separated line.
#[must_use]
pub fn split(line: &[u8]) -> Split<'_> {
    Split { rest: line, separator: b',' }
}

impl<'a> Iterator for Split<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while !self.rest.is_empty() {
            let end = end_of_element(self.rest, self.separator);
            let element = trim(&self.rest[..end]);
            self.rest = self.rest.get(end + 1..).unwrap_or_default();
            if !element.is_empty() {
                return Some(element);
            }
        }
        None
    }
}

/// Where the first element ends: at a separator outside a quoted string, or at the end.
fn end_of_element(line: &[u8], separator: u8) -> usize {
    let mut quoted = false;
    let mut escaped = false;
    for (at, &byte) in line.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if byte == separator && !quoted => return at,
            _ => {}
        }
    }
    line.len()
}

/// The elements of all lines of a field, in order (RFC 9110 §5.3).
pub fn elements<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    headers.get_all(name).into_iter().flat_map(|value| split(value.as_bytes()))
}

/// Whether a list names this token, in any case.
#[must_use]
pub fn names_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    elements(headers, name).any(|element| element.eq_ignore_ascii_case(token.as_bytes()))
}

/// The meaning of a token or quoted string; `None` when it is neither (RFC 9110 §5.6.4).
#[must_use]
pub fn unquote(bytes: &[u8]) -> Option<Cow<'_, [u8]>> {
    let [b'"', inner @ ..] = bytes else {
        return is_token(bytes).then_some(Cow::Borrowed(bytes));
    };
    let [inner @ .., b'"'] = inner else {
        return None;
    };
    if !inner.iter().any(|byte| matches!(byte, b'\\' | b'"')) {
        return inner.iter().all(|&byte| is_text_byte(byte)).then_some(Cow::Borrowed(inner));
    }
    let mut meaning = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(&byte) = bytes.next() {
        let byte = match byte {
            b'\\' => *bytes.next()?,
            b'"' => return None,
            _ => byte,
        };
        if !is_text_byte(byte) {
            return None;
        }
        meaning.push(byte);
    }
    Some(Cow::Owned(meaning))
}

/// What may stand in a quoted string, escaped or not: tab, space, visible and obs-text bytes.
const fn is_text_byte(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..=0xff)
}

/// Appends a value as it stands if it is a token, as a quoted string otherwise (RFC 9110 §5.6.4).
///
/// Bytes that no quoted string may hold are left out.
pub fn write_quoted(out: &mut Vec<u8>, value: &[u8]) {
    if is_token(value) {
        out.extend_from_slice(value);
        return;
    }
    out.push(b'"');
    for &byte in value.iter().filter(|&&byte| is_text_byte(byte)) {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// A parameter: a name and its value (RFC 9110 §5.6.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter<'a> {
    /// The name as sent; compare it without regard to case.
    pub name: &'a [u8],
    /// The value without its quotes; `None` for a bare name.
    pub value: Option<Cow<'a, [u8]>>,
}

/// A parameter that breaks the grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// The parameters of an element, in order; a malformed one is reported in its place.
#[derive(Debug, Clone)]
pub struct Parameters<'a>(Split<'a>);

/// Splits an element such as `text/html;level=1;q=0.5` into what stands before the first `;`
/// outside quotes, and its parameters.
#[must_use]
pub fn parameters(element: &[u8]) -> (&[u8], Parameters<'_>) {
    let end = end_of_element(element, b';');
    let rest = element.get(end + 1..).unwrap_or_default();
    (trim(&element[..end]), Parameters(Split { rest, separator: b';' }))
}

/// Reads `name=value;name="value"` with nothing before the first name, as `Forwarded` has it.
#[must_use]
pub fn bare_parameters(element: &[u8]) -> Parameters<'_> {
    Parameters(Split { rest: element, separator: b';' })
}

impl<'a> Iterator for Parameters<'a> {
    type Item = Result<Parameter<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(parse_parameter)
    }
}

fn parse_parameter(text: &[u8]) -> Result<Parameter<'_>, Malformed> {
    let (name, value) = match text.iter().position(|&byte| byte == b'=') {
        // No space is allowed around "=" (RFC 9110 §5.6.6): it would fail as a token here.
        Some(at) => (&text[..at], Some(unquote(&text[at + 1..]).ok_or(Malformed)?)),
        None => (text, None),
    };
    if !is_token(name) {
        return Err(Malformed);
    }
    Ok(Parameter { name, value })
}

/// A quality value in thousandths, 0 to 1000 (RFC 9110 §12.4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quality(u16);

impl Quality {
    /// `q=0`: not acceptable.
    pub const ZERO: Self = Self(0);
    /// `q=1`, which is also what no weight means.
    pub const ONE: Self = Self(1_000);

    /// Reads `0`, `0.5`, `0.333`, `1`, `1.000`; nothing else.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (whole, fraction) = match text {
            [whole] => (whole, &[][..]),
            [whole, b'.', fraction @ ..] if fraction.len() <= 3 => (whole, fraction),
            _ => return None,
        };
        let mut thousandths: u16 = match whole {
            b'0' => 0,
            b'1' => 1_000,
            _ => return None,
        };
        let mut place = 100;
        for byte in fraction {
            if !byte.is_ascii_digit() {
                return None;
            }
            thousandths += u16::from(byte - b'0') * place;
            place /= 10;
        }
        (thousandths <= 1_000).then_some(Self(thousandths))
    }

    /// The weight in thousandths.
    #[must_use]
    pub fn thousandths(self) -> u16 {
        self.0
    }
}

/// The elements of a field such as Accept-Encoding with their weights, in order.
///
/// The weight is the parameter `q`; other parameters are left aside. An element whose weight or
/// parameters are malformed is not acceptable: it weighs [`Quality::ZERO`].
pub fn weighted<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = (&'a [u8], Quality)> + use<'a> {
    elements(headers, name).map(|element| {
        let (value, parameters) = parameters(element);
        (value, weight(parameters).unwrap_or(Quality::ZERO))
    })
}

fn weight(parameters: Parameters<'_>) -> Result<Quality, Malformed> {
    let mut weight = Quality::ONE;
    for parameter in parameters {
        let parameter = parameter?;
        if parameter.name.eq_ignore_ascii_case(b"q") {
            let text = parameter.value.ok_or(Malformed)?;
            weight = Quality::parse(&text).ok_or(Malformed)?;
        }
    }
    Ok(weight)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::ACCEPT_ENCODING;
    use http::header::CONNECTION;
    use proptest::prelude::*;

    use super::*;

    fn texts<'a>(items: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
        items.map(|item| String::from_utf8_lossy(item).into_owned()).collect()
    }

    #[test]
    fn tokens_are_visible_and_without_delimiters() {
        assert!(is_token(b"x-A_9!#$%&'*+.^`|~"));
        for bad in [&b""[..], b"a b", b"a,b", b"a\"", b"a/b", b"a=b", b"a(", b"\xe9", b"a\0"] {
            assert!(!is_token(bad), "{bad:?}");
        }
    }

    /// All that can stand in a name or a value that was read.
    #[test]
    fn a_word_is_one_in_any_case_and_nothing_else_is() {
        for lower in [&b"x-cache"[..], b"http2-settings", b"te", b"0-9"] {
            assert!(is_word(lower, lower) && is_word(&lower.to_ascii_uppercase(), lower));
            assert!(!is_word(&lower[1..], lower) && !is_word(&[lower, b"s"].concat(), lower));
            for at in 0..lower.len() {
                for byte in (0..=u8::MAX).filter(|byte| *byte == b'\t' || !byte.is_ascii_control())
                {
                    let mut word = lower.to_vec();
                    word[at] = byte;
                    assert_eq!(is_word(&word, lower), word.eq_ignore_ascii_case(lower), "{word:?}");
                }
            }
        }
    }

    #[test]
    fn only_spaces_and_tabs_are_trimmed() {
        assert_eq!(trim(b" \t a \t"), b"a");
        assert_eq!(trim(b"\x0ba"), b"\x0ba");
        assert_eq!(trim(b" "), b"");
    }

    #[test]
    fn empty_elements_are_left_out() {
        assert_eq!(texts(split(b", a ,, \t,b,")), ["a", "b"]);
        assert_eq!(split(b"").count(), 0);
        assert_eq!(split(b" , ,").count(), 0);
    }

    #[test]
    fn commas_in_quoted_strings_do_not_split() {
        assert_eq!(texts(split(br#"a="x,y", b="\",", c"#)), [r#"a="x,y""#, r#"b="\",""#, "c"]);
    }

    #[test]
    fn a_backslash_escapes_only_within_quotes() {
        assert_eq!(texts(split(br"a\,b")), [r"a\", "b"]);
    }

    #[test]
    fn an_endless_quoted_string_is_one_element_and_not_a_value() {
        let elements: Vec<_> = split(br#"a="x, b"#).collect();
        assert_eq!(elements, [&br#"a="x, b"#[..]]);
        assert_eq!(unquote(br#""x, b"#), None);
        assert_eq!(unquote(br#""x\""#), None);
        assert_eq!(unquote(br#"""#), None);
    }

    #[test]
    fn all_lines_of_a_field_are_one_list() {
        let mut headers = HeaderMap::new();
        headers.append(CONNECTION, HeaderValue::from_static("close, a"));
        headers.append(CONNECTION, HeaderValue::from_static("B"));
        assert_eq!(texts(elements(&headers, &CONNECTION)), ["close", "a", "B"]);
        assert!(names_token(&headers, &CONNECTION, "Close"));
        assert!(names_token(&headers, &CONNECTION, "b"));
        assert!(!names_token(&headers, &CONNECTION, "clos"));
    }

    #[test]
    fn quoted_strings_lose_quotes_and_escapes() {
        assert_eq!(unquote(b"abc").as_deref(), Some(&b"abc"[..]));
        assert_eq!(unquote(br#""a b""#).as_deref(), Some(&b"a b"[..]));
        assert_eq!(unquote(br#""a\"\\b""#).as_deref(), Some(&br#"a"\b"#[..]));
        assert_eq!(unquote(br#""""#).as_deref(), Some(&b""[..]));
        for bad in [&br#""a"b""#[..], b"a b", b"", b"\"a\nb\"", b"\"a\\\nb\"", br#""a" "#] {
            assert_eq!(unquote(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn parameters_are_split_at_semicolons_outside_quotes() {
        let (value, parameters) = parameters(br#"text/html ; a=1;B="x;y" ;; c"#);
        assert_eq!(value, b"text/html");
        let found: Vec<_> = parameters.map(Result::unwrap).collect();
        assert_eq!(found.len(), 3);
        assert_eq!((found[0].name, found[0].value.as_deref()), (&b"a"[..], Some(&b"1"[..])));
        assert_eq!((found[1].name, found[1].value.as_deref()), (&b"B"[..], Some(&b"x;y"[..])));
        assert_eq!((found[2].name, found[2].value.as_deref()), (&b"c"[..], None));
    }

    #[test]
    fn malformed_parameters_are_reported() {
        for bad in [&b"x;a =1"[..], b"x;a= 1", b"x;=1", b"x;a=", br#"x;a="1"#, b"x;a=1=2"] {
            let (_, mut parameters) = parameters(bad);
            assert_eq!(parameters.next(), Some(Err(Malformed)), "{bad:?}");
        }
    }

    #[test]
    fn quality_has_at_most_three_decimals_and_never_exceeds_one() {
        for (text, thousandths) in
            [("0", 0), ("0.", 0), ("0.5", 500), ("0.333", 333), ("0.001", 1), ("1.000", 1_000)]
        {
            let quality = Quality::parse(text.as_bytes());
            assert_eq!(quality.map(Quality::thousandths), Some(thousandths), "{text}");
        }
        for bad in ["", "2", "1.001", "0.1234", ".5", "-0", "0,5", "1e0", "01"] {
            assert_eq!(Quality::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn weights_default_to_one_and_malformed_ones_count_as_zero() {
        let mut headers = HeaderMap::new();
        headers.append(ACCEPT_ENCODING, HeaderValue::from_static("gzip, br;Q=0.5, x;q=9"));
        headers.append(ACCEPT_ENCODING, HeaderValue::from_static("*;q=0;a=b, y;q"));
        let found: Vec<_> = weighted(&headers, &ACCEPT_ENCODING)
            .map(|(value, quality)| (value.to_vec(), quality.thousandths()))
            .collect();
        let expected = [(&b"gzip"[..], 1_000), (b"br", 500), (b"x", 0), (b"*", 0), (b"y", 0)];
        assert_eq!(found, expected.map(|(value, quality)| (value.to_vec(), quality)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn any_line_splits_into_elements_that_are_trimmed_and_not_empty(
            line in proptest::collection::vec(
                prop_oneof![any::<u8>(), prop::sample::select(&b",;\"\\ =a\t"[..])], 0..40)
        ) {
            for element in split(&line) {
                prop_assert!(!element.is_empty());
                prop_assert_eq!(trim(element), element);
                let (_, parameters) = parameters(element);
                prop_assert!(parameters.count() <= element.len());
            }
        }

        #[test]
        fn what_is_quoted_unquotes_to_itself(
            value in proptest::collection::vec(prop_oneof![Just(b'\t'), 0x20..=0x7e_u8, 0x80..=0xff_u8], 0..20)
        ) {
            let mut text = Vec::new();
            write_quoted(&mut text, &value);
            let meaning = unquote(&text);
            prop_assert_eq!(meaning.as_deref(), Some(&value[..]));
            prop_assert_eq!(split(&text).count(), 1);
        }
    }
}
