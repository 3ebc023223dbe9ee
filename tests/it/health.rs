//! Backends that pause, drain by their own word or never came up, and releases that wait for their turn.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::client::Browser;
use crate::process::{delay, takes_long, wait_for};
use crate::scenarios::{counted, each_pin, of_pins, user_on};
use crate::shop::{Shop, backend};
use crate::tidegate::{SOON, Tidegate};
use crate::tomcat::{SHOP, Tomcat, TomcatSpec};

/// Longer than the timeouts of a probe and of a connect; forty seconds are more than any collection of garbage that an operator
/// would put up with.
fn pause() -> Duration {
    Duration::from_secs(if takes_long() { 40 } else { 12 })
}

/// More than the backlog of 100 that Tomcat asks the kernel for: some of them cannot even connect.
const WAITERS: usize = 150;

#[test]
fn a_pause_costs_no_session_however_many_wait() {
    let tomcats = Tomcat::start_all([TomcatSpec::new("v1", "a1"), TomcatSpec::new("v1", "a2")]);
    let tidegate = Shop::new("cookie")
        .probed("/shop/health.jsp")
        .probes("interval: 1s, timeout: 500ms, rise: 1, fall: 2")
        .app("balance: round_robin")
        .app("timeouts: {read: 60s, connect: 1s}")
        .release_of("v1", tomcats.iter().zip(["a1", "a2"]).map(|(tomcat, name)| format!("{name}: \"{}\"", tomcat.address())).collect())
        .start();
    let page = "/shop/index.jsp";
    let mut waiters: Vec<Browser> = Vec::new();
    let mut others: Vec<Browser> = Vec::new();
    while waiters.len() < WAITERS {
        let mut user = tidegate.browser().with_timeout(Duration::from_secs(90));
        let first = user.get(page).expect_status(200);
        assert_eq!(user.get(page).number("counter"), 2);
        // Everybody comes with a connection of his own.
        user.disconnect();
        if first.word("backend") == "a1" { waiters.push(user) } else { others.push(user) }
    }
    tomcats[0].pause();
    let paused = Instant::now();
    tidegate.wait_for_backend("shop", "v1", "a1", "health", "stalled");
    let is_back = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let waiting: Vec<_> = waiters
            .iter_mut()
            .map(|user| {
                let is_back = &is_back;
                scope.spawn(move || {
                    let answer = user.get(page);
                    assert!(is_back.load(Ordering::SeqCst), "answered by a paused backend: {}", answer.head.raw);
                    (answer.status, answer.value("backend"), answer.value("counter"))
                })
            })
            .collect();
        while paused.elapsed() < pause() {
            let newcomer = tidegate.browser().get(page).expect_status(200);
            assert_eq!(newcomer.word("backend"), "a2", "new users go elsewhere");
            let known = others.first_mut().expect("somebody is there").get(page);
            assert_eq!(known.word("backend"), "a2");
            assert_eq!(tidegate.backend("shop", "v1", "a1", "health"), "stalled");
            delay(Duration::from_millis(500));
        }
        is_back.store(true, Ordering::SeqCst);
        tomcats[0].resume();
        let expected = (200, Some("a1".to_owned()), Some("3".to_owned()));
        let seen: Vec<_> = waiting.into_iter().map(|waiter| waiter.join().unwrap()).collect();
        let lost: Vec<_> = seen.iter().filter(|seen| **seen != expected).collect();
        assert!(lost.is_empty(), "{} of {WAITERS} lost, such as {:?}", lost.len(), lost[0]);
    });
    tidegate.wait_for_backend("shop", "v1", "a1", "health", "up");
    for user in &mut waiters {
        assert_eq!(user.get(page).number("counter"), 4, "they go on");
    }
    assert_eq!(counted(&tidegate, "tidegate_session_loss_total", &[]), 0);
    assert_eq!(tomcats[0].manager_sessions(SHOP), WAITERS, "no session was made anew");
}

#[test]
fn a_backend_drains_by_its_own_word_and_comes_back() {
    of_pins(&["cookie", "learn"], |pin| {
        for status in [404, 503] {
            let (a1, a2) = (backend("v1", "a1"), backend("v1", "a2"));
            let tidegate = Shop::new(pin).health(&format!("drain: [{status}]")).release("v1", &[&a1, &a2]).start();
            let mut user = user_on(&tidegate, "a1");
            a1.set_health(status);
            tidegate.wait_for_backend("shop", "v1", "a1", "health", "draining");
            assert_eq!(tidegate.backend("shop", "v1", "a1", "admission"), "known_sessions");
            for counter in 3..9 {
                assert_eq!(tidegate.browser().get("/").word("backend"), "a2", "{pin}: a new user");
                let answer = user.get("/");
                assert_eq!((answer.word("backend").as_str(), answer.number("counter")), ("a1", counter), "{pin}");
            }
            a1.set_health(200);
            tidegate.wait_for_backend("shop", "v1", "a1", "admission", "everyone");
        }
    });
}

