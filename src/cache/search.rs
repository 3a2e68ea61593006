//! Which parts of a query do not matter, as a response says in `No-Vary-Search`
//! (draft-ietf-httpbis-no-vary-search): what was made for one URL may answer every URL of the same path
//! whose query comes to the same.
//!
//! The field speaks of its own response. A URL is *equivalent* to the one that it answered where what is
//! left of both queries, after what does not matter is gone, is the same.

use std::borrow::Cow;
use std::fmt;

use http::HeaderMap;
use http::HeaderName;

use crate::cache::dictionary;
use crate::cache::dictionary::Value;
use crate::cache::key;

/// Where a response says it.
pub const NO_VARY_SEARCH: HeaderName = HeaderName::from_static("no-vary-search");

/// A field that is longer counts for nothing: rules are remembered.
const LONGEST: usize = 1024;

/// What of a query matters. What the draft calls the default, all of it, is no variance: each URL is then
/// its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Variance {
    parameters: Parameters,
    order: Order,
}

/// Which parameters matter; the names decoded, sorted, each once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Parameters {
    /// All but these.
    Except(Box<[Vec<u8>]>),
    /// Only these.
    Only(Box<[Vec<u8>]>),
}

/// Whether the order of parameters of different names matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Order {
    Matters,
    DoesNot,
}

/// One parameter, decoded: its name and its value.
pub type Parameter<'q> = (Cow<'q, [u8]>, Cow<'q, [u8]>);

impl Variance {
    /// What a response says. `None`: nothing, or that all matters; and so it is read where anything in
    /// the field is not as it should be.
    pub fn of(response: &HeaderMap) -> Option<Self> {
        let mut text = Vec::new();
        for line in response.get_all(NO_VARY_SEARCH) {
            if !text.is_empty() {
                text.extend_from_slice(b", ");
            }
            text.extend_from_slice(line.as_bytes());
        }
        if text.len() > LONGEST {
            return None;
        }
        Self::read(&dictionary::parse(&text)?)
    }

    fn read(dictionary: &[(String, Value)]) -> Option<Self> {
        let said = |name: &str| dictionary.iter().find(|(key, _)| key == name).map(|(_, v)| v);
        let order = match said("key-order") {
            None | Some(Value::Boolean(false)) => Order::Matters,
            Some(Value::Boolean(true)) => Order::DoesNot,
            Some(_) => return None,
        };
        let parameters = match (said("params"), said("except")) {
            (None | Some(Value::Boolean(false)), None) => Parameters::Except(Box::default()),
            (Some(Value::List(items)), None) => Parameters::Except(names(items)?),
            (Some(Value::Boolean(true)), None) => Parameters::Only(Box::default()),
            (Some(Value::Boolean(true)), Some(Value::List(items))) => {
                Parameters::Only(names(items)?)
            }
            (_, _) => return None,
        };
        let all_matter = matches!(&parameters, Parameters::Except(names) if names.is_empty());
        (!all_matter || order == Order::DoesNot).then_some(Self { parameters, order })
    }

    /// What matters of these parameters of a query, as they are written: two queries are equivalent when
    /// this is the same of both.
    ///
    /// Names and values are compared as bytes. The draft would have those that are no UTF-8 compared as
    /// replacement characters, by which all that an origin tells apart in another encoding would be one.
    pub fn left<'q>(&self, parameters: impl IntoIterator<Item = &'q str>) -> Vec<Parameter<'q>> {
        let written = parameters.into_iter().filter(|parameter| !parameter.is_empty());
        let mut left: Vec<Parameter<'q>> = written
            .map(|parameter| (parameter, parameter.split_once('=').unwrap_or((parameter, ""))))
            // An origin that separates at semicolons too may read any name in there.
            .map(|(whole, (name, value))| (whole.contains(';'), key::decode(name), value))
            .filter(|(always, name, _)| *always || self.matters(name))
            .map(|(_, name, value)| (name, key::decode(value)))
            .collect();
        if self.order == Order::DoesNot {
            // A stable sort: the order among parameters of one name matters always.
            left.sort_by(|(one, _), (other, _)| one.cmp(other));
        }
        left
    }

    fn matters(&self, name: &[u8]) -> bool {
        match &self.parameters {
            Parameters::Except(names) => !is_one_of(name, names),
            Parameters::Only(names) => is_one_of(name, names),
        }
    }
}

/// As a response says it, in one of several ways.
impl fmt::Display for Variance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, names) = match &self.parameters {
            Parameters::Except(names) => ("params=(", names),
            Parameters::Only(names) => ("params, except=(", names),
        };
        f.write_str(word)?;
        for (n, name) in names.iter().enumerate() {
            let gap = if n == 0 { "" } else { " " };
            write!(f, "{gap}\"{}\"", name.escape_ascii())?;
        }
        f.write_str(")")?;
        match self.order {
            Order::Matters => Ok(()),
            Order::DoesNot => f.write_str(", key-order"),
        }
    }
}

fn is_one_of(name: &[u8], names: &[Vec<u8>]) -> bool {
    names.binary_search_by(|known| known.as_slice().cmp(name)).is_ok()
}

