//! `kill -9` and a new start, over and over, while people work, come, log in and leave.
//!
//! Whoever was answered more than 100 ms before the kill must be where they were; in the cookie mode everybody, since the pin is theirs.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::rounds;
use crate::client::{Browser, Call};
use crate::fate::{Fate, Kind, Plan};
use crate::process::wait_for;
use crate::shop::{Shop, backend};
use crate::tidegate::{SOON, Tidegate};

/// What is written at most so much later may be lost by a crash.
const WRITTEN_WITHIN: Duration = Duration::from_millis(100);

/// Somebody who came while the process might be killed at any moment.
struct Newcomer {
    browser: Browser,
    home: String,
    /// When the answer came that made the session, or that renamed it.
    named: Instant,
}

/// Comes, clicks, logs in, and is replaced by the next one, until nobody answers.
fn come(port: u16, came: &AtomicUsize) -> Vec<Newcomer> {
    let mut all = Vec::new();
    loop {
        let mut browser = Browser::new(port).with_timeout(Duration::from_secs(10));
        let Ok(answer) = browser.send(Call::get("/")) else { return all };
        let mut newcomer = Newcomer { browser, home: answer.expect_status(200).word("backend"), named: Instant::now() };
        let nth = came.fetch_add(1, Ordering::SeqCst);
        if nth.is_multiple_of(2) && newcomer.browser.send(Call::get("/peek")).is_err() {
            all.push(newcomer);
            return all;
        }
        if nth.is_multiple_of(4) {
            // One whose answer is lost has no name that both know: nobody could find that session again.
            match newcomer.browser.send(Call::get("/login")) {
                Ok(answer) => answer.expect_status(200),
                Err(_) => return all,
            };
            newcomer.named = Instant::now();
        }
        all.push(newcomer);
    }
}

#[derive(Debug, Default)]
struct Figures {
    certain: usize,
    certain_kept: usize,
    last_moment: usize,
    last_moment_kept: usize,
}

impl Figures {
    fn judge(&mut self, newcomers: Vec<Newcomer>, killed: Instant) {
        for mut newcomer in newcomers {
            newcomer.browser.disconnect();
            let answer = newcomer.browser.get("/peek").expect_status(200);
            let kept = answer.word("session") == "known" && answer.word("backend") == newcomer.home;
            let (all, stayed) = if killed.saturating_duration_since(newcomer.named) > WRITTEN_WITHIN {
                (&mut self.certain, &mut self.certain_kept)
            } else {
                (&mut self.last_moment, &mut self.last_moment_kept)
            };
            *all += 1;
            *stayed += usize::from(kept);
        }
    }
}

fn of_drain(tidegate: &Tidegate) -> [serde_json::Value; 5] {
    let drain = tidegate.drain("shop/v1");
    ["id", "started", "initial", "state", "verdict"].map(|field| drain[field].clone())
}

fn killed_over_and_over(pin: &str) -> Figures {
    let (a1, a2, b1, b2) = (backend("v1", "a1"), backend("v1", "a2"), backend("v2", "b1"), backend("v2", "b2"));
    let mut tidegate = Shop::new(pin).patient_probes().release("v1", &[&a1, &a2]).release("v2", &[&b1, &b2]).start();
    let load = Fate::start(tidegate.port(), Plan { keep_alive: 3, close: 3, http2: 2, users: 3, ..Plan::default() });
    load.go_on_for(100);
    tidegate.cli(&["promote", "shop", "v2"]).expect_code(0);
    load.go_on_for(50);
    let begun = of_drain(&tidegate);
    assert_eq!(begun[3], "draining", "{begun:?}");
    let mut figures = Figures::default();
    for round in 0..rounds(8, 50) {
        let (came, port) = (AtomicUsize::new(0), tidegate.port());
        let (newcomers, killed) = std::thread::scope(|scope| {
            let crowd: Vec<_> = (0..2).map(|_| scope.spawn(|| come(port, &came))).collect();
            wait_for("people have come", SOON, || came.load(Ordering::SeqCst) >= 40 + round % 7 * 10);
            let killed = Instant::now();
            tidegate.kill();
            (crowd.into_iter().flat_map(|thread| thread.join().expect("no page was wrong")).collect::<Vec<_>>(), killed)
        });
        tidegate.start_again();
        figures.judge(newcomers, killed);
        assert_eq!(of_drain(&tidegate), begun, "{pin}, round {round}: the drain goes on");
        load.go_on_for(50);
    }
    let left = tidegate.drain("shop/v1")["remaining"].as_u64();
    assert_eq!(left, Some(24), "{pin}: all who work on v1 are counted");
    let report = load.stop();
    // What was under way at the kill has failed, and so did whoever knocked while nobody was there.
    let harmed = report.count(|kind| matches!(kind, Kind::NewSession | Kind::Moved | Kind::WrongValue | Kind::Garbage | Kind::Status(_)));
    assert_eq!(harmed, 0, "{pin}: {report}");
    assert_eq!(tidegate.metrics().sum("tidegate_session_loss_total", &[]), 0.0);
    figures
}

#[test]
fn sessions_and_drains_survive_one_kill_after_the_other() {
    for pin in ["cookie", "learn"] {
        let figures = killed_over_and_over(pin);
        let Figures { certain, certain_kept, last_moment, last_moment_kept } = figures;
        println!(
            "{pin}, {} x kill -9: {certain_kept} of {certain} pinned; of the last 100 ms {last_moment_kept} of {last_moment}; \
             24 users of a draining release: all; its drain: same number, same count",
            rounds(8, 50)
        );
        assert!(certain >= 100, "{figures:?}");
        assert!(certain_kept * 1000 >= certain * 999, "{figures:?}");
        assert!(pin != "cookie" || (certain_kept, last_moment_kept) == (certain, last_moment), "{figures:?}");
    }
}
