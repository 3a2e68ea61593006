//! The origin of a simulation, and all that it ever said.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::mpsc;

use crate::harness::Clock;
use crate::harness::Origin;
use crate::harness::Respond;
use crate::harness::origin::Seen;
use crate::harness::status;

use super::policy::Policy;
use super::policy::Search;
use super::policy::Tag;

/// Where a resource is: its host and its target.
pub(super) type Place = (String, String);

/// What is wrong with a resource's origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    Error(u16),
    /// The connection ends before the response begins.
    Reset,
    /// The connection ends in the middle of the body.
    Cut,
    /// What comes is no HTTP.
    Garbage,
}

/// One resource of the origin.
#[derive(Debug)]
pub(super) struct Resource {
    pub(super) policy: Policy,
    pub(super) fault: Fault,
    /// Whether it ever failed: a failure is remembered for a moment.
    pub(super) has_failed: bool,
    /// What it is changed to by each write.
    pub(super) version: u64,
    /// When it was made.
    pub(super) made: u64,
}

/// One thing that a client can get: the body of a resource's version, for those whom it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Representation {
    pub(super) place: Place,
    version: u64,
    /// What the request had in the fields that the response varies by.
    pub(super) selected: Vec<(&'static str, Option<String>)>,
    /// The only one who may see it.
    pub(super) only_for: Option<String>,
    /// For which other URLs it is as good.
    pub(super) search: Search,
}

/// A response that was given.
#[derive(Debug)]
pub(super) struct Given {
    /// Which representation.
    pub(super) serial: usize,
    /// When, in the order of everything that happens.
    pub(super) order: u64,
    /// When, by the clock.
    pub(super) at: u64,
    pub(super) policy: Policy,
    /// When it was changed last, as it says.
    pub(super) modified: Option<u64>,
    /// Whether it ended as it should.
    pub(super) whole: bool,
    pub(super) authorized: bool,
    pub(super) with_cookie: bool,
}

/// Something was purged.
#[derive(Debug)]
pub(super) struct Purge {
    /// Everything that began up to here is concerned.
    pub(super) order: u64,
    /// When, by the clock.
    pub(super) at: u64,
    pub(super) soft: bool,
    pub(super) what: What,
}

/// What is purged.
#[derive(Debug, Clone)]
pub(super) enum What {
    Place(Place),
    Host(String),
    Prefix(String, String),
    Tag(String),
    Everything,
}

impl What {
    pub(super) fn concerns(&self, (host, target): &Place) -> bool {
        match self {
            Self::Place(place) => place.0 == *host && place.1 == *target,
            Self::Host(purged) => purged == host,
            Self::Prefix(purged, prefix) => {
                let path = target.split('?').next().unwrap_or_default();
                purged == host
                    && path
                        .strip_prefix(prefix.as_str())
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Self::Tag(tag) => *tag == surrogate_key(&(host.clone(), target.clone())),
            Self::Everything => true,
        }
    }
}

/// A response that is held back until the gate lets it go.
pub(super) struct Hold {
    pub(super) place: Place,
    /// Told when a request has come.
    pub(super) came: mpsc::Sender<()>,
    /// Ends when it may go on.
    pub(super) gate: mpsc::Receiver<()>,
}

/// Everything that is known.
pub(super) struct World {
    pub(super) order: u64,
    pub(super) resources: HashMap<Place, Resource>,
    pub(super) representations: Vec<Representation>,
    pub(super) given: Vec<Given>,
    pub(super) purges: Vec<Purge>,
    pub(super) hold: Option<Hold>,
    /// The first representation of this story.
    first: usize,
}

/// The world, which the origin's threads share with the test.
#[derive(Clone)]
pub(super) struct Shared {
    world: Arc<Mutex<World>>,
    pub(super) clock: Arc<Clock>,
}

impl Shared {
    pub(super) fn new(clock: Arc<Clock>) -> Self {
        let world = World {
            order: 0,
            resources: HashMap::new(),
            representations: Vec::new(),
            given: Vec::new(),
            purges: Vec::new(),
            hold: None,
            first: 0,
        };
        Self { world: Arc::new(Mutex::new(world)), clock }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The origin of this world.
    pub(super) fn origin(&self) -> Origin {
        let shared = self.clone();
        Origin::script().otherwise(move |seen| shared.answer(seen)).start()
    }

    fn answer(&self, seen: &Seen) -> Respond {
        let host = seen.value("host").unwrap_or_default().to_owned();
        let place = (host, seen.target().to_owned());
        let mut world = self.lock();
        let respond = world.answer(&place, seen, self.clock.now());
        let hold = world.hold.take_if(|hold| hold.place == place && seen.method() == "GET");
        drop(world);
        if let Some(hold) = hold {
            let _ = hold.came.send(());
            let _ = hold.gate.recv();
        }
        respond
    }
}

impl World {
    /// The next moment in the order of everything.
    pub(super) fn tick(&mut self) -> u64 {
        self.order += 1;
        self.order
    }

