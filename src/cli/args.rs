//! What can be typed. The first line of each help is one sentence; it is read at three in the morning.
//!
//! TARGET and names are checked by the process that is asked, not here: only it knows which exist, and its refusal names the nearest.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::config::scalar::parse_duration;

const AFTER_HELP: &str = "Exit codes: 0 done, 1 error, 2 deadline or timeout reached with sessions left, 3 a backend died and sessions were lost, \
4 the drain was cancelled or superseded, 64 wrong usage.\nTARGET is APP/RELEASE, APP/RELEASE/BACKEND or host:ADDRESS.";

/// A load balancer for web applications that keep sessions in memory: deploy at any hour, lose nobody.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, after_help = AFTER_HELP, arg_required_else_help = true, disable_help_subcommand = true)]
pub struct Cli {
    /// Whom to ask, and how to answer.
    #[command(flatten)]
    pub ask: Ask,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command that talks to a running process.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Whom to ask, and how to answer")]
pub struct Ask {
    /// Admin address of the running tidegate: http://HOST:PORT or unix:/PATH; several, separated by commas, are changed all or none
    #[arg(long, global = true, env = "TIDEGATE_ADMIN", value_name = "URL", value_delimiter = ',', default_value = "http://127.0.0.1:9180")]
    pub admin: Vec<String>,
    /// File that holds the admin token; several, separated by commas, belong to the addresses in that order [default: the token in
    /// TIDEGATE_TOKEN, else, towards this machine only, that in ./tidegate-state/token or /etc/tidegate/token]
    #[arg(long, global = true, value_name = "PATH", value_delimiter = ',')]
    pub token_file: Vec<PathBuf>,
    /// Print one JSON document on standard output; words go to standard error
    #[arg(long, global = true)]
    pub json: bool,
    /// Colours: auto, always or never; auto means on a terminal, unless NO_COLOR is set or it is a dumb one
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", hide_possible_values = true, value_enum)]
    pub color: When,
}

/// When to use colours: `auto`, `always` or `never`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// Where they are seen
    Auto,
    /// In files and pipes too
    Always,
    /// Nowhere
    Never,
}

/// What a deadline does with the sessions that are left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Then {
    /// Nothing: the drain goes on
    Keep,
    /// Move those that nobody is engaged in
    MoveIdle,
    /// Move all
    Evict,
}

impl Then {
    /// As the API says it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Then::Keep => "keep",
            Then::MoveIdle => "move_idle",
            Then::Evict => "evict",
        }
    }
}

