//! Passing a request through to an origin, without Pingora's machinery.
//!
//! What is neither stored nor changed on the way needs none of it: a GET over HTTP/1.1 or HTTP/2, without a body, a
//! range or a condition, on a route that does not cache and has one upstream. The same functions are asked in the same order as on
//! the long way, which answers everything else: who may be asked, what the origin sees, what its answer
//! means, whether another attempt is made, what the client is told.

mod relay;

use std::future::poll_fn;
use std::task::Poll;
use std::time::SystemTime;

use futures_util::future::BoxFuture;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::StatusCode;
use http::Version;
use http::header;
use pingora::Error;
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::protocols::Shutdown;

use crate::cache::date;
use crate::listen::io::EdgeIo;
use crate::listen::room::Room;
use crate::listen::shortcut::Through;
use crate::listen::stream::Http2Stream;
use crate::message::chunked::BodyFraming;
use crate::message::conditional;
use crate::message::hops::Nominated;
use crate::message::reply::ReplyMessage;
use crate::message::reply::ReplyText;
use crate::message::spare;
use crate::proxy::again;
use crate::proxy::answer;
use crate::proxy::arrive::REQUEST_ID;
use crate::proxy::context::RequestCtx;
use crate::proxy::deliver;
use crate::proxy::dress::Fields;
use crate::proxy::dress::Head;
use crate::proxy::dress::HeadMut;
use crate::proxy::fail;
use crate::proxy::fetch;
use crate::proxy::fetch::Lent;
use crate::proxy::finish;
use crate::proxy::forward;
use crate::proxy::outgoing::Outgoing;
use crate::proxy::receive;
use crate::proxy::receive::Stage;
use crate::proxy::through::relay::Begins;
use crate::proxy::through::relay::Coming;
use crate::proxy::through::relay::Opening;
use crate::proxy::through::relay::Relay;
use crate::refusal::Refusal;
use crate::route::Route;
use crate::route::action::Action;
use crate::upstream::Timeouts;
use crate::upstream::exchange::Came;
use crate::upstream::exchange::Exchange;
use crate::upstream::exchange::Question;
use crate::upstream::exchange::http1;
use crate::upstream::lease::Body;

/// How often Pingora, too, lets an attempt follow another.
const MOST_ATTEMPTS: u32 = 16;

/// Whether a request without a body that takes this route is passed through.
pub(crate) fn fits(method: &Method, version: Version, headers: &HeaderMap, route: &Route) -> bool {
    matches!(route.action, Action::Upstream(_))
        && method == Method::GET
        && (version == Version::HTTP_11 || version == Version::HTTP_2)
        && !route.cache.enabled
        && route.standins.is_empty()
        // There the connection is Pingora's, and with it the race of two.
        && route.asking.hedge.is_none()
        && route.asking.mirror.is_none()
        && !headers.contains_key(header::RANGE)
        && !conditional::has_conditions(headers)
}

/// A request that is passed through.
pub(crate) struct Passage {
    /// What is known of it: arrived, admitted, and on its route.
    pub(crate) ctx: Box<RequestCtx>,
    /// Its fields.
    pub(crate) headers: HeaderMap,
    /// The client lets the connection live on.
    pub(crate) keep_alive: bool,
}

/// What ended an attempt.
enum Ended {
    /// No backend was lent; no other will be.
    Refused(Box<Error>),
    /// There was no connection.
    Unconnected(Box<Error>),
    /// The exchange broke.
    Broke(Box<Error>),
}

impl Through for Passage {
    fn run(mut self: Box<Self>, mut io: Box<EdgeIo>, room: &mut Room) {
        room.fill(async move {
            let mut relay = Relay::http1(&mut io);
            let keeps = match self.answer(&mut relay).await {
                Answered::Wholly => self.may_keep(),
                Answered::Refused => false,
                Answered::Cut => return None,
            };
            io.conn().response_is_whole();
            if keeps {
                return Some(io);
            }
            Shutdown::shutdown(io.as_mut()).await;
            None
        });
    }

    fn run_http2(mut self: Box<Self>, mut stream: Http2Stream) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            match self.answer(&mut Relay::http2(&mut stream)).await {
                Answered::Wholly | Answered::Refused => {}
                Answered::Cut => stream.cut(),
            }
        })
    }
}

/// What became of a request.
enum Answered {
    /// It has the origin's answer.
    Wholly,
    /// It has an answer of ours.
    Refused,
    /// What was begun cannot be ended, or nobody is there to be answered.
    Cut,
}

impl Passage {
    /// Answers, and tells of it.
    async fn answer(&mut self, relay: &mut Relay<'_>) -> Answered {
        let answered = match self.pass(relay).await {
            Ok(()) => Answered::Wholly,
            Err(error) => {
                let refusal = fail::verdict(&error, &mut self.ctx);
                match refusal.filter(|_| !relay.has_begun()) {
                    Some(refusal) if Box::pin(self.refuse(relay, refusal)).await => {
                        Answered::Refused
                    }
                    // What was begun is cut, visibly; and who is gone is told nothing.
                    Some(_) | None => Answered::Cut,
                }
            }
        };
        if matches!(answered, Answered::Cut) {
            finish::note_cut(&mut self.ctx);
        }
        self.tell(relay);
        answered
    }

