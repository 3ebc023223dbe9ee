//! Another binary takes over. The process starts the file that is at its own path then, so each of these has a path of its own, a
//! link to the binary of this build, where a test can put something worse.

mod actor;
mod failures;
mod load;
mod newcomer;
mod overlap;
mod surroundings;

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::process::wait_for;
use crate::tidegate::{SOON, Tidegate};

/// The process that owns the state directory: the one that serves.
pub fn owner(tidegate: &Tidegate) -> u32 {
    let words = tidegate.read("state/lock");
    words.split_whitespace().nth(1).and_then(|pid| pid.parse().ok()).unwrap_or_else(|| panic!("no owner in {words:?}"))
}

/// Whether no such process runs. One that nobody waits for stays as a zombie.
pub fn is_gone(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_none_or(|rest| rest.is_empty() || rest.starts_with(['Z', 'X']))
}

pub fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).expect("a process id");
    kill_process(pid, signal).expect("it runs");
}

/// Upgrades by command; the new process and how long it took.
#[track_caller]
pub fn upgrade(tidegate: &Tidegate) -> (u32, Duration) {
    let (before, asked) = (owner(tidegate), Instant::now());
    let said = tidegate.cli(&["upgrade"]).expect_code(0);
    let took = asked.elapsed();
    let after = owner(tidegate);
    assert_ne!(after, before);
    assert!(said.stdout.contains(&format!("process {after} serves")), "{}", said.stdout);
    (after, took)
}

/// The same by signal.
#[track_caller]
pub fn upgrade_by_signal(tidegate: &Tidegate) -> (u32, Duration) {
    let (before, asked) = (owner(tidegate), Instant::now());
    signal(before, Signal::USR2);
    let serves = || {
        let after = owner(tidegate);
        after != before && tidegate.read("tidegate.log").contains(&format!("upgrade: process {after} serves"))
    };
    // The file is emptied for a moment before the new owner's name is in it.
    wait_for("another process serves", SOON, || tidegate.read("state/lock").ends_with('\n') && serves());
    (owner(tidegate), asked.elapsed())
}

/// Orders are taken again once the process before has nobody left but WebSockets.
#[track_caller]
pub fn wait_until_quiet(tidegate: &Tidegate) {
    wait_for("orders are taken again", SOON, || takes_orders(tidegate));
}

/// An order that changes nothing.
pub fn takes_orders(tidegate: &Tidegate) -> bool {
    let said = tidegate.cli(&["serve", "shop/v1/a1"]);
    assert!(said.code == 0 || said.stderr.contains("an upgrade is under way"), "{}", said.stderr);
    said.code == 0
}