#[test]
fn an_application_that_failed_to_deploy_stays_down() {
    let (a1, a2) = (backend("v1", "a1"), backend("v1", "a2"));
    // Tomcat answers 404 where a context did not start, and 404 is also the word for a soft stop.
    a1.set_health(404);
    let tidegate = Shop::new("cookie").health("drain: [404]").release("v1", &[&a1, &a2]).start_as_it_is();
    tidegate.wait_for_backend("shop", "v1", "a1", "health", "down");
    tidegate.wait_for_backend("shop", "v1", "a2", "health", "up");
    let probes = a1.probes();
    wait_for("it was asked again", SOON, || a1.probes() > probes + 3);
    assert_eq!(tidegate.backend("shop", "v1", "a1", "health"), "down");
    assert_eq!(tidegate.backend("shop", "v1", "a1", "admission"), "nobody");
    for _ in 0..6 {
        assert_eq!(tidegate.browser().get("/").word("backend"), "a2");
    }
    a1.set_health(200);
    tidegate.wait_for_backend("shop", "v1", "a1", "health", "up");
}

#[test]
fn health_alone_switches_between_blue_and_green() {
    each_pin(|pin| {
        let (blue, green) = (backend("v1", "a1"), backend("v2", "b1"));
        green.set_health(503);
        let tidegate = Shop::new(pin)
            .app("current: by_health")
            .health("drain: [503]")
            .release("v1", &[&blue])
            .release("v2", &[&green])
            .start_as_it_is();
        tidegate.wait_for_backend("shop", "v1", "a1", "admission", "everyone");
        let mut old = user_on(&tidegate, "a1");
        green.set_health(200);
        tidegate.wait_for_backend("shop", "v2", "b1", "admission", "everyone");
        blue.set_health(503);
        tidegate.wait_for_backend("shop", "v1", "a1", "admission", "known_sessions");
        let mut new = tidegate.browser();
        for counter in 1..6 {
            let answer = new.get("/");
            assert_eq!((answer.word("release").as_str(), answer.number("counter")), ("v2", counter), "{pin}: a new user");
            let answer = old.get("/");
            assert_eq!((answer.word("release").as_str(), answer.number("counter")), ("v1", counter + 2), "{pin}: a known one");
        }
        // And back, without touching the configuration.
        blue.set_health(200);
        tidegate.wait_for_backend("shop", "v1", "a1", "admission", "everyone");
        green.set_health(503);
        tidegate.wait_for_backend("shop", "v2", "b1", "admission", "known_sessions");
        assert_eq!(tidegate.browser().get("/").word("release"), "v1", "{pin}");
        assert_eq!(new.get("/").word("release"), "v2", "{pin}");
    });
}

fn newcomers(tidegate: &Tidegate) -> Vec<String> {
    (0..10).map(|_| tidegate.browser().get("/").expect_status(200).word("release")).collect()
}

#[test]
fn a_staged_release_takes_nobody_before_its_promotion() {
    each_pin(|pin| {
        let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
        let tidegate = Shop::new(pin).release("v1", &[&a1]).start();
        let staged = format!("b1={}", b1.address());
        tidegate.cli(&["stage", "shop", "v2", "--backend", &staged]).expect_code(0);
        tidegate.wait_for_backend("shop", "v2", "b1", "health", "up");
        assert_eq!(tidegate.release_state("shop", "v2"), "staged", "{pin}");
        assert_eq!(newcomers(&tidegate), ["v1"; 10], "{pin}");
        // Not even whoever names it in a pin that needs no signature.
        let route = tidegate.browser().send_or_panic(crate::client::Call::get("/").cookie("JSESSIONID=b1~AA.b1"));
        assert_eq!(route.word("release"), "v1", "{pin}");
        assert!(b1.requests().is_empty(), "{pin}");
        tidegate.cli(&["promote", "shop", "v2"]).expect_code(0);
        assert_eq!(newcomers(&tidegate), ["v2"; 10], "{pin}");
        assert_eq!(tidegate.release_state("shop", "v2"), "current", "{pin}");
    });
}

#[test]
fn a_release_without_a_healthy_backend_is_not_promoted() {
    let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
    b1.set_health(500);
    let tidegate = Shop::new("cookie").release("v1", &[&a1]).release("v2", &[&b1]).start_as_it_is();
    tidegate.wait_for_backend("shop", "v2", "b1", "health", "down");
    let refused = tidegate.cli(&["promote", "shop", "v2"]).expect_code(1);
    assert!(refused.stderr.contains("v2"), "{}", refused.stderr);
    assert_eq!(newcomers(&tidegate), ["v1"; 10]);
    assert_eq!(tidegate.release_state("shop", "v1"), "current");
}
