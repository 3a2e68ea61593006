//! `/v1/upstreams` and what is below it: backends are seen and changed at run time.

use std::sync::Arc;

use arc_swap::ArcSwap;
use http::Method;
use http::Response;
use http::StatusCode;
use pingora::protocols::http::ServerSession;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::admin::json;
use crate::admin::not_allowed;
use crate::admin::purge::asker;
use crate::admin::purge::body;
use crate::admin::purge::problem;
use crate::config::schema::upstream::Address;
use crate::message::segment;
use crate::runtime::Runtime;
use crate::runtime::backends;
use crate::runtime::backends::BackendView;
use crate::runtime::backends::Deed;
use crate::runtime::backends::Done;
use crate::runtime::backends::Problem;
use crate::runtime::patch::Patch;
use crate::runtime::purge::Asker;

/// What is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ask {
    /// Every upstream.
    All,
    /// One.
    One(String),
    /// The backends of an upstream.
    Backends(String),
    /// One of them.
    Backend(String, String),
    /// Something is to be done with it.
    Do(String, String, Word),
    /// The backends of an upstream, or one, are to be checked.
    Check(String, Option<String>),
}

/// What can be done with a backend by a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    Drain,
    Undrain,
    Reset,
}

/// A backend that is not there any more.
#[derive(Serialize)]
struct Removed {
    removed: String,
    /// Requests that it finishes.
    in_flight: u32,
}

/// What a path asks about; `None` is nothing of ours.
pub(super) fn ask(path: &str) -> Option<Ask> {
    let rest = path.strip_prefix("/v1/upstreams")?;
    if rest.is_empty() || rest == "/" {
        return Some(Ask::All);
    }
    let segments: Option<Vec<String>> =
        rest.strip_prefix('/')?.split('/').map(segment::decode).collect();
    let mut segments = segments?;
    if segments.iter().any(String::is_empty) {
        return None;
    }
    let words: Vec<&str> = segments.iter().map(String::as_str).collect();
    let word = match words.as_slice() {
        [_] => return Some(Ask::One(segments.remove(0))),
        [_, "backends"] => return Some(Ask::Backends(segments.remove(0))),
        [_, "check"] => return Some(Ask::Check(segments.remove(0), None)),
        [_, "backends", _, "check"] => {
            let id = segments.swap_remove(2);
            return Some(Ask::Check(segments.swap_remove(0), Some(id)));
        }
        [_, "backends", _] => None,
        [_, "backends", _, "drain"] => Some(Word::Drain),
        [_, "backends", _, "undrain"] => Some(Word::Undrain),
        [_, "backends", _, "breaker", "reset"] => Some(Word::Reset),
        _ => return None,
    };
    let (name, id) = (std::mem::take(&mut segments[0]), std::mem::take(&mut segments[2]));
    Some(match word {
        Some(word) => Ask::Do(name, id, word),
        None => Ask::Backend(name, id),
    })
}

/// Answers it.
pub(super) async fn answer(
    session: &mut ServerSession,
    current: &Arc<ArcSwap<Runtime>>,
    method: &Method,
    ask: Ask,
) -> Response<Vec<u8>> {
    let runtime = current.load_full();
    let looks = *method == Method::GET || *method == Method::HEAD;
    match ask {
        Ask::All if looks => json(StatusCode::OK, &backends::list(&runtime)),
        Ask::All => not_allowed("GET, HEAD"),
        Ask::One(name) if looks => shown(StatusCode::OK, backends::one(&runtime, &name)),
        Ask::One(_) => not_allowed("GET, HEAD"),
        Ask::Backends(name) if looks => {
            let backends = backends::one(&runtime, &name).map(|upstream| upstream.backends);
            shown(StatusCode::OK, backends)
        }
        Ask::Backends(name) if *method == Method::POST => {
            let example = "{\"address\": \"10.0.0.3:8080\", \"id\": \"c\", \"weight\": 2}";
            match read::<Address>(session, example).await {
                Ok(address) => {
                    change(Arc::clone(current), name, Deed::Add(Box::new(address))).await
                }
                Err(refused) => refused,
            }
        }
        Ask::Backends(_) => not_allowed("GET, HEAD, POST"),
        Ask::Backend(name, id) if looks => {
            shown(StatusCode::OK, backends::backend(&runtime, &name, &id))
        }
        Ask::Backend(name, id) if *method == Method::PATCH => {
            match read::<Patch>(session, "{\"weight\": 2}").await {
                Ok(patch) => change(Arc::clone(current), name, Deed::Change(id, patch)).await,
                Err(refused) => refused,
            }
        }
        Ask::Backend(name, id) if *method == Method::DELETE => {
            change(Arc::clone(current), name, Deed::Remove(id)).await
        }
        Ask::Backend(..) => not_allowed("GET, HEAD, PATCH, DELETE"),
        Ask::Do(name, id, word) if *method == Method::POST => {
            let deed = match word {
                Word::Drain => Deed::Drain(id),
                Word::Undrain => Deed::Undrain(id),
                Word::Reset => Deed::ResetBreaker(id),
            };
            change(Arc::clone(current), name, deed).await
        }
        Ask::Check(name, id) if *method == Method::POST => {
            let by = asker();
            shown(StatusCode::OK, backends::check(&runtime, &name, id.as_deref(), &by).await)
        }
        Ask::Do(..) | Ask::Check(..) => not_allowed("POST"),
    }
}

