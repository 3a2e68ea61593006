//! What scenarios are written with: a real edgeproxy process, scripted origins, plain clients.

pub mod authority;
pub mod client;
pub mod edge;
pub mod http2;
pub mod line;
pub mod origin;
pub mod origin2;
pub mod websocket;

pub(crate) use authority::Authority;
pub use client::Reply;
pub use client::Wire;
pub use edge::Edge;
pub use origin::Origin;
pub use origin::Respond;
pub use origin::ok;
pub use origin::status;
pub(crate) use origin2::Origin2;

use std::time::Duration;

/// How long anything may take before a test says that it hangs.
pub const PATIENCE: Duration = Duration::from_secs(30);
