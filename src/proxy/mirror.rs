//! Copies of requests for another upstream: what comes of them is counted, and no client notices.
//!
//! What goes to the origin is copied, as it goes there, at its first attempt. A copy is sent by a task of its own
//! once its body is here as a whole; whoever would have to wait for anything is not sent.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use http::HeaderName;
use http::Method;
use http::header;
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
use crate::route::asking::Mirror;
use crate::runtime::Runtime;
use crate::upstream::Fault;
use crate::upstream::backend::random;
use crate::upstream::connect::Kept;
use crate::upstream::exchange::Exchange;
use crate::upstream::fault::refusal_of;
use crate::upstream::lease::Body;
use crate::upstream::lease::Lease;
use crate::upstream::peer::Wish;

/// How much of an answer is read before its connection is given up.
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
    Gathering(Copy),
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
    /// The head without its framing and its end.
    head: Vec<u8>,
    body: Vec<u8>,
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
    let (method, head) = (sent.method.clone(), head(sent, mirror, ctx));
    let copy = Copy { mirror, place, method, client: ctx.ends(), head, body: Vec::new() };
    match asked.bodiless {
        true => copy.send(&ctx.runtime),
        false => ctx.copy = Copying::Gathering(copy),
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

/// The head of a copy, for the host that its upstream is asked for.
fn head(sent: &RequestHeader, mirror: Mirror, ctx: &RequestCtx) -> Vec<u8> {
    let own = ctx.runtime.plan.upstreams[mirror.upstream].host.as_deref().map(str::to_owned);
    let is_rewritten = ctx.route().is_some_and(|route| route.rewrite.host.is_some());
    let asked = ctx.admitted.as_ref().filter(|_| !is_rewritten);
    let host = own.or_else(|| asked.map(|admitted| admitted.authority.to_string()));
    let mut head = Vec::with_capacity(1024);
    head.extend_from_slice(sent.method.as_str().as_bytes());
    head.push(b' ');
    let target = sent.uri.path_and_query().map_or("/", |target| target.as_str());
    head.extend_from_slice(target.as_bytes());
    head.extend_from_slice(b" HTTP/1.1\r\n");
    for (name, value) in &sent.headers {
        let value = match (&host, name) {
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
        if !self.body.is_empty() || !self.method.is_safe() {
            let length = format!("content-length: {}\r\n", self.body.len());
            self.head.extend_from_slice(length.as_bytes());
        }
        self.head.extend_from_slice(b"\r\n");
        self.head.append(&mut self.body);
        let total = upstream.settings().timeouts.total;
        let outcome = match timeout(total, self.ask(&mut lease)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Fault::Timeout),
        };
        // Held until now.
        drop(self.place);
        match outcome {
            Ok(()) => Copied::Answered,
            Err(fault) => {
                lease.failed(fault);
                Copied::Failed
            }
        }
    }

    /// Asks, and reads what comes until it is enough.
    async fn ask(&self, lease: &mut Lease) -> Result<(), Fault> {
        let timeouts = lease.upstream().settings().timeouts;
        let fault = |error: Box<pingora::Error>| Fault::of(refusal_of(&error));
        let exchange = lease.exchange(timeouts.connect, Kept::Welcome).await;
        let mut exchange = exchange.map_err(|_| Fault::Connect)?;
        let began = Instant::now();
        exchange.send_whole(&self.head, timeouts.write).await.map_err(fault)?;
        let status = loop {
            let head = answer(&mut exchange).await.map_err(fault)?;
            if !head.status.is_informational() {
                break head.status;
            }
        };
        lease.answered(status.as_u16(), began.elapsed());
        let mut left = if self.method == Method::HEAD { 0 } else { ANSWER_MOST };
        while left > 0 {
            let part = std::future::poll_fn(|cx| exchange.poll_body(cx)).await.map_err(fault)?;
            let Some(part) = part else { break };
            left = left.saturating_sub(part.len());
        }
        Ok(())
    }
}

async fn answer(exchange: &mut Exchange) -> pingora::Result<ReplyMessage> {
    std::future::poll_fn(|cx| exchange.poll_head(cx)).await
}
