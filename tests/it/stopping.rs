//! SIGTERM: nobody is cut who is under way, nobody is waited for who is idle.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::client::{Call, Wire};
use crate::process::{wait_for, wait_until_equal};
use crate::scenarios::user_on;
use crate::shop::{Shop, backend};
use crate::tidegate::SOON;
use crate::websocket::Frame;

const PATIENT: &str = "server: {grace_period: 30s, threads: 2}";
/// A stop that lasts longer than this has waited for something that was not there.
const AT_ONCE: Duration = Duration::from_secs(5);

#[test]
fn a_stop_lets_all_finish_and_ends_with_the_last_of_them() {
    let a1 = backend("v1", "a1");
    let mut tidegate = Shop::new("cookie").process(PATIENT).release("v1", &[&a1]).start();
    let mut slow = user_on(&tidegate, "a1");
    let mut tunnel = user_on(&tidegate, "a1").websocket("/echo");
    let mut idle = Wire::connect(tidegate.port()).unwrap();
    idle.send(b"GET /peek HTTP/1.1\r\nHost: shop.test\r\n\r\n").unwrap();
    idle.read_response("GET").unwrap().unwrap().expect_status(200);
    let mut untouched = Wire::connect(tidegate.port()).unwrap();
    let (_, mut events) = tidegate.browser().open(&Call::get("/events?count=40&every=50")).unwrap();
    events.read_chunk().unwrap().expect("an event");
    let held = std::thread::spawn(move || slow.get("/hold"));
    wait_until_equal("the slow request is under way", SOON, &1, || a1.requests_to("/hold").len());
    tidegate.signal(Signal::TERM);
    assert_eq!(idle.read_to_end().unwrap(), b"", "an idle connection is closed in peace");
    assert_eq!(untouched.read_to_end().unwrap(), b"");
    assert!(Wire::connect(tidegate.port()).is_err(), "nobody new");
    tunnel.send_text("still here").unwrap();
    assert_eq!(tunnel.read_frame().unwrap(), Frame::Text("still here".to_owned()));
    let mut more = 0;
    while events.read_chunk().unwrap().is_some() {
        more += 1;
    }
    assert_eq!(more, 39, "the stream is whole");
    assert!(!held.is_finished());
    a1.let_go();
    let answer = held.join().unwrap().expect_status(200);
    assert_eq!(answer.word("session"), "known");
    assert!(answer.head.says("connection", "close"), "{}", answer.head.raw);
    tunnel.send_text("last words").unwrap();
    assert_eq!(tunnel.read_frame().unwrap(), Frame::Text("last words".to_owned()));
    tunnel.send_close().unwrap();
    assert_eq!(tunnel.read_frame().unwrap(), Frame::Closed);
    let last = Instant::now();
    assert!(tidegate.wait_for_end().success());
    assert!(last.elapsed() < AT_ONCE, "it waited {:?} for nobody", last.elapsed());
    assert!(tidegate.read("tidegate.log").contains("nothing was cut"));
}

#[test]
fn without_anybody_a_stop_is_immediate() {
    let a1 = backend("v1", "a1");
    for signal in [Signal::TERM, Signal::QUIT, Signal::INT] {
        let mut tidegate = Shop::new("cookie").process(PATIENT).release("v1", &[&a1]).start();
        tidegate.browser().get("/");
        let asked = Instant::now();
        tidegate.signal(signal);
        assert!(tidegate.wait_for_end().success(), "{signal:?}");
        assert!(asked.elapsed() < AT_ONCE, "{signal:?}: {:?}", asked.elapsed());
    }
}

#[test]
fn a_second_signal_stops_at_once() {
    let a1 = backend("v1", "a1");
    let mut tidegate = Shop::new("cookie").process(PATIENT).release("v1", &[&a1]).start();
    let mut slow = user_on(&tidegate, "a1");
    let held = std::thread::spawn(move || slow.send(Call::get("/hold")));
    wait_until_equal("the slow request is under way", SOON, &1, || a1.requests_to("/hold").len());
    tidegate.signal(Signal::TERM);
    wait_for("the stop has begun", SOON, || tidegate.read("tidegate.log").contains("exchanges under way may finish"));
    assert!(!held.is_finished());
    let asked = Instant::now();
    tidegate.signal(Signal::TERM);
    let status = tidegate.wait_for_end();
    assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
    assert_eq!(status.code(), Some(1));
    assert!(held.join().unwrap().is_err(), "it was cut, and the client can tell");
}

#[test]
fn the_grace_period_is_the_longest_wait() {
    let a1 = backend("v1", "a1");
    let mut tidegate = Shop::new("cookie").process("server: {grace_period: 1s, threads: 2}").release("v1", &[&a1]).start();
    let mut slow = user_on(&tidegate, "a1");
    let held = std::thread::spawn(move || slow.send(Call::get("/hold")));
    wait_until_equal("the slow request is under way", SOON, &1, || a1.requests_to("/hold").len());
    tidegate.signal(Signal::TERM);
    tidegate.wait_for_end();
    assert!(held.join().unwrap().is_err());
    assert!(tidegate.read("tidegate.log").contains("1 exchanges on 1 connections were cut"), "{}", tidegate.read("tidegate.log"));
}
