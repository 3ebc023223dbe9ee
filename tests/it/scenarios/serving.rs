//! Backends that restart, pause, drain by themselves or take no new users, and the sessions on them.

use crate::client::Call;
use crate::process::wait_for;
use crate::scenarios::{each_pin, of_pins, user_on};
use crate::shop::{Shop, backend};
use crate::tidegate::SOON;

#[test]
fn a_restart_under_the_same_name_gives_the_new_id_on_the_first_response() {
    each_pin(|pin| {
        let mut a1 = backend("v1", "a1");
        let tidegate = Shop::new(pin).release("v1", &[&a1]).start();
        let mut user = user_on(&tidegate, "a1");
        let before = user.cookie("JSESSIONID");
        a1.stop();
        tidegate.wait_for_backend("shop", "v1", "a1", "health", "down");
        a1.restart();
        tidegate.wait_for_backend("shop", "v1", "a1", "health", "up");
        let answer = user.get("/").expect_status(200);
        assert_eq!(answer.word("session"), "new", "{pin}");
        assert_eq!(answer.set_cookies("JSESSIONID").len(), 1, "{pin}: {}", answer.head.raw);
        assert_ne!(user.cookie("JSESSIONID"), before, "{pin}: the browser has the new id");
        let again = user.get("/");
        assert_eq!((again.word("session").as_str(), again.number("counter")), ("known", 2), "{pin}");
        tidegate.wait_for_sessions("shop", "v1", 1, 0);
    });
}

#[test]
fn a_network_that_comes_back_costs_no_session() {
    each_pin(|pin| {
        let mut a1 = backend("v1", "a1");
        let a2 = backend("v1", "a2");
        let tidegate = Shop::new(pin).release("v1", &[&a1, &a2]).start();
        let mut user = user_on(&tidegate, "a1");
        a1.stop();
        tidegate.wait_for_backend("shop", "v1", "a1", "health", "down");
        // Temporary failover: another backend answers, without making a session.
        assert_eq!(user.get("/peek").expect_status(200).word("backend"), "a2", "{pin}");
        a1.listen();
        tidegate.wait_for_backend("shop", "v1", "a1", "health", "up");
        let back = user.get("/");
        assert_eq!((back.word("backend").as_str(), back.number("counter")), ("a1", 3), "{pin}");
    });
}

#[test]
fn with_only_draining_backends_new_users_are_served_and_no_pin_is_lost() {
    each_pin(|pin| {
        let (a1, a2) = (backend("v1", "a1"), backend("v1", "a2"));
        let tidegate = Shop::new(pin).health("ready: [200], drain: [503]").release("v1", &[&a1, &a2]).start();
        let mut known = [user_on(&tidegate, "a1"), user_on(&tidegate, "a2")];
        for (origin, name) in [(&a1, "a1"), (&a2, "a2")] {
            origin.set_health(503);
            tidegate.wait_for_backend("shop", "v1", name, "health", "draining");
            origin.clear_requests();
        }
        let mut sent = 0;
        for round in 0..10 {
            for (user, home) in known.iter_mut().zip(["a1", "a2"]) {
                let answer = user.get("/");
                let seen = (answer.word("backend"), answer.number("counter"));
                assert_eq!(seen, (home.to_owned(), 3 + round), "{pin}");
            }
            let mut newcomer = tidegate.browser();
            let first = newcomer.get("/").expect_status(200);
            let again = newcomer.get("/");
            assert_eq!(first.word("backend"), again.word("backend"), "{pin}");
            assert_eq!(again.number("counter"), 2, "{pin}");
            sent += 4;
        }
        let arrived = a1.requests().len() + a2.requests().len();
        assert_eq!(arrived, sent, "{pin}: nothing is tried twice");
    });
}

