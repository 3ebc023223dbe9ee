//! `drain.tunnels`: a WebSocket or event stream that outlives its session does not hold up a drain for ever; one whose session lives is
//! left alone.

use std::io::{BufReader, Read, Write};
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crate::client::{Call, HOST, Wire};
use crate::http2::{self, Stream};
use crate::process::{delay, wait_until_equal};
use crate::scenarios::{each_pin, user_on};
use crate::shop::{Shop, backend};
use crate::speaker::{Speaker, answer_ok, next_request};
use crate::tidegate::{SOON, Tidegate};
use crate::websocket::Frame;

const PATIENCE: Duration = Duration::from_secs(1);

fn echo(tunnel: &mut Wire, text: &str) {
    tunnel.send_text(text).unwrap();
    assert_eq!(tunnel.read_frame().unwrap(), Frame::Text(text.to_owned()));
}

/// Waits until the tunnel is closed; it must have been open for nearly as long as `drain.tunnels` says.
#[track_caller]
fn expect_closed_in_time(tunnel: &mut Wire, since: Instant) {
    assert_eq!(tunnel.read_frame().unwrap(), Frame::Closed);
    assert!(since.elapsed() > PATIENCE.mul_f64(0.8), "closed after {:?}", since.elapsed());
}

/// Reads events until the stream is cut; it must not look as if it had ended by itself.
#[track_caller]
fn expect_torn(stream: &mut Wire) {
    let since = Instant::now();
    while let Ok(chunk) = stream.read_chunk() {
        assert_ne!(chunk, None, "it ended whole");
        assert!(since.elapsed() < SOON, "it is still open");
    }
}

fn closed(tidegate: &Tidegate) -> f64 {
    tidegate.metrics().sum("tidegate_tunnels_closed_total", &[("release", "v1"), ("backend", "a1")])
}

#[test]
fn a_tunnel_that_outlives_its_session_is_closed_and_the_drain_ends() {
    each_pin(|pin| {
        let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
        let tidegate =
            Shop::new(pin).session("idle_timeout: 2s").app("drain: {tunnels: 1s}").release("v1", &[&a1]).release("v2", &[&b1]).start();
        let (mut leaver, mut stayer, mut evicted) = (user_on(&tidegate, "a1"), user_on(&tidegate, "a1"), user_on(&tidegate, "a1"));
        let mut tunnels = [leaver.websocket("/echo"), stayer.websocket("/echo"), evicted.websocket("/echo")];
        let [of_leaver, of_stayer, of_evicted] = &mut tunnels;
        // Somebody without a session listens too.
        let mut of_nobody = tidegate.browser().websocket("/echo");
        evicted.get("/logout");
        delay(PATIENCE * 2);
        echo(of_evicted, "v1 serves, so nobody minds");
        tidegate.cli(&["promote", "shop", "v2"]).expect_code(0);
        // Their time has passed already.
        assert_eq!(of_evicted.read_frame().unwrap(), Frame::Closed, "{pin}");
        assert_eq!(of_nobody.read_frame().unwrap(), Frame::Closed, "{pin}");
        let left = Instant::now();
        leaver.get("/logout");
        echo(of_leaver, "for a moment yet");
        expect_closed_in_time(of_leaver, left);
        delay(PATIENCE * 2);
        echo(of_stayer, "its session lives");
        assert_eq!(tidegate.sessions("shop", "v1").live, 1, "{pin}");
        assert_eq!(stayer.get("/").word("backend"), "a1", "{pin}");
        wait_until_equal("three tunnels are counted", SOON, &3.0, || closed(&tidegate));
        let ordered = Instant::now();
        tidegate.cli(&["evict", "shop/v1"]).expect_code(0);
        expect_closed_in_time(of_stayer, ordered);
        tidegate.wait_for_state("shop", "v1", "drained");
        assert_eq!(closed(&tidegate), 4.0, "{pin}");
        let log = tidegate.read("tidegate.log");
        assert!(log.contains("shop/v1/a1: tunnels closed whose session is over: 1 (controller)"), "{pin}: {log}");
        assert!(!log.contains("ERROR"), "{pin}: {log}");
    });
}

#[test]
fn a_tunnel_is_waited_for_unless_told_otherwise() {
    let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
    let tidegate = Shop::new("cookie").session("idle_timeout: 1s").release("v1", &[&a1]).release("v2", &[&b1]).start();
    let mut user = user_on(&tidegate, "a1");
    let mut tunnel = user.websocket("/echo");
    tidegate.cli(&["promote", "shop", "v2"]).expect_code(0);
    user.get("/logout");
    tidegate.wait_for_state("shop", "v1", "fencing");
    delay(PATIENCE * 2);
    echo(&mut tunnel, "nobody closes it");
    assert_eq!(tidegate.release_state("shop", "v1"), "fencing");
    tunnel.send_close().unwrap();
    tidegate.wait_for_state("shop", "v1", "drained");
}

