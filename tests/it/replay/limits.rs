//! What is never replayed, where a replay goes when the first choice fails, and backends that answer before they have heard all.

use std::io::{BufRead, BufReader, Write};
use std::sync::Mutex;
use std::sync::mpsc::channel;

use super::Stage;
use crate::client::{Browser, Wire};
use crate::origin::{Origin, OriginSpec};
use crate::shop::{Shop, backend};
use crate::speaker::{Speaker, next_request};
use crate::tidegate::Tidegate;
use crate::websocket::Frame;

/// A client with an id that nobody knows, whose route names `a1`.
fn stranger(tidegate: &Tidegate, id: &str) -> Browser {
    let user = tidegate.browser();
    user.jar().store("shop.test", "/", false, &format!("JSESSIONID={id}; Path=/"));
    user
}

#[test]
fn a_one_time_code_is_spent_once() {
    let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
    let shop = Shop::new("cookie").app("drain: {no_replay: [/callback]}").release("v1", &[&a1]).release("v2", &[&b1]);
    let mut stage = Stage::new(&shop, 2);
    for path in ["/callback", "/callback/github"] {
        a1.answer(path, &format!("HTTP/1.1 200 OK\r\nSet-Cookie: JSESSIONID=N{}.a1; Path=/\r\nContent-Length: 2\r\n\r\nok", path.len()));
        let mut user = stage.forgotten(&a1);
        let answer = user.get(&format!("{path}?code=1")).expect_status(200);
        assert_eq!(answer.text(), "ok");
        assert_eq!((answer.set_cookies("JSESSIONID").len(), answer.set_cookies("tidegate_shop").len()), (1, 1));
        assert_eq!(a1.requests_to(path).len(), 1);
        assert!(b1.requests_to(path).is_empty());
    }
    assert_eq!(stage.replays("new_session"), 0.0);
}

#[test]
fn a_second_answer_without_a_session_takes_the_pin_away() {
    let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
    let mut stage = Stage::new(&Shop::new("cookie").release("v1", &[&a1]).release("v2", &[&b1]), 1);
    a1.answer("/peek", "HTTP/1.1 200 OK\r\nSet-Cookie: JSESSIONID=N.a1; Path=/\r\nContent-Length: 0\r\n\r\n");
    let mut user = stage.forgotten(&a1);
    a1.clear_requests();
    let answer = user.get("/peek").expect_status(200);
    assert_eq!((answer.word("backend"), answer.set_cookies("JSESSIONID").len()), ("b1".to_owned(), 0));
    assert_eq!(user.cookie("tidegate_shop"), None);
    assert_eq!(user.get("/page").word("backend"), "b1");
    assert_eq!(a1.requests().len(), 1, "it is not asked again");
}

#[test]
fn with_nowhere_else_to_go_the_answer_at_hand_is_the_clients() {
    let (a1, mut b1) = (backend("v1", "a1"), backend("v2", "b1"));
    let mut stage = Stage::new(&Shop::new("cookie").release("v1", &[&a1]).release("v2", &[&b1]), 2);
    b1.stop();
    stage.tidegate.wait_for_backend("shop", "v2", "b1", "health", "down");
    let answer = stage.forgotten(&a1).get("/page").expect_status(200);
    assert_eq!((answer.word("backend"), answer.word("session")), ("a1".to_owned(), "new".to_owned()));
    a1.answer("/page", "HTTP/1.1 421 Misdirected Request\r\nContent-Length: 0\r\n\r\n");
    stage.forgotten(&a1).post("/page", "x").expect_status(421);
    assert_eq!(a1.requests_to("/page").len(), 4, "two at birth, two now");
    assert_eq!(stage.replays("new_session") + stage.replays("not_mine"), 0.0);
}

