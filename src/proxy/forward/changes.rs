//! What changes of a request's fields on their way to the origin: said once, carried out on a map or
//! while the fields are written.

use std::iter;

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Version;
use http::header;
use pingora::Result;
use pingora::http::RequestHeader;

use crate::message::admit;
use crate::message::append::append;
use crate::message::append::append_few;
use crate::message::certificate;
use crate::message::certificate::ClientCertificate;
use crate::message::certificate::Introduction;
use crate::message::forwarded;
use crate::message::forwarded::Client;
use crate::message::forwarded::Said;
use crate::message::forwarded::Trust;
use crate::message::hops;
use crate::message::hops::MaxForwards;
use crate::message::hops::Names;
use crate::message::hops::Nominated;
use crate::message::names::has_underscore;
use crate::message::target::Authority;
use crate::message::title;
use crate::message::trace::TRACEPARENT;
use crate::message::trace::TRACESTATE;
use crate::message::trace::TraceContext;
use crate::proxy::arrive::REQUEST_ID;
use crate::proxy::outgoing::Outgoing;
use crate::route::Underscores;

/// What changes of a request's fields, a route's own changes aside.
pub(super) struct Changes<'a> {
    /// The client's fields.
    headers: &'a HeaderMap,
    /// Whether the client says something of its connection.
    connection: bool,
    /// The fields of that.
    hop: Hop<'a>,
    /// The handshake for a tunnel passes.
    handshake: bool,
    trace: Trace,
    /// Trailers are taken.
    trailers: bool,
    /// The client's cookies in one line, where they came in several.
    cookie: Option<HeaderValue>,
    /// The version in which the request came.
    came: Version,
    /// It came through others that say so.
    via: bool,
    max_forwards: MaxForwards,
    own: Own<'a>,
    said: Option<Said<'a>>,
}

/// What an origin is told that the client's fields do not say.
#[derive(Clone, Copy)]
pub(super) struct Own<'a> {
    /// What is done with names that have underscores.
    pub(super) underscores: Underscores,
    /// Who the client is, and what it asked for.
    pub(super) client: Option<(&'a Client, &'a Authority)>,
    /// How much is told of a client's certificate.
    pub(super) introduction: Introduction,
    /// The certificate that the client showed.
    pub(super) certificate: Option<&'a ClientCertificate>,
    /// The request's id: visible ASCII, as whoever calls has seen to.
    pub(super) id: &'a str,
    /// The host that the origin is asked for: the same.
    pub(super) host: &'a str,
}

/// The fields that belong to the client's connection.
enum Hop<'a> {
    /// The standard ones, and those that Connection names.
    Named(Nominated<'a>),
    /// All that there are, where it names many.
    Found(Names),
}

impl<'a> Hop<'a> {
    /// Of fields without a Connection.
    fn standard() -> Self {
        Self::Named(Nominated::default())
    }

    /// Of these fields.
    #[inline(never)]
    fn of(headers: &'a HeaderMap) -> Self {
        let lines = headers.get_all(header::CONNECTION).into_iter().map(HeaderValue::as_bytes);
        Nominated::by(lines).map_or_else(|| Self::Found(hops::hop_by_hop(headers)), Self::Named)
    }

    /// Whether a field that there is belongs to them.
    fn has(&self, name: &HeaderName) -> bool {
        match self {
            Self::Named(named) => named.ends(name.as_str().as_bytes()),
            Self::Found(found) => found.contains(name),
        }
    }
}

/// What passes of a trace context (W3C Trace Context §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trace {
    All,
    WithoutState,
    Nothing,
}

/// The name of a field of ours.
struct Name {
    name: HeaderName,
    /// How its line begins.
    line: &'static [u8],
}

