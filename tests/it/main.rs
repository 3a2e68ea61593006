//! Scenarios: the real binary, real sockets.

mod basics;
mod bodies;
mod caching;
mod harness;
mod origins;
mod protocols;
mod routing;
mod shipped;
mod strict;
mod tour;
