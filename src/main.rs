//! Reads the command line and hands over.

use std::process::ExitCode;

/// Measured against the system's: a tenth less CPU for a small hit, and memory that is given back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    foreland::cli::main()
}
