//! A pair of proxies, as keepalived makes it: the same keys, nothing shared, and users who are now before one and now before the other.
//!
//! `pin: learn` is not here: its pins live in one ledger alone, and a second proxy knows them only through a shared store.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::Browser;
use crate::fate::{Fate, Kind, Plan};
use crate::origin::Origin;
use crate::process::{Scratch, delay, wait_for, wait_until_equal};
use crate::scenarios::of_pins;
use crate::shop::{Shop, backend};
use crate::tidegate::{SOON, Tidegate};

/// The ways to carry a pin that two proxies can share.
const CARRIED: [&str; 3] = ["cookie", "route", "prefix"];

const OLD_KEY: &str = "an old key of more than thirty-two bytes\n";
const NEW_KEY: &str = "a new key of more than thirty-two bytes too\n";

/// Key files as both proxies have them.
fn keys() -> Scratch {
    let keys = Scratch::new("keys");
    keys.write("old", OLD_KEY);
    keys.write("new", NEW_KEY);
    keys
}

/// The line of the configuration that names these of them, first the one that signs.
fn key_line(keys: &Scratch, names: &[&str]) -> String {
    let folder = keys.path().display();
    let named: Vec<String> = names.iter().map(|name| format!("{{id: {name}, file: \"{folder}/{name}\"}}")).collect();
    format!("keys: [{}]", named.join(", "))
}

fn shop(pin: &str, keys: &str, v1: &[&Origin], v2: &[&Origin]) -> Shop {
    let shop = Shop::new(pin).session(keys).release("v1", v1);
    if v2.is_empty() { shop } else { shop.release("v2", v2) }
}

fn mixed() -> Plan {
    Plan { users: 3, ..Plan::mixed() }
}

#[test]
fn users_who_change_the_proxy_with_every_request_keep_their_session() {
    let keys = keys();
    for pin in CARRIED {
        let (a1, a2) = (backend("v1", "a1"), backend("v1", "a2"));
        let shop = shop(pin, &key_line(&keys, &["old"]), &[&a1, &a2], &[]);
        let (first, second) = (shop.start(), shop.start());
        let load = Fate::across(&[first.port(), second.port()], mixed());
        load.go_on_for(500);
        let report = load.stop();
        report.assert_clean();
        assert_eq!(report.duplicates(&[&a1, &a2]), Vec::<String>::new(), "{pin}");
        // Each counts the people that it saw: 10 tasks with 3 users; the 5 with a WebSocket never left the first one.
        for (proxy, people) in [(&first, 35), (&second, 30)] {
            wait_until_equal(&format!("{pin}: all are known"), SOON, &people, || proxy.sessions("shop", "v1").live);
        }
    }
}

#[test]
fn after_a_failover_to_a_cold_proxy_nobody_moves() {
    let keys = keys();
    for pin in CARRIED {
        let (a1, a2) = (backend("v1", "a1"), backend("v1", "a2"));
        let shop = shop(pin, &key_line(&keys, &["old"]), &[&a1, &a2], &[]);
        let (mut first, second) = (shop.start(), shop.start());
        let load = Fate::start(first.port(), mixed());
        load.go_on_for(200);
        first.kill();
        load.move_to(&[second.port()]);
        load.go_on_for(200);
        let report = load.stop();
        // What was under way when it died is lost, and told so; no session is.
        let moved = |kind| matches!(kind, Kind::NewSession | Kind::Moved | Kind::WrongValue | Kind::Status(_));
        assert_eq!(report.count(moved), 0, "{pin}: {report}");
        assert_eq!(second.sessions("shop", "v1").live, 35, "{pin}");
    }
}

#[test]
fn keys_can_be_changed_on_one_proxy_after_the_other() {
    let keys = keys();
    let (a1, a2) = (backend("v1", "a1"), backend("v1", "a2"));
    let shop = |names: &[&str]| shop("cookie", &key_line(&keys, names), &[&a1, &a2], &[]);
    let mut pair = [shop(&["old"]).start(), shop(&["old"]).start()];
    // No WebSocket: one would be cut with its proxy.
    let load = Fate::across(&[pair[0].port(), pair[1].port()], Plan { websockets: 0, ..mixed() });
    // First all learn the new key, then all sign with it, then all forget the old one. In between the two differ, and users go to both.
    for names in [["old", "new"].as_slice(), &["new", "old"], &["new"]] {
        for (at, other) in [(0, 1), (1, 0)] {
            load.go_on_for(150);
            load.move_to(&[pair[other].port()]);
            load.go_on_for(150);
            let proxy = &mut pair[at];
            proxy.stop();
            proxy.write_config(&shop(names).yaml());
            proxy.start_again();
            load.move_to(&[pair[0].port(), pair[1].port()]);
        }
    }
    load.go_on_for(300);
    load.stop().assert_clean();
}

