//! WebSockets and event streams: nothing is held back, nothing is torn, and whoever listens has not gone away.

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use crate::client::{Call, Wire};
use crate::process::{delay, wait_for};
use crate::scenarios::{each_pin, user_on};
use crate::shop::{Shop, backend};
use crate::speaker::{Speaker, next_request};
use crate::tidegate::SOON;
use crate::websocket::{self, Frame};

const UPGRADES: usize = 20_000;
const CLIENTS: usize = 16;

#[test]
fn a_websocket_outlives_the_promotion_of_another_release_and_holds_the_old_one_open() {
    each_pin(|pin| {
        let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
        let tidegate = Shop::new(pin).session("idle_timeout: 2s").release("v1", &[&a1]).release("v2", &[&b1]).start();
        let mut user = user_on(&tidegate, "a1");
        let mut tunnel = user.websocket("/echo");
        let mut echo = |text: &str| {
            tunnel.send_text(text).unwrap();
            assert_eq!(tunnel.read_frame().unwrap(), Frame::Text(text.to_owned()), "{pin}");
        };
        echo("before");
        tidegate.cli(&["promote", "shop", "v2"]).expect_code(0);
        echo("while it drains");
        // A session whose end by silence shows that the time has passed; it cannot be on v1 any more.
        let mut silent = tidegate.browser();
        silent.get("/");
        silent.get("/");
        tidegate.wait_for_sessions("shop", "v2", 1, 0);
        tidegate.wait_for_sessions("shop", "v2", 0, 0);
        assert_eq!(tidegate.sessions("shop", "v1").live, 1, "{pin}: the tunnel keeps its session alive");
        echo("beyond the idle timeout");
        assert_eq!(user.get("/").number("counter"), 3, "{pin}");
        user.get("/logout");
        tidegate.wait_for_sessions("shop", "v1", 0, 0);
        echo("after the logout");
        assert_ne!(tidegate.release_state("shop", "v1"), "drained", "{pin}: somebody is still in there");
        tunnel.send_close().unwrap();
        tidegate.wait_for_state("shop", "v1", "drained");
    });
}

#[test]
fn no_tunnel_is_torn_when_the_backend_speaks_with_its_101() {
    let speaker = Speaker::start(|stream| {
        let (mut input, mut out) = (BufReader::new(stream.try_clone()?), stream);
        let Some(head) = next_request(&mut input, stream)? else { return Ok(()) };
        let accept = websocket::accept_value(head.field("sec-websocket-key").unwrap_or_default());
        let fields = format!("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}");
        let mut bytes = format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n\r\n").into_bytes();
        websocket::write_text(&mut bytes, "first", false)?;
        out.write_all(&bytes)?;
        // Until the client closes, so that only the proxy can tear it.
        input.read_to_end(&mut Vec::new()).map(drop)
    });
    let server = "server: {grace_period: 5s, threads: 4, access_log: null}";
    let tidegate = Shop::new("learn").patient_probes().process(server).release_of("v1", vec![speaker.line("a1")]).start();
    let (left, torn) = (AtomicUsize::new(UPGRADES), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let take = |left: usize| left.checked_sub(1);
                while left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok() {
                    if let Err(why) = upgrade_and_hear(tidegate.port()) {
                        torn.lock().unwrap().push(why.to_string());
                    }
                }
            });
        }
    });
    let torn = torn.into_inner().unwrap();
    assert!(torn.is_empty(), "{} of {UPGRADES} torn, such as {:?}", torn.len(), &torn[..torn.len().min(3)]);
}

/// A WebSocket of its own: upgrade, the first frame, close.
fn upgrade_and_hear(port: u16) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(SOON))?;
    stream.write_all(
        b"GET /ws HTTP/1.1\r\nHost: shop.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )?;
    let mut input = BufReader::new(stream);
    let head = crate::http::Head::read(&mut input)?.ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let frame = websocket::read(&mut input)?;
    if head.word(1) != "101" || frame != Frame::Text("first".to_owned()) {
        return Err(std::io::Error::other(format!("{} then {frame:?}", head.start)));
    }
    Ok(())
}

