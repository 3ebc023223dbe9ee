//! The manual says what the program does: tables in README are made from the program, commands and blocks of configuration in all
//! documents are tried, and what they name exists.
//!
//! `UPDATE=1 tests/run manual` writes the tables anew.

mod blocks;
mod commands;
pub mod documents;
mod names;
mod scripts;

use std::fs;
use std::path::Path;
use std::process::Command;

use tidegate::model::reason::{PinResult, Reason};
use tidegate::serve::admin::metrics::metrics_table;

const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");

/// Compares the part of README between `<!-- NAME -->` and `<!-- /NAME -->`, or writes it.
fn check(name: &str, expected: &str) {
    let text = fs::read_to_string(README).unwrap();
    let (open, close) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let start = text.find(&open).unwrap_or_else(|| panic!("README has no {open}")) + open.len();
    let end = start + text[start..].find(&close).unwrap_or_else(|| panic!("README has no {close}"));
    let expected = format!("\n{}\n\n", expected.trim());
    if std::env::var_os("UPDATE").is_some() {
        fs::write(README, format!("{}{expected}{}", &text[..start], &text[end..])).unwrap();
        return;
    }
    assert_eq!(text[start..end], expected, "README's {name} differ from the program; UPDATE=1 tests/run manual writes them anew");
}

/// One test for all parts: they write the same file.
#[test]
fn the_tables_of_readme_are_those_of_the_program() {
    check("metrics", &metrics_table());
    let mut reasons = String::from("| reason | the request |\n|---|---|\n");
    for reason in Reason::ALL {
        reasons.push_str(&format!("| `{}` | {} |\n", reason.as_str(), reason.sentence()));
    }
    check("reasons", &reasons);
    let mut pins = String::from("| result | the pin |\n|---|---|\n");
    for result in PinResult::ALL {
        pins.push_str(&format!("| `{}` | {} |\n", result.as_str(), result.sentence()));
    }
    check("pins", &pins);
    let help = Command::new(env!("CARGO_BIN_EXE_tidegate")).arg("--help").env_remove("TIDEGATE_ADMIN").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let commands = help.split("Commands:\n").nth(1).and_then(|rest| rest.split("\n\n").next()).unwrap();
    check("commands", &format!("```text\n{}\n```", unwrapped(commands)));
}

/// Help without the line breaks of a narrow terminal.
fn unwrapped(commands: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in commands.lines() {
        match line.strip_prefix("            ") {
            Some(rest) if !lines.is_empty() => {
                let last = lines.last_mut().unwrap();
                last.push(' ');
                last.push_str(rest.trim());
            }
            _ => lines.push(line.trim_end().to_owned()),
        }
    }
    lines.join("\n")
}

#[test]
fn the_module_maps_name_every_module() {
    let mut seen = 0;
    for (file, folder) in
        [("src/lib.rs", "src"), ("src/serve/transport/mod.rs", "src/serve/transport"), ("src/model/ledger/mod.rs", "src/model/ledger")]
    {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let text = fs::read_to_string(root.join(file)).unwrap();
        let map: String = text.lines().filter(|line| line.starts_with("//! |")).collect();
        for line in text.lines().filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")) {
            let name = line.trim_end_matches(';');
            if name == "tests" || line.contains('{') {
                continue;
            }
            seen += 1;
            assert!(
                map.contains(&format!("`{name}`")) || map.contains(&format!("[`{name}`]")),
                "{folder}: the module map of {file} misses {name}"
            );
        }
    }
    assert!(seen > 20, "module maps were found: {seen}");
}
