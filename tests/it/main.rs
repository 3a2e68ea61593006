//! Scenarios: the real binary, real sockets.

mod admin;
mod basics;
mod bodies;
mod caching;
mod cli;
mod explain;
mod harness;
mod origins;
mod packaging;
mod process;
mod protocols;
mod purging;
mod reload;
mod routing;
mod shipped;
mod simulation;
mod steps;
mod strict;
mod tls;
mod tour;
mod upstreams;
