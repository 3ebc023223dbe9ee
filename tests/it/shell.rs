//! What a shell gets from the program: completions in a real bash, manual pages through a real formatter, colours on a real terminal.
//!
//! The list of commands is read from `--help`, never written here: a new command without a page or a completion fails.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::process::{Scratch, require_file, wait_for};
use crate::scenarios::user_on;
use crate::shop::{Shop, backend};
use crate::tidegate::{SOON, binary};

/// What the program writes to standard output.
fn written_by(arguments: &[&str]) -> String {
    let output = Command::new(binary()).args(arguments).output().expect("the binary runs");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Every command that `--help` names.
fn commands() -> Vec<String> {
    let help = written_by(&["--help"]);
    let list = help.split("Commands:\n").nth(1).and_then(|rest| rest.split("\n\n").next()).expect("a list of commands");
    let names =
        list.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    let names: Vec<String> = names.map(str::to_owned).collect();
    assert!(names.len() > 15, "{names:?}");
    names
}

/// What bash offers at the end of `typed`.
fn offered(script: &Path, typed: &[&str]) -> Vec<String> {
    let words = typed.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
    let (current, before) = (typed.len() - 1, typed.len().saturating_sub(2));
    // As readline calls it: command, word, word before.
    let asked = format!(
        "source '{}' && COMP_WORDS=({words}) COMP_CWORD={current} && declare -F _tidegate >/dev/null && complete -p tidegate >/dev/null \
         && _tidegate tidegate '{}' '{}' && printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        script.display(),
        typed[current],
        typed[before],
    );
    let output = Command::new("/bin/bash").args(["--norc", "-c", &asked]).output().expect("bash runs");
    assert!(output.status.success(), "{typed:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn a_real_bash_completes_commands_options_and_values() {
    let scratch = Scratch::new("completions");
    let script = scratch.write("tidegate.bash", &written_by(&["completions", "bash"]));
    let check = |typed: &[&str], expected: &[&str]| assert_eq!(offered(&script, typed), expected, "{typed:?}");
    check(&["tidegate", "pro"], &["promote"]);
    check(&["tidegate", "ro"], &["rollback"]);
    check(&["tidegate", "promote", "shop", "v42", "--wa"], &["--wait"]);
    check(&["tidegate", "promote", "shop", "v42", "--then", ""], &["keep", "move_idle", "evict"]);
    check(&["tidegate", "completions", "f"], &["fish"]);
    let all = offered(&script, &["tidegate", ""]);
    for command in commands() {
        assert!(all.contains(&command), "{command}: {all:?}");
    }
}

#[test]
fn completions_of_every_shell_name_every_command() {
    for (shell, beginning) in [
        ("bash", "_tidegate() {"),
        ("zsh", "#compdef tidegate"),
        ("fish", "# Print an optspec"),
        ("elvish", "\nuse builtin;"),
        ("powershell", "\nusing namespace System.Management.Automation"),
    ] {
        let script = written_by(&["completions", shell]);
        assert!(script.starts_with(beginning), "{shell}: {}", script.lines().take(3).collect::<Vec<_>>().join("|"));
        for command in commands() {
            assert!(script.contains(&command), "{shell}: {command}");
        }
    }
}

#[test]
fn every_command_has_a_manual_page_that_a_formatter_accepts() {
    require_file("/usr/bin/groff", "groff-base");
    let scratch = Scratch::new("man");
    let folder = scratch.path().display().to_string();
    written_by(&["man", "--directory", &folder]);
    let mut expected: Vec<String> = commands().iter().map(|command| format!("tidegate-{command}.1")).collect();
    expected.push("tidegate.1".to_owned());
    let mut pages: Vec<String> =
        fs::read_dir(scratch.path()).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    expected.sort();
    pages.sort();
    assert_eq!(pages, expected);
    for page in pages {
        let said = Command::new("/usr/bin/groff").args(["-man", "-ww", "-z"]).arg(scratch.path().join(&page)).output().expect("groff runs");
        assert!(said.status.success() && said.stderr.is_empty(), "{page}: {}", String::from_utf8_lossy(&said.stderr));
    }
    assert_eq!(written_by(&["man"]), fs::read_to_string(scratch.path().join("tidegate.1")).unwrap());
    assert_eq!(written_by(&["man", "promote"]), fs::read_to_string(scratch.path().join("tidegate-promote.1")).unwrap());
}

#[test]
fn the_manual_page_reads_as_one() {
    require_file("/usr/bin/groff", "groff-base");
    let scratch = Scratch::new("man-text");
    let page = scratch.write("tidegate.1", &written_by(&["man"]));
    let output = Command::new("/usr/bin/groff").args(["-man", "-Tascii", "-P-c", "-P-b", "-P-u"]).arg(page).output().expect("groff runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let headings: Vec<&str> = text.lines().filter(|line| line.starts_with(|first: char| first.is_ascii_uppercase())).collect();
    let expected = [
        "NAME",
        "SYNOPSIS",
        "DESCRIPTION",
        "OPTIONS",
        "WHOM TO ASK, AND HOW TO ANSWER",
        "COMMANDS",
        "TARGETS",
        "EXIT STATUS",
        "ENVIRONMENT",
        "FILES",
        "SIGNALS",
        "SEE ALSO",
    ];
    assert_eq!(headings[1..headings.len()], expected, "{text}");
    // Lines are filled with blanks to one width.
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for words in ["A deadline or timeout was reached", "TIDEGATE_TOKEN", "./tidegate-state/state.db", "SIGUSR2", "tidegate-promote(1)"] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn a_page_of_no_command_is_wrong_usage() {
    let output = Command::new(binary()).args(["man", "destroy"]).output().expect("the binary runs");
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no command 'destroy'"));
}

#[test]
fn a_terminal_gets_colours_and_blocks_and_everything_else_plain_words() {
    require_file("/usr/bin/script", "bsdutils");
    let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
    let shop = Shop::new("cookie").session("idle_timeout: 30m").session("confirm_within: 1s");
    let tidegate = shop.release("v1", &[&a1]).release("v2", &[&b1]).start();
    let user = user_on(&tidegate, "a1");
    tidegate.cli(&["promote", "shop", "v2"]).expect_code(0);
    tidegate.wait_for_sessions("shop", "v1", 1, 0);

    let piped = tidegate.cli(&["status"]).expect_code(0).stdout;
    assert!(piped.is_ascii() && !piped.contains('\x1b') && piped.contains("[--------------------]   0%  1 of 1 left"), "{piped}");
    let forced = tidegate.cli(&["status", "--color", "always"]).expect_code(0).stdout;
    assert!(forced.contains("\x1b[32mup\x1b[0m") && forced.contains("\x1b[33mdraining\x1b[0m") && !forced.contains('░'), "{forced:?}");
    assert_eq!(without_codes(&forced), piped, "colours add nothing else");

    let shown = |name: &str, arguments: &[&str], environment: &[(&str, &str)]| {
        let mut command = tidegate.cli_on_terminal_in(name, 200, arguments, environment);
        assert_eq!(command.wait(SOON).code(), Some(0), "{}", command.log_tail());
        tidegate.read(&format!("{name}.log"))
    };
    let check = |name: &str, arguments: &[&str], environment: &[(&str, &str)], colours: bool, blocks: bool| {
        let shown = shown(name, arguments, environment);
        assert_eq!((shown.contains("\x1b[32mup"), shown.contains("░░░░")), (colours, blocks), "{name}: {shown:?}");
        let lines = |text: &str| text.replace('\r', "").lines().filter(|line| !line.contains('%')).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(lines(&without_codes(&shown)), lines(&piped), "{name}: the same words in the same columns");
    };
    check("coloured", &["status"], &[("LANG", "C.UTF-8")], true, true);
    check("ascii", &["status"], &[("LANG", "C")], true, false);
    check("no-color", &["status"], &[("LANG", "C.UTF-8"), ("NO_COLOR", "1")], false, true);
    check("dumb", &["status"], &[("LANG", "C.UTF-8"), ("TERM", "dumb")], false, false);
    check("never", &["status", "--color", "never"], &[("LANG", "C.UTF-8")], false, true);

    // A dumb terminal is watched like a file: nothing on it can be gone over again.
    let watching = tidegate.cli_on_terminal_in("dumb-watch", 200, &["status", "--watch"], &[("TERM", "dumb")]);
    wait_for("a first look", SOON, || tidegate.read("dumb-watch.log").contains("1 of 1 left"));
    assert!(!tidegate.read("dumb-watch.log").contains('\x1b'));
    drop((watching, user));
}

#[test]
fn the_log_of_the_process_is_coloured_where_that_is_asked_for() {
    let a1 = backend("v1", "a1");
    let mut tidegate = Shop::new("cookie").release("v1", &[&a1]).start();
    assert!(!tidegate.read("tidegate.log").contains('\x1b'), "a file gets plain lines");
    tidegate.stop();
    tidegate.try_start_again(&["--color", "always"]).expect("it starts");
    let log = tidegate.read("tidegate.log");
    assert!(log.contains("\x1b[32mINFO") && log.contains("listening on"), "{log}");
}

/// What is left when a terminal has obeyed.
fn without_codes(text: &str) -> String {
    let mut plain = String::new();
    for (number, piece) in text.split('\x1b').enumerate() {
        plain.push_str(if number == 0 { piece } else { piece.split_once('m').expect("a colour").1 });
    }
    plain
}
