//! The unit: systemd finds nothing wrong, rates it well, and the real binary lives with what the unit takes away.
//!
//! The restrictions are not put on by systemd, which would have to run here: user and capabilities are set by `setpriv`, and of
//! system calls the test sees which ones are made, from the start over a reload and an upgrade to the stop.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{project, read, run, succeeds};
use crate::client::{Browser, Call};
use crate::process::{Process, Scratch, free_port, require_file, require_root, wait_for};
use crate::shop::{Shop, backend};
use crate::tidegate::{SOON, binary};

const UNIT: &str = "deploy/systemd/tidegate.service";
/// Of 100, as `systemd-analyze security` counts; a plain unit has 96. What is left is the network itself.
const EXPOSURE: &str = "20";
/// A port below 1024 that takes the capability, at an address of our own.
const PRIVILEGED: &str = "127.80.9.180:80";

#[test]
fn systemd_finds_nothing_wrong_with_the_unit_and_rates_it_safe() {
    require_file("/usr/bin/systemd-analyze", "systemd");
    let scratch = Scratch::new("unit");
    // Verification wants the program to be there. (The manual page is the package's.)
    let unit = read(UNIT).replace("/usr/bin/tidegate", &binary().display().to_string());
    assert!(!unit.contains("/usr/bin/tidegate"));
    let copy = scratch.write("tidegate.service", &unit);
    let said = succeeds(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&copy));
    assert_eq!(said, "");
    let wrong = scratch.write("wrong.service", &unit.replace("ProtectSystem=strict", "ProtectSystems=strict"));
    assert!(run(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&wrong)).1.contains("ProtectSystems"), "verify looks");
    let security = ["security", "--offline=true", "--threshold", EXPOSURE];
    succeeds(Command::new("systemd-analyze").args(security).arg(project(UNIT)));
}

#[test]
fn stopping_takes_no_longer_than_the_unit_allows() {
    let reference = read("conf/reference.yaml");
    let seconds = |line: &str| line.trim().strip_prefix("grace_period: ")?.strip_suffix('s')?.parse::<u64>().ok();
    let grace = reference.lines().find_map(seconds).expect("a default");
    let allowed: u64 = value("TimeoutStopSec").parse().expect("seconds");
    assert!(allowed > grace + 30, "a lame_duck of half a minute fits in");
}

#[test]
fn the_user_and_the_group_are_made() {
    require_file("/usr/bin/systemd-sysusers", "systemd");
    let scratch = Scratch::new("sysusers");
    scratch.write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n");
    let file = project("deploy/systemd/tidegate.sysusers");
    let root = format!("--root={}", scratch.path().display());
    succeeds(Command::new("systemd-sysusers").arg(root).arg(file));
    let made = |file: &str| std::fs::read_to_string(scratch.path().join(file)).expect(file);
    assert!(made("etc/passwd").lines().any(|line| line.starts_with(&format!("{}:", value("User")))));
    for group in [value("Group"), value("SupplementaryGroups")] {
        assert!(made("etc/group").lines().any(|line| line.starts_with(&format!("{group}:"))), "{group}");
    }
}

#[test]
fn every_example_starts_as_the_unit_starts_it() {
    require_root();
    let state = format!("/var/lib/{}", value("StateDirectory"));
    assert_eq!(value("WorkingDirectory"), state, "where relative paths of a file may be written to");
    let files = project("conf").read_dir().expect("a folder").flatten().map(|entry| entry.path());
    let examples: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|kind| kind == "yaml")).collect();
    assert!(examples.len() > 10, "{examples:?}");
    // All at once: each first waits for backends that are not there.
    let started: Vec<(Process, Scratch, u16)> = examples.iter().map(|path| start_as_a_service(path)).collect();
    for (mut process, scratch, admin) in started {
        wait_for("it answers", Duration::from_secs(60), || {
            process.assert_running();
            Browser::new(admin).send(Call::get("/healthz")).is_ok_and(|answer| answer.status == 200)
        });
        let own = |file: &str| scratch.path().join("own").join(file).exists();
        assert!(own("state/state.db") || own("state/tidegate-state/state.db"), "{}", process.log_tail());
    }
}

/// With no rights, and nowhere to write but where the unit lets it.
fn start_as_a_service(example: &Path) -> (Process, Scratch, u16) {
    let scratch = Scratch::new("service");
    let own = scratch.path().join("own");
    let admin = free_port();
    let text = std::fs::read_to_string(example).expect("an example");
    let written_out = text.contains(": ./");
    let mut text = text.replace("0.0.0.0:8080", &format!("127.0.0.1:{}", free_port()));
    if text.lines().any(|line| line == "admin:") {
        text = text.replace("0.0.0.0:9180", "127.0.0.1:9180").replace("127.0.0.1:9180", &format!("127.0.0.1:{admin}"));
    } else {
        text += &format!("\nadmin: {{address: \"127.0.0.1:{admin}\"}}\n");
    }
    let text = text.replace("/var/lib/tidegate", &format!("{}/state", own.display())).replace("/etc/tidegate", &own.display().to_string());
    let config = scratch.write("own/tidegate.yaml", &text);
    for file in ["own/token", "own/k1.key"] {
        scratch.write(file, "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n");
    }
    scratch.write("own/state/.keep", "");
    succeeds(Command::new("chown").args(["-R", "nobody:nogroup"]).arg(&own));
    let mut command = Command::new("setpriv");
    command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", "--no-new-privs"]).arg(binary()).args(["run", "-c"]).arg(config);
    command.env("STATE_DIRECTORY", own.join("state"));
    // A path that is written out is the working directory's; nothing else may depend on that.
    command.current_dir(if written_out { own.join("state") } else { PathBuf::from("/") });
    let process = Process::start(&example.display().to_string(), command, &scratch.path().join("tidegate.log"));
    (process, scratch, admin)
}

