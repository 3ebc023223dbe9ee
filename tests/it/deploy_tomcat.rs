//! The main job, on real Tomcats: a release is deployed at noon, and nobody notices.
//!
//! All pin modes run at once, each with a tidegate and a web application (context) of its own on the same three
//! Tomcats. In the cookieless mode no response ever shows a session id in a header: sessions are adopted from the
//! links people follow, and they end by their idle timeout only.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::client::Browser;
use crate::process::{delay, wait_for, wait_until_equal};
use crate::shop::Shop;
use crate::tidegate::Tidegate;
use crate::tomcat::{Context, Tomcat, TomcatSpec};

const USERS: usize = 200;
const THREADS: usize = 8;
const NEW_USERS: usize = 20;
/// Clients that never send the cookie back: they must be counted apart, and must not hold up the drain.
const CRAWLERS: usize = 10;
/// tidegate trusts its count one idle timeout after a start without history, so it cannot be the usual half hour.
const IDLE_TIMEOUT: &str = "12s";
/// The last exchange may still be in its last hook; waiting longer would let a wrong count heal by idle timeouts.
const AT_ONCE: Duration = Duration::from_secs(2);
/// Idle timeout, confirmation time and a slow machine.
const DRAINS: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy)]
struct Mode {
    name: &'static str,
    pin: &'static str,
    context: Context,
}

const MODES: [Mode; 4] = [
    mode("pin cookie", "cookie", "/c", true),
    mode("pin route", "route", "/r", true),
    mode("pin learn", "learn", "/l", true),
    mode(";jsessionid=", "route", "/j", false),
];

const fn mode(name: &'static str, pin: &'static str, path: &'static str, cookies: bool) -> Mode {
    Mode { name, pin, context: Context { path, cookies } }
}

#[test]
fn a_release_is_deployed_and_no_user_loses_a_session() {
    let contexts = MODES.map(|mode| mode.context);
    let specs = [("v1", "a1"), ("v1", "a2"), ("v2", "b1")];
    let specs = specs.map(|(release, name)| TomcatSpec::new(release, name).with_contexts(&contexts));
    let tomcats = Tomcat::start_all(specs);
    std::thread::scope(|scope| {
        for mode in &MODES {
            let tomcats = &tomcats;
            std::thread::Builder::new()
                .name(mode.name.to_owned()) // a panic says which mode it was
                .spawn_scoped(scope, || deploy(mode, tomcats))
                .expect("a thread can be started");
        }
    });
}

fn deploy(mode: &Mode, tomcats: &[Tomcat]) {
    let path = mode.context.path;
    let backend = |at: usize, name: &str| format!("{name}: \"{}\"", tomcats[at].address());
    let tidegate = Shop::new(mode.pin)
        .session(&format!("idle_timeout: {IDLE_TIMEOUT}"))
        .session("confirm_within: 20s")
        .app(&format!("balance: {}", mode.balance()))
        .probed(&format!("{path}/health.jsp"))
        .release_of("v1", vec![backend(0, "a1"), backend(1, "a2")])
        .release_of("v2", vec![backend(2, "b1")])
        .start();
    let counted = |release: &str| {
        let sessions = tidegate.sessions("shop", release);
        (sessions.live + sessions.unconfirmed) as usize
    };

    let mut users = click_through_a_promotion(mode, &tidegate);
    newcomers_are_on_v2(mode, &tidegate);
    let crawlers = mode.crawlers();
    let of_v1 = || tomcats[0].manager_sessions(path) + tomcats[1].manager_sessions(path);
    assert_eq!(of_v1(), USERS + crawlers, "{}: sessions on the old Tomcats", mode.name);
    wait_until_equal("v1 is counted as Tomcat counts", AT_ONCE, &of_v1(), || counted("v1"));
    let of_v2 = tomcats[2].manager_sessions(path);
    assert_eq!(of_v2, NEW_USERS, "{}: sessions on the new Tomcat", mode.name);
    wait_until_equal("v2 is counted as Tomcat counts", AT_ONCE, &of_v2, || counted("v2"));
    assert_eq!(tidegate.release_state("shop", "v1"), "draining");

    for user in &mut users {
        user.log_out();
    }
    wait_until_equal("v1 is drained", DRAINS, &"drained".to_owned(), || tidegate.release_state("shop", "v1"));
    assert_eq!(counted("v1"), 0);
    assert_eq!(of_v1(), crawlers, "{}: only crawlers are left", mode.name);
    if mode.context.cookies {
        let labels = [("release", "v1"), ("reason", "logout")];
        let ended = tidegate.metrics().sum("tidegate_sessions_ended_total", &labels);
        assert_eq!(ended as usize, USERS, "{}: ended by logout", mode.name);
    }
    let returned = users[0].browser.get(&format!("{path}/index.jsp"));
    assert_eq!(returned.word("release"), "v2", "{}: after the logout", mode.name);
}

