//! Conditions of a route on a request: a field, a cookie or a query parameter.

use std::borrow::Cow;

use http::HeaderMap;
use http::HeaderName;

use crate::cache::Request;
use crate::cache::key;

/// A condition on one thing that a request may say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Where it is said.
    pub place: Place,
    /// What it has to be.
    pub wanted: Wanted,
}

/// Where a request says something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In this field.
    Header(HeaderName),
    /// In these cookies.
    Cookie(Names),
    /// In this query parameter.
    Query(String),
}

/// Names of cookies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Names {
    /// This one.
    One(String),
    /// All that begin like this, as where an application puts what nobody knows beforehand behind.
    Prefix(String),
}

impl Names {
    /// Names as they are written: a `*` at the end stands for whatever follows.
    pub fn read(text: &str) -> Self {
        match text.strip_suffix('*') {
            Some(prefix) => Self::Prefix(prefix.to_owned()),
            None => Self::One(text.to_owned()),
        }
    }

    fn contain(&self, name: &[u8]) -> bool {
        match self {
            Self::One(one) => name == one.as_bytes(),
            Self::Prefix(prefix) => name.starts_with(prefix.as_bytes()),
        }
    }
}

/// What a value has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// There.
    Present,
    /// Not there.
    Absent,
    /// One of the values is exactly this.
    Exact(String),
    /// One of the values begins with this.
    Prefix(String),
}

impl Condition {
    /// Whether a request meets it. What is said several times meets it with any one of its values.
    pub fn holds(&self, request: &Request<'_>) -> bool {
        match &self.place {
            Place::Header(name) => {
                let lines = request.headers.get_all(name).iter();
                self.wanted.is_met(lines.map(|line| Cow::Borrowed(line.as_bytes())))
            }
            Place::Cookie(names) => self.wanted.is_met(cookies(request.headers, names)),
            Place::Query(name) => self.wanted.is_met(parameters(request.query, name)),
        }
    }
}

impl Wanted {
    fn is_met<'v>(&self, mut values: impl Iterator<Item = Cow<'v, [u8]>>) -> bool {
        match self {
            Self::Present => values.next().is_some(),
            Self::Absent => values.next().is_none(),
            Self::Exact(text) => values.any(|value| *value == *text.as_bytes()),
            Self::Prefix(text) => values.any(|value| value.starts_with(text.as_bytes())),
        }
    }
}

fn cookies<'r>(headers: &'r HeaderMap, names: &'r Names) -> impl Iterator<Item = Cow<'r, [u8]>> {
    key::cookies(headers)
        .filter(move |(said, _)| names.contain(said))
        .map(|(_, value)| Cow::Borrowed(value))
}

fn parameters<'r>(query: Option<&'r str>, name: &'r str) -> impl Iterator<Item = Cow<'r, [u8]>> {
    query.into_iter().flat_map(|query| query.split('&')).filter_map(move |parameter| {
        let (said, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        (*key::decode(said) == *name.as_bytes()).then(|| key::decode(value))
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::Method;
    use http::header;

    use super::*;

    fn holds(place: Place, wanted: Wanted) -> bool {
        let headers = HeaderMap::from_iter([
            (header::COOKIE, HeaderValue::from_static("a=1; session=abc; a=2")),
            (header::ACCEPT, HeaderValue::from_static("text/html")),
        ]);
        let method = Method::GET;
        let request = Request::new(&method, &headers).with_target("/", Some("x=1&%79=a+b&z"));
        Condition { place, wanted }.holds(&request)
    }

    fn exact(text: &str) -> Wanted {
        Wanted::Exact(text.to_owned())
    }

    #[test]
    fn a_cookie_meets_a_condition_with_any_of_its_values() {
        let cookie = |wanted| holds(Place::Cookie(Names::read("a")), wanted);
        assert!(cookie(exact("1")) && cookie(exact("2")) && !cookie(exact("3")));
        assert!(cookie(Wanted::Present) && !cookie(Wanted::Absent));
        assert!(holds(Place::Cookie(Names::read("session")), Wanted::Prefix("ab".to_owned())));
        assert!(!holds(Place::Cookie(Names::read("sess")), Wanted::Present));
    }

    #[test]
    fn cookies_are_named_by_how_they_begin_as_well() {
        let cookies = |names: &str, wanted| holds(Place::Cookie(Names::read(names)), wanted);
        assert!(cookies("sess*", Wanted::Present) && cookies("session*", Wanted::Present));
        assert!(!cookies("ess*", Wanted::Present) && cookies("sessions*", Wanted::Absent));
        assert!(cookies("s*", exact("abc")) && !cookies("s*", exact("1")));
        assert!(cookies("*", exact("2")) && !cookies("*", Wanted::Absent));
    }

    #[test]
    fn parameters_are_read_decoded() {
        let query = |name: &str, wanted| holds(Place::Query(name.to_owned()), wanted);
        assert!(query("y", exact("a b")) && query("x", exact("1")));
        assert!(query("z", Wanted::Present) && query("z", exact("")));
        assert!(query("w", Wanted::Absent) && !query("x", Wanted::Absent));
    }

    #[test]
    fn a_field_is_compared_line_by_line() {
        let accept = |wanted| holds(Place::Header(header::ACCEPT), wanted);
        assert!(accept(Wanted::Prefix("text/".to_owned())) && !accept(exact("text")));
        assert!(holds(Place::Header(header::RANGE), Wanted::Absent));
    }
}
