//! Scenarios: the real binary, real sockets.

mod basics;
mod harness;
mod origins;
mod strict;
