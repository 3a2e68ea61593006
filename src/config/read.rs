//! From a document to typed settings, telling everything that does not fit and not only the first.
//!
//! Serde stops at its first error. So each error is reported with its place, the value that caused it
//! is cut out of the document, and the rest is read again. Since every section has defaults, what
//! remains is still a configuration, and the checks of meaning can run over it as well.

mod explain;

use std::fmt;

use serde::Deserializer;
use serde::de::DeserializeOwned;
use serde::de::DeserializeSeed;
use serde::de::EnumAccess;
use serde::de::IntoDeserializer;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::VariantAccess;
use serde::de::Visitor;
use serde::de::value::StrDeserializer;

use crate::config::diagnostic::Diagnostics;
use crate::config::document::Document;
use crate::config::document::Entry;
use crate::config::document::NodeId;
use crate::config::document::Value;

/// The most problems of this kind that are told of one document.
const MAX_PROBLEMS: usize = 100;

/// Reads the document as a `T`; what did not fit is among `found` and cut out of the document.
/// `None`: there was too much of it.
pub fn read<T: DeserializeOwned>(document: &mut Document, found: &mut Diagnostics) -> Option<T> {
    for _ in 0..MAX_PROBLEMS {
        let error = match T::deserialize(Reader { document, id: document.root() }) {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        // What is left of a value that was cut before is not worth another word.
        let is_told = matches!(error.fault, Some(Fault::Value(id)) if document.has_lost(id));
        if !is_told {
            explain::report(document, &error, found);
        }
        match error.fault {
            Some(Fault::Key(map, position)) => document.cut_entry(map, position),
            Some(Fault::Value(id)) if document.cut(id) => {}
            Some(Fault::Value(_)) | None => return None,
        }
    }
    None
}

/// What did not fit, and where.
#[derive(Debug)]
struct Error {
    fault: Option<Fault>,
    wrong: Wrong,
}

/// What is at fault.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// A value.
    Value(NodeId),
    /// The key of a mapping's entry.
    Key(NodeId, usize),
}

#[derive(Debug)]
enum Wrong {
    UnknownKey(String, &'static [&'static str]),
    UnknownWord(String, &'static [&'static str]),
    MissingKey(&'static str),
    Kind(String),
    Other(String),
}

impl Error {
    fn new(wrong: Wrong) -> Self {
        Self { fault: None, wrong }
    }

    /// The innermost reader that sees an error says where it is.
    fn at(mut self, fault: Fault) -> Self {
        self.fault.get_or_insert(fault);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.wrong {
            Wrong::UnknownKey(key, _) => write!(f, "unknown key \"{key}\""),
            Wrong::UnknownWord(word, _) => write!(f, "unknown value \"{word}\""),
            Wrong::MissingKey(key) => write!(f, "the key \"{key}\" is missing"),
            Wrong::Kind(expected) => write!(f, "expected {expected}"),
            Wrong::Other(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Error {}

impl serde::de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(Wrong::Other(message.to_string()))
    }

    fn invalid_type(_: serde::de::Unexpected<'_>, expected: &dyn serde::de::Expected) -> Self {
        Self::new(Wrong::Kind(expected.to_string()))
    }

    fn invalid_value(_: serde::de::Unexpected<'_>, expected: &dyn serde::de::Expected) -> Self {
        Self::new(Wrong::Kind(expected.to_string()))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::new(Wrong::UnknownWord(variant.to_owned(), expected))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::new(Wrong::UnknownKey(field.to_owned(), expected))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(Wrong::MissingKey(field))
    }
}

const BOOL: &str = "true or false";
const LIST: &str = "a list";
const SECTION: &str = "a section of keys and values";
const TEXT: &str = "text";

/// Reads one value.
#[derive(Clone, Copy)]
struct Reader<'d> {
    document: &'d Document,
    id: NodeId,
}

impl<'d> Reader<'d> {
    fn value(self) -> &'d Value {
        self.document.value(self.id)
    }

    fn wrong<T>(self, expected: impl Into<String>) -> Result<T, Error> {
        Err(Error::new(Wrong::Kind(expected.into())).at(Fault::Value(self.id)))
    }

    fn here<T>(self, result: Result<T, Error>) -> Result<T, Error> {
        result.map_err(|error| error.at(Fault::Value(self.id)))
    }

    fn text(self) -> Result<&'d str, Error> {
        match self.value() {
            Value::Scalar { text, .. } => Ok(text),
            _ => self.wrong(TEXT),
        }
    }

    fn items(self) -> Result<Items<'d>, Error> {
        match self.value() {
            Value::List(items) => Ok(Items { document: self.document, rest: items.iter() }),
            // `routes:` with every route commented out is an empty list, and so are sections.
            Value::Null => Ok(Items { document: self.document, rest: [].iter() }),
            _ => self.wrong(LIST),
        }
    }

    /// Whether this is a number, if perhaps one that is too large.
    fn has_digits_only(&self) -> bool {
        match self.value() {
            Value::Scalar { text, quoted: false } => text.bytes().all(|b| b.is_ascii_digit()),
            Value::Scalar { quoted: true, .. } | Value::Null | Value::List(_) | Value::Map(_) => {
                false
            }
        }
    }

    fn entries(self) -> Result<Entries<'d>, Error> {
        let entries: &[Entry] = match self.value() {
            Value::Map(entries) => entries,
            Value::Null => &[],
            _ => return self.wrong(SECTION),
        };
        Ok(Entries { reader: self, entries, next: 0 })
    }
}

