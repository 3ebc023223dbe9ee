//! Commands that wait, and their exit codes: what a script or a person at a terminal learns of a drain.
//!
//! Every one of them only watches: the tests let go of a command in the middle, and the drain must not care.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::client::{Browser, Call};
use crate::origin::Origin;
use crate::process::{Process, wait_for};
use crate::scenarios::user_on;
use crate::shop::{Shop, backend};
use crate::tidegate::{SOON, Tidegate};

/// v1 (a1) is current, v2 (b1) is ready.
fn two_releases(a1: &Origin, b1: &Origin, idle_timeout: &str) -> Tidegate {
    let shop = Shop::new("cookie").session(&format!("idle_timeout: {idle_timeout}")).session("confirm_within: 1s");
    shop.release("v1", &[a1]).release("v2", &[b1]).start()
}

/// The same, and one idle timeout has passed: the ledger is believed.
fn seasoned(a1: &Origin, b1: &Origin) -> Tidegate {
    let tidegate = two_releases(a1, b1, "3s");
    // It drains since the start, for it may have had users.
    tidegate.wait_for_state("shop", "v2", "drained");
    tidegate
}

/// Clicks until a command in the background has written these words.
fn click_until(user: &mut Browser, tidegate: &Tidegate, command: &str, words: &str) {
    wait_for(&format!("{command} says {words:?}"), SOON, || {
        user.get("/").expect_status(200);
        tidegate.read(&format!("{command}.log")).contains(words)
    });
}

fn ends_with(mut command: Process, code: i32) {
    let ended = command.wait(SOON);
    assert_eq!(ended.code(), Some(code), "{}", command.log_tail());
}

/// The number of the latest drain.
fn latest(tidegate: &Tidegate) -> String {
    let drains = tidegate.admin_get("/api/v1/drains");
    drains["drains"].as_array().and_then(|all| all.last()).and_then(|drain| drain["id"].as_str()).expect("a drain").to_owned()
}

#[test]
fn whoever_stops_waiting_is_told_how_to_come_back_and_the_drain_goes_on() {
    let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
    let tidegate = seasoned(&a1, &b1);
    let mut user = user_on(&tidegate, "a1");
    let mut first = tidegate.cli_in_background("first", &["promote", "shop", "v2", "--wait"]);
    click_until(&mut user, &tidegate, "first", "1 of 1 left");
    first.signal(Signal::INT);
    assert_eq!(first.wait(SOON).code(), Some(130), "{}", first.log_tail());
    let said = tidegate.read("first.log");
    let again = said.lines().find_map(|line| line.strip_prefix("no longer waiting; the drain goes on. To attach again: tidegate "));
    let again: Vec<&str> = again.unwrap_or_else(|| panic!("how to attach again: {said}")).split(' ').collect();
    assert_eq!((again[0], again[1]), ("wait", latest(&tidegate).as_str()));

    let mut second = tidegate.cli_in_background("second", &again);
    click_until(&mut user, &tidegate, "second", "1 of 1 left");
    assert_eq!(tidegate.release_state("shop", "v1"), "draining", "nobody's waiting was needed");
    second.signal(Signal::INT);
    assert_eq!(second.wait(SOON).code(), Some(130), "{}", second.log_tail());

    let third = tidegate.cli_in_background("third", &again);
    click_until(&mut user, &tidegate, "third", "1 of 1 left");
    user.get("/logout").expect_status(200);
    ends_with(third, 0);
    let said = tidegate.read("third.log");
    assert!(said.ends_with("shop/v1 is drained and fenced: 1 logged out\n"), "{said}");
    assert_eq!(said.lines().count(), 2, "one line a minute, and the last word: {said}");
    assert_eq!(tidegate.release_state("shop", "v1"), "drained");
    tidegate.cli(&again).expect_code(0);
}

#[test]
fn on_a_terminal_a_bar_is_drawn_over_itself_until_it_is_full() {
    let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
    let tidegate = seasoned(&a1, &b1);
    let mut users = [user_on(&tidegate, "a1"), user_on(&tidegate, "a1")];
    let wide = tidegate.cli_on_terminal("wide", 300, &["promote", "shop", "v2", "--wait"]);
    let [first, second] = &mut users;
    click_until(first, &tidegate, "wide", "[--------------------]   0%  2 of 2 left");
    let unsized_one = tidegate.cli_on_terminal("unsized", 0, &["wait", &latest(&tidegate)]);
    wait_for("both stay while one leaves", SOON, || {
        first.get("/").expect_status(200);
        second.get("/logout");
        tidegate.sessions("shop", "v1").live == 1
    });
    click_until(first, &tidegate, "wide", "[##########----------]  50%  1 of 2 left");
    // Where the width is unknown a line is broken at 80 columns, not cut to nothing.
    click_until(first, &tidegate, "unsized", "1 of 2 left");
    first.get("/logout");
    ends_with(wide, 0);
    ends_with(unsized_one, 0);
    let said = tidegate.read("wide.log");
    assert!(said.matches("\x1b[1A\x1b[J").count() >= 2, "each look is drawn over the last: {said:?}");
    assert!(said.contains("shop/v1 is drained and fenced: 2 logged out"), "{said:?}");
}

