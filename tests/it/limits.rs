//! Full backends: who waits, in which order, for how long, and who is told to come back later.

use std::time::Duration;

use crate::client::{Browser, Call};
use crate::origin::Origin;
use crate::process::wait_until_equal;
use crate::scenarios::user_on;
use crate::shop::{Shop, backend};
use crate::tidegate::{SOON, Tidegate};

fn wait_for_queue(tidegate: &Tidegate, backend: &str, length: u64) {
    wait_until_equal(&format!("{length} wait before {backend}"), SOON, &length, || {
        tidegate.metrics().sum("tidegate_backend_queue_length", &[("backend", backend)]) as u64
    });
}

/// One exchange on the backend that ends when its origin lets go; more users with sessions there.
fn full(tidegate: &Tidegate, origin: &Origin, users: usize) -> (std::thread::JoinHandle<u16>, Vec<Browser>) {
    let mut holder = user_on(tidegate, origin.name());
    let users = (0..users).map(|_| user_on(tidegate, origin.name())).collect();
    origin.clear_requests();
    let held = std::thread::spawn(move || holder.get("/hold").status);
    wait_until_equal("the backend is full", SOON, &1, || origin.requests_to("/hold").len());
    (held, users)
}

#[test]
fn users_wait_for_their_full_backend_and_enter_in_order() {
    let a1 = backend("v1", "a1");
    let tidegate = Shop::new("cookie").app("limits: {max_connections: 1, queue: {size: 20, timeout: 20s}}").release("v1", &[&a1]).start();
    let (held, users) = full(&tidegate, &a1, 10);
    std::thread::scope(|scope| {
        let waiting: Vec<_> = users
            .into_iter()
            .enumerate()
            .map(|(at, mut user)| {
                // Slow enough that whoever is behind could overtake if the order were left to chance.
                let waiter = scope.spawn(move || user.get(&format!("/page?n={at}&ms=70")).expect_status(200).number("counter"));
                wait_for_queue(&tidegate, "a1", at as u64 + 1);
                waiter
            })
            .collect();
        assert!(a1.requests_to("/page").is_empty(), "they wait");
        a1.let_go();
        assert_eq!(held.join().unwrap(), 200);
        for waiter in waiting {
            assert_eq!(waiter.join().unwrap(), 3, "its own session");
        }
    });
    let order: Vec<String> = a1.requests_to("/page").iter().map(|request| request.head.word(1).to_owned()).collect();
    let expected: Vec<String> = (0..10).map(|at| format!("/page?n={at}&ms=70")).collect();
    assert_eq!(order, expected);
    wait_for_queue(&tidegate, "a1", 0);
}

#[test]
fn newcomers_go_elsewhere_instead_of_waiting() {
    let (a1, a2) = (backend("v1", "a1"), backend("v1", "a2"));
    let limits = "limits: {max_connections: 1, queue: {size: 20, timeout: 20s}}";
    let tidegate = Shop::new("cookie").app(limits).release("v1", &[&a1, &a2]).start();
    let (held, _) = full(&tidegate, &a1, 0);
    for _ in 0..6 {
        assert_eq!(tidegate.browser().get("/").expect_status(200).word("backend"), "a2");
    }
    a1.let_go();
    assert_eq!(held.join().unwrap(), 200);
}

#[test]
fn newcomers_wait_too_when_all_are_full_and_open_no_session_on_a_draining_release() {
    let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
    let limits = "limits: {max_connections: 1, queue: {size: 20, timeout: 20s}}";
    let tidegate = Shop::new("cookie").app(limits).release("v1", &[&a1]).release("v2", &[&b1]).start();
    let mut old = user_on(&tidegate, "a1");
    tidegate.cli(&["promote", "shop", "v2"]).expect_code(0);
    let (held, _) = full(&tidegate, &b1, 0);
    a1.clear_requests();
    std::thread::scope(|scope| {
        let newcomers: Vec<_> = (0..3).map(|_| scope.spawn(|| tidegate.browser().get("/").expect_status(200).word("release"))).collect();
        wait_for_queue(&tidegate, "b1", 3);
        b1.let_go();
        for newcomer in newcomers {
            assert_eq!(newcomer.join().unwrap(), "v2");
        }
    });
    assert_eq!(held.join().unwrap(), 200);
    assert!(a1.requests().is_empty());
    assert_eq!(old.get("/").word("release"), "v1");
}

