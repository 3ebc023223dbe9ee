//! What happens to users whose backend is gone: a stand-in, another home, an honest refusal, or patience; and which
//! requests may be sent twice.

use std::collections::HashMap;
use std::io::{BufReader, Write};
use std::sync::{Arc, Mutex};

use crate::client::Call;
use crate::http::{Unstated, read_body};
use crate::process::wait_for;
use crate::scenarios::{counted, each_pin, user_on};
use crate::shop::{Shop, backend};
use crate::speaker::{Speaker, answer_ok, next_request};
use crate::tidegate::SOON;

#[test]
fn a_stand_in_that_makes_a_session_keeps_it_and_the_old_one_is_lost_once() {
    each_pin(|pin| {
        let (mut a1, a2) = (backend("v1", "a1"), backend("v1", "a2"));
        let tidegate = Shop::new(pin).release("v1", &[&a1, &a2]).start();
        let mut user = user_on(&tidegate, "a1");
        a1.stop();
        tidegate.wait_for_backend("shop", "v1", "a1", "health", "down");
        let there = user.get("/").expect_status(200);
        assert_eq!((there.word("backend").as_str(), there.number("counter")), ("a2", 1), "{pin}");
        assert_eq!(user.get("/").number("counter"), 2, "{pin}");
        a1.listen();
        tidegate.wait_for_backend("shop", "v1", "a1", "health", "up");
        let after = user.get("/");
        assert_eq!((after.word("backend").as_str(), after.number("counter")), ("a2", 3), "{pin}: not torn back");
        tidegate.wait_for_sessions("shop", "v1", 1, 0);
        assert_eq!(counted(&tidegate, "tidegate_session_loss_total", &[("cause", "failover")]), 1, "{pin}");
        assert_eq!(counted(&tidegate, "tidegate_session_loss_total", &[]), 1, "{pin}: one loss, one cause");
        assert_eq!(counted(&tidegate, "tidegate_sessions_ended_total", &[("reason", "lost"), ("backend", "a1")]), 1, "{pin}");
    });
}

#[test]
fn repin_gives_the_user_a_new_home() {
    each_pin(|pin| {
        let (mut a1, a2) = (backend("v1", "a1"), backend("v1", "a2"));
        let tidegate = Shop::new(pin).app("failover: repin").release("v1", &[&a1, &a2]).start();
        let mut user = user_on(&tidegate, "a1");
        a1.stop();
        tidegate.wait_for_backend("shop", "v1", "a1", "health", "down");
        assert_eq!(user.get("/peek").word("backend"), "a2", "{pin}");
        a1.listen();
        tidegate.wait_for_backend("shop", "v1", "a1", "health", "up");
        // A route or prefix in the application's own cookie still names the old home; the ledger knows better.
        for _ in 0..3 {
            assert_eq!(user.get("/peek").word("backend"), "a2", "{pin}");
        }
    });
}

#[test]
fn with_failover_off_users_are_told_to_wait_and_find_their_session_again() {
    each_pin(|pin| {
        let (mut a1, a2) = (backend("v1", "a1"), backend("v1", "a2"));
        let tidegate = Shop::new(pin).app("failover: off").release("v1", &[&a1, &a2]).start();
        let mut user = user_on(&tidegate, "a1");
        a1.stop();
        tidegate.wait_for_backend("shop", "v1", "a1", "health", "down");
        a2.clear_requests();
        let refused = user.get("/").expect_status(503);
        assert!(refused.head.field("retry-after").is_some(), "{pin}: {}", refused.head.raw);
        assert!(a2.requests().is_empty(), "{pin}");
        assert_eq!(tidegate.browser().get("/").word("backend"), "a2", "{pin}: new users are served");
        a1.listen();
        tidegate.wait_for_backend("shop", "v1", "a1", "health", "up");
        assert_eq!(user.get("/").number("counter"), 3, "{pin}");
    });
}

#[test]
fn a_backend_that_is_back_within_the_wait_keeps_its_users() {
    each_pin(|pin| {
        let (mut a1, a2) = (backend("v1", "a1"), backend("v1", "a2"));
        let tidegate = Shop::new(pin).app("failover_wait: 20s").release("v1", &[&a1, &a2]).start();
        let mut user = user_on(&tidegate, "a1");
        a1.stop();
        tidegate.wait_for_backend("shop", "v1", "a1", "health", "down");
        a2.clear_requests();
        std::thread::scope(|scope| {
            let reading = scope.spawn(|| user.get("/"));
            let mut tab = tidegate.browser();
            tab.get("/page"); // newcomers do not wait
            assert!(!reading.is_finished(), "{pin}: the known user waits");
            a1.listen();
            let answer = reading.join().unwrap().expect_status(200);
            assert_eq!((answer.word("backend").as_str(), answer.number("counter")), ("a1", 3), "{pin}");
        });
        assert!(a2.requests_to("/").is_empty(), "{pin}");
    });
}

