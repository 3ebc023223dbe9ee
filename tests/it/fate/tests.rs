//! The load tried on servers that misbehave: each kind of failure is seen, and none where there is none.

use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Fate, Kind, Plan};
use crate::client::{Browser, Call};
use crate::process::{free_port, wait_for};
use crate::shop::{Shop, backend};
use crate::speaker::{Speaker, answer_ok, next_request};
use crate::tidegate::SOON;

const KEEP: Plan = Plan { keep_alive: 1, ..SLOW };
const CLOSE: Plan = Plan { close: 1, ..SLOW };
const HTTP2: Plan = Plan { http2: 1, ..SLOW };
const TUNNEL: Plan = Plan { websockets: 1, ..SLOW };
const SLOW: Plan = Plan {
    keep_alive: 0,
    close: 0,
    http2: 0,
    websockets: 0,
    users: 1,
    think: Duration::from_millis(5),
    method: "GET",
    query: "",
    patience: Duration::from_secs(5),
};

/// The load against a server that answers each request with what `page` makes of its number, which counts from 1.
fn speak(page: impl Fn(u64, &TcpStream) -> io::Result<()> + Send + Sync + 'static) -> Speaker {
    let count = AtomicU64::new(0);
    Speaker::start(move |stream| {
        let mut input = BufReader::new(stream.try_clone()?);
        while next_request(&mut input, stream)?.is_some() {
            page(count.fetch_add(1, Ordering::SeqCst) + 1, stream)?;
        }
        Ok(())
    })
}

fn page(counter: u64, backend: &str) -> String {
    let session = if counter == 1 { "new" } else { "known" };
    format!("release=v1 backend={backend} id=x session={session} counter={counter}")
}

fn over<T>() -> io::Result<T> {
    Err(io::ErrorKind::ConnectionAborted.into())
}

#[track_caller]
fn check(port: u16, plan: Plan, expected: Kind) {
    let load = Fate::start(port, plan);
    wait_for(&format!("{expected:?} is seen"), SOON, || load.so_far().count(|kind| kind == expected) > 0);
    let report = load.stop();
    assert_eq!(report.failures[0].kind, expected, "{report}");
}

#[test]
fn each_kind_of_failure_is_told_from_the_others() {
    for plan in [KEEP, CLOSE, HTTP2] {
        check(free_port(), plan, Kind::Refused);
    }
    let silent_end = speak(|_, _| over());
    check(silent_end.port(), CLOSE, Kind::Unanswered);
    check(silent_end.port(), KEEP, Kind::Unanswered);
    let once = speak(|number, mut out| if number % 2 == 1 { answer_ok(&mut out, &page(number.div_ceil(2), "a1")) } else { over() });
    check(once.port(), KEEP, Kind::ReusedReset);
    let half = speak(|_, mut out| {
        out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nrelease=v1")?;
        over()
    });
    check(half.port(), KEEP, Kind::CutAnswer);
    let failing = speak(|_, mut out| out.write_all(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"));
    check(failing.port(), KEEP, Kind::Status(503));
    let garbage = speak(|_, mut out| out.write_all(b"220 mail.example.com ESMTP\r\n\r\n"));
    check(garbage.port(), CLOSE, Kind::Garbage);
    let foreign = speak(|_, mut out| answer_ok(&mut out, "welcome"));
    check(foreign.port(), KEEP, Kind::Garbage);
    let forgetful = speak(|_, mut out| answer_ok(&mut out, &page(1, "a1")));
    check(forgetful.port(), KEEP, Kind::NewSession);
    let twice = speak(|number, mut out| answer_ok(&mut out, &page(number * 2 - 1, "a1")));
    check(twice.port(), KEEP, Kind::WrongValue);
    let straying = speak(|number, mut out| answer_ok(&mut out, &page(number, if number > 5 { "a2" } else { "a1" })));
    check(straying.port(), KEEP, Kind::Moved);
    let mute = Speaker::start(|mut stream| stream.read(&mut [0; 1000]).and_then(|_| stream.read(&mut [0; 1])).map(drop));
    check(mute.port(), Plan { patience: Duration::from_millis(300), ..KEEP }, Kind::Silent);
}

#[test]
fn a_stream_or_tunnel_that_breaks_is_seen() {
    // The peer's preface is read and the connection ended: nothing was answered, and nothing was refused either.
    let broken = Speaker::start(|mut stream| stream.read(&mut [0; 1000]).map(drop));
    check(broken.port(), HTTP2, Kind::Unanswered);
    let a1 = backend("v1", "a1");
    let tidegate = Shop::new("cookie").release("v1", &[&a1]).start();
    a1.answer("/page", "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n");
    check(tidegate.port(), HTTP2, Kind::Status(500));
    let mut cut = backend("v1", "a1");
    let load = Fate::start(cut.port(), TUNNEL);
    wait_for("echoes", SOON, || load.so_far().echoes > 3);
    cut.stop();
    wait_for("the cut is seen", SOON, || load.so_far().count(|kind| kind == Kind::TunnelCut) == 1);
    cut.listen();
    cut.answer("/echo", "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n");
    wait_for("the refusal is seen", SOON, || load.so_far().count(|kind| kind == Kind::TunnelRefused) > 0);
}

#[test]
fn what_goes_well_is_reported_so() {
    let (a1, a2) = (backend("v1", "a1"), backend("v1", "a2"));
    let tidegate = Shop::new("cookie").release("v1", &[&a1, &a2]).start();
    for plan in [Plan { users: 3, ..Plan::mixed() }, Plan { method: "POST", ..Plan::mixed() }] {
        let load = Fate::start(tidegate.port(), plan);
        load.go_on_for(300);
        let report = load.stop();
        report.assert_clean();
        assert_eq!(report.duplicates(&[&a1, &a2]), Vec::<String>::new());
        assert!(report.tunnels == 5 && report.echoes > 0 && report.answered >= 300, "{report}");
    }
}

#[test]
fn a_request_that_arrives_twice_is_named() {
    let a1 = backend("v1", "a1");
    let load = Fate::start(a1.port(), KEEP);
    load.go_on_for(3);
    let report = load.stop();
    assert_eq!(report.duplicates(&[&a1]), Vec::<String>::new());
    let target = a1.requests()[1].head.word(1).to_owned();
    Browser::new(a1.port()).send_or_panic(Call::post(&target, ""));
    let number = target.trim_start_matches("/page?fate=").to_owned();
    assert_eq!(report.duplicates(&[&a1]), [number]);
}

#[test]
fn a_lost_request_leaves_two_right_answers_and_a_new_port_none_but_one() {
    // Every third request is counted and not answered.
    let lossy = speak(|number, mut out| if number % 3 == 0 { over() } else { answer_ok(&mut out, &page(number, "a1")) });
    let load = Fate::start(lossy.port(), CLOSE);
    load.go_on_for(20);
    let a1 = backend("v1", "a1");
    load.move_to(&[a1.port()]);
    load.go_on_for(20);
    let report = load.stop();
    assert_eq!(report.count(|kind| kind == Kind::WrongValue), 0, "{report}");
    assert_eq!(report.count(|kind| kind == Kind::NewSession), 1, "{report}");
}
