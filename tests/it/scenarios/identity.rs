//! Which session a request belongs to, when the cookies of real browsers and applications are as messy as they are.

use crate::client::Call;
use crate::process::{Scratch, wait_for};
use crate::scenarios::{cookie_received, counted, each_pin, of_pins, user_on};
use crate::shop::{Shop, backend};
use crate::tidegate::SOON;

#[test]
fn of_duplicate_cookies_the_live_one_decides() {
    each_pin(|pin| {
        let (a1, a2) = (backend("v1", "a1"), backend("v1", "a2"));
        let tidegate = Shop::new(pin).release("v1", &[&a1, &a2]).start();
        let mut user = user_on(&tidegate, "a1");
        let mut gone = user_on(&tidegate, "a2");
        let stale = gone.cookie("JSESSIONID").unwrap();
        gone.get("/logout");
        let live = user.cookie("JSESSIONID").unwrap();
        let pin_cookie = user.cookie("tidegate_shop");
        let pin_cookie = pin_cookie.map_or(String::new(), |pin| format!("; tidegate_shop={pin}"));
        let orders = [(&live, &stale), (&stale, &live), (&live, &stale), (&stale, &live)];
        for (at, (first, second)) in orders.into_iter().enumerate() {
            let cookies = format!("JSESSIONID={first}; JSESSIONID={second}{pin_cookie}");
            let answer = user.send_or_panic(Call::get("/").cookie(&cookies));
            let seen = (answer.word("backend"), answer.number("counter"));
            assert_eq!(seen, ("a1".to_owned(), 3 + at as u64), "{pin}: {cookies}");
        }
        assert_eq!(user.get("/").number("counter"), 7);
    });
}

#[test]
fn two_session_cookies_are_one_session() {
    each_pin(|pin| {
        let origins = [backend("v1", "a1"), backend("v1", "a2")];
        for origin in &origins {
            let name = origin.name();
            let rest = format!("Content-Length: 10\r\n\r\nbackend={name}");
            let both = format!(
                "HTTP/1.1 200 OK\r\nSet-Cookie: PHPSESSID=P{name}.{name}; Path=/\r\n\
                 Set-Cookie: JSESSIONID=J{name}.{name}; Path=/\r\n{rest}"
            );
            origin.answer("/both", &both);
            origin.answer("/known", &format!("HTTP/1.1 200 OK\r\n{rest}"));
        }
        let tidegate = Shop::new(pin).session("cookies: [JSESSIONID, PHPSESSID]").release("v1", &[&origins[0], &origins[1]]).start();
        let mut user = tidegate.browser();
        let home = user.get("/both").word("backend");
        for _ in 0..6 {
            assert_eq!(user.get("/known").word("backend"), home, "{pin}");
        }
        tidegate.wait_for_sessions("shop", "v1", 1, 0);
    });
}

#[test]
fn a_login_on_a_draining_release_renames_the_session_while_requests_are_under_way() {
    each_pin(|pin| {
        let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
        let tidegate = Shop::new(pin).release("v1", &[&a1]).release("v2", &[&b1]).start();
        let mut user = user_on(&tidegate, "a1");
        tidegate.cli(&["promote", "shop", "v2"]).expect_code(0);
        tidegate.wait_for_state("shop", "v1", "draining");
        let old_id = user.get("/peek").word("id");
        let pairs: Vec<String> = user.cookies().iter().map(|c| format!("{}={}", c.name, c.value)).collect();
        let old_cookies = pairs.join("; ");
        let mut tab = user.tab();
        std::thread::scope(|scope| {
            let under_way = scope.spawn(move || tab.get("/hold"));
            wait_for("a request is under way", SOON, || a1.requests_to("/hold").len() == 1);
            let login = user.post("/login", "name=x").expect_status(200);
            assert_eq!((login.word("release").as_str(), login.number("counter")), ("v1", 2));
            assert_ne!(login.word("id"), old_id);
            // A request that left the browser before the new cookie came.
            let late = user.tab().send_or_panic(Call::get("/peek").cookie(&old_cookies));
            assert_eq!(late.word("release"), "v1", "{pin}: the old name is an alias");
            assert!(cookie_received(&a1, "/peek").contains(&old_id), "{pin}: cookie intact");
            a1.let_go();
            let slow = under_way.join().unwrap();
            assert_eq!((slow.word("release"), slow.word("id")), ("v1".into(), old_id.clone()));
        });
        let after = user.get("/");
        assert_eq!((after.word("release").as_str(), after.number("counter")), ("v1", 3));
        tidegate.wait_for_sessions("shop", "v1", 1, 0);
        assert_eq!(counted(&tidegate, "tidegate_sessions_rotated_total", &[]), 1);
        assert!(b1.requests().is_empty());
    });
}

#[test]
fn parallel_first_requests_leave_a_browser_with_a_session_that_works() {
    each_pin(|pin| {
        let (a1, a2) = (backend("v1", "a1"), backend("v1", "a2"));
        let tidegate = Shop::new(pin).release("v1", &[&a1, &a2]).start();
        let mut user = tidegate.browser();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                let mut tab = user.tab();
                scope.spawn(move || {
                    assert_eq!(tab.get("/?ms=50").expect_status(200).word("session"), "new");
                });
            }
        });
        let landed = user.get("/");
        assert_eq!((landed.word("session").as_str(), landed.number("counter")), ("known", 2));
        tidegate.wait_for_sessions("shop", "v1", 1, 7);
    });
}

