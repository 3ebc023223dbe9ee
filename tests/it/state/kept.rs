//! What commands and drains brought about, after a stop and after a crash.

use std::io::BufReader;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use crate::client::Call;
use crate::http::{Head, Unstated, read_body};
use crate::process::{delay, wait_for, wait_until_equal};
use crate::scenarios::user_on;
use crate::shop::{Shop, backend};
use crate::speaker::{Speaker, answer_ok};
use crate::tidegate::{SOON, Tidegate};

/// Kills it, or stops it in order, and starts it again.
fn again(tidegate: &mut Tidegate, crash: bool) {
    if crash {
        tidegate.kill();
    } else {
        assert!(tidegate.stop().success());
    }
    tidegate.start_again();
}

/// What must be the same afterwards: no counts of the present, no forecasts.
fn lasting(tidegate: &Tidegate) -> Value {
    let status = tidegate.admin_get("/api/v1/status");
    let mut told = serde_json::Map::new();
    told.insert("current".to_owned(), status["apps"]["shop"]["current"].clone());
    for (name, release) in status["apps"]["shop"]["releases"].as_object().expect("releases") {
        told.insert(name.clone(), release["state"].clone());
        for (backend, document) in release["backends"].as_object().expect("backends") {
            let facts = ["address", "intent", "admission", "incarnation"].map(|field| document[field].clone());
            told.insert(format!("{name}/{backend}"), facts.to_vec().into());
        }
    }
    for drain in status["drains"].as_array().expect("drains") {
        let fields = ["target", "state", "owner", "started", "initial", "deadline", "then", "verdict", "finished", "ended"];
        let facts: Vec<Value> = fields.iter().map(|field| drain[field].clone()).collect();
        told.insert(drain["id"].as_str().expect("an id").to_owned(), facts.into());
    }
    told.into()
}

/// Takes every report; the bodies.
fn receiver() -> (Speaker, Arc<Mutex<Vec<Value>>>) {
    let taken: Arc<Mutex<Vec<Value>>> = Arc::default();
    let taking = Arc::clone(&taken);
    let receiver = Speaker::start(move |stream| {
        let (mut input, mut out) = (BufReader::new(stream.try_clone()?), stream);
        let Some(head) = Head::read(&mut input)? else { return Ok(()) };
        let body = read_body(&mut input, &head, Unstated::Empty)?;
        taking.lock().unwrap().push(serde_json::from_slice(&body).expect("JSON"));
        answer_ok(&mut out, "thanks")
    });
    (receiver, taken)
}