/// Opens all sessions, promotes v2 while everybody clicks, and gives the users back when each has clicked on.
fn click_through_a_promotion<'m>(mode: &'m Mode, tidegate: &Tidegate) -> Vec<User<'m>> {
    let (clicks, rounds, enough) =
        (AtomicUsize::new(0), std::array::from_fn::<AtomicUsize, THREADS, _>(|_| AtomicUsize::new(0)), AtomicBool::new(false));
    let everybody_clicked = |what: &str| {
        let before: Vec<usize> = rounds.iter().map(|r| r.load(Ordering::SeqCst)).collect();
        wait_for(&format!("{}: {what}", mode.name), Duration::from_secs(60), || {
            // Two more rounds: the one under way may have begun before.
            rounds.iter().zip(&before).all(|(r, b)| r.load(Ordering::SeqCst) >= b + 2)
        });
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|at| {
                let (clicks, rounds, enough) = (&clicks, &rounds[at], &enough);
                scope.spawn(move || {
                    let users = (0..USERS / THREADS).map(|n| User::open(mode, tidegate, n % 2 == 0));
                    let mut users: Vec<User> = users.collect();
                    while !enough.load(Ordering::SeqCst) && users.iter().all(|u| u.lost.is_none()) {
                        for user in &mut users {
                            user.click();
                            clicks.fetch_add(1, Ordering::SeqCst);
                            delay(Duration::from_millis(2)); // thinks, and leaves the CPU to the other modes
                        }
                        rounds.fetch_add(1, Ordering::SeqCst);
                    }
                    // Lets the waiting main thread see the loss instead of a timeout.
                    rounds.fetch_add(1_000_000, Ordering::SeqCst);
                    users
                })
            })
            .collect();
        everybody_clicked("everybody has a session and clicks");
        for _ in 0..mode.crawlers() {
            let page = format!("{}/index.jsp", mode.context.path);
            tidegate.browser().get(&page).expect_status(200);
        }
        let before = clicks.load(Ordering::SeqCst);
        tidegate.cli(&["promote", "shop", "v2"]).expect_code(0);
        everybody_clicked("everybody clicks on after the promotion");
        let after = clicks.load(Ordering::SeqCst);
        assert!(after > before, "{}: nobody clicked during the promotion", mode.name);
        enough.store(true, Ordering::SeqCst);
        let users: Vec<User> = threads.into_iter().flat_map(|t| t.join().unwrap()).collect();
        let lost: Vec<&String> = users.iter().filter_map(|user| user.lost.as_ref()).collect();
        let (name, count, some) = (mode.name, lost.len(), &lost[..lost.len().min(5)]);
        assert!(lost.is_empty(), "{name}: {count} users lost, for instance {some:#?}");
        assert_eq!(users.len(), USERS);
        let at = |name: &str| users.iter().filter(|user| user.backend == name).count();
        let (a1, a2) = (at("a1"), at("a2"));
        assert!(a1 >= USERS / 4 && a2 >= USERS / 4, "{}: spread {a1} to {a2}", mode.name);
        users
    })
}

fn newcomers_are_on_v2(mode: &Mode, tidegate: &Tidegate) {
    for _ in 0..NEW_USERS {
        let mut user = User::open(mode, tidegate, false);
        user.click();
        user.click();
        assert_eq!(user.backend, "b1", "{}: a new user is on the old release", mode.name);
        assert_eq!(user.lost, None, "{}: a new user", mode.name);
    }
}

impl Mode {
    /// Without cookies a session is seen late: the least sessions say nothing about a rush of new users.
    fn balance(&self) -> &'static str {
        if self.context.cookies { "least_sessions" } else { "round_robin" }
    }

    /// None in the cookieless mode: there nothing tells tidegate of a session before its id is used.
    fn crawlers(&self) -> usize {
        if self.context.cookies { CRAWLERS } else { 0 }
    }
}

/// A person: knows what the shop should say next.
struct User<'m> {
    mode: &'m Mode,
    browser: Browser,
    /// `;jsessionid=…` in the cookieless mode.
    suffix: String,
    backend: String,
    counter: u64,
    lost: Option<String>,
}

impl<'m> User<'m> {
    fn open(mode: &'m Mode, tidegate: &Tidegate, logs_in: bool) -> User<'m> {
        let mut user = User { mode, browser: tidegate.browser(), suffix: String::new(), backend: String::new(), counter: 0, lost: None };
        if !mode.context.cookies {
            let link = user.browser.get(&user.page("link")).expect_status(200).text();
            let id = link.trim().strip_prefix("index.jsp");
            user.suffix = id.unwrap_or_else(|| panic!("not a link: {link}")).to_owned();
        }
        let answer = user.browser.get(&user.page("index")).expect_status(200);
        user.counter = 1;
        assert_eq!(answer.number("counter"), 1, "{}: a new user", mode.name);
        user.backend = answer.word("backend");
        if logs_in && mode.context.cookies {
            let answer = user.browser.get(&user.page("login")).expect_status(200);
            user.counter = 2;
            assert_eq!(answer.number("counter"), 2, "{}: at login", mode.name);
        }
        user
    }

    fn page(&self, name: &str) -> String {
        format!("{}/{name}.jsp{}", self.mode.context.path, self.suffix)
    }

    fn click(&mut self) {
        self.counter += 1;
        let answer = self.browser.get(&self.page("index"));
        let seen = (answer.status, answer.value("backend"), answer.value("counter"));
        let expected = (200, Some(self.backend.clone()), Some(self.counter.to_string()));
        if seen != expected && self.lost.is_none() {
            self.lost = Some(format!("expected {expected:?}, got {seen:?}"));
        }
        if !self.mode.context.cookies && !self.browser.cookies().is_empty() {
            self.lost = Some(format!("got a cookie: {:?}", self.browser.cookies()));
        }
    }

    fn log_out(&mut self) {
        let page = self.page("logout");
        self.browser.get(&page).expect_status(200);
        assert_eq!(self.browser.cookie("JSESSIONID"), None, "{}", self.mode.name);
        self.suffix.clear();
    }
}
