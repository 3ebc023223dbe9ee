//! Users who are moved: at a move point, or by eviction; and what a draining backend is told of the end.

use std::time::Duration;

use crate::client::{Browser, Call};
use crate::origin::Origin;
use crate::process::{delay, wait_until_equal};
use crate::shop::{Shop, backend};
use crate::tidegate::{SOON, Tidegate};

/// `v1` has a user with a live session, and then `v2` is promoted.
fn deployed(shop: Shop, a1: &Origin, b1: &Origin) -> (Tidegate, Browser) {
    let tidegate = shop.release("v1", &[a1]).release("v2", &[b1]).start();
    let mut user = tidegate.browser();
    for _ in 0..2 {
        assert_eq!(user.get("/page").word("backend"), "a1");
    }
    tidegate.cli(&["promote", "shop", "v2"]).expect_code(0);
    (tidegate, user)
}

fn ended(tidegate: &Tidegate, reason: &str) -> f64 {
    tidegate.metrics().sum("tidegate_sessions_ended_total", &[("backend", "a1"), ("reason", reason)])
}

const POINTS: &str = "drain: {move_points: [{method: GET, path: /login}, {method: POST, path: /logout}]}";

#[test]
fn whoever_logs_in_anew_does_so_on_the_new_release() {
    for pin in crate::shop::PINS {
        let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
        let (tidegate, mut user) = deployed(Shop::new(pin).app(POINTS), &a1, &b1);
        assert_eq!(user.get("/page").word("backend"), "a1", "{pin}: a live session stays");
        assert_eq!(user.send_or_panic(Call::new("HEAD", "/login")).status, 200);
        assert!(b1.requests_to("/login").is_empty(), "{pin}: HEAD is no move point here");
        a1.clear_requests();
        let answer = user.get("/login").expect_status(200);
        assert_eq!((answer.word("backend"), answer.set_cookies("JSESSIONID").len()), ("b1".to_owned(), 1), "{pin}");
        assert!(a1.requests_to("/login").is_empty(), "{pin}: it was moved before it was sent");
        assert_eq!(b1.requests_to("/login")[0].head.field("cookie"), None, "{pin}");
        assert_eq!(ended(&tidegate, "moved"), 1.0, "{pin}");
        assert_eq!(tidegate.sessions("shop", "v1").live, 0, "{pin}");
        assert_eq!(tidegate.metrics().sum("tidegate_decisions_total", &[("reason", "move_point")]), 1.0, "{pin}");
        assert_eq!(user.get("/page").word("session"), "known", "{pin}: and it is at home there");
        assert_eq!(user.get("/login").word("backend"), "b1", "{pin}");
    }
}

#[test]
fn whoever_says_goodbye_begins_anew_on_the_new_release() {
    const SILENT: &str = "HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n";
    const RENEWED: &str = "HTTP/1.1 200 OK\r\nSet-Cookie: JSESSIONID=FRESH.a1; Path=/\r\nContent-Length: 0\r\n\r\n";
    const REFUSED: &str = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";
    for pin in crate::shop::PINS {
        for (answer, moved) in [(SILENT, 1.0), (RENEWED, 1.0), (REFUSED, 0.0)] {
            let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
            let (tidegate, mut user) = deployed(Shop::new(pin).app(POINTS), &a1, &b1);
            a1.answer("/logout", answer);
            let goodbye = user.post("/logout", "");
            assert_eq!(goodbye.status.to_string(), answer[9..12], "{pin}: the application's own answer");
            assert_eq!(goodbye.set_cookies("JSESSIONID").len(), usize::from(answer == RENEWED), "{pin}: its cookies are untouched");
            assert_eq!(ended(&tidegate, "moved"), moved, "{pin} {answer}");
            let home = if moved > 0.0 { "b1" } else { "a1" };
            assert_eq!(user.get("/page").word("backend"), home, "{pin} {answer}");
            assert_eq!(tidegate.sessions("shop", "v1").live, u64::from(moved == 0.0), "{pin} {answer}");
        }
    }
}

#[test]
fn a_serving_backend_moves_nobody() {
    let a1 = backend("v1", "a1");
    let tidegate = Shop::new("cookie").app(POINTS).release("v1", &[&a1]).start();
    let mut user = tidegate.browser();
    user.get("/page");
    assert_eq!(user.get("/page").number("counter"), 2);
    assert_eq!(user.get("/login").number("counter"), 2, "renamed, with its state");
    assert_eq!(ended(&tidegate, "moved"), 0.0);
}

