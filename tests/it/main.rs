//! Scenarios: the real binary, real sockets.

mod basics;
mod caching;
mod harness;
mod protocols;
mod routing;
mod shipped;
mod tour;
