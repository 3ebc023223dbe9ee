//! The real binary in a scratch directory of its own, with the handles an operator has: configuration, command line,
//! admin API, metrics, signals.
//!
//! A test writes `apps:` and whatever else it is about; listener, admin address, state directory, grace period and
//! token file are put before it, each unless the text has that top-level key itself. `@folder`, `@port` and `@admin` in the text
//! are its directory, its listener's port and that of its admin address.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::client::{Browser, Call, Response};
use crate::process::{Process, Scratch, delay, free_port, wait_until_equal};

thread_local! {
    /// Whether the next one gets a path of its own.
    static REPLACEABLE: Cell<bool> = const { Cell::new(false) };
}

/// From start to `/readyz`, on a busy machine.
const START: Duration = Duration::from_secs(60);
/// How long anything that a test waits for may take: generous, because passing tests never use it up.
pub const SOON: Duration = Duration::from_secs(15);

/// A running tidegate. Killed on drop.
pub struct Tidegate {
    port: u16,
    admin_port: u16,
    process: Process,
    scratch: Scratch,
}

/// What a command line gave back.
#[derive(Debug)]
pub struct CommandResult {
    /// The exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl CommandResult {
    /// Panics with all it said unless it ended so.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> CommandResult {
        assert_eq!(self.code, code, "{}\n{}", self.stdout, self.stderr);
        self
    }
}

/// Sessions as the status document counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sessions {
    /// Engaged and kept alive.
    pub live: u64,
    /// Born, and not sent back yet.
    pub unconfirmed: u64,
}

impl Tidegate {
    /// Starts it and waits until it is ready. Panics with its log when it does not get there.
    pub fn start(yaml: &str) -> Tidegate {
        let mut refusals = 0;
        loop {
            match Tidegate::try_start(yaml) {
                Ok(started) => return started,
                // Somebody else took a port since it was free: the one reason to try again.
                Err(log) if log.contains("in use") && refusals < 3 => refusals += 1,
                Err(log) => panic!("tidegate did not get ready\n{log}"),
            }
        }
    }

    /// The same from a path of its own ([`Tidegate::program`]), where another program can be put: for upgrades.
    pub fn start_replaceable(yaml: &str) -> Tidegate {
        REPLACEABLE.set(true);
        let started = Tidegate::start(yaml);
        REPLACEABLE.set(false);
        started
    }

    /// The path from which [`Tidegate::start_replaceable`] starts it: a link to the binary of this build.
    pub fn program(&self) -> PathBuf {
        self.scratch.path().join("tidegate")
    }

    /// The same, or the end of what it said if it did not get there.
    pub fn try_start(yaml: &str) -> Result<Tidegate, String> {
        let scratch = Scratch::new("tidegate");
        if REPLACEABLE.get() {
            std::os::unix::fs::symlink(binary(), scratch.path().join("tidegate")).expect("a link");
        }
        let (port, admin_port) = (free_port(), free_port());
        scratch.write("tidegate.yaml", &whole_config(&scratch, yaml, port, admin_port));
        let process = launch(&scratch, &[], &[]);
        let mut started = Tidegate { port, admin_port, process, scratch };
        if started.becomes_ready() { Ok(started) } else { Err(started.process.log_tail()) }
    }

    fn becomes_ready(&mut self) -> bool {
        let deadline = Instant::now() + START;
        while self.process.ended().is_none() && Instant::now() < deadline {
            let answer = Browser::new(self.admin_port).send(Call::get("/readyz"));
            if answer.is_ok_and(|answer| answer.status == 200) {
                return true;
            }
            delay(Duration::from_millis(20));
        }
        false
    }

    /// The listener's port on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A fresh browser before it.
    pub fn browser(&self) -> Browser {
        Browser::new(self.port)
    }

    /// Replaces the configuration file; nothing happens before a reload.
    pub fn write_config(&self, yaml: &str) {
        let text = whole_config(&self.scratch, yaml, self.port, self.admin_port);
        self.scratch.write("tidegate.yaml", &text);
    }

    /// SIGTERM, and how it ended.
    pub fn stop(&mut self) -> ExitStatus {
        self.process.terminate(Duration::from_secs(40))
    }

    /// A new process with the same file, ports and state directory. The old one must have ended.
    pub fn start_again(&mut self) {
        self.start_again_in(&[]);
    }

    /// The same in such an environment.
    pub fn start_again_in(&mut self, environment: &[(&str, &str)]) {
        assert!(self.process.ended().is_some(), "the old process still runs");
        self.process = launch(&self.scratch, &[], environment);
        assert!(self.becomes_ready(), "not ready again\n{}", self.process.log_tail());
    }