#[test]
fn a_drain_on_both_moves_nobody_and_is_over_when_both_say_so() {
    let keys = keys();
    for pin in CARRIED {
        let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
        let shop = shop(pin, &key_line(&keys, &["old"]), &[&a1], &[&b1]).session("idle_timeout: 3s").session("engaged_within: 3s");
        let (first, second) = (shop.start(), shop.start());
        let load = Fate::across(&[first.port(), second.port()], mixed());
        load.go_on_for(200);
        let promoted = first.cli_with(&second, &["promote", "shop", "v2"]);
        promoted.expect_code(0);
        for proxy in [&first, &second] {
            proxy.wait_for_state("shop", "v1", "draining");
            assert_eq!(Browser::new(proxy.port()).get("/").word("release"), "v2", "{pin}: who is new");
        }
        load.go_on_for(400);
        for proxy in [&first, &second] {
            assert_eq!(proxy.release_state("shop", "v1"), "draining", "{pin}");
        }
        load.stop().assert_clean();
        assert!(b1.live_sessions().len() == 2, "{pin}: nobody but the two new ones went there");
        first.cli_with(&second, &["wait", "shop/v1"]).expect_code(0);
        for proxy in [&first, &second] {
            assert_eq!(proxy.release_state("shop", "v1"), "drained", "{pin}");
        }
    }
}

/// Two proxies before v1 and v2, of which v1 drains, with this idle timeout.
fn draining_pair(keys: &Scratch, a1: &Origin, b1: &Origin, idle_timeout: &str) -> (Tidegate, Tidegate) {
    let shop = shop("cookie", &key_line(keys, &["old"]), &[a1], &[b1]);
    let shop = shop.session(&format!("idle_timeout: {idle_timeout}")).session(&format!("engaged_within: {idle_timeout}"));
    (shop.start(), shop.start())
}

#[test]
fn who_was_before_the_other_proxy_is_not_idle_here() {
    let keys = keys();
    let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
    let (first, second) = draining_pair(&keys, &a1, &b1, "3s");
    let mut moving = first.browser();
    let mut staying = second.browser();
    // Both are known on both.
    for _ in 0..2 {
        moving.get("/").expect_status(200);
        moving.tab_before(second.port()).get("/").expect_status(200);
        staying.get("/").expect_status(200);
    }
    first.cli_with(&second, &["promote", "shop", "v2"]).expect_code(0);
    let begun = Instant::now();
    // For twice the timeout one is before the first alone; the other keeps the second's drain from its end.
    while begun.elapsed() < Duration::from_secs(6) {
        for browser in [&mut moving, &mut staying] {
            assert_eq!(browser.get("/").word("session"), "known");
        }
        delay(Duration::from_millis(100));
    }
    wait_until_equal("the second has ended it", SOON, &1, || second.sessions("shop", "v1").live);
    let answer = moving.tab_before(second.port()).get("/");
    assert_eq!((answer.word("release"), answer.word("session")), ("v1".to_owned(), "known".to_owned()));
    assert_eq!(second.sessions("shop", "v1").live, 2, "and is counted again");
}

/// Why its drain of v1 is not sure.
fn doubt(proxy: &Tidegate) -> String {
    proxy.drain("shop/v1")["confidence"].as_str().unwrap_or_default().to_owned()
}

const NOBODY: &str = "nobody has come by since the drain began: this proxy may be a standby";

