//! The files in `conf/` do what their comments say: each is run as it is, but for what its operator changes too (addresses and
//! places of files) and for times, which are shortened.
//!
//! A story changes the file's text, it never writes a configuration of its own: what is not in the file is not shown.

mod cookies;
mod peers;
mod proxies;
mod tomcats;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::client::Browser;
use crate::process::{Process, wait_for};
use crate::tidegate::Tidegate;

/// The host that the examples serve.
const HOST: &str = "shop.example.com";
/// Long enough that nobody in a story times out by accident; a drain is sure of itself after it.
const IDLE_TIMEOUT: &str = "12s";
/// Idle timeout, confirmation and a slow machine.
const DRAINS: Duration = Duration::from_secs(60);

/// Where the examples are.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conf")
}

/// A file of `conf/`, changed as its operator changes it.
struct Example(String);

impl Example {
    /// The file, listening on loopback, with quick probes and short-lived sessions.
    fn of(file: &str) -> Example {
        let text = std::fs::read_to_string(folder().join(file)).unwrap_or_else(|error| panic!("conf/{file}: {error}"));
        let mut example = Example(text).with("0.0.0.0:8080", "127.0.0.1:@port");
        for (theirs, ours) in [
            ("idle_timeout: 30m", format!("idle_timeout: {IDLE_TIMEOUT}")),
            ("interval: 2s", "interval: 200ms".to_owned()),
            ("timeout: 1s\n", "timeout: 200ms\n".to_owned()),
        ] {
            example.0 = example.0.replace(theirs, &ours);
        }
        example
    }

    /// What its comment shows of the file that it replaces.
    fn replaces(&self) -> String {
        let lines = self.0.lines().skip_while(|line| !line.ends_with("that this replaces:")).skip(1);
        let lines = lines.map_while(|line| line.strip_prefix("#   ")).map(|line| format!("{line}\n"));
        let text: String = lines.collect();
        assert!(!text.is_empty(), "the example replaces nothing:\n{}", self.0);
        text
    }

    /// Everywhere `to` instead of `from`, which must be there.
    fn with(mut self, from: &str, to: &str) -> Example {
        assert!(self.0.contains(from), "{from} is not in the example:\n{}", self.0);
        self.0 = self.0.replace(from, to);
        self
    }

    /// Addresses of backends.
    fn at(self, addresses: &[(&str, String)]) -> Example {
        addresses.iter().fold(self, |example, (theirs, ours)| example.with(theirs, ours))
    }

    /// Starts it.
    fn start(&self) -> Tidegate {
        let left: Vec<&str> = self.0.lines().filter(|line| line.contains(": 10.0.0.") || line.contains("\"10.0.0.")).collect();
        let left: Vec<&&str> = left.iter().filter(|line| !line.trim_start().starts_with('#')).collect();
        assert!(left.is_empty(), "addresses of the example are left: {left:?}");
        Tidegate::start(&self.0)
    }
}

/// Where a backend's application has its pages.
#[derive(Clone, Copy)]
struct Pages {
    index: &'static str,
    logout: &'static str,
}

/// Of the scripted backend.
const AT_ROOT: Pages = Pages { index: "/", logout: "/logout" };
/// Of the scripted backend below `/shop`.
const BELOW_SHOP: Pages = Pages { index: "/shop/page", logout: "/shop/logout" };
/// Of the shop on Tomcat.
const ON_TOMCAT: Pages = Pages { index: "/shop/index.jsp", logout: "/shop/logout.jsp" };

/// Somebody with a session, and how often they have clicked in it.
struct User {
    browser: Browser,
    pages: Pages,
    home: String,
    clicks: u64,
}

impl User {
    /// Comes by a proxy for the first time.
    fn new(port: u16, pages: Pages) -> User {
        let mut browser = Browser::new(port).with_host(HOST);
        let page = browser.get(pages.index).expect_status(200);
        assert_eq!(page.number("counter"), 1, "somebody new");
        User { browser, pages, home: page.word("backend"), clicks: 1 }
    }

    /// The first new one of up to 20 who comes to this backend, and confirmed; the others log out.
    fn on(port: u16, pages: Pages, backend: &str) -> User {
        let mut elsewhere = Vec::new(); // they stay until the end: else the next one would come to the same backend
        let mut found = (0..20).find_map(|_| {
            let user = User::new(port, pages);
            if user.home == backend {
                return Some(user);
            }
            elsewhere.push(user);
            None
        });
        for other in elsewhere {
            other.log_out();
        }
        let user = found.as_mut().unwrap_or_else(|| panic!("none of 20 new users came to {backend}"));
        user.click();
        found.expect("just looked at")
    }

    /// Uses the session, which must be there and where it was.
    #[track_caller]
    fn click(&mut self) {
        let page = self.browser.get(self.pages.index).expect_status(200);
        self.clicks += 1;
        let seen = (page.word("backend"), page.number("counter"));
        assert_eq!(seen, (self.home.clone(), self.clicks), "the session was lost");
    }

    /// Goes on by way of another proxy, as when the public address moves there.
    fn moves_to(&mut self, port: u16) {
        self.browser = self.browser.tab_before(port);
    }

    #[track_caller]
    fn log_out(mut self) {
        let page = self.browser.get(self.pages.logout).expect_status(200);
        if let Some(backend) = page.value("backend") {
            assert_eq!(backend, self.home);
        }
    }
}

/// Where so many new users come to; they log out again.
fn newcomers(port: u16, pages: Pages, count: usize) -> Vec<String> {
    let homes = (0..count).map(|_| {
        let user = User::new(port, pages);
        let home = user.home.clone();
        user.log_out();
        home
    });
    homes.collect()
}

/// Waits for who may enter these backends of the shop, written `release/name`.
fn wait_for_admission(tidegate: &Tidegate, backends: &[&str], admission: &str) {
    for backend in backends {
        let (release, name) = backend.split_once('/').expect("release/name");
        tidegate.wait_for_backend("shop", release, name, "admission", admission);
    }
}

/// A command that waits for a drain goes on while these are there, and ends with 0 when they have left.
fn ends_when_they_leave(command: &mut Process, mut staying: Vec<User>, others: &mut [User]) {
    for user in &mut staying {
        user.click();
        user.click();
    }
    assert_eq!(command.ended(), None, "somebody is there\n{}", command.log_tail());
    for user in staying {
        user.log_out();
    }
    wait_for("it is drained", DRAINS, || {
        others.iter_mut().for_each(User::click);
        command.ended().is_some()
    });
    assert_eq!(command.ended().and_then(|status| status.code()), Some(0), "{}", command.log_tail());
}

#[test]
fn each_file_in_conf_has_a_story() {
    let stories = [
        include_str!("examples/cookies.rs"),
        include_str!("examples/peers.rs"),
        include_str!("examples/proxies.rs"),
        include_str!("examples/tomcats.rs"),
    ]
    .concat();
    let files = std::fs::read_dir(folder()).expect("conf/ is there").map(|entry| entry.expect("an entry").file_name());
    let files: Vec<String> = files.map(|name| name.into_string().expect("a name")).filter(|name| name.ends_with(".yaml")).collect();
    assert!(files.len() > 10, "examples were found: {files:?}");
    for file in files {
        assert!(stories.contains(&format!("Example::of(\"{file}\")")), "conf/{file} has no story in tests/it/examples/");
    }
}