macro_rules! whole_numbers {
    ($($method:ident $type:ident $visit:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            let number = match self.value() {
                Value::Scalar { text, quoted: false } => text.parse::<$type>().ok(),
                _ => None,
            };
            match number {
                Some(number) => self.here(visitor.$visit(number)),
                None if $type::MAX as u64 == u64::MAX && !self.has_digits_only() => {
                    self.wrong("a whole number")
                }
                None => self.wrong(format!("a whole number from {} to {}", $type::MIN, $type::MAX)),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Error;

    /// Scalars are text here: what looks like a number may be a header's value.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value() {
            Value::Null => self.here(visitor.visit_unit()),
            Value::Scalar { text, .. } => self.here(visitor.visit_str(text)),
            Value::List(_) => self.deserialize_seq(visitor),
            Value::Map(_) => self.deserialize_map(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value() {
            Value::Scalar { text, quoted: false } if text == "true" => visitor.visit_bool(true),
            Value::Scalar { text, quoted: false } if text == "false" => visitor.visit_bool(false),
            _ => self.wrong(BOOL),
        }
    }

    whole_numbers! {
        deserialize_i8 i8 visit_i8
        deserialize_i16 i16 visit_i16
        deserialize_i32 i32 visit_i32
        deserialize_i64 i64 visit_i64
        deserialize_u8 u8 visit_u8
        deserialize_u16 u16 visit_u16
        deserialize_u32 u32 visit_u32
        deserialize_u64 u64 visit_u64
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.text()?.parse::<f64>() {
            Ok(number) if number.is_finite() => self.here(visitor.visit_f64(number)),
            _ => self.wrong("a number"),
        }
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let text = self.text()?;
        self.here(visitor.visit_str(text))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        self.wrong(TEXT)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        self.wrong(TEXT)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value() {
            Value::Null => visitor.visit_none(),
            _ => self.here(visitor.visit_some(self)),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value() {
            Value::Null => visitor.visit_unit(),
            _ => self.wrong("nothing"),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.here(visitor.visit_newtype_struct(self))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let items = self.items()?;
        self.here(visitor.visit_seq(items))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let entries = self.entries()?;
        self.here(visitor.visit_map(entries))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let one_of = || format!("one of {}", variants.join(", "));
        let choice = match self.value() {
            Value::Scalar { text, .. } => Choice { name: text, key: self.id, value: None },
            Value::Map(entries) => {
                let mut left = entries.iter().filter(|entry| !entry.cut);
                let (Some(entry), None) = (left.next(), left.next()) else {
                    return self.wrong(format!("exactly {}", one_of()));
                };
                let value = Self { document: self.document, id: entry.value };
                Choice { name: &entry.key, key: self.id, value: Some(value) }
            }
            Value::Null | Value::List(_) => return self.wrong(one_of()),
        };
        self.here(visitor.visit_enum(choice))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }
}

/// The elements of a list.
struct Items<'d> {
    document: &'d Document,
    rest: std::slice::Iter<'d, NodeId>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        let document = self.document;
        let mut rest = self.rest.by_ref().filter(|id| !document.is_skipped(**id));
        rest.next().map(|id| seed.deserialize(Reader { document, id: *id })).transpose()
    }
}

/// The entries of a mapping that are not cut.
struct Entries<'d> {
    reader: Reader<'d>,
    entries: &'d [Entry],
    next: usize,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        while self.entries.get(self.next).is_some_and(|entry| entry.cut) {
            self.next += 1;
        }
        let Some(entry) = self.entries.get(self.next) else { return Ok(None) };
        let key: StrDeserializer<'_, Error> = entry.key.as_str().into_deserializer();
        let fault = Fault::Key(self.reader.id, self.next);
        self.next += 1;
        seed.deserialize(key).map(Some).map_err(|error| error.at(fault))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let Some(entry) = self.next.checked_sub(1).and_then(|n| self.entries.get(n)) else {
            return self.reader.wrong(SECTION);
        };
        seed.deserialize(Reader { document: self.reader.document, id: entry.value })
    }
}

/// A word out of several, or a key out of several with its value.
struct Choice<'d> {
    name: &'d str,
    key: NodeId,
    value: Option<Reader<'d>>,
}

impl<'de, 'd> EnumAccess<'de> for Choice<'d> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        let name: StrDeserializer<'_, Error> = self.name.into_deserializer();
        let variant = seed.deserialize(name).map_err(|error| error.at(Fault::Value(self.key)))?;
        Ok((variant, self))
    }
}

impl Choice<'_> {
    fn bare(&self) -> Error {
        Error::new(Wrong::Other(format!("\"{0}\" needs a value: write `{0}: …`", self.name)))
    }
}

impl<'de> VariantAccess<'de> for Choice<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        match self.value {
            None => Ok(()),
            Some(_) => Err(Error::new(Wrong::Other(format!("\"{}\" takes no value", self.name)))),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        let value = self.value.ok_or_else(|| self.bare())?;
        seed.deserialize(value)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        let value = self.value.ok_or_else(|| self.bare())?;
        value.deserialize_seq(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let value = self.value.ok_or_else(|| self.bare())?;
        value.deserialize_map(visitor)
    }
}