#[test]
fn a_backend_that_stays_away_is_replaced_after_the_wait() {
    let (mut a1, a2) = (backend("v1", "a1"), backend("v1", "a2"));
    let tidegate = Shop::new("cookie").app("failover_wait: 500ms").release("v1", &[&a1, &a2]).start();
    let mut user = user_on(&tidegate, "a1");
    a1.stop();
    tidegate.wait_for_backend("shop", "v1", "a1", "health", "down");
    let body = "x".repeat(5_000);
    assert_eq!(user.post("/body", body.as_str()).expect_status(200).text(), body, "a body read while waiting is not lost");
    assert_eq!(a2.requests_to("/body").len(), 1);
}

#[test]
fn a_refused_connect_sends_any_request_elsewhere_with_its_whole_body() {
    // Probes are rare: real traffic finds out that the backend is gone.
    let rare = "interval: 60s, timeout: 1s, rise: 1, fall: 3";
    for call in [Call::get("/peek"), Call::post("/body", "x".repeat(50_000)), Call::post("/body", "y".repeat(50_000)).chunked(700)] {
        let (mut a1, a2) = (backend("v1", "a1"), backend("v1", "a2"));
        let tidegate = Shop::new("cookie").probes(rare).release("v1", &[&a1, &a2]).start();
        let mut known = user_on(&tidegate, "a1");
        let mut fresh = tidegate.browser();
        assert_eq!(tidegate.backend("shop", "v1", "a1", "health"), "up");
        a1.stop();
        a2.clear_requests();
        let answer = known.send_or_panic(call.clone()).expect_status(200);
        let again = fresh.send_or_panic(call).expect_status(200);
        let arrived = a2.requests();
        assert_eq!(arrived.len(), 2, "each once");
        if arrived[0].head.word(0) == "POST" {
            assert_eq!(arrived[0].body.len(), 50_000);
            assert_eq!((answer.body, again.body), (arrived[0].body.clone(), arrived[1].body.clone()));
        }
        tidegate.wait_for_backend("shop", "v1", "a1", "health", "down");
        assert!(tidegate.read("tidegate.log").contains("shop/v1/a1: up -> down: connect refused"));
    }
}

#[test]
fn a_body_too_large_to_keep_still_goes_elsewhere_when_nothing_was_sent() {
    let rare = "interval: 60s, timeout: 1s, rise: 1, fall: 3";
    let (mut a1, a2) = (backend("v1", "a1"), backend("v1", "a2"));
    let tidegate = Shop::new("cookie").probes(rare).release("v1", &[&a1, &a2]).start();
    let mut known = user_on(&tidegate, "a1");
    a1.stop();
    let body = "0123456789".repeat(50_000);
    let answer = known.post("/body", body.as_str()).expect_status(200);
    assert!(answer.text() == body, "{} of {} bytes", answer.body.len(), body.len());
    assert_eq!(a2.requests_to("/body").len(), 1);
}

/// A backend that answers the first request of each connection and closes it, without a word, upon the second: what a
/// keep-alive timeout looks like to a request that crosses it. Counts how often each target arrived.
fn closing_backend(arrived: &Arc<Mutex<HashMap<String, usize>>>) -> Speaker {
    let arrived = Arc::clone(arrived);
    Speaker::start(move |stream| {
        let (mut input, mut out) = (BufReader::new(stream.try_clone()?), stream);
        for at in 0..2 {
            let Some(head) = next_request(&mut input, stream)? else { return Ok(()) };
            read_body(&mut input, &head, Unstated::Empty)?;
            *arrived.lock().unwrap().entry(head.start.clone()).or_default() += 1;
            if at == 0 {
                answer_ok(&mut out, "ok")?;
                out.flush()?;
            }
        }
        Ok(())
    })
}

#[test]
fn a_get_on_a_stale_connection_is_sent_again() {
    let arrived = Arc::default();
    let speaker = closing_backend(&arrived);
    let tidegate = Shop::new("cookie").release_of("v1", vec![speaker.line("a1")]).start();
    let mut browser = tidegate.browser();
    for n in 0..50 {
        assert_eq!(browser.get(&format!("/{n}")).expect_status(200).text(), "ok");
    }
    let twice = arrived.lock().unwrap().values().filter(|&&times| times == 2).count();
    assert!(twice >= 10, "only {twice} requests met a stale connection");
}

