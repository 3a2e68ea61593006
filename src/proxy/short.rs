//! The short way: a fresh hit is answered from parsed memory, without Pingora's machinery.
//!
//! It asks the same functions as the long way, in the same order, and answers only what they leave no
//! doubt about: a GET or HEAD without a body, on a route to an upstream that caches, for which a fresh
//! response is stored. Everything else, refusals included, it leaves to the long way, untouched.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::Response;
use http::StatusCode;
use http::Version;
use http::header;
use pingora::http::RequestHeader;

use crate::cache::Timing;
use crate::cache::course;
use crate::cache::lookup::Bypass;
use crate::cache::reuse::Origin;
use crate::cache::reuse::Reuse;
use crate::cache::reuse::may_serve;
use crate::cache::status::CacheStatus;
use crate::cache::status::Outcome;
use crate::listen::conn::Conn;
use crate::listen::shortcut::Afterwards;
use crate::listen::shortcut::Asked;
use crate::listen::shortcut::Gone;
use crate::listen::shortcut::Http2Taken;
use crate::listen::shortcut::Outlet;
use crate::listen::shortcut::Rest;
use crate::listen::shortcut::Sent;
use crate::listen::shortcut::Shortcut;
use crate::listen::shortcut::Taken;
use crate::message::admit::Admitted;
use crate::message::forwarded::Client;
use crate::message::head::canonical_fields;
use crate::message::spare;
use crate::message::target::Authority;
use crate::message::target::Host;
use crate::proxy::arrive;
use crate::proxy::arrive::REQUEST_ID;
use crate::proxy::context::RequestCtx;
use crate::proxy::dress;
use crate::proxy::dress::Dress;
use crate::proxy::enter;
use crate::proxy::enter::Heard;
use crate::proxy::finish;
use crate::proxy::finish::Told;
use crate::proxy::heads;
use crate::proxy::heads::Heads;
use crate::proxy::lookup;
use crate::proxy::proof::Proof;
use crate::proxy::store;
use crate::proxy::stored;
use crate::proxy::stored::Body;
use crate::proxy::stored::Selection;
use crate::proxy::through;
use crate::proxy::through::Passage;
use crate::proxy::wire;
use crate::refusal::Refusal;
use crate::route::action::Action;
use crate::route::captures::Captures;
use crate::route::table::Found;
use crate::runtime::Runtime;
use crate::runtime::place;
use crate::storage::memory::Entry;
use crate::terms::clock;
use crate::tls::answers::Answers;
use crate::tls::answers::PREFIX;

/// Bodies up to here are copied behind their head: one buffer costs the kernel less than two.
const SMALL_BODY: usize = 4 * 1024;

/// Answers fresh hits.
pub struct ShortWay {
    runtime: Arc<ArcSwap<Runtime>>,
    answers: Arc<Answers>,
}

impl ShortWay {
    /// A short way that serves each request with the generation current at its arrival.
    #[must_use]
    pub fn new(runtime: Arc<ArcSwap<Runtime>>) -> Self {
        Self { runtime, answers: Arc::default() }
    }

    /// The same, which shows ACME servers what `answers` has for them.
    #[must_use]
    pub fn with_answers(self, answers: Arc<Answers>) -> Self {
        Self { answers, ..self }
    }
}

/// What one thread uses for one request after the other.
#[derive(Default)]
struct Desk {
    fields: HeaderMap,
    head: Vec<u8>,
    heads: Heads<Runtime>,
}

thread_local! {
    static DESK: RefCell<Desk> = RefCell::default();
}

/// A request that was admitted.
struct Visit {
    started: Instant,
    wall: SystemTime,
    admitted: Admitted,
    client: Client,
}

/// A stored response that answers a request.
struct Hit {
    route: usize,
    entry: Arc<Entry>,
    selection: Selection,
    /// Its age, in seconds.
    age: u64,
    /// The seconds for which it stays fresh.
    ttl: i64,
}

impl Shortcut for ShortWay {
    fn http1(&self, asked: &Asked<'_>, outlet: &mut Outlet<'_, '_>) -> Taken {
        if !is_read(&asked.head.method) {
            return Taken::Declined;
        }
        // Before routes: an order must not depend on them. What nobody ordered is theirs.
        if asked.target.starts_with(PREFIX)
            && !asked.conn.is_secure()
            && let Some(text) = self.answers.text(asked.target)
        {
            return Taken::Through(Box::new(Proof::new(asked, text)));
        }
        DESK.with_borrow_mut(|desk| {
            let taken = self.answer_http1(asked, outlet, desk);
            // Values share the memory of what was received, which must not be held on to.
            desk.fields.clear();
            taken.unwrap_or(Taken::Declined)
        })
    }