static TE: Name = Name { name: header::TE, line: b"te: " };
static COOKIE: Name = Name { name: header::COOKIE, line: b"cookie: " };
static VIA: Name = Name { name: header::VIA, line: b"via: " };
static MAX_FORWARDS: Name = Name { name: header::MAX_FORWARDS, line: b"max-forwards: " };
static CHAIN: Name = Name { name: forwarded::X_FORWARDED_FOR, line: b"x-forwarded-for: " };
static ADDRESS: Name = Name { name: forwarded::X_REAL_IP, line: b"x-real-ip: " };
static PROTO: Name = Name { name: forwarded::X_FORWARDED_PROTO, line: b"x-forwarded-proto: " };
static FORWARDED: Name = Name { name: header::FORWARDED, line: b"forwarded: " };
static ASKED_HOST: Name = Name { name: forwarded::X_FORWARDED_HOST, line: b"x-forwarded-host: " };
static ID: Name = Name { name: REQUEST_ID, line: b"x-request-id: " };
static HOST: Name = Name { name: header::HOST, line: b"host: " };

/// Where the fields of ours go, each instead of all others of its name.
trait Fields {
    /// A field that says what `write` writes: what a value may hold.
    fn put(&mut self, name: &Name, write: impl FnOnce(&mut Vec<u8>)) -> Result<()>;

    /// One that says this.
    fn put_value(&mut self, name: HeaderName, value: HeaderValue) -> Result<()>;

    /// None of this name.
    fn put_nothing(&mut self, name: &Name);
}

impl<'a> Changes<'a> {
    /// What changes on the way of a request `asked` to an origin that speaks `towards`; of the request
    /// that came in this version.
    pub(super) fn of(asked: &Outgoing<'a>, came: Version, towards: Version, own: Own<'a>) -> Self {
        let headers = asked.headers;
        // One pass over the names is less than a look-up for each of those that most requests do not have.
        let (mut cookies, mut connection, mut via, mut traced) = (false, false, false, false);
        for name in headers.keys() {
            match *name {
                header::COOKIE => cookies = true,
                header::CONNECTION => connection = true,
                header::VIA => via = true,
                _ => traced |= *name == TRACEPARENT,
            }
        }
        Self {
            headers,
            connection,
            hop: if connection { Hop::of(headers) } else { Hop::standard() },
            handshake: asked.offers_tunnel,
            trace: match traced.then(|| TraceContext::of(headers)) {
                Some(TraceContext::Valid(_)) => Trace::All,
                None | Some(TraceContext::Absent | TraceContext::WithoutState(_)) => {
                    Trace::WithoutState
                }
                Some(TraceContext::Malformed) => Trace::Nothing,
            },
            trailers: towards == Version::HTTP_2 && hops::wants_trailers(headers),
            cookie: match cookies && towards != Version::HTTP_2 {
                true => hops::joined_cookie(headers),
                false => None,
            },
            came,
            via,
            max_forwards: hops::max_forwards(asked.method, headers),
            said: own.client.map(|(client, host)| client.say(host)),
            own,
        }
    }

    /// Whether a field of the client's does not pass, for whatever reason but that one of ours takes its
    /// place.
    fn drops(&self, name: &HeaderName) -> bool {
        if admit::is_ordinary(name) {
            // The standard fields of a connection are not among these.
            return self.connection && self.hop.has(name);
        }
        let ends_here = match *name {
            // Framing of this message, written anew for the origin.
            header::TRANSFER_ENCODING => false,
            // We answered it ourselves.
            header::EXPECT => true,
            header::CONNECTION | header::UPGRADE if self.handshake => false,
            _ if *name == TRACEPARENT => self.trace == Trace::Nothing,
            _ if *name == TRACESTATE => self.trace != Trace::All,
            _ => self.hop.has(name),
        };
        ends_here
            || (self.own.underscores == Underscores::Drop && has_underscore(name.as_str()))
            || admit::is_dropped(name)
            || (self.is_of_a_stranger() && forwarded::is_address_claim(name.as_str()))
    }

    /// What the peer says of whom it stands for is not believed.
    fn is_of_a_stranger(&self) -> bool {
        self.said.as_ref().is_some_and(|said| said.peer() == Trust::Untrusted)
    }

