//! A fetch that is nobody's in particular: a request of our own, on behalf of all who wait for it.
//!
//! It runs beside the clients' requests as one of Pingora's subrequests, through the same phases, so
//! that a client that is slow or gone holds nothing up. What is stored of its response is read from
//! the store; what may not be shared is handed to the client that it was begun for.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::future::join;
use http::HeaderName;
use http::Method;
use http::Version;
use http::header;
use pingora::http::RequestHeader;
use pingora::http::ResponseHeader;
use pingora::protocols::http::HttpTask;
use pingora::protocols::http::subrequest::server::SubrequestHandle;
use pingora_proxy::Session;
use pingora_proxy::subrequest::Ctx as SubrequestCtx;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::cache::directives::RequestDirectives;
use crate::cache::key::Key;
use crate::cache::slice;
use crate::listen::conn;
use crate::listen::conn::Conn;
use crate::message::admit::Admitted;
use crate::message::forwarded::Client;
use crate::message::range::Spec;
use crate::proxy::context::Arrival;
use crate::proxy::context::RequestCtx;
use crate::route::captures::Captures;
use crate::runtime::Runtime;
use crate::storage::flights::Flight;
use crate::storage::flights::Flights;
use crate::storage::flights::Lead;
use crate::storage::flights::Stage;
use crate::storage::variances::Rule;

/// What the client that a fetch was begun for is handed.
pub(crate) enum Handed {
    /// A 1xx response.
    Interim(Box<ResponseHeader>),
    /// The response, which is for it alone.
    Response(Box<ResponseHeader>, Rest),
}

/// What follows the header of a response that is handed on.
pub(crate) struct Rest {
    handle: SubrequestHandle,
    ended: bool,
}

/// A piece of what follows.
pub(crate) enum Piece {
    /// Body.
    Body(bytes::Bytes),
    /// Trailers, the last that comes.
    Trailers(Box<http::HeaderMap>),
    /// It ended as its framing says.
    End,
    /// It was cut.
    Cut,
}

impl Rest {
    /// What comes next; after `End` and `Cut` nothing does.
    pub(crate) async fn next(&mut self) -> Piece {
        loop {
            if self.ended {
                return Piece::End;
            }
            match self.handle.rx.recv().await {
                Some(HttpTask::Body(data, end)) => {
                    self.ended = end;
                    match data {
                        Some(data) if !data.is_empty() => return Piece::Body(data),
                        Some(_) | None => {}
                    }
                }
                Some(HttpTask::Trailer(trailers)) => {
                    self.ended = true;
                    if let Some(trailers) = trailers {
                        return Piece::Trailers(trailers);
                    }
                }
                Some(HttpTask::Done) => self.ended = true,
                Some(HttpTask::Header(..)) => {}
                Some(HttpTask::UpgradedBody(..) | HttpTask::Failed(_)) | None => return Piece::Cut,
            }
        }
    }
}

/// What a client says of the whole that it asks for.
const OF_THE_WHOLE: [HeaderName; 4] =
    [header::RANGE, header::IF_RANGE, header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE];

/// What the fetch takes over from the request that it is begun by.
struct Errand {
    runtime: Arc<Runtime>,
    conn: Option<Arc<Conn>>,
    id: String,
    request: RequestHeader,
    admitted: Option<Admitted>,
    client: Option<Client>,
    route: Option<usize>,
    captures: Captures,
    asked: RequestDirectives,
    key: Option<Key>,
    rule: Option<Arc<Rule>>,
    fields: Option<Arc<http::HeaderMap>>,
    uses: Option<u32>,
    piece: Option<slice::Piece>,
    range: Option<Spec>,
    version: Version,
    flight: Arc<Flight>,
}

/// A fetch under way. It runs in the task of the request that began it, so that neither waits for
/// another thread to be woken; when that request ends sooner, it goes on in a task of its own.
pub(crate) struct Fetch {
    run: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    flights: Arc<Flights>,
    flight: Arc<Flight>,
}

impl Fetch {
    /// Does `work` while the fetch goes on.
    pub(crate) async fn beside<F: Future>(&mut self, work: F) -> F::Output {
        tokio::pin!(work);
        poll_fn(|cx| {
            if self.run.as_mut().is_some_and(|fetch| fetch.as_mut().poll(cx).is_ready()) {
                self.run = None;
            }
            work.as_mut().poll(cx)
        })
        .await
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        if let Some(fetch) = self.run.take()
            && let Ok(runtime) = Handle::try_current()
            && let Some(orphan) = self.flights.go_on(&self.flight)
        {
            runtime.spawn(async move {
                fetch.await;
                drop(orphan);
            });
        }
    }
}