#[test]
fn a_post_is_never_sent_twice() {
    let arrived: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
    let speaker = closing_backend(&arrived);
    let tidegate = Shop::new("cookie").release_of("v1", vec![speaker.line("a1")]).start();
    let refused = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..5 {
            let (tidegate, refused) = (&tidegate, &refused);
            scope.spawn(move || {
                let mut browser = tidegate.browser();
                for n in 0..100 {
                    let answer = browser.post(&format!("/{thread}-{n}"), "order=1");
                    assert!(matches!(answer.status, 200 | 502), "{}", answer.head.raw);
                    if answer.status == 502 {
                        refused.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    }
                }
            });
        }
    });
    let arrived = arrived.lock().unwrap();
    assert_eq!(arrived.len(), 500, "each arrived");
    let twice: Vec<&String> = arrived.iter().filter(|(_, times)| **times > 1).map(|(target, _)| target).collect();
    assert!(twice.is_empty(), "sent twice: {twice:?}");
    let refused = refused.into_inner();
    assert!(refused >= 100, "only {refused} posts met a stale connection");
}

#[test]
fn connections_that_the_backend_closed_while_idle_cost_no_request() {
    // It answers and closes a little later, without saying so: many servers' keep-alive timeout, much shortened.
    let speaker = Speaker::start(|stream| {
        let (mut input, mut out) = (BufReader::new(stream.try_clone()?), stream);
        if let Some(head) = next_request(&mut input, stream)? {
            read_body(&mut input, &head, Unstated::Empty)?;
            answer_ok(&mut out, "ok")?;
        }
        Ok(())
    });
    let tidegate = Shop::new("cookie").release_of("v1", vec![speaker.line("a1")]).start();
    let mut browser = tidegate.browser();
    for n in 0..100 {
        browser.get(&format!("/{n}")).expect_status(200);
        // Once the closed connection has been noticed, even what may not be repeated is safe.
        wait_for("the exchange has left", SOON, || tidegate.status("shop")["releases"]["v1"]["backends"]["a1"]["in_flight"] == 0);
        if n % 10 == 0 {
            browser.post(&format!("/{n}"), "x").expect_status(200);
        }
    }
}

/// Connections that the backend breaks off after it has read a request: never an answer to anything but probes.
fn breaking_backend(arrived: &Arc<Mutex<HashMap<String, usize>>>) -> Speaker {
    let arrived = Arc::clone(arrived);
    Speaker::start(move |stream| {
        let mut input = BufReader::new(stream.try_clone()?);
        if let Some(head) = next_request(&mut input, stream)? {
            read_body(&mut input, &head, Unstated::Empty)?;
            *arrived.lock().unwrap().entry(head.start.clone()).or_default() += 1;
        }
        Ok(())
    })
}

#[test]
fn a_page_whose_backend_broke_off_is_asked_for_once_more_elsewhere_and_an_order_is_not() {
    let arrived: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
    let (speaker, a2) = (breaking_backend(&arrived), backend("v1", "a2"));
    let second = format!("a2: \"{}\"", a2.address());
    let tidegate = Shop::new("cookie").release_of("v1", vec![speaker.line("a1"), second]).start();
    let mut broken = 0;
    for n in 0..40 {
        assert_eq!(tidegate.browser().get(&format!("/peek?n={n}")).expect_status(200).word("backend"), "a2");
        let status = tidegate.browser().post(&format!("/body?n={n}"), "order").status;
        assert!(matches!(status, 200 | 502), "{status}");
        broken += usize::from(status == 502);
    }
    let met = arrived.lock().unwrap();
    assert!(met.values().all(|&times| times == 1), "{met:?}");
    let pages = met.keys().filter(|start| start.starts_with("GET")).count();
    assert!(pages > 0 && broken > 0, "{pages} pages and {broken} orders met it");
    assert_eq!(met.len() - pages, broken);
    assert_eq!(a2.requests_to("/peek").len(), 40);
    assert_eq!(a2.requests_to("/body").len(), 40 - broken, "an order that may have been done is done nowhere else");
}

#[test]
fn what_fails_again_and_again_is_refused_when_the_budget_is_spent() {
    let rare = "interval: 60s, timeout: 1s, rise: 1, fall: 3";
    let names = ["a1", "a2", "a3", "a4"];
    let mut all = names.map(|name| backend("v1", name));
    let refs: Vec<_> = all.iter().collect();
    let none = "limits: {retry_budget: {percent: 0, least_per_second: 0}}";
    let tidegate = Shop::new("cookie").app(none).probes(rare).release("v1", &refs).start();
    let mut user = user_on(&tidegate, "a1");
    all[0].stop();
    user.get("/peek").expect_status(200); // the first retry is free
    all.iter_mut().skip(1).for_each(crate::origin::Origin::stop);
    let refused = user.get("/peek").expect_status(503);
    assert!(refused.head.field("retry-after").is_some(), "{}", refused.head.raw);
    assert_eq!(tidegate.metrics().sum("tidegate_decisions_total", &[("reason", "retry_budget")]), 1.0);
}
