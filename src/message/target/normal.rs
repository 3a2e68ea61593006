//! The normal form of path and query.

use crate::message::target::EncodedSlash;
use crate::message::target::Normalisation;
use crate::refusal::Refusal;

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// What a raw byte is within a path or a query.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Stands for itself.
    Plain,
    /// Is written as its escape: no URI may hold it.
    Escape,
    /// Begins an escape.
    Percent,
    /// May make the form abnormal, which the slow path finds out: `/`, `.` and `;` in paths.
    Structure,
    /// Has no normal form.
    Refused,
}

/// Path bytes: `pchar` and `/` (RFC 3986 §3.3).
static PATH: [Class; 256] = classes(Place::Path);
/// Query bytes: `pchar`, `/`, `?` (§3.4), and what browsers leave as it is and every parser takes.
static QUERY: [Class; 256] = classes(Place::Query);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Path,
    Query,
}

const fn classes(place: Place) -> [Class; 256] {
    let path = matches!(place, Place::Path);
    let mut table = [Class::Escape; 256];
    let mut byte = 0_u8;
    loop {
        table[byte as usize] = match byte {
            b'%' => Class::Percent,
            0..=b' ' | 0x7f | b'#' => Class::Refused,
            b'/' | b'.' | b';' if path => Class::Structure,
            // Some origins take it for a slash.
            b'\\' if path => Class::Refused,
            b'/' | b'?' | b'[' | b']' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' if !path => {
                Class::Plain
            }
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => Class::Plain,
            b'-' | b'.' | b'_' | b'~' => Class::Plain,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' => {
                Class::Plain
            }
            b':' | b'@' => Class::Plain,
            _ => Class::Escape,
        };
        if byte == u8::MAX {
            return table;
        }
        byte += 1;
    }
}

const fn is_unreserved(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'.' | b'_' | b'~')
}

/// The normal form of a target, and where its path ends.
pub(super) fn normalise(raw: &[u8], how: &Normalisation) -> Result<(String, usize), Refusal> {
    let Some(b'/') = raw.first() else {
        return Err(refusal_of(raw.first().copied().unwrap_or(b' ')));
    };
    let (text, path_end) = match normal_path(raw, how) {
        Some(end) if query_is_normal(&raw[end..]) => (raw.to_vec(), end),
        Some(_) | None => rewrite(raw, how)?,
    };
    // Every byte written is a class Plain one, a slash, or part of an escape.
    let text = String::from_utf8(text).map_err(|_| Refusal::Internal)?;
    Ok((text, path_end))
}

/// Brings a target that begins with `/` into its normal form, part by part.
fn rewrite(raw: &[u8], how: &Normalisation) -> Result<(Vec<u8>, usize), Refusal> {
    let question = raw.iter().position(|&byte| byte == b'?');
    let (path, query) = match question {
        Some(at) => (&raw[..at], Some(&raw[at + 1..])),
        None => (raw, None),
    };
    let mut text = match normal_path(path, how) {
        Some(_) => path.to_vec(),
        None => remove_dots(&escape_path(path, how)?, how)?,
    };
    let path_end = text.len();
    if let Some(query) = query {
        text.push(b'?');
        escape_query(query, &mut text)?;
    }
    Ok((text, path_end))
}

/// Where the path of a target that begins with `/` ends, if that is its own normal form as far as one look can
/// tell.
fn normal_path(raw: &[u8], how: &Normalisation) -> Option<usize> {
    let mut previous = 0;
    if raw.starts_with(b"//") {
        return None;
    }
    for (at, &byte) in raw.iter().enumerate() {
        match PATH[usize::from(byte)] {
            Class::Plain => {}
            // Only a dot or a slash at the start of a segment can change the structure.
            Class::Structure => match byte {
                b'.' if previous == b'/' => return None,
                b'/' if previous == b'/' && how.merge_slashes => return None,
                _ => {}
            },
            Class::Escape if byte == b'?' => return Some(at),
            Class::Escape | Class::Percent | Class::Refused => return None,
        }
        previous = byte;
    }
    Some(raw.len())
}

/// Whether what follows a path, the `?` included, is its own normal form.
fn query_is_normal(rest: &[u8]) -> bool {
    rest.iter().skip(1).all(|&byte| QUERY[usize::from(byte)] == Class::Plain)
}