#[test]
fn each_event_arrives_when_it_is_sent() {
    let (seen, wait_until_seen) = channel::<()>();
    let wait_until_seen = Mutex::new(wait_until_seen);
    let speaker = Speaker::start(move |stream| {
        let (mut input, mut out) = (BufReader::new(stream.try_clone()?), stream);
        if next_request(&mut input, stream)?.is_none() {
            return Ok(());
        }
        out.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        for event in 0..5 {
            let text = format!("data: {event}\n\n");
            write!(out, "{:x}\r\n{text}\r\n", text.len())?;
            // The next one only when the client has this one: a proxy that gathers them would wait for ever.
            if wait_until_seen.lock().unwrap().recv_timeout(SOON).is_err() {
                return Ok(());
            }
        }
        out.write_all(b"0\r\n\r\n")
    });
    let tidegate = Shop::new("cookie").release_of("v1", vec![speaker.line("a1")]).start();
    let (_, mut events) = tidegate.browser().open(&Call::get("/events")).unwrap();
    for event in 0..5 {
        let chunk = events.read_chunk().unwrap().expect("an event");
        assert_eq!(chunk, format!("data: {event}\n\n").as_bytes());
        seen.send(()).unwrap();
    }
    assert_eq!(events.read_chunk().unwrap(), None);
}

#[test]
fn an_open_event_stream_keeps_its_session_alive() {
    each_pin(|pin| {
        let a1 = backend("v1", "a1");
        let tidegate = Shop::new(pin).session("idle_timeout: 2s").app("streaming_paths: [/events]").release("v1", &[&a1]).start();
        let mut user = user_on(&tidegate, "a1");
        let (_, mut events) = user.open(&Call::get("/events?every=50")).unwrap();
        events.read_chunk().unwrap().expect("an event");
        let _silent = user_on(&tidegate, "a1");
        tidegate.wait_for_sessions("shop", "v1", 2, 0);
        tidegate.wait_for_sessions("shop", "v1", 1, 0);
        drop(events);
        tidegate.wait_for_sessions("shop", "v1", 0, 0);
        assert_eq!(user.get("/").number("counter"), 3, "{pin}");
    });
}

#[test]
fn silence_is_cut_after_the_read_timeout_but_not_on_a_streaming_path() {
    let speaker = Speaker::start(|stream| {
        let (mut input, mut out) = (BufReader::new(stream.try_clone()?), stream);
        while next_request(&mut input, stream)?.is_some() {
            out.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")?;
            delay(Duration::from_millis(1200));
            out.write_all(b"3\r\ntwo\r\n0\r\n\r\n")?;
        }
        Ok(())
    });
    let tidegate = Shop::new("cookie")
        .app("streaming_paths: [/events]")
        .app("timeouts: {read: 300ms}")
        .release_of("v1", vec![speaker.line("a1")])
        .start();
    let both = |path: &str| -> std::io::Result<Option<Vec<u8>>> {
        let (_, mut stream) = tidegate.browser().open(&Call::get(path))?;
        assert_eq!(stream.read_chunk()?, Some(b"one".to_vec()));
        stream.read_chunk()
    };
    assert_eq!(both("/events/mine").unwrap(), Some(b"two".to_vec()));
    assert!(both("/eventsmine").is_err(), "only whole segments are a streaming path");
}

#[test]
fn a_quiet_websocket_is_not_cut_by_the_read_timeout_but_by_the_tunnel_timeout() {
    let a1 = backend("v1", "a1");
    let tidegate = Shop::new("cookie").app("timeouts: {read: 200ms, tunnel: 2s}").release("v1", &[&a1]).start();
    let mut tunnel = tidegate.browser().websocket("/echo");
    delay(Duration::from_secs(1));
    tunnel.send_text("still here").unwrap();
    assert_eq!(tunnel.read_frame().unwrap(), Frame::Text("still here".to_owned()));
    tunnel.set_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!(tunnel.read_frame().unwrap(), Frame::Closed, "silent for longer than the tunnel timeout");
}

#[test]
fn a_refused_upgrade_is_an_ordinary_answer() {
    let a1 = backend("v1", "a1");
    let tidegate = Shop::new("cookie").release("v1", &[&a1]).start();
    let mut wire = Wire::connect(tidegate.port()).unwrap();
    for _ in 0..2 {
        let fields =
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
        wire.send(format!("GET /peek HTTP/1.1\r\nHost: shop.test\r\n{fields}\r\n\r\n").as_bytes()).unwrap();
        let answer = wire.read_response("GET").unwrap().expect("an answer").expect_status(200);
        assert_eq!(answer.word("backend"), "a1");
    }
    wait_for("both exchanges have left", SOON, || tidegate.status("shop")["releases"]["v1"]["backends"]["a1"]["in_flight"] == 0);
}