#[test]
fn a_full_backend_is_not_waited_for() {
    let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
    let line = format!("b1: {{address: \"{}\", max_connections: 1}}", b1.address());
    let mut stage = Stage::new(&Shop::new("cookie").release("v1", &[&a1]).release_of("v2", vec![line]), 2);
    let mut busy = stage.tidegate.browser();
    std::thread::scope(|scope| {
        scope.spawn(|| busy.get("/hold").expect_status(200));
        crate::process::wait_until_equal("b1 is full", crate::tidegate::SOON, &1, || b1.requests_to("/hold").len());
        assert_eq!(stage.forgotten(&a1).get("/page").expect_status(200).word("backend"), "a1");
        b1.let_go();
    });
    assert_eq!(stage.forgotten(&a1).get("/page").expect_status(200).word("backend"), "b1", "there is room again");
}

#[test]
fn a_second_backend_that_refuses_is_passed_over() {
    let (a1, mut b1, b2) = (backend("v1", "a1"), backend("v2", "b1"), backend("v2", "b2"));
    // Its probes do not find out.
    let shop = Shop::new("cookie").probes("interval: 1h, timeout: 1s, rise: 1, fall: 9").app("balance: round_robin");
    let mut stage = Stage::new(&shop.release("v1", &[&a1]).release("v2", &[&b1, &b2]), 2);
    b1.stop();
    for _ in 0..2 {
        let answer = stage.forgotten(&a1).get("/page").expect_status(200);
        assert_eq!((answer.word("backend"), answer.set_cookies("JSESSIONID").len()), ("b2".to_owned(), 1));
    }
    assert_eq!(stage.replays("new_session"), 2.0);
    assert!(stage.tidegate.read("tidegate.log").contains("backend shop/v2/b1: connect refused"), "it was tried");
}

#[test]
fn ids_that_the_ledger_has_forgotten_are_replaced_by_the_release_that_takes_new_sessions() {
    for (pin, id) in [("route", "GONE.a1"), ("prefix", "a1~GONE")] {
        let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
        let tidegate = Shop::new(pin).release("v1", &[&a1]).release("v2", &[&b1]).start();
        tidegate.cli(&["promote", "shop", "v2"]).expect_code(0);
        let mut user = stranger(&tidegate, id);
        let answer = user.get("/page").expect_status(200);
        assert_eq!((answer.word("backend"), answer.set_cookies("JSESSIONID").len()), ("b1".to_owned(), 1), "{pin}");
        assert_eq!(a1.requests_to("/page").len(), 1, "{pin}: it was asked first");
        assert_eq!(b1.requests_to("/page")[0].head.field("cookie"), None, "{pin}");
        assert_eq!(user.get("/page").word("session"), "known", "{pin}");
        // The access log and the metric say why.
        let metrics = tidegate.metrics();
        assert_eq!(metrics.sum("tidegate_decisions_total", &[("reason", "replayed")]), 1.0, "{pin}");
        assert_eq!(metrics.sum("tidegate_decisions_total", &[("reason", "returned")]), 0.0, "{pin}: a decision that did not last is none");
    }
}

#[test]
fn a_dead_id_in_the_path_does_not_come_along() {
    let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
    let tidegate = Shop::new("route").release("v1", &[&a1]).release("v2", &[&b1]).start();
    tidegate.cli(&["promote", "shop", "v2"]).expect_code(0);
    let answer = tidegate.browser().get("/page;jsessionid=GONE.a1?x=1").expect_status(200);
    assert_eq!(answer.word("backend"), "b1");
    assert_eq!(a1.requests()[0].head.word(1), "/page;jsessionid=GONE.a1?x=1");
    assert_eq!(b1.requests()[0].head.word(1), "/page?x=1");
}

