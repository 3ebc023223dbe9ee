//! A disk that is full or read-only: a small file system of its own, which root, or whoever may `sudo`, can mount.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{at_home, users};
use crate::fate::{Fate, Kind, Plan};
use crate::process::{Scratch, delay, wait_for};
use crate::scenarios::user_on;
use crate::shop::{Shop, backend};
use crate::tidegate::{SOON, Tidegate};

/// A file system in memory, gone with the test.
pub(crate) struct Disk {
    mounted: PathBuf,
    _scratch: Scratch,
}

impl Disk {
    pub(crate) fn new() -> Disk {
        let scratch = Scratch::new("disk");
        let mounted = scratch.path().join("mounted");
        fs::create_dir(&mounted).unwrap();
        as_root(&["mount", "-t", "tmpfs", "-o", "size=16m,mode=0777", "tmpfs", &mounted.display().to_string()]);
        Disk { mounted, _scratch: scratch }
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.mounted.join("state")
    }

    /// Takes all room that is left.
    pub(crate) fn fill(&self) {
        let mut filler = File::create(self.filler()).unwrap();
        for size in [1 << 16, 1 << 12, 1] {
            while filler.write_all(&vec![0; size]).is_ok() {}
        }
    }

    pub(crate) fn make_room(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.mounted.join("filler")
    }

    fn remount(&self, how: &str) {
        as_root(&["mount", "-o", &format!("remount,{how}"), &self.mounted.display().to_string()]);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whatever still has it open keeps it until its end.
        as_root(&["umount", "-l", &self.mounted.display().to_string()]);
    }
}

fn as_root(command: &[&str]) {
    let words: Vec<&str> = if rustix::process::geteuid().is_root() { command.to_vec() } else { [&["sudo", "-n"], command].concat() };
    let ended = Command::new(words[0]).args(&words[1..]).output().expect("mount is everywhere");
    assert!(
        ended.status.success() || std::thread::panicking(),
        "{}; this test mounts a small file system: run it as root, or where sudo asks nothing",
        String::from_utf8_lossy(&ended.stderr)
    );
}

fn shop(pin: &str, state: &Path) -> Shop {
    Shop::new(pin).session("idle_timeout: 15s").session("engaged_within: 2s").process(&format!("state: {{directory: {}}}", state.display()))
}

fn failures(tidegate: &Tidegate) -> f64 {
    tidegate.metrics().sum("tidegate_ledger_write_failures_total", &[])
}

#[test]
fn a_full_disk_stops_nobody_is_told_and_costs_nothing_once_there_is_room() {
    let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
    let disk = Disk::new();
    let mut tidegate = shop("learn", &disk.state()).release("v1", &[&a1]).release("v2", &[&b1]).start();
    let load = Fate::start(
        tidegate.port(),
        Plan { keep_alive: 2, close: 2, http2: 1, users: 2, think: Duration::from_millis(30), ..Plan::default() },
    );
    load.go_on_for(50);
    tidegate.cli(&["promote", "shop", "v2"]).expect_code(0);
    let drain = |field: &str| tidegate.drain("shop/v1")[field].clone();
    wait_for("the count is believed", SOON * 3, || drain("confident") == true);
    assert!(tidegate.metrics().has("tidegate_ledger_write_failures_total") && failures(&tidegate) == 0.0);
    disk.fill();
    let newcomers: Vec<_> = (0..20).map(|_| user_on(&tidegate, "b1")).collect();
    wait_for("writes fail, again and again", SOON, || failures(&tidegate) >= 3.0);
    load.go_on_for(200);
    assert_eq!(drain("confident"), false);
    let told = tidegate.cli(&["status"]).expect_code(0).stdout;
    assert!(told.contains("the state cannot be written"), "{told}");
    let log = tidegate.read("tidegate.log");
    assert_eq!(log.matches("make room on the disk").count(), 1, "once a minute: {log}");
    disk.make_room();
    wait_for("it is believed again", SOON, || drain("confident") == true);
    assert!(tidegate.read("tidegate.log").contains("written again, nothing is missing"));
    assert_eq!(load.so_far().failures.len(), 0, "{}", load.so_far());
    let failed = failures(&tidegate);
    tidegate.kill();
    tidegate.start_again();
    let known = newcomers.into_iter().map(|mut user| {
        user.disconnect();
        user.get("/peek").expect_status(200).word("session")
    });
    assert_eq!(known.filter(|session| session == "known").count(), 20, "what was born while the disk was full");
    load.go_on_for(100);
    let report = load.stop();
    let harmed = report.count(|kind| !matches!(kind, Kind::Refused | Kind::Unanswered | Kind::ReusedReset | Kind::CutAnswer));
    assert_eq!(harmed, 0, "{report}");
    println!("full disk: {} requests answered, 0 failed, {failed} writes failed, 0 sessions lost by the kill afterwards", report.answered);
}

#[test]
fn a_process_that_ends_while_the_disk_is_full_is_doubted_by_the_next_one() {
    let a1 = backend("v1", "a1");
    let disk = Disk::new();
    let mut tidegate = shop("cookie", &disk.state()).release("v1", &[&a1]).start();
    let mut users = users(&tidegate, 5);
    delay(Duration::from_millis(500)); // written within 100 ms
    disk.fill();
    let mut unwritten = super::users(&tidegate, 5);
    wait_for("writes fail", SOON, || failures(&tidegate) >= 1.0);
    assert!(tidegate.stop().success());
    assert!(tidegate.read("tidegate.log").contains("cannot be written"), "{}", tidegate.read("tidegate.log"));
    let before = fs::read(disk.state().join("state.db")).unwrap();
    let said = tidegate.try_start_again(&[]).expect_err("it could not write a word");
    assert!(said.contains("state.db") && said.contains("on a disk that is not full") && !said.contains("panicked"), "{said}");
    assert_eq!(fs::read(disk.state().join("state.db")).unwrap(), before);
    disk.make_room();
    tidegate.start_again();
    assert!(tidegate.read("tidegate.log").contains("did not end in order"));
    assert_eq!((at_home(&mut users), at_home(&mut unwritten)), (5, 5), "their pins are theirs");
}

#[test]
fn a_read_only_disk_is_told_at_the_start_and_stops_nobody_who_is_there() {
    let a1 = backend("v1", "a1");
    let disk = Disk::new();
    let mut tidegate = shop("cookie", &disk.state()).release("v1", &[&a1]).start();
    let mut users = users(&tidegate, 5);
    assert!(tidegate.stop().success());
    disk.remount("ro");
    let before = fs::read(disk.state().join("state.db")).unwrap();
    let said = tidegate.try_start_again(&[]).expect_err("it is read-only");
    assert!(said.contains("Read-only file system") && said.contains("must be writable"), "{said}");
    assert_eq!(fs::read(disk.state().join("state.db")).unwrap(), before);
    disk.remount("rw");
    tidegate.start_again();
    assert_eq!(at_home(&mut users), 5);
}