/// An evicted user of an app at `/shop`, whose application still has the session.
fn evicted(pin: &str, a1: &Origin, b1: &Origin) -> (Tidegate, Browser) {
    let (tidegate, user) = deployed(Shop::new(pin), a1, b1);
    tidegate.cli(&["evict", "shop/v1"]).expect_code(0);
    wait_until_equal("nobody is left", SOON, &0, || tidegate.sessions("shop", "v1").live);
    a1.clear_requests();
    (tidegate, user)
}

#[test]
fn an_evicted_users_click_is_served_anew() {
    for pin in crate::shop::PINS {
        let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
        let (_tidegate, mut user) = evicted(pin, &a1, &b1);
        let answer = user.get("/page").expect_status(200);
        assert_eq!((answer.word("backend"), answer.set_cookies("JSESSIONID").len()), ("b1".to_owned(), 1), "{pin}");
        assert_eq!(user.post("/page", "x").expect_status(200).word("session"), "known", "{pin}");
        assert!(a1.requests().is_empty(), "{pin}");
    }
}

/// Method, what it says of who asks, and the answer's status.
type Submission = (&'static str, &'static [(&'static str, &'static str)], u16);

#[test]
fn what_an_evicted_user_submits_reaches_nobody() {
    let rows: &[Submission] = &[
        ("POST", &[("Sec-Fetch-Mode", "navigate"), ("Accept", "*/*")], 303),
        ("POST", &[("Accept", "text/html,application/xhtml+xml")], 303),
        ("POST", &[("Sec-Fetch-Mode", "cors"), ("Accept", "text/html")], 409),
        ("PUT", &[("Accept", "application/json")], 409),
        ("PATCH", &[], 409),
        ("DELETE", &[], 409),
    ];
    for pin in ["cookie", "route"] {
        for (method, fields, status) in rows {
            let what = format!("{pin} {method} {fields:?}");
            let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
            let (tidegate, mut user) = evicted(pin, &a1, &b1);
            let call = || fields.iter().fold(Call::new(method, "/page").with_body("x"), |call, (name, value)| call.field(name, value));
            let answer = user.send_or_panic(call()).expect_status(*status);
            assert_eq!(answer.head.field("location"), (*status == 303).then_some("/"), "{what}");
            assert_eq!(answer.head.field("cache-control"), Some("no-store"), "{what}");
            assert!(answer.set_cookies("JSESSIONID").is_empty(), "{what}: the application's cookie is its own");
            assert!(a1.requests().is_empty() && b1.requests().is_empty(), "{what}: nobody acted on it");
            assert_eq!(tidegate.metrics().sum("tidegate_decisions_total", &[("reason", "evicted")]), 1.0, "{what}");
            let settles = *status == 303;
            assert_eq!(answer.set_cookies("tidegate_shop").len(), usize::from(settles && pin == "cookie"), "{what}");
            if !settles {
                assert_eq!(user.cookie("tidegate_shop").is_some(), pin == "cookie", "{what}: a script was told, not its user");
                delay(Duration::from_millis(1100));
                user.send_or_panic(call()).expect_status(409);
                user.post("/page", "checkout").expect_status(409);
                assert!(b1.requests().is_empty(), "{what}: the user does not know yet");
                // A page does it, too: it opens a new session.
                assert_eq!(user.get("/page").expect_status(200).word("backend"), "b1", "{what}");
                assert_eq!(user.send_or_panic(call()).expect_status(200).word("session"), "known", "{what}");
                continue;
            }
            assert_eq!(user.cookie("tidegate_shop"), None, "{what}: the pin is deleted");
            // They know now: with a pin that can be taken back at once, without one after a moment.
            let again = if pin == "cookie" { user.send_or_panic(call()) } else { told(&mut user, call) };
            assert_eq!(again.expect_status(200).word("backend"), "b1", "{what}");
            assert_eq!(b1.requests_to("/page")[0].head.field("cookie"), None, "{what}: as a new client");
        }
    }
}

