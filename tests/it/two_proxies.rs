//! A pair of proxies, as keepalived makes it: the same keys, nothing shared, and users who are now before one and now before the other.
//!
//! `pin: learn` is not here: its pins live in one ledger alone, and a second proxy knows them only through a shared store.

use crate::client::Browser;
use crate::fate::{Fate, Kind, Plan};
use crate::origin::Origin;
use crate::process::{Scratch, wait_until_equal};
use crate::shop::{Shop, backend};
use crate::tidegate::SOON;

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
