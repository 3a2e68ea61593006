//! Reading Rust, as far as names go.

/// The text with comments, and the contents of strings and character literals, made blank. Lines
/// keep their numbers.
pub(crate) fn code(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => Some(end_of_line(bytes, at)),
            b'/' if bytes[at..].starts_with(b"/*") => Some(end_of_comment(bytes, at)),
            b'"' => Some(end_of_string(bytes, at)),
            b'r' if !continues_a_word(bytes, at) => end_of_raw_string(bytes, at),
            b'\'' => end_of_character(bytes, at),
            _ => None,
        };
        match end {
            Some(end) => {
                out.extend(bytes[at..end].iter().map(|byte| blank_byte(*byte)));
                at = end;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8(out).expect("only whole literals and comments were replaced")
}

fn blank_byte(byte: u8) -> u8 {
    if byte == b'\n' { b'\n' } else { b' ' }
}

fn end_of_line(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |n| at + n)
}

/// Block comments nest.
fn end_of_comment(bytes: &[u8], at: usize) -> usize {
    let mut depth = 0_usize;
    let mut here = at;
    while here < bytes.len() {
        if bytes[here..].starts_with(b"/*") {
            depth += 1;
            here += 2;
        } else if bytes[here..].starts_with(b"*/") {
            depth -= 1;
            here += 2;
            if depth == 0 {
                break;
            }
        } else {
            here += 1;
        }
    }
    here
}

fn end_of_string(bytes: &[u8], at: usize) -> usize {
    let mut here = at + 1;
    while here < bytes.len() {
        match bytes[here] {
            b'\\' => here += 2,
            b'"' => return here + 1,
            _ => here += 1,
        }
    }
    bytes.len()
}

/// The end of `r"…"` or `r#"…"#`, if that is what stands here; `r#type` is a word.
fn end_of_raw_string(bytes: &[u8], at: usize) -> Option<usize> {
    let hashes = bytes[at + 1..].iter().take_while(|byte| **byte == b'#').count();
    let body = at + 1 + hashes + 1;
    if bytes.get(body - 1) != Some(&b'"') {
        return None;
    }
    let mut close = vec![b'"'];
    close.resize(hashes + 1, b'#');
    let length = bytes[body..].windows(close.len()).position(|window| window == close);
    Some(length.map_or(bytes.len(), |length| body + length + close.len()))
}

/// The end of a character literal; none for a lifetime.
fn end_of_character(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes.get(at + 1) == Some(&b'\\') {
        let close = bytes.get(at + 3..)?.iter().position(|byte| *byte == b'\'')?;
        return Some(at + 3 + close + 1);
    }
    let rest = std::str::from_utf8(&bytes[at + 1..]).ok()?;
    let close = at + 1 + rest.chars().next()?.len_utf8();
    (bytes.get(close) == Some(&b'\'')).then_some(close + 1)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Whether a word that began earlier goes on at `at`; the `b` and `c` of `br"…"` do not count.
fn continues_a_word(bytes: &[u8], at: usize) -> bool {
    let before = |n: usize| at.checked_sub(n).map(|at| bytes[at]);
    match before(1) {
        Some(b'b' | b'c') => before(2).is_some_and(is_word),
        byte => byte.is_some_and(is_word),
    }
}

/// Code without the items under `#[cfg(test)]` and `#[test]`.
pub(crate) fn without_tests(code: &str) -> String {
    without_items(&without_items(code, "#[cfg(test)]", |_| true), "#[test]", |_| true)
}

/// Code without inline modules.
pub(crate) fn without_inline_modules(code: &str) -> String {
    without_items(code, "mod ", |item| item.contains('{'))
}

/// Code without those items that begin with `start` and that `which` chooses.
fn without_items(code: &str, start: &str, which: impl Fn(&str) -> bool) -> String {
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(found) = rest.find(start) {
        let end = end_of_item(rest, found + start.len());
        let item = &rest[found..end];
        out.push_str(&rest[..found]);
        if which(item) {
            out.extend(item.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        } else {
            out.push_str(item);
        }
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

/// Where an item ends: at its `;`, or where its first outermost brace closes.
fn end_of_item(code: &str, start: usize) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in code.bytes().enumerate().skip(start) {
        match byte {
            b'{' | b'(' | b'[' => depth += 1,
            b'}' | b')' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 && byte == b'}' {
                    return at + 1;
                }
            }
            b';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

/// The words that follow `prefix` in a line, where `prefix` is not the end of a longer word.
pub(crate) fn names_after<'a>(line: &'a str, prefix: &str) -> Vec<&'a str> {
    let mut names = Vec::new();
    for (at, _) in line.match_indices(prefix) {
        if at > 0 && is_word(line.as_bytes()[at - 1]) {
            continue;
        }
        let rest = &line[at + prefix.len()..];
        let end = rest.bytes().position(|byte| !is_word(byte)).unwrap_or(rest.len());
        if end > 0 {
            names.push(&rest[..end]);
        }
    }
    names
}

/// Whether a line has `word` in it, not as the end of a longer one.
pub(crate) fn has(line: &str, word: &str) -> bool {
    line.match_indices(word)
        .any(|(at, _)| !is_word(word.as_bytes()[0]) || at == 0 || !is_word(line.as_bytes()[at - 1]))
}