#[test]
fn a_pin_bound_to_another_session_is_none() {
    let (a1, a2) = (backend("v1", "a1"), backend("v1", "a2"));
    let tidegate = Shop::new("cookie").release("v1", &[&a1, &a2]).start();
    let (mut first, second) = (user_on(&tidegate, "a1"), user_on(&tidegate, "a2"));
    let session = first.cookie("JSESSIONID").unwrap();
    let pin = second.cookie("tidegate_shop").unwrap();
    // What parallel first answers can leave behind: the session cookie of one, the pin of another.
    let mixed = format!("JSESSIONID={session}; tidegate_shop={pin}");
    let answer = first.send_or_panic(Call::get("/").cookie(&mixed));
    assert_eq!((answer.word("backend").as_str(), answer.number("counter")), ("a1", 3));
}

#[test]
fn a_cross_site_post_without_the_pin_cookie_finds_its_session() {
    let (a1, a2) = (backend("v1", "a1"), backend("v1", "a2"));
    let tidegate = Shop::new("cookie").release("v1", &[&a1, &a2]).start();
    for home in ["a1", "a2"] {
        let mut user = user_on(&tidegate, home);
        assert!(user.cookie("tidegate_shop").is_some());
        for counter in 3..7 {
            let call = Call::post("/page", "paid=1").without_cookie("tidegate_shop");
            let answer = user.send_or_panic(call);
            let seen = (answer.word("backend"), answer.number("counter"));
            assert_eq!(seen, (home.to_owned(), counter));
        }
    }
}

#[test]
fn a_pin_for_a_release_that_never_existed_is_none() {
    of_pins(&["route", "prefix", "learn"], |pin| {
        let a1 = backend("v1", "a1");
        let tidegate = Shop::new(pin).release("v1", &[&a1]).start();
        let value = if pin == "prefix" { "z9~DEADBEEF" } else { "DEADBEEF.z9" };
        let mut user = tidegate.browser();
        let cookies = format!("JSESSIONID={value}");
        let answer = user.send_or_panic(Call::get("/").cookie(&cookies)).expect_status(200);
        assert_eq!((answer.word("release"), answer.word("session")), ("v1".into(), "new".into()));
        assert_eq!(user.get("/").number("counter"), 2, "{pin}");
    });
}

#[test]
fn a_signed_pin_for_a_release_that_never_existed_is_none() {
    let scratch = Scratch::new("keys");
    let key = scratch.write("k1.key", &"0123456789abcdef".repeat(4));
    let keys = format!("keys: [{{id: k1, file: {}}}]", key.display());
    let (z9, a1) = (backend("v0", "z9"), backend("v1", "a1"));
    let elsewhere = Shop::new("cookie").session(&keys).release("v0", &[&z9]).start();
    let stranger = user_on(&elsewhere, "z9");
    let tidegate = Shop::new("cookie").session(&keys).release("v1", &[&a1]).start();
    let pairs: Vec<String> = stranger.cookies().iter().map(|c| format!("{}={}", c.name, c.value)).collect();
    let mut user = tidegate.browser();
    let call = Call::get("/").cookie(&pairs.join("; "));
    let answer = user.send_or_panic(call).expect_status(200);
    assert_eq!((answer.word("release"), answer.word("session")), ("v1".into(), "new".into()));
    assert_eq!(user.get("/").number("counter"), 2);
    let labels = [("app", "shop"), ("result", "unknown")];
    assert_eq!(tidegate.metrics().sum("tidegate_pins_total", &labels), 1.0);
}

#[test]
fn a_deletion_with_another_path_ends_nothing() {
    each_pin(|pin| {
        let a1 = backend("v1", "a1");
        let tidegate = Shop::new(pin).release("v1", &[&a1]).start();
        let mut user = user_on(&tidegate, "a1");
        user.get("/logout?path=/elsewhere");
        assert!(user.cookie("JSESSIONID").is_some(), "the browser keeps the cookie");
        // The application forgot the session and makes another: to the user and to us the same one, renamed.
        assert_eq!(user.get("/").word("session"), "new");
        tidegate.wait_for_sessions("shop", "v1", 1, 0);
        let logouts = || counted(&tidegate, "tidegate_sessions_ended_total", &[("reason", "logout")]);
        assert_eq!(logouts(), 0, "{pin}");
        user.get("/logout");
        tidegate.wait_for_sessions("shop", "v1", 0, 0);
        assert_eq!(logouts(), 1, "{pin}");
    });
}

#[test]
fn of_a_deletion_and_a_new_cookie_in_one_response_the_last_wins() {
    each_pin(|pin| {
        let a1 = backend("v1", "a1");
        let tidegate = Shop::new(pin).release("v1", &[&a1]).start();
        let mut user = user_on(&tidegate, "a1");
        let replaced = user.get("/replace").word("id");
        let after = user.get("/");
        assert_eq!((after.word("id"), after.number("counter")), (replaced, 1), "{pin}");
        tidegate.wait_for_sessions("shop", "v1", 1, 0);
        assert_eq!(counted(&tidegate, "tidegate_sessions_ended_total", &[]), 0, "{pin}");
        a1.answer(
            "/end",
            "HTTP/1.1 200 OK\r\nSet-Cookie: JSESSIONID=FF.a1; Path=/; HttpOnly\r\n\
             Set-Cookie: JSESSIONID=; Path=/; Max-Age=0\r\nContent-Length: 0\r\n\r\n",
        );
        user.get("/end");
        assert_eq!(user.cookie("JSESSIONID"), None, "{pin}");
        tidegate.wait_for_sessions("shop", "v1", 0, 0);
    });
}