/// A subcommand.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the proxy in the foreground (HUP reloads, USR1 reopens logs, USR2 upgrades; TERM and QUIT let exchanges finish)
    Run {
        /// The configuration
        #[command(flatten)]
        file: ConfigFile,
        /// Apply the file also where an edit since the last run loses remembered sessions
        #[arg(long)]
        force: bool,
    },
    /// Check a configuration file and report every problem with its line and remedy
    Check(ConfigFile),
    /// Show it: a stateful app in two releases, simulated users and a deploy, live in this terminal
    Demo {
        /// Keep everything running after the deploy, to look at it in a browser
        #[arg(long)]
        keep: bool,
    },
    /// Show apps, releases, backends, sessions and drains
    Status {
        /// Only this app
        app: Option<String>,
        /// Refresh every second until interrupted
        #[arg(long)]
        watch: bool,
    },
    /// Add a release while running; nobody is sent there until it is promoted
    Stage {
        /// The app
        app: String,
        /// The new release's name
        release: String,
        /// A backend of it; repeat for more
        #[arg(long = "backend", value_name = "NAME=ADDR", required = true, value_parser = name_and_address)]
        backends: Vec<(String, String)>,
        /// The backends' own path prefix when it differs from the public one
        #[arg(long)]
        path: Option<String>,
    },
    /// Send new sessions to a release and drain the one that took them so far; no session is moved
    Promote {
        /// The app
        app: String,
        /// The release to promote
        release: String,
        /// Refuse unless this release is current now, so that two pipelines cannot fight
        #[arg(long, value_name = "CURRENT")]
        from: Option<String>,
        /// Promote even without a healthy backend
        #[arg(long)]
        force: bool,
        /// How to wait for the drain
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Promote the release that was current before, and drain the present one
    Rollback {
        /// The app
        app: String,
        /// This older release instead
        #[arg(long, value_name = "RELEASE")]
        to: Option<String>,
        /// Refuse unless this release is current now
        #[arg(long, value_name = "CURRENT")]
        from: Option<String>,
        /// Roll back even without a healthy backend
        #[arg(long)]
        force: bool,
        /// How to wait for the drain
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Let no new session into a backend or host; its sessions stay until they end
    Drain {
        /// APP/RELEASE/BACKEND or host:ADDRESS
        target: String,
        /// Wait until it is drained and fenced
        #[arg(long)]
        wait: bool,
        /// Empty after this time
        #[arg(long, value_name = "TIME", value_parser = duration_text)]
        deadline: Option<String>,
        /// What the deadline does with the sessions that are left; without any deadline move_idle and evict mean now
        #[arg(long)]
        then: Option<Then>,
        /// Drain it even if no other backend takes new sessions
        #[arg(long)]
        force: bool,
    },
    /// Let a backend or host take part again: ends its drain or maintenance
    Serve {
        /// APP/RELEASE/BACKEND or host:ADDRESS
        target: String,
    },
    /// Send nobody to a backend or host any more; refused while sessions live there
    Maintain {
        /// APP/RELEASE/BACKEND or host:ADDRESS
        target: String,
        /// Even while sessions live there, or as the last one that serves
        #[arg(long)]
        force: bool,
    },
    /// Move sessions away from a target now
    Evict {
        /// APP/RELEASE, APP/RELEASE/BACKEND or host:ADDRESS
        target: String,
        /// Only sessions that were silent for this long
        #[arg(long, value_name = "TIME", value_parser = duration_text)]
        idle: Option<String>,
    },
    /// Say that a target's processes have restarted: its sessions are lost, and their users begin anew
    Lost {
        /// APP/RELEASE, APP/RELEASE/BACKEND or host:ADDRESS
        target: String,
    },
    /// Close a release; refused while sessions live there
    Stop {
        /// APP/RELEASE
        #[arg(value_name = "APP/RELEASE", value_parser = app_and_release)]
        release: (String, String),
        /// Evict the sessions that live there
        #[arg(long)]
        force: bool,
        /// Wait for its drain first, then close it
        #[arg(long, conflicts_with = "force")]
        wait: bool,
        /// Give up waiting after this time; the drain goes on
        #[arg(long, value_name = "TIME", value_parser = duration, requires = "wait")]
        timeout: Option<Duration>,
    },
    /// Forget a drained or stopped release that was staged while running
    Remove {
        /// APP/RELEASE
        #[arg(value_name = "APP/RELEASE", value_parser = app_and_release)]
        release: (String, String),
    },
    /// Attach to a drain and wait for its verdict
    Wait {
        /// As status shows it, such as d7
        drain: String,
        /// Give up waiting after this time; the drain goes on
        #[arg(long, value_name = "TIME", value_parser = duration)]
        timeout: Option<Duration>,
    },
    /// Count the sessions of an app by kind, age and idleness
    Sessions {
        /// APP or APP/RELEASE
        #[arg(value_name = "APP[/RELEASE]")]
        app: String,
        /// List them: handle, backend, age, idle, engaged (never an id)
        #[arg(long)]
        list: bool,
    },
    /// Say where a request would go, and why
    Explain {
        /// The app
        app: String,
        /// The request's cookies, as a browser sends them
        #[arg(long, value_name = "'A=b; C=d'")]
        cookie: Option<String>,
        /// The request's path
        #[arg(long, default_value = "/")]
        path: String,
        /// Another header of the request; repeat for more
        #[arg(long = "header", value_name = "'K: v'", value_parser = header)]
        headers: Vec<(String, String)>,
    },
    /// Print the effective configuration, changes made while running included, as YAML
    Export,
    /// Print what happened, oldest first
    Events {
        /// Go on with what happens
        #[arg(long)]
        follow: bool,
    },
    /// Apply the changed configuration file; what would lose sessions is refused, in figures
    Reload {
        /// Only say what would change
        #[arg(long)]
        dry_run: bool,
        /// Also where live sessions would be lost
        #[arg(long)]
        force: bool,
    },
    /// Replace the running program without losing a connection
    Upgrade,
    /// Print the completions of a shell: source <(tidegate completions bash)
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print a manual page: tidegate man promote | man -l -
    Man {
        /// Of this command; without it, of the whole program
        command: Option<String>,
        /// Write all pages into this directory instead
        #[arg(long, value_name = "DIR", conflicts_with = "command")]
        directory: Option<PathBuf>,
    },
}

/// A configuration file.
#[derive(Args, Debug)]
pub struct ConfigFile {
    /// The configuration file
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    pub config: PathBuf,
}

/// Options of commands that begin a release's drain.
#[derive(Args, Debug)]
pub struct Waiting {
    /// Wait until the old release is drained and fenced
    #[arg(long)]
    pub wait: bool,
    /// Wait at most this long; together with --then it is the drain's deadline
    #[arg(long, value_name = "TIME", value_parser = duration_text)]
    pub timeout: Option<String>,
    /// What the deadline does with the sessions that are left; without any deadline move_idle and evict mean now
    #[arg(long)]
    pub then: Option<Then>,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|wrong| wrong.to_string())
}

