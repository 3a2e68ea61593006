//! The configuration changes while the process runs, and nobody notices who does not look.

mod flight;
mod kept;
mod listeners;
pub(crate) mod load;
mod many;
mod ways;

use serde_json::Value;

use crate::harness::Reply;

/// What the admin listener says in JSON.
#[track_caller]
fn json(reply: &Reply) -> Value {
    serde_json::from_slice(&reply.body).unwrap_or_else(|e| panic!("{e}: {reply:?}"))
}

/// One listener, and a route that answers this.
fn saying(text: &str) -> String {
    format!(
        "listeners: [{{name: http, address: \"127.0.0.1:0\", h2c: true}}]\n\
         routes: [{{name: all, respond: {{status: 200, body: \"{text}\"}}}}]\n"
    )
}
