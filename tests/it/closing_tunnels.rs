//! `drain.tunnels`: a WebSocket that outlives its session does not hold up a drain for ever; one whose session lives is left alone.

use std::time::{Duration, Instant};

use crate::client::Wire;
use crate::process::{delay, wait_until_equal};
use crate::scenarios::{each_pin, user_on};
use crate::shop::{Shop, backend};
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
