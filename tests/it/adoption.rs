//! People whose sessions are older than the ledger: counted as they return, never killed, and no drain is sure of itself before
//! one idle timeout has shown who there is.

use std::time::{Duration, Instant};

use crate::client::Browser;
use crate::process::{delay, takes_long, wait_until_equal};
use crate::scenarios::{counted, each_pin, of_pins};
use crate::shop::{Shop, backend};
use crate::tidegate::{SOON, Sessions};

/// How many, and an idle timeout in which all of them can come back on a busy machine; `TIDEGATE_LONG=1` takes more.
fn crowd() -> (usize, Duration) {
    if takes_long() { (500, Duration::from_secs(60)) } else { (80, Duration::from_secs(30)) }
}

/// Two clicks: without a signed pin, the second one makes somebody known.
fn come_back(users: &mut [Browser], clicked: u64) {
    for user in users {
        for click in 1..=2 {
            let answer = user.get("/").expect_status(200);
            assert_eq!((answer.word("release"), answer.number("counter")), ("v1".to_owned(), clicked + click));
        }
        user.disconnect();
    }
}

#[test]
fn sessions_older_than_the_ledger_are_counted_and_hold_every_verdict_for_one_idle_timeout() {
    let (count, idle) = crowd();
    each_pin(|pin| {
        let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
        let shop = Shop::new(pin).patient_probes().session(&format!("idle_timeout: {}s", idle.as_secs()));
        let mut tidegate = shop.release("v1", &[&a1]).release("v2", &[&b1]).start();
        let mut users: Vec<Browser> = (0..count).map(|_| tidegate.browser()).collect();
        for user in &mut users {
            assert_eq!(user.get("/").expect_status(200).number("counter"), 1);
            user.disconnect();
        }
        tidegate.stop();
        let began = Instant::now();
        tidegate.start_anew();
        tidegate.wait_for_backend("shop", "v1", "a1", "health", "up");
        tidegate.wait_for_backend("shop", "v2", "b1", "health", "up");
        assert_eq!(tidegate.sessions("shop", "v1"), Sessions::default());

        // In `learn` only the ledger knows where anybody belongs: they must come back before the promotion.
        let before = if pin == "learn" { count } else { count / 2 };
        let (early, late) = users.split_at_mut(before);
        come_back(early, 1);
        tidegate.wait_for_sessions("shop", "v1", before as u64, 0);
        tidegate.cli(&["promote", "shop", "v2"]).expect_code(0);
        come_back(late, 1);
        tidegate.wait_for_sessions("shop", "v1", count as u64, 0);
        assert_eq!(counted(&tidegate, "tidegate_sessions_adopted_total", &[]), count as u64, "{pin}");
        let shown = tidegate.cli(&["status"]).expect_code(0).stdout;
        assert!(shown.contains("not sure yet: seen for "), "{shown}");

        for user in &mut users {
            assert_eq!(user.get("/logout").expect_status(200).word("release"), "v1");
            user.disconnect();
        }
        tidegate.wait_for_sessions("shop", "v1", 0, 0);
        let drain = tidegate.drain("shop/v1");
        assert_eq!((&drain["initial"], &drain["remaining"]), (&before.into(), &0.into()), "{drain}");
        assert!(began.elapsed() < idle, "the machine is too slow for this test");
        assert_eq!((&drain["confident"], &drain["verdict"]), (&false.into(), &serde_json::Value::Null), "{drain}");
        assert!(drain["confidence"].as_str().is_some_and(|why| why.ends_with(&format!("of {}s", idle.as_secs()))), "{drain}");

        let id = drain["id"].as_str().expect("an id");
        tidegate.cli(&["wait", id]).expect_code(0);
        assert!(began.elapsed() >= idle, "{pin}: drained after {:?}", began.elapsed());
        assert_eq!(tidegate.release_state("shop", "v1"), "drained");
        assert_eq!(b1.live_sessions().len(), 0, "nobody was sent elsewhere");
    });
}

#[test]
fn somebody_older_than_the_ledger_who_clicks_once_is_not_killed_by_a_drain_that_could_not_count_them() {
    // Longer than the first click takes on a busy machine.
    const IDLE: Duration = Duration::from_secs(10);
    of_pins(&["route", "prefix", "learn"], |pin| {
        let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
        let shop = Shop::new(pin).session(&format!("idle_timeout: {}s", IDLE.as_secs()));
        let mut tidegate = shop.release("v1", &[&a1]).release("v2", &[&b1]).start();
        let mut user = tidegate.browser();
        user.get("/").expect_status(200);
        let began = Instant::now();
        tidegate.stop();
        tidegate.start_anew();
        tidegate.wait_for_backend("shop", "v1", "a1", "health", "up");
        tidegate.wait_for_backend("shop", "v2", "b1", "health", "up");
        delay((IDLE / 2).saturating_sub(began.elapsed()));
        assert_eq!(user.get("/").expect_status(200).word("session"), "known");
        let clicked = Instant::now();
        assert!(began.elapsed() < IDLE, "the machine is too slow for this test");
        tidegate.cli(&["promote", "shop", "v2"]).expect_code(0);
        assert_eq!(tidegate.sessions("shop", "v1"), Sessions::default(), "{pin}: one click proves nobody");
        wait_until_equal("why v1 is not sure", SOON, &"1 unknown session was seen once".to_owned(), || {
            tidegate.drain("shop/v1")["confidence"].as_str().unwrap_or_default().to_owned()
        });
        tidegate.wait_for_state("shop", "v1", "drained");
        let held = clicked.elapsed();
        assert!(
            held > IDLE - Duration::from_millis(500) && held < IDLE + Duration::from_secs(3),
            "{pin}: drained {held:?} after the click"
        );
    });
}

#[test]
fn an_application_that_sets_the_same_id_again_vouches_for_somebody_older_than_the_ledger() {
    of_pins(&["route", "prefix", "learn"], |pin| {
        let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
        let shop = Shop::new(pin).session("confirm_within: 1s");
        let mut tidegate = shop.release("v1", &[&a1]).release("v2", &[&b1]).start();
        let mut user = tidegate.browser();
        user.get("/").expect_status(200);
        let id = a1.live_sessions().pop().expect("a session");
        a1.answer("/rolling", &format!("HTTP/1.1 200 OK\r\nSet-Cookie: JSESSIONID={id}; Path=/\r\nContent-Length: 0\r\n\r\n"));
        tidegate.stop();
        tidegate.start_anew();
        tidegate.wait_for_backend("shop", "v1", "a1", "health", "up");
        user.get("/rolling").expect_status(200);
        delay(Duration::from_millis(1_500));
        assert_eq!(tidegate.sessions("shop", "v1"), Sessions { live: 1, unconfirmed: 0 }, "{pin}");
        assert_eq!(counted(&tidegate, "tidegate_sessions_adopted_total", &[]), 1, "{pin}");
        assert_eq!(user.get("/peek").word("session"), "known", "{pin}");
    });
}
