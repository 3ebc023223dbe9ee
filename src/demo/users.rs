//! The simulated users: they arrive at a steady rate, log in, click, and log out or just leave.
//!
//! Each one keeps in mind what it must see next. A user who sees anything else while logged in is *disturbed*: another counter,
//! another release, no page at all. A new session after the own one has timed out is what the application promises, and disturbs nobody.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, sleep};

use super::browser::{Browser, Trouble};
use super::pace::Pace;
use super::page::Page;
use crate::model::balance::mix;

/// How many of ten people end their visit in which manner.
const LEAVERS_OF_TEN: u64 = 3;
const RETURNERS_OF_TEN: u64 = 1;
const LOYAL_OF_TEN: u64 = 2;
/// Clients that never keep a cookie.
const CRAWLERS: u64 = 2;
/// Disturbed users whose story is kept for the report; more would only scroll.
const STORIES: usize = 5;

/// Everybody who uses the shop, as far as the screen wants to know.
#[derive(Default)]
pub(super) struct Crowd {
    present: AtomicU64,
    arrived: AtomicU64,
    logged_out: AtomicU64,
    left: AtomicU64,
    returned: AtomicU64,
    crawled: AtomicU64,
    clicks: AtomicU64,
    disturbed: AtomicU64,
    stories: Mutex<Vec<String>>,
    deployed: AtomicBool,
    newcomers: Mutex<BTreeMap<String, u64>>,
}

/// The crowd at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Census {
    /// People who are in the middle of a visit.
    pub present: u64,
    /// People who ever came.
    pub arrived: u64,
    /// Visits that ended with a logout.
    pub logged_out: u64,
    /// Visits that ended without a word.
    pub left: u64,
    /// People who came back after their session had timed out.
    pub returned: u64,
    /// Pages fetched by crawlers.
    pub crawled: u64,
    /// Requests of people that were answered as they should be.
    pub clicks: u64,
    /// People who saw what they should not have seen.
    pub disturbed: u64,
    /// What the first of them saw.
    pub stories: Vec<String>,
    /// People whose first request came after the promotion, by the release that answered.
    pub newcomers: BTreeMap<String, u64>,
}

impl Crowd {
    /// The figures of this moment.
    pub fn census(&self) -> Census {
        Census {
            present: self.present.load(Relaxed),
            arrived: self.arrived.load(Relaxed),
            logged_out: self.logged_out.load(Relaxed),
            left: self.left.load(Relaxed),
            returned: self.returned.load(Relaxed),
            crawled: self.crawled.load(Relaxed),
            clicks: self.clicks.load(Relaxed),
            disturbed: self.disturbed.load(Relaxed),
            stories: locked(&self.stories).clone(),
            newcomers: locked(&self.newcomers).clone(),
        }
    }

    /// From now on whoever comes is a newcomer of the new release.
    pub fn deployed(&self) {
        self.deployed.store(true, Relaxed);
    }

