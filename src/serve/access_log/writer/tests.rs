//! The thread, with real files and a real pipe.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::mpsc::sync_channel;

use super::super::{AccessLog, QUEUE, Record};
use super::*;
use crate::config;
use crate::model::reason::PinResult;
use crate::model::time::Time;

fn record(path: &str) -> Record {
    Record {
        time: Time(0),
        client: "192.0.2.7".parse().expect("an address"),
        host: None,
        method: http::Method::GET,
        path: path.as_bytes().into(),
        protocol: http::Version::HTTP_11,
        status: 200,
        bytes: 0,
        request_bytes: 0,
        duration: Duration::ZERO,
        backend_duration: None,
        app: None,
        release: None,
        backend: None,
        reason: None,
        pin: PinResult::None,
        request_id: None,
        user_agent: None,
        referer: None,
    }
}

/// A new directory that goes away with the test.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("tidegate-access-log-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory for temporary files");
        Directory(path)
    }

    fn open(&self, format: LogFormat) -> AccessLog {
        let path = LogTarget::File(self.0.join("access.log"));
        AccessLog::open(&config::AccessLog { path, format }).expect("a writable directory")
    }

    fn lines(&self, file: &str) -> Vec<String> {
        read(&self.0.join(file))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn read(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(10), "{what} did not happen");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

#[test]
fn what_was_handed_over_is_written_in_order() {
    let directory = Directory::new("order");
    let log = directory.open(LogFormat::Json);
    // In portions that fit the queue, so that nothing is dropped.
    for portion in 0..5 {
        for n in 0..QUEUE / 2 {
            log.write(record(&format!("/{portion}/{n}")));
        }
        log.flush();
    }
    let lines = directory.lines("access.log");
    assert_eq!((lines.len(), log.dropped()), (5 * QUEUE / 2, 0));
    let path = |line: &String| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["path"].clone();
    assert_eq!(path(&lines[0]), "/0/0");
    assert_eq!(path(&lines[QUEUE / 2 + 1]), "/1/1");
}

#[test]
fn lines_appear_without_a_flush_and_at_the_end() {
    let directory = Directory::new("appear");
    let log = directory.open(LogFormat::Combined);
    log.write(record("/first"));
    until("the first line", || directory.lines("access.log").len() == 1);
    // The thread is asleep again by now, or about to be: both must be woken.
    std::thread::park_timeout(LOOK * (QUIET_LOOKS + 10));
    log.write(record("/second"));
    until("the second line", || directory.lines("access.log").len() == 2);
    log.write(record("/last"));
    drop(log);
    until("the last line", || directory.lines("access.log").len() == 3);
    assert!(directory.lines("access.log")[2].contains("\"GET /last HTTP/1.1\" 200 -"));
}

#[test]
fn a_log_that_was_moved_away_is_begun_anew() {
    let directory = Directory::new("reopen");
    let log = directory.open(LogFormat::Json);
    log.write(record("/old"));
    log.flush();
    std::fs::rename(directory.0.join("access.log"), directory.0.join("access.log.1")).expect("renamed");
    log.write(record("/still-old"));
    log.flush();
    log.reopen();
    until("the new file", || directory.0.join("access.log").exists());
    log.write(record("/new"));
    log.flush();
    assert_eq!((directory.lines("access.log.1").len(), directory.lines("access.log").len()), (2, 1));
}

#[test]
fn a_log_that_cannot_be_opened_says_what_to_do() {
    let path = LogTarget::File(PathBuf::from("/nonexistent/access.log"));
    let refused = AccessLog::open(&config::AccessLog { path, format: LogFormat::Json }).expect_err("no such directory");
    let text = refused.to_string();
    assert!(text.starts_with("access log /nonexistent/access.log: No such file or directory"), "{text}");
    assert!(text.contains("set server.access_log.path"), "{text}");
}

#[test]
fn a_full_queue_drops_and_counts_and_never_waits() {
    let directory = Directory::new("full");
    let pipe = directory.0.join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo of coreutils");
    assert!(made.success());
    // Opened for reading and writing, a pipe does not wait for its other end; nobody reads it yet.
    let held = OpenOptions::new().read(true).write(true).open(&pipe).expect("a pipe");
    let log = AccessLog::open(&config::AccessLog { path: LogTarget::File(pipe), format: LogFormat::Json }).expect("a pipe");
    let total = 4 * QUEUE as u64;
    let begun = Instant::now();
    for n in 0..total {
        log.write(record(&format!("/{n}")));
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    let dropped = log.dropped();
    assert!(dropped > 0 && dropped < total, "{dropped}");
    // Once somebody reads, everything that was not dropped comes.
    let reader = std::thread::spawn(move || BufReader::new(held).lines().take((total - dropped) as usize).filter(|l| l.is_ok()).count());
    log.flush();
    assert_eq!(reader.join().expect("a reader") as u64, total - dropped);
    assert_eq!(log.dropped(), dropped);
}

#[test]
fn a_target_that_fails_counts_its_records_as_lost() {
    // Every write to /dev/full fails as on a full disk.
    let log = AccessLog::open(&config::AccessLog { path: LogTarget::File("/dev/full".into()), format: LogFormat::Json });
    let log = log.expect("Linux has /dev/full");
    for _ in 0..3 {
        log.write(record("/"));
    }
    log.flush();
    assert_eq!(log.dropped(), 3);
}

#[test]
fn nobody_is_told_twice_within_a_second() {
    let (queue, items) = sync_channel(1);
    let shared = Arc::new(Shared::default());
    let sink = Sink::open(&LogTarget::File("/dev/null".into())).expect("Linux has /dev/null");
    let mut writer = Writer::new(items, sink, LogFormat::Json, Arc::clone(&shared));
    shared.dropped.store(5, Ordering::Relaxed);
    writer.complain();
    assert_eq!(writer.told, 5);
    shared.dropped.store(9, Ordering::Relaxed);
    writer.complain();
    assert_eq!(writer.told, 5, "the rest is told a second later");
    drop(queue);
}
