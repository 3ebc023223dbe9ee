//! The backends of one release are restarted one by one, as the manual shows: nobody loses a live session, and whoever comes back
//! with a dead one stays on the release.

use std::time::Duration;

use crate::client::Browser;
use crate::origin::Origin;
use crate::process::wait_for;
use crate::scenarios::{each_pin, user_on};
use crate::shop::{Shop, backend};
use crate::tidegate::{SOON, Tidegate};

const BACKENDS: [&str; 6] = ["a1", "a2", "a3", "a4", "a5", "a6"];

/// Somebody whose session must not be lost, and how often they have clicked.
struct Busy {
    home: &'static str,
    browser: Browser,
    clicks: u64,
}

impl Busy {
    fn on(tidegate: &Tidegate, home: &'static str) -> Busy {
        Busy { home, browser: user_on(tidegate, home), clicks: 2 }
    }

    fn click(&mut self) {
        self.clicks += 1;
        let page = self.browser.get("/").expect_status(200);
        assert_eq!((page.word("backend").as_str(), page.number("counter")), (self.home, self.clicks), "a live session was lost");
    }
}

fn wait_for_admission(tidegate: &Tidegate, name: &str, admission: &str) {
    tidegate.wait_for_backend("shop", "v1", name, "admission", admission);
}

/// One turn of the manual's loop, while everybody else goes on clicking.
fn restart(tidegate: &Tidegate, origin: &mut Origin, name: &'static str, all: &mut Vec<Busy>) {
    // Silent from here on: their session dies during the drain.
    let mut quiet = user_on(tidegate, name);
    all.iter_mut().for_each(Busy::click);
    let mut drain = tidegate.cli_in_background(&format!("drain-{name}"), &["drain", &format!("shop/v1/{name}"), "--wait"]);
    wait_for_admission(tidegate, name, "known_sessions");
    let at = all.iter().position(|busy| busy.home == name).unwrap();
    let mut leaver = all.remove(at);
    for _ in 0..3 {
        leaver.click();
    }
    for _ in 0..BACKENDS.len() {
        assert_ne!(tidegate.browser().get("/").word("backend"), name, "it takes nobody new");
    }
    assert_eq!(drain.ended(), None, "two sessions are left");
    leaver.browser.get("/logout").expect_status(200);
    wait_for(&format!("{name} is drained"), Duration::from_secs(30), || {
        all.iter_mut().for_each(Busy::click);
        drain.ended().is_some()
    });
    assert_eq!(drain.ended().and_then(|status| status.code()), Some(0), "{}", drain.log_tail());

    // Before the restart: the place that was theirs is fenced, the release goes on.
    let page = quiet.get("/").expect_status(200);
    assert_eq!((page.word("release").as_str(), page.word("session").as_str()), ("v1", "new"));
    let elsewhere = page.word("backend");
    assert_ne!(elsewhere, name, "it is fenced");
    let page = quiet.get("/");
    assert_eq!((page.word("backend"), page.number("counter")), (elsewhere, 2), "one new session, and they keep it");
    quiet.get("/logout");

    origin.restart();
    assert_ne!(tidegate.browser().get("/").word("backend"), name, "drained it stays until somebody says otherwise");
    tidegate.cli(&["serve", &format!("shop/v1/{name}")]).expect_code(0);
    wait_for_admission(tidegate, name, "everyone");
    all.push(Busy::on(tidegate, name));
}

#[test]
fn six_backends_are_restarted_one_by_one_and_nobody_loses_a_live_session() {
    each_pin(|pin| {
        let mut origins: Vec<Origin> = BACKENDS.iter().map(|name| backend("v1", name)).collect();
        let six: Vec<&Origin> = origins.iter().collect();
        let tidegate = Shop::new(pin).session("idle_timeout: 3s").session("confirm_within: 1s").release("v1", &six).start();
        let mut all: Vec<Busy> = BACKENDS.iter().map(|name| Busy::on(&tidegate, name)).collect();
        for (origin, name) in origins.iter_mut().zip(BACKENDS) {
            restart(&tidegate, origin, name, &mut all);
            all.iter_mut().for_each(Busy::click);
        }
        let lost = tidegate.metrics().sum("tidegate_session_loss_total", &[]);
        assert_eq!(lost, 0.0, "{pin}");
        let drains = tidegate.admin_get("/api/v1/drains");
        assert!(drains["drains"].as_array().unwrap().iter().filter(|d| d["verdict"] == "drained").count() >= BACKENDS.len(), "{drains}");
    });
}

#[test]
fn a_user_who_was_evicted_from_a_draining_backend_goes_to_another_one_of_the_same_release() {
    each_pin(|pin| {
        let (a1, a2, b1) = (backend("v1", "a1"), backend("v1", "a2"), backend("v2", "b1"));
        // Both releases take new sessions, and v2 has nobody: a client without a past would go there.
        let shop = Shop::new(pin).app("current: by_health").session("idle_timeout: 3s");
        let tidegate = shop.release("v1", &[&a1, &a2]).release("v2", &[&b1]).start();
        let mut user = user_on(&tidegate, "a1");
        let _full: Vec<Browser> = (0..3).map(|_| user_on(&tidegate, "a2")).collect();
        tidegate.cli(&["drain", "shop/v1/a1"]).expect_code(0);
        assert_eq!(user.get("/").number("counter"), 3, "{pin}: a drain alone takes nobody's session");
        tidegate.cli(&["evict", "shop/v1/a1"]).expect_code(0);
        let page = user.get("/").expect_status(200);
        assert_eq!((page.word("backend").as_str(), page.number("counter")), ("a2", 1), "{pin}: not on v2");
        assert!(!crate::scenarios::cookie_received(&a2, "/").contains(".a1"), "{pin}: the dead cookie stays behind");
        assert_eq!(user.get("/").number("counter"), 2, "{pin}");
        wait_for("a1 is drained", SOON, || {
            user.get("/peek");
            tidegate.backend("shop", "v1", "a1", "admission") == "nobody"
        });
    });
}
