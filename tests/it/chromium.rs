//! Chromium, driven by a script of `tests/browser/`: what a person at the status page sees and does.
//!
//! The scripts' libraries are installed once, by `npm ci` below `target/tools/browser`, and the scripts find them there. A script may
//! ask this side to do what a browser cannot: have users click, restart the process.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};

use crate::process::{Scratch, require_file};

/// For a whole script.
const PATIENCE: Duration = Duration::from_secs(420);
/// Of the package registry.
const INSTALLED: [&str; 3] = ["package.json", "package-lock.json", ".npmrc"];

/// Where people look at pictures of the page.
pub fn screenshots() -> PathBuf {
    root().join("target/screenshots")
}

/// Runs `tests/browser/NAME.mjs` with these arguments to its end; `answer` does what it asks for.
/// Panics with all it said when it fails, or takes longer than seven minutes.
pub fn drive(name: &str, arguments: Value, mut answer: impl FnMut(&str, &Value) -> Value) {
    let scratch = Scratch::new(name);
    let mut given = arguments;
    given["scratch"] = json!(scratch.path());
    given["screenshots"] = json!(screenshots());
    let script = root().join("tests/browser").join(format!("{name}.mjs"));
    let mut command = Command::new("/usr/bin/node");
    command.arg(script).arg(given.to_string()).env("TIDEGATE_BROWSER_TOOLS", tools()).process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("node starts");
    let group = Pid::from_child(&child);
    let (mut input, output) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
    let mut errors = child.stderr.take().expect("piped");
    let said = std::thread::spawn(move || {
        let mut text = String::new();
        errors.read_to_string(&mut text).map(|_| text)
    });
    let (send, questions) = channel();
    std::thread::spawn(move || BufReader::new(output).lines().map_while(Result::ok).all(|line| send.send(line).is_ok()));
    let deadline = Instant::now() + PATIENCE;
    let ended_by_itself = loop {
        match questions.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                let asked: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{name}: {error}: {line}"));
                let answered =
                    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| answer(asked["ask"].as_str().unwrap_or_default(), &asked)));
                let Ok(answered) = answered else { break false };
                // One that is gone has said why on its standard error.
                if writeln!(input, "{answered}").is_err() {
                    break true;
                }
            }
            Err(RecvTimeoutError::Disconnected) => break true,
            Err(RecvTimeoutError::Timeout) => break false,
        }
    };
    if !ended_by_itself {
        // Chromium, in a group of its own, ends when the pipe to its driver is closed.
        kill_process_group(group, Signal::KILL).ok();
    }
    let ended = child.wait().expect("our own child");
    let said = said.join().expect("a thread that reads").expect("UTF-8");
    assert!(ended_by_itself, "{name}: ended from here, since it took too long or asked for what failed\n{said}");
    assert!(ended.success(), "{name}: {ended}\n{said}");
    print!("{said}");
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The directory of the installed libraries.
fn tools() -> &'static Path {
    static INSTALLED_ONCE: OnceLock<PathBuf> = OnceLock::new();
    INSTALLED_ONCE.get_or_init(|| {
        for (file, package) in [("/usr/bin/chromium", "chromium"), ("/usr/bin/node", "nodejs"), ("/usr/bin/npm", "npm")] {
            require_file(file, package);
        }
        let (wanted, place) = (root().join("tests/browser"), root().join("target/tools/browser"));
        let same = |file: &&str| fs::read(wanted.join(file)).is_ok_and(|text| fs::read(place.join(file)).is_ok_and(|there| there == text));
        if !INSTALLED.iter().all(same) {
            install(&wanted, &place);
        }
        place
    })
}

/// Beside its place first: what is in place is whole.
fn install(wanted: &Path, place: &Path) {
    let beside = place.with_extension(std::process::id().to_string());
    fs::create_dir_all(&beside).expect("target/ is writable");
    for file in INSTALLED {
        fs::copy(wanted.join(file), beside.join(file)).expect("target/ is writable");
    }
    let output = Command::new("/usr/bin/npm").args(["ci", "--ignore-scripts"]).current_dir(&beside).output().expect("npm starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`npm ci` in {} needs the npm registry once: {said}", beside.display());
    fs::remove_dir_all(place).ok();
    fs::rename(&beside, place).expect("target/ is writable");
}