#[test]
fn a_failover_to_a_standby_during_a_drain_moves_nobody() {
    let keys = keys();
    of_pins(&CARRIED, |pin| {
        let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
        let shop = shop(pin, &key_line(&keys, &["old"]), &[&a1], &[&b1]).session("idle_timeout: 5s").session("engaged_within: 5s");
        let (mut first, second) = (shop.start(), shop.start());
        // Nobody with a WebSocket alone: whose pin is as old as that looks idle to a proxy that has not seen the WebSocket.
        let load = Fate::start(first.port(), Plan { websockets: 0, ..mixed() });
        load.go_on_for(200);
        first.cli_with(&second, &["promote", "shop", "v2"]).expect_code(0);
        // Longer than the standby's ledger would have to be old.
        wait_until_equal(&format!("{pin}: it is in doubt for nothing else"), SOON, &NOBODY.to_owned(), || doubt(&second));
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(6) {
            load.go_on_for(50);
        }
        assert_eq!((second.release_state("shop", "v1").as_str(), doubt(&second).as_str()), ("draining", NOBODY), "{pin}");
        first.kill();
        load.move_to(&[second.port()]);
        load.go_on_for(400);
        let report = load.stop();
        let moved = |kind| matches!(kind, Kind::NewSession | Kind::Moved | Kind::WrongValue | Kind::Status(_));
        assert_eq!(report.count(moved), 0, "{pin}: {report}");
        assert!(b1.live_sessions().is_empty(), "{pin}: nobody went to the new release");
        // It has watched since it was visited, and ends the drain like any other.
        second.cli(&["wait", "shop/v1", "--timeout", "60s"]).expect_code(0);
    });
}

#[test]
fn a_standby_is_not_waited_for_and_says_so() {
    let keys = keys();
    let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
    let (first, second) = draining_pair(&keys, &a1, &b1, "3s");
    let mut before = first.browser();
    before.get("/").expect_status(200);
    before.get("/").expect_status(200);
    first.cli_with(&second, &["promote", "shop", "v2"]).expect_code(0);
    before.get("/").expect_status(200);
    let waited = first.cli_with(&second, &["wait", "shop/v1", "--timeout", "60s"]).expect_code(0);
    let words = format!("proxy {} was not visited since it began", second.admin_url());
    assert!(waited.stderr.contains("is drained and fenced") && waited.stderr.contains(&words), "{}", waited.stderr);
    let alone = second.cli(&["wait", "shop/v1", "--timeout", "1s"]).expect_code(2);
    assert!(alone.stderr.contains(NOBODY), "{}", alone.stderr);
    let status = first.cli_with(&second, &["status"]);
    assert!(status.stdout.contains(&words), "{}", status.stdout);
    // One visitor, and an idle timeout in which everybody else would have come.
    assert_eq!(second.browser().get("/").word("release"), "v2");
    second.cli(&["wait", "shop/v1", "--timeout", "60s"]).expect_code(0);
}

#[test]
fn commands_speak_for_both_and_say_who_is_missing() {
    let keys = keys();
    let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
    let (first, mut second) = draining_pair(&keys, &a1, &b1, "1h");
    let load = Fate::across(&[first.port(), second.port()], Plan { keep_alive: 4, ..Plan::default() });
    load.go_on_for(40);
    load.stop().assert_clean();
    let status = first.cli_with(&second, &["status", "--json"]).expect_code(0);
    let document: Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!(document["apps"]["shop"]["releases"]["v1"]["sessions"]["live"], 8, "4 users whom both know: {document}");
    assert_eq!(document["differences"], Value::Array(Vec::new()));

    first.cli_with(&second, &["promote", "shop", "v2", "--from", "v1"]).expect_code(0);
    let waiting = first.cli_with(&second, &["wait", "shop/v1", "--timeout", "1s"]).expect_code(2);
    assert!(waiting.stderr.contains("8 sessions left") && waiting.stderr.contains("speaks for the proxies asked"), "{}", waiting.stderr);
    let mut wait = first.cli_with_in_background(&second, "wait", &["wait", "shop/v1", "--timeout", "8s"]);
    wait_for("it has looked", SOON, || first.read("wait.log").contains("8 of 8 left"));
    second.kill();
    wait_for("it says that one is gone", SOON, || first.read("wait.log").contains("nothing is over before it answers"));
    assert_eq!(wait.wait(SOON).code(), Some(2));
    assert!(first.read("wait.log").contains(&format!("NO ANSWER from {}", second.admin_url())), "{}", first.read("wait.log"));

    let half = first.cli_with(&second, &["status"]).expect_code(1);
    assert!(half.stdout.contains("NO ANSWER") && half.stdout.contains("shop: current v2"), "{}", half.stdout);
    let refused = first.cli_with(&second, &["rollback", "shop"]).expect_code(1);
    assert!(refused.stderr.contains("nothing was changed anywhere"), "{}", refused.stderr);
    assert_eq!(first.release_state("shop", "v2"), "current");
}