/// Does it to its end, also where nobody waits for the answer any more.
async fn change(current: Arc<ArcSwap<Runtime>>, upstream: String, deed: Deed) -> Response<Vec<u8>> {
    let by = asker();
    match tokio::spawn(carry_out(current, upstream, deed, by)).await {
        Ok(response) => response,
        Err(e) => {
            problem(StatusCode::INTERNAL_SERVER_ERROR, format!("the change came to no end: {e}"))
        }
    }
}

async fn carry_out(
    current: Arc<ArcSwap<Runtime>>,
    upstream: String,
    deed: Deed,
    by: Asker,
) -> Response<Vec<u8>> {
    let is_new = matches!(deed, Deed::Add(_));
    let is_gone = matches!(deed, Deed::Remove(_));
    let is_elsewhere = matches!(&deed, Deed::Change(_, patch) if patch.relocates());
    let work = {
        let (current, upstream) = (Arc::clone(&current), upstream.clone());
        tokio::task::spawn_blocking(move || backends::carry_out(&current, &upstream, &deed, &by))
    };
    let Done { id, backend: left } = match work.await {
        Ok(Ok(done)) => done,
        Ok(Err(wrong)) => {
            // It is there all the same, and its name is looked up as any.
            if let Problem::Unkept { id, .. } = &wrong
                && (is_new || is_elsewhere)
            {
                backends::follow(&current.load_full(), &upstream, id).await;
            }
            return refusal(wrong);
        }
        Err(e) => {
            let why = format!("the change came to no end: {e}");
            return problem(StatusCode::INTERNAL_SERVER_ERROR, why);
        }
    };
    let runtime = current.load_full();
    if is_gone {
        let leaving = backends::one(&runtime, &upstream).map(|one| one.leaving);
        let of_it = |label: &str| label == id || label.strip_prefix(&*id).is_some_and(is_address);
        let mine = leaving.iter().flatten().filter(|one| of_it(&one.label));
        let in_flight = mine.map(|one| one.in_flight).sum();
        return json(StatusCode::OK, &Removed { removed: id, in_flight });
    }
    let mut view = left.map_or_else(|| backends::backend(&runtime, &upstream, &id), Ok);
    if is_new || is_elsewhere {
        backends::follow(&runtime, &upstream, &id).await;
        let now = backends::backend(&runtime, &upstream, &id);
        // Somebody else may have removed it again, and whoever has its id by now may be another.
        let is_same =
            |now: &BackendView| view.as_ref().is_ok_and(|left| left.address == now.address);
        if now.as_ref().is_ok_and(is_same) {
            view = now;
        }
    }
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    shown(status, view)
}

/// Whether the rest of a label is the address that stands behind the id of a name.
fn is_address(rest: &str) -> bool {
    rest.starts_with('/')
}

/// The body, as what it should be.
async fn read<T: DeserializeOwned>(
    session: &mut ServerSession,
    example: &str,
) -> Result<T, Response<Vec<u8>>> {
    let body = body(session).await?;
    let wrong = |why: String| {
        let what = format!("a JSON object is expected, such as {example}");
        problem(StatusCode::BAD_REQUEST, format!("{what}{why}"))
    };
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(wrong(String::new()));
    }
    serde_json::from_slice(&body).map_err(|e| wrong(format!(": {e}")))
}

fn shown(status: StatusCode, view: Result<impl Serialize, Problem>) -> Response<Vec<u8>> {
    match view {
        Ok(view) => json(status, &view),
        Err(wrong) => refusal(wrong),
    }
}

fn refusal(wrong: Problem) -> Response<Vec<u8>> {
    match wrong {
        Problem::Unclear(why) => problem(StatusCode::BAD_REQUEST, why),
        Problem::Unknown(why) => problem(StatusCode::NOT_FOUND, why),
        Problem::Conflict(why) => problem(StatusCode::CONFLICT, why),
        Problem::Unkept { why, .. } => problem(StatusCode::INTERNAL_SERVER_ERROR, why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_what_it_is_about() {
        let app = || "app".to_owned();
        let id = || "http://a:1".to_owned();
        for (path, expected) in [
            ("/v1/upstreams", Some(Ask::All)),
            ("/v1/upstreams/", Some(Ask::All)),
            ("/v1/upstreams/app", Some(Ask::One(app()))),
            ("/v1/upstreams/app/backends", Some(Ask::Backends(app()))),
            ("/v1/upstreams/app/backends/http:%2F%2Fa:1", Some(Ask::Backend(app(), id()))),
            (
                "/v1/upstreams/app/backends/http:%2f%2fa:1/drain",
                Some(Ask::Do(app(), id(), Word::Drain)),
            ),
            (
                "/v1/upstreams/app/backends/http:%2f%2fa:1/breaker/reset",
                Some(Ask::Do(app(), id(), Word::Reset)),
            ),
            ("/v1/upstreams/app/check", Some(Ask::Check(app(), None))),
            (
                "/v1/upstreams/app/backends/http:%2f%2fa:1/check",
                Some(Ask::Check(app(), Some(id()))),
            ),
            ("/v1/upstreams/app/backends/drain", Some(Ask::Backend(app(), "drain".to_owned()))),
            ("/v1/upstreamsapp", None),
            ("/v1/upstreams//backends", None),
            ("/v1/upstreams/app/backends/a/kill", None),
            ("/v1/upstreams/app/backends/%ff", None),
            ("/v1/upstreams/app/", None),
        ] {
            assert_eq!(ask(path), expected, "{path}");
        }
    }
}