#[test]
fn many_at_once_are_each_replayed_once() {
    let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
    let tidegate = Shop::new("route").release("v1", &[&a1]).release("v2", &[&b1]).start();
    tidegate.cli(&["promote", "shop", "v2"]).expect_code(0);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let tidegate = &tidegate;
            scope.spawn(move || {
                for nth in 0..40 {
                    let mut user = stranger(tidegate, &format!("GONE{thread}x{nth}.a1"));
                    let answer = user.get("/page").expect_status(200);
                    assert_eq!((answer.word("backend"), answer.set_cookies("JSESSIONID").len()), ("b1".to_owned(), 1));
                }
            });
        }
    });
    assert_eq!(tidegate.metrics().sum("tidegate_replays_total", &[("cause", "new_session")]), 320.0);
    assert_eq!((a1.requests_to("/page").len(), b1.requests_to("/page").len()), (320, 320));
    assert_eq!(tidegate.metrics().sum("tidegate_backend_in_flight", &[]), 0.0);
    assert_eq!(tidegate.sessions("shop", "v1").unconfirmed, 0);
}

/// A body under way when the answer comes: what was read so far counts, not how long it is.
#[test]
fn an_early_answer_is_discarded_while_the_body_fits_the_buffer() {
    for (heard, replayed) in [(0, true), (30_000, true), (64_000, true), (70_000, false)] {
        let (answered, is_answered) = channel();
        let answered = Mutex::new(answered);
        let speaker = Speaker::start(move |stream| {
            let (mut input, mut out) = (BufReader::new(stream.try_clone()?), stream);
            if next_request(&mut input, stream)?.is_some() {
                let mut left = heard;
                while left > 0 {
                    let read = input.fill_buf()?.len().min(left);
                    if read == 0 {
                        return Ok(());
                    }
                    input.consume(read);
                    left -= read;
                }
                out.write_all(b"HTTP/1.1 421 Misdirected Request\r\nContent-Length: 0\r\n\r\n")?;
                answered.lock().unwrap().send(()).ok();
                // Stays until the proxy has had enough.
                while !input.fill_buf()?.is_empty() {
                    let read = input.buffer().len();
                    input.consume(read);
                }
            }
            Ok(())
        });
        let b1 = backend("v2", "b1");
        let tidegate = Shop::new("route").release_of("v1", vec![speaker.line("a1")]).release("v2", &[&b1]).start();
        tidegate.cli(&["promote", "shop", "v2"]).expect_code(0);
        let mut wire = Wire::connect(tidegate.port()).unwrap();
        let body = "0123456789".repeat(20_000);
        let head =
            format!("POST /page HTTP/1.1\r\nHost: shop.test\r\nCookie: JSESSIONID=GONE.a1\r\nContent-Length: {}\r\n\r\n", body.len());
        wire.send(head.as_bytes()).unwrap();
        wire.send(&body.as_bytes()[..heard]).unwrap();
        is_answered.recv().unwrap();
        if replayed {
            let replays = || tidegate.metrics().sum("tidegate_replays_total", &[("cause", "not_mine")]);
            crate::process::wait_until_equal("it is sent once more", crate::tidegate::SOON, &1.0, replays);
            wire.send(&body.as_bytes()[heard..]).unwrap();
        }
        let answer = wire.read_response("POST").unwrap().unwrap_or_else(|| panic!("{heard}: no answer"));
        if replayed {
            assert_eq!(answer.expect_status(200).word("backend"), "b1", "{heard}");
            assert!(b1.requests_to("/page")[0].body == body.as_bytes(), "{heard}: the buffer and the rest");
        } else {
            assert_eq!(answer.status, 421, "{heard}");
            assert!(b1.requests_to("/page").is_empty(), "{heard}");
        }
    }
}