#[test]
fn with_only_draining_backends_new_users_are_refused_if_so_configured() {
    let a1 = backend("v1", "a1");
    let tidegate = Shop::new("cookie").app("when_all_draining: refuse").health("ready: [200], drain: [503]").release("v1", &[&a1]).start();
    let mut known = user_on(&tidegate, "a1");
    a1.set_health(503);
    tidegate.wait_for_backend("shop", "v1", "a1", "health", "draining");
    a1.clear_requests();
    let refused = tidegate.browser().get("/").expect_status(503);
    assert!(refused.head.field("retry-after").is_some(), "{}", refused.head.raw);
    assert!(a1.requests().is_empty());
    assert_eq!(known.get("/").number("counter"), 3);
    a1.set_health(200);
    tidegate.wait_for_backend("shop", "v1", "a1", "health", "up");
    tidegate.browser().get("/").expect_status(200);
}

#[test]
fn weight_zero_takes_no_new_sessions_and_keeps_pins() {
    // The modes whose pins need no ledger: the process is restarted with the new weight.
    of_pins(&["cookie", "route", "prefix"], |pin| {
        let (a1, a2) = (backend("v1", "a1"), backend("v1", "a2"));
        let shop = Shop::new(pin);
        let mut tidegate = shop.clone().release("v1", &[&a1, &a2]).start();
        let mut known = user_on(&tidegate, "a2");
        assert!(tidegate.stop().success(), "{pin}: SIGTERM");
        let weighted = shop.weighted_release("v1", &[(&a1, 1), (&a2, 0)]);
        tidegate.write_config(&weighted.yaml());
        tidegate.start_again();
        for name in ["a1", "a2"] {
            tidegate.wait_for_backend("shop", "v1", name, "health", "up");
        }
        for _ in 0..10 {
            assert_eq!(tidegate.browser().get("/").word("backend"), "a1", "{pin}: new users");
        }
        for counter in 3..6 {
            let answer = known.get("/");
            let seen = (answer.word("backend"), answer.number("counter"));
            assert_eq!(seen, ("a2".to_owned(), counter), "{pin}");
        }
    });
}

#[test]
fn a_paused_backend_makes_known_users_wait_and_loses_none() {
    each_pin(|pin| {
        let (a1, a2) = (backend("v1", "a1"), backend("v1", "a2"));
        let tidegate = Shop::new(pin).release("v1", &[&a1, &a2]).start();
        let mut user = user_on(&tidegate, "a1");
        a1.pause();
        tidegate.wait_for_backend("shop", "v1", "a1", "health", "stalled");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| user.get("/"));
            wait_for("the known user's request has arrived", SOON, || a1.requests_to("/").len() == 3);
            for _ in 0..6 {
                let newcomer = tidegate.browser().get("/");
                assert_eq!(newcomer.word("backend"), "a2", "{pin}: new users go elsewhere");
            }
            assert!(!waiting.is_finished(), "{pin}: the known user was to wait");
            a1.resume();
            let answer = waiting.join().unwrap();
            assert_eq!((answer.word("backend").as_str(), answer.number("counter")), ("a1", 3));
        });
    });
}

#[test]
fn tunnels_and_streams_are_pinned_and_keep_their_session_alive() {
    each_pin(|pin| {
        let (a1, a2) = (backend("v1", "a1"), backend("v1", "a2"));
        let tidegate = Shop::new(pin).session("idle_timeout: 2s").app("streaming_paths: [/events]").release("v1", &[&a1, &a2]).start();
        for (home, origin) in [("a1", &a1), ("a2", &a2)] {
            let mut user = user_on(&tidegate, home);
            let mut tunnel = user.websocket("/echo");
            tunnel.send_text("hello").unwrap();
            let echoed = crate::websocket::Frame::Text("hello".to_owned());
            assert_eq!(tunnel.read_frame().unwrap(), echoed);
            let (_, mut events) = user.open(&Call::get("/events?count=2&every=1")).unwrap();
            while events.read_chunk().unwrap().is_some() {}
            let arrived = (origin.requests_to("/echo").len(), origin.requests_to("/events").len());
            assert_eq!(arrived, (1, 1), "{pin}: not where the session is");
            // Somebody whose session ends by silence shows that the time has passed.
            let _silent = user_on(&tidegate, "a2");
            assert_eq!(tidegate.sessions("shop", "v1").live, 2, "{pin}");
            tidegate.wait_for_sessions("shop", "v1", 1, 0);
            tunnel.send_close().unwrap();
            tidegate.wait_for_sessions("shop", "v1", 0, 0);
        }
    });
}
