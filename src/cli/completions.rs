//! Completions of the shells, made from what clap knows of the commands.
//!
//! Names of apps, releases and targets are not completed: a shell that asks the running process at every TAB needs its address and token.

use clap::CommandFactory;
use clap_complete::{Shell, generate};

use super::args::Cli;
use super::{Failure, write_out};

/// To standard output.
///
/// # Errors
/// It cannot be written.
pub fn completions(shell: Shell) -> Result<u8, Failure> {
    let mut script = Vec::new();
    generate(shell, &mut Cli::command(), "tidegate", &mut script);
    write_out(&script)
}
