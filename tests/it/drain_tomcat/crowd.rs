//! The people and crawlers before a proxy while a release is deployed, each with a script that a seed decides.
//!
//! Scripts count from the deploy, and nobody's script asks which proxy it is: every proxy meets the same people at
//! the same times. Nobody opens a session while the deploy happens, so that "made after it" is an exact count.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::client::{Browser, Call, Wire};
use crate::process::delay;
use crate::websocket::Frame;

/// The timeout of the application, and what tidegate is told of it.
pub const IDLE: Duration = Duration::from_secs(60);
pub const BUSY: usize = 30;
pub const LEAVERS: usize = 50;
pub const RETURNERS: usize = 20;
pub const SOCKETS: usize = 5;
pub const EARLY_CRAWLS: usize = 100;
pub const LATE_CRAWLS: usize = 200;

/// What a person does after the deploy; times count from it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Ending {
    /// Clicks until then, and logs out.
    LogsOut(Duration),
    /// Clicks until then, and is never seen again.
    Leaves(Duration),
    /// Clicks until then, comes back so long after the last click, clicks three times, and so on.
    Returns(Duration, Duration),
    /// Has a WebSocket until then, and logs out behind it, or clicks a last time and leaves.
    Socket(Duration, bool),
}

/// A person's script.
#[derive(Debug, Clone, Copy)]
pub struct Script {
    pub ending: Ending,
    /// Between two clicks.
    pace: Duration,
    /// Half of them log in, which renews the session id.
    logs_in: bool,
}

/// Everybody, the same at each call.
pub fn scripts() -> Vec<Script> {
    let mut seed = 0x7469_6465_u32;
    let mut dice = |from: u64, to: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 17;
        seed ^= seed << 5;
        Duration::from_millis(from + u64::from(seed) % (to - from))
    };
    let share = |nth: usize, of: usize, from: u64, to: u64| Duration::from_millis(from + (to - from) * nth as u64 / of as u64);
    let busy = (0..BUSY).map(|n| Ending::LogsOut(share(n, BUSY, 5_000, 70_000)));
    let leavers = (0..LEAVERS).map(|n| Ending::Leaves(share(n + 1, LEAVERS, 0, 25_000)));
    // Six seconds more than the timeout at least: HAProxy's `maxidle` counts in steps of four.
    let returners =
        (0..RETURNERS).map(|n| Ending::Returns(share(n, RETURNERS, 0, 3_000), IDLE + share(n * 7 % RETURNERS, RETURNERS, 6_000, 14_000)));
    let sockets = (0..SOCKETS).map(|n| Ending::Socket(share(n + 1, SOCKETS, 8_000, 24_000), n % 2 == 0));
    let endings: Vec<Ending> = busy.chain(leavers).chain(returners).chain(sockets).collect();
    let script = |(n, ending)| Script { ending, pace: dice(600, 1_400), logs_in: n % 2 == 0 };
    endings.into_iter().enumerate().map(script).collect()
}

/// What all before one proxy share.
pub struct Scene {
    /// Of the shop: `/c`.
    pub context: &'static str,
    /// How long after the deploy the last script ends.
    pub window: Duration,
    pub opened: AtomicUsize,
    /// Set when the deploy has been done.
    pub deployed: OnceLock<Instant>,
    began: Instant,
}

/// Starts of proxies and first visits, on a busy machine. Without an end to it, a failure before the deploy would hang the test.
const OPENING: Duration = Duration::from_secs(120);

impl Scene {
    pub fn new(context: &'static str, window: Duration) -> Scene {
        Scene { context, window, opened: AtomicUsize::new(0), deployed: OnceLock::new(), began: Instant::now() }
    }

    fn page(&self, name: &str) -> String {
        format!("{}/{name}.jsp", self.context)
    }

    /// How long ago the deploy was, once it was.
    fn since_deploy(&self) -> Option<Duration> {
        let since = self.deployed.get().map(Instant::elapsed);
        assert!(since.is_some() || self.began.elapsed() < OPENING, "no deploy after {OPENING:?}");
        since
    }

    fn sleep_until(&self, time: Duration) {
        delay(time.saturating_sub(self.since_deploy().expect("the deploy has been")));
    }
}

/// A visit by somebody whose session had died.
#[derive(Debug, Clone, PartialEq)]
pub struct Return {
    /// From the deploy.
    pub at: Duration,
    pub release: String,
    /// What the shop counted on the three clicks.
    pub counters: [u64; 3],
    /// The distinct session ids of the three clicks.
    pub ids: Vec<String>,
}

/// What became of a person.
#[derive(Debug, Clone)]
pub struct Story {
    pub script: Script,
    /// When the session that the deploy found was over, from the deploy: the logout, or the timeout after the last click.
    pub ended: Duration,
    /// The first surprise while that session lived.
    pub lost: Option<String>,
    pub returns: Vec<Return>,
}