    fn http2(&self, request: &mut RequestHeader, conn: &Arc<Conn>) -> Http2Taken {
        if !is_read(&request.method) {
            return Http2Taken::Declined;
        }
        // The normal form, as on the long way; declining puts back what was there.
        let mut hosts = request.headers.get_all(header::HOST).iter();
        let (before, others) = (hosts.next().cloned(), hosts.next());
        if others.is_some() {
            return Http2Taken::Declined;
        }
        let taken = self.answer_http2(request, conn).unwrap_or(Http2Taken::Declined);
        if let Http2Taken::Declined = taken {
            match before {
                // It was there before.
                Some(before) => drop(request.insert_header(header::HOST, before)),
                None => drop(request.remove_header(&header::HOST)),
            }
        }
        taken
    }
}

impl ShortWay {
    /// `None` declines.
    fn answer_http2(&self, request: &mut RequestHeader, conn: &Arc<Conn>) -> Option<Http2Taken> {
        let runtime = self.runtime.load();
        let visit = Visit::begin(&Heard::of(request), conn, &runtime)?;
        request.insert_header(header::HOST, host_of(&visit.admitted.authority)?).ok()?;
        let found = visit.route(&request.method, &request.headers, conn, &runtime)?;
        let (method, headers, version) = (&request.method, &request.headers, request.version);
        if through::fits(method, version, headers, found.route) {
            let (route, captures) = (found.index, found.captures);
            let ctx = visit.into_ctx(route, captures, conn, version, headers, Arc::clone(&runtime));
            let passage = Passage { ctx, headers: headers.clone(), keep_alive: true };
            return Some(Http2Taken::Through(Box::new(passage)));
        }
        let hit = visit.find(method, headers, &found, &runtime)?;
        let id = arrive::request_id(headers, visit.wall);
        let response = hit.response(&id, conn, &runtime)?;
        let rest = Remaining {
            body: hit.body(method),
            first_byte: visit.started.elapsed(),
            visit,
            hit,
            id,
            runtime: Arc::clone(&runtime),
            conn: Arc::clone(conn),
            method: method.clone(),
            version,
            fields: finish::kept(headers, &runtime),
            head: Bytes::new(),
            part: Bytes::new(),
            already: 0,
            heading: 0,
        };
        Some(Http2Taken::Answered(response, Box::new(rest)))
    }

    /// `None` declines.
    fn answer_http1(
        &self,
        asked: &Asked<'_>,
        outlet: &mut Outlet<'_, '_>,
        desk: &mut Desk,
    ) -> Option<Taken> {
        let Desk { fields, head: out, .. } = desk;
        let (head, conn) = (asked.head, asked.conn);
        canonical_fields(asked.received, head, asked.host.map(Host::value), fields).ok()?;
        let host = asked.host.map(Host::authority);
        let runtime = self.runtime.load();
        let heard = Heard {
            method: &head.method,
            target: asked.target,
            version: head.version,
            headers: fields,
            read: host,
            authority: None,
            scheme: None,
        };
        let visit = Visit::begin(&heard, conn, &runtime)?;
        let authority = &visit.admitted.authority;
        // Without a default port, which is not part of the normal form, or without Host at all.
        if host != Some(authority) {
            fields.insert(header::HOST, host_of(authority)?);
        }
        let found = visit.route(&head.method, fields, conn, &runtime)?;
        if through::fits(&head.method, head.version, fields, found.route) {
            let (route, captures) = (found.index, found.captures);
            let (runtime, version) = (Arc::clone(&runtime), head.version);
            let ctx = visit.into_ctx(route, captures, conn, version, fields, runtime);
            let headers = std::mem::replace(fields, spare::fields());
            let passage = Passage { ctx, headers, keep_alive: head.keep_alive };
            return Some(Taken::Through(Box::new(passage)));
        }
        let hit = visit.find(&head.method, fields, &found, &runtime)?;
        let id = arrive::request_id(fields, visit.wall);

        let keep = head.keep_alive && hit.ends_itself(head.version);
        let after = if keep && !runtime.draining.has_begun() {
            Afterwards::Keep
        } else {
            Afterwards::Close
        };
        out.clear();
        wire::write(out, &hit.entry, &hit.selection, &hit.dress(&id, conn, &runtime), after)
            .ok()?;
        let heading = out.len();
        let mut body = hit.body(&head.method);
        let mut first = body.next().unwrap_or_default();
        let length = first.len() as u64;
        if first.len() <= SMALL_BODY {
            out.extend_from_slice(&first);
            first.clear();
        }
        let first_byte = visit.started.elapsed();

        // What has several parts leaves by all of them at once.
        let several = !body.is_done();
        let sent = match if several { Ok(Sent::NOTHING) } else { outlet.send(out, &first) } {
            Ok(Sent { bytes, gone: Gone::NotYet }) => {
                let rest = Remaining {
                    visit,
                    hit,
                    id,
                    first_byte,
                    runtime: Arc::clone(&runtime),
                    conn: Arc::clone(conn),
                    method: head.method.clone(),
                    version: head.version,
                    fields: finish::kept(fields, &runtime),
                    head: Bytes::copy_from_slice(out.get(bytes..).unwrap_or_default()),
                    part: first.slice(bytes.saturating_sub(out.len())..),
                    body,
                    already: bytes.saturating_sub(heading) as u64,
                    heading: heading.saturating_sub(bytes) as u64,
                };
                return Some(Taken::Begun(Box::new(rest), after));
            }
            Ok(_) => Some(length),
            Err(_) => None,
        };
        finish::tell(&Told {
            method: head.method.as_str().as_bytes(),
            version: Some(head.version),
            fields: Some(fields),
            // How much of it left before the client did nobody knows.
            sent: sent.unwrap_or_default(),
            ..told(&visit, &hit, &id, first_byte, &runtime, conn)
        });
        Some(sent.map_or(Taken::Broken, |_| Taken::Answered(after)))
    }
}