#[test]
fn an_event_stream_that_outlives_its_session_is_closed_and_the_drain_ends() {
    for app in ["drain: {tunnels: 1s}\n    streaming_paths: []", "drain: {tunnels: 1s}\n    streaming_paths: [/events]"] {
        let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
        let tidegate = Shop::new("cookie").session("idle_timeout: 5s").app(app).release("v1", &[&a1]).release("v2", &[&b1]).start();
        let (mut leaver, mut stayer) = (user_on(&tidegate, "a1"), user_on(&tidegate, "a1"));
        // One that speaks and one that is silent after its first event.
        let mut of_leaver = ["/events?every=50", "/events?every=60000"].map(|path| leaver.open(&Call::get(path)).unwrap().1);
        let (_, mut of_stayer) = stayer.open(&Call::get("/events?every=50")).unwrap();
        // A connection that had a stream, and serves something else by now.
        let mut kept = user_on(&tidegate, "a1");
        kept.get("/events?count=1");
        tidegate.cli(&["promote", "shop", "v2"]).expect_code(0);
        leaver.get("/logout");
        kept.get("/");
        for stream in &mut of_leaver {
            expect_torn(stream);
        }
        wait_until_equal("both are counted", SOON, &2.0, || closed(&tidegate));
        let since = Instant::now();
        while since.elapsed() < PATIENCE * 2 {
            of_stayer.read_chunk().unwrap().expect("its session lives");
            assert_eq!(kept.get("/").word("session"), "known");
        }
        kept.get("/logout");
        stayer.get("/logout");
        tidegate.wait_for_state("shop", "v1", "drained");
        assert_eq!(closed(&tidegate), 3.0);
        let log = tidegate.read("tidegate.log");
        assert!(!log.contains("ERROR") && !log.contains("panicked"), "{log}");
    }
}

#[test]
fn an_event_stream_over_http2_is_closed_at_its_next_event() {
    let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
    let shop = Shop::new("cookie").session("idle_timeout: 2s").app("drain: {tunnels: 500ms}");
    let tidegate = shop.release("v1", &[&a1]).release("v2", &[&b1]).start();
    let url = format!("http://{HOST}/events?every=50");
    let stream = Stream { method: "GET", url: &url, fields: &[], frames: &[] };
    let promote = || drop(tidegate.cli(&["promote", "shop", "v2"]).expect_code(0));
    let heard = http2::until_torn(tidegate.port(), &stream, promote).expect("torn, and not ended");
    assert!(heard.starts_with("data: 1\n"), "{heard}");
    tidegate.wait_for_state("shop", "v1", "drained");
    assert_eq!(closed(&tidegate), 1.0);
}

#[test]
fn the_backend_of_a_closed_event_stream_is_let_go_too() {
    let (ended, wait_until_ended) = channel();
    let (ended, b1) = (Mutex::new(ended), backend("v2", "b1"));
    let speaker = Speaker::start(move |stream| {
        let (mut input, mut out) = (BufReader::new(stream.try_clone()?), stream);
        while let Some(head) = next_request(&mut input, stream)? {
            if head.word(1) != "/news" {
                answer_ok(&mut out, "fine")?;
                continue;
            }
            out.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: Text/Event-Stream; charset=utf-8\r\n\r\ndata: 1\n\n")?;
            input.read_to_end(&mut Vec::new()).ok();
            ended.lock().unwrap().send(()).ok();
            return Ok(());
        }
        Ok(())
    });
    let shop = Shop::new("cookie").app("drain: {tunnels: 500ms}").release_of("v1", vec![speaker.line("a1")]).release("v2", &[&b1]);
    let tidegate = shop.start();
    let (_, mut stream) = tidegate.browser().open(&Call::get("/news")).unwrap();
    tidegate.cli(&["promote", "shop", "v2"]).expect_code(0);
    stream.read_to_end().unwrap();
    wait_until_ended.recv_timeout(SOON).expect("the backend sees the end");
}

#[test]
fn a_drain_that_evicts_closes_what_is_left_open_by_its_deadline() {
    let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
    let shop = Shop::new("cookie").session("idle_timeout: 2s").session("confirm_within: 1s");
    let tidegate = shop.release("v1", &[&a1]).release("v2", &[&b1]).start();
    // v2 drains since the start, for it may have had users; its verdict says that the ledger is believed.
    tidegate.wait_for_state("shop", "v2", "drained");
    let mut user = user_on(&tidegate, "a1");
    let mut tunnel = user.websocket("/echo");
    let (_, mut stream) = user.open(&Call::get("/events?every=50")).unwrap();
    let mut of_nobody = tidegate.browser().websocket("/echo");
    let ended = tidegate.cli(&["promote", "shop", "v2", "--then", "evict", "--timeout", "5s", "--wait"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(tunnel.read_frame().unwrap(), Frame::Closed);
    assert_eq!(of_nobody.read_frame().unwrap(), Frame::Closed);
    expect_torn(&mut stream);
    assert_eq!(closed(&tidegate), 3.0);
    let drains = tidegate.admin_get("/api/v1/drains");
    let drain = drains["drains"].as_array().and_then(|all| all.last()).expect("a drain").clone();
    assert!(drain["finished"].as_str() <= drain["deadline"].as_str(), "{drain}");
}

#[test]
fn a_websocket_whose_101_opens_the_session_keeps_it_alive() {
    let speaker = Speaker::start(|stream| {
        let (mut input, mut out) = (BufReader::new(stream.try_clone()?), stream);
        let Some(head) = next_request(&mut input, stream)? else { return Ok(()) };
        let accept = crate::websocket::accept_value(head.field("sec-websocket-key").unwrap_or_default());
        let fields =
            format!("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\nSet-Cookie: JSESSIONID=S1; Path=/");
        write!(out, "HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n\r\n")?;
        input.read_to_end(&mut Vec::new()).map(drop)
    });
    let shop = Shop::new("cookie").session("idle_timeout: 1s").session("confirm_within: 1s").app("drain: {tunnels: 500ms}");
    let tidegate = shop.release_of("v1", vec![speaker.line("a1")]).start();
    let tunnel = tidegate.browser().websocket("/ws");
    tidegate.wait_for_sessions("shop", "v1", 1, 0);
    // Longer than a newborn is waited for, and than silence is borne.
    delay(PATIENCE * 3);
    tidegate.wait_for_sessions("shop", "v1", 1, 0);
    drop(tunnel);
    tidegate.wait_for_sessions("shop", "v1", 0, 0);
}
