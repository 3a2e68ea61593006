//! Keeping a client at the backend that served it first.

use http::HeaderValue;

use crate::message::target::Scheme;
use crate::proxy::context::RequestCtx;
use crate::proxy::outgoing::Outgoing;
use crate::route::predicate::pairs;
use crate::upstream::Sticky;
use crate::upstream::backend::Backend;

/// The backend that the client says it was served by. What it says may be anything: a number that is no
/// backend's counts as none.
pub(crate) fn wish(sticky: &Sticky, request: &Outgoing<'_>) -> Option<u64> {
    let value = pairs::cookies(request.headers, &sticky.cookie).next()?;
    let text = std::str::from_utf8(&value).ok().filter(|text| text.len() == 16)?;
    u64::from_str_radix(text, 16).ok()
}

/// The cookie to tell the client of its backend; `None` when it knows.
pub(crate) fn tell(
    sticky: &Sticky,
    wish: Option<u64>,
    backend: &Backend,
    ctx: &RequestCtx,
) -> Option<HeaderValue> {
    if wish == Some(backend.key()) {
        return None;
    }
    let mut cookie =
        format!("{}={:016x}; Path=/; HttpOnly; SameSite=Lax", sticky.cookie, backend.key());
    if let Some(age) = sticky.max_age {
        cookie.push_str(&format!("; Max-Age={}", age.as_secs()));
    }
    if ctx.scheme() == Scheme::Https {
        cookie.push_str("; Secure");
    }
    HeaderValue::try_from(cookie).ok()
}
