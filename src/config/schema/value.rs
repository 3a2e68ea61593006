//! Values that may also be a word: `off`, `on`, `auto`.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;

use schemars::JsonSchema;
use schemars::Schema;
use schemars::SchemaGenerator;
use schemars::json_schema;
use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;
use serde::de::Error;
use serde::de::MapAccess;
use serde::de::Unexpected;
use serde::de::Visitor;
use serde::de::value::MapAccessDeserializer;

use crate::units::ByteSize;
use crate::units::Period;

/// A section that may be switched off: `off`, `on` (every default), or its keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Switch<T> {
    /// Not there.
    #[default]
    Off,
    /// There, with these settings.
    On(T),
}

/// A value or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrOff<T> {
    /// No such limit or time.
    Off,
    /// This one.
    Is(T),
}

/// A value or `auto`, which is found out at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrAuto<T> {
    /// Found out at start.
    Auto,
    /// This one.
    Is(T),
}

/// What is written as one word.
pub trait Word: Sized {
    /// What it is, for messages.
    const WHAT: &'static str;

    /// Reads it.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    fn read(text: &str) -> Result<Self, String>;
}

impl Word for u32 {
    const WHAT: &'static str = "a whole number";
    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("\"{text}\" is not {}; write a number like 4", Self::WHAT))
    }
}

impl Word for String {
    const WHAT: &'static str = "a name";
    fn read(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
}

impl Word for PathBuf {
    const WHAT: &'static str = "a path";
    fn read(text: &str) -> Result<Self, String> {
        Ok(Self::from(text))
    }
}

impl Word for Period {
    const WHAT: &'static str = "a length of time like 30s";
    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|error| format!("{error}"))
    }
}

impl Word for ByteSize {
    const WHAT: &'static str = "a size like 64KiB";
    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|error| format!("{error}"))
    }
}

impl<T> Switch<T> {
    /// The settings, when it is on.
    pub fn as_ref(&self) -> Option<&T> {
        match self {
            Self::Off => None,
            Self::On(settings) => Some(settings),
        }
    }
}

impl<T: Copy> OrOff<T> {
    /// The value, when there is one.
    pub fn get(self) -> Option<T> {
        match self {
            Self::Off => None,
            Self::Is(value) => Some(value),
        }
    }
}

impl<T: Serialize> Serialize for Switch<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_str("off"),
            Self::On(settings) => settings.serialize(serializer),
        }
    }
}

impl<'de, T: Deserialize<'de> + Default> Deserialize<'de> for Switch<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reads<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de> + Default> Visitor<'de> for Reads<T> {
            type Value = Switch<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("on, off or a section of keys and values")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                match text {
                    "on" => Ok(Switch::On(T::default())),
                    "off" => Ok(Switch::Off),
                    other => Err(E::invalid_value(Unexpected::Str(other), &self)),
                }
            }

            // Nothing at all could mean either; the reader must not have to guess.
            fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
                Err(E::invalid_type(Unexpected::Unit, &self))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Switch::On)
            }
        }

        deserializer.deserialize_any(Reads(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Switch<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("{}_or_switch", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let section = generator.subschema_for::<T>();
        json_schema!({"anyOf": [{"type": "string", "enum": ["on", "off"]}, section]})
    }
}

macro_rules! word_or {
    ($type:ident, $variant:ident, $word:literal, $suffix:literal) => {
        impl<T: Serialize> Serialize for $type<T> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self {
                    Self::$variant => serializer.serialize_str($word),
                    Self::Is(value) => value.serialize(serializer),
                }
            }
        }

        impl<'de, T: Word> Deserialize<'de> for $type<T> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Reads<T>(PhantomData<T>);

                impl<T: Word> Visitor<'_> for Reads<T> {
                    type Value = $type<T>;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        write!(f, "{} or {}", T::WHAT, $word)
                    }

                    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                        match text {
                            $word => Ok($type::$variant),
                            text => T::read(text).map($type::Is).map_err(E::custom),
                        }
                    }
                }

                deserializer.deserialize_any(Reads(PhantomData))
            }
        }

        impl<T: JsonSchema> JsonSchema for $type<T> {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                format!("{}_or_{}", T::schema_name(), $suffix).into()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                let value = generator.subschema_for::<T>();
                json_schema!({"anyOf": [{"type": "string", "enum": [$word]}, value]})
            }
        }
    };
}

word_or!(OrOff, Off, "off", "off");
word_or!(OrAuto, Auto, "auto", "auto");
