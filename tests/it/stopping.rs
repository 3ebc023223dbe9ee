//! SIGTERM: nobody is cut who is under way, nobody is waited for who is idle.

use std::io::{BufReader, Write};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::client::{Browser, Call, Wire};
use crate::fate::{Fate, Kind, Plan};
use crate::http2;
use crate::process::{delay, wait_for, wait_until_equal};
use crate::scenarios::user_on;
use crate::shop::{Shop, backend};
use crate::speaker::{Speaker, next_request};
use crate::tidegate::{SOON, Tidegate};
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
        let mut idle = tidegate.browser();
        idle.get("/");
        let asked = Instant::now();
        tidegate.signal(signal);
        assert!(tidegate.wait_for_end().success(), "{signal:?}");
        println!("{signal:?} with one idle connection: ended after {:?}", asked.elapsed());
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

#[test]
fn a_tunnel_that_nobody_closes_is_cut_at_the_end_of_the_grace_period() {
    let a1 = backend("v1", "a1");
    let mut tidegate = Shop::new("cookie").process("server: {grace_period: 2s, threads: 2}").release("v1", &[&a1]).start();
    let mut tunnel = user_on(&tidegate, "a1").websocket("/echo");
    let asked = Instant::now();
    tidegate.signal(Signal::TERM);
    while asked.elapsed() < Duration::from_secs(1) {
        tunnel.send_text("more").unwrap();
        assert_eq!(tunnel.read_frame().unwrap(), Frame::Text("more".to_owned()));
    }
    assert!(tunnel.read_to_end().is_ok_and(|rest| rest.is_empty()));
    assert!(asked.elapsed() >= Duration::from_secs(2), "{:?}", asked.elapsed());
    assert!(tidegate.wait_for_end().success());
    assert!(tidegate.read("tidegate.log").contains("1 connections were cut"), "{}", tidegate.read("tidegate.log"));
}

/// A backend whose every answer is so long that it fills all buffers on the way.
fn long_answers() -> Speaker {
    Speaker::start(|mut stream| {
        let mut input = BufReader::new(stream.try_clone()?);
        while next_request(&mut input, stream)?.is_some() {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {LONG}\r\n\r\n")?;
            stream.write_all(&vec![b'x'; LONG])?;
        }
        Ok(())
    })
}

const LONG: usize = 16 << 20;

#[test]
fn a_slow_reader_gets_the_whole_answer() {
    let speaker = long_answers();
    let shop = Shop::new("cookie").process(PATIENT).release_of("v1", vec![speaker.line("a1")]);
    let mut tidegate = shop.start();
    let (_, mut slow) = tidegate.browser().open(&Call::get("/long")).unwrap();
    tidegate.signal(Signal::TERM);
    wait_until_refused(&tidegate);
    delay(Duration::from_secs(1)); // longer than the linger: a buffer that was forgotten is gone by now
    assert_eq!(slow.read_to_end().unwrap().len(), LONG);
    assert!(tidegate.wait_for_end().success());
    let mut tidegate = shop.start();
    let stream = http2::Stream { method: "GET", url: "http://shop.test/long", fields: &[], frames: &[] };
    let came = http2::until_torn(tidegate.port(), &stream, || {
        tidegate.signal(Signal::TERM);
        wait_until_refused(&tidegate);
        delay(Duration::from_secs(1));
    });
    assert_eq!(came, None, "the stream was whole");
    assert!(tidegate.wait_for_end().success());
    assert!(tidegate.read("tidegate.log").contains("nothing was cut"));
}

fn wait_until_refused(tidegate: &Tidegate) {
    wait_for("new clients are refused", SOON, || Wire::connect(tidegate.port()).is_err());
}

#[test]
fn http2_is_told_to_go_and_no_stream_breaks() {
    let a1 = backend("v1", "a1");
    let mut tidegate = Shop::new("cookie").process(PATIENT).release("v1", &[&a1]).start();
    let load = Fate::start(tidegate.port(), Plan { http2: 8, query: "&ms=50", ..Plan::default() });
    load.go_on_for(20);
    tidegate.signal(Signal::TERM);
    assert!(tidegate.wait_for_end().success());
    // Whoever comes later finds nobody; whoever was there is answered, or told that nothing was done.
    let report = load.stop();
    assert_eq!(report.count(|kind| kind != Kind::Refused), 0, "{report}");
}

#[test]
fn a_lame_duck_is_not_ready_and_serves_as_before() {
    let a1 = backend("v1", "a1");
    let mut tidegate = Shop::new("cookie").process("server: {lame_duck: 8s, threads: 2}").release("v1", &[&a1]).start();
    let admin = |path: &str| tidegate.admin(Call::get(path)).status;
    assert_eq!((admin("/readyz"), admin("/healthz"), stopping(&tidegate)), (200, 200, false));
    let mut kept = tidegate.browser();
    kept.get("/");
    let load = Fate::start(tidegate.port(), Plan { think: Duration::from_millis(30), ..Plan::mixed() });
    load.go_on_for(50);
    let asked = Instant::now();
    tidegate.signal(Signal::TERM);
    wait_until_equal("it is not ready", SOON, &503, || admin("/readyz"));
    load.go_on_for(50);
    assert_eq!((admin("/healthz"), stopping(&tidegate)), (200, true));
    for answer in [kept.get("/"), Browser::new(tidegate.port()).get("/")] {
        assert!(!answer.expect_status(200).head.says("connection", "close"));
    }
    let report = load.stop();
    assert!(asked.elapsed() < Duration::from_secs(8), "too slow a machine for this test: {:?}", asked.elapsed());
    report.assert_clean();
    wait_until_refused(&tidegate);
    assert!(asked.elapsed() >= Duration::from_secs(8), "{:?}", asked.elapsed());
    assert!(tidegate.wait_for_end().success());
    assert!(asked.elapsed() < Duration::from_secs(8) + AT_ONCE, "{:?}", asked.elapsed());
    assert!(tidegate.read("tidegate.log").contains("accepting for another 8s"));
}

fn stopping(tidegate: &Tidegate) -> bool {
    tidegate.admin_get("/api/v1/status")["stopping"].as_bool().expect("a flag")
}

#[test]
fn the_operator_is_answered_while_the_last_exchange_lasts() {
    let a1 = backend("v1", "a1");
    let mut tidegate = Shop::new("cookie").process(PATIENT).release("v1", &[&a1]).start();
    let mut slow = user_on(&tidegate, "a1");
    let held = std::thread::spawn(move || slow.get("/hold"));
    wait_until_equal("the slow request is under way", SOON, &1, || a1.requests_to("/hold").len());
    tidegate.signal(Signal::TERM);
    wait_until_refused(&tidegate);
    assert!(stopping(&tidegate));
    assert!(tidegate.cli(&["status"]).expect_code(0).stdout.starts_with("stopping: "));
    assert_eq!(tidegate.admin(Call::get("/readyz")).expect_status(503).text(), "stopping\n");
    a1.let_go();
    held.join().unwrap().expect_status(200);
    assert!(tidegate.wait_for_end().success());
}

#[test]
fn a_second_signal_does_not_wait_for_the_lame_duck() {
    let a1 = backend("v1", "a1");
    let mut tidegate = Shop::new("cookie").process("server: {lame_duck: 1h}").release("v1", &[&a1]).start();
    tidegate.signal(Signal::TERM);
    wait_for("the stop has begun", SOON, || stopping(&tidegate));
    tidegate.browser().get("/").expect_status(200);
    tidegate.signal(Signal::QUIT);
    assert_eq!(tidegate.wait_for_end().code(), Some(1));
}
