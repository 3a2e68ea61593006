//! Copies of requests for another upstream: what comes of them is counted, and no client notices.
//!
//! What goes to the origin is copied, as it goes there, at its first attempt. A copy is sent by a task of its own
//! once its body is here as a whole; whoever would have to wait for anything is not sent.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::Either;
use futures_util::future::select;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::header;
use http::request::Parts;
use pingora::http::RequestHeader;
use pingora_proxy::Session;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use crate::message::ends::Ends;
use crate::message::reply::ReplyMessage;
use crate::observe::metrics::labels::Copied;
use crate::proxy::admit;
use crate::proxy::context::RequestCtx;
use crate::proxy::outgoing::Outgoing;
use crate::refusal::Refusal;
use crate::route::asking::Mirror;
use crate::runtime::Runtime;
use crate::upstream::Fault;
use crate::upstream::Protocol;
use crate::upstream::backend::random;
use crate::upstream::connect::Kept;
use crate::upstream::exchange::http1::Exchange;
use crate::upstream::fault::error_of;
use crate::upstream::fault::refusal_of;
use crate::upstream::http2::stream::Head;
use crate::upstream::lease::Body;
use crate::upstream::lease::Lease;
use crate::upstream::mishap::Why;
use crate::upstream::peer::Wish;

/// How much of an answer is read before its connection, or its stream, is given up.
const ANSWER_MOST: usize = 1 << 20;

/// How a body is framed is said anew: a copy has it as a whole.
const ANEW: [HeaderName; 5] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::TRAILER,
    header::EXPECT,
];

/// How far the copy of a request is.
#[derive(Default)]
pub(crate) enum Copying {
    /// Nobody has asked whether there is to be one.
    #[default]
    Unasked,
    /// Its body is still coming.
    Gathering(Box<Copy>),
    /// It was sent, or there is none.
    Over,
}

/// A copy of a request.
pub(crate) struct Copy {
    mirror: Mirror,
    place: OwnedSemaphorePermit,
    method: Method,
    /// Who asked.
    client: Option<Ends>,
    said: Said,
    body: Vec<u8>,
}

/// What is said to a mirror, without how its body is framed.
enum Said {
    /// A head of HTTP/1, without its end.
    Text(Vec<u8>),
    /// A head of HTTP/2.
    Fields(Box<Parts>),
}

/// The request goes to an origin, as `sent`. If it is to be copied, so does the copy, or waits for its body.
pub(crate) fn begin(
    asked: &Outgoing<'_>,
    session: &Session,
    sent: &RequestHeader,
    ctx: &mut RequestCtx,
) {
    match &mut ctx.copy {
        Copying::Unasked => {}
        Copying::Gathering(copy) => {
            // Another attempt, which says it from its beginning.
            copy.body.clear();
            return;
        }
        Copying::Over => return,
    }
    ctx.copy = Copying::Over;
    let Some(mirror) = ctx.route().and_then(|route| route.asking.mirror) else { return };
    // Whoever talks with one side cannot talk with two.
    let is_hop = asked.offers_tunnel || admit::is_conversation(session);
    if is_hop || !mirror.takes(random()) {
        return;
    }
    let places = ctx.route.and_then(|index| ctx.runtime.mirrors.get(index)?.clone());
    let place = places.and_then(|places| places.try_acquire_owned().ok());
    let Some(place) = place else { return count(&ctx.runtime, mirror, Copied::Busy) };
    let (method, said) = (sent.method.clone(), said(sent, mirror, ctx));
    let copy = Copy { mirror, place, method, client: ctx.ends(), said, body: Vec::new() };
    match asked.bodiless {
        true => copy.send(&ctx.runtime),
        false => ctx.copy = Copying::Gathering(Box::new(copy)),
    }
}