#[test]
fn behind_a_full_queue_the_answer_is_503_at_once() {
    let (a1, a2) = (backend("v1", "a1"), backend("v1", "a2"));
    let limits = "limits: {max_connections: 1, queue: {size: 1, timeout: 20s}}";
    let tidegate = Shop::new("cookie").app(limits).release("v1", &[&a1, &a2]).start();
    let (held, mut users) = full(&tidegate, &a1, 2);
    a2.clear_requests();
    std::thread::scope(|scope| {
        let mut first = users.remove(0);
        let waiting = scope.spawn(move || first.get("/").number("counter"));
        wait_for_queue(&tidegate, "a1", 1);
        let refused = users[0].get("/").expect_status(503);
        assert!(refused.head.field("retry-after").is_some(), "{}", refused.head.raw);
        assert!(!refused.head.says("connection", "close"), "{}", refused.head.raw);
        a1.let_go();
        assert_eq!(waiting.join().unwrap(), 3);
    });
    assert_eq!(held.join().unwrap(), 200);
    assert_eq!(users[0].get("/").number("counter"), 3, "nobody is sent away from his session");
    assert!(a2.requests().is_empty());
    assert_eq!(tidegate.metrics().sum("tidegate_decisions_total", &[("reason", "queue_full")]), 1.0);
}

#[test]
fn whoever_waits_too_long_is_told_so() {
    let a1 = backend("v1", "a1");
    let limits = "limits: {max_connections: 1, queue: {size: 5, timeout: 300ms}}";
    let tidegate = Shop::new("cookie").app(limits).release("v1", &[&a1]).start();
    let (held, mut users) = full(&tidegate, &a1, 1);
    let refused = users[0].get("/").expect_status(503);
    assert!(refused.head.field("retry-after").is_some(), "{}", refused.head.raw);
    let refused = users[0].post("/", "x".repeat(3_000)).expect_status(503);
    assert!(!refused.head.says("connection", "close"), "{}", refused.head.raw);
    assert_eq!(tidegate.metrics().sum("tidegate_decisions_total", &[("reason", "queue_timeout")]), 2.0);
    a1.let_go();
    assert_eq!(held.join().unwrap(), 200);
    assert!(a1.requests_to("/").is_empty());
    assert_eq!(users[0].get("/").number("counter"), 3);
    wait_for_queue(&tidegate, "a1", 0);
}

#[test]
fn whoever_gives_up_waiting_never_reaches_the_backend() {
    let a1 = backend("v1", "a1");
    let limits = "limits: {max_connections: 1, queue: {size: 5, timeout: 20s}}";
    let tidegate = Shop::new("cookie").app(limits).release("v1", &[&a1]).start();
    let (held, mut users) = full(&tidegate, &a1, 3);
    for call in [Call::get("/gone"), Call::post("/gone", "order=1"), Call::post("/gone", "order=1").chunked(3)] {
        let mut user = users.remove(0).with_timeout(Duration::from_millis(400));
        user.disconnect(); // the kept connection has the old timeout
        assert!(user.send(call).is_err(), "there was an answer");
        drop(user);
        wait_for_queue(&tidegate, "a1", 0);
    }
    a1.let_go();
    assert_eq!(held.join().unwrap(), 200);
    user_on(&tidegate, "a1").get("/");
    wait_for_queue(&tidegate, "a1", 0);
    let sent: Vec<String> = a1.requests_to("/gone").iter().map(|request| request.head.raw.clone()).collect();
    assert!(sent.is_empty(), "{sent:#?}");
}
