//! `POST /v1/explain`: what a request would get, and why.

use http::Response;
use http::StatusCode;
use http::header;
use pingora::protocols::http::ServerSession;

use crate::admin::json;
use crate::admin::purge::body;
use crate::admin::purge::problem;
use crate::admin::text;
use crate::cache::purge::Unclear;
use crate::runtime::Runtime;
use crate::runtime::explain;
use crate::runtime::explain::Question;

/// Reads a question and answers it: in JSON, or as text for who asks for that.
pub(super) async fn answer(session: &mut ServerSession, runtime: &Runtime) -> Response<Vec<u8>> {
    let wants_text = session.get_header_bytes(header::ACCEPT).starts_with(b"text/plain");
    let body = match body(session).await {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    let question: Question = match serde_json::from_slice(&body) {
        Ok(question) => question,
        Err(e) => {
            return problem(
                StatusCode::BAD_REQUEST,
                format!(
                    "a JSON object is expected, such as {{\"url\": \"https://www.example.org/a\", \
                     \"headers\": [[\"Accept-Language\", \"de\"]]}}: {e}"
                ),
            );
        }
    };
    match explain::explain(runtime, &question) {
        Ok(told) if wants_text => text(StatusCode::OK, told.to_string()),
        Ok(told) => json(StatusCode::OK, &told),
        Err(Unclear(why)) => problem(StatusCode::BAD_REQUEST, why),
    }
}
