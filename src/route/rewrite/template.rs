//! Text with places, for the Location of a redirect and for the Host that an origin sees.

use std::fmt;
use std::sync::Arc;

use crate::route::captures::Captures;
use crate::route::captures::RESERVED;
use crate::route::encode;
use crate::route::encode::Place;

/// Text with `{name}` places, filled from captures and from the request
/// (`{scheme}`, `{host}`, `{path}`, `{query}`). `{{` and `}}` are braces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
    form: Form,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    Scheme,
    Host,
    Path,
    Query,
    Capture(Arc<str>),
}

/// How a template begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// With a scheme or with two slashes: an authority follows.
    Absolute,
    /// With a slash, or with the request's path.
    Path,
    /// With something else, which is good for a host only.
    Other,
}

/// What the places of a template are filled from, all in the normal form of [`crate::route::Ask`].
#[derive(Debug, Clone, Copy)]
pub struct Values<'a> {
    /// `http` or `https`.
    pub scheme: &'a str,
    /// The host, with a port if the result shall have one.
    pub host: &'a str,
    /// The path.
    pub path: &'a str,
    /// The query.
    pub query: Option<&'a str>,
    /// What the route's path captured.
    pub captures: &'a Captures,
}

/// A filled template is no host: a capture held bytes that no host name has, or was empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadHost;

impl Template {
    /// Reads a template; `captures` are the names that the route's path offers.
    ///
    /// Where text begins with a scheme or two slashes, a capture may be a label of the host only if
    /// literal text follows it there, as in `https://{shop}.example.org/`; otherwise whoever asks
    /// could choose where the redirect leads.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn parse(text: &str, captures: &[String]) -> Result<Self, String> {
        let parts = read(text, captures)?;
        let form = form(&parts);
        if form == Form::Absolute {
            check_authority(text, &parts)?;
        }
        let mut has_query = false;
        for part in &parts {
            match part {
                Part::Text(literal) => has_query |= literal.contains('?'),
                Part::Query if !has_query => {
                    return Err(format!("in `{text}` a `?` is missing: write `?{{query}}`"));
                }
                Part::Scheme | Part::Host | Part::Path | Part::Query | Part::Capture(_) => {}
            }
        }
        Ok(Self { parts, form })
    }

    /// Whether the template can be a Location.
    ///
    /// # Errors
    /// A sentence that says what to write instead.
    pub fn check_location(&self) -> Result<(), String> {
        match self.form {
            Form::Absolute | Form::Path => Ok(()),
            Form::Other => Err(format!(
                "a redirect leads to a URL or a path: begin `{self}` with `https://`, \
                 `{{scheme}}://`, `/` or `{{path}}`"
            )),
        }
    }

    /// Whether the template can be a Host.
    ///
    /// # Errors
    /// A sentence that says what to write instead.
    pub fn check_host(&self) -> Result<(), String> {
        let fits = |part: &Part| match part {
            Part::Text(text) => text.bytes().all(may_stand_in_host),
            Part::Host | Part::Capture(_) => true,
            Part::Scheme | Part::Path | Part::Query => false,
        };
        if self.parts.is_empty() || !self.parts.iter().all(fits) {
            return Err(format!(
                "`{self}` is not a host: write a name with or without a port, such as \
                 `www.example.org:8080`; only `{{host}}` and captures can stand in it"
            ));
        }
        Ok(())
    }

    /// The filled template as the value of a Location field: visible ASCII only, and leading to
    /// where the template's author said. Captures and the path are data wherever they stand: they
    /// start no other pair of a query and no other host. A path template begins with exactly one
    /// slash in the end (two would name a host), and a `?` or `&` before an empty `{query}` goes.
    #[must_use]
    pub fn render(&self, values: &Values<'_>) -> String {
        let mut location = Location::new(self.form);
        for part in &self.parts {
            match part {
                Part::Text(text) => location.text(text),
                Part::Scheme => location.value(values.scheme),
                Part::Host => location.host(values.host),
                Part::Path => location.path(values.path),
                Part::Query => location.query(values.query.unwrap_or_default()),
                Part::Capture(name) => location.value(values.captures.get(name).unwrap_or("")),
            }
        }
        location.finish(self.form)
    }

    /// The filled template as a host in lower case, with a port if the template has one.
    ///
    /// # Errors
    /// Where the result is no host; the request is at fault if [`Template::check_host`] passed.
    pub fn render_host(&self, values: &Values<'_>) -> Result<String, BadHost> {
        let mut out = String::with_capacity(64);
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Host => out.push_str(values.host),
                Part::Capture(name) => {
                    let label = values.captures.get(name).unwrap_or_default();
                    if label.is_empty() || label.bytes().any(|byte| b":[]".contains(&byte)) {
                        return Err(BadHost);
                    }
                    out.push_str(label);
                }
                Part::Scheme | Part::Path | Part::Query => return Err(BadHost),
            }
        }
        let name = out.split(':').next().unwrap_or_default();
        let is_host = out.bytes().all(may_stand_in_host)
            && (1..=255).contains(&out.len())
            && !name.is_empty()
            && !name.starts_with('.')
            && !name.contains("..");
        out.make_ascii_lowercase();
        is_host.then_some(out).ok_or(BadHost)
    }
}

