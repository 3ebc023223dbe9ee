//! The manual page of each command, made from what clap knows of it.
//!
//! What a definition of arguments cannot know (exit codes, environment, files, signals) is added here, once, and a test holds it against
//! the program.

use std::io;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::args::Cli;
use super::{Failure, write_out};

/// Of the words below. A page must have a date, and that of the build would make each build another.
const DATE: &str = "2026-11-20";

/// Codes of every command.
const EXIT: [(&str, &str); 3] = [("0", "Done."), ("1", "Error, or refused; standard error says why."), ("64", "Wrong usage.")];
/// Codes of commands that can wait for a drain, besides.
const EXIT_OF_WAITING: [(&str, &str); 4] = [
    ("2", "A deadline or timeout was reached with sessions left; the drain goes on."),
    ("3", "A backend died, and sessions were lost."),
    ("4", "The drain was cancelled or superseded."),
    ("130", "Interrupted; the drain goes on."),
];

const ENVIRONMENT: [(&str, &str); 8] = [
    ("TIDEGATE_ADMIN", "Admin addresses, as with --admin."),
    ("TIDEGATE_TOKEN", "The admin token itself, where no --token-file is given."),
    ("RUST_LOG", "What 'run' logs to standard error, such as info or tidegate=debug."),
    ("NOTIFY_SOCKET", "Set by systemd: 'run' says there when it is ready, reloads and stops."),
    ("STATE_DIRECTORY", "Set by systemd: where 'run' keeps its state if the configuration does not say."),
    ("NO_COLOR", "If not empty: no colours, unless --color asks for them."),
    ("CLICOLOR_FORCE", "If not empty: colours also where the output is no terminal."),
    ("TERM, LC_ALL, LC_CTYPE, LANG", "A terminal called dumb gets plain text; bars are drawn with blocks where the locale is UTF-8."),
];

const FILES: [(&str, &str); 6] = [
    ("FILE", "The configuration, named with --config; conf/reference.yaml has every key with its default."),
    (
        "./tidegate-state",
        "The state directory, unless state.directory names another or systemd sets STATE_DIRECTORY; one process uses it at a time.",
    ),
    ("./tidegate-state/state.db", "Sessions, release states, drains and intents: what survives a restart."),
    (
        "./tidegate-state/token",
        "The admin token, unless admin.token_file names another file; made at the first start if the next one is not there either.",
    ),
    (
        "/etc/tidegate/token",
        "The admin token of a packaged tidegate. A command that is told no token looks into these two files, in this order, and shows \
         what it finds to loopback addresses and Unix sockets only.",
    ),
    ("./tidegate-state/keys", "Keys that sign pins and webhooks, made at need where none are configured."),
];

const SIGNALS: [(&str, &str); 4] = [
    ("SIGHUP", "Reload the configuration file: all of it, or nothing."),
    ("SIGTERM, SIGQUIT, SIGINT", "Stop: exchanges under way may finish within server.grace_period. A second one stops at once."),
    ("SIGUSR1", "Open log files anew."),
    ("SIGUSR2", "Replace the running program, as 'tidegate upgrade' does."),
];

/// One page to standard output, or all of them into a directory.
///
/// # Errors
/// There is no such command; the directory or standard output cannot be written.
pub fn man(of: Option<&str>, directory: Option<&Path>) -> Result<u8, Failure> {
    if let Some(directory) = directory {
        std::fs::create_dir_all(directory).map_err(|error| Failure::error(format!("{}: {error}", directory.display())))?;
        for (name, page) in pages() {
            let path = directory.join(format!("{name}.1"));
            std::fs::write(&path, page).map_err(|error| Failure::error(format!("{}: {error}", path.display())))?;
        }
        return Ok(0);
    }
    let wanted = of.map_or_else(|| "tidegate".to_owned(), |command| format!("tidegate-{}", command.trim_start_matches("tidegate-")));
    let Some((_, page)) = pages().into_iter().find(|(name, _)| *name == wanted) else {
        return Err(Failure::usage(format!("there is no command '{}'; see tidegate --help", of.unwrap_or_default())));
    };
    write_out(&page)
}

/// Each page with its name, that of the whole program first.
fn pages() -> Vec<(String, Vec<u8>)> {
    let mut whole = Cli::command().subcommand_value_name("COMMAND").subcommand_help_heading("COMMANDS");
    whole.build();
    let commands: Vec<Command> = whole.get_subcommands().cloned().collect();
    std::iter::once(whole).chain(commands).map(|command| (name(&command), page(command))).collect()
}

