//! The command line: a subcommand is an admin call.
//!
//! Words for people go to standard output, or to standard error under `--json`, so that a script reads nothing but the document.
//! The exit code is part of the answer: see [`wait::Verdict`].

mod act;
pub mod args;
mod ask;
mod client;
mod everywhere;
mod merge;
mod process;
mod screen;
#[cfg(test)]
mod tests;
pub mod wait;

use std::process::ExitCode;

use clap::Parser;

use self::args::{Cli, Command};

/// Wrong usage (sysexits.h `EX_USAGE`), so that a script tells a typo from a failed drain.
const USAGE: u8 = 64;

/// Why a command ended without doing what it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub exit: u8,
    /// For standard error; empty when there is nothing to say.
    pub message: String,
    /// The process did not answer at all: it may be back soon.
    pub(crate) lost_contact: bool,
    /// It answered that there is no such thing.
    pub(crate) not_found: bool,
}

impl Failure {
    /// Exit code 1.
    pub fn error(message: impl Into<String>) -> Failure {
        Failure { exit: 1, message: message.into(), lost_contact: false, not_found: false }
    }

    /// Exit code 64.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure { exit: USAGE, ..Failure::error(message) }
    }

    fn because(self, before: &str) -> Failure {
        Failure { message: format!("{before}{}", self.message), ..self }
    }
}

/// The whole program.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let exit = if error.use_stderr() { USAGE } else { 0 };
            if error.print().is_err() {
                return ExitCode::from(1);
            }
            return ExitCode::from(exit);
        }
    };
    let done = match cli.command {
        Command::Run { file, force } => process::run(&file.config, force),
        Command::Check(file) => process::check(&file.config, cli.ask.json),
        Command::Demo { keep } => return crate::demo::run(keep),
        command => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime
                .map_err(|error| Failure::error(format!("no runtime: {error}")))
                .and_then(|runtime| runtime.block_on(act::act(&cli.ask, command, Box::new(std::io::stdout()))))
        }
    };
    match done {
        Ok(exit) => ExitCode::from(exit),
        Err(failure) => {
            if !failure.message.is_empty() {
                eprintln!("{}", failure.message);
            }
            ExitCode::from(failure.exit)
        }
    }
}
