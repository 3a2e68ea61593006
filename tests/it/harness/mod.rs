//! What scenarios are written with: a real edgeproxy process, scripted origins, plain clients.

pub(crate) mod acme;
pub(crate) mod authority;
pub(crate) mod client;
pub(crate) mod clients;
pub(crate) mod clock;
#[cfg(feature = "srv")]
pub(crate) mod dns;
pub(crate) mod edge;
pub(crate) mod frames;
pub(crate) mod gate;
pub(crate) mod haproxy;
pub(crate) mod http2;
pub(crate) mod line;
pub(crate) mod names;
pub(crate) mod origin;
pub(crate) mod origin2;
pub(crate) mod websocket;

pub(crate) use acme::AcmeServer;
pub(crate) use authority::Authority;
pub(crate) use client::Reply;
pub(crate) use client::Wire;
pub(crate) use clients::Clients;
pub(crate) use clock::Clock;
pub(crate) use edge::Edge;
pub(crate) use gate::Gate;
pub(crate) use haproxy::Haproxy;
pub(crate) use names::Names;
pub(crate) use origin::Origin;
pub(crate) use origin::Respond;
pub(crate) use origin::nobody;
pub(crate) use origin::ok;
pub(crate) use origin::status;
pub(crate) use origin2::Origin2;

use std::time::Duration;

/// How long anything may take before a test says that it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