/// The normal form of Host.
fn host_of(authority: &Authority) -> Option<HeaderValue> {
    HeaderValue::from_str(authority.as_str()).ok()
}

/// Whether this method is answered from memory at all.
fn is_read(method: &Method) -> bool {
    method == Method::GET || method == Method::HEAD
}

impl Visit {
    /// A request that is admitted; `None` for what is refused, which is not said here.
    fn begin(heard: &Heard<'_>, conn: &Conn, runtime: &Runtime) -> Option<Self> {
        let wall = SystemTime::now();
        let (admitted, client) = enter::enter(heard, Some(conn), runtime, wall).ok()?;
        if runtime.insistence(conn).https_port(client.scheme).is_some() {
            return None;
        }
        Some(Self { started: clock::now(), wall, admitted, client })
    }

    /// The route that it takes to an upstream.
    fn route<'r>(
        &self,
        method: &Method,
        headers: &HeaderMap,
        conn: &Conn,
        runtime: &'r Runtime,
    ) -> Option<Found<'r>> {
        let (admitted, scheme) = (&self.admitted, self.client.scheme);
        let ask = enter::question(method, headers, admitted, scheme, Some(conn));
        let found = enter::find_route(&ask, Some(conn), runtime).ok()?;
        match &found.route.action {
            Action::Upstream(_) => Some(found),
            Action::Respond { .. } | Action::Redirect { .. } => None,
        }
    }

    /// What the long way would know of it by now, were it on its way to an origin past the cache.
    fn into_ctx(
        self,
        route: usize,
        captures: Captures,
        conn: &Arc<Conn>,
        version: Version,
        fields: &HeaderMap,
        runtime: Arc<Runtime>,
    ) -> Box<RequestCtx> {
        // Made where it stays: it is large, and each move of it is a copy.
        let mut ctx = Box::new(RequestCtx::since(self.started, self.wall, runtime));
        ctx.conn = Some(Arc::clone(conn));
        ctx.version = version;
        ctx.id = arrive::request_id(fields, self.wall);
        ctx.admitted = Some(self.admitted);
        ctx.client = Some(self.client);
        ctx.route = Some(route);
        ctx.captures = captures;
        ctx.cache.take(&course::past(Bypass::Disabled));
        ctx
    }

    /// The fresh response that is stored for it.
    fn find(
        &self,
        method: &Method,
        headers: &HeaderMap,
        found: &Found<'_>,
        runtime: &Runtime,
    ) -> Option<Hit> {
        let scheme = self.client.scheme;
        let route = found.route;
        let normal = route.cache.normal_form(headers);
        let headers = normal.as_ref().unwrap_or(headers);
        let request = lookup::view(method, headers, Some(&self.admitted));
        let asked = course::start(&request, &route.cache).ok()?;
        let now = self.wall;
        let target = lookup::target_of(&self.admitted, scheme);
        let key = place::of(runtime, route, &target, headers)?.key;
        let mut ttl = 0;
        let entry = runtime.memory.lookup_if(key.as_bytes(), Some(headers), now, |entry| {
            let life = store::life_of(entry, &route.cache);
            ttl = life.remaining_seconds(now);
            may_serve(&life, &asked, now, Origin::Reachable) == Reuse::Fresh
        })?;
        let selection = stored::select(&entry, method, headers);
        let age = entry.times().current_age(now).as_secs();
        Some(Hit { route: found.index, entry, selection, age, ttl })
    }
}