/// The names in a list of strings, as parameters have them once decoded.
fn names(items: &[Value]) -> Option<Box<[Vec<u8>]>> {
    let name = |item: &Value| match item {
        Value::Text(text) => Some(key::decode(text).into_owned()),
        Value::Boolean(_) | Value::Integer(_) | Value::Token(_) | Value::List(_) | Value::Other => {
            None
        }
    };
    let mut names = items.iter().map(name).collect::<Option<Vec<_>>>()?;
    names.sort_unstable();
    names.dedup();
    Some(names.into_boxed_slice())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn variance(lines: &[&str]) -> Option<Variance> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(NO_VARY_SEARCH, HeaderValue::from_str(line).unwrap());
        }
        Variance::of(&headers)
    }

    fn said(line: &str) -> Variance {
        variance(&[line]).unwrap_or_else(|| panic!("{line} says something"))
    }

    fn equivalent(variance: &Variance, one: &str, other: &str) -> bool {
        variance.left(one.split('&')) == variance.left(other.split('&'))
    }

    #[test]
    fn what_says_that_all_matters_is_no_variance() {
        assert_eq!(variance(&[]), None);
        for line in ["", "params=?0", "params=()", "key-order=?0", "unknown", "x=1, y=(\"a\")"] {
            assert_eq!(variance(&[line]), None, "{line}");
        }
    }

    #[test]
    fn one_thing_that_is_not_as_it_should_be_voids_the_field() {
        for line in [
            "key-order=\"true\"",
            "key-order=1, params",
            "params=\"a\"",
            "params=(a)",
            "params=(\"a\" 1)",
            "params=1",
            "params=(\"a\"), except=(\"x\")",
            "params=(), except=()",
            "params=?0, except=(\"x\")",
            "params, except=(x)",
            "params, except=\"x\"",
            "params, except=?1",
            "params, except",
            "except=(\"x\")",
            "except=()",
            "params=(\"a\"",
            "params,, key-order",
            "Params",
        ] {
            assert_eq!(variance(&[line]), None, "{line}");
        }
        let long = format!("params=(\"{}\")", "a".repeat(LONGEST));
        assert_eq!(variance(&[&long]), None);
    }

    #[test]
    fn the_same_can_be_said_in_several_ways() {
        assert_eq!(said("params=?1"), said("params"));
        assert_eq!(said("params, except=()"), said("params"));
        assert_eq!(said("key-order=?1"), said("key-order"));
        assert_eq!(
            said("params, key-order, except=(\"x\")"),
            said("key-order, params, except=(\"x\")")
        );
        assert_eq!(said("params=(\"b\" \"a\" \"b\")"), said("params=(\"a\" \"%62\")"));
        assert_eq!(said("params=(\"a\";q=1);x, future=7"), said("params=(\"a\")"));
        assert_eq!(variance(&["key-order", "params"]), variance(&["params, key-order"]));
    }

    #[test]
    fn what_is_shown_says_the_same() {
        for line in
            ["params=(\"a\" \"b\")", "params", "params, except=(\"id\"), key-order", "key-order"]
        {
            assert_eq!(said(&said(line).to_string()), said(line), "{line}");
        }
    }

    #[test]
    fn listed_parameters_do_not_matter() {
        let utm = said("params=(\"utm_source\" \"utm_medium\")");
        assert!(equivalent(&utm, "id=1&utm_source=x", "utm_medium=y&id=1"));
        assert!(equivalent(&utm, "%75tm_source=x&id=1", "id=1"));
        assert!(!equivalent(&utm, "id=1", "id=2"));
        assert!(!equivalent(&utm, "a=1&b=2", "b=2&a=1"), "the order matters");
    }

    #[test]
    fn none_but_the_excepted_parameters_matter() {
        let only = said("params, except=(\"id\")");
        assert!(equivalent(&only, "id=1&x=2", "y=3&id=1"));
        assert!(!equivalent(&only, "id=1", "id=2") && !equivalent(&only, "id=1", ""));
        assert!(equivalent(&said("params"), "id=1", "x"));
    }

    #[test]
    fn the_order_matters_among_parameters_of_one_name() {
        let any_order = said("key-order");
        assert!(equivalent(&any_order, "a=1&b=2&a=3", "b=2&a=1&a=3"));
        assert!(!equivalent(&any_order, "a=1&a=3", "a=3&a=1"));
    }

    #[test]
    fn queries_are_compared_as_forms_write_them() {
        let any = said("key-order");
        for (one, other) in
            [("", "&&"), ("a=x", "%61=%78"), ("a=x&&&&", "a=x"), ("a=", "a"), ("a=%20", "a=+")]
        {
            assert!(equivalent(&any, one, other), "{one} {other}");
        }
        let named = said("params=(\"%C3%A9+%E6%B0%97\")");
        assert!(equivalent(&named, "é 気=1", "%C3%A9%20%E6%B0%97=4&"));
    }

    #[test]
    fn what_is_no_utf_8_is_told_apart() {
        assert!(!equivalent(&said("key-order"), "q=%f6", "q=%fc"));
        assert!(!equivalent(&said("key-order"), "q=%f6", "q=%ef%bf%bd"));
    }

    #[test]
    fn a_parameter_with_a_semicolon_matters_always() {
        assert!(!equivalent(&said("params=(\"a\")"), "a=1;b=2", "a=1"));
        assert!(!equivalent(&said("params"), "a=1;b=2", "a=1;b=3"));
    }

    proptest! {
        #[test]
        fn reading_never_panics_and_what_matters_is_of_the_query(
            field in "[ -~]{0,40}",
            query in "[a-c=&%+;2]{0,30}",
        ) {
            if let Some(variance) = variance(&[&field]) {
                let left = variance.left(query.split('&'));
                prop_assert!(left.len() <= query.split('&').count());
            }
        }

        #[test]
        fn what_does_not_matter_can_be_added_anywhere(
            query in proptest::collection::vec(("[a-c]", "[x-z]{0,2}"), 0..6),
            at in 0_usize..7,
        ) {
            let variance = said("params=(\"utm\")");
            let mut parameters: Vec<String> =
                query.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let before = parameters.join("&");
            parameters.insert(at.min(parameters.len()), "%75tm=whatever".to_owned());
            prop_assert!(equivalent(&variance, &before, &parameters.join("&")));
        }
    }
}