    /// Whether one of ours takes the place of a field of the client's. Those on a certificate are dropped in any case.
    fn replaces(&self, name: &HeaderName) -> bool {
        match *name {
            header::HOST | header::VIA => true,
            header::COOKIE => self.cookie.is_some(),
            header::FORWARDED => self.said.is_some(),
            header::TE => self.trailers,
            header::MAX_FORWARDS => matches!(self.max_forwards, MaxForwards::PassOn(_)),
            _ => match name.as_str() {
                "x-request-id" => true,
                "x-forwarded-for" | "x-real-ip" | "x-forwarded-proto" | "x-forwarded-host" => {
                    self.said.is_some()
                }
                _ => false,
            },
        }
    }

    /// Puts all fields of ours.
    fn put_own(&self, to: &mut impl Fields) -> Result<()> {
        let own = &self.own;
        if self.trailers {
            to.put(&TE, |out| append(out, b"trailers"))?;
        }
        if let Some(cookie) = &self.cookie {
            to.put(&COOKIE, |out| append(out, cookie.as_bytes()))?;
        }
        to.put(&VIA, |out| match self.via {
            true => {
                let before = self.headers.get_all(header::VIA).iter().map(HeaderValue::as_bytes);
                hops::write_via(out, before, self.came);
            }
            false => hops::write_via(out, iter::empty(), self.came),
        })?;
        if let MaxForwards::PassOn(number) = self.max_forwards {
            to.put(&MAX_FORWARDS, |out| append(out, number.to_string().as_bytes()))?;
        }
        if let Some(said) = &self.said {
            if said.has_address() {
                to.put(&CHAIN, |out| said.write_chain(out))?;
                to.put(&ADDRESS, |out| said.write_address(out))?;
            } else {
                to.put_nothing(&CHAIN);
                to.put_nothing(&ADDRESS);
            }
            to.put(&PROTO, |out| append(out, said.proto().as_bytes()))?;
            to.put(&FORWARDED, |out| said.write_forwarded(out))?;
            to.put(&ASKED_HOST, |out| append(out, said.host().as_bytes()))?;
        }
        if own.introduction != Introduction::Nothing {
            self.put_certificate(to)?;
        }
        to.put(&ID, |out| append(out, own.id.as_bytes()))?;
        to.put(&HOST, |out| append(out, own.host.as_bytes()))
    }

    /// Says whose certificate the client showed, as far as the origin is to know.
    fn put_certificate(&self, to: &mut impl Fields) -> Result<()> {
        let introduction = self.own.introduction;
        let Some(certificate) = self.own.certificate else {
            return certificate::fields_of_none(introduction)
                .try_for_each(|(name, value)| to.put_value(name, value));
        };
        certificate.fields(introduction).try_for_each(|(name, value)| to.put_value(name, value))
    }

    /// Changes a header.
    pub(super) fn apply(&self, request: &mut RequestHeader) -> Result<()> {
        let dropped: Vec<HeaderName> =
            request.headers.keys().filter(|name| self.drops(name)).cloned().collect();
        for name in &dropped {
            request.remove_header(name);
        }
        self.put_own(&mut Header { request, value: Vec::new() })
    }

    /// Writes what the client's fields become, line by line.
    pub(super) fn write(&self, out: &mut Vec<u8>) -> Result<()> {
        for (name, value) in self.headers {
            if !self.drops(name) && !self.replaces(name) {
                line(out, name, value.as_bytes());
            }
        }
        self.put_own(out)
    }
}

/// A header, and room for a value.
struct Header<'r> {
    request: &'r mut RequestHeader,
    value: Vec<u8>,
}

impl Fields for Header<'_> {
    fn put(&mut self, name: &Name, write: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        self.value.clear();
        write(&mut self.value);
        self.request.insert_header(&name.name, &*self.value)
    }

    fn put_value(&mut self, name: HeaderName, value: HeaderValue) -> Result<()> {
        self.request.insert_header(name, value)
    }

    fn put_nothing(&mut self, name: &Name) {
        self.request.remove_header(&name.name);
    }
}

