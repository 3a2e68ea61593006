//! Names and values in queries and in cookies.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::COOKIE;

use crate::route::encode;

/// The values of a query parameter, decoded as forms encode them: `+` is a space, `%XX` an octet, a
/// name without `=` has the empty value. A `%` that encodes nothing stands for itself.
pub(crate) fn parameters<'q>(
    query: Option<&'q str>,
    name: &str,
) -> impl Iterator<Item = Cow<'q, [u8]>> {
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs.filter_map(move |pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (*decoded(key) == *name.as_bytes()).then(|| decoded(value))
    })
}

/// The values of a cookie over all Cookie lines (RFC 6265 §5.4; HTTP/2 may split them, RFC 9113
/// §8.2.3). Names are compared byte by byte; quotes around a value belong to it.
pub(crate) fn cookies<'h>(
    headers: &'h HeaderMap,
    name: &str,
) -> impl Iterator<Item = Cow<'h, [u8]>> {
    let lines = headers.get_all(COOKIE).into_iter();
    let pairs = lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b';'));
    pairs.filter_map(move |pair| {
        let equals = pair.iter().position(|&byte| byte == b'=')?;
        let (key, value) = (&pair[..equals], &pair[equals + 1..]);
        (key.trim_ascii() == name.as_bytes()).then(|| Cow::Borrowed(value.trim_ascii()))
    })
}

fn decoded(text: &str) -> Cow<'_, [u8]> {
    let bytes = text.as_bytes();
    if !bytes.iter().any(|&byte| byte == b'%' || byte == b'+') {
        return Cow::Borrowed(bytes);
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match (byte, encode::octet(&bytes[at - 1..])) {
            (b'+', _) => out.push(b' '),
            (_, Some(octet)) => {
                out.push(octet);
                at += 2;
            }
            (_, None) => out.push(byte),
        }
    }
    Cow::Owned(out)
}
