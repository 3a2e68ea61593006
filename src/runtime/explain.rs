//! Explaining what a request would get now, without asking for it: nothing is counted, stored or
//! refreshed by it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;
use std::time::SystemTime;

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::header;
use serde::Deserialize;
use serde::Serialize;

use crate::cache::Policy;
use crate::cache::Ranges;
use crate::cache::Request;
use crate::cache::course;
use crate::cache::course::Course;
use crate::cache::course::Stored;
use crate::cache::directives::RequestDirectives;
use crate::cache::explain;
use crate::cache::explain::Lately;
use crate::cache::key;
use crate::cache::key::Key;
use crate::cache::purge::Unclear;
use crate::cache::purge::Url;
use crate::cache::reuse::Origin;
use crate::cache::reuse::Reuse;
use crate::cache::reuse::may_serve;
use crate::cache::search;
use crate::cache::status::Outcome;
use crate::cache::storable::Forbids;
use crate::cache::surrogate;
use crate::cache::vary;
use crate::message::range::Spec;
use crate::message::secret;
use crate::message::target::Scheme;
use crate::route::Ask;
use crate::route::Route;
use crate::route::action::Action;
use crate::runtime::Runtime;
use crate::runtime::entrance::Arriving;
use crate::runtime::entrance::entrances;
use crate::runtime::life::life_of;
use crate::runtime::partial;
use crate::runtime::partial::Asking;
use crate::runtime::partial::Brought;
use crate::runtime::partial::First;
use crate::runtime::partial::Parts;
use crate::runtime::place;
use crate::runtime::place::Place;
use crate::storage::memory::Entry;
use crate::storage::variances::Rule;

/// The most variants that are told of.
const VARIANTS_MOST: usize = 16;

/// A request that somebody asks about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// The URL, with its scheme.
    pub url: String,
    /// The method.
    #[serde(default = "get")]
    pub method: String,
    /// Its fields: `[["Accept-Language", "de"]]`.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
}

/// What such a request would get now, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The method.
    pub method: String,
    /// The URL in its normal form.
    pub url: String,
    /// The route it takes; `None`: there is none.
    pub route: Option<String>,
    /// Why that one.
    pub routing: String,
    /// What listeners of this scheme do with it before the route counts, those that do something.
    pub listeners: Vec<String>,
    /// What it is stored under; `None`: the route asks no upstream.
    pub key: Option<KeyParts>,
    /// What is stored under that key, newest first.
    pub variants: Vec<Variant>,
    /// The freshness of the one that the request selects.
    pub freshness: Option<Freshness>,
    /// Whether a fetch of it failed a moment ago.
    pub failed_lately: bool,
    /// Whether an answer to it was not stored in the last minute.
    pub unstored_lately: bool,
    /// `hit`, `miss`, `stale`, `expired` or `bypass`, as in the access log; `None`: the cache is not
    /// asked, or the answer is a refusal.
    pub outcome: Option<&'static str>,
    /// As Cache-Status would begin.
    pub cache_status: Option<String>,
    /// The same in words.
    pub says: String,
    /// What would change it.
    pub change: Vec<&'static str>,
}

/// The parts of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyParts {
    /// The upstream.
    pub upstream: String,
    /// The zone of the store; `None` is the one without a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Whether the route shares what is stored with no other, since it changes what is asked for.
    pub route_alone: bool,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The host.
    pub host: String,
    /// The port, unless it is the scheme's own.
    pub port: Option<u16>,
    /// The path.
    pub path: String,
    /// The parameters that count, in the order in which they do; `None`: there is no query.
    pub query: Option<Vec<String>>,
    /// The rule of stored responses that the parameters are left by; `None`: the URL is its own.
    pub no_vary_search: Option<String>,
    /// The piece by which the answer begins, where objects are stored in pieces; counted from zero.
    pub piece: Option<u64>,
    /// The range that is wanted, where it is stored by itself.
    pub range: Option<String>,
    /// The fields that count, and what the request says in them.
    pub headers: BTreeMap<String, Vec<String>>,
    /// The cookies that count.
    pub cookies: Vec<String>,
}

/// A stored response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Variant {
    /// Whether the request selects it.
    pub selected: bool,
    /// Its status.
    pub status: u16,
    /// The fields that it varies by.
    pub vary: Vec<String>,
    /// Its age in seconds.
    pub age: u64,
    /// How much of its lifetime is left, in seconds; negative once it is stale.
    pub remaining: i64,
    /// The length of its body.
    pub body: u64,
    /// All the memory that it takes.
    pub size: u64,
    /// How often it was found.
    pub hits: u64,
    /// The seconds since it was last found, or stored.
    pub unused: u64,
    /// The route that stored it.
    pub route: Option<String>,
    /// Its tags.
    pub tags: Vec<String>,
    /// Whether a soft purge made it stale.
    pub softly_purged: bool,
}

