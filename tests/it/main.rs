//! Scenarios: the real binary, real sockets.

mod basics;
mod caching;
mod harness;
mod protocols;
mod tour;