    /// The same with more arguments. What it said, if it ended with 1 instead.
    pub fn try_start_again(&mut self, arguments: &[&str]) -> Result<(), String> {
        assert!(self.process.ended().is_some(), "the old process still runs");
        let said = self.read("tidegate.log").len();
        self.process = launch(&self.scratch, arguments, &[]);
        if self.becomes_ready() {
            return Ok(());
        }
        let code = self.process.wait(SOON).code();
        assert_eq!(code, Some(1), "{}", self.process.log_tail());
        Err(self.read("tidegate.log").split_off(said))
    }

    /// As [`Tidegate::start_again`], without a memory; keys are kept, as they would be in a configuration for several proxies.
    pub fn start_anew(&mut self) {
        for entry in std::fs::read_dir(self.folder().join("state")).expect("the state directory") {
            let path = entry.expect("an entry").path();
            if path.is_file() {
                std::fs::remove_file(path).expect("removable");
            }
        }
        self.start_again();
    }

    /// Replaces the configuration file and reloads with `--force`.
    pub fn force_config(&self, yaml: &str) -> (u16, Value) {
        self.write_config(yaml);
        self.admin_post("/api/v1/reload", &serde_json::json!({ "force": true }))
    }

    /// SIGKILL, as a crash.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Any signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// A file in its directory; the empty string while there is none.
    pub fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.scratch.path().join(file)).unwrap_or_default()
    }

    /// Its directory, which is `@folder` in the configuration.
    pub fn folder(&self) -> &std::path::Path {
        self.scratch.path()
    }

    /// The memory it holds, in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("the process runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// The process id.
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Runs a command against the admin address, to its end.
    pub fn cli(&self, arguments: &[&str]) -> CommandResult {
        result(self.command(arguments))
    }

    /// The same against the admin addresses of this one and another.
    pub fn cli_with(&self, other: &Tidegate, arguments: &[&str]) -> CommandResult {
        result(command_for(&[self, other], arguments))
    }

    /// The same in the background, as [`Tidegate::cli_in_background`].
    pub fn cli_with_in_background(&self, other: &Tidegate, name: &str, arguments: &[&str]) -> Process {
        let log = self.scratch.path().join(format!("{name}.log"));
        Process::start(name, command_for(&[self, other], arguments), &log)
    }

    /// `http://HOST:PORT` of the admin address.
    pub fn admin_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.admin_port)
    }

    /// Starts a command that waits; its output goes to a log that failures show.
    pub fn cli_in_background(&self, name: &str, arguments: &[&str]) -> Process {
        let log = self.scratch.path().join(format!("{name}.log"));
        Process::start(name, self.command(arguments), &log)
    }

    /// The same on a terminal of so many columns, in black and white; 0 where nobody has said how many it has.
    pub fn cli_on_terminal(&self, name: &str, columns: u16, arguments: &[&str]) -> Process {
        self.cli_on_terminal_in(name, columns, arguments, &[("NO_COLOR", "1"), ("LC_ALL", "C")])
    }

    /// The same in such an environment: none of the variables that say what a terminal can show is passed on.
    pub fn cli_on_terminal_in(&self, name: &str, columns: u16, arguments: &[&str], environment: &[(&str, &str)]) -> Process {
        let typed = self.command(arguments);
        let words = std::iter::once(typed.get_program()).chain(typed.get_args());
        let line = words.map(|word| format!("'{}'", word.display())).collect::<Vec<_>>().join(" ");
        let mut command = Command::new("script");
        command.args(["-qefc", &format!("stty cols {columns}; exec {line}"), "/dev/null"]);
        for variable in ["NO_COLOR", "CLICOLOR_FORCE", "LC_ALL", "LC_CTYPE", "LANG"] {
            command.env_remove(variable);
        }
        command.env("TERM", "xterm").envs(environment.iter().copied());
        Process::start(name, command, &self.scratch.path().join(format!("{name}.log")))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        command_for(&[self], arguments)
    }

    /// GET from the admin API; panics unless the answer is 200 and JSON.
    #[track_caller]
    pub fn admin_get(&self, path: &str) -> Value {
        let answer = self.admin(Call::get(path)).expect_status(200);
        json(&answer)
    }

    /// POST to the admin API.
    #[track_caller]
    pub fn admin_post(&self, path: &str, body: &Value) -> (u16, Value) {
        let call = Call::post(path, body.to_string()).field("Content-Type", "application/json");
        let answer = self.admin(call);
        (answer.status, json(&answer))
    }

    /// Any call to the admin address, with the token.
    #[track_caller]
    pub fn admin(&self, call: Call) -> Response {
        let token = std::fs::read_to_string(self.scratch.path().join("token"));
        let token = token.expect("tidegate made its token file at the first start");
        let call = call.field("Authorization", &format!("Bearer {}", token.trim()));
        Browser::new(self.admin_port).with_host("127.0.0.1").send_or_panic(call)
    }

    /// `/metrics`, parsed.
    pub fn metrics(&self) -> Metrics {
        Metrics::parse(&self.admin(Call::get("/metrics")).expect_status(200).text())
    }

    /// The status document of an app.
    #[track_caller]
    pub fn status(&self, app: &str) -> Value {
        let status = self.admin_get("/api/v1/status");
        let found = status["apps"][app].clone();
        assert!(found.is_object(), "no app {app} in {status}");
        found
    }

    /// The state of a release.
    #[track_caller]
    pub fn release_state(&self, app: &str, release: &str) -> String {
        let status = self.status(app);
        let state = status["releases"][release]["state"].as_str();
        state.unwrap_or_else(|| panic!("no state of {release} in {status}")).to_owned()
    }

    /// The counts of a release.
    #[track_caller]
    pub fn sessions(&self, app: &str, release: &str) -> Sessions {
        let status = self.status(app);
        let sessions = &status["releases"][release]["sessions"];
        let number = |kind: &str| {
            let number = sessions[kind].as_u64();
            number.unwrap_or_else(|| panic!("no {kind} sessions of {release} in {status}"))
        };
        let (live, unconfirmed) = (number("live"), number("unconfirmed"));
        assert_eq!(live, number("engaged") + number("kept_alive"), "{status}");
        Sessions { live, unconfirmed }
    }

    /// A field of a backend: `admission`, `health`, `intent`.
    #[track_caller]
    pub fn backend(&self, app: &str, release: &str, backend: &str, field: &str) -> String {
        let status = self.status(app);
        let value = status["releases"][release]["backends"][backend][field].as_str();
        value.unwrap_or_else(|| panic!("no {field} of {backend} in {status}")).to_owned()
    }

    /// What a backend itself says of its sessions; `None` while that is unknown.
    #[track_caller]
    pub fn counted(&self, app: &str, release: &str, backend: &str) -> Option<u64> {
        self.status(app)["releases"][release]["backends"][backend]["counted"].as_u64()
    }

    /// The latest drain of a target, as the API tells it.
    #[track_caller]
    pub fn drain(&self, target: &str) -> Value {
        let drains = self.admin_get("/api/v1/drains");
        let found = drains["drains"].as_array().and_then(|all| all.iter().rfind(|drain| drain["target"] == target));
        found.unwrap_or_else(|| panic!("no drain of {target} in {drains}")).clone()
    }

    /// Waits for a release's state.
    #[track_caller]
    pub fn wait_for_state(&self, app: &str, release: &str, state: &str) {
        let what = format!("{app}/{release} is {state}");
        wait_until_equal(&what, SOON, &state.to_owned(), || self.release_state(app, release));
    }

    /// Waits for a release's counts.
    #[track_caller]
    pub fn wait_for_sessions(&self, app: &str, release: &str, live: u64, unconfirmed: u64) {
        let expected = Sessions { live, unconfirmed };
        let what = format!("{app}/{release} has these sessions");
        wait_until_equal(&what, SOON, &expected, || self.sessions(app, release));
    }

    /// Waits for a field of a backend.
    #[track_caller]
    pub fn wait_for_backend(&self, app: &str, release: &str, backend: &str, field: &str, value: &str) {
        let what = format!("{field} of {app}/{release}/{backend} is {value}");
        wait_until_equal(&what, SOON, &value.to_owned(), || self.backend(app, release, backend, field));
    }

    /// Waits until the process has ended by itself.
    pub fn wait_for_end(&mut self) -> ExitStatus {
        self.process.wait(SOON)
    }
}

