//! The journey of a request: `impl ProxyHttp` as a table of contents. Each callback is one call into
//! the file of its phase; decisions are made in the pure layers.

mod admit;
mod again;
mod answer;
mod arrive;
pub mod context;
mod deliver;
mod dress;
mod enter;
mod errand;
mod fail;
mod fetch;
mod finish;
mod forward;
mod freshen;
mod heads;
mod hedge;
mod lookup;
mod mirror;
mod obtain;
mod outgoing;
mod parts;
mod piece;
mod posted;
mod proof;
mod purge;
mod receive;
mod serve;
pub mod short;
mod sliced;
mod sticky;
mod store;
mod stored;
mod through;
pub mod watch;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use pingora::Error;
use pingora::Result;
use pingora::http::RequestHeader;
use pingora::http::ResponseHeader;
use pingora::modules::http::HttpModules;
use pingora::protocols::Digest;
use pingora::upstreams::peer::HttpPeer;
use pingora_cache::CacheKey;
use pingora_cache::CacheMeta;
use pingora_cache::ForcedFreshness;
use pingora_cache::RespCacheable;
use pingora_cache::storage::HitHandler;
use pingora_proxy::FailToProxy;
use pingora_proxy::ProxyHttp;
use pingora_proxy::ProxyWarnLogContext;
use pingora_proxy::RangeType;
use pingora_proxy::Session;

use crate::proxy::context::Arrival;
use crate::proxy::context::RequestCtx;
use crate::proxy::outgoing::Outgoing;
use crate::runtime::Runtime;
use crate::terms;
use crate::upstream::pool::was_reused;

/// The proxy: every listener's requests pass through it.
pub struct EdgeProxy {
    runtime: Arc<ArcSwap<Runtime>>,
}

impl EdgeProxy {
    /// A proxy that serves each request with the generation current at its first byte.
    #[must_use]
    pub fn new(runtime: Arc<ArcSwap<Runtime>>) -> Self {
        Self { runtime }
    }
}

#[async_trait]
impl ProxyHttp for EdgeProxy {
    type CTX = RequestCtx;

    // 1 ─ A request arrives.

    fn new_ctx(&self) -> RequestCtx {
        RequestCtx::new(self.runtime.load_full())
    }

    fn allow_spawning_subrequest(&self, _session: &Session, ctx: &RequestCtx) -> bool {
        ctx.arrival == Arrival::Client
    }

    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn early_request_filter(
        &self,
        session: &mut Session,
        ctx: &mut RequestCtx,
    ) -> Result<()> {
        arrive::introduce(session, ctx);
        Ok(())
    }

    // 2 ─ May it come in, and where does it belong?

    async fn request_filter(&self, session: &mut Session, ctx: &mut RequestCtx) -> Result<bool> {
        admit::decide(session, ctx).await
    }

    // 3 ─ Do we already know the answer?

    fn request_cache_filter(&self, session: &mut Session, ctx: &mut RequestCtx) -> Result<()> {
        lookup::open(session, ctx);
        Ok(())
    }

    fn cache_key_callback(&self, _session: &Session, ctx: &mut RequestCtx) -> Result<CacheKey> {
        lookup::key(ctx)
    }

    async fn cache_hit_filter(
        &self,
        _session: &mut Session,
        meta: &CacheMeta,
        _hit_handler: &mut HitHandler,
        _is_fresh: bool,
        ctx: &mut RequestCtx,
    ) -> Result<Option<ForcedFreshness>> {
        Ok(Some(lookup::judge(meta, ctx)))
    }

    fn cache_miss(&self, session: &mut Session, ctx: &mut RequestCtx) {
        lookup::missed(session, ctx);
    }

    // 4 ─ Ask an origin.

    async fn proxy_upstream_filter(
        &self,
        session: &mut Session,
        ctx: &mut RequestCtx,
    ) -> Result<bool> {
        fetch::may_go(session, ctx).await
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        ctx: &mut RequestCtx,
    ) -> Result<Box<HttpPeer>> {
        let body = fetch::body(session, ctx);
        // A fetch of ours has none.
        let is_ours = ctx.arrival == Arrival::Refresh;
        let bodiless = is_ours || session.as_downstream_mut().is_body_empty();
        fetch::choose(&Outgoing { body, bodiless, ..Outgoing::of(session) }, ctx).await
    }

    async fn connected_to_upstream(
        &self,
        _session: &mut Session,
        reused: bool,
        _peer: &HttpPeer,
        _fd: std::os::fd::RawFd,
        digest: Option<&Digest>,
        ctx: &mut RequestCtx,
    ) -> Result<()> {
        fetch::connected(reused || was_reused(digest), ctx);
        Ok(())
    }

    fn fail_to_connect(
        &self,
        session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut RequestCtx,
        error: Box<Error>,
    ) -> Box<Error> {
        again::not_connected(&Outgoing::of(session), error, ctx)
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        ctx: &mut RequestCtx,
        _client_reused: bool,
    ) -> Box<Error> {
        again::broke(&Outgoing::of(session), error, ctx)
    }

    // 5 ─ What the origin sees.

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut RequestCtx,
    ) -> Result<()> {
        forward::rebuild(session, request, ctx)
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut RequestCtx,
    ) -> Result<()> {
        forward::pass_body(session.req_header(), body, end_of_stream, ctx)
    }

    // 6 ─ What the origin says.

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut RequestCtx,
    ) -> Result<()> {
        receive::examine(session, response, ctx)
    }

    fn upstream_response_trailer_filter(
        &self,
        _session: &mut Session,
        trailers: &mut HeaderMap,
        _ctx: &mut RequestCtx,
    ) -> Result<()> {
        receive::examine_trailers(trailers);
        Ok(())
    }

    fn response_cache_filter(
        &self,
        session: &Session,
        response: &ResponseHeader,
        ctx: &mut RequestCtx,
    ) -> Result<RespCacheable> {
        Ok(store::keep(session, response, ctx))
    }

    // 7 ─ What the client sees.

    fn cache_not_modified_filter(
        &self,
        session: &Session,
        response: &ResponseHeader,
        ctx: &mut RequestCtx,
    ) -> Result<bool> {
        Ok(deliver::is_not_modified(session, response, ctx))
    }

    fn range_header_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut RequestCtx,
    ) -> RangeType {
        deliver::select_range(session, response, ctx)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut RequestCtx,
    ) -> Result<()> {
        deliver::dress(session, response, ctx)?;
        if deliver::is_all(response) {
            terms::pass_answer();
        }
        Ok(())
    }

    fn response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut RequestCtx,
    ) -> Result<Option<Duration>> {
        posted::take(body.as_ref(), end_of_stream, ctx);
        deliver::pass_body(body, ctx);
        if end_of_stream {
            terms::pass_answer();
        }
        Ok(None)
    }

    // 8 ─ When it fails.

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        ctx: &mut RequestCtx,
    ) -> FailToProxy {
        fail::answer(session, error, ctx).await
    }

    fn should_serve_stale(
        &self,
        session: &mut Session,
        ctx: &mut RequestCtx,
        error: Option<&Error>,
    ) -> bool {
        fail::may_serve_stale(session, error, ctx)
    }

    fn suppress_error_log(&self, _session: &Session, _ctx: &RequestCtx, _error: &Error) -> bool {
        // The access log line and the metric say it; a client must not be able to flood the log.
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _ctx: &RequestCtx,
        _error: &Error,
        _context: ProxyWarnLogContext,
    ) -> bool {
        true
    }

    // 9 ─ Afterwards.

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut RequestCtx) {
        finish::record(session, error, ctx);
    }
}
