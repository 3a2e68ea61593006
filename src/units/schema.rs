//! How quantities stand in configuration files: serde and JSON Schema.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use schemars::Schema;
use schemars::SchemaGenerator;
use schemars::json_schema;
use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;
use serde::de;

use crate::units::ByteSize;
use crate::units::ByteSizeError;
use crate::units::Period;
use crate::units::PeriodError;

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ByteSizeVisitor)
    }
}

struct ByteSizeVisitor;

impl de::Visitor<'_> for ByteSizeVisitor {
    type Value = ByteSize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size such as 512, 64KiB or 10MB")
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<ByteSize, E> {
        Ok(ByteSize(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<ByteSize, E> {
        u64::try_from(value).map(ByteSize).map_err(|_| {
            E::custom(format_args!("a size is never negative: {value}; write 512 or 64KiB"))
        })
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<ByteSize, E> {
        Err(E::custom(format_args!("invalid size {value}: {}", ByteSizeError::Fraction)))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
        text.parse().map_err(|error| E::custom(format_args!("invalid size {text:?}: {error}")))
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PeriodVisitor)
    }
}

struct PeriodVisitor;

impl de::Visitor<'_> for PeriodVisitor {
    type Value = Period;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration such as 500ms, 30s or 1h30m")
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Period, E> {
        match value {
            0 => Ok(Period(Duration::ZERO)),
            // Seconds or milliseconds? Asking is better than guessing.
            _ => Err(E::custom(format_args!("invalid duration {value}: {}", PeriodError::NoUnit))),
        }
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Period, E> {
        match u64::try_from(value) {
            Ok(value) => self.visit_u64(value),
            Err(_) => Err(E::custom(format_args!(
                "a duration is never negative: {value}; write 0, or a time like 30s"
            ))),
        }
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Period, E> {
        Err(E::custom(format_args!("invalid duration {value}: {}", PeriodError::Fraction)))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Period, E> {
        text.parse().map_err(|error| E::custom(format_args!("invalid duration {text:?}: {error}")))
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.written() {
            // A plain number stays one, or YAML would have to quote it.
            (number, "") => serializer.serialize_u64(number),
            _ => serializer.collect_str(self),
        }
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for ByteSize {
    fn inline_schema() -> bool {
        false
    }

    fn schema_name() -> Cow<'static, str> {
        "ByteSize".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A number of bytes, plain or with a unit: KB, MB, GB, TB are powers of \
                            1000; KiB, MiB, GiB, TiB are powers of 1024.",
            "type": ["string", "integer"],
            "minimum": 0,
            "pattern": "^[0-9]+(B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)?$",
            "examples": [512, "64KiB", "10MB", "1GiB"],
        })
    }
}

impl JsonSchema for Period {
    fn inline_schema() -> bool {
        false
    }

    fn schema_name() -> Cow<'static, str> {
        "Period".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A length of time: whole numbers with the units d, h, m, s, ms, us, ns, \
                            the largest first; or 0.",
            "type": ["string", "integer"],
            "minimum": 0,
            "maximum": 0,
            "pattern": "^(0|([0-9]+(d|h|m|s|ms|us|ns))+)$",
            "examples": ["500ms", "30s", "5m", "1h30m", "7d", 0],
        })
    }
}
