//! Work per operation, counted in processor instructions: the same on every machine, and blind to caches.
//!
//! Valgrind counts a whole run. What a run with more operations executes beyond one with fewer is their own work; building the
//! ledger is in both.

use std::env;
use std::hint::black_box;
use std::process::Command;

use tidegate::model::ledger::Attention;

use super::{below, key, populated};

const OPERATIONS: u64 = 2_000;

/// In the order of the table's columns. Births grow the tables they go into, which is part of their work.
const KINDS: [&str; 3] = ["exchange", "unknown", "born"];

/// The table: instructions per operation by number of sessions.
pub fn table() {
    println!("{:>10} {:>17} {:>14} {:>7}", "sessions", "find+enter+leave", "find, unknown", "born");
    for sessions in [1_000, 10_000, 100_000, 1_000_000] {
        let [exchange, unknown, born] = KINDS.map(|kind| {
            let [none, all] = [0, OPERATIONS].map(|operations| counted(sessions, kind, operations));
            (all - none) as f64 / OPERATIONS as f64
        });
        println!("{sessions:>10} {exchange:>17.0} {unknown:>14.0} {born:>7.0}");
    }
}

/// Instructions of a process that builds a ledger and does so many operations.
fn counted(sessions: u64, kind: &str, operations: u64) -> u64 {
    let itself = env::current_exe().expect("this program has a path");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(itself)
        .args(["work", &sessions.to_string(), kind, &operations.to_string()])
        .output()
        .expect("valgrind runs: apt-get install valgrind");
    let report = String::from_utf8_lossy(&output.stderr);
    let line = report.lines().find_map(|line| line.split("Collected :").nth(1));
    line.and_then(|number| number.trim().parse().ok()).unwrap_or_else(|| panic!("valgrind says how much it collected: {report}"))
}

/// What [`counted`] starts: `SESSIONS KIND OPERATIONS`.
pub fn perform(arguments: &[String]) {
    let [sessions, kind, operations] = arguments else { panic!("work SESSIONS KIND OPERATIONS") };
    let number = |text: &String| text.parse::<u64>().expect("a number");
    let (sessions, operations) = (number(sessions), number(operations));
    let (ledger, now) = populated(sessions);
    let mut dice = 88_172_645_463_325_252;
    for i in 0..operations {
        match kind.as_str() {
            "exchange" => {
                let key = key(below(&mut dice, sessions));
                black_box(ledger.find(key, now));
                ledger.enter(key, Attention::Foreground, now);
                ledger.leave(key, now);
            }
            "unknown" => {
                black_box(ledger.find(key((1 << 50) + i), now));
            }
            _ => {
                black_box(ledger.born(key((1 << 40) + i), (i % 4) as u32, 7, now));
            }
        }
    }
}