/// Where lines are written, those of a client that have these names are left out.
impl Fields for Vec<u8> {
    fn put(&mut self, name: &Name, write: impl FnOnce(&mut Self)) -> Result<()> {
        append(self, name.line);
        write(self);
        append_few(self, *b"\r\n");
        Ok(())
    }

    fn put_value(&mut self, name: HeaderName, value: HeaderValue) -> Result<()> {
        line(self, &name, value.as_bytes());
        Ok(())
    }

    fn put_nothing(&mut self, _: &Name) {}
}

fn line(out: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    append(out, title::of(name).as_bytes());
    append_few(out, *b": ");
    append(out, value);
    append_few(out, *b"\r\n");
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use http::Method;
    use ipnet::IpNet;
    use proptest::prelude::*;

    use super::*;
    use crate::message::forwarded::client;
    use crate::message::head::HeadLimits;
    use crate::message::head::HeadScanner;
    use crate::message::head::Scan;
    use crate::message::target::Scheme;
    use crate::upstream::lease::Body;

    /// Names that something is done with, and some that nothing is.
    const NAMES: [&str; 28] = [
        "accept",
        "client-cert",
        "client_cert_verified",
        "cf-connecting-ip",
        "connection",
        "cookie",
        "expect",
        "forwarded",
        "host",
        "keep-alive",
        "max-forwards",
        "proxy-authorization",
        "te",
        "trailer",
        "traceparent",
        "tracestate",
        "upgrade",
        "user-agent",
        "via",
        "x-custom",
        "x-forwarded-port",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-named",
        "x-real-ip",
        "x-request-id",
        "x_forwarded_for",
    ];

    fn field() -> impl Strategy<Value = (HeaderName, HeaderValue)> {
        let value = prop_oneof![
            Just("trailers".to_owned()),
            Just("x-named".to_owned()),
            Just("192.0.2.1, 2001:db8::1".to_owned()),
            Just("7".to_owned()),
            Just("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
            "[!-~]( ?[!-~]){0,8}",
        ];
        (prop::sample::select(&NAMES[..]), value).prop_map(|(name, value)| {
            let value = HeaderValue::from_str(&value).expect("visible text");
            (HeaderName::from_static(name), value)
        })
    }

    fn option() -> impl Strategy<Value = String> {
        prop_oneof![
            prop::sample::select(&NAMES[..]).prop_map(str::to_owned),
            prop::sample::select(&NAMES[..]).prop_map(str::to_ascii_uppercase),
            "[a-z ]{0,6}",
        ]
    }

    fn peer() -> impl Strategy<Value = Option<IpAddr>> {
        prop_oneof![
            Just(None),
            any::<[u8; 4]>().prop_map(|octets| Some(octets.into())),
            any::<[u8; 16]>().prop_map(|octets| Some(octets.into())),
        ]
    }

    fn everyone() -> [IpNet; 2] {
        ["0.0.0.0/0", "::/0"].map(|network| network.parse().expect("a network"))
    }

    fn introduction() -> impl Strategy<Value = Introduction> {
        use Introduction::Identity;
        use Introduction::Nothing;
        use Introduction::Whole;
        prop::sample::select(vec![Nothing, Identity, Whole])
    }

    fn version() -> impl Strategy<Value = Version> {
        prop::sample::select(vec![Version::HTTP_10, Version::HTTP_11, Version::HTTP_2])
    }

    #[test]
    fn the_lines_of_ours_begin_with_their_names() {
        let all = [
            &TE,
            &COOKIE,
            &VIA,
            &MAX_FORWARDS,
            &CHAIN,
            &ADDRESS,
            &PROTO,
            &FORWARDED,
            &ASKED_HOST,
            &ID,
            &HOST,
        ];
        for Name { name, line } in all {
            assert_eq!([title::of(name).as_bytes(), b": "].concat(), *line);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]

        #[test]
        fn what_belongs_to_a_connection_is_told_in_all_ways_alike(
            fields in prop::collection::vec(field(), 0..12),
            options in prop::collection::vec(option(), 0..24),
        ) {
            let mut headers = HeaderMap::from_iter(fields);
            headers.remove(header::CONNECTION);
            let found = hops::hop_by_hop(&headers);
            for name in headers.keys() {
                let has = Hop::standard().has(name);
                prop_assert_eq!(has, found.contains(name), "{}", name);
                prop_assert!(!(has && admit::is_ordinary(name)), "{}", name);
            }
            let options = HeaderValue::from_str(&options.join(", ")).expect("tokens");
            headers.insert(header::CONNECTION, options);
            let (hop, found) = (Hop::of(&headers), hops::hop_by_hop(&headers));
            for name in headers.keys() {
                prop_assert_eq!(hop.has(name), found.contains(name), "{}", name);
            }
        }

        /// What is written at once is what a map becomes, and beyond doubt one request.
        #[test]
        fn both_ways_to_carry_changes_out_come_to_the_same(
            fields in prop::collection::vec(field(), 0..12),
            peer in peer(),
            trusted in any::<bool>(),
            introduced in any::<bool>(),
            underscores in prop::sample::select(vec![Underscores::Drop, Underscores::Pass]),
            introduction in introduction(),
            shown in any::<bool>(),
            method in prop::sample::select(vec![Method::GET, Method::OPTIONS]),
            came in version(),
            towards in version(),
            host in prop::sample::select(&["example.org", "example.org:8080", "[2001:db8::1]"][..]),
            offers_tunnel in any::<bool>(),
        ) {
            let headers = HeaderMap::from_iter(fields);
            let asked = Outgoing {
                bodiless: true,
                method: &method,
                headers: &headers,
                offers_tunnel,
                paces_upload: false,
                body: Body::Here,
                replayable: true,
                answered: false,
            };
            let networks: &[IpNet] = if trusted { &everyone() } else { &[] };
            let client = client(peer, Scheme::Http, networks, &headers);
            let authority = Authority::parse(host.as_bytes()).expect("a host");
            let certificate = ClientCertificate::new(
                "CN=a".to_owned(),
                vec!["DNS:a.example".to_owned()],
                "00ff".to_owned(),
                vec![b"foo".to_vec(), b"fo".to_vec()],
            );
            let own = Own {
                underscores,
                client: introduced.then_some((&client, &authority)),
                introduction,
                certificate: shown.then_some(&certificate),
                id: "0af7651916cd43dd",
                host: "origin.example",
            };
            let changes = Changes::of(&asked, came, towards, own);

            let mut request =
                RequestHeader::build_no_case(Method::GET, b"/", None).expect("a request");
            for (name, value) in &headers {
                request.append_header(name, value).expect("a field");
            }
            changes.apply(&mut request).expect("valid fields");

            let mut text = b"GET / HTTP/1.1\r\n".to_vec();
            changes.write(&mut text).expect("valid fields");
            text.extend_from_slice(b"\r\n");
            let lines = text.split(|byte| *byte == b'\n').skip(1);
            let written: HeaderMap = lines
                .filter_map(|line| {
                    let line = std::str::from_utf8(line).expect("ASCII").strip_suffix('\r')?;
                    let (name, value) = line.split_once(": ")?;
                    let name = HeaderName::from_bytes(name.as_bytes()).expect("a token");
                    Some((name, HeaderValue::from_str(value).expect("visible text")))
                })
                .collect();
            let sorted = |map: &HeaderMap| {
                let mut all: Vec<_> = map
                    .iter()
                    .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
                    .collect();
                all.sort();
                all
            };
            prop_assert_eq!(sorted(&written), sorted(&request.headers));
            if !offers_tunnel {
                let scan = HeadScanner::default().scan(&text, &HeadLimits::default());
                prop_assert!(matches!(scan, Scan::Head(_)), "{}", text.escape_ascii());
            }
        }
    }
}