/// How a lifetime and an age make a response fresh or stale; all in seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Freshness {
    /// Its lifetime.
    pub lifetime: u64,
    /// What says so.
    pub by: &'static str,
    /// How old it was when it came.
    pub age_at_arrival: u64,
    /// How long it has been here, or since it was last confirmed.
    pub here: u64,
    /// What is left; negative once it is stale.
    pub remaining: i64,
    /// For how long beyond its lifetime it serves while it is refreshed.
    pub stale_while_revalidate: u64,
    /// For how long beyond its lifetime it serves while the origin fails.
    pub stale_if_error: u64,
}

fn get() -> String {
    Method::GET.as_str().to_owned()
}

/// Explains what a request would get now.
///
/// # Errors
/// What is asked about could not be a request.
pub fn explain(runtime: &Runtime, question: &Question) -> Result<Explanation, Unclear> {
    let plan = &runtime.plan;
    let url = Url::parse(&question.url, &plan.normalisation)?;
    let Some(scheme) = url.scheme else {
        return Err(Unclear(format!(
            "\"{}\": write the scheme, `https://` or `http://`: routes and keys tell them apart",
            question.url
        )));
    };
    let method = Method::from_bytes(question.method.as_bytes())
        .ok()
        .filter(|method| !matches!(*method, Method::TRACE | Method::CONNECT))
        .ok_or_else(|| Unclear(format!("no request has the method \"{}\"", question.method)))?;
    let headers = fields(question, &url)?;
    let ask = Ask {
        method: &method,
        scheme,
        host: url.authority.host(),
        path: url.target.path(),
        query: url.target.query(),
        headers: &headers,
        client: None,
    };
    let found = plan.routes.find(&ask);
    let routing = plan.routes.explain(&ask).to_string();
    let target = url.target.to_string();
    let arriving = Arriving {
        scheme,
        host: ask.host,
        target: &target,
        action: found.as_ref().map(|found| &found.route.action),
    };
    let mut told = Explanation {
        method: method.to_string(),
        url: format!("{}://{}{}", scheme.as_str(), url.authority, url.target),
        route: found.as_ref().map(|found| found.route.name.to_string()),
        routing,
        listeners: entrances(plan, &arriving).iter().map(ToString::to_string).collect(),
        key: None,
        variants: Vec::new(),
        freshness: None,
        failed_lately: false,
        unstored_lately: false,
        outcome: None,
        cache_status: None,
        says: String::new(),
        change: Vec::new(),
    };
    let Some(found) = found else {
        told.says = if plan.routes.allowed(&ask).is_empty() {
            "answered 404: no route takes it".to_owned()
        } else {
            "answered 405: no route takes this method".to_owned()
        };
        return Ok(told);
    };
    match &found.route.action {
        Action::Upstream(_) => {
            let normal = found.route.cache.normal_form(&headers);
            let headers = normal.as_ref().unwrap_or(&headers);
            let asked = Asked { method: &method, headers, url: &url, scheme };
            of_the_cache(runtime, found.route, &asked, &mut told);
        }
        Action::Respond { status, .. } => told.says = format!("answered {status} by the route"),
        Action::Redirect { status, .. } => {
            told.says = format!("redirected ({status}) by the route")
        }
    }
    Ok(told)
}

/// The request, in its normal form.
struct Asked<'a> {
    method: &'a Method,
    headers: &'a HeaderMap,
    url: &'a Url,
    scheme: Scheme,
}

/// Where in the store the answer to a request is looked for.
enum Looked {
    /// Under this key.
    At(Place, Which),
    /// In these parts of the object.
    InParts(Parts),
    /// Nowhere.
    Nowhere(Course),
}

/// What of an object is looked for.
#[derive(Clone, Copy)]
enum Which {
    Whole,
    Piece(u64),
    Range(Spec),
}