#[test]
fn the_unit_takes_nothing_away_that_the_program_needs() {
    require_root();
    require_file("/usr/bin/strace", "strace");
    let a1 = backend("v1", "a1");
    let scratch = Scratch::new("shut-in");
    // Another user than root must reach it.
    let folder = scratch.path().join("own");
    let (folder, admin) = (folder.display(), free_port());
    let token = scratch.write("own/token", "0123456789abcdef0123456789abcdef\n");
    let around = format!(
        "listeners: [{{address: \"{PRIVILEGED}\"}}]\nadmin: {{address: \"127.0.0.1:{admin}\", token_file: {folder}/token}}\n\
         state: {{directory: {folder}/state}}\nserver: {{access_log: {{path: {folder}/access.log}}, watch: true}}\n"
    );
    // A name, so that the resolver is used.
    let shop = Shop::new("cookie").release("v1", &[&a1]).yaml().replace("127.0.0.1:", "localhost:");
    let config = scratch.write("own/tidegate.yaml", &(around + &shop));
    succeeds(Command::new("chown").args(["-R", "nobody:nogroup"]).arg(scratch.path().join("own")));

    let trace = scratch.path().join("trace");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o"]).arg(&trace);
    command.args(["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--no-new-privs"]);
    command.args(["--inh-caps=-all,+net_bind_service", "--ambient-caps=-all,+net_bind_service", "--bounding-set=-all,+net_bind_service"]);
    command.arg(binary()).args(["run", "-c"]).arg(&config).env("RUST_LOG", "info");
    let mut process = Process::start("tidegate", command, &scratch.path().join("tidegate.log"));
    process.has_heirs();
    let cli = |words: &[&str]| {
        let url = format!("http://127.0.0.1:{admin}");
        succeeds(Command::new(binary()).args(words).args(["--admin", &url, "--token-file"]).arg(&token))
    };
    let serves = || succeeds(Command::new("curl").args(["-fsS", "-H", "Host: shop.test", &format!("http://{PRIVILEGED}/")]));
    wait_for("it serves", Duration::from_secs(60), || {
        process.assert_running();
        Browser::new(admin).send(Call::get("/readyz")).is_ok_and(|answer| answer.status == 200)
    });
    assert!(serves().contains("backend=a1"));
    cli(&["reload"]);
    let said = cli(&["upgrade"]);
    let next = said.split_whitespace().nth(1).and_then(|pid| pid.parse().ok()).expect("process N serves");
    assert!(serves().contains("backend=a1"), "port 80 was handed on");
    // Stopped as systemd stops it: the process that serves now.
    crate::upgrade::signal(next, rustix::process::Signal::TERM);
    assert!(process.wait(SOON).success());

    let trace = std::fs::read_to_string(&trace).expect("a trace");
    let (_, calls) = trace.split_once(&format!("execve(\"{}\"", binary().display())).expect("the program was started");
    let allowed = allowed_calls();
    let made: BTreeSet<&str> = calls.lines().skip(1).filter_map(name_of_call).collect();
    assert!(made.len() > 40 && made.contains("accept4") && made.contains("execve"), "{made:?}");
    let refused: Vec<&&str> = made.iter().filter(|call| !allowed.contains(**call)).collect();
    assert_eq!(refused, [&""; 0], "SystemCallFilter= would refuse these");
    let executable = |line: &&str| line.contains("PROT_EXEC") && (line.contains("PROT_WRITE") || line.contains("mprotect("));
    assert_eq!(calls.lines().find(executable), None, "MemoryDenyWriteExecute=");
    let families = value("RestrictAddressFamilies");
    for line in calls.lines().filter(|line| line.contains(" socket(AF_")) {
        let family = line.split("socket(").nth(1).and_then(|rest| rest.split(',').next()).unwrap_or_default();
        // glibc asks by netlink which addresses this machine has, to sort what a name resolves to; it does without.
        assert!(families.split(' ').any(|allowed| allowed == family) || family == "AF_NETLINK", "{line}");
    }
}

/// The value of a directive that the unit has once.
fn value(directive: &str) -> String {
    let unit = read(UNIT);
    let mut values = unit.lines().filter_map(|line| line.strip_prefix(directive)?.strip_prefix('='));
    let found = values.next().unwrap_or_else(|| panic!("no {directive}="));
    assert_eq!(values.next(), None, "{directive}= twice");
    found.to_owned()
}

/// `4711 openat(…` of a trace: `openat`. `None` for signals, ends and second halves.
fn name_of_call(line: &str) -> Option<&str> {
    let (name, _) = line.split_once(' ')?.1.trim_start().split_once('(')?;
    name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_').then_some(name)
}

/// What the unit's lines `SystemCallFilter=` leave.
fn allowed_calls() -> BTreeSet<String> {
    let mut allowed = BTreeSet::new();
    let unit = read(UNIT);
    for line in unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        match line.strip_prefix('~') {
            Some(names) => {
                let taken: Vec<String> = names.split(' ').flat_map(members).collect();
                allowed.retain(|call| !taken.contains(call));
            }
            None => line.split(' ').for_each(|name| allowed.extend(members(name))),
        }
    }
    assert!(allowed.len() > 200, "{allowed:?}");
    allowed
}

/// The system calls of a set, sets within it included.
fn members(set: &str) -> Vec<String> {
    if !set.starts_with('@') {
        return vec![set.to_owned()];
    }
    let listed = succeeds(Command::new("systemd-analyze").args(["syscall-filter", set]));
    let words = listed.lines().skip(1).map(str::trim).filter(|word| !word.is_empty() && !word.starts_with('#'));
    words.flat_map(members).collect()
}
