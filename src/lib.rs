//! `edgeproxy`: a TLS-terminating, caching edge proxy on Pingora.
//!
//! The modules stand in the order in which a request meets them, lowest layer first. A module names
//! only the layers above it in this list; `tests/architecture.rs` holds that line, and
//! `cargo check --no-default-features` builds the pure layers alone, without Pingora, tokio or the
//! file system.

// These panic where the stream cannot be written: a full disk, a reader that left.
#![deny(clippy::print_stdout, clippy::print_stderr)]

// ── L0: words ───────────────────────────────────────────────────────────────────────────────────
pub mod message;
pub mod pieces;
pub mod refusal;
pub mod units;

// ── L1: decisions (pure: no I/O, no clock, no Pingora) ──────────────────────────────────────────
pub mod balance;
pub mod cache;
pub mod resilience;
pub mod route;

// ── L2: machinery ───────────────────────────────────────────────────────────────────────────────
#[cfg(feature = "server")]
pub mod acme;
#[cfg(feature = "server")]
pub mod listen;
#[cfg(feature = "server")]
pub mod observe;
#[cfg(feature = "server")]
pub mod socket;
#[cfg(feature = "server")]
pub mod storage;
#[cfg(feature = "server")]
pub mod terms;
#[cfg(feature = "server")]
pub mod tls;
#[cfg(feature = "server")]
pub mod upstream;

// ── L3: configuration ───────────────────────────────────────────────────────────────────────────
#[cfg(feature = "server")]
pub mod config;

// ── L4: a running generation ────────────────────────────────────────────────────────────────────
#[cfg(feature = "server")]
pub mod runtime;

// ── L5: faces ───────────────────────────────────────────────────────────────────────────────────
#[cfg(feature = "server")]
pub mod admin;
#[cfg(feature = "server")]
pub mod demo;
#[cfg(feature = "server")]
pub mod proxy;

// ── L6: the program ─────────────────────────────────────────────────────────────────────────────
#[cfg(feature = "server")]
pub mod app;
