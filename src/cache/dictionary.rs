//! Dictionaries and lists of Structured Fields (RFC 9651 §4.2), as far as cache fields need them: the
//! whole grammar is checked, since one error voids the field; values of types that no cache
//! directive has are recognised and not kept.

/// The value of one member; parameters are checked and dropped (RFC 9213 §2.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A bare key, or `?1` and `?0`.
    Boolean(bool),
    /// An integer of at most 15 digits.
    Integer(i64),
    /// A quoted string, escapes resolved.
    Text(String),
    /// A token.
    Token(String),
    /// An inner list.
    List(Vec<Self>),
    /// A decimal, byte sequence, date or display string.
    Other,
}

/// The members of a dictionary in order of first appearance, or `None` when the text is no
/// dictionary. Of a repeated key, the last value stands.
pub fn parse(text: &[u8]) -> Option<Vec<(String, Value)>> {
    let mut input = Input { rest: text };
    let mut dictionary: Vec<(String, Value)> = Vec::new();
    input.skip(|b| b == b' ');
    while !input.rest.is_empty() {
        let key = input.key()?;
        let value = if input.accept(b'=') { input.member()? } else { Value::Boolean(true) };
        input.parameters()?;
        match dictionary.iter_mut().find(|(known, _)| *known == key) {
            Some((_, slot)) => *slot = value,
            None => dictionary.push((key, value)),
        }
        if !input.goes_on()? {
            break;
        }
    }
    Some(dictionary)
}

/// The members of a list in order, or `None` when the text is no list (RFC 9651 §4.2.1).
pub fn parse_list(text: &[u8]) -> Option<Vec<Value>> {
    let mut input = Input { rest: text };
    let mut list = Vec::new();
    input.skip(|b| b == b' ');
    while !input.rest.is_empty() {
        let value = input.member()?;
        input.parameters()?;
        list.push(value);
        if !input.goes_on()? {
            break;
        }
    }
    Some(list)
}

struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    /// Behind a member: whether another follows. `None` is an error.
    fn goes_on(&mut self) -> Option<bool> {
        self.skip(|b| b == b' ' || b == b'\t');
        if self.rest.is_empty() {
            return Some(false);
        }
        if !self.accept(b',') {
            return None;
        }
        self.skip(|b| b == b' ' || b == b'\t');
        // A comma promises a member.
        (!self.rest.is_empty()).then_some(true)
    }

    fn accept(&mut self, byte: u8) -> bool {
        let accepted = self.rest.first() == Some(&byte);
        if accepted {
            self.rest = &self.rest[1..];
        }
        accepted
    }

    fn skip(&mut self, skipped: fn(u8) -> bool) {
        self.take(skipped);
    }

    fn take(&mut self, taken: fn(u8) -> bool) -> &'a [u8] {
        let end = self.rest.iter().position(|&b| !taken(b)).unwrap_or(self.rest.len());
        let (front, rest) = self.rest.split_at(end);
        self.rest = rest;
        front
    }

    fn key(&mut self) -> Option<String> {
        if !matches!(self.rest.first()?, b'a'..=b'z' | b'*') {
            return None;
        }
        let key =
            self.take(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-.*".contains(&b));
        Some(String::from_utf8_lossy(key).into_owned())
    }

    fn member(&mut self) -> Option<Value> {
        if !self.accept(b'(') {
            return self.item();
        }
        let mut items = Vec::new();
        loop {
            self.skip(|b| b == b' ');
            if self.accept(b')') {
                return Some(Value::List(items));
            }
            items.push(self.item()?);
            self.parameters()?;
            if !matches!(self.rest.first()?, b' ' | b')') {
                return None;
            }
        }
    }

    fn parameters(&mut self) -> Option<()> {
        while self.accept(b';') {
            self.skip(|b| b == b' ');
            self.key()?;
            if self.accept(b'=') {
                self.item()?;
            }
        }
        Some(())
    }

    fn item(&mut self) -> Option<Value> {
        match *self.rest.first()? {
            b'-' | b'0'..=b'9' => self.number(),
            b'"' => self.text().map(Value::Text),
            b'?' => self.boolean(),
            b':' => self.binary(),
            b'@' => {
                self.accept(b'@');
                matches!(self.number()?, Value::Integer(_)).then_some(Value::Other)
            }
            b'%' => self.display(),
            b'*' | b'a'..=b'z' | b'A'..=b'Z' => {
                let token =
                    self.take(|b| super::fields::is_token_byte(b) || b == b':' || b == b'/');
                Some(Value::Token(String::from_utf8_lossy(token).into_owned()))
            }
            _ => None,
        }
    }

    fn number(&mut self) -> Option<Value> {
        let negative = self.accept(b'-');
        let whole = self.take(|b| b.is_ascii_digit());
        if whole.is_empty() || whole.len() > 15 {
            return None;
        }
        if self.accept(b'.') {
            let fraction = self.take(|b| b.is_ascii_digit());
            let valid = whole.len() <= 12 && (1..=3).contains(&fraction.len());
            return valid.then_some(Value::Other);
        }
        let value = whole.iter().fold(0_i64, |sum, b| sum * 10 + i64::from(b - b'0'));
        Some(Value::Integer(if negative { -value } else { value }))
    }

    fn text(&mut self) -> Option<String> {
        self.accept(b'"');
        let mut text = String::new();
        loop {
            let (&byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            match byte {
                b'"' => return Some(text),
                b'\\' => {
                    let (&escaped, rest) = self.rest.split_first()?;
                    self.rest = rest;
                    if !matches!(escaped, b'"' | b'\\') {
                        return None;
                    }
                    text.push(char::from(escaped));
                }
                b' '..=b'~' => text.push(char::from(byte)),
                _ => return None,
            }
        }
    }

    fn boolean(&mut self) -> Option<Value> {
        self.accept(b'?');
        if self.accept(b'1') {
            return Some(Value::Boolean(true));
        }
        self.accept(b'0').then_some(Value::Boolean(false))
    }

    fn binary(&mut self) -> Option<Value> {
        self.accept(b':');
        self.skip(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b));
        self.accept(b':').then_some(Value::Other)
    }

    fn display(&mut self) -> Option<Value> {
        self.accept(b'%');
        // The percent-encoded text inside is not our business; its shape is that of a string.
        (self.rest.first() == Some(&b'"')).then_some(())?;
        self.text().map(|_| Value::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(text: &str) -> Option<Value> {
        parse(text.as_bytes()).and_then(|mut members| members.pop()).map(|(_, value)| value)
    }

    #[test]
    fn members_have_types() {
        assert_eq!(one("a"), Some(Value::Boolean(true)));
        assert_eq!(one("a=?0"), Some(Value::Boolean(false)));
        assert_eq!(one("a=-5"), Some(Value::Integer(-5)));
        assert_eq!(one("a=999999999999999"), Some(Value::Integer(999_999_999_999_999)));
        assert_eq!(one(r#"a="x\"y""#), Some(Value::Text("x\"y".into())));
        assert_eq!(one("a=tok/en:1"), Some(Value::Token("tok/en:1".into())));
        let items = vec![Value::Integer(1), Value::Text("b".into()), Value::Token("d".into())];
        assert_eq!(one("a=(1 \"b\";c d);e"), Some(Value::List(items)));
        assert_eq!(one("a=( )"), Some(Value::List(vec![])));
        for other in ["a=1.5", "a=:aGk=:", "a=@1659578233", "a=%\"x\""] {
            assert_eq!(one(other), Some(Value::Other), "{other}");
        }
    }

    #[test]
    fn parameters_are_dropped() {
        assert_eq!(one("a=1;x;y=\"z\"; w=?0"), Some(Value::Integer(1)));
        assert_eq!(one("a;x=1"), Some(Value::Boolean(true)));
    }

    #[test]
    fn the_last_of_a_repeated_key_stands() {
        assert_eq!(
            parse(b"a=1, b, a=2"),
            Some(vec![("a".into(), Value::Integer(2)), ("b".into(), Value::Boolean(true))])
        );
    }

    #[test]
    fn an_empty_text_is_an_empty_dictionary() {
        assert_eq!(parse(b""), Some(vec![]));
        assert_eq!(parse(b"  "), Some(vec![]));
    }

    #[test]
    fn one_error_voids_everything() {
        for text in [
            "a=10, &&&&&",
            "a,",
            ",a",
            "A=1",
            "a =1",
            "a= 1",
            "a=1 b",
            "a=1.",
            "a=1.2345",
            "a=1234567890123456",
            "a=\"x",
            "a=\"x\\y\"",
            "a=?2",
            "a=:x",
            "a=(1",
            "a=(1\"b\")",
            "a=@1.5",
            "a=%x",
            "a=-",
            "a=",
            "a=\"\u{e9}\"",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn parsing_never_panics(text in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = parse(&text);
        }

        #[test]
        fn integers_are_read_back(value in -999_999_999_999_999_i64..=999_999_999_999_999) {
            prop_assert_eq!(one(&format!("key={value}")), Some(Value::Integer(value)));
        }
    }
}
