//! The binary: arguments in, exit code out.

// These panic where the stream cannot be written: a full disk, a reader that left.
#![deny(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

// The allocator decides much of a proxy's speed and footprint; this one returns memory and scales
// over threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    edgeproxy::app::main(std::env::args_os())
}
