//! Scenarios: the real binary, real sockets.

mod basics;
mod bodies;
mod harness;
mod protocols;
