//! While both processes serve: sessions, drains, orders, and the state file.

use std::time::Duration;

use rustix::process::Signal;

use super::{is_gone, owner, signal, upgrade, wait_until_quiet};
use crate::client::{Browser, Call};
use crate::process::{delay, wait_for, wait_until_equal};
use crate::scenarios::{each_pin, of_pins, user_on};
use crate::shop::{Shop, backend};
use crate::tidegate::{SOON, Tidegate};

const GRACE: &str = "server: {grace_period: 60s, threads: 2}";

fn start(shop: &Shop, backends: &[(&str, &str)]) -> Tidegate {
    let tidegate = Tidegate::start_replaceable(&shop.yaml());
    for (release, name) in backends {
        tidegate.wait_for_backend("shop", release, name, "health", "up");
    }
    tidegate
}

#[test]
fn a_session_born_in_the_old_process_is_known_to_the_new_one_at_once() {
    of_pins(&["cookie", "learn"], |pin| {
        let (a1, a2) = (backend("v1", "a1"), backend("v1", "a2"));
        let tidegate = start(&Shop::new(pin).process(GRACE).release("v1", &[&a1, &a2]), &[("v1", "a1"), ("v1", "a2")]);
        let old = owner(&tidegate);
        let born_late: Vec<_> = (0..20)
            .map(|_| {
                let mut user = tidegate.browser();
                std::thread::spawn(move || {
                    let page = user.get("/page?ms=6000").expect_status(200);
                    // As fast as a browser that follows a redirect.
                    let next = user.get("/page");
                    (page, next)
                })
            })
            .collect();
        wait_until_equal("all are under way", SOON, &20, || a1.requests_to("/page").len() + a2.requests_to("/page").len());
        upgrade(&tidegate);
        for user in born_late {
            assert!(!is_gone(old) || user.is_finished(), "{pin}: it waits for them");
            let (page, next) = user.join().unwrap();
            assert_eq!(next.word("session"), "known", "{pin}");
            assert_eq!((next.word("backend"), next.number("counter")), (page.word("backend"), 2), "{pin}");
        }
        tidegate.wait_for_sessions("shop", "v1", 20, 0);
        wait_for("the old one is gone", SOON, || is_gone(old));
        tidegate.wait_for_sessions("shop", "v1", 20, 0);
    });
}

#[test]
fn a_drain_goes_on_and_is_not_over_before_the_old_process_has_left_the_backend() {
    each_pin(|pin| {
        let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
        // Its count is believed after one idle timeout.
        let shop = Shop::new(pin).process(GRACE).session("idle_timeout: 30s").release("v1", &[&a1]).release("v2", &[&b1]);
        let tidegate = start(&shop, &[("v1", "a1"), ("v2", "b1")]);
        let (mut first, mut second, mut held) = (user_on(&tidegate, "a1"), user_on(&tidegate, "a1"), user_on(&tidegate, "a1"));
        let mut tunnel = held.websocket("/echo");
        tidegate.cli(&["promote", "shop", "v2"]).expect_code(0);
        let before = tidegate.drain("shop/v1");
        assert_eq!((&before["initial"], &before["remaining"]), (&3.into(), &3.into()), "{pin}");
        first.get("/logout");
        wait_until_equal("one left", SOON, &serde_json::json!(1), || tidegate.drain("shop/v1")["ended"]["logout"].clone());
        let old = owner(&tidegate);
        upgrade(&tidegate);
        wait_until_quiet(&tidegate);
        let after = tidegate.drain("shop/v1");
        for same in ["id", "initial", "started", "owner"] {
            assert_eq!(after[same], before[same], "{pin}: {same}");
        }
        assert_eq!((&after["remaining"], &after["ended"]["logout"]), (&2.into(), &1.into()), "{pin}");
        second.get("/logout");
        held.get("/logout");
        // Only its WebSocket is left, in the old process.
        let logouts = || tidegate.drain("shop/v1")["ended"]["logout"].clone();
        wait_until_equal("all logged out", SOON, &serde_json::json!(3), logouts);
        wait_for("the count is believed", Duration::from_secs(60), || tidegate.drain("shop/v1")["confident"] == true);
        delay(Duration::from_secs(2));
        assert!(tidegate.drain("shop/v1")["verdict"].is_null(), "{pin}: {}", tidegate.drain("shop/v1"));
        assert!(!is_gone(old), "{pin}");
        tunnel.send_close().unwrap();
        tidegate.wait_for_state("shop", "v1", "drained");
        assert_eq!(tidegate.cli(&["wait", before["id"].as_str().unwrap()]).code, 0, "{pin}");
        wait_for("the old one is gone", SOON, || is_gone(old));
    });
}