/// A part of the request's body goes to the origin.
pub(crate) fn pass_body(part: Option<&Bytes>, end: bool, ctx: &mut RequestCtx) {
    let Copying::Gathering(copy) = &mut ctx.copy else { return };
    let part = part.map_or(&b""[..], |part| part);
    if copy.body.len() + part.len() > copy.mirror.max_body {
        let mirror = copy.mirror;
        ctx.copy = Copying::Over;
        return count(&ctx.runtime, mirror, Copied::TooLarge);
    }
    copy.body.extend_from_slice(part);
    if end && let Copying::Gathering(copy) = std::mem::replace(&mut ctx.copy, Copying::Over) {
        copy.send(&ctx.runtime);
    }
}

/// What is said to a mirror, for the host that its upstream is asked for.
fn said(sent: &RequestHeader, mirror: Mirror, ctx: &RequestCtx) -> Said {
    let own = ctx.runtime.plan.upstreams[mirror.upstream].host.as_deref().map(str::to_owned);
    let is_rewritten = ctx.route().is_some_and(|route| route.rewrite.host.is_some());
    let asked = ctx.admitted.as_ref().filter(|_| !is_rewritten);
    let host = own.or_else(|| asked.map(|admitted| admitted.authority.to_string()));
    match ctx.runtime.plan.upstreams[mirror.upstream].protocol {
        Protocol::Http1 => Said::Text(text(sent, host.as_deref())),
        Protocol::Http2 => Said::Fields(Box::new(fields(sent, host.as_deref()))),
    }
}

fn fields(sent: &RequestHeader, host: Option<&str>) -> Parts {
    let mut head = sent.as_owned_parts();
    for name in &ANEW {
        head.headers.remove(name);
    }
    if let Some(host) = host.and_then(|host| HeaderValue::from_str(host).ok()) {
        head.headers.insert(header::HOST, host);
    }
    head
}

fn text(sent: &RequestHeader, host: Option<&str>) -> Vec<u8> {
    let mut head = Vec::with_capacity(1024);
    head.extend_from_slice(sent.method.as_str().as_bytes());
    head.push(b' ');
    let target = sent.uri.path_and_query().map_or("/", |target| target.as_str());
    head.extend_from_slice(target.as_bytes());
    head.extend_from_slice(b" HTTP/1.1\r\n");
    for (name, value) in &sent.headers {
        let value = match (host, name) {
            (Some(host), name) if name == header::HOST => host.as_bytes(),
            (_, name) if ANEW.contains(name) => continue,
            _ => value.as_bytes(),
        };
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value);
        head.extend_from_slice(b"\r\n");
    }
    head
}

fn count(runtime: &Runtime, mirror: Mirror, outcome: Copied) {
    if let Some(metrics) = runtime.upstream_metrics.get(mirror.upstream) {
        metrics.copied(outcome);
    }
}

impl Copy {
    /// Sends it, by a task of its own.
    fn send(self, runtime: &Arc<Runtime>) {
        let runtime = Arc::clone(runtime);
        tokio::spawn(async move {
            let mirror = self.mirror;
            let outcome = self.exchange(&runtime).await;
            count(&runtime, mirror, outcome);
        });
    }

