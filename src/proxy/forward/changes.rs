//! What changes of a request's fields on their way to the origin: said once, carried out on a map or
//! while the fields are written.

use std::ops::Range;

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Version;
use http::header;
use pingora::Result;
use pingora::http::RequestHeader;

use crate::message::admit;
use crate::message::certificate;
use crate::message::certificate::ClientCertificate;
use crate::message::certificate::Introduction;
use crate::message::forwarded;
use crate::message::forwarded::Client;
use crate::message::forwarded::Trust;
use crate::message::hops;
use crate::message::hops::Names;
use crate::message::target::Authority;
use crate::message::title;
use crate::message::trace::TRACEPARENT;
use crate::message::trace::TRACESTATE;
use crate::message::trace::TraceContext;
use crate::proxy::outgoing::Outgoing;
use crate::route::Underscores;

/// What changes of a request's fields, a route's own changes aside.
#[derive(Debug)]
pub(super) struct Changes {
    /// The fields of the client's connection.
    hop: Names,
    /// The handshake for a tunnel passes.
    handshake: bool,
    /// What the peer says of whom it stands for is not believed.
    stranger: bool,
    underscores: Underscores,
    trace: Trace,
    /// Fields of ours instead of all others of their names; `None` has none.
    puts: Vec<(HeaderName, Put)>,
    /// What some of them say, one behind the other.
    text: String,
}

/// What stands in a field of ours.
#[derive(Debug)]
enum Put {
    /// There is none.
    Nothing,
    /// This.
    Value(HeaderValue),
    /// This part of the text.
    Text(Range<usize>),
    /// This word.
    Word(&'static str),
}

/// Room for the fields of ours that most requests have, and for what they say.
const PUTS: usize = 10;
const TEXT: usize = 256;

/// What passes of a trace context (W3C Trace Context §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trace {
    All,
    WithoutState,
    Nothing,
}

impl Changes {
    /// What changes on the way of a request `asked` to an origin that speaks `towards`; of the request
    /// that came in this version.
    pub(super) fn of(asked: &Outgoing<'_>, came: Version, towards: Version) -> Self {
        let headers = asked.headers;
        let mut puts = Vec::with_capacity(PUTS);
        if towards == Version::HTTP_2 && hops::wants_trailers(headers) {
            puts.push((header::TE, Put::Word("trailers")));
        }
        if towards != Version::HTTP_2
            && let Some(cookie) = hops::joined_cookie(headers)
        {
            puts.push((header::COOKIE, Put::Value(cookie)));
        }
        puts.push((header::VIA, Put::Value(hops::via(headers, came))));
        Self {
            hop: hops::hop_by_hop(headers),
            handshake: asked.offers_tunnel,
            stranger: false,
            underscores: Underscores::Drop,
            trace: match TraceContext::of(headers) {
                TraceContext::Valid(_) => Trace::All,
                TraceContext::Absent | TraceContext::WithoutState(_) => Trace::WithoutState,
                TraceContext::Malformed => Trace::Nothing,
            },
            puts,
            text: String::with_capacity(TEXT),
        }
    }

    /// What the route says of names with underscores.
    pub(super) fn set_underscores(&mut self, underscores: Underscores) {
        self.underscores = underscores;
    }

    /// Says who the client is; what strangers say about it does not pass.
    pub(super) fn introduce(&mut self, client: &Client, host: &Authority) {
        self.stranger = client.peer == Trust::Untrusted;
        let said = client.say(host, &mut self.text);
        let part = |part: Option<Range<usize>>| part.map_or(Put::Nothing, Put::Text);
        self.puts.extend([
            (forwarded::X_FORWARDED_FOR, part(said.x_forwarded_for)),
            (forwarded::X_REAL_IP, part(said.x_real_ip)),
            (forwarded::X_FORWARDED_PROTO, Put::Word(said.x_forwarded_proto)),
            (header::FORWARDED, Put::Text(said.forwarded)),
        ]);
        self.put_text(forwarded::X_FORWARDED_HOST, host.as_str());
    }

    /// Says whose certificate the client showed, as far as the origin is to know.
    pub(super) fn present(
        &mut self,
        introduction: Introduction,
        client: Option<&ClientCertificate>,
    ) {
        match client {
            Some(client) => self.all(client.fields(introduction)),
            None => self.all(certificate::fields_of_none(introduction)),
        }
    }

    fn all(&mut self, fields: impl Iterator<Item = (HeaderName, HeaderValue)>) {
        self.puts.extend(fields.map(|(name, value)| (name, Put::Value(value))));
    }

    /// Puts a field in the place of all others of its name.
    pub(super) fn put(&mut self, name: HeaderName, value: HeaderValue) {
        self.puts.push((name, Put::Value(value)));
    }

