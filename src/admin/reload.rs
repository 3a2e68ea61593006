//! `POST /v1/reload`: the configuration is read again, and the answer says what came of it.

use http::Response;
use http::StatusCode;
use serde::Serialize;

use crate::admin::json;
use crate::admin::purge::asker;
use crate::config::diagnostic::Diagnostic;
use crate::config::diff::Beyond;
use crate::config::diff::Changes;
use crate::runtime::reload::Occasion;
use crate::runtime::reload::Refused;
use crate::runtime::reload::Reload;
use crate::runtime::reload::Reloaded;

/// The new configuration is in use.
#[derive(Serialize)]
struct Done<'a> {
    /// In words.
    summary: String,
    changes: &'a Changes,
    warnings: &'a [Diagnostic],
}

/// Why it is not.
#[derive(Serialize)]
struct NotDone<'a> {
    /// In words, those of `check` where the file is wrong.
    error: String,
    /// What is wrong with the file.
    problems: &'a [Diagnostic],
    /// What a running process cannot change.
    beyond: &'a [Beyond],
}

/// Reloads, and answers.
pub(super) async fn answer(reload: &dyn Reload) -> Response<Vec<u8>> {
    match reload.reload(Occasion::Admin(asker().from)).await {
        Ok(Reloaded { changes, warnings }) => json(
            StatusCode::OK,
            &Done { summary: changes.to_string(), changes: &changes, warnings: warnings.all() },
        ),
        Err(refused) => not_done(&refused),
    }
}

fn not_done(refused: &Refused) -> Response<Vec<u8>> {
    let (status, problems, beyond): (_, &[Diagnostic], &[Beyond]) = match refused {
        Refused::Wrong(found) => (StatusCode::UNPROCESSABLE_ENTITY, found.all(), &[]),
        Refused::Beyond(beyond) => (StatusCode::CONFLICT, &[], beyond),
        Refused::NoFile | Refused::Ending | Refused::Unusable(_) => {
            (StatusCode::CONFLICT, &[], &[])
        }
    };
    json(status, &NotDone { error: refused.to_string(), problems, beyond })
}