fn command_for(asked: &[&Tidegate], arguments: &[&str]) -> Command {
    let admin: Vec<String> = asked.iter().map(|tidegate| tidegate.admin_url()).collect();
    let tokens: Vec<String> = asked.iter().map(|tidegate| tidegate.scratch.path().join("token").display().to_string()).collect();
    let mut command = Command::new(binary());
    // Whoever runs the tests may like colours in files.
    command.env_remove("CLICOLOR_FORCE");
    command.args(arguments).args(["--admin", &admin.join(","), "--token-file", &tokens.join(",")]).stdin(Stdio::null());
    command
}

fn result(mut command: Command) -> CommandResult {
    let output = command.output().expect("the binary runs");
    CommandResult {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs `tidegate check` on exactly this text.
pub fn check(yaml: &str) -> CommandResult {
    let scratch = Scratch::new("check");
    let file = scratch.write("tidegate.yaml", yaml);
    let mut command = Command::new(binary());
    command.arg("check").arg("-c").arg(file);
    result(command)
}

/// The binary of this build, or the one that `TIDEGATE_BINARY` names: a release build, an installed package.
pub fn binary() -> PathBuf {
    std::env::var_os("TIDEGATE_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_tidegate").into()).into()
}

fn launch(scratch: &Scratch, arguments: &[&str], environment: &[(&str, &str)]) -> Process {
    let own = scratch.path().join("tidegate");
    let replaceable = own.is_symlink();
    let mut command = Command::new(if replaceable { own } else { binary() });
    command
        .args(["run", "-c"])
        .arg(scratch.path().join("tidegate.yaml"))
        .args(arguments)
        .envs(environment.iter().copied())
        .current_dir(scratch.path())
        .env("RUST_LOG", "info")
        .env("RUST_BACKTRACE", "1");
    let mut process = Process::start("tidegate", command, &scratch.path().join("tidegate.log"));
    if replaceable {
        process.has_heirs();
    }
    process
}

fn whole_config(scratch: &Scratch, yaml: &str, port: u16, admin_port: u16) -> String {
    let folder = scratch.path().display();
    let ours = [
        ("server", "{grace_period: 5s, threads: 2}".to_owned()),
        ("listeners", format!("[{{address: \"127.0.0.1:{port}\"}}]")),
        ("admin", format!("{{address: \"127.0.0.1:{admin_port}\", token_file: {folder}/token}}")),
        ("state", format!("{{directory: {folder}/state}}")),
    ];
    let mut text = String::new();
    for (key, value) in ours {
        if !yaml.lines().any(|line| line.starts_with(&format!("{key}:"))) {
            text += &format!("{key}: {value}\n");
        }
    }
    text += yaml;
    text.replace("@folder", &folder.to_string()).replace("@port", &port.to_string()).replace("@admin", &admin_port.to_string())
}

#[track_caller]
fn json(answer: &Response) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("not JSON ({error}): {}\n{}", answer.head.raw, answer.text()))
}