#[test]
fn everything_that_commands_and_drains_brought_about_is_there_after_a_crash_and_after_a_stop() {
    let (reports, taken) = receiver();
    let (a1, a2, b1) = (backend("v1", "a1"), backend("v1", "a2"), backend("v2", "b1"));
    let (c1, d1) = (backend("v3", "c1"), backend("v4", "d1"));
    let mut tidegate = Shop::new("cookie")
        .session("idle_timeout: 4s")
        .session("confirm_within: 1s")
        .app(&format!("drain: {{webhook: \"http://127.0.0.1:{}/\"}}", reports.port()))
        .release("v1", &[&a1, &a2])
        .release("v2", &[&b1])
        .release("v3", &[&c1])
        .start();
    let mut keeper = user_on(&tidegate, "a1");
    let mut act = |tidegate: &Tidegate, command: &str| {
        let words: Vec<&str> = command.split(' ').collect();
        tidegate.cli(&words).expect_code(0);
        keeper.get("/").expect_status(200);
    };
    tidegate.wait_for_state("shop", "v3", "drained");
    let drained = tidegate.drain("shop/v3")["id"].as_str().unwrap().to_owned();
    act(&tidegate, "promote shop v2");
    let superseded = tidegate.drain("shop/v1")["id"].as_str().unwrap().to_owned();
    act(&tidegate, "rollback shop");
    act(&tidegate, &format!("stage shop v4 --backend d1={}", d1.address()));
    act(&tidegate, "drain shop/v1/a2 --deadline 4h");
    act(&tidegate, "maintain shop/v2/b1 --force");
    act(&tidegate, "serve shop/v2/b1");
    act(&tidegate, "drain shop/v1/a1 --force");
    let cancelled = tidegate.drain("shop/v1/a1")["id"].as_str().unwrap().to_owned();
    tidegate.admin(Call::new("DELETE", &format!("/api/v1/drains/{cancelled}"))).expect_status(200);
    wait_for("v2 and a2 are empty", SOON, || {
        keeper.get("/").expect_status(200);
        tidegate.drain("shop/v1/a2")["verdict"] == "drained" && tidegate.release_state("shop", "v2") == "drained"
    });
    tidegate.wait_for_backend("shop", "v4", "d1", "health", "up");
    wait_for("verdicts were reported", SOON, || taken.lock().unwrap().len() >= 4);
    delay(Duration::from_millis(500)); // the file has it within 100 ms, or the kill proves that it has not
    let before = lasting(&tidegate);
    let events = |tidegate: &Tidegate| tidegate.cli(&["events"]).expect_code(0).stdout;
    let told = events(&tidegate);
    for crash in [true, false, true] {
        again(&mut tidegate, crash);
        for (release, backend) in [("v1", "a1"), ("v1", "a2"), ("v2", "b1"), ("v4", "d1")] {
            tidegate.wait_for_backend("shop", release, backend, "health", "up");
        }
        let after = lasting(&tidegate);
        assert_eq!(after, before, "crash: {crash}");
        assert!(events(&tidegate).starts_with(&told), "crash: {crash}: {}", events(&tidegate));
        for (id, code) in [(&drained, 0), (&superseded, 4), (&cancelled, 4)] {
            tidegate.cli(&["wait", id]).expect_code(code);
        }
        keeper.disconnect();
        assert_eq!(keeper.get("/").word("session"), "known", "crash: {crash}");
    }
    let mut reported: Vec<String> = taken.lock().unwrap().iter().map(|report| format!("{} {}", report["id"], report["verdict"])).collect();
    let all = reported.len();
    reported.sort();
    reported.dedup();
    assert_eq!(reported.len(), all, "a verdict is reported once: {reported:?}");
    // It goes on where it was: the release that failed is not the one to go back to.
    tidegate.cli(&["promote", "shop", "v4"]).expect_code(0);
    assert_eq!(tidegate.release_state("shop", "v1"), "draining");
}

fn confident(tidegate: &Tidegate, target: &str) -> bool {
    tidegate.drain(target)["confident"].as_bool().expect("a flag")
}

#[test]
fn after_a_stop_counts_are_believed_as_before_and_after_a_crash_where_nobody_can_have_been_born() {
    let (a1, b1, b2) = (backend("v1", "a1"), backend("v2", "b1"), backend("v2", "b2"));
    let shop = Shop::new("cookie").session("idle_timeout: 12s").session("engaged_within: 5s");
    let mut tidegate = shop.release("v1", &[&a1]).release("v2", &[&b1, &b2]).start();
    let (mut old, mut new) = (user_on(&tidegate, "a1"), None);
    tidegate.cli(&["promote", "shop", "v2"]).expect_code(0);
    let mut click = |tidegate: &Tidegate| {
        let new = new.get_or_insert_with(|| user_on(tidegate, "b1"));
        for user in [&mut old, new] {
            user.disconnect();
            user.get("/").expect_status(200);
        }
    };
    tidegate.cli(&["drain", "shop/v2/b1"]).expect_code(0);
    tidegate.cli(&["serve", "shop/v2/b1"]).expect_code(0);
    wait_for("one idle timeout has passed", SOON * 2, || {
        click(&tidegate);
        confident(&tidegate, "shop/v1")
    });
    again(&mut tidegate, false);
    click(&tidegate);
    tidegate.cli(&["drain", "shop/v2/b1"]).expect_code(0);
    assert!(confident(&tidegate, "shop/v1") && confident(&tidegate, "shop/v2/b1"), "nothing is missing");
    tidegate.cli(&["serve", "shop/v2/b1"]).expect_code(0);
    delay(Duration::from_millis(500)); // written within 100 ms
    again(&mut tidegate, true);
    click(&tidegate);
    tidegate.cli(&["drain", "shop/v2/b1"]).expect_code(0);
    assert!(confident(&tidegate, "shop/v1"), "nobody can have been born on a draining release");
    let told = tidegate.drain("shop/v2/b1");
    assert!(!confident(&tidegate, "shop/v2/b1") && told["confidence"].as_str().unwrap().contains("of 12s"), "{told}");
    assert!(tidegate.read("tidegate.log").contains("did not end in order"));
    wait_for("one idle timeout has passed", SOON * 2, || {
        click(&tidegate);
        confident(&tidegate, "shop/v2/b1")
    });
}