#[test]
fn a_status_that_is_watched_shows_drains_as_they_go() {
    let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
    let tidegate = seasoned(&a1, &b1);
    let mut user = user_on(&tidegate, "a1");
    tidegate.cli(&["promote", "shop", "v2"]).expect_code(0);
    let mut watching = tidegate.cli_on_terminal("watching", 200, &["status", "--watch"]);
    click_until(&mut user, &tidegate, "watching", "[--------------------]   0%  1 of 1 left");
    assert!(tidegate.read("watching.log").contains("at most "), "and when it is over at the latest");
    user.get("/logout");
    wait_for("the verdict is shown", SOON, || tidegate.read("watching.log").contains("(1 logged out)"));
    let pages = tidegate.read("watching.log").matches("\x1b[H\x1b[J").count();
    assert!(pages >= 2, "{pages}");
    watching.assert_running();
}

#[test]
fn a_stop_that_waits_closes_the_release_when_nobody_is_left_and_not_before() {
    let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
    let tidegate = seasoned(&a1, &b1);
    let mut user = user_on(&tidegate, "a1");
    tidegate.cli(&["promote", "shop", "v2"]).expect_code(0);
    let refused = tidegate.cli(&["stop", "shop/v1"]).expect_code(1);
    assert!(refused.stderr.contains("tidegate stop shop/v1 --wait"), "{}", refused.stderr);
    let too_short = tidegate.cli(&["stop", "shop/v1", "--wait", "--timeout", "1s"]).expect_code(2);
    assert!(too_short.stderr.contains("timeout, 1 session left"), "{}", too_short.stderr);
    assert_eq!(tidegate.release_state("shop", "v1"), "draining");
    let stop = tidegate.cli_in_background("stop", &["stop", "shop/v1", "--wait"]);
    click_until(&mut user, &tidegate, "stop", "1 of 1 left");
    assert_eq!(tidegate.release_state("shop", "v1"), "draining");
    user.get("/logout");
    ends_with(stop, 0);
    assert_eq!(tidegate.release_state("shop", "v1"), "stopped");
    assert!(tidegate.read("stop.log").contains("release shop/v1 is stopped"), "{}", tidegate.read("stop.log"));
}

