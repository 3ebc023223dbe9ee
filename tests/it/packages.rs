//! What `deploy/` gives to those who install tidegate: the systemd unit, the Debian package, images and manifests.
//!
//! No container engine and no booted systemd is asked for: files are checked by the tools of their trade, and what they start is
//! started here, with what they would be given.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

mod debian;
mod systemd;

/// A file or folder of the project.
fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(project(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All that a command said; panics with it unless the command succeeded.
#[track_caller]
fn succeeds(command: &mut Command) -> String {
    let (output, said) = run(command);
    assert!(output.status.success(), "{command:?}\n{said}");
    said
}

fn run(command: &mut Command) -> (Output, String) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; `tests/run` installs what the tests need"));
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output, said)
}