    fn answer(&mut self, place: &Place, seen: &Seen, now: u64) -> Respond {
        let order = self.tick();
        let Some(resource) = self.resources.get_mut(place) else { return status(404) };
        if resource.fault != Fault::None {
            resource.has_failed = true;
        }
        match resource.fault {
            Fault::None | Fault::Cut => {}
            Fault::Error(code) => return status(code).body("it failed"),
            Fault::Reset => return Respond::raw(""),
            Fault::Garbage => return Respond::raw("220 mail.example.org ESMTP\r\n"),
        }
        if !matches!(seen.method(), "GET" | "HEAD") {
            resource.version += 1;
            return status(204);
        }
        let policy = resource.policy.clone();
        let is_cut = resource.fault == Fault::Cut;
        let (made, version) = (resource.made, resource.version);
        let representation = Representation {
            place: place.clone(),
            version: resource.version,
            selected: policy.vary.iter().map(|n| (*n, seen.value(n).map(str::to_owned))).collect(),
            search: policy.search,
            only_for: policy
                .is_personal(seen.value("authorization").is_some())
                .then(|| seen.value("x-client").unwrap_or_default().to_owned()),
        };
        let serial = self.serial(representation);
        // No two have the same, so that it names one of them.
        let number = (serial - self.first) as u64;
        let modified = policy.modified_ago.map(|ago| made - ago + number);
        let tag = tag(policy.tag, serial);
        let confirmed = match (seen.value("if-none-match"), seen.value("if-modified-since")) {
            (Some(asked), _) => tag.as_ref().is_some_and(|tag| asked.contains(tag.as_str())),
            (None, Some(asked)) => modified.is_some_and(|modified| {
                asked == httpdate::fmt_http_date(crate::harness::clock::at(modified))
            }),
            (None, None) => false,
        };
        let has_body = seen.method() == "GET" && !confirmed;
        self.given.push(Given {
            serial,
            order,
            at: now,
            policy: policy.clone(),
            modified,
            whole: !(is_cut && has_body),
            authorized: seen.value("authorization").is_some(),
            with_cookie: seen.value("cookie").is_some(),
        });
        let mut fields = policy.fields(now, modified);
        fields.extend(tag.map(|tag| ("ETag", tag)));
        fields.push(("Surrogate-Key", surrogate_key(place)));
        let code = if confirmed { 304 } else { policy.status };
        if !confirmed {
            fields.push(("X-Serial", serial.to_string()));
        }
        let mut body = self.body(serial);
        let mut code = code;
        // Now and then an origin does not know what a range is.
        let range = seen.value("range").filter(|_| code == 200 && has_body && version % 4 != 3);
        if let Some((first, last)) = range.and_then(|range| bounds(range, body.len())) {
            code = 206;
            fields.push(("Content-Range", format!("bytes {first}-{last}/{}", body.len())));
            body = body[first..=last].to_vec();
        }
        if is_cut && has_body {
            return cut(code, &fields, &body, policy.chunked);
        }
        let mut respond = status(code);
        for (name, value) in &fields {
            respond = respond.field(name, value);
        }
        match (policy.chunked, has_body) {
            (true, true) => respond.field("Transfer-Encoding", "chunked").body(chunks(&body)),
            (false, true) => respond.body(body),
            (_, false) if confirmed => respond,
            (true, false) => respond.field("Transfer-Encoding", "chunked"),
            (false, false) => respond.field("Content-Length", &body.len().to_string()),
        }
    }

    /// The body of a representation, which no other has.
    pub(super) fn body(&self, serial: usize) -> Vec<u8> {
        let line = format!("this is {serial}, whole; ");
        // Some are large enough for several pieces.
        let times = if self.representations[serial].place.1.starts_with("/s") { 40 } else { 1 };
        line.repeat((1 + serial % 97) * times).into_bytes()
    }

    fn serial(&mut self, representation: Representation) -> usize {
        let known = self.representations.iter().rposition(|known| *known == representation);
        known.unwrap_or_else(|| {
            self.representations.push(representation);
            self.representations.len() - 1
        })
    }

    /// Begins a story with other hosts, for which what came before is of no consequence.
    pub(super) fn begin(&mut self) {
        self.resources.clear();
        self.given.clear();
        self.purges.clear();
        self.first = self.representations.len();
    }
}

/// The name by which a resource can be purged: few have the same.
pub(super) fn surrogate_key((host, target): &Place) -> String {
    format!("{host}{}", target.len() % 3)
}

fn tag(kind: Tag, serial: usize) -> Option<String> {
    match kind {
        Tag::None => None,
        Tag::Weak => Some(format!("W/\"s{serial}.\"")),
        Tag::Strong => Some(format!("\"s{serial}.\"")),
    }
}

/// First and last place of one range in a body of this length.
fn bounds(range: &str, length: usize) -> Option<(usize, usize)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let (first, last) = match (first.parse::<usize>(), last.parse::<usize>()) {
        (Ok(first), Ok(last)) => (first, last.min(length - 1)),
        (Ok(first), Err(_)) => (first, length - 1),
        (Err(_), Ok(suffix)) => (length.saturating_sub(suffix), length - 1),
        (Err(_), Err(_)) => return None,
    };
    (first <= last).then_some((first, last))
}

fn chunks(body: &[u8]) -> Vec<u8> {
    let (first, second) = body.split_at(body.len() / 2);
    let mut out = Vec::new();
    for part in [first, second, b""] {
        out.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }
    out
}

fn cut(code: u16, fields: &[(&str, String)], body: &[u8], chunked: bool) -> Respond {
    let mut out = format!("HTTP/1.1 {code} Status\r\n");
    for (name, value) in fields {
        out.push_str(&format!("{name}: {value}\r\n"));
    }
    let half = String::from_utf8_lossy(&body[..body.len() / 2]);
    out.push_str(&match chunked {
        true => format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{half}\r\n", half.len()),
        false => format!("Content-Length: {}\r\n\r\n{half}", body.len()),
    });
    Respond::raw(out)
}