#[test]
fn a_backend_that_dies_with_its_sessions_ends_the_waiting_with_3() {
    let (mut a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
    // No session may time out meanwhile: then nobody would be left.
    let tidegate = two_releases(&a1, &b1, "10m");
    let mut user = user_on(&tidegate, "a1");
    let mut waiting = tidegate.cli_in_background("waiting", &["promote", "shop", "v2", "--wait"]);
    click_until(&mut user, &tidegate, "waiting", "1 of 1 left");
    a1.stop();
    let died = Instant::now();
    // Fifteen seconds down are a death, less is a restart.
    let ended = waiting.wait(Duration::from_secs(40));
    assert_eq!(ended.code(), Some(3), "{}", waiting.log_tail());
    assert!(died.elapsed() >= Duration::from_secs(14), "{:?}", died.elapsed());
    let said = tidegate.read("waiting.log");
    assert!(said.contains("shop/v1: all its backends are down, 1 session left"), "{said}");
}

#[test]
fn sessions_that_a_restart_proved_lost_are_told_by_the_exit_code_of_a_drain_that_ends() {
    let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
    let boot = |origin: &Origin, life: &str| {
        origin.answer("/boot", &format!("HTTP/1.1 200 OK\r\nX-Boot: {life}\r\nContent-Length: 0\r\n\r\n"));
    };
    boot(&a1, "first");
    boot(&b1, "first");
    let shop = Shop::new("cookie").session("idle_timeout: 3s").session("confirm_within: 1s");
    let shop = shop.probed("/boot").health("instance_header: X-Boot");
    let tidegate = shop.release("v1", &[&a1]).release("v2", &[&b1]).start();
    tidegate.wait_for_state("shop", "v2", "drained");
    let mut user = user_on(&tidegate, "a1");
    let waiting = tidegate.cli_in_background("waiting", &["promote", "shop", "v2", "--wait"]);
    click_until(&mut user, &tidegate, "waiting", "1 of 1 left");
    // An id that is younger than the last look at the life before is in doubt, not lost.
    let looks = a1.requests_to("/boot").len();
    wait_for("the first life is looked at again", SOON, || a1.requests_to("/boot").len() > looks + 3);
    boot(&a1, "second");
    ends_with(waiting, 3);
    let said = tidegate.read("waiting.log");
    assert!(said.contains("shop/v1 is drained, but 1 session got lost: a backend died"), "{said}");
}

#[test]
fn sessions_left_at_the_end_of_a_patience_are_told_by_the_exit_code() {
    let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
    let tidegate = two_releases(&a1, &b1, "10m");
    let _user = user_on(&tidegate, "a1");
    for (line, expected) in [
        ("promote shop v2 --wait --timeout 1s", "shop/v1: timeout, 1 session left; the drain goes on (tidegate wait "),
        ("promote shop v2 --wait --timeout 1s --then keep", "shop/v1: deadline reached, 1 session left; the drain goes on (tidegate wait "),
    ] {
        let done = tidegate.cli(&line.split(' ').collect::<Vec<_>>()).expect_code(2);
        assert!(done.stderr.contains(expected), "{line}: {}", done.stderr);
        assert!(done.stderr.contains(&latest(&tidegate)), "{line}: {}", done.stderr);
    }
    let drains = tidegate.admin_get("/api/v1/drains");
    let of_v1 = drains["drains"].as_array().unwrap().iter().filter(|drain| drain["target"] == "shop/v1").count();
    assert_eq!(of_v1, 1, "the same promotion attaches to its drain: {drains}");
}

#[test]
fn a_drain_that_somebody_ends_otherwise_is_told_to_whoever_waits() {
    let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
    let tidegate = two_releases(&a1, &b1, "10m");
    let mut user = user_on(&tidegate, "a1");
    let promoting = tidegate.cli_in_background("promoting", &["promote", "shop", "v2", "--wait"]);
    click_until(&mut user, &tidegate, "promoting", "1 of 1 left");
    let again = tidegate.cli_in_background("again", &["promote", "shop", "v2", "--wait"]);
    click_until(&mut user, &tidegate, "again", &format!("{} ", latest(&tidegate)));
    let drain = latest(&tidegate);
    tidegate.cli(&["rollback", "shop"]).expect_code(0);
    ends_with(promoting, 4);
    ends_with(again, 4);
    let superseded = format!("drain {drain} of shop/v1 was superseded, ");
    for name in ["promoting.log", "again.log"] {
        assert!(tidegate.read(name).contains(&superseded), "{}", tidegate.read(name));
    }

    tidegate.cli(&["promote", "shop", "v2"]).expect_code(0);
    let drain = latest(&tidegate);
    let waiting = tidegate.cli_in_background("waiting", &["wait", &drain]);
    click_until(&mut user, &tidegate, "waiting", "1 of 1 left");
    tidegate.admin(Call::new("DELETE", &format!("/api/v1/drains/{drain}"))).expect_status(200);
    ends_with(waiting, 4);
    let said = tidegate.read("waiting.log");
    assert!(said.contains(&format!("drain {drain} of shop/v1 was cancelled, 1 session left")), "{said}");
}

#[test]
fn of_two_pipelines_that_promote_at_once_one_is_refused() {
    let (a1, b1, c1) = (backend("v1", "a1"), backend("v2", "b1"), backend("v3", "c1"));
    let tidegate = Shop::new("cookie").release("v1", &[&a1]).release("v2", &[&b1]).release("v3", &[&c1]).start();
    let promote = |release| tidegate.cli(&["promote", "shop", release, "--from", "v1"]);
    let (second, third) = std::thread::scope(|scope| {
        let (second, third) = (scope.spawn(|| promote("v2")), scope.spawn(|| promote("v3")));
        (second.join().unwrap(), third.join().unwrap())
    });
    let (won, lost, current, other) = if second.code == 0 { (second, third, "v2", "v3") } else { (third, second, "v3", "v2") };
    won.expect_code(0);
    let lost = lost.expect_code(1);
    assert!(lost.stderr.contains(&format!("current is '{current}'")), "{}", lost.stderr);
    assert_eq!(tidegate.status("shop")["current"], current);
    let (status, refused) = tidegate.admin_post("/api/v1/apps/shop/promote", &serde_json::json!({"release": other, "from": "v1"}));
    assert_eq!(status, 409, "{refused}");
    assert_eq!(promote(current).code, 0, "whoever repeats what was done is not refused");
}