    async fn exchange(mut self, runtime: &Runtime) -> Copied {
        let upstream = &runtime.upstreams[self.mirror.upstream];
        let Ok(mut lease) = upstream.lend(&Wish::default()) else { return Copied::Failed };
        lease.speak_for(self.client);
        if lease.connection(Body::Here, Duration::ZERO).await.is_err() {
            return Copied::Busy;
        }
        let says_length = !self.body.is_empty() || !self.method.is_safe();
        match &mut self.said {
            Said::Text(head) => {
                if says_length {
                    let length = format!("content-length: {}\r\n", self.body.len());
                    head.extend_from_slice(length.as_bytes());
                }
                head.extend_from_slice(b"\r\n");
                head.append(&mut self.body);
            }
            Said::Fields(head) if says_length => {
                head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(self.body.len()));
            }
            Said::Fields(_) => {}
        }
        let total = upstream.settings().timeouts.total;
        let outcome = match timeout(total, self.ask(&mut lease)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Broke(Fault::Timeout, error_of(Refusal::TotalTimeout))),
        };
        // Held until now.
        drop(self.place);
        match outcome {
            Ok(()) => Copied::Answered,
            Err(Broke(fault, error)) => {
                lease.failed(fault, Why::Error(&error));
                Copied::Failed
            }
        }
    }

    /// Asks, and reads what comes until it is enough.
    async fn ask(&mut self, lease: &mut Lease) -> Result<(), Broke> {
        let body = Bytes::from(std::mem::take(&mut self.body));
        match &self.said {
            Said::Text(request) => self.ask_http1(request, lease).await,
            Said::Fields(head) => self.ask_http2(head, body, lease).await,
        }
    }

    /// How much is read of an answer.
    fn wanted(&self) -> usize {
        if self.method == Method::HEAD { 0 } else { ANSWER_MOST }
    }

    async fn ask_http2(
        &self,
        head: &Parts,
        mut body: Bytes,
        lease: &mut Lease,
    ) -> Result<(), Broke> {
        let timeouts = lease.upstream().settings().timeouts;
        let stream = lease.stream(timeouts.connect, Kept::Welcome).await;
        let mut stream = stream.map_err(|error| Broke(Fault::Connect, error))?;
        let began = Instant::now();
        let has_body = !body.is_empty();
        stream.send(Request::from_parts(head.clone(), ()), has_body).map_err(broke)?;
        let sending = stream.sending();
        let writes = async {
            if has_body && sending.write(&mut body, Some(timeouts.write)).await.is_ok() {
                let _ = sending.finish();
            }
        };
        let reads = async {
            let status = loop {
                match poll_fn(|cx| stream.poll_head(cx)).await.map_err(broke)? {
                    Head::Interim(_) => {}
                    Head::Final(head) => break head.status,
                }
            };
            lease.answered(status.as_u16(), began.elapsed());
            let mut left = self.wanted();
            while left > 0 {
                let part = poll_fn(|cx| stream.poll_body(cx)).await.map_err(broke)?;
                let Some(part) = part else { break };
                left = left.saturating_sub(part.len());
            }
            Ok(())
        };
        // Who has answered wholly may take no more of it; who has only begun may wait for the rest.
        match select(pin!(reads), pin!(writes)).await {
            Either::Left((read, _)) => read,
            Either::Right(((), reads)) => reads.await,
        }
    }

    async fn ask_http1(&self, request: &[u8], lease: &mut Lease) -> Result<(), Broke> {
        let timeouts = lease.upstream().settings().timeouts;
        let exchange = lease.http1(timeouts.connect, Kept::Welcome).await;
        let mut exchange = exchange.map_err(|error| Broke(Fault::Connect, error))?;
        let began = Instant::now();
        exchange.send_whole(request, timeouts.write).await.map_err(broke)?;
        let status = loop {
            let head = answer(&mut exchange).await.map_err(broke)?;
            if !head.status.is_informational() {
                break head.status;
            }
        };
        lease.answered(status.as_u16(), began.elapsed());
        let mut left = self.wanted();
        while left > 0 {
            let part = poll_fn(|cx| exchange.poll_body(cx)).await.map_err(broke)?;
            let Some(part) = part else { break };
            left = left.saturating_sub(part.len());
        }
        Ok(())
    }
}

/// What a copy ended in: whose fault that is, and why.
struct Broke(Fault, Box<pingora::Error>);

fn broke(error: Box<pingora::Error>) -> Broke {
    Broke(Fault::of(refusal_of(&error)), error)
}

async fn answer(exchange: &mut Exchange) -> pingora::Result<ReplyMessage> {
    poll_fn(|cx| exchange.poll_head(cx)).await
}
