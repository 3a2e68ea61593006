//! `/v1/certificates`: how the certificates stand that an ACME server issues.

use http::Response;
use http::StatusCode;
use serde::Serialize;

use crate::acme::keeper::Standing;
use crate::admin::json;

/// Tells how they stand.
pub(super) type Standings = Box<dyn Fn() -> Vec<Standing> + Send + Sync>;

#[derive(Serialize)]
struct Answer {
    certificates: Vec<Standing>,
}

/// All of them.
pub(super) fn list(standings: Option<&Standings>) -> Response<Vec<u8>> {
    let certificates = standings.map(|standings| standings()).unwrap_or_default();
    json(StatusCode::OK, &Answer { certificates })
}
