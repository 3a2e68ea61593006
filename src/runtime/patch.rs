//! What is to be different about a backend, as operators write it: what is not named stays (RFC 7396).

use std::fmt;

use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::de::Error;
use serde::de::MapAccess;
use serde::de::Visitor;
use serde_json::Map;
use serde_json::Value;

use crate::config;
use crate::config::schema::upstream::OriginTls;
use crate::config::schema::value::Switch;
use crate::message::target::Scheme;
use crate::upstream;
use crate::upstream::drift::Adjustment;

/// What is to be different; what is `None` stays as it is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Patch {
    /// Where it is.
    #[serde(deserialize_with = "named", skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// TLS towards it: `on`, `off`, or those of its keys that are to be different, where `null` stands for the default.
    /// `null` for all of it is what the upstream has.
    #[serde(deserialize_with = "named_once", skip_serializing_if = "Option::is_none")]
    pub tls: Option<Value>,
    /// Its share of requests relative to its siblings.
    #[serde(deserialize_with = "named", skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// Whether it gets requests.
    #[serde(deserialize_with = "named", skip_serializing_if = "Option::is_none")]
    pub active: Option<bool>,
    /// Whether it serves only while the others cannot.
    #[serde(deserialize_with = "named", skip_serializing_if = "Option::is_none")]
    pub backup: Option<bool>,
}

/// What is named, `null` included: it is a value, or none that fits.
fn named<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// The same of keys, none of which comes twice: whoever looked at it before may have heeded the other one.
fn named_once<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Value>, D::Error> {
    Said::deserialize(from).map(|said| match said {
        Said::Keys(keys) => Some(Value::Object(keys)),
        Said::Other(value) => Some(value),
    })
}

/// A value of JSON; of an object, with each key once.
enum Said {
    Keys(Map<String, Value>),
    Other(Value),
}

impl<'de> Deserialize<'de> for Said {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Saying)
    }
}

struct Saying;

impl<'de> Visitor<'de> for Saying {
    type Value = Said;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("on, off or a section of keys and values")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Said, A::Error> {
        let mut keys = Map::new();
        while let Some((key, value)) = from.next_entry::<String, Value>()? {
            if keys.contains_key(&key) {
                return Err(A::Error::custom(format_args!("duplicate field `{key}`")));
            }
            keys.insert(key, value);
        }
        Ok(Said::Keys(keys))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Said, E> {
        Ok(Said::Other(text.into()))
    }

    fn visit_bool<E: Error>(self, is: bool) -> Result<Said, E> {
        Ok(Said::Other(is.into()))
    }

    fn visit_unit<E: Error>(self) -> Result<Said, E> {
        Ok(Said::Other(Value::Null))
    }
}

impl Patch {
    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it says where the backend is, or how it is spoken to.
    #[must_use]
    pub fn relocates(&self) -> bool {
        self.address.is_some() || self.tls.is_some()
    }

    /// The rest of it.
    #[must_use]
    pub fn adjustment(&self) -> Adjustment {
        let Self { weight, active, backup, .. } = *self;
        Adjustment { weight, active, backup }
    }

    /// `backend` with this, in an upstream of these settings.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn over(
        &self,
        backend: &upstream::Backend,
        settings: &upstream::Settings,
    ) -> Result<upstream::Backend, String> {
        let mut meant = backend.clone();
        self.adjustment().apply(&mut meant);
        let mut written = config::written(&meant);
        if let Some(address) = &self.address {
            if address.starts_with("srv:") && self.weight.is_none() && meant.weight != 1 {
                return Err(format!(
                    "its weight is {}, and the records of a service say the weights; write `\"weight\": 1`, too",
                    meant.weight
                ));
            }
            written.address.clone_from(address);
        }
        written.tls = match (&self.tls, self.address.as_deref().and_then(config::scheme)) {
            (Some(Value::Null), _) => None,
            (Some(tls), _) => Some(laid_over(written.tls.as_ref(), tls)?),
            // As the address says. Keys of its own stay where they still mean something.
            (None, Some(Scheme::Http)) => None,
            (None, Some(Scheme::Https)) => written.tls.filter(|tls| *tls != Switch::Off),
            (None, None) => written.tls,
        };
        config::backend_of(&backend.id, &written, settings.tls.as_ref())
    }

