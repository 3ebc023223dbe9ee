//! The thin binary: everything lives in the library.

use std::process::ExitCode;

/// A tenth of a request's instructions are spent on memory; mimalloc needs the fewest.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tidegate::cli::main()
}
