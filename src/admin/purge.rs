//! `POST /v1/purge`: from a body to an answer.

use std::sync::Arc;

use http::Response;
use http::StatusCode;
use pingora::protocols::http::ServerSession;
use serde::Serialize;

use crate::admin::json;
use crate::cache::purge::Order;
use crate::cache::purge::Unclear;
use crate::cache::purge::Wish;
use crate::listen::conn;
use crate::runtime::Runtime;
use crate::runtime::purge;
use crate::runtime::purge::Asker;
use crate::runtime::purge::Way;

/// The largest body, in bytes.
const BODY_MOST: usize = 256 << 10;
/// How much of a larger one is read away, so that whoever sends it gets to read the answer.
const AWAY_MOST: usize = 1 << 20;

/// What is wrong with a request.
#[derive(Serialize)]
struct Problem {
    error: String,
}

/// Reads a purge and carries it out.
pub(super) async fn answer(
    session: &mut ServerSession,
    runtime: Arc<Runtime>,
) -> Response<Vec<u8>> {
    let body = match body(session).await {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    let wish = match read(&body) {
        Ok(wish) => wish,
        Err(why) => return problem(StatusCode::BAD_REQUEST, why),
    };
    let order = match wish.order(&runtime.plan.normalisation) {
        Ok(order) => order,
        Err(Unclear(why)) => return problem(StatusCode::BAD_REQUEST, why),
    };
    carry_out(order, runtime).await
}

fn read(body: &[u8]) -> Result<Wish, String> {
    let what = "a JSON object is expected, such as {\"url\": \"https://www.example.org/a\"}";
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(what.to_owned());
    }
    serde_json::from_slice(body).map_err(|e| format!("{what}: {e}"))
}

/// Carries it out to its end, also where nobody waits for the answer any more.
async fn carry_out(order: Order, runtime: Arc<Runtime>) -> Response<Vec<u8>> {
    let by = asker();
    let work = tokio::spawn(async move { purge::purge(&runtime, &order, &by).await });
    match work.await {
        Ok(Ok(report)) => json(StatusCode::OK, &report),
        Ok(Err(Unclear(why))) => problem(StatusCode::BAD_REQUEST, why),
        Err(e) => {
            problem(StatusCode::INTERNAL_SERVER_ERROR, format!("the purge came to no end: {e}"))
        }
    }
}

/// Who asks: an address, or whoever may open the Unix socket.
pub(super) fn asker() -> Asker {
    let peer = conn::current().map(|conn| conn.peer).filter(|peer| peer.port() != 0);
    let from = peer.map_or_else(|| "unix".to_owned(), |peer| peer.ip().to_string());
    Asker { way: Way::Admin, from }
}

pub(super) async fn body(session: &mut ServerSession) -> Result<Vec<u8>, Response<Vec<u8>>> {
    let mut body = Vec::new();
    let mut read = 0;
    while read <= AWAY_MOST {
        match session.read_request_body().await {
            Ok(Some(part)) => {
                read += part.len();
                if read <= BODY_MOST {
                    body.extend_from_slice(&part);
                }
            }
            Ok(None) if read <= BODY_MOST => return Ok(body),
            Ok(None) => break,
            Err(_) => {
                return Err(problem(
                    StatusCode::BAD_REQUEST,
                    "the body did not arrive whole".to_owned(),
                ));
            }
        }
    }
    Err(problem(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("a body has {} KiB at most: ask in several steps", BODY_MOST >> 10),
    ))
}

pub(super) fn problem(status: StatusCode, error: String) -> Response<Vec<u8>> {
    json(status, &Problem { error })
}