    /// What it says, for the log.
    #[must_use]
    pub fn told(&self) -> String {
        let Self { address, tls, weight, active, backup } = self;
        let parts = [
            address.as_ref().map(|address| format!("address:{address}")),
            tls.as_ref().map(|tls| format!("tls:{tls}")),
            weight.map(|weight| format!("weight:{weight}")),
            active.map(|active| format!("active:{active}")),
            backup.map(|backup| format!("backup:{backup}")),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(",")
    }
}

/// `tls` laid over the settings that there are: of a section, the keys that it names.
fn laid_over(there: Option<&Switch<OriginTls>>, tls: &Value) -> Result<Switch<OriginTls>, String> {
    let merged = match (there, tls) {
        (Some(Switch::On(there)), Value::Object(keys)) => {
            let mut all = serde_json::to_value(there).map_err(|e| e.to_string())?;
            if let Value::Object(all) = &mut all {
                all.extend(keys.clone());
            }
            all
        }
        (_, tls) => tls.clone(),
    };
    let merged = match merged {
        Value::Object(mut all) => {
            all.retain(|_, value| !value.is_null());
            Value::Object(all)
        }
        other => other,
    };
    serde_json::from_value(merged).map_err(|e| format!("tls: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::schema::upstream::Address;
    use crate::upstream::Backend;
    use crate::upstream::Settings;

    /// The settings of an upstream with these keys.
    fn upstream(keys: &str) -> Settings {
        let text = format!(
            "listeners: [{{address: \"127.0.0.1:0\"}}]\n\
             upstreams: {{app: {{addresses: [\"a.test:1\"], {keys}}}}}\nroutes: [{{upstream: app}}]\n"
        );
        let mut plan = config::from_text(&text, "test").expect("it is valid").plan;
        plan.upstreams.remove(0)
    }

    fn patch(text: &str) -> Patch {
        serde_json::from_str(text).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    /// A backend as the long form of an address says, under the id `one`.
    fn backend(written: &str, settings: &Settings) -> Backend {
        let written: Address = serde_json::from_str(written).expect("it is one");
        config::backend_of("one", &written, settings.tls.as_ref()).expect("it can be used")
    }

    #[test]
    fn what_is_not_named_stays_and_null_is_the_default() {
        const OWN: &str = r#"{"address": "a.test:443", "weight": 3, "active": false, "backup": true,
            "tls": {"server_name": "in.test", "ca": "/a.pem"}}"#;
        let of = |address: &str, tls: &str| {
            format!(
                "{{\"address\": \"{address}\", \"weight\": 3, \"active\": false, \"backup\": true, \
                 \"tls\": {tls}}}"
            )
        };
        let own = r#"{"server_name": "in.test", "ca": "/a.pem"}"#;
        let settings = upstream("tls: {ca: /outer.pem}");
        for (said, then) in [
            (r#"{"address": "b.test:8443"}"#, of("b.test:8443", own)),
            (r#"{"address": "https://b.test"}"#, of("b.test:443", own)),
            (r#"{"address": "unix:/run/a.sock"}"#, of("unix:/run/a.sock", own)),
            (r#"{"address": "http://b.test"}"#, of("b.test:80", "\"off\"")),
            (r#"{"tls": "off"}"#, of("a.test:443", "\"off\"")),
            (r#"{"tls": "on"}"#, of("a.test:443", "\"on\"")),
            (r#"{"tls": {}}"#, of("a.test:443", own)),
            (r#"{"tls": null}"#, of("a.test:443", r#"{"ca": "/outer.pem"}"#)),
            (r#"{"address": "http://b.test", "tls": null}"#, of("b.test:80", "\"off\"")),
            (
                r#"{"tls": {"ca": "/b.pem"}}"#,
                of("a.test:443", r#"{"server_name": "in.test", "ca": "/b.pem"}"#),
            ),
            (r#"{"tls": {"server_name": null}}"#, of("a.test:443", r#"{"ca": "/a.pem"}"#)),
            (
                r#"{"tls": {"verify": false, "ca": null}}"#,
                of("a.test:443", r#"{"server_name": "in.test", "verify": false}"#),
            ),
        ] {
            let changed = patch(said).over(&backend(OWN, &settings), &settings);
            assert_eq!(changed, Ok(backend(&then, &settings)), "{said}");
        }
        let all = patch(r#"{"address": "b.test:1", "weight": 9, "active": true, "backup": false}"#);
        let changed = all.over(&backend(OWN, &settings), &settings).unwrap();
        assert_eq!((changed.weight, changed.active, changed.backup), (9, true, false));
    }

    #[test]
    fn of_one_in_plain_text_keys_are_laid_over_the_defaults() {
        let plain = r#"{"address": "a.test:443", "tls": "off"}"#;
        let settings = upstream("tls: {ca: /outer.pem, server_name: out.test}");
        for (said, then) in [
            (
                r#"{"tls": {"ca": "/b.pem"}}"#,
                r#"{"address": "a.test:443", "tls": {"ca": "/b.pem"}}"#,
            ),
            (r#"{"address": "https://b.test"}"#, r#"{"address": "https://b.test"}"#),
            (r#"{"address": "b.test:1"}"#, r#"{"address": "b.test:1", "tls": "off"}"#),
        ] {
            let changed = patch(said).over(&backend(plain, &settings), &settings);
            assert_eq!(changed, Ok(backend(then, &settings)), "{said}");
        }
    }

    #[test]
    fn an_id_that_is_an_address_stays() {
        let settings = upstream("");
        let one = Backend { id: "http://a.test:1".into(), ..settings.backends[0].clone() };
        let changed = patch(r#"{"address": "unix:/run/a.sock"}"#).over(&one, &settings).unwrap();
        assert_eq!(&*changed.id, "http://a.test:1");
    }

    #[test]
    fn what_contradicts_is_told() {
        let settings = upstream("");
        let own = backend(
            r#"{"address": "a.test:443", "weight": 3, "tls": {"ca": "/a.pem"}}"#,
            &settings,
        );
        for (said, why) in [
            (r#"{"address": "http://a.test", "tls": {"ca": "/b.pem"}}"#, "the address says http"),
            (r#"{"address": "https://a.test", "tls": "off"}"#, "the address says https"),
            (r#"{"address": "unix:/a.sock"}"#, "TLS over a socket needs `tls.server_name`"),
            (r#"{"address": "demo"}"#, "plain text"),
            (r#"{"address": "a"}"#, "add the port"),
            (r#"{"address": ""}"#, "address"),
            (r#"{"address": "srv:_http._tcp.a.test"}"#, "write `\"weight\": 1`, too"),
            (r#"{"tls": {"verify": false}}"#, "`ca` has no effect with `verify: false`"),
            (r#"{"tls": {"certificate": "/b.pem"}}"#, "its private key is missing"),
            (r#"{"tls": {"sever_name": "b"}}"#, "unknown field `sever_name`"),
            (r#"{"tls": {"ca": "b.pem"}}"#, "begin it with a slash"),
            (r#"{"tls": "maybe"}"#, "on, off or a section"),
            (r#"{"weight": 0}"#, "weight: 0 is out of range"),
        ] {
            let wrong = patch(said).over(&own, &settings).expect_err(said);
            assert!(wrong.contains(why), "{said}: {wrong}");
        }
        for said in [
            r#"{"address": null}"#,
            r#"{"weight": null}"#,
            r#"{"adress": "a:1"}"#,
            r#"{"tls": 1}"#,
            r#"{"tls": {"verify": true, "verify": false}}"#,
        ] {
            assert!(serde_json::from_str::<Patch>(said).is_err(), "{said}");
        }
    }
}