#[test]
fn whoever_is_evicted_while_waiting_for_a_backend_is_told_likewise() {
    let (mut a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
    let tidegate = Shop::new("cookie").app("failover_wait: 3s").patient_probes().release("v1", &[&a1]).release("v2", &[&b1]).start();
    let mut user = crate::scenarios::user_on(&tidegate, "a1");
    tidegate.cli(&["promote", "shop", "v2"]).expect_code(0);
    a1.stop();
    std::thread::scope(|scope| {
        let submitted = scope.spawn(|| {
            let answer = user.send_or_panic(Call::post("/page", "x").field("Sec-Fetch-Mode", "navigate"));
            (answer, user)
        });
        // By the connect of that very request: five failed probes would take longer than it waits.
        tidegate.wait_for_backend("shop", "v1", "a1", "health", "down");
        tidegate.cli(&["evict", "shop/v1"]).expect_code(0);
        let (answer, mut user) = submitted.join().expect("an answer");
        let answer = answer.expect_status(303);
        assert_eq!(answer.head.field("location"), Some("/"));
        assert_eq!(answer.set_cookies("tidegate_shop").len(), 1, "the pin is deleted");
        assert!(b1.requests().is_empty(), "nobody acted on it");
        assert_eq!(user.post("/page", "x").expect_status(200).word("backend"), "b1", "told, so a new client");
    });
}

/// Tries until it is served.
fn told(user: &mut Browser, call: impl Fn() -> Call) -> crate::client::Response {
    assert!(matches!(user.send_or_panic(call()).status, 303 | 409), "what was on its way is refused, too");
    crate::process::wait_for_some("it is served", SOON, || Some(user.send_or_panic(call())).filter(|answer| answer.status == 200))
}

#[test]
fn the_way_back_leads_to_the_apps_entry() {
    let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
    for origin in [&a1, &b1] {
        let name = origin.name();
        let page = format!("HTTP/1.1 200 OK\r\nSet-Cookie: JSESSIONID=S.{name}; Path=/shop\r\nContent-Length: 2\r\n\r\nok");
        origin.answer("/shop/page", &page);
    }
    let shop = Shop::new("cookie").below("/shop").release("v1", &[&a1]).release("v2", &[&b1]);
    let tidegate = shop.start();
    let mut user = tidegate.browser();
    for _ in 0..2 {
        user.get("/shop/page").expect_status(200);
    }
    tidegate.cli(&["promote", "shop", "v2"]).expect_code(0);
    tidegate.cli(&["evict", "shop/v1"]).expect_code(0);
    let answer = user.send_or_panic(Call::post("/shop/page", "x").field("Sec-Fetch-Mode", "navigate")).expect_status(303);
    assert_eq!(answer.head.field("location"), Some("/shop/"));
}

#[test]
fn a_draining_backend_is_told_by_when_it_is_to_be_empty() {
    let (a1, a2) = (backend("v1", "a1"), backend("v1", "a2"));
    let tidegate = Shop::new("cookie").app("balance: round_robin").release("v1", &[&a1, &a2]).start();
    let mut user = tidegate.browser();
    while user.get("/page").word("backend") != "a1" {
        user = tidegate.browser();
    }
    let told = |user: &mut Browser, field: &str| {
        let text = user.get("/headers").expect_status(200).text().to_ascii_lowercase();
        let found = text.lines().find_map(|line| line.strip_prefix(&format!("{field}: ")));
        found.map(str::to_owned)
    };
    assert_eq!(told(&mut user, "x-tidegate-deadline"), None);
    tidegate.cli(&["drain", "shop/v1/a1"]).expect_code(0);
    assert_eq!(told(&mut user, "x-tidegate-state").as_deref(), Some("draining"));
    assert_eq!(told(&mut user, "x-tidegate-deadline"), None, "it has none");
    // The same order again brings one.
    tidegate.cli(&["drain", "shop/v1/a1", "--deadline", "4h"]).expect_code(0);
    let status = tidegate.admin_get("/api/v1/status");
    let deadline = status["drains"][0]["deadline"].as_str().expect("a deadline").to_ascii_lowercase();
    assert_eq!(told(&mut user, "x-tidegate-deadline"), Some(deadline));
    tidegate.cli(&["serve", "shop/v1/a1"]).expect_code(0);
    assert_eq!(told(&mut user, "x-tidegate-deadline"), None);
    assert_eq!(told(&mut user, "x-tidegate-state"), None);
}
