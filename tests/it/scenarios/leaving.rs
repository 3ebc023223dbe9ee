//! Who leaves a draining release, when, and with which cookie; and who must not.

use crate::scenarios::{cookie_received, each_pin, keep_clicking_until_v1_has, user_on};
use crate::shop::{Shop, backend};

#[test]
fn an_idle_session_on_a_draining_backend_goes_to_the_current_release_without_its_dead_cookie() {
    each_pin(|pin| {
        let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
        let tidegate = Shop::new(pin).session("idle_timeout: 4s").release("v1", &[&a1]).release("v2", &[&b1]).start();
        let mut keeper = user_on(&tidegate, "a1");
        let mut user = user_on(&tidegate, "a1");
        tidegate.cli(&["promote", "shop", "v2"]).expect_code(0);
        assert_eq!(user.get("/").number("counter"), 3, "{pin}: known sessions stay");
        keep_clicking_until_v1_has(&tidegate, &mut keeper, 1);
        a1.clear_requests();
        let moved = user.get("/").expect_status(200);
        assert_eq!((moved.word("release").as_str(), moved.number("counter")), ("v2", 1), "{pin}");
        assert_eq!(cookie_received(&b1, "/"), "", "{pin}: neither the dead cookie nor our own");
        let again = user.get("/");
        assert_eq!((again.word("release").as_str(), again.number("counter")), ("v2", 2), "{pin}");
        assert!(a1.requests().is_empty(), "{pin}: the old backend saw the user again");
        assert_eq!(keeper.get("/").word("release"), "v1");
    });
}

#[test]
fn an_idle_session_on_a_serving_backend_stays_with_its_cookie() {
    each_pin(|pin| {
        let (a1, a2) = (backend("v1", "a1"), backend("v1", "a2"));
        let tidegate = Shop::new(pin).session("idle_timeout: 1s").release("v1", &[&a1, &a2]).start();
        for home in ["a1", "a2"] {
            let mut user = user_on(&tidegate, home);
            tidegate.wait_for_sessions("shop", "v1", 0, 0);
            let back = user.get("/");
            let seen = (back.word("backend"), back.number("counter"));
            assert_eq!(seen, (home.to_owned(), 3), "{pin}: the application still knew it");
            tidegate.wait_for_sessions("shop", "v1", 1, 0);
            user.get("/logout");
        }
    });
}

#[test]
fn a_login_after_a_long_silence_stays_where_the_release_serves() {
    each_pin(|pin| {
        let (a1, a2) = (backend("v1", "a1"), backend("v1", "a2"));
        let tidegate = Shop::new(pin).session("idle_timeout: 1s").release("v1", &[&a1, &a2]).start();
        for home in ["a1", "a2"] {
            let mut user = user_on(&tidegate, home);
            tidegate.wait_for_sessions("shop", "v1", 0, 0);
            let login = user.post("/login", "name=x");
            let seen = (login.word("backend"), login.number("counter"));
            assert_eq!(seen, (home.to_owned(), 2), "{pin}: the basket is kept");
            let after = user.get("/");
            let seen = (after.word("backend"), after.number("counter"));
            assert_eq!(seen, (home.to_owned(), 3), "{pin}");
            tidegate.wait_for_sessions("shop", "v1", 1, 0);
            user.get("/logout");
        }
    });
}

#[test]
fn a_login_after_a_long_silence_goes_to_the_current_release_where_the_old_one_drains() {
    each_pin(|pin| {
        let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
        let tidegate = Shop::new(pin).session("idle_timeout: 4s").release("v1", &[&a1]).release("v2", &[&b1]).start();
        let mut keeper = user_on(&tidegate, "a1");
        let mut user = user_on(&tidegate, "a1");
        tidegate.cli(&["promote", "shop", "v2"]).expect_code(0);
        keep_clicking_until_v1_has(&tidegate, &mut keeper, 1);
        let login = user.post("/login", "name=x").expect_status(200);
        assert_eq!(login.word("release"), "v2", "{pin}");
        assert_eq!(cookie_received(&b1, "/login"), "", "{pin}");
        assert_eq!(user.get("/").word("session"), "known", "{pin}");
        tidegate.wait_for_sessions("shop", "v2", 1, 0);
    });
}

#[test]
fn a_release_is_drained_when_its_last_session_ends_and_admits_nobody_then() {
    each_pin(|pin| {
        let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
        let tidegate = Shop::new(pin).session("idle_timeout: 4s").release("v1", &[&a1]).release("v2", &[&b1]).start();
        let mut user = user_on(&tidegate, "a1");
        tidegate.cli(&["promote", "shop", "v2"]).expect_code(0);
        assert_eq!(tidegate.backend("shop", "v1", "a1", "admission"), "known_sessions");
        assert_eq!(user.get("/").word("release"), "v1", "{pin}");
        let old_cookies: Vec<String> = user.cookies().iter().map(|c| format!("{}={}", c.name, c.value)).collect();
        user.get("/logout");
        tidegate.wait_for_state("shop", "v1", "drained");
        assert_eq!(tidegate.backend("shop", "v1", "a1", "admission"), "nobody");
        a1.clear_requests();
        let call = crate::client::Call::get("/").cookie(&old_cookies.join("; "));
        assert_eq!(user.send_or_panic(call).word("release"), "v2", "{pin}");
        assert!(a1.requests().is_empty(), "{pin}: a fenced backend was asked");
    });
}