/// Where serving looks, by the functions that it asks.
fn look(
    runtime: &Runtime,
    route: &Route,
    (asked, target): (&Asked<'_>, &key::Target<'_>),
    (directives, forbids): (&RequestDirectives, Option<Forbids>),
    wall: SystemTime,
) -> Option<Looked> {
    let policy = &*route.cache;
    let base = place::own(runtime, route, target, asked.headers)?;
    let (method, headers) = (asked.method, asked.headers);
    let asking =
        Asking { runtime, policy, method, headers, asked: directives, base: &base, now: wall };
    let at = |key: Key, which| Some(Looked::At(Place { key, rule: None }, which));
    if let Some(size) = policy.key.slice {
        match partial::first(&asking, size) {
            First::Piece(piece) => {
                let key = base.piece(piece);
                let now = Instant::now();
                let unstored = runtime.flights.is_unshared(key.as_bytes(), headers, now);
                let uses = runtime.uses.lately(key.as_bytes(), now).saturating_add(1);
                let memory = runtime.memory;
                let fresh = |entry: &Entry| {
                    let life = life_of(entry, policy);
                    may_serve(&life, directives, wall, Origin::Reachable) == Reuse::Fresh
                };
                let is_stored = memory.peek(key.as_bytes(), Some(headers), |_| true).is_some();
                let is_fresh = memory.peek(key.as_bytes(), Some(headers), fresh).is_some();
                // What is not stored as a piece goes to the origin as it is, or is obtained whole.
                let instead = if !is_stored && uses < policy.min_uses {
                    Some(course::rare())
                } else if !is_fresh && let Some(why) = forbids {
                    Some(course::forbidden(why))
                } else {
                    None
                };
                match (instead, partial::not_in_pieces(headers)) {
                    (Some(course), First::Pass) => return Some(Looked::Nowhere(course)),
                    (Some(_), First::Whole | First::Piece(_)) => {}
                    (None, _) if unstored && !is_stored => {}
                    (None, _) => return at(key, Which::Piece(piece.index)),
                }
            }
            First::Whole => {}
            First::Pass => return Some(Looked::Nowhere(course::unsliced())),
        }
    } else if policy.key.ranges == Ranges::AsAsked {
        match partial::brought(&asking) {
            Brought::Parts(parts) => return Some(Looked::InParts(parts)),
            Brought::Range(spec) => return at(base.range(spec), Which::Range(spec)),
            Brought::Whole => {}
        }
    }
    let place = place::find(runtime, route, target, headers)?;
    Some(Looked::At(place, Which::Whole))
}

fn of_the_cache(runtime: &Runtime, route: &Route, asked: &Asked<'_>, told: &mut Explanation) {
    let policy = &*route.cache;
    let now = SystemTime::now();
    let target = key::Target {
        space: "",
        scheme: asked.scheme.as_str(),
        host: asked.url.authority.host(),
        port: asked.url.authority.port(),
        path: asked.url.target.path(),
        query: asked.url.target.query(),
    };
    let request = Request::new(asked.method, asked.headers).with_target(target.path, target.query);
    let directives = course::start(&request, policy);
    // Also of a request that goes past the store it is told what is there.
    let any = RequestDirectives::default();
    let wishes = directives.as_ref().unwrap_or(&any);
    let forbids = Forbids::of(&request, policy);
    let looked = look(runtime, route, (asked, &target), (wishes, forbids), now);
    let Some(looked) = looked else { return };
    let (key, rule, which) = match &looked {
        Looked::At(place, which) => (Some(&place.key), place.rule.as_deref(), *which),
        Looked::InParts(_) => {
            (None, None, Spec::only(asked.headers).map_or(Which::Whole, Which::Range))
        }
        Looked::Nowhere(_) => (None, None, Which::Whole),
    };
    let entries = match &looked {
        Looked::At(place, _) => runtime.memory.variants(place.key.as_bytes()),
        Looked::InParts(parts) => {
            let mut entries: Vec<_> = parts.shares.iter().map(|(e, _)| Arc::clone(e)).collect();
            entries.dedup_by_key(|entry| entry.id());
            entries
        }
        Looked::Nowhere(_) => Vec::new(),
    };
    let selected = match &looked {
        Looked::At(..) => entries.iter().find(|entry| entry.selects(asked.headers)),
        // The first one speaks for all.
        Looked::InParts(_) | Looked::Nowhere(_) => entries.first(),
    };
    let (flights, at) = (&runtime.flights, Instant::now());
    let lately = Lately {
        failed: key.is_some_and(|key| flights.is_failing(key.as_bytes(), at)),
        unstored: selected.is_none()
            && key.is_some_and(|key| flights.is_unshared(key.as_bytes(), asked.headers, at)),
        uses: key.map_or(0, |key| runtime.uses.lately(key.as_bytes(), at)),
    };
    let life = selected.map(|entry| life_of(entry, policy));
    let others = matches!(which, Which::Whole)
        && place::has_variants(runtime, route, &target, asked.headers);
    let stored = match &life {
        Some(life) => Stored::Selected(life),
        None if entries.is_empty() && !others => Stored::Nothing,
        None => Stored::OtherVariants,
    };
    let origin = if lately.failed { Origin::Failing } else { Origin::Reachable };
    let course = match (&directives, &looked) {
        (Err(course), _) | (Ok(_), Looked::Nowhere(course)) => *course,
        (Ok(wishes), Looked::At(..) | Looked::InParts(_)) => {
            course::by_store(stored, wishes, now, origin)
        }
    };
    let verdict = explain::verdict(&course, policy, lately);

    if policy.enabled {
        told.key = key_parts(runtime, route, &target, asked, (rule, which));
    }
    told.variants = entries
        .iter()
        .take(VARIANTS_MOST)
        .map(|entry| {
            let is_it = selected.is_some_and(|selected| Arc::ptr_eq(selected, entry));
            variant(entry, is_it, policy, now)
        })
        .collect();
    told.freshness = selected.zip(life.as_ref()).map(|(entry, life)| {
        let sum = explain::sum(&request, (entry.status(), &entry.headers()), life, policy, now);
        let by = match entry.stale_since() {
            Some(_) => "a soft purge",
            None => sum.by.unwrap_or("the rules when it was stored"),
        };
        Freshness {
            lifetime: sum.lifetime.as_secs(),
            by,
            age_at_arrival: sum.age_at_arrival.as_secs(),
            here: sum.here.as_secs(),
            remaining: sum.remaining,
            stale_while_revalidate: life.stale_while_revalidate.as_secs(),
            stale_if_error: life.stale_if_error.as_secs(),
        }
    });
    told.failed_lately = lately.failed;
    told.unstored_lately = lately.unstored;
    told.outcome = verdict.outcome.map(Outcome::label);
    told.cache_status = verdict.status.map(|status| status.to_string());
    told.says = verdict.says.to_owned();
    told.change = verdict.change;
}