#[test]
fn a_running_drain_ends_after_the_restart_and_whoever_waits_learns_of_it() {
    // At once: each waits for an idle timeout, which must be longer than a start takes.
    std::thread::scope(|scope| {
        for crash in [true, false] {
            scope.spawn(move || a_running_drain_ends(crash));
        }
    });
}

fn a_running_drain_ends(crash: bool) {
    let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
    let mut tidegate = Shop::new("cookie").session("idle_timeout: 15s").release("v1", &[&a1]).release("v2", &[&b1]).start();
    let mut user = user_on(&tidegate, "a1");
    wait_for("the start is an idle timeout ago", SOON * 3, || {
        user.get("/").expect_status(200);
        tidegate.release_state("shop", "v2") == "drained"
    });
    tidegate.cli(&["promote", "shop", "v2"]).expect_code(0);
    let id = tidegate.drain("shop/v1")["id"].as_str().unwrap().to_owned();
    let mut other = user_on(&tidegate, "b1");
    delay(Duration::from_millis(500)); // written within 100 ms
    user.get("/");
    again(&mut tidegate, crash);
    let mut waiting = tidegate.cli_in_background("wait", &["wait", &id]);
    user.disconnect();
    user.get("/logout").expect_status(200);
    let ended = waiting.wait(SOON);
    assert_eq!(ended.code(), Some(0), "crash: {crash}: {}", waiting.log_tail());
    assert_eq!(tidegate.drain("shop/v1")["ended"]["logout"], 1, "crash: {crash}");
    other.disconnect();
    assert_eq!(other.get("/").word("backend"), "b1");
    again(&mut tidegate, crash);
    tidegate.cli(&["wait", &id]).expect_code(0);
    assert_eq!(tidegate.release_state("shop", "v1"), "drained", "crash: {crash}");
}

#[test]
fn a_forecast_does_not_begin_from_nothing() {
    let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
    let mut tidegate = Shop::new("cookie").release("v1", &[&a1]).release("v2", &[&b1]).start();
    for _ in 0..60 {
        let mut user = tidegate.browser();
        user.get("/");
        user.get("/");
        user.get("/logout");
    }
    let mut left = user_on(&tidegate, "a1");
    tidegate.cli(&["promote", "shop", "v2"]).expect_code(0);
    let eta = |tidegate: &Tidegate| tidegate.drain("shop/v1")["eta_seconds"]["p50"].as_u64();
    wait_for("there is a forecast", SOON, || eta(&tidegate).is_some());
    again(&mut tidegate, false);
    assert!(eta(&tidegate).is_some(), "{}", tidegate.drain("shop/v1"));
    again(&mut tidegate, true);
    assert!(eta(&tidegate).is_some(), "{}", tidegate.drain("shop/v1"));
    left.disconnect();
    left.get("/logout");
    wait_until_equal("the last one has left", SOON, &0, || tidegate.sessions("shop", "v1").live);
}