/// A Location as it grows.
struct Location {
    out: String,
    at: At,
}

/// Where in the URL the next byte is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Scheme,
    Authority,
    Path,
    /// The query, or the fragment.
    Query,
}

impl Location {
    fn new(form: Form) -> Self {
        let at = if form == Form::Absolute { At::Scheme } else { At::Path };
        Self { out: String::with_capacity(128), at }
    }

    /// Literal text: its `/`, `?` and `#` are structure.
    fn text(&mut self, text: &str) {
        let mut rest = text;
        if self.at == At::Scheme
            && let Some(slashes) = rest.find("//")
        {
            self.out.push_str(&rest[..slashes + 2]);
            rest = &rest[slashes + 2..];
            self.at = At::Authority;
        }
        if matches!(self.at, At::Scheme | At::Authority) {
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            // Checked when it was read: there are only bytes of a host.
            self.out.push_str(&rest[..end]);
            rest = &rest[end..];
            if !rest.is_empty() {
                self.at = At::Path;
            }
        }
        if self.at == At::Path {
            let end = rest.find(['?', '#']).unwrap_or(rest.len());
            encode::push(&mut self.out, &rest[..end], Place::Path);
            rest = &rest[end..];
            if !rest.is_empty() {
                self.at = At::Query;
            }
        }
        for (n, piece) in rest.split('#').enumerate() {
            if n > 0 {
                self.out.push('#');
            }
            encode::push(&mut self.out, piece, Place::Query);
        }
    }

    fn value(&mut self, value: &str) {
        let place = match self.at {
            At::Scheme | At::Authority => Place::Authority,
            At::Path => Place::Path,
            At::Query => Place::QueryValue,
        };
        encode::push(&mut self.out, value, place);
    }

    fn host(&mut self, host: &str) {
        match self.at {
            At::Scheme | At::Authority => {
                self.out.extend(host.bytes().filter(|&b| may_stand_in_host(b)).map(char::from));
            }
            At::Path | At::Query => self.value(host),
        }
    }

    fn path(&mut self, path: &str) {
        if matches!(self.at, At::Scheme | At::Authority) {
            self.at = At::Path;
            if !path.starts_with('/') {
                self.out.push('/');
            }
        }
        let doubled = self.at == At::Path && self.out.ends_with('/') && path.starts_with('/');
        self.value(if doubled { &path[1..] } else { path });
    }

    fn query(&mut self, query: &str) {
        if query.is_empty() && self.out.ends_with(['?', '&']) {
            self.out.pop();
        }
        encode::push(&mut self.out, query, Place::Query);
    }

    fn finish(self, form: Form) -> String {
        if form == Form::Absolute {
            return self.out;
        }
        // Two slashes at the front would be followed by a host (RFC 3986 §4.2).
        let inner = self.out.trim_start_matches('/');
        format!("/{inner}")
    }
}

fn read(text: &str, captures: &[String]) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let after = &rest[first.len_utf8()..];
        if matches!(first, '{' | '}') && after.starts_with(first) {
            literal.push(first);
            rest = &after[1..];
        } else if first == '}' {
            return Err(format!("in `{text}` a `}}` closes nothing: write `}}}}` for a brace"));
        } else if first == '{' {
            let Some((name, more)) = after.split_once('}') else {
                return Err(format!("in `{text}` a `{{` is not closed: write `{{{{` for a brace"));
            };
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal).into()));
            }
            parts.push(place(name, captures, text)?);
            rest = more;
        } else if first.is_control() || first == '\\' {
            return Err(format!("{text:?} has {first:?}, which no URL has: write it as `%XX`"));
        } else {
            literal.push(first);
            rest = after;
        }
    }
    if !literal.is_empty() {
        parts.push(Part::Text(literal.into()));
    }
    if parts.is_empty() {
        return Err("this is empty: write at least `{path}` or a host".to_owned());
    }
    Ok(parts)
}