/// `tidegate-promote`.
fn name(command: &Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned()
}

fn page(command: Command) -> Vec<u8> {
    let whole = command.has_subcommands();
    let source = concat!("tidegate ", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone()).title(name(&command).to_uppercase()).date(DATE).source(source).manual("tidegate");
    let mut page = Vec::new();
    // A vector takes whatever is written to it.
    render(&man, &command, &mut page).expect("memory can be written to");
    if whole {
        section(
            &mut page,
            "TARGETS",
            &[
                ("APP/RELEASE/BACKEND", "A backend."),
                ("APP/RELEASE", "All backends of a release."),
                ("host:ADDRESS", "All backends on a host, whatever their app."),
            ],
        );
    }
    let waits = whole || command.get_name() == "wait" || command.get_arguments().any(|argument| argument.get_id() == "wait");
    let mut codes = EXIT.to_vec();
    codes.extend(EXIT_OF_WAITING.into_iter().filter(|_| waits));
    codes.sort_by_key(|(code, _)| code.parse::<u8>().unwrap_or(u8::MAX));
    section(&mut page, "EXIT STATUS", &codes);
    if whole {
        section(&mut page, "ENVIRONMENT", &ENVIRONMENT);
        section(&mut page, "FILES", &FILES);
    }
    if whole || command.get_name() == "run" {
        section(&mut page, "SIGNALS", &SIGNALS);
    }
    see_also(&mut page, &command);
    page
}

/// The parts that clap knows, without its section EXTRA: that is the end of `--help`, which the sections here say better.
fn render(man: &Man, command: &Command, page: &mut Vec<u8>) -> io::Result<()> {
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    man.render_options_section(page)?;
    if command.has_subcommands() { man.render_subcommands_section(page) } else { Ok(()) }
}

fn section(page: &mut Vec<u8>, heading: &str, entries: &[(&str, &str)]) {
    let mut roff = Roff::new();
    roff.control("SH", [heading]);
    for (word, meaning) in entries {
        roff.control("TP", []);
        roff.text([bold(*word)]);
        roff.text([roman(*meaning)]);
    }
    page.extend(roff.to_roff().into_bytes());
}

/// The whole program names every command, each command the whole.
fn see_also(page: &mut Vec<u8>, command: &Command) {
    let mut others: Vec<String> = command.get_subcommands().map(name).collect();
    if others.is_empty() {
        others.push("tidegate".to_owned());
    }
    let mut roff = Roff::new();
    roff.control("SH", ["SEE ALSO"]);
    let last = others.len() - 1;
    for (number, other) in others.iter().enumerate() {
        roff.control("BR", [other.as_str(), if number == last { "(1)" } else { "(1)," }]);
    }
    page.extend(roff.to_roff().into_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_and_the_help_name_the_files_where_a_token_is_looked_for() {
        let help = Cli::command().render_long_help().to_string();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for file in super::super::client::DEFAULT_TOKENS {
            assert!(FILES.iter().any(|(name, _)| *name == file), "FILES lacks {file}");
            assert!(help.contains(file), "--help lacks {file}");
        }
        assert!(help.contains("towards this machine only"), "a token found by chance is not shown to others");
    }

    #[test]
    fn commands_that_wait_have_the_codes_of_waiting_and_others_do_not() {
        let codes = |command: &str| {
            let (_, page) = pages().into_iter().find(|(name, _)| name == command).unwrap_or_else(|| panic!("no page {command}"));
            let text = String::from_utf8(page).unwrap();
            let section = text.split("\"EXIT STATUS\"\n").nth(1).and_then(|rest| rest.split(".SH").next()).unwrap_or_default().to_owned();
            let codes = section.lines().filter_map(|line| line.strip_prefix("\\fB")?.strip_suffix("\\fR"));
            codes.map(str::to_owned).collect::<Vec<_>>().join(" ")
        };
        for command in ["tidegate", "tidegate-promote", "tidegate-rollback", "tidegate-drain", "tidegate-stop", "tidegate-wait"] {
            assert_eq!(codes(command), "0 1 2 3 4 64 130", "{command}");
        }
        for command in ["tidegate-status", "tidegate-run", "tidegate-man"] {
            assert_eq!(codes(command), "0 1 64", "{command}");
        }
    }
}
