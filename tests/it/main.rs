//! Scenarios: the real binary, real sockets.

mod basics;
mod harness;
mod tour;