    fn disturbed(&self, user: &str, story: &str) {
        self.disturbed.fetch_add(1, Relaxed);
        let mut stories = locked(&self.stories);
        if stories.len() < STORIES {
            stories.push(format!("{user}: {story}"));
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets people and crawlers come for as long as the runtime lives.
pub(super) async fn arrive(crowd: Arc<Crowd>, address: SocketAddr, pace: Arc<Pace>) {
    for number in 0..CRAWLERS {
        let (crowd, pace) = (Arc::clone(&crowd), Arc::clone(&pace));
        tokio::spawn(async move {
            // Out of step with each other.
            sleep(pace.crawl / 2 * u32::try_from(number).unwrap_or(0)).await;
            crawl(crowd, address, pace).await;
        });
    }
    let mut door = interval(pace.arrival);
    door.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 1.. {
        door.tick().await;
        tokio::spawn(User::new(number, Arc::clone(&crowd), address, Arc::clone(&pace)).visit());
    }
}

/// A new visitor with each request.
async fn crawl(crowd: Arc<Crowd>, address: SocketAddr, pace: Arc<Pace>) {
    loop {
        if Browser::new(address).look().await.is_ok() {
            crowd.crawled.fetch_add(1, Relaxed);
        }
        sleep(pace.crawl).await;
    }
}

/// How a visit ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    LogsOut,
    Leaves,
    /// Leaves, and comes back after the session has timed out, with the old cookies.
    Returns,
}

struct User {
    name: String,
    browser: Browser,
    dice: Dice,
    manner: Manner,
    clicks: u64,
    crowd: Arc<Crowd>,
    pace: Arc<Pace>,
}

impl User {
    fn new(number: u64, crowd: Arc<Crowd>, address: SocketAddr, pace: Arc<Pace>) -> User {
        // The number is the seed: the same people with the same habits come in every demo.
        let mut dice = Dice(number);
        let roll = dice.between(0, 9);
        let loyal = roll >= 10 - LOYAL_OF_TEN;
        let manner = match roll {
            r if r < LEAVERS_OF_TEN => Manner::Leaves,
            r if r < LEAVERS_OF_TEN + RETURNERS_OF_TEN => Manner::Returns,
            _ => Manner::LogsOut,
        };
        let (fewest, most) = if loyal { pace.many_clicks } else { pace.clicks };
        let clicks = dice.between(fewest, most);
        User { name: format!("user {number}"), browser: Browser::new(address), dice, manner, clicks, crowd, pace }
    }

    async fn visit(mut self) {
        self.crowd.arrived.fetch_add(1, Relaxed);
        if !self.stay(true).await {
            return;
        }
        if self.manner == Manner::LogsOut {
            self.crowd.logged_out.fetch_add(1, Relaxed);
            return;
        }
        self.crowd.left.fetch_add(1, Relaxed);
        if self.manner == Manner::Returns {
            // A little more than the timeout: on the second nobody could say which page is right.
            sleep(self.pace.idle_timeout + self.pace.idle_timeout / 8).await;
            self.crowd.returned.fetch_add(1, Relaxed);
            self.manner = Manner::LogsOut;
            if self.stay(false).await {
                self.crowd.logged_out.fetch_add(1, Relaxed);
            }
        }
    }

    /// From the first page to the last; false when something was wrong.
    async fn stay(&mut self, newcomer: bool) -> bool {
        self.crowd.present.fetch_add(1, Relaxed);
        let ended = self.session(newcomer).await;
        self.crowd.present.fetch_sub(1, Relaxed);
        if let Err(story) = &ended {
            self.crowd.disturbed(&self.name, story);
        }
        ended.is_ok()
    }

    async fn session(&mut self, newcomer: bool) -> Result<(), String> {
        let after_the_deploy = newcomer && self.crowd.deployed.load(Relaxed);
        let first = self.browser.look().await.map_err(|trouble| trouble.to_string())?;
        if after_the_deploy {
            *locked(&self.crowd.newcomers).entry(first.release.clone()).or_default() += 1;
        }
        // Whatever came before: a first page shows a fresh session.
        let mut expected = Page { user: None, counter: 0, ..first.clone() };
        check(&expected, Ok(first))?;
        self.think().await;
        expected.user = Some(self.name.clone());
        let page = self.browser.send("/login", format!("name={}", self.name.replace(' ', "+"))).await;
        self.saw(&expected, page)?;
        for _ in 0..self.clicks {
            self.think().await;
            // People also look without clicking.
            let page = if self.dice.between(0, 3) == 0 {
                self.browser.look().await
            } else {
                expected.counter += 1;
                self.browser.send("/click", String::new()).await
            };
            self.saw(&expected, page)?;
        }
        if self.manner == Manner::LogsOut {
            self.think().await;
            expected = Page { user: None, counter: 0, ..expected };
            let page = self.browser.send("/logout", String::new()).await;
            self.saw(&expected, page)?;
        }
        Ok(())
    }

    fn saw(&self, expected: &Page, page: Result<Page, Trouble>) -> Result<(), String> {
        check(expected, page)?;
        self.crowd.clicks.fetch_add(1, Relaxed);
        Ok(())
    }

    async fn think(&mut self) {
        let (shortest, longest) = self.pace.think;
        let spread = u64::try_from((longest - shortest).as_millis()).unwrap_or(0);
        sleep(shortest + Duration::from_millis(self.dice.between(0, spread))).await;
    }
}

/// Whether a user sees what it must see; the error is its story.
fn check(expected: &Page, page: Result<Page, Trouble>) -> Result<(), String> {
    let seen = page.map_err(|trouble| trouble.to_string())?;
    if seen == *expected {
        return Ok(());
    }
    let told = |page: &Page| {
        let user = page.user.as_deref().unwrap_or("nobody");
        format!("{} clicks as {user} on {}/{}", page.counter, page.release, page.backend)
    };
    Err(format!("saw {} in place of {}", told(&seen), told(expected)))
}

/// Chance that can be repeated.
struct Dice(u64);

impl Dice {
    /// A number from `low` to `high`, both included.
    fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        low + mix(self.0) % (high.saturating_sub(low) + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::super::app;
    use super::*;

    #[test]
    fn anything_but_the_own_next_page_is_a_disturbance() {
        let page = |release: &str, backend: &str, user: Option<&str>, counter| Page {
            release: release.to_owned(),
            backend: backend.to_owned(),
            user: user.map(str::to_owned),
            counter,
        };
        let expected = page("v1", "a1", Some("ada"), 7);
        let agree = |seen: Result<Page, Trouble>, undisturbed: bool| {
            let told = format!("{seen:?}");
            assert_eq!(check(&expected, seen).is_ok(), undisturbed, "{told}");
        };
        agree(Ok(expected.clone()), true);
        agree(Ok(page("v1", "a1", Some("ada"), 6)), false);
        agree(Ok(page("v1", "a1", Some("ada"), 0)), false);
        agree(Ok(page("v2", "b1", Some("ada"), 7)), false);
        agree(Ok(page("v1", "a2", Some("ada"), 7)), false);
        agree(Ok(page("v1", "a1", None, 7)), false);
        agree(Ok(page("v1", "a1", Some("eve"), 7)), false);
        agree(Err(Trouble::Status(503)), false);
        agree(Err(Trouble::Silence), false);
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    /// Against the app alone, without anything before it.
    async fn one_visit(idle_timeout: Duration) -> Census {
        let app = app::start("v1", "a1", idle_timeout).await.unwrap();
        let crowd = Arc::new(Crowd::default());
        let user = User::new(1, Arc::clone(&crowd), app.address(), Arc::new(Pace::hurried()));
        user.visit().await;
        crowd.census()
    }

    #[test]
    fn a_user_whose_session_stays_is_content() {
        let census = runtime().block_on(one_visit(Duration::from_secs(60)));
        assert_eq!((census.arrived, census.present, census.disturbed), (1, 0, 0), "{census:?}");
        assert_eq!(census.logged_out + census.left, 1);
    }

    #[test]
    fn a_user_whose_session_is_lost_is_disturbed() {
        let census = runtime().block_on(one_visit(Duration::ZERO));
        assert_eq!((census.present, census.disturbed), (0, 1), "{census:?}");
        assert!(census.stories[0].contains("in place of"), "{census:?}");
    }

    #[test]
    fn all_manners_of_leaving_occur() {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let pace = Arc::new(Pace::minute());
        let users = (1..=60).map(|n| User::new(n, Arc::default(), address, Arc::clone(&pace)));
        let manners: Vec<Manner> = users.map(|user| user.manner).collect();
        for manner in [Manner::LogsOut, Manner::Leaves, Manner::Returns] {
            assert!(manners.contains(&manner), "{manner:?}");
        }
    }
}