/// Plays one person. `browser` is theirs; the caller keeps another tab of it to see their cookies.
pub fn play(script: Script, browser: Browser, scene: &Scene) -> Story {
    let mut person = Person { browser, scene, release: String::new(), counter: 0, id: None, lost: None };
    person.open(script.logs_in);
    // Open before the deploy: a drain that found no tunnel would prove nothing about them.
    let socket = matches!(script.ending, Ending::Socket(..)).then(|| person.browser.websocket(&scene.page("socket")));
    scene.opened.fetch_add(1, Ordering::SeqCst);
    let mut returns = Vec::new();
    let ended = match script.ending {
        Ending::LogsOut(at) => {
            person.click_until(at, script.pace);
            person.log_out()
        }
        Ending::Leaves(at) => person.click_until(at, script.pace) + IDLE,
        Ending::Returns(at, after) => {
            let mut last = person.click_until(at, script.pace);
            let ended = last + IDLE;
            while last + after + Duration::from_secs(5) < scene.window {
                scene.sleep_until(last + after);
                let (visit, end) = person.come_back();
                returns.push(visit);
                last = end;
            }
            ended
        }
        Ending::Socket(at, logs_out) => {
            person.talk_until(at, socket.expect("it was opened"));
            let clicked = person.click();
            if logs_out { person.log_out() } else { clicked + IDLE }
        }
    };
    Story { script, ended, lost: person.lost, returns }
}

struct Person<'s> {
    browser: Browser,
    scene: &'s Scene,
    release: String,
    counter: u64,
    id: Option<String>,
    lost: Option<String>,
}

impl Person<'_> {
    fn open(&mut self, logs_in: bool) {
        let pages: &[&str] = if logs_in { &["index", "login", "index"] } else { &["index", "index"] };
        for page in pages {
            let answer = self.browser.get(&self.scene.page(page)).expect_status(200);
            self.counter += 1;
            assert_eq!(answer.number("counter"), self.counter, "a newcomer at {page}");
            self.release = answer.word("release");
            self.id = Some(answer.word("id"));
        }
    }

    /// Clicks, also all along before the deploy, and a last time at `at`; gives the time of that click's answer.
    fn click_until(&mut self, at: Duration, pace: Duration) -> Duration {
        while self.scene.since_deploy().is_none_or(|now| now + pace < at) {
            self.click();
            delay(pace);
        }
        self.scene.sleep_until(at);
        self.click()
    }

    fn click(&mut self) -> Duration {
        self.counter += 1;
        let answer = self.browser.get(&self.scene.page("index"));
        let seen = (answer.status, answer.value("release"), answer.value("counter"), answer.value("id"));
        let expected = (200, Some(self.release.clone()), Some(self.counter.to_string()), self.id.clone());
        if seen != expected && self.lost.is_none() {
            self.lost = Some(format!("expected {expected:?}, got {seen:?}"));
        }
        self.scene.since_deploy().unwrap_or_default()
    }

    fn log_out(&mut self) -> Duration {
        self.browser.get(&self.scene.page("logout")).expect_status(200);
        self.scene.since_deploy().expect("nobody logs out before the deploy")
    }

    fn come_back(&mut self) -> (Return, Duration) {
        let at = self.scene.since_deploy().expect("nobody returns before the deploy");
        let answers = [0, 1, 1].map(|pause| {
            delay(Duration::from_secs(pause));
            self.browser.get(&self.scene.page("index")).expect_status(200)
        });
        let mut ids: Vec<String> = answers.iter().map(|answer| answer.word("id")).collect();
        // What the cookie jar holds counts too: two cookies of that name would be two sessions.
        ids.extend(held(&self.browser));
        ids.sort();
        ids.dedup();
        let visit =
            Return { at, release: answers[0].word("release"), counters: answers.each_ref().map(|answer| answer.number("counter")), ids };
        (visit, self.scene.since_deploy().expect("it was before"))
    }

    fn talk_until(&mut self, at: Duration, mut socket: Wire) {
        while self.scene.since_deploy().is_none_or(|now| now < at) {
            socket.send_text("still there?").expect("the tunnel is open");
            let echo = socket.read_frame().expect("the tunnel is open");
            assert_eq!(echo, Frame::Text("still there?".to_owned()));
            delay(Duration::from_millis(500));
        }
        socket.send_close().expect("the tunnel is open");
    }
}

/// The session ids that a browser would send, without what a proxy wrote before them.
pub fn held(browser: &Browser) -> Vec<String> {
    let sessions = browser.cookies().into_iter().filter(|cookie| cookie.name == "JSESSIONID");
    sessions.map(|cookie| cookie.value.rsplit('~').next().unwrap_or_default().to_owned()).collect()
}

/// Requests that keep no cookie, the first part at once and the second spread over a minute after the deploy.
pub fn crawl(port: u16, scene: &Scene) {
    let page = scene.page("index");
    for _ in 0..EARLY_CRAWLS {
        Browser::new(port).send_or_panic(Call::get(&page)).expect_status(200);
    }
    scene.opened.fetch_add(1, Ordering::SeqCst);
    while scene.since_deploy().is_none() {
        delay(Duration::from_millis(50));
    }
    for nth in 0..LATE_CRAWLS {
        scene.sleep_until(Duration::from_millis(500 + 300 * nth as u64));
        Browser::new(port).send_or_panic(Call::get(&page)).expect_status(200);
    }
}