/// Begins the fetch; what it hands on comes through the channel.
pub(crate) fn begin(
    session: &mut Session,
    ctx: &RequestCtx,
    lead: Lead,
) -> (Fetch, mpsc::Receiver<Handed>) {
    // Room for a few interim responses; who does not read them does without.
    let (hand, handed) = mpsc::channel(4);
    let flight = Arc::clone(lead.flight());
    let mut fetch = Fetch { run: None, flights: Arc::clone(&ctx.runtime.flights), flight };
    let Some(spawner) = session.subrequest_spawner.take() else {
        // Dropping the lead says that it failed.
        return (fetch, handed);
    };
    let mut request = session.req_header().clone();
    if let Some(path) = request.uri.path_and_query().map(|path| path.as_str().to_owned())
        && let Ok(uri) = path.parse()
    {
        request.set_uri(uri);
    }
    request.set_version(Version::HTTP_11);
    // A HEAD would have its answer with the header, and the fetch would end there for all others.
    request.set_method(Method::GET);
    // About its own connection.
    request.remove_header(&header::CONNECTION);
    if ctx.cache.piece.is_some() || ctx.cache.range.is_some() {
        // About the whole, of which this is to bring a piece.
        for name in OF_THE_WHOLE {
            request.remove_header(&name);
        }
    }
    let errand = Errand {
        runtime: Arc::clone(&ctx.runtime),
        conn: ctx.conn.clone(),
        id: ctx.id.clone(),
        request,
        admitted: ctx.admitted.clone(),
        client: ctx.client.clone(),
        route: ctx.route,
        captures: ctx.captures.clone(),
        asked: ctx.cache.asked,
        key: ctx.cache.key.clone(),
        rule: ctx.cache.rule.clone(),
        fields: ctx.cache.fields.clone(),
        uses: ctx.cache.uses,
        piece: ctx.cache.piece,
        range: ctx.cache.range,
        version: ctx.version,
        flight: Arc::clone(lead.flight()),
    };
    let conn = errand.conn.clone();
    let user = Box::new(Some(errand));
    let subrequest = SubrequestCtx::builder().user_ctx(user).build();
    // Pingora hands the header over as HTTP/1 text, and reads no other version from it.
    let own = session.as_downstream_mut().req_header_mut();
    let method = own.method.clone();
    own.set_version(Version::HTTP_11);
    own.set_method(Method::GET);
    let (prepared, handle) = spawner.create_subrequest(session.as_ref(), subrequest);
    let own = session.as_downstream_mut().req_header_mut();
    own.set_version(ctx.version);
    own.set_method(method);
    session.subrequest_spawner = Some(spawner);
    let run = async move {
        // Both to their end: the fetch waits for its response to be taken. In this order, so that an
        // interim response is handed on before it is known that the final one is being stored.
        join(prepared.run(), take(handle, &lead, hand)).await;
        drop(lead);
    };
    fetch.run = Some(match conn {
        Some(conn) => Box::pin(conn::on(conn, run)),
        None => Box::pin(run),
    });
    (fetch, handed)
}

/// Takes the response: drops what is read from the store, hands on what is not shared.
async fn take(mut handle: SubrequestHandle, lead: &Lead, hand: mpsc::Sender<Handed>) {
    while let Some(task) = handle.rx.recv().await {
        let HttpTask::Header(header, end) = task else {
            if lead.flight().is_for_nobody() {
                // A body may have no end. The fetch ends with the handle.
                return;
            }
            continue;
        };
        if header.status.is_informational() {
            let _ = hand.try_send(Handed::Interim(header));
            continue;
        }
        if !matches!(lead.flight().stage(), Stage::Asking) {
            continue;
        }
        lead.unshared();
        // A client that is gone by now gets nothing, and the fetch ends with the handle.
        let _ = hand.send(Handed::Response(header, Rest { handle, ended: end })).await;
        return;
    }
}

/// In the fetch itself: takes over what the request knew.
pub(crate) fn take_over(session: &mut Session, ctx: &mut RequestCtx) {
    ctx.arrival = Arrival::Refresh;
    let errand = session
        .subrequest_ctx
        .as_mut()
        .and_then(|subrequest| subrequest.user_ctx_mut())
        .and_then(|user| user.downcast_mut::<Option<Errand>>())
        .and_then(Option::take);
    let Some(errand) = errand else { return };
    *session.req_header_mut() = errand.request;
    ctx.runtime = errand.runtime;
    ctx.id = errand.id;
    ctx.admitted = errand.admitted;
    ctx.client = errand.client;
    ctx.route = errand.route;
    ctx.captures = errand.captures;
    ctx.cache.asked = errand.asked;
    ctx.cache.key = errand.key;
    ctx.cache.rule = errand.rule;
    ctx.cache.fields = errand.fields;
    ctx.cache.uses = errand.uses;
    ctx.cache.piece = errand.piece;
    ctx.cache.range = errand.range;
    ctx.version = errand.version;
    ctx.flight = Some(errand.flight);
}
