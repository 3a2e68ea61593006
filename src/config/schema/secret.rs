//! Secrets, as written: shown to nobody once they are read.

use std::borrow::Cow;
use std::fmt;
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
use serde::de::Visitor;
use serde::de::value::MapAccessDeserializer;

use crate::message::secret::MASK;

/// A text that neither `Debug` nor `config show` has.
///
/// A section that takes one has two keys for it, `token` and `token_file`; `check::secret` makes one
/// of them.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Secret(String);

/// The value of a header: text, or the content of a file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldText {
    /// The text.
    pub value: Option<Secret>,
    /// The file that holds it.
    pub value_file: Option<PathBuf>,
}

impl Secret {
    /// Makes a secret of a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one place that needs it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(MASK)
    }
}

impl FieldText {
    /// A value that is written.
    pub fn text(text: impl Into<String>) -> Self {
        Self { value: Some(Secret::new(text)), value_file: None }
    }
}

/// The long form of a header's value.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LongFieldText {
    /// The text.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    /// A file that holds the whole value, for secrets. A line break at its end does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    value_file: Option<PathBuf>,
}

/// Most headers are no secrets: which ones are is known by their names, where these are.
impl Serialize for FieldText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = self.value.as_ref().map(Secret::reveal);
        match (text, &self.value_file) {
            (Some(text), None) => serializer.serialize_str(text),
            (text, file) => {
                let value = text.map(str::to_owned);
                LongFieldText { value, value_file: file.clone() }.serialize(serializer)
            }
        }
    }
}

impl<'de> Deserialize<'de> for FieldText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reads;

        impl<'de> Visitor<'de> for Reads {
            type Value = FieldText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text, or a section with value_file")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<FieldText, E> {
                Ok(FieldText::text(text))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<FieldText, A::Error> {
                let LongFieldText { value, value_file } =
                    LongFieldText::deserialize(MapAccessDeserializer::new(map))?;
                Ok(FieldText { value: value.map(Secret::new), value_file })
            }
        }

        deserializer.deserialize_any(Reads)
    }
}

impl JsonSchema for FieldText {
    fn schema_name() -> Cow<'static, str> {
        "FieldText".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let long = generator.subschema_for::<LongFieldText>();
        json_schema!({
            "description": "The value, or a section with `value_file`, a file that holds it.",
            "anyOf": [{"type": "string"}, long]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_shown_by_nothing() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?}"), MASK);
        assert_eq!(format!("{:?}", FieldText::text("hunter2")).matches("hunter2").count(), 0);
        assert_eq!(serde_json::to_string(&secret).expect("JSON"), format!("\"{MASK}\""));
        assert_eq!(secret.reveal(), "hunter2");
    }
}