    /// Asks until there is an answer, and passes that on.
    async fn pass(&mut self, relay: &mut Relay<'_>) -> Result<()> {
        let question = forward::question(&outgoing(&self.headers), &mut self.ctx)?;
        let asked = self.ask(&question, relay).await;
        if let Question::Text(text) = question {
            spare::leave_text(text);
        }
        asked
    }

    async fn ask(&mut self, question: &Question, relay: &mut Relay<'_>) -> Result<()> {
        for attempt in 1.. {
            let Err(ended) = self.attempt(question, relay).await else { break };
            let request = Outgoing { answered: relay.has_begun(), ..outgoing(&self.headers) };
            let error = match ended {
                Ended::Refused(error) => error,
                Ended::Unconnected(error) => again::not_connected(&request, error, &mut self.ctx),
                Ended::Broke(error) => again::broke(&request, error, &mut self.ctx),
            };
            if !error.retry() || attempt >= MOST_ATTEMPTS {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Asks one backend, and passes its answer on.
    async fn attempt(
        &mut self,
        question: &Question,
        relay: &mut Relay<'_>,
    ) -> std::result::Result<(), Ended> {
        let Self { ctx, headers, .. } = self;
        let request = outgoing(headers);
        // What is mostly there at once is asked for once before a future is made that waits for it: the future of each
        // request would have room for all of them.
        if let Some(wait) = fetch::begin(ctx) {
            wait.await;
        }
        let allowance = match fetch::lend_now(&request, ctx).map_err(Ended::Refused)? {
            Lent::Now(allowance) => allowance,
            Lent::Later(chosen) => {
                Box::pin(chosen.in_line(&request, ctx)).await.map_err(Ended::Refused)?
            }
        };
        let Some(lease) = &ctx.origin.lease else {
            return Err(Ended::Refused(fetch::refused(ctx, Refusal::Internal)));
        };
        let Timeouts { connect, read, write, .. } = lease.upstream().settings().timeouts;
        let mut exchange = match lease.try_exchange(allowance.kept) {
            Some(exchange) => exchange,
            None => {
                let patience = allowance.for_answer(connect);
                Box::pin(lease.exchange(patience, allowance.kept))
                    .await
                    .map_err(Ended::Unconnected)?
            }
        };
        fetch::connected(exchange.is_on_used_connection(), ctx);
        let sent = match poll_fn(|cx| Poll::Ready(exchange.poll_send(cx, question))).await {
            Poll::Ready(sent) => sent,
            Poll::Pending => Box::pin(exchange.send(question, write)).await,
        };
        sent.map_err(Ended::Broke)?;
        // The time for the answer, which its connection watches, may be over before this one is.
        relay.set_patience((read < allowance.answer).then_some(read));
        let (opening, framing) = loop {
            let came = relay.head(&mut exchange).await.map_err(Ended::Broke)?;
            let begun = begin(&request, &mut exchange, came, relay, ctx).map_err(Ended::Broke)?;
            match begun {
                Begun::Answer(opening, framing) => break (opening, framing),
                Begun::Interim(response) => {
                    Box::pin(relay.interim(*response)).await.map_err(Ended::Broke)?;
                }
            }
        };
        relay.set_patience(Some(allowance.for_all(read)));
        let keep = self.may_keep();
        let coming = Coming { framing, exchange, lent: &mut self.ctx.origin.lease };
        match relay.begin(opening, coming, keep) {
            Begins::Whole(text, length) => relay.whole(text, length).await,
            Begins::InParts(opening, coming) => Box::pin(relay.answer(opening, coming)).await,
        }
        .map_err(Ended::Broke)
    }

    /// Whether the connection may carry another request.
    fn may_keep(&self) -> bool {
        self.keep_alive && !self.ctx.runtime.draining.has_begun()
    }

    /// Answers with a refusal; whether it was sent.
    async fn refuse(&self, relay: &mut Relay<'_>, refusal: Refusal) -> bool {
        let accept = self.headers.get(header::ACCEPT).map_or(&b""[..], |value| value.as_bytes());
        let json = Refusal::prefers_json(accept);
        let body = refusal.body(json);
        let mut fields = answer::fields(refusal, json);
        fields.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        if let Some(hsts) = self.ctx.runtime.hsts(self.ctx.conn.as_deref()) {
            fields.insert(header::STRICT_TRANSPORT_SECURITY, hsts.clone());
        }
        let date = date::format(SystemTime::now());
        for (name, text) in [(header::DATE, date.as_str()), (REQUEST_ID, &self.ctx.id)] {
            if let Ok(value) = HeaderValue::from_str(text) {
                fields.insert(name, value);
            }
        }
        let response = header_of(refusal.status(), Version::HTTP_11, fields);
        relay.own_answer(response, body.into()).await.is_ok()
    }

    /// Writes the log line and counts.
    fn tell(&mut self, relay: &Relay<'_>) {
        let (status, sent) = (relay.status(), relay.sent());
        let Some(admitted) = self.ctx.admitted.take() else { return };
        let target = admitted.target.as_str().as_bytes();
        finish::passed(&mut self.ctx, &self.headers, target, status, sent);
        spare::leave_fields(std::mem::take(&mut self.headers));
    }
}

/// What a head of the origin's begins.
enum Begun {
    /// The answer: how it begins for the client, and how its body is framed.
    Answer(Opening, BodyFraming),
    /// An interim response, which another head follows.
    Interim(Box<ResponseHeader>),
}

/// Takes note of the head that came, and dresses it for the client.
fn begin(
    request: &Outgoing<'_>,
    exchange: &mut Exchange,
    came: Came,
    relay: &Relay<'_>,
    ctx: &mut RequestCtx,
) -> Result<Begun> {
    let head = match came {
        Came::Text => {
            let exchange = exchange.with_text()?;
            if relay.writes_text()
                && let Some(answer) = begin_text(request, exchange, ctx)?
            {
                return Ok(answer);
            }
            exchange.take_head()?
        }
        Came::Fields(head) => *head,
    };
    begin_fields(request, head, relay, ctx)
}

/// The same of one in a map.
#[inline(never)]
fn begin_fields(
    request: &Outgoing<'_>,
    mut head: ReplyMessage,
    relay: &Relay<'_>,
    ctx: &mut RequestCtx,
) -> Result<Begun> {
    match (receive::take_note(request, &head, ctx)?, head.body) {
        (Stage::Final, Some(framing)) => {
            receive::settle(&mut head, ctx)?;
            let dress = deliver::dress_for(&Method::GET, &head, None, ctx);
            Ok(Begun::Answer(relay.opening(head, &dress)?, framing))
        }
        (Stage::Final | Stage::Interim, _) => {
            Ok(Begun::Interim(Box::new(header_of(head.status, head.version, head.headers))))
        }
    }
}

/// The same of an answer whose head goes from text to text; `None` of what has to be in a map for what is done with it.
fn begin_text(
    request: &Outgoing<'_>,
    exchange: &mut http1::Exchange,
    ctx: &mut RequestCtx,
) -> Result<Option<Begun>> {
    let head = exchange.text()?;
    let (Some(framing), Some(ends)) = (head.body, Nominated::by(head.values(&header::CONNECTION)))
    else {
        return Ok(None);
    };
    if ctx.route().is_none_or(|route| !route.headers.response.is_empty()) {
        return Ok(None);
    }
    receive::take_note(request, &head, ctx)?;
    receive::was_asked_for(head.status, ctx)?;
    let dress = deliver::dress_for(&Method::GET, &head, None, ctx);
    let opening = Relay::opening_of(&head, &ends, &dress);
    let length = head.len;
    drop(ends);
    exchange.pass_head(length, Some(framing));
    Ok(Some(Begun::Answer(opening, framing)))
}

/// A request of these fields that is passed through.
fn outgoing(headers: &HeaderMap) -> Outgoing<'_> {
    Outgoing {
        method: &Method::GET,
        headers,
        offers_tunnel: false,
        paces_upload: false,
        body: Body::Here,
        bodiless: true,
        replayable: true,
        answered: false,
    }
}

/// A head that an origin sent.
impl Head for ReplyMessage {
    fn status(&self) -> StatusCode {
        self.status
    }

    fn version(&self) -> Version {
        self.version
    }

    fn first(&self, name: &HeaderName) -> Option<&[u8]> {
        self.headers.get(name).map(HeaderValue::as_bytes)
    }

    fn map(&self) -> Option<&HeaderMap> {
        Some(&self.headers)
    }
}

impl HeadMut for ReplyMessage {
    fn set_status(&mut self, status: StatusCode) -> Result<()> {
        self.status = status;
        Ok(())
    }
}

/// The same where it stands.
impl Head for ReplyText<'_> {
    fn status(&self) -> StatusCode {
        self.status
    }

    fn version(&self) -> Version {
        self.version
    }

    fn first(&self, name: &HeaderName) -> Option<&[u8]> {
        self.values(name).next()
    }

    fn map(&self) -> Option<&HeaderMap> {
        None
    }
}

impl Fields for ReplyMessage {
    fn all(&self) -> &HeaderMap {
        &self.headers
    }

    fn insert(&mut self, name: HeaderName, value: HeaderValue) -> Result<()> {
        Fields::insert(&mut self.headers, name, value)
    }

    fn append(&mut self, name: HeaderName, value: HeaderValue) -> Result<()> {
        Fields::append(&mut self.headers, name, value)
    }

    fn remove(&mut self, name: &HeaderName) {
        Fields::remove(&mut self.headers, name);
    }
}

/// A head as Pingora holds it.
fn header_of(status: StatusCode, version: Version, fields: HeaderMap) -> ResponseHeader {
    let mut response = http::Response::new(());
    *response.status_mut() = status;
    *response.version_mut() = version;
    *response.headers_mut() = fields;
    response.into_parts().0.into()
}