/// The new process takes its time.
fn slow_down(tidegate: &Tidegate, seconds: u32) {
    let script = format!("#!/bin/sh\nsleep {seconds}\nexec {} \"$@\"\n", crate::tidegate::binary().display());
    super::failures::put(tidegate, &script);
}

#[test]
fn orders_are_refused_plainly_during_the_hand_over_and_taken_afterwards() {
    let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
    let tidegate = start(&Shop::new("cookie").release("v1", &[&a1]).release("v2", &[&b1]), &[("v1", "a1"), ("v2", "b1")]);
    let old = owner(&tidegate);
    slow_down(&tidegate, 3);
    let mut upgrading = tidegate.cli_in_background("upgrade", &["upgrade"]);
    wait_for("it has begun", SOON, || tidegate.read("tidegate.log").contains("upgrade: starting"));
    let refused = tidegate.cli(&["promote", "shop", "v2"]).expect_code(1);
    assert!(refused.stderr.contains("an upgrade is under way; nothing was changed: try again in a few seconds"), "{}", refused.stderr);
    let twice = tidegate.cli(&["upgrade"]).expect_code(1);
    assert!(twice.stderr.contains("an upgrade is under way already"), "{}", twice.stderr);
    tidegate.cli(&["status"]).expect_code(0);
    assert_eq!(owner(&tidegate), old);
    assert_eq!(upgrading.wait(SOON).code(), Some(0));
    tidegate.cli(&["status"]).expect_code(0);
    wait_until_quiet(&tidegate);
    tidegate.cli(&["promote", "shop", "v2"]).expect_code(0);
    let events = tidegate.cli(&["events"]).expect_code(0).stdout;
    let version = env!("CARGO_PKG_VERSION");
    assert!(events.contains(&format!("upgraded from {version} to {version}; process {} serves", owner(&tidegate))), "{events}");
    assert!(tidegate.metrics().has("tidegate_build_info"));
    wait_for("the old one is gone", SOON, || is_gone(old));
    let after = tidegate.admin_get("/api/v1/status");
    assert_eq!(after["apps"]["shop"]["current"], "v2");
}

#[test]
fn who_is_told_to_stop_during_a_hand_over_stops_and_leaves_no_successor() {
    let a1 = backend("v1", "a1");
    let mut tidegate = start(&Shop::new("cookie").release("v1", &[&a1]), &[("v1", "a1")]);
    slow_down(&tidegate, 5);
    tidegate.signal(Signal::USR2);
    wait_for("it has begun", SOON, || tidegate.read("tidegate.log").contains("upgrade: starting"));
    assert!(tidegate.stop().success());
    assert!(tidegate.read("tidegate.log").contains("upgrade failed: this process is stopping"));
    assert!(Browser::new(tidegate.port()).send(Call::get("/")).is_err(), "nobody accepts");
    tidegate.start_again();
}

#[test]
fn nothing_is_lost_when_the_new_process_crashes_right_after() {
    each_pin(|pin| {
        let (a1, a2) = (backend("v1", "a1"), backend("v1", "a2"));
        let mut tidegate = start(&Shop::new(pin).process(GRACE).release("v1", &[&a1, &a2]), &[("v1", "a1"), ("v1", "a2")]);
        let mut users: Vec<Browser> = (0..30).map(|_| tidegate.browser()).collect();
        let mut homes: Vec<String> = users.iter_mut().map(|user| user.get("/").word("backend")).collect();
        users.iter_mut().for_each(|user| assert_eq!(user.get("/").number("counter"), 2));
        let old = owner(&tidegate);
        let (new, _) = upgrade(&tidegate);
        for _ in 0..10 {
            let mut user = tidegate.browser();
            homes.push(user.get("/").word("backend"));
            assert_eq!(user.get("/").number("counter"), 2);
            users.push(user);
        }
        // What the last tenth of a second brought may be lost, and that alone.
        delay(Duration::from_millis(500));
        signal(new, Signal::KILL);
        wait_for("both are gone", SOON, || is_gone(new) && is_gone(old));
        assert_eq!(tidegate.wait_for_end().code(), Some(0), "{pin}: the old one had ended in order");
        tidegate.start_again();
        for (user, home) in users.iter_mut().zip(&homes) {
            user.disconnect();
            let page = user.get("/");
            assert_eq!((&page.word("backend"), page.number("counter")), (home, 3), "{pin}");
        }
        tidegate.wait_for_sessions("shop", "v1", 40, 0);
    });
}