/// Checked here, sent as typed: the process reads the same notation.
fn duration_text(text: &str) -> Result<String, String> {
    duration(text).map(|_| text.to_owned())
}

fn name_and_address(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, address)) if !name.is_empty() && !address.is_empty() => Ok((name.to_owned(), address.to_owned())),
        _ => Err("write NAME=ADDRESS, such as c1=127.0.0.1:9181".to_owned()),
    }
}

fn app_and_release(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((app, release)) if !app.is_empty() && !release.is_empty() && !release.contains('/') => {
            Ok((app.to_owned(), release.to_owned()))
        }
        _ => Err("write APP/RELEASE, such as shop/v41".to_owned()),
    }
}

fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned())),
        _ => Err("write 'Name: value'".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definitions_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_of_the_manual_is_understood() {
        for line in [
            "run -c FILE",
            "check -c FILE",
            "demo --keep",
            "status",
            "status shop --json --watch",
            "status --color always",
            "stage shop v43 --backend c1=127.0.0.1:9181 --backend c2=127.0.0.1:9182",
            "promote shop v42 --from v41 --wait --timeout 2h --then evict --force",
            "rollback shop --to v41 --from v42 --then evict --wait",
            "drain shop/v41/a1 --wait --deadline 4h --then move_idle --force",
            "drain host:10.0.0.5",
            "serve shop/v41/a1",
            "maintain host:10.0.0.5 --force",
            "evict shop/v41 --idle 15m",
            "lost shop/v41/a1",
            "stop shop/v41 --force",
            "stop shop/v41 --wait --timeout 2h",
            "remove shop/v41",
            "wait d7",
            "sessions shop/v41 --list",
            "explain shop --cookie A=b --path /x --header K:v",
            "export",
            "events --follow",
            "reload --dry-run --force",
            "upgrade",
            "completions zsh",
            "man",
            "man promote",
            "man --directory d",
            "--admin http://a:1,unix:/run/x.sock --token-file t status",
            "status --admin http://a:1",
        ] {
            let words = ["tidegate"].into_iter().chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_ok(), "{line}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for line in [
            "",
            "run",
            "stage shop v43",
            "stage shop v43 --backend 127.0.0.1:9181",
            "promote shop",
            "promote shop v42 --timeout 2",
            "drain shop/v41/a1 --then drop",
            "stop shop",
            "stop shop/v41/a1",
            "stop shop/v41 --wait --force",
            "explain shop --header nonsense",
            "evict shop/v41 --idle soon",
            "destroy",
            "completions csh",
            "man promote --directory d",
        ] {
            let words = ["tidegate"].into_iter().chain(line.split(' ').filter(|word| !word.is_empty()));
            assert!(Cli::try_parse_from(words).is_err(), "{line}");
        }
    }
}
