//! The dashboards by Grafana's own model of a dashboard: no field is one that Grafana would ignore.
//!
//! The model is the one that its makers publish for programs that write dashboards (PyPI, by pinned version, fetched once below
//! `target/`). It is no Grafana: what a panel looks like is not judged here.

use std::path::Path;
use std::process::{Command, Output};

use super::boards::Board;
use crate::process::require_file;

/// Of Grafana 11, the oldest that the dashboards are for; its makers put a date before the version.
const MODEL: &str = "grafana-foundation-sdk==1769699734!11.0.0";

fn succeeds(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

#[test]
fn grafana_knows_every_field_of_the_dashboards() {
    require_file("/usr/lib/python3.11/ensurepip", "python3-venv");
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = project.join("target/tools/grafana-model");
    let note = folder.join("fetched");
    if std::fs::read_to_string(&note).ok().as_deref() != Some(MODEL) {
        succeeds(Command::new("/usr/bin/python3").args(["-m", "venv", "--clear"]).arg(&folder));
        succeeds(Command::new(folder.join("bin/pip")).args(["install", "--quiet", MODEL]));
        std::fs::write(&note, MODEL).expect("the folder was made above");
    }
    let boards = Board::all();
    let mut command = Command::new(folder.join("bin/python"));
    command.arg(project.join("tests/it/prometheus/schema.py")).args(boards.iter().map(|board| &board.path));
    let output = succeeds(&mut command);
    assert!(output.stdout.is_empty(), "Grafana would ignore:\n{}", String::from_utf8_lossy(&output.stdout));
}