/// Escapes in their normal form; the structure is left as it is.
fn escape_path(path: &[u8], how: &Normalisation) -> Result<Vec<u8>, Refusal> {
    let mut out = Vec::with_capacity(path.len() + 16);
    let mut rest = path;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match PATH[usize::from(*byte)] {
            Class::Plain | Class::Structure => out.push(*byte),
            Class::Escape => push_escape(&mut out, *byte),
            Class::Refused => return Err(refusal_of(*byte)),
            Class::Percent => {
                let (value, tail) = read_escape(rest).ok_or(Refusal::BadTarget)?;
                rest = tail;
                match value {
                    0..=0x1f | 0x7f => return Err(Refusal::BadTarget),
                    b'/' | b'\\' if how.encoded_slash == EncodedSlash::Refuse => {
                        return Err(Refusal::BadTarget);
                    }
                    _ if is_unreserved(value) => out.push(value),
                    _ => push_escape(&mut out, value),
                }
            }
        }
    }
    Ok(out)
}

/// Removes dot segments (RFC 3986 §5.2.4) and merges slashes; those at the front in any case, since
/// there some origins and every browser take two of them for the beginning of a host.
///
/// Deviation: `..` at the root is refused and not dropped. No honest client sends it, and an
/// origin that takes it for a path into its file system must not see that we did not mind.
fn remove_dots(path: &[u8], how: &Normalisation) -> Result<Vec<u8>, Refusal> {
    let mut out = Vec::with_capacity(path.len());
    let mut segments = path[1..].split(|&byte| byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            b"." if last => out.push(b'/'),
            b"." => {}
            b".." => {
                let parent = out.iter().rposition(|&byte| byte == b'/');
                out.truncate(parent.ok_or(Refusal::BadTarget)?);
                if last {
                    out.push(b'/');
                }
            }
            b"" if !last && (how.merge_slashes || out.is_empty()) => {}
            _ if climbs(segment) => return Err(Refusal::BadTarget),
            _ => {
                out.push(b'/');
                out.extend_from_slice(segment);
            }
        }
    }
    Ok(out)
}

/// Whether an origin that decodes slashes, or removes `;parameters` before it resolves dots, would
/// find a `..` in this segment.
fn climbs(segment: &[u8]) -> bool {
    if !segment.windows(2).any(|pair| pair == b"..") {
        return false;
    }
    let mut start = 0;
    loop {
        let rest = &segment[start..];
        let slash = rest.windows(3).position(|escape| matches!(escape, b"%2F" | b"%5C"));
        let part = &rest[..slash.unwrap_or(rest.len())];
        if part == b".." || part.starts_with(b"..;") {
            return true;
        }
        match slash {
            Some(at) => start += at + 3,
            None => return false,
        }
    }
}

/// Escapes in their normal form. In a query they are data: escaped controls are what a form with
/// several lines sends, and a lone `%` is common enough to be kept, as `%25`. Only NUL is refused.
fn escape_query(query: &[u8], out: &mut Vec<u8>) -> Result<(), Refusal> {
    let mut rest = query;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match QUERY[usize::from(*byte)] {
            Class::Plain | Class::Structure => out.push(*byte),
            Class::Escape => push_escape(out, *byte),
            Class::Refused => return Err(refusal_of(*byte)),
            Class::Percent => match read_escape(rest) {
                Some((0, _)) => return Err(Refusal::BadTarget),
                Some((value, tail)) => {
                    rest = tail;
                    match is_unreserved(value) {
                        true => out.push(value),
                        false => push_escape(out, value),
                    }
                }
                None => push_escape(out, b'%'),
            },
        }
    }
    Ok(())
}

/// The byte that two hex digits mean, and what follows them.
fn read_escape(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let [high, low, rest @ ..] = bytes else {
        return None;
    };
    Some((hex_value(*high)? << 4 | hex_value(*low)?, rest))
}

const fn hex_value(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

fn push_escape(out: &mut Vec<u8>, byte: u8) {
    out.extend([b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
}

/// Why a raw byte is refused.
fn refusal_of(byte: u8) -> Refusal {
    match byte {
        0..=0x1f | 0x7f => Refusal::ControlByte,
        _ => Refusal::BadTarget,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        #[test]
        fn what_is_taken_over_at_once_is_what_comes_of_its_parts(
            raw in "/[a-c/.;?%25ef\u{e9}\\\\&=#\\[|~ -]{0,16}|/[a-c/.;-]{0,12}(\\?[a-c/?=&\\[|%-]{0,8})?",
            merge_slashes in any::<bool>(),
            refuse in any::<bool>(),
        ) {
            let encoded_slash = if refuse { EncodedSlash::Refuse } else { EncodedSlash::Keep };
            let how = Normalisation { merge_slashes, encoded_slash };
            let at_once = normalise(raw.as_bytes(), &how).map(|(text, end)| (text.into_bytes(), end));
            prop_assert_eq!(at_once, rewrite(raw.as_bytes(), &how));
        }
    }
}