fn place(name: &str, captures: &[String], text: &str) -> Result<Part, String> {
    Ok(match name {
        "scheme" => Part::Scheme,
        "host" => Part::Host,
        "path" => Part::Path,
        "query" => Part::Query,
        _ if captures.iter().any(|known| known == name) => Part::Capture(name.into()),
        _ => {
            let known = RESERVED.into_iter().chain(captures.iter().map(String::as_str));
            let known: Vec<String> = known.map(|name| format!("`{{{name}}}`")).collect();
            return Err(format!(
                "in `{text}` the name `{{{name}}}` is unknown; there are {}, and `{{{{` is a brace",
                known.join(", ")
            ));
        }
    })
}

fn form(parts: &[Part]) -> Form {
    match parts {
        [Part::Scheme, Part::Text(text), ..] if text.starts_with("://") => Form::Absolute,
        [Part::Text(text), ..] => {
            let scheme = text.split_once("://").map(|(scheme, _)| scheme);
            let is_scheme = |text: &str| {
                text.starts_with(|c: char| c.is_ascii_alphabetic())
                    && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
            };
            match scheme {
                Some(scheme) if is_scheme(scheme) => Form::Absolute,
                _ if text.starts_with("//") => Form::Absolute,
                _ if text.starts_with('/') => Form::Path,
                _ => Form::Other,
            }
        }
        [Part::Path, ..] => Form::Path,
        _ => Form::Other,
    }
}

/// Stands for a capture while an authority is checked; no text of a template holds it.
const CAPTURE: char = '\u{0}';

fn check_authority(text: &str, parts: &[Part]) -> Result<(), String> {
    let mut authority = String::new();
    let mut begun = false;
    for part in parts {
        match part {
            Part::Text(literal) => {
                let from = if begun { 0 } else { literal.find("//").map_or(0, |at| at + 2) };
                begun = true;
                let end = literal[from..].find(['/', '?', '#']);
                authority.push_str(&literal[from..end.map_or(literal.len(), |end| from + end)]);
                if end.is_some() {
                    break;
                }
            }
            Part::Capture(_) => authority.push(CAPTURE),
            Part::Host => authority.push('h'),
            Part::Scheme if !begun => {}
            Part::Path => break,
            Part::Scheme | Part::Query => {
                return Err(format!(
                    "in `{text}` a host has to follow the `//`: only `{{host}}` and captures can \
                     stand in it"
                ));
            }
        }
    }
    if authority.is_empty() {
        return Err(format!("in `{text}` no host follows the `//`: write one, or `{{host}}`"));
    }
    if let Some((_, domain)) = authority.rsplit_once(CAPTURE)
        && !(domain.starts_with('.') && domain.contains(|c: char| c.is_ascii_alphanumeric()))
    {
        return Err(format!(
            "in `{text}` whoever asks could choose the host: put a `/` before the capture, or a \
             domain behind it, as in `{{name}}.example.org`"
        ));
    }
    let odd = |c: &char| *c != CAPTURE && !u8::try_from(*c).is_ok_and(may_stand_in_host);
    match authority.chars().find(odd) {
        Some(odd) => Err(format!("in `{text}` a host cannot have {odd:?}")),
        None => Ok(()),
    }
}

/// Whether a byte may stand in a host with a port: names, addresses, brackets and the colon.
fn may_stand_in_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte)
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            match part {
                Part::Text(text) => {
                    f.write_str(&text.replace('{', "{{").replace('}', "}}"))?;
                }
                Part::Scheme => f.write_str("{scheme}")?,
                Part::Host => f.write_str("{host}")?,
                Part::Path => f.write_str("{path}")?,
                Part::Query => f.write_str("{query}")?,
                Part::Capture(name) => write!(f, "{{{name}}}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for BadHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request fills the host with bytes that no host has")
    }
}

impl std::error::Error for BadHost {}

#[cfg(test)]
mod tests;
