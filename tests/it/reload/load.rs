//! Reloads under load: keep-alive, one connection per request, HTTP/2; each request's fate is known. HAProxy beside it, judged alike.

use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{applied, reload};
use crate::fate::{Fate, Kind, Plan, Report};
use crate::origin::Origin;
use crate::process::{Process, Scratch, delay, free_port, require_file, wait_for};
use crate::shop::{Shop, backend};
use crate::tidegate::{SOON, Tidegate};

/// Plays `edits` while people work before that port, and until they have sent `least` requests.
fn played(port: u16, least: u64, edits: impl FnOnce(&Fate)) -> Report {
    let think = Duration::from_millis(2);
    let load = Fate::start(port, Plan { keep_alive: 4, close: 2, http2: 2, think, ..Plan::default() });
    load.go_on_for(10);
    edits(&load);
    let patience = Instant::now() + Duration::from_secs(120);
    while load.so_far().sent < least && Instant::now() < patience {
        delay(Duration::from_millis(50));
    }
    load.stop()
}

/// Before tidegate no request may fail, and no connection is closed; the number of requests.
pub fn under_load(tidegate: &Tidegate, least: u64, edits: impl FnOnce(&Fate)) -> u64 {
    let report = played(tidegate.port(), least, edits);
    report.assert_clean();
    assert_eq!(report.untouched_streams, 0, "{report}");
    assert!(report.sent >= least, "{report}");
    report.sent
}

/// Both ways to judge: a client that sends nothing twice, and one that sends again, as curl does, what the server never looked at:
/// after a GOAWAY, or where a kept connection ended before the first byte of an answer.
fn judged(report: &Report) -> String {
    let (sent, failed) = (report.sent, report.failures.len());
    let strict = failed as u64 + report.untouched_streams;
    let like_curl = failed - report.count(|kind| kind == Kind::ReusedReset);
    format!("of {sent} requests {strict} failed for clients that send nothing twice, {like_curl} for those that behave like curl")
}

fn is_long() -> bool {
    std::env::var_os("TIDEGATE_LONG").is_some()
}

/// The nth file: weights, a backend that comes and goes, a release that does, settings.
fn file(nth: u32, a: [&Origin; 2], guest: &Origin, staged: &Origin) -> String {
    let mut backends = vec![(a[0], 1 + nth % 5), (a[1], 1 + nth % 3)];
    if nth % 4 == 1 {
        backends.push((guest, 0));
    }
    let mut shop = Shop::new("cookie").patient_probes().app(&format!("slow_start: {}s", nth % 3)).weighted_release("v1", &backends);
    if nth % 5 == 2 {
        shop = shop.release("v2", &[staged]);
    }
    shop.app(["balance: least_sessions", "balance: round_robin", "balance: consistent"][nth as usize % 3]).yaml()
}

#[test]
fn no_request_fails_over_many_reloads_under_load() {
    let (a1, a2, a3, b1) = (backend("v1", "a1"), backend("v1", "a2"), backend("v1", "a3"), backend("v2", "b1"));
    let tidegate = Tidegate::start(&file(0, [&a1, &a2], &a3, &b1));
    tidegate.wait_for_backend("shop", "v1", "a2", "health", "up");
    let (each, least) = if is_long() { (100, 20_000) } else { (10, 2_000) };
    for (rate, pause) in [("2/s", 500), ("10/s", 100)] {
        let report = played(tidegate.port(), least / 2, |_| {
            for nth in 1..=each {
                applied(&tidegate, &file(nth, [&a1, &a2], &a3, &b1));
                delay(Duration::from_millis(pause));
            }
            reload(&tidegate, &file(0, [&a1, &a2], &a3, &b1));
        });
        println!("tidegate, {each} reloads at {rate}: {}", judged(&report));
        report.assert_clean();
        assert!(report.untouched_streams == 0 && report.sent >= least / 2, "{report}");
    }
    assert_eq!(tidegate.metrics().sum("tidegate_session_loss_total", &[]), 0.0);
}

/// HAProxy before the same people: its master reloads by SIGUSR2. Printed, not judged.
#[test]
fn haproxy_beside_it_reloads_under_the_same_load() {
    require_file("/usr/sbin/haproxy", "haproxy");
    let (a1, a2) = (backend("v1", "a1"), backend("v1", "a2"));
    let (port, scratch) = (free_port(), Scratch::new("haproxy-reload"));
    let config = |nth: u32| {
        format!(
            "global\n stats socket {}/admin level admin expose-fd listeners\n\
             defaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n\
             listen it\n bind 127.0.0.1:{port}\n balance roundrobin\n cookie SRV insert indirect nocache\n\
             server a1 {} cookie a1 weight {}\n server a2 {} cookie a2\n",
            scratch.path().display(),
            a1.address(),
            1 + nth % 5,
            a2.address()
        )
    };
    let file = scratch.write("haproxy.cfg", &config(0));
    let mut command = Command::new("/usr/sbin/haproxy");
    command.arg("-W").arg("-db").arg("-f").arg(file);
    let process = Process::start("haproxy", command, &scratch.path().join("haproxy.log"));
    wait_for("HAProxy accepts", SOON, || TcpStream::connect(("127.0.0.1", port)).is_ok());
    let (each, least) = if is_long() { (100, 20_000) } else { (10, 2_000) };
    for (rate, pause) in [("2/s", 500), ("10/s", 100)] {
        let report = played(port, least / 2, |_| {
            for nth in 1..=each {
                scratch.write("haproxy.cfg", &config(nth));
                process.signal(Signal::USR2);
                delay(Duration::from_millis(pause));
            }
        });
        println!("HAProxy 2.6, {each} reloads at {rate}: {}", judged(&report));
        for failure in report.failures.iter().take(3) {
            println!("  such as: {failure:?}");
        }
    }
}