fn fields(question: &Question, url: &Url) -> Result<HeaderMap, Unclear> {
    let mut headers = HeaderMap::new();
    for (name, value) in &question.headers {
        let wrong = || Unclear(format!("\"{name}\" is no field that a request can have"));
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
        let value = HeaderValue::from_str(value.trim()).map_err(|_| wrong())?;
        if name == header::HOST {
            return Err(Unclear("the URL says the host: leave the field out".to_owned()));
        }
        headers.append(name, value);
    }
    let host = HeaderValue::try_from(url.authority.to_string());
    headers.insert(header::HOST, host.map_err(|_| Unclear("no such host".to_owned()))?);
    Ok(headers)
}

fn key_parts(
    runtime: &Runtime,
    route: &Route,
    target: &key::Target<'_>,
    asked: &Asked<'_>,
    (rule, which): (Option<&Rule>, Which),
) -> Option<KeyParts> {
    let rules = &route.cache.key;
    let named = |name: &HeaderName| {
        let lines = asked.headers.get_all(name).iter();
        let shown = |line: &HeaderValue| {
            secret::of_field(name.as_str(), &String::from_utf8_lossy(line.as_bytes())).to_owned()
        };
        (name.to_string(), lines.map(shown).collect())
    };
    // The key itself says what is in it.
    let own = place::own(runtime, route, target, asked.headers)?;
    let said = key::Asked::of(own.as_bytes())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let counted = target.query.map(|query| key::counted(query, rules));
    Some(KeyParts {
        upstream: text(said.upstream()),
        zone: Some(text(said.zone())).filter(|zone| !zone.is_empty()),
        route_alone: route.changes_request(),
        scheme: asked.scheme.as_str(),
        host: text(said.host),
        port: said.port,
        path: text(said.path),
        query: match rule {
            None => counted.map(|query| query.into_iter().map(str::to_owned).collect()),
            Some(rule) => {
                let left = rule.variance.left(counted.unwrap_or_default());
                let shown = |(name, value): search::Parameter<'_>| match value.is_empty() {
                    true => text(&name),
                    false => format!("{}={}", text(&name), text(&value)),
                };
                Some(left.into_iter().map(shown).collect())
            }
        },
        no_vary_search: rule.map(|rule| rule.variance.to_string()),
        piece: match which {
            Which::Piece(index) => Some(index),
            Which::Whole | Which::Range(_) => None,
        },
        range: match which {
            Which::Range(spec) => Some(spec.to_string()),
            Which::Whole | Which::Piece(_) => None,
        },
        headers: rules.headers.iter().map(named).collect(),
        cookies: rules.cookies.clone(),
    })
}

