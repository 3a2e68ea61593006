//! Making bytes from the network fit for a line: no control byte, no line break, nothing that changes
//! how a terminal or a log viewer shows what stands around it.

/// Whether a value stands in quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quote {
    /// As a JSON string.
    Always,
    /// As a JSON string when it is empty, is `-`, or has other bytes than visible ASCII without
    /// `"`, `=` and `\`; as it is otherwise.
    WhereNeeded,
}

/// Writes the value that `pieces` hands over piece by piece; it may be asked twice. Pieces end at
/// ASCII bytes, so that none ends within a character.
pub fn write(line: &mut Vec<u8>, quote: Quote, pieces: impl Fn(&mut dyn FnMut(&[u8]))) {
    if quote == Quote::WhereNeeded {
        let start = line.len();
        let mut bare = true;
        pieces(&mut |piece| {
            bare = bare && piece.iter().all(|&byte| is_bare(byte));
            if bare {
                line.extend_from_slice(piece);
            }
        });
        if bare && line.len() > start && &line[start..] != b"-" {
            return;
        }
        line.truncate(start);
    }
    line.push(b'"');
    pieces(&mut |piece| escape(line, piece));
    line.push(b'"');
}

fn is_bare(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'=' | b'\\')
}

/// Appends `bytes` as the inside of a JSON string (RFC 8259 §7). A byte that is not UTF-8 becomes
/// `\u00XX`, as if it were Latin-1: readable, and one escape for each byte.
pub fn escape(line: &mut Vec<u8>, bytes: &[u8]) {
    // Most values need nothing.
    if bytes.iter().all(|&byte| is_plain(byte)) {
        line.extend_from_slice(bytes);
        return;
    }
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            escape_char(line, character);
        }
        for &byte in chunk.invalid() {
            unit(line, u16::from(byte));
        }
    }
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')
}

fn escape_char(line: &mut Vec<u8>, character: char) {
    match character {
        '"' => line.extend_from_slice(b"\\\""),
        '\\' => line.extend_from_slice(b"\\\\"),
        character if is_hidden(character) => {
            let mut units = [0; 2];
            for &mut one in character.encode_utf16(&mut units) {
                unit(line, one);
            }
        }
        character => {
            let mut bytes = [0; 4];
            line.extend_from_slice(character.encode_utf8(&mut bytes).as_bytes());
        }
    }
}

/// Characters that are not seen but change what is: controls (C0, DEL, C1), line and paragraph
/// separators, directions, joiners, tags.
fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
        )
}

fn unit(line: &mut Vec<u8>, unit: u16) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let digit = |shift: u16| HEX[usize::from((unit >> shift) & 0xf)];
    line.extend_from_slice(&[b'\\', b'u', digit(12), digit(8), digit(4), digit(0)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(bytes: &[u8]) -> String {
        let mut line = Vec::new();
        escape(&mut line, bytes);
        String::from_utf8(line).unwrap()
    }

    fn in_text(bytes: &[u8]) -> String {
        let mut line = Vec::new();
        write(&mut line, Quote::WhereNeeded, |piece| piece(bytes));
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn line_breaks_do_not_break_lines() {
        assert_eq!(escaped(b"a\r\nb"), r"a\u000d\u000ab");
        assert_eq!(escaped("a\u{85}\u{2028}\u{2029}b".as_bytes()), r"a\u0085\u2028\u2029b");
    }

    #[test]
    fn quotes_and_backslashes_do_not_end_a_string() {
        assert_eq!(escaped(br#"a","status":"200"#), r#"a\",\"status\":\"200"#);
        assert_eq!(escaped(br"a\"), r"a\\");
    }

    #[test]
    fn terminals_see_no_escape_sequence() {
        assert_eq!(escaped(b"\x1b[31mred\x7f"), r"\u001b[31mred\u007f");
    }

    #[test]
    fn what_turns_the_direction_is_written_out() {
        assert_eq!(escaped("a\u{202e}b\u{2066}c".as_bytes()), r"a\u202eb\u2066c");
        assert_eq!(escaped("\u{e0041}".as_bytes()), r"\udb40\udc41");
    }

    #[test]
    fn letters_of_all_languages_stay() {
        assert_eq!(escaped("grün 日本 🦀".as_bytes()), "grün 日本 🦀");
    }

    #[test]
    fn bytes_that_are_not_utf8_are_written_one_by_one() {
        assert_eq!(escaped(b"a\xff\xe3\x81b"), r"a\u00ff\u00e3\u0081b");
    }

    #[test]
    fn text_is_quoted_only_where_needed() {
        assert_eq!(in_text(b"/a/b;c"), "/a/b;c");
        for (value, expected) in [
            (&b""[..], r#""""#),
            (b"-", r#""-""#),
            (b"a b", r#""a b""#),
            (b"a=b", r#""a=b""#),
            (b"a\"b", r#""a\"b""#),
            (b"a\nb", r#""a\u000ab""#),
            ("ü".as_bytes(), "\"ü\""),
        ] {
            assert_eq!(in_text(value), expected);
        }
        assert_eq!(in_text(b"--"), "--");
    }
}