#[test]
fn an_interim_answer_that_was_passed_on_does_not_bind_the_client() {
    let (seen, is_seen) = channel();
    let is_seen = Mutex::new(is_seen);
    let speaker = Speaker::start(move |stream| {
        let (mut input, mut out) = (BufReader::new(stream.try_clone()?), stream);
        if next_request(&mut input, stream)?.is_some() {
            out.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")?;
            is_seen.lock().unwrap().recv().ok();
            out.write_all(b"HTTP/1.1 421 Misdirected Request\r\nContent-Length: 0\r\n\r\n")?;
        }
        Ok(())
    });
    let b1 = backend("v2", "b1");
    let tidegate = Shop::new("route").release_of("v1", vec![speaker.line("a1")]).release("v2", &[&b1]).start();
    tidegate.cli(&["promote", "shop", "v2"]).expect_code(0);
    let mut wire = Wire::connect(tidegate.port()).unwrap();
    wire.send(b"POST /page HTTP/1.1\r\nHost: shop.test\r\nCookie: JSESSIONID=GONE.a1\r\nContent-Length: 2\r\n\r\nhi").unwrap();
    let interim = wire.read_head().unwrap().expect("an interim answer");
    assert_eq!(interim.word(1), "103", "{}", interim.raw);
    seen.send(()).unwrap();
    let answer = wire.read_response("POST").unwrap().expect("an answer").expect_status(200);
    assert_eq!((answer.word("backend"), answer.set_cookies("JSESSIONID").len()), ("b1".to_owned(), 1));
}

#[test]
fn a_tunnel_opens_where_new_clients_go() {
    let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
    a1.answer("/echo", "HTTP/1.1 421 Misdirected Request\r\nContent-Length: 0\r\n\r\n");
    let tidegate = Shop::new("route").release("v1", &[&a1]).release("v2", &[&b1]).start();
    tidegate.cli(&["promote", "shop", "v2"]).expect_code(0);
    let mut tunnel = stranger(&tidegate, "GONE.a1").websocket("/echo");
    tunnel.send_text("hello").unwrap();
    assert_eq!(tunnel.read_frame().unwrap(), Frame::Text("hello".to_owned()));
    assert_eq!((a1.requests_to("/echo").len(), b1.requests_to("/echo").len()), (1, 1));
}

#[test]
fn while_servers_restart_one_by_one_the_same_release_takes_over() {
    let (a1, a2, b1) = (backend("v1", "a1"), backend("v1", "a2"), backend("v2", "b1"));
    let tidegate = Shop::new("route").release("v1", &[&a1, &a2]).release("v2", &[&b1]).start();
    tidegate.cli(&["drain", "shop/v1/a1"]).expect_code(0);
    for _ in 0..4 {
        assert_eq!(stranger(&tidegate, "GONE.a1").get("/page").expect_status(200).word("backend"), "a2");
    }
    assert_eq!(a1.requests_to("/page").len(), 4);
}

#[test]
fn the_second_backend_gets_its_own_path() {
    let at = |release: &str, name: &str, prefix: &str| {
        let spec = OriginSpec { prefix: prefix.to_owned(), cookie_path: prefix.to_owned(), ..OriginSpec::new(release, name).with_route() };
        Origin::start(spec)
    };
    let (a1, b1) = (at("v1", "a1", "/shop-v1"), at("v2", "b1", "/shop-v2"));
    // Neither release has a page at the probed path; that they answer is enough.
    let shop = Shop::new("route").below("/shop").health("ready: [200-499]");
    let shop = shop.release("v1", &[&a1]).at_path("/shop-v1").release("v2", &[&b1]).at_path("/shop-v2");
    let tidegate = shop.start();
    tidegate.cli(&["promote", "shop", "v2"]).expect_code(0);
    let answer = stranger(&tidegate, "GONE.a1").get("/shop/page?x=1").expect_status(200);
    assert_eq!(answer.word("backend"), "b1");
    assert!(answer.set_cookies("JSESSIONID")[0].contains("Path=/shop;"), "{:?}", answer.set_cookies("JSESSIONID"));
    let asked = |origin: &Origin| origin.requests().iter().map(|r| r.head.word(1).to_owned()).find(|target| target.contains("page"));
    assert_eq!((asked(&a1).as_deref(), asked(&b1).as_deref()), (Some("/shop-v1/page?x=1"), Some("/shop-v2/page?x=1")));
}
