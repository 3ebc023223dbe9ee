//! The command line: a subcommand is an admin call.
//!
//! Words for people go to standard output, or to standard error under `--json`, so that a script reads nothing but the document. That
//! is also how it learns why something was refused.
//! The exit code is part of the answer: see [`wait::Verdict`].

mod act;
pub mod args;
mod ask;
mod client;
mod completions;
mod everywhere;
mod man;
mod merge;
mod process;
pub(crate) mod screen;
#[cfg(test)]
mod tests;
pub mod wait;

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use clap::Parser;

use self::args::{Cli, Command};
use crate::api;

/// Wrong usage (sysexits.h `EX_USAGE`), so that a script tells a typo from a failed drain.
const USAGE: u8 = 64;

/// Why a command ended without doing what it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub exit: u8,
    /// For standard error; empty when there is nothing to say.
    pub message: String,
    /// What the process said, for a script.
    pub(crate) refusal: Option<Box<api::Error>>,
    /// The process did not answer at all: it may be back soon.
    pub(crate) lost_contact: bool,
    /// It answered that there is no such thing.
    pub(crate) not_found: bool,
}

impl Failure {
    /// Exit code 1.
    pub fn error(message: impl Into<String>) -> Failure {
        Failure { exit: 1, message: message.into(), refusal: None, lost_contact: false, not_found: false }
    }

    /// Exit code 64.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure { exit: USAGE, ..Failure::error(message) }
    }

    fn because(self, before: &str) -> Failure {
        let message = format!("{before}{}", self.message);
        self.told(message, before)
    }

    /// In other words; `before` is what they put before those of the process.
    fn told(mut self, message: String, before: &str) -> Failure {
        if let Some(refusal) = &mut self.refusal {
            refusal.error.insert_str(0, before);
        }
        Failure { message, ..self }
    }

    /// As the API says it: error, remedy, problems.
    fn document(&self) -> api::Error {
        let words = || api::Error { error: self.message.trim().to_owned(), ..api::Error::default() };
        self.refusal.as_deref().cloned().unwrap_or_else(words)
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
        Command::Run { file, force } => process::run(&file.config, force, cli.ask.color),
        Command::Check(file) => process::check(&file.config, cli.ask.json),
        Command::Demo { keep } => return crate::demo::run(keep),
        Command::Completions { shell } => completions::completions(shell),
        Command::Man { command, directory } => man::man(command.as_deref(), directory.as_deref()),
        command => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime
                .map_err(|error| Failure::error(format!("no runtime: {error}")))
                .and_then(|runtime| runtime.block_on(act::act(&cli.ask, command, act::Out::standard(cli.ask.color))))
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

/// Writes a whole document to standard output; the exit code.
fn write_out(document: &[u8]) -> Result<u8, Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(document).and_then(|()| out.flush()) {
        Ok(()) => Ok(0),
        // Whoever reads has seen enough: `tidegate man | head`.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(0),
        Err(error) => Err(Failure::error(format!("standard output: {error}"))),
    }
}
