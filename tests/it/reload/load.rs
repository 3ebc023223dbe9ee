//! Reloads under load: keep-alive, one connection per request, HTTP/2; each request's fate is known.

use std::net::TcpStream;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{applied, reload};
use crate::client::{Browser, Call, HOST};
use crate::http2::{self, Stream};
use crate::origin::Origin;
use crate::process::{Process, Scratch, delay, free_port, require_file, wait_for};
use crate::shop::{Shop, backend};
use crate::tidegate::{SOON, Tidegate};

/// People at work until they are told to stop.
pub struct Load {
    over: AtomicBool,
    requests: AtomicU64,
    failures: Mutex<Vec<String>>,
}

impl Load {
    /// Nobody yet.
    pub fn new() -> Load {
        Load { over: AtomicBool::new(false), requests: AtomicU64::new(0), failures: Mutex::default() }
    }

    /// Requests so far.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }

    /// What failed so far.
    pub fn failures(&self) -> Vec<String> {
        self.failures.lock().unwrap().clone()
    }

    /// Everybody goes home.
    pub fn stop(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    fn count(&self, what: Result<(), String>) {
        self.requests.fetch_add(1, Ordering::SeqCst);
        if let Err(failure) = what {
            self.failures.lock().unwrap().push(failure);
        }
    }

    /// A session on one connection: each page must be the next of the same session.
    pub fn keep_alive(&self, port: u16) {
        let (mut user, mut expected) = (Browser::new(port), 1);
        while !self.over.load(Ordering::SeqCst) {
            self.count(next_page(&mut user, expected));
            expected += 1;
        }
    }

    /// The same, with a connection for each page.
    pub fn close(&self, port: u16) {
        let (mut user, mut expected) = (Browser::new(port), 1);
        while !self.over.load(Ordering::SeqCst) {
            self.count(next_page(&mut user, expected));
            user.disconnect();
            expected += 1;
        }
    }

    /// Somebody new with each connection of twenty streams.
    pub fn http2(&self, port: u16) {
        let url = format!("http://{HOST}/peek");
        while !self.over.load(Ordering::SeqCst) {
            let streams: Vec<Stream> = (0..20).map(|_| Stream { method: "GET", url: &url, fields: &[], frames: &[] }).collect();
            match std::panic::catch_unwind(|| http2::plain(port, &streams)) {
                Ok(answers) => {
                    for (status, _, text) in answers {
                        self.count(if status == 200 { Ok(()) } else { Err(format!("h2: {status} {text}")) });
                    }
                }
                Err(_) => self.count(Err("h2: the connection broke".to_owned())),
            }
        }
    }
}

fn next_page(user: &mut Browser, expected: u64) -> Result<(), String> {
    let answer = user.send(Call::get("/")).map_err(|error| format!("page {expected}: {error}"))?;
    match answer.value("counter").and_then(|n| n.parse::<u64>().ok()) {
        Some(counter) if answer.status == 200 && counter == expected => Ok(()),
        counter => Err(format!("page {expected}: {} {counter:?} {}", answer.status, answer.text())),
    }
}

/// Plays `edits` while four keep-alive users, two that close and one with HTTP/2 work before that port.
fn played(port: u16, least: u64, edits: impl FnOnce(&Load)) -> Load {
    let load = Load::new();
    std::thread::scope(|scope| {
        let load = &load;
        for _ in 0..4 {
            scope.spawn(move || load.keep_alive(port));
        }
        for _ in 0..2 {
            scope.spawn(move || load.close(port));
        }
        scope.spawn(move || load.http2(port));
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            edits(load);
            let patience = Instant::now() + Duration::from_secs(120);
            while load.requests() < least && Instant::now() < patience {
                delay(Duration::from_millis(50));
            }
        }));
        load.stop();
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
    load
}

/// Before tidegate no request may fail; the number of requests.
pub fn under_load(tidegate: &Tidegate, least: u64, edits: impl FnOnce(&Load)) -> u64 {
    let load = played(tidegate.port(), least, edits);
    assert_eq!(load.failures(), Vec::<String>::new(), "of {} requests", load.requests());
    assert!(load.requests() >= least, "{} requests of {least}", load.requests());
    load.requests()
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
        let requests = under_load(&tidegate, least / 2, |_| {
            for nth in 1..=each {
                applied(&tidegate, &file(nth, [&a1, &a2], &a3, &b1));
                delay(Duration::from_millis(pause));
            }
            reload(&tidegate, &file(0, [&a1, &a2], &a3, &b1));
        });
        println!("{each} reloads at {rate}: 0 of {requests} requests failed");
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
    let (each, least) = if is_long() { (100, 10_000) } else { (5, 500) };
    for (rate, pause) in [("2/s", 500), ("10/s", 100)] {
        let load = played(port, least, |_| {
            for nth in 1..=each {
                scratch.write("haproxy.cfg", &config(nth));
                process.signal(Signal::USR2);
                delay(Duration::from_millis(pause));
            }
        });
        println!("HAProxy 2.6, {each} reloads at {rate}: {} of {} requests failed", load.failures().len(), load.requests());
        for failure in load.failures().iter().take(3) {
            println!("  such as: {failure}");
        }
    }
}