    /// The same with a value that is visible ASCII, as whoever calls has seen to.
    pub(super) fn put_text(&mut self, name: HeaderName, value: &str) {
        let begins = self.text.len();
        self.text.push_str(value);
        self.puts.push((name, Put::Text(begins..self.text.len())));
    }

    /// The bytes of a field of ours; `None` of one that there is not.
    fn said<'a>(&'a self, put: &'a Put) -> Option<&'a [u8]> {
        Some(match put {
            Put::Nothing => return None,
            Put::Value(value) => value.as_bytes(),
            Put::Text(part) => self.text[part.clone()].as_bytes(),
            Put::Word(word) => word.as_bytes(),
        })
    }

    /// Whether a field of the client's does not pass, for whatever reason but that one of ours takes its
    /// place.
    fn drops(&self, name: &HeaderName) -> bool {
        let dropped = match *name {
            // Framing of this message, written anew for the origin.
            header::TRANSFER_ENCODING => false,
            // We answered it ourselves.
            header::EXPECT => true,
            header::CONNECTION | header::UPGRADE if self.handshake => false,
            _ if *name == TRACEPARENT => self.trace == Trace::Nothing,
            _ if *name == TRACESTATE => self.trace != Trace::All,
            _ => self.hop.contains(name),
        };
        dropped
            || admit::is_dropped(name)
            || (self.stranger && forwarded::is_address_claim(name))
            || (self.underscores == Underscores::Drop && name.as_str().contains('_'))
    }

    /// Changes a header.
    pub(super) fn apply(&self, request: &mut RequestHeader) -> Result<()> {
        let dropped: Vec<HeaderName> =
            request.headers.keys().filter(|name| self.drops(name)).cloned().collect();
        for name in &dropped {
            request.remove_header(name);
        }
        for (name, put) in &self.puts {
            match self.said(put) {
                Some(value) => request.insert_header(name, value)?,
                None => drop(request.remove_header(name)),
            }
        }
        Ok(())
    }

    /// Writes what `headers` become, line by line.
    pub(super) fn write(&self, headers: &HeaderMap, out: &mut Vec<u8>) {
        for (name, value) in headers {
            if !self.drops(name) && !self.puts.iter().any(|(put, _)| put == name) {
                line(out, name, value.as_bytes());
            }
        }
        for (name, put) in &self.puts {
            if let Some(value) = self.said(put) {
                line(out, name, value);
            }
        }
    }
}

fn line(out: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    out.extend_from_slice(title::of(name).as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use http::Method;
    use proptest::prelude::*;

    use super::*;
    use crate::message::forwarded::client;
    use crate::message::head::HeadLimits;
    use crate::message::head::HeadScanner;
    use crate::message::head::Scan;
    use crate::message::target::Scheme;
    use crate::upstream::lease::Body;

    /// Names that something is done with, and some that nothing is.
    const NAMES: [&str; 26] = [
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
        "proxy-authorization",
        "te",
        "trailer",
        "traceparent",
        "tracestate",
        "upgrade",
        "user-agent",
        "via",
        "x-custom",
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
            Just("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
            "[!-~]( ?[!-~]){0,8}",
        ];
        (prop::sample::select(&NAMES[..]), value).prop_map(|(name, value)| {
            let value = HeaderValue::from_str(&value).expect("visible text");
            (HeaderName::from_static(name), value)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// What is written at once is what a map becomes, and beyond doubt one request.
        #[test]
        fn both_ways_to_carry_changes_out_come_to_the_same(
            fields in prop::collection::vec(field(), 0..12),
            known in any::<bool>(),
            offers_tunnel in any::<bool>(),
        ) {
            let headers = HeaderMap::from_iter(fields);
            let asked = Outgoing {
                bodiless: true,
                method: &Method::GET,
                headers: &headers,
                offers_tunnel,
                paces_upload: false,
                body: Body::Here,
                replayable: true,
                answered: false,
            };
            let mut changes = Changes::of(&asked, Version::HTTP_11, Version::HTTP_11);
            let peer = known.then(|| [192, 0, 2, 1].into());
            let host = Authority::parse(b"example.org").expect("a host");
            changes.introduce(&client(peer, Scheme::Http, &[], &headers), &host);
            changes.put(header::HOST, HeaderValue::from_static("example.org"));

            let mut request =
                RequestHeader::build_no_case(Method::GET, b"/", None).expect("a request");
            for (name, value) in &headers {
                request.append_header(name, value).expect("a field");
            }
            changes.apply(&mut request).expect("valid fields");

            let mut text = b"GET / HTTP/1.1\r\n".to_vec();
            changes.write(&headers, &mut text);
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