fn variant(entry: &Entry, selected: bool, policy: &Policy, now: SystemTime) -> Variant {
    let life = life_of(entry, policy);
    let headers = entry.headers();
    let vary = vary::Spec::parse(&headers).ok();
    let tags = surrogate::keys(&headers).take(surrogate::MOST);
    Variant {
        selected,
        status: entry.status().as_u16(),
        vary: vary.iter().flat_map(|spec| spec.names()).map(HeaderName::to_string).collect(),
        age: life.age_seconds(now),
        remaining: life.remaining_seconds(now),
        body: entry.body_len(),
        size: entry.size(),
        hits: entry.hits(),
        unused: now.duration_since(entry.last_use()).unwrap_or_default().as_secs(),
        route: entry.subject().and_then(|subject| subject.route.map(str::to_owned)),
        tags: tags.map(|tag| String::from_utf8_lossy(tag).into_owned()).collect(),
        softly_purged: entry.stale_since().is_some(),
    }
}

impl fmt::Display for KeyParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        write!(f, "{}://{}{port}{}", self.scheme, self.host, self.path)?;
        if let Some(query) = &self.query {
            write!(f, "?{}", query.join("&"))?;
        }
        if let Some(piece) = self.piece {
            write!(f, ", piece {piece}")?;
        }
        if let Some(range) = &self.range {
            write!(f, ", range {range}")?;
        }
        write!(f, ", upstream {}", self.upstream)?;
        if let Some(zone) = &self.zone {
            write!(f, ", zone {zone}")?;
        }
        if let Some(rule) = &self.no_vary_search {
            write!(f, ", by No-Vary-Search: {rule}")?;
        }
        if self.route_alone {
            f.write_str(", this route alone")?;
        }
        for (name, values) in &self.headers {
            write!(f, ", {name}: {}", values.join(", "))?;
        }
        for name in &self.cookies {
            write!(f, ", cookie {name}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.selected { "*" } else { "-" };
        write!(f, "{mark} {}, {} bytes, age {} s", self.status, self.body, self.age)?;
        match self.remaining {
            left @ 0.. => write!(f, ", fresh for {left} s")?,
            over => write!(f, ", stale for {} s", over.unsigned_abs())?,
        }
        write!(
            f,
            ", {} hits, last used {} s ago, {} bytes of memory",
            self.hits, self.unused, self.size
        )?;
        if !self.vary.is_empty() {
            write!(f, ", vary: {}", self.vary.join(", "))?;
        }
        if !self.tags.is_empty() {
            write!(f, ", tags: {}", self.tags.join(" "))?;
        }
        if self.softly_purged {
            f.write_str(", softly purged")?;
        }
        Ok(())
    }
}

impl fmt::Display for Freshness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lifetime, by, age_at_arrival, here, remaining, .. } = self;
        write!(
            f,
            "{lifetime} s ({by}) - {age_at_arrival} s on arrival - {here} s here = {remaining} s"
        )?;
        for (name, window) in [
            ("stale-while-revalidate", self.stale_while_revalidate),
            ("stale-if-error", self.stale_if_error),
        ] {
            if window > 0 {
                write!(f, ", then {name} for {window} s")?;
            }
        }
        Ok(())
    }
}

/// For people: one subject in a line.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "request    {} {}", self.method, self.url)?;
        let mut routing = self.routing.trim_end().lines();
        writeln!(f, "route      {}", routing.next().unwrap_or_default())?;
        for line in routing {
            writeln!(f, "           {line}")?;
        }
        for line in &self.listeners {
            writeln!(f, "           {line}")?;
        }
        if let Some(key) = &self.key {
            writeln!(f, "key        {key}")?;
            match self.variants.len() {
                0 => writeln!(f, "stored     nothing")?,
                1 => writeln!(f, "stored     {}", self.variants[0])?,
                count => writeln!(f, "stored     {count} variants; * is what the request selects")?,
            }
            for variant in self.variants.iter().filter(|_| self.variants.len() > 1) {
                writeln!(f, "           {variant}")?;
            }
        }
        if let Some(freshness) = &self.freshness {
            writeln!(f, "freshness  {freshness}")?;
        }
        writeln!(f, "now        {}: {}", self.outcome.unwrap_or("-"), self.says)?;
        if let Some(status) = &self.cache_status {
            writeln!(f, "           Cache-Status: {status}")?;
        }
        for (n, change) in self.change.iter().enumerate() {
            writeln!(f, "{}  {change}", if n == 0 { "change by" } else { "         " })?;
        }
        Ok(())
    }
}