/// A parsed `/metrics` page: the value of each series.
#[derive(Debug, Default)]
pub struct Metrics(BTreeMap<Series, f64>);

/// Name and labels.
type Series = (String, BTreeMap<String, String>);

impl Metrics {
    fn parse(text: &str) -> Metrics {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Metrics(lines.filter_map(parse_series).collect())
    }

    /// The sum over all series of that name (with its prefix) that have these labels among theirs; 0 if there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let series =
            self.0.iter().filter(|((n, has), _)| n == name && labels.iter().all(|(key, value)| has.get(*key).is_some_and(|v| v == value)));
        series.map(|(_, value)| value).sum()
    }

    /// Is there any series of that name?
    pub fn has(&self, name: &str) -> bool {
        self.0.keys().any(|(n, _)| n == name)
    }
}

fn parse_series(line: &str) -> Option<(Series, f64)> {
    let (series, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let Some((name, labels)) = series.split_once('{') else {
        return Some(((series.to_owned(), BTreeMap::new()), value));
    };
    // Our label values never hold a quote or a comma: names, codes and reasons only.
    let labels = labels.trim_end_matches('}').split(',').filter_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        Some((key.to_owned(), value.trim_matches('"').to_owned()))
    });
    Some(((name.to_owned(), labels.collect()), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metrics_page_is_summed_over_the_labels_that_are_not_named() {
        let page = "# TYPE a counter\na{x=\"1\",y=\"2\"} 3\na{x=\"1\",y=\"3\"} 4\nb 5\n";
        let metrics = Metrics::parse(page);
        assert_eq!(metrics.sum("a", &[("x", "1")]), 7.0);
        assert_eq!(metrics.sum("a", &[("y", "3")]), 4.0);
        assert_eq!(metrics.sum("a", &[("z", "3")]), 0.0);
        assert_eq!(metrics.sum("b", &[]), 5.0);
        assert!(!metrics.has("c"));
    }
}