impl Hit {
    /// What is said to the client beside it.
    fn dress<'a>(&self, id: &'a str, conn: &Conn, runtime: &'a Runtime) -> Dress<'a> {
        let route = &runtime.plan.routes.routes()[self.route];
        Dress {
            received: runtime.version_towards(route),
            id,
            age: Some(self.age),
            cache: Some((CacheStatus::hit(self.ttl), Outcome::Hit)),
            timing: match route.cache.timing {
                Timing::Untold => None,
                Timing::Told => dress::timing(Outcome::Hit, None),
            },
            stick: None,
            hsts: runtime.hsts(Some(conn)),
            rules: &route.headers.response,
        }
    }

    /// The header of the answer.
    fn response(&self, id: &str, conn: &Conn, runtime: &Arc<Runtime>) -> Option<Response<()>> {
        let dress = self.dress(id, conn, runtime);
        let make = || stored::head(&self.entry, &self.selection, &dress).ok();
        if self.selection != Selection::Whole || dress.rules_touch(&REQUEST_ID) {
            return make();
        }
        let of = heads::Of {
            entry: self.entry.id(),
            route: self.route,
            listener: conn.listener,
            age: self.age,
            ttl: self.ttl,
        };
        DESK.with_borrow_mut(|Desk { heads, .. }| {
            if let Some(fields) = heads.find(runtime, &of) {
                let mut response = Response::new(());
                *response.status_mut() = self.entry.status();
                *response.headers_mut() = fields.clone();
                dress.put_id_on(response.headers_mut()).ok()?;
                return Some(response);
            }
            let response = make()?;
            heads.made(runtime, &of, response.headers(), &REQUEST_ID);
            Some(response)
        })
    }

    fn status(&self) -> StatusCode {
        self.selection.status(self.entry.status())
    }

    /// Whether the end of the answer shows without the connection's: to HTTP/1.0 only a length tells.
    fn ends_itself(&self, version: Version) -> bool {
        version != Version::HTTP_10
            || !matches!(self.status(), StatusCode::NOT_MODIFIED | StatusCode::NO_CONTENT)
    }

    /// What follows the header.
    fn body(&self, method: &Method) -> Body {
        let plan = self.selection.plan(method, self.entry.status(), self.entry.body_len());
        Body::new(&self.entry, plan)
    }
}

/// What is told of an answer, its request's line and fields and what was sent aside.
fn told<'a>(
    visit: &'a Visit,
    hit: &Hit,
    id: &'a str,
    first_byte: Duration,
    runtime: &'a Runtime,
    conn: &'a Conn,
) -> Told<'a> {
    Told {
        runtime,
        conn: Some(conn),
        client: Some(&visit.client),
        id,
        started: visit.started,
        ended: Instant::now(),
        wall: visit.wall,
        first_byte: Some(first_byte),
        route: Some(hit.route),
        cache: Some(Outcome::Hit),
        cache_reason: None,
        origin: None,
        refusal: None,
        method: b"",
        version: None,
        target: visit.admitted.target.as_str().as_bytes(),
        host: b"",
        fields: None,
        status: Some(hit.status().as_u16()),
        sent: 0,
        received: 0,
    }
}

/// What of an answer could not be sent at once, and all that is told of it at its end.
struct Remaining {
    visit: Visit,
    hit: Hit,
    id: String,
    first_byte: Duration,
    runtime: Arc<Runtime>,
    conn: Arc<Conn>,
    method: Method,
    version: Version,
    /// The fields that are told of.
    fields: HeaderMap,
    /// The rest of the head, and of a small body behind it.
    head: Bytes,
    /// The rest of the current part of the body.
    part: Bytes,
    body: Body,
    /// How much of the body had left before.
    already: u64,
    /// The bytes of the head among those still to be sent.
    heading: u64,
}

impl Rest for Remaining {
    fn next(&mut self) -> Option<Bytes> {
        if !self.head.is_empty() {
            return Some(std::mem::take(&mut self.head));
        }
        if !self.part.is_empty() {
            return Some(std::mem::take(&mut self.part));
        }
        self.body.next()
    }

    fn is_done(&self) -> bool {
        self.head.is_empty() && self.part.is_empty() && self.body.is_done()
    }

    fn ended(self: Box<Self>, sent: u64) {
        let is_cut = self.runtime.draining.is_cut();
        finish::tell(&Told {
            method: self.method.as_str().as_bytes(),
            version: Some(self.version),
            fields: Some(&self.fields),
            sent: self.already + sent.saturating_sub(self.heading),
            refusal: (is_cut && !self.is_done()).then_some(Refusal::Shutdown),
            ..told(&self.visit, &self.hit, &self.id, self.first_byte, &self.runtime, &self.conn)
        });
    }
}
